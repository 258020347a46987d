/**
 * How often somebody may try to log in: token buckets by name and address together, by address, and by name. A wrong guess
 * costs one of each. The bucket of a name alone is large, so that a stranger cannot easily keep its owner out; it stops a
 * guesser with many addresses. Kept in memory: a new leader begins anew, which gives a guesser a handful of tries more.
 */
import { UserError } from '../model/failure.ts';
import type { Clock } from '../runtime/clock.ts';

interface Bucket {
  left: number;
  at: number;
}

const limits = {
  pair: { burst: 5, everyMs: 30_000 },
  address: { burst: 30, everyMs: 5_000 },
  name: { burst: 100, everyMs: 10_000 },
} as const;
/** More are forgotten, those untouched for longest first. */
const keysLimit = 20_000;

export class LoginLimit {
  readonly #clock: Pick<Clock, 'monotonic'>;
  readonly #buckets = new Map<string, Bucket>();

  constructor(clock: Pick<Clock, 'monotonic'>) {
    this.#clock = clock;
  }

  /**
   * Takes one try, before the password is looked at: many at once count all the same.
   * @returns gives it back, for a try that succeeded
   * @throws UserError too-many-requests, with the time until the next
   */
  take(name: string, address: string): () => void {
    const wanted = [
      { key: `pair ${name}\n${address}`, ...limits.pair },
      { key: `address ${address}`, ...limits.address },
      { key: `name ${name}`, ...limits.name },
    ];
    const now = this.#clock.monotonic();
    const waits = wanted.map(({ key, burst, everyMs }) => {
      const bucket = this.#buckets.get(key);
      const left = bucket === undefined ? burst : Math.min(burst, bucket.left + (now - bucket.at) / everyMs);
      return { key, left, waitMs: Math.max(0, (1 - left) * everyMs) };
    });
    const waitMs = Math.ceil(Math.max(...waits.map((each) => each.waitMs)));
    if (waitMs > 0) {
      throw new UserError(
        'too-many-requests',
        'Too many attempts to log in.',
        `Try again in ${Math.ceil(waitMs / 1000)} s.`,
        { retryAfterMs: waitMs },
      );
    }
    for (const { key, left } of waits) {
      this.#buckets.delete(key);
      this.#buckets.set(key, { left: left - 1, at: now });
    }
    for (const key of this.#buckets.keys()) {
      if (this.#buckets.size <= keysLimit) break;
      this.#buckets.delete(key);
    }
    return () => {
      for (const { key } of wanted) {
        const bucket = this.#buckets.get(key);
        if (bucket) bucket.left += 1;
      }
    };
  }
}
