/**
 * Goal `failover`: the VMs of hosts that are lost are started on others, the most important first. Nobody else moves: there is no
 * time. Not here: whether the hosts are proven dead; the caller sees to that.
 */
import type { FleetSnapshot, SnapshotVm } from '../model/fleet-snapshot.ts';
import type { Plan, PlanRefusal } from '../model/plan.ts';
import type { PlanOptions } from './answer.ts';
import { startAll } from './start-all.ts';

/** @param hosts names of the lost ones */
export function failover(snapshot: FleetSnapshot, hosts: readonly string[], options: PlanOptions = {}): Plan {
  const lost = new Set(hosts);
  const concerned = snapshot.vms.filter((vm) => vm.running && lost.has(vm.host));
  const restart = concerned.filter(({ recovery }) => recovery === 'restart');
  const names = new Set(restart.map(({ name }) => name));
  // A guest that is started anew is bound to nothing that its old process was.
  const free = (vm: SnapshotVm): SnapshotVm => ({ ...vm, accel: null, moving: false, cannotMoveLive: null });
  const left: FleetSnapshot = {
    ...snapshot,
    hosts: snapshot.hosts.map((host) =>
      lost.has(host.name) ? { ...host, state: 'draining', noLiveMoves: null } : host,
    ),
    vms: snapshot.vms.map((vm) => (names.has(vm.name) ? free(vm) : vm)),
  };
  const inOrder = restart.toSorted((a, b) => b.priority - a.priority || b.memoryMiB - a.memoryMiB);
  const start = { goal: 'failover', keepsSpare: false, because: 'Its host is lost.' } as const;
  const plan = startAll(left, inOrder, start, options);
  const manual = concerned.flatMap((vm): PlanRefusal[] =>
    vm.recovery === 'restart'
      ? []
      : [
          {
            vm: vm.name,
            wanted: null,
            rule: 'recovery',
            says: `${vm.name} is left for a person: its recovery is manual.`,
          },
        ],
  );
  return { ...plan, refused: [...plan.refused, ...manual] };
}
