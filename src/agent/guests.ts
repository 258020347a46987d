/**
 * The guests of this host: started, found again after the agent's restart, watched until their end.
 *
 * A guest that is part of a move belongs to that move (outgoing.ts, incoming.ts) until it is over: its end is then the
 * move's news. Every other end is reported from here.
 */
import { FailureError, type Guest, type GuestGone } from '../hypervisor/hypervisor.ts';
import { messageOf, type Failure } from '../model/failure.ts';
import type { MigrationId, VmId } from '../model/ids.ts';
import type { Provision, RunningSpec, VmSpec } from '../model/vm.ts';
import type { FoundGuest, KnownVm } from '../wire/agent.ts';
import type { AgentContext } from './context.ts';
import { insist } from './insist.ts';
import type { Part } from './journal.ts';
import { tapName } from './network.ts';

interface EntryChange {
  readonly generation?: number;
  readonly taps?: readonly string[];
  readonly name?: string;
  readonly over?: number;
  readonly stayed?: MigrationId;
  readonly arrived?: MigrationId;
}

/** An order that is so late was held up by more than any network. */
const removedKeptMs = 3_600_000;

export class Guests {
  readonly running = new Map<VmId, Guest>();
  readonly #context: AgentContext;
  readonly #leaving = new Map<VmId, Promise<void>>();
  readonly #stopping = new Set<VmId>();

  constructor(context: AgentContext) {
    this.#context = context;
  }

  /** Finds what runs on this host, whoever started it. Guests of no entry get one: the server decides about them. */
  async adopt(): Promise<void> {
    const { hypervisor, journal, log } = this.#context;
    const newestFirst = (await hypervisor.adopt()).toSorted((a, b) => b.key.generation - a.key.generation);
    for (const guest of newestFirst) {
      const { vm, generation } = guest.key;
      const part = this.part(vm).kind;
      if (this.running.has(vm) || part === 'gone-unrun') {
        log.warn({ vm, generation }, 'an older copy of this guest was left over; ending it');
        await guest.destroy();
        continue;
      }
      this.running.set(vm, guest);
      const taps = guest.running.spec.nics.map((_, index) => tapName(vm, index));
      if (!journal.vm(vm)) journal.setVm({ schema: 1, vm, name: vm, generation, part: { kind: 'runs' }, taps });
      if (part === 'none') this.setPart(vm, { kind: 'runs' }, { taps });
      this.#follow(guest);
    }
    for (const entry of journal.vms()) {
      if (entry.part.kind === 'runs' && !this.running.has(entry.vm)) await this.ended(entry.vm, null);
    }
    await this.#sweepTaps();
    this.#sweepRemoved();
  }

  part(vm: VmId): Part {
    return this.#context.journal.vm(vm)?.part ?? { kind: 'none' };
  }

