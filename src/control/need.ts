/** What a VM needs of a host, whatever else runs there. Not here: whether a host has it (placement.ts). */
import type { HostRecord } from '../model/host.ts';
import type { PlacingRules, VmSpec } from '../model/vm.ts';

export interface Need {
  readonly vmName: string;
  readonly cpus: number;
  readonly cpuModel: string;
  readonly memoryMiB: number;
  readonly machine: string;
  readonly networks: readonly string[];
  readonly pools: readonly string[];
  /** Which pool each name stands for where its disks are now, as far as that is known. */
  readonly poolIds: Readonly<Record<string, string>>;
  /** A running guest can only go on under the accelerator it was started with. */
  readonly accel: 'kvm' | 'tcg' | null;
  /** Of a VM that has no record yet. */
  readonly placing?: PlacingRules;
  /** It may not take the room that is kept for the VMs of hosts that die. */
  readonly leavesSpare?: boolean;
}

/** @param home the host that has its disks now; null: they are not made yet */
export function needOf(name: string, spec: VmSpec, home: HostRecord | null = null, accel: Need['accel'] = null): Need {
  const kernelPool = spec.boot.kind === 'kernel' ? [spec.boot.pool] : [];
  return {
    vmName: name,
    cpus: spec.cpus,
    cpuModel: spec.cpuModel,
    memoryMiB: spec.memoryMiB,
    machine: spec.machine,
    networks: [...new Set(spec.nics.map((nic) => nic.network))],
    pools: [...new Set([...spec.disks.map((disk) => disk.pool), ...kernelPool])],
    poolIds: home?.inventory.poolIds ?? {},
    accel,
  };
}
