/** One move of one VM, from reservation to end: its policy, its phases' data, its measures. The thinking is in migration/. */
import type { Failure } from './failure.ts';
import type { KeptForecast } from './forecast.ts';
import type { Endpoint } from './host.ts';
import type { HostId, MigrationId, VmId } from './ids.ts';
import type { RunningSpec } from './vm.ts';

export const techniques = ['auto', 'pre-copy', 'post-copy', 'hybrid', 'cold'] as const;
export type Technique = (typeof techniques)[number];

export const phaseNames = [
  'reserved',
  'warming-up',
  'armed',
  'stop-and-copy',
  'resumed',
  'suspended',
  'state-transferred',
  'resumed-with-faults',
  'pre-paging',
  'recovering',
  'powering-off',
  'copying',
  'powering-on',
  'completed',
  'cancelled',
  'failed',
] as const;
export type PhaseName = (typeof phaseNames)[number];

/** Where the guest is when a migration has failed. `lost`: nobody may say without fencing; it is never guessed. */
export type GuestAfterFailure = 'on-source' | 'on-target' | 'lost';

/** What is allowed to the migration, by whoever asked for it. */
export interface Policy {
  /** Longest pause the user accepts in pre-copy; the limit given to QEMU starts at 30 ms and rises to this. */
  readonly maxDowntimeMs: number;
  /** Null: as fast as the link goes. */
  readonly maxBandwidthBytesPerSecond: number | null;
  /** The migration gives up when warm-up has taken this long. Null: none. */
  readonly deadlineMs: number | null;
  /** Slow the guest's vCPUs down when it writes faster than the link. */
  readonly autoConverge: boolean;
  /** Parallel streams (QEMU's multifd); 0 is off. Not with post-copy. */
  readonly parallelStreams: number;
  readonly compression: 'none' | 'xbzrle' | 'zstd';
  /** What to do when warm-up does not converge. `pause`: stop-and-copy without a downtime limit. */
  readonly whenNotConverging: 'fail' | 'post-copy' | 'pause';
  /** Cold: how long the guest may take to shut down, and whether it is then switched off. */
  readonly shutdownTimeoutMs: number;
  readonly forceOff: boolean;
}

export interface Round {
  readonly round: number;
  readonly durationMs: number;
  /** Bytes sent in this round. */
  readonly bytes: number;
  /** Pages found dirty when the round ended: the work of the next one. */
  readonly dirtyPages: number;
  readonly bandwidthBytesPerSecond: number;
}

/** Everything measured; null where it does not apply or is not known yet. */
export interface Measures {
  /** Reservation until the source was released (cold: until the guest runs on the target). */
  readonly totalMs: number | null;
  /** Guest paused on the source until running on the target, by QEMU's events on both hosts. */
  readonly downtimeMs: number | null;
  /** What QEMU's own clock calls downtime. In post-copy it leaves out the waiting for faults. */
  readonly downtimeQemuMs: number | null;
  /** Longest silence seen by an outside prober. */
  readonly blackoutMs: number | null;
  readonly bytes: number | null;
  readonly faults: number | null;
  /** Time in which some vCPU waited for a page from the source (QEMU's postcopy-blocktime). */
  readonly faultBlockedMs: number | null;
  /** Resumed on the target until the last page was there. */
  readonly degradedMs: number | null;
  /** Highest vCPU throttle applied by auto-converge, percent. */
  readonly throttlePercent: number | null;
  readonly firstPageMs: number | null;
  /** How often the link broke in post-copy and was joined again, and the time without it, all together. */
  readonly recoveries: number | null;
  readonly recoveringMs: number | null;
}

/** Before anything was measured. */
export const noMeasures: Measures = {
  totalMs: null,
  downtimeMs: null,
  downtimeQemuMs: null,
  blackoutMs: null,
  bytes: null,
  faults: null,
  faultBlockedMs: null,
  degradedMs: null,
  throttlePercent: null,
  firstPageMs: null,
  recoveries: null,
  recoveringMs: null,
};

