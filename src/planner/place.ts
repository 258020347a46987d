/**
 * Goal `place`: hosts for VMs that run nowhere yet. Nobody else moves. A VM that no host can take is refused with the reason of
 * each.
 */
import type { FleetSnapshot, SnapshotHost, SnapshotVm } from '../model/fleet-snapshot.ts';
import type { Plan } from '../model/plan.ts';
import type { PlanOptions } from './answer.ts';
import { startAll } from './start-all.ts';

/** Stands for "on no host". */
export const nowhere: SnapshotHost = {
  name: '(none)',
  state: 'draining',
  cpus: 1,
  cpuSpeed: 1,
  memoryMiB: 0,
  reservedMiB: 0,
  labels: {},
  accel: 'kvm',
  cpuModels: null,
  machines: [],
  networks: [],
  pools: [],
  poolIds: {},
  noLiveMoves: null,
  linkBytesPerSecond: 1,
  watts: null,
};

/** @param vms what they need; their `host` says nothing */
export function place(snapshot: FleetSnapshot, vms: readonly SnapshotVm[], options: PlanOptions = {}): Plan {
  const waiting = vms.map((vm): SnapshotVm => ({
    ...vm,
    host: nowhere.name,
    running: true,
    accel: null,
    moving: false,
    cannotMoveLive: null,
  }));
  const names = new Set(vms.map(({ name }) => name));
  const whole: FleetSnapshot = {
    ...snapshot,
    hosts: [...snapshot.hosts, nowhere],
    vms: [...snapshot.vms.filter(({ name }) => !names.has(name)), ...waiting],
  };
  const inOrder = waiting.toSorted((a, b) => b.priority - a.priority || b.memoryMiB - a.memoryMiB);
  const start = { goal: 'place', keepsSpare: true, because: 'The fleet is most even with it there.' } as const;
  return startAll(whole, inOrder, start, options);
}
