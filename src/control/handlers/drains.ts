/** Drains over the API. */
import { UserError } from '../../model/failure.ts';
import type { Handler } from '../handler.ts';
import { latestDrain } from '../drain-progress.ts';
import { pageOf } from '../pages.ts';
import { drainView } from '../drain-views.ts';

export const drainHost: Handler<'drainHost'> = async ({ params, body }, { plane, actor, request }) => {
  const { drain, plan } = await plane.drains.begin(params.host, body, actor.name, request);
  return drainView(plane, drain, plan);
};

export const getHostDrain: Handler<'getHostDrain'> = ({ params }, { plane }) => {
  const host = plane.fleet.findHost(params.host);
  const drain = latestDrain(plane.fleet, host.id);
  if (drain !== undefined) return drainView(plane, drain);
  throw new UserError('not-found', `${host.name} was never drained.`, `To drain it: drover host drain ${host.name}.`);
};

export const cancelDrain: Handler<'cancelDrain'> = async ({ params }, { plane, actor }) =>
  drainView(plane, await plane.drains.cancel(params.host, actor.name));

export const undrainHost: Handler<'undrainHost'> = async ({ params, body }, { plane, actor }) => {
  const { drain, plan } = await plane.drains.undrain(params.host, body, actor.name);
  return drainView(plane, drain, plan);
};

export const listDrains: Handler<'listDrains'> = ({ query }, call) => {
  const drains = [...call.plane.fleet.drains.values()].toReversed();
  return pageOf(call, drains, query, ({ id }) => id, 'descending').map((drain) => drainView(call.plane, drain));
};

export const getDrain: Handler<'getDrain'> = ({ params }, { plane }) =>
  drainView(plane, plane.fleet.findDrain(params.drain));
