/** VMs over the API. */
import { UserError } from '../../model/failure.ts';
import { vmCan, type VmRecord } from '../../model/vm.ts';
import type { Handler } from '../handler.ts';
import { pageOf } from '../pages.ts';
import { diskFiles } from '../removals.ts';
import { expectVersion, tellVersion, versionOf } from '../versions.ts';
import { migrationView, vmView } from '../views.ts';

export const listVms: Handler<'listVms'> = ({ query }, call) => {
  const { plane } = call;
  const host = query.host === undefined ? undefined : plane.fleet.findHost(query.host).id;
  const vms = [...plane.fleet.vms.values()]
    .filter((vm) => host === undefined || vm.host === host)
    .toSorted((a, b) => (a.name < b.name ? -1 : 1));
  return pageOf(call, vms, query, ({ name }) => name, 'ascending').map((vm) => vmView(plane, vm));
};

export const getVm: Handler<'getVm'> = ({ params }, call) => {
  const vm = call.plane.fleet.findVm(params.vm);
  tellVersion(call, changeable(vm));
  return vmView(call.plane, vm);
};

export const createVm: Handler<'createVm'> = async ({ body }, { plane, request }) => {
  const { vm, because } = await plane.vms.createSaying(body, request);
  return { ...vmView(plane, vm), placedBecause: because };
};

export const startVm: Handler<'startVm'> = async ({ params, body }, { plane }) =>
  vmView(plane, await plane.vms.start(params.vm, body.host, body));

export const stopVm: Handler<'stopVm'> = async ({ params, body }, { plane }) =>
  vmView(plane, await plane.vms.stop(params.vm, body));

export const updateVm: Handler<'updateVm'> = async ({ params, body }, call) => {
  const vm = await call.plane.vms.update(params.vm, body, (now) => expectVersion(call, changeable(now)));
  tellVersion(call, changeable(vm));
  return vmView(call.plane, vm);
};

/** What `updateVm` changes: that it runs elsewhere now is no new version. */
function changeable({ recovery, restart, priority, placing, labels }: VmRecord): string {
  return versionOf([recovery, restart, priority, placing, labels]);
}

export const deleteVm: Handler<'deleteVm'> = async ({ params, query }, { plane }) => {
  const vm = await plane.vms.remove(params.vm, query.disks, { dryRun: query.dryRun === 'true' });
  return { deleting: vm.name, disksKept: query.disks === 'keep' ? diskFiles(vm) : [] };
};

export const migrateVm: Handler<'migrateVm'> = async ({ params, body }, { plane, request, actor }) =>
  migrationView(plane, await plane.reservations.startMigration(params.vm, body, request, actor.name, 'measure-first'));

export const consoleVm: Handler<'consoleVm'> = async ({ params }, { plane }, accept) => {
  const vm = plane.fleet.findVm(params.vm);
  if (!vmCan('console', vm.state)) {
    throw new UserError(
      'wrong-state',
      `${vm.name} is ${vm.state.kind} and has no console.`,
      `Start it first: drover vm start ${vm.name}.`,
    );
  }
  // What the guest says before the upgrade is answered waits for the tunnel.
  const early: Uint8Array[] = [];
  let onData = (bytes: Uint8Array): void => void early.push(bytes);
  let onEnd = (reason: string): void => void (endedEarly = reason);
  let endedEarly: string | undefined;
  const stream = plane.agents.openConsole(vm.host, vm.id, {
    onData: (bytes) => onData(bytes),
    onEnd: (reason) => onEnd(reason),
  });
  const tunnel = accept();
  for (const bytes of early.splice(0)) tunnel.write(bytes);
  onData = (bytes) => tunnel.write(bytes);
  onEnd = (reason) => tunnel.end(reason);
  if (endedEarly !== undefined) tunnel.end(endedEarly);
  tunnel.onData((bytes) => stream.write(bytes));
  await tunnel.closed;
  stream.close();
};
