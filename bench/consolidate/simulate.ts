/**
 * One day of a fleet whose VMs follow a trace while a policy moves them: energy, migrations and broken promises, by the
 * rules of CloudSim 3.0.3 with its power package, so that the figures can be put beside published ones. Among them are
 * rules that only matter for that: memory and bandwidth bind at midnight only, a VM whose demand is exactly zero leaves
 * for good (unless `stay`), an empty host is off, and switching takes no time. Who decides is in peers.ts and drover.ts.
 *
 * Loops run over indices that are made here, which the compiler cannot see: hence `!`.
 */
import { placeAtMidnight, totalMips, wattsAt, type FirstPlacement, type Scene } from './world.ts';

export const stepSeconds = 300;
/** CloudSim's clock is late by this much: its first event after midnight. */
const clockOffset = 0.1;
/** Half of the network is for migrations. */
const migrationMBPerSecond = 62.5;
const sourcePenalty = 0.1;
const targetShare = 0.1;
const tolerance = 1e-6;

export interface Move {
  readonly vm: number;
  readonly target: number;
}

/** The fleet at a control instant, as a policy sees it. The arrays belong to the simulator. */
export interface Instant {
  readonly scene: Scene;
  /** 1, 2, … at 5, 10, … minutes after midnight. */
  readonly step: number;
  /** VMs of each host, in the order in which they came. */
  readonly members: readonly (readonly number[])[];
  /** MIPS that each VM asks for now. */
  readonly demand: Float64Array;
  /** MIPS handed out by each host now. */
  readonly allocated: Float64Array;
  /** 0..1 of each VM's own size at past control instants: `use[vm * samples + step]`, from step 1 up to now. */
  readonly use: Float64Array;
}

export interface Policy {
  readonly name: string;
  readonly firstPlacement: FirstPlacement;
  /** A VM may be named more than once (peers do): each counts, the last one is where it goes. */
  decide(instant: Instant): readonly Move[];
}

export interface DayFigures {
  readonly kWh: number;
  readonly migrations: number;
  /** Share of the time of active hosts in which they gave less than was asked. */
  readonly slatah: number;
  /** Share of all work that migrations kept from VMs. */
  readonly pdm: number;
  /** What the same work would take on the most efficient hosts, all full: less is not possible. */
  readonly leastKWh: number;
  /** Hosts that were on, mean over the day. */
  readonly hostsOn: number;
  /** Times that a host which was off was switched on. */
  readonly wakes: number;
  readonly planningSeconds: number;
}

export interface SimulateOptions {
  readonly stay: boolean;
  /** Seconds, to measure how long the policy thinks. */
  readonly clock: () => number;
}

export function slav({ slatah, pdm }: Pick<DayFigures, 'slatah' | 'pdm'>): number {
  return slatah * pdm;
}

interface Flight {
  readonly vm: number;
  readonly source: number;
  readonly target: number;
  readonly end: number;
}

export function simulateDay(scene: Scene, policy: Policy, { stay, clock }: SimulateOptions): DayFigures {
  const day = new SimulatedDay(scene, placeAtMidnight(scene, policy.firstPlacement), stay);
  let planning = 0;
  for (let step = 1; step < scene.trace.samples; step++) {
    const now = clockOffset + step * stepSeconds;
    day.advance(now);
    const began = clock();
    const moves = policy.decide(day.observe(step));
    planning += clock() - began;
    day.begin(moves);
    for (const end of day.ends()) day.advance(end);
  }
  return day.figures(planning);
}

class SimulatedDay {
  readonly #scene: Scene;
  readonly #stay: boolean;
  readonly #members: number[][];
  readonly #incoming: number[][];
  /** In the order in which they were wanted; they outlive no control interval. */
  #flights: Flight[] = [];
  readonly #moving: Uint8Array;
  readonly #demand: Float64Array;
  readonly #given: Float64Array;
  readonly #allocated: Float64Array;
  readonly #requested: Float64Array;
  readonly #use: Float64Array;
  #now = clockOffset;
  #joules = 0;
  #migrations = 0;
  #wakes = 0;
  #activeSeconds = 0;
  #shortSeconds = 0;
  #requestedWork = 0;
  #keptBack = 0;

