/**
 * The target's side of one live move: a copy that waits, paused, and runs exactly once, when it was told to.
 *
 *   receiving --(go, journaled)------------> continuing -> runs          pre-copy
 *   receiving --(post-copy, journaled)-----> continuing -> runs          post-copy: the switch itself is the `go`
 *   receiving --(closed, or QEMU ended)----> gone-unrun
 */
import type { Guest, GuestEvent } from '../hypervisor/hypervisor.ts';
import { messageOf, type Failure } from '../model/failure.ts';
import type { VmId } from '../model/ids.ts';
import type { MigrationFact } from '../migration/step.ts';
import type { MoveJob } from '../wire/agent.ts';
import type { AgentContext } from './context.ts';
import { failureOf, type Guests } from './guests.ts';
import type { GoResult } from './handover.ts';
import { transferOptions } from './outgoing.ts';

const resumeTimeoutMs = 20_000;

export class Incoming {
  readonly job: MoveJob;
  readonly vm: VmId;
  readonly #context: AgentContext;
  readonly #guests: Guests;
  readonly #guest: Guest;
  #continuing: Promise<void> | undefined;
  #arriving: Promise<void> | undefined;
  #closing = false;
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
    try {
      taps = await network.attach(vm, job.running.spec.nics);
      guests.setPart(vm, { kind: 'receiving', job }, { generation, taps, name: job.vmName });
      const { guest, endpoint } = await hypervisor.receive(
        { key: { vm, generation }, name: job.vmName, running: job.running, local: { taps, pools: disks.pools } },
        transferOptions(job),
        migrationAddress,
      );
      guests.add(guest);
      const incoming = new Incoming(context, guests, guest, job);
      facts.migration({ migration: job.migration, at: clock.now(), kind: 'listening', endpoint });
      return incoming;
    } catch (error) {
      await network.detach(taps);
      guests.setPart(vm, { kind: 'gone-unrun', job }, { generation, taps: [] });
      const cause = failureOf(error, `The copy of ${job.vmName} could not be prepared on ${context.hostName}.`);
      const failure: Failure = { ...cause, code: 'target-did-not-start' };
      facts.migration({ migration: job.migration, at: clock.now(), kind: 'target-failed', failure });
      return undefined;
    }
  }

  /** Takes up a copy that was found running after the agent's restart. */
  static async resume(context: AgentContext, guests: Guests, guest: Guest, job: MoveJob): Promise<Incoming> {
    const incoming = new Incoming(context, guests, guest, job);
    const part = guests.part(guest.key.vm);
    const state = await guest.state();
    // What happened while nobody listened: the switch to post-copy is the one event that must not be missed.
    if (state === 'switched') await incoming.#continue(true);
    else if (part.kind === 'continuing' && (state === 'loaded' || state === 'paused'))
      await incoming.#continue(part.withFaults);
    else if (part.kind === 'continuing' && state === 'running')
      await incoming.#arrived(part.withFaults, context.clock.now());
    return incoming;
  }

  /** The source has handed over: run. Safe to say again. */
  async go(): Promise<GoResult> {
    const part = this.#guests.part(this.vm);
    if (this.#closing || part.kind === 'gone-unrun') {
      await this.over;
      return 'gone-unrun';
    }
    if (part.kind !== 'receiving' && part.kind !== 'continuing') return 'continued';
    try {
      await this.#continue(false);
      return 'continued';
    } catch (error) {
      this.#context.log.error({ migration: this.job.migration, error }, 'the guest did not continue');
      if (this.#guests.running.has(this.vm)) return 'not-ready';
      await this.over;
      // `cont` may have been sent before it died: that is not the proof the source needs to roll back.
      return 'unknown';
    }
  }

  /** Ends a copy that never ran. @returns a refusal when it may have run */
  async close(evenIfItRan: boolean): Promise<string | null> {
    const part = this.#guests.part(this.vm);
    if (part.kind !== 'receiving' && !evenIfItRan) return `the guest of ${this.job.vmName} may run here`;
    this.#closing = true;
    await this.#guest.destroy();
    await this.over;
    this.#fact({ kind: 'closed' });
    return null;
  }

  async #follow(events: AsyncIterable<GuestEvent>): Promise<void> {
    let switched = false;
    for await (const event of events) {
      if (event.kind !== 'transfer') continue;
      if (event.state.kind === 'post-copy' && !switched) {
        switched = true;
        void this.#continue(true).catch((error: unknown) =>
          this.#context.log.error(
            { migration: this.job.migration, error: messageOf(error) },
            'the guest did not continue after the switch',
          ),
        );
      }
      if (event.state.kind === 'completed' && switched) this.#noteAllArrived(event.at);
    }
    if (!this.#done.signal.aborted) await this.#gone();
  }

  /** Journals first, then lets the guest run; one `cont`, however often it is asked for. */
  #continue(withFaults: boolean): Promise<void> {
    this.#continuing ??= this.#continueOnce(withFaults);
    return this.#continuing;
  }

  async #continueOnce(withFaults: boolean): Promise<void> {
    this.#guests.setPart(this.vm, { kind: 'continuing', job: this.job, withFaults });
    const resumed = this.#resumed();
    await this.#guest.continue();
    await this.#arrived(withFaults, await resumed);
  }

  /** When the guest's RESUME comes. Subscribed before `cont` is sent. */
  async #resumed(): Promise<number> {
    const over = new AbortController();
    const timer = this.#context.clock.setTimeout(() => over.abort(), resumeTimeoutMs);
    try {
      for await (const event of this.#guest.events(over.signal)) if (event.kind === 'resumed') return event.at;
    } finally {
      timer.cancel();
    }
    if ((await this.#guest.state()) === 'running') return this.#context.clock.now();
    throw new Error(`${this.job.vmName} did not resume within ${resumeTimeoutMs} ms`);
  }

  async #arrived(withFaults: boolean, at: number): Promise<void> {
    this.#fact({ kind: 'resumed', withFaults }, at);
    if (!withFaults) return this.#settle();
    // The agent may have been away when the last page came.
    if ((await this.#guest.transfer.numbers()).state.kind === 'completed')
      await this.#allArrived(this.#context.clock.now());
  }

  #noteAllArrived(at: number): void {
    this.#arriving ??= this.#allArrived(at).catch((error: unknown) =>
      this.#context.log.error(
        { migration: this.job.migration, error: messageOf(error) },
        'the end of post-copy was not noted',
      ),
    );
  }

  async #allArrived(at: number): Promise<void> {
    await this.#continuing; // it may have completed before the guest's RESUME was seen
    const { faultBlockedMs } = await this.#guest.transfer.numbers();
    this.#fact({ kind: 'measured', measures: { faultBlockedMs } });
    this.#fact({ kind: 'all-pages-arrived' }, at);
    this.#settle();
  }

  #settle(): void {
    this.#guests.settle(this.vm);
    this.#done.abort();
  }

  async #gone(): Promise<void> {
    const gone = await this.#guest.gone;
    const part = this.#guests.part(this.vm);
    if (!('job' in part) || part.job.migration !== this.job.migration) return;
    if (part.kind === 'receiving') {
      await this.#guests.leave(this.vm, { kind: 'gone-unrun', job: this.job });
      if (!this.#closing) this.#fact({ kind: 'target-failed', failure: this.#died(gone.words) });
    } else if (part.kind === 'continuing') {
      await this.#guests.leave(this.vm);
      if (!this.#closing) this.#fact({ kind: 'target-lost', failure: this.#died(gone.words) });
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

  #fact(fact: FactBody, at = this.#context.clock.now()): void {
    this.#context.facts.migration({ migration: this.job.migration, at, ...fact });
  }
}

type Without<T> = T extends unknown ? Omit<T, 'migration' | 'at'> : never;
export type FactBody = Without<MigrationFact>;
