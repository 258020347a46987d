/**
 * What hosts and guests carry, smoothed: single samples decide nothing. In memory only and of fixed size for each host and
 * guest: a new server has seen nothing, says so, and decides nothing by load until it has.
 *
 * A quantity is an exponential mean with the time constant `smoothingMs`, weighted by what was really seen, so that it is right
 * from the first sample on; its spread is the mean distance from that, which one wild sample moves little (unlike a variance).
 *
 * Not here: the newest report (liveness.ts), and what follows from load (distributor.ts).
 */
import type { GuestLoad, HostLoad } from '../model/host.ts';
import type { HostId, VmId } from '../model/ids.ts';
import { LoadTrace, type TraceSample } from './load-trace.ts';

/** What was a minute ago counts 1/e of what is now. */
export const smoothingMs = 60_000;
/** Before that much was seen of a host its load decides nothing. */
export const enoughMs = 30_000;
/** A sample stands for the time since the one before it, but not for a long silence: as long as reports are a second apart. */
const usualLongestStepMs = 5_000;
/** Of means that are kept of a guest: two hours of them. */
const meanOverMs = 300_000;
const meansKept = 24;

export interface Smoothed {
  readonly value: number;
  /** Mean distance of samples from it. */
  readonly spread: number;
}

class Quantity implements Smoothed {
  value = 0;
  spread = 0;
  #weight = 0;

  add(sample: number, stepMs: number, overMs: number): void {
    if (!Number.isFinite(sample)) return;
    const share = 1 - Math.exp(-stepMs / overMs);
    const isFirst = this.#weight === 0;
    this.#weight = this.#weight * (1 - share) + share;
    const step = share / this.#weight;
    const distance = isFirst ? 0 : Math.abs(sample - this.value);
    this.value += step * (sample - this.value);
    this.spread += step * (distance - this.spread);
  }
}

class HostSeen {
  readonly cpu = new Quantity();
  readonly memoryUsedMiB = new Quantity();
  readonly cpuPressure = new Quantity();
  readonly memoryPressure = new Quantity();
  readonly cpuTrace = new LoadTrace();
  /** Monotonic. */
  lastAt = -Infinity;
  seenMs = 0;
}

/** Means over five minutes each of what was seen, the newest last; what is not over yet is not among them. */
class Means {
  readonly kept: number[] = [];
  #sum = 0;
  #ms = 0;

