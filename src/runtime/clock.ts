/**
 * Time as an argument: the wall clock, the monotonic clock and timers behind one interface, so that the same code runs
 * on real time, in tests and in the simulator. Nothing else in the program reads the time or sets a timer.
 *
 * Deadlines and leases are measured with `monotonic()`: the wall clock may be set back or forth at any moment and is only
 * for showing and recording.
 */

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

function sleepOn(clock: Pick<Clock, 'setTimeout'>, ms: number, signal: AbortSignal | undefined): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  if (signal === undefined) {
    clock.setTimeout(resolve, ms);
    return promise;
  }
  if (signal.aborted) {
    reject(signal.reason);
    return promise;
  }
  const onAbort = (): void => {
    timer.cancel();
    reject(signal.reason);
  };
  const timer = clock.setTimeout(() => {
    signal.removeEventListener('abort', onAbort);
    resolve();
  }, ms);
  signal.addEventListener('abort', onAbort, { once: true });
  return promise;
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
