/**
 * The connection that carries one guest's memory between two simulated QEMU processes, and what becomes of both when it
 * breaks: as measured with QEMU 10 with the return path on and a target started with -S.
 *
 *   connecting -> warm-up (rounds) -> final -> loading -> acking -> over            pre-copy
 *                            \-> package -> pages -> closing -> thanking -> over    post-copy
 *   connecting -> rejoining -> pages -> ...                                         what a broken post-copy left over
 *
 * Pages are numbers. A phase has so many bytes left; when they will have crossed is computed and one timer set for it, and
 * computed again when the wire's rate changes. Of TCP there is what matters here: a cut in silence is noticed by nobody
 * and is tried again ever later until TCP gives up; of a process that ended its peer hears at once where the network
 * carries the news; a machine without power says nothing.
 *
 * Not here: run states and commands of the processes (simulated-process.ts); compression and parallel streams, which
 * change how many bytes cross and nothing about failures.
 */
import type { Endpoint } from '../model/host.ts';
import { pageBytes } from '../model/units.ts';
import type { Timer } from '../runtime/clock.ts';
import type { TransferOptions } from './hypervisor.ts';
import { AutoConverge, dirtyPages, faults, firstRoundBytes, noNumbers, type Numbers } from './simulated-memory.ts';
import type { SimulatedQemu } from './simulated-process.ts';
import { dial, pathRate, retransmissionAfter, tcpGivesUpMs } from './simulated-tcp.ts';

/** The machine at one end, as far as streams know it. */
export interface StreamHost {
  readonly isOn: boolean;
  /** Those that end here; they are told when the power goes or comes. */
  readonly streams: Set<Stream>;
  /** The process that waits for a connection on this port. */
  listening(port: number): SimulatedQemu | undefined;
}

type Phase =
  | 'connecting'
  | 'warm-up'
  | 'final'
  | 'loading'
  | 'acking'
  | 'package'
  | 'rejoining'
  | 'pages'
  | 'closing'
  | 'thanking'
  | 'over';

/** Devices' state: what stop-and-copy and the post-copy's package carry besides pages. */
const deviceBytes = 300 * 1024;
/** Bitmap sync at a round's end: no round is shorter, however few pages were dirty. */
const syncMs = 5;
/** From the order to switch until the sending thread looks at it. */
const switchMs = 5;
const loadMs = 6;
/** The package fits into the socket's buffer: the source calls it sent, whether or not the network carries it. */
const packageWrittenMs = 2;
const cancelMs = 60;
const resumeMs = 1;
/** In these the source has sent what is not acknowledged: its TCP notices some day that nobody answers. */
const sourceSends: readonly Phase[] = ['warm-up', 'final', 'package', 'rejoining', 'pages', 'closing'];

/** A held transfer, as facts of QEMU 10: the smallest limit, and what it sends at next to no bandwidth. */
const heldLimitMs = 1;
const trickleBytesPerSecond = 1_300_000;
const heldLookMs = 500;

/** One end's socket. `mute`: its machine lost power, so nothing will ever be said for it. */
type Socket = 'open' | 'closed' | 'mute';

