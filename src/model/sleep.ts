/**
 * Hosts that sleep on purpose: how each is sent to sleep and woken, where it stands, and what proves that it can be woken.
 *
 *     awake ──> going-to-sleep ──> asleep ──> waking ──> awake
 *                    └──> awake (it could not)    └──> wake-failed ──> awake (it reports after all)
 *
 * Not here: what leads from one to the next (control/sleep-step.ts).
 */
import type { HostId } from './ids.ts';

/** `off`: shut down and switched on by its power controller. `suspend`: to memory, by its agent; woken by a magic packet. */
export type SleepWay = { readonly kind: 'off' } | { readonly kind: 'suspend'; readonly macs: readonly string[] };

/** Who wanted it, and why. Times in this file are ms since the epoch by the server's clock. */
export interface SleepReason {
  readonly by: string;
  readonly because: string;
}

export type SleepState =
  | { readonly kind: 'awake'; readonly since: number }
  | (SleepReason & {
      readonly kind: 'going-to-sleep';
      readonly since: number;
      /** It is woken again at once. */
      readonly drill: boolean;
      /** Its agent has no guest, starts none any more and has had the lease given back. Holds for this boot only. */
      readonly consent: { readonly at: number; readonly bootId: string } | null;
    })
  | (SleepReason & { readonly kind: 'asleep'; readonly since: number; readonly drill: boolean })
  | (SleepReason & {
      readonly kind: 'waking';
      /** Of the first order to wake. */
      readonly since: number;
      readonly drill: boolean;
      readonly tries: number;
      readonly triedAt: number;
    })
  /** Nobody can say when it comes back: its capacity counts as gone. */
  | { readonly kind: 'wake-failed'; readonly since: number; readonly says: string };

/** It was asleep, was woken and reported. */
export interface WakeProof {
  readonly at: number;
  readonly by: 'drill' | 'wake';
}

/** Watts of a host that cannot be measured: idle, and with all cores busy. */
export interface WattsModel {
  readonly idle: number;
  readonly max: number;
}

export interface SleepRecord {
  readonly schema: 1;
  readonly host: HostId;
  /** Null: it never sleeps. */
  readonly way: SleepWay | null;
  readonly state: SleepState;
  readonly proof: WakeProof | null;
  /** From the order to wake until it reported, the newest last. */
  readonly readyMs: readonly number[];
  readonly lastFailure: { readonly at: number; readonly says: string } | null;
  /** Null: a documented default by its number of cores. */
  readonly watts: WattsModel | null;
}

export const readyTimesKept = 16;
/** Of a network card, as people and kernels write it. */
export const macPattern = /^[0-9a-f]{2}(:[0-9a-f]{2}){5}$/i;

export function newSleepRecord(host: HostId, at: number): SleepRecord {
  return {
    schema: 1,
    host,
    way: null,
    state: { kind: 'awake', since: at },
    proof: null,
    readyMs: [],
    lastFailure: null,
    watts: null,
  };
}

/**
 * How long it takes until a woken host reports, to be on the safe side: the longest of the times kept, but where there are
 * five or more, none that is over twice the second longest (a file system check after a bad day). Null: never woken.
 */
export function readyWithinMs({ readyMs }: Pick<SleepRecord, 'readyMs'>): number | null {
  const [longest, second] = readyMs.toSorted((a, b) => b - a);
  if (longest === undefined) return null;
  return readyMs.length >= 5 && second !== undefined && longest > 2 * second ? second : longest;
}

/** It is not up and nobody expects it to be: its silence means nothing. */
export function isDown(state: SleepState | undefined): boolean {
  switch (state?.kind) {
    case undefined:
    case 'awake':
      return false;
    case 'going-to-sleep':
      return state.consent !== null;
    case 'asleep':
    case 'waking':
    case 'wake-failed':
      return true;
  }
}
