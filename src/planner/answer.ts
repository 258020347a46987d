/** A plan made of steps: start times, a reason for each in words, the score before and after. Not here: which steps. */
import type { FleetSnapshot } from '../model/fleet-snapshot.ts';
import type { Placement, Plan, PlanBudget, PlanGoal, PlannedMove, PlanRefusal } from '../model/plan.ts';
import { Board } from './board.ts';
import { quickForecast, type Forecaster } from './cost.ts';
import type { Fleet } from './fleet.ts';
import type { Step } from './order.ts';
import type { Problem } from './problem.ts';
import { schedule, type Timed } from './schedule.ts';
import { scoreOf, type Part } from './score.ts';

/** What may be asked of every goal. */
export interface PlanOptions {
  readonly budget?: PlanBudget;
  /** The same seed and iterations give the same plan. */
  readonly seed?: number;
  /** How long the polish goes on; by default according to the fleet's size. */
  readonly iterations?: number;
  readonly forecast?: Forecaster;
  /**
   * Of what would pay in a large fleet so many moves are enough, those that bring most: who asks again later gets the others then.
   * Small fleets are planned whole: there it takes no time.
   */
  readonly first?: number;
}

export interface Answer {
  readonly goal: PlanGoal;
  readonly objective: string;
  readonly fleet: Fleet;
  readonly parts: readonly Part[];
  readonly problem: Problem;
  readonly steps: readonly Step[];
  readonly placements?: readonly Placement[];
  readonly refused?: readonly PlanRefusal[];
  /** Why a VM leaves, where the goal knows it better than load does. */
  readonly because?: (step: Step) => string | null;
}

export function planOf(answer: Answer, options: PlanOptions): Plan {
  const { fleet, parts, problem } = answer;
  const { settings } = fleet.snapshot;
  const forecast = options.forecast ?? quickForecast;
  const times = schedule(problem, answer.steps, settings.movesPerHost, ({ vm, from, to }) =>
    forecast(fleet.vms[vm]!, fleet.hosts[from]!, fleet.hosts[to]!, settings.movesPerHost),
  );
  const steps = withinSeconds(answer.steps, times, options.budget?.seconds);
  const board = new Board({ ...problem, start: problem.home });
  const used = new Set(fleet.at);
  const moves = steps.map((step, i): PlannedMove => {
    const timed = times[i]!;
    const reason = answer.because?.(step) ?? reasonOf(fleet, board, step);
    board.move(step.vm, step.to);
    return {
      vm: fleet.vms[step.vm]!.name,
      from: fleet.hosts[step.from]!.name,
      to: fleet.hosts[step.to]!.name,
      reason,
      hop: step.hop,
      forecast: timed.forecast,
      startMs: timed.startMs,
      wave: timed.wave,
      gain: step.gain,
    };
  });
  const seconds = moves.reduce(
    (last, { startMs, forecast: { totalMs } }) => Math.max(last, (startMs + totalMs) / 1000),
    0,
  );
  return {
    version: 1,
    goal: answer.goal,
    objective: answer.objective,
    seed: seedOf(options),
    moves,
    placements: answer.placements ?? [],
    refused: answer.refused ?? [],
    emptied: fleet.hosts.flatMap(({ name }, h) => (board.on[h]!.length === 0 && used.has(h) ? [name] : [])),
    score: { before: scoreOf(fleet, parts, fleet.at), after: scoreOf(fleet, parts, board.at) },
    used: {
      moves: moves.length,
      memoryMiB: steps.reduce((sum, { vm }) => sum + problem.vmMemory[vm]!, 0),
      seconds,
    },
  };
}

export function seedOf({ seed }: PlanOptions): number {
  return seed ?? 1;
}

/** The beginning that is done in time: every beginning is of use by itself. */
function withinSeconds(steps: readonly Step[], times: readonly Timed[], seconds: number | undefined): readonly Step[] {
  if (seconds === undefined) return steps;
  const late = times.findIndex(({ startMs, forecast }) => startMs + forecast.totalMs > seconds * 1000);
  return late < 0 ? steps : steps.slice(0, late);
}

/** What the two hosts are like before and after, in the resource where the move brings most. */
function reasonOf(fleet: Fleet, board: Board, { vm, from, to, hop }: Step): string {
  const [name, source, target] = [fleet.vms[vm]!.name, fleet.hosts[from]!, fleet.hosts[to]!];
  if (hop) return `${name} makes room on ${source.name}; it goes on from ${target.name}.`;
  if (source.state !== 'up') return `${source.name} is ${source.state}.`;
  const cores = [source.cpus * source.cpuSpeed, target.cpus * target.cpuSpeed] as const;
  const usable = [source.memoryMiB - source.reservedMiB, target.memoryMiB - target.reservedMiB] as const;
  const { vmCpu, vmMemory } = board.problem;
  const cpu = pairOf('CPU', [board.cpu[from]!, board.cpu[to]!], cores, vmCpu[vm]!);
  const memory = pairOf('memory', [board.memory[from]!, board.memory[to]!], usable, vmMemory[vm]!);
  const { what, before, after } = cpu.evens >= memory.evens ? cpu : memory;
  return `Evens out ${what}: ${source.name} ${before[0]} to ${after[0]}, ${target.name} ${before[1]} to ${after[1]}.`;
}

function pairOf(
  what: string,
  used: readonly [number, number],
  of: readonly [number, number],
  size: number,
): { what: string; evens: number; before: [string, string]; after: [string, string] } {
  const percent = (value: number, whole: number): string => `${Math.round((100 * value) / Math.max(1e-9, whole))} %`;
  const apart = (a: number, b: number): number => Math.abs(a / Math.max(1e-9, of[0]) - b / Math.max(1e-9, of[1]));
  return {
    what,
    evens: apart(used[0], used[1]) - apart(used[0] - size, used[1] + size),
    before: [percent(used[0], of[0]), percent(used[1], of[1])],
    after: [percent(used[0] - size, of[0]), percent(used[1] + size, of[1])],
  };
}

/** The fleet after a plan, as far as anybody can know before: the VMs are where they were to go. */
export function snapshotAfter(snapshot: FleetSnapshot, plan: Pick<Plan, 'moves' | 'placements'>): FleetSnapshot {
  const at = new Map<string, string>();
  for (const { vm, to } of plan.moves) at.set(vm, to);
  const placed = new Map(plan.placements.map(({ vm, to }) => [vm, to]));
  return {
    ...snapshot,
    vms: snapshot.vms.map((vm) => {
      const to = placed.get(vm.name);
      return to === undefined ? { ...vm, host: at.get(vm.name) ?? vm.host } : { ...vm, host: to, running: true };
    }),
  };
}
