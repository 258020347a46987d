import { expect, test } from 'vitest';
import { guestStateOf } from './migrate.ts';

test.each([
  ['inmigrate', 'active', 'incoming'],
  ['inmigrate', 'postcopy-active', 'switched'],
  ['paused', 'completed', 'loaded'],
  ['paused', 'postcopy-paused', 'switched'],
  ['finish-migrate', 'device', 'sending'],
  ['finish-migrate', 'completed', 'sent'],
  ['finish-migrate', 'postcopy-active', 'sending-post-copy'],
  ['postmigrate', 'completed', 'sent'],
  ['postmigrate', 'postcopy-active', 'sending-post-copy'],
  ['running', 'completed', 'running'],
  ['running', 'active', 'sending'],
  ['running', undefined, 'running'],
] as const)('a guest that is %s with its transfer %s is %s', (runState, status, state) => {
  expect(guestStateOf(runState, status)).toBe(state);
});
