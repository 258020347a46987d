/** Trying again, giving up in time, and joining signals. */
import type { Clock } from './clock.ts';
import type { Random } from './random.ts';

export interface RetryOptions {
  /** How often `fn` is called at most. */
  readonly attempts: number;
  /** Longest wait after the first failure; doubles with each further one. */
  readonly baseMs: number;
  readonly maxMs: number;
  readonly clock: Clock;
  readonly random: Random;
  readonly signal?: AbortSignal;
  /** False: the error is thrown at once. Without it every error is tried again. */
  readonly shouldRetry?: (error: unknown) => boolean;
}

/**
 * Calls `fn` until it succeeds, and throws its last error when the attempts are used up. Waits between half and all of the
 * doubled time, so that many who failed together do not come back together.
 */
export async function retry<T>(fn: (attempt: number) => Promise<T>, options: RetryOptions): Promise<T> {
  const { attempts, baseMs, maxMs, clock, random, signal, shouldRetry = () => true } = options;
  for (let attempt = 1; ; attempt++) {
    signal?.throwIfAborted();
    try {
      return await fn(attempt);
    } catch (error) {
      if (attempt >= attempts || signal?.aborted || !shouldRetry(error)) throw error;
    }
    const longestMs = Math.min(maxMs, baseMs * 2 ** (attempt - 1));
    await clock.sleep(longestMs * (0.5 + random.next() / 2), signal);
  }
}

export class DeadlineExceeded extends Error {
  override readonly name = 'DeadlineExceeded';
}

/**
 * Runs `fn` and rejects with `DeadlineExceeded` naming `what` when it takes longer than `ms`, with the signal's reason when
 * that comes first. Either way `fn`'s signal is aborted; a result that comes later is dropped.
 */
export async function withDeadline<T>(
  fn: (signal: AbortSignal) => Promise<T>,
  { ms, what, clock, signal }: { ms: number; what: string; clock: Clock; signal?: AbortSignal | undefined },
): Promise<T> {
  signal?.throwIfAborted();
  const expiry = new AbortController();
  const both = anySignal(expiry.signal, signal);
  const timer = clock.setTimeout(() => expiry.abort(new DeadlineExceeded(`${what}: not done within ${ms} ms`)), ms);
  const { promise: given, reject } = Promise.withResolvers<never>();
  const onAbort = (): void => reject(both.reason);
  both.addEventListener('abort', onAbort, { once: true });
  try {
    return await Promise.race([fn(both), given]);
  } finally {
    timer.cancel();
    both.removeEventListener('abort', onAbort);
  }
}

/** Aborted as soon as one of them is. */
export function anySignal(...signals: (AbortSignal | undefined)[]): AbortSignal {
  return AbortSignal.any(signals.filter((signal) => signal !== undefined));
}
