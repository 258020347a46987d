/** TCP as far as it matters to a stream: how it connects, tries again and gives up (Linux's defaults). */
import type { Clock, Timer } from '../runtime/clock.ts';
import type { MigrationWire } from './simulated-surroundings.ts';

const firstRetransmissionMs = 200;
const longestRetransmissionMs = 120_000;
/** Fifteen retransmissions. */
export const tcpGivesUpMs = 924_000;
/** SYNs go out at 0, 1, 3, 7, ... s. */
const connectGivesUpMs = 127_000;
const firstSynPauseMs = 1000;
/** Nobody answers for the address. */
const noRouteMs = 3000;

/** The moment of the next try of what was sent at `since`: each pause is twice the one before. */
export function retransmissionAfter(since: number, now: number): number {
  let at = since;
  for (let pauseMs = firstRetransmissionMs; at <= now; pauseMs = Math.min(longestRetransmissionMs, pauseMs * 2)) {
    at += pauseMs;
  }
  return at;
}

/** Bytes per second; 0: nothing crosses. Both ways are needed: what is not acknowledged is not sent for long. */
export function pathRate(wire: MigrationWire, from: string, to: string): number {
  const bothOn = wire.machineAt(from)?.isOn === true && wire.machineAt(to)?.isOn === true;
  return bothOn && wire.rate(to, from) > 0 ? wire.rate(from, to) : 0;
}

/** Connects; tells how that ended, once. @returns a function that gives it up */
export function dial(
  clock: Clock,
  wire: MigrationWire,
  from: string,
  to: string,
  outcome: { reached(): void; failed(why: string): void },
): () => void {
  const beganAt = clock.monotonic();
  let timer: Timer;
  const after = (ms: number, next: () => void): void => {
    timer = clock.setTimeout(next, ms);
  };
  const attempt = (pauseMs: number): void => {
    if (wire.machineAt(to)?.isOn !== true) return after(noRouteMs, () => outcome.failed('No route to host'));
    if (pathRate(wire, from, to) > 0) {
      return after(2 * wire.latencyMs(from, to), () => {
        if (pathRate(wire, from, to) > 0) outcome.reached();
        else again(pauseMs);
      });
    }
    again(pauseMs);
  };
  const again = (pauseMs: number): void => {
    const isLast = clock.monotonic() + pauseMs - beganAt >= connectGivesUpMs;
    after(pauseMs, () => (isLast ? outcome.failed('Connection timed out') : attempt(pauseMs * 2)));
  };
  attempt(firstSynPauseMs);
  return () => timer.cancel();
}
