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
  /** All of them, the preferred one first. Absent: just the one. */
  readonly migrationAddresses?: readonly string[];
  /** Where peers reach this agent. */
  readonly peer: Endpoint;
  /** Other ways to it, tried in turn. */
  readonly otherPeers?: readonly Endpoint[];
  readonly kernelBootId: string;
  /** Can a move from here be held ready without completing by itself? Absent: not known, so no. */
  readonly hold?: Ability;
  /** Can its agent be asked what a guest does with its memory? Absent: it is older than that question, and would not know it. */
  readonly measuresMemory?: true;
  /** Can its agent be told to switch a move to post-copy? Absent: it is older than that order. */
  readonly switchesOnOrder?: true;
  /** Bytes per second that the interface of the migration network says it carries. Absent: it does not say. */
  readonly interfaceBytesPerSecond?: number;
  /** How it can be sent to sleep from inside. Absent: its agent is older and cannot. */
  readonly sleep?: SleepAbility;
  /** Which pool each name stands for here: two hosts share a pool when its identity is the same. Absent: not known. */
  readonly poolIds?: Readonly<Record<string, string>>;
  /** Does a hardware watchdog cover its guard? As the guard said last in this boot. Absent: none has said. */
  readonly watchdog?: boolean;
}

export interface SleepAbility {
  /** Gives its lease back and starts nothing more, so that it can be shut down. */
  readonly off: Ability;
  /** Suspends to memory. */
  readonly suspend: Ability;
  /** Addresses of its network cards, which a magic packet may wake. */
  readonly macs: readonly string[];
}

export type Ability = { readonly ok: true } | { readonly ok: false; readonly reason: string };

/** How a host can be switched off from outside. Passwords are files of the server, never records. */
export type PowerSpec =
  | {
      readonly kind: 'ipmi';
      readonly address: string;
      readonly port: number;
      readonly user: string;
      readonly passwordFile: string;
    }
  | {
      readonly kind: 'redfish';
      /** Of the system, e.g. https://bmc1/redfish/v1/Systems/1 */
      readonly url: string;
      readonly user: string;
      readonly passwordFile: string;
      /** Certificate to trust; null: the system's. */
      readonly caFile: string | null;
    };

/**
 * Why a host is proven to run no guests. `power-off`: read back as off; `lease-taken`: its lease on the shared pool ran out
 * and was taken; `boot-id`: it has booted since; `word`: a person said so.
 */
export type FenceProof = 'power-off' | 'lease-taken' | 'boot-id' | 'word';

export interface Fenced {
  readonly at: number;
  readonly proof: FenceProof;
  readonly by: string;
  readonly because: string;
}

/**
 * Alive, but not to be trusted with guests for long. `suspect`: its guests are held ready to leave at once (armed);
 * `failing`: they leave now.
 */
export interface Failing {
  readonly severity: 'suspect' | 'failing';
  readonly at: number;
  readonly by: string;
  readonly because: string;
}

export interface HostRecord {
  readonly schema: 2;
  readonly id: HostId;
  readonly name: string;
  /** Rises each time the host comes back after silence or with a new boot; orders of an older one are refused. */
  readonly session: number;
  readonly cordoned: boolean;
  readonly labels: Readonly<Record<string, string>>;
  readonly inventory: HostInventory;
  readonly joinedAt: number;
  /** Null: nobody can switch it off from here. */
  readonly power: PowerSpec | null;
  /** Proven to run no guests since; null again when it comes back. */
  readonly fenced: Fenced | null;
  readonly failing: Failing | null;
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
  /** Of processors and memory, where they have meters (RAPL). */
  readonly raplWatts?: number;
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

/** What a host's guard says of its own lease on a shared pool. */
export interface GuardReport {
  readonly pool: string;
  readonly poolId: string;
  readonly leaseTimeMs: number;
  /** Until it kills the guests that use the pool, unless the lease is renewed before. */
  readonly leftMs: number;
  /** A hardware watchdog covers a guard that hangs. */
  readonly watchdog: boolean;
}

/** What one host sees of the lease of another on a pool that both have. */
export interface LeaseSeen {
  /** Name of the host whose lease it is. */
  readonly host: string;
  readonly poolId: string;
  readonly state: 'held' | 'released' | 'taken' | 'none';
  readonly bootId: string;
  readonly leaseTimeMs: number;
  /** How long it has not been renewed, by the clock of who looks. */
  readonly unchangedMs: number;
}

/** A sign that a host may die soon. */
export interface HealthSign {
  readonly kind: 'memory-errors' | 'disk' | 'pressure';
  readonly severity: 'warning' | 'failing';
  readonly says: string;
}
