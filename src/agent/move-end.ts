/**
 * How the source's side of a live move ends: handed over, gone on here after all, or its QEMU gone. What is journaled and said
 * then, in which order, and what may still be asked of QEMU and of the target.
 */
import type { Guest, GuestState } from '../hypervisor/hypervisor.ts';
import { messageOf, type Failure } from '../model/failure.ts';
import type { VmId } from '../model/ids.ts';
import type { MoveJob } from '../wire/agent.ts';
import type { AgentContext } from './context.ts';
import type { Guests } from './guests.ts';
import type { Peers, TargetLink } from './handover.ts';
import { insist } from './insist.ts';
import { holdMs, type MoveFacts } from './move-facts.ts';
import * as failures from './move-failures.ts';
import { rollBack } from './roll-back.ts';

const askAgainMs = 500;
/** A pause that is sent without a limit may keep QEMU from answering for long; a network that is gone does so for ever. */
const unansweredMs = 30_000;
/** The guest is paused: a target's agent that does not answer by then is not handed over to. */
const answerWithinMs = 500;
/** Where hosts are few and slow, what we do at once after the handover is taken from the guest that just woke up. */
const firstAnswersMs = 150;
/** What was sent last may still be on its way when the source is gone. */
const lastPagesMs = 2000;

export interface EndingMove {
  readonly context: AgentContext;
  readonly guests: Guests;
  readonly guest: Guest;
  readonly job: MoveJob;
  readonly peers: Peers;
  readonly link: TargetLink;
  readonly facts: MoveFacts;
  readonly signal: AbortSignal;
  soFar(): SoFar;
}

/** What the move has come to when it ends. */
export interface SoFar {
  /** The point of no return of a post-copy was journaled; and QEMU said that it is in post-copy. */
  readonly switched: boolean;
  readonly inPostCopy: boolean;
  readonly stoppedAt: number | undefined;
  readonly giveUp: Failure | undefined;
  readonly sentBytes: number | null;
  readonly highestThrottle: number;
}

export class MoveEnd {
  readonly #move: EndingMove;
  readonly #vm: VmId;

  constructor(move: EndingMove) {
    this.#move = move;
    this.#vm = move.guest.key.vm;
  }

  /**
   * A command that QEMU refuses or does not answer must not end the watch over a guest that is on its way: what was
   * wanted is tried again, or QEMU's next event tells what became of it.
   */
  async attempt(what: string, run: () => Promise<void>): Promise<boolean> {
    try {
      await run();
      return true;
    } catch (error) {
      this.#move.context.log.warn({ migration: this.#move.job.migration, what, error: messageOf(error) }, 'not done');
      return false;
    }
  }

