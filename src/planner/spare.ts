/**
 * Room for the VMs of hosts that die: `hostFailuresTolerated`. Of each set of so many hosts: do the VMs that would be started
 * again find memory on the others? Answered by packing them, largest first, each where it fits most tightly; for large
 * fleets a count of holes answers first. With more than one host at once, each host with the fullest others stands for all sets.
 */
import type { Board } from './board.ts';
import type { Fleet } from './fleet.ts';
import type { Problem } from './problem.ts';

export class Spare {
  readonly #failures: number;
  readonly #restarts: Uint8Array;
  readonly #counts: Uint8Array;
  /** Hosts that every VM may be on. */
  readonly #universal: Uint8Array;
  readonly #largestMiB: number;
  readonly #problem: Problem;
  /** What was missing at first; it may not become more. */
  readonly #atFirstMiB: number;

  /**
   * @param board as it is at first
   * @param without hosts whose room does not count, and whose death neither: they are to be switched off
   */
  constructor(fleet: Fleet, board: Board, without: ReadonlySet<number> = new Set()) {
    const { problem } = board;
    this.#problem = problem;
    this.#failures = fleet.snapshot.settings.hostFailuresTolerated;
    this.#restarts = Uint8Array.from(fleet.vms, (vm) => (vm.recovery === 'restart' ? 1 : 0));
    this.#counts = Uint8Array.from(fleet.hosts, ({ state }, h) => (state === 'up' && !without.has(h) ? 1 : 0));
    const kinds = problem.allowed.length / Math.max(1, problem.hosts);
    this.#universal = Uint8Array.from(fleet.hosts, (_, h) => {
      for (let kind = 0; kind < kinds; kind++) if (problem.allowed[kind * problem.hosts + h] !== 1) return 0;
      return this.#counts[h]!;
    });
    this.#largestMiB = problem.vmMemory.reduce(
      (most, mib, vm) => (this.#restarts[vm] === 1 ? Math.max(most, mib) : most),
      1,
    );
    this.#atFirstMiB = without.size === 0 ? this.missingMiB(board) : new Spare(fleet, board).missingMiB(board);
  }

  /** Is there as much room for the VMs of dead hosts as there was at first, or enough? */
  isKept(board: Board): boolean {
    return this.#failures === 0 || this.missingMiB(board) <= this.#atFirstMiB;
  }

  /** Memory of VMs that would find no place, in the worst case. */
  missingMiB(board: Board): number {
    if (this.#failures === 0 || this.#hasHolesForAll(board)) return 0;
    const { hosts } = this.#problem;
    const fullestFirst = Array.from({ length: hosts }, (_, h) => h)
      .filter((h) => this.#counts[h] === 1)
      .toSorted((a, b) => board.memory[b]! - board.memory[a]! || a - b);
    let worst = 0;
    for (const host of fullestFirst) {
      const others = fullestFirst.filter((other) => other !== host).slice(0, this.#failures - 1);
      worst = Math.max(worst, this.#missingWithout(board, new Set([host, ...others])));
    }
    return worst;
  }

  /** Enough holes of the largest VM's size: then no packing is needed. */
  #hasHolesForAll(board: Board): boolean {
    const { hosts, memoryCap } = this.#problem;
    let holes = 0;
    const most: number[] = [];
    const fullest: number[] = [];
    for (let h = 0; h < hosts; h++) {
      if (this.#counts[h] === 1) insert(fullest, board.on[h]!.length, this.#failures);
      if (this.#universal[h] !== 1) continue;
      const here = Math.max(0, Math.floor((memoryCap[h]! - board.memory[h]!) / this.#largestMiB));
      holes += here;
      insert(most, here, this.#failures);
    }
    const sum = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0);
    return holes - sum(most) >= sum(fullest);
  }

  #missingWithout(board: Board, dead: ReadonlySet<number>): number {
    const { hosts, memoryCap, vmMemory, kind, allowed } = this.#problem;
    const free = Float64Array.from({ length: hosts }, (_, h) =>
      this.#counts[h] === 1 && !dead.has(h) ? memoryCap[h]! - board.memory[h]! : -1,
    );
    const vms = [...dead].flatMap((h) => board.on[h]!.filter((vm) => this.#restarts[vm] === 1));
    vms.sort((a, b) => vmMemory[b]! - vmMemory[a]! || a - b);
    let missing = 0;
    for (const vm of vms) {
      let best = -1;
      for (let h = 0; h < hosts; h++) {
        if (free[h]! < vmMemory[vm]! || allowed[kind[vm]! * hosts + h] !== 1) continue;
        if (best < 0 || free[h]! < free[best]!) best = h;
      }
      if (best < 0) missing += vmMemory[vm]!;
      else free[best]! -= vmMemory[vm]!;
    }
    return missing;
  }
}

/** The rule in words, where nothing else speaks against a host. */
export function noSpareLeft(host: string): { rule: string; says: string } {
  return { rule: 'spare', says: `With it on ${host} there would be no room for the VMs of a host that dies.` };
}

/** Keeps the `limit` largest values. */
function insert(values: number[], value: number, limit: number): void {
  if (values.length < limit) values.push(value);
  else {
    const least = values.indexOf(Math.min(...values));
    if (value > values[least]!) values[least] = value;
  }
}
