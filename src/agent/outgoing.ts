/**
 * The source's side of one live move: starts the transfer, decides at each round's boundary (migration/steer.ts), hands
 * over, and says what it learnt. No server is asked while the guest is paused.
 *
 *   sending --(QEMU completed, journaled)--> handed-over --(release)--> none
 *   sending --(cancelled, failed: QEMU resumed the guest by itself)--> runs
 *   handed-over --(target proves that its copy is gone and never ran)--> runs
 *
 * The journal holds the job and its policy, so a restarted agent takes the move up where QEMU is by then.
 */
import type { Guest, GuestEvent, GuestState, TransferNumbers } from '../hypervisor/hypervisor.ts';
import { messageOf, type Failure } from '../model/failure.ts';
import type { Endpoint } from '../model/host.ts';
import type { VmId } from '../model/ids.ts';
import { steer, switchesAtOnce, unlimitedDowntimeMs } from '../migration/steer.ts';
import type { MoveJob } from '../wire/agent.ts';
import type { AgentContext } from './context.ts';
import type { Guests } from './guests.ts';
import { TargetLink } from './handover.ts';
import { holdMs, MoveFacts } from './move-facts.ts';
import * as failures from './move-failures.ts';
import { rollBack } from './roll-back.ts';
import { Rounds } from './rounds.ts';
import { sampleOf } from './sample-of.ts';
import { transferOptions } from './transfer-options.ts';

const sampleEveryMs = 500;
/** A silent cut gives no event: this long without a byte while there is something to send means that the link is gone. */
const stallMs = 10_000;
/** How long QEMU's main loop may be held up by the network while the guest is paused, beyond what the data needs. */
const hangMs = 4000;
/** Where hosts are few and slow, what we do at once after the handover is taken from the guest that just woke up. */
const firstAnswersMs = 150;

export class Outgoing {
  readonly job: MoveJob;
  readonly vm: VmId;
  readonly #context: AgentContext;
  readonly #guests: Guests;
  readonly #guest: Guest;
  readonly #link: TargetLink;
  readonly #facts: MoveFacts;
  readonly #endpoint: Endpoint;
  readonly #targetPeer: Endpoint;
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
  /** `transfer.start` was called: there is something to cancel. */
  #began = false;
  /** Since when nothing was sent, by the monotonic clock. */
  #quietSince: number;
  #linkIsDown = false;
  #linkLostInSilence = false;
  #last: { numbers: TransferNumbers; at: number } | undefined;
  #highestThrottle = 0;
  readonly over: Promise<void>;

  private constructor(
    context: AgentContext,
    guests: Guests,
    guest: Guest,
    job: MoveJob,
    endpoint: Endpoint,
    targetPeer: Endpoint,
    start: boolean,
  ) {
    this.#context = context;
    this.#guests = guests;
    this.#guest = guest;
    this.job = job;
    this.#facts = new MoveFacts(context, job.migration);
    this.vm = guest.key.vm;
    this.#endpoint = endpoint;
    this.#targetPeer = targetPeer;
    this.#quietSince = context.clock.monotonic();
    const part = guests.part(this.vm);
    this.#switched = part.kind === 'sending' && part.switched;
    this.#downtimeLimitMs = transferOptions(job).downtimeLimitMs;
    this.#link = new TargetLink(context, targetPeer, job.migration, context.journal.vm(this.vm)?.generation ?? 0);
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
    targetPeer: Endpoint,
  ): Outgoing {
    guests.setPart(guest.key.vm, { kind: 'sending', job, endpoint, targetPeer, switched: false }, { generation });
    return new Outgoing(context, guests, guest, job, endpoint, targetPeer, true);
  }

  /** Takes up a move that was running when the agent ended. */
  static resume(
    context: AgentContext,
    guests: Guests,
    guest: Guest,
    job: MoveJob,
    endpoint: Endpoint,
    targetPeer: Endpoint,
  ): Outgoing {
    return new Outgoing(context, guests, guest, job, endpoint, targetPeer, false);
  }

