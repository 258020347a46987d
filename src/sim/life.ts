/**
 * One life of a simulated program, from its start to its end: it may be frozen (SIGSTOP) and thawed, and killed at any moment.
 *
 * A program that is killed in the middle of a function cannot be taken off the stack here, so its life is ended instead: what
 * it does afterwards has no effect, and what it waits for never comes. Everything that reaches a program from outside
 * (timers, messages, answers of hypervisor and store) therefore comes through its life.
 */
import { sleepOn, type Clock } from '../runtime/clock.ts';
import type { Timeline } from './timeline.ts';

/** The clock of one machine: wrong by some time, running too fast or too slow, set back and forth. */
export interface WallClock {
  now(): number;
}

export class Life {
  readonly clock: Clock;
  #state: 'runs' | 'frozen' | 'over' = 'runs';
  #held: (() => void)[] = [];
  readonly #atEnd = new Set<() => void>();

  constructor(timeline: Timeline, wall: WallClock) {
    const setTimeout: Clock['setTimeout'] = (fn, ms) => {
      if (this.#state === 'over') return { cancel: () => {} };
      let cancelled = false;
      const timer = timeline.after(ms, () =>
        this.enter(() => {
          if (!cancelled) fn();
        }),
      );
      return {
        cancel: () => {
          cancelled = true;
          timer.cancel();
        },
      };
    };
    this.clock = {
      now: () => wall.now(),
      monotonic: () => timeline.nowMs,
      setTimeout,
      sleep: (ms, signal) => sleepOn({ setTimeout }, ms, signal),
    };
  }

  get isOver(): boolean {
    return this.#state === 'over';
  }

  get isFrozen(): boolean {
    return this.#state === 'frozen';
  }

  /** Something reaches the program: now, when it is thawed, or never. */
  enter(fn: () => void): void {
    if (this.#state === 'runs') fn();
    else if (this.#state === 'frozen') this.#held.push(fn);
  }

  /** The answer to what the program asked: it never comes to a program that is gone. */
  async answer<T>(ask: () => Promise<T>): Promise<T> {
    if (this.#state === 'over') return new Promise<never>(() => {});
    try {
      return await ask();
    } finally {
      if (this.#state !== 'runs') await this.#here();
    }
  }

  async *each<T>(values: AsyncIterable<T>, onEach?: (value: T) => void): AsyncGenerator<T, void, void> {
    for await (const value of values) {
      onEach?.(value);
      if (this.#state !== 'runs') await this.#here();
      yield value;
    }
    if (this.#state !== 'runs') await this.#here();
  }

  freeze(): void {
    if (this.#state === 'runs') this.#state = 'frozen';
  }

  thaw(): void {
    if (this.#state !== 'frozen') return;
    this.#state = 'runs';
    const held = this.#held;
    this.#held = [];
    // What it does with the first may freeze or end it again.
    for (const fn of held) this.enter(fn);
  }

  end(): void {
    if (this.#state === 'over') return;
    this.#state = 'over';
    this.#held = [];
    for (const fn of this.#atEnd) fn();
    this.#atEnd.clear();
  }

  onEnd(fn: () => void): void {
    this.#atEnd.add(fn);
  }

  forget(fn: () => void): void {
    this.#atEnd.delete(fn);
  }

  #here(): Promise<void> {
    return new Promise((resolve) => this.enter(resolve));
  }
}
