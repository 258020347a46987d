/**
 * The source's part of a move that is held ready (phase `armed`): warmed up until what is left could go in a moment, then
 * kept so at next to no cost, for as long as nobody says `switch`.
 *
 *   warming up --(little left, or no less than before)--> armed --(switch: guest paused, rest sent)--> stop-and-copy
 *
 * The hypervisor does not complete by itself; what a guest writes meanwhile is sent again when it has become much.
 */
import type { Guest, TransferNumbers } from '../hypervisor/hypervisor.ts';
import type { Policy } from '../model/migration.ts';

/** A switch pauses the guest for about so long, where its writing allows it. */
const switchWithinMs = 500;
/** Rounds after which waiting does not make less of it. */
const roundsAreEnough = 5;
/** Before anything was measured: 1 Gbit/s. */
const usualBytesPerSecond = 125_000_000;

export class Holding {
  readonly #guest: Guest;
  readonly #policy: Policy;
  readonly #onArmed: () => void;
  #isArmed = false;
  #isSwitching = false;
  #pace: 'full' | 'trickle' = 'full';
  /** The least that was ever left: the guest writes so much between two looks. */
  #least = Infinity;

  constructor(guest: Guest, policy: Policy, onArmed: () => void) {
    this.#guest = guest;
    this.#policy = policy;
    this.#onArmed = onArmed;
  }

  /** Rounds are no news any more. */
  get isArmed(): boolean {
    return this.#isArmed;
  }

  /** The guest was paused by us, not by the hypervisor: whoever goes on here must let it run. */
  get isSwitching(): boolean {
    return this.#isSwitching;
  }

  /** At the end of each round of warm-up, and twice a second. @param bandwidth null: not measured yet */
  async keep({ remainingBytes, round }: TransferNumbers, bandwidth: number | null): Promise<void> {
    if (this.#isSwitching || round < 2) return;
    this.#least = Math.min(this.#least, remainingBytes);
    const little = ((bandwidth ?? usualBytesPerSecond) * switchWithinMs) / 1000;
    const enough = Math.max(little, 1.5 * this.#least);
    const isReady = remainingBytes <= little || round >= roundsAreEnough;
    // Slow down first: at full speed with nothing to send the hypervisor looks for dirty pages without a pause.
    if (this.#pace === 'full' && (isReady || this.#isArmed) && remainingBytes <= enough) await this.#set('trickle');
    else if (this.#pace === 'trickle' && remainingBytes > 2 * enough) await this.#set('full');
    if (isReady && !this.#isArmed) {
      this.#isArmed = true;
      this.#onArmed();
    }
  }

  /** Pauses the guest and sends the rest; the transfer then ends as every pre-copy does. */
  async switchNow(): Promise<void> {
    if (this.#isSwitching) return;
    this.#isSwitching = true;
    try {
      await this.#guest.transfer.limitBandwidth(this.#policy.maxBandwidthBytesPerSecond);
      await this.#guest.transfer.completeNow();
    } catch (error) {
      this.#isSwitching = false; // asked for again as long as it is due
      throw error;
    }
  }

  async #set(pace: 'full' | 'trickle'): Promise<void> {
    await this.#guest.transfer.limitBandwidth(pace === 'full' ? this.#policy.maxBandwidthBytesPerSecond : 'trickle');
    this.#pace = pace;
  }
}
