/** What the store on etcd must stand beyond the contract: members that die and freeze, lost answers, forgotten history, clocks that jump. */
import { fork } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { connect, createServer } from 'node:net';
import type { AddressInfo, Server, Socket } from 'node:net';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import type { Member } from '../../src/lab/etcd.ts';
import { systemClock } from '../../src/runtime/clock.ts';
import { openEtcd } from '../../src/store/etcd.ts';
import { HistoryGone, OutcomeUnknown, StoreUnavailable } from '../../src/store/store.ts';
import type { Commit, Store } from '../../src/store/store.ts';
import { EtcdCluster } from './etcd-cluster.ts';

let cluster: EtcdCluster;
let prefix: string;
let stores: Store[];
let ending: AbortController;
const children: ChildProcess[] = [];

beforeAll(async () => {
  cluster = await EtcdCluster.start();
});
afterAll(() => cluster?.stop());
beforeEach(() => {
  prefix = cluster.newPrefix();
  stores = [];
  ending = new AbortController();
});
afterEach(async () => {
  ending.abort();
  for (const child of children.splice(0)) child.kill('SIGKILL');
  await cluster.mend();
  for (const store of stores) await store.close();
});

function open(options: Parameters<EtcdCluster['open']>[0] = {}): Store {
  const store = cluster.open({ prefix, ...options });
  stores.push(store);
  return store;
}

async function put(store: Store, key: string, value: unknown): Promise<number> {
  const result = await store.commit([], [{ key, put: value }]);
  if (!result.ok) throw new Error(`an unguarded put of ${key} was refused`);
  return result.revision;
}

/** Adds one to a counter, settling lost answers by reading, as often as told. @returns how often it was in doubt */
async function count(store: Store, times: number, each: (n: number) => Promise<void>): Promise<number> {
  let doubts = 0;
  for (let n = 1; n <= times; n++) {
    for (;;) {
      try {
        const entry = await store.get('counter');
        if (entry?.value === n) break;
        expect(entry?.value ?? 0).toBe(n - 1);
        const guard = entry ? { key: 'counter', changed: entry.changed } : { key: 'counter', absent: true as const };
        await store.commit([guard], [{ key: 'counter', put: n }]);
        break;
      } catch (error) {
        if (!(error instanceof OutcomeUnknown || error instanceof StoreUnavailable)) throw error;
        if (error instanceof OutcomeUnknown) doubts++;
      }
    }
    await each(n);
  }
  return doubts;
}

/** The puts of `counter` that a watcher sees, until `last`. */
async function seenCounts(store: Store, since: number, last: number): Promise<unknown[]> {
  const seen: unknown[] = [];
  for await (const { changes } of store.watch('counter', since, ending.signal)) {
    for (const change of changes) if (change.kind === 'put') seen.push(change.entry.value);
    if (seen.at(-1) === last) break;
  }
  return seen;
}

describe('while members of etcd fail', () => {
  test('the leading one killed in the middle of commits loses none and doubles none, and watchers miss none', async () => {
    const store = open();
    const { revision } = await store.list('');
    const watchers = [open(), open(), open()].map((watcher) => seenCounts(watcher, revision, 120));
    const victim = await cluster.leader();
    await count(store, 120, async (n) => {
      if (n === 40) await cluster.kill(victim);
    });
    const all = Array.from({ length: 120 }, (_, i) => i + 1);
    for (const seen of watchers) expect(await seen).toEqual(all);
  });

  test('each one frozen in turn is left for another, by calls, watches and leases alike', async () => {
    for (const victim of cluster.members) {
      // Asked first of all, so that it is the one that is used.
      const store = open({ only: [victim, ...cluster.members.filter((other) => other !== victim)] });
      const lease = await store.lease(5_000);
      const { revision } = await store.list('');
      const watching = firstCommit(store.watch('after', revision, ending.signal));
      await put(store, 'before', 1);
      cluster.freeze(victim);
      await count(store, 1, async () => {});
      const other = open({ only: cluster.members.filter((member) => member !== victim) });
      await eventually(() => put(other, `after/${victim.name}`, 1));
      expect((await watching).changes[0]?.key).toBe(`after/${victim.name}`);
      expect(lease.lost.aborted).toBe(false);
      // Whether or not the first try is answered while a member is away: it is gone in the end.
      await eventually(() => store.commit([], [{ key: 'counter', delete: true }]));
      await cluster.mend();
    }
  });

  test('all of them gone, calls say that nothing was done; all of them back, everything goes on', async () => {
    const store = open();
    const { revision } = await store.list('');
    await put(store, 'counter', 1);
    const seen = seenCounts(open(), revision, 2);
    for (const member of cluster.members) await cluster.kill(member);
    await expect(put(store, 'counter', 'lost')).rejects.toThrow(StoreUnavailable);
    await expect(store.list('')).rejects.toThrow(StoreUnavailable);
    await expect(store.lease(3_000)).rejects.toThrow(StoreUnavailable);
    await cluster.mend();
    await put(store, 'counter', 2);
    expect(await seen).toEqual([1, 2]);
  });
});

