/**
 * What every engine of the store must do, as one suite of tests: run over memory and SQLite by test/contract/store.test.ts.
 * An engine is handed over as a bed: clients of one store, and power over time.
 *
 * Not here: what only one engine has (files, processes, disks): those tests stand beside the engine.
 */
import { setImmediate as nextTurn } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { lead, leaderKey } from './leadership.ts';
import type { Leadership, LeadOptions } from './leadership.ts';
import { HistoryGone, StoreClosed } from './store.ts';
import type { Commit, Revision, Store } from './store.ts';

export interface StoreClient {
  readonly store: Store;
  /** Its process stops for now: it renews nothing and notices nothing. */
  freeze(): void;
  /** It goes on, its timers late. */
  thaw(): Promise<void>;
}

export interface StoreBed {
  /** Another client of the same store. */
  connect(): Promise<StoreClient>;
  /** Lets time pass for the store and every client that is not frozen. */
  pass(ms: number): Promise<void>;
  /** Makes the store forget what changed before now. */
  forgetHistory(): Promise<void>;
  /** Stops the store, clients and all, and starts it on what it kept. Absent: it keeps nothing. */
  restart?(): Promise<void>;
  close(): Promise<void>;
}

const ttlMs = 3_000;

export function storeContract(name: string, open: () => Promise<StoreBed>): void {
  describe(`the store contract: ${name}`, () => {
    let bed: StoreBed;
    let store: Store;
    let ending: AbortController;

    beforeEach(async () => {
      bed = await open();
      store = (await bed.connect()).store;
      ending = new AbortController();
    });

    afterEach(async () => {
      ending.abort();
      await bed.close();
    });

    const put = async (key: string, value: unknown): Promise<Revision> => {
      const result = await store.commit([], [{ key, put: value }]);
      if (!result.ok) throw new Error(`an unguarded put of ${key} was refused`);
      return result.revision;
    };

    describe('entries', () => {
      test('what was put is read back with the revisions of its creation and last change', async () => {
        const first = await put('vms/a', { cpus: 2 });
        const second = await put('vms/a', { cpus: 4, labels: ['x', null, 1.5] });
        expect(second).toBeGreaterThan(first);
        expect(await store.get('vms/a')).toEqual({
          key: 'vms/a',
          value: { cpus: 4, labels: ['x', null, 1.5] },
          created: first,
          changed: second,
        });
        expect(await store.get('vms/b')).toBeUndefined();
      });

      test('a list holds the keys with the prefix and no others, in order, at the revision of now', async () => {
        for (const key of ['vms/b', 'vms/B', 'vms/a10', 'vms/a', 'vmsx', 'hosts/a']) await put(key, key);
        const { entries, revision } = await store.list('vms/');
        expect(entries.map(({ key }) => key)).toEqual(['vms/B', 'vms/a', 'vms/a10', 'vms/b']);
        expect(revision).toBe((await put('hosts/b', 1)) - 1);
      });

      test('changing a value after it was written, or the value that was read, does not change the store', async () => {
        const mine = { deep: { n: 1 } };
        const writing = store.commit([], [{ key: 'a', put: mine }]);
        mine.deep.n = 2;
        await writing;
        const read = (await store.get('a'))?.value as typeof mine;
        expect(() => (read.deep.n = 3)).toThrow(TypeError);
        expect((await store.get('a'))?.value).toEqual({ deep: { n: 1 } });
      });

      test('a deleted entry is gone, and put again it is a new one', async () => {
        const first = await put('a', 1);
        await store.commit([], [{ key: 'a', delete: true }]);
        expect(await store.get('a')).toBeUndefined();
        const again = await put('a', 2);
        expect(await store.get('a')).toMatchObject({ created: again, changed: again });
        expect(again).toBe(first + 2);
      });

      test('a commit that changes nothing makes no revision', async () => {
        const revision = await put('a', 1);
        expect(await store.commit([], [{ key: 'b', delete: true }])).toEqual({ ok: true, revision });
        expect(await store.commit([{ key: 'a', changed: revision }], [])).toEqual({ ok: true, revision });
      });

      test('keys and values that no engine could keep are refused as bugs, and nothing is written', async () => {
        const before = (await store.list('')).revision;
        for (const key of ['', 'with space', 'ümlaut', 'x'.repeat(513)]) {
          await expect(store.commit([], [{ key, put: 1 }])).rejects.toThrow(RangeError);
        }
        await expect(store.commit([], [{ key: 'a', put: undefined }])).rejects.toThrow(TypeError);
        await expect(store.commit([], [{ key: 'a', put: 'x'.repeat(1024 * 1024) }])).rejects.toThrow(RangeError);
        await expect(
          store.commit(
            [],
            [
              { key: 'a', put: 1 },
              { key: 'a', delete: true },
            ],
          ),
        ).rejects.toThrow(RangeError);
        const tooMany = Array.from({ length: 129 }, (_, i) => ({ key: `k${i}`, put: i }));
        await expect(store.commit([], tooMany)).rejects.toThrow(RangeError);
        expect((await store.list('')).revision).toBe(before);
      });
    });

    describe('guards', () => {
      test('an entry guarded as absent is created once', async () => {
        const create = (value: number) => store.commit([{ key: 'a', absent: true }], [{ key: 'a', put: value }]);
        expect(await create(1)).toMatchObject({ ok: true });
        expect(await create(2)).toEqual({ ok: false, failed: { key: 'a', absent: true } });
        expect((await store.get('a'))?.value).toBe(1);
      });

      test('an entry changed since it was read is not overwritten', async () => {
        const read = await put('a', 1);
        await put('a', 2);
        const guard = { key: 'a', changed: read };
        expect(await store.commit([guard], [{ key: 'a', put: 3 }])).toEqual({ ok: false, failed: guard });
        expect(await store.commit([guard], [{ key: 'a', delete: true }])).toEqual({ ok: false, failed: guard });
        expect((await store.get('a'))?.value).toBe(2);
      });

      test('a guard on creation holds through changes and no longer once the entry was made anew', async () => {
        const created = await put('a', 1);
        await put('a', 2);
        const guard = { key: 'a', created };
        expect(await store.commit([guard], [{ key: 'b', put: 1 }])).toMatchObject({ ok: true });
        await store.commit([], [{ key: 'a', delete: true }]);
        expect(await store.commit([guard], [{ key: 'b', put: 2 }])).toEqual({ ok: false, failed: guard });
        await put('a', 3);
        expect(await store.commit([guard], [{ key: 'b', put: 3 }])).toEqual({ ok: false, failed: guard });
      });

      test('of a commit over two keys either both are written or none, and the guard that failed is named', async () => {
        const a = await put('a', 1);
        const b = await put('b', 1);
        const both = [
          { key: 'a', put: 2 },
          { key: 'b', put: 2 },
        ];
        const stale = { key: 'b', changed: a };
        expect(await store.commit([{ key: 'a', changed: a }, stale], both)).toEqual({ ok: false, failed: stale });
        expect((await store.list('')).entries.map(({ value }) => value)).toEqual([1, 1]);
        const guards = [
          { key: 'a', changed: a },
          { key: 'b', changed: b },
        ];
        const done = await store.commit(guards, both);
        expect(done).toEqual({ ok: true, revision: b + 1 });
        expect((await store.list('')).entries.map(({ value, changed }) => [value, changed])).toEqual([
          [2, b + 1],
          [2, b + 1],
        ]);
      });

      test('of twenty who race to change one entry exactly one wins', async () => {
        const read = await put('a', 'start');
        const clients = [store, (await bed.connect()).store, (await bed.connect()).store];
        const results = await Promise.all(
          Array.from({ length: 20 }, (_, i) =>
            clients[i % clients.length]!.commit([{ key: 'a', changed: read }], [{ key: 'a', put: i }]),
          ),
        );
        const winners = results.flatMap(({ ok }, i) => (ok ? [i] : []));
        expect(winners).toHaveLength(1);
        expect((await store.get('a'))?.value).toBe(winners[0]);
      });

      test('a commit whose signal came before it was handed over writes nothing', async () => {
        const stop = new AbortController();
        stop.abort(new Error('too late'));
        await expect(store.commit([], [{ key: 'a', put: 1 }], { signal: stop.signal })).rejects.toThrow('too late');
        expect(await store.get('a')).toBeUndefined();
      });
    });

    describe('watching', () => {
      test('a watch tells every commit after its revision, old ones and those to come, whole and in order', async () => {
        const since = await put('vms/a', 0);
        await put('vms/a', 1);
        await put('hosts/a', 'not watched');
        await put('vms/a', 2);
        const watching = take(store.watch('vms/', since, ending.signal), 5);
        await store.commit(
          [],
          [
            { key: 'vms/b', put: 2 },
            { key: 'hosts/a', put: 'not watched' },
            { key: 'vms/a', delete: true },
          ],
        );
        await nextTurn();
        await put('vms/c', 3);
        await put('vms/c', 4);
        const seen = await watching;
        expect(seen.map(({ revision }) => revision)).toEqual([1, 3, 4, 5, 6].map((n) => since + n));
        expect(seen.map(({ changes }) => changes.map(plain).sort())).toEqual([
          ['vms/a=1'],
          ['vms/a=2'],
          ['vms/a deleted', 'vms/b=2'],
          ['vms/c=3'],
          ['vms/c=4'],
        ]);
        const last = seen.at(-1)?.changes[0];
        expect(last).toEqual({ kind: 'put', key: 'vms/c', entry: await store.get('vms/c') });
      });

      test('a watch started at the revision of a list and resumed after each commit misses and repeats nothing', async () => {
        let { revision } = await store.list('');
        const writing = (async () => {
          for (let i = 0; i < 50; i++) await put(`k${i % 3}`, i);
        })();
        const seen: unknown[] = [];
        while (seen.length < 50) {
          const [commit] = await take(store.watch('k', revision, ending.signal), 1);
          revision = commit!.revision;
          for (const change of commit!.changes) if (change.kind === 'put') seen.push(change.entry.value);
        }
        await writing;
        expect(seen).toEqual(Array.from({ length: 50 }, (_, i) => i));
      });

      test('what one client writes another sees', async () => {
        const other = (await bed.connect()).store;
        const { revision } = await other.list('');
        const watching = take(other.watch('', revision, ending.signal), 1);
        await put('a', 1);
        expect((await watching)[0]?.changes.map(plain)).toEqual(['a=1']);
      });

      test('a watch ends with its signal', async () => {
        const watching = take(store.watch('', (await store.list('')).revision, ending.signal), 1);
        await nextTurn();
        ending.abort();
        expect(await watching).toEqual([]);
      });

      test('a watch from before what is kept, or from a revision that never was, throws HistoryGone', async () => {
        const since = await put('a', 0);
        await put('a', 1);
        await bed.forgetHistory();
        await expect(take(store.watch('', since, ending.signal), 1)).rejects.toThrow(HistoryGone);
        const { revision } = await store.list('');
        await expect(take(store.watch('', revision + 1_000_000, ending.signal), 1)).rejects.toThrow(HistoryGone);
      });
    });

    describe('leases', () => {
      test('an entry under a lease stays for as long as its holder lives and goes when the lease is given back', async () => {
        const lease = await store.lease(ttlMs);
        await store.commit([], [{ key: 'a', put: 1, lease: lease.id }]);
        await bed.pass(ttlMs * 3);
        expect(lease.lost.aborted).toBe(false);
        const { revision } = await store.list('');
        expect(await store.get('a')).toMatchObject({ value: 1 });
        await lease.dispose();
        expect(lease.lost.aborted).toBe(true);
        expect(await store.get('a')).toBeUndefined();
        const [gone] = await take(store.watch('', revision, ending.signal), 1);
        expect(gone?.changes.map(plain)).toEqual(['a deleted']);
        await lease.dispose();
      });

      test('the entries of a holder that is frozen go after the time of the lease, and it learns so when it wakes', async () => {
        const holder = await bed.connect();
        const lease = await holder.store.lease(ttlMs);
        await holder.store.commit(
          [],
          [
            { key: 'a', put: 1, lease: lease.id },
            { key: 'b', put: 2, lease: lease.id },
            { key: 'c', put: 3 },
          ],
        );
        const { revision } = await store.list('');
        const watching = take(store.watch('', revision, ending.signal), 1);
        holder.freeze();
        await bed.pass(ttlMs * 2);
        expect((await watching)[0]?.changes.map(plain).sort()).toEqual(['a deleted', 'b deleted']);
        expect((await store.list('')).entries.map(({ key }) => key)).toEqual(['c']);
        await holder.thaw();
        expect(lease.lost.aborted).toBe(true);
      });

      test('a lease that ends takes its own entries with it and no others', async () => {
        const [one, other] = [await store.lease(ttlMs), await store.lease(ttlMs)];
        await store.commit(
          [],
          [
            { key: 'a', put: 1, lease: one.id },
            { key: 'b', put: 2, lease: other.id },
            { key: 'c', put: 3 },
          ],
        );
        await one.dispose();
        expect((await store.list('')).entries.map(({ key }) => key)).toEqual(['b', 'c']);
      });

      test('nothing is written under a lease that is gone', async () => {
        const lease = await store.lease(ttlMs);
        await lease.dispose();
        const writes = [
          { key: 'a', put: 1 },
          { key: 'b', put: 2, lease: lease.id },
        ];
        expect(await store.commit([], writes)).toEqual({ ok: false, failed: { key: 'b', leaseGone: lease.id } });
        expect((await store.list('')).entries).toEqual([]);
      });

      test('an entry put again without its lease outlives the lease', async () => {
        const lease = await store.lease(ttlMs);
        await store.commit([], [{ key: 'a', put: 1, lease: lease.id }]);
        await put('a', 2);
        await lease.dispose();
        expect((await store.get('a'))?.value).toBe(2);
      });

      test('closing a client ends its leases, its watches and every call on it, and nobody else’s', async () => {
        const other = (await bed.connect()).store;
        const lease = await other.lease(ttlMs);
        const mine = await store.lease(ttlMs);
        await other.commit([], [{ key: 'a', put: 1, lease: lease.id }]);
        const watching = take(other.watch('', (await other.list('')).revision, ending.signal), 1);
        const refused = expect(watching).rejects.toThrow(StoreClosed);
        await nextTurn();
        await other.close();
        await refused;
        expect(lease.lost.aborted).toBe(true);
        expect(mine.lost.aborted).toBe(false);
        expect(await store.get('a')).toBeUndefined();
        await expect(other.get('a')).rejects.toThrow(StoreClosed);
        await expect(other.commit([], [])).rejects.toThrow(StoreClosed);
        await expect(other.lease(ttlMs)).rejects.toThrow(StoreClosed);
        await other.close();
      });
    });

    describe('leadership', () => {
      /** A server that campaigns: the terms it got, oldest first, and how to send it home. */
      const server = (me: string, client: Store, options: LeadOptions = {}) => {
        const stop = new AbortController();
        const terms: Leadership[] = [];
        const done = lead(
          client,
          me,
          AbortSignal.any([stop.signal, ending.signal]),
          async (leadership) => {
            terms.push(leadership);
            await aborted(leadership.lost);
          },
          { ttlMs, ...options },
        );
        const goHome = (): Promise<void> => {
          stop.abort();
          return done;
        };
        return { terms, stop: goHome };
      };

      test('the second does not lead while the first does, takes over when it ends, and its term is larger', async () => {
        const first = server('one', store);
        await until(() => first.terms.length === 1);
        const second = server('two', (await bed.connect()).store);
        await bed.pass(ttlMs * 3);
        expect(second.terms).toEqual([]);
        expect(await store.get(leaderKey)).toMatchObject({ value: { holder: 'one', term: first.terms[0]?.term } });
        await first.stop();
        await until(() => second.terms.length === 1);
        expect(second.terms[0]!.term).toBeGreaterThan(first.terms[0]!.term);
        expect(await store.get(leaderKey)).toMatchObject({ value: { holder: 'two' } });
        await second.stop();
        expect(await store.get(leaderKey)).toBeUndefined();
      });

      test('a leader that froze is replaced, and what it writes with its guard when it wakes is refused', async () => {
        const sleeper = await bed.connect();
        const first = server('one', sleeper.store);
        await until(() => first.terms.length === 1);
        const { guard } = first.terms[0]!;
        expect(await sleeper.store.commit([guard], [{ key: 'vms/a', put: 'one' }])).toMatchObject({ ok: true });
        const second = server('two', store);
        sleeper.freeze();
        await bed.pass(ttlMs * 2);
        await until(() => second.terms.length === 1);
        expect(await store.commit([second.terms[0]!.guard], [{ key: 'vms/a', put: 'two' }])).toMatchObject({
          ok: true,
        });
        // The zombie does not know yet.
        expect(await sleeper.store.commit([guard], [{ key: 'vms/a', put: 'one' }])).toEqual({
          ok: false,
          failed: guard,
        });
        expect((await store.get('vms/a'))?.value).toBe('two');
        await sleeper.thaw();
        expect(first.terms[0]!.lost.aborted).toBe(true);
      });

      test('of ten servers that start together one leads', async () => {
        const servers = await Promise.all(
          Array.from({ length: 10 }, async (_, i) => server(`s${i}`, (await bed.connect()).store)),
        );
        await until(() => servers.some(({ terms }) => terms.length > 0));
        await bed.pass(ttlMs);
        expect(servers.flatMap(({ terms }) => terms)).toHaveLength(1);
      });

      test('a term exceeds the largest that any agent has seen, and so do those after it', async () => {
        const restored = server('one', store, { termAbove: () => 41 });
        await until(() => restored.terms.length === 1);
        expect(restored.terms[0]!.term).toBe(42);
        await restored.stop();
        const next = server('two', store);
        await until(() => next.terms.length === 1);
        expect(next.terms[0]!.term).toBe(43);
      });

      test('a term whose work ends by itself gives the lead back and is followed by another', async () => {
        const terms: number[] = [];
        await lead(store, 'one', ending.signal, async ({ term }) => {
          terms.push(term);
          if (terms.length === 3) ending.abort();
        });
        expect(terms).toEqual([1, 2, 3]);
        expect(await store.get(leaderKey)).toBeUndefined();
      });

      test('an error of the term ends the campaign, with the lead given back', async () => {
        const broken = lead(store, 'one', ending.signal, () => Promise.reject(new Error('a bug')));
        await expect(broken).rejects.toThrow('a bug');
        expect(await store.get(leaderKey)).toBeUndefined();
      });
    });

    describe('after a restart', () => {
      test('everything is as it was but for what stood under a lease, and a watch goes on where it was', async (context) => {
        if (bed.restart === undefined) return context.skip('this engine keeps nothing');
        await put('a', { n: 1 });
        await put('a', { n: 2 });
        const since = await put('b', 'deleted later');
        const lease = await store.lease(ttlMs);
        await store.commit(
          [],
          [
            { key: 'c', put: 'leased', lease: lease.id },
            { key: 'b', delete: true },
          ],
        );
        await put('d', 4);
        const [a, d] = [await store.get('a'), await store.get('d')];

        await bed.restart();
        store = (await bed.connect()).store;
        await bed.pass(ttlMs * 2);
        const { entries, revision } = await store.list('');
        expect(entries).toEqual([a, d]);
        const seen = await take(store.watch('', since, ending.signal), 3);
        expect(seen.map(({ changes }) => changes.map(plain).sort())).toEqual([
          ['b deleted', 'c="leased"'],
          ['d=4'],
          ['c deleted'],
        ]);
        expect(await put('e', 5)).toBe(revision + 1);
        expect(await store.commit([{ key: 'a', created: a!.created }], [])).toMatchObject({ ok: true });
      });

      test('the next term is larger than those before', async (context) => {
        if (bed.restart === undefined) return context.skip('this engine keeps nothing');
        const terms: number[] = [];
        for (let start = 0; start < 2; start++) {
          const stop = new AbortController();
          await lead(store, 'one', stop.signal, async ({ term }) => {
            terms.push(term);
            stop.abort();
          });
          await bed.restart();
          store = (await bed.connect()).store;
        }
        expect(terms).toEqual([1, 2]);
      });
    });
  });
}

/** The first commits of a watch, fewer when it ends before. */
async function take(watch: AsyncIterable<Commit>, count: number): Promise<Commit[]> {
  const seen: Commit[] = [];
  for await (const commit of watch) if (seen.push(commit) === count) break;
  return seen;
}

function plain(change: Commit['changes'][number]): string {
  return change.kind === 'put' ? `${change.key}=${JSON.stringify(change.entry.value)}` : `${change.key} deleted`;
}

function aborted(signal: AbortSignal): Promise<void> {
  if (signal.aborted) return Promise.resolve();
  return new Promise((resolve) => signal.addEventListener('abort', () => resolve(), { once: true }));
}

/** Waits until something holds that promises alone bring about; the test's own time limit is its deadline. */
async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await nextTurn();
}
