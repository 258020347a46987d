import { describe, expect, test } from 'vitest';
import { MiB, pageBytes } from '../model/units.ts';
import type { Policy, Round } from '../model/migration.ts';
import { dirtyBytesPerSecond, firstDowntimeLimitMs, steer, switchesAtOnce } from './steer.ts';
import type { Telemetry } from './steer.ts';
import { completePolicy } from './techniques.ts';

/** What a Gbit/s link carries of a guest's memory. */
const link = 112 * MiB;

/**
 * The rounds of a guest with `filledMiB` of memory to send that writes `writesPerSecond` bytes within a working set: each
 * round sends what the one before left dirty, and leaves what was written meanwhile, at most the working set.
 */
function roundsOf(count: number, guest: { filledMiB: number; setMiB: number; writesPerSecond: number }): Round[] {
  const rounds: Round[] = [];
  let bytes = guest.filledMiB * MiB;
  for (let round = 1; round <= count; round++) {
    const seconds = bytes / link;
    const dirty = Math.min(guest.setMiB * MiB, guest.writesPerSecond * seconds);
    const dirtyPages = Math.ceil(dirty / pageBytes);
    rounds.push({ round, durationMs: seconds * 1000, bytes, dirtyPages, bandwidthBytesPerSecond: link });
    bytes = dirtyPages * pageBytes;
  }
  return rounds;
}

const idle = { filledMiB: 340, setMiB: 1, writesPerSecond: 0.1 * MiB };
const moderate = { filledMiB: 340, setMiB: 32, writesPerSecond: 10 * MiB };
const heavy = { filledMiB: 440, setMiB: 128, writesPerSecond: 195 * MiB };

function at(rounds: Round[], changes: Partial<Telemetry> = {}): Telemetry {
  return { rounds, downtimeLimitMs: firstDowntimeLimitMs, elapsedMs: 5_000, postCopyPossible: true, ...changes };
}
const policy = (given: Partial<Policy> = {}, technique: 'auto' | 'pre-copy' = 'auto') =>
  completePolicy(technique, given);

describe('the first round', () => {
  test('says nothing about how fast a guest writes', () => {
    expect(steer('auto', policy(), at(roundsOf(1, heavy)))).toEqual({ do: 'go-on' });
    expect(steer('pre-copy', policy({}, 'pre-copy'), at(roundsOf(1, heavy)))).toEqual({ do: 'go-on' });
  });

  test('is all that hybrid waits for, and post-copy does not wait for it', () => {
    expect(steer('hybrid', policy(), at(roundsOf(1, idle)))).toMatchObject({ do: 'switch-to-post-copy' });
    expect([switchesAtOnce('post-copy'), switchesAtOnce('hybrid'), switchesAtOnce('auto')]).toEqual([
      true,
      false,
      false,
    ]);
  });

  test('of a hybrid whose target cannot receive by post-copy only goes on', () => {
    expect(steer('hybrid', policy(), at(roundsOf(1, idle), { postCopyPossible: false }))).toEqual({ do: 'go-on' });
  });
});

test('an idle and a moderate writer go on to a short stop-and-copy in every technique that warms up', () => {
  for (const technique of ['auto', 'pre-copy'] as const) {
    for (const guest of [idle, moderate]) {
      for (const count of [2, 3]) {
        expect(steer(technique, policy({}, technique), at(roundsOf(count, guest)))).toEqual({ do: 'go-on' });
      }
    }
  }
});

