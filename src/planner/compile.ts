/** From a fleet to the flat arrays that the search works on. Not here: what a score is made of (score.ts). */
import type { SnapshotVm } from '../model/fleet-snapshot.ts';
import type { PlanBudget } from '../model/plan.ts';
import { memoryCap, type Fleet } from './fleet.ts';
import type { Groups, Objective, Problem } from './problem.ts';
import { fitsHost, mayMove } from './rules.ts';

export interface ProblemOptions {
  readonly budget: PlanBudget;
  /** What moving a VM costs, in units of the score. */
  readonly moveCost: (vm: number) => number;
  /** Where the search begins, when not where the VMs are. */
  readonly start?: Int32Array;
}

export function problemOf(fleet: Fleet, objective: Objective, options: ProblemOptions): Problem {
  const { hosts, vms, snapshot, look } = fleet;
  const { settings } = snapshot;
  const { kind, allowed } = kindsOf(fleet);
  const ofEach = (of: (vm: SnapshotVm) => number) => Float64Array.from(vms, of);
  return {
    hosts: hosts.length,
    vms: vms.length,
    memoryCap: Float64Array.from(hosts, (host) => memoryCap(fleet, host)),
    vcpuCap: Float64Array.from(hosts, (host) => host.cpus * settings.vcpuRatio - (look.ownVcpus[host.name] ?? 0)),
    cpuCap: Float64Array.from(hosts, (host) =>
      look.limitCpu ? host.cpus * host.cpuSpeed * settings.cpuLimit : Infinity,
    ),
    counted: fleet.counted,
    leave: fleet.leave,
    vmMemory: ofEach((vm) => vm.memoryMiB),
    vmVcpus: ofEach((vm) => vm.cpus),
    vmCpu: ofEach((vm) => vm.load.cpuCores),
    moveCost: Float64Array.from(vms, (_, v) => options.moveCost(v)),
    home: fleet.at,
    start: options.start ?? fleet.at,
    movable: Uint8Array.from(vms, (_, v) => (mayMove(fleet, v) === null ? 1 : 0)),
    kind,
    allowed,
    apart: flat(fleet.apart, vms.length),
    together: flat(fleet.together, vms.length),
    objective,
    maxMoves: options.budget.moves ?? Infinity,
    maxMoveMiB: options.budget.memoryMiB ?? Infinity,
  };
}

/** VMs that ask the same of a host share one row of the table that says which hosts will do. */
function kindsOf(fleet: Fleet): { kind: Int32Array; allowed: Uint8Array } {
  const kinds = new Map<string, number>();
  const rows: Uint8Array[] = [];
  const kind = Int32Array.from(fleet.vms, (vm, v) => {
    const { machine, cpuModel, accel, networks, pools, pinnedTo } = vm;
    const ids = pools.map((pool) => fleet.hosts[fleet.at[v]!]!.poolIds[pool] ?? null);
    const key = JSON.stringify([machine, cpuModel, accel, networks, pools, ids, pinnedTo]);
    const known = kinds.get(key);
    if (known !== undefined) return known;
    rows.push(Uint8Array.from(fleet.hosts, (_, h) => (fitsHost(fleet, v, h) === null ? 1 : 0)));
    kinds.set(key, rows.length - 1);
    return rows.length - 1;
  });
  const allowed = new Uint8Array(rows.length * fleet.hosts.length);
  rows.forEach((row, i) => allowed.set(row, i * fleet.hosts.length));
  return { kind, allowed };
}

function flat(groups: ReadonlyMap<string, readonly number[]>, vms: number): Groups {
  const of: number[][] = Array.from({ length: vms }, () => []);
  [...groups.values()].forEach((members, group) => {
    for (const vm of members) of[vm]?.push(group);
  });
  const start = new Int32Array(vms + 1);
  of.forEach((each, vm) => (start[vm + 1] = start[vm]! + each.length));
  return { start, of: Int32Array.from(of.flat()) };
}

/** Enough for a good plan: more VMs and hosts, more ways to try. */
export function iterationsFor({ vms, hosts }: Problem): number {
  return Math.round(Math.min(3_000_000, 100_000 + 1000 * Math.min(vms, 20 * hosts)));
}
