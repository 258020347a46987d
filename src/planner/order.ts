/**
 * From a wanted placement to moves in an order in which every beginning is feasible and no worse than before. A move that waits
 * for room waits; where moves wait for each other in a circle, one VM hops. Not here: when each begins (schedule.ts).
 */
import { Board } from './board.ts';
import { Heap } from './heap.ts';
import type { Problem } from './problem.ts';
import { bestPlace, noGain } from './search.ts';

export interface Step {
  readonly vm: number;
  readonly from: number;
  readonly to: number;
  readonly hop: boolean;
  /** By how much the score falls. */
  readonly gain: number;
}

export interface OrderOptions {
  readonly maxMoves: number;
  readonly maxMoveMiB: number;
  /** May a VM move twice to break a circle? */
  readonly hops: boolean;
  /** By so much a step that makes room may be worse than the beginning. */
  readonly slack?: number;
  /** Smaller goes first, whatever the gain. */
  readonly rank?: (vm: number) => number;
  /** Asked after each step; false takes it back. */
  readonly allows?: (board: Board) => boolean;
}

export interface Ordered {
  readonly steps: readonly Step[];
  /** The placement after the last step. */
  readonly board: Board;
  /** VMs that are not where they were wanted. */
  readonly left: readonly number[];
}

/**
 * @param problem its `home` is where the VMs are now
 * @param wanted where they shall be
 */
export function order(problem: Problem, wanted: Int32Array, options: OrderOptions): Ordered {
  const board = new Board({ ...problem, start: problem.home });
  const sequence = new Sequence(board, wanted, options);
  return sequence.run();
}

interface Candidate {
  readonly vm: number;
  readonly rank: number;
  readonly gain: number;
}

class Sequence {
  readonly #board: Board;
  readonly #wanted: Int32Array;
  readonly #options: OrderOptions;
  readonly #steps: Step[] = [];
  readonly #begin: number;
  /** Moves that could be next, by the gain they had when they were last looked at. */
  readonly #queue: Heap<Candidate>;
  /** Moves that wait for room, by the host where they want it. */
  readonly #waiting = new Map<number, number[]>();
  readonly #pending = new Set<number>();
  #score: number;
  #movedMiB = 0;
  #hops = 0;

  constructor(board: Board, wanted: Int32Array, options: OrderOptions) {
    this.#board = board;
    this.#wanted = wanted;
    this.#options = options;
    this.#begin = board.score();
    this.#score = this.#begin;
    const vms: number[] = [];
    wanted.forEach((to, vm) => {
      if (to !== board.at[vm]) vms.push(vm);
    });
    for (const vm of vms) this.#pending.add(vm);
    this.#queue = new Heap<Candidate>((a, b) => a.rank - b.rank || b.gain - a.gain || a.vm - b.vm);
    for (const vm of vms) this.#queue.push(this.#candidate(vm));
  }

  run(): Ordered {
    // Each turn makes a step, parks a move or looks at a stale gain again: bounded by moves times looks.
    const limit = 200 * (this.#pending.size + 10);
    for (let turn = 0; turn < limit && this.#pending.size > 0; turn++) {
      if (this.#steps.length >= this.#options.maxMoves) break;
      const next = this.#queue.pop();
      if (next === undefined) {
        if (!this.#breakCircle()) break;
        continue;
      }
      if (!this.#pending.has(next.vm)) continue;
      if (!this.#board.fits(next.vm, this.#wanted[next.vm]!)) {
        this.#park(next.vm);
        continue;
      }
      const gain = this.#gainOf(next.vm);
      const rival = this.#queue.peek();
      const isBehind = rival?.rank === next.rank && gain < rival.gain - noGain && gain < next.gain - noGain;
      if (isBehind) {
        this.#queue.push({ ...next, gain });
        continue;
      }
      if (!this.#take(next.vm, this.#wanted[next.vm]!, false)) this.#park(next.vm);
    }
    this.#cutTail();
    const left = [...this.#pending].toSorted((a, b) => a - b);
    return { steps: this.#steps, board: this.#board, left };
  }

  #candidate(vm: number): Candidate {
    return { vm, rank: this.#options.rank?.(vm) ?? 0, gain: this.#gainOf(vm) };
  }

  #gainOf(vm: number): number {
    return this.#score - this.#board.scoreAfter(vm, this.#wanted[vm]!);
  }

  #park(vm: number): void {
    const to = this.#wanted[vm]!;
    const others = this.#waiting.get(to);
    if (others === undefined) this.#waiting.set(to, [vm]);
    else others.push(vm);
  }

  #unpark(host: number): void {
    const waiting = this.#waiting.get(host);
    if (waiting === undefined) return;
    this.#waiting.delete(host);
    for (const vm of waiting) if (this.#pending.has(vm)) this.#queue.push(this.#candidate(vm));
  }

  #take(vm: number, to: number, hop: boolean): boolean {
    const board = this.#board;
    const { maxMoves, maxMoveMiB, allows } = this.#options;
    const size = board.problem.vmMemory[vm]!;
    if (this.#steps.length >= maxMoves || this.#movedMiB + size > maxMoveMiB) return false;
    const from = board.at[vm]!;
    board.move(vm, to);
    const score = board.score();
    if (score > this.#begin + noGain + (this.#options.slack ?? 0) || (allows !== undefined && !allows(board))) {
      board.move(vm, from);
      return false;
    }
    this.#steps.push({ vm, from, to, hop, gain: this.#score - score });
    this.#score = score;
    this.#movedMiB += size;
    if (!hop) this.#pending.delete(vm);
    this.#unpark(from);
    return true;
  }

  /** Nothing can go on: one waiting VM hops to the host that takes it best, so that another has room. */
  #breakCircle(): boolean {
    // What was refused for its score may be welcome now that others have moved.
    const waiting = [...this.#waiting.values()].flat().filter((vm) => this.#pending.has(vm));
    for (const vm of waiting) {
      const to = this.#wanted[vm]!;
      if (this.#board.fits(vm, to) && this.#take(vm, to, false)) return true;
    }
    if (!this.#options.hops || this.#hops >= this.#pending.size + 10) return false;
    const smallestFirst = waiting.toSorted(
      (a, b) => this.#board.problem.vmMemory[a]! - this.#board.problem.vmMemory[b]! || a - b,
    );
    for (const vm of smallestFirst) {
      if (!this.#standsInTheWay(vm)) continue;
      const to = bestPlace(this.#board, vm);
      if (to === null || to === this.#wanted[vm]) continue;
      if (!this.#take(vm, to, true)) continue;
      this.#hops++;
      this.#queue.push(this.#candidate(vm));
      return true;
    }
    return false;
  }

  #standsInTheWay(vm: number): boolean {
    return (this.#waiting.get(this.#board.at[vm]!) ?? []).some((other) => this.#pending.has(other));
  }

  /** The last moves go when they bring nothing any more, or less than they cost. */
  #cutTail(): void {
    const board = this.#board;
    let best = this.#steps.length;
    let least = board.energy();
    for (let i = this.#steps.length - 1; i >= 0; i--) {
      const { vm, from } = this.#steps[i]!;
      board.move(vm, from);
      const energy = board.energy();
      if (energy <= least) {
        least = energy;
        best = i;
      }
    }
    for (const { vm, to } of this.#steps.slice(0, best)) board.move(vm, to);
    for (const { vm } of this.#steps.splice(best)) this.#pending.add(vm);
  }
}
