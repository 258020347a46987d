/** Laws of the planner, on random fleets: small, crowded, with rules of every kind. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { FleetSnapshot, SnapshotHost, SnapshotVm } from '../../src/model/fleet-snapshot.ts';
import type { Plan } from '../../src/model/plan.ts';
import { snapshotAfter, type PlanOptions } from '../../src/planner/answer.ts';
import { balance, balanceSteps, droverAim } from '../../src/planner/balance.ts';
import { Board } from '../../src/planner/board.ts';
import { chanceFrom, type Chance } from '../../src/planner/chance.ts';
import { problemOf } from '../../src/planner/compile.ts';
import { consolidate } from '../../src/planner/consolidate.ts';
import { consolidationPlan, type PowerFacts } from '../../src/planner/consolidation-plan.ts';
import { drain } from '../../src/planner/drain.ts';
import { failover } from '../../src/planner/failover.ts';
import { fakeHost, fakeSnapshot, fakeVm, unevenFleet } from '../../src/planner/fake-fleet.ts';
import { fleetOf, ordinaryLook, type Fleet } from '../../src/planner/fleet.ts';
import { hbalAim } from '../../src/planner/hbal-aim.ts';
import { order } from '../../src/planner/order.ts';
import type { PartJob } from '../../src/planner/parts.ts';
import { place } from '../../src/planner/place.ts';
import { fitsHost, mayBeThere, mayMove } from '../../src/planner/rules.ts';
import { droverParts, objectiveOf, scoreOf } from '../../src/planner/score.ts';
import { Spare } from '../../src/planner/spare.ts';
import { Pool } from '../../src/runtime/pool.ts';
import { readGaneti } from '../../src/wire/ganeti.ts';

const options: PlanOptions = { iterations: 300 };
/** Fleets that each property is tried on. */
const runs = Number(process.env['DROVER_TEST_RUNS'] ?? 400);
/** A deadline, not an expectation: the machine may be busy. */
const timeoutMs = 60_000 * Math.max(1, runs / 400);

/** A fleet from one number, so that a failure is told by it. */
const fleets = fc.record({ seed: fc.integer({ min: 0, max: 1e9 }), hosts: fc.integer({ min: 1, max: 6 }) });

function randomFleet({ seed, hosts }: { seed: number; hosts: number }): FleetSnapshot {
  const chance = chanceFrom(seed);
  const some = (share: number): boolean => chance.next() < share;
  const names = Array.from({ length: hosts }, (_, i) => `h${i + 1}`);
  const machines = names.map((name) => randomHost(name, chance));
  const free = machines.map((host) => host.memoryMiB - host.reservedMiB);
  const vms: SnapshotVm[] = [];
  for (let i = 0; i < hosts * 4; i++) {
    const at = Math.min(chance.below(hosts), chance.below(hosts));
    const memoryMiB = [512, 1024, 2048, 4096][chance.below(4)]!;
    // Some hosts begin overfull: what is so may stay so, and may not become worse.
    if (free[at]! < memoryMiB && !some(0.05)) continue;
    free[at]! -= memoryMiB;
    const cpus = 1 + chance.below(4);
    vms.push(
      fakeVm(`vm${i}`, names[at]!, {
        memoryMiB,
        cpus,
        running: !some(0.05),
        load: {
          cpuCores: cpus * chance.next(),
          memoryMiB: memoryMiB * chance.next(),
          diskBytesPerSecond: some(0.3) ? 1e8 * chance.next() : 0,
          netBytesPerSecond: some(0.3) ? 1e8 * chance.next() : 0,
        },
        dirtyBytesPerSecond: some(0.1) ? 2e9 : 2e7 * chance.next(),
        apart: some(0.3) ? [`apart${chance.below(3)}`] : [],
        together: some(0.1) ? [`together${chance.below(2)}`] : [],
        pinnedTo: some(0.1) ? names.filter(() => some(0.5)) : null,
        accel: some(0.1) ? 'kvm' : null,
        networks: some(0.1) ? ['special'] : ['default'],
        cannotMoveLive: some(0.05) ? 'it holds a device' : null,
        moving: some(0.03),
        recovery: some(0.8) ? 'restart' : 'manual',
        priority: chance.below(1001),
        lastMovedAt: some(0.1) ? 999_900_000 : null,
      }),
    );
  }
  return fakeSnapshot(machines, vms, { hostFailuresTolerated: some(0.5) ? 1 + chance.below(2) : 0 });
}

