/**
 * From one placement to a better one: repair what must be repaired, then steepest descent over short candidate lists, then
 * simulated annealing over the *set* of moves under the budget. Not here: in which order the moves are made (order.ts), goals.
 */
import type { Board } from './board.ts';
import type { Chance } from './chance.ts';

/** Where the descent looks for a place: so many of the coldest hosts, and so many by chance. */
const coldest = 24;
const byChance = 8;
/** How many hot hosts are asked before it gives up. */
const hottest = 256;

/** Gains below this are rounding. */
export const noGain = 1e-9;

/**
 * Moves of VMs off hosts that are to be left, the largest first, each to the host where the score is best; where none has
 * room, one other VM makes room.
 * @param only of these VMs; all that are stranded by default
 */
export function evacuate(board: Board, only?: readonly number[]): void {
  const { problem } = board;
  const stranded = only ?? strandedOf(board);
  const largestFirst = stranded.toSorted((a, b) => problem.vmMemory[b]! - problem.vmMemory[a]! || a - b);
  for (const vm of largestFirst) {
    if (problem.movable[vm] !== 1 || !withinBudget(board, vm)) continue;
    const to = bestPlace(board, vm);
    if (to !== null) board.move(vm, to);
    else makeRoom(board, vm);
  }
}

export function strandedOf(board: Board): number[] {
  return board.on.flatMap((vms, host) => (board.problem.leave[host] === 1 ? [...vms].toSorted((a, b) => a - b) : []));
}

/**
 * The host where the score would be best; null: none can take it. Without a budget: who asks has decided that it goes.
 * @param allows asked with the VM there, for rules that look at the whole fleet
 */
export function bestPlace(board: Board, vm: number, allows?: (board: Board) => boolean): number | null {
  const from = board.at[vm]!;
  let best: number | null = null;
  let least = Infinity;
  for (let host = 0; host < board.problem.hosts; host++) {
    if (host === from || board.problem.leave[host] === 1 || !board.fits(vm, host)) continue;
    const score = board.scoreAfter(vm, host);
    if (score >= least || !isAllowedThere(board, vm, host, allows)) continue;
    least = score;
    best = host;
  }
  return best;
}

function isAllowedThere(board: Board, vm: number, host: number, allows?: (board: Board) => boolean): boolean {
  if (allows === undefined) return true;
  const from = board.at[vm]!;
  board.move(vm, host);
  const allowed = allows(board);
  board.move(vm, from);
  return allowed;
}

/** One VM elsewhere gives way, the smallest that helps; both move or neither. */
function makeRoom(board: Board, vm: number): boolean {
  const { problem } = board;
  for (let host = 0; host < problem.hosts; host++) {
    if (host === board.at[vm] || problem.leave[host] === 1) continue;
    if (problem.allowed[problem.kind[vm]! * problem.hosts + host] !== 1) continue;
    const others = [...board.on[host]!].toSorted((a, b) => problem.vmMemory[a]! - problem.vmMemory[b]! || a - b);
    for (const other of others) {
      if (problem.movable[other] !== 1 || !withinBudget(board, other)) continue;
      const elsewhere = bestPlace(board, other);
      if (elsewhere === null) continue;
      board.move(other, elsewhere);
      if (board.fits(vm, host) && withinBudget(board, vm)) {
        board.move(vm, host);
        return true;
      }
      board.move(other, host);
    }
  }
  return false;
}

/** May one more VM move, or has it moved anyway? */
export function withinBudget(board: Board, vm: number): boolean {
  if (board.isMoved(vm)) return true;
  const { maxMoves, maxMoveMiB, vmMemory } = board.problem;
  return board.movedCount < maxMoves && board.movedMiB + vmMemory[vm]! <= maxMoveMiB;
}

/**
 * Steepest descent: of the hottest host the VM, and of some cold hosts the one, that bring most. Cost of a step: VMs of a host
 * times 32 times metrics, whatever the size of the fleet.
 * @returns moves made
 */
