/**
 * When commits happened: the store does not keep that, and who reads events later is not to take the time of reading for it.
 * Known of as many commits as the store keeps; of those before this server led, only that they are older.
 */
import type { Clock } from '../runtime/clock.ts';
import type { Revision } from '../store/store.ts';
import type { Fleet } from './fleet.ts';

/** As many as the store keeps as history (store/memory.ts). */
const commitsKept = 5_000;

export class CommitTimes {
  readonly #clock: Clock;
  readonly #began: { readonly revision: Revision; readonly at: number };
  /** In their order; other writers of the store leave gaps. */
  #known: { readonly revision: Revision; readonly at: number }[] = [];

  constructor(fleet: Fleet, clock: Clock) {
    this.#clock = clock;
    this.#began = { revision: fleet.revision, at: clock.now() };
    fleet.onCommit(() => {
      this.#known.push({ revision: fleet.revision, at: clock.now() });
      if (this.#known.length > 2 * commitsKept) this.#known = this.#known.slice(-commitsKept);
    });
  }

  /** Of one that is not known, the time of the next one that is: it was then, or earlier. */
  of(revision: Revision): number {
    if (revision <= this.#began.revision) return this.#began.at;
    let [from, to] = [0, this.#known.length];
    while (from < to) {
      const middle = (from + to) >> 1;
      if (this.#known[middle]!.revision < revision) from = middle + 1;
      else to = middle;
    }
    return this.#known[from]?.at ?? this.#clock.now();
  }
}
