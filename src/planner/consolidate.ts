/**
 * Goal `consolidate` of one moment: the same VMs on as few hosts as the rules, the load limit and the spare room allow. Hosts are
 * given up one by one, those that are cheapest to empty first; the VMs of each are packed tightly into what remains. For what-if on a
 * snapshot. Not here: fewer hosts for a fleet that lives on (consolidation-plan.ts).
 */
import type { FleetSnapshot, SnapshotHost } from '../model/fleet-snapshot.ts';
import type { Plan } from '../model/plan.ts';
import { planOf, seedOf, type PlanOptions } from './answer.ts';
import { Board } from './board.ts';
import { chanceFrom, type Chance } from './chance.ts';
import { problemOf } from './compile.ts';
import { fleetOf, ordinaryLook, type Fleet } from './fleet.ts';
import { order } from './order.ts';
import type { Objective, Problem } from './problem.ts';
import { droverParts, objectiveOf, withWeights, type Part } from './score.ts';
import { evacuate, polish, strandedOf, undoIdle } from './search.ts';
import { Spare } from './spare.ts';

/** Of the search that packs the VMs of one more host, for each VM of the fleet. */
const packIterations = 400;
const mostPackIterations = 200_000;
/** How many hosts are tried before the fleet counts as packed. */
const attempts = 12;

export function consolidate(snapshot: FleetSnapshot, options: PlanOptions = {}): Plan {
  const fleet = fleetOf(snapshot, ordinaryLook);
  const parts = consolidationParts(fleet);
  const objective = objectiveOf(fleet, parts);
  const problem = problemOf(fleet, objective, { budget: {}, moveCost: (vm) => costOf(fleet, vm) });
  const packed = pack(fleet, problem, chanceFrom(seedOf(options)), options);
  const rank = new Map(packed.emptied.map((host, i) => [host, i]));
  const spare = new Spare(fleet, new Board(problem), new Set([...emptyNow(problem), ...packed.emptied]));
  const ordered = order(problem, packed.at, {
    maxMoves: options.budget?.moves ?? Infinity,
    maxMoveMiB: options.budget?.memoryMiB ?? Infinity,
    hops: true,
    rank: (vm) => rank.get(problem.home[vm]!) ?? -1,
    allows: (board) => spare.isKept(board),
  });
  const because = ({ from }: { from: number }): string => {
    const name = fleet.hosts[from]!.name;
    return rank.has(from) ? `Empties ${name}.` : `Makes room on ${name} for VMs of hosts that are emptied.`;
  };
  return planOf(
    { goal: 'consolidate', objective: 'drover', fleet, parts, problem, steps: ordered.steps, because },
    options,
  );
}

/** One for each host in use, a little more for a thirstier one; what may not become worse weighs more than any host. */
export function consolidationParts(fleet: Fleet): Part[] {
  const idle = fleet.hosts.map((host) => host.watts?.[0] ?? null);
  const known = idle.filter((watts) => watts !== null);
  const mean = known.reduce((sum, watts) => sum + watts, 0) / Math.max(1, known.length);
  const per = (host: SnapshotHost): number => {
    const watts = host.watts?.[0];
    return watts === undefined || mean <= 0 ? 1 : 0.5 + 0.5 * (watts / mean);
  };
  const kept = new Set(['cpu-overload', 'memory-overload', 'stranded', 'apart-broken', 'together-broken']);
  const rules = droverParts(fleet).filter(({ name }) => kept.has(name));
  return withWeights(
    [{ name: 'hosts-in-use', weight: 1, kind: 'powered', per }, ...rules],
    fleet.snapshot.settings.weights,
  );
}

/** Small against a host, so that the fewest hosts come first and the fewest moves next. */
function costOf({ vms, snapshot }: Fleet, vm: number): number {
  return snapshot.settings.caution * (0.001 + (0.0005 * vms[vm]!.memoryInUseMiB) / 1024);
}

