/**
 * Watches the leases of other hosts on the pools that this host has too, and takes one when told to and when its time has
 * run out by this host's own clock. How long a lease has stood still counts from the look that found it new to the last
 * look that found it the same: what was not looked at is not counted.
 *
 * Not here: who is told to take what (the server's recovery), this host's own lease (guard.ts).
 */
import { messageOf } from '../../model/failure.ts';
import type { LeaseSeen } from '../../model/host.ts';
import type { Clock } from '../../runtime/clock.ts';
import type { Log } from '../../runtime/log.ts';
import { DamagedBlock } from './lease-block.ts';
import { isTaken, sameLease, takeableAfterMs, type LeaseBlocks, type LeasePool } from './lease.ts';

export type TakeResult = 'taken' | 'renewed' | 'too-early' | 'failed';
export interface TakeAnswer {
  readonly result: TakeResult;
  readonly says: string;
}
export interface TakeRequest {
  readonly host: string;
  readonly poolId: string;
  /** Of the boot whose lease shall be taken. */
  readonly bootId: string;
  readonly term: number;
}

interface Watched {
  blocks: LeaseBlocks;
  /** Monotonic: end of the look that found this, beginning of the last look that found it again. */
  firstSeenMs: number;
  lastSeenMs: number;
}

interface WatchedPool {
  readonly pool: LeasePool;
  id: string | undefined;
  readonly identified: PromiseWithResolvers<void>;
  readonly hosts: Map<string, Watched>;
  /** The pool does not answer a taker: no second one waits behind it. */
  isTaking: boolean;
}

const lookEveryMs = 1_000;
/** What was not looked at for so long says nothing about now. */
const staleMs = 5_000;
/** Between the mark and the look whether its holder has renewed: for storage whose writes take a moment to be seen. */
const settleMs = 300;
const takeWithinMs = 5_000;
const identifyWithinMs = 2_000;
/** A host watches a few others; the server spreads them. */
export const watchedHostsLimit = 64;

export class LeaseWatcher {
  readonly #host: string;
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #pools: readonly WatchedPool[];
  #wanted: readonly string[] = [];

