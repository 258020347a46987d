/**
 * A drain: a host that shall have no guests for a while. Which VMs were there, where each has gone, what stands in the way of
 * the others; enough to bring them back.
 *
 *   draining -> drained -> returning -> undrained
 *   draining -> cancelled -> returning            returning -> undrained (cancelled: the rest stays where it is)
 *
 * Not here: which move is next and when (control/drain-progress.ts).
 */
import type { DrainId, HostId, MigrationId, VmId } from './ids.ts';

export type DrainState =
  | { readonly kind: 'draining' }
  /** No guest is left. The host stays cordoned until somebody says `undrain` or `uncordon`. */
  | { readonly kind: 'drained'; readonly at: number }
  /** Its VMs are brought back. */
  | { readonly kind: 'returning'; readonly since: number; readonly by: string }
  | { readonly kind: 'undrained'; readonly at: number }
  /** What had left stays where it is, unless it is brought back. */
  | { readonly kind: 'cancelled'; readonly at: number; readonly by: string; readonly because: string };

/** What a plan says beforehand. */
export interface DrainEstimate {
  readonly moves: number;
  readonly bytes: number;
  readonly ms: number;
}

/**
 * Why something does not go on, since when (ms since the epoch), and what can be done.
 * `refused`: no host may take it. `failed`: moves were tried. `busy`: it must end something else first. `slow`: its move takes long.
 */
export interface Stuck {
  readonly kind: 'refused' | 'failed' | 'busy' | 'slow';
  readonly since: number;
  readonly says: string;
  readonly next: string;
}

export interface DrainedVm {
  readonly vm: VmId;
  readonly vmName: string;
  /** The open move that was begun for it. */
  readonly open: MigrationId | null;
  /** The moves begun for it, the newest last; the oldest are dropped. */
  readonly moves: readonly MigrationId[];
  /** Moves in a row that ended where they began. */
  readonly failures: number;
  /** No move is begun before. */
  readonly notBefore: number;
  /** Where it went when it left the host. */
  readonly left: { readonly to: HostId; readonly at: number } | null;
  readonly backAt: number | null;
  readonly stuck: Stuck | null;
  /** It is not brought back: for what was decided since, or after tries enough (`gaveUp`). */
  readonly stays: { readonly says: string; readonly gaveUp: boolean } | null;
}

export interface DrainRecord {
  readonly schema: 1;
  readonly id: DrainId;
  readonly host: HostId;
  readonly hostName: string;
  readonly by: string;
  readonly because: string;
  readonly startedAt: number;
  readonly movesAtOnce: number;
  /** VMs that cannot move live are shut down and started elsewhere. */
  readonly allowCold: boolean;
  /** The drain has cordoned the host: then its end lifts that. */
  readonly setCordon: boolean;
  readonly state: DrainState;
  readonly vms: readonly DrainedVm[];
  readonly estimate: DrainEstimate;
  readonly returnEstimate: DrainEstimate | null;
  /** When the last guest had left. */
  readonly emptyAt: number | null;
  /** Nothing moves and something is left to do: what, since when, and what next. */
  readonly blocked: Omit<Stuck, 'kind'> | null;
}

/** Is something still to be done for it? */
export function isOpenDrain({ state, vms }: DrainRecord): boolean {
  return state.kind === 'draining' || state.kind === 'returning' || vms.some(({ open }) => open !== null);
}
