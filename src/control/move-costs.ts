/**
 * What the moves of a plan will cost, by the forecast of each. The forecast counts the moves that share the link now; a plan
 * counts those that will, so the two are kept apart here.
 */
import type { HostId } from '../model/ids.ts';
import type { Technique } from '../model/migration.ts';
import { MiB } from '../model/units.ts';
import type { VmRecord } from '../model/vm.ts';
import type { MoveCost } from './drain-plan.ts';
import type { Fleet } from './fleet.ts';
import type { Forecasts } from './forecasts.ts';

/** Where no forecast can be made: a gigabit, less what the protocol takes. */
const assumedBytesPerSecond = 112_000_000;
const assumedFixedMs = 1_000;
/** A move waits for the next beat before it begins: half of one, on average. */
const beatMs = 500;

export function costOf(
  { fleet, forecasts }: { readonly fleet: Pick<Fleet, 'hosts'>; readonly forecasts: Pick<Forecasts, 'of'> },
  vm: VmRecord,
  to: HostId,
  technique: Technique,
): MoveCost {
  const [source, target] = [fleet.hosts.get(vm.host), fleet.hosts.get(to)];
  const forecast = source && target ? forecasts.of(vm, source, target, technique, {}) : null;
  if (forecast === null) {
    const bytes = vm.spec.memoryMiB * MiB;
    return { bytes, transferMs: (1000 * bytes) / assumedBytesPerSecond, fixedMs: assumedFixedMs + beatMs };
  }
  const { totalMs, bytes, basis } = forecast;
  const transferMs = Math.min(totalMs, (1000 * bytes) / basis.bytesPerSecond);
  return { bytes, transferMs, fixedMs: totalMs - transferMs + beatMs };
}
