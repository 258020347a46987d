/** Lost hosts over the API. */
import type { Handler } from '../handler.ts';
import { pageOf } from '../pages.ts';
import { recoveryView } from '../views.ts';

export const listRecoveries: Handler<'listRecoveries'> = ({ query }, call) => {
  const records = [...call.plane.fleet.recoveries.values()].toReversed();
  return pageOf(call, records, query, ({ id }) => id, 'descending').map((record) => recoveryView(call.plane, record));
};

export const getRecovery: Handler<'getRecovery'> = ({ params }, { plane }) =>
  recoveryView(plane, plane.fleet.findRecovery(params.recovery));

export const fenceHost: Handler<'fenceHost'> = async ({ params, body }, { plane, actor }) =>
  recoveryView(
    plane,
    await plane.recovery.fencedByWord(params.host, body.because, body.force, actor.name, body.dryRun),
  );
