/** Hosts over the API. */
import { UserError } from '../../model/failure.ts';
import type { HostRecord } from '../../model/host.ts';
import type { Call, Handler } from '../handler.ts';
import { hostView } from '../views.ts';

export const listHosts: Handler<'listHosts'> = (_, { plane }) =>
  [...plane.fleet.hosts.values()].toSorted(byName).map((host) => hostView(plane, host));

export const getHost: Handler<'getHost'> = ({ params }, { plane }) =>
  hostView(plane, plane.fleet.findHost(params.host));

export const cordonHost: Handler<'cordonHost'> = ({ params }, call) => setCordoned(call, params.host, true);
export const uncordonHost: Handler<'uncordonHost'> = ({ params }, call) => setCordoned(call, params.host, false);

export const removeHost: Handler<'removeHost'> = async ({ params }, { plane }) => {
  const { fleet, liveness, agents } = plane;
  const removed = await fleet.change((draft) => {
    const host = fleet.findHost(params.host);
    const vms = [...fleet.vms.values()].filter((vm) => vm.host === host.id).map((vm) => vm.name);
    if (vms.length > 0) {
      throw new UserError(
        'busy',
        `${host.name} still has ${vms.slice(0, 5).join(', ')}${vms.length > 5 ? ' and others' : ''}.`,
        `Move or delete ${vms.length === 1 ? 'it' : 'them'} first: drover migrate ${vms[0]}.`,
      );
    }
    const open = fleet.unsettledMigrations().find(({ source, target }) => source === host.id || target === host.id);
    if (open) {
      throw new UserError(
        'busy',
        `${host.name} takes part in migration ${open.id}, which is not cleared away yet.`,
        `Wait for its end: drover migration show ${open.id}.`,
      );
    }
    if (agents.isConnected(host.id) || !liveness.isSilent(host.id)) {
      throw new UserError(
        'wrong-state',
        `${host.name} still reports.`,
        'Stop its agent first; a host whose agent runs would join again at once.',
      );
    }
    draft.removeHost(host);
    return host;
  });
  liveness.forget(removed.id);
  plane.guests.forgetHost(removed.id);
  return { removed: removed.name };
};

async function setCordoned({ plane }: Call, ref: string, cordoned: boolean) {
  const host = await plane.fleet.change((draft): HostRecord => {
    const found = plane.fleet.findHost(ref);
    const next = { ...found, cordoned };
    if (found.cordoned !== cordoned) draft.putHost(next);
    return next;
  });
  return hostView(plane, host);
}

function byName(a: HostRecord, b: HostRecord): number {
  return a.name < b.name ? -1 : 1;
}