  constructor(options: { host: string; pools: readonly LeasePool[]; clock: Clock; log: Log }) {
    this.#host = options.host;
    this.#clock = options.clock;
    this.#log = options.log;
    this.#pools = options.pools.map((pool) => ({
      pool,
      id: undefined,
      identified: Promise.withResolvers(),
      hosts: new Map(),
      isTaking: false,
    }));
  }

  /** Whose leases to watch from now on; those known already keep what was seen. */
  watch(hosts: readonly string[]): void {
    this.#wanted = hosts.filter((host) => host !== this.#host).slice(0, watchedHostsLimit);
    for (const { hosts: known } of this.#pools) {
      for (const host of known.keys()) if (!this.#wanted.includes(host)) known.delete(host);
    }
  }

  seen(): LeaseSeen[] {
    const now = this.#clock.monotonic();
    return this.#pools.flatMap(({ id, hosts }) =>
      [...hosts].flatMap(([host, { blocks, firstSeenMs, lastSeenMs }]): LeaseSeen[] => {
        if (id === undefined || now - lastSeenMs > staleMs) return [];
        const { lease } = blocks;
        // A mark alone proves nothing: its holder may have renewed in the same moment, and has yet to find it.
        const ranOut = lease !== null && lastSeenMs - firstSeenMs >= takeableAfterMs(lease);
        return [
          {
            host,
            poolId: id,
            state: lease === null ? 'none' : ranOut && isTaken(blocks) ? 'taken' : lease.state,
            bootId: lease?.bootId ?? '',
            leaseTimeMs: lease?.leaseTimeMs ?? 0,
            unchangedMs: Math.max(0, Math.round(lastSeenMs - firstSeenMs)),
          },
        ];
      }),
    );
  }

  /** Identities of the pools that answer, by their names here; waits a moment for those that have not yet. */
  async poolIds(): Promise<Record<string, string>> {
    if (this.#pools.some(({ id }) => id === undefined)) {
      const over = new AbortController();
      const late = this.#clock.sleep(identifyWithinMs, over.signal).catch(() => {});
      await Promise.race([Promise.all(this.#pools.map(({ identified }) => identified.promise)), late]);
      over.abort();
    }
    return Object.fromEntries(this.#pools.flatMap(({ pool, id }) => (id === undefined ? [] : [[pool.name, id]])));
  }

  /** Looks again and again until the signal. A pool that hangs holds up no other. */
  async run(signal: AbortSignal): Promise<void> {
    await Promise.all(this.#pools.map((pool) => this.#watchPool(pool, signal)));
  }

  /**
   * Takes the lease of a host: marks it, then looks whether its holder renewed all the same. The mark stays: a holder that
   * comes back so late finds it and gives way. Never throws.
   */
  async take(request: TakeRequest): Promise<TakeAnswer> {
    const watched = this.#pools.find(({ id }) => id === request.poolId);
    if (!watched) return { result: 'failed', says: `${this.#host} has no pool ${request.poolId}` };
    if (watched.isTaking) return { result: 'failed', says: `${watched.pool.name} does not answer the taking before` };
    watched.isTaking = true;
    const taking = this.#take(watched, request)
      .catch((error: unknown): TakeAnswer => ({ result: 'failed', says: messageOf(error) }))
      .finally(() => (watched.isTaking = false));
    const over = new AbortController();
    const late = this.#clock.sleep(takeWithinMs, over.signal).then(
      (): TakeAnswer => ({ result: 'failed', says: `${watched.pool.name} did not answer for ${takeWithinMs} ms` }),
      (): TakeAnswer => ({ result: 'failed', says: '' }),
    );
    const answer = await Promise.race([taking, late]);
    over.abort();
    this.#log.warn({ of: request.host, pool: watched.pool.name, ...answer }, 'told to take a lease');
    return answer;
  }

  async #take({ pool, hosts }: WatchedPool, request: TakeRequest): Promise<TakeAnswer> {
    const { host, bootId, term } = request;
    const watched = hosts.get(host);
    if (!watched) return { result: 'too-early', says: `${this.#host} has not watched the lease of ${host}` };
    const { lease } = watched.blocks;
    if (lease === null) return { result: 'failed', says: `${host} has no lease on ${pool.name}` };
    if (lease.bootId !== bootId) return { result: 'renewed', says: `${host} has booted since and has a lease again` };
    if (lease.state === 'released') {
      return { result: 'failed', says: `the guard of ${host} was stopped in an orderly way: its lease proves nothing` };
    }
    const unchangedMs = watched.lastSeenMs - watched.firstSeenMs;
    const neededMs = takeableAfterMs(lease);
    if (unchangedMs < neededMs) {
      const says = `${this.#host} has watched it stand still for ${Math.round(unchangedMs)} of ${neededMs} ms`;
      return { result: 'too-early', says };
    }
    const renewed: TakeAnswer = { result: 'renewed', says: `${host} has renewed its lease` };
    if (!sameLease((await pool.read(host)).lease, lease)) return renewed;
    const { generation, sequence } = lease;
    const by = this.#host;
    const wallAt = this.#clock.now();
    await pool.writeTaken({ schema: 1, host, generation, sequence, bootId, by, term, wallAt });
    await this.#clock.sleep(settleMs);
    const after = await pool.read(host);
    if (!sameLease(after.lease, lease)) return renewed;
    if (!isTaken(after)) return { result: 'failed', says: 'the mark is not there: the storage lost a write' };
    const says = `it stood still for ${Math.round(unchangedMs)} ms, its time is ${lease.leaseTimeMs} ms`;
    return { result: 'taken', says };
  }

  async #watchPool(watched: WatchedPool, signal: AbortSignal): Promise<void> {
    const pool = watched.pool.name;
    let known = '';
    while (!signal.aborted) {
      let trouble = '';
      try {
        const id = await watched.pool.identify();
        if (id !== watched.id) watched.hosts.clear(); // another storage was mounted there
        watched.id = id;
        watched.identified.resolve();
        for (const host of this.#wanted) {
          await this.#look(watched, host).catch((error: unknown) => {
            // The pool answers, and one lease there is torn: no reason not to look at the others.
            if (!(error instanceof DamagedBlock)) throw error;
            trouble = `${host}: ${error.message}`;
          });
        }
      } catch (error) {
        trouble = messageOf(error);
      }
      if (trouble !== '' && trouble !== known) this.#log.warn({ pool, error: trouble }, 'leases cannot be read');
      known = trouble;
      await this.#clock.sleep(lookEveryMs, signal).catch(() => {});
    }
  }

  async #look({ pool, hosts }: WatchedPool, host: string): Promise<void> {
    const beganMs = this.#clock.monotonic();
    const blocks = await pool.read(host);
    const endedMs = this.#clock.monotonic();
    if (!this.#wanted.includes(host)) return;
    const known = hosts.get(host);
    if (known && sameLease(known.blocks.lease, blocks.lease)) {
      known.blocks = blocks;
      known.lastSeenMs = beganMs;
    } else {
      hosts.set(host, { blocks, firstSeenMs: endedMs, lastSeenMs: endedMs });
    }
  }
}
