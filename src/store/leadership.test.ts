import { expect, test } from 'vitest';
import { TestClock } from '../runtime/clock.ts';
import { lead, leaderKey } from './leadership.ts';
import { Engine } from './memory.ts';
import { OutcomeUnknown, StoreUnavailable } from './store.ts';
import type { Store } from './store.ts';

/** A client whose first commits go wrong in the given ways. */
function troubled(store: Store, troubles: (() => Promise<never>)[]): Store {
  return {
    list: (prefix) => store.list(prefix),
    get: (key) => store.get(key),
    watch: (prefix, since, signal) => store.watch(prefix, since, signal),
    lease: (ttlMs) => store.lease(ttlMs),
    close: () => store.close(),
    commit: (...args) => troubles.shift()?.() ?? store.commit(...args),
  };
}

async function firstTerm(store: Store, clock: TestClock): Promise<number> {
  const stop = new AbortController();
  let first = 0;
  const leading = lead(
    store,
    'me',
    stop.signal,
    async ({ term }) => {
      first = term;
      stop.abort();
    },
    { clock },
  );
  await clock.advance(10_000);
  await leading;
  return first;
}

test('a store that cannot be reached for a while is asked again', async () => {
  const clock = new TestClock();
  const away = () => Promise.reject(new StoreUnavailable('away'));
  expect(await firstTerm(troubled(new Engine({ clock }).connect(), [away, away, away]), clock)).toBe(1);
});

test('a campaign whose commit was written without an answer is won with a larger term, not the unknown one', async () => {
  const clock = new TestClock();
  const engine = new Engine({ clock });
  const inner = engine.connect();
  const troubles: (() => Promise<never>)[] = [];
  const store = troubled(inner, troubles);
  const written = {
    ...store,
    commit: async (...args: Parameters<Store['commit']>) => {
      const result = await store.commit(...args);
      if (written.answers++ > 0) return result;
      throw new OutcomeUnknown('no answer');
    },
    answers: 0,
  };
  expect(await firstTerm(written, clock)).toBe(2);
  expect(await inner.get(leaderKey)).toBeUndefined();
});

test('an error that is no passing trouble ends the campaign', async () => {
  const store = troubled(new Engine().connect(), [() => Promise.reject(new Error('a bug'))]);
  await expect(lead(store, 'me', new AbortController().signal, async () => {})).rejects.toThrow('a bug');
});

test('a term in the store that is no number is an error and not the start of a new count', async () => {
  const store = new Engine().connect();
  await store.commit([], [{ key: 'control/term', put: { term: '7' } }]);
  await expect(lead(store, 'me', new AbortController().signal, async () => {})).rejects.toThrow('holds no term');
});
