/** Fewer hosts for a fleet that lives on: within rules, limits and room to spare, and at rest while load is steady. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { FleetSnapshot, SnapshotVm } from '../model/fleet-snapshot.ts';
import { snapshotAfter } from './answer.ts';
import { chanceFrom } from './chance.ts';
import { consolidationPlan, type PowerFacts } from './consolidation-plan.ts';
import { capacityNeeded, newDemandHistory, withSample, type Demand } from './demand.ts';
import { fakeHost, fakeSnapshot, fakeVm } from './fake-fleet.ts';
import { powerPlan, type PowerHost } from './power-plan.ts';

const hosts = ['h1', 'h2', 'h3', 'h4'].map((name) => fakeHost(name));
const vms = hosts.flatMap(({ name }) => [1, 2].map((i) => fakeVm(`${name}-${i}`, name, { memoryMiB: 8192 })));
const factsWith = (more: Partial<PowerFacts> = {}): PowerFacts => ({
  maySleep: ['h1', 'h2', 'h3', 'h4'],
  mayWake: [],
  wake: [],
  room: { cores: 0, memoryMiB: 0 },
  leastAwake: 1,
  emptiesOthers: false,
  ...more,
});
const names = (choices: readonly { readonly host: string }[]): string[] => choices.map(({ host }) => host);

describe('emptying', () => {
  it('empties hosts so that they can sleep, and says what that saves', () => {
    const { plan, sleep, wake } = consolidationPlan(fakeSnapshot(hosts, vms), factsWith());
    expect(plan.emptied).toHaveLength(2);
    expect(names(sleep).toSorted()).toEqual([...plan.emptied].toSorted());
    expect(plan.moves[0]?.reason).toMatch(/^Empties h\d, so that it can sleep: saves about \d+ W\.$/);
    expect(wake).toEqual([]);
  });

  it('empties only hosts that may sleep, unless the others are asked for too, and those come last', () => {
    const one = consolidationPlan(fakeSnapshot(hosts, vms), factsWith({ maySleep: ['h3'] }));
    expect([one.plan.emptied, names(one.sleep)]).toEqual([['h3'], ['h3']]);
    const all = consolidationPlan(fakeSnapshot(hosts, vms), factsWith({ maySleep: ['h3'], emptiesOthers: true }));
    expect(all.plan.emptied).toHaveLength(2);
    expect([all.plan.emptied.includes('h3'), names(all.sleep)]).toEqual([true, ['h3']]);
  });

  it('sends a host to sleep that is empty already, without a move', () => {
    const { plan, sleep } = consolidationPlan(
      fakeSnapshot(
        hosts,
        vms.filter(({ host }) => host !== 'h4'),
      ),
      factsWith({ maySleep: ['h4'] }),
    );
    expect([plan.moves, names(sleep)]).toEqual([[], ['h4']]);
  });

  it.each<[string, Partial<PowerFacts>, Partial<FleetSnapshot['settings']>]>([
    ['too little room', { room: { cores: 0, memoryMiB: 150_000 } }, {}],
    ['4 hosts are kept awake', { leastAwake: 4 }, {}],
    ['its VMs do not all fit', {}, { hostFailuresTolerated: 3 }],
  ])('keeps the room that it is told to, and says why a host stays on: %s', (why, facts, settings) => {
    const { plan, sleep, keep } = consolidationPlan(fakeSnapshot(hosts, vms, settings), factsWith(facts));
    expect([plan.moves, sleep]).toEqual([[], []]);
    expect(keep).toHaveLength(4);
    expect(keep.some(({ because }) => because.includes(why))).toBe(true);
  });

  it('leaves a host alone whose VM cannot leave, was moved lately or is pinned, and says so', () => {
    const held: Partial<SnapshotVm>[] = [
      { cannotMoveLive: 'it holds a device' },
      { lastMovedAt: 1_000_000_000 - 1_000 },
      { moving: true },
    ];
    const some = vms.map((vm, i) => ({ ...vm, ...(i % 2 === 0 ? held[i / 2] : {}) }));
    const { plan, keep } = consolidationPlan(fakeSnapshot(hosts, some), factsWith());
    expect(plan.emptied).toEqual(['h4']);
    expect(keep.filter(({ because }) => because.startsWith('a VM there stays'))).toHaveLength(3);
    const pinned = vms.map((vm) => ({ ...vm, pinnedTo: [vm.host] }));
    expect(consolidationPlan(fakeSnapshot(hosts, pinned), factsWith()).plan.moves).toEqual([]);
  });

  it('keeps apart what is to be apart, and does not part what is to stay together', () => {
    const rivals = vms.map((vm) => (vm.name.endsWith('-1') ? { ...vm, apart: ['a'] } : vm));
    expect(consolidationPlan(fakeSnapshot(hosts, rivals), factsWith()).plan.moves).toEqual([]);
    const friends = vms.map((vm) => (vm.host === 'h1' ? { ...vm, together: ['t'] } : vm));
    const { plan } = consolidationPlan(fakeSnapshot(hosts, friends), factsWith());
    expect(plan.moves.every(({ from }) => from !== 'h1')).toBe(true);
  });

  it('empties none while another must be woken', () => {
    const { plan, sleep, wake } = consolidationPlan(
      fakeSnapshot([...hosts, fakeHost('h5', { state: 'asleep' })], vms),
      factsWith({ mayWake: ['h5'], wake: [{ host: 'h5', because: 'the morning comes' }] }),
    );
    expect([plan.moves, sleep, wake]).toEqual([[], [], [{ host: 'h5', because: 'the morning comes' }]]);
  });
});

describe('a burst of load', () => {
  const busy = (cores: number) =>
    Array.from({ length: 6 }, (_, i) =>
      fakeVm(`b${i}`, 'h1', { load: { ...vms[0]!.load, cpuCores: cores, recentCpuCores: [0.1, 0.1, 0.1] }, cpus: 4 }),
    );

  it('relieves its host to others that are awake, and wakes one where they have no room', () => {
    const both = [fakeHost('h1'), fakeHost('h2')];
    const toOther = consolidationPlan(fakeSnapshot(both, busy(2.6)), factsWith({ maySleep: [], leastAwake: 1 }));
    expect(toOther.wake).toEqual([]);
    expect(toOther.plan.moves[0]).toMatchObject({
      from: 'h1',
      to: 'h2',
      reason: expect.stringMatching(/^Relieves h1/),
    });
    const asleep = [fakeHost('h1'), fakeHost('h2', { state: 'asleep' })];
    const woken = consolidationPlan(fakeSnapshot(asleep, busy(2.6)), factsWith({ maySleep: [], mayWake: ['h2'] }));
    expect(names(woken.wake)).toEqual(['h2']);
    expect(woken.plan.moves.map(({ to }) => to)).toContain('h2');
    expect(consolidationPlan(fakeSnapshot(asleep, busy(2.6)), factsWith({ maySleep: [] })).wake).toEqual([]);
  });

  it('is no burst below the limit', () => {
    const asleep = [fakeHost('h1'), fakeHost('h2', { state: 'asleep' })];
    expect(
      consolidationPlan(fakeSnapshot(asleep, busy(1.2)), factsWith({ maySleep: [], mayWake: ['h2'] })),
    ).toMatchObject({ plan: { moves: [] }, wake: [] });
  });
});

const minute = 60_000;
const planEveryMs = 5 * minute;
const readyMs = 3 * minute;

/** A fleet that lives by the planner alone, plan by plan; loads are what `loadOf` says of each VM at each time. */
class Life {
  readonly slept: string[] = [];
  readonly woken: string[] = [];
  moves = 0;
  readonly #since = new Map<string, number>();
  #snapshot: FleetSnapshot;
  #history = newDemandHistory();
  #recent = new Map<string, number[]>();

