/**
 * The source's side of one live move: starts the transfer, decides at each round's boundary (migration/steer.ts), hands
 * over, and says what it learnt. No server is asked while the guest is paused.
 *
 *   sending --(QEMU completed, journaled)--> handed-over --(release)--> none
 *   sending --(cancelled, failed: QEMU resumed the guest by itself)--> runs
 *   handed-over --(target proves that its copy is gone and never ran)--> runs
 *
 * The journal holds the job and its policy, so a restarted agent takes the move up where QEMU is by then. A post-copy whose
 * link breaks is joined again by rejoin.ts; what is left to do at the end stands in move-end.ts.
 */
import type { Guest, GuestEvent, TransferNumbers } from '../hypervisor/hypervisor.ts';
import { messageOf, type Failure } from '../model/failure.ts';
import type { Endpoint } from '../model/host.ts';
import type { VmId } from '../model/ids.ts';
import { steer, switchesAtOnce, unlimitedDowntimeMs } from '../migration/steer.ts';
import type { MoveJob } from '../wire/agent.ts';
import type { AgentContext } from './context.ts';
import type { Guests } from './guests.ts';
import { TargetLink, type Peers } from './handover.ts';
import { Holding } from './holding.ts';
import { MoveEnd } from './move-end.ts';
import { MoveFacts } from './move-facts.ts';
import * as failures from './move-failures.ts';
import { PostCopyLink } from './rejoin.ts';
import { Rounds } from './rounds.ts';
import { sampleOf } from './sample-of.ts';
import { transferOptions } from './transfer-options.ts';

const sampleEveryMs = 500;
/** A silent cut gives no event: this long without a byte in warm-up while there is something to send means that the link is gone. */
const stallMs = 10_000;
/** How long QEMU's main loop may be held up by the network while the guest is paused, beyond what the data needs. */
const hangMs = 4000;
const switchAtOnce = 'post-copy was asked for';

export class Outgoing {
  readonly job: MoveJob;
  readonly vm: VmId;
  readonly #context: AgentContext;
  readonly #guests: Guests;
  readonly #guest: Guest;
  readonly #link: TargetLink;
  readonly #facts: MoveFacts;
  readonly #postCopy: PostCopyLink;
  readonly #end: MoveEnd;
  /** Of a move that is held ready instead of completing. */
  readonly #holding: Holding | undefined;
  #endpoint: Endpoint;
  readonly #peers: Peers;
  readonly #stop = new AbortController();
  readonly #rounds = new Rounds();
  #sendingSince = 0;
  #downtimeLimitMs: number;
  /** The point of no return of a post-copy was journaled. */
  #switched: boolean;
  #inPostCopy = false;
  #stoppedAt: number | undefined;
  #giveUp: Failure | undefined;
  #cancelAsked = false;
  /** The guest was found paused to complete: when that began is not known. */
  #foundPaused = false;
  /** `transfer.start` was called: there is something to cancel. */
  #began = false;
  /** Since when nothing was sent, by the monotonic clock. */
  #quietSince: number;
  #last: { numbers: TransferNumbers; at: number } | undefined;
  #highestThrottle = 0;
  readonly over: Promise<void>;

