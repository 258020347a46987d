/**
 * Queues with a limit: a stream of values from one writer to one reader, and tasks that run one after another per key.
 * What happens when a queue is full is always said by whoever makes it.
 */

/**
 * - `refuse`: `push` returns false and the value is not taken;
 * - `drop-oldest`: the oldest value makes room (for samples, where only the newest counts);
 * - `fail`: the reader gets what was queued, then a `QueueFull` (for streams where a gap would be a lie).
 */
export type Overflow = 'refuse' | 'drop-oldest' | 'fail';

export class QueueFull extends Error {
  override readonly name = 'QueueFull';
}

type Ending = { readonly how: 'closed' } | { readonly how: 'failed'; readonly error: unknown };

/** A bounded queue read with `for await` by one reader. Leaving the loop closes it. */
export class AsyncQueue<T> implements AsyncIterable<T> {
  readonly #limit: number;
  readonly #overflow: Overflow;
  readonly #values: T[] = [];
  #ending: Ending | undefined;
  #wake: (() => void) | undefined;
  #reading = false;

  constructor({ limit, overflow }: { limit: number; overflow: Overflow }) {
    this.#limit = limit;
    this.#overflow = overflow;
  }

  /** False when the value was not taken: the queue has ended, or is full and refuses. */
  push(value: T): boolean {
    if (this.#ending !== undefined) return false;
    if (this.#values.length >= this.#limit) {
      if (this.#overflow === 'refuse') return false;
      if (this.#overflow === 'fail') {
        this.fail(new QueueFull(`the reader is more than ${this.#limit} values behind`));
        return false;
      }
      this.#values.shift();
    }
    this.#values.push(value);
    this.#wake?.();
    return true;
  }

  /** No more values: the reader gets what is queued, then the end. */
  close(): void {
    this.#end({ how: 'closed' });
  }

  /** No more values: the reader gets what is queued, then the error. */
  fail(error: unknown): void {
    this.#end({ how: 'failed', error });
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<T, void, void> {
    if (this.#reading) throw new Error('an AsyncQueue has one reader');
    this.#reading = true;
    try {
      for (;;) {
        while (this.#values.length > 0) yield this.#values.shift() as T; // the length was checked; T may include undefined
        if (this.#ending?.how === 'failed') throw this.#ending.error;
        if (this.#ending?.how === 'closed') return;
        await new Promise<void>((resolve) => (this.#wake = resolve));
      }
    } finally {
      this.close();
      this.#values.length = 0;
    }
  }

  #end(ending: Ending): void {
    this.#ending ??= ending;
    this.#wake?.();
  }
}

/** Runs the tasks of one key one after another, in the order they were given; those of different keys side by side. */
export class KeyedQueue {
  readonly #limit: number;
  readonly #tails = new Map<string, { last: Promise<unknown>; waiting: number }>();

  /** `limit`: tasks of one key, the running one included. */
  constructor({ limit }: { limit: number }) {
    this.#limit = limit;
  }

  /** Settles as `fn` does; a failed task does not stop those behind it. Rejects with `QueueFull` at the limit. */
  async run<T>(key: string, fn: () => Promise<T>): Promise<T> {
    const tail = this.#tails.get(key) ?? { last: Promise.resolve(), waiting: 0 };
    if (tail.waiting >= this.#limit) throw new QueueFull(`${key}: ${this.#limit} tasks are waiting already`);
    this.#tails.set(key, tail);
    tail.waiting++;
    const mine = tail.last.then(fn);
    tail.last = mine.catch(() => {});
    try {
      return await mine;
    } finally {
      tail.waiting--;
      if (tail.waiting === 0) this.#tails.delete(key);
    }
  }
}
