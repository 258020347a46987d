/**
 * The host's side of its sleep: whether it can, whether anything runs on it, and going down in good order.
 *
 *   prepare -> no guest here? -> nothing more is begun -> the guard gives the lease back -> ready
 *           -> the server shuts the machine down, or says `suspend`        stay-awake, a new connection: all is as before
 *
 * The machine's own means (files of the kernel) are an argument. Not here: when a host sleeps (control/sleep.ts).
 */
import { messageOf } from '../model/failure.ts';
import type { SleepAbility } from '../model/host.ts';
import type { ToAgent } from '../wire/agent.ts';
import type { AgentContext } from './context.ts';
import type { Guests } from './guests.ts';
import type { Leases } from './leases.ts';

export interface SleepMeans {
  readonly ability: SleepAbility;
  /** Suspends the machine to memory; resolves when it is awake again. */
  suspend(): Promise<void>;
  /** Wakes other machines. */
  sendMagic(macs: readonly string[]): Promise<void>;
}

export type SleepMessage = Extract<ToAgent, { type: 'sleep' }>;
export interface SleepReply {
  readonly result: 'ready' | 'refused' | 'failed';
  readonly says: string;
}

/** Parts a host may still hold of a VM that need nothing of it. */
const over: ReadonlySet<string> = new Set(['none', 'gone-unrun']);

export class Sleeper {
  readonly #context: AgentContext;
  readonly #guests: Guests;
  readonly #leases: Pick<Leases, 'rest' | 'endRest'>;
  readonly #means: SleepMeans;
  #prepared = false;

  constructor(context: AgentContext, guests: Guests, leases: Pick<Leases, 'rest' | 'endRest'>, means: SleepMeans) {
    this.#context = context;
    this.#guests = guests;
    this.#leases = leases;
    this.#means = means;
  }

  /** Why nothing may be begun here now; null: it may. */
  bar(): string | null {
    return this.#prepared ? `${this.#context.hostName} is going to sleep` : null;
  }

  /** All is as before; no harm when it was not going to sleep. */
  stayAwake(): void {
    if (!this.#prepared) return;
    this.#prepared = false;
    this.#leases.endRest();
    this.#context.log.info({}, 'this host stays awake');
  }

  /** @returns what to answer; null: nothing */
  async onMessage(message: SleepMessage): Promise<SleepReply | null> {
    if (message.do === 'stay-awake') {
      this.stayAwake();
      return null;
    }
    const refusal = this.#refusal(message);
    if (refusal !== null) {
      // One that may not sleep any more is not left half asleep.
      this.stayAwake();
      return { result: 'refused', says: refusal };
    }
    const ready = await this.#prepare();
    if (ready.result !== 'ready' || message.do === 'prepare') return ready;
    return this.#suspend();
  }

  async wakeOther(macs: readonly string[]): Promise<void> {
    try {
      await this.#means.sendMagic(macs);
    } catch (error) {
      this.#context.log.warn({ error: messageOf(error) }, 'no magic packet could be sent from here');
    }
  }

  #refusal({ term, session, expiresAt }: SleepMessage): string | null {
    const { journal, clock } = this.#context;
    if (term < journal.agent.newestTerm) return `term ${term} is over: ${journal.agent.newestTerm} was seen`;
    if (session < journal.agent.session) return `session ${session} is over: this is ${journal.agent.session}`;
    if (clock.now() > expiresAt) return 'it came too late';
    return this.#use();
  }

  /** What runs here, by what really runs and by the journal; null: nothing. */
  #use(): string | null {
    const { journal } = this.#context;
    const names = [...this.#guests.running.keys()].map((vm) => journal.vm(vm)?.name ?? vm);
    if (names.length > 0) return `guests run here: ${names.slice(0, 5).join(', ')}`;
    const busy = journal.vms().find(({ part }) => !over.has(part.kind));
    return busy ? `${busy.name} is ${busy.part.kind} here` : null;
  }

  async #prepare(): Promise<SleepReply> {
    const { hostName, log } = this.#context;
    const already = this.#prepared;
    this.#prepared = true;
    const left = await this.#leases.rest();
    if (left !== null) {
      this.stayAwake();
      return { result: 'refused', says: `its guard does not give the lease back: ${left}` };
    }
    if (!already) log.info({}, 'nothing runs here: this host may go to sleep');
    return { result: 'ready', says: `${hostName} has no guest` };
  }

  /** @returns null: it has slept, and is awake again */
  async #suspend(): Promise<SleepReply | null> {
    const { suspend } = this.#means.ability;
    if (!suspend.ok) return { result: 'failed', says: suspend.reason };
    try {
      await this.#means.suspend();
      return null;
    } catch (error) {
      return { result: 'failed', says: `it could not be suspended: ${messageOf(error)}` };
    } finally {
      this.stayAwake();
    }
  }
}
