import { expect, test } from 'vitest';
import { TestClock } from '../../runtime/clock.ts';
import { silentLog } from '../../runtime/log.ts';
import { SecondGuardian } from './second-guardian.ts';
import type { GuardState } from './state-file.ts';

const leaseTimeMs = 10_000;

async function setUp() {
  const clock = new TestClock();
  await clock.advance(100_000);
  const alive = new Set(['web1']);
  const killedGuards: number[] = [];
  const stateAt = (at: number, state: 'held' | 'lost' | 'released' = 'held'): GuardState => ({
    schema: 1,
    bootId: 'boot-1',
    guard: { pid: 42, startTicks: '7' },
    tickedAtMs: at,
    watchdog: false,
    pools: [
      {
        name: 'default',
        paths: ['/pool'],
        memory: { poolId: 'pool-1', state, generation: 1, renewedAtMs: at, leaseTimeMs },
      },
    ],
  });
  const told: { state: GuardState | null } = { state: stateAt(clock.monotonic()) };
  const guardian = new SecondGuardian({
    clock,
    read: () => told.state,
    guestsOn: () => ({ usingPool: () => [...alive], kill: () => alive.clear() }),
    killGuard: ({ pid }) => killedGuards.push(pid),
    log: silentLog,
  });
  void guardian.run(new AbortController().signal);
  /** The guard moves for so long. */
  const guarded = async (ms: number) => {
    for (let passed = 0; passed < ms; passed += 500) {
      told.state = stateAt(clock.monotonic());
      await clock.advance(500);
    }
  };
  return { clock, alive, killedGuards, told, stateAt, guarded };
}

test('While the guard moves the agent does nothing.', async () => {
  const { guarded, alive, killedGuards } = await setUp();
  await guarded(60_000);
  expect(alive.size).toBe(1);
  expect(killedGuards).toEqual([]);
});

test('A guard that stands still is killed once, in time for the next one to go on with the lease.', async () => {
  const { clock, guarded, alive, killedGuards } = await setUp();
  await guarded(10_000);
  await clock.advance(5_000);
  expect(killedGuards).toEqual([42]);
  await guarded(30_000);
  expect(alive.size).toBe(1);
  expect(killedGuards).toEqual([42]);
});

test('Without a guard the agent kills the guests when the lease has run out, and those that come later.', async () => {
  const { clock, guarded, alive } = await setUp();
  await guarded(10_000);
  await clock.advance(9_000);
  expect(alive.size).toBe(1);
  await clock.advance(1_000);
  expect(alive.size).toBe(0);
  alive.add('web2');
  await clock.advance(1_000);
  expect(alive.size).toBe(0);
});

test('A lease that was given back, or a guard that never ran, leaves guests alone.', async () => {
  for (const never of [false, true]) {
    const { clock, told, stateAt, alive, killedGuards } = await setUp();
    told.state = never ? null : stateAt(clock.monotonic(), 'released');
    await clock.advance(60_000);
    expect(alive.size).toBe(1);
    expect(killedGuards).toEqual([]);
  }
});

test('An agent that starts after a long absence of both waits a moment for the guard.', async () => {
  const { clock, told, stateAt, alive, guarded } = await setUp();
  told.state = stateAt(clock.monotonic() - 60_000);
  await clock.advance(4_000);
  expect(alive.size).toBe(1);
  await guarded(10_000);
  expect(alive.size).toBe(1);
});

test('A guard that died just before it was to kill is stood in for before anybody may take the lease.', async () => {
  const { clock, told, stateAt, alive } = await setUp();
  const lastRenewal = stateAt(clock.monotonic());
  for (let passed = 0; passed < 9_900; passed += 100) {
    told.state = { ...lastRenewal, tickedAtMs: clock.monotonic() };
    await clock.advance(100);
  }
  expect(alive.size).toBe(1);
  await clock.advance(900);
  expect(alive.size).toBe(0);
});
