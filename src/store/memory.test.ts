import { describe, expect, test } from 'vitest';
import { TestClock } from '../runtime/clock.ts';
import { Engine } from './memory.ts';
import type { Journal, StoredCommit } from './memory.ts';
import { OutcomeUnknown, StoreClosed, StoreUnavailable } from './store.ts';

/** A journal that keeps what it was given and fails on demand. */
class FakeJournal implements Journal {
  readonly writes: (readonly StoredCommit[])[] = [];
  failure: Error | undefined;
  closed = false;

  write(commits: readonly StoredCommit[]): void {
    if (this.failure !== undefined) throw this.failure;
    this.writes.push(commits);
  }

  close(): void {
    this.closed = true;
  }
}

describe('an engine with a journal', () => {
  test('writes all commits of one turn of the event loop at once', async () => {
    const journal = new FakeJournal();
    const store = new Engine({}, journal).connect();
    const results = await Promise.all(
      Array.from({ length: 50 }, (_, i) => store.commit([], [{ key: `k${i}`, put: i }])),
    );
    expect(results.map((result) => result.ok && result.revision)).toEqual(Array.from({ length: 50 }, (_, i) => i + 1));
    expect(journal.writes.map((commits) => commits.length)).toEqual([50]);
  });

  test('undoes commits that could not be written, and goes on when there is room again', async () => {
    const journal = new FakeJournal();
    const store = new Engine({}, journal).connect();
    await store.commit(
      [],
      [
        { key: 'a', put: 1 },
        { key: 'b', put: 1 },
      ],
    );
    const before = await store.list('');
    journal.failure = new StoreUnavailable('no room');
    const refused = await Promise.allSettled([
      store.commit([], [{ key: 'a', put: 2 }]),
      store.commit(
        [],
        [
          { key: 'a', put: 3 },
          { key: 'b', delete: true },
          { key: 'c', put: 3 },
        ],
      ),
    ]);
    expect(refused).toMatchObject([{ reason: journal.failure }, { reason: journal.failure }]);
    expect(await store.list('')).toEqual(before);
    journal.failure = undefined;
    expect(await store.commit([{ key: 'a', changed: 1 }], [{ key: 'a', put: 4 }])).toEqual({ ok: true, revision: 2 });
  });

  test('deletes the entries of an ended lease later when they could not be deleted at once', async () => {
    const clock = new TestClock();
    const journal = new FakeJournal();
    const store = new Engine({ clock }, journal).connect();
    const lease = await store.lease(3_000);
    await store.commit([], [{ key: 'a', put: 1, lease: lease.id }]);
    journal.failure = new StoreUnavailable('no room');
    await expect(lease.dispose()).rejects.toThrow('no room');
    expect(lease.lost.aborted).toBe(true);
    journal.failure = undefined;
    await clock.advance(1_000);
    expect(await store.get('a')).toBeUndefined();
  });

  test('gives up when nobody can say what was written: every later call says why', async () => {
    const journal = new FakeJournal();
    const store = new Engine({}, journal).connect();
    const lease = await store.lease(3_000);
    const watching = store.watch('', 0, new AbortController().signal)[Symbol.asyncIterator]().next();
    const ended = expect(watching).rejects.toThrow(StoreClosed);
    journal.failure = new OutcomeUnknown('fsync failed');
    await expect(store.commit([], [{ key: 'a', put: 1 }])).rejects.toThrow(OutcomeUnknown);
    await ended;
    await expect(store.get('a')).rejects.toMatchObject({ name: 'StoreClosed', cause: journal.failure });
    await expect(store.commit([], [])).rejects.toThrow(StoreClosed);
    expect(lease.lost.aborted).toBe(true);
    expect(journal.closed).toBe(true);
    await store.close();
  });

  test('closes its journal with the last client, after the commits in flight', async () => {
    const journal = new FakeJournal();
    const engine = new Engine({}, journal);
    const [one, other] = [engine.connect(), engine.connect()];
    await one.close();
    expect(journal.closed).toBe(false);
    const writing = other.commit([], [{ key: 'a', put: 1 }]);
    await other.close();
    expect(await writing).toEqual({ ok: true, revision: 1 });
    expect(journal.closed).toBe(true);
    expect(() => engine.connect()).toThrow(StoreClosed);
  });
});

/** A process that was stopped: it wakes with time gone and none of its timers fired. */
class StoppedClock extends TestClock {
  stoppedMs = 0;

  override monotonic(): number {
    return super.monotonic() + this.stoppedMs;
  }
}

test('a lease that ran out while the whole process was stopped is not revived when it goes on', async () => {
  const clock = new StoppedClock();
  const store = new Engine({ clock }).connect();
  const lease = await store.lease(3_000);
  await store.commit([], [{ key: 'a', put: 1, lease: lease.id }]);
  clock.stoppedMs = 10_000;
  await clock.advance(1_500);
  expect(lease.lost.aborted).toBe(true);
  expect(await store.get('a')).toBeUndefined();
});

test('more commits than an engine can hold in waiting are refused', async () => {
  const store = new Engine({}, new FakeJournal()).connect();
  const results = await Promise.allSettled(Array.from({ length: 10_001 }, () => store.commit([], [])));
  expect(results.filter(({ status }) => status === 'rejected')).toMatchObject([
    { reason: { name: 'StoreUnavailable' } },
  ]);
});