  private constructor(
    context: AgentContext,
    guests: Guests,
    guest: Guest,
    job: MoveJob,
    endpoint: Endpoint,
    peers: Peers,
    start: boolean,
  ) {
    this.#context = context;
    this.#guests = guests;
    this.#guest = guest;
    this.job = job;
    this.#facts = new MoveFacts(context, job.migration);
    this.vm = guest.key.vm;
    this.#endpoint = endpoint;
    this.#peers = peers;
    this.#quietSince = context.clock.monotonic();
    const part = guests.part(this.vm);
    this.#switched = part.kind === 'sending' && part.switched;
    this.#downtimeLimitMs = transferOptions(job).downtimeLimitMs;
    this.#link = new TargetLink(
      context,
      [peers.targetPeer, ...(peers.otherPeers ?? [])],
      job.migration,
      context.journal.vm(this.vm)?.generation ?? 0,
    );
    this.#postCopy = new PostCopyLink({
      context,
      guest,
      link: this.#link,
      facts: this.#facts,
      signal: this.#stop.signal,
      endpoint: () => this.#endpoint,
      listensAt: (at) => this.#listensAt(at),
    });
    this.#end = new MoveEnd({
      context,
      guests,
      guest,
      job,
      peers,
      link: this.#link,
      facts: this.#facts,
      signal: this.#stop.signal,
      soFar: () => ({
        switched: this.#switched,
        inPostCopy: this.#inPostCopy,
        stoppedAt: this.#stoppedAt,
        giveUp: this.#giveUp,
        sentBytes: this.#last?.numbers.sentBytes ?? null,
        highestThrottle: this.#highestThrottle,
      }),
    });
    if (job.hold) this.#holding = new Holding(guest, job.policy, () => this.#facts.say({ kind: 'armed' }));
    this.over = this.#run(start).finally(() => {
      this.#stop.abort();
      this.#link.close();
      this.#facts.tellHeld();
    });
  }

  static begin(
    context: AgentContext,
    guests: Guests,
    guest: Guest,
    generation: number,
    job: MoveJob,
    endpoint: Endpoint,
    peers: Peers,
  ): Outgoing {
    guests.setPart(guest.key.vm, { kind: 'sending', job, endpoint, ...peers, switched: false }, { generation });
    return new Outgoing(context, guests, guest, job, endpoint, peers, true);
  }

  /** Takes up a move that was running when the agent ended. */
  static resume(
    context: AgentContext,
    guests: Guests,
    guest: Guest,
    job: MoveJob,
    endpoint: Endpoint,
    peers: Peers,
  ): Outgoing {
    return new Outgoing(context, guests, guest, job, endpoint, peers, false);
  }

  /** Only in warm-up; afterwards it is too late and nothing happens. */
  async cancel(): Promise<void> {
    if (this.#switched || this.#stoppedAt !== undefined) return;
    this.#cancelAsked = true;
    if (this.#began) await this.#cancelTransfer();
  }

  /** A held move completes now; another goes over to post-copy, if both sides were made ready for it. */
  async switchNow(): Promise<void> {
    const holding = this.#holding;
    if (!this.#began || this.#cancelAsked || this.#stoppedAt !== undefined) return;
    if (holding) await this.#end.attempt('complete', () => holding.switchNow());
    // QEMU refuses before it sends; the order is still due and comes again.
    else if (this.job.postCopy && this.#sendingSince > 0)
      await this.#switchToPostCopy(this.#rounds.last?.round ?? 1, 'it was asked for');
  }

  /** The server has decided without this side: no more asking of the target. Resolves when nothing is under way here. */
  async abandon(): Promise<void> {
    this.#stop.abort();
    await this.over.catch(() => {}); // whoever keeps this move has logged it
  }

  /** Asked again at each sample until the transfer has ended. */
  async #cancelTransfer(): Promise<void> {
    await this.#end.attempt('cancel', () => this.#guest.transfer.cancel());
  }

  async #run(start: boolean): Promise<void> {
    const unbound = this.#context.network.boundSendQueue();
    const events = this.#guest.events(this.#stop.signal)[Symbol.asyncIterator]();
    try {
      const reachable = await this.#link.ensureOpen();
      // An agent that begins again may be there before the target's: no move switches or hands over without it.
      if (!reachable) void this.#link.keepOpen();
      const goesOn = start ? await this.#start(reachable) : await this.#settleByState();
      if (goesOn) await this.#follow(events);
    } catch (error) {
      if (!this.#stop.signal.aborted) throw error;
    } finally {
      unbound();
      this.#stop.abort(); // ends `events` too, also while a read of it is waiting
    }
  }

  /** @returns whether there is a transfer to follow */
  async #start(targetIsReachable: boolean): Promise<boolean> {
    if (this.#cancelAsked) {
      await this.#end.staysHere(null);
      return false;
    }
    if (!targetIsReachable) {
      await this.#end.staysHere(failures.targetUnreachable(this.#peers.targetPeer));
      return false;
    }
    try {
      this.#began = true;
      await this.#guest.transfer.start(this.#endpoint, transferOptions(this.job));
    } catch (error) {
      const refused = failures.sourceRefused(this.job.vmName, this.#context.hostName, messageOf(error));
      // An order without an answer may have been taken all the same.
      if ((await this.#end.state()) === 'running') {
        await this.#end.ended(refused);
        return false;
      }
      this.#giveUp = refused;
      await this.#cancelTransfer();
    }
    // It was cancelled before there was anything to cancel.
    if (this.#cancelAsked) await this.#cancelTransfer();
    return true;
  }

  /** An event that could not be dealt with. After the last one, QEMU's state decides. @returns true when over */
  async #missed(event: GuestEvent, error: unknown): Promise<boolean> {
    if (this.#stop.signal.aborted) return true; // abandoned
    this.#context.log.error({ migration: this.job.migration, event, error: messageOf(error) }, 'an event was missed');
    if (event.kind !== 'transfer' || !/^(completed|cancelled|failed)$/.test(event.state.kind)) return false;
    // QEMU may be about to let the guest run on: it tells no more of this transfer, so the state is looked at until it says the end.
    while (await this.#settleByState()) await this.#context.clock.sleep(sampleEveryMs, this.#stop.signal);
    return true;
  }

  /** As #catchUp, until it succeeds: nobody else watches over this guest. */
  async #settleByState(): Promise<boolean> {
    for (;;) {
      try {
        return await this.#catchUp();
      } catch (error) {
        this.#stop.signal.throwIfAborted();
        this.#context.log.error({ migration: this.job.migration, error: messageOf(error) }, 'not settled yet');
        await this.#context.clock.sleep(sampleEveryMs, this.#stop.signal);
      }
    }
  }

  /** What QEMU did while no agent listened. @returns whether there is a transfer to follow */
  async #catchUp(): Promise<boolean> {
    const part = this.#guests.part(this.vm);
    this.#began = true;
    this.#sendingSince ||= this.job.startedAt;
    if (this.#switched && (await this.#end.hasFailed())) return !(await this.#end.failedAfterSwitch());
    if (part.kind === 'handed-over') {
      this.#facts.say({ kind: 'sending' });
      this.#facts.say({ kind: 'handed-over' }, part.at); // perhaps it was never said
      await this.#end.sayGo(part.at);
      return false;
    }
    const state = await this.#end.state(() => this.#cut('while no agent watched'));
    switch (state) {
      case 'gone':
        await this.#end.sourceGone();
        return false;
      case 'sent':
        this.#facts.say({ kind: 'sending' });
        await this.#end.completed(this.#context.clock.now());
        return false;
      case 'running':
      case 'paused': {
        const numbers = await this.#guest.transfer.numbers().catch(() => undefined);
        const words = numbers?.state.kind === 'failed' ? numbers.state.words : '';
        if (state === 'paused') await this.#guest.continue();
        await this.#end.ended(numbers?.state.kind === 'cancelled' ? null : failures.brokeOff(this.job.vmName, words));
        return false;
      }
      case 'sending-post-copy':
      case 'broken-post-copy':
        this.#inPostCopy = true;
        this.#facts.say({ kind: 'sending' });
        // Not when this agent looked: the guest has been paused since QEMU was told, or runs over there for long.
        this.#facts.say({ kind: 'stopped', for: 'post-copy' }, part.kind === 'sending' ? part.switchedAt : undefined);
        this.#facts.say({ kind: 'state-transferred' });
        if (state === 'broken-post-copy') this.#postCopy.is('post-copy-broken', this.#context.clock.now());
        return true;
      default:
        this.#facts.say({ kind: 'sending' });
        return true;
    }
  }

  /** Events in their order; samples beside them, so that a question QEMU does not answer delays no event. */
  async #follow(events: AsyncIterator<GuestEvent>): Promise<void> {
    const { signal } = this.#stop;
    const sampling = this.#sampleUntil(signal);
    for (;;) {
      const next = await events.next();
      if (signal.aborted) break;
      if (next.done) {
        await this.#end.sourceGone();
        break;
      }
      if (await this.#onEvent(next.value).catch((error: unknown) => this.#missed(next.value, error))) break;
    }
    this.#stop.abort();
    await sampling;
  }

  async #sampleUntil(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      try {
        await this.#context.clock.sleep(sampleEveryMs, signal);
        await this.#sample();
      } catch (error) {
        if (!signal.aborted)
          this.#context.log.warn({ migration: this.job.migration, error: messageOf(error) }, 'sample');
      }
    }
  }

  /** @returns true when this side of the move is over */
  async #onEvent(event: GuestEvent): Promise<boolean> {
    switch (event.kind) {
      case 'round':
        if (this.#holding?.isArmed) return false; // with little to send one round follows another
        if (this.#switched) {
          // What the switch leaves over is no round of warm-up; and a switch that was not heard is ordered again.
          if (!this.#isPaused && !this.#inPostCopy)
            await this.#end.attempt('switch', () => this.#guest.transfer.switchToPostCopy());
          return false;
        }
        // The last one comes while the guest is paused: nothing that may still be asked of QEMU holds up the handover.
        if (this.#isPaused) void this.#end.attempt('boundary', () => this.#boundary(event.round, event.at));
        else await this.#end.attempt('boundary', () => this.#boundary(event.round, event.at));
        return false;
      case 'stopped':
        this.#stoppedAt = event.at;
        this.#quietSince = this.#context.clock.monotonic();
        this.#facts.hold();
        this.#link.greet();
        if (!this.#switched) this.#facts.say({ kind: 'stopped', for: 'stop-and-copy' }, event.at);
        return false;
      case 'transfer':
        if (this.#inPostCopy) this.#postCopy.is(event.state.kind, event.at);
        return this.#onTransfer(event.state.kind, event.at);
      default:
        return false;
    }
  }

  async #onTransfer(state: string, at: number): Promise<boolean> {
    switch (state) {
      case 'sending':
        if (this.#sendingSince === 0) {
          this.#sendingSince = at;
          this.#rounds.first(at);
          this.#facts.say({ kind: 'sending' }, at);
          this.#facts.say({ kind: 'measured', measures: { firstPageMs: Math.max(0, at - this.job.startedAt) } });
          if (switchesAtOnce(this.job.technique)) await this.#switchToPostCopy(1, switchAtOnce);
        }
        return false;
      case 'post-copy':
        if (!this.#inPostCopy) {
          this.#inPostCopy = true;
          this.#facts.say({ kind: 'stopped', for: 'post-copy' }, this.#stoppedAt ?? at);
          this.#facts.say({ kind: 'state-transferred' }, at);
        }
        return false;
      case 'completed':
        await this.#end.completed(at);
        return true;
      case 'cancelled':
        await this.#end.ended(this.#giveUp ?? null);
        return true;
      case 'failed': {
        // QEMU closes the connection before it notes that it cancels, and may then take its own doing for a broken link.
        if (this.#cancelAsked && !this.#giveUp) {
          await this.#end.ended(null);
          return true;
        }
        if (this.#switched) return this.#end.failedAfterSwitch();
        const numbers = await this.#guest.transfer.numbers().catch(() => undefined);
        await this.#end.ended(
          this.#giveUp ??
            failures.brokeOff(this.job.vmName, numbers?.state.kind === 'failed' ? numbers.state.words : ''),
        );
        return true;
      }
      default:
        return false;
    }
  }

  /** A round has ended and another begins: measure it, then decide. */
  async #boundary(begins: number, at: number): Promise<void> {
    const numbers = await this.#guest.transfer.numbers();
    const round = this.#rounds.next(begins, at, numbers);
    if (!round) return;
    this.#facts.say({ kind: 'round', round }, at);
    if (this.#isPaused) return;
    if (this.#holding) await this.#holding.keep(numbers, round.bandwidthBytesPerSecond);
    else await this.#act();
  }

  async #act(): Promise<void> {
    const { transfer } = this.#guest;
    const action = steer(this.job.technique, this.job.policy, {
      rounds: this.#rounds.ended,
      downtimeLimitMs: this.#downtimeLimitMs,
      elapsedMs: this.#context.clock.now() - this.#sendingSince,
      postCopyPossible: this.job.postCopy,
    });
    switch (action.do) {
      case 'go-on':
        return;
      case 'raise-downtime-limit':
        this.#downtimeLimitMs = action.toMs;
        return transfer.limitDowntime(action.toMs);
      case 'pause':
        this.#downtimeLimitMs = unlimitedDowntimeMs;
        return transfer.limitDowntime(unlimitedDowntimeMs);
      case 'switch-to-post-copy':
        return this.#switchToPostCopy(this.#rounds.last?.round ?? 1, action.because);
      case 'give-up':
        this.#giveUp = action.failure;
        return this.#cancelTransfer();
    }
  }

  async #switchToPostCopy(round: number, because: string): Promise<void> {
    // Never without the target's agent there: it must see the switch and let the guest run.
    if (this.#switched || this.#cancelAsked || this.#giveUp || !this.#link.isOpen) return;
    const part = this.#guests.part(this.vm);
    if (part.kind !== 'sending') return;
    this.#guests.setPart(this.vm, { ...part, switched: true, switchedAt: this.#context.clock.now() });
    this.#switched = true; // not sooner: QEMU is never told of a switch that could not be written down
    this.#facts.say({ kind: 'switching', round, because });
    await this.#end.attempt('switch', () => this.#guest.transfer.switchToPostCopy());
  }

  /** Twice a second: progress for those who watch, and the only way to notice a link that died in silence. */
  async #sample(): Promise<void> {
    const { clock } = this.#context;
    let numbers: TransferNumbers;
    try {
      numbers = await this.#guest.transfer.numbers();
    } catch (error) {
      this.#context.log.debug({ migration: this.job.migration, error: messageOf(error) }, 'no sample');
      // While the guest is paused QEMU's main loop waits for the network; too long, and the connection must be cut.
      if (this.#isPaused && this.#quietMs() > hangMs + this.#longestUnseenMs())
        await this.#cut('while the guest was paused');
      return;
    }
    const now = clock.now();
    this.#highestThrottle = Math.max(this.#highestThrottle, numbers.throttlePercent);
    if (this.#inPostCopy && numbers.state.kind === 'post-copy') this.#facts.say({ kind: 'pre-paging' });
    const before = this.#last;
    this.#last = { numbers, at: now };
    this.#context.sample(
      sampleOf(this.job.migration, numbers, {
        at: now,
        before,
        phase: this.#inPostCopy
          ? this.#postCopy.recovering
            ? 'recovering'
            : 'pre-paging'
          : this.#isPaused
            ? 'stop-and-copy'
            : this.#holding?.isArmed
              ? 'armed'
              : 'warming-up',
        recovering: this.#postCopy.recovering,
        round: this.#rounds.current,
        lastRound: this.#rounds.last,
        sendingSince: this.#sendingSince,
        downtimeLimitMs: this.#downtimeLimitMs,
      }),
    );
    if (this.#inPostCopy) return this.#postCopy.sampled(numbers, now);
    // An agent that has begun again did not hear it stop.
    if (numbers.state.kind === 'switching') this.#foundPaused = true;
    if (numbers.sentBytes === before?.numbers.sentBytes) await this.#quiet(numbers);
    else this.#quietSince = clock.monotonic();
    if (numbers.state.kind !== 'sending' || this.#isPaused || this.#switched) return;
    if (this.#cancelAsked || this.#giveUp) await this.#cancelTransfer();
    else if (this.#holding) await this.#holding.keep(numbers, this.#rounds.last?.bandwidthBytesPerSecond ?? null);
    else if (now - this.#sendingSince >= (this.job.policy.deadlineMs ?? Infinity)) await this.#act();
    // It could not be when QEMU began to send: the disk was full, or the target's agent away.
    else if (switchesAtOnce(this.job.technique)) await this.#switchToPostCopy(1, switchAtOnce);
  }

  get #isPaused(): boolean {
    return (this.#stoppedAt !== undefined || this.#foundPaused) && !this.#inPostCopy;
  }

  #quietMs(): number {
    return this.#context.clock.monotonic() - this.#quietSince;
  }

  /** Nothing was sent since the last sample. */
  async #quiet(numbers: TransferNumbers): Promise<void> {
    const quietMs = this.#quietMs();
    if (this.#isPaused) {
      if (quietMs > hangMs) await this.#cut('while the guest was paused');
    } else if (quietMs > stallMs && numbers.remainingBytes > 0) {
      if (numbers.state.kind === 'sending' && this.#switched) {
        // The switch was ordered and may come at any moment: a cancel would be wrong then, a cut never is.
        await this.#cut('before the switch to post-copy');
      } else if (numbers.state.kind === 'sending') {
        this.#giveUp ??= failures.linkLost(this.#context.hostName, 'in warm-up'); // cancelled below, and again until it has ended
      }
    }
  }

  /** The transfer fails, or breaks off where it is in post-copy; in both cases QEMU says so. */
  async #cut(when: string): Promise<void> {
    this.#giveUp ??= failures.linkLost(this.#context.hostName, when);
    await this.#end.attempt('cut', () => this.#guest.transfer.cutConnection());
  }

  #listensAt(endpoint: Endpoint): void {
    this.#endpoint = endpoint;
    const part = this.#guests.part(this.vm);
    if (part.kind === 'sending') this.#guests.setPart(this.vm, { ...part, endpoint });
  }

  /** While QEMU answers nothing: how long what was left at the last answer may take, three times over. */
  #longestUnseenMs(): number {
    const left = this.#last?.numbers.remainingBytes ?? 0;
    const bandwidth = this.#rounds.last?.bandwidthBytesPerSecond ?? 1_000_000;
    return (3 * left * 1000) / Math.max(1, bandwidth);
  }
}
