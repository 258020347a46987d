import { expect, test } from 'vitest';
import { TestClock } from '../runtime/clock.ts';
import { silentLog } from '../runtime/log.ts';
import { running } from './fake-host.ts';
import type { GuardMemory } from './guard/guard.ts';
import { openLeases } from './leases.ts';

const spec = { ...running.spec, disks: [{ pool: 'default', file: 'web1/disk', format: 'raw' as const }] };

function leasesWith(state: GuardMemory['state'], renewedAgoMs: number) {
  const clock = new TestClock();
  const renewedAtMs = clock.monotonic() - renewedAgoMs;
  const memory: GuardMemory = { poolId: 'p', state, generation: 1, renewedAtMs, leaseTimeMs: 10_000 };
  const read = () => ({
    schema: 1 as const,
    bootId: 'b',
    guard: { pid: 1, startTicks: '1' },
    tickedAtMs: renewedAtMs,
    watchdog: false,
    pools: [{ name: 'default', paths: ['/pool'], memory }],
  });
  const guestsOn = () => ({ usingPool: () => [], kill: () => {} });
  return openLeases({
    host: 'h1',
    pools: [],
    clock,
    log: silentLog,
    restMark: { set: () => {}, clear: () => {} },
    guardian: { read, guestsOn, killGuard: () => {} },
  });
}

test('a guest may use a pool while the lease on it is kept or was given back, and not when it is lost or ran out', () => {
  expect(leasesWith('held', 3_000).trouble(spec)).toBeNull();
  expect(leasesWith('released', 60_000).trouble(spec)).toBeNull();
  expect(leasesWith('lost', 12_000).trouble(spec)).toContain("lease on the pool 'default'");
  expect(leasesWith('held', 11_000).trouble(spec)).toContain("lease on the pool 'default'");
  expect(leasesWith('lost', 12_000).trouble({ ...spec, disks: [] })).toBeNull();
});

test('the own lease is reported with the time that is left, while it is held', () => {
  expect(leasesWith('held', 3_000).guards()).toEqual([
    { pool: 'default', poolId: 'p', leaseTimeMs: 10_000, leftMs: 7_000, watchdog: false },
  ]);
  expect(leasesWith('lost', 3_000).guards()).toEqual([]);
  expect(leasesWith('held', 12_000).guards()).toEqual([]);
});

test('the inventory says whether a watchdog covers the guard, also while the lease is lost', async () => {
  expect(await leasesWith('lost', 12_000).known()).toEqual({ poolIds: {}, watchdog: false });
});
