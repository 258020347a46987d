/**
 * One simulated QEMU process: its run state, its events, its commands and its end, as QEMU 10 does them. It protects
 * nobody from running a VM twice: a source that handed over can be continued.
 *
 * Not here: what travels between two processes and what a broken connection does to them (simulated-stream.ts), the host
 * they run on and the agent's connection to them (simulated.ts).
 */
import type { Endpoint } from '../model/host.ts';
import type { VmId } from '../model/ids.ts';
import type { RunningSpec } from '../model/vm.ts';
import { MiB } from '../model/units.ts';
import type { Clock, Timer } from '../runtime/clock.ts';
import type { Random } from '../runtime/random.ts';
import type {
  GuestEvent,
  GuestKey,
  GuestState,
  LaunchOptions,
  TransferNumbers,
  TransferOptions,
  TransferState,
} from './hypervisor.ts';
import { noNumbers, type Numbers } from './simulated-memory.ts';
import { Stream, type StreamHost } from './simulated-stream.ts';
import { calmGuest, type GuestBehaviour, type MigrationWire, type Surroundings } from './simulated-surroundings.ts';

/** What is true of a process, whoever knows it. */
export interface SimulatedProcess {
  readonly vm: VmId;
  readonly generation: number;
  readonly machine: string;
  readonly vcpusRun: boolean;
  readonly state: GuestState;
  /** Lineage of its memory: a guest booted from disk begins a new one, one that migrated carries it on. 0: none has come yet. */
  readonly life: number;
}

const unlimitedMs = 2_000_000;

/** The machine a process runs on, as far as the process knows it. */
export interface ProcessHost extends StreamHost {
  readonly name: string;
  readonly address: string;
  readonly clock: Clock;
  readonly random: Random;
  readonly wire: MigrationWire;
  readonly surroundings: Surroundings;
  /** Called once when the process has ended. */
  ended(process: SimulatedQemu): void;
}

type RunState = 'running' | 'paused' | 'inmigrate' | 'finish-migrate' | 'postmigrate' | 'shutdown';
type WithoutTime<T> = T extends unknown ? Omit<T, 'at'> : never;

/** A command that came while the main loop was held up: it is carried out when the loop is free, asked for still or not. */
export interface WaitingCommand {
  readonly run: () => void;
  readonly refuse: (error: Error) => void;
}

export interface Listener {
  readonly event: (event: GuestEvent) => void;
  readonly end: () => void;
}

/** More than any agent sends to one monitor. */
const waitingAtMost = 64;
/** `completed` comes a moment before the source may be continued. */
const finalizeMs = 1;
const exitMs = 3;

export class SimulatedQemu implements SimulatedProcess {
  readonly host: ProcessHost;
  readonly key: GuestKey;
  readonly pid: number;
  readonly name: string;
  readonly running: RunningSpec;
  readonly startedAt: number;
  life: number;
  transfer: TransferState = { kind: 'none' };
  /** Of a post-copy: what this side still misses, known on the target only. */
  missingBytes = 0;
  /** The last words on its stderr. */
  words = '';
  poweredOff = false;
  endedAt: number | undefined;
  readonly #diskPaths: readonly string[];
  readonly #listeners = new Set<Listener>();
  #run: RunState;
  #stream: Stream | undefined;
  #lastNumbers: Numbers = noNumbers;
  #port: number | undefined;
  #options: TransferOptions | undefined;
  /** It has not got all of its memory yet. */
  #isIncoming: boolean;
  /** `cont` came before the state did. */
  #runsOnArrival = false;
  /** A guest that was paused before a transfer stays so after it. */
  #ranBefore = false;
  #powerButton = false;
  #shutdown: Timer | undefined;
  #finalizedAt = 0;
  /** A main loop that touches a missing page hangs until it comes. */
  #loopTouchesPages = false;
  #waiting: WaitingCommand[] = [];

