/**
 * Commits whose answers are lost, late or never sent, under a second leader that takes over now and then: what a decision
 * is told of its commit is what the store holds.
 */
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { Fleet } from '../../src/control/fleet.ts';
import { inventory } from '../../src/control/fake-fleet.ts';
import { UserError } from '../../src/model/failure.ts';
import type { HostRecord } from '../../src/model/host.ts';
import type { HostId } from '../../src/model/ids.ts';
import { TestClock } from '../../src/runtime/clock.ts';
import { silentLog } from '../../src/runtime/log.ts';
import { leaderKey, termKey, type Leadership } from '../../src/store/leadership.ts';
import { Engine } from '../../src/store/memory.ts';
import { OutcomeUnknown, StoreUnavailable, type Store } from '../../src/store/store.ts';

/** What becomes of one commit. `late`: no answer, and it arrives after the next call. */
const fates = ['answered', 'answered', 'lost-before', 'lost-after', 'late', 'unavailable'] as const;
type Fate = (typeof fates)[number];

function losing(inner: Store, next: () => Fate): Store & { arrive(): Promise<void> } {
  const late: (() => Promise<unknown>)[] = [];
  const arrive = async () => {
    for (const commit of late.splice(0)) await commit();
  };
  return {
    list: (prefix) => inner.list(prefix),
    get: (key) => inner.get(key),
    watch: (prefix, since, signal) => inner.watch(prefix, since, signal),
    lease: (ttlMs) => inner.lease(ttlMs),
    close: () => inner.close(),
    arrive,
    async commit(...args) {
      const fate = next();
      const before = late.splice(0);
      try {
        switch (fate) {
          case 'answered':
            return await inner.commit(...args);
          case 'unavailable':
            throw new StoreUnavailable('away');
          case 'lost-before':
            throw new OutcomeUnknown('no answer');
          case 'lost-after':
            await inner.commit(...args);
            throw new OutcomeUnknown('no answer');
          case 'late':
            late.push(() => inner.commit(...args));
            throw new OutcomeUnknown('no answer');
        }
      } finally {
        for (const commit of before) await commit();
      }
    },
  };
}

async function takeLead(store: Store): Promise<Leadership> {
  const was = (await store.get(termKey))?.value as { term: number } | undefined;
  const term = (was?.term ?? 0) + 1;
  // Deleted first, as by the end of a lease, so that it is created anew.
  await store.commit([], [{ key: leaderKey, delete: true }]);
  const result = await store.commit(
    [],
    [
      { key: leaderKey, put: { holder: `leader ${term}`, term } },
      { key: termKey, put: { term } },
    ],
  );
  if (!result.ok) throw new Error('the lead was not taken');
  return { term, guard: { key: leaderKey, created: result.revision }, lost: new AbortController().signal };
}

const hostId = (n: number) => `host_${n}` as HostId;

/** A decision that leaves `mark` on some host: makes it, changes it, or replaces it by another. */
function decide(fleet: Fleet, n: number, mark: string, removes: boolean): Promise<void> {
  return fleet.change((draft) => {
    const old = draft.host(hostId(n));
    if (removes && old) draft.removeHost(old);
    const host: HostRecord = {
      schema: 2,
      id: hostId(removes ? n + 1 : n),
      name: `h${removes ? n + 1 : n}`,
      session: 1,
      cordoned: false,
      labels: { mark },
      inventory: inventory('h'),
      joinedAt: 0,
      power: null,
      fenced: null,
      failing: null,
    };
    draft.putHost(host);
  });
}

async function marksIn(store: Store): Promise<string[]> {
  const { revision } = await store.list('');
  const marks: string[] = [];
  for await (const commit of store.watch('', 0, new AbortController().signal)) {
    for (const change of commit.changes) {
      if (change.kind !== 'put' || !change.key.startsWith('host/')) continue;
      const { labels } = change.entry.value as HostRecord; // only hosts stand under these keys
      marks.push(labels['mark'] ?? '');
    }
    if (commit.revision >= revision) break;
  }
  return marks;
}

const run = fc.record({
  fates: fc.array(fc.constantFrom(...fates), { maxLength: 40 }),
  decisions: fc.array(fc.record({ host: fc.integer({ min: 0, max: 2 }), removes: fc.boolean(), other: fc.boolean() }), {
    minLength: 1,
    maxLength: 12,
  }),
});

async function outcomesOf(input: { fates: Fate[]; decisions: { host: number; removes: boolean; other: boolean }[] }) {
  const engine = new Engine();
  const clean = engine.connect();
  const fates = [...input.fates];
  let loses = false;
  const store = losing(engine.connect(), () => (loses ? (fates.shift() ?? 'answered') : 'answered'));
  const clock = new TestClock();
  let fleet = await Fleet.load(store, await takeLead(clean), silentLog, clock);
  const told: { mark: string; says: 'done' | 'not-done' | 'unknown' }[] = [];
  let commits = 0;
  fleet.onCommit(() => commits++);
  for (const [index, { host, removes, other }] of input.decisions.entries()) {
    const mark = `mark-${index}`;
    loses = true;
    let says: 'done' | 'not-done' | 'unknown' | undefined;
    const decided = decide(fleet, host, mark, removes).then(
      () => (says = 'done'),
      (error: unknown) => {
        if (!(error instanceof UserError)) throw error;
        says = error.hint.startsWith('Nothing was changed') ? 'not-done' : 'unknown';
      },
    );
    if (other) await takeLead(clean); // somewhere in the middle of it
    while (says === undefined) await clock.advance(1_000);
    await decided;
    told.push({ mark, says });
    loses = false;
    await store.arrive();
    if (!other) continue;
    fleet = await Fleet.load(store, await takeLead(clean), silentLog, clock);
    fleet.onCommit(() => commits++);
  }
  const marks = await marksIn(clean);
  return { told, marks, commits };
}

test('a decision is told that it is done when it is, once, and that nothing was changed when nothing was', async () => {
  await fc.assert(
    fc.asyncProperty(run, async (input) => {
      const { told, marks, commits } = await outcomesOf(input);
      for (const { mark, says } of told) {
        const times = marks.filter((found) => found === mark).length;
        if (says === 'unknown') expect(times, mark).toBeLessThanOrEqual(1);
        else expect(times, mark).toBe(says === 'done' ? 1 : 0);
      }
      expect(commits).toBe(told.filter(({ says }) => says === 'done').length);
    }),
    { numRuns: 400 },
  );
});

test('a leader that nobody replaces gets a definite answer as soon as the store answers again', async () => {
  await fc.assert(
    fc.asyncProperty(run, async (input) => {
      const fates = input.fates.slice(0, 6);
      const decisions = input.decisions.map((decision) => ({ ...decision, other: false }));
      const { told } = await outcomesOf({ fates, decisions });
      expect(told.filter(({ says }) => says === 'unknown')).toEqual([]);
    }),
    { numRuns: 400 },
  );
});
