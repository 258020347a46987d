/**
 * The promise of the lease, over every order of things that chance finds: whoever is told 'taken' may start the guests
 * anew, because those of that generation are dead, whatever the storage did to either side, and stay dead.
 *
 * Reads and writes take their time, fail before or after their effect, or hang; guards crash with a write on its way and come
 * back, or hang; clocks run at different speeds; a kill takes a while. The agent of the holder lives: it is the second guardian.
 */
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { Guard, type GuardMemory } from '../../src/agent/guard/guard.ts';
import {
  takeableAfterMs,
  type Lease,
  type LeaseBlocks,
  type LeasePool,
  type TakenMark,
} from '../../src/agent/guard/lease.ts';
import { LeaseWatcher } from '../../src/agent/guard/lease-watcher.ts';
import { SecondGuardian } from '../../src/agent/guard/second-guardian.ts';
import { TestClock, type Clock } from '../../src/runtime/clock.ts';
import { silentLog } from '../../src/runtime/log.ts';

const leaseTimeMs = 10_000;
/** Each half of one touch of a slow storage. */
const slowHalfMs = 4_000;
const slowestClock = 0.98;
/** A touch that began in slow weather ends first; then the watching, by a slow clock; then looking and taking. */
const takeableWithinMs = 2 * slowHalfMs + takeableAfterMs({ leaseTimeMs }) / slowestClock + 2_000;

/** A clock of another host: the same time, at another speed. */
function driftingClock(base: TestClock, speed: number): Clock {
  const setTimeout: Clock['setTimeout'] = (fn, ms) => base.setTimeout(fn, ms / speed);
  return {
    now: () => base.now(),
    monotonic: () => base.monotonic() * speed,
    setTimeout,
    sleep: (ms, signal) => base.sleep(ms / speed, signal),
  };
}

type Weather = 'well' | 'slow' | 'failing' | 'lying' | 'hung';

class Storage {
  readonly leases = new Map<string, Lease>();
  readonly marks = new Map<string, TakenMark>();
}

/** One host's way to the storage. `lying`: says that it failed and did it all the same. */
class RoughPool implements LeasePool {
  readonly name = 'default';
  weather: Weather = 'well';
  readonly #storage: Storage;
  readonly #clock: TestClock;
  readonly #chance: () => number;

  constructor(storage: Storage, clock: TestClock, chance: () => number) {
    this.#storage = storage;
    this.#clock = clock;
    this.#chance = chance;
  }

  async #do<T>(effect: () => T): Promise<T> {
    const { weather } = this;
    const longest = weather === 'slow' ? slowHalfMs : 40;
    await this.#clock.sleep(this.#chance() * longest);
    while (this.weather === 'hung') await this.#clock.sleep(100);
    if (weather === 'failing') throw new Error('EIO');
    const result = effect();
    await this.#clock.sleep(this.#chance() * longest);
    if (weather === 'lying' && this.#chance() < 0.7) throw new Error('EIO, but it was done');
    return result;
  }

  identify(): Promise<string> {
    return this.#do(() => 'pool-1');
  }
  read(host: string): Promise<LeaseBlocks> {
    return this.#do(() => ({
      lease: this.#storage.leases.get(host) ?? null,
      taken: this.#storage.marks.get(host) ?? null,
    }));
  }
  async writeLease(lease: Lease): Promise<void> {
    await this.#do(() => this.#storage.leases.set(lease.host, lease));
  }
  async writeTaken(mark: TakenMark): Promise<void> {
    await this.#do(() => this.#storage.marks.set(mark.host, mark));
  }
}

const weather = fc.constantFrom<Weather>('well', 'slow', 'failing', 'lying', 'hung');
const happening = fc.record({
  afterMs: fc.integer({ min: 100, max: 15_000 }),
  what: fc.oneof(
    fc.record({ kind: fc.constant('holder-weather' as const), weather }),
    fc.record({ kind: fc.constant('taker-weather' as const), weather }),
    fc.record({ kind: fc.constant('guard-crash' as const), awayMs: fc.integer({ min: 50, max: 15_000 }) }),
  ),
});