  /** Has the guest of this decision, or of a newer one, run here and ended? */
  isOver(vm: VmId, generation: number): boolean {
    return generation <= (this.#context.journal.vm(vm)?.over ?? -1);
  }

  /** Has this move ended with its guest here? */
  hasStayed(vm: VmId, migration: MigrationId): boolean {
    return this.#context.journal.vm(vm)?.stayed === migration;
  }

  /** Did this move bring the guest that runs here? */
  hasArrived(vm: VmId, migration: MigrationId): boolean {
    return this.#context.journal.vm(vm)?.arrived === migration;
  }

  /** Journals the part this host plays for a VM; returns when it is on disk. */
  setPart(vm: VmId, part: Part, change: EntryChange = {}): void {
    const entry = this.#context.journal.vm(vm);
    const over = change.over ?? entry?.over;
    const stayed = change.stayed ?? entry?.stayed;
    const arrived = part.kind === 'runs' ? (change.arrived ?? entry?.arrived) : undefined;
    this.#context.journal.setVm({
      schema: 1,
      vm,
      name: change.name ?? entry?.name ?? vm,
      generation: Math.max(change.generation ?? 0, entry?.generation ?? 0),
      part,
      taps: change.taps ?? entry?.taps ?? [],
      ...(over === undefined ? {} : { over }),
      ...(stayed === undefined ? {} : { stayed }),
      ...(arrived === undefined ? {} : { arrived }),
    });
  }

  found(): FoundGuest[] {
    return [...this.running].map(([vm, guest]) => {
      const part = this.part(vm);
      return {
        vm,
        generation: this.#context.journal.vm(vm)?.generation ?? guest.key.generation,
        state: part.kind,
        migration: 'job' in part ? part.job.migration : null,
      };
    });
  }

  /** Everything the journal holds, with what runs of it. */
  known(): KnownVm[] {
    const entries = this.#context.journal.vms().filter(({ removedAt }) => removedAt === undefined);
    return entries.map(({ vm, name, generation, part }) => {
      const guest = this.running.get(vm);
      const job = 'job' in part ? part.job : null;
      return {
        vm,
        name,
        generation,
        part: part.kind,
        runs: guest !== undefined,
        running: guest?.running ?? null,
        migration: job?.migration ?? null,
        job,
        targetPeer: 'targetPeer' in part ? part.targetPeer : null,
      };
    });
  }

  /** Starts a guest, from disk. @throws FailureError */
  async start(
    vm: VmId,
    generation: number,
    name: string,
    spec: VmSpec,
    frozen: RunningSpec | null,
  ): Promise<RunningSpec> {
    const { hypervisor, network, disks } = this.#context;
    const running = frozen ?? hypervisor.freeze(spec);
    requireLease(this.#context, running.spec);
    const taps = await attachOrFail(() => network.attach(vm, running.spec.nics));
    // Known before the guest is there: whoever finds it after a crash must not take its network away.
    this.setPart(vm, { kind: 'none' }, { generation, taps, name });
    let guest: Guest | undefined;
    try {
      guest = await hypervisor.launch({
        key: { vm, generation },
        name,
        running,
        local: { taps, pools: disks.pools },
      });
      this.setPart(vm, { kind: 'runs' }, { generation, taps, name });
    } catch (error) {
      await guest?.destroy(); // whoever hears of this starts it elsewhere
      await this.leave(vm);
      throw error;
    }
    this.add(guest);
    return running;
  }

  /** Takes over a guest that a move has brought, or left, here; its end is reported from now on. */
  settle(vm: VmId, by: { readonly arrived: MigrationId } | { readonly stayed: MigrationId }): void {
    this.setPart(vm, { kind: 'runs' }, by);
  }

  add(guest: Guest): void {
    this.running.set(guest.key.vm, guest);
    this.#follow(guest);
  }

  /** An error here is one guest's news lost, never the end of the agent. */
  #follow(guest: Guest): void {
    const lost = (error: unknown) =>
      this.#context.log.error({ vm: guest.key.vm, error: messageOf(error) }, 'a guest could not be followed');
    void this.#watch(guest).catch(lost);
    void this.#watchPanic(guest).catch(lost);
  }

  /** Presses the power button, or switches off. Its end comes as a fact. */
  async stop(vm: VmId, force: boolean, timeoutMs: number): Promise<void> {
    const { clock, facts, journal } = this.#context;
    const guest = this.running.get(vm);
    const generation = journal.vm(vm)?.generation ?? 0;
    if (!guest) {
      facts.guest({ vm, generation, at: clock.now(), kind: 'ended', how: 'stopped', message: 'it was not running' });
      return;
    }
    this.#stopping.add(vm);
    if (force) return guest.destroy();
    if (await pressPowerButton(guest, timeoutMs, this.#context)) return;
    this.#stopping.delete(vm);
    facts.guest({
      vm,
      generation,
      at: clock.now(),
      kind: 'stop-ignored',
      message: `The guest did not shut down within ${Math.round(timeoutMs / 1000)} s of its power button.`,
    });
  }

  /** Ends a guest for good and takes its network away. */
  async destroy(vm: VmId): Promise<void> {
    this.#stopping.add(vm);
    await this.running.get(vm)?.destroy();
    this.#stopping.delete(vm);
  }

  async provision(vm: VmId, items: readonly Provision[]): Promise<Failure | null> {
    try {
      await this.#context.disks.provision(items);
      return null;
    } catch (error) {
      return failureOf(error, `The files of ${vm} could not be made.`);
    }
  }

  async #watch(guest: Guest): Promise<void> {
    const { vm } = guest.key;
    const gone = await guest.gone;
    if (this.running.get(vm) !== guest) return; // an older copy
    this.running.delete(vm);
    const stopped = this.#stopping.delete(vm);
    if (this.part(vm).kind === 'runs') {
      await this.ended(vm, gone, stopped, this.#context.leaseTrouble(guest.running.spec));
    }
  }

  async #watchPanic(guest: Guest): Promise<void> {
    const { vm } = guest.key;
    for await (const event of guest.events(new AbortController().signal)) {
      if (event.kind !== 'panicked') continue;
      this.#context.facts.guest({
        vm,
        generation: this.#context.journal.vm(vm)?.generation ?? 0,
        at: event.at,
        kind: 'panicked',
      });
    }
  }

  /** Tells of the end of a guest that belongs to no move. */
  async ended(vm: VmId, gone: GuestGone | null, stopped = false, lease: string | null = null): Promise<void> {
    const { facts, journal, clock } = this.#context;
    const how = gone?.how === 'powered-off' ? 'powered-off' : stopped ? 'stopped' : 'died';
    const generation = journal.vm(vm)?.generation ?? 0;
    const died =
      lease ?? `Its QEMU process ended unexpectedly${gone?.words ? `: ${gone.words}` : ' while the agent was away'}.`;
    const message = how === 'died' ? died : '';
    const say = () => facts.guest({ vm, generation, at: gone?.at ?? clock.now(), kind: 'ended', how, message });
    await this.leave(vm, { kind: 'none' }, say, generation);
  }

  /**
   * Nothing of the guest is left on this host: its taps go, `say` tells, its entry says so. In this order: what is told
   * may bring the guest back at once, and a fact may come twice after a crash, but must come. Tried until the disk takes it.
   * @param over the decision by which it ran here
   */
  leave(vm: VmId, part: Part = { kind: 'none' }, say?: () => void, over?: number): Promise<void> {
    const leaving = this.#leave(vm, part, say, over);
    const all = Promise.allSettled([this.#leaving.get(vm), leaving]).then(() => {
      if (this.#leaving.get(vm) === all) this.#leaving.delete(vm);
    });
    this.#leaving.set(vm, all);
    return leaving;
  }

  /** Resolves when what has ended here is told and written down: what begins before that would be taken for it. */
  async left(vm: VmId): Promise<void> {
    await this.#leaving.get(vm);
  }

  async #leave(vm: VmId, part: Part, say: (() => void) | undefined, over: number | undefined): Promise<void> {
    await this.#context.network.detach(this.#context.journal.vm(vm)?.taps ?? []);
    let isSaid = false;
    await insist(this.#context, `the end of ${vm} here is not told or not written down`, () => {
      if (!isSaid) say?.();
      isSaid = true;
      if (this.#context.journal.vm(vm)) this.setPart(vm, part, { taps: [], ...(over === undefined ? {} : { over }) });
    });
  }

  /** The VM was deleted. */
  forget(vm: VmId, generation: number): void {
    const { journal, clock } = this.#context;
    this.#sweepRemoved();
    const newest = Math.max(generation, journal.vm(vm)?.generation ?? 0);
    const part = { kind: 'none' } as const;
    journal.setVm({
      schema: 1,
      vm,
      name: vm,
      generation: newest,
      part,
      taps: [],
      over: newest,
      removedAt: clock.now(),
    });
  }

  #sweepRemoved(): void {
    const { journal, clock } = this.#context;
    for (const { vm, removedAt } of journal.vms()) {
      if (removedAt !== undefined && Math.abs(clock.now() - removedAt) > removedKeptMs) journal.forgetVm(vm);
    }
  }

  async #sweepTaps(): Promise<void> {
    const { network, journal } = this.#context;
    const wanted = new Set(journal.vms().flatMap((entry) => entry.taps));
    await network.detach(network.existing().filter((tap) => !wanted.has(tap)));
  }
}

