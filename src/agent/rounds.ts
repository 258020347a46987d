/** The rounds of a warm-up as they end: how long each took, what it sent and what it left dirty. Decides nothing. */
import type { TransferNumbers } from '../hypervisor/hypervisor.ts';
import type { Round } from '../model/migration.ts';
import { pageBytes } from '../model/units.ts';

/** A round shorter than this says little about bandwidth: the one before it is believed. */
const shortRoundMs = 100;

export class Rounds {
  readonly #ended: Round[] = [];
  #began: { round: number; at: number; sentBytes: number } | undefined;

  get ended(): readonly Round[] {
    return this.#ended;
  }

  get last(): Round | undefined {
    return this.#ended.at(-1);
  }

  /** The number of the round that goes on now. */
  get current(): number {
    return this.#began?.round ?? 1;
  }

  first(at: number): void {
    this.#began ??= { round: 1, at, sentBytes: 0 };
  }

  /**
   * A round begins; the one before it has ended, where its beginning was seen.
   * @param numbers as they are right after the boundary
   */
  next(begins: number, at: number, numbers: TransferNumbers): Round | undefined {
    const began = this.#began;
    this.#began = { round: begins, at, sentBytes: numbers.sentBytes };
    if (!began || begins <= 1 || began.round !== begins - 1) return undefined;
    const durationMs = Math.max(1, at - began.at);
    const bytes = Math.max(0, numbers.sentBytes - began.sentBytes);
    const measured = (bytes * 1000) / durationMs;
    const round: Round = {
      round: began.round,
      durationMs,
      bytes,
      dirtyPages: Math.round(numbers.remainingBytes / pageBytes),
      bandwidthBytesPerSecond: durationMs >= shortRoundMs ? measured : (this.last?.bandwidthBytesPerSecond ?? measured),
    };
    this.#ended.push(round);
    return round;
  }
}
