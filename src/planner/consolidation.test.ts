import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { DemandForecast, HostForecast } from './consolidation-forecast.ts';
import {
  consolidationDefaults,
  planConsolidation,
  type ConsolidationFleet,
  type ConsolidationHost,
  type ConsolidationPlan,
  type ConsolidationVm,
} from './consolidation.ts';

const host = (state: ConsolidationHost['state'] = 'on', other: Partial<ConsolidationHost> = {}): ConsolidationHost => ({
  capacity: 8,
  memoryMiB: 32_768,
  watts: [90, 110, 130],
  state,
  ...other,
});

const steady = (level: number, samples = 24): number[] => Array.from({ length: samples }, () => level);

const vm = (on: number, level: number, other: Partial<ConsolidationVm> = {}): ConsolidationVm => ({
  host: on,
  size: 4,
  memoryMiB: 1024,
  movedAgo: Infinity,
  demands: steady(level),
  ...other,
});

/** The fleet with the plan carried out. */
function after(
  { hosts, vms, ...rest }: ConsolidationFleet,
  plan: ConsolidationPlan,
  intervals = 1,
): ConsolidationFleet {
  const target = new Map(plan.moves.map((move): [number, number] => [move.vm, move.target]));
  const [sleep, wake] = [new Set(plan.sleep), new Set(plan.wake)];
  return {
    ...rest,
    hosts: hosts.map((each, h) =>
      sleep.has(h) ? { ...each, state: 'asleep' } : wake.has(h) ? { ...each, state: 'on' } : each,
    ),
    vms: vms.map((each, v) => ({
      ...each,
      host: target.get(v) ?? each.host,
      movedAgo: target.has(v) ? intervals : each.movedAgo + intervals,
    })),
  };
}

describe('relief', () => {
  it('takes one VM from a host that will be overloaded, if one suffices', () => {
    const fleet = {
      hosts: [host(), host()],
      vms: [vm(0, 3), vm(0, 3), vm(0, 1.5), vm(0, 1.5), vm(1, 3)],
    };
    const { moves, wake } = planConsolidation(fleet);
    expect(moves).toMatchObject([{ source: 0, target: 1, reason: { kind: 'overload', load: 9 / 8, peak: 9 / 8 } }]);
    expect(wake).toEqual([]);
  });

  it('wakes a host where no other has room, and no more than that', () => {
    const fleet = { hosts: [host(), host('asleep'), host('asleep')], vms: [vm(0, 3), vm(0, 3), vm(0, 3)] };
    const { moves, wake, sleep } = planConsolidation(fleet);
    expect(moves).toMatchObject([{ source: 0, target: 1 }]);
    expect({ wake, sleep }).toEqual({ wake: [1], sleep: [] });
  });

  it('does nothing about one sample', () => {
    const spiked = [...steady(2, 23), 4];
    const vms = [0, 0, 0].map((on) => vm(on, 2, { demands: spiked }));
    expect(planConsolidation({ hosts: [host(), host('asleep')], vms })).toEqual({ moves: [], sleep: [], wake: [] });
  });

  it('leaves a VM where it is that is larger than anything else', () => {
    const vms = [vm(0, 9, { size: 10 })];
    expect(planConsolidation({ hosts: [host(), host('asleep')], vms }).moves).toEqual([]);
  });
});

describe('emptying', () => {
  const spread = { hosts: [host(), host(), host()], vms: [vm(0, 2), vm(1, 2), vm(1, 1), vm(2, 1)] };

  it('empties hosts whose VMs fit elsewhere, and says what that saves', () => {
    const { moves, sleep } = planConsolidation(spread);
    expect(sleep).toHaveLength(2);
    expect(new Set(moves.map(({ target }) => target)).size).toBe(1);
    for (const { reason } of moves) expect(reason).toMatchObject({ kind: 'empties-host' });
    const first = moves[0]?.reason;
    // A VM of 2 moves: the idle host's 90 W end, its own work takes as much on the other host.
    expect(first?.kind === 'empties-host' && first.wattsSaved).toBeCloseTo(90);
  });

  it('keeps the hosts that make most of their power', () => {
    const thirsty = host('on', { watts: [120, 180, 240] });
    const { sleep } = planConsolidation({ ...spread, hosts: [thirsty, host(), thirsty] });
    expect(new Set(sleep)).toEqual(new Set([0, 2]));
  });

  it.each([
    ['its moves cost more than they save', { joulesPerMove: 90 * 3600 + 1 }],
    ['hosts that are lost could not be made up for', { spareCapacity: 3 * 8 - 6 }],
    ['no memory would be spare', { spareMemoryMiB: 3 * 32_768 - 4 * 1024 }],
    ['nothing may move', { maxMoves: 0 }],
  ])('leaves a host alone when %s', (_, settings) => {
    expect(planConsolidation(spread, { ...consolidationDefaults, ...settings })).toMatchObject({
      moves: [],
      sleep: [],
    });
  });

  it.each([
    ['has moved lately', { movedAgo: 5 }],
    ['must stay', { stays: true }],
  ])('leaves a host alone whose VM %s', (_, other) => {
    const vms = spread.vms.map((each) => ({ ...each, ...other }));
    expect(planConsolidation({ ...spread, vms }).moves).toEqual([]);
  });

  it('lets hosts sleep that are empty already, but for what is to be spare', () => {
    const fleet = { hosts: [host(), host(), host()], vms: [vm(1, 2)] };
    expect(planConsolidation(fleet).sleep).toEqual([0, 2]);
    expect(planConsolidation(fleet, { ...consolidationDefaults, spareCapacity: 8 }).sleep).toEqual([0]);
  });

  it('puts VMs together that are busy at different times', () => {
    const early = Array.from({ length: 24 }, (_, i) => (i < 12 ? 3 : 0));
    const [a, b] = [early, early.toReversed()].map((demands) => vm(0, 0, { demands })) as [
      ConsolidationVm,
      ConsolidationVm,
    ];
    const alike = { hosts: [host(), host()], vms: [a, a, { ...a, host: 1 }] };
    expect(planConsolidation(alike).moves).toEqual([]);
    const apart = { hosts: [host(), host()], vms: [a, a, { ...b, host: 1 }] };
    expect(planConsolidation(apart).moves).toMatchObject([{ vm: 2, target: 0 }]);
  });
});

