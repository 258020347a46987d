/**
 * How a guest writes to its memory, worked out from a few points ("so much was dirty after so long"), from sampling or from the
 * rounds of an earlier move. Pure.
 *
 * Method: two sets, hot and cold, as in the network view of BtrPlace (Kherbache et al., mVM). Writes are taken to fall at random
 * on the hot set, so it fills up as 1 - e^(-t/d). Not here: what follows for a move (forecast.ts).
 */
import type { Dirtied, Writing } from '../model/forecast.ts';
import { pageBytes } from '../model/units.ts';

export const noWriting: Writing = { hotBytes: 0, hotMs: 1000, coldBytesPerSecond: 0 };

/** Below this a difference between points says nothing: sampling sees whole samples, not single pages. */
const noiseBytes = 64 * pageBytes;
/** Where points leave it open in which time the hot set is written, as one alone does: as in BtrPlace's model. */
const usualHotMs = 2000;
/** Candidates for that time, 20 ms to some ten minutes, the likeliest first. */
const hotTimesMs = Array.from({ length: 64 }, (_, i) => 20 * 1.18 ** i).toSorted(
  (a, b) => Math.abs(Math.log(a / usualHotMs)) - Math.abs(Math.log(b / usualHotMs)),
);
/** A difference in the error that is none. */
const sameError = 1e-6;
/** A cold set is believed in where it explains clearly more than a hot one alone. */
const clearlyBetter = 0.5;
/** Points at fewer times than this cannot tell two sets apart. */
const timesForTwoSets = 3;

/** Distinct bytes written within that time, never more than there are. */
export function dirtiedWithin({ hotBytes, hotMs, coldBytesPerSecond }: Writing, ms: number, mostBytes: number): number {
  const bytes = hotBytes * (1 - Math.exp(-ms / hotMs)) + (coldBytesPerSecond * ms) / 1000;
  return Math.min(mostBytes, Math.max(0, bytes));
}

/** Distinct bytes per second over the first second: what `calc-dirty-rate` calls the dirty rate. */
export function dirtyBytesPerSecond(writing: Writing): number {
  return dirtiedWithin(writing, 1000, Infinity);
}

/** The writing that comes nearest to all points, each by its relative error. No points: no writing. */
export function fitWriting(points: readonly Dirtied[]): Writing {
  const usable = points.filter(({ overMs, bytes }) => overMs > 0 && Number.isFinite(bytes) && bytes >= 0);
  if (usable.every(({ bytes }) => bytes === 0)) return noWriting;
  const oneSet = bestOf(usable, false);
  if (new Set(usable.map(({ overMs }) => overMs)).size < timesForTwoSets) return oneSet.writing;
  const twoSets = bestOf(usable, true);
  return twoSets.error < oneSet.error * clearlyBetter ? twoSets.writing : oneSet.writing;
}

interface Fit {
  readonly writing: Writing;
  readonly error: number;
}

function bestOf(points: readonly Dirtied[], withCold: boolean): Fit {
  let best: Fit = { writing: noWriting, error: Infinity };
  for (const hotMs of hotTimesMs) {
    const fit = fitAt(points, hotMs, withCold);
    if (fit.error < best.error - sameError) best = fit;
  }
  return best;
}

/** Weighted least squares of `bytes = hot * (1 - e^(-t/d)) + cold * t` for a given d, neither below zero. */
function fitAt(points: readonly Dirtied[], hotMs: number, withCold: boolean): Fit {
  let [aa, ab, bb, ay, by] = [0, 0, 0, 0, 0];
  for (const { overMs, bytes } of points) {
    const weight = 1 / (bytes + noiseBytes) ** 2;
    const a = 1 - Math.exp(-overMs / hotMs);
    const b = overMs / 1000;
    aa += weight * a * a;
    ab += weight * a * b;
    bb += weight * b * b;
    ay += weight * a * bytes;
    by += weight * b * bytes;
  }
  const determinant = aa * bb - ab * ab;
  let [hot, cold] = [ay / aa, 0];
  if (withCold && determinant > 1e-12 * aa * bb) {
    [hot, cold] = [(ay * bb - by * ab) / determinant, (by * aa - ay * ab) / determinant];
    if (cold < 0) [hot, cold] = [ay / aa, 0];
    else if (hot < 0) [hot, cold] = [0, by / bb];
  }
  const writing = { hotBytes: hot, hotMs, coldBytesPerSecond: cold };
  const error = points.reduce((sum, { overMs, bytes }) => {
    const off = (dirtiedWithin(writing, overMs, Infinity) - bytes) / (bytes + noiseBytes);
    return sum + off * off;
  }, 0);
  return { writing, error };
}
