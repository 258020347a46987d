/**
 * What Drover needs of a hypervisor, in Drover's words. qemu/ is the real one; fake-guest.ts answers in tests.
 * Nothing of QEMU shows here: no capability names, no QMP states.
 *
 * Not here: what to do when (agent/ and migration/steer.ts decide), journals, taps and disk files (agent/).
 */
import type { Failure } from '../model/failure.ts';
import type { MemoryUse } from '../model/forecast.ts';
import type { Ability, Endpoint, GuestLoad } from '../model/host.ts';
import type { VmId } from '../model/ids.ts';
import type { RunningSpec, VmSpec } from '../model/vm.ts';

export interface HypervisorDescription {
  readonly version: string;
  readonly accel: 'kvm' | 'tcg';
  readonly machines: readonly string[];
  readonly liveMigration: Ability;
  readonly postCopy: Ability;
  /** Can a transfer be held before its end? */
  readonly hold: Ability;
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
  /** The sending side never completes by itself: only `completeNow` ends it. */
  readonly hold: boolean;
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
  /**
   * How much of its memory is in use and how fast it writes to it. Looks for somewhat more than a second, and costs the guest
   * nothing but a little of its host's CPU. Not while it moves. @throws when it cannot be measured now
   */
  memoryUse(): Promise<MemoryUse>;
  /** Unix socket of the serial console. */
  readonly consolePath: string;
  readonly transfer: Transfer;
  /** Null: its machine has no way to an agent in the guest. */
  readonly tasks: GuestTasks | null;
}

/** What a task's place in a guest is called by: the same attempt never runs twice in one boot of the guest. */
export interface TaskClaim {
  /** Of one attempt: letters, digits, '_' and '.'. */
  readonly id: string;
  /** As `boot()` said when it was assigned. */
  readonly boot: string;
}

export interface TaskProgram extends TaskClaim {
  /** The program and its arguments. */
  readonly command: readonly string[];
  /** Given to it besides what the guest's agent has. */
  readonly env: Readonly<Record<string, string>>;
  /** Ended by the guest itself after this long, in ms. */
  readonly limitMs: number;
  readonly outputLimitBytes: number;
}

/** What the guest's own record says of a task. */
export type TaskSeen =
  /** Nobody has claimed it in this boot. */
  | { readonly kind: 'unclaimed' }
  /** Proven that it cannot be claimed there, and was not. */
  | { readonly kind: 'refused'; readonly says: string }
  | { readonly kind: 'running' }
  | {
      readonly kind: 'ended';
      /** `never-ran`: it was cancelled before anybody claimed it. */
      readonly how: 'exited' | 'timed-out' | 'cancelled' | 'never-ran';
      /** Exit status; above 128: ended by the signal of that number less 128. */
      readonly status: number;
      readonly output: string;
      readonly truncated: boolean;
    }
  /** Nobody watches over it any more, and its end is not known. `other-boot`: the guest has booted since it was assigned. */
  | { readonly kind: 'gone'; readonly why: 'other-boot' | 'vanished' };

/**
 * Tasks inside a guest, by way of an agent that runs there. The guest itself remembers which were begun, so that any call may
 * be made again, from any host: an error or a lost answer proves nothing. Each call has its own deadline.
 */
export interface GuestTasks {
  /** Names this boot of the guest: the same over moves, another after each restart. @throws Error when nobody answers */
  boot(signal: AbortSignal): Promise<string>;
  /** Begins it, unless it was claimed before or the guest has booted since. */
  run(task: TaskProgram, signal: AbortSignal): Promise<void>;
  look(task: TaskProgram, signal: AbortSignal): Promise<TaskSeen>;
  /** Ends it, or sees to it that it never begins. What came of that is seen by `look`. */
  cancel(task: TaskClaim, signal: AbortSignal): Promise<void>;
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
  | { readonly kind: 'post-copy-broken'; readonly words?: string }
  /** A broken post-copy is connecting again; becomes `post-copy`, or `post-copy-broken` once more. */
  | { readonly kind: 'post-copy-rejoining' }
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

/** The sending side of a move; `pause` and `listenAgain` are the receiving side's too. Each call has its own deadline. */
export interface Transfer {
  start(to: Endpoint, options: TransferOptions): Promise<void>;
  numbers(): Promise<TransferNumbers>;
  limitDowntime(ms: number): Promise<void>;
  /** @param limit null: as fast as the link goes; `trickle`: a held transfer with little left costs next to nothing */
  limitBandwidth(limit: number | null | 'trickle'): Promise<void>;
  /** Ends a held transfer: pauses the guest, sends the rest. If it fails now, the guest stays paused until `continue`. */
  completeNow(): Promise<void>;
  /** The point of no return of a post-copy. */
  switchToPostCopy(): Promise<void>;
  /** Only in warm-up. The guest runs on here; resolves when the transfer has ended. */
  cancel(): Promise<void>;
  /**
   * Breaks a connection that holds up the main loop; works while ordinary commands hang. The transfer fails, the guest resumes here;
   * one that can neither end nor go on is ended, guest and all.
   */
  cutConnection(): Promise<void>;
  /**
   * Post-copy, either side: breaks a connection that may be dead already, so that this side knows (`post-copy-broken`).
   * Works while ordinary commands hang. Never on a source that has sent its last page: QEMU takes that for a failed move
   * and may run the guest there again. @throws when there is nothing to break
   */
  pause(): Promise<void>;
  /**
   * Target of a broken post-copy: listens for the rest on a free port of that address, and no longer where it did before.
   * Works while ordinary commands hang. @throws unless this side knows that it is broken
   */
  listenAgain(listenOn: string): Promise<Endpoint>;
  /**
   * Source of a broken post-copy: sends the rest there. Resolves when it begins to connect (`post-copy-rejoining`); what
   * becomes of it is told as `post-copy` or `post-copy-broken`. As often as wanted. @throws unless it is broken
   */
  resume(to: Endpoint): Promise<void>;
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
