import { expect, test } from 'vitest';
import { silentLog } from '../runtime/log.ts';
import { TestClock } from '../runtime/clock.ts';
import { leaderKey, type Leadership } from '../store/leadership.ts';
import { Engine } from '../store/memory.ts';
import { OutcomeUnknown, StoreUnavailable, type Store } from '../store/store.ts';
import { Fleet } from './fleet.ts';

test('a store that cannot be read after a lost answer refuses decisions in words, until it can be', async () => {
  const clock = new TestClock();
  const inner = new Engine({ clock }).connect();
  const led = await inner.commit([], [{ key: leaderKey, put: { holder: 'me', term: 1 } }]);
  if (!led.ok) throw new Error('nobody else is there');
  const guard = { key: leaderKey, created: led.revision };
  const leadership: Leadership = { term: 1, guard, lost: new AbortController().signal };
  let isAway = false;
  const store: Store = {
    get: (key) => inner.get(key),
    watch: (prefix, since, signal) => inner.watch(prefix, since, signal),
    lease: (ttlMs) => inner.lease(ttlMs),
    close: () => inner.close(),
    list: (prefix) => (isAway ? Promise.reject(new StoreUnavailable('away')) : inner.list(prefix)),
    commit: (...args) => (isAway ? Promise.reject(new OutcomeUnknown('no answer')) : inner.commit(...args)),
  };
  const fleet = await Fleet.load(store, leadership, silentLog, clock);
  const decide = () =>
    fleet.change((draft) => draft.putRequest('e', 'k', { schema: 1, id: 'i', fingerprint: 'f', at: 0 }));
  isAway = true;
  for (let attempt = 0; attempt < 2; attempt++) {
    const refused = expect(decide()).rejects.toMatchObject({ name: 'UserError', code: 'unavailable' });
    await clock.advance(60_000);
    await refused;
  }
  isAway = false;
  await decide();
  expect(fleet.requests.size).toBe(1);
});
