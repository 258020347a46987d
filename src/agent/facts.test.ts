import { appendFileSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import type { MigrationId } from '../model/ids.ts';
import { openFacts } from './facts.ts';
import { openJournal } from './journal.ts';

let dir: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'drover-facts-'));
});
afterEach(() => rmSync(dir, { recursive: true }));

const open = () => openFacts(dir, openJournal(dir));
const fact = (at: number) => ({ migration: 'mig_1' as MigrationId, at, kind: 'sending' }) as const;
const times = (facts: ReturnType<typeof open>) => facts.unacknowledged().map(({ fact: { fact: each } }) => each.at);

test('what was not acknowledged is kept over a restart, and no number comes twice', () => {
  const before = open();
  for (const at of [1, 2, 3]) before.migration(fact(at));
  const numbers = before.unacknowledged().map(({ number }) => number);
  before.acknowledge(numbers[0] ?? 0);
  expect(times(before)).toEqual([2, 3]);
  const after = open();
  expect(times(after).slice(-2)).toEqual([2, 3]);
  after.migration(fact(4));
  expect(numbers).not.toContain(after.unacknowledged().at(-1)?.number);
});

test('a line that a crash cut short spoils neither those before nor the next', () => {
  open().migration(fact(1));
  appendFileSync(join(dir, 'facts.ndjson'), '{"number":7,"fa');
  open().migration(fact(2));
  expect(times(open())).toEqual([1, 2]);
});
