/**
 * What hosts say of guests outside of moves, and what they really run when they connect, against the records.
 *
 *   creating -> starting -> running -> stopping -> stopped        crashed: ended by itself, or could not start
 *
 * A guest that nobody knows is reported and never killed; one that is known to run elsewhere since is discarded; a VM that
 * should run and is not there has ended. Everything about a VM on the move is left to its migration.
 *
 * Not here: what users ask for (vms.ts).
 */
import { inWords } from '../model/failure.ts';
import type { HostId, VmId } from '../model/ids.ts';
import type { Migration } from '../model/migration.ts';
import type { VmRecord, VmState } from '../model/vm.ts';
import { isEnd } from '../migration/phases.ts';
import { outstanding } from '../migration/step.ts';
import type { Clock } from '../runtime/clock.ts';
import type { Log } from '../runtime/log.ts';
import type { FoundGuest, GuestFact, KnownVm } from '../wire/agent.ts';
import type { Draft, Fleet } from './fleet.ts';
import { noteRecovered } from './fence.ts';
import type { LiveEvents } from './live-events.ts';
import type { Liveness } from './liveness.ts';
import { take } from './migrations.ts';
import { forgetOrder, keepOrder } from './orders.ts';
import type { DueOrder } from './orders.ts';
import type { Restarts } from './restarts.ts';
import { afterItsEnd } from './restart-policy.ts';
import { settleGuestRoom } from './rooms.ts';

const goneMessage = 'gone when the agent came back';

interface Parts {
  readonly fleet: Fleet;
  readonly live: LiveEvents;
  readonly liveness: Liveness;
  readonly restarts: Restarts;
  readonly clock: Clock;
  readonly log: Log;
}

/** What a hello says of guests. */
interface Reported {
  readonly guests: readonly FoundGuest[];
  /** Absent: the agent is older than that. */
  readonly known?: readonly KnownVm[] | undefined;
}

export interface UnknownGuest {
  readonly host: HostId;
  readonly vm: VmId;
  readonly says: string;
}

export class Guests {
  readonly #fleet: Fleet;
  readonly #live: LiveEvents;
  readonly #liveness: Liveness;
  readonly #restarts: Restarts;
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #unknown = new Map<HostId, readonly UnknownGuest[]>();

  constructor({ fleet, live, liveness, restarts, clock, log }: Parts) {
    this.#fleet = fleet;
    this.#live = live;
    this.#liveness = liveness;
    this.#restarts = restarts;
    this.#clock = clock;
    this.#log = log;
  }

  /** Guests that run where no record says they should, by the last look at each host. */
  unknownGuests(): UnknownGuest[] {
    return [...this.#unknown.values()].flat();
  }

  forgetHost(host: HostId): void {
    this.#unknown.delete(host);
  }

  /** Resolves when the fact is on record, or is known to change nothing. */
  async onFact(host: HostId, fact: GuestFact): Promise<void> {
    const at = fact.at - this.#liveness.offsetMs(host);
    const told = await this.#fleet.change((draft) => {
      const vm = draft.vm(fact.vm);
      if (vm === undefined) return undefined;
      if (vm.migration !== null) return whileMoving(draft, vm, host, fact, at);
      if (vm.host !== host) return undefined;
      const next = this.#afterFact(vm, fact, at);
      if (next === 'gone') {
        draft.removeVm(vm);
        settleGuestRoom(draft, { ...vm, state: { kind: 'deleting', disks: 'keep' } });
      } else if (next !== undefined) {
        put(draft, next);
        if (fact.kind === 'started') noteRecovered(draft, this.#fleet, vm.id, { startedAt: at });
      }
      return vm;
    });
    if (told === undefined) {
      this.#log.info({ vm: fact.vm, host, kind: fact.kind }, 'a fact about a guest that is not this host’s any more');
      return;
    }
    this.#raise(told, host, fact);
  }

