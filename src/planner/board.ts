/**
 * A placement that changes: which VM is on which host, what each host holds, and the score, all kept up to date by `move`.
 * Cost of a move or of asking for one: the number of metrics, nothing else. Not here: which moves are worth asking for.
 */
import type { Groups, Problem } from './problem.ts';

/** Sums drift by rounding; they are made anew after so many moves. */
const movesUntilAnew = 50_000;
/** And as many more as there are this often VMs. */
const movesPerVm = 10;

export class Board {
  readonly problem: Problem;
  readonly at: Int32Array;
  readonly memory: Float64Array;
  readonly vcpus: Float64Array;
  readonly cpu: Float64Array;
  /** VMs on each host, in no order. */
  readonly on: number[][];
  /** Values of all metrics, host by host. */
  readonly x: Float64Array;
  movedCount = 0;
  movedMiB = 0;
  /** Of all VMs that are not at home. */
  cost = 0;
  /** VMs too many of apart groups on hosts; hosts too many of together groups. */
  conflicts = 0;
  splits = 0;

  readonly #sum: Float64Array;
  readonly #squares: Float64Array;
  readonly #place: Int32Array;
  readonly #counted: number;
  readonly #peaks: PeakTree | null;
  /** VMs of group g on host h, under g * hosts + h. */
  readonly #apart = new Map<number, number>();
  readonly #together = new Map<number, number>();
  readonly #togetherSize = new Map<number, number>();
  readonly #weight: Float64Array;
  #fixed = 0;
  #over = 0;
  #sinceAnew = 0;

  constructor(problem: Problem) {
    this.problem = problem;
    const { hosts, vms, objective } = problem;
    this.at = Int32Array.from(problem.start);
    this.memory = new Float64Array(hosts);
    this.vcpus = new Float64Array(hosts);
    this.cpu = new Float64Array(hosts);
    this.on = Array.from({ length: hosts }, () => []);
    this.x = new Float64Array(hosts * objective.metrics);
    this.#sum = new Float64Array(objective.metrics);
    this.#squares = new Float64Array(objective.metrics);
    this.#place = new Int32Array(vms);
    this.#weight = objective.weight;
    let counted = objective.outside.hosts;
    for (const each of problem.counted) counted += each;
    this.#counted = counted;
    this.#peaks = objective.peak === null ? null : new PeakTree(hosts);
    for (let vm = 0; vm < vms; vm++) this.#arrive(vm, this.at[vm]!);
    this.#sumAnew();
  }

