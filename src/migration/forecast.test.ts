import { describe, expect, test } from 'vitest';
import type { Writing } from '../model/forecast.ts';
import { MiB } from '../model/units.ts';
import { forecastBy, forecastMove, type ForecastInput } from './forecast.ts';
import { quickBytes, quickMs } from './quick-forecast.ts';
import { noWriting } from './writing.ts';

/** 1 GiB, all of it in use, over 100 MiB/s, under TCG: 25 ms to switch, 55 to wake up, 250 to begin and 370 to end. */
const given: ForecastInput = {
  memoryBytes: 1024 * MiB,
  inUseBytes: 1024 * MiB,
  writing: noWriting,
  bytesPerSecond: 100 * MiB,
  policy: {},
  postCopy: true,
  accel: 'tcg',
};
const cold = (MiBPerSecond: number): Writing => ({ ...noWriting, coldBytesPerSecond: MiBPerSecond * MiB });
/** Written whole within a blink. */
const hot = (sizeMiB: number): Writing => ({ hotBytes: sizeMiB * MiB, hotMs: 20, coldBytesPerSecond: 0 });

describe('a pre-copy', () => {
  test('of a guest that writes nothing sends its memory once, zero pages as marks', () => {
    // 512 MiB, and 131072 zero pages of 9 bytes: 538050560 bytes, 5131.25 ms.
    const forecast = forecastBy('pre-copy', { ...given, inUseBytes: 512 * MiB });
    expect(forecast).toMatchObject({ converges: true, because: null, rounds: 1, faults: 0, bytes: 538_050_560 });
    expect(forecast.totalMs).toBeCloseTo(250 + 5131.25 + 25 + 370, 6);
    expect(forecast.downtimeMs).toBeCloseTo(25, 6);
    expect(forecast.blackoutMs).toBeCloseTo(80, 6);
  });

  test('is a geometric series where pages are written at an even rate', () => {
    // Rounds of 1024, 102.4 and 10.24 MiB; 1.024 MiB is left and fits into 30 ms (3 MiB).
    const forecast = forecastBy('pre-copy', { ...given, writing: cold(10) });
    expect(forecast.rounds).toBe(3);
    expect(forecast.bytes).toBe(Math.round((1024 + 102.4 + 10.24 + 1.024) * MiB));
    expect(forecast.downtimeMs).toBeCloseTo(10.24 + 25, 6);
    expect(forecast.totalMs).toBeCloseTo(250 + 10_240 + 1_024 + 102.4 + 10.24 + 25 + 370, 6);
  });

  test('sends no more of a hot set than there is of it', () => {
    // After 10.24 s all 50 MiB are dirty, after 0.5 s again: it stalls, and 0.5 s of pause are more than the 300 ms allowed.
    const forecast = forecastBy('pre-copy', { ...given, writing: hot(50) });
    expect(forecast).toMatchObject({ converges: false, rounds: 4, bytes: (1024 + 3 * 50) * MiB });
    expect(forecast.because).toContain('3 rounds brought no progress');
    expect(forecast.downtimeMs).toBeCloseTo(525, 3);
  });

  test('ends within a pause that is allowed to be long enough', () => {
    const forecast = forecastBy('pre-copy', { ...given, writing: hot(50), policy: { maxDowntimeMs: 1000 } });
    expect(forecast).toMatchObject({ converges: true, endsBy: 'stop-and-copy' });
    expect(forecast.downtimeMs).toBeCloseTo(525, 3);
  });

  test('that may pause says for how long, and one that may switch becomes a post-copy', () => {
    const paused = forecastBy('pre-copy', { ...given, writing: hot(200), policy: { whenNotConverging: 'pause' } });
    expect(paused).toMatchObject({ converges: true, endsBy: 'stop-and-copy' });
    expect(paused.because).toContain('paused for 2.0 s');
    const switched = forecastBy('pre-copy', {
      ...given,
      writing: hot(200),
      policy: { whenNotConverging: 'post-copy' },
    });
    expect(switched).toMatchObject({ converges: true, endsBy: 'post-copy' });
  });

  test('takes longer when it is allowed less of the link', () => {
    const forecast = forecastBy('pre-copy', { ...given, policy: { maxBandwidthBytesPerSecond: 50 * MiB } });
    expect(forecast.totalMs).toBeCloseTo(250 + 20_480 + 25 + 370, 6);
  });

  test('gives up at its deadline, also within its first round', () => {
    const forecast = forecastBy('pre-copy', { ...given, policy: { deadlineMs: 4_000 } });
    expect(forecast).toMatchObject({ converges: false, rounds: 0, bytes: 400 * MiB });
    expect(forecast.because).toContain('deadline of 4.0 s');
  });

  test('converges with auto-converge where it does not without', () => {
    const fast = { ...given, writing: cold(95), policy: { maxDowntimeMs: 30 } };
    expect(forecastBy('pre-copy', { ...fast, policy: { ...fast.policy, autoConverge: true } }).converges).toBe(true);
    expect(forecastBy('pre-copy', { ...fast, writing: cold(120) }).converges).toBe(false);
  });
});