export class Stream {
  readonly #source: SimulatedQemu;
  #target: SimulatedQemu | undefined;
  readonly #to: Endpoint;
  readonly #options: TransferOptions;
  /** In post-copy a new stream takes up what a broken one left over. */
  readonly #isRecovery: boolean;
  readonly #faultsBefore: number;
  #phase: Phase = 'connecting';
  #sourceSocket: Socket = 'open';
  #targetSocket: Socket = 'open';
  /** Why the target closed its side, where it could say so. */
  #targetSays = 'Unable to read from socket: Connection reset by peer';
  #timer: Timer | undefined;
  #newsTimer: Timer | undefined;
  #writtenTimer: Timer | undefined;
  #stopWatching: (() => void) | undefined;
  #stopDialing: (() => void) | undefined;
  /** Bytes of this phase that have not crossed, as of `#countedAt`. */
  #left = 0;
  /** Bytes the target will miss when the package is there. */
  #missing = 0;
  #countedAt: number;
  #rate = 0;
  #phaseEndsAt = 0;
  #sentBytes = 0;
  #sentBefore = 0;
  #round = 0;
  #syncedAt = 0;
  #dirtyPagesPerSecond = 0;
  readonly #throttle = new AutoConverge();
  #limitMs: number;
  #bandwidth: number | null | 'trickle';
  #switchAsked = false;
  /** The package of a post-copy: from now on the target may run. */
  #isWritten: boolean;
  readonly #beganAt: number;
  #stoppedAt: number | undefined;
  #downtimeMs: number | null = null;
  #totalMs: number | null = null;
  /** Time in which the target's vCPUs ran while pages came. */
  #faultingMs = 0;
  /** Since when the path carries nothing, as TCP sees it. */
  #stalledSince: number | undefined;

  /** @param recovers the numbers of the broken stream that this one takes up */
  constructor(source: SimulatedQemu, to: Endpoint, options: TransferOptions, recovers?: Numbers) {
    this.#source = source;
    this.#to = to;
    this.#options = options;
    this.#isRecovery = recovers !== undefined;
    this.#isWritten = recovers !== undefined;
    this.#faultsBefore = recovers?.faults ?? 0;
    this.#sentBytes = recovers?.sentBytes ?? 0;
    this.#round = recovers?.round ?? 0;
    this.#downtimeMs = recovers?.downtimeMs ?? null;
    this.#limitMs = options.hold ? heldLimitMs : options.downtimeLimitMs;
    this.#bandwidth = options.maxBandwidthBytesPerSecond;
    this.#beganAt = source.host.clock.monotonic();
    this.#countedAt = this.#beganAt;
  }

  get isStalled(): boolean {
    return this.#stalledSince !== undefined;
  }

