import { expect, test } from 'vitest';
import { guestStateOf, transferOf } from './migrate.ts';
import type { Qmp } from './monitor.ts';
import { QmpCommandError } from './qmp-errors.ts';

test.each([
  ['inmigrate', 'active', 'incoming'],
  ['inmigrate', 'postcopy-active', 'switched'],
  ['paused', 'completed', 'loaded'],
  ['paused', 'postcopy-paused', 'switched'],
  ['running', 'postcopy-paused', 'broken-post-copy'],
  ['running', 'postcopy-recover', 'broken-post-copy'],
  ['finish-migrate', 'postcopy-recover-setup', 'broken-post-copy'],
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

/** A QEMU whose migration connection is gone, and what it was asked. */
function withoutConnection(status: string) {
  const asked: string[] = [];
  const qmp = {
    path: 'qmp',
    execute: async (command: string) => {
      asked.push(command);
      return command === 'query-migrate' ? { status } : {};
    },
    executeOob: async (command: string) => {
      throw new QmpCommandError('qmp', command, { class: 'DeviceNotFound', desc: 'Instance not found' });
    },
  };
  // The cast: only what cutting a connection needs.
  return { asked, transfer: transferOf(qmp as unknown as Qmp, 64) };
}

test('a QEMU that says device for ever, without a connection, is ended when it shall cut it', async () => {
  const { asked, transfer } = withoutConnection('device');
  await transfer.cutConnection();
  expect(asked).toEqual(['query-migrate', 'quit']);
});

test.each(['completed', 'failed', 'active'])(
  'a QEMU without a connection that says %s is not ended',
  async (status) => {
    const { asked, transfer } = withoutConnection(status);
    await expect(transfer.cutConnection()).rejects.toThrow('Instance not found');
    expect(asked).toEqual(['query-migrate']);
  },
);
