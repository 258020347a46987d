import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { powerPlan, type PowerHost, type PowerPlanInput } from './power-plan.ts';

const minute = 60_000;
const host = (name: string, changes: Partial<PowerHost> = {}): PowerHost => ({
  name,
  state: 'awake',
  forMs: 60 * minute,
  capacity: { cores: 10, memoryMiB: 1000 },
  empty: true,
  closed: false,
  mayNotSleep: null,
  idleWatts: 100,
  readyMs: minute,
  ...changes,
});
const busy = (name: string) => host(name, { empty: false });
const plan = (hosts: PowerHost[], memoryMiB: number, more: Partial<PowerPlanInput> = {}) =>
  powerPlan({
    hosts,
    needed: () => ({ cores: 1, memoryMiB }),
    used: { cores: 1, memoryMiB },
    waiting: { cores: 0, memoryMiB: 0 },
    hostFailuresTolerated: 1,
    ...more,
  });
const names = (choices: readonly { host: string }[]) => choices.map((choice) => choice.host);

describe('hosts that nothing needs', () => {
  it('may sleep, the thirstiest first, down to what is needed and one for a failure', () => {
    const hosts = [busy('h1'), host('h2'), host('h3', { idleWatts: 200 }), host('h4')];
    const result = plan(hosts, 700);
    expect(names(result.sleep)).toEqual(['h3', 'h2']);
    expect(result.keep).toEqual([{ host: 'h4', because: '2 hosts are kept awake, whatever is needed' }]);
    expect(names(plan(hosts, 900).sleep)).toEqual(['h3']);
    expect(plan(hosts, 900).keep[0]?.because).toBe(
      'without it 1125 MiB are needed and, with one host dead, 1000 MiB are awake within 62 min',
    );
  });

  it('stay awake for a while after they were woken, and without a proof, and it is said why', () => {
    const mayNotSleep = 'it was never proven that h3 can be woken';
    const hosts = [busy('h1'), host('h2', { forMs: minute }), host('h3', { mayNotSleep }), busy('h4')];
    expect(plan(hosts, 100)).toMatchObject({
      sleep: [],
      wake: [],
      keep: [
        { host: 'h2', because: 'it has been awake for 60 s only' },
        { host: 'h3', because: mayNotSleep },
      ],
    });
  });

  it('stay awake when the morning needs them before they could be back', () => {
    const hosts = [busy('h1'), host('h2'), host('h3')];
    const needed = (horizonMs: number) => ({ cores: 1, memoryMiB: horizonMs > 30 * minute ? 1500 : 100 });
    expect(plan(hosts, 0, { needed }).sleep).toEqual([]);
    expect(names(plan(hosts, 100).sleep)).toEqual(['h2']);
  });
});

describe('hosts that sleep', () => {
  it('are woken ahead of the demand, the soonest ready first, and no more than needed', () => {
    const asleep = [
      host('h3', { state: 'asleep', readyMs: 5 * minute }),
      host('h4', { state: 'asleep', readyMs: minute }),
    ];
    const hosts = [busy('h1'), busy('h2'), ...asleep];
    const needed = (horizonMs: number) => ({ cores: 1, memoryMiB: horizonMs >= 2 * minute ? 1500 : 500 });
    expect(names(plan(hosts, 0, { needed }).wake)).toEqual(['h4']);
    expect(plan(hosts, 500).wake).toEqual([]);
  });

  it('are woken for VMs that wait and for busy cores; those on their way are counted', () => {
    const hosts = [busy('h1'), host('h2', { state: 'asleep' })];
    const waiting = { cores: 1, memoryMiB: 400 };
    expect(plan(hosts, 800, { waiting, hostFailuresTolerated: 0 }).wake[0]?.because).toMatch(/^VMs wait for room/);
    const cores = { needed: () => ({ cores: 9, memoryMiB: 10 }), hostFailuresTolerated: 0 };
    expect(names(plan(hosts, 0, cores).wake)).toEqual(['h2']);
    const waking = [busy('h1'), host('h2', { state: 'waking' }), host('h3', { state: 'asleep' })];
    expect(plan(waking, 0, cores).wake).toEqual([]);
  });

  it('are woken in the place of those that are gone', () => {
    const hosts = [busy('h1'), host('h2', { state: 'gone' }), host('h3', { state: 'asleep' })];
    expect(names(plan(hosts, 500).wake)).toEqual(['h3']);
  });
});

it('never sends to sleep what it would wake again at once, nor wakes what it would send to sleep, nor a host with guests', () => {
  const hosts = fc.array(
    fc.record({
      state: fc.constantFrom('awake' as const, 'asleep' as const, 'waking' as const, 'gone' as const),
      memoryMiB: fc.integer({ min: 100, max: 4000 }),
      empty: fc.boolean(),
      idleWatts: fc.integer({ min: 20, max: 300 }),
      readyMs: fc.option(fc.integer({ min: 1000, max: 600_000 })),
    }),
    { minLength: 1, maxLength: 12 },
  );
  const property = fc.property(
    hosts,
    fc.nat(10_000),
    fc.nat(10_000),
    fc.nat(3),
    (drawn, soon, later, hostFailuresTolerated) => {
      const fleet = drawn.map(({ memoryMiB, ...each }, n) =>
        host(`h${n}`, { ...each, capacity: { cores: 8, memoryMiB } }),
      );
      const needed = (ms: number) => ({ cores: 1, memoryMiB: ms < 30 * minute ? soon : Math.max(soon, later) });
      const more = { needed, hostFailuresTolerated };
      const first = plan(fleet, 0, more);
      const asleep = new Set(names(first.sleep));
      expect(fleet.filter(({ name, empty }) => asleep.has(name) && !empty)).toEqual([]);
      expect(first.sleep.length === 0 || first.wake.length === 0).toBe(true);
      const after = fleet.map((one) => (asleep.has(one.name) ? { ...one, state: 'asleep' as const, forMs: 0 } : one));
      if (asleep.size > 0) expect(names(plan(after, 0, more).wake)).toEqual([]);
      const woken = new Set(names(first.wake));
      const up = fleet.map((one) => (woken.has(one.name) ? { ...one, state: 'awake' as const, forMs: 0 } : one));
      expect(names(plan(up, 0, more).sleep).filter((name) => woken.has(name))).toEqual([]);
    },
  );
  fc.assert(property, { numRuns: 2000 });
});
