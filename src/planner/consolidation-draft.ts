/**
 * A consolidation plan in the making: the fleet as it would be after the moves so far. First hosts that will be overloaded
 * are relieved by few moves, then hosts are emptied as a whole or not at all. What the settings mean is in consolidation.ts.
 *
 * No host is both left and entered by one plan, and each move is checked against all that came before it: every beginning
 * of the plan holds what the whole one promises.
 *
 * Loops run over indices that are made here, which the compiler cannot see: hence `!`.
 */
import { DemandForecast, HostForecast } from './consolidation-forecast.ts';
import type {
  ConsolidationFleet,
  ConsolidationHost,
  ConsolidationMove,
  ConsolidationPlan,
  ConsolidationSettings,
  ConsolidationVm,
} from './consolidation.ts';

/** Differences below this come from rounding. */
const tolerance = 1e-9;
/** VMs tried for one relief; hosts in a row that could not be emptied before the rest is left alone: it is harder still. */
const reliefTries = 8;
const emptyTries = 64;
/** For what is shown: 95 % of the time. */
const shownDeviations = 1.64;

export class ConsolidationDraft {
  readonly #hosts: readonly ConsolidationHost[];
  readonly #vms: readonly ConsolidationVm[];
  readonly #rules: Pick<ConsolidationFleet, 'mayRun' | 'carried' | 'mayRest' | 'kept'>;
  readonly #settings: ConsolidationSettings;
  readonly #forecast: DemandForecast;
  readonly #load: HostForecast;
  readonly #hostOf: Int32Array;
  readonly #planned = (vm: number): number => this.#hostOf[vm]!;
  readonly #members: readonly Set<number>[];
  readonly #memoryMiB: Float64Array;
  readonly #moves: ConsolidationMove[] = [];
  readonly #woken = new Set<number>();
  /** Emptied, or empty and not needed. */
  readonly #sleep = new Set<number>();
  readonly #sources = new Set<number>();
  readonly #targets = new Set<number>();
  /** Of the hosts that stay on, together. */
  #roomCapacity = 0;
  #roomMemoryMiB = 0;