  constructor(host: ProcessHost, options: LaunchOptions, start: { pid: number; life: number; incoming: boolean }) {
    this.host = host;
    this.key = options.key;
    this.name = options.name;
    this.running = options.running;
    this.pid = start.pid;
    this.life = start.life;
    this.startedAt = host.clock.monotonic();
    this.#isIncoming = start.incoming;
    this.#run = start.incoming ? 'inmigrate' : 'running';
    this.#diskPaths = options.running.spec.disks.map(
      (disk) => `${options.local.pools[disk.pool] ?? disk.pool}/${disk.file}`,
    );
  }

  get vm(): VmId {
    return this.key.vm;
  }

  get generation(): number {
    return this.key.generation;
  }

  get machine(): string {
    return this.host.name;
  }

  get isAlive(): boolean {
    return this.endedAt === undefined;
  }

  get vcpusRun(): boolean {
    return this.isAlive && this.#run === 'running';
  }

  get memoryBytes(): number {
    return this.running.spec.memoryMiB * MiB;
  }

  get behaviour(): GuestBehaviour {
    return this.host.surroundings.behaviour?.(this.vm) ?? calmGuest;
  }

  /** The port on which this copy waits for memory. */
  get port(): number | undefined {
    return this.isAlive ? this.#port : undefined;
  }

  /** QEMU's run state and migration state in one word of ours. */
  get state(): GuestState {
    const { kind } = this.transfer;
    const isBroken = kind === 'post-copy-broken' || kind === 'post-copy-rejoining';
    switch (this.#run) {
      case 'inmigrate':
        return 'incoming';
      case 'shutdown':
        return 'shut-down';
      case 'postmigrate':
        return 'sent';
      case 'finish-migrate':
        if (kind === 'post-copy') return 'sending-post-copy';
        return isBroken ? 'broken-post-copy' : 'sending';
      case 'paused':
        if (kind === 'completed') return 'loaded';
        if (kind === 'sending' || kind === 'switching') return 'sending';
        return isBroken || kind === 'post-copy' ? 'switched' : 'paused';
      case 'running':
        if (isBroken) return 'broken-post-copy';
        return kind === 'sending' || kind === 'switching' || kind === 'preparing' ? 'sending' : 'running';
    }
  }

  /** Its side of a post-copy is known to be broken. */
  get isBroken(): boolean {
    return this.transfer.kind === 'post-copy-broken';
  }

  get mainLoopHangs(): boolean {
    return this.#stream?.holdsUp(this) === true || (this.#loopTouchesPages && this.#lacksPages);
  }

  /** A post-copy's guest that runs here and gets no pages: sooner or later it waits for one. */
  get #lacksPages(): boolean {
    const { kind } = this.transfer;
    if (!this.vcpusRun || !kind.startsWith('post-copy')) return false;
    return kind !== 'post-copy' || this.#stream?.isStalled === true;
  }

  numbers(): TransferNumbers {
    const numbers = this.#stream?.numbersOf(this) ?? this.#lastNumbers;
    return { state: this.transfer, ...numbers };
  }

  // What happens outside

  /** @returns a function that ends it */
  subscribe(listener: Listener): () => void {
    if (this.isAlive) this.#listeners.add(listener);
    else listener.end();
    return () => this.#listeners.delete(listener);
  }

  emit(event: WithoutTime<GuestEvent>): void {
    const at = this.host.clock.now();
    for (const listener of this.#listeners) listener.event({ at, ...event });
  }

  /** Gone at once, however it came about: the kernel closes its sockets, unless the whole machine is without power. */
  end(cause: 'exit' | 'power', words = ''): void {
    if (!this.isAlive) return;
    this.endedAt = this.host.clock.now();
    this.words = words;
    this.#shutdown?.cancel();
    if (cause === 'power') this.host.surroundings.locks?.freeLater(this);
    else this.host.surroundings.locks?.free(this);
    const stream = this.#stream;
    this.#stream = undefined;
    stream?.endClosed(this, cause === 'power');
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const command of waiting) command.refuse(new Error('QEMU closed the connection or died'));
    for (const listener of this.#listeners) listener.end();
    this.#listeners.clear();
    this.host.ended(this);
  }

  /** @returns false when another process has a disk open for writing */
  takeDisks(): boolean {
    return this.host.surroundings.locks?.take(this.#diskPaths, this) ?? true;
  }

  // Commands of its monitor. A refusal is thrown, in QEMU's words.

  /** Now, or as soon as the main loop is free. */
  whenFree(command: WaitingCommand): void {
    if (!this.isAlive) return command.refuse(new Error('QEMU closed the connection or died'));
    if (!this.mainLoopHangs) return command.run();
    if (this.#waiting.length >= waitingAtMost) return command.refuse(new Error('too many commands wait for an answer'));
    this.#waiting.push(command);
  }

  /** Carries out what waited, if the main loop is free again. */
  stir(): void {
    while (this.#waiting.length > 0 && this.isAlive && !this.mainLoopHangs) this.#waiting.shift()?.run();
  }

  continue(): void {
    switch (this.#run) {
      case 'running':
        return;
      case 'inmigrate':
        this.#runsOnArrival = true;
        return;
      case 'shutdown':
        throw new Error('Resetting the Virtual Machine is required');
      case 'finish-migrate':
        throw new Error('Migration is not finalized yet');
      case 'postmigrate':
        if (this.host.clock.monotonic() < this.#finalizedAt) throw new Error('Migration is not finalized yet');
        return this.#resumeOrThrow();
      case 'paused':
        return this.#resumeOrThrow();
    }
  }

  powerDown(): void {
    this.#powerButton = true;
    this.#planShutdown();
  }

  /** The guest's kernel gives up: QEMU says so and ends. */
  panic(): void {
    if (!this.vcpusRun) return;
    this.emit({ kind: 'panicked' });
    this.#shutDown('the kernel of the guest panicked.');
  }

  start(to: Endpoint, options: TransferOptions): void {
    if (this.#stream !== undefined) throw new Error("There's a migration process in progress");
    if (this.#run === 'inmigrate') throw new Error('Guest is waiting for an incoming migration');
    if (this.isBroken) throw new Error('There is a paused post-copy migration');
    if (this.#run === 'postmigrate') throw new Error("Can't migrate the vm that was already migrated");
    this.#options = options;
    this.#stream = new Stream(this, to, options);
    this.#stream.begin();
  }

  limitDowntime(ms: number): void {
    this.#stream?.limitDowntime(ms);
  }

  limitBandwidth(limit: number | null | 'trickle'): void {
    this.#stream?.limitBandwidth(limit);
  }

  completeNow(): void {
    if (this.vcpusRun) {
      this.#run = 'paused';
      this.emit({ kind: 'stopped' });
    }
    this.#stream?.limitDowntime(unlimitedMs);
  }

  switchToPostCopy(): void {
    if (this.#stream === undefined && this.transfer.kind === 'none') {
      throw new Error('Start the migration before switching to post-copy');
    }
    this.#stream?.switchToPostCopy();
  }

  cancel(): void {
    const { kind } = this.transfer;
    if (kind.startsWith('post-copy')) throw new Error('Postcopy migration in progress, cannot cancel.');
    this.#stream?.cancel();
  }

  cutConnection(): void {
    this.#stream?.cutBy(this);
  }

  pause(): void {
    if (
      this.transfer.kind !== 'post-copy' &&
      (this.transfer.kind !== 'post-copy-rejoining' || this.#stream === undefined)
    ) {
      throw new Error('migrate-pause is currently only supported during postcopy-active or postcopy-recover state');
    }
    this.#stream?.cutBy(this);
  }

  /** For what a broken post-copy left over; no longer where it listened before. */
  listenAgain(port: number): void {
    if (!this.#isIncoming || !this.isBroken) {
      throw new Error('Migrate recover can only be run when postcopy is paused.');
    }
    this.#port = port;
  }

  resume(to: Endpoint): void {
    if (this.#isIncoming || !this.isBroken || this.#options === undefined) {
      throw new Error('Cannot resume if there is no paused migration');
    }
    this.#stream = new Stream(this, to, this.#options, this.#lastNumbers);
    this.#stream.begin();
  }

  // What the stream does to its ends

  listen(port: number): void {
    this.#port = port;
    this.setTransfer({ kind: 'preparing' });
  }

  /** The one connection a listener takes. */
  accept(stream: Stream): void {
    this.#port = undefined;
    this.#stream = stream;
  }

  setTransfer(state: TransferState): void {
    if (state.kind === 'completed') this.#isIncoming = false;
    this.transfer = state;
    // An event says what, and not why: that is asked for.
    this.emit({
      kind: 'transfer',
      state: state.kind === 'failed' ? { kind: 'failed', words: '' } : { kind: state.kind },
    });
  }

  /** The stream has nothing more to do with this process. */
  leaveStream(stream: Stream, numbers: Numbers): void {
    if (this.#stream !== stream) return;
    this.#stream = undefined;
    this.#lastNumbers = numbers;
  }

  /** For the last of pre-copy, or for post-copy. The disks are let go with it. */
  stopToSend(): void {
    this.#ranBefore = this.#run === 'running';
    this.#run = 'finish-migrate';
    this.#shutdown?.cancel();
    this.#shutdown = undefined;
    this.host.surroundings.locks?.free(this);
    if (this.#ranBefore) this.emit({ kind: 'stopped' });
  }

  /** QEMU itself lets the guest run on after a transfer that came to nothing. */
  resumeAfterFailure(): void {
    if (!this.isAlive || this.#run !== 'finish-migrate') return;
    this.#run = 'paused';
    if (this.takeDisks() && this.#ranBefore) this.#resume();
  }

  sent(): void {
    this.#run = 'postmigrate';
    this.#finalizedAt = this.host.clock.monotonic() + finalizeMs;
  }

  /** All of it (pre-copy), or the state without all pages (post-copy). */
  load(from: SimulatedQemu): void {
    this.life = from.life;
    this.#powerButton = from.#powerButton;
    this.#run = 'paused';
    this.#loopTouchesPages = this.host.random.next() < 0.5;
  }

  /** `cont` was said before there was anything to run. */
  runIfAsked(): void {
    if (this.isAlive && this.#runsOnArrival && this.#run === 'paused' && this.takeDisks()) this.#resume();
  }

  #resumeOrThrow(): void {
    if (!this.takeDisks()) throw new Error(`Failed to get "write" lock\nIs another process using the image?`);
    this.#resume();
  }

  #resume(): void {
    this.#run = 'running';
    this.emit({ kind: 'resumed' });
    this.#planShutdown();
  }

  #planShutdown(): void {
    const { shutdownMs } = this.behaviour;
    if (!this.#powerButton || !this.vcpusRun || shutdownMs === null || this.#shutdown !== undefined) return;
    this.#shutdown = this.host.clock.setTimeout(() => {
      this.#shutdown = undefined;
      if (this.#lacksPages) this.#planShutdown();
      else if (this.vcpusRun) this.#powerOff();
    }, shutdownMs);
  }

  #powerOff(): void {
    this.poweredOff = true;
    this.emit({ kind: 'powered-off' });
    this.#shutDown('');
  }

  #shutDown(words: string): void {
    this.#run = 'shutdown';
    this.#shutdown?.cancel();
    this.#shutdown = this.host.clock.setTimeout(() => this.end('exit', words), exitMs);
  }
}
