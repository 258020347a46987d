import { expect, test } from 'vitest';
import { TestClock } from '../../runtime/clock.ts';
import { silentLog } from '../../runtime/log.ts';
import { Guard, type GuardMemory } from './guard.ts';
import { DamagedBlock } from './lease-block.ts';
import { MemoryPool, MemoryStorage } from './memory-pool.ts';

const leaseTimeMs = 10_000;

/** Guests that die when they are killed, unless they cannot. */
class FakeGuests {
  readonly alive = new Set<string>();
  cannotDie = false;
  kills = 0;
  usingPool(): string[] {
    return [...this.alive];
  }
  kill(): void {
    this.kills++;
    if (!this.cannotDie) this.alive.clear();
  }
}

function setUp() {
  const clock = new TestClock();
  const storage = new MemoryStorage();
  const pool = new MemoryPool(storage);
  const guests = new FakeGuests();
  const memory: { value: GuardMemory | null } = { value: null };
  let runs = 0;
  const begin = (bootId = 'boot-1', remembered = memory.value) => {
    const end = new AbortController();
    const guard = new Guard({
      host: 'h1',
      bootId,
      writer: `run-${++runs}`,
      leaseTimeMs,
      clock,
      pool,
      guests,
      log: silentLog,
      remembered,
      remember: (value) => (memory.value = value),
    });
    const done = guard.run(end.signal);
    const stop = async () => {
      end.abort();
      await done;
    };
    return { guard, stop };
  };
  const lease = () => {
    const found = storage.leases.get('h1');
    if (!found) throw new Error('h1 has no lease');
    return found;
  };
  const take = (generation: number) =>
    storage.marks.set('h1', {
      schema: 1,
      host: 'h1',
      generation,
      sequence: lease().sequence,
      bootId: lease().bootId,
      by: 'h2',
      term: 1,
      wallAt: 0,
    });
  return { clock, storage, pool, guests, memory, begin, lease, take };
}

test('A lease that was torn when its host lost power is taken up anew by the next boot, and goes on from there.', async () => {
  const { clock, storage, pool, guests, begin, lease, take } = setUp();
  const first = begin();
  await clock.advance(5_000);
  await first.stop();
  take(1);
  const readable = pool.read.bind(pool);
  const torn = lease();
  pool.read = async (host) => {
    if (storage.leases.get(host) === torn) throw new DamagedBlock('a block of the lease file is damaged');
    return readable(host);
  };
  const { guard, stop } = begin('boot-2', null);
  await clock.advance(5_000);
  expect(guard.state).toBe('held');
  expect(lease()).toMatchObject({ bootId: 'boot-2', generation: 2 });
  expect(guests.kills).toBeLessThanOrEqual(1);
  await stop();
});

test('A lease that was torn in this boot is not gone on with: somebody may have taken it.', async () => {
  const { clock, pool, guests, begin } = setUp();
  const first = begin();
  await clock.advance(5_000);
  await first.stop();
  guests.alive.add('web1');
  pool.read = async () => {
    throw new DamagedBlock('a block of the lease file is damaged');
  };
  const { guard, stop } = begin();
  await clock.advance(12_000);
  expect(guard.state).toBe('lost');
  expect(guests.alive.size).toBe(0);
  await stop();
});

test('A lease is renewed every second for as long as the pool answers, and no guest is touched.', async () => {
  const { clock, guests, begin, lease } = setUp();
  guests.alive.add('web1');
  const { guard, stop } = begin();
  await clock.advance(60_000);
  expect(guard.state).toBe('held');
  expect(lease().generation).toBe(1);
  expect(lease().sequence).toBeGreaterThanOrEqual(58);
  expect(guests.kills).toBe(0);
  await stop();
});

test.each(['broken', 'hung'] as const)(
  'Guests are killed when the lease time has passed since the last renewal began, on a pool that is %s.',
  async (reach) => {
    const { clock, guests, pool, begin } = setUp();
    guests.alive.add('web1');
    const { guard, stop } = begin();
    await clock.advance(5_100);
    pool.reach = reach;
    await clock.advance(leaseTimeMs - 200);
    expect(guests.alive.size).toBe(1);
    await clock.advance(400);
    expect(guests.alive.size).toBe(0);
    expect(guard.state).toBe('lost');
    await stop();
  },
);

test('A shorter outage of the pool kills nobody.', async () => {
  const { clock, guests, pool, begin, lease } = setUp();
  guests.alive.add('web1');
  const { guard, stop } = begin();
  await clock.advance(5_100);
  pool.reach = 'hung';
  await clock.advance(8_000);
  pool.reach = 'well';
  await clock.advance(30_000);
  expect(guests.kills).toBe(0);
  expect(guard.state).toBe('held');
  expect(lease().generation).toBe(1);
  await stop();
});

test('A lease that was lost is taken up as a new one only when no guest is left.', async () => {
  const { clock, guests, pool, begin, lease } = setUp();
  guests.alive.add('web1');
  guests.cannotDie = true;
  const { guard, stop } = begin();
  await clock.advance(5_100);
  pool.reach = 'broken';
  await clock.advance(11_000);
  pool.reach = 'well';
  await clock.advance(20_000);
  expect(guard.state).toBe('lost');
  expect(lease().generation).toBe(1);
  expect(guard.safeUntilMs()).toBe(0);
  guests.cannotDie = false;
  await clock.advance(3_000);
  expect(guests.alive.size).toBe(0);
  expect(guard.state).toBe('held');
  expect(lease().generation).toBe(2);
  await stop();
});

