import { expect, test } from 'vitest';
import { LoadTrace, traceStepMs } from './load-trace.ts';

test('gives means over half a minute, the one that goes on included, oldest first', () => {
  const trace = new LoadTrace();
  for (let at = 0; at < 75_000; at += 1_000) trace.add(at < 30_000 ? 1 : at < 60_000 ? 2 : 5, 1_000, at);
  const now = 74_000;
  expect(trace.samples(now)).toEqual([
    { agoMs: now - 15_000, value: 1 },
    { agoMs: now - 45_000, value: 2 },
    { agoMs: 0, value: 5 },
  ]);
});

test('keeps an hour, and forgets what is older also where nothing was said since', () => {
  const trace = new LoadTrace();
  for (let at = 0; at < 5_400_000; at += 5_000) trace.add(at / traceStepMs, 5_000, at);
  const samples = trace.samples(5_399_000);
  expect(samples).toHaveLength(120);
  expect(samples[0]?.agoMs).toBeLessThanOrEqual(3_600_000);
  expect(samples.map(({ value }) => value)).toEqual(samples.map(({ value }) => value).toSorted((a, b) => a - b));
  expect(trace.samples(5_399_000 + 1_800_000)).toHaveLength(60);
  expect(trace.samples(5_399_000 + 3_600_000)).toEqual([]);
});

test('leaves a gap where nothing was said, however long', () => {
  const trace = new LoadTrace();
  trace.add(1, 1_000, 10_000);
  trace.add(2, 1_000, 310_000);
  expect(trace.samples(310_000).map(({ value }) => value)).toEqual([1, 2]);
  trace.add(3, 1_000, 90_000_000);
  expect(trace.samples(90_000_000).map(({ value }) => value)).toEqual([3]);
});
