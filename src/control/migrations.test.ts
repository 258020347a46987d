/** What is forgotten of moves that have ended. What becomes of moves: walks.test.ts. */
import { expect, test } from 'vitest';
import { defaultBalanceSettings } from '../model/distribution.ts';
import { newId } from '../model/ids.ts';
import type { Migration } from '../model/migration.ts';
import { forgettable } from './migrations.ts';

const now = 1e12;
const bytes = new Uint8Array(8);

/** Moves that ended one after the other, a second each, the last of them now. */
function moves(count: number): Migration[] {
  return Array.from({ length: count }, (_, n) => {
    const endedAt = now - 1000 * (count - n);
    // The cast: nothing but its id and its end is looked at.
    return { id: newId('migration', endedAt, bytes), phase: 'completed', endedAt } as unknown as Migration;
  });
}

function forgotten(count: number, dwellMs: number, unsettled: readonly number[] = []): number[] {
  const all = moves(count);
  const fleet = {
    migrations: new Map(all.map((move) => [move.id, move])),
    balance: { ...defaultBalanceSettings, dwellMs },
    unsettledMigrations: () => unsettled.map((n) => all[n]!),
  };
  return forgettable(fleet, now).map((id) => all.findIndex((move) => move.id === id));
}

test('of more than five thousand moves the oldest are forgotten, some at a time, and none that is still cleared away after', () => {
  expect(forgotten(5_000, 0)).toEqual([]);
  expect(forgotten(5_003, 0)).toEqual([0, 1, 2]);
  expect(forgotten(5_003, 0, [1])).toEqual([0, 2, 3]);
  expect(forgotten(9_000, 0)).toHaveLength(50);
});

test('a move is kept as long as its VM is to be left alone for it, unless there are very many', () => {
  expect(forgotten(5_003, 3_600_000)).toEqual([0, 1, 2]);
  expect(forgotten(5_003, 5_002_000)).toEqual([0, 1]);
  expect(forgotten(9_000, 10_000_000)).toEqual([]);
  expect(forgotten(20_001, 100_000_000)).toHaveLength(50);
});
