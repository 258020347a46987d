/**
 * Goal `balance`: load spread evenly with few moves, and each worth what it costs. A fleet that has been balanced is left alone:
 * the answer is asked the same question again before it is given.
 */
import type { FleetSnapshot } from '../model/fleet-snapshot.ts';
import type { Plan } from '../model/plan.ts';
import { planOf, seedOf, type PlanOptions } from './answer.ts';
import { Board } from './board.ts';
import { chanceFrom, type Chance } from './chance.ts';
import { iterationsFor, problemOf } from './compile.ts';
import { fleetOf, ordinaryLook, type Fleet, type Look } from './fleet.ts';
import { order, type Ordered } from './order.ts';
import { dealParts, hostsPerPart, withoutThreads, type PartSearch } from './parts.ts';
import type { Problem } from './problem.ts';
import { Spare } from './spare.ts';
import { descend, noGain, polish } from './search.ts';
import { takeShortcuts } from './shortcuts.ts';
import { droverParts, objectiveOf, peakParts, type Part } from './score.ts';

/** What a balance makes small. */
export interface Aim {
  readonly name: string;
  readonly look: Look;
  readonly parts: (fleet: Fleet) => Part[];
  /** What moving a VM costs, in units of the score. */
  readonly moveCost: (fleet: Fleet, vm: number) => number;
  /** A plan whose gain is a smaller share of the score is not worth the trouble. */
  readonly leastGain: number;
  /** Is a fleet that was balanced left alone? Takes the search twice. */
  readonly settles: boolean;
  /** The best of so many searches is taken. */
  readonly tries?: number;
}

/** A move has to bring so much on each host's share, and so much more for each GiB. */
const perMove = 0.03;
const perGiB = 0.0005;

export const droverAim: Aim = {
  name: 'drover',
  look: ordinaryLook,
  parts: droverParts,
  moveCost: ({ snapshot, hosts, vms }, vm) =>
    (snapshot.settings.caution * (perMove + (perGiB * vms[vm]!.memoryInUseMiB) / 1024)) / Math.max(1, hosts.length),
  leastGain: 0.05,
  settles: true,
};

export const peakAim: Aim = {
  name: 'peak',
  look: ordinaryLook,
  parts: peakParts,
  moveCost: () => 1e-6,
  leastGain: 0,
  settles: false,
  // A largest value says nothing of the others: the search loses its way more easily.
  tries: 4,
};

/** Larger fleets are polished in parts, by several threads where there are some. */
const manyHosts = 2 * hostsPerPart;
/** Beyond, one search is all there is time for. */
const settlesUpTo = 2000;
const rounds = 2;
const moreTries = 3;
const shareOfMending = 0.3;
const mendingHeat = 0.05;
/** Several searches are shorter each than a single one would be. */
const shareOfTry = 0.6;
const partIterationsPerVm = 120;
const mostPartIterations = 15_000_000;
/** Among so many times as many moves the first are chosen: the descent takes the hottest hosts first anyway. */
const choiceOf = 4;
const iterationsPerFirst = 1000;

/** Up to so many hosts the search itself keeps room for dead hosts; beyond, the order leaves out what would take it. */
const fewHosts = 100;

/** How often an answer may be asked again. */
const maxRounds = 6;

export function balance(snapshot: FleetSnapshot, options: PlanOptions = {}, aim: Aim = droverAim): Plan {
  return withoutThreads(balanceSteps(snapshot, options, aim));
}

/** The same plan, as a generator that hands out the parts of a large fleet and is given their answers: for threads. */
export function* balanceSteps(
  snapshot: FleetSnapshot,
  options: PlanOptions = {},
  aim: Aim = droverAim,
): PartSearch<Plan> {
  const fleet = fleetOf(snapshot, aim.look);
  const parts = aim.parts(fleet);
  const objective = objectiveOf(fleet, parts);
  const problem = problemOf(fleet, objective, {
    budget: options.budget ?? {},
    moveCost: (vm) => aim.moveCost(fleet, vm),
  });
  const ordered = yield* settle({ fleet, problem, options, aim });
  return planOf({ goal: 'balance', objective: aim.name, fleet, parts, problem, steps: ordered.steps }, options);
}

interface Task {
  readonly fleet: Fleet;
  readonly problem: Problem;
  readonly options: PlanOptions;
  readonly aim: Aim;
}

/** Searches on from each answer until the search finds nothing more, then orders the whole way from the beginning. */
function* settle(task: Task): PartSearch<Ordered> {
  let ordered = yield* once(task);
  if (!task.aim.settles || task.options.budget !== undefined || task.problem.hosts > settlesUpTo) return ordered;
  const { first = Infinity } = task.options;
  for (let round = 0; round < maxRounds && ordered.steps.length > 0 && ordered.steps.length < first; round++) {
    const from = Int32Array.from(ordered.board.at);
    const next = yield* once({ ...task, problem: { ...task.problem, home: from, start: from } });
    if (next.steps.length === 0) return ordered;
    const whole = toward(task, next.board.at);
    ordered = whole.board.score() > next.board.score() + noGain ? inTurn(ordered, next) : whole;
  }
  return ordered;
}

