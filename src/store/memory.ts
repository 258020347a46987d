/**
 * The store's engine: entries, revisions, history and leases in memory. By itself it is the store of tests and of the
 * simulator; given a journal it is also what sqlite.ts serves from, so that both behave alike by construction.
 *
 * Several clients can be connected to one engine, each with its own clock: a client whose clock stands still is a server that
 * is frozen, and loses its leases to the others.
 *
 *     client.commit -> queue -> flush: check guards and apply, commit by commit -> journal.write(all of them) -> answer, wake watchers
 *                                      (a flush is one turn of the event loop: one fsync for all commits of that turn)
 *
 * No lock is needed: a flush never waits in the middle, so nobody can read what the journal has not got yet.
 */
import { anySignal } from '../runtime/retry.ts';
import { systemClock } from '../runtime/clock.ts';
import type { Clock, Timer } from '../runtime/clock.ts';
import { HistoryGone, StoreClosed, StoreUnavailable, storeLimits } from './store.ts';
import type { Change, Commit, CommitResult, Entry, Guard, Lease, Revision, Store, Write } from './store.ts';

/** Where commits are kept beyond this process. */
export interface Journal {
  /**
   * Returns when all commits are durable. `historyFrom`: older commits need not be kept as history. Throws
   * `StoreUnavailable` when none was written; any other error breaks the engine, because what was written is not known then.
   */
  write(commits: readonly StoredCommit[], historyFrom: Revision): void;
  close(): void;
}

/** Entries as engines keep them: with the lease they stand under. */
export interface StoredEntry extends Entry {
  readonly lease?: string;
}

export type StoredChange =
  | { readonly kind: 'put'; readonly key: string; readonly entry: StoredEntry }
  | { readonly kind: 'delete'; readonly key: string };

export interface StoredCommit {
  readonly revision: Revision;
  readonly changes: readonly StoredChange[];
}

/** What a journal remembers of an earlier process. */
export interface Kept {
  readonly revision: Revision;
  readonly entries: readonly StoredEntry[];
  /** The newest commits, oldest first, without a gap up to `revision`. */
  readonly history: readonly Commit[];
}

export interface EngineOptions {
  readonly clock?: Clock;
  /** How many commits a watcher may be behind. */
  readonly keepCommits?: number;
}

/** Changes waiting for one flush; far beyond what a control plane has in flight. */
const queueLimit = 10_000;

/** How long after a failed write the entries of ended leases are tried to be deleted again. */
const sweepAgainMs = 1_000;

const leaseOfEarlierProcess = 'lease-of-an-earlier-process';

interface Request {
  readonly guards: readonly Guard[];
  readonly writes: readonly Write[];
  readonly signal: AbortSignal | undefined;
  readonly resolve: (result: CommitResult) => void;
  readonly reject: (error: unknown) => void;
}

export class Engine {
  readonly #clock: Clock;
  readonly #keepCommits: number;
  readonly #journal: Journal | undefined;
  readonly #entries = new Map<string, StoredEntry>();
  #revision: Revision = 0;

  /** Without a gap: the commit after revision r stands at index r - #historyFrom. */
  #history: Commit[] = [];
  #historyFrom: Revision = 0;
  readonly #watchers = new Set<() => void>();

  #queue: Request[] = [];
  #flushing = false;
  #broken: StoreClosed | undefined;

  readonly #leases = new Map<string, { ttlMs: number; expiresAt: number; expiry: Timer }>();
  #leaseCount = 0;
  /** Leases that are over while their entries are not deleted yet. */
  readonly #ended = new Set<string>();

  readonly #clients = new Set<Client>();

