/**
 * Fewer hosts for a live fleet: a snapshot with the load of the last hours, and what is known of the hosts' sleep -> moves, hosts to
 * sleep after them, hosts to wake before them, and why the others stay on. The choice is consolidation.ts's, the rules are the planner's.
 *
 * Not here: which hosts may sleep and how much room must stay awake (power-plan.ts), and doing it.
 */
import { defaultWatts } from '../model/energy.ts';
import type { FleetSnapshot, SnapshotHost, VmLoad } from '../model/fleet-snapshot.ts';
import type { Plan } from '../model/plan.ts';
import { planOf, type PlanOptions } from './answer.ts';
import { Board } from './board.ts';
import { problemOf } from './compile.ts';
import { consolidationParts } from './consolidate.ts';
import {
  consolidationDefaults,
  planConsolidation,
  type ConsolidationFleet,
  type ConsolidationMove,
  type ConsolidationVm,
  type WhyKept,
} from './consolidation.ts';
import type { Demand } from './demand.ts';
import { fleetOf, ordinaryLook, type Fleet } from './fleet.ts';
import type { Step } from './order.ts';
import type { PowerChoice } from './power-plan.ts';
import type { Problem } from './problem.ts';
import { objectiveOf } from './score.ts';
import { Spare } from './spare.ts';

/** What is known of the hosts' sleep. Hosts by name. */
export interface PowerFacts {
  /** Awake, and may be sent to sleep once they are empty. */
  readonly maySleep: readonly string[];
  /** Asleep, and can be woken. */
  readonly mayWake: readonly string[];
  /** To be woken whatever the load of single hosts; then none is emptied. */
  readonly wake: readonly PowerChoice[];
  /** What hosts that are awake must keep free together. */
  readonly room: Demand;
  readonly leastAwake: number;
  /** Empties also hosts that stay switched on then, after the others. */
  readonly emptiesOthers: boolean;
}

export interface PowerPlanned {
  readonly plan: Plan;
  /** After the moves. */
  readonly sleep: readonly PowerChoice[];
  /** Before them. */
  readonly wake: readonly PowerChoice[];
  /** Hosts that are on and were not given up. */
  readonly keep: readonly PowerChoice[];
}

const newLevelFactor = 1.5;
const newLevelCores = 0.1;

const whyKept = {
  needed: 'without it too little room would be awake for what may come',
  held: 'a VM there stays for now: it was moved lately, is on the move or cannot leave',
  'not-worth': 'the moves would cost more than its sleep saves within an hour',
  'no-place': 'its VMs do not all fit on the others, by rules, limits and room for lost hosts',
  taken: 'it takes VMs of others',
} as const satisfies Record<WhyKept, string>;

export function consolidationPlan(snapshot: FleetSnapshot, facts: PowerFacts, options: PlanOptions = {}): PowerPlanned {
  const first = new Set(facts.wake.map(({ host }) => host));
  const mayWake = new Set(facts.mayWake);
  const opened = (host: SnapshotHost): SnapshotHost =>
    host.state === 'asleep' && (first.has(host.name) || mayWake.has(host.name)) ? { ...host, state: 'up' } : host;
  const fleet = fleetOf({ ...snapshot, hosts: snapshot.hosts.map(opened) }, { ...ordinaryLook, ignoreDwell: true });
  const parts = consolidationParts(fleet);
  const problem = problemOf(fleet, objectiveOf(fleet, parts), { budget: {}, moveCost: () => 0 });
  const stateOf = ({ name, state }: SnapshotHost): 'on' | 'asleep' | 'closed' =>
    state === 'up' || first.has(name) ? 'on' : state === 'asleep' && mayWake.has(name) ? 'asleep' : 'closed';
  const states = snapshot.hosts.map(stateOf);
  const kept = new Map<number, string>();
  const { rules, lastOnes } = rulesOf(fleet, problem, states, facts.leastAwake);
  const sleepers = new Set(facts.maySleep);
  const { moves, sleep, wake } = planConsolidation(
    {
      hosts: snapshot.hosts.map((host, h) => ({
        capacity: problem.cpuCap[h]!,
        memoryMiB: problem.memoryCap[h]!,
        watts: host.watts ?? wattsByDefault(host),
        state: states[h]!,
        empty: sleepers.has(host.name) ? 'sleeps' : facts.emptiesOthers ? 'stays-on' : 'kept',
      })),
      vms: vmsOf(fleet, problem),
      ...rules,
      kept: (h, why) => kept.set(h, lastOnes.has(h) ? lastWords(facts.leastAwake) : whyKept[why]),
    },
    {
      ...consolidationDefaults,
      spareCapacity: first.size > 0 ? Infinity : facts.room.cores,
      spareMemoryMiB: facts.room.memoryMiB,
      maxMoves: options.budget?.moves ?? Infinity,
    },
  );
  const name = (h: number): string => fleet.hosts[h]!.name;
  const steps = stepsOf(problem, moves);
  const because = (step: Step): string | null => {
    const move = moves.find(({ vm, target }) => vm === step.vm && target === step.to);
    return move === undefined ? null : reasonOf(name(move.source), move, sleepers.has(name(move.source)));
  };
  const emptied = new Set(sleep);
  return {
    plan: planOf({ goal: 'consolidate', objective: 'drover', fleet, parts, problem, steps, because }, options),
    sleep: sleep.map((h) => ({ host: name(h), because: 'it is empty, and hosts that stay awake have room enough' })),
    wake: [
      ...facts.wake,
      ...wake.map((h) => ({ host: name(h), because: `no host that is awake has room to relieve ${relievedBy(h)}` })),
    ],
    keep: [...kept].flatMap(([h, why]) => (emptied.has(h) ? [] : [{ host: name(h), because: why }])),
  };

  function relievedBy(h: number): string {
    return [...new Set(moves.flatMap(({ source, target }) => (target === h ? [name(source)] : [])))].join(', ');
  }
}