export function descend(board: Board, chance: Chance): number {
  const { problem } = board;
  const refreshAfter = Math.max(1, Math.floor(problem.hosts / 64));
  const limit = 4 * problem.vms + 100;
  let moves = 0;
  let byPressure = hostsByPressure(board);
  let since = 0;
  // Hosts that have nothing to give are not asked again until the list is made anew.
  let first = 0;
  while (moves < limit) {
    if (since >= refreshAfter) {
      byPressure = hostsByPressure(board);
      since = 0;
      first = 0;
    }
    const cold = coldHosts(byPressure, chance);
    const now = board.score();
    const asked = Math.min(byPressure.length, hottest);
    let step = null;
    while (first < asked && (step = bestStep(board, byPressure[first]!, cold, now)) === null) first++;
    if (step === null) {
      if (since === 0) return moves;
      since = refreshAfter;
      continue;
    }
    board.move(step.vm, step.to);
    moves++;
    since++;
  }
  return moves;
}

/** The one move that brings most, as far as some hot and some cold hosts show; null: none brings anything. */
export function bestMove(board: Board, chance: Chance): { vm: number; to: number } | null {
  const byPressure = hostsByPressure(board);
  const cold = coldHosts(byPressure, chance);
  const now = board.score();
  let best: { vm: number; to: number } | null = null;
  let least = now + board.cost - noGain;
  for (const from of byPressure.subarray(0, coldest)) {
    const step = bestStep(board, from, cold, now);
    if (step === null) continue;
    const energy = board.scoreAfter(step.vm, step.to) + board.cost + board.costChange(step.vm, step.to);
    if (energy >= least) continue;
    least = energy;
    best = step;
  }
  return best;
}

function coldHosts(byPressure: Int32Array, chance: Chance): number[] {
  const cold: number[] = [];
  for (let i = byPressure.length - 1; i >= 0 && cold.length < coldest; i--) cold.push(byPressure[i]!);
  if (byPressure.length > coldest) {
    for (let i = 0; i < byChance; i++) cold.push(byPressure[chance.below(byPressure.length)]!);
  }
  return cold;
}

function bestStep(board: Board, from: number, cold: readonly number[], now: number): { vm: number; to: number } | null {
  const { problem } = board;
  let best: { vm: number; to: number } | null = null;
  let most = noGain;
  for (const vm of board.on[from]!) {
    if (problem.movable[vm] !== 1 || !withinBudget(board, vm)) continue;
    for (const to of cold) {
      if (to === from || problem.leave[to] === 1 || !board.fits(vm, to)) continue;
      const gain = now - board.scoreAfter(vm, to) - board.costChange(vm, to);
      if (gain <= most) continue;
      most = gain;
      best = { vm, to };
    }
  }
  return best;
}

/** Hottest first: the gradient of the spreads, so what a little less on the host would bring. */
function hostsByPressure(board: Board): Int32Array {
  const { hosts, objective, leave } = board.problem;
  const { metrics, weight } = objective;
  const pressure = new Float64Array(hosts);
  for (let k = 0; k < metrics; k++) {
    const { mean, deviation } = board.statistics(k);
    const per = deviation > 1e-12 ? weight[k]! / deviation : 0;
    for (let h = 0; h < hosts; h++) {
      // A part that grows with what is free has a scale below zero.
      const sign = objective.scale[h * metrics + k]! < 0 ? -1 : 1;
      pressure[h]! += sign * per * (board.x[h * metrics + k]! - mean);
    }
  }
  for (const { metric, limit, weight: per } of objective.over) {
    for (let h = 0; h < hosts; h++) pressure[h]! += per * hosts * Math.max(0, board.x[h * metrics + metric]! - limit);
  }
  if (objective.peak !== null) {
    for (let h = 0; h < hosts; h++) pressure[h]! += 1e3 * board.x[h * metrics + objective.peak.metric]!;
  }
  for (let h = 0; h < hosts; h++) if (leave[h] === 1) pressure[h] = Infinity;
  return Int32Array.from({ length: hosts }, (_, h) => h).sort((a, b) => pressure[b]! - pressure[a]! || a - b);
}

export interface PolishOptions {
  readonly iterations: number;
  /** Where it begins, as a share of the usual heat: little keeps what was found and mends details. */
  readonly heat?: number;
  /** Asked before a change is kept; false takes it back. For rules that look at the whole fleet. */
  readonly allows?: (board: Board) => boolean;
  /** Asked now and then; true ends it. */
  readonly isDone?: () => boolean;
}

/** After so many iterations it is asked whether it is done. */
const betweenLooks = 500;

