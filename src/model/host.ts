/** A host: a machine that runs guests and one agent. What is known of it, and what it can do. */
import type { HostId, MigrationId, VmId } from './ids.ts';

export interface Endpoint {
  readonly address: string;
  readonly port: number;
}

/** What the host says of itself when its agent connects. Measured there, never assumed. */
export interface HostInventory {
  readonly cpus: number;
  readonly memoryMiB: number;
  /** Name of the physical CPU, as the kernel gives it. */
  readonly cpuModel: string;
  readonly accel: 'kvm' | 'tcg';
  readonly qemuVersion: string;
  /** Machine types this QEMU can run, e.g. pc-q35-7.2. */
  readonly machines: readonly string[];
  /** May a live move leave or reach this host? QEMU below 10 without KVM corrupts guest memory. */
  readonly liveMigration: Ability;
  /** May a guest arrive here by post-copy (userfaultfd)? */
  readonly postCopy: Ability;
  /** Names of networks (bridges) and pools present on this host. */
  readonly networks: readonly string[];
  readonly pools: readonly string[];
  /** Where guests' memory is received. */
  readonly migrationAddress: string;
  /** Where peers reach this agent. */
  readonly peer: Endpoint;
  readonly kernelBootId: string;
}

export type Ability = { readonly ok: true } | { readonly ok: false; readonly reason: string };

export interface HostRecord {
  readonly schema: 1;
  readonly id: HostId;
  readonly name: string;
  /** Rises each time the host comes back after silence or with a new boot; orders of an older one are refused. */
  readonly session: number;
  readonly cordoned: boolean;
  readonly labels: Readonly<Record<string, string>>;
  readonly inventory: HostInventory;
  readonly joinedAt: number;
}

/** Who holds room on a host. Written in the same commit as whatever takes or frees the room. */
export interface RoomRecord {
  readonly schema: 1;
  readonly host: HostId;
  /** What guests may use of the host's memory. */
  readonly capacityMiB: number;
  readonly guestsMiB: Readonly<Record<VmId, number>>;
  readonly reservationsMiB: Readonly<Record<MigrationId, number>>;
}

export function roomUsedMiB(room: RoomRecord): number {
  const sum = (held: Readonly<Record<string, number>>) => Object.values(held).reduce((a, b) => a + b, 0);
  return sum(room.guestsMiB) + sum(room.reservationsMiB);
}

/** Each second's report. Rates are over the last second. */
export interface HostLoad {
  readonly at: number;
  /** Share of all cores in use, 0..1. */
  readonly cpu: number;
  readonly memoryUsedMiB: number;
  readonly memoryTotalMiB: number;
  /** Share of time in which some task waited for CPU or memory (PSI avg10, 0..1), where the kernel tells. */
  readonly pressure: { readonly cpu: number; readonly memory: number } | null;
  readonly guests: Readonly<Record<VmId, GuestLoad>>;
}

export interface GuestLoad {
  /** Cores in use, e.g. 0.4 */
  readonly cpuCores: number;
  readonly memoryResidentMiB: number;
  readonly diskReadBytesPerSecond: number;
  readonly diskWriteBytesPerSecond: number;
  readonly netReceiveBytesPerSecond: number;
  readonly netSendBytesPerSecond: number;
}