  constructor(fleet: ConsolidationFleet, settings: ConsolidationSettings) {
    const { hosts, vms } = fleet;
    this.#hosts = hosts;
    this.#vms = vms;
    this.#rules = fleet;
    this.#settings = settings;
    this.#forecast = new DemandForecast(vms, settings.window);
    this.#load = new HostForecast(this.#forecast, hosts.length);
    this.#hostOf = new Int32Array(vms.length);
    this.#members = hosts.map(() => new Set());
    this.#memoryMiB = new Float64Array(hosts.length);
    vms.forEach(({ host }, vm) => this.#put(vm, host));
    for (const [h, { state, capacity, memoryMiB }] of hosts.entries()) {
      if (state !== 'on') continue;
      this.#roomCapacity += capacity - this.#load.mean(h);
      this.#roomMemoryMiB += memoryMiB - this.#memoryMiB[h]!;
    }
  }

  plan(): ConsolidationPlan {
    const idle = [...this.#hosts.keys()].filter((h) => this.#isOn(h) && this.#members[h]!.size === 0);
    for (const h of idle.toSorted((a, b) => this.#byPrice(b, a) || a - b)) {
      if (!this.#sleeps(h)) continue;
      if (this.#maySleep(h) && this.#mayRest(h)) this.#letSleep(h);
      else this.#rules.kept?.(h, 'needed');
    }
    const sleep = [...this.#sleep].filter((h) => this.#sleeps(h));
    return { moves: this.#moves, sleep, wake: [...this.#woken] };
  }

  /** Moves VMs off hosts whose load will pass their capacity too often; wakes a host where no other has room. */
  relieve(): void {
    const { relieveDeviations, fillDeviations } = this.#settings;
    const overloaded = [...this.#hosts.keys()]
      .filter((h) => this.#isOn(h) && this.#members[h]!.size > 1)
      .map((h) => ({ h, excess: this.#load.bound(h, relieveDeviations) / this.#hosts[h]!.capacity }))
      .filter(({ excess }) => excess > 1 + tolerance)
      .toSorted((a, b) => b.excess - a.excess || a.h - b.h);
    for (const { h } of overloaded) this.#sources.add(h);
    for (const { h } of overloaded) {
      // One VM alone is nowhere better off.
      while (this.#members[h]!.size > 1 && this.#load.bound(h, fillDeviations) > this.#hosts[h]!.capacity) {
        if (!this.#relieveByOne(h)) break;
      }
    }
  }

  /** Empties hosts: those first that make least of their power, and of equals those where a move saves most. */
  empty(): void {
    const { payBackSeconds } = this.#settings;
    const { kept } = this.#rules;
    const inUse = [...this.#hosts.keys()]
      .filter((h) => this.#isOn(h) && this.#members[h]!.size > 0 && this.#hosts[h]!.empty !== 'kept')
      .map((h) => ({ h, joules: this.#joulesToEmpty(h), watts: this.#hosts[h]!.watts[0] ?? 0 }));
    const isWorth = ({ joules, watts }: { joules: number; watts: number }): boolean => joules < watts * payBackSeconds;
    if (kept) {
      for (const each of inUse) if (!isWorth(each)) kept(each.h, each.joules === Infinity ? 'held' : 'not-worth');
    }
    const candidates = inUse
      .filter(isWorth)
      .toSorted(
        (a, b) =>
          Number(this.#sleeps(b.h)) - Number(this.#sleeps(a.h)) ||
          this.#byPrice(b.h, a.h) ||
          a.joules / a.watts - b.joules / b.watts ||
          a.h - b.h,
      );
    let failures = 0;
    for (const { h, joules } of candidates) {
      if (this.#targets.has(h) || !this.#maySleep(h)) {
        kept?.(h, this.#targets.has(h) ? 'taken' : 'needed');
        continue;
      }
      const isEmptied = failures < emptyTries && this.#tryToEmpty(h, joules);
      if (!isEmptied) kept?.(h, 'no-place');
      failures = isEmptied ? 0 : failures + 1;
    }
  }

  #relieveByOne(source: number): boolean {
    const { reliefDwell, fillDeviations, maxMoves } = this.#settings;
    if (this.#moves.length >= maxMoves) return false;
    const { capacity } = this.#hosts[source]!;
    const ranked = [...this.#members[source]!]
      .filter((vm) => this.#vms[vm]!.stays !== true && this.#vms[vm]!.movedAgo >= reliefDwell)
      .map((vm) => ({ vm, left: this.#load.boundWithout(source, vm, fillDeviations) }))
      .toSorted((a, b) => this.#byRelief(a, b, capacity))
      .slice(0, reliefTries);
    const awake = (h: number): boolean => this.#isOn(h) && !this.#sources.has(h);
    if (this.#relieveTo(source, ranked, awake)) return true;
    const isWorthAWake = this.#load.bound(source, this.#settings.wakeDeviations) > capacity;
    return isWorthAWake && this.#relieveTo(source, ranked, (h) => this.#hosts[h]!.state === 'asleep' && !this.#isOn(h));
  }

  #relieveTo(source: number, ranked: readonly { vm: number }[], isCandidate: (host: number) => boolean): boolean {
    for (const { vm } of ranked) {
      const target = this.#bestTarget(vm, isCandidate);
      if (target === undefined) continue;
      const { capacity } = this.#hosts[source]!;
      const reason = {
        kind: 'overload',
        load: this.#load.mean(source) / capacity,
        peak: this.#load.bound(source, shownDeviations) / capacity,
      } as const;
      if (!this.#isOn(target)) this.#wake(target);
      this.#carry(vm, target);
      this.#targets.add(target);
      this.#moves.push({ vm, source, target, reason });
      return true;
    }
    return false;
  }

  /** First the VMs that suffice alone, of these the one that is moved most easily; else what helps most. */
  #byRelief(a: { vm: number; left: number }, b: { vm: number; left: number }, capacity: number): number {
    const [suffices, too] = [a.left <= capacity, b.left <= capacity];
    if (suffices !== too) return suffices ? -1 : 1;
    if (!suffices) return a.left - b.left || a.vm - b.vm;
    return this.#vms[a.vm]!.memoryMiB - this.#vms[b.vm]!.memoryMiB || b.left - a.left || a.vm - b.vm;
  }

  /** All of its VMs, or none. */
  #tryToEmpty(source: number, joulesSpent: number): boolean {
    const { maxMoves, payBackSeconds } = this.#settings;
    const members = this.#members[source]!;
    if (this.#moves.length + members.size > maxMoves) return false;
    const { mean } = this.#forecast;
    const placed: { readonly vm: number; readonly target: number }[] = [];
    let wattsSaved = this.#watts(source);
    for (const vm of [...members].toSorted((a, b) => mean[b]! - mean[a]! || a - b)) {
      const target = this.#bestTarget(
        vm,
        (h) => h !== source && this.#isOn(h) && this.#members[h]!.size > 0 && !this.#sources.has(h),
      );
      if (target === undefined) break;
      wattsSaved += this.#watts(target);
      this.#carry(vm, target);
      wattsSaved -= this.#watts(target);
      placed.push({ vm, target });
    }
    if (members.size > 0 || wattsSaved * payBackSeconds <= joulesSpent || !this.#mayRest(source)) {
      for (const { vm } of placed) this.#carry(vm, source);
      return false;
    }
    for (const { vm, target } of placed) {
      this.#moves.push({ vm, source, target, reason: { kind: 'empties-host', wattsSaved, joulesSpent } });
      this.#targets.add(target);
    }
    this.#sources.add(source);
    this.#letSleep(source);
    return true;
  }

  #joulesToEmpty(h: number): number {
    const { dwell, joulesPerMove, joulesPerMiB } = this.#settings;
    let joules = 0;
    for (const vm of this.#members[h]!) {
      const { movedAgo, memoryMiB, stays } = this.#vms[vm]!;
      if (stays === true || movedAgo < dwell) return Infinity;
      joules += joulesPerMove + joulesPerMiB * memoryMiB;
    }
    return joules;
  }

  /** Of those with room: what makes most of its power, then what is filled best by it. */
  #bestTarget(vm: number, isCandidate: (host: number) => boolean): number | undefined {
    const { fillDeviations } = this.#settings;
    const { memoryMiB, size } = this.#vms[vm]!;
    let best: number | undefined;
    let [bestPrice, bestRoom] = [Infinity, Infinity];
    for (let h = 0; h < this.#hosts.length; h++) {
      const host = this.#hosts[h]!;
      if (size > host.capacity || this.#memoryMiB[h]! + memoryMiB > host.memoryMiB || !isCandidate(h)) continue;
      const price = priceOf(host);
      if (price > bestPrice + tolerance || this.#load.mean(h) + this.#forecast.mean[vm]! > host.capacity) continue;
      const room = host.capacity - this.#load.boundWith(h, vm, fillDeviations);
      if (room < 0 || (price > bestPrice - tolerance && room >= bestRoom)) continue;
      if (this.#rules.mayRun?.(vm, h, this.#planned) === false) continue;
      [best, bestPrice, bestRoom] = [h, price, room];
    }
    return best;
  }

  #isOn(h: number): boolean {
    return (this.#hosts[h]!.state === 'on' || this.#woken.has(h)) && !this.#sleep.has(h);
  }

  #byPrice(a: number, b: number): number {
    const difference = priceOf(this.#hosts[a]!) - priceOf(this.#hosts[b]!);
    return Math.abs(difference) < tolerance ? 0 : difference;
  }

  /** Its load stays in the fleet, so all of its capacity goes. */
  #maySleep(h: number): boolean {
    if (!this.#sleeps(h)) return true;
    const { capacity, memoryMiB } = this.#hosts[h]!;
    const { spareCapacity, spareMemoryMiB } = this.#settings;
    return this.#roomCapacity - capacity >= spareCapacity && this.#roomMemoryMiB - memoryMiB >= spareMemoryMiB;
  }

  #sleeps(h: number): boolean {
    return (this.#hosts[h]!.empty ?? 'sleeps') === 'sleeps';
  }

  #mayRest(h: number): boolean {
    return this.#rules.mayRest?.(h) ?? true;
  }

  #letSleep(h: number): void {
    this.#sleep.add(h);
    if (!this.#sleeps(h)) return;
    this.#roomCapacity -= this.#hosts[h]!.capacity;
    this.#roomMemoryMiB -= this.#hosts[h]!.memoryMiB;
  }

  #wake(h: number): void {
    this.#woken.add(h);
    this.#roomCapacity += this.#hosts[h]!.capacity;
    this.#roomMemoryMiB += this.#hosts[h]!.memoryMiB;
  }

  /** Expected draw of a host that is on; an empty one shall sleep. */
  #watts(h: number): number {
    if (this.#members[h]!.size === 0) return 0;
    const { watts, capacity } = this.#hosts[h]!;
    const steps = watts.length - 1;
    const at = Math.min(1, this.#load.mean(h) / capacity) * steps;
    const below = Math.max(0, Math.min(Math.floor(at), steps - 1));
    const from = watts[below] ?? 0;
    return from + ((watts[below + 1] ?? from) - from) * (at - below);
  }

  #carry(vm: number, host: number): void {
    const source = this.#hostOf[vm]!;
    this.#members[source]!.delete(vm);
    this.#memoryMiB[source]! -= this.#vms[vm]!.memoryMiB;
    this.#load.remove(source, vm);
    this.#put(vm, host);
    this.#rules.carried?.(vm, host);
  }

  #put(vm: number, host: number): void {
    this.#hostOf[vm] = host;
    this.#members[host]!.add(vm);
    this.#memoryMiB[host]! += this.#vms[vm]!.memoryMiB;
    this.#load.add(host, vm);
  }
}

/** Watts for a unit of work, when fully used. */
export function priceOf({ watts, capacity }: ConsolidationHost): number {
  return (watts.at(-1) ?? 0) / capacity;
}
