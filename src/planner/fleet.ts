/**
 * A snapshot looked at from one goal: hosts and VMs by number, groups, which hosts count and which are to be left, how the
 * goal looks at it. Not here: scores, rules, the flat arrays of the search (compile.ts).
 */
import type { FleetSnapshot, SnapshotHost, SnapshotVm } from '../model/fleet-snapshot.ts';

export interface Fleet {
  readonly snapshot: FleetSnapshot;
  readonly hosts: readonly SnapshotHost[];
  /** Those that run: the others hold nothing and do not move. */
  readonly vms: readonly SnapshotVm[];
  readonly hostIndex: ReadonlyMap<string, number>;
  readonly vmIndex: ReadonlyMap<string, number>;
  readonly at: Int32Array;
  /** 1: takes part in spreads. */
  readonly counted: Uint8Array;
  /** 1: its VMs shall leave. */
  readonly leave: Uint8Array;
  /** Members of each group. */
  readonly apart: ReadonlyMap<string, readonly number[]>;
  readonly together: ReadonlyMap<string, readonly number[]>;
  readonly look: Look;
}

/** How a goal looks at a fleet. */
export interface Look {
  /** VMs that were moved lately may move all the same. */
  readonly ignoreDwell: boolean;
  /** Memory that must stay free besides, in MiB: Ganeti wants more than nothing left. */
  readonly marginMiB: number;
  /** Load of CPUs is a rule. */
  readonly limitCpu: boolean;
  /** Virtual CPUs that a host uses itself, by its name. */
  readonly ownVcpus: Readonly<Record<string, number>>;
}

export const ordinaryLook: Look = { ignoreDwell: false, marginMiB: 0, limitCpu: true, ownVcpus: {} };

export function fleetOf(snapshot: FleetSnapshot, look: Look = ordinaryLook): Fleet {
  const { hosts } = snapshot;
  const vms = snapshot.vms.filter(({ running }) => running);
  const hostIndex = new Map(hosts.map(({ name }, h) => [name, h]));
  const vmIndex = new Map(vms.map(({ name }, v) => [name, v]));
  const at = Int32Array.from(vms, (vm) => {
    const host = hostIndex.get(vm.host);
    if (host === undefined) throw new Error(`${vm.name} is on ${vm.host}, which the snapshot does not have`);
    return host;
  });
  return {
    snapshot,
    hosts,
    vms,
    hostIndex,
    vmIndex,
    at,
    counted: Uint8Array.from(hosts, ({ state }) => (state === 'up' || state === 'cordoned' ? 1 : 0)),
    leave: Uint8Array.from(hosts, ({ state }) => (state === 'draining' ? 1 : 0)),
    apart: groupsOf(vms, (vm) => vm.apart),
    together: groupsOf(vms, (vm) => vm.together),
    look,
  };
}

function groupsOf(vms: readonly SnapshotVm[], of: (vm: SnapshotVm) => readonly string[]): Map<string, number[]> {
  const groups = new Map<string, number[]>();
  vms.forEach((vm, v) => {
    for (const group of new Set(of(vm))) {
      const members = groups.get(group);
      if (members === undefined) groups.set(group, [v]);
      else members.push(v);
    }
  });
  return groups;
}

export function memoryCap(fleet: Fleet, host: SnapshotHost): number {
  return host.memoryMiB - host.reservedMiB - fleet.look.marginMiB;
}
