/**
 * The store on etcd, for several servers: what store.ts promises, over the calls of etcd-gateway.ts. A revision is etcd's own,
 * a commit one transaction, a lease etcd's lease.
 *
 *     <prefix>data/<key>    the entries, as JSON
 *     <prefix>fence         see below; never listed
 *
 * A commit whose answer was lost can still happen: a member that was frozen carries it out when it wakes. So each commit is
 * also guarded by the fence's revision, and whatever this client does next first puts the fence anew. From then on the lost
 * commit has happened or never will, and reading tells which. Another client whose commit was refused by the fence alone
 * knows that nothing was done, and hands it over again.
 *
 * A lease is held for its time from before the request that renewed it, by our monotonic clock: so it is lost here before it
 * is lost there, whatever the clocks of etcd's machines say.
 */
import { messageOf } from '../model/failure.ts';
import type { Endpoint } from '../model/host.ts';
import { systemClock } from '../runtime/clock.ts';
import type { Clock, Timer } from '../runtime/clock.ts';
import { silentLog } from '../runtime/log.ts';
import type { Log } from '../runtime/log.ts';
import { anySignal } from '../runtime/retry.ts';
import { Gateway, NobodyAsked, Refused, Unanswered, notFound, objectOf, outOfRange } from './etcd-gateway.ts';
import type { CallOptions, EtcdTls } from './etcd-gateway.ts';
import { checked, frozenJson } from './memory.ts';
import { HistoryGone, OutcomeUnknown, StoreClosed, StoreUnavailable } from './store.ts';
import type { Change, Commit, CommitResult, Entry, Guard, Lease, Revision, Store, Write } from './store.ts';

export interface EtcdOptions {
  readonly members: readonly Endpoint[];
  readonly tls?: EtcdTls;
  /** Before every key. Fleets that share an etcd each have their own. */
  readonly prefix?: string;
  readonly clock?: Clock;
  readonly log?: Log;
}

const pageSize = 1_000;
const listAttempts = 3;
/** How often a commit that the fence alone refused is handed over again. */
const commitAttempts = 8;
const revokeMs = 2_000;
/** A member that answers nothing for this long is left by its watchers. */
const probeEveryMs = 1_000;
const probeMs = 1_500;
const firstPauseMs = 50;
const longestPauseMs = 1_000;
/** Renewals within the time of a lease: a change of etcd's own leader takes one to two seconds. */
const renewalsPerLease = 6;

/** A client of the etcd with these members. Nothing is asked before the first call, so etcd may come up later. */
export function openEtcd(options: EtcdOptions): Store {
  return new EtcdStore(options);
}

interface KeyValue {
  readonly key: string;
  readonly json: string;
  readonly created: Revision;
  readonly changed: Revision;
}

class EtcdStore implements Store {
  readonly #gateway: Gateway;
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #data: string;
  readonly #fenceKey: string;
  readonly #closed = new AbortController();
  readonly #leases = new Map<string, (why: Error) => void>();
  readonly #commits = new Set<Promise<CommitResult>>();
  /** Revision of the fence as last seen. */
  #fence: Revision = 0;
  /** A commit of ours may still happen: nothing is read or written before the fence is put anew. */
  #doubt = false;
  #settling: Promise<void> | undefined;

  constructor({ members, tls, prefix = '/drover/', clock = systemClock, log = silentLog }: EtcdOptions) {
    this.#gateway = new Gateway(members, tls, clock);
    this.#clock = clock;
    this.#log = log;
    this.#data = `${prefix}data/`;
    this.#fenceKey = `${prefix}fence`;
  }

  async list(prefix: string): Promise<{ entries: readonly Entry[]; revision: Revision }> {
    this.#assertUsable();
    await this.#settled();
    for (let attempt = 1; ; attempt++) {
      try {
        return await this.#listOnce(prefix);
      } catch (error) {
        // The revision of the first page was compacted away before the last was read.
        const compacted = error instanceof Refused && error.code === outOfRange;
        if (!compacted || attempt === listAttempts) throw this.#asUnavailable(error);
      }
    }
  }

