/**
 * A simulated guest's memory as numbers: what is in it, what is written while time passes, what is touched. Method: page
 * writes fall evenly on the working set, so after w writes on s pages s(1 - e^(-w/s)) distinct ones are dirty.
 */
import { MiB, pageBytes } from '../model/units.ts';
import type { TransferNumbers } from './hypervisor.ts';
import type { GuestBehaviour } from './simulated-surroundings.ts';

/** A zero page crosses as a mark. */
const zeroPageBytes = 9;
/** Auto-converge by QEMU's defaults: 20 %, then 10 more each time two rounds were dirtied by more than half. */
const throttle = { first: 20, more: 10, most: 99 } as const;

/** What the first round sends. */
export function firstRoundBytes(memoryBytes: number, { residentShare }: GuestBehaviour): number {
  return memoryBytes * residentShare + ((memoryBytes * (1 - residentShare)) / pageBytes) * zeroPageBytes;
}

/** Distinct pages written within `ms` of running. */
export function dirtyPages({ workingSetMiB, dirtyPagesPerSecond }: GuestBehaviour, ms: number): number {
  const set = (workingSetMiB * MiB) / pageBytes;
  return set > 0 ? set * (1 - Math.exp((-dirtyPagesPerSecond * ms) / 1000 / set)) : 0;
}

/** Of the pages that are missing at the switch to post-copy, the share that the guest will touch within `ms`. */
export function faults(behaviour: GuestBehaviour, memoryBytes: number, missingBytes: number, ms: number): number {
  const missingShare = Math.min(1, missingBytes / Math.max(1, memoryBytes * behaviour.residentShare));
  return Math.floor(dirtyPages(behaviour, ms) * missingShare);
}

/** QEMU takes time from the vCPUs of a guest that writes as fast as it is sent. */
export class AutoConverge {
  percent = 0;
  #roundsDirtiedMuch = 0;

  roundEnded(dirtyBytes: number, sentBytes: number): void {
    if (dirtyBytes <= sentBytes / 2 || ++this.#roundsDirtiedMuch < 2) return;
    this.#roundsDirtiedMuch = 0;
    this.percent = Math.min(throttle.most, this.percent + (this.percent === 0 ? throttle.first : throttle.more));
  }
}

/** Numbers of a transfer without its state. */
export type Numbers = Omit<TransferNumbers, 'state'>;

export const noNumbers: Numbers = {
  totalBytes: 0,
  remainingBytes: 0,
  sentBytes: 0,
  round: 0,
  dirtyPagesPerSecond: 0,
  throttlePercent: 0,
  faults: 0,
  downtimeMs: null,
  totalMs: null,
  faultBlockedMs: null,
};
