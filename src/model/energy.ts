/** Energy of hosts and VMs: how it is known, how it is shared out, and what is kept of it. Pure. */
import type { HostId, VmId } from './ids.ts';
import type { WattsModel } from './sleep.ts';

/**
 * `bmc`: the whole machine, measured. `rapl`: its processors and memory, measured; fans, disks and losses are missing. `model`: worked
 * out from its load.
 */
export const wattsSources = ['bmc', 'rapl', 'model'] as const;
export type WattsSource = (typeof wattsSources)[number];

/** One host on one day (UTC), written every five minutes. */
export interface EnergyRecord {
  readonly schema: 1;
  /** 2026-03-01 */
  readonly day: string;
  readonly host: HostId;
  readonly hostName: string;
  /** Used, by how it is known. */
  readonly wh: Readonly<Record<WattsSource, number>>;
  /** Not used because it slept: what it draws idle, for that time. */
  readonly savedWh: number;
  readonly awakeMs: number;
  readonly asleepMs: number;
  /** What it draws with little to do, as learned; null: never measured. */
  readonly idleWatts: number | null;
  /** Name and Wh of each VM that ran there. */
  readonly vms: Readonly<Record<VmId, readonly [string, number]>>;
}

/** Where nobody has said what a host draws: a machine with few parts, and cores of a server. */
export function defaultWatts(cpus: number): WattsModel {
  return { idle: 40 + 2 * cpus, max: 40 + 8 * cpus };
}

/**
 * Watts at a load of 0..1: idle + (max - idle) * (2u - u^1.4), as measured on thousands of machines by Fan, Weber and Barroso, "Power
 * provisioning for a warehouse-sized computer", ISCA 2007.
 */
export function modelWatts({ idle, max }: WattsModel, load: number): number {
  const u = Math.min(1, Math.max(0, load));
  return idle + (max - idle) * (2 * u - u ** 1.4);
}

export interface SharedGuest {
  readonly vm: VmId;
  readonly cpuCores: number;
  readonly memoryMiB: number;
}

/**
 * Shares a host's energy out to its guests: what it draws beyond idle by the processor time that they used, what it draws idle by
 * the memory that they hold. The rest is the host's own. @returns Wh by VM
 */
export function shareOut(
  guests: readonly SharedGuest[],
  host: {
    readonly wh: number;
    readonly idleWh: number;
    readonly busyCores: number;
    readonly memoryMiB: number;
  },
): Map<VmId, number> {
  const idleWh = Math.min(host.wh, host.idleWh);
  // Meters of host and guests are not read at the same moment: together guests never get more than there is.
  const cores = Math.max(
    host.busyCores,
    guests.reduce((sum, { cpuCores }) => sum + cpuCores, 0),
  );
  const memoryMiB = Math.max(
    host.memoryMiB,
    guests.reduce((sum, guest) => sum + guest.memoryMiB, 0),
  );
  return new Map(
    guests.map((guest) => {
      const active = cores > 0 ? ((host.wh - idleWh) * guest.cpuCores) / cores : 0;
      const idle = memoryMiB > 0 ? (idleWh * guest.memoryMiB) / memoryMiB : 0;
      return [guest.vm, active + idle];
    }),
  );
}