  async get(key: string): Promise<Entry | undefined> {
    this.#assertUsable();
    await this.#settled();
    try {
      const answer = await this.#call('/v3/kv/range', { key: this.#encoded(key) }, { repeatable: true });
      const [found] = this.#keyValues(answer['kvs']);
      return found && entryOf(found);
    } catch (error) {
      throw this.#asUnavailable(error);
    }
  }

  async commit(
    guards: readonly Guard[],
    writes: readonly Write[],
    { signal }: { readonly signal?: AbortSignal } = {},
  ): Promise<CommitResult> {
    this.#assertUsable();
    signal?.throwIfAborted();
    const committing = this.#commit([...guards], checked(guards, writes), signal);
    this.#commits.add(committing);
    try {
      return await committing;
    } finally {
      this.#commits.delete(committing);
    }
  }

  async *watch(prefix: string, since: Revision, signal: AbortSignal): AsyncGenerator<Commit, void, void> {
    const ended = anySignal(signal, this.#closed.signal);
    const position = { seen: since };
    let pauseMs = firstPauseMs;
    while (!signal.aborted) {
      this.#assertUsable();
      try {
        for await (const commit of this.#follow(prefix, position, ended)) {
          if (signal.aborted) return;
          pauseMs = firstPauseMs;
          yield commit;
        }
      } catch (error) {
        if (error instanceof HistoryGone) throw error;
        if (ended.aborted) continue;
        this.#log.info({ error: messageOf(error) }, 'a watch of the store broke; it goes on from where it was');
      }
      await this.#clock.sleep(pauseMs, ended).catch(() => {});
      pauseMs = Math.min(longestPauseMs, pauseMs * 2);
    }
  }

  async lease(ttlMs: number): Promise<Lease> {
    this.#assertUsable();
    if (!(ttlMs > 0)) throw new RangeError(`a lease of ${ttlMs} ms`);
    const askedAt = this.#clock.monotonic();
    let id: string;
    try {
      // Granted twice where the first answer was lost: the other one runs out by itself.
      const ttl = String(Math.ceil(ttlMs / 1_000));
      id = String((await this.#call('/v3/lease/grant', { TTL: ttl }, { repeatable: true }))['ID']);
    } catch (error) {
      throw this.#asUnavailable(error);
    }
    const lost = new AbortController();
    this.#leases.set(id, (why) => lost.abort(why));
    lost.signal.addEventListener('abort', () => this.#leases.delete(id), { once: true });
    if (this.#closed.signal.aborted) lost.abort(this.#closed.signal.reason);
    this.#keep(id, ttlMs, askedAt, lost);
    return {
      id,
      lost: lost.signal,
      dispose: async () => {
        if (lost.signal.aborted) return;
        lost.abort(new Error(`lease ${id} was given back`));
        await this.#revoke(id);
      },
    };
  }

  async close(): Promise<void> {
    if (this.#closed.signal.aborted) return;
    const why = new StoreClosed('the store is closed');
    this.#closed.abort(why);
    const leases = [...this.#leases];
    for (const [, end] of leases) end(why);
    await Promise.allSettled(this.#commits);
    // What cannot be given back runs out by itself.
    await Promise.allSettled(leases.map(([id]) => this.#revoke(id)));
    this.#gateway.close();
  }

  /* Reading */

  async #listOnce(prefix: string): Promise<{ entries: readonly Entry[]; revision: Revision }> {
    const end = this.#encodedEnd(prefix);
    const entries: Entry[] = [];
    let from = this.#encoded(prefix);
    let revision: Revision | undefined;
    for (;;) {
      const at = revision === undefined ? {} : { revision: String(revision) };
      const body = { key: from, range_end: end, limit: String(pageSize), ...at };
      const answer = await this.#call('/v3/kv/range', body, { repeatable: true });
      revision ??= revisionOf(answer);
      const page = this.#keyValues(answer['kvs']);
      for (const found of page) entries.push(entryOf(found));
      const last = page.at(-1);
      if (answer['more'] !== true || last === undefined) return { entries, revision };
      from = this.#encoded(`${last.key}\0`);
    }
  }

  /** One connection's worth of a watch. Moves `position` on before it yields. */
  async *#follow(
    prefix: string,
    position: { seen: Revision },
    signal: AbortSignal,
  ): AsyncGenerator<Commit, void, void> {
    const since = position.seen;
    const silent = new AbortController();
    const both = anySignal(signal, silent.signal);
    const body = {
      create_request: {
        key: this.#encoded(prefix),
        range_end: this.#encodedEnd(prefix),
        start_revision: String(since + 1),
        progress_notify: true,
      },
    };
    try {
      const opened = (member: Endpoint): void => void this.#probe(member, both, silent);
      for await (const answer of this.#gateway.stream('/v3/watch', body, both, opened)) {
        if (answer['canceled'] === true) {
          if (numberIn(answer['compact_revision']) > 0) throw new HistoryGone(since);
          throw new Error(`the watch was ended by etcd: ${JSON.stringify(answer['cancel_reason'] ?? null)}`);
        }
        if (answer['created'] === true) {
          // A member may be behind what another has told us; only one that asked the others knows what there is.
          if (revisionOf(answer) < since && (await this.#newest()) < since) throw new HistoryGone(since);
          continue;
        }
        for (const commit of this.#commitsIn(answer['events'])) {
          position.seen = commit.revision;
          yield commit;
        }
        // Said now and then where nothing happens here, so that what was compacted meanwhile is not missed.
        if (answer['events'] === undefined) position.seen = Math.max(position.seen, revisionOf(answer));
      }
    } finally {
      silent.abort();
    }
  }

  /** A member that is frozen or cut off keeps its connections: asked again and again, it is left when it does not answer. */
  async #probe(member: Endpoint, signal: AbortSignal, silent: AbortController): Promise<void> {
    try {
      for (;;) {
        await this.#clock.sleep(probeEveryMs, signal);
        await this.#newest({ member, deadlineMs: probeMs, signal });
      }
    } catch (error) {
      if (!signal.aborted) silent.abort(error);
    }
  }

  async #newest(options: Omit<CallOptions, 'repeatable'> = {}): Promise<Revision> {
    const body = { key: encode(this.#fenceKey), keys_only: true };
    return revisionOf(await this.#call('/v3/kv/range', body, { ...options, repeatable: true }));
  }

  #commitsIn(events: unknown): Commit[] {
    const commits: { revision: Revision; changes: Change[] }[] = [];
    for (const event of Array.isArray(events) ? events.map(objectOf) : []) {
      const [found] = this.#keyValues([event['kv']]);
      if (found === undefined) continue;
      if (commits.at(-1)?.revision !== found.changed) commits.push({ revision: found.changed, changes: [] });
      const { key } = found;
      const change: Change =
        event['type'] === 'DELETE' ? { kind: 'delete', key } : { kind: 'put', key, entry: entryOf(found) };
      commits.at(-1)?.changes.push(change);
    }
    return commits;
  }

  /* Writing */

  async #commit(
    guards: readonly Guard[],
    writes: readonly Write[],
    signal: AbortSignal | undefined,
  ): Promise<CommitResult> {
    for (let attempt = 0; attempt < commitAttempts; attempt++) {
      await this.#settled();
      signal?.throwIfAborted();
      const fence = this.#fence;
      let answer: Record<string, unknown>;
      try {
        answer = await this.#call('/v3/kv/txn', this.#transaction(guards, writes, fence), { repeatable: false });
      } catch (error) {
        if (error instanceof Refused && error.code === notFound) {
          const failed = await this.#leaseGone(writes);
          if (failed !== undefined) return { ok: false, failed };
        }
        if (!(error instanceof Unanswered)) throw this.#asUnavailable(error);
        this.#doubt = true;
        throw new OutcomeUnknown(`etcd did not say what came of a commit: ${error.message}`, { cause: error });
      }
      if (answer['succeeded'] === true) return { ok: true, revision: revisionOf(answer) };
      const [fenceNow, ...found] = this.#rangesIn(answer['responses']);
      this.#fence = Math.max(this.#fence, fenceNow?.changed ?? 0);
      const failed = guards.find((guard, i) => !holds(guard, found[i]));
      if (failed !== undefined) return { ok: false, failed };
      // Only the fence: somebody settled a doubt of theirs meanwhile.
    }
    throw new StoreUnavailable(`a commit was overtaken ${commitAttempts} times`);
  }

  #transaction(guards: readonly Guard[], writes: readonly Write[], fence: Revision): object {
    const fenceRange = { request_range: { key: encode(this.#fenceKey), keys_only: true } };
    return {
      compare: [
        { key: encode(this.#fenceKey), target: 'MOD', result: 'EQUAL', mod_revision: String(fence) },
        ...guards.map((guard) => this.#compare(guard)),
      ],
      // With a read, a transaction that writes nothing still asks the majority.
      success: writes.length === 0 ? [fenceRange] : writes.map((write) => this.#operation(write)),
      failure: [
        fenceRange,
        ...guards.map(({ key }) => ({ request_range: { key: this.#encoded(key), keys_only: true } })),
      ],
    };
  }

  #compare(guard: Guard): object {
    const key = this.#encoded(guard.key);
    // For etcd an absent key has revision 0; here only `absent` means that.
    if ('absent' in guard) return { key, target: 'CREATE', result: 'EQUAL', create_revision: '0' };
    if ('created' in guard) {
      return { key, target: 'CREATE', result: 'EQUAL', create_revision: String(guard.created || -1) };
    }
    return { key, target: 'MOD', result: 'EQUAL', mod_revision: String(guard.changed || -1) };
  }

  #operation(write: Write): object {
    const key = this.#encoded(write.key);
    if (!('put' in write)) return { request_delete_range: { key } };
    const lease = write.lease === undefined ? {} : { lease: write.lease };
    return { request_put: { key, value: encode(JSON.stringify(write.put)), ...lease } };
  }

  /** The keys found by the ranges of a transaction, one or none each. */
  #rangesIn(responses: unknown): (Pick<KeyValue, 'created' | 'changed'> | undefined)[] {
    return (Array.isArray(responses) ? responses : []).map((response) => {
      const kvs = objectOf(objectOf(response)['response_range'])['kvs'];
      const kv: unknown = Array.isArray(kvs) ? kvs[0] : undefined;
      if (kv === undefined) return undefined;
      const { create_revision: created, mod_revision: changed } = objectOf(kv);
      return { created: numberIn(created), changed: numberIn(changed) };
    });
  }

  /** Which put it was whose lease is gone; undefined when all are there (again). */
  async #leaseGone(writes: readonly Write[]): Promise<(CommitResult & { ok: false })['failed'] | undefined> {
    for (const write of writes) {
      if (!('put' in write) || write.lease === undefined) continue;
      try {
        const answer = await this.#call('/v3/lease/timetolive', { ID: write.lease }, { repeatable: true });
        if (numberIn(answer['TTL']) > 0) continue;
      } catch (error) {
        if (!(error instanceof Refused && error.code === notFound)) throw this.#asUnavailable(error);
      }
      return { key: write.key, leaseGone: write.lease };
    }
    return undefined;
  }

  /** Resolves when no commit of ours can happen any more but those that were begun since. */
  async #settled(): Promise<void> {
    if (!this.#doubt) return;
    this.#settling ??= this.#settle().finally(() => (this.#settling = undefined));
    await this.#settling;
  }

  async #settle(): Promise<void> {
    // First, so that a commit that is lost while the fence is put is in doubt again.
    this.#doubt = false;
    try {
      const body = { key: encode(this.#fenceKey), value: encode('"moved to settle a commit whose answer was lost"') };
      const answer = await this.#call('/v3/kv/put', body, { repeatable: true });
      this.#fence = Math.max(this.#fence, revisionOf(answer));
    } catch (error) {
      this.#doubt = true;
      throw this.#asUnavailable(error);
    }
  }

  /* Leases */

  /** Renews until it is lost. */
  #keep(id: string, ttlMs: number, grantedAt: number, lost: AbortController): void {
    const everyMs = ttlMs / renewalsPerLease;
    let expiry: Timer | undefined;
    const validFrom = (askedAt: number): void => {
      const leftMs = askedAt + ttlMs - this.#clock.monotonic();
      if (leftMs <= 0) return lost.abort(new Error(`lease ${id} was not renewed within ${ttlMs} ms`));
      expiry = this.#clock.setTimeout(
        () => lost.abort(new Error(`lease ${id} was not renewed within ${ttlMs} ms`)),
        leftMs,
      );
    };
    validFrom(grantedAt);
    lost.signal.addEventListener('abort', () => expiry?.cancel(), { once: true });
    void (async () => {
      while (!lost.signal.aborted) {
        try {
          await this.#clock.sleep(everyMs, lost.signal);
          const askedAt = this.#clock.monotonic();
          const options = { repeatable: true, deadlineMs: ttlMs, signal: lost.signal };
          const answer = await this.#call('/v3/lease/keepalive', { ID: id }, options);
          if (numberIn(answer['TTL']) <= 0) return lost.abort(new Error(`lease ${id} is gone`));
          if (lost.signal.aborted) return;
          expiry?.cancel();
          validFrom(askedAt);
        } catch (error) {
          if (lost.signal.aborted) return;
          this.#log.warn({ lease: id, error: messageOf(error) }, 'a lease could not be renewed; trying on');
        }
      }
    })();
  }

  async #revoke(id: string): Promise<void> {
    try {
      await this.#call('/v3/lease/revoke', { ID: id }, { repeatable: true, deadlineMs: revokeMs });
    } catch (error) {
      if (error instanceof Refused && error.code === notFound) return;
      throw this.#asUnavailable(error);
    }
  }

  /* Words */

  #call(path: string, body: object, options: CallOptions): Promise<Record<string, unknown>> {
    return this.#gateway.call(path, body, options);
  }

  #assertUsable(): void {
    this.#closed.signal.throwIfAborted();
  }

  #asUnavailable(error: unknown): unknown {
    if (error instanceof NobodyAsked || error instanceof Refused || error instanceof Unanswered) {
      return new StoreUnavailable(`etcd: ${error.message}`, { cause: error });
    }
    return error;
  }

  #encoded(key: string): string {
    return encode(this.#data + key);
  }

  /** The first key after all that start with `prefix`: its last byte one higher (none of ours is the highest). */
  #encodedEnd(prefix: string): string {
    const bytes = Buffer.from(this.#data + prefix);
    bytes.writeUInt8(bytes.readUInt8(bytes.length - 1) + 1, bytes.length - 1);
    return bytes.toString('base64');
  }

  #keyValues(kvs: unknown): KeyValue[] {
    return (Array.isArray(kvs) ? kvs : []).map((kv) => {
      const { key, value, create_revision: created, mod_revision: changed } = objectOf(kv);
      return {
        key: decode(key).slice(this.#data.length),
        json: decode(value),
        created: numberIn(created),
        changed: numberIn(changed),
      };
    });
  }
}

function holds(guard: Guard, found: Pick<KeyValue, 'created' | 'changed'> | undefined): boolean {
  if ('absent' in guard) return found === undefined;
  return 'created' in guard ? found?.created === guard.created : found?.changed === guard.changed;
}

function entryOf({ key, json, created, changed }: KeyValue): Entry {
  return { key, value: frozenJson(json), created, changed };
}

function encode(text: string): string {
  return Buffer.from(text).toString('base64');
}

function decode(base64: unknown): string {
  return typeof base64 === 'string' ? Buffer.from(base64, 'base64').toString() : '';
}

/** etcd writes 64-bit numbers as strings and leaves zero out. Revisions of a fleet stay far below 2^53. */
function numberIn(value: unknown): number {
  return value === undefined ? 0 : Number(value);
}

function revisionOf(answer: Record<string, unknown>): Revision {
  const revision = numberIn(objectOf(answer['header'])['revision']);
  if (revision > 0) return revision;
  throw new Unanswered('an answer of etcd carries no revision');
}
