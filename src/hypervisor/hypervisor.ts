/**
 * What Drover needs of a hypervisor, in Drover's words. qemu/ is the real one; fake-guest.ts answers in tests.
 * Nothing of QEMU shows here: no capability names, no QMP states.
 *
 * Not here: what to do when (agent/ and migration/steer.ts decide), journals, taps and disk files (agent/).
 */
import type { Failure } from '../model/failure.ts';
import type { Ability, Endpoint, GuestLoad } from '../model/host.ts';
import type { VmId } from '../model/ids.ts';
import type { RunningSpec, VmSpec } from '../model/vm.ts';

export interface HypervisorDescription {
  readonly version: string;
  readonly accel: 'kvm' | 'tcg';
  readonly machines: readonly string[];
  readonly liveMigration: Ability;
  readonly postCopy: Ability;
}

/** A guest's identity on a host: the same VM at a newer generation is another guest. */
export interface GuestKey {
  readonly vm: VmId;
  readonly generation: number;
}

/** Values of this host for the placeholders of a frozen command line. */
export interface LocalParts {
  /** Tap devices, one per NIC in order. */
  readonly taps: readonly string[];
  readonly pools: Readonly<Record<string, string>>;
}

export interface LaunchOptions {
  readonly key: GuestKey;
  readonly name: string;
  readonly running: RunningSpec;
  readonly local: LocalParts;
}

/** How memory will travel: set on both sides before anything is sent. */
export interface TransferOptions {
  readonly postCopy: boolean;
  readonly parallelStreams: number;
  readonly compression: 'none' | 'xbzrle' | 'zstd';
  readonly autoConverge: boolean;
  readonly maxBandwidthBytesPerSecond: number | null;
  readonly downtimeLimitMs: number;
}

export interface Hypervisor {
  describe(): Promise<HypervisorDescription>;
  /** Freezes the guest-visible command line for a boot. Pure. */
  freeze(spec: VmSpec): RunningSpec;
  /** Boots a guest. @throws FailureError guest-start-failed with the hypervisor's words */
  launch(options: LaunchOptions): Promise<Guest>;
  /**
   * Starts a copy that waits, paused, for memory and state, and does not run before `continue()`.
   * @param listenOn address of the migration network
   */
  receive(
    options: LaunchOptions,
    transfer: TransferOptions,
    listenOn: string,
  ): Promise<{ guest: Guest; endpoint: Endpoint }>;
  /** The guests of this host that run now, whoever started them: asked of the system, not of a file. */
  adopt(): Promise<Guest[]>;
}

/**
 * - `running`, `paused`: an ordinary guest, or one that has arrived
 * - `incoming`: waits for memory; `loaded`: all is here, waits for `continue` (pre-copy)
 * - `switched`: post-copy, the state is here, pages are missing, not continued yet
 * - `sent`: memory and state were handed to the target, which acknowledged; this side may still be continued
 * - `sending-post-copy`: the target may run; this side must never run again
 * - `broken-post-copy`: the link of a post-copy broke; both sides are kept
 */
export type GuestState =
  | 'running'
  | 'paused'
  | 'incoming'
  | 'loaded'
  | 'switched'
  | 'sending'
  | 'sent'
  | 'sending-post-copy'
  | 'broken-post-copy'
  | 'shut-down';

export interface Guest {
  readonly key: GuestKey;
  readonly pid: number;
  /** As recorded when it was started here. */
  readonly running: RunningSpec;
  state(): Promise<GuestState>;
  /** From now on, in order; ends when the guest is gone. */
  events(signal: AbortSignal): AsyncIterable<GuestEvent>;
  /** Lets the vCPUs run. Resolves when QEMU says they do. */
  continue(): Promise<void>;
  /** Presses the power button. */
  powerDown(): Promise<void>;
  /** Ends the process in an orderly way, then by force; resolves when it is gone. */
  destroy(): Promise<void>;
  /** Resolves when the process is gone. */
  readonly gone: Promise<GuestGone>;
  load(): Promise<GuestLoad>;
  /** Unix socket of the serial console. */
  readonly consolePath: string;
  readonly transfer: Transfer;
}

export interface GuestGone {
  readonly at: number;
  readonly how: 'powered-off' | 'destroyed' | 'died';
  /** The last words on its stderr, where there are any. */
  readonly words: string;
}

export type GuestEvent =
  | { readonly at: number; readonly kind: 'stopped' }
  | { readonly at: number; readonly kind: 'resumed' }
  | { readonly at: number; readonly kind: 'powered-off' }
  | { readonly at: number; readonly kind: 'panicked' }
  /** A round of warm-up begins (1 is the first). */
  | { readonly at: number; readonly kind: 'round'; readonly round: number }
  | { readonly at: number; readonly kind: 'transfer'; readonly state: TransferState };

export type TransferState =
  | { readonly kind: 'none' }
  | { readonly kind: 'preparing' }
  | { readonly kind: 'sending' }
  | { readonly kind: 'switching' }
  | { readonly kind: 'post-copy' }
  | { readonly kind: 'post-copy-broken' }
  | { readonly kind: 'completed' }
  | { readonly kind: 'cancelled' }
  | { readonly kind: 'failed'; readonly words: string };

/** Numbers of a running transfer, from the sending side; of the receiving side only faults are known. */
export interface TransferNumbers {
  readonly state: TransferState;
  readonly totalBytes: number;
  readonly remainingBytes: number;
  readonly sentBytes: number;
  readonly round: number;
  /** Dirty pages per second as the hypervisor estimates them; 0 before the first round ended. */
  readonly dirtyPagesPerSecond: number;
  readonly throttlePercent: number;
  readonly faults: number;
  readonly downtimeMs: number | null;
  readonly totalMs: number | null;
  /** Receiving side: time in which some vCPU waited for a page. */
  readonly faultBlockedMs: number | null;
}

/** The sending side of a move. Each call has its own deadline. */
export interface Transfer {
  start(to: Endpoint, options: TransferOptions): Promise<void>;
  numbers(): Promise<TransferNumbers>;
  limitDowntime(ms: number): Promise<void>;
  /** The point of no return of a post-copy. */
  switchToPostCopy(): Promise<void>;
  /** Only in warm-up. The guest runs on here; resolves when the transfer has ended. */
  cancel(): Promise<void>;
  /** Breaks a connection that holds up the main loop; works while ordinary commands hang. The transfer fails, the guest resumes here. */
  cutConnection(): Promise<void>;
}

/** An expected bad end, with what to tell the user. */
export class FailureError extends Error {
  override readonly name = 'FailureError';
  readonly failure: Failure;

  constructor(failure: Failure, options?: { cause?: unknown }) {
    super(failure.message, options);
    this.failure = failure;
  }
}