  constructor(snapshot: FleetSnapshot) {
    this.#snapshot = snapshot;
  }

  step(at: number, loadOf: (vm: string) => number): void {
    const loaded = this.#snapshot.vms.map((vm) => {
      const recent = this.#recent.get(vm.name) ?? [];
      this.#recent.set(vm.name, [...recent, loadOf(vm.name)].slice(-24));
      return { ...vm, load: { ...vm.load, cpuCores: loadOf(vm.name), recentCpuCores: recent } };
    });
    const snapshot: FleetSnapshot = { ...this.#snapshot, takenAt: at, vms: loaded };
    const used = this.#used(snapshot);
    this.#history = withSample(this.#history, at, used);
    const power = powerPlan({
      hosts: snapshot.hosts.map((host) => this.#powerHost(snapshot, host.name, at)),
      needed: (horizonMs, sinceMs) => capacityNeeded(this.#history, used, at, horizonMs, sinceMs),
      used,
      waiting: { cores: 0, memoryMiB: 0 },
      hostFailuresTolerated: 0,
    });
    const asleep = snapshot.hosts.filter(({ state }) => state === 'asleep').map(({ name }) => name);
    const old = (name: string): boolean => at - (this.#since.get(name) ?? -Infinity) >= 30 * minute;
    const { plan, sleep, wake } = consolidationPlan(snapshot, {
      maySleep: snapshot.hosts.filter(({ state, name }) => state === 'up' && old(name)).map(({ name }) => name),
      mayWake: asleep,
      wake: power.wake,
      room: power.room,
      leastAwake: 1,
      emptiesOthers: false,
    });
    const states = new Map([
      ...sleep.map(({ host }) => [host, 'asleep'] as const),
      ...wake.map(({ host }) => [host, 'up'] as const),
    ]);
    for (const host of states.keys()) this.#since.set(host, at);
    this.slept.push(...names(sleep));
    this.woken.push(...names(wake));
    this.moves += plan.moves.length;
    const moved = new Set(plan.moves.map(({ vm }) => vm));
    const after = snapshotAfter(snapshot, plan);
    this.#snapshot = {
      ...after,
      hosts: after.hosts.map((host) => ({ ...host, state: states.get(host.name) ?? host.state })),
      vms: after.vms.map((vm) => (moved.has(vm.name) ? { ...vm, lastMovedAt: at } : vm)),
    };
    const down = this.#snapshot.hosts.filter(({ state }) => state === 'asleep').map(({ name }) => name);
    expect(this.#snapshot.vms.filter(({ host }) => down.includes(host))).toEqual([]);
  }

  #used({ vms: all }: FleetSnapshot): Demand {
    return {
      cores: all.reduce((sum, { load }) => sum + load.cpuCores, 0),
      memoryMiB: all.reduce((sum, { memoryMiB }) => sum + memoryMiB, 0),
    };
  }

  #powerHost({ hosts: all, vms: there }: FleetSnapshot, name: string, at: number): PowerHost {
    const host = all.find((each) => each.name === name)!;
    return {
      name,
      state: host.state === 'asleep' ? 'asleep' : 'awake',
      forMs: at - (this.#since.get(name) ?? -Infinity),
      capacity: { cores: host.cpus, memoryMiB: host.memoryMiB - host.reservedMiB },
      empty: !there.some((vm) => vm.host === name),
      closed: false,
      mayNotSleep: null,
      idleWatts: 100,
      readyMs,
    };
  }
}

function lifeOf(chance: ReturnType<typeof chanceFrom>, count: number, each: number): Life {
  const machines = Array.from({ length: count }, (_, i) => fakeHost(`h${i + 1}`));
  const guests = machines.flatMap(({ name }) =>
    Array.from({ length: each }, (_, i) =>
      fakeVm(`${name}-${i}`, name, { cpus: 4, memoryMiB: 1024 * (1 + chance.below(4)) }),
    ),
  );
  return new Life(fakeSnapshot(machines, guests, { dwellMs: 30 * minute }));
}

interface Pattern {
  readonly seed: number;
  readonly hosts: number;
  /** On each host at first. */
  readonly vms: number;
  readonly mean: number;
  readonly shape: 'steady' | 'noisy' | 'swinging';
}

/** Their hosts went to sleep in each trough and were woken at each peak. */
const onceRestless = (
  [
    [999938930, 4, 7, 0.6071068633984961],
    [864452556, 5, 7, 1.037340199789421],
    [897065029, 4, 5, 0.8768576039638527],
    [371929274, 6, 5, 1.1999999999999968],
  ] as const
).map(([seed, hosts, vms, mean]): [Pattern] => [{ seed, hosts, vms, mean, shape: 'swinging' }]);

describe('hosts do not go up and down', () => {
  it('on load that is steady, noisy, or swings faster than hosts could follow: once asleep, asleep for six hours', () => {
    const shapes = ['steady', 'noisy', 'swinging'] as const;
    const patterns: fc.Arbitrary<Pattern> = fc.record({
      seed: fc.integer({ min: 0, max: 1e9 }),
      hosts: fc.integer({ min: 2, max: 6 }),
      vms: fc.integer({ min: 1, max: 8 }),
      mean: fc.double({ min: 0.05, max: 1.2, noNaN: true }),
      shape: fc.constantFrom(...shapes),
    });
    fc.assert(
      fc.property(patterns, ({ seed, hosts: count, vms: each, mean, shape }) => {
        const chance = chanceFrom(seed);
        const life = lifeOf(chance, count, each);
        const own = new Map<string, number>();
        const noise = { steady: 0, noisy: 0.3, swinging: 0 }[shape];
        const load = (at: number) => (vm: string) => {
          if (!own.has(vm)) own.set(vm, mean * (0.5 + chance.next()));
          const swing = shape === 'swinging' ? 0.15 * Math.sin((2 * Math.PI * at) / (40 * minute)) : 0;
          return own.get(vm)! * (1 + swing + noise * (chance.next() - 0.5));
        };
        // As a server begins that has seen nothing yet; it is settled after three hours.
        const begin = 1_700_000_000_000;
        for (let at = begin; at < begin + 180 * minute; at += planEveryMs) life.step(at, load(at));
        const [slept, woken, moves] = [life.slept.length, life.woken.length, life.moves];
        for (let at = begin + 180 * minute; at < begin + 540 * minute; at += planEveryMs) life.step(at, load(at));
        expect(life.woken.length - woken).toBe(0);
        expect(life.slept.length - slept).toBeLessThanOrEqual(1);
        expect(life.moves - moves).toBeLessThanOrEqual(2 * each);
      }),
      { numRuns: 25, examples: onceRestless },
    );
  }, 60_000);

  it('follows a day: sleeps at night, is awake again before the morning that it has learnt', () => {
    const life = lifeOf(chanceFrom(1), 4, 4);
    const isBusy = (at: number): boolean => {
      const hour = Math.floor(at / (60 * minute)) % 24;
      return hour >= 8 && hour < 18;
    };
    const monday = 1_699_833_600_000;
    const asleepAt: number[] = [];
    for (let at = monday; at < monday + 4 * 24 * 60 * minute; at += planEveryMs) {
      life.step(at, () => (isBusy(at) ? 2.4 : 0.1));
      asleepAt.push(life.slept.length - life.woken.length);
    }
    const at = (day: number, hour: number, ofHour = 0): number => asleepAt[day * 288 + hour * 12 + ofHour]!;
    expect(at(3, 3)).toBeGreaterThanOrEqual(2);
    expect(at(3, 7, 11)).toBe(0);
    expect(at(3, 12)).toBe(0);
    // Once a day each way.
    expect(life.woken.length).toBeLessThanOrEqual(4 * 3);
  });
});
