import { getEventListeners } from 'node:events';
import { describe, expect, test } from 'vitest';
import { systemClock, TestClock } from './clock.ts';

describe('the test clock', () => {
  test('fires timers in the order of their time, those of one moment in the order they were set', async () => {
    const clock = new TestClock();
    const fired: string[] = [];
    clock.setTimeout(() => fired.push(`late at ${clock.monotonic()}`), 30);
    clock.setTimeout(() => fired.push(`early at ${clock.monotonic()}`), 10);
    clock.setTimeout(() => fired.push(`early too at ${clock.monotonic()}`), 10);
    clock.setTimeout(() => fired.push('never'), 31);
    await clock.advance(30);
    expect(fired).toEqual(['early at 10', 'early too at 10', 'late at 30']);
  });

  test('runs what a timer sets off, and the timers set by that, within one advance', async () => {
    const clock = new TestClock();
    const times: number[] = [];
    const walk = async (): Promise<void> => {
      for (let i = 0; i < 3; i++) {
        await clock.sleep(10);
        times.push(clock.monotonic());
      }
    };
    const walking = walk();
    await clock.advance(100);
    await walking;
    expect(times).toEqual([10, 20, 30]);
    expect(clock.monotonic()).toBe(100);
  });

  test('moves the wall clock along', async () => {
    const clock = new TestClock(1_000);
    await clock.advance(500);
    expect(clock.now()).toBe(1_500);
  });

  test('does not fire a cancelled timer', async () => {
    const clock = new TestClock();
    let fired = false;
    clock.setTimeout(() => (fired = true), 10).cancel();
    await clock.advance(20);
    expect(fired).toBe(false);
  });
});

describe('sleep', () => {
  test('ends early with the reason of its signal', async () => {
    const stop = new AbortController();
    const sleeping = systemClock.sleep(60_000, stop.signal);
    stop.abort(new Error('enough'));
    await expect(sleeping).rejects.toThrow('enough');
    await expect(systemClock.sleep(0, stop.signal)).rejects.toThrow('enough');
  });

  test('is done after its time, in real time too', async () => {
    const before = systemClock.monotonic();
    await systemClock.sleep(20, new AbortController().signal);
    expect(systemClock.monotonic() - before).toBeGreaterThan(18);
  });
});

test('a timer of more than 25 days does not fire at once', async () => {
  let fired = false;
  const timer = systemClock.setTimeout(() => (fired = true), 2 ** 31 + 1_000);
  await systemClock.sleep(20);
  timer.cancel();
  expect(fired).toBe(false);
});

test('sleeps on one signal share a listener, which goes with the last of them', async () => {
  const clock = new TestClock();
  const { signal } = new AbortController();
  const slept = [clock.sleep(10, signal), clock.sleep(20, signal)];
  expect(getEventListeners(signal, 'abort')).toHaveLength(1);
  await clock.advance(20);
  await Promise.all(slept);
  expect(getEventListeners(signal, 'abort')).toHaveLength(0);
  const over = new AbortController();
  const both = [clock.sleep(10, over.signal), clock.sleep(20, over.signal)];
  over.abort(new Error('over'));
  expect(await Promise.allSettled(both)).toMatchObject([{ status: 'rejected' }, { status: 'rejected' }]);
});
