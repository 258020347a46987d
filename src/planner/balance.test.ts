import { describe, expect, it } from 'vitest';
import { snapshotAfter } from './answer.ts';
import { balance, peakAim } from './balance.ts';
import { fakeHost, fakeSnapshot, fakeVm, unevenFleet } from './fake-fleet.ts';

describe('balance', () => {
  it('moves VMs from a loaded host to an idle one and says why', () => {
    const busy = { cpuCores: 3, memoryMiB: 2048, diskBytesPerSecond: 0, netBytesPerSecond: 0 };
    const vms = [1, 2, 3, 4].map((i) => fakeVm(`vm${i}`, 'h1', { load: busy }));
    const plan = balance(fakeSnapshot([fakeHost('h1'), fakeHost('h2')], vms));
    expect(plan.moves).toHaveLength(2);
    expect(plan.moves[0]).toMatchObject({ from: 'h1', to: 'h2', wave: 1, startMs: 0 });
    expect(plan.moves[0]?.reason).toBe('Evens out CPU: h1 75 % to 56 %, h2 0 % to 19 %.');
    expect(plan.score.after.total).toBeLessThan(plan.score.before.total);
  });

  it('proposes nothing for the fleet that it has balanced', () => {
    const snapshot = unevenFleet(6, 10, 3);
    const plan = balance(snapshot);
    expect(plan.moves.length).toBeGreaterThan(0);
    expect(balance(snapshotAfter(snapshot, plan)).moves).toEqual([]);
  });

  it('keeps within a budget of moves and of memory', () => {
    const snapshot = unevenFleet(6, 10, 3);
    expect(balance(snapshot, { budget: { moves: 3 } }).moves).toHaveLength(3);
    expect(balance(snapshot, { budget: { memoryMiB: 5000 } }).used.memoryMiB).toBeLessThanOrEqual(5000);
  });

  it('leaves alone a VM that was moved lately', () => {
    const busy = { cpuCores: 3, memoryMiB: 2048, diskBytesPerSecond: 0, netBytesPerSecond: 0 };
    const vms = [1, 2].map((i) => fakeVm(`vm${i}`, 'h1', { load: busy, lastMovedAt: 999_900_000 }));
    expect(balance(fakeSnapshot([fakeHost('h1'), fakeHost('h2')], vms)).moves).toEqual([]);
  });

  it('with the aim of the smallest peak takes the load off the hottest host only', () => {
    const loads = [6, 5, 1, 1];
    const vms = loads.map((cpuCores, i) => {
      const load = { cpuCores, memoryMiB: 2048, diskBytesPerSecond: 0, netBytesPerSecond: 0 };
      return fakeVm(`vm${i}`, i < 2 ? 'h1' : 'h2', { load });
    });
    const snapshot = fakeSnapshot([fakeHost('h1'), fakeHost('h2')], vms);
    const plan = balance(snapshot, { budget: { moves: 1 } }, peakAim);
    expect(plan.moves.map(({ vm }) => vm)).toEqual(['vm1']);
    expect(plan.score.after.total).toBeCloseTo(7 / 16, 9);
  });
});