  /** While the last bytes of a paused guest are written, the source's main loop waits with them. */
  holdsUp(process: SimulatedQemu): boolean {
    if (process !== this.#source || this.#sourceSocket !== 'open') return false;
    return this.#phase === 'final' || (this.#phase === 'package' && !this.#isWritten);
  }

  numbersOf(process: SimulatedQemu): Numbers {
    this.#count();
    const faultsSoFar = this.#faults();
    const { wire, address } = this.#source.host;
    const faultMs = 0.2 + 2 * wire.latencyMs(address, this.#to.address);
    if (process !== this.#source) return { ...noNumbers, faultBlockedMs: Math.round(faultsSoFar * faultMs) };
    if (this.#phase === 'connecting' && !this.#isRecovery) return noNumbers;
    return {
      totalBytes: process.memoryBytes,
      remainingBytes: Math.round(this.#phase === 'package' ? this.#missing : this.#left),
      sentBytes: Math.round(this.#sentBytes),
      round: this.#round,
      dirtyPagesPerSecond: Math.round(this.#dirtyPagesPerSecond),
      throttlePercent: this.#throttle.percent,
      faults: faultsSoFar,
      downtimeMs: this.#downtimeMs,
      totalMs: this.#totalMs,
      faultBlockedMs: null,
    };
  }

  // Orders of the source's monitor

  begin(): void {
    this.#source.setTransfer({ kind: this.#isRecovery ? 'post-copy-rejoining' : 'preparing' });
    this.#source.host.streams.add(this);
    this.#stopWatching = this.#source.host.wire.onChange(() => this.pathChanged());
    const { clock, wire, address } = this.#source.host;
    this.#stopDialing = dial(clock, wire, address, this.#to.address, {
      reached: () => this.#reached(),
      failed: (why) => this.#notConnected(why),
    });
  }

  limitDowntime(ms: number): void {
    this.#limitMs = ms;
    if (this.#phase === 'warm-up') this.#schedule();
  }

  limitBandwidth(limit: number | null | 'trickle'): void {
    this.#bandwidth = limit;
    this.pathChanged();
  }

  switchToPostCopy(): void {
    if (!this.#options.postCopy) {
      throw new Error('Enable postcopy with migrate_set_capability before the start of migration');
    }
    this.#switchAsked = true;
    if (this.#phase === 'warm-up') this.#schedule();
  }

  /** Not once the switch to post-copy has begun: the process refuses that. */
  cancel(): void {
    if (this.#sourceSocket !== 'open' || this.#phase === 'over') return;
    const source = this.#source;
    source.setTransfer({ kind: 'sending' }); // QEMU says `cancelling`
    this.#sourceSocket = 'closed';
    source.host.clock.setTimeout(() => {
      if (!source.isAlive) return;
      source.resumeAfterFailure();
      source.leaveStream(this, noNumbers);
      source.setTransfer({ kind: 'cancelled' });
    }, cancelMs);
    this.#closed(source);
  }

  /** From outside, at one end: it sees a broken connection at once, the other when the network tells it. */
  cutBy(process: SimulatedQemu): void {
    if (this.#phase === 'connecting' || this.#phase === 'over') return; // there is no socket yet, or none any more
    this.#broken(process, 'Unable to write to socket: Broken pipe');
  }

  // News of the world

  /** The process at one end is no more. `silently`: with its whole machine. */
  endClosed(process: SimulatedQemu, silently: boolean): void {
    const socket = silently ? 'mute' : 'closed';
    if (process === this.#source) {
      this.#writtenTimer?.cancel();
      this.#sourceSocket = socket;
    } else this.#targetSocket = socket;
    this.#closed(process);
  }

  /** The power of a machine went: what its kernel still had to say is never said. */
  powerLost(host: StreamHost): void {
    if (host === this.#source.host) this.#sourceSocket = 'mute';
    if (host === this.#target?.host) this.#targetSocket = 'mute';
    this.pathChanged();
  }

  pathChanged(): void {
    if (this.#phase === 'over' || this.#phase === 'connecting') return;
    this.#count();
    const rate = this.#pathRate();
    if (rate === 0) this.#stalledSince ??= this.#now;
    this.#rate = this.#stalledSince === undefined ? rate : 0;
    this.#schedule();
    this.#stir();
  }

  // The path

  get #now(): number {
    return this.#source.host.clock.monotonic();
  }

  get #latencyMs(): number {
    return this.#source.host.wire.latencyMs(this.#source.host.address, this.#to.address);
  }

  #pathRate(): number {
    const { wire, address } = this.#source.host;
    const limit = this.#bandwidth === 'trickle' ? trickleBytesPerSecond : (this.#bandwidth ?? Infinity);
    return Math.min(pathRate(wire, address, this.#to.address), limit);
  }

  #after(ms: number, next: () => void): void {
    this.#timer?.cancel();
    this.#timer = this.#source.host.clock.setTimeout(next, ms);
  }

  #reached(): void {
    const there = this.#source.host.wire.machineAt(this.#to.address);
    const target = there?.listening(this.#to.port);
    if (target === undefined || target.isBroken !== this.#isRecovery) this.#notConnected('Connection refused');
    else this.#connected(target);
  }

  #notConnected(why: string): void {
    this.#broken(this.#source, `Failed to connect to '${this.#to.address}:${this.#to.port}': ${why}`);
  }

  #connected(target: SimulatedQemu): void {
    const source = this.#source;
    this.#target = target;
    target.accept(this);
    target.host.streams.add(this);
    this.#countedAt = this.#now;
    this.#rate = this.#pathRate();
    if (this.#isRecovery) {
      this.#phase = 'rejoining';
      this.#left = target.missingBytes;
      this.#missing = this.#left;
      source.setTransfer({ kind: 'post-copy-rejoining' });
      target.setTransfer({ kind: 'post-copy-rejoining' });
    } else {
      this.#phase = 'warm-up';
      this.#round = 1;
      this.#syncedAt = this.#now;
      this.#left = firstRoundBytes(source.memoryBytes, source.behaviour);
      source.emit({ kind: 'round', round: 1 });
      source.setTransfer({ kind: 'sending' });
      target.setTransfer({ kind: 'sending' });
    }
    this.#schedule();
  }

  /** What has crossed since the last look. */
  #count(): void {
    const ms = this.#now - this.#countedAt;
    this.#countedAt = this.#now;
    if (this.#rate === 0 || ms <= 0 || this.#phase === 'rejoining') return;
    const bytes = Math.min(this.#left, (this.#rate * ms) / 1000);
    this.#left -= bytes;
    this.#sentBytes += bytes;
    if (this.#phase === 'pages' && this.#target?.vcpusRun === true) this.#faultingMs += ms;
  }

  /** Sets the one timer: for the end of this phase, or for what TCP does about a path that carries nothing. */
  #schedule(): void {
    this.#count();
    this.#timer?.cancel();
    if (this.#phase === 'loading') return this.#after(Math.max(0, this.#phaseEndsAt - this.#now), () => this.#loaded());
    if (this.#stalledSince !== undefined) {
      if (this.#pathRate() === 0) {
        if (this.#now - this.#stalledSince < tcpGivesUpMs) {
          this.#after(this.#stalledSince + tcpGivesUpMs - this.#now, () => this.#tcpGivesUp());
        }
      } else this.#after(retransmissionAfter(this.#stalledSince, this.#now) - this.#now, () => this.#pathWorks());
      return;
    }
    if (this.#sourceSocket !== 'open' || this.#targetSocket !== 'open') return; // only the news of it is still under way
    const crossing = (this.#left * 1000) / this.#rate;
    switch (this.#phase) {
      case 'warm-up': {
        const isNear = this.#left <= this.#threshold;
        const roundMs = (isNear ? 0 : crossing) + syncMs;
        return this.#after(this.#switchAsked ? Math.min(switchMs, roundMs) : roundMs, () => this.#boundary());
      }
      case 'final':
        return this.#after(crossing + this.#latencyMs, () => {
          this.#count();
          this.#phase = 'loading';
          this.#phaseEndsAt = this.#now + loadMs;
          this.#schedule();
          this.#stir();
        });
      case 'rejoining':
        return this.#after(2 * this.#latencyMs, () => this.#rejoined());
      case 'package':
        return this.#after(crossing + this.#latencyMs, () => this.#packageArrived());
      case 'pages':
        return this.#after(crossing + this.#latencyMs + (this.#isWritten ? 0 : packageWrittenMs), () => {
          this.#count();
          this.#phase = 'closing';
          this.#schedule();
        });
      case 'closing':
        return this.#after(this.#latencyMs, () => this.#allArrived());
      case 'acking':
      case 'thanking':
        return this.#after(this.#latencyMs, () => this.#completed());
      case 'connecting':
      case 'over':
        return;
    }
  }

  /** A retransmission came through: the ends hear each other again, or that there is no other any more. */
  #pathWorks(): void {
    if (this.#pathRate() === 0) return this.#schedule();
    this.#stalledSince = undefined;
    this.#rate = this.#pathRate();
    this.#countedAt = this.#now;
    this.#tell();
    this.#schedule();
    this.#stir();
  }

  #tcpGivesUp(): void {
    const words = 'Unable to write to socket: Connection timed out';
    const target = this.#target;
    const targetSends = this.#phase === 'pages' && target?.vcpusRun === true;
    if (this.#sourceSocket === 'open' && sourceSends.includes(this.#phase)) this.#broken(this.#source, words);
    if (this.#targetSocket === 'open' && target !== undefined && targetSends) this.#broken(target, words);
  }

  // What travels

  get #threshold(): number {
    return (this.#rate * this.#limitMs) / 1000;
  }

  /** The end of a round, or the moment in it at which the sending thread sees that it shall switch. */
  #boundary(): void {
    this.#count();
    const isEnd = this.#left <= Math.max(1, this.#threshold);
    if (!isEnd && !this.#switchAsked) return this.#schedule();
    const ms = this.#now - this.#syncedAt;
    const { behaviour, vcpusRun } = this.#source;
    const dirty = vcpusRun ? dirtyPages(behaviour, ms * (1 - this.#throttle.percent / 100)) : 0;
    if (!isEnd) return this.#switch(dirty);
    this.#syncedAt = this.#now;
    this.#dirtyPagesPerSecond = ms > 0 ? (dirty * 1000) / ms : 0;
    if (this.#options.autoConverge) this.#throttle.roundEnded(dirty * pageBytes, this.#sentBytes - this.#sentBefore);
    this.#left += dirty * pageBytes;
    this.#nextRound();
    if (this.#left > this.#threshold) return this.#schedule();
    // Held: it completes only when its guest is stopped. QEMU looks again and again; here seldom, which comes to the same.
    if (this.#options.hold && vcpusRun) this.#after(heldLookMs, () => this.#boundary());
    else this.#stopAndCopy();
  }

  #nextRound(): void {
    this.#round++;
    this.#sentBefore = this.#sentBytes;
    this.#source.emit({ kind: 'round', round: this.#round });
  }

  #pause(): void {
    this.#stoppedAt = this.#now;
    this.#source.stopToSend();
    this.#source.setTransfer({ kind: 'switching' });
    this.#nextRound();
  }

  #stopAndCopy(): void {
    this.#phase = 'final';
    this.#left += deviceBytes;
    this.#pause();
    this.#schedule();
  }

  #loaded(): void {
    const target = this.#target;
    if (target?.isAlive !== true) return;
    const refusal = target.host.surroundings.refuses?.('load', target.key);
    if (refusal !== undefined) {
      this.#targetSays = 'Sibling indicated error 1';
      return target.end('exit', refusal);
    }
    target.load(this.#source);
    this.#phase = 'acking';
    target.setTransfer({ kind: 'completed' });
    target.runIfAsked();
    if (this.#sourceSocket !== 'open') return this.#finish();
    this.#schedule();
  }

  #completed(): void {
    const source = this.#source;
    if (this.#phase === 'acking') this.#downtimeMs = Math.round(this.#now - (this.#stoppedAt ?? this.#now));
    this.#totalMs = Math.round(this.#now - this.#beganAt);
    source.sent();
    source.leaveStream(this, this.numbersOf(source));
    this.#finish();
    source.setTransfer({ kind: 'completed' });
  }

  // Post-copy

  #switch(dirty: number): void {
    this.#missing = this.#left + dirty * pageBytes;
    this.#phase = 'package';
    this.#left = deviceBytes;
    this.#pause();
    this.#writtenTimer = this.#source.host.clock.setTimeout(() => {
      this.#isWritten = true;
      this.#downtimeMs = Math.round(this.#now - (this.#stoppedAt ?? this.#now));
      this.#source.setTransfer({ kind: 'post-copy' });
      this.#stir();
    }, packageWrittenMs);
    this.#schedule();
  }

  #packageArrived(): void {
    const target = this.#target;
    if (target?.isAlive !== true) return;
    this.#count();
    this.#phase = 'pages';
    this.#left = this.#missing;
    target.load(this.#source);
    target.setTransfer({ kind: 'post-copy' });
    target.runIfAsked();
    this.#schedule();
  }

  /** Both know what is missing. */
  #rejoined(): void {
    this.#phase = 'pages';
    this.#target?.setTransfer({ kind: 'post-copy' });
    this.#source.setTransfer({ kind: 'post-copy' });
    this.#schedule();
    this.#stir();
  }

  #allArrived(): void {
    const target = this.#target;
    if (target?.isAlive !== true) return;
    target.missingBytes = 0;
    this.#phase = 'thanking';
    target.setTransfer({ kind: 'completed' });
    target.stir();
    this.#schedule();
  }

  #faults(): number {
    const { behaviour, memoryBytes } = this.#source;
    return this.#faultsBefore + faults(behaviour, memoryBytes, this.#missing, this.#faultingMs);
  }

  // The end of a connection

  /** This end's socket has an error: what QEMU does about it there. */
  #broken(end: SimulatedQemu, words: string): void {
    this.#count();
    if (end === this.#source) {
      if (this.#sourceSocket !== 'open') return;
      this.#sourceSocket = 'closed';
      this.#sourceBroken(words);
    } else {
      if (this.#targetSocket !== 'open') return;
      this.#targetSocket = 'closed';
      this.#targetBroken(end);
    }
    this.#closed(end);
    end.stir();
  }

  #sourceBroken(words: string): void {
    const source = this.#source;
    // A break after the last page is to QEMU no break of a post-copy but a failed move: the guest resumes here.
    const inPostCopy = this.#isWritten && this.#phase !== 'closing' && this.#phase !== 'thanking';
    source.leaveStream(this, inPostCopy ? this.numbersOf(source) : noNumbers);
    if (inPostCopy) return source.setTransfer({ kind: 'post-copy-broken', words });
    this.#writtenTimer?.cancel();
    source.setTransfer({ kind: 'failed', words });
    source.host.clock.setTimeout(() => source.resumeAfterFailure(), resumeMs);
  }

  #targetBroken(target: SimulatedQemu): void {
    switch (this.#phase) {
      case 'rejoining':
      case 'pages':
      case 'closing':
        target.missingBytes = this.#left;
        target.leaveStream(this, this.numbersOf(target));
        return target.setTransfer({ kind: 'post-copy-broken' });
      case 'connecting':
      case 'warm-up':
      case 'final':
      case 'package':
        return target.end('exit', 'load of migration failed: Input/output error');
      case 'loading': // all of it is here
      case 'acking':
      case 'thanking':
      case 'over':
        return;
    }
  }

  /** One end is closed: the other hears of it where and when the network carries the news. */
  #closed(end: SimulatedQemu): void {
    if (this.#phase === 'over') return;
    this.#count();
    const onlySource = this.#target === undefined;
    if (onlySource || (this.#sourceSocket !== 'open' && this.#targetSocket !== 'open')) return this.#finish();
    if (this.#phase === 'loading' && end === this.#source) return; // nothing of it is needed any more
    this.#rate = 0;
    this.#timer?.cancel();
    if (this.#pathRate() === 0 || this.#stalledSince !== undefined) return this.pathChanged();
    this.#newsTimer?.cancel();
    this.#newsTimer = this.#source.host.clock.setTimeout(() => {
      if (this.#stalledSince === undefined) this.#tell();
    }, this.#latencyMs);
  }

  /** A machine that was without power knows nothing of the connection, and says so to whoever sends it something. */
  #tell(): void {
    const target = this.#target;
    if (target === undefined || this.#phase === 'over') return;
    if (this.#targetSocket === 'closed' || (this.#targetSocket === 'mute' && sourceSends.includes(this.#phase))) {
      this.#broken(this.#source, this.#targetSays);
    }
    const targetSends = this.#phase === 'pages' && target.vcpusRun;
    if (this.#sourceSocket === 'closed' || (this.#sourceSocket === 'mute' && targetSends)) {
      this.#broken(target, 'Unable to read from socket: Connection reset by peer');
    }
  }

  #stir(): void {
    this.#source.stir();
    this.#target?.stir();
  }

  #finish(): void {
    this.#phase = 'over';
    this.#timer?.cancel();
    this.#newsTimer?.cancel();
    this.#stopWatching?.();
    this.#stopDialing?.();
    this.#source.host.streams.delete(this);
    this.#target?.host.streams.delete(this);
    this.#target?.leaveStream(this, this.numbersOf(this.#target));
  }
}
