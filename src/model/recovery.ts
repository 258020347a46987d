/** What a lost host cost: when it fell silent, what proved it dead, and when each of its VMs was placed and ran again. */
import type { FenceProof } from './host.ts';
import type { HostId, RecoveryId, VmId } from './ids.ts';

/** One VM of a lost host. Times are ms since the epoch by the server's clock; null: not yet. */
export interface RecoveredVm {
  readonly vm: VmId;
  readonly vmName: string;
  readonly priority: number;
  /**
   * `restart`: started again elsewhere. `move`: it was on the move; the other host decides, and it may turn into a restart.
   * `left`: for a person, by its own setting.
   */
  readonly kind: 'restart' | 'move' | 'left';
  /** Where it is started again. */
  readonly target: HostId | null;
  /** Of the first order to start: waiting for a disk lock counts as booting. */
  readonly placedAt: number | null;
  readonly startedAt: number | null;
}

export interface RecoveryRecord {
  readonly schema: 1;
  readonly id: RecoveryId;
  readonly host: HostId;
  readonly hostName: string;
  /** Its last report; null: this server never had one. */
  readonly silentSince: number | null;
  /** When it was seen to be silent, or said itself that it had booted, or a person spoke. */
  readonly detectedAt: number;
  readonly fencedAt: number;
  readonly proof: FenceProof;
  readonly by: string;
  readonly because: string;
  readonly vms: readonly RecoveredVm[];
  /** When nothing more was waited for. */
  readonly endedAt: number | null;
}