describe('a post-copy', () => {
  test('sends each page once and lets clients wait for those that are needed first', () => {
    // A fault takes 0.5 ms and 256 KiB of the queue: 3 ms; 120 of them before the first answer.
    const forecast = forecastBy('post-copy', given);
    expect(forecast).toMatchObject({ endsBy: 'post-copy', rounds: 0, bytes: 1024 * MiB, faults: 120 });
    expect(forecast.totalMs).toBeCloseTo(250 + 25 + 10_240 + 370, 6);
    expect(forecast.downtimeMs).toBe(25);
    expect(forecast.blackoutMs).toBeCloseTo(25 + 55 + 360, 6);
  });

  test('after a first round sends what that left', () => {
    const forecast = forecastBy('hybrid', { ...given, writing: hot(128) });
    expect(forecast).toMatchObject({ endsBy: 'post-copy', because: null, rounds: 1, bytes: 1152 * MiB });
    // An eighth is missing: 50 faults of 3 ms before the first answer.
    expect(forecast.blackoutMs).toBeCloseTo(80 + 150, 6);
  });

  test('is not needed where hardly anything is left: hybrid ends as a pre-copy', () => {
    expect(forecastBy('hybrid', given)).toMatchObject({ endsBy: 'stop-and-copy', faults: 0 });
  });

  test('that the target cannot receive leaves hybrid a pre-copy', () => {
    const forecast = forecastBy('hybrid', { ...given, postCopy: false, writing: cold(10) });
    expect(forecast).toMatchObject({ endsBy: 'stop-and-copy', rounds: 3 });
  });
});

test('auto says what it would choose: pre-copy for a calm guest, a switch with its reason for a busy one', () => {
  const calm = forecastMove({ ...given, writing: cold(10) });
  expect(calm.auto).toEqual(calm['pre-copy']);
  const busy = forecastMove({ ...given, writing: hot(200) });
  expect(busy.auto).toMatchObject({ converges: true, endsBy: 'post-copy', rounds: 2 });
  expect(busy.auto.because).toMatch(/^the guest writes .* the link carries 100 MiB\/s$/);
  expect(busy['pre-copy'].converges).toBe(false);
});

test('a cold move sends no memory; clients wait for shutdown, start and boot', () => {
  const forecast = forecastBy('cold', { ...given, policy: { shutdownTimeoutMs: 1000 } });
  expect(forecast).toMatchObject({ endsBy: 'restart', bytes: 0, totalMs: 1150, downtimeMs: 150, blackoutMs: 9150 });
});

describe('the short form', () => {
  test('agrees with the long one where pages are written at an even rate', () => {
    const long = forecastBy('pre-copy', { ...given, writing: cold(10) });
    const bytes = quickBytes(1024 * MiB, 10 * MiB, Infinity, 100 * MiB);
    expect(bytes / long.bytes).toBeCloseTo(1, 2);
    expect(quickMs(bytes, 100 * MiB) / long.totalMs).toBeCloseTo(1, 2);
  });

  test('takes a guest that writes faster than the link for one that switches after a round', () => {
    expect(quickBytes(1024 * MiB, 200 * MiB, 128 * MiB, 100 * MiB)).toBe(1152 * MiB);
    expect(quickBytes(1024 * MiB, 0, 0, 100 * MiB)).toBe(1024 * MiB);
  });
});
