/** Loads of the last hour over the API. */
import { UserError } from '../../model/failure.ts';
import type { Handler } from '../handler.ts';
import { traceStepMs } from '../load-trace.ts';

export const getLoads: Handler<'getLoads'> = ({ query: { host, vm } }, { plane: { fleet, loads, clock } }) => {
  const now = clock.now();
  const of = (id: string, samples: ReturnType<typeof loads.cpuOfHost>) => ({
    id,
    stepMs: traceStepMs,
    cpu: samples.map(({ agoMs, value }) => ({ at: Math.round(now - agoMs), value: Math.round(value * 1000) / 1000 })),
  });
  if (host !== undefined && vm === undefined) {
    const { id } = fleet.findHost(host);
    return of(id, loads.cpuOfHost(id, clock.monotonic()));
  }
  if (vm !== undefined && host === undefined) {
    const { id } = fleet.findVm(vm);
    return of(id, loads.cpuOfGuest(id, clock.monotonic()));
  }
  throw new UserError(
    'invalid-input',
    'The load of one host or of one VM can be asked for.',
    'Write ?host=h1 or ?vm=web1.',
  );
};