describe('a heavy writer', () => {
  test('writes faster than the link by the numbers of its second round', () => {
    const last = roundsOf(2, heavy)[1] as Round;
    expect(dirtyBytesPerSecond(last)).toBeGreaterThan(0.8 * link);
  });

  test('makes auto switch at the end of round 2, and says the two rates', () => {
    expect(steer('auto', policy(), at(roundsOf(2, heavy)))).toEqual({
      do: 'switch-to-post-copy',
      because: 'the guest writes 112 MiB/s, the link carries 112 MiB/s',
    });
  });

  test('lets a pre-copy go on until three rounds brought nothing, and then fail', () => {
    const asked = policy({}, 'pre-copy');
    expect(steer('pre-copy', asked, at(roundsOf(2, heavy))).do).toBe('go-on');
    expect(steer('pre-copy', asked, at(roundsOf(3, heavy))).do).not.toBe('give-up');
    expect(steer('pre-copy', asked, at(roundsOf(4, heavy)))).toMatchObject({
      do: 'give-up',
      failure: { code: 'no-convergence', message: expect.stringMatching(/3 rounds brought no progress/) },
    });
  });

  test('is paused without a limit where the policy says so', () => {
    const asked = policy({ whenNotConverging: 'pause' }, 'pre-copy');
    expect(steer('pre-copy', asked, at(roundsOf(4, heavy)))).toMatchObject({ do: 'pause' });
  });

  test('is switched also in a pre-copy whose policy allows it, and not where the target cannot', () => {
    const asked = policy({ whenNotConverging: 'post-copy' }, 'pre-copy');
    expect(steer('pre-copy', asked, at(roundsOf(4, heavy))).do).toBe('switch-to-post-copy');
    expect(steer('pre-copy', asked, at(roundsOf(4, heavy), { postCopyPossible: false })).do).toBe('give-up');
  });

  test('gets twelve rounds when auto-converge slows it down', () => {
    const asked = policy({ autoConverge: true }, 'pre-copy');
    expect(steer('pre-copy', asked, at(roundsOf(4, heavy))).do).not.toBe('give-up');
    expect(steer('auto', policy({ autoConverge: true }), at(roundsOf(4, heavy))).do).not.toBe('switch-to-post-copy');
    expect(steer('pre-copy', asked, at(roundsOf(13, heavy))).do).toBe('give-up');
  });

  test('is stopped by a longer pause where the user accepts one that is long enough', () => {
    const asked = policy({ maxDowntimeMs: 2_000 });
    expect(steer('auto', asked, at(roundsOf(2, heavy)))).toEqual({ do: 'raise-downtime-limit', toMs: 1372 });
    const raised = at(roundsOf(3, heavy), { downtimeLimitMs: 2_000 });
    expect(steer('auto', asked, raised).do).toBe('switch-to-post-copy');
  });
});

describe('the deadline', () => {
  test('ends a pre-copy as deadline-passed at the moment it is reached, not before', () => {
    const asked = policy({ deadlineMs: 10_000 }, 'pre-copy');
    expect(steer('pre-copy', asked, at(roundsOf(2, moderate), { elapsedMs: 9_999 })).do).toBe('go-on');
    expect(steer('pre-copy', asked, at(roundsOf(2, moderate), { elapsedMs: 10_000 }))).toMatchObject({
      do: 'give-up',
      failure: { code: 'deadline-passed' },
    });
  });

  test('holds in the first round, too, which a slow link may make longer than any deadline', () => {
    const asked = policy({ deadlineMs: 10_000 }, 'pre-copy');
    expect(steer('pre-copy', asked, at([], { elapsedMs: 9_999 })).do).toBe('go-on');
    expect(steer('pre-copy', asked, at([], { elapsedMs: 10_500 }))).toMatchObject({
      do: 'give-up',
      failure: { code: 'deadline-passed' },
    });
  });

  test('switches or pauses where the policy prefers that to failing', () => {
    const late = at(roundsOf(1, idle), { elapsedMs: 60_000 });
    expect(steer('auto', policy({ deadlineMs: 10_000 }), late).do).toBe('switch-to-post-copy');
    expect(steer('auto', policy({ deadlineMs: 10_000, whenNotConverging: 'pause' }), late).do).toBe('pause');
  });
});

test('the limit rises in steps and never above what the user accepts', () => {
  const writer = { filledMiB: 340, setMiB: 24, writesPerSecond: 80 * MiB };
  let downtimeLimitMs = firstDowntimeLimitMs;
  for (let count = 1; count <= 12; count++) {
    const action = steer('pre-copy', policy({}, 'pre-copy'), at(roundsOf(count, writer), { downtimeLimitMs }));
    if (action.do !== 'raise-downtime-limit') continue;
    expect(action.toMs).toBeGreaterThan(downtimeLimitMs);
    expect(action.toMs).toBeLessThanOrEqual(300);
    downtimeLimitMs = action.toMs;
  }
});

test('without rounds there is nothing to decide', () => {
  expect(steer('auto', policy(), at([]))).toEqual({ do: 'go-on' });
});