  constructor(scene: Scene, first: Int32Array, stay: boolean) {
    this.#scene = scene;
    this.#stay = stay;
    this.#members = scene.hosts.map(() => []);
    this.#incoming = scene.hosts.map(() => []);
    this.#moving = new Uint8Array(scene.vms.length);
    this.#demand = new Float64Array(scene.vms.length);
    this.#given = new Float64Array(scene.vms.length);
    this.#allocated = new Float64Array(scene.hosts.length);
    this.#requested = new Float64Array(scene.hosts.length);
    this.#use = new Float64Array(scene.vms.length * scene.trace.samples);
    first.forEach((host, vm) => this.#members[host]!.push(vm));
  }

  /** To `now`: what was drawn and missed until then, VMs that left, moves that ended, and how the CPU is shared after it. */
  advance(now: number): void {
    const seconds = now - this.#now;
    this.#chargeWork(seconds);
    const before = Float64Array.from(this.#allocated);
    const requested = Float64Array.from(this.#requested);
    this.#share(now);
    for (const [h, host] of this.#scene.hosts.entries()) {
      if (before[h] === 0) continue;
      const total = totalMips(host);
      const watts = wattsAt(host, before[h]! / total) + wattsAt(host, this.#allocated[h]! / total);
      this.#joules += (watts / 2) * seconds;
      this.#activeSeconds += seconds;
      if (before[h]! < requested[h]! - tolerance) this.#shortSeconds += seconds;
    }
    this.#now = now;
    this.#settle(now);
  }

  observe(step: number): Instant {
    const { samples } = this.#scene.trace;
    for (let v = 0; v < this.#demand.length; v++) {
      this.#use[v * samples + step] = this.#demand[v]! / this.#scene.vms[v]!.mips;
    }
    return {
      scene: this.#scene,
      step,
      members: this.#members,
      demand: this.#demand,
      allocated: this.#allocated,
      use: this.#use,
    };
  }

  begin(moves: readonly Move[]): void {
    this.#migrations += moves.length;
    const sourceOf = new Map(this.#members.flatMap((vms, host) => vms.map((vm): [number, number] => [vm, host])));
    for (const { vm, target } of moves) {
      const source = sourceOf.get(vm);
      if (source === undefined) throw new Error(`VM ${vm} is on no host and cannot be moved`);
      if (source === target) throw new Error(`VM ${vm} is on host ${target} already`);
      this.#flights.push({ vm, source, target, end: this.#now + this.#scene.vms[vm]!.memoryMB / migrationMBPerSecond });
      this.#moving[vm] = 1;
      if (this.#members[target]!.length + this.#incoming[target]!.length === 0) this.#wakes++;
      this.#incoming[target]!.push(vm);
    }
    if (moves.length > 0) this.#share(this.#now);
  }

  /** When moves under way end, in order. */
  ends(): number[] {
    return [...new Set(this.#flights.map(({ end }) => end))].toSorted((a, b) => a - b);
  }

  figures(planningSeconds: number): DayFigures {
    const joulesPerWork = Math.min(...this.#scene.hosts.map((host) => wattsAt(host, 1) / totalMips(host)));
    return {
      kWh: this.#joules / 3.6e6,
      leastKWh: (this.#requestedWork * joulesPerWork) / 3.6e6,
      migrations: this.#migrations,
      slatah: this.#activeSeconds > 0 ? this.#shortSeconds / this.#activeSeconds : 0,
      pdm: this.#requestedWork > 0 ? this.#keptBack / this.#requestedWork : 0,
      hostsOn: this.#activeSeconds / ((this.#scene.trace.samples - 1) * stepSeconds),
      wakes: this.#wakes,
      planningSeconds,
    };
  }

  /** The trace is linear between its samples; after the last one it stays. */
  #demandAt(vm: number, now: number): number {
    const { percent, samples } = this.#scene.trace;
    const at = now / stepSeconds;
    const k = Math.min(Math.floor(at), samples - 1);
    const from = percent[vm * samples + k]!;
    const to = percent[vm * samples + Math.min(k + 1, samples - 1)]!;
    return ((from + (to - from) * (at - k)) / 100) * this.#scene.vms[vm]!.mips;
  }

  /** Each host's CPU among its VMs: in full, or all cut by the same factor where it does not suffice. */
  #share(now: number): void {
    const { hosts } = this.#scene;
    for (let h = 0; h < hosts.length; h++) {
      const members = this.#members[h]!;
      const incoming = this.#incoming[h]!;
      const { coreMips } = hosts[h]!;
      const total = totalMips(hosts[h]!);
      let need = 0;
      let requested = 0;
      for (const vm of members) {
        const demand = this.#demandAt(vm, now);
        this.#demand[vm] = demand;
        requested += demand;
        need += Math.min(demand, coreMips);
      }
      for (const vm of incoming) {
        const demand = this.#demandAt(vm, now);
        requested += demand;
        need += targetShare * Math.min(demand, coreMips);
      }
      const scale = need > total ? total / need : 1;
      const cut = (mips: number): number => (scale === 1 ? mips : Math.floor(mips * scale));
      let allocated = 0;
      for (const vm of members) {
        const share = cut(Math.min(this.#demand[vm]!, coreMips));
        this.#given[vm] = this.#moving[vm] ? share * (1 - sourcePenalty) : share;
        allocated += share;
      }
      for (const vm of incoming) allocated += cut(targetShare * Math.min(this.#demandAt(vm, now), coreMips));
      this.#requested[h] = requested;
      this.#allocated[h] = allocated;
    }
  }

  /** Of the time that ends now, by the shares that held in it. */
  #chargeWork(seconds: number): void {
    for (const members of this.#members) {
      for (const vm of members) {
        this.#requestedWork += this.#demand[vm]! * seconds;
        if (this.#moving[vm]) this.#keptBack += (this.#demand[vm]! - this.#given[vm]!) * seconds;
      }
    }
  }

  #settle(now: number): void {
    if (!this.#stay) {
      for (const [h, members] of this.#members.entries()) {
        const staying = members.filter((vm) => this.#demand[vm] !== 0 || this.#moving[vm] === 1);
        if (staying.length < members.length) this.#members[h] = staying;
      }
    }
    const ended = this.#flights.filter(({ end }) => end <= now);
    if (ended.length === 0) return;
    this.#flights = this.#flights.filter(({ end }) => end > now);
    const arrivals = new Map(ended.map((flight): [number, Flight] => [flight.vm, flight]));
    for (const { vm, target } of ended) without(this.#incoming[target]!, vm);
    for (const [vm, { source, target }] of arrivals) {
      this.#moving[vm] = 0;
      without(this.#members[source]!, vm);
      this.#members[target]!.push(vm);
    }
    this.#share(now);
  }
}

function without(vms: number[], vm: number): void {
  vms.splice(vms.indexOf(vm), 1);
}