describe('a commit whose answer was lost', () => {
  let wire: Wire;
  beforeEach(async () => {
    wire = await Wire.to(cluster.members[0]!);
  });
  afterEach(() => wire.close());

  /** Its own certificate is for other addresses and it has one member: what goes over the wire is all there is. */
  const overTheWire = (): Store => {
    const store = openEtcd({ members: [{ address: '127.0.0.1', port: wire.port }], tls: cluster.tls, prefix });
    stores.push(store);
    return store;
  };

  test('and that etcd carries out is said to be unknown, and read as done', async () => {
    const store = overTheWire();
    await put(store, 'a', 1);
    wire.swallowAnswers();
    await expect(put(store, 'a', 2)).rejects.toThrow(OutcomeUnknown);
    wire.pass();
    expect((await store.get('a'))?.value).toBe(2);
  });

  test('and that is still on its way never happens once its client has read', async () => {
    const store = overTheWire();
    await put(store, 'a', 1);
    wire.hold();
    await expect(put(store, 'a', 'late')).rejects.toThrow(OutcomeUnknown);
    wire.holdNoNew();
    expect((await store.get('a'))?.value).toBe(1);
    await wire.deliverHeld();
    expect((await store.get('a'))?.value).toBe(1);
    // And the client goes on with the fence it has put.
    await put(store, 'a', 2);
    expect((await open().get('a'))?.value).toBe(2);
  });

  test('does not hinder others: a commit that only the fence refused is handed over again', async () => {
    const other = open();
    await put(other, 'b', 1);
    const store = overTheWire();
    await put(store, 'a', 0);
    wire.swallowAnswers();
    await expect(put(store, 'a', 1)).rejects.toThrow(OutcomeUnknown);
    wire.pass();
    await store.list('');
    const read = await other.get('b');
    expect(await other.commit([{ key: 'b', changed: read!.changed }], [{ key: 'b', put: 2 }])).toMatchObject({
      ok: true,
    });
  });
});

describe('history and lists', () => {
  test('compaction under a watch that lost its connection ends it with HistoryGone; one that keeps up goes on', async () => {
    const store = open();
    const wire = await Wire.to(cluster.members[0]!);
    const behind = openEtcd({ members: [{ address: '127.0.0.1', port: wire.port }], tls: cluster.tls, prefix });
    stores.push(behind);
    const { revision } = await store.list('');
    const keepsUp = store.watch('', revision, ending.signal)[Symbol.asyncIterator]();
    const fallsBehind = behind.watch('', revision, ending.signal)[Symbol.asyncIterator]();
    await put(store, 'a', 1);
    await keepsUp.next();
    await fallsBehind.next();
    wire.cut();
    const next = fallsBehind.next();
    next.catch(() => {});
    await put(store, 'a', 2);
    await put(store, 'a', 3);
    await cluster.compact();
    wire.pass();
    await expect(next).rejects.toThrow(HistoryGone);
    expect((await keepsUp.next()).value).toMatchObject({ changes: [{ entry: { value: 2 } }] });
    expect((await keepsUp.next()).value).toMatchObject({ changes: [{ entry: { value: 3 } }] });
    wire.close();
  });

  test('a list of several pages is of one revision, also while it changes', async () => {
    const store = open();
    const keys = Array.from({ length: 2_500 }, (_, i) => `k/${String(i).padStart(5, '0')}`);
    for (let from = 0; from < keys.length; from += 100) {
      await store.commit(
        [],
        keys.slice(from, from + 100).map((key) => ({ key, put: 0 })),
      );
    }
    const other = open();
    let writing = true;
    const writes = (async () => {
      for (let n = 1; writing; n++) {
        await other.commit(
          [],
          [
            { key: keys[0]!, put: n },
            { key: keys[2_400]!, put: n },
          ],
        );
      }
    })();
    for (let i = 0; i < 10; i++) {
      const { entries } = await store.list('k/');
      expect(entries.map(({ key }) => key)).toEqual(keys);
      expect(entries[0]?.value).toBe(entries[2_400]?.value);
    }
    writing = false;
    await writes;
  });
});

