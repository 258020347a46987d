/**
 * The target's side of one live move: a copy that waits, paused, and runs exactly once, when it was told to.
 *
 *   receiving --(go, journaled)------------> continuing -> runs          pre-copy
 *   receiving --(post-copy, journaled)-----> continuing -> runs          post-copy: the switch itself is the `go`
 *   receiving --(closed, or QEMU ended)----> gone-unrun
 */
import type { Guest, GuestEvent, GuestState } from '../hypervisor/hypervisor.ts';
import { messageOf, type Failure } from '../model/failure.ts';
import type { VmId } from '../model/ids.ts';
import type { MigrationFact } from '../migration/step.ts';
import type { MoveJob, Order } from '../wire/agent.ts';
import type { AgentContext } from './context.ts';
import { failureOf, requireLease, type Guests } from './guests.ts';
import type { GoResult, RejoinReply } from './handover.ts';
import { insist } from './insist.ts';
import { transferOptions } from './transfer-options.ts';

const resumeTimeoutMs = 20_000;
const retryMs = 250;
/** How long QEMU may take from being told that its link is broken until it is. Less than the source waits. */
const breakOffMs = 3000;
const breakOffRetryMs = 50;
/** Less than the source waits for: its next `go` finds out. */
const goAnswerMs = 5000;

/** What an order to close allows. */
export type MayClose = Pick<Extract<Order, { kind: 'close' }>, 'evenIfItRan' | 'unlessWhole'>;

export class Incoming {
  readonly job: MoveJob;
  readonly vm: VmId;
  readonly #context: AgentContext;
  readonly #guests: Guests;
  readonly #guest: Guest;
  #continuing: Promise<void> | undefined;
  #allNoted = false;
  #rejoins = 0;
  #closing = false;
  /** In post-copy: the end of the transfer means that the last page is here. */
  #switched = false;
  /** Nothing more to follow: what the guest does from now on, moving on included, is not this move's. */
  readonly #done = new AbortController();
  /** Resolves when this side has nothing more to do. */
  readonly over: Promise<void>;

