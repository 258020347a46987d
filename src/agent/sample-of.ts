/** A running transfer's numbers as a sample for those who watch. */
import type { TransferNumbers } from '../hypervisor/hypervisor.ts';
import { dirtyBytesPerSecond } from '../migration/steer.ts';
import type { MigrationId } from '../model/ids.ts';
import type { MigrationSample, PhaseName, Recovering, Round } from '../model/migration.ts';
import { pageBytes } from '../model/units.ts';

export interface SampleSurroundings {
  readonly at: number;
  /** The sample before this one: what was sent since gives the bandwidth. */
  readonly before: { readonly numbers: TransferNumbers; readonly at: number } | undefined;
  readonly phase: PhaseName;
  readonly round: number;
  readonly lastRound: Round | undefined;
  readonly sendingSince: number;
  readonly downtimeLimitMs: number;
  readonly recovering: Recovering | undefined;
}

export function sampleOf(
  migration: MigrationId,
  numbers: TransferNumbers,
  around: SampleSurroundings,
): MigrationSample {
  const { at, before, phase, round, lastRound, sendingSince, downtimeLimitMs, recovering } = around;
  const seconds = Math.max(0.05, (at - (before?.at ?? sendingSince)) / 1000);
  return {
    migration,
    at,
    phase,
    round,
    totalBytes: numbers.totalBytes,
    remainingBytes: numbers.remainingBytes,
    sentBytes: numbers.sentBytes,
    bandwidthBytesPerSecond: Math.max(0, (numbers.sentBytes - (before?.numbers.sentBytes ?? 0)) / seconds),
    // The first round's dirty pages were collected over all of it, and say little.
    dirtyBytesPerSecond:
      lastRound && lastRound.round > 1 ? dirtyBytesPerSecond(lastRound) : numbers.dirtyPagesPerSecond * pageBytes,
    downtimeLimitMs,
    faults: numbers.faults,
    throttlePercent: numbers.throttlePercent,
    ...(recovering && { recovering }),
  };
}
