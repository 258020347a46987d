import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { readGuardState, writeGuardState, type GuardState } from './state-file.ts';

let dir: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'drover-guard-'));
});
afterEach(() => rmSync(dir, { recursive: true }));

const state: GuardState = {
  schema: 1,
  bootId: 'boot-1',
  guard: { pid: 7, startTicks: '100' },
  tickedAtMs: 1_000,
  watchdog: false,
  pools: [],
};

test('A guard that finds no room for another file writes over the one there is: the agent sees that it moves.', () => {
  const path = join(dir, 'guard.json');
  const pools = ['default', 'fast'].map((name) => ({
    name,
    paths: [`/srv/${name}`],
    memory: { poolId: 'p', state: 'held', generation: 1, renewedAtMs: 900, leaseTimeMs: 10_000 } as const,
  }));
  writeGuardState(path, { ...state, pools });
  mkdirSync(`${path}.new`); // nothing can be written there
  for (const next of [
    { ...state, tickedAtMs: 2_000, pools },
    { ...state, tickedAtMs: 3_000 },
    { ...state, tickedAtMs: 1e9, pools },
  ]) {
    writeGuardState(path, next);
    expect(readGuardState(path, 'boot-1')).toEqual(next);
  }
  expect(readGuardState(path, 'boot-2')).toBeNull();
});
