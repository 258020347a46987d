/**
 * Waves and start times for moves that are in order already: list scheduling. A host sends and receives so many at once; a VM on
 * the move holds room on both hosts; a move overtakes only those with which it has no host in common, so none waits for ever.
 */
import type { MoveForecast } from '../model/plan.ts';
import { Board } from './board.ts';
import { Heap } from './heap.ts';
import type { Step } from './order.ts';
import type { Problem } from './problem.ts';

export interface Timed {
  readonly startMs: number;
  readonly wave: number;
  readonly forecast: MoveForecast;
}

/**
 * Two moves of one wave that share a host overlap in this schedule; so a wave can also be begun at once when all lower ones
 * are done.
 * @param forecast what a step takes when its hosts are as busy as they may be
 */
export function schedule(
  problem: Problem,
  steps: readonly Step[],
  movesPerHost: number,
  forecast: (step: Step) => MoveForecast,
): Timed[] {
  return new Schedule(problem, steps, movesPerHost, forecast).run();
}

class Schedule {
  readonly #steps: readonly Step[];
  readonly #movesPerHost: number;
  readonly #forecast: (step: Step) => MoveForecast;
  readonly #room: Room;
  readonly #timed: (Timed | undefined)[];
  readonly #running = new Heap<{ index: number; endMs: number }>((a, b) => a.endMs - b.endMs || a.index - b.index);
  /** Steps that a host has still to begin, in order, and how many of them have begun. */
  readonly #ofHost: number[][];
  readonly #begun: Int32Array;
  readonly #busy: Int32Array;
  /** The highest wave of steps that are done. */
  readonly #doneWave: Int32Array;
  #now = 0;

  constructor(problem: Problem, steps: readonly Step[], movesPerHost: number, forecast: (step: Step) => MoveForecast) {
    this.#steps = steps;
    this.#movesPerHost = Math.max(1, movesPerHost);
    this.#forecast = forecast;
    this.#room = new Room(problem);
    this.#timed = steps.map(() => undefined);
    this.#ofHost = Array.from({ length: problem.hosts }, () => []);
    steps.forEach(({ from, to }, index) => {
      this.#ofHost[from]!.push(index);
      this.#ofHost[to]!.push(index);
    });
    this.#begun = new Int32Array(problem.hosts);
    this.#busy = new Int32Array(problem.hosts);
    this.#doneWave = new Int32Array(problem.hosts);
  }

  run(): Timed[] {
    this.#beginAt(this.#ofHost.map((_, host) => host));
    for (let next = this.#running.pop(); next !== undefined; next = this.#running.pop()) {
      this.#now = next.endMs;
      const hosts = new Set(this.#end(next.index));
      for (let also = this.#running.peek(); also?.endMs === this.#now; also = this.#running.peek()) {
        this.#running.pop();
        for (const host of this.#end(also.index)) hosts.add(host);
      }
      this.#beginAt([...hosts]);
    }
    return this.#timed.map((each) => {
      if (each === undefined) throw new Error('a step of a feasible order never found room');
      return each;
    });
  }

  /** Begins whatever can be begun now at these hosts, earlier steps first. */
  #beginAt(hosts: readonly number[]): void {
    const ready = new Heap<number>((a, b) => a - b);
    const look = (host: number): void => {
      const index = this.#ofHost[host]![this.#begun[host]!];
      if (index !== undefined) ready.push(index);
    };
    for (const host of hosts) look(host);
    for (let index = ready.pop(); index !== undefined; index = ready.pop()) {
      if (this.#timed[index] !== undefined || !this.#canBegin(index)) continue;
      this.#begin(index);
      look(this.#steps[index]!.from);
      look(this.#steps[index]!.to);
    }
  }

  #canBegin(index: number): boolean {
    const step = this.#steps[index]!;
    for (const host of [step.from, step.to]) {
      if (this.#ofHost[host]![this.#begun[host]!] !== index || this.#busy[host]! >= this.#movesPerHost) return false;
    }
    return this.#room.takes(step);
  }

  #begin(index: number): void {
    const step = this.#steps[index]!;
    const forecast = this.#forecast(step);
    const wave = 1 + Math.max(this.#doneWave[step.from]!, this.#doneWave[step.to]!);
    this.#timed[index] = { startMs: this.#now, wave, forecast };
    this.#room.begin(step);
    for (const host of [step.from, step.to]) {
      this.#begun[host]!++;
      this.#busy[host]!++;
    }
    this.#running.push({ index, endMs: this.#now + Math.max(1, forecast.totalMs) });
  }

  #end(index: number): readonly [number, number] {
    const step = this.#steps[index]!;
    this.#room.end(step);
    for (const host of [step.from, step.to]) {
      this.#busy[host]!--;
      this.#doneWave[host] = Math.max(this.#doneWave[host]!, this.#timed[index]!.wave);
    }
    return [step.from, step.to];
  }
}

/** Sums made in another order differ by less. */
const rounding = 1e-6;

/** What hosts hold while VMs are on the move: on the target from the first moment, on the source until the last. */
class Room {
  readonly #board: Board;
  readonly #memory: Float64Array;
  readonly #vcpus: Float64Array;
  readonly #cpu: Float64Array;
  /** VMs that are leaving a host and still there. */
  readonly #leaving = new Map<number, Set<number>>();
  readonly #moving = new Set<number>();

  constructor(problem: Problem) {
    this.#board = new Board({ ...problem, start: problem.home });
    this.#memory = new Float64Array(problem.hosts);
    this.#vcpus = new Float64Array(problem.hosts);
    this.#cpu = new Float64Array(problem.hosts);
  }

  takes({ vm, to }: Step): boolean {
    const { problem, memory, vcpus, cpu } = this.#board;
    return (
      !this.#moving.has(vm) &&
      memory[to]! + this.#memory[to]! + problem.vmMemory[vm]! <= problem.memoryCap[to]! + rounding &&
      vcpus[to]! + this.#vcpus[to]! + problem.vmVcpus[vm]! <= problem.vcpuCap[to]! + rounding &&
      cpu[to]! + this.#cpu[to]! + problem.vmCpu[vm]! <= problem.cpuCap[to]! + rounding &&
      !this.#board.meetsRival(vm, to) &&
      ![...(this.#leaving.get(to) ?? [])].some((other) => this.#areRivals(vm, other))
    );
  }

  /** From now on the board has it at the target; what it still holds at the source is kept beside. */
  begin({ vm, from, to }: Step): void {
    this.#moving.add(vm);
    this.#hold(vm, from, 1);
    const leaving = this.#leaving.get(from) ?? new Set<number>();
    this.#leaving.set(from, leaving.add(vm));
    this.#board.move(vm, to);
  }

  end({ vm, from }: Step): void {
    this.#hold(vm, from, -1);
    this.#leaving.get(from)?.delete(vm);
    this.#moving.delete(vm);
  }

  #areRivals(vm: number, other: number): boolean {
    const { start, of } = this.#board.problem.apart;
    const mine = of.subarray(start[vm], start[vm + 1]);
    return of.subarray(start[other], start[other + 1]).some((group) => mine.includes(group));
  }

  #hold(vm: number, host: number, sign: number): void {
    const { vmMemory, vmVcpus, vmCpu } = this.#board.problem;
    this.#memory[host]! += sign * vmMemory[vm]!;
    this.#vcpus[host]! += sign * vmVcpus[vm]!;
    this.#cpu[host]! += sign * vmCpu[vm]!;
  }
}
