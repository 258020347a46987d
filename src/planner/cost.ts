/**
 * What a move will take, as far as a snapshot can tell: the short form of the forecast. A caller who knows better (what earlier
 * moves of the VM showed) passes a forecast of its own.
 */
import type { SnapshotHost, SnapshotVm } from '../model/fleet-snapshot.ts';
import type { MoveForecast } from '../model/plan.ts';
import { MiB } from '../model/units.ts';
import { quickBytes, quickMs } from '../migration/quick-forecast.ts';
import { firstDowntimeLimitMs } from '../migration/steer.ts';

/** @param sharedBy moves that use the link at once */
export type Forecaster = (vm: SnapshotVm, from: SnapshotHost, to: SnapshotHost, sharedBy: number) => MoveForecast;

/** The pause in which QEMU hands over, beside what is still to be sent. */
const switchOverMs = 30;

export const quickForecast: Forecaster = (vm, from, to, sharedBy) => {
  const link = Math.min(from.linkBytesPerSecond, to.linkBytesPerSecond) / Math.max(1, sharedBy);
  const memory = vm.memoryInUseMiB * MiB;
  const bytes = quickBytes(memory, vm.dirtyBytesPerSecond, Infinity, link);
  // `auto` stops the guest when the rest takes no longer than the first limit, or switches to post-copy, which sends no rest.
  const lastMs = vm.dirtyBytesPerSecond > 0 ? firstDowntimeLimitMs : 0;
  return {
    technique: 'auto',
    bytes: Math.round(bytes),
    totalMs: Math.round(quickMs(bytes, link)),
    downtimeMs: switchOverMs + lastMs,
  };
};