/** Each with the load of the last hours, and never less than it has now. */
function vmsOf({ vms, at, snapshot }: Fleet, problem: Problem): ConsolidationVm[] {
  const { dwellMs } = snapshot.settings;
  const least = problem.cpuCap.reduce((a, b) => Math.min(a, b), Infinity);
  const movedAgo = (lastMovedAt: number | null): number => {
    if (lastMovedAt === null || snapshot.takenAt === null || dwellMs === 0) return Infinity;
    return (consolidationDefaults.dwell * (snapshot.takenAt - lastMovedAt)) / dwellMs;
  };
  return vms.map(({ cpus, memoryMiB, load, lastMovedAt }, v) => ({
    host: at[v]!,
    size: Math.max(1e-3, Math.min(cpus, least)),
    memoryMiB,
    demands: demandsOf(load),
    expected: load.cpuCores,
    movedAgo: movedAgo(lastMovedAt),
    stays: problem.movable[v] !== 1,
  }));
}

/** A load far above what was is a new level and no noise: what was before it says nothing of it. */
function demandsOf({ cpuCores, recentCpuCores = [] }: VmLoad): number[] {
  const last = recentCpuCores.findLastIndex((before) => cpuCores > newLevelFactor * before + newLevelCores);
  return [...recentCpuCores.slice(last + 1), cpuCores];
}

/** Rules on the placement as it is planned so far. */
function rulesOf(
  fleet: Fleet,
  problem: Problem,
  states: readonly string[],
  leastAwake: number,
): {
  readonly rules: Pick<ConsolidationFleet, 'mayRun' | 'carried' | 'mayRest'>;
  readonly lastOnes: ReadonlySet<number>;
} {
  const home = new Board(problem);
  const board = new Board(problem);
  const off = states.flatMap((state, h) => (state === 'asleep' ? [h] : []));
  const gone = new Set<number>();
  const lastOnes = new Set<number>();
  let on = states.filter((state) => state === 'on').length;
  const rules: Pick<ConsolidationFleet, 'mayRun' | 'carried' | 'mayRest'> = {
    mayRun: (vm, host) => board.fits(vm, host),
    carried: (vm, host) => board.move(vm, host),
    mayRest(host) {
      if (on <= leastAwake) lastOnes.add(host);
      if (on <= leastAwake) return false;
      if (!new Spare(fleet, home, new Set([...off, ...gone, host])).isKept(board)) return false;
      gone.add(host);
      on--;
      return true;
    },
  };
  return { rules, lastOnes };
}

function lastWords(leastAwake: number): string {
  return leastAwake === 1
    ? 'one host is kept awake, whatever is needed'
    : `${leastAwake} hosts are kept awake, whatever is needed`;
}

function stepsOf(problem: Problem, moves: readonly ConsolidationMove[]): Step[] {
  const board = new Board(problem);
  return moves.map(({ vm, source, target }) => {
    const before = board.score();
    board.move(vm, target);
    return { vm, from: source, to: target, hop: false, gain: before - board.score() };
  });
}

function reasonOf(source: string, { reason }: ConsolidationMove, sleeps: boolean): string {
  if (reason.kind === 'overload') {
    const [load, peak] = [reason.load, reason.peak].map((share) => Math.round(100 * share));
    return `Relieves ${source}: its VMs need ${load} % of what they may use there, ${peak} % at peaks.`;
  }
  if (!sleeps) return `Empties ${source}.`;
  return `Empties ${source}, so that it can sleep: saves about ${Math.round(reason.wattsSaved)} W.`;
}

function wattsByDefault({ cpus }: SnapshotHost): number[] {
  const { idle, max } = defaultWatts(cpus);
  return [idle, max];
}
