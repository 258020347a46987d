/**
 * The words of the lease: what stands on the pool, who writes which part of it, and the times that all sides keep.
 *
 * A host has one lease a pool. Two parties write, each a block of its own, so that no write ever undoes the other's:
 *
 *     lease   its holder's guard   generation 4, sequence 1207, held
 *     taken   another host         generation 4 was taken           (never withdrawn)
 *
 * The holder renews: write sequence + 1, THEN read `taken`. A taker takes: write `taken`, THEN read the sequence. Whichever
 * comes second sees the other (Dekker's rule; each read and write goes to the storage itself), so it cannot be that the
 * holder goes on believing and the taker believes too. Where both notice, the holder gives way and the taker tries again.
 * The clock is the second proof beside it: a guest is dead after `leaseTimeMs` without renewal by its holder's clock, and
 * nobody takes before `leaseTimeMs` + `takeMarginMs` by his own. Decision 22 has the whole argument.
 *
 * Not here: files (pool-files.ts), renewing and killing (guard.ts), watching and taking (lease-watcher.ts).
 */

export interface Lease {
  readonly schema: 1;
  readonly host: string;
  readonly poolId: string;
  /** Rises each time the host takes up a lease anew: the one before ran out, was taken, was released or was of another boot. */
  readonly generation: number;
  /** Which run of the guard wrote it: what an earlier one left in the kernel's hands may still arrive. */
  readonly writer: string;
  /** Rises with each attempt to renew, also after one that failed: it may have been written all the same. */
  readonly sequence: number;
  /** `released`: the guard ended in an orderly way and says nothing of guests any more: nobody may take it. */
  readonly state: 'held' | 'released';
  readonly bootId: string;
  readonly leaseTimeMs: number;
  /** For people only. */
  readonly wallAt: number;
}

/** Proof on the pool that a generation of a host's lease was taken. */
export interface TakenMark {
  readonly schema: 1;
  readonly host: string;
  readonly generation: number;
  readonly sequence: number;
  readonly bootId: string;
  /** Name of the host that took it, and the term of the server that told it to. */
  readonly by: string;
  readonly term: number;
  readonly wallAt: number;
}

export interface LeaseBlocks {
  readonly lease: Lease | null;
  readonly taken: TakenMark | null;
}

/** One shared pool, as far as leases go. Calls may hang for as long as the storage does; they are made one after another. */
export interface LeasePool {
  readonly name: string;
  /** The pool's identity, given by whoever found none. */
  identify(): Promise<string>;
  /** From the storage itself, never from a cache. */
  read(host: string): Promise<LeaseBlocks>;
  /** Resolves when it is durable. `create`: the host has no lease here yet; else a lease that is not there is an error. */
  writeLease(lease: Lease, how: 'create' | 'overwrite'): Promise<void>;
  writeTaken(mark: TakenMark): Promise<void>;
}

export const defaultLeaseTimeMs = 10_000;
export const shortestLeaseTimeMs = 2_000;

/** Ten tries before it runs out. */
export function renewEveryMs(leaseTimeMs: number): number {
  return leaseTimeMs / 10;
}

/** For the holder's kill to be done, and for what two clocks differ over one lease time. */
export function takeMarginMs(leaseTimeMs: number): number {
  return Math.max(1_000, leaseTimeMs / 5);
}

/** How long a lease must stand still before anybody may take it. */
export function takeableAfterMs({ leaseTimeMs }: Pick<Lease, 'leaseTimeMs'>): number {
  return leaseTimeMs + takeMarginMs(leaseTimeMs);
}

export function isTaken({ lease, taken }: LeaseBlocks): boolean {
  return lease !== null && taken !== null && taken.generation >= lease.generation;
}

/** Is it the very same writing? */
export function sameLease(a: Lease | null, b: Lease | null): boolean {
  if (a === null || b === null) return a === b;
  return a.generation === b.generation && a.sequence === b.sequence && a.bootId === b.bootId && a.state === b.state;
}