function randomHost(name: string, chance: Chance): SnapshotHost {
  const dice = chance.next();
  return fakeHost(name, {
    cpus: [4, 8][chance.below(2)]!,
    memoryMiB: [8192, 16_384][chance.below(2)]!,
    state: dice < 0.85 ? 'up' : (['cordoned', 'draining', 'silent', 'asleep'] as const)[chance.below(4)]!,
    accel: chance.next() < 0.9 ? 'kvm' : 'tcg',
    networks: chance.next() < 0.7 ? ['default', 'special'] : ['default'],
    watts: chance.next() < 0.5 ? [100, 200] : null,
  });
}

/** Makes the moves one by one; each has to be within the rules at its time. */
function replay(
  snapshot: FleetSnapshot,
  plan: Plan,
  look = ordinaryLook,
): { fleet: Fleet; board: Board; scores: number[] } {
  const fleet = fleetOf(snapshot, look);
  const parts = droverParts(fleet);
  const problem = problemOf(fleet, objectiveOf(fleet, parts), { budget: {}, moveCost: () => 0 });
  const board = new Board(problem);
  const scores = [board.score()];
  const moved = new Set<number>();
  for (const { vm, from, to } of plan.moves) {
    const [v, f, t] = [fleet.vmIndex.get(vm)!, fleet.hostIndex.get(from)!, fleet.hostIndex.get(to)!];
    expect(board.at[v]).toBe(f);
    expect(f).not.toBe(t);
    if (!moved.has(v)) expect(mayMove(fleet, v)).toBeNull();
    moved.add(v);
    if (t !== fleet.at[v]) expect(mayBeThere(fleet, board, v, t)).toBeNull();
    board.move(v, t);
    scores.push(board.score());
  }
  return { fleet, board, scores };
}

function spareIsKept(snapshot: FleetSnapshot, plan: Plan): void {
  const { fleet, board } = replay(snapshot, plan);
  expect(new Spare(fleet, new Board(board.problem)).isKept(board)).toBe(true);
}

describe('balance', () => {
  it(
    'proposes only what the rules allow, each beginning is no worse than before, and room for dead hosts is kept',
    () => {
      fc.assert(
        fc.property(fleets, (about) => {
          const snapshot = randomFleet(about);
          const plan = balance(snapshot, options);
          const { scores } = replay(snapshot, plan);
          for (const score of scores) expect(score).toBeLessThanOrEqual(scores[0]! + 1e-6);
          expect(plan.score.after.total).toBeLessThanOrEqual(plan.score.before.total + 1e-9);
          expect(plan.score.after.total).toBeCloseTo(scores.at(-1)!, 6);
          spareIsKept(snapshot, plan);
        }),
        { numRuns: runs },
      );
    },
    timeoutMs,
  );

  it(
    'gives the same plan when it is asked again, and nothing for the fleet that it has balanced',
    () => {
      fc.assert(
        fc.property(fleets, (about) => {
          const snapshot = randomFleet(about);
          const plan = balance(snapshot, options);
          expect(balance(snapshot, options)).toEqual(plan);
          expect(balance(snapshotAfter(snapshot, plan), options).moves).toEqual([]);
        }),
        // Where the search goes on from its own answer, and the whole way has no order from the beginning.
        {
          numRuns: runs,
          examples: [832985839, 189945749, 243927824].map((seed, i) => [{ seed, hosts: [6, 5, 3][i]! }]),
        },
      );
    },
    timeoutMs,
  );

  it(
    'keeps within any budget',
    () => {
      fc.assert(
        fc.property(
          fleets,
          fc.integer({ min: 0, max: 4 }),
          fc.integer({ min: 0, max: 8192 }),
          (about, moves, memoryMiB) => {
            const { used } = balance(randomFleet(about), { ...options, budget: { moves, memoryMiB, seconds: 5 } });
            expect(used.moves).toBeLessThanOrEqual(moves);
            expect(used.memoryMiB).toBeLessThanOrEqual(memoryMiB);
            expect(used.seconds).toBeLessThanOrEqual(5);
          },
        ),
        { numRuns: runs },
      );
    },
    timeoutMs,
  );
});

