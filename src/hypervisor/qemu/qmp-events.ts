/** QEMU's events: what one looks like, and the queue of those that one consumer has not taken yet. */

import type { Events } from './types.gen.ts';

export interface EventTimes {
  /** When QEMU says it happened: ms since 1970 by its host's clock, microseconds kept as fraction. */
  qemuTimeMs: number;
  /** When it reached us, by the wall clock: comparable with `qemuTimeMs` on the same host. */
  receivedTimeMs: number;
  /** When it reached us, by the monotonic clock: for durations. */
  receivedMonotonicMs: number;
}

export type KnownEvent = { [Name in keyof Events]: { name: Name; data: Events[Name] } & EventTimes }[keyof Events];

export type QmpEvent =
  | KnownEvent
  /** An event that types.gen.ts does not list. */
  | ({ name: 'other'; event: string; data: unknown } & EventTimes)
  /** `count` events before the next one were thrown away because the consumer was too slow: query the state anew. */
  | { name: 'lost'; count: number };

/** What one consumer has not taken yet. Never longer than its limit; says what it had to drop. */
export class EventQueue implements AsyncIterableIterator<QmpEvent> {
  readonly #limit: number;
  readonly #onEnd: () => void;
  #queue: QmpEvent[] = [];
  #lost = 0;
  #ended = false;
  #takers: ((result: IteratorResult<QmpEvent>) => void)[] = [];

  constructor(limit: number, onEnd: () => void) {
    if (!(limit >= 1)) throw new RangeError(`an event queue needs room for one event at least, not ${limit}`);
    this.#limit = limit;
    this.#onEnd = onEnd;
  }

  push(event: QmpEvent): void {
    const taker = this.#takers.shift();
    if (taker !== undefined) {
      taker({ done: false, value: event });
      return;
    }
    if (this.#queue.length >= this.#limit) {
      this.#queue.shift();
      this.#lost += 1;
    }
    this.#queue.push(event);
  }

  /** No more will come; what is here can still be taken. */
  finish(): void {
    if (this.#ended) return;
    this.#ended = true;
    for (const taker of this.#takers) taker({ done: true, value: undefined });
    this.#takers = [];
    this.#onEnd();
  }

  /** Ends at once. */
  stop(): void {
    this.#queue = [];
    this.#lost = 0;
    this.finish();
  }

  next(): Promise<IteratorResult<QmpEvent>> {
    if (this.#lost > 0) {
      const count = this.#lost;
      this.#lost = 0;
      return Promise.resolve({ done: false, value: { name: 'lost', count } });
    }
    const event = this.#queue.shift();
    if (event !== undefined) return Promise.resolve({ done: false, value: event });
    if (this.#ended) return Promise.resolve({ done: true, value: undefined });
    return new Promise((resolve) => {
      this.#takers.push(resolve);
    });
  }

  return(): Promise<IteratorResult<QmpEvent>> {
    this.stop();
    return Promise.resolve({ done: true, value: undefined });
  }

  [Symbol.asyncIterator](): this {
    return this;
  }
}
