/**
 * What the world around a simulated machine gives it: the network its memory streams cross, how each guest behaves, what
 * goes wrong when a process starts or loads, and the locks on disks. What QEMU does with all that is in
 * simulated-process.ts and simulated-stream.ts.
 */
import type { VmId } from '../model/ids.ts';
import type { Clock } from '../runtime/clock.ts';
import type { GuestKey } from './hypervisor.ts';
import type { StreamHost } from './simulated-stream.ts';

/** The world's network between machines, for QEMU's streams. */
export interface MigrationWire {
  /** Bytes per second that one stream gets now from one address to another; 0: cut in silence. May change at any time. */
  rate(from: string, to: string): number;
  /** The machine that has this address, switched on or not. */
  machineAt(address: string): StreamHost | undefined;
  /** Called when rates may have changed. @returns a function that stops it */
  onChange(listener: () => void): () => void;
  /** One way, in ms. */
  latencyMs(from: string, to: string): number;
}

/** How a guest uses its memory and obeys its power button. Asked anew at each round, so the world may change it. */
export interface GuestBehaviour {
  /** Share of its memory that holds anything but zeroes. */
  readonly residentShare: number;
  readonly workingSetMiB: number;
  /** Page writes per second, spread evenly over the working set. */
  readonly dirtyPagesPerSecond: number;
  readonly cpuCores: number;
  /** From the power button to the end of the process; null: it does not listen. */
  readonly shutdownMs: number | null;
}

/** Measured: facts of the lab's idle guest of 512 MiB, with a little writing. */
export const calmGuest: GuestBehaviour = {
  residentShare: 0.7,
  workingSetMiB: 16,
  dirtyPagesPerSecond: 200,
  cpuCores: 0.1,
  shutdownMs: 2000,
};

/** What the world may add to a machine; without it nothing goes wrong by itself and no disk is locked. */
export interface Surroundings {
  readonly behaviour?: (vm: VmId) => GuestBehaviour;
  /** QEMU's words when a process of this key shall not start, or shall refuse the state that was sent to it. */
  readonly refuses?: (what: 'start' | 'load', key: GuestKey) => string | undefined;
  readonly locks?: DiskLocks;
}

/**
 * QEMU's image lock: one writer per disk, wherever it runs. Only as good as the file system underneath: a world that
 * wants to see a VM run twice gives its machines none.
 */
export class DiskLocks {
  readonly #holders = new Map<string, object>();
  readonly #clock: Clock;
  readonly #keptAfterPowerOffMs: number;

  /** @param keptAfterPowerOffMs how long a file server keeps the locks of a client that is gone without a word */
  constructor(clock: Clock, keptAfterPowerOffMs = 0) {
    this.#clock = clock;
    this.#keptAfterPowerOffMs = keptAfterPowerOffMs;
  }

  /** All of them or none. @returns false when another holds one */
  take(paths: readonly string[], holder: object): boolean {
    if (paths.some((path) => (this.#holders.get(path) ?? holder) !== holder)) return false;
    for (const path of paths) this.#holders.set(path, holder);
    return true;
  }

  free(holder: object): void {
    for (const [path, held] of this.#holders) if (held === holder) this.#holders.delete(path);
  }

  /** The holder's machine lost its power. */
  freeLater(holder: object): void {
    if (this.#keptAfterPowerOffMs === 0) return this.free(holder);
    this.#clock.setTimeout(() => this.free(holder), this.#keptAfterPowerOffMs);
  }
}