describe('drain', () => {
  it(
    'empties the host or names each VM that stays with what keeps it, and proposes only what the rules allow',
    () => {
      fc.assert(
        fc.property(fleets, (about) => {
          const snapshot = randomFleet(about);
          const plan = drain(snapshot, ['h1'], options);
          const draining = snapshot.hosts.map((host): SnapshotHost =>
            host.name === 'h1' && host.state !== 'silent' && host.state !== 'asleep'
              ? { ...host, state: 'draining' }
              : host,
          );
          replay({ ...snapshot, hosts: draining }, plan, { ...ordinaryLook, ignoreDwell: true });
          const left = snapshotAfter(snapshot, plan).vms.filter(({ host, running }) => host === 'h1' && running);
          const named = new Set(plan.refused.map(({ vm }) => vm));
          expect(left.filter(({ name }) => !named.has(name))).toEqual([]);
          for (const { says } of plan.refused) expect(says).not.toBe('');
        }),
        { numRuns: runs },
      );
    },
    timeoutMs,
  );
});

describe('consolidate', () => {
  it(
    'never uses more hosts, proposes only what the rules allow and keeps room for dead hosts',
    () => {
      fc.assert(
        fc.property(fleets, (about) => {
          const snapshot = randomFleet(about);
          const plan = consolidate(snapshot, { iterations: 100 });
          replay(snapshot, plan);
          spareIsKept(snapshot, plan);
          expect(plan.score.after.total).toBeLessThanOrEqual(plan.score.before.total + 1e-9);
          const used = (fleet: FleetSnapshot): number =>
            new Set(fleet.vms.filter(({ running }) => running).map(({ host }) => host)).size;
          expect(used(snapshotAfter(snapshot, plan))).toBe(used(snapshot) - plan.emptied.length);
        }),
        { numRuns: runs },
      );
    },
    timeoutMs,
  );
});

describe('fewer hosts for a fleet that lives on', () => {
  it(
    'empties only hosts that may sleep, wakes only those that may be woken, moves within the rules and keeps room for dead hosts',
    () => {
      fc.assert(
        fc.property(fleets, (about) => {
          const snapshot = randomFleet(about);
          const chance = chanceFrom(about.seed + 1);
          const inUse = new Set(snapshot.vms.filter(({ running }) => running).map(({ host }) => host));
          const named = (state: string): string[] =>
            snapshot.hosts.filter((host) => host.state === state && chance.next() < 0.8).map(({ name }) => name);
          const facts: PowerFacts = {
            maySleep: named('up'),
            mayWake: named('asleep').filter((name) => !inUse.has(name)),
            wake: [],
            room: { cores: chance.next() * 4, memoryMiB: chance.next() * 8192 },
            leastAwake: 1 + chance.below(2),
            emptiesOthers: chance.next() < 0.5,
          };
          const { plan, sleep, wake } = consolidationPlan(snapshot, facts);
          const woken = new Set(wake.map(({ host }) => host));
          expect([...woken].filter((name) => !facts.mayWake.includes(name))).toEqual([]);
          expect(sleep.filter(({ host }) => !facts.maySleep.includes(host))).toEqual([]);
          const opened: FleetSnapshot = {
            ...snapshot,
            hosts: snapshot.hosts.map((host) => (woken.has(host.name) ? { ...host, state: 'up' } : host)),
          };
          const { fleet, board } = replay(opened, plan, { ...ordinaryLook, ignoreDwell: true });
          for (const { host } of sleep) expect(board.on[fleet.hostIndex.get(host)!]).toEqual([]);
          const off = new Set(sleep.map(({ host }) => fleet.hostIndex.get(host)!));
          const home = new Board({ ...board.problem, start: board.problem.home });
          if (off.size > 0) expect(new Spare(fleet, home, off).isKept(board)).toBe(true);
          const up = snapshot.hosts.filter(({ state }) => state === 'up').length;
          if (sleep.length > 0) expect(up - sleep.length).toBeGreaterThanOrEqual(facts.leastAwake);
        }),
        { numRuns: runs },
      );
    },
    timeoutMs,
  );
});