it('wakes hosts for a morning that earlier days promise', () => {
  const hosts = [host(), host('asleep')];
  const vms = Array.from({ length: 6 }, () => vm(0, 1));
  expect(planConsolidation({ hosts, vms }).wake).toEqual([]);
  expect(planConsolidation({ hosts, vms: vms.map((each) => ({ ...each, expected: 2 })) }).wake).toEqual([1]);
});

/** Deterministic noise: a test must not be lucky. */
function noise(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state / 2 ** 32;
  };
}

it('moves next to nothing because of noise, and wakes nothing that it let sleep', () => {
  const random = noise(7);
  const level = Array.from({ length: 120 }, () => 0.2 + random());
  const next = (v: number): number => Math.min(4, (level[v] ?? 0) * 2 * random());
  let fleet: ConsolidationFleet = {
    hosts: Array.from({ length: 40 }, () => host()),
    vms: level.map((_, v) => vm(v % 40, 0, { demands: [next(v)] })),
  };
  const moves: number[] = [];
  let wakes = 0;
  for (let interval = 0; interval < 120; interval++) {
    const plan = planConsolidation(fleet);
    moves.push(plan.moves.length);
    wakes += plan.wake.length;
    const done = after(fleet, plan);
    fleet = {
      ...done,
      vms: done.vms.map((each, v) => ({ ...each, demands: [...Array.from(each.demands).slice(-23), next(v)] })),
    };
  }
  const on = fleet.hosts.filter(({ state }) => state === 'on').length;
  const late = moves.slice(24).reduce((sum, count) => sum + count, 0);
  expect({ on, wakes }).toEqual({ on: 15, wakes: 0 });
  // 120 VMs, eight hours.
  expect(late).toBeLessThan(24);
});

it('plans a large fleet in parts, by the numbers of the whole', () => {
  const count = 2100;
  const hosts = Array.from({ length: count }, (_, h) => host(h % 3 === 2 ? 'asleep' : 'on'));
  const vms = Array.from({ length: count * 2 }, (_, v) => vm(v % count, 1)).filter((each) => each.host % 3 !== 2);
  const asked: number[] = [];
  const fleet: ConsolidationFleet = {
    hosts,
    vms,
    mayRun: (one, target, hostOf) => {
      // Before the first move of a VM it is still where the fleet says, whichever part it is in.
      if (asked.length < 50) asked.push(hostOf(one), vms[one]?.host ?? -1);
      return target % 2 === 0;
    },
  };
  const { moves, sleep } = planConsolidation(fleet);
  expect(asked.filter((_, i) => i % 2 === 0)).toEqual(asked.filter((_, i) => i % 2 === 1));
  expect(moves.filter(({ vm: v, source }) => vms[v]?.host !== source)).toEqual([]);
  expect(moves.filter(({ target }) => target % 2 !== 0 || hosts[target]?.state !== 'on')).toEqual([]);
  expect(new Set(sleep).size).toBe(sleep.length);
  // 2800 VMs of 1 on hosts of 8.
  expect(1400 - sleep.length).toBeLessThan(360);
});