  /** Without what moving costs. */
  score(): number {
    const n = this.#counted;
    const { conflict, split } = this.problem.objective;
    let score = this.#fixed + this.#over + this.conflicts * conflict + this.splits * split;
    if (n > 0) {
      for (let k = 0; k < this.#sum.length; k++) {
        const mean = this.#sum[k]! / n;
        const variance = this.#squares[k]! / n - mean * mean;
        if (variance > 0) score += this.#weight[k]! * Math.sqrt(variance);
      }
    }
    const peak = this.problem.objective.peak;
    if (peak !== null && this.#peaks !== null) score += peak.weight * this.#peaks.largest();
    return score;
  }

  /** What the search makes small: the score, and what it costs to get there. */
  energy(): number {
    return this.score() + this.cost;
  }

  isMoved(vm: number): boolean {
    return this.at[vm] !== this.problem.home[vm];
  }

  /** Do compatibility and room allow it? The rules in words, with the same answer: rules.ts. */
  fits(vm: number, host: number): boolean {
    const p = this.problem;
    if (!this.isAllowed(vm, host)) return false;
    if (this.memory[host]! + p.vmMemory[vm]! > p.memoryCap[host]!) return false;
    if (this.vcpus[host]! + p.vmVcpus[vm]! > p.vcpuCap[host]!) return false;
    if (this.cpu[host]! + p.vmCpu[vm]! > p.cpuCap[host]!) return false;
    return !this.meetsRival(vm, host) && !this.leavesCompanions(vm, host);
  }

  /** Whoever else is there. Home is home, even if it would not be chosen now. */
  isAllowed(vm: number, host: number): boolean {
    const p = this.problem;
    return p.home[vm] === host || (p.allowed[p.kind[vm]! * p.hosts + host] === 1 && p.leave[host] !== 1);
  }

  /** Is a VM there from which it is to be kept apart? */
  meetsRival(vm: number, host: number): boolean {
    const { start, of } = this.problem.apart;
    for (let i = start[vm]!; i < start[vm + 1]!; i++) {
      if ((this.#apart.get(of[i]! * this.problem.hosts + host) ?? 0) > 0) return true;
    }
    return false;
  }

  /**
   * Would it part from companions? It may go where one is. Where none is it may go only alone, or from a host that must be
   * left anyway: the others follow.
   */
  leavesCompanions(vm: number, host: number): boolean {
    const { start, of } = this.problem.together;
    const here = this.at[vm]!;
    for (let i = start[vm]!; i < start[vm + 1]!; i++) {
      const group = of[i]!;
      const others = (this.#togetherSize.get(group) ?? 0) - 1;
      if (others === 0) continue;
      const there = this.#together.get(group * this.problem.hosts + host) ?? 0;
      if (there > 0) continue;
      const left = (this.#together.get(group * this.problem.hosts + here) ?? 0) - 1;
      // Away from a host that must be left, the first may choose where the others follow.
      if (this.problem.leave[here] === 1 && left === others) continue;
      return true;
    }
    return false;
  }

  move(vm: number, to: number): void {
    const from = this.at[vm]!;
    if (from === to) return;
    const p = this.problem;
    const wasMoved = this.isMoved(vm);
    this.#unsum(from);
    this.#unsum(to);
    this.#depart(vm, from);
    this.#arrive(vm, to);
    this.#resum(from);
    this.#resum(to);
    const isMoved = this.isMoved(vm);
    if (wasMoved !== isMoved) {
      const sign = isMoved ? 1 : -1;
      this.movedCount += sign;
      this.movedMiB += sign * p.vmMemory[vm]!;
      this.cost += sign * p.moveCost[vm]!;
    }
    if (++this.#sinceAnew >= movesUntilAnew + movesPerVm * p.vms) this.#sumAnew();
  }

  /** The score after this one move; nothing changes. */
  scoreAfter(vm: number, to: number): number {
    const from = this.at[vm]!;
    if (from === to) return this.score();
    const { objective, counted } = this.problem;
    if (objective.peak !== null) return this.#byTrying(vm, to);
    const metrics = objective.metrics;
    const n = this.#counted;
    const a = from * metrics;
    const b = to * metrics;
    const v = vm * metrics;
    const countA = counted[from] === 1;
    const countB = counted[to] === 1;
    let score = this.#fixed + this.#fixedChange(vm, from, to) + this.#over;
    score += this.conflicts * objective.conflict + this.splits * objective.split + this.#groupChange(vm, from, to);
    for (let i = 0; i < objective.over.length; i++) {
      const { metric, limit, weight } = objective.over[i]!;
      const amount = objective.amount[v + metric]!;
      const xa = this.x[a + metric]! - limit;
      const xb = this.x[b + metric]! - limit;
      if (countA) score += weight * (Math.max(0, xa - amount * objective.scale[a + metric]!) - Math.max(0, xa));
      if (countB) score += weight * (Math.max(0, xb + amount * objective.scale[b + metric]!) - Math.max(0, xb));
    }
    if (n === 0) return score;
    for (let k = 0; k < metrics; k++) {
      const amount = objective.amount[v + k]!;
      const reference = objective.reference[k]!;
      let sum = this.#sum[k]!;
      let squares = this.#squares[k]!;
      if (countA) {
        const x = this.x[a + k]! - reference;
        const change = -amount * objective.scale[a + k]!;
        sum += change;
        squares += change * (2 * x + change);
      }
      if (countB) {
        const x = this.x[b + k]! - reference;
        const change = amount * objective.scale[b + k]!;
        sum += change;
        squares += change * (2 * x + change);
      }
      const mean = sum / n;
      const variance = squares / n - mean * mean;
      if (variance > 0) score += this.#weight[k]! * Math.sqrt(variance);
    }
    return score;
  }

  /** The score after two VMs of different hosts have changed places; nothing changes. */
  scoreAfterExchange(vm: number, other: number): number {
    const { at } = this;
    const here = at[vm]!;
    const there = at[other]!;
    const { objective, counted, leave } = this.problem;
    if (objective.peak !== null || this.#shareGroup(vm, other)) return this.#byExchanging(vm, other);
    const { metrics, amount, scale, stranded, over, reference } = objective;
    const n = this.#counted;
    const a = here * metrics;
    const b = there * metrics;
    const countA = counted[here] === 1;
    const countB = counted[there] === 1;
    let score = this.#fixed + this.#over + (leave[there]! - leave[here]!) * (stranded[vm]! - stranded[other]!);
    score += this.conflicts * objective.conflict + this.splits * objective.split;
    score += this.#groupChange(vm, here, there) + this.#groupChange(other, there, here);
    for (let i = 0; i < over.length; i++) {
      const { metric, limit, weight } = over[i]!;
      const more = amount[other * metrics + metric]! - amount[vm * metrics + metric]!;
      const xa = this.x[a + metric]! - limit;
      const xb = this.x[b + metric]! - limit;
      if (countA) score += weight * (Math.max(0, xa + more * scale[a + metric]!) - Math.max(0, xa));
      if (countB) score += weight * (Math.max(0, xb - more * scale[b + metric]!) - Math.max(0, xb));
    }
    if (n === 0) return score;
    for (let k = 0; k < metrics; k++) {
      const more = amount[other * metrics + k]! - amount[vm * metrics + k]!;
      let sum = this.#sum[k]!;
      let squares = this.#squares[k]!;
      if (countA) {
        const change = more * scale[a + k]!;
        sum += change;
        squares += change * (2 * (this.x[a + k]! - reference[k]!) + change);
      }
      if (countB) {
        const change = -more * scale[b + k]!;
        sum += change;
        squares += change * (2 * (this.x[b + k]! - reference[k]!) + change);
      }
      const mean = sum / n;
      const variance = squares / n - mean * mean;
      if (variance > 0) score += this.#weight[k]! * Math.sqrt(variance);
    }
    return score;
  }

  /** May they change places, room and rivals looked at when both have moved? */
  fitsExchange(vm: number, other: number): boolean {
    const p = this.problem;
    const here = this.at[vm]!;
    const there = this.at[other]!;
    if (!this.isAllowed(vm, there) || !this.isAllowed(other, here)) return false;
    const memory = p.vmMemory[other]! - p.vmMemory[vm]!;
    const vcpus = p.vmVcpus[other]! - p.vmVcpus[vm]!;
    const cpu = p.vmCpu[other]! - p.vmCpu[vm]!;
    if (memory > 0 && this.memory[here]! + memory > p.memoryCap[here]!) return false;
    if (memory < 0 && this.memory[there]! - memory > p.memoryCap[there]!) return false;
    if (vcpus > 0 && this.vcpus[here]! + vcpus > p.vcpuCap[here]!) return false;
    if (vcpus < 0 && this.vcpus[there]! - vcpus > p.vcpuCap[there]!) return false;
    if (cpu > 0 && this.cpu[here]! + cpu > p.cpuCap[here]!) return false;
    if (cpu < 0 && this.cpu[there]! - cpu > p.cpuCap[there]!) return false;
    if (!this.#isGrouped(vm) && !this.#isGrouped(other)) return true;
    // Neither could go first: each waits until its rival is gone.
    if (haveInCommon(p.apart, vm, other)) return false;
    const { conflicts, splits } = this;
    this.move(vm, there);
    this.move(other, here);
    const fits = this.conflicts <= conflicts && this.splits <= splits;
    this.move(other, there);
    this.move(vm, here);
    return fits;
  }

  /** Would what has moved be within the budget? */
  isAffordable(moves: number, memoryMiB: number): boolean {
    const p = this.problem;
    return this.movedCount + moves <= p.maxMoves && this.movedMiB + memoryMiB <= p.maxMoveMiB;
  }

  /** What the move would add to the cost: its own, none if it has moved already, less than none if it goes home. */
  costChange(vm: number, to: number): number {
    const was = this.isMoved(vm) ? 1 : 0;
    const is = to === this.problem.home[vm] ? 0 : 1;
    return (is - was) * this.problem.moveCost[vm]!;
  }

  /** Mean and standard deviation of a metric. */
  statistics(metric: number): { mean: number; deviation: number } {
    const n = Math.max(1, this.#counted);
    const mean = this.#sum[metric]! / n;
    const variance = Math.max(0, this.#squares[metric]! / n - mean * mean);
    return { mean: mean + this.problem.objective.reference[metric]!, deviation: Math.sqrt(variance) };
  }

  /** Sums over all counted hosts, for problems that are a part of this one. */
  sums(): { hosts: number; sum: Float64Array; squares: Float64Array } {
    return { hosts: this.#counted, sum: Float64Array.from(this.#sum), squares: Float64Array.from(this.#squares) };
  }

  #shareGroup(vm: number, other: number): boolean {
    const { apart, together } = this.problem;
    return haveInCommon(apart, vm, other) || haveInCommon(together, vm, other);
  }

  #isGrouped(vm: number): boolean {
    const { apart, together } = this.problem;
    return apart.start[vm] !== apart.start[vm + 1] || together.start[vm] !== together.start[vm + 1];
  }

  #byTrying(vm: number, to: number): number {
    const from = this.at[vm]!;
    this.move(vm, to);
    const score = this.score();
    this.move(vm, from);
    return score;
  }

  #byExchanging(vm: number, other: number): number {
    const here = this.at[vm]!;
    const there = this.at[other]!;
    this.move(vm, there);
    this.move(other, here);
    const score = this.score();
    this.move(other, there);
    this.move(vm, here);
    return score;
  }

  /** What the move would add to the score for rules between VMs. */
  #groupChange(vm: number, from: number, to: number): number {
    const { apart, together, hosts, objective } = this.problem;
    let change = 0;
    for (let i = apart.start[vm]!; i < apart.start[vm + 1]!; i++) {
      const group = apart.of[i]! * hosts;
      if ((this.#apart.get(group + from) ?? 0) > 1) change -= objective.conflict;
      if ((this.#apart.get(group + to) ?? 0) > 0) change += objective.conflict;
    }
    for (let i = together.start[vm]!; i < together.start[vm + 1]!; i++) {
      const group = together.of[i]! * hosts;
      if (this.#together.get(group + from) === 1) change -= objective.split;
      if ((this.#together.get(group + to) ?? 0) === 0) change += objective.split;
    }
    return change;
  }

  #fixedChange(vm: number, from: number, to: number): number {
    const { leave, objective } = this.problem;
    let change = (leave[to]! - leave[from]!) * objective.stranded[vm]!;
    if (this.on[from]!.length === 1) change -= objective.powered[from]!;
    if (this.on[to]!.length === 0) change += objective.powered[to]!;
    return change;
  }

  #arrive(vm: number, host: number): void {
    const p = this.problem;
    const there = this.on[host]!;
    if (there.length === 0) this.#fixed += p.objective.powered[host]!;
    this.#place[vm] = there.length;
    there.push(vm);
    this.at[vm] = host;
    this.#hold(vm, host, 1);
    this.#group(vm, host, 1);
  }

  #depart(vm: number, host: number): void {
    const p = this.problem;
    const there = this.on[host]!;
    const last = there.pop()!;
    if (last !== vm) {
      const place = this.#place[vm]!;
      there[place] = last;
      this.#place[last] = place;
    }
    if (there.length === 0) this.#fixed -= p.objective.powered[host]!;
    this.#hold(vm, host, -1);
    this.#group(vm, host, -1);
  }

  #hold(vm: number, host: number, sign: number): void {
    const p = this.problem;
    const { metrics, amount, scale, stranded } = p.objective;
    this.memory[host]! += sign * p.vmMemory[vm]!;
    this.vcpus[host]! += sign * p.vmVcpus[vm]!;
    this.cpu[host]! += sign * p.vmCpu[vm]!;
    if (p.leave[host] === 1) this.#fixed += sign * stranded[vm]!;
    const row = host * metrics;
    const from = vm * metrics;
    for (let k = 0; k < metrics; k++) this.x[row + k]! += sign * amount[from + k]! * scale[row + k]!;
  }

  #group(vm: number, host: number, sign: number): void {
    const { apart, together, hosts } = this.problem;
    for (let i = apart.start[vm]!; i < apart.start[vm + 1]!; i++) {
      const key = apart.of[i]! * hosts + host;
      const count = (this.#apart.get(key) ?? 0) + sign;
      this.#apart.set(key, count);
      if ((sign > 0 && count > 1) || (sign < 0 && count > 0)) this.conflicts += sign;
    }
    for (let i = together.start[vm]!; i < together.start[vm + 1]!; i++) {
      const group = together.of[i]!;
      const key = group * hosts + host;
      const count = (this.#together.get(key) ?? 0) + sign;
      this.#together.set(key, count);
      this.#togetherSize.set(group, (this.#togetherSize.get(group) ?? 0) + sign);
      if ((sign > 0 && count === 1) || (sign < 0 && count === 0)) this.splits += sign;
    }
  }

  #unsum(host: number): void {
    this.#account(host, -1);
  }

  #resum(host: number): void {
    this.#account(host, 1);
    const { peak, metrics } = this.problem.objective;
    if (peak !== null && this.problem.counted[host] === 1) {
      this.#peaks?.set(host, this.x[host * metrics + peak.metric]!);
    }
  }

  #account(host: number, sign: number): void {
    const { counted, objective } = this.problem;
    if (counted[host] !== 1) return;
    const { metrics, reference, over } = objective;
    const row = host * metrics;
    for (let k = 0; k < metrics; k++) {
      const x = this.x[row + k]! - reference[k]!;
      this.#sum[k]! += sign * x;
      this.#squares[k]! += sign * x * x;
    }
    for (let i = 0; i < over.length; i++) {
      const { metric, limit, weight } = over[i]!;
      const above = this.x[row + metric]! - limit;
      if (above > 0) this.#over += sign * weight * above;
    }
  }

  /** All sums from the placement alone. */
  #sumAnew(): void {
    const { hosts, objective } = this.problem;
    this.x.set(objective.base);
    this.memory.fill(0);
    this.vcpus.fill(0);
    this.cpu.fill(0);
    this.#fixed = 0;
    this.#over = 0;
    this.conflicts = 0;
    this.splits = 0;
    this.#apart.clear();
    this.#together.clear();
    this.#togetherSize.clear();
    this.#sum.set(objective.outside.sum);
    this.#squares.set(objective.outside.squares);
    for (let host = 0; host < hosts; host++) {
      if (this.on[host]!.length > 0) this.#fixed += objective.powered[host]!;
      for (const vm of this.on[host]!) {
        this.#hold(vm, host, 1);
        this.#group(vm, host, 1);
      }
      this.#resum(host);
    }
    // Each group is on one host at least.
    this.splits -= this.#togetherSize.size;
    this.#sinceAnew = 0;
    this.movedCount = 0;
    this.movedMiB = 0;
    this.cost = 0;
    for (let vm = 0; vm < this.problem.vms; vm++) {
      if (!this.isMoved(vm)) continue;
      this.movedCount++;
      this.movedMiB += this.problem.vmMemory[vm]!;
      this.cost += this.problem.moveCost[vm]!;
    }
  }
}

function haveInCommon({ start, of }: Groups, vm: number, other: number): boolean {
  for (let i = start[vm]!; i < start[vm + 1]!; i++) {
    for (let j = start[other]!; j < start[other + 1]!; j++) if (of[i] === of[j]) return true;
  }
  return false;
}

/** The largest of one value per host, after each change in the logarithm of their number. */
class PeakTree {
  readonly #values: Float64Array;
  readonly #leaves: number;

  constructor(hosts: number) {
    let leaves = 1;
    while (leaves < hosts) leaves *= 2;
    this.#leaves = leaves;
    this.#values = new Float64Array(2 * leaves).fill(-Infinity);
  }

  set(host: number, value: number): void {
    let node = this.#leaves + host;
    this.#values[node] = value;
    for (node >>= 1; node >= 1; node >>= 1) {
      this.#values[node] = Math.max(this.#values[2 * node]!, this.#values[2 * node + 1]!);
    }
  }

  largest(): number {
    const largest = this.#values[1]!;
    return largest === -Infinity ? 0 : largest;
  }
}
