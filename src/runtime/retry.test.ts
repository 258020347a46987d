import { describe, expect, test } from 'vitest';
import { TestClock } from './clock.ts';
import { seededRandom } from './random.ts';
import { anySignal, DeadlineExceeded, retry, withDeadline } from './retry.ts';

describe('retry', () => {
  const options = (clock: TestClock) => ({ attempts: 5, baseMs: 100, maxMs: 300, clock, random: seededRandom(1) });

  test('tries again with growing pauses up to a limit and returns the first success', async () => {
    const clock = new TestClock();
    const calls: number[] = [];
    const trying = retry(async (attempt) => {
      calls.push(clock.monotonic());
      if (attempt < 5) throw new Error('not yet');
      return 'done';
    }, options(clock));
    await clock.advance(10_000);
    expect(await trying).toBe('done');
    const pauses = calls.slice(1).map((at, i) => at - calls[i]!);
    for (const [i, longest] of [100, 200, 300, 300].entries()) {
      expect(pauses[i]).toBeGreaterThanOrEqual(longest / 2);
      expect(pauses[i]).toBeLessThanOrEqual(longest);
    }
  });

  test('throws the last error when the attempts are used up', async () => {
    const clock = new TestClock();
    const trying = retry((attempt) => Promise.reject(new Error(`attempt ${attempt}`)), options(clock));
    const failed = expect(trying).rejects.toThrow('attempt 5');
    await clock.advance(10_000);
    await failed;
  });

  test('does not repeat what is not worth it', async () => {
    const clock = new TestClock();
    let calls = 0;
    const fail = () => {
      calls++;
      return Promise.reject(new Error('no such VM'));
    };
    await expect(retry(fail, { ...options(clock), shouldRetry: () => false })).rejects.toThrow('no such VM');
    expect(calls).toBe(1);
  });

  test('stops in the middle of a pause when its signal comes', async () => {
    const clock = new TestClock();
    const stop = new AbortController();
    const trying = retry(() => Promise.reject(new Error('not yet')), { ...options(clock), signal: stop.signal });
    const stopped = expect(trying).rejects.toThrow('shutting down');
    await clock.advance(10);
    stop.abort(new Error('shutting down'));
    await stopped;
  });
});

describe('a deadline', () => {
  const never = () => new Promise<never>(() => {});

  test('lets through what is done in time', async () => {
    const clock = new TestClock();
    expect(await withDeadline(async () => 7, { ms: 10, what: 'counting', clock })).toBe(7);
  });

  test('names what was not done in time, and aborts it', async () => {
    const clock = new TestClock();
    let given: AbortSignal | undefined;
    const hang = (signal: AbortSignal) => {
      given = signal;
      return never();
    };
    const waiting = withDeadline(hang, { ms: 3_000, what: 'query-status', clock });
    const late = expect(waiting).rejects.toThrow(new DeadlineExceeded('query-status: not done within 3000 ms'));
    await clock.advance(3_000);
    await late;
    expect(given?.aborted).toBe(true);
  });

  test('gives way to a signal that comes first', async () => {
    const clock = new TestClock();
    const stop = new AbortController();
    const waiting = withDeadline(never, { ms: 3_000, what: 'query-status', clock, signal: stop.signal });
    stop.abort(new Error('shutting down'));
    await expect(waiting).rejects.toThrow('shutting down');
  });
});

test('a joined signal is aborted by any of its parts, for that part’s reason', () => {
  const [one, other] = [new AbortController(), new AbortController()];
  const joined = anySignal(one.signal, undefined, other.signal);
  expect(joined.aborted).toBe(false);
  other.abort('that one');
  expect(joined.reason).toBe('that one');
});