describe('for any fleet', () => {
  const anyHost = fc.record({
    capacity: fc.constantFrom(4, 8, 16),
    memoryMiB: fc.constantFrom(4096, 16_384),
    watts: fc.constantFrom([90, 110, 130], [150, 200, 300]),
    state: fc.constantFrom('on', 'on', 'on', 'asleep', 'closed'),
  });
  const anyVm = (hosts: readonly ConsolidationHost[]) =>
    fc.record({
      host: fc.constantFrom(...hosts.keys()).filter((h) => hosts[h]?.state !== 'asleep'),
      size: fc.constantFrom(1, 2, 4),
      memoryMiB: fc.constantFrom(256, 1024),
      movedAgo: fc.constantFrom(1, 4, 6, 12, Infinity, Infinity),
      stays: fc.constantFrom(false, false, false, false, false, true),
      level: fc.double({ min: 0, max: 1, noNaN: true }),
      swing: fc.array(fc.double({ min: 0, max: 1, noNaN: true }), { minLength: 1, maxLength: 24 }),
    });
  const anyFleet = (hosts: fc.Arbitrary<ConsolidationHost>, changes: boolean): fc.Arbitrary<ConsolidationFleet> =>
    fc
      .array(hosts, { minLength: 2, maxLength: 8 })
      .filter((each) => each.some(({ state }) => state !== 'asleep'))
      .chain((each) => fc.array(anyVm(each), { maxLength: 30 }).map((vms) => ({ hosts: each, vms })))
      .map(({ hosts: each, vms }) => ({
        hosts: each,
        vms: vms.map(({ level, swing, ...rest }) => ({
          ...rest,
          demands: changes ? swing.map((share) => share * level * rest.size) : steady(level * rest.size),
        })),
        // Two VMs whose numbers differ by a multiple of five are kept apart.
        mayRun: (one, target, hostOf) =>
          vms.every((_, other) => other === one || other % 5 !== one % 5 || hostOf(other) !== target),
      }));
  const anything = anyFleet(anyHost, true);

  it('the same question has the same answer', () => {
    fc.assert(
      fc.property(anything, (fleet) => {
        expect(planConsolidation(fleet)).toEqual(planConsolidation(fleet));
      }),
    );
  });

  it('no target is overloaded by its own forecast, short of memory or against the rules, after any of the moves', () => {
    let moved = 0;
    fc.assert(
      fc.property(anything, (fleet) => {
        const { hosts, vms, mayRun } = fleet;
        const load = new HostForecast(new DemandForecast(vms, consolidationDefaults.window), hosts.length);
        const at = vms.map((each) => each.host);
        at.forEach((h, v) => load.add(h, v));
        for (const { vm: v, source, target } of planConsolidation(fleet).moves) {
          moved++;
          expect(at[v]).toBe(source);
          expect(mayRun?.(v, target, (other) => at[other] ?? -1)).toBe(true);
          load.remove(source, v);
          load.add(target, v);
          at[v] = target;
          expect(load.bound(target, consolidationDefaults.fillDeviations)).toBeLessThanOrEqual(
            (hosts[target]?.capacity ?? 0) + 1e-9,
          );
          const used = vms.reduce((sum, { memoryMiB }, other) => sum + (at[other] === target ? memoryMiB : 0), 0);
          expect(used).toBeLessThanOrEqual(hosts[target]?.memoryMiB ?? 0);
        }
      }),
      { numRuns: 500 },
    );
    expect(moved).toBeGreaterThan(100);
  });

  it('no host is both left and entered, none sleeps with VMs, none is entered asleep, and what must stay stays', () => {
    fc.assert(
      fc.property(anything, (fleet) => {
        const plan = planConsolidation(fleet);
        const sources = new Set(plan.moves.map(({ source }) => source));
        const targets = new Set(plan.moves.map(({ target }) => target));
        expect([...sources].filter((h) => targets.has(h))).toEqual([]);
        const done = after(fleet, plan);
        expect(plan.sleep.filter((h) => done.vms.some((each) => each.host === h))).toEqual([]);
        const asleep = [...targets].filter((h) => fleet.hosts[h]?.state === 'asleep');
        expect(new Set(plan.wake)).toEqual(new Set(asleep));
        expect(plan.sleep.filter((h) => fleet.hosts[h]?.state !== 'on')).toEqual([]);
        expect([...sources, ...targets].filter((h) => fleet.hosts[h]?.state === 'closed')).toEqual([]);
        expect(plan.moves.filter(({ vm: v }) => fleet.vms[v]?.stays)).toEqual([]);
      }),
    );
  });

  it('under steady load it comes to rest, and no host that it emptied is filled again', () => {
    fc.assert(
      fc.property(anyFleet(anyHost, false), (first) => {
        let fleet = first;
        const emptied = new Set<number>();
        let last = 0;
        for (let interval = 0; interval < 60; interval++) {
          const plan = planConsolidation(fleet);
          expect(plan.moves.filter(({ target }) => emptied.has(target))).toEqual([]);
          for (const h of plan.sleep) emptied.add(h);
          last = plan.moves.length;
          fleet = after(fleet, plan);
        }
        expect(last).toBe(0);
      }),
      { numRuns: 50 },
    );
  });

  it('where no host was overloaded, nothing is left to do at once after a plan was carried out', () => {
    fc.assert(
      fc.property(anyFleet(anyHost, false), (fleet) => {
        const plan = planConsolidation(fleet);
        fc.pre(plan.moves.every(({ reason }) => reason.kind === 'empties-host'));
        expect(planConsolidation(after(fleet, plan, 0))).toEqual({ moves: [], sleep: [], wake: [] });
      }),
    );
  });
});