  add(sample: number, stepMs: number): void {
    if (!Number.isFinite(sample)) return;
    this.#sum += sample * stepMs;
    this.#ms += stepMs;
    if (this.#ms < meanOverMs) return;
    this.kept.push(this.#sum / this.#ms);
    if (this.kept.length > meansKept) this.kept.shift();
    this.#sum = this.#ms = 0;
  }
}

class GuestSeen {
  readonly cpuCores = new Quantity();
  readonly cpuMeans = new Means();
  readonly cpuTrace = new LoadTrace();
  readonly memoryMiB = new Quantity();
  readonly diskBytesPerSecond = new Quantity();
  readonly netBytesPerSecond = new Quantity();
}

export type SmoothedHost = { readonly [K in 'cpu' | 'memoryUsedMiB' | 'cpuPressure' | 'memoryPressure']: Smoothed };
export type SmoothedGuest = {
  readonly [K in 'cpuCores' | 'memoryMiB' | 'diskBytesPerSecond' | 'netBytesPerSecond']: Smoothed;
};

export class LoadHistory {
  readonly #hosts = new Map<HostId, HostSeen>();
  readonly #guests = new Map<VmId, GuestSeen>();
  readonly #longestStepMs: number;
  readonly #smoothingMs: number;

  /** Left out: as it is right for reports each second. */
  constructor(options: { readonly longestStepMs?: number; readonly smoothingMs?: number } = {}) {
    this.#longestStepMs = options.longestStepMs ?? usualLongestStepMs;
    this.#smoothingMs = options.smoothingMs ?? smoothingMs;
  }

  /**
   * @param now monotonic
   * @param runsHere of a VM on the move two hosts speak: only the one that runs it is heard
   */
  observe(host: HostId, load: HostLoad, now: number, runsHere: (vm: VmId) => boolean): void {
    const seen = entry(this.#hosts, host, HostSeen);
    const isFirst = seen.lastAt === -Infinity;
    const stepMs = isFirst ? 1_000 : Math.min(this.#longestStepMs, now - seen.lastAt);
    if (stepMs <= 0) return;
    seen.lastAt = now;
    seen.seenMs += isFirst ? 0 : stepMs;
    seen.cpu.add(load.cpu, stepMs, this.#smoothingMs);
    seen.cpuTrace.add(load.cpu, stepMs, now);
    seen.memoryUsedMiB.add(load.memoryUsedMiB, stepMs, this.#smoothingMs);
    if (load.pressure !== null) {
      seen.cpuPressure.add(load.pressure.cpu, stepMs, this.#smoothingMs);
      seen.memoryPressure.add(load.pressure.memory, stepMs, this.#smoothingMs);
    }
    // The cast: keys of a record of VMs are their ids.
    for (const [vm, guest] of Object.entries(load.guests) as [VmId, GuestLoad][]) {
      if (!runsHere(vm)) continue;
      const of = entry(this.#guests, vm, GuestSeen);
      of.cpuCores.add(guest.cpuCores, stepMs, this.#smoothingMs);
      of.cpuMeans.add(guest.cpuCores, stepMs);
      of.cpuTrace.add(guest.cpuCores, stepMs, now);
      of.memoryMiB.add(guest.memoryResidentMiB, stepMs, this.#smoothingMs);
      of.diskBytesPerSecond.add(
        guest.diskReadBytesPerSecond + guest.diskWriteBytesPerSecond,
        stepMs,
        this.#smoothingMs,
      );
      of.netBytesPerSecond.add(guest.netReceiveBytesPerSecond + guest.netSendBytesPerSecond, stepMs, this.#smoothingMs);
    }
  }

  hostOf(host: HostId): SmoothedHost | undefined {
    return this.#hosts.get(host);
  }

  guestOf(vm: VmId): SmoothedGuest | undefined {
    return this.#guests.get(vm);
  }

  /** CPU of the last two hours: means of five minutes each, the newest last. */
  recentCpuCores(vm: VmId): readonly number[] {
    return this.#guests.get(vm)?.cpuMeans.kept ?? [];
  }

  /** Share of its cores over the last hour, for charts. @param now monotonic */
  cpuOfHost(host: HostId, now: number): TraceSample[] {
    return this.#hosts.get(host)?.cpuTrace.samples(now) ?? [];
  }

  /** Cores in use over the last hour, for charts. @param now monotonic */
  cpuOfGuest(vm: VmId, now: number): TraceSample[] {
    return this.#guests.get(vm)?.cpuTrace.samples(now) ?? [];
  }

  /** For how long the host's load has been seen, gaps left out. */
  seenMs(host: HostId): number {
    return this.#hosts.get(host)?.seenMs ?? 0;
  }

  /** Drops what is not there any more, as soon as more is kept than is there. */
  keepOnly(hosts: ReadonlyMap<HostId, unknown>, vms: ReadonlyMap<VmId, unknown>): void {
    dropMissing(this.#hosts, hosts);
    dropMissing(this.#guests, vms);
  }
}

/** No id is ever used again: what is left over for a while does no harm, and looking for it in a large fleet takes its time. */
function dropMissing<K>(kept: Map<K, unknown>, there: ReadonlyMap<K, unknown>): void {
  if (kept.size <= there.size) return;
  for (const id of kept.keys()) if (!there.has(id)) kept.delete(id);
}

function entry<K, V>(map: Map<K, V>, key: K, make: new () => V): V {
  let found = map.get(key);
  if (found === undefined) {
    found = new make();
    map.set(key, found);
  }
  return found;
}
