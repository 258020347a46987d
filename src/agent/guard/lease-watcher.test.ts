import { expect, test } from 'vitest';
import { TestClock } from '../../runtime/clock.ts';
import { silentLog } from '../../runtime/log.ts';
import { DamagedBlock } from './lease-block.ts';
import type { Lease } from './lease.ts';
import { LeaseWatcher } from './lease-watcher.ts';
import { MemoryPool, MemoryStorage } from './memory-pool.ts';

const lease: Lease = {
  schema: 1,
  host: 'h1',
  poolId: 'pool-1',
  generation: 3,
  writer: 'run-1',
  sequence: 100,
  state: 'held',
  bootId: 'boot-1',
  leaseTimeMs: 10_000,
  wallAt: 0,
};
const request = { host: 'h1', poolId: 'pool-1', bootId: 'boot-1', term: 7 };

async function setUp() {
  const clock = new TestClock();
  const storage = new MemoryStorage();
  storage.leases.set('h1', lease);
  const pool = new MemoryPool(storage);
  const watcher = new LeaseWatcher({ host: 'h2', pools: [pool], clock, log: silentLog });
  watcher.watch(['h1', 'h2']);
  const end = new AbortController();
  void watcher.run(end.signal);
  await clock.advance(0);
  const take = async (asked = request) => {
    const answer = watcher.take(asked);
    await clock.advance(6_000);
    return (await answer).result;
  };
  return { clock, storage, pool, watcher, take };
}

test('A lease that stands still is seen with the time for which it did, and this host does not watch itself.', async () => {
  const { clock, watcher } = await setUp();
  await clock.advance(5_000);
  expect(watcher.seen()).toEqual([
    {
      host: 'h1',
      poolId: 'pool-1',
      state: 'held',
      bootId: 'boot-1',
      leaseTimeMs: 10_000,
      unchangedMs: 5_000,
    },
  ]);
  expect(await watcher.poolIds()).toEqual({ default: 'pool-1' });
});

test('A lease that cannot be read, as one whose writing was torn, hides no other.', async () => {
  const { clock, storage, pool, watcher } = await setUp();
  const readable = pool.read.bind(pool);
  pool.read = async (host) => {
    if (host === 'h0') throw new DamagedBlock('a block of the lease file is damaged');
    return readable(host);
  };
  storage.leases.set('h3', { ...lease, host: 'h3' });
  watcher.watch(['h0', 'h1', 'h3']);
  await clock.advance(8_000);
  expect(watcher.seen().map(({ host, unchangedMs }) => [host, unchangedMs])).toEqual([
    ['h1', 8_000],
    ['h3', 7_000],
  ]);
});

test('A lease is not taken before its time and the margin have passed by the clock of who takes.', async () => {
  const { clock, take, storage } = await setUp();
  await clock.advance(5_000);
  expect(await take()).toBe('too-early');
  expect(storage.marks.size).toBe(0);
  await clock.advance(3_000);
  expect(await take()).toBe('taken');
  expect(storage.marks.get('h1')).toMatchObject({ generation: 3, by: 'h2', term: 7 });
});

test('Each renewal begins the time anew.', async () => {
  const { clock, take, storage } = await setUp();
  await clock.advance(20_000);
  storage.leases.set('h1', { ...lease, sequence: 101 });
  await clock.advance(2_000);
  expect(await take()).toBe('too-early');
  expect(storage.marks.size).toBe(0);
});

test('A holder that renews between the last look and the taking is not marked.', async () => {
  const { clock, take, storage } = await setUp();
  await clock.advance(20_100);
  storage.leases.set('h1', { ...lease, sequence: 101 });
  expect(await take()).toBe('renewed');
  expect(storage.marks.size).toBe(0);
});

test('A holder that renews while its lease is marked is not counted as gone; it will find the mark.', async () => {
  const { clock, watcher, storage } = await setUp();
  await clock.advance(20_100);
  const answer = watcher.take(request);
  await clock.advance(100);
  storage.leases.set('h1', { ...lease, sequence: 101 });
  await clock.advance(1_000);
  expect((await answer).result).toBe('renewed');
  expect(storage.marks.size).toBe(1);
});

test('The lease of another boot, one given back and one that is not there are not taken.', async () => {
  const { clock, take, storage, watcher } = await setUp();
  await clock.advance(20_000);
  expect(await take({ ...request, bootId: 'boot-0' })).toBe('renewed');
  storage.leases.set('h1', { ...lease, state: 'released' });
  await clock.advance(20_000);
  expect(watcher.seen()[0]?.state).toBe('released');
  expect(await take()).toBe('failed');
  storage.leases.clear();
  await clock.advance(20_000);
  expect(watcher.seen()[0]?.state).toBe('none');
  expect(await take()).toBe('failed');
  expect(await take({ ...request, poolId: 'pool-9' })).toBe('failed');
});

test('A pool that hangs takes nothing, and what was not looked at for a while is not told.', async () => {
  const { clock, take, pool, watcher } = await setUp();
  await clock.advance(20_000);
  pool.reach = 'hung';
  expect(await take()).toBe('failed');
  expect(watcher.seen()).toEqual([]);
});

test('A lease that was taken says so to everybody.', async () => {
  const { clock, take, watcher } = await setUp();
  await clock.advance(20_000);
  await take();
  await clock.advance(2_000);
  expect(watcher.seen()[0]?.state).toBe('taken');
  expect(await take()).toBe('taken');
});

test('A mark on a lease that was renewed a moment ago does not count as taken: its holder has yet to find it.', async () => {
  const { clock, watcher, storage } = await setUp();
  const mark = {
    schema: 1,
    host: 'h1',
    generation: 3,
    sequence: 100,
    bootId: 'boot-1',
    by: 'h3',
    term: 7,
    wallAt: 0,
  } as const;
  storage.marks.set('h1', mark);
  await clock.advance(5_000);
  expect(watcher.seen()[0]?.state).toBe('held');
  await clock.advance(10_000);
  expect(watcher.seen()[0]?.state).toBe('taken');
});