  /**
   * Asked until it answers, or the guest is gone (then its events end too).
   * @param onHang what to do again and again about a QEMU that has not answered for long
   */
  async state(onHang?: () => Promise<void>): Promise<GuestState | 'gone'> {
    const since = this.#move.context.clock.monotonic();
    for (;;) {
      try {
        return await this.#move.guest.state();
      } catch (error) {
        if (this.#move.guests.running.get(this.#vm) !== this.#move.guest) return 'gone';
        this.#move.context.log.debug({ migration: this.#move.job.migration, error: messageOf(error) }, 'no state');
        if (this.#move.context.clock.monotonic() - since > unansweredMs) await onHang?.();
        await this.#move.context.clock.sleep(askAgainMs, this.#move.signal);
      }
    }
  }

  async completed(at: number): Promise<void> {
    const { clock } = this.#move.context;
    if (this.#move.soFar().inPostCopy) {
      this.#handOver(at);
      this.#move.facts.say({ kind: 'handed-over' }, at);
      return this.#measured();
    }
    // A switch that was asked for and not needed: QEMU ended it as a stop-and-copy.
    if (this.#move.soFar().stoppedAt !== undefined)
      this.#move.facts.say({ kind: 'stopped', for: 'stop-and-copy' }, this.#move.soFar().stoppedAt);
    // As long as `go` was never said nobody lets the guest run over there, and running on here is safe. Not so where a
    // switch was ordered and its events were missed: then it may have been let run by the switch itself.
    const mayGoOnHere = !this.#move.soFar().switched || this.#move.soFar().stoppedAt !== undefined;
    if (mayGoOnHere && !(await this.#move.link.answers(answerWithinMs))) return this.#goOnHere();
    try {
      this.#handOver(at);
    } catch (error) {
      this.#move.context.log.error(
        { migration: this.#move.job.migration, error: messageOf(error) },
        'the journal cannot be written',
      );
      if (mayGoOnHere) return this.#goOnHere();
      throw error;
    }
    const said = this.sayGo(at);
    // Told when the guest runs and clients have had their first answers, or when that takes long: then the server says `go`, too.
    await Promise.race([said.then(() => clock.sleep(firstAnswersMs)).catch(() => {}), clock.sleep(holdMs)]);
    await this.#measured(); // the numbers must be had before the guest is released
    this.#move.facts.say({ kind: 'handed-over' }, at);
    await said;
    this.#move.context.log.info(
      { migration: this.#move.job.migration, ms: Math.round(clock.now() - at) },
      'handed over',
    );
  }

  #handOver(at: number): void {
    this.#move.guests.setPart(this.#vm, {
      kind: 'handed-over',
      job: this.#move.job,
      ...this.#move.peers,
      at,
    });
  }

  async #goOnHere(): Promise<void> {
    if (!(await this.#letRun())) return this.sourceGone();
    return this.ended(failures.notHandedOver(this.#move.job.vmName));
  }

  /** @returns false when it is gone */
  async #letRun(): Promise<boolean> {
    while (!(await this.attempt('continue', () => this.#move.guest.continue()))) {
      const state = await this.state();
      if (state === 'gone') return false;
      if (state === 'running') return true;
      await this.#move.context.clock.sleep(askAgainMs, this.#move.signal);
    }
    return true;
  }

  async sayGo(handedOverAt: number): Promise<void> {
    const result = await this.#move.link.go(handedOverAt, this.#move.signal);
    if (result !== 'gone-unrun') return; // it runs there, or the server must find out
    await rollBack(this.#move.context, this.#move.guests, this.#move.guest, this.#move.job);
  }

  async #measured(): Promise<void> {
    const numbers = await this.#move.guest.transfer.numbers().catch(() => undefined);
    if (!numbers) return;
    this.#move.facts.say({
      kind: 'measured',
      measures: {
        downtimeQemuMs: numbers.downtimeMs,
        bytes: numbers.sentBytes,
        faults: this.#move.soFar().inPostCopy ? numbers.faults : 0,
        throttlePercent: this.#move.soFar().highestThrottle,
      },
    });
  }

  /** The guest runs here and this move is over. */
  async ended(failure: Failure | null): Promise<void> {
    // A guest that was paused to complete a held move is not let run by QEMU when that fails.
    if ((await this.state()) === 'paused' && !(await this.#letRun())) return this.sourceGone();
    const numbers = await this.#move.guest.transfer.numbers().catch(() => undefined);
    const bytes = numbers?.sentBytes || this.#move.soFar().sentBytes; // after a cancel QEMU has forgotten
    this.#move.facts.say({
      kind: 'measured',
      measures: { bytes, throttlePercent: this.#move.soFar().highestThrottle },
    });
    await this.staysHere(failure);
  }

  /** Nobody else ends this move: the order that comes again finds it under way. So until the disk takes it. */
  async staysHere(failure: Failure | null): Promise<void> {
    const { context, guests, guest, job, facts, signal } = this.#move;
    let isSaid = false;
    const settle = async () => {
      signal.throwIfAborted();
      // It may have died while nobody looked; once it is settled its end is reported as that of any guest.
      const isGone = guests.running.get(this.#vm) !== guest;
      if (isGone && !isSaid) return this.sourceGone();
      // Said before it is journaled: a fact may come twice after a crash, but must come.
      facts.say({ kind: 'source-running', failure });
      isSaid = true;
      if (isGone) return guests.ended(this.#vm, await guest.gone);
      guests.settle(this.#vm, { stayed: job.migration });
    };
    await insist(
      context,
      `that ${job.vmName} stays here is not told or not written down`,
      settle,
      () => signal.aborted,
    );
  }

  async hasFailed(): Promise<boolean> {
    for (;;) {
      const numbers = await this.#move.guest.transfer.numbers().catch(() => undefined);
      if (numbers) return numbers.state.kind === 'failed';
      if (this.#move.guests.running.get(this.#vm) !== this.#move.guest) return false;
      await this.#move.context.clock.sleep(askAgainMs, this.#move.signal);
    }
  }

  /**
   * QEMU runs the guest here again by itself when a move fails, also one that failed behind the last page of a post-copy,
   * when it may run on the target too. Only the target can say that it never ran.
   * @returns true: this side of the move is over
   */
  async failedAfterSwitch(): Promise<true> {
    while (!this.#move.soFar().inPostCopy) {
      const reply = await this.#move.link.rejoin(this.#vm, false);
      if (reply?.result === 'not-switched' || reply?.result === 'gone') {
        const numbers = await this.#move.guest.transfer.numbers().catch(() => undefined);
        const words = numbers?.state.kind === 'failed' ? numbers.state.words : '';
        await this.ended(this.#move.soFar().giveUp ?? failures.brokeOff(this.#move.job.vmName, words));
        return true;
      }
      if (reply && reply.result !== 'unknown') break;
      await this.#move.context.clock.sleep(askAgainMs, this.#move.signal);
    }
    await this.#move.guest.destroy();
    await this.sourceGone();
    return true;
  }

  /** Does the target have every page? Asked for a moment: what is on its way may still arrive. */
  async #arrivedWhole(): Promise<boolean> {
    const deadline = this.#move.context.clock.monotonic() + lastPagesMs;
    while (this.#move.context.clock.monotonic() < deadline) {
      const reply = await this.#move.link.rejoin(this.#vm, false);
      if (reply && reply.result !== 'incomplete') return reply.result === 'complete';
      await this.#move.context.clock.sleep(askAgainMs / 5);
    }
    return false;
  }

  async sourceGone(): Promise<void> {
    const gone = await this.#move.guest.gone;
    if (this.#move.guests.part(this.#vm).kind !== 'sending') return; // handed over, or ended by an order
    if (this.#move.soFar().switched && (await this.#arrivedWhole())) {
      await this.#move.guests.leave(this.#vm, { kind: 'none' }, () => this.#move.facts.say({ kind: 'handed-over' }));
      return;
    }
    const failure = failures.sourceGone(this.#move.job.vmName, this.#move.context.hostName, gone);
    await this.#move.guests.leave(this.#vm, { kind: 'none' }, () =>
      this.#move.facts.say({ kind: 'source-lost', failure }),
    );
  }
}
