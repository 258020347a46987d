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
  readonly argvVersion: 1;
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
  /** Its guest ended by itself or could not start. `start` tries again. */
  | { readonly kind: 'crashed'; readonly message: string }
  /** Its record goes as soon as the host has removed what it holds. */
  | { readonly kind: 'deleting'; readonly disks: 'keep' | 'delete' };

export interface VmRecord {
  readonly schema: 1;
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
}

export type VmAction = 'start' | 'stop' | 'migrate' | 'delete' | 'console';

/** What may be done with a VM in each state; handlers, CLI and dashboard read this one table. */
export const vmActions = {
  creating: [],
  stopped: ['start', 'delete'],
  starting: ['stop', 'console'],
  running: ['stop', 'migrate', 'console'],
  stopping: ['stop', 'console'],
  crashed: ['start', 'delete'],
  deleting: [],
} as const satisfies Record<VmState['kind'], readonly VmAction[]>;

export function vmCan(action: VmAction, state: VmState): boolean {
  const actions: readonly VmAction[] = vmActions[state.kind];
  return actions.includes(action);
}
