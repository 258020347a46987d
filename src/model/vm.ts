/**
 * A VM: what its owner wants (`spec`), what runs now (`running`, frozen at boot) and where.
 * The running part is carried by a migration exactly as it is: both command lines come from it.
 */
import type { HostId, MigrationId, VmId } from './ids.ts';

export interface VmSpec {
  readonly cpus: number;
  readonly memoryMiB: number;
  /** Pinned machine type, e.g. pc-q35-7.2: the oldest QEMU of the fleet must know it. */
  readonly machine: string;
  /** A named and versioned CPU model, e.g. qemu64-v1; never `host`. */
  readonly cpuModel: string;
  readonly boot: Boot;
  readonly disks: readonly DiskSpec[];
  readonly nics: readonly NicSpec[];
}

export type Boot =
  | { readonly kind: 'disk' }
  /** Kernel and initrd lie in the pool, beside the disks. */
  | {
      readonly kind: 'kernel';
      readonly pool: string;
      readonly kernel: string;
      readonly initrd: string | null;
      readonly append: string;
    };

export interface DiskSpec {
  readonly pool: string;
  /** Path inside the pool. */
  readonly file: string;
  readonly format: 'qcow2' | 'raw';
}

export interface NicSpec {
  readonly network: string;
  readonly mac: string;
}

/** What the agent must do before the first start: files to put into the pool. Originals are only read. */
export type DiskSource =
  | {
      readonly kind: 'copy';
      readonly from: string;
      readonly format: 'qcow2' | 'raw';
      readonly growToMiB: number | null;
    }
  | { readonly kind: 'blank'; readonly sizeMiB: number; readonly format: 'qcow2' | 'raw' };

export interface Provision {
  readonly pool: string;
  readonly file: string;
  readonly source: DiskSource;
}

/**
 * The guest-visible part of QEMU's command line, frozen at boot. Host-local values stand as placeholders
 * (`{pool:default}`, `{tap:0}`), so that source and target differ in nothing the guest can see.
 */
export interface RunningSpec {
  readonly argvVersion: 1 | 2 | 3;
  readonly argv: readonly string[];
  readonly spec: VmSpec;
}

export type VmState =
  /** Its disks are being made; `thenStart`: it is started as soon as they are there. */
  | { readonly kind: 'creating'; readonly thenStart: boolean }
  | { readonly kind: 'stopped' }
  | { readonly kind: 'starting' }
  | { readonly kind: 'running' }
  | { readonly kind: 'stopping'; readonly force: boolean; readonly timeoutMs: number }
  /**
   * It should run and does not: its host was lost or its guest ended badly. Started again where there is room, by priority,
   * and not before `notBefore`. No host holds anything of it.
   */
  | { readonly kind: 'waiting'; readonly since: number; readonly notBefore: number; readonly because: string }
  /** Its guest ended by itself or could not start. `start` tries again. */
  | { readonly kind: 'crashed'; readonly message: string }
  /** Its record goes as soon as the host has removed what it holds. */
  | { readonly kind: 'deleting'; readonly disks: 'keep' | 'delete' };

/** What becomes of a VM whose host is proven dead: started on another, or left for a person. */
export type Recovery = 'restart' | 'manual';

/** Started again on its host when its guest died by itself (`on-failure`), also when it powered itself off (`always`). */
export type RestartPolicy = 'never' | 'on-failure' | 'always';

/** Where a VM may be in respect of hosts and of other VMs. Groups are names that VMs share. */
export interface PlacingRules {
  /** Groups of which no two VMs shall share a host. */
  readonly apart: readonly string[];
  /** Groups whose VMs shall share one host. */
  readonly together: readonly string[];
  /** Names of the hosts it may be on; null: all. */
  readonly pinnedTo: readonly string[] | null;
}

export const noPlacingRules: PlacingRules = { apart: [], together: [], pinnedTo: null };

export interface VmRecord {
  readonly schema: 3;
  readonly id: VmId;
  readonly name: string;
  readonly spec: VmSpec;
  /** Of its last boot; null before the first. */
  readonly running: RunningSpec | null;
  readonly provision: readonly Provision[];
  readonly state: VmState;
  /** The host that runs it or ran it last. */
  readonly host: HostId;
  /** +1 with every decision about where it runs or whether. */
  readonly generation: number;
  /** The one open migration, if any. */
  readonly migration: MigrationId | null;
  readonly labels: Readonly<Record<string, string>>;
  /** Where an outside prober can reach it, if somebody said so. */
  readonly address: string | null;
  /** Null, or why it cannot move live (a host-local device). */
  readonly cannotMoveLive: string | null;
  readonly createdAt: number;
  readonly recovery: Recovery;
  readonly restart: RestartPolicy;
  /** Larger goes first when many must be started or moved: 0 to 1000. */
  readonly priority: number;
  /** Restarts by policy since it last ran for a while: they come ever later. */
  readonly restarts: { readonly count: number; readonly lastAt: number };
  readonly placing: PlacingRules;
}

export const defaultPriority = 500;

export type VmAction = 'start' | 'stop' | 'migrate' | 'delete' | 'console';

/** What may be done with a VM in each state; handlers, CLI and dashboard read this one table. */
export const vmActions = {
  creating: [],
  stopped: ['start', 'delete'],
  starting: ['stop', 'console'],
  running: ['stop', 'migrate', 'console'],
  stopping: ['stop', 'console'],
  waiting: ['start', 'stop'],
  crashed: ['start', 'delete'],
  deleting: [],
} as const satisfies Record<VmState['kind'], readonly VmAction[]>;

export function vmCan(action: VmAction, state: VmState): boolean {
  const actions: readonly VmAction[] = vmActions[state.kind];
  return actions.includes(action);
}