/** Where the second placement cannot be reached at once: first the one, then the other. */
function inTurn(one: Ordered, other: Ordered): Ordered {
  const again = new Set(other.steps.map(({ vm }) => vm));
  const begun = one.steps.map((step) => (again.has(step.vm) ? { ...step, hop: true } : step));
  return { ...other, steps: [...begun, ...other.steps] };
}

function* once(task: Task): PartSearch<Ordered> {
  const { problem } = task;
  const isLarge = problem.hosts > manyHosts && problem.objective.peak === null;
  return isLarge ? yield* onceInParts(task) : ifWorth(task, onceWhole(task));
}

function onceWhole(task: Task): Ordered {
  let best: Ordered | null = null;
  const tries = task.aim.tries ?? 1;
  // Moves that wait for each other in a circle cost a hop or are left out: then another search may do better.
  for (let attempt = 0; best === null || attempt < tries + (best.left.length > 0 ? moreTries : 0); attempt++) {
    const board = new Board(task.problem);
    const chance = chanceFrom(seedOf(task.options) + 1000 * attempt);
    descend(board, chance);
    polishWhole(task, board, chance);
    const ordered = toward(task, board.at);
    if (best === null || ordered.board.energy() < best.board.energy()) best = ordered;
  }
  return best;
}

function* onceInParts(task: Task): PartSearch<Ordered> {
  const { problem, options } = task;
  const first = options.first ?? Infinity;
  const board = new Board({ ...problem, maxMoves: Math.min(problem.maxMoves, choiceOf * first) });
  const chance = chanceFrom(seedOf(options));
  descend(board, chance);
  // Whether it is worth the trouble is not a question about where it begins.
  if (board.movedCount > first && isWorth(task, board)) return theFirst(task, first, board);
  yield* polishInParts(task, board, chance);
  return ifWorth(task, toward(task, board.at));
}

/** Of all that would pay what brings most, and then the best of that kind for the same number of moves. */
function theFirst(task: Task, first: number, whole: Board): Ordered {
  const { options } = task;
  const problem = { ...task.problem, maxMoves: Math.min(first, task.problem.maxMoves) };
  const few = { ...task, problem };
  const begun = toward(few, whole.at);
  const board = new Board({ ...problem, start: begun.board.at });
  polish(board, chanceFrom(seedOf(options)), {
    iterations: options.iterations ?? iterationsPerFirst * first,
    heat: mendingHeat,
  });
  const polished = toward(few, board.at);
  return polished.board.energy() < begun.board.energy() ? polished : begun;
}

function polishWhole(task: Task, board: Board, chance: Chance): void {
  const { problem, options, aim } = task;
  const share = aim.tries === undefined ? 1 : shareOfTry;
  const iterations = options.iterations ?? Math.round(share * iterationsFor(problem));
  const allows = problem.hosts <= fewHosts ? keepsSpare(task, problem.start) : null;
  polish(board, chance, { iterations, ...(allows && { allows }) });
  if (takeShortcuts(board, chance) === 0) return;
  polish(board, chance, { iterations: iterations * shareOfMending, heat: mendingHeat, ...(allows && { allows }) });
}

function* polishInParts({ problem, options }: Task, board: Board, chance: Chance): PartSearch<void> {
  const iterations = options.iterations ?? Math.min(mostPartIterations, partIterationsPerVm * problem.vms);
  for (let round = 0; round < rounds; round++) {
    const { jobs, merge } = dealParts(board, chance, iterations / rounds);
    merge(yield jobs);
  }
}

function toward(task: Task, wanted: Int32Array): Ordered {
  const { problem } = task;
  const { maxMoves, maxMoveMiB, home } = problem;
  const allows = keepsSpare(task, home);
  return order(problem, wanted, { maxMoves, maxMoveMiB, hops: true, ...(allows && { allows }) });
}

/** Is there as much room for the VMs of dead hosts as there was at first? null: none is to be kept. */
function keepsSpare({ fleet, problem }: Task, start: Int32Array): ((board: Board) => boolean) | null {
  if (fleet.snapshot.settings.hostFailuresTolerated === 0) return null;
  const spare = new Spare(fleet, new Board({ ...problem, start }));
  return (board) => spare.isKept(board);
}

function ifWorth(task: Task, found: Ordered): Ordered {
  return isWorth(task, found.board) ? found : toward(task, task.problem.home);
}

function isWorth({ problem, aim }: Task, board: Board): boolean {
  const before = new Board({ ...problem, start: problem.home }).score();
  return before - board.score() > Math.max(noGain, aim.leastGain * before);
}
