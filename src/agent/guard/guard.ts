/**
 * Keeps this host's lease on one pool, and kills the guests that use the pool when it cannot be kept.
 *
 *     starting ──renewed──> held ──not renewed for leaseTime, or taken──> lost ──no guest left, renewed──> held (next generation)
 *                            └──orderly end, rest──> released ──rest is over──> starting
 *
 * Two loops that share nothing but the state: the renewer waits for the pool, for as long as that takes; the killer waits
 * for nothing but the clock. A lease that ran out is lost at that moment, whatever the renewer learns later.
 *
 * Also run by the simulator: pool, guests, clock and memory are arguments. Not here: the second guardian (second-guardian.ts).
 */
import { messageOf } from '../../model/failure.ts';
import type { Clock } from '../../runtime/clock.ts';
import type { Log } from '../../runtime/log.ts';
import { DamagedBlock } from './lease-block.ts';
import {
  isTaken,
  renewEveryMs,
  sameLease,
  takeMarginMs,
  type Lease,
  type LeaseBlocks,
  type LeasePool,
} from './lease.ts';

/** The guests of this host that use the pool. Neither call may touch the pool, nor wait. */
export interface PoolGuests {
  /** Those that are there, also those whose end is not proven yet. */
  usingPool(): readonly string[];
  /** SIGKILL to all of them. */
  kill(): void;
}

/** What a guard remembers over its own restart, but not over the host's. Times are of the guard's monotonic clock. */
export interface GuardMemory {
  readonly poolId: string;
  readonly state: 'held' | 'lost' | 'released';
  readonly generation: number;
  readonly renewedAtMs: number;
  readonly leaseTimeMs: number;
}

type State =
  | { readonly kind: 'starting' }
  | { readonly kind: 'held'; readonly lease: Lease; readonly renewedAtMs: number }
  /** `guestsGone`: those that were there then; guests that come later are killed too. */
  | { readonly kind: 'lost'; readonly guestsGone: boolean }
  | { readonly kind: 'released' };

export interface GuardOptions {
  readonly host: string;
  readonly bootId: string;
  /** Of this run of the guard: no other has it. */
  readonly writer: string;
  readonly leaseTimeMs: number;
  /** `monotonic()` must count from the host's boot, suspended time included: a restarted guard goes on by it. */
  readonly clock: Clock;
  readonly pool: LeasePool;
  readonly guests: PoolGuests;
  readonly log: Log;
  /** Of the guard before, in this boot of the host. */
  readonly remembered: GuardMemory | null;
  /** Called with every change; must not wait. */
  readonly remember: (memory: GuardMemory) => void;
}

const killerTickMs = 200;
/** While guests are being killed. */
const killingTickMs = 20;
/** A guard that starts long after its lease has run out may look first whether anybody took it. */
const startGraceMs = 2_000;

export class Guard {
  readonly #options: GuardOptions;
  #state: State = { kind: 'starting' };
  #memory: GuardMemory | null;
  /** Until when a lease of the guard before must be renewed; null: there was none. */
  #inheritedUntilMs: number | null = null;
  /** No two attempts look alike: one that failed may be seen by others all the same, and must not pass for the next. */
  #sequence = 0;
  #trouble = '';
  #rests = false;

