/** Changes as they happen, over the API. */
import { eventText } from '../event-hub.ts';
import type { EventStream, Handler } from '../handler.ts';
import { LoadsTold, loadsEveryMs } from '../loads.ts';
import type { ControlPlane } from '../plane.ts';

export const listEvents: Handler<'listEvents'> = async ({ query }, { plane, hub }, stream) => {
  const migration = query.migration === undefined ? null : plane.fleet.findMigration(query.migration).id;
  const served = hub.serve(stream, { migration, samples: query.samples === 'true' });
  const loads = query.loads === 'true' && migration === null ? tellLoads(plane, stream) : undefined;
  await Promise.all([served, loads]);
};

async function tellLoads(plane: ControlPlane, stream: EventStream): Promise<void> {
  const told = new LoadsTold();
  while (!stream.signal.aborted) {
    // One that does not read is not told more of what is soon of no use.
    const loads = stream.unreadBytes() > 0 ? undefined : told.next(plane);
    if (loads) stream.write(Buffer.from(eventText(loads, null)));
    await plane.clock.sleep(loadsEveryMs, stream.signal).catch(() => {});
  }
}