describe('leases', () => {
  test('of a client that was killed run out, and those of others do not', async () => {
    const store = open();
    const mine = await store.lease(3_000);
    await store.commit([], [{ key: 'mine', put: 1, lease: mine.id }]);
    const module = new URL('./etcd-holder.ts', import.meta.url);
    const child = fork(module, { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] });
    children.push(child);
    child.send({ members: cluster.members.map(({ endpoint }) => endpoint), tls: cluster.tls, prefix });
    await once(child, 'message');
    const { revision } = await store.list('');
    const watching = firstCommit(store.watch('theirs', revision, ending.signal));
    const killedAt = performance.now();
    child.kill('SIGKILL');
    expect((await watching).changes).toEqual([{ kind: 'delete', key: 'theirs' }]);
    const tookMs = performance.now() - killedAt;
    console.log(`the lease of 3 s of a killed client ran out after ${Math.round(tookMs)} ms`);
    expect(tookMs).toBeLessThan(3_900);
    expect(mine.lost.aborted).toBe(false);
    expect((await store.get('mine'))?.value).toBe(1);
  });

  test('are lost in time by the monotonic clock when etcd cannot be reached, however the wall clock jumps', async () => {
    let offsetMs = 0;
    const clock = { ...systemClock, now: () => systemClock.now() + offsetMs };
    const wire = await Wire.to(cluster.members[0]!);
    const store = openEtcd({ members: [{ address: '127.0.0.1', port: wire.port }], tls: cluster.tls, prefix, clock });
    stores.push(store);
    const lease = await store.lease(3_000);
    await store.commit([], [{ key: 'mine', put: 1, lease: lease.id }]);
    const other = open();
    const { revision } = await other.list('');
    const gone = firstCommit(other.watch('mine', revision, ending.signal)).then(() => performance.now());
    const lost = new Promise<number>((resolve) =>
      lease.lost.addEventListener('abort', () => resolve(performance.now()), { once: true }),
    );
    wire.cut();
    offsetMs = -3_600_000;
    expect(await lost).toBeLessThan(await gone);
    wire.close();
  });
});

async function firstCommit(watch: AsyncIterable<Commit>): Promise<Commit> {
  for await (const commit of watch) return commit;
  throw new Error('the watch ended before its first commit');
}

/** For what may be refused or in doubt while etcd chooses another leader, and may be done twice. */
async function eventually<T>(fn: () => Promise<T>): Promise<T> {
  for (;;) {
    try {
      return await fn();
    } catch (error) {
      if (!(error instanceof OutcomeUnknown || error instanceof StoreUnavailable)) throw error;
    }
  }
}

/** A wire to one member that can lose answers and hold back what was sent, byte by byte: TLS goes through it unseen. */
class Wire {
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  #mode: 'pass' | 'swallow-answers' | 'hold' | 'cut' = 'pass';
  #held: { readonly to: Socket; readonly bytes: Buffer }[] = [];
  #heldSockets = new Set<Socket>();

  private constructor(server: Server) {
    this.#server = server;
  }

  static async to({ endpoint }: Member): Promise<Wire> {
    const server = createServer();
    const wire = new Wire(server);
    server.on('connection', (near) => wire.#join(near, connect(endpoint.port, endpoint.address)));
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    return wire;
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  #join(near: Socket, far: Socket): void {
    if (this.#mode === 'cut') {
      near.destroy();
      far.destroy();
      return;
    }
    for (const socket of [near, far]) {
      this.#sockets.add(socket);
      socket.on('error', () => {}); // its end is what the tests are about
      socket.on('close', () => this.#sockets.delete(socket));
    }
    near.on('data', (bytes) => {
      if (this.#mode === 'hold') this.#heldSockets.add(far);
      if (this.#heldSockets.has(far)) this.#held.push({ to: far, bytes });
      else far.write(bytes);
    });
    far.on('data', (bytes) => {
      if (this.#mode !== 'swallow-answers') near.write(bytes);
    });
    // What is held back outlives the client that gave it up.
    near.on('close', () => {
      if (!this.#heldSockets.has(far)) far.destroy();
    });
    far.on('close', () => near.destroy());
  }

  pass(): void {
    this.#mode = 'pass';
  }
  swallowAnswers(): void {
    this.#mode = 'swallow-answers';
  }
  hold(): void {
    this.#mode = 'hold';
  }
  /** What is held stays held; what comes on other connections passes. */
  holdNoNew(): void {
    this.#mode = 'pass';
  }
  cut(): void {
    this.#mode = 'cut';
    for (const socket of this.#sockets) socket.destroy();
  }

  /** Resolves when the member has answered what was held. */
  async deliverHeld(): Promise<void> {
    const held = this.#held.splice(0);
    expect(held.length).toBeGreaterThan(0);
    const answered = [...new Set(held.map(({ to }) => to))].map((to) => once(to, 'data'));
    for (const { to, bytes } of held) to.write(bytes);
    await Promise.all(answered);
  }

  close(): void {
    this.cut();
    this.#server.close();
  }
}
