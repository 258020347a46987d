/** The last hour of one quantity, for charts: means over half a minute each, in a ring of fixed size. A gap is one here too. */

/** What one sample of it stands for. */
export const traceStepMs = 30_000;
const stepsKept = 120;

export interface TraceSample {
  /** How long ago the middle of its time was. */
  readonly agoMs: number;
  readonly value: number;
}

export class LoadTrace {
  readonly #values = new Float32Array(stepsKept).fill(Number.NaN);
  #step = -1;
  #sum = 0;
  #ms = 0;

  /** @param now monotonic; @param forMs the time that the sample stands for */
  add(value: number, forMs: number, now: number): void {
    if (!Number.isFinite(value)) return;
    this.#goTo(Math.floor(now / traceStepMs));
    this.#sum += value * forMs;
    this.#ms += forMs;
    this.#values[this.#step % stepsKept] = this.#sum / this.#ms;
  }

  /** Oldest first, without gaps. @param now monotonic */
  samples(now: number): TraceSample[] {
    const newest = Math.floor(now / traceStepMs);
    const found: TraceSample[] = [];
    for (let step = Math.max(0, newest - stepsKept + 1); step <= this.#step; step++) {
      const value = this.#values[step % stepsKept] ?? Number.NaN;
      const middle = Math.min(now, (step + 0.5) * traceStepMs);
      if (!Number.isNaN(value)) found.push({ agoMs: now - middle, value });
    }
    return found;
  }

  #goTo(step: number): void {
    if (step <= this.#step) return;
    for (let empty = Math.max(this.#step + 1, step - stepsKept + 1); empty <= step; empty++)
      this.#values[empty % stepsKept] = Number.NaN;
    this.#step = step;
    this.#sum = 0;
    this.#ms = 0;
  }
}