test('when a taker is told that it has the lease, no guest of that generation lives, then or later', async () => {
  let taken = 0;
  await fc.assert(
    fc.asyncProperty(
      fc.array(happening, { minLength: 1, maxLength: 12 }),
      fc.infiniteStream(fc.double({ min: 0, max: 1, noNaN: true })),
      fc.constantFrom(slowestClock, 1, 1.02),
      fc.constantFrom(slowestClock, 1, 1.02),
      async (happenings, chances, holderSpeed, takerSpeed) => {
        const clock = new TestClock();
        const chance = () => chances.next().value ?? 0.5;
        const storage = new Storage();
        const holderPool = new RoughPool(storage, clock, chance);
        const takerPools = [new RoughPool(storage, clock, chance), new RoughPool(storage, clock, chance)];

        /** Generation of the lease under which each guest was started. */
        const guests = new Set<{ readonly generation: number }>();
        const memory: { value: GuardMemory | null } = { value: null };
        const holderClock = driftingClock(clock, holderSpeed);
        let runs = 0;
        let end = new AbortController();
        const poolGuests = {
          usingPool: () => [...guests].map(({ generation }) => `guest of ${generation}`),
          kill: () => {
            for (const guest of guests) clock.setTimeout(() => guests.delete(guest), chance() * 800);
          },
        };
        let isAlive = false;
        const startGuard = () => {
          end = new AbortController();
          const { signal } = end;
          isAlive = true;
          const guard = new Guard({
            host: 'h1',
            bootId: 'boot-1',
            writer: `run-${++runs}`,
            leaseTimeMs,
            clock: holderClock,
            pool: holderPool,
            guests: poolGuests,
            log: silentLog,
            remembered: memory.value,
            remember: (value) => {
              if (signal.aborted) return; // a crashed guard writes nothing any more
              memory.value = value;
              if (value.state === 'held' && guests.size === 0) guests.add({ generation: value.generation });
            },
          });
          void guard.run(signal);
        };

        let tickedAtMs = 0;
        const guardian = new SecondGuardian({
          clock: holderClock,
          read: () => {
            if (memory.value === null) return null;
            if (isAlive) tickedAtMs = holderClock.monotonic();
            const guard = { pid: runs, startTicks: '0' };
            const pools = [{ name: 'default', paths: [], memory: memory.value }];
            return { schema: 1, bootId: 'boot-1', guard, tickedAtMs, watchdog: false, pools };
          },
          guestsOn: () => poolGuests,
          killGuard: () => {},
          log: silentLog,
        });
        void guardian.run(new AbortController().signal);

        let newestTaken = 0;
        let outlived = '';
        const check = () => {
          for (const { generation } of guests) {
            if (generation <= newestTaken) outlived ||= `a guest of ${generation} lives, ${newestTaken} was taken`;
          }
        };
        const takers = takerPools.map((pool, index) => {
          const takerClock = driftingClock(clock, takerSpeed);
          const watcher = new LeaseWatcher({ host: `t${index}`, pools: [pool], clock: takerClock, log: silentLog });
          watcher.watch(['h1']);
          void watcher.run(new AbortController().signal);
          return async () => {
            const lease = watcher.seen()[0];
            if (!lease || lease.state === 'none') return;
            const before = storage.leases.get('h1')?.generation ?? 0;
            const answer = await watcher.take({ host: 'h1', poolId: 'pool-1', bootId: 'boot-1', term: 1 });
            if (answer.result !== 'taken') return;
            taken++;
            newestTaken = Math.max(newestTaken, before);
            check();
          };
        });

        startGuard();
        /** Advances second by second, both takers trying each time, as an eager server would have it. */
        const pass = async (ms: number) => {
          for (let passed = 0; passed < ms; passed += 1_000) {
            for (const take of takers) void take();
            await clock.advance(Math.min(1_000, ms - passed));
            check();
            expect(outlived).toBe('');
          }
        };
        await pass(2_000);
        for (const { afterMs, what } of happenings) {
          if (what.kind === 'holder-weather') holderPool.weather = what.weather;
          if (what.kind === 'taker-weather') for (const pool of takerPools) pool.weather = what.weather;
          if (what.kind === 'guard-crash') {
            end.abort();
            isAlive = false;
            await pass(what.awayMs);
            startGuard();
          }
          await pass(afterMs);
        }
        // Dead for good: its lease can be taken soon.
        end.abort();
        isAlive = false;
        guests.clear();
        holderPool.weather = 'well';
        for (const pool of takerPools) pool.weather = 'well';
        const before = taken;
        await pass(takeableWithinMs);
        if (storage.leases.has('h1')) expect(taken).toBeGreaterThan(before);
      },
    ),
    { numRuns: 250 },
  );
  expect(taken).toBeGreaterThan(100);
}, 60_000);
