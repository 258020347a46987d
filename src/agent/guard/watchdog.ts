/**
 * The machine's watchdog (/dev/watchdog): resets the host when nobody strokes it in time. It is stroked only while no guest
 * could outlive its lease by a reset that is due, so that it covers a guard that hangs and a guest that cannot be killed.
 */
import { closeSync, openSync, readFileSync, statSync, writeSync } from 'node:fs';
import { UserError, messageOf } from '../../model/failure.ts';
import type { Log } from '../../runtime/log.ts';
import { takeMarginMs } from './lease.ts';

export interface Watchdog {
  /** Is its own time short enough to cover a guard that hangs? */
  readonly covers: boolean;
  /** @param safeUntilMs from then on other hosts may believe this host's guests dead; Infinity: none are there */
  strokeIfSafe(nowMs: number, safeUntilMs: number): void;
  /** Switches it off: the guard ends in an orderly way. */
  close(): void;
}

/** A late stroke is one that comes after a busy second. */
const slackMs = 1_000;

/** @throws UserError when it cannot be opened: systemd or another program may hold it */
export function openWatchdog(path: string, leaseTimeMs: number, log: Log, timeout = timeoutOf): Watchdog {
  const timeoutMs = timeout(path);
  let device: number;
  try {
    device = openSync(path, 'w');
  } catch (cause) {
    throw new UserError(
      'unavailable',
      `The watchdog ${path} cannot be used: ${messageOf(cause)}.`,
      'One program holds it: switch RuntimeWatchdogSec off in systemd, stop wdmd or watchdogd; or leave --watchdog out.',
      { cause },
    );
  }
  const allowedMs = leaseTimeMs + takeMarginMs(leaseTimeMs);
  const covers = timeoutMs !== null && watchdogCovers(timeoutMs, leaseTimeMs);
  if (!covers) {
    const says =
      'the watchdog is too slow to count as proof: load its module with a shorter time, or lengthen the lease';
    log.warn({ path, timeoutMs, allowedMs: allowedMs - slackMs }, says);
  }
  return {
    covers,
    strokeIfSafe(nowMs, safeUntilMs) {
      // One that is too slow would never be stroked by that rule: it only covers a guard that hangs, late.
      if (mayStroke(nowMs + (covers ? timeoutMs : 0), safeUntilMs, leaseTimeMs)) writeSync(device, '\0');
    },
    close() {
      writeSync(device, 'V'); // the magic close: without it the host is reset
      closeSync(device);
    },
  };
}

/** Is a host whose guard hangs reset before others may believe its guests dead? */
export function watchdogCovers(timeoutMs: number, leaseTimeMs: number): boolean {
  return timeoutMs + slackMs <= leaseTimeMs + takeMarginMs(leaseTimeMs);
}

/** @param resetMs when the host would be reset if this stroke were the last */
export function mayStroke(resetMs: number, safeUntilMs: number, leaseTimeMs: number): boolean {
  return resetMs <= safeUntilMs + takeMarginMs(leaseTimeMs);
}

/** As the driver tells it in sysfs, by the number of its device. */
function timeoutOf(path: string): number | null {
  try {
    const { rdev } = statSync(path);
    const minor = rdev & 0xff;
    for (const entry of [`watchdog${minor}`, 'watchdog0']) {
      const seconds = Number(readFileSync(`/sys/class/watchdog/${entry}/timeout`, 'utf8'));
      if (seconds > 0) return seconds * 1000;
    }
  } catch {
    // no such driver, or one that does not tell
  }
  return null;
}