  /** Only in warm-up; afterwards it is too late and nothing happens. */
  async cancel(): Promise<void> {
    if (this.#switched || this.#stoppedAt !== undefined) return;
    this.#cancelAsked = true;
    if (this.#began) await this.#cancelTransfer();
  }

  /** The server has decided without this side: no more asking of the target. Resolves when nothing is under way here. */
  async abandon(): Promise<void> {
    this.#stop.abort();
    await this.over.catch(() => {}); // whoever keeps this move has logged it
  }

  /** Asked again at each sample until the transfer has ended. */
  async #cancelTransfer(): Promise<void> {
    await this.#attempt('cancel', () => this.#guest.transfer.cancel());
  }

  /**
   * A command that QEMU refuses or does not answer must not end the watch over a guest that is on its way: what was
   * wanted is tried again, or QEMU's next event tells what became of it.
   */
  async #attempt(what: string, run: () => Promise<void>): Promise<boolean> {
    try {
      await run();
      return true;
    } catch (error) {
      this.#context.log.warn({ migration: this.job.migration, what, error: messageOf(error) }, 'not done');
      return false;
    }
  }

  async #run(start: boolean): Promise<void> {
    const unbound = this.#context.network.boundSendQueue();
    const events = this.#guest.events(this.#stop.signal)[Symbol.asyncIterator]();
    try {
      const reachable = await this.#link.ensureOpen();
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
      this.#staysHere(null);
      return false;
    }
    if (!targetIsReachable) {
      this.#staysHere(failures.targetUnreachable(this.#targetPeer));
      return false;
    }
    try {
      this.#began = true;
      await this.#guest.transfer.start(this.#endpoint, transferOptions(this.job));
    } catch (error) {
      const refused = failures.sourceRefused(this.job.vmName, this.#context.hostName, messageOf(error));
      // An order without an answer may have been taken all the same.
      if ((await this.#state()) === 'running') {
        await this.#ended(refused);
        return false;
      }
      this.#giveUp = refused;
      await this.#cancelTransfer();
    }
    // It was cancelled before there was anything to cancel.
    if (this.#cancelAsked) await this.#cancelTransfer();
    return true;
  }

  /** Asked until it answers, or the guest is gone (then its events end too). */
  async #state(): Promise<GuestState | 'gone'> {
    for (;;) {
      try {
        return await this.#guest.state();
      } catch (error) {
        if (this.#guests.running.get(this.vm) !== this.#guest) return 'gone';
        this.#context.log.debug({ migration: this.job.migration, error: messageOf(error) }, 'no state');
        await this.#context.clock.sleep(sampleEveryMs, this.#stop.signal);
      }
    }
  }

  /** An event that could not be dealt with. After the last one, QEMU's state decides. @returns true when over */
  async #missed(event: GuestEvent, error: unknown): Promise<boolean> {
    if (this.#stop.signal.aborted) return true; // abandoned
    this.#context.log.error({ migration: this.job.migration, event, error: messageOf(error) }, 'an event was missed');
    if (event.kind !== 'transfer' || !/^(completed|cancelled|failed)$/.test(event.state.kind)) return false;
    return !(await this.#settleByState());
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
    if (part.kind === 'handed-over') {
      this.#facts.say({ kind: 'sending' });
      this.#facts.say({ kind: 'handed-over' }, part.at); // perhaps it was never said
      await this.#sayGo(part.at);
      return false;
    }
    const state = await this.#state();
    switch (state) {
      case 'gone':
        await this.#sourceGone();
        return false;
      case 'sent':
        this.#facts.say({ kind: 'sending' });
        await this.#completed(this.#context.clock.now());
        return false;
      case 'running':
      case 'paused': {
        const numbers = await this.#guest.transfer.numbers().catch(() => undefined);
        const words = numbers?.state.kind === 'failed' ? numbers.state.words : '';
        if (state === 'paused') await this.#guest.continue();
        await this.#ended(numbers?.state.kind === 'cancelled' ? null : failures.brokeOff(this.job.vmName, words));
        return false;
      }
      case 'sending-post-copy':
      case 'broken-post-copy':
        this.#inPostCopy = true;
        this.#facts.say({ kind: 'sending' });
        this.#facts.say({ kind: 'stopped', for: 'post-copy' });
        this.#facts.say({ kind: 'state-transferred' });
        if (state === 'broken-post-copy') this.#linkIsLost(this.#context.clock.now());
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
        await this.#sourceGone();
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
        if (this.#switched) {
          // What the switch leaves over is no round of warm-up; and a switch that was not heard is ordered again.
          if (!this.#isPaused && !this.#inPostCopy)
            await this.#attempt('switch', () => this.#guest.transfer.switchToPostCopy());
          return false;
        }
        // The last one comes while the guest is paused: nothing that may still be asked of QEMU holds up the handover.
        if (this.#isPaused) void this.#attempt('boundary', () => this.#boundary(event.round, event.at));
        else await this.#attempt('boundary', () => this.#boundary(event.round, event.at));
        return false;
      case 'stopped':
        this.#stoppedAt = event.at;
        this.#quietSince = this.#context.clock.monotonic();
        this.#facts.hold();
        if (!this.#switched) this.#facts.say({ kind: 'stopped', for: 'stop-and-copy' }, event.at);
        return false;
      case 'transfer':
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
          if (switchesAtOnce(this.job.technique)) await this.#switchToPostCopy(1, 'post-copy was asked for');
        }
        return false;
      case 'post-copy':
        if (!this.#inPostCopy) {
          this.#inPostCopy = true;
          this.#facts.say({ kind: 'stopped', for: 'post-copy' }, this.#stoppedAt ?? at);
          this.#facts.say({ kind: 'state-transferred' }, at);
        } else {
          this.#linkIsBack(at);
        }
        return false;
      case 'post-copy-broken':
        this.#linkIsLost(at);
        return false;
      case 'completed':
        await this.#completed(at);
        return true;
      case 'cancelled':
        await this.#ended(this.#giveUp ?? null);
        return true;
      case 'failed': {
        // QEMU closes the connection before it notes that it cancels, and may then take its own doing for a broken link.
        if (this.#cancelAsked && !this.#giveUp) {
          await this.#ended(null);
          return true;
        }
        const numbers = await this.#guest.transfer.numbers().catch(() => undefined);
        await this.#ended(
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
    const round = this.#rounds.next(begins, at, await this.#guest.transfer.numbers());
    if (!round) return;
    this.#facts.say({ kind: 'round', round }, at);
    if (!this.#isPaused) await this.#act();
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
    this.#switched = true;
    this.#guests.setPart(this.vm, { ...part, switched: true });
    this.#facts.say({ kind: 'switching', round, because });
    await this.#attempt('switch', () => this.#guest.transfer.switchToPostCopy());
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
        phase: this.#inPostCopy ? 'pre-paging' : this.#isPaused ? 'stop-and-copy' : 'warming-up',
        round: this.#rounds.current,
        lastRound: this.#rounds.last,
        sendingSince: this.#sendingSince,
        downtimeLimitMs: this.#downtimeLimitMs,
      }),
    );
    if (numbers.sentBytes !== before?.numbers.sentBytes) {
      this.#quietSince = clock.monotonic();
      if (this.#linkLostInSilence && numbers.state.kind === 'post-copy') this.#linkIsBack(now);
    } else {
      await this.#quiet(numbers, now);
    }
    if (numbers.state.kind !== 'sending' || this.#isPaused || this.#switched) return;
    if (this.#cancelAsked || this.#giveUp) await this.#cancelTransfer();
    else if (now - this.#sendingSince >= (this.job.policy.deadlineMs ?? Infinity)) await this.#act();
  }

  get #isPaused(): boolean {
    return this.#stoppedAt !== undefined && !this.#inPostCopy;
  }

  #quietMs(): number {
    return this.#context.clock.monotonic() - this.#quietSince;
  }

  /** Nothing was sent since the last sample. */
  async #quiet(numbers: TransferNumbers, now: number): Promise<void> {
    const quietMs = this.#quietMs();
    if (this.#isPaused) {
      if (quietMs > hangMs) await this.#cut('while the guest was paused');
    } else if (quietMs > stallMs && numbers.remainingBytes > 0) {
      if (numbers.state.kind === 'post-copy') {
        this.#linkLostInSilence = true;
        this.#linkIsLost(now);
      } else if (numbers.state.kind === 'sending' && this.#switched) {
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
    await this.#attempt('cut', () => this.#guest.transfer.cutConnection());
  }

  #linkIsLost(at: number): void {
    if (!this.#linkIsDown) this.#facts.say({ kind: 'link-lost' }, at);
    this.#linkIsDown = true;
  }

  #linkIsBack(at: number): void {
    if (this.#linkIsDown) this.#facts.say({ kind: 'link-restored' }, at);
    this.#linkIsDown = false;
    this.#linkLostInSilence = false;
  }

  /** While QEMU answers nothing: how long what was left at the last answer may take, three times over. */
  #longestUnseenMs(): number {
    const left = this.#last?.numbers.remainingBytes ?? 0;
    const bandwidth = this.#rounds.last?.bandwidthBytesPerSecond ?? 1_000_000;
    return (3 * left * 1000) / Math.max(1, bandwidth);
  }

  async #completed(at: number): Promise<void> {
    const { clock } = this.#context;
    if (this.#inPostCopy) {
      this.#handOver(at);
      this.#facts.say({ kind: 'handed-over' }, at);
      return this.#measured();
    }
    // A switch that was asked for and not needed: QEMU ended it as a stop-and-copy.
    if (this.#stoppedAt !== undefined) this.#facts.say({ kind: 'stopped', for: 'stop-and-copy' }, this.#stoppedAt);
    // As long as `go` was never said nobody lets the guest run over there, and running on here is safe. Not so where a
    // switch was ordered and its events were missed: then it may have been let run by the switch itself.
    const mayGoOnHere = !this.#switched || this.#stoppedAt !== undefined;
    if (mayGoOnHere && !(await this.#link.ensureOpen(500))) return this.#goOnHere();
    try {
      this.#handOver(at);
    } catch (error) {
      this.#context.log.error(
        { migration: this.job.migration, error: messageOf(error) },
        'the journal cannot be written',
      );
      if (mayGoOnHere) return this.#goOnHere();
      throw error;
    }
    const said = this.#sayGo(at);
    // Told when the guest runs and clients have had their first answers, or when that takes long: then the server says `go`, too.
    await Promise.race([said.then(() => clock.sleep(firstAnswersMs)).catch(() => {}), clock.sleep(holdMs)]);
    await this.#measured(); // the numbers must be had before the guest is released
    this.#facts.say({ kind: 'handed-over' }, at);
    await said;
    this.#context.log.info({ migration: this.job.migration, ms: Math.round(clock.now() - at) }, 'handed over');
  }

  #handOver(at: number): void {
    this.#guests.setPart(this.vm, { kind: 'handed-over', job: this.job, targetPeer: this.#targetPeer, at });
  }

  async #goOnHere(): Promise<void> {
    while (!(await this.#attempt('continue', () => this.#guest.continue()))) {
      const state = await this.#state();
      if (state === 'gone') return this.#sourceGone();
      if (state === 'running') break;
      await this.#context.clock.sleep(sampleEveryMs, this.#stop.signal);
    }
    return this.#ended(failures.notHandedOver(this.job.vmName));
  }

  async #sayGo(handedOverAt: number): Promise<void> {
    const result = await this.#link.go(handedOverAt, this.#stop.signal);
    if (result !== 'gone-unrun') return; // it runs there, or the server must find out
    await rollBack(this.#context, this.#guests, this.#guest, this.job);
  }

  async #measured(): Promise<void> {
    const numbers = await this.#guest.transfer.numbers().catch(() => undefined);
    if (!numbers) return;
    this.#facts.say({
      kind: 'measured',
      measures: {
        downtimeQemuMs: numbers.downtimeMs,
        bytes: numbers.sentBytes,
        faults: this.#inPostCopy ? numbers.faults : 0,
        throttlePercent: this.#highestThrottle,
      },
    });
  }

  /** The guest runs here and this move is over. */
  async #ended(failure: Failure | null): Promise<void> {
    const numbers = await this.#guest.transfer.numbers().catch(() => undefined);
    const bytes = numbers?.sentBytes || (this.#last?.numbers.sentBytes ?? null); // after a cancel QEMU has forgotten
    this.#facts.say({ kind: 'measured', measures: { bytes, throttlePercent: this.#highestThrottle } });
    this.#staysHere(failure);
  }

  #staysHere(failure: Failure | null): void {
    // Said before it is journaled: a fact may come twice after a crash, but must come.
    this.#facts.say({ kind: 'source-running', failure });
    this.#guests.settle(this.vm);
  }

  async #sourceGone(): Promise<void> {
    const gone = await this.#guest.gone;
    if (this.#guests.part(this.vm).kind !== 'sending') return; // handed over, or ended by an order
    const failure = failures.sourceGone(this.job.vmName, this.#context.hostName, gone);
    await this.#guests.leave(this.vm, { kind: 'none' }, () => this.#facts.say({ kind: 'source-lost', failure }));
  }
}