test('A guest that is started while there is no lease is killed.', async () => {
  const { clock, guests, pool, begin } = setUp();
  const { stop } = begin();
  await clock.advance(5_100);
  pool.reach = 'broken';
  await clock.advance(15_000);
  guests.alive.add('web2');
  await clock.advance(500);
  expect(guests.alive.size).toBe(0);
  await stop();
});

test('A write that was under way when the lease ran out does not bring it back.', async () => {
  const { clock, guests, pool, begin, lease } = setUp();
  guests.alive.add('web1');
  guests.cannotDie = true;
  const { guard, stop } = begin();
  await clock.advance(5_100);
  pool.reach = 'hung';
  await clock.advance(10_500);
  expect(guard.state).toBe('lost');
  pool.reach = 'well';
  await clock.advance(100);
  expect(guard.state).toBe('lost');
  guests.alive.clear();
  await clock.advance(3_000);
  expect(lease().generation).toBe(2);
  await stop();
});

test('A holder that finds its lease taken kills its guests at once.', async () => {
  const { clock, guests, begin, take } = setUp();
  guests.alive.add('web1');
  const { stop } = begin();
  await clock.advance(5_100);
  take(1);
  await clock.advance(1_100);
  expect(guests.alive.size).toBe(0);
  await stop();
});

test('A guard that is started again goes on with the lease, and no guest notices.', async () => {
  const { clock, guests, begin, lease } = setUp();
  guests.alive.add('web1');
  await begin().stop();
  const first = begin();
  await clock.advance(5_000);
  await first.stop();
  await clock.advance(4_000);
  const second = begin();
  await clock.advance(20_000);
  expect(guests.kills).toBe(0);
  expect(second.guard.state).toBe('held');
  expect(lease().generation).toBe(1);
  await second.stop();
});

test('A guard that is started again before a pool that hangs kills by the time of the guard before.', async () => {
  const { clock, guests, pool, begin } = setUp();
  guests.alive.add('web1');
  const first = begin();
  await clock.advance(5_050);
  await first.stop();
  pool.reach = 'hung';
  await clock.advance(3_000);
  const second = begin();
  await clock.advance(6_500);
  expect(guests.alive.size).toBe(1);
  await clock.advance(700);
  expect(guests.alive.size).toBe(0);
  await second.stop();
});

test('A guard that comes back late goes on if nobody took the lease, and kills if somebody did.', async () => {
  for (const taken of [false, true]) {
    const { clock, guests, begin, take, lease } = setUp();
    guests.alive.add('web1');
    const first = begin();
    await clock.advance(5_000);
    await first.stop();
    await clock.advance(60_000);
    if (taken) take(1);
    const second = begin();
    await clock.advance(100);
    expect(guests.alive.size).toBe(taken ? 0 : 1);
    await clock.advance(5_000);
    expect(lease().generation).toBe(taken ? 2 : 1);
    expect(second.guard.state).toBe('held');
    await second.stop();
  }
});

test('A guard that died while it was killing goes on killing when it is started again.', async () => {
  const { clock, guests, pool, begin } = setUp();
  guests.alive.add('web1');
  guests.cannotDie = true;
  const first = begin();
  await clock.advance(5_000);
  pool.reach = 'broken';
  await clock.advance(11_000);
  await first.stop();
  pool.reach = 'well';
  guests.cannotDie = false;
  const second = begin();
  await clock.advance(100);
  expect(guests.alive.size).toBe(0);
  await second.stop();
});

test('After a boot of the host the lease is taken up at once, also when it had been taken.', async () => {
  for (const taken of [false, true]) {
    const { clock, guests, begin, memory, take, lease } = setUp();
    const first = begin();
    await clock.advance(5_000);
    await first.stop();
    if (taken) take(1);
    memory.value = null;
    guests.alive.add('started-in-this-boot');
    const second = begin('boot-2');
    await clock.advance(100);
    expect(second.guard.state).toBe('held');
    expect(lease()).toMatchObject({ generation: 2, bootId: 'boot-2' });
    expect(guests.kills).toBe(0);
    await second.stop();
  }
});

test('A guard that ends in an orderly way gives the lease back and leaves guests alone.', async () => {
  const { clock, guests, begin, lease, memory } = setUp();
  guests.alive.add('web1');
  const first = begin();
  await clock.advance(5_000);
  await first.stop();
  await first.guard.release();
  expect(lease().state).toBe('released');
  expect(memory.value?.state).toBe('released');
  await clock.advance(60_000);
  const second = begin();
  await clock.advance(100);
  expect(lease()).toMatchObject({ state: 'held', generation: 2 });
  expect(guests.kills).toBe(0);
  await second.stop();
});

test('A guard that rests gives its lease back and takes a new one when the rest is over; with guests it keeps it.', async () => {
  const { clock, guests, begin, lease } = setUp();
  const { guard, stop } = begin();
  await clock.advance(1_000);
  guests.alive.add('web1');
  guard.rest(true);
  await clock.advance(3_000);
  expect(guard.state).toBe('held');
  guests.alive.clear();
  await clock.advance(2_000);
  expect(guard.state).toBe('released');
  expect(lease()).toMatchObject({ state: 'released', generation: 1 });
  await clock.advance(60_000);
  expect(lease()).toMatchObject({ state: 'released', generation: 1 });
  guard.rest(false);
  await clock.advance(2_000);
  expect(guard.state).toBe('held');
  expect(lease()).toMatchObject({ state: 'held', generation: 2 });
  expect(guests.kills).toBe(0);
  await stop();
});