describe('failover and place', () => {
  it(
    'place each VM within the rules or say of each host why not',
    () => {
      fc.assert(
        fc.property(fleets, (about) => {
          const snapshot = randomFleet(about);
          const lost = failover(snapshot, ['h1']);
          const concerned = snapshot.vms.filter(({ host, running }) => host === 'h1' && running);
          const told = new Set([...lost.placements, ...lost.refused].map(({ vm }) => vm));
          // Where there is no other host, there is none to give a reason of.
          if (snapshot.hosts.length > 1) expect(concerned.filter(({ name }) => !told.has(name))).toEqual([]);
          expect(lost.placements.filter(({ to }) => to === 'h1')).toEqual([]);
          const fresh = fakeVm('new', '', { memoryMiB: 2048, apart: ['apart1'] });
          const placed = place(snapshot, [fresh]);
          if (placed.placements.length === 0) expect(placed.refused).toHaveLength(snapshot.hosts.length);
          for (const { to } of placed.placements) {
            const whole = { ...snapshot, vms: [...snapshot.vms, { ...fresh, host: to }] };
            const fleet = fleetOf(whole);
            expect(fitsHost(fleet, fleet.vmIndex.get('new')!, fleet.hostIndex.get(to)!)).toBeNull();
            const rivals = whole.vms.filter(
              ({ host, apart, running }) => host === to && running && apart.includes('apart1'),
            );
            expect(rivals).toHaveLength(1);
          }
        }),
        { numRuns: runs },
      );
    },
    timeoutMs,
  );
});

describe('waves', () => {
  it(
    'hold at every moment what a host may hold, and move no VM twice at once',
    () => {
      fc.assert(
        fc.property(fleets, (about) => {
          const snapshot = randomFleet(about);
          const plan = balance(snapshot, options);
          const { fleet, board } = replay(snapshot, plan);
          const { movesPerHost } = snapshot.settings;
          const size = new Map(snapshot.vms.map(({ name, memoryMiB }) => [name, memoryMiB]));
          const before = new Board({ ...board.problem, start: board.problem.home });
          for (const moment of plan.moves.map(({ startMs }) => startMs)) {
            const held = Float64Array.from(before.memory);
            for (const { name } of snapshot.hosts) {
              const running = plan.moves.filter(
                (move) => isRunning(move, moment) && (move.from === name || move.to === name),
              );
              expect(running.length).toBeLessThanOrEqual(movesPerHost);
            }
            for (const move of plan.moves) {
              if (move.startMs <= moment) held[fleet.hostIndex.get(move.to)!]! += size.get(move.vm)!;
              if (hasEnded(move, moment)) held[fleet.hostIndex.get(move.from)!]! -= size.get(move.vm)!;
            }
            held.forEach((mib, h) => {
              expect(mib).toBeLessThanOrEqual(Math.max(board.problem.memoryCap[h]!, before.memory[h]!));
            });
            const onTheMove = plan.moves.filter((move) => isRunning(move, moment)).map(({ vm }) => vm);
            expect(new Set(onTheMove).size).toBe(onTheMove.length);
          }
        }),
        { numRuns: runs / 4 },
      );
    },
    timeoutMs,
  );
});

type Move = Plan['moves'][number];
const hasEnded = ({ startMs, forecast }: Move, at: number): boolean => startMs + Math.max(1, forecast.totalMs) <= at;
const isRunning = (move: Move, at: number): boolean => move.startMs <= at && !hasEnded(move, at);

describe('any placement that somebody wants', () => {
  it(
    'is approached by moves of which each beginning is feasible and no worse than before',
    () => {
      fc.assert(
        fc.property(fleets, fc.integer({ min: 0, max: 1e9 }), (about, seed) => {
          const fleet = fleetOf(randomFleet(about));
          const parts = droverParts(fleet);
          const problem = problemOf(fleet, objectiveOf(fleet, parts), { budget: {}, moveCost: () => 0 });
          const chance = chanceFrom(seed);
          const wanted = problem.home.map((home, vm) =>
            problem.movable[vm] === 1 && chance.next() < 0.5 ? chance.below(problem.hosts) : home,
          );
          const { steps } = order(problem, wanted, { maxMoves: 50, maxMoveMiB: Infinity, hops: true });
          const board = new Board(problem);
          const first = board.score();
          for (const { vm, from, to } of steps) {
            expect(board.at[vm]).toBe(from);
            expect(board.fits(vm, to)).toBe(true);
            board.move(vm, to);
            expect(board.score()).toBeLessThanOrEqual(first + 1e-6);
          }
        }),
        { numRuns: runs },
      );
    },
    timeoutMs,
  );
});