  /** A start that failed after its host was lost is tried again; else its failure is the end of it. */
  #afterFact(vm: VmRecord, fact: GuestFact, at: number): VmRecord | 'gone' | undefined {
    const next = afterFact(vm, fact, at);
    if (fact.kind !== 'start-failed' || next === undefined || next === 'gone') return next;
    const again = next.state.kind === 'crashed' ? this.#restarts.afterFailedStart(vm, fact.failure) : undefined;
    if (again) return { ...next, state: again };
    // It was being started again by its policy: that goes on.
    return next.state.kind === 'crashed' && vm.restarts.count > 0
      ? afterItsEnd(vm, { how: 'died', message: inWords(fact.failure), at })
      : next;
  }

  #raise(vm: VmRecord, host: HostId, fact: GuestFact): void {
    const where = this.#fleet.hostName(host);
    if (fact.kind === 'panicked') this.#alarm(`vm ${vm.name}`, `the guest of ${vm.name} on ${where} panicked`);
    if (fact.kind === 'stop-ignored') this.#alarm(`vm ${vm.name}`, `${vm.name} ignores its shutdown: ${fact.message}`);
    if (fact.kind === 'ended' && fact.how === 'died') {
      this.#alarm(`vm ${vm.name}`, `the guest of ${vm.name} on ${where} died: ${fact.message}`);
    }
  }

  /** A host refused an order about a VM that waits for it. */
  async onRefused(due: DueOrder, reason: string): Promise<void> {
    const { body } = due;
    if (body.kind !== 'start' && body.kind !== 'provision') return;
    await this.#fleet.change((draft) => {
      const vm = draft.vm(due.vm);
      if (vm?.generation !== due.generation || vm.host !== due.host) return;
      if (vm.state.kind !== (body.kind === 'start' ? 'starting' : 'creating')) return;
      const message = `the host refused to ${body.kind} it: ${reason}`;
      const again = body.kind === 'start' ? this.#restarts.afterFailedStart(vm, { message }) : undefined;
      put(draft, { ...vm, state: again ?? { kind: 'crashed', message } });
    });
  }

  /**
   * What a host that connects really runs, against the records.
   * @returns the orders that follow for the guests it has
   */
  async reconcile(host: HostId, { guests: found, known = [] }: Reported): Promise<DueOrder[]> {
    const unknown: UnknownGuest[] = [];
    const at = this.#clock.now();
    const orders = await this.#fleet.change((draft) => {
      const due: DueOrder[] = [];
      for (const guest of found) {
        const answer = this.#answer(draft, host, guest);
        if (answer.alarm !== undefined) unknown.push({ host, vm: guest.vm, says: answer.alarm });
        if (answer.order) due.push(answer.order);
      }
      const there = new Set(found.map(({ vm }) => vm));
      for (const { id } of this.#fleet.vms.values()) {
        const vm = draft.vm(id);
        if (vm?.host !== host || vm.migration !== null || there.has(id)) continue;
        // One that is to stop may be starting at this moment: its order to stop is still due, and is answered when that is over.
        if (vm.state.kind === 'running') put(draft, afterItsEnd(vm, { how: 'died', message: goneMessage, at }));
      }
      for (const entry of known) if (this.#isForgotten(draft, entry)) due.push(forgetOrder(host, entry));
      // What it still had of its time before is on its way out: from here on it may be used again.
      unfence(draft, host);
      return due;
    });
    this.#unknown.set(host, unknown);
    for (const { says, vm } of unknown) this.#alarm(`vm ${this.#fleet.vms.get(vm)?.name ?? vm}`, says);
    return orders;
  }

  /** Deleted while its host was away: nothing but the host's journal knows of it. */
  #isForgotten(draft: Draft, { vm: id, part, runs }: KnownVm): boolean {
    const moves = this.#fleet.unsettledMigrations().some(({ vm }) => vm === id);
    return part === 'none' && !runs && !moves && draft.vm(id) === undefined;
  }

  /** A fenced host has said what it holds, and that is dealt with elsewhere. */
  async isBack(host: HostId): Promise<void> {
    await this.#fleet.change((draft) => unfence(draft, host));
  }

  #answer(draft: Draft, host: HostId, guest: FoundGuest): { order?: DueOrder; alarm?: string } {
    const where = this.#fleet.hostName(host);
    const order = (kind: 'keep' | 'discard', generation: number): DueOrder => ({
      host,
      vm: guest.vm,
      generation,
      body: { kind },
      notAfter: null,
    });
    const vm = draft.vm(guest.vm);
    if (vm === undefined) {
      return {
        order: order('keep', guest.generation),
        alarm: `${where} runs a guest ${guest.vm} that no record knows; it is kept`,
      };
    }
    if (this.#isOnTheMove(draft, vm, host)) return {};
    // It was proven gone and is there: whatever has been decided about the VM since, this is not it.
    const outdated = guest.generation < vm.generation && this.#wasGivenUp(draft, vm, host);
    if (outdated) return { order: order('discard', vm.generation) };
    if (vm.host !== host) {
      if (guest.generation < vm.generation) return { order: order('discard', vm.generation) };
      return {
        alarm: `${where} runs ${vm.name}, which belongs to ${this.#fleet.hostName(vm.host)} by the same decision`,
      };
    }
    switch (vm.state.kind) {
      case 'running':
      case 'starting':
      case 'stopping':
        return { order: keepOrder(vm) };
      case 'stopped':
      case 'waiting':
      case 'crashed':
        // The host knows best what runs there.
        put(draft, { ...vm, state: { kind: 'running' } });
        return {
          order: keepOrder(vm),
          alarm: `${vm.name} runs on ${where} although it was ${vm.state.kind}; it is kept`,
        };
      case 'creating':
      case 'deleting':
        return {};
    }
  }

  #isOnTheMove(draft: Draft, vm: VmRecord, host: HostId): boolean {
    if (vm.migration !== null) {
      const open = draft.migration(vm.migration);
      if (open && !isEnd(open.phase) && takesPart(open, host)) return true;
    }
    return this.#fleet
      .unsettledMigrations()
      .some(
        (migration) =>
          migration.vm === vm.id &&
          outstanding(migration).some(({ side }) => (side === 'source' ? migration.source : migration.target) === host),
      );
  }

  /** Was the VM taken from this host because the host was fenced? */
  #wasGivenUp(draft: Draft, vm: VmRecord, host: HostId): boolean {
    if (vm.state.kind === 'waiting' || vm.state.kind === 'starting') return true;
    const open = vm.migration === null ? undefined : draft.migration(vm.migration);
    return open !== undefined && (open.source === host || open.target === host) && !takesPart(open, host);
  }

  #alarm(about: string, says: string): void {
    this.#log.warn({ about }, says);
    this.#live.emit({ kind: 'alarm', at: this.#clock.now(), about, says });
  }
}

