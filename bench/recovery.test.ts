/** The table of `bench recovery`: what it says of guests that came back, and of those that did not well. */
import { describe, expect, it } from 'vitest';
import { aimText } from './figures.ts';
import { allRestartedWell, recoveryAims, type Loss } from './recovery.ts';

const recovery = { id: 'r', host: 'h1', vms: [] } as unknown as Loss['recovery'];

function loss(way: Loss['way'], placeMs: readonly number[], ok = true): Loss {
  const vms = placeMs.map((each, n) => ({
    vm: `vm${n}`,
    priority: 500,
    target: 'h2',
    detectMs: 3_000,
    fenceMs: 500,
    placeMs: each,
    bootMs: 4_000,
    totalMs: 7_500 + each,
    proof: { ok, says: ok ? 'disk verified' : 'disk foreign' },
  }));
  return { way, host: 'h1', recovery, vms };
}

describe('the figures of lost hosts', () => {
  it('hold the slowest guest against the aim of its way, not the middle one', () => {
    const losses = [loss('power controller', [100, 100, 1_600]), loss('lease alone', [100])];
    expect(recoveryAims({ losses }).map(aimText)).toEqual([
      'power controller: detect, fence and place: 5.10 s, aim 5 s: MISSED',
      'lease alone: detect, fence and place: 3.60 s, aim 20 s: met',
    ]);
  });

  it('say of a way that was not tried that it was not measured', () => {
    const [, lease] = recoveryAims({ losses: [loss('power controller', [100])] });
    expect(lease && aimText(lease)).toContain('not measured');
  });

  it('are not good when one guest came back on a wrong disk', () => {
    expect(allRestartedWell({ losses: [loss('lease alone', [100])] })).toBe(true);
    expect(allRestartedWell({ losses: [loss('lease alone', [100]), loss('lease alone', [100], false)] })).toBe(false);
  });
});
