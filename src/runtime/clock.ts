/**
 * Time as an argument: the wall clock, the monotonic clock and timers behind one interface, so that the same code runs
 * on real time, in tests and in the simulator. Nothing else in the program reads the time or sets a timer.
 *
 * Deadlines and leases are measured with `monotonic()`: the wall clock may be set back or forth at any moment and is only
 * for showing and recording.
 */
import { uptime } from 'node:os';

export interface Timer {
  /** Stops the timer. Does nothing when it has fired already. */
  cancel(): void;
}

export interface Clock {
  /** Wall clock, milliseconds since 1970. May jump. */
  now(): number;
  /** Milliseconds since some fixed moment of this process. Never goes back. */
  monotonic(): number;
  /** Resolves after `ms`; rejects with the signal's reason when the signal comes first. */
  sleep(ms: number, signal?: AbortSignal): Promise<void>;
  /** Calls `fn` once after `ms`. */
  setTimeout(fn: () => void, ms: number): Timer;
}

/** The longest delay Node's timers take; a longer one would fire at once. */
const longestDelayMs = 2 ** 31 - 1;

/** `sleep` out of `setTimeout`: what every clock's is made of. */
export function sleepOn(clock: Pick<Clock, 'setTimeout'>, ms: number, signal: AbortSignal | undefined): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  if (signal === undefined) {
    clock.setTimeout(resolve, ms);
    return promise;
  }
  if (signal.aborted) {
    reject(signal.reason);
    return promise;
  }
  const sleepers = sleepersOn(signal);
  const onAbort = (): void => {
    timer.cancel();
    reject(signal.reason);
  };
  const timer = clock.setTimeout(() => {
    sleepers.leave(onAbort);
    resolve();
  }, ms);
  sleepers.waiting.add(onAbort);
  return promise;
}

interface Sleepers {
  readonly waiting: Set<() => void>;
  leave(sleeper: () => void): void;
}

const sleepersBySignal = new WeakMap<AbortSignal, Sleepers>();

/**
 * One listener a signal, not one a sleep: loops that sleep many times a second share it. It goes with the last of them, because
 * Node keeps a signal that was put together from others for as long as somebody listens.
 */
function sleepersOn(signal: AbortSignal): Sleepers {
  const known = sleepersBySignal.get(signal);
  if (known) return known;
  const waiting = new Set<() => void>();
  const wakeAll = (): void => waiting.forEach((wake) => wake());
  const sleepers: Sleepers = {
    waiting,
    leave(sleeper) {
      waiting.delete(sleeper);
      if (waiting.size > 0) return;
      signal.removeEventListener('abort', wakeAll);
      sleepersBySignal.delete(signal);
    },
  };
  sleepersBySignal.set(signal, sleepers);
  signal.addEventListener('abort', wakeAll, { once: true });
  return sleepers;
}

export const systemClock: Clock = {
  now: () => Date.now(),
  monotonic: () => performance.now(),
  sleep: (ms, signal) => sleepOn(systemClock, ms, signal),
  setTimeout(fn, ms) {
    let handle: NodeJS.Timeout;
    const arm = (leftMs: number): void => {
      handle =
        leftMs > longestDelayMs
          ? setTimeout(() => arm(leftMs - longestDelayMs), longestDelayMs)
          : setTimeout(fn, leftMs);
    };
    arm(ms);
    return { cancel: () => clearTimeout(handle) };
  },
};

/**
 * `monotonic()` counts from the machine's boot, with the time in which it was suspended, and is the same in all of its
 * processes (CLOCK_BOOTTIME, to 10 ms): for leases, which others measure while this machine sleeps.
 */
export const bootClock: Clock = {
  ...systemClock,
  monotonic: () => uptime() * 1000,
};

/** More timers than this in one `advance` is a loop that re-arms itself without time passing. */
const timersPerAdvance = 1_000_000;

interface TestTimer {
  readonly at: number;
  readonly fn: () => void;
}

/** A clock that moves only when told to. Timers fire in order of their time, those of one moment in order of their making. */
export class TestClock implements Clock {
  #elapsedMs = 0;
  readonly #startMs: number;
  readonly #timers = new Set<TestTimer>();

  constructor(startMs = Date.UTC(2030, 0, 1)) {
    this.#startMs = startMs;
  }

  now(): number {
    return this.#startMs + this.#elapsedMs;
  }

  monotonic(): number {
    return this.#elapsedMs;
  }

  sleep(ms: number, signal?: AbortSignal): Promise<void> {
    return sleepOn(this, ms, signal);
  }

  setTimeout(fn: () => void, ms: number): Timer {
    const timer = { at: this.#elapsedMs + Math.max(0, ms), fn };
    this.#timers.add(timer);
    return { cancel: () => this.#timers.delete(timer) };
  }

  /** Lets `ms` pass: runs every timer that falls due, each at its own time, and what its promises set off. */
  async advance(ms: number): Promise<void> {
    const end = this.#elapsedMs + ms;
    await settle();
    for (let fired = 0; ; fired++) {
      if (fired > timersPerAdvance) throw new Error(`more than ${timersPerAdvance} timers fired within ${ms} ms`);
      const timer = this.#firstUntil(end);
      if (timer === undefined) break;
      this.#timers.delete(timer);
      this.#elapsedMs = timer.at;
      timer.fn();
      await settle();
    }
    this.#elapsedMs = end;
  }

  #firstUntil(end: number): TestTimer | undefined {
    let first: TestTimer | undefined;
    for (const timer of this.#timers)
      if (timer.at <= end && (first === undefined || timer.at < first.at)) first = timer;
    return first;
  }
}

/** Two turns of the event loop: promise chains run dry, also those that wait for one `setImmediate` on their way. */
async function settle(): Promise<void> {
  for (let turn = 0; turn < 2; turn++) await new Promise((resolve) => setImmediate(resolve));
}