function unfence(draft: Draft, host: HostId): void {
  const back = draft.host(host);
  if (back?.fenced) draft.putHost({ ...back, fenced: null });
}

/** Is the host one side of the move, and was not fenced during it? */
function takesPart({ source, target, evidence }: Migration, host: HostId): boolean {
  return (source === host && !evidence.sourceFenced) || (target === host && !evidence.targetFenced);
}

/** Writes a VM and the room that follows from its state. */
function put(draft: Draft, vm: VmRecord, hostBefore: HostId = vm.host): void {
  const before = draft.vm(vm.id);
  if (before && hostBefore !== vm.host) settleGuestRoom(draft, { ...before, state: { kind: 'stopped' } });
  draft.putVm(vm);
  settleGuestRoom(draft, vm);
}

/** The record after a fact of the VM's own host; 'gone': it is deleted; undefined: the fact is about an earlier life. */
function afterFact(vm: VmRecord, fact: GuestFact, at: number): VmRecord | 'gone' | undefined {
  const current = fact.generation >= vm.generation;
  const became = (state: VmState): VmRecord => ({ ...vm, state });
  switch (fact.kind) {
    case 'provisioned':
      if (vm.state.kind !== 'creating') return undefined;
      return became(vm.state.thenStart ? { kind: 'starting' } : { kind: 'stopped' });
    case 'provision-failed':
      if (vm.state.kind !== 'creating') return undefined;
      return became({ kind: 'crashed', message: inWords(fact.failure) });
    case 'started':
      if (vm.state.kind === 'starting' && current) return { ...vm, running: fact.running, state: { kind: 'running' } };
      // A stop was asked for while it started: what it runs is still worth knowing.
      return vm.state.kind === 'stopping' ? { ...vm, running: fact.running } : undefined;
    case 'start-failed':
      if (vm.state.kind === 'starting' && current) return became({ kind: 'crashed', message: inWords(fact.failure) });
      return vm.state.kind === 'stopping' ? became({ kind: 'stopped' }) : undefined;
    case 'ended':
      if (vm.state.kind === 'stopping') return became({ kind: 'stopped' });
      if (vm.state.kind === 'starting' && !current) return undefined;
      // What was only seen to be gone is now explained.
      if (vm.state.kind === 'crashed' && vm.state.message !== goneMessage) return undefined;
      if (vm.state.kind !== 'running' && vm.state.kind !== 'starting' && vm.state.kind !== 'crashed') return undefined;
      if (fact.how === 'stopped') return became({ kind: 'stopped' });
      return afterItsEnd(vm, { how: fact.how, message: fact.message, at });
    case 'stop-ignored':
      return vm.state.kind === 'stopping' && current ? became({ kind: 'running' }) : undefined;
    case 'removed':
      return vm.state.kind === 'deleting' ? 'gone' : undefined;
    case 'panicked':
      return undefined;
  }
}

/** A guest that ends while it moves is news for its migration; what only the migration can judge is left to it. */
function whileMoving(draft: Draft, vm: VmRecord, host: HostId, fact: GuestFact, at: number): VmRecord | undefined {
  const migration = vm.migration === null ? undefined : draft.migration(vm.migration);
  if (migration === undefined || fact.kind !== 'ended' || fact.how === 'stopped') return vm;
  const { evidence } = migration;
  const failure = {
    code: fact.how === 'powered-off' ? 'guest-powered-off' : host === migration.source ? 'source-died' : 'target-died',
    message: `${vm.name} ${fact.how === 'powered-off' ? 'was shut down' : 'died'} while it moved.`,
    hint: `Start it again: drover vm start ${vm.name}.`,
    detail: fact.message,
  } as const;
  if (host === migration.source) {
    // A cold move switches its guest off itself, and a source that was left behind may go.
    if (migration.technique === 'cold' || evidence.resumed || evidence.handedOver) return vm;
    take(draft, migration, { kind: 'source-lost', migration: migration.id, at, failure });
    return vm;
  }
  if (host !== migration.target || !evidence.resumed) return vm;
  take(draft, migration, { kind: 'target-lost', migration: migration.id, at, failure });
  const now = draft.vm(vm.id);
  if (now?.state.kind === 'running') {
    put(draft, afterItsEnd(now, { how: fact.how, message: fact.message, at }));
  }
  return vm;
}
