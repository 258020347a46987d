/**
 * The memory of the system, as every engine offers it: entries under keys, changed all or nothing, watched in order, some of
 * them only for as long as somebody lives. Engines: memory.ts, sqlite.ts, etcd.ts. What the values mean is not known here.
 *
 * One number, the revision, orders everything: a commit that changes something makes it one larger. An entry says at which
 * revision it was created and last changed, and these two are what guards compare with, so whoever has read an entry can
 * change it on the condition that nobody else did.
 *
 * Values are JSON. What is read is frozen, because readers share it.
 */

/** The number of a commit; larger is newer. 0 is the empty store. */
export type Revision = number;

export interface Entry {
  readonly key: string;
  readonly value: unknown;
  /** The commit that made this entry; a later put does not change it, a put after a delete does. */
  readonly created: Revision;
  /** The commit that last put it. */
  readonly changed: Revision;
}

/** What must hold for a commit to happen. */
export type Guard =
  | { readonly key: string; readonly created: Revision }
  | { readonly key: string; readonly changed: Revision }
  | { readonly key: string; readonly absent: true };

/** A put without a lease makes an entry permanent, also one that stood under a lease before. */
export type Write =
  | { readonly key: string; readonly put: unknown; readonly lease?: string }
  | { readonly key: string; readonly delete: true };

export type CommitResult =
  | { readonly ok: true; readonly revision: Revision }
  /** Nothing was written: the first guard that did not hold, or the put whose lease is gone. */
  | { readonly ok: false; readonly failed: Guard | { readonly key: string; readonly leaseGone: string } };

export type Change =
  | { readonly kind: 'put'; readonly key: string; readonly entry: Entry }
  | { readonly kind: 'delete'; readonly key: string };

/**
 * What one commit changed. Changes come commit by commit, never in pieces of one, so that a watcher always sees a state that
 * existed and can go on from `revision` without missing the rest of it.
 */
export interface Commit {
  readonly revision: Revision;
  readonly changes: readonly Change[];
}

/** A right to hold entries, renewed by the store for as long as this process lives and reaches the store. */
export interface Lease {
  readonly id: string;
  /** Aborted when the lease is gone: not renewed in time, disposed, or the store closed. Its entries are gone or soon will be. */
  readonly lost: AbortSignal;
  /** Gives the lease back and deletes its entries. */
  dispose(): Promise<void>;
}

/**
 * Every call may reject with `StoreUnavailable` (nothing was done, try again), and after `close` with `StoreClosed`. A key or
 * value beyond `storeLimits` is a bug of the caller and rejects with a RangeError or TypeError.
 */
export interface Store {
  /** All entries whose key starts with `prefix`, ordered by key, and the revision at which that was so. */
  list(prefix: string): Promise<{ readonly entries: readonly Entry[]; readonly revision: Revision }>;

  get(key: string): Promise<Entry | undefined>;

  /**
   * Does all writes, durably, if all guards hold; else none. A delete of an absent key changes nothing. The signal is only
   * heeded before the writes are handed over. Rejects with `OutcomeUnknown` when the writes may or may not have happened.
   */
  commit(
    guards: readonly Guard[],
    writes: readonly Write[],
    options?: { readonly signal?: AbortSignal },
  ): Promise<CommitResult>;

  /**
   * The commits after `since` that touched a key starting with `prefix`, oldest first, then each as it happens, until the
   * signal. Throws `HistoryGone` when it can no longer tell them all: list again and watch from that revision.
   */
  watch(prefix: string, since: Revision, signal: AbortSignal): AsyncIterable<Commit>;

  /** `ttlMs`: how long the entries outlive a holder that can no longer renew. */
  lease(ttlMs: number): Promise<Lease>;

  /** Ends this client's leases and watches and waits for its commits. */
  close(): Promise<void>;
}

/** The smallest of what the engines can take (etcd: 128 operations and 1.5 MiB in one transaction; one guard is the engine's own). */
export const storeLimits = {
  keyLength: 512,
  commitBytes: 1024 * 1024,
  guards: 127,
  writes: 128,
} as const;

/** Changes after this revision are no longer kept, or it is not a revision of this store: list again. */
export class HistoryGone extends Error {
  override readonly name = 'HistoryGone';
  readonly since: Revision;

  constructor(since: Revision) {
    super(`the changes since revision ${since} are not kept any more`);
    this.since = since;
  }
}

/** The commit may have happened or not. Read before deciding anything; never repeat it unguarded. */
export class OutcomeUnknown extends Error {
  override readonly name = 'OutcomeUnknown';
}

/** The store could not be asked or could not write. Nothing was done. */
export class StoreUnavailable extends Error {
  override readonly name = 'StoreUnavailable';
}

/** This client of the store was closed, or the engine gave up (then `cause` says why). */
export class StoreClosed extends Error {
  override readonly name = 'StoreClosed';
}
