import { describe, expect, test } from 'vitest';
import { MiB } from '../model/units.ts';
import { dirtiedWithin, dirtyBytesPerSecond, fitWriting, noWriting } from './writing.ts';

const point = (overMs: number, sizeMiB: number) => ({ overMs, bytes: sizeMiB * MiB });

describe('the fit', () => {
  test('of no points, or of nothing written, is no writing', () => {
    expect(fitWriting([])).toEqual(noWriting);
    expect(fitWriting([point(250, 0), point(1000, 0)])).toEqual(noWriting);
    expect(dirtiedWithin(noWriting, 10_000, Infinity)).toBe(0);
  });

  test('of points on one hot set finds the set again', () => {
    const set = { hotBytes: 128 * MiB, hotMs: 700, coldBytesPerSecond: 0 };
    const fit = fitWriting([250, 1000].map((overMs) => ({ overMs, bytes: dirtiedWithin(set, overMs, Infinity) })));
    expect(fit.hotBytes / set.hotBytes).toBeCloseTo(1, 1);
    expect(dirtiedWithin(fit, 5_000, Infinity) / (128 * MiB)).toBeCloseTo(1, 1);
  });

  test('tells a cold set from a hot one by points at three times', () => {
    const both = { hotBytes: 30 * MiB, hotMs: 200, coldBytesPerSecond: 5 * MiB };
    const fit = fitWriting(
      [100, 1000, 10_000].map((overMs) => ({ overMs, bytes: dirtiedWithin(both, overMs, Infinity) })),
    );
    expect(fit.coldBytesPerSecond / both.coldBytesPerSecond).toBeCloseTo(1, 1);
    expect(fit.hotBytes / both.hotBytes).toBeCloseTo(1, 1);
  });

  test('of one point, which leaves it open, takes neither a blink nor an hour for the hot set', () => {
    // The one round of a hybrid move: 32 MiB after four seconds. A set written in a blink would never converge.
    const fit = fitWriting([point(4000, 32)]);
    expect(dirtiedWithin(fit, 4000, Infinity) / MiB).toBeCloseTo(32, 6);
    expect(dirtyBytesPerSecond(fit) / MiB).toBeGreaterThan(8);
    expect(dirtyBytesPerSecond(fit) / MiB).toBeLessThan(20);
  });

  test('passes through a rate that grows with time', () => {
    const fit = fitWriting([point(250, 2.5), point(1000, 10)]);
    expect(dirtyBytesPerSecond(fit) / MiB).toBeCloseTo(10, 0);
    expect(dirtiedWithin(fit, 4_000, Infinity) / MiB).toBeCloseTo(40, -1);
  });

  test('of the rounds of a real move comes near to each of them', () => {
    // Lab, TCG: 2500 pages a second on 32 MiB, sent over 1 Gbit/s.
    const rounds = [point(3822, 35.1), point(305, 3.5), point(32, 0.9)];
    const fit = fitWriting(rounds);
    for (const { overMs, bytes } of rounds.slice(0, 2))
      expect(Math.abs(Math.log(dirtiedWithin(fit, overMs, Infinity) / bytes))).toBeLessThan(0.25);
  });

  test('passes over points that say nothing', () => {
    expect(fitWriting([point(0, 5), { overMs: 100, bytes: NaN }, point(1000, 0)])).toEqual(noWriting);
  });
});

test('a guest never dirties more than it has', () => {
  expect(dirtiedWithin({ hotBytes: 0, hotMs: 1000, coldBytesPerSecond: 10 * MiB }, 60_000, 256 * MiB)).toBe(256 * MiB);
});
