/** Hosts over the API. */
import { isDeepStrictEqual } from 'node:util';
import { UserError } from '../../model/failure.ts';
import type { Failing, HostRecord } from '../../model/host.ts';
import type { Call, Handler } from '../handler.ts';
import { labelsAfter } from '../labels.ts';
import { diskFiles } from '../removals.ts';
import { expectVersion, tellVersion, versionOf } from '../versions.ts';
import { hostView, namesByHost } from '../views.ts';

export const listHosts: Handler<'listHosts'> = (_, { plane }) => {
  const names = namesByHost(plane.fleet);
  return [...plane.fleet.hosts.values()]
    .toSorted(byName)
    .map((host) => hostView(plane, host, names.get(host.id) ?? []));
};

export const getHost: Handler<'getHost'> = ({ params }, call) => {
  const host = call.plane.fleet.findHost(params.host);
  tellVersion(call, versionOf(host.labels));
  return hostView(call.plane, host);
};

export const updateHost: Handler<'updateHost'> = async ({ params, body }, call) => {
  const { plane } = call;
  const host = await plane.fleet.change((draft): HostRecord => {
    const found = plane.fleet.findHost(params.host);
    expectVersion(call, versionOf(found.labels));
    const next = { ...found, labels: labelsAfter(found.labels, body.labels) };
    if (!isDeepStrictEqual(next, found)) draft.putHost(next);
    return next;
  });
  tellVersion(call, versionOf(host.labels));
  return hostView(plane, host);
};

export const cordonHost: Handler<'cordonHost'> = ({ params }, call) => setCordoned(call, params.host, true);
export const uncordonHost: Handler<'uncordonHost'> = ({ params }, call) => setCordoned(call, params.host, false);

export const reportFailing: Handler<'reportFailing'> = ({ params, body }, call) =>
  setFailing(call, params.host, { ...body, at: call.plane.clock.now(), by: call.actor.name });

export const reportWell: Handler<'reportWell'> = ({ params }, call) => setFailing(call, params.host, null);

export const removeHost: Handler<'removeHost'> = async ({ params }, { plane }) => {
  const { fleet, liveness, agents } = plane;
  const removed = await fleet.change((draft) => {
    const host = fleet.findHost(params.host);
    const there = [...fleet.vms.values()].filter((vm) => vm.host === host.id);
    const deleted = there.filter(({ state }) => state.kind === 'deleting');
    const vms = there.filter((vm) => !deleted.includes(vm)).map((vm) => vm.name);
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
    // They wait for nothing but this host.
    for (const vm of deleted) draft.removeVm(vm);
    return { ...host, disksLeft: deleted.flatMap(diskFiles) };
  });
  liveness.forget(removed.id);
  plane.health.forget(removed.id);
  plane.guests.forgetHost(removed.id);
  return { removed: removed.name, disksLeft: removed.disksLeft };
};

async function setFailing({ plane }: Call, ref: string, failing: Failing | null) {
  const host = await plane.fleet.change((draft): HostRecord => {
    const next = { ...plane.fleet.findHost(ref), failing };
    draft.putHost(next);
    return next;
  });
  return hostView(plane, host);
}

async function setCordoned({ plane, actor }: Call, ref: string, cordoned: boolean) {
  const host = await plane.fleet.change((draft): HostRecord => {
    const found = plane.fleet.findHost(ref);
    const next = { ...found, cordoned };
    if (found.cordoned !== cordoned) draft.putHost(next);
    if (!cordoned) plane.drains.uncordoned(draft, next, actor.name);
    return next;
  });
  return hostView(plane, host);
}

function byName(a: HostRecord, b: HostRecord): number {
  return a.name < b.name ? -1 : 1;
}
