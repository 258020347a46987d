/** Power controllers of hosts over the API. */
import { UserError } from '../../model/failure.ts';
import type { HostRecord, PowerSpec } from '../../model/host.ts';
import type { PowerView } from '../../wire/power.ts';
import type { Call, Handler } from '../handler.ts';
import { powerSays, redfishObstacle } from '../power/open.ts';
import type { PowerReading } from '../power/power.ts';
import { hostView } from '../views.ts';

export const getHostPower: Handler<'getHostPower'> = async ({ params }, { plane }) => {
  const { host, spec } = configured({ plane }, params.host);
  return view(host, spec, await plane.power(spec).read(plane.stopped));
};

export const setHostPower: Handler<'setHostPower'> = async ({ params, body }, { plane }) => {
  const { name } = plane.fleet.findHost(params.host);
  const spec = body.controller;
  const obstacle = spec.kind === 'redfish' ? redfishObstacle(spec.url) : undefined;
  if (obstacle !== undefined) {
    const hint = 'Write the address of the system, for example https://bmc1/redfish/v1/Systems/1.';
    throw new UserError('invalid-input', `${obstacle}.`, hint);
  }
  if (!body.untested) {
    const reading = await plane.power(spec).read(plane.stopped);
    if (reading.state === 'unknown') {
      const hint = 'Correct what is wrong and set it again; --untested stores it as it is.';
      throw new UserError(
        'unavailable',
        `${powerSays(spec)} cannot be read: ${reading.says}. Nothing is stored.`,
        hint,
      );
    }
  }
  return change(plane, name, spec);
};

export const unsetHostPower: Handler<'unsetHostPower'> = ({ params }, { plane }) => change(plane, params.host, null);

export const switchHostPower: Handler<'switchHostPower'> = async ({ params, body }, { plane }) => {
  const { host, spec } = configured({ plane }, params.host);
  if (body.to === 'off' && !body.force) refuseWhileUsed(plane, host);
  const controller = plane.power(spec);
  plane.log.warn({ host: host.name, to: body.to, force: body.force }, 'switching the power, as a person asked');
  const reading = body.to === 'off' ? await controller.off(plane.stopped) : await controller.on(plane.stopped);
  if (body.to === 'off' && reading.state === 'off') plane.recovery.wasOff(host.id);
  return view(host, spec, reading);
};

function configured({ plane }: Pick<Call, 'plane'>, ref: string): { host: HostRecord; spec: PowerSpec } {
  const host = plane.fleet.findHost(ref);
  if (host.power !== null) return { host, spec: host.power };
  throw new UserError(
    'wrong-state',
    `${host.name} has no power controller.`,
    `Say which: drover host power ${host.name} set --ipmi ADDRESS --user admin --password-file FILE`,
  );
}

function refuseWhileUsed({ fleet }: Call['plane'], host: HostRecord): void {
  const room = fleet.rooms.get(host.id);
  const names = Object.keys(room?.guestsMiB ?? {}).map(
    (id) => [...fleet.vms.values()].find((vm) => vm.id === id)?.name ?? id,
  );
  const arriving = Object.keys(room?.reservationsMiB ?? {}).length;
  if (names.length === 0 && arriving === 0) return;
  const what = [
    ...(names.length > 0 ? [`${names.slice(0, 5).join(', ')}${names.length > 5 ? ' and others' : ''} on it`] : []),
    ...(arriving > 0 ? [`${arriving} on the way to it`] : []),
  ];
  throw new UserError(
    'busy',
    `${host.name} has guests: ${what.join(', ')}.`,
    'Move them away first. --force switches it off all the same: what they hold in memory is lost.',
  );
}

async function change(plane: Call['plane'], ref: string, power: PowerSpec | null) {
  const host = await plane.fleet.change((draft): HostRecord => {
    const next = { ...plane.fleet.findHost(ref), power };
    draft.putHost(next);
    plane.sleep.forgetProof(draft, next.id);
    return next;
  });
  return hostView(plane, host);
}

function view(host: HostRecord, spec: PowerSpec, reading: PowerReading): PowerView {
  return { host: host.name, controller: powerSays(spec), state: reading.state, says: reading.says ?? null };
}
