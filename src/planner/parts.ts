/**
 * A large fleet polished in parts: hosts are dealt out at random, each part is a problem of its own that sees the others as they
 * stand, and the answers are put together; then dealt anew (the idea of POP, Narayanan and others, SOSP 2021). Parts share no
 * host, so they can be worked on at once. Which part is which depends on the seed alone, never on how many threads there are.
 *
 * Not here: threads (runtime/pool.ts).
 */
import { Board } from './board.ts';
import { chanceFrom, type Chance } from './chance.ts';
import type { Groups, Objective, Problem } from './problem.ts';
import { polish } from './search.ts';

/** Hosts of a part: small enough for a processor's cache, large enough to hold what a VM could be exchanged for. */
export const hostsPerPart = 250;

/** What one thread is given; plain data. */
export interface PartJob {
  readonly problem: Problem;
  readonly seed: number;
  readonly iterations: number;
}

interface Part {
  readonly hosts: Int32Array;
  readonly vms: Int32Array;
  readonly job: PartJob;
}

/** One round: the jobs, and what to do with their answers (where each VM of the part is, by the part's numbers). */
export function dealParts(
  board: Board,
  chance: Chance,
  iterations: number,
): { jobs: PartJob[]; merge: (answers: readonly Int32Array[]) => void } {
  const { problem } = board;
  const count = Math.max(1, Math.round(problem.hosts / hostsPerPart));
  const hands: number[][] = Array.from({ length: count }, () => []);
  shuffled(problem.hosts, chance).forEach((host, i) => hands[i % count]!.push(host));
  const local = new Int32Array(problem.hosts);
  const parts = hands.map((hosts): Part => {
    const vms = Int32Array.from(hosts.flatMap((host) => board.on[host]!));
    const seed = Math.floor(chance.next() * 2 ** 32);
    const share = Math.max(1, Math.round((iterations * vms.length) / Math.max(1, problem.vms)));
    const part = partOf(board, Int32Array.from(hosts), vms, count, local);
    return { hosts: Int32Array.from(hosts), vms, job: { problem: part, seed, iterations: share } };
  });
  return {
    jobs: parts.map(({ job }) => job),
    merge: (answers) => {
      parts.forEach(({ hosts, vms }, i) => {
        answers[i]?.forEach((host, vm) => board.move(vms[vm]!, hosts[host]!));
      });
    },
  };
}

/** A search that hands out parts and is given their answers. */
export type PartSearch<End> = Generator<readonly PartJob[], End, readonly Int32Array[]>;

/** All of it here, one part after the other. */
export function withoutThreads<End>(search: PartSearch<End>): End {
  let step = search.next();
  while (!step.done) step = search.next(step.value.map(polishPart));
  return step.value;
}

/** The work of one thread. */
export function polishPart({ problem, seed, iterations }: PartJob): Int32Array {
  const board = new Board(problem);
  polish(board, chanceFrom(seed), { iterations });
  return board.at;
}

function shuffled(count: number, chance: Chance): Int32Array {
  const order = Int32Array.from({ length: count }, (_, i) => i);
  for (let i = count - 1; i > 0; i--) {
    const j = chance.below(i + 1);
    [order[i], order[j]] = [order[j]!, order[i]!];
  }
  return order;
}

/** @param local room for numbers within the part, so that none is made for each */
function partOf(board: Board, hosts: Int32Array, vms: Int32Array, parts: number, local: Int32Array): Problem {
  const { problem } = board;
  local.fill(-1);
  hosts.forEach((host, i) => (local[host] = i));
  const ofHosts = (from: Float64Array): Float64Array => Float64Array.from(hosts, (host) => from[host]!);
  const ofVms = (from: Float64Array): Float64Array => Float64Array.from(vms, (vm) => from[vm]!);
  const home = Int32Array.from(vms, (vm) => (problem.home[vm]! < 0 ? -1 : local[problem.home[vm]!]!));
  const start = Int32Array.from(vms, (vm) => local[board.at[vm]!]!);
  const kinds = problem.allowed.length / problem.hosts;
  const allowed = new Uint8Array(kinds * hosts.length);
  for (let kind = 0; kind < kinds; kind++) {
    hosts.forEach((host, i) => (allowed[kind * hosts.length + i] = problem.allowed[kind * problem.hosts + host]!));
  }
  // What the part has moved already is its own; of what may still be moved it gets an equal share.
  let moved = 0;
  let movedMiB = 0;
  vms.forEach((vm, i) => {
    if (home[i] === start[i]) return;
    moved++;
    movedMiB += problem.vmMemory[vm]!;
  });
  return {
    hosts: hosts.length,
    vms: vms.length,
    memoryCap: ofHosts(problem.memoryCap),
    vcpuCap: ofHosts(problem.vcpuCap),
    cpuCap: ofHosts(problem.cpuCap),
    counted: Uint8Array.from(hosts, (host) => problem.counted[host]!),
    leave: Uint8Array.from(hosts, (host) => problem.leave[host]!),
    vmMemory: ofVms(problem.vmMemory),
    vmVcpus: ofVms(problem.vmVcpus),
    vmCpu: ofVms(problem.vmCpu),
    moveCost: ofVms(problem.moveCost),
    home,
    start,
    movable: Uint8Array.from(vms, (vm) => (hasCompanions(problem, vm) ? 0 : problem.movable[vm]!)),
    kind: Int32Array.from(vms, (vm) => problem.kind[vm]!),
    allowed,
    apart: groupsOf(problem.apart, vms),
    together: { start: new Int32Array(vms.length + 1), of: new Int32Array(0) },
    objective: objectiveOf(board, hosts, vms, ofHosts, ofVms),
    maxMoves: moved + Math.floor((problem.maxMoves - board.movedCount) / parts),
    maxMoveMiB: movedMiB + (problem.maxMoveMiB - board.movedMiB) / parts,
  };
}

/** Their companions may be in another part. */
function hasCompanions({ together }: Problem, vm: number): boolean {
  return together.start[vm] !== together.start[vm + 1];
}

function groupsOf({ start, of }: Groups, vms: Int32Array): Groups {
  const starts = new Int32Array(vms.length + 1);
  const members: number[] = [];
  vms.forEach((vm, i) => {
    for (let g = start[vm]!; g < start[vm + 1]!; g++) members.push(of[g]!);
    starts[i + 1] = members.length;
  });
  return { start: starts, of: Int32Array.from(members) };
}

function objectiveOf(
  board: Board,
  hosts: Int32Array,
  vms: Int32Array,
  ofHosts: (from: Float64Array) => Float64Array,
  ofVms: (from: Float64Array) => Float64Array,
): Objective {
  const { counted, objective } = board.problem;
  const { metrics, reference } = objective;
  const rows = (from: Float64Array, of: Int32Array): Float64Array => {
    const some = new Float64Array(of.length * metrics);
    of.forEach((row, i) => some.set(from.subarray(row * metrics, (row + 1) * metrics), i * metrics));
    return some;
  };
  const outside = board.sums();
  for (const host of hosts) {
    if (counted[host] !== 1) continue;
    outside.hosts--;
    for (let k = 0; k < metrics; k++) {
      const x = board.x[host * metrics + k]! - reference[k]!;
      outside.sum[k]! -= x;
      outside.squares[k]! -= x * x;
    }
  }
  return {
    ...objective,
    amount: rows(objective.amount, vms),
    base: rows(objective.base, hosts),
    scale: rows(objective.scale, hosts),
    outside,
    stranded: ofVms(objective.stranded),
    powered: ofHosts(objective.powered),
  };
}
