/**
 * The fast decisions of a running move, made by the source agent at each round's boundary. Pure: what it knows is in
 * its arguments. It raises the downtime limit in steps, switches to post-copy, pauses, or gives up.
 *
 * Method: convergence is judged only at boundaries (a local minimum of what remains), never inside a round; the guest's
 * write rate is what one round left dirty over the time it took. The first round says nothing about writing: it takes
 * long and its dirty pages were collected over all of it.
 */
import type { Failure } from '../model/failure.ts';
import type { Policy, Round, Technique } from '../model/migration.ts';
import { formatBytesPerSecond, formatMs, pageBytes } from '../model/units.ts';

/** QEMU switches as soon as what remains fits into this; small, because QEMU uses all of the limit it is given. */
export const firstDowntimeLimitMs = 30;
/** QEMU's own upper bound for downtime-limit. */
export const unlimitedDowntimeMs = 2_000_000;
/** Auto-converge throttles the guest a little more every second round: it needs longer to show. */
const patience = (policy: Policy) => (policy.autoConverge ? 12 : 3);
const writesTooFast = 0.8;

export interface Telemetry {
  /** Rounds that have ended, oldest first; none only where the deadline passes in the first. */
  readonly rounds: readonly Round[];
  readonly downtimeLimitMs: number;
  readonly elapsedMs: number;
  readonly postCopyPossible: boolean;
}

export type Action =
  | { readonly do: 'go-on' }
  | { readonly do: 'raise-downtime-limit'; readonly toMs: number }
  | { readonly do: 'switch-to-post-copy'; readonly because: string }
  | { readonly do: 'pause'; readonly because: string }
  | { readonly do: 'give-up'; readonly failure: Failure };

/** What to do before the first round ends; post-copy at once switches as soon as QEMU is sending. */
export function switchesAtOnce(technique: Technique): boolean {
  return technique === 'post-copy';
}

/** The decision at the boundary that ended the last of `telemetry.rounds`, or when the deadline passes inside a round. */
export function steer(technique: Technique, policy: Policy, telemetry: Telemetry): Action {
  const { rounds } = telemetry;
  const last = rounds.at(-1);
  if (last && technique === 'hybrid' && telemetry.postCopyPossible) {
    return { do: 'switch-to-post-copy', because: 'hybrid: one whole round was sent' };
  }
  // The one decision that does not wait for a boundary: a round may take longer than the deadline.
  if (policy.deadlineMs !== null && telemetry.elapsedMs >= policy.deadlineMs)
    return stop(policy, 'deadline', telemetry);
  if (!last) return { do: 'go-on' };
  if (rounds.length < 2) return { do: 'go-on' };

  const verdict = judge(rounds, patience(policy));
  if (verdict !== 'converging') {
    const canRaise = telemetry.downtimeLimitMs < policy.maxDowntimeMs;
    const neededMs = (last.dirtyPages * pageBytes * 1000) / Math.max(1, last.bandwidthBytesPerSecond);
    // A pause the user accepts is better than any switch: use it when it would do.
    if (canRaise && neededMs <= policy.maxDowntimeMs) {
      return {
        do: 'raise-downtime-limit',
        toMs: Math.min(policy.maxDowntimeMs, Math.max(telemetry.downtimeLimitMs * 2, Math.ceil(neededMs * 1.2))),
      };
    }
    if ((technique === 'auto' && !policy.autoConverge) || verdict === 'stalled')
      return stop(policy, verdict, telemetry);
  }
  return raiseInSteps(policy, telemetry);
}

/** Twice the limit after each second round in which what remains did not shrink. */
function raiseInSteps(policy: Policy, telemetry: Telemetry): Action {
  const { rounds, downtimeLimitMs } = telemetry;
  const stuck = rounds.length >= 3 && rounds.length % 2 === 1 && !shrank(rounds, 2);
  if (!stuck || downtimeLimitMs >= policy.maxDowntimeMs) return { do: 'go-on' };
  return { do: 'raise-downtime-limit', toMs: Math.min(policy.maxDowntimeMs, downtimeLimitMs * 2) };
}

type Verdict = 'converging' | 'too-fast' | 'stalled';

function judge(rounds: readonly Round[], roundsWithoutProgress: number): Verdict {
  const last = rounds.at(-1);
  if (!last || rounds.length < 2) return 'converging';
  if (rounds.length > roundsWithoutProgress && !shrank(rounds, roundsWithoutProgress)) return 'stalled';
  return dirtyBytesPerSecond(last) > writesTooFast * last.bandwidthBytesPerSecond ? 'too-fast' : 'converging';
}

/** Has any of the last `n` rounds left less than every round before them (the first does not count)? */
function shrank(rounds: readonly Round[], n: number): boolean {
  const before = rounds.slice(0, -n).map((round) => round.dirtyPages);
  const recent = rounds.slice(-n).map((round) => round.dirtyPages);
  return Math.min(...recent) < 0.95 * Math.min(...before);
}

export function dirtyBytesPerSecond(round: Round): number {
  return (round.dirtyPages * pageBytes * 1000) / Math.max(1, round.durationMs);
}

function stop(policy: Policy, verdict: 'deadline' | 'too-fast' | 'stalled', telemetry: Telemetry): Action {
  const because = explain(policy, verdict, telemetry);
  if (policy.whenNotConverging === 'post-copy' && telemetry.postCopyPossible)
    return { do: 'switch-to-post-copy', because };
  if (policy.whenNotConverging === 'pause') return { do: 'pause', because };
  if (verdict === 'deadline') {
    return {
      do: 'give-up',
      failure: {
        code: 'deadline-passed',
        message: `The deadline of ${formatMs(policy.deadlineMs ?? 0)} passed in warm-up: ${because}.`,
        hint: 'Give it more time, a faster link, or --when-not-converging post-copy.',
      },
    };
  }
  // One fast round is not yet a failure: only rounds without progress end a move that may not switch.
  if (verdict === 'too-fast') return raiseInSteps(policy, telemetry);
  return {
    do: 'give-up',
    failure: {
      code: 'no-convergence',
      message: `Warm-up does not converge: ${because}.`,
      hint: 'Use --technique hybrid or auto, allow a longer pause (--max-downtime), or --auto-converge.',
    },
  };
}

function explain(policy: Policy, verdict: 'deadline' | 'too-fast' | 'stalled', telemetry: Telemetry): string {
  const last = telemetry.rounds.at(-1);
  if (!last) return `${formatMs(telemetry.elapsedMs)} have passed and the first round has not ended`;
  const rates = `the guest writes ${formatBytesPerSecond(dirtyBytesPerSecond(last))}, the link carries ${formatBytesPerSecond(last.bandwidthBytesPerSecond)}`;
  switch (verdict) {
    case 'too-fast':
      return rates;
    case 'stalled':
      return `${patience(policy)} rounds brought no progress; ${rates}`;
    case 'deadline':
      return `${formatMs(telemetry.elapsedMs)} have passed; ${rates}`;
  }
}
