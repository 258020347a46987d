/**
 * The world of the published comparisons (Beloglazov and Buyya 2012, CloudSim 3.0.3): 800 hosts of two types, VMs of four
 * types, and where each VM is at midnight. What happens during the day is in simulate.ts.
 *
 * Loops run over indices that are made here, which the compiler cannot see: hence `!`.
 */
import type { Trace } from './traces.ts';

export interface HostType {
  readonly name: string;
  readonly coreMips: number;
  readonly cores: number;
  readonly memoryMB: number;
  /** Places by bandwidth: 1 Gb/s, 100 Mb/s a VM. Like memory, it binds at midnight only. */
  readonly places: number;
  /** At 0, 10, … 100 % of its CPU (SPECpower); linear between. A host without load is off and draws nothing. */
  readonly watts: readonly number[];
}

export interface VmType {
  readonly mips: number;
  readonly memoryMB: number;
}

export interface Scene {
  readonly hosts: readonly HostType[];
  readonly vms: readonly VmType[];
  readonly trace: Trace;
}

/** HP ProLiant ML110 G4 and G5. */
const g4: HostType = {
  name: 'G4',
  coreMips: 1860,
  cores: 2,
  memoryMB: 4096,
  places: 10,
  watts: [86, 89.4, 92.6, 96, 99.5, 102, 106, 108, 112, 114, 117],
};
const g5: HostType = {
  name: 'G5',
  coreMips: 2660,
  cores: 2,
  memoryMB: 4096,
  places: 10,
  watts: [93.7, 97, 101, 105, 110, 116, 121, 125, 129, 133, 135],
};

const vmTypes: readonly VmType[] = [
  { mips: 2500, memoryMB: 870 },
  { mips: 2000, memoryMB: 1740 },
  { mips: 1000, memoryMB: 1740 },
  { mips: 500, memoryMB: 613 },
];

const hostCount = 800;

/** The traces in quarters, a type of VM each. */
export function publishedScene(trace: Trace): Scene {
  const quarter = Math.ceil(trace.vms / vmTypes.length);
  return {
    hosts: Array.from({ length: hostCount }, (_, i) => (i % 2 === 0 ? g4 : g5)),
    vms: Array.from({ length: trace.vms }, (_, v) => vmTypes[Math.floor(v / quarter)]!),
    trace,
  };
}

export function totalMips({ coreMips, cores }: HostType): number {
  return coreMips * cores;
}

/** What a host draws that is switched on. @param utilisation 0..1 */
export function wattsAt({ watts }: HostType, utilisation: number): number {
  const tenths = Math.min(Math.max(utilisation, 0), 1) * (watts.length - 1);
  const below = Math.min(Math.floor(tenths), watts.length - 2);
  return watts[below]! + (watts[below + 1]! - watts[below]!) * (tenths - below);
}

export type FirstPlacement = 'least-power' | 'first-fit';

/**
 * Host of each VM at midnight, by nominal size. `least-power`: where the power rises least, the first of equals (the
 * consolidating policies begin so); `first-fit`: what the published figures without migrations use.
 */
export function placeAtMidnight({ hosts, vms }: Scene, how: FirstPlacement): Int32Array {
  const mips = hosts.map(() => 0);
  const memoryMB = hosts.map(() => 0);
  const count = hosts.map(() => 0);
  return Int32Array.from(vms, (vm, v) => {
    let best = -1;
    let least = Infinity;
    for (let h = 0; h < hosts.length; h++) {
      const host = hosts[h]!;
      const total = totalMips(host);
      if (host.coreMips < vm.mips || total - mips[h]! < vm.mips) continue;
      if (memoryMB[h]! + vm.memoryMB > host.memoryMB || count[h]! >= host.places) continue;
      const rise = how === 'first-fit' ? 0 : wattsAt(host, (mips[h]! + vm.mips) / total) - wattsAt(host, 0);
      if (rise < least) [best, least] = [h, rise];
    }
    if (best < 0) throw new Error(`no host has room for VM ${v}`);
    mips[best]! += vm.mips;
    memoryMB[best]! += vm.memoryMB;
    count[best]!++;
    return best;
  });
}
