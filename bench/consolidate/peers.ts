/**
 * The published policies, as CloudSim 3.0.3 runs them: a detector says which hosts are overloaded (static threshold, median
 * absolute deviation, interquartile range, local regression), VMs of least memory leave them (minimum migration time), each
 * goes where the power rises least (power-aware best fit), and hosts of least load are emptied where all their VMs fit
 * elsewhere. Beloglazov and Buyya, "Optimal online deterministic algorithms and adaptive heuristics...", 2012. They count
 * what CloudSim counts, quirks included; none of this is Drover's.
 *
 * Loops run over indices that are made here, which the compiler cannot see: hence `!`.
 */
import { mad, interquartileRange } from './robust.ts';
import type { Instant, Move, Policy } from './simulate.ts';
import { totalMips, wattsAt } from './world.ts';

const historyLength = 30;

/** What a detector knows of a host: demand over capacity now, and the same over the last samples, the newest first. */
interface HostLoad {
  readonly demandShare: number;
  /** Without the zeros at its old end. */
  readonly history: readonly number[];
}

type Detector = (load: HostLoad) => boolean;

const threshold =
  (limit: number): Detector =>
  ({ demandShare }) =>
    demandShare > limit;

/** Until there is enough history. */
const fallback = threshold(0.7);

const adaptiveThreshold =
  (safety: number, spread: (values: readonly number[]) => number): Detector =>
  (load) =>
    load.history.length < 12 ? fallback(load) : load.demandShare > 1 - safety * spread(load.history);

/** A straight line through the last ten samples, read one step ahead. CloudSim never applies the weights that LOESS has. */
const localRegression =
  (safety: number): Detector =>
  (load) => {
    const length = 10;
    if (load.history.length < length) return fallback(load);
    const meanX = (length + 1) / 2;
    let [meanY, xy, xx] = [0, 0, 0];
    for (let i = 0; i < length; i++) meanY += load.history[i]! / length;
    for (let i = 0; i < length; i++) {
      const x = length - i - meanX;
      xy += x * (load.history[i]! - meanY);
      xx += x * x;
    }
    return safety * (meanY + (xy / xx) * (length + 1 - meanX)) >= 1;
  };

const peer = (name: string, overloaded: Detector): Policy => ({
  name,
  firstPlacement: 'least-power',
  decide: (instant) => new PeerPlan(instant, overloaded).moves(),
});

export const peers: readonly Policy[] = [
  peer('LR-MMT 1.2', localRegression(1.2)),
  peer('IQR-MMT 1.5', adaptiveThreshold(1.5, interquartileRange)),
  peer('THR-MMT 0.8', threshold(0.8)),
  peer('MAD-MMT 2.5', adaptiveThreshold(2.5, mad)),
];

/** One decision: the hosts as they would be after the moves so far. */
class PeerPlan {
  readonly #instant: Instant;
  readonly #overloaded: Detector;
  readonly #members: number[][];
  readonly #demand: Float64Array;
  readonly #allocated: Float64Array;
  readonly #history: Float64Array;
  readonly #samples: number;
  /** Power at the instant itself: what a rise is measured from, whatever has been planned since. */
  readonly #wattsNow: readonly number[];

  constructor(instant: Instant, overloaded: Detector) {
    this.#instant = instant;
    this.#overloaded = overloaded;
    this.#samples = Math.min(historyLength, instant.step);
    this.#members = instant.members.map((vms) => [...vms]);
    this.#allocated = Float64Array.from(instant.allocated);
    const { hosts } = instant.scene;
    this.#demand = new Float64Array(hosts.length);
    this.#history = new Float64Array(hosts.length * historyLength);
    this.#wattsNow = hosts.map((host, h) => wattsAt(host, instant.allocated[h]! / totalMips(host)));
    this.#members.forEach((vms, h) => vms.forEach((vm) => this.#add(vm, h, 1)));
  }

