import { appendFileSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import type { MigrationId } from '../model/ids.ts';
import { factsOn, openFacts, type FactDisk, type Numbered } from './facts.ts';
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

test('half a line that found no room spoils neither those before nor the next', () => {
  let text = '';
  let room = Infinity;
  const lineOf = (each: Numbered) => `${JSON.stringify(each)}\n`;
  const parsed = (line: string): Numbered[] => {
    try {
      return [JSON.parse(line) as Numbered]; // as it was written
    } catch {
      return [];
    }
  };
  const disk: FactDisk = {
    read: () => text.split('\n').flatMap(parsed),
    append(each) {
      const line = lineOf(each);
      text += line.slice(0, room);
      if (line.length > room) throw new Error('no space left on device');
    },
    replace: (all) => void (text = all.map(lineOf).join('')),
  };
  const facts = factsOn(disk, openJournal(dir));
  facts.migration(fact(1));
  room = 10;
  expect(() => facts.migration(fact(2))).toThrow('no space');
  room = Infinity;
  facts.migration(fact(3));
  expect(times(factsOn(disk, openJournal(dir)))).toEqual([1, 3]);
});

test('a line that a crash cut short spoils neither those before nor the next', () => {
  open().migration(fact(1));
  appendFileSync(join(dir, 'facts.ndjson'), '{"number":7,"fa');
  open().migration(fact(2));
  expect(times(open())).toEqual([1, 2]);
});
