/**
 * The agent as the guard's guardian: a guard that hangs is killed in time for its supervisor to start another, which takes
 * the lease up again; if none does before the lease runs out, the agent kills the guests by the guard's own means.
 *
 * A host whose guard never ran in this boot, or was stopped in an orderly way, has nothing to be guarded here.
 */
import type { Clock } from '../../runtime/clock.ts';
import type { Log } from '../../runtime/log.ts';
import type { PoolGuests } from './guard.ts';
import { takeMarginMs } from './lease.ts';
import type { GuardState } from './state-file.ts';

export interface SecondGuardianOptions {
  /** The same clock as the guard's: counts from the host's boot. */
  readonly clock: Clock;
  readonly read: () => GuardState | null;
  readonly guestsOn: (pool: { name: string; paths: readonly string[] }) => PoolGuests;
  readonly killGuard: (guard: { pid: number; startTicks: string }) => void;
  readonly log: Log;
}

export const checkEveryMs = 250;
/** Both were away when the lease ran out: an agent that has just started waits for a guard that starts as well. */
const startGraceMs = 5_000;

export class SecondGuardian {
  readonly #options: SecondGuardianOptions;
  readonly #startedAtMs: number;
  readonly #guests = new Map<string, PoolGuests>();
  #killedGuard = '';
  #isKilling = false;

  constructor(options: SecondGuardianOptions) {
    this.#options = options;
    this.#startedAtMs = options.clock.monotonic();
  }

  async run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      this.check();
      await this.#options.clock.sleep(checkEveryMs, signal).catch(() => {});
    }
  }

  check(): void {
    const { clock, read, log } = this.#options;
    const state = read();
    if (state === null || state.pools.every(({ memory }) => memory.state === 'released')) return;
    const now = clock.monotonic();
    const shortestMs = Math.min(...state.pools.map(({ memory }) => memory.leaseTimeMs));
    const isAwake = now - state.tickedAtMs < shortestMs / 4;
    if (now - state.tickedAtMs >= shortestMs / 2) this.#killHung(state);
    let isLate = false;
    for (const { memory, ...pool } of state.pools) {
      if (memory.state === 'released') continue;
      const ranOutMs = memory.renewedAtMs + memory.leaseTimeMs;
      // One that moved a moment ago may have died just before it was to kill: it gets a moment, and no more.
      const slackMs = isAwake ? takeMarginMs(memory.leaseTimeMs) / 4 : 0;
      const untilMs = (this.#startedAtMs < ranOutMs ? ranOutMs : this.#startedAtMs + startGraceMs) + slackMs;
      if (now < untilMs) continue;
      isLate = true;
      const guests = this.#guestsOn(pool);
      const left = guests.usingPool();
      if (left.length === 0) continue;
      if (!this.#isKilling) {
        const sinceMs = Math.round(now - memory.renewedAtMs);
        log.error(
          { pool: pool.name, guests: left, sinceMs },
          'the lease ran out and the guard did not kill: killing the guests',
        );
      }
      this.#isKilling = true;
      guests.kill();
    }
    if (!isLate) this.#isKilling = false;
  }

  #killHung({ guard }: GuardState): void {
    const name = `${guard.pid}.${guard.startTicks}`;
    if (name === this.#killedGuard) return;
    this.#killedGuard = name;
    this.#options.log.error({ pid: guard.pid }, 'the guard does not move: killing it, so that it is started again');
    this.#options.killGuard(guard);
  }

  #guestsOn(pool: { name: string; paths: readonly string[] }): PoolGuests {
    const known = this.#guests.get(pool.name);
    if (known) return known;
    const guests = this.#options.guestsOn(pool);
    this.#guests.set(pool.name, guests);
    return guests;
  }
}