/**
 * Simulated annealing (Kirkpatrick and others, 1983) over the set of moves. Its steps: another target, the way home, one VM
 * instead of another, two targets exchanged, a new move. Ends by undoing what does not pay.
 */
export function polish(board: Board, chance: Chance, options: PolishOptions): void {
  const annealing = new Annealing(board, chance, options);
  annealing.run();
}

class Annealing {
  readonly #board: Board;
  readonly #chance: Chance;
  readonly #iterations: number;
  readonly #heat: number;
  readonly #allows: ((board: Board) => boolean) | null;
  /** VMs that are not at home, in no order. */
  readonly #moved: number[] = [];
  readonly #placeIn: Int32Array;
  readonly #movable: Int32Array;
  /** The step in hand: which VMs go where. */
  readonly #stepVm = new Int32Array(2);
  readonly #stepTo = new Int32Array(2);
  #steps = 0;

  readonly #isDone: () => boolean;

  constructor(board: Board, chance: Chance, { iterations, heat, allows, isDone }: PolishOptions) {
    this.#board = board;
    this.#chance = chance;
    this.#iterations = iterations;
    this.#heat = heat ?? 1;
    this.#allows = allows ?? null;
    this.#isDone = isDone ?? (() => false);
    const { vms, movable } = board.problem;
    this.#placeIn = new Int32Array(vms).fill(-1);
    this.#movable = Int32Array.from({ length: vms }, (_, vm) => vm).filter((vm) => movable[vm] === 1);
    for (const vm of this.#movable) this.#noteWhere(vm);
  }

  run(): void {
    const board = this.#board;
    if (this.#movable.length === 0 || board.problem.hosts < 2) return;
    const begin = Int32Array.from(board.at);
    const before = board.energy();
    const [hot, cold] = this.#temperatures();
    const factor = Math.pow(cold / hot, 1 / Math.max(1, this.#iterations));
    let temperature = hot;
    let energy = before;
    for (let i = 0; i < this.#iterations; i++) {
      if (i % betweenLooks === 0 && this.#isDone()) break;
      temperature *= factor;
      energy = this.#step(energy, temperature);
    }
    if (board.energy() > before) {
      for (let vm = 0; vm < begin.length; vm++) board.move(vm, begin[vm]!);
    }
    undoIdle(board);
  }

  /** From what steps change here: most of them are accepted at first, hardly any that costs in the end. */
  #temperatures(): [hot: number, cold: number] {
    const board = this.#board;
    const changes: number[] = [];
    for (let i = 0; i < 200; i++) {
      const change = Math.abs(this.#propose() - board.energy());
      if (change > noGain) changes.push(change);
    }
    changes.sort((a, b) => a - b);
    const typical = changes[Math.floor(changes.length / 4)] ?? 1e-3;
    return [typical * 2 * this.#heat, typical * 2e-3];
  }

  #step(energy: number, temperature: number): number {
    const next = this.#propose();
    if (Number.isNaN(next)) return energy;
    const change = next - energy;
    if (change > 0 && this.#chance.next() >= Math.exp(-change / temperature)) return energy;
    this.#make();
    if (this.#allows === null || this.#allows(this.#board)) return this.#board.energy();
    this.#takeBack();
    return energy;
  }

  /** Thinks of one step and keeps it in `stepVm` and `stepTo`. @returns the energy after it; NaN: a rule forbids it */
  #propose(): number {
    this.#steps = 0;
    const dice = this.#chance.next();
    if (this.#moved.length === 0 || dice < 0.2) {
      return this.#one(this.#movable[this.#chance.below(this.#movable.length)]!, this.#randomHost());
    }
    const vm = this.#moved[this.#chance.below(this.#moved.length)]!;
    if (dice < 0.4) return this.#one(vm, this.#randomHost());
    const home = this.#board.problem.home[vm]!;
    if (dice < 0.45) return home < 0 ? NaN : this.#one(vm, home);
    if (dice < 0.65 && home >= 0) {
      // A VM of the same home goes instead.
      const neighbours = this.#board.on[home]!;
      return neighbours.length === 0 ? NaN : this.#exchange(vm, neighbours[this.#chance.below(neighbours.length)]!);
    }
    const pool = dice < 0.9 ? this.#movable : this.#moved;
    const other = pool[this.#chance.below(pool.length)]!;
    return dice < 0.8 && home >= 0 ? this.#instead(vm, home, other) : this.#exchange(vm, other);
  }

  #one(vm: number, to: number): number {
    const board = this.#board;
    if (board.at[vm] === to || !board.fits(vm, to)) return NaN;
    const wasMoved = board.isMoved(vm);
    if (!wasMoved && !board.isAffordable(1, board.problem.vmMemory[vm]!)) return NaN;
    this.#plan(vm, to);
    return board.scoreAfter(vm, to) + board.cost + board.costChange(vm, to);
  }

  #exchange(vm: number, other: number): number {
    const board = this.#board;
    const { at, problem } = board;
    const [here, there] = [at[vm]!, at[other]!];
    if (here === there || problem.movable[other] !== 1 || !board.fitsExchange(vm, other)) return NaN;
    const moves = this.#becomes(vm, there) + this.#becomes(other, here);
    const memory =
      this.#becomes(vm, there) * problem.vmMemory[vm]! + this.#becomes(other, here) * problem.vmMemory[other]!;
    if (!board.isAffordable(moves, memory)) return NaN;
    this.#plan(vm, there);
    this.#plan(other, here);
    const cost = board.cost + board.costChange(vm, there) + board.costChange(other, here);
    return board.scoreAfterExchange(vm, other) + cost;
  }

  /** +1: it would have moved and has not now; -1: the other way round. */
  #becomes(vm: number, to: number): number {
    const { home } = this.#board.problem;
    return (to === home[vm] ? 0 : 1) - (this.#board.isMoved(vm) ? 1 : 0);
  }

  /** `vm` goes home, `other` goes where it was. */
  #instead(vm: number, home: number, other: number): number {
    const board = this.#board;
    const { at } = board;
    const to = at[vm]!;
    if (at[other] === home) return this.#exchange(vm, other);
    if (other === vm || at[other] === to || !board.isAllowed(other, to) || !board.fits(vm, home)) return NaN;
    const from = at[other]!;
    board.move(vm, home);
    const fits = board.fits(other, to) && withinBudget(board, other);
    const energy = fits ? board.scoreAfter(other, to) + board.cost + board.costChange(other, to) : NaN;
    board.move(vm, to);
    if (!fits || from === to) return NaN;
    this.#plan(vm, home);
    this.#plan(other, to);
    return energy;
  }

  #randomHost(): number {
    return this.#chance.below(this.#board.problem.hosts);
  }

  #plan(vm: number, to: number): void {
    this.#stepVm[this.#steps] = vm;
    this.#stepTo[this.#steps] = to;
    this.#steps++;
  }

  /** Makes the step; afterwards `stepTo` says where its VMs came from. */
  #make(): void {
    for (let i = 0; i < this.#steps; i++) {
      const vm = this.#stepVm[i]!;
      const from = this.#board.at[vm]!;
      this.#board.move(vm, this.#stepTo[i]!);
      this.#stepTo[i] = from;
      this.#noteWhere(vm);
    }
  }

  #takeBack(): void {
    for (let i = this.#steps - 1; i >= 0; i--) {
      const vm = this.#stepVm[i]!;
      this.#board.move(vm, this.#stepTo[i]!);
      this.#noteWhere(vm);
    }
  }

  #noteWhere(vm: number): void {
    const place = this.#placeIn[vm]!;
    if (this.#board.isMoved(vm)) {
      if (place < 0) this.#placeIn[vm] = this.#moved.push(vm) - 1;
    } else if (place >= 0) {
      const last = this.#moved.pop()!;
      if (last !== vm) {
        this.#moved[place] = last;
        this.#placeIn[last] = place;
      }
      this.#placeIn[vm] = -1;
    }
  }
}

/** Takes back each move that no longer pays. */
export function undoIdle(board: Board): void {
  const { home, vms } = board.problem;
  for (let again = true; again;) {
    again = false;
    for (let vm = 0; vm < vms; vm++) {
      const to = home[vm]!;
      if (to < 0 || board.at[vm] === to || !board.fits(vm, to)) continue;
      if (board.scoreAfter(vm, to) + board.costChange(vm, to) > board.score()) continue;
      board.move(vm, to);
      again = true;
    }
  }
}