  private constructor(context: AgentContext, guests: Guests, guest: Guest, job: MoveJob) {
    this.#context = context;
    this.#guests = guests;
    this.#guest = guest;
    this.job = job;
    this.vm = guest.key.vm;
    const events = guest.events(this.#done.signal);
    this.over = this.#follow(events);
  }

  /** Prepares to receive. A failure becomes a fact, not an exception. @returns undefined when it failed */
  static async begin(
    context: AgentContext,
    guests: Guests,
    vm: VmId,
    generation: number,
    job: MoveJob,
  ): Promise<Incoming | undefined> {
    const { network, hypervisor, facts, disks, clock, migrationAddress } = context;
    let taps: string[] = [];
    let started: Guest | undefined;
    try {
      requireLease(context, job.running.spec);
      taps = await network.attach(vm, job.running.spec.nics);
      guests.setPart(vm, { kind: 'receiving', job }, { generation, taps, name: job.vmName });
      const { guest, endpoint } = await hypervisor.receive(
        { key: { vm, generation }, name: job.vmName, running: job.running, local: { taps, pools: disks.pools } },
        transferOptions(job),
        migrationAddress,
      );
      started = guest;
      guests.add(guest);
      const incoming = new Incoming(context, guests, guest, job);
      // With the endpoint, before it is said: a restarted agent knows whether somebody may be sending to this copy.
      guests.setPart(vm, { kind: 'receiving', job, endpoint });
      incoming.sayListening();
      return incoming;
    } catch (error) {
      await started?.destroy();
      await network.detach(taps);
      const cause = failureOf(error, `The copy of ${job.vmName} could not be prepared on ${context.hostName}.`);
      const failure: Failure = { ...cause, code: 'target-did-not-start' };
      const at = clock.now();
      let isNoted = false;
      // Noted first: an order that was on its way when this was told must not make another copy, of which nobody would know.
      const fail = () => {
        if (!isNoted) guests.setPart(vm, { kind: 'gone-unrun', job }, { generation, taps: [] });
        isNoted = true;
        facts.migration({ migration: job.migration, at, kind: 'target-failed', failure });
      };
      // Where the journal says that a copy is being received, the order that comes again takes that for true.
      const isOver = () => !isNoted && guests.part(vm).kind !== 'receiving';
      await insist(context, `that the copy of ${job.vmName} failed is not told or not written down`, fail, isOver);
      return undefined;
    }
  }

  /** Takes up a copy that was found running after the agent's restart. */
  static resume(context: AgentContext, guests: Guests, guest: Guest, job: MoveJob): Incoming {
    const incoming = new Incoming(context, guests, guest, job);
    incoming.#insist('the copy was not taken up', () => incoming.#catchUp());
    return incoming;
  }

  /** Again, when it is asked for again: the first word may have been lost. */
  sayListening(): void {
    const part = this.#guests.part(this.vm);
    if (part.kind === 'receiving' && part.endpoint) this.#fact({ kind: 'listening', endpoint: part.endpoint });
  }

  /** What happened while nobody listened: the switch to post-copy is the one event that must not be missed. */
  async #catchUp(): Promise<void> {
    const part = this.#guests.part(this.vm);
    if (part.kind === 'continuing') {
      await this.#continue(part.withFaults);
    } else if (part.kind === 'receiving' && !part.endpoint) {
      await this.#guest.destroy(); // nobody was told of it, so nobody will ever send to it
    } else if ((await this.#state()) === 'switched') {
      await this.#continue(true);
    } else {
      this.sayListening();
    }
  }

  /** The source has handed over: run. Safe to say again. */
  async go(): Promise<GoResult> {
    if (this.#closing) {
      await this.over;
      return this.#provenUnrun() ? 'gone-unrun' : 'unknown';
    }
    const part = this.#guests.part(this.vm);
    if (part.kind === 'gone-unrun') return this.#provenUnrun() ? 'gone-unrun' : 'unknown';
    if (part.kind !== 'receiving' && part.kind !== 'continuing') return 'continued';
    const timeout = Promise.withResolvers<'not-ready'>();
    const timer = this.#context.clock.setTimeout(() => timeout.resolve('not-ready'), goAnswerMs);
    try {
      const continued = this.#continue(false).then(() => 'continued' as const);
      return await Promise.race([continued, timeout.promise]);
    } catch (error) {
      this.#bug(error, 'the guest did not continue');
      if (this.#guests.running.has(this.vm)) return 'not-ready';
      await this.over;
      // `cont` may have been sent before it died: only the journal can prove that it was not.
      return this.#provenUnrun() ? 'gone-unrun' : 'unknown';
    } finally {
      timer.cancel();
    }
  }

  /**
   * A post-copy broke off: breaks off here too and listens for the rest, each time on the next of this host's addresses.
   * QEMU's main loop may hang on a missing page, so nothing is asked that waits for it.
   */
  async rejoin(listen: boolean): Promise<RejoinReply> {
    const reply = (result: RejoinReply['result'], says: string, endpoint: RejoinReply['endpoint'] = null) => ({
      result,
      endpoint,
      says,
    });
    const part = this.#guests.part(this.vm);
    if (this.#provenUnrun()) return reply('gone', 'the copy is gone and never ran');
    if (part.kind === 'receiving') return reply('not-switched', 'the copy has not got the execution state yet');
    if (part.kind === 'none') return reply('incomplete', 'the copy ran, and is gone');
    if (part.kind !== 'continuing' || this.#allNoted) return reply('complete', 'every page is here');
    if (!listen || !part.withFaults) return reply('incomplete', 'pages are missing');
    const { clock, migrationAddress, migrationAddresses = [migrationAddress] } = this.#context;
    const address = migrationAddresses[this.#rejoins++ % migrationAddresses.length] ?? migrationAddress;
    const deadline = clock.monotonic() + breakOffMs;
    for (;;) {
      try {
        // Refused where it is broken already, or over: then listening tells which.
        await this.#guest.transfer.pause().catch(() => {});
        return reply('listening', '', await this.#guest.transfer.listenAgain(address));
      } catch (error) {
        if (this.#allNoted) return reply('complete', 'every page is here');
        if (clock.monotonic() >= deadline) return reply('incomplete', messageOf(error));
        await clock.sleep(breakOffRetryMs);
      }
    }
  }

  #provenUnrun(): boolean {
    const part = this.#guests.part(this.vm);
    return part.kind === 'gone-unrun' && part.job.migration === this.job.migration;
  }

  /** Ends a copy that never ran, or one that the order allows besides. @returns a refusal when it must stay */
  async close({ evenIfItRan, unlessWhole = false }: MayClose): Promise<string | null> {
    const part = this.#guests.part(this.vm);
    if (part.kind !== 'receiving' && !evenIfItRan) return `the guest of ${this.job.vmName} may run here`;
    const whole = this.#allNoted || (part.kind === 'continuing' && !part.withFaults);
    if (whole && unlessWhole) return `the guest of ${this.job.vmName} runs here and lacks nothing`;
    this.#closing = true;
    await this.#guest.destroy();
    await this.over;
    this.#fact({ kind: 'closed' });
    return null;
  }

  async #follow(events: AsyncIterable<GuestEvent>): Promise<void> {
    for await (const event of events) {
      if (event.kind !== 'transfer') continue;
      if (!this.#isOurs()) return; // it has arrived: what is transferred from now on is another move's
      if (event.state.kind === 'post-copy' && !this.#switched) {
        this.#switched = true;
        this.#insist('the guest did not continue after the switch', () => this.#continue(true));
      }
      if (event.state.kind === 'completed' && this.#switched) this.#noteAllArrived(event.at);
    }
    if (!this.#done.signal.aborted) await this.#gone();
  }

  #isOurs(): boolean {
    const part = this.#guests.part(this.vm);
    return 'job' in part && part.job.migration === this.job.migration;
  }

  /** Journals first, then lets the guest run; one `cont`, however often it is asked for. */
  #continue(withFaults: boolean): Promise<void> {
    this.#continuing ??= this.#continueOnce(withFaults).catch((error: unknown) => {
      this.#continuing = undefined; // whoever asks again may try again
      throw error;
    });
    return this.#continuing;
  }

  async #continueOnce(withFaults: boolean): Promise<void> {
    if (withFaults) this.#switched = true; // also when a restarted agent takes it up
    if (this.#closing) throw new Error(`the copy of ${this.job.vmName} is being closed`);
    const part = this.#guests.part(this.vm);
    if (part.kind === 'receiving') {
      this.#guests.setPart(this.vm, { kind: 'continuing', job: this.job, withFaults });
    } else if (hasRun(await this.#state())) {
      // An earlier try was carried out, though nobody saw it.
      return this.#arrived(withFaults, this.#context.clock.now());
    }
    const resumed = this.#resumed();
    for (;;) {
      const asked = await this.#guest.continue().then(
        () => true,
        (error: unknown) => this.#bug(error, 'no answer to the order to run'),
      );
      if (asked === true) break;
      // A command without an answer may still be carried out, so what counts is whether the guest runs.
      if (hasRun(await this.#state())) break;
      await this.#context.clock.sleep(retryMs);
    }
    const at = await resumed;
    await this.#arrived(withFaults, at ?? (await this.#whenRunning()));
  }

  /** When the guest's RESUME comes; undefined when it was not seen. Subscribed before `cont` is sent. Never rejects. */
  async #resumed(): Promise<number | undefined> {
    const over = new AbortController();
    const timer = this.#context.clock.setTimeout(() => over.abort(), resumeTimeoutMs);
    try {
      for await (const event of this.#guest.events(over.signal)) if (event.kind === 'resumed') return event.at;
    } catch (error) {
      this.#bug(error, 'the events of the guest broke off');
    } finally {
      timer.cancel();
    }
    return undefined;
  }

  async #whenRunning(): Promise<number> {
    if (hasRun(await this.#state())) return this.#context.clock.now();
    throw new Error(`${this.job.vmName} did not resume within ${resumeTimeoutMs} ms`);
  }

  /** Asked until it answers: a main loop may hang on a missing page. @throws when the guest is gone */
  async #state(): Promise<GuestState> {
    for (;;) {
      try {
        return await this.#guest.state();
      } catch (error) {
        if (!this.#guests.running.has(this.vm)) throw error;
        this.#context.log.debug({ migration: this.job.migration, error: messageOf(error) }, 'no state');
        await this.#context.clock.sleep(retryMs);
      }
    }
  }

  async #arrived(withFaults: boolean, at: number): Promise<void> {
    this.#fact({ kind: 'resumed', withFaults }, at);
    if (!withFaults) return this.#settle();
    // The agent may have been away when the last page came.
    const numbers = await this.#guest.transfer.numbers().catch(() => undefined);
    if (numbers?.state.kind === 'completed') this.#noteAllArrived(this.#context.clock.now());
  }

  #noteAllArrived(at: number): void {
    if (this.#allNoted) return;
    this.#allNoted = true;
    this.#insist('the end of post-copy was not noted', () => this.#allArrived(at));
  }

  async #allArrived(at: number): Promise<void> {
    await this.#continue(true); // it may have completed before the guest's RESUME was seen
    const numbers = await this.#guest.transfer.numbers().catch(() => undefined);
    if (numbers) this.#fact({ kind: 'measured', measures: { faultBlockedMs: numbers.faultBlockedMs } });
    this.#fact({ kind: 'all-pages-arrived' }, at);
    this.#settle();
  }

  #settle(): void {
    this.#guests.settle(this.vm, { arrived: this.job.migration });
    this.#done.abort();
  }

  async #gone(): Promise<void> {
    const gone = await this.#guest.gone;
    const part = this.#guests.part(this.vm);
    if (!this.#isOurs()) return;
    const say = (kind: 'target-failed' | 'target-lost') => () => {
      if (!this.#closing) this.#fact({ kind, failure: this.#died(gone.words) });
    };
    if (part.kind === 'receiving') {
      await this.#guests.leave(this.vm, { kind: 'gone-unrun', job: this.job }, say('target-failed'));
    } else if (part.kind === 'continuing') {
      await this.#guests.leave(this.vm, { kind: 'none' }, say('target-lost'));
    }
  }

  #died(words: string): Failure {
    const refused = /load|section|mismatch|Unknown|received is/i.test(words);
    return {
      code: refused ? 'target-refused-state' : 'target-died',
      message: refused
        ? `QEMU on ${this.#context.hostName} refused the state of ${this.job.vmName}.`
        : `QEMU of ${this.job.vmName} on ${this.#context.hostName} ended before the guest ran there.`,
      hint: refused
        ? 'Compare QEMU versions and machine type of both hosts.'
        : 'Look at the target host, then try again.',
      ...(words ? { detail: words } : {}),
    };
  }

  /** Nobody asks for it again: until it is done, or the copy is gone. */
  #insist(what: string, run: () => Promise<void>): void {
    const isOver = () => this.#closing || this.#guests.running.get(this.vm) !== this.#guest;
    void insist(this.#context, `${this.job.vmName}: ${what}`, run, isOver).catch((error: unknown) =>
      this.#bug(error, what),
    );
  }

  #bug(error: unknown, what: string): void {
    this.#context.log.error({ migration: this.job.migration, error: messageOf(error) }, what);
  }

  #fact(fact: FactBody, at = this.#context.clock.now()): void {
    this.#context.facts.migration({ migration: this.job.migration, at, ...fact });
  }
}

type Without<T> = T extends unknown ? Omit<T, 'migration' | 'at'> : never;
export type FactBody = Without<MigrationFact>;

/** Its vCPUs were let run, whatever they wait for now. */
const hasRun = (state: GuestState) => state === 'running' || state === 'broken-post-copy';