  constructor(options: GuardOptions) {
    this.#options = options;
    this.#memory = options.remembered;
    if (this.#memory === null) return;
    if (this.#memory.state === 'lost') this.#state = { kind: 'lost', guestsGone: false };
    if (this.#memory.state === 'held')
      this.#inheritedUntilMs = inheritedUntilMs(this.#memory, options.clock.monotonic());
  }

  get state(): State['kind'] {
    return this.#state.kind;
  }

  /** May guests that use the pool be trusted to a hung guard's end until then? Infinity: none are there to be killed. */
  safeUntilMs(): number {
    if (this.#state.kind === 'held') return this.#state.renewedAtMs + this.#state.lease.leaseTimeMs;
    if (this.#state.kind === 'lost' && !this.#state.guestsGone) return 0;
    return Infinity;
  }

  /** Keeps the lease until the signal. Never throws: trouble with the pool is what it is there for. */
  async run(signal: AbortSignal): Promise<void> {
    await Promise.race([Promise.all([this.#renewAgainAndAgain(signal), this.#killInTime(signal)]), aborted(signal)]);
  }

  /**
   * The host is going to sleep: the lease is given back by the next renewal and none is taken up until this is called with false. One
   * with guests that use the pool keeps it.
   */
  rest(rests: boolean): void {
    this.#rests = rests;
  }

  /** The orderly end, after `run`: guests go on without a guard, and nobody may take what was given back. */
  async release(): Promise<void> {
    if (this.#state.kind !== 'held') return;
    const { lease, renewedAtMs } = this.#state;
    const released = { ...this.#next(lease, lease.generation), state: 'released' as const };
    await this.#options.pool.writeLease(released, 'overwrite');
    if (isTaken(await this.#options.pool.read(this.#options.host))) return; // too late: the killer's work
    this.#state = { kind: 'released' };
    this.#remember('released', lease, renewedAtMs);
  }

  async #renewAgainAndAgain(signal: AbortSignal): Promise<void> {
    const { clock, leaseTimeMs } = this.#options;
    while (!signal.aborted) {
      const beganMs = clock.monotonic();
      try {
        if (this.#mayRest()) await this.release();
        else await this.#renew(beganMs);
        this.#tell('');
      } catch (error) {
        this.#tell(messageOf(error));
      }
      const pauseMs = Math.max(20, beganMs + renewEveryMs(leaseTimeMs) - clock.monotonic());
      await clock.sleep(pauseMs, signal).catch(() => {});
    }
  }

  /** Is nothing to be renewed now? Where the rest is over, a lease is taken up anew. */
  #mayRest(): boolean {
    if (this.#rests) return this.#options.guests.usingPool().length === 0;
    if (this.#state.kind === 'released') this.#state = { kind: 'starting' };
    return false;
  }

  /** One renewal, or the taking up of a lease. `beganMs` is from before anything was written: the lease counts from there. */
  async #renew(beganMs: number): Promise<void> {
    const { pool, host } = this.#options;
    const before = this.#state;
    if (before.kind === 'released' || (before.kind === 'lost' && !before.guestsGone)) return;
    let next: Lease;
    let how: 'create' | 'overwrite' = 'overwrite';
    if (before.kind === 'held') {
      next = this.#next(before.lease, before.lease.generation);
    } else {
      const poolId = await pool.identify();
      const found = await this.#readOwn();
      how = found.lease === null ? 'create' : 'overwrite';
      if (before.kind === 'starting' && this.#isOurs(found) && isTaken(found)) return this.#lose(takenWords(found));
      const goOn = before.kind === 'starting' && this.#isOurs(found);
      const newest = Math.max(
        found.lease?.generation ?? 0,
        found.taken?.generation ?? 0,
        this.#memory?.generation ?? 0,
      );
      next = { ...this.#next(found.lease, goOn && found.lease ? found.lease.generation : newest + 1), poolId };
    }
    // What was killed must stay dead until there is a lease again, and a new one begins where none runs.
    if (before.kind === 'lost' && this.#options.guests.usingPool().length > 0) return;
    await pool.writeLease(next, how);
    const found = await pool.read(host);
    this.check();
    if (this.#state !== before) return; // it ran out meanwhile: this renewal came too late and counts for nothing
    if (isTaken(found)) return this.#lose(takenWords(found));
    if (!sameLease(found.lease, next)) throw new Error(`another than this guard writes the lease of ${host}`);
    if (before.kind !== 'held' || before.lease.generation !== next.generation) {
      const { generation, sequence } = next;
      this.#options.log.info({ pool: pool.name, generation, sequence }, 'lease taken up');
    }
    this.#inheritedUntilMs = null;
    this.#state = { kind: 'held', lease: next, renewedAtMs: beganMs };
    this.#remember('held', next, beganMs);
  }

  /** What there is of this host's lease before one is taken up. */
  async #readOwn(): Promise<LeaseBlocks> {
    try {
      return await this.#options.pool.read(this.#options.host);
    } catch (error) {
      // Torn when the host lost power: no lease of this boot is lost with it. One of this boot may have been taken, and nobody can tell.
      if (error instanceof DamagedBlock && this.#memory === null) return { lease: null, taken: null };
      throw error;
    }
  }

  /** Written by a guard of this host in this boot, and not given back. */
  #isOurs({ lease }: LeaseBlocks): boolean {
    return lease !== null && lease.bootId === this.#options.bootId && lease.state === 'held';
  }

  #next(from: Lease | null, generation: number): Lease {
    const { host, bootId, writer, leaseTimeMs, clock } = this.#options;
    this.#sequence = Math.max(this.#sequence, from?.sequence ?? 0) + 1;
    return {
      schema: 1,
      host,
      poolId: from?.poolId ?? '',
      generation,
      writer,
      sequence: this.#sequence,
      state: 'held',
      bootId,
      leaseTimeMs,
      wallAt: clock.now(),
    };
  }

  async #killInTime(signal: AbortSignal): Promise<void> {
    const { clock } = this.#options;
    while (!signal.aborted) {
      this.check();
      const isKilling = this.#state.kind === 'lost' && !this.#state.guestsGone;
      const untilEndMs = Math.max(1, (this.#endsAtMs() ?? Infinity) - clock.monotonic());
      await clock.sleep(Math.min(isKilling ? killingTickMs : killerTickMs, untilEndMs), signal).catch(() => {});
    }
  }

  #endsAtMs(): number | null {
    if (this.#state.kind === 'held') return this.#state.renewedAtMs + this.#state.lease.leaseTimeMs;
    return this.#state.kind === 'starting' ? this.#inheritedUntilMs : null;
  }

  /** Has the lease run out? Is anything of the pool's guests left that must not be? Called again and again. */
  check(): void {
    const { clock, guests, log, pool } = this.#options;
    const endsAtMs = this.#endsAtMs();
    if (endsAtMs !== null && clock.monotonic() >= endsAtMs) {
      const why = this.#trouble === '' ? 'the pool does not answer' : this.#trouble;
      return this.#lose(`the lease was not renewed for ${this.#options.leaseTimeMs} ms: ${why}`);
    }
    if (this.#state.kind !== 'lost') return;
    const left = guests.usingPool();
    if (left.length > 0) {
      if (this.#state.guestsGone) log.error({ pool: pool.name, guests: left }, 'guests without a lease: killing them');
      this.#state = { kind: 'lost', guestsGone: false };
      guests.kill();
    } else if (!this.#state.guestsGone) {
      log.warn({ pool: pool.name }, 'no guest that uses the pool is left');
      this.#state = { kind: 'lost', guestsGone: true };
    }
  }

  #lose(because: string): void {
    const { guests, log, pool, clock } = this.#options;
    const renewedAtMs = this.#state.kind === 'held' ? this.#state.renewedAtMs : (this.#memory?.renewedAtMs ?? 0);
    const lease = this.#state.kind === 'held' ? this.#state.lease : null;
    this.#inheritedUntilMs = null;
    this.#state = { kind: 'lost', guestsGone: false };
    const killed = guests.usingPool();
    guests.kill();
    const sinceMs = Math.round(clock.monotonic() - renewedAtMs);
    log.error(
      { pool: pool.name, because, guests: killed, sinceMs },
      'lease lost: killing the guests that use the pool',
    );
    this.#remember('lost', lease, renewedAtMs);
  }

  #remember(state: GuardMemory['state'], lease: Lease | null, renewedAtMs: number): void {
    const { leaseTimeMs } = this.#options;
    const poolId = lease?.poolId ?? this.#memory?.poolId ?? '';
    const generation = lease?.generation ?? this.#memory?.generation ?? 0;
    this.#memory = { poolId, state, generation, renewedAtMs, leaseTimeMs };
    this.#options.remember(this.#memory);
  }

  /** Each trouble once, and its end. */
  #tell(trouble: string): void {
    const { log, pool } = this.#options;
    if (trouble === this.#trouble) return;
    if (trouble === '') log.info({ pool: pool.name }, 'the lease can be renewed again');
    else log.warn({ pool: pool.name, trouble }, 'the lease could not be renewed');
    this.#trouble = trouble;
  }
}

/**
 * Until when the lease of the guard before must be renewed by the next. While nobody can have taken it by the clock, guests
 * must be dead before somebody can. Later than that neither guard nor agent was there to kill: only the pool knows whether
 * it was taken, and there is a moment to ask it, because an upgrade that takes a minute must not kill guests.
 */
function inheritedUntilMs({ renewedAtMs, leaseTimeMs }: GuardMemory, nowMs: number): number {
  const untilMs = renewedAtMs + leaseTimeMs;
  const marginMs = takeMarginMs(leaseTimeMs);
  if (nowMs >= untilMs + marginMs) return nowMs + startGraceMs;
  return Math.max(untilMs, Math.min(nowMs + startGraceMs, untilMs + marginMs / 4));
}

function takenWords({ taken }: LeaseBlocks): string {
  return `${taken?.by ?? 'another host'} took the lease in term ${taken?.term ?? 0}`;
}

function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    signal.addEventListener('abort', () => resolve(), { once: true });
  });
}