/** What happened when; each is written once, by the first fact that proves it. Times are ms since the epoch. */
export interface Evidence {
  readonly listening?: { readonly at: number; readonly endpoint: Endpoint };
  readonly sending?: { readonly at: number };
  /** Held: what is left would take no longer than a switch may. */
  readonly armed?: { readonly at: number };
  /** Guest paused on the source. */
  readonly stopped?: { readonly at: number; readonly for: 'stop-and-copy' | 'post-copy' };
  readonly stateTransferred?: { readonly at: number };
  readonly prePaging?: { readonly at: number };
  /** The source holds the target's acknowledgement and has journaled that it will never run this guest again. */
  readonly handedOver?: { readonly at: number };
  readonly resumed?: { readonly at: number; readonly withFaults: boolean };
  /** Post-copy: the last page has arrived. */
  readonly allPagesArrived?: { readonly at: number };
  readonly poweredOff?: { readonly at: number };
  readonly released?: { readonly at: number };
  readonly linkLost?: { readonly at: number };
  /** The target's copy is gone; it never ran, or its guest was already lost. */
  readonly targetClosed?: { readonly at: number };
  /** The whole host is proven to run no guests since then. */
  readonly sourceFenced?: { readonly at: number };
  readonly targetFenced?: { readonly at: number };
}

export interface PhaseEntry {
  readonly phase: PhaseName;
  readonly at: number;
  /** Only for warming-up: which round began. */
  readonly round?: number;
}

export interface Reason {
  readonly by: string;
  readonly text: string;
  readonly at: number;
}

export interface SwitchReason {
  readonly round: number;
  readonly because: string;
}

/** A move that is held ready instead of being completed: its guest runs on at the source until somebody says `switch`. */
export interface Hold {
  /** Then it is cancelled. */
  readonly until: number;
  /** When it was told to complete; null: it is held. */
  readonly switchRequestedAt: number | null;
}

interface MigrationBase {
  readonly schema: 1;
  readonly id: MigrationId;
  readonly vm: VmId;
  readonly vmName: string;
  readonly source: HostId;
  readonly target: HostId;
  readonly technique: Technique;
  readonly policy: Policy;
  readonly why: readonly Reason[];
  /** The VM's generation while it moves. */
  readonly generation: number;
  readonly memoryMiB: number;
  /** What runs, carried as it is: the target's command line comes from it. */
  readonly running: RunningSpec;
  readonly startedAt: number;
  readonly cancelRequestedAt: number | null;
  /** Decided, waiting for the guest's side to say where it stands. */
  readonly giveUp: Failure | null;
  readonly evidence: Evidence;
  readonly rounds: readonly Round[];
  readonly switchedToPostCopy: SwitchReason | null;
  readonly measures: Measures;
  /** What it was expected to cost when it began. Absent: an older version began it. */
  readonly forecast?: KeptForecast;
  /** Absent: an ordinary move. */
  readonly hold?: Hold;
  /** When somebody asked for the switch to post-copy at once. Absent: nobody has. */
  readonly switchRequestedAt?: number;
  readonly history: readonly PhaseEntry[];
}

/** The end of a migration carries what only an end has. */
export type Migration =
  | (MigrationBase & { readonly phase: Exclude<PhaseName, 'completed' | 'cancelled' | 'failed'> })
  | (MigrationBase & { readonly phase: 'completed'; readonly endedAt: number })
  | (MigrationBase & { readonly phase: 'cancelled'; readonly endedAt: number })
  | (MigrationBase & {
      readonly phase: 'failed';
      readonly endedAt: number;
      readonly guest: GuestAfterFailure;
      readonly failure: Failure;
    });

/** Twice a second, streamed and not stored: what the source sees while it sends. */
export interface MigrationSample {
  readonly migration: MigrationId;
  readonly at: number;
  readonly phase: PhaseName;
  readonly round: number;
  readonly totalBytes: number;
  readonly remainingBytes: number;
  readonly sentBytes: number;
  readonly bandwidthBytesPerSecond: number;
  readonly dirtyBytesPerSecond: number;
  readonly downtimeLimitMs: number;
  readonly faults: number;
  readonly throttlePercent: number;
  /** While a broken post-copy is joined again. */
  readonly recovering?: Recovering;
}

export interface Recovering {
  /** Ms since the epoch. */
  readonly since: number;
  readonly attempts: number;
  /** Why the last attempt did not succeed; null: none has ended yet. */
  readonly lastError: string | null;
}
