/**
 * For commands that wait for something that the server does: a server that is away for a moment, because it is restarted or another
 * takes over, is waited for too, and that is said. Not here: what is waited for (follow-drain.ts, commands/).
 */
import { UserError, userErrorCodes } from '../model/failure.ts';
import type { Clock } from '../runtime/clock.ts';

/** A server that was killed is back by then, or somebody has to look. */
const serverAwayMs = 120_000;

export class Patience {
  readonly #clock: Clock;
  readonly #signal: AbortSignal;
  readonly #say: (words: string) => void;
  #answeredAt: number;
  #isAway = false;

  /** @param say null: what is shown in place must not be disturbed */
  constructor(clock: Clock, signal: AbortSignal, say: ((words: string) => void) | null) {
    this.#clock = clock;
    this.#signal = signal;
    this.#say = say ?? (() => {});
    this.#answeredAt = clock.monotonic();
  }

  /**
   * @returns undefined: the server is away, ask again in a while
   * @throws UserError when it says no, or is away for too long; the signal's reason when that is aborted
   */
  async ask<T>(question: (signal: AbortSignal) => Promise<T>): Promise<T | undefined> {
    try {
      const answer = await question(this.#signal);
      this.#answeredAt = this.#clock.monotonic();
      if (this.#isAway) this.#say('the server answers again');
      this.#isAway = false;
      return answer;
    } catch (error) {
      this.#signal.throwIfAborted();
      const away = error instanceof UserError && userErrorCodes[error.code] === 'unavailable';
      if (!away || this.#clock.monotonic() - this.#answeredAt > serverAwayMs) throw error;
      if (!this.#isAway) this.#say('the server does not answer; what was begun goes on with it, so it is waited for');
      this.#isAway = true;
      return undefined;
    }
  }
}
