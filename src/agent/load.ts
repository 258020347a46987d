/** What the host carries, once a second: its cores, its memory, its pressure, each guest's share. */
import { readFileSync } from 'node:fs';
import { cpus, totalmem } from 'node:os';
import type { GuestLoad, HostLoad } from '../model/host.ts';
import type { VmId } from '../model/ids.ts';

export interface LoadMeter {
  measure(guests: ReadonlyMap<VmId, { load(): Promise<GuestLoad> }>, now: number): Promise<HostLoad>;
}

/** @param watts of processors and memory since it was asked last; null: no meters */
export function loadMeter(watts: () => number | null): LoadMeter {
  let before = cpuTimes();
  return {
    async measure(guests, now) {
      const current = cpuTimes();
      const total = current.total - before.total;
      const cpu = total > 0 ? (current.busy - before.busy) / total : 0;
      before = current;
      const memory = meminfo();
      const loads: [VmId, GuestLoad][] = [];
      for (const [vm, guest] of guests) loads.push([vm, await guest.load()]);
      const raplWatts = watts();
      const pressure = { cpu: pressureOf('cpu'), memory: pressureOf('memory') };
      return {
        at: now,
        cpu: Math.min(1, Math.max(0, cpu)),
        memoryUsedMiB: Math.round((memory.total - memory.available) / 1024),
        memoryTotalMiB: Math.round(memory.total / 1024),
        pressure:
          pressure.cpu === undefined || pressure.memory === undefined
            ? null
            : { cpu: pressure.cpu, memory: pressure.memory },
        guests: Object.fromEntries(loads),
        ...(raplWatts !== null && { raplWatts }),
      };
    },
  };
}

/** The meter itself, and what it measured last: it counts from one asking to the next, so that nobody else may ask. */
export function remembering(meter: LoadMeter): { readonly meter: LoadMeter; readonly last: () => HostLoad | null } {
  let last: HostLoad | null = null;
  return {
    meter: { measure: async (guests, now) => (last = await meter.measure(guests, now)) },
    last: () => last,
  };
}

export function cpuModelName(): string {
  return cpus()[0]?.model ?? 'unknown';
}

export function memoryTotalMiB(): number {
  return Math.floor(totalmem() / 1024 / 1024);
}

function cpuTimes(): { busy: number; total: number } {
  const fields = (readFileSync('/proc/stat', 'utf8').split('\n')[0] ?? '').trim().split(/\s+/).slice(1, 9).map(Number);
  const total = fields.reduce((a, b) => a + b, 0);
  const idle = (fields[3] ?? 0) + (fields[4] ?? 0);
  return { busy: total - idle, total };
}

function meminfo(): { total: number; available: number } {
  const text = readFileSync('/proc/meminfo', 'utf8');
  const field = (name: string) => Number(new RegExp(`^${name}:\\s+(\\d+)`, 'm').exec(text)?.[1] ?? 0);
  return { total: field('MemTotal'), available: field('MemAvailable') };
}

/** PSI "some avg10" as a share; undefined where the kernel has none. */
function pressureOf(resource: 'cpu' | 'memory'): number | undefined {
  try {
    const match = /^some avg10=([\d.]+)/m.exec(readFileSync(`/proc/pressure/${resource}`, 'utf8'));
    return match ? Number(match[1]) / 100 : undefined;
  } catch {
    return undefined;
  }
}