describe('the fast sums', () => {
  it(
    'agree with rules and scores worked out from the placement alone, after any moves',
    () => {
      fc.assert(
        fc.property(fleets, fc.integer({ min: 0, max: 1e9 }), (about, seed) => {
          const fleet = fleetOf(randomFleet(about));
          const parts = droverParts(fleet);
          const problem = problemOf(fleet, objectiveOf(fleet, parts), { budget: {}, moveCost: () => 0 });
          const board = new Board(problem);
          const chance = chanceFrom(seed);
          for (let i = 0; i < 10 && fleet.vms.length > 0; i++) {
            const [vm, to] = [chance.below(fleet.vms.length), chance.below(fleet.hosts.length)];
            if (to !== fleet.at[vm] && to !== board.at[vm]) {
              expect(board.fits(vm, to)).toBe(mayBeThere(fleet, board, vm, to) === null);
            }
            const foreseen = board.scoreAfter(vm, to);
            board.move(vm, to);
            expect(board.score()).toBeCloseTo(foreseen, 6);
            const other = chance.below(fleet.vms.length);
            if (board.at[other] === board.at[vm]) continue;
            const exchanged = board.scoreAfterExchange(vm, other);
            const [here, there] = [board.at[vm]!, board.at[other]!];
            board.move(vm, there);
            board.move(other, here);
            expect(board.score()).toBeCloseTo(exchanged, 6);
          }
          expect(board.score()).toBeCloseTo(scoreOf(fleet, parts, board.at).total, 6);
        }),
        { numRuns: runs },
      );
    },
    timeoutMs,
  );

  it('give the score that hbal prints for the same cluster', () => {
    const text = `group1|g|preferred||

n1|16384|1024|12288|1000|1000|8|N|g|1||N|0|1|1
n2|16384|1024|15360|1000|1000|8|N|g|1||N|0|1|1

i1|1024|100|1|running|Y|n1||ext||1|-
i2|1024|100|1|running|Y|n1||ext||1|-
i3|1024|100|1|running|Y|n1||ext||1|-

htools:iextags:aa

|a|b|ext|4.0|32.0
`;
    const { snapshot, traits } = readGaneti(text, null, 'c.data');
    const { score } = balance(snapshot, { budget: { moves: 1 } }, hbalAim(traits));
    expect(score.before.total).toBeCloseTo(6.281_25, 8);
    expect(score.after.total).toBeCloseTo(2.093_75, 8);
    expect(balance(snapshot, {}, droverAim).moves.length).toBeGreaterThan(0);
  });
});

describe('a large fleet', () => {
  it('is planned in parts, the same with threads and without, within the rules', { timeout: timeoutMs }, async () => {
    const snapshot = unevenFleet(600, 4, 1);
    const few = { iterations: 20_000 };
    const plan = balance(snapshot, few);
    using pool = new Pool<PartJob, Int32Array>(new URL('../../src/planner/parts.ts', import.meta.url), 'polishPart', 2);
    expect(await pool.drive(balanceSteps(snapshot, few))).toEqual(plan);
    const { scores } = replay(snapshot, plan);
    expect(plan.moves.length).toBeGreaterThan(100);
    for (const score of scores) expect(score).toBeLessThanOrEqual(scores[0]! + 1e-6);
    expect(plan.score.after.total).toBeCloseTo(scores.at(-1)!, 6);
  });

  it('is begun with what brings most where fewer moves are wanted than would pay', { timeout: timeoutMs }, () => {
    const snapshot = unevenFleet(600, 4, 1);
    const whole = balance(snapshot, { iterations: 20_000 });
    const first = 40;
    expect(whole.moves.length).toBeGreaterThan(2 * first);
    const plan = balance(snapshot, { first });
    expect(balance(snapshot, { first })).toEqual(plan);
    expect(plan.moves).toHaveLength(first);
    const { scores } = replay(snapshot, plan);
    for (const score of scores) expect(score).toBeLessThanOrEqual(scores[0]! + 1e-6);
    // No worse than as many of a whole plan, which is made for its end and not for its beginning.
    const begun = replay(snapshot, { ...whole, moves: whole.moves.slice(0, first) });
    expect(scores.at(-1)).toBeLessThan(begun.scores.at(-1)!);
    // A whole plan that brings too little is none, however few of its moves are wanted.
    const even = snapshotAfter(snapshot, whole);
    expect(balance(even, { first: 1 }).moves).toEqual([]);
  });
});