/** An empty host may be switched off at any time: its room is no spare room. */
function emptyNow(problem: Problem): number[] {
  const used = new Set(problem.home);
  return Array.from({ length: problem.hosts }, (_, h) => h).filter((h) => !used.has(h));
}

interface Packed {
  readonly at: Int32Array;
  /** In the order in which they were given up. */
  readonly emptied: readonly number[];
}

function pack(fleet: Fleet, problem: Problem, chance: Chance, options: PlanOptions): Packed {
  const iterations = options.iterations ?? Math.min(mostPackIterations, 10_000 + packIterations * problem.vms);
  let packed: Packed = { at: Int32Array.from(problem.home), emptied: [] };
  const stuck = new Set<number>();
  while (stuck.size < attempts) {
    const board = new Board({ ...problem, start: packed.at });
    const host = cheapestToEmpty(fleet, problem, board, stuck);
    if (host === null) break;
    const next = without(fleet, problem, packed, host, chance, iterations);
    if (next === null) stuck.add(host);
    else {
      packed = next;
      stuck.clear();
    }
  }
  return packed;
}

/** Least memory to move; a host with a VM that cannot leave is never empty. */
function cheapestToEmpty(fleet: Fleet, problem: Problem, board: Board, stuck: ReadonlySet<number>): number | null {
  let best: number | null = null;
  fleet.hosts.forEach(({ state }, h) => {
    const vms = board.on[h]!;
    if (vms.length === 0 || stuck.has(h) || (state !== 'up' && state !== 'draining')) return;
    if (vms.some((vm) => problem.movable[vm] !== 1)) return;
    if (best === null || board.memory[h]! < board.memory[best]!) best = h;
  });
  return best;
}

/** The VMs of one more host packed into the others; null: they do not fit, as far as the search can tell. */
function without(
  fleet: Fleet,
  problem: Problem,
  packed: Packed,
  host: number,
  chance: Chance,
  iterations: number,
): Packed | null {
  const gone = new Set([...packed.emptied, host]);
  // Empty hosts are closed too: a host is given up for those that are in use.
  const closed = new Board({ ...problem, start: packed.at }).on.map((vms, h) => vms.length === 0 || gone.has(h));
  const leave = Uint8Array.from(closed, (each) => (each ? 1 : 0));
  const sub: Problem = {
    ...problem,
    start: packed.at,
    leave,
    counted: leave.map((each, h) => (each === 0 && fleet.counted[h] === 1 ? 1 : 0)),
    objective: packing(fleet, problem),
    moveCost: problem.moveCost.map((cost) => cost * 0.01),
  };
  const board = new Board(sub);
  const spare = new Spare(fleet, new Board(problem), new Set([...emptyNow(problem), ...gone]));
  const isDone = (): boolean => strandedOf(board).length === 0;
  evacuate(board);
  if (!isDone()) polish(board, chance, { iterations, isDone });
  if (!isDone()) return null;
  undoIdle(board);
  return spare.isKept(board) ? { at: Int32Array.from(board.at), emptied: [...packed.emptied, host] } : null;
}

/**
 * VMs that have no place yet, by size; and the more uneven the others are used the better: what is free lies together then.
 */
function packing(fleet: Fleet, problem: Problem): Objective {
  const { hosts, snapshot } = fleet;
  const memory = problem.memoryCap.reduce((sum, cap) => sum + cap, 0) / Math.max(1, hosts.length);
  const cores = hosts.reduce((sum, host) => sum + host.cpus * host.cpuSpeed, 0) / Math.max(1, hosts.length);
  const objective = objectiveOf(
    fleet,
    droverParts({ ...fleet, snapshot: { ...snapshot, settings: { ...snapshot.settings, weights: {} } } }).filter(
      ({ name }) => name === 'cpu-spread' || name === 'memory-spread',
    ),
  );
  return {
    ...objective,
    weight: objective.weight.map(() => -0.5),
    stranded: Float64Array.from(
      problem.vmMemory,
      (mib, vm) => 1 + (4 * mib) / memory + (4 * problem.vmCpu[vm]!) / cores,
    ),
    conflict: 2,
    split: 2,
  };
}