  moves(): Move[] {
    const { hosts } = this.#instant.scene;
    const overloaded = new Set([...hosts.keys()].filter((h) => this.#isOverloaded(h)));
    const leaving = [...overloaded].flatMap((h) => this.#relieve(h));
    const moves: Move[] = [];
    for (const vm of this.#byDemand(leaving)) {
      const target = this.#bestHost(vm, overloaded);
      if (target === undefined) continue;
      this.#arrive(vm, target);
      moves.push({ vm, target });
    }
    return [...moves, ...this.#emptyHosts(overloaded)];
  }

  #emptyHosts(overloaded: ReadonlySet<number>): Move[] {
    const { allocated, scene } = this.#instant;
    const off = [...scene.hosts.keys()].filter((h) => allocated[h] === 0);
    const closed = new Set([...overloaded, ...off]);
    const considered = new Set(closed);
    const moves: Move[] = [];
    const byLoad = [...scene.hosts.keys()]
      .filter((h) => !considered.has(h))
      .toSorted((a, b) => this.#loadNow(a) - this.#loadNow(b) || a - b);
    for (const source of byLoad) {
      if (considered.has(source)) continue;
      considered.add(source);
      closed.add(source);
      const placed: Move[] = [];
      const vms = this.#byDemand(this.#members[source]!);
      for (const vm of vms) {
        const target = this.#bestHost(vm, closed);
        if (target === undefined) break;
        this.#arrive(vm, target);
        placed.push({ vm, target });
      }
      if (placed.length < vms.length) {
        for (const { vm, target } of placed) this.#leave(vm, target);
        continue;
      }
      for (const { target } of placed) considered.add(target);
      moves.push(...placed);
    }
    return moves;
  }

  #loadNow(h: number): number {
    return this.#instant.allocated[h]! / totalMips(this.#instant.scene.hosts[h]!);
  }

  #relieve(h: number): number[] {
    const { vms } = this.#instant.scene;
    const leaving: number[] = [];
    while (this.#members[h]!.length > 0 && (leaving.length === 0 || this.#isOverloaded(h))) {
      const vm = this.#members[h]!.reduce((least, each) => (vms[each]!.memoryMB < vms[least]!.memoryMB ? each : least));
      this.#leave(vm, h);
      leaving.push(vm);
    }
    return leaving;
  }

  #byDemand(vms: readonly number[]): number[] {
    return vms.toSorted((a, b) => this.#instant.demand[b]! - this.#instant.demand[a]!);
  }

  #bestHost(vm: number, closed: ReadonlySet<number>): number | undefined {
    const { hosts } = this.#instant.scene;
    const demand = this.#instant.demand[vm]!;
    let best: number | undefined;
    let least = Infinity;
    for (let h = 0; h < hosts.length; h++) {
      const host = hosts[h]!;
      const total = totalMips(host);
      if (closed.has(h) || host.coreMips < demand || total - this.#allocated[h]! < demand) continue;
      const rise = wattsAt(host, (this.#allocated[h]! + demand) / total) - this.#wattsNow[h]!;
      if (rise >= least) continue;
      if (this.#allocated[h] !== 0 && this.#overloadedWith(vm, h)) continue;
      [best, least] = [h, rise];
    }
    return best;
  }

  #overloadedWith(vm: number, h: number): boolean {
    this.#add(vm, h, 1);
    const overloaded = this.#isOverloaded(h);
    this.#add(vm, h, -1);
    return overloaded;
  }

  #isOverloaded(h: number): boolean {
    const total = totalMips(this.#instant.scene.hosts[h]!);
    let length = this.#samples;
    const at = h * historyLength;
    while (length > 0 && this.#history[at + length - 1]! < 1e-12) length--;
    return this.#overloaded({
      demandShare: this.#demand[h]! / total,
      history: Array.from({ length }, (_, i) => this.#history[at + i]!),
    });
  }

  #arrive(vm: number, h: number): void {
    this.#members[h]!.push(vm);
    this.#allocated[h]! += this.#instant.demand[vm]!;
    this.#add(vm, h, 1);
  }

  #leave(vm: number, h: number): void {
    this.#members[h]!.splice(this.#members[h]!.lastIndexOf(vm), 1);
    this.#allocated[h] = this.#members[h]!.length === 0 ? 0 : this.#allocated[h]! - this.#instant.demand[vm]!;
    this.#add(vm, h, -1);
  }

  #add(vm: number, h: number, sign: 1 | -1): void {
    const { scene, use, step, demand } = this.#instant;
    const { mips } = scene.vms[vm]!;
    const share = mips / totalMips(scene.hosts[h]!);
    this.#demand[h]! += sign * demand[vm]!;
    for (let i = 0; i < this.#samples; i++) {
      this.#history[h * historyLength + i]! += sign * use[vm * scene.trace.samples + step - i]! * share;
    }
  }
}