  constructor({ clock = systemClock, keepCommits = 5_000 }: EngineOptions = {}, journal?: Journal, kept?: Kept) {
    this.#clock = clock;
    this.#keepCommits = keepCommits;
    this.#journal = journal;
    if (kept === undefined) return;
    this.#revision = kept.revision;
    this.#history = [...kept.history];
    this.#historyFrom = kept.revision - kept.history.length;
    for (const entry of kept.entries) {
      if (entry.lease === undefined) {
        this.#entries.set(entry.key, entry);
      } else {
        // A lease ends with its process, and this is another one: a journal belongs to a single process at a time.
        this.#entries.set(entry.key, { ...entry, lease: leaseOfEarlierProcess });
        this.#ended.add(leaseOfEarlierProcess);
      }
    }
    if (this.#ended.size > 0) this.#flush();
  }

  /** A new client. With a journal the engine ends when its last client is closed. */
  connect(clock: Clock = this.#clock): Store {
    this.assertUsable();
    const client = new Client(this, clock, () => {
      this.#clients.delete(client);
      if (this.#clients.size > 0 || this.#journal === undefined) return;
      this.#break(new StoreClosed('the store is closed'));
    });
    this.#clients.add(client);
    return client;
  }

  /** Ends every client, without a word to what they keep. */
  shutDown(): void {
    this.#break(new StoreClosed('the store is closed'));
  }

  assertUsable(): void {
    if (this.#broken !== undefined) throw this.#broken;
  }

  get revision(): Revision {
    return this.#revision;
  }

  get(key: string): StoredEntry | undefined {
    return this.#entries.get(key);
  }

  list(prefix: string): StoredEntry[] {
    const found: StoredEntry[] = [];
    for (const entry of this.#entries.values()) if (entry.key.startsWith(prefix)) found.push(entry);
    return found.sort((a, b) => (a.key < b.key ? -1 : 1));
  }

  commit(guards: readonly Guard[], writes: readonly Write[], signal: AbortSignal | undefined): Promise<CommitResult> {
    if (this.#broken !== undefined) return Promise.reject(this.#broken);
    if (this.#queue.length >= queueLimit) {
      return Promise.reject(new StoreUnavailable(`${queueLimit} commits are waiting to be written already`));
    }
    const { promise, resolve, reject } = Promise.withResolvers<CommitResult>();
    this.#queue.push({ guards, writes, signal, resolve, reject });
    this.#flushSoon();
    return promise;
  }

  /** The first commit after `since`, or undefined when there is none yet. */
  after(since: Revision): Commit | undefined {
    if (since < this.#historyFrom || since > this.#revision) throw new HistoryGone(since);
    return this.#history[since - this.#historyFrom];
  }

  /** Resolves when there is a new commit, or the signal came. */
  nextCommit(signal: AbortSignal): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    const wake = (): void => {
      this.#watchers.delete(wake);
      signal.removeEventListener('abort', wake);
      resolve();
    };
    this.#watchers.add(wake);
    signal.addEventListener('abort', wake, { once: true });
    return promise;
  }

  grant(ttlMs: number): string {
    const id = `lease-${++this.#leaseCount}`;
    this.#leases.set(id, this.#running(id, ttlMs));
    return id;
  }

  /** False when the lease is over already: what ran out in time cannot be revived. */
  renew(id: string): boolean {
    const lease = this.#leases.get(id);
    if (lease === undefined) return false;
    if (this.#clock.monotonic() >= lease.expiresAt) {
      // The process slept past both timers and woke with the holder's first.
      this.revoke(id);
      return false;
    }
    lease.expiry.cancel();
    this.#leases.set(id, this.#running(id, lease.ttlMs));
    return true;
  }

  #running(id: string, ttlMs: number): { ttlMs: number; expiresAt: number; expiry: Timer } {
    const expiry = this.#clock.setTimeout(() => this.revoke(id), ttlMs);
    return { ttlMs, expiresAt: this.#clock.monotonic() + ttlMs, expiry };
  }

  revoke(id: string): void {
    const lease = this.#leases.get(id);
    if (lease === undefined) return;
    lease.expiry.cancel();
    this.#leases.delete(id);
    this.#ended.add(id);
    this.#sweep();
  }

  #sweep(): void {
    if (this.#broken === undefined && this.#ended.size > 0) this.#flushSoon();
  }

  #flushSoon(): void {
    if (this.#journal === undefined) {
      this.#flush();
    } else if (!this.#flushing) {
      this.#flushing = true;
      setImmediate(() => this.#flush());
    }
  }

  /** Writes everything that waits, as one: see the picture above. */
  #flush(): void {
    this.#flushing = false;
    if (this.#broken !== undefined) return;
    const requests = this.#queue;
    this.#queue = [];
    const revisionBefore = this.#revision;
    const undo: { readonly key: string; readonly before: StoredEntry | undefined }[] = [];
    const commits: StoredCommit[] = [];
    const apply = (changes: readonly StoredChange[]): void => {
      if (changes.length === 0) return;
      for (const change of changes) {
        undo.push({ key: change.key, before: this.#entries.get(change.key) });
        if (change.kind === 'put') this.#entries.set(change.key, change.entry);
        else this.#entries.delete(change.key);
      }
      this.#revision++;
      commits.push({ revision: this.#revision, changes });
    };

    const ended = [...this.#ended];
    if (ended.length > 0) apply(this.#deletionsOf(this.#ended));
    const answers: (() => void)[] = [];
    for (const { guards, writes, signal, resolve, reject } of requests) {
      if (signal?.aborted) {
        answers.push(() => reject(signal.reason));
        continue;
      }
      const failed = this.#firstFailure(guards, writes);
      if (failed === undefined) apply(this.#changesOf(writes));
      const result: CommitResult =
        failed === undefined ? { ok: true, revision: this.#revision } : { ok: false, failed };
      answers.push(() => resolve(result));
    }

    const historyFrom = Math.max(this.#historyFrom, this.#revision - this.#keepCommits);
    try {
      if (commits.length > 0) this.#journal?.write(commits, historyFrom);
    } catch (error) {
      for (const { key, before } of undo.reverse()) {
        if (before === undefined) this.#entries.delete(key);
        else this.#entries.set(key, before);
      }
      this.#revision = revisionBefore;
      for (const { reject } of requests) reject(error);
      if (!(error instanceof StoreUnavailable)) {
        this.#break(new StoreClosed('the store gave up after a failed write', { cause: error }));
      } else if (ended.length > 0) {
        this.#clock.setTimeout(() => this.#sweep(), sweepAgainMs);
      }
      return;
    }

    for (const id of ended) this.#ended.delete(id);
    this.#history.push(...commits.map(withoutLeases));
    this.#history.splice(0, historyFrom - this.#historyFrom);
    this.#historyFrom = historyFrom;
    for (const answer of answers) answer();
    if (commits.length > 0) for (const wake of this.#watchers) wake();
  }

  #firstFailure(
    guards: readonly Guard[],
    writes: readonly Write[],
  ): (CommitResult & { ok: false })['failed'] | undefined {
    for (const guard of guards) {
      const entry = this.#entries.get(guard.key);
      const holds =
        'absent' in guard
          ? entry === undefined
          : 'created' in guard
            ? entry?.created === guard.created
            : entry?.changed === guard.changed;
      if (!holds) return guard;
    }
    for (const write of writes) {
      if ('put' in write && write.lease !== undefined && !this.#leases.has(write.lease)) {
        return { key: write.key, leaseGone: write.lease };
      }
    }
    return undefined;
  }

  #changesOf(writes: readonly Write[]): StoredChange[] {
    const revision = this.#revision + 1;
    const changes: StoredChange[] = [];
    for (const write of writes) {
      const { key } = write;
      const before = this.#entries.get(key);
      if ('put' in write) {
        const created = before?.created ?? revision;
        const lease = write.lease === undefined ? {} : { lease: write.lease };
        const entry = Object.freeze({ key, value: write.put, created, changed: revision, ...lease });
        changes.push({ kind: 'put', key, entry });
      } else if (before !== undefined) {
        changes.push({ kind: 'delete', key });
      }
    }
    return changes;
  }

  #deletionsOf(leases: ReadonlySet<string>): StoredChange[] {
    const changes: StoredChange[] = [];
    for (const { key, lease } of this.#entries.values()) {
      if (lease !== undefined && leases.has(lease)) changes.push({ kind: 'delete', key });
    }
    return changes;
  }

  #break(why: StoreClosed): void {
    if (this.#broken !== undefined) return;
    this.#broken = why;
    for (const { expiry } of this.#leases.values()) expiry.cancel();
    for (const { reject } of this.#queue) reject(why);
    this.#queue = [];
    for (const client of this.#clients) client.end(why);
    this.#journal?.close();
  }
}

/** One client's view: its leases, its watches, its clock. */
class Client implements Store {
  readonly #engine: Engine;
  readonly #clock: Clock;
  readonly #onClose: () => void;
  readonly #closed = new AbortController();
  readonly #leases = new Map<string, () => void>();

  constructor(engine: Engine, clock: Clock, onClose: () => void) {
    this.#engine = engine;
    this.#clock = clock;
    this.#onClose = onClose;
  }

  async list(prefix: string): Promise<{ entries: readonly Entry[]; revision: Revision }> {
    this.#assertUsable();
    return { entries: this.#engine.list(prefix).map(withoutLease), revision: this.#engine.revision };
  }

  async get(key: string): Promise<Entry | undefined> {
    this.#assertUsable();
    const entry = this.#engine.get(key);
    return entry && withoutLease(entry);
  }

  async commit(
    guards: readonly Guard[],
    writes: readonly Write[],
    { signal }: { readonly signal?: AbortSignal } = {},
  ): Promise<CommitResult> {
    this.#assertUsable();
    signal?.throwIfAborted();
    return this.#engine.commit([...guards], checked(guards, writes), signal);
  }

  async *watch(prefix: string, since: Revision, signal: AbortSignal): AsyncGenerator<Commit, void, void> {
    // The engine's history is the watcher's queue: it has a limit, and a watcher that falls behind it is told so.
    const ended = anySignal(signal, this.#closed.signal);
    let seen = since;
    while (!signal.aborted) {
      this.#assertUsable();
      const commit = this.#engine.after(seen);
      if (commit === undefined) {
        await this.#engine.nextCommit(ended);
        continue;
      }
      seen = commit.revision;
      const changes = commit.changes.filter(({ key }) => key.startsWith(prefix));
      if (changes.length > 0) yield { revision: commit.revision, changes };
    }
  }

  async lease(ttlMs: number): Promise<Lease> {
    this.#assertUsable();
    if (!(ttlMs > 0)) throw new RangeError(`a lease of ${ttlMs} ms`);
    const id = this.#engine.grant(ttlMs);
    const lost = new AbortController();
    let timer: Timer;
    const end = (why: Error): void => {
      timer.cancel();
      this.#leases.delete(id);
      lost.abort(why);
    };
    const renewLater = (): void => {
      timer = this.#clock.setTimeout(() => {
        if (this.#engine.renew(id)) renewLater();
        else end(new Error(`${id} was not renewed within ${ttlMs} ms`));
      }, ttlMs / 3);
    };
    renewLater();
    this.#leases.set(id, () => end(new StoreClosed('the store is closed')));
    return {
      id,
      lost: lost.signal,
      dispose: async () => {
        if (lost.signal.aborted) return;
        end(new Error(`${id} was given back`));
        this.#engine.revoke(id);
        // Behind the deletion of the lease's entries, so that those are gone when this resolves.
        await this.#engine.commit([], [], undefined);
      },
    };
  }

  async close(): Promise<void> {
    if (this.#closed.signal.aborted) return;
    const leases = [...this.#leases.keys()];
    this.end(new StoreClosed('the store is closed'));
    for (const id of leases) this.#engine.revoke(id);
    // A write that fails here is no matter: what a lease left behind is deleted by its expiry or by the next process.
    await this.#engine.commit([], [], undefined).catch(() => {});
    this.#onClose();
  }

  /** Without a word to the engine. */
  end(why: StoreClosed): void {
    this.#closed.abort(why);
    for (const end of this.#leases.values()) end();
  }

  #assertUsable(): void {
    this.#closed.signal.throwIfAborted();
    this.#engine.assertUsable();
  }
}

const keyPattern = /^[!-~]+$/;

/** The writes with values of their own, frozen; throws for what is no key, no JSON or too much. */
export function checked(guards: readonly Guard[], writes: readonly Write[]): Write[] {
  if (guards.length > storeLimits.guards) throw new RangeError(`${guards.length} guards in one commit`);
  if (writes.length > storeLimits.writes) throw new RangeError(`${writes.length} writes in one commit`);
  const keys = new Set<string>();
  let bytes = 0;
  return writes.map((write) => {
    const { key } = write;
    // Printable ASCII, because only there all engines order keys alike.
    if (key.length > storeLimits.keyLength || !keyPattern.test(key)) throw new RangeError(`not a key: ${key}`);
    if (keys.has(key)) throw new RangeError(`${key} is written twice in one commit`);
    keys.add(key);
    if (!('put' in write)) return { key, delete: true };
    const json: string | undefined = JSON.stringify(write.put);
    if (json === undefined) throw new TypeError(`the value of ${key} is not JSON`);
    bytes += Buffer.byteLength(json);
    if (bytes > storeLimits.commitBytes)
      throw new RangeError(`more than ${storeLimits.commitBytes} bytes in one commit`);
    return { ...write, put: frozenJson(json) };
  });
}

/** What `json` says, frozen through and through. */
export function frozenJson(json: string): unknown {
  const value: unknown = JSON.parse(json);
  freezeAll(value);
  return value;
}

/** Of what JSON.parse has just made: a reviver would do the same at several times the price. */
function freezeAll(value: unknown): void {
  if (value === null || typeof value !== 'object') return;
  for (const inner of Object.values(value)) freezeAll(inner);
  Object.freeze(value);
}

function withoutLease({ key, value, created, changed }: StoredEntry): Entry {
  return { key, value, created, changed };
}

function withoutLeases({ revision, changes }: StoredCommit): Commit {
  const plain = changes.map((change): Change =>
    change.kind === 'put' ? { kind: 'put', key: change.key, entry: withoutLease(change.entry) } : change,
  );
  return { revision, changes: plain };
}