/**
 * Presses the power button until the guest is gone, again every five seconds: a guest that is still booting does not hear
 * the first. @returns false when time ran out and it still runs
 */
export async function pressPowerButton(guest: Guest, timeoutMs: number, context: AgentContext): Promise<boolean> {
  const { clock } = context;
  const deadline = clock.monotonic() + timeoutMs;
  const over = new AbortController();
  const gone = guest.gone.then(() => over.abort());
  while (!over.signal.aborted && clock.monotonic() < deadline) {
    await guest.powerDown().catch((error: unknown) => context.log.debug({ error: messageOf(error) }, 'power button'));
    await Promise.race([
      gone,
      clock.sleep(Math.min(5000, Math.max(0, deadline - clock.monotonic())), over.signal).catch(() => {}),
    ]);
  }
  if (!over.signal.aborted) return false;
  await gone;
  return true;
}

/** A guest that would be killed at once is not started. @throws FailureError */
export function requireLease(context: AgentContext, spec: VmSpec): void {
  const message = context.leaseTrouble(spec);
  if (message === null) return;
  const hint =
    'Use another host, or mend the pool there: its guard takes up a new lease by itself (docs/guide/leases.md).';
  throw new FailureError({ code: 'guest-start-failed', message, hint });
}

async function attachOrFail(attach: () => Promise<string[]>): Promise<string[]> {
  try {
    return await attach();
  } catch (error) {
    throw new FailureError(failureOf(error, 'The network of the guest could not be made.'), { cause: error });
  }
}

export function failureOf(error: unknown, message: string): Failure {
  if (error instanceof FailureError) return error.failure;
  return {
    code: 'guest-start-failed',
    message,
    hint: "The detail says why; look at the agent's log.",
    detail: messageOf(error),
  };
}
