/**
 * Loads for readers of events who ask for them: of every host and running VM at first, then what has changed enough to be seen. Loads
 * are in no record, so the store's history has none of them. Not here: where they come from (liveness.ts).
 */
import type { VmId } from '../model/ids.ts';
import type { EventView } from '../wire/endpoints.ts';
import type { ControlPlane } from './plane.ts';

/** How often a reader is told. */
export const loadsEveryMs = 2_000;
/** Less change than this nobody sees: share of a host's cores, and cores of a guest. */
const hostStep = 0.01;
const guestStep = 0.05;

type Loads = Extract<EventView, { type: 'loads' }>;

/** What one reader has been told. */
export class LoadsTold {
  readonly #hosts = new Map<string, number>();
  readonly #vms = new Map<string, number>();

  /** What is new for this reader; undefined: nothing. */
  next({ fleet, liveness, clock }: Pick<ControlPlane, 'fleet' | 'liveness' | 'clock'>): Loads | undefined {
    const hosts: Loads['hosts'] = [];
    const vms: Loads['vms'] = [];
    for (const host of fleet.hosts.values()) {
      const load = liveness.loadOf(host.id);
      if (!load) continue;
      if (differs(this.#hosts, host.id, load.cpu, hostStep))
        hosts.push({ host: host.id, cpuLoad: round(load.cpu), memoryUsedMiB: load.memoryUsedMiB });
      for (const [vm, { cpuCores, memoryResidentMiB }] of Object.entries(load.guests)) {
        // While it moves both hosts have a process of it, and the one that waits uses nothing.
        if (fleet.vms.get(vm as VmId)?.host !== host.id) continue; // keys of a record are strings
        if (differs(this.#vms, vm, cpuCores, guestStep))
          vms.push({ vm, cpuCores: round(cpuCores), memoryResidentMiB: Math.round(memoryResidentMiB) });
      }
    }
    if (hosts.length === 0 && vms.length === 0) return undefined;
    const says = `load of ${hosts.length} hosts and ${vms.length} VMs`;
    return { type: 'loads', at: clock.now(), says, hosts, vms };
  }
}

function differs(told: Map<string, number>, id: string, value: number, step: number): boolean {
  const before = told.get(id);
  if (before !== undefined && Math.abs(before - value) < step) return false;
  told.set(id, value);
  return true;
}

function round(value: number): number {
  return Math.round(value * 1000) / 1000;
}
