/**
 * Open moves: each fact goes through `step`, and what follows from it (phase, owner, room) is one commit. What is then due is
 * worked out from the record (orders.ts) and sent by whoever listens to commits.
 *
 *   fact of a host -> step() -> commit { migration, vm?, rooms? } -> due orders
 *   a second without news -> tick() -> 'gave-up' is a fact like any other
 *
 * Not here: beginning a move (reservations.ts).
 */
import { isDeepStrictEqual } from 'node:util';
import { UserError } from '../model/failure.ts';
import type { Failure } from '../model/failure.ts';
import type { HostId, MigrationId } from '../model/ids.ts';
import type { Migration } from '../model/migration.ts';
import type { VmRecord, VmState } from '../model/vm.ts';
import { isEnd, phases } from '../migration/phases.ts';
import { ownerSide, requestCancel, requestSwitch, step } from '../migration/step.ts';
import type { MigrationFact } from '../migration/step.ts';
import { switchOf, type Switch } from '../migration/switching.ts';
import type { Clock } from '../runtime/clock.ts';
import type { Log } from '../runtime/log.ts';
import type { Draft, Fleet } from './fleet.ts';
import type { Liveness } from './liveness.ts';
import { answerWithinMs, migrationOrders, orderKey } from './orders.ts';
import type { DueOrder } from './orders.ts';
import { afterItsEnd } from './restart-policy.ts';
import { settleGuestRoom, settleMoveRoom } from './rooms.ts';

/** Ended moves that are kept for the history. */
const historyLimit = 5_000;
/** Up to so many stay as long as their VMs are left alone for having been moved. */
const historyAtMost = 20_000;
const forgottenAtOnce = 50;

interface Parts {
  readonly fleet: Fleet;
  readonly liveness: Liveness;
  readonly clock: Clock;
  readonly log: Log;
}

export class Migrations {
  readonly #fleet: Fleet;
  readonly #liveness: Liveness;
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #startedAt: number;

  constructor({ fleet, liveness, clock, log }: Parts) {
    this.#fleet = fleet;
    this.#liveness = liveness;
    this.#clock = clock;
    this.#log = log;
    this.#startedAt = clock.now();
  }

  /** Resolves when the fact is on record, or is known to change nothing. */
  async onFact(host: HostId, fact: MigrationFact): Promise<void> {
    // Pauses are measured between two hosts: their clocks are brought together first.
    const at = fact.at - this.#liveness.offsetMs(host);
    await this.#fleet.change((draft) => {
      const migration = draft.migration(fact.migration);
      if (migration === undefined || (host !== migration.source && host !== migration.target)) {
        this.#log.warn({ migration: fact.migration, host, kind: fact.kind }, 'a fact about no migration of this host');
        return;
      }
      take(draft, migration, { ...fact, at });
    });
  }

  /** A host refused an order of a move that waits for it. */
  async onRefused(due: DueOrder, reason: string): Promise<void> {
    const { body } = due;
    if (body.kind !== 'receive' && body.kind !== 'send' && body.kind !== 'power-off') return;
    const at = this.#clock.now();
    await this.#fleet.change((draft) => {
      const migration = draft.migration(body.job.migration);
      if (migration === undefined || isEnd(migration.phase)) return;
      const still = migrationOrders(migration, this.#fleet).some((order) => orderKey(order) === orderKey(due));
      if (!still) return;
      const failure: Failure = {
        code: 'order-refused',
        message: `${this.#fleet.hostName(due.host)} refused the order '${body.kind}' for ${migration.vmName}.`,
        hint: 'Try again; if it stays so, look at the log of that agent.',
        detail: reason,
      };
      take(draft, migration, { kind: 'gave-up', migration: migration.id, at, failure });
    });
  }

  /** @throws UserError not-found, not-cancellable */
  async cancel(ref: string): Promise<Migration> {
    const { id } = this.#fleet.findMigration(ref);
    const at = this.#clock.now();
    return this.#fleet.change((draft) => {
      const migration = present(draft, id);
      if (isEnd(migration.phase)) {
        throw new UserError(
          'not-cancellable',
          `Migration ${id} of ${migration.vmName} has ended already: ${migration.phase}.`,
          migration.phase === 'completed' ? 'To go back, migrate the VM again.' : 'Nothing is left to cancel.',
        );
      }
      const asked = cancelIn(draft, migration, at);
      if (asked === undefined) {
        throw new UserError(
          'not-cancellable',
          `Migration ${id} of ${migration.vmName} cannot be cancelled now: ${phases[migration.phase].says}.`,
          'Wait for its end (drover migration show), then migrate the VM back if you want it back.',
        );
      }
      return asked;
    });
  }

  /** Completes a held move, or lets another go over to post-copy. @throws UserError not-found, or why it may not (switching.ts) */
  async switchNow(ref: string): Promise<Migration> {
    const { id } = this.#fleet.findMigration(ref);
    const at = this.#clock.now();
    return this.#fleet.change((draft) => {
      const migration = present(draft, id);
      const may = switchIn(this.#fleet, migration);
      if (may.to === null) {
        const says = `Migration ${id} of ${migration.vmName} cannot be switched: ${may.because}.`;
        throw new UserError(may.code, says, may.hint);
      }
      const asked = requestSwitch(migration, at);
      record(draft, migration, asked);
      return asked;
    });
  }

  /** What an outside prober saw. @throws UserError not-found, wrong-state */
  async recordBlackout(ref: string, blackoutMs: number): Promise<Migration> {
    const { id } = this.#fleet.findMigration(ref);
    return this.#fleet.change((draft) => {
      const migration = present(draft, id);
      if (!isEnd(migration.phase)) {
        throw new UserError(
          'wrong-state',
          `Migration ${id} is still ${migration.phase}.`,
          'Record the blackout when the migration has ended.',
        );
      }
      const measured = { ...migration, measures: { ...migration.measures, blackoutMs } };
      record(draft, migration, measured);
      return measured;
    });
  }

  /** Once a second: gives up on hosts that do not begin, and drops the oldest of the history. */
  async tick(): Promise<void> {
    const at = this.#clock.now();
    for (const { id, phase } of this.#fleet.unsettledMigrations()) {
      if (phase !== 'reserved' && phase !== 'warming-up') continue;
      await this.#fleet.change((draft) => {
        const migration = draft.migration(id);
        const failure = migration && this.#silence(migration, at);
        if (migration && failure) take(draft, migration, { kind: 'gave-up', migration: id, at, failure });
      });
    }
    await this.#endHolds(at);
    await this.#forgetOldest();
  }

  #silence(migration: Migration, now: number): Failure | undefined {
    const { evidence } = migration;
    // A cold move has nobody to cancel it: it may be given up for one reason and end by another.
    const givenUp = migration.giveUp !== null && migration.technique !== 'cold';
    if (isEnd(migration.phase) || givenUp || evidence.sending) return undefined;
    // After a restart of the server the hosts get the time again: it was not they who were away.
    const since = Math.max(evidence.listening?.at ?? migration.startedAt, this.#startedAt);
    if (now - since < answerWithinMs) return undefined;
    const seconds = answerWithinMs / 1000;
    const source = this.#fleet.hostName(migration.source);
    const target = this.#fleet.hostName(migration.target);
    if (migration.technique === 'cold' || evidence.listening) {
      return {
        code: 'source-refused',
        message: `${source} did not begin to move ${migration.vmName} within ${seconds} s.`,
        hint: `See what is wrong with ${source} (drover doctor), then try again.`,
      };
    }
    return {
      code: 'target-unreachable',
      message: `${target} did not get ready to receive ${migration.vmName} within ${seconds} s.`,
      hint: `See what is wrong with ${target} (drover doctor), or choose another host.`,
    };
  }

  /** Held for as long as was said: the guest stays where it is. */
  async #endHolds(now: number): Promise<void> {
    for (const { id, hold, cancelRequestedAt } of this.#fleet.unsettledMigrations()) {
      if (hold === undefined || hold.switchRequestedAt !== null || cancelRequestedAt !== null || now < hold.until)
        continue;
      await this.#fleet.change((draft) => {
        const migration = draft.migration(id);
        const asked = migration && !isEnd(migration.phase) ? requestCancel(migration, now) : undefined;
        if (migration && asked) record(draft, migration, asked);
      });
    }
  }

  async #forgetOldest(): Promise<void> {
    const oldest = forgettable(this.#fleet, this.#clock.now());
    if (oldest.length > 0) await this.#fleet.change((draft) => oldest.forEach((id) => draft.removeMigration(id)));
  }
}

/** The oldest of the history that are too many, and say of no VM that it is to be left alone. */
export function forgettable(
  fleet: Pick<Fleet, 'migrations' | 'balance' | 'unsettledMigrations'>,
  now: number,
): MigrationId[] {
  const { migrations, balance } = fleet;
  const excess = migrations.size - historyLimit;
  if (excess <= 0) return [];
  const unsettled = new Set(fleet.unsettledMigrations().map(({ id }) => id));
  const youngAt = migrations.size > historyAtMost ? Infinity : now - balance.dwellMs;
  const oldest: MigrationId[] = [];
  for (const migration of migrations.values()) {
    if (oldest.length === Math.min(excess, forgottenAtOnce)) break;
    const isYoung = 'endedAt' in migration && migration.endedAt > youngAt;
    if (!isYoung && !unsettled.has(migration.id)) oldest.push(migration.id);
  }
  return oldest;
}

/** What telling it to switch would do now. */
export function switchIn({ hosts }: Pick<Fleet, 'hosts'>, migration: Migration): Switch {
  const [source, target] = [hosts.get(migration.source), hosts.get(migration.target)];
  if (source && target) return switchOf(migration, source, target);
  return { to: null, code: 'wrong-state', because: 'one of its hosts was removed', hint: 'Wait for its end.' };
}

/** Asks an open move to end where it began. @returns undefined when that cannot be done now */
export function cancelIn(draft: Draft, migration: Migration, at: number): Migration | undefined {
  // A cold move orders the shutdown with its first breath: from then on nobody can say that the guest will stay up.
  if (isEnd(migration.phase) || migration.technique === 'cold') return undefined;
  const asked = requestCancel(migration, at);
  if (asked !== undefined) record(draft, migration, asked);
  return asked;
}

/** Puts a fact on record, with everything that follows from it. */
export function take(draft: Draft, migration: Migration, fact: MigrationFact): void {
  const stepped = step(migration, fact);
  const { sending } = stepped.evidence;
  const firstPageMs = stepped.measures.firstPageMs ?? (sending ? Math.max(0, sending.at - stepped.startedAt) : null);
  let after: Migration = { ...stepped, measures: { ...stepped.measures, firstPageMs } };
  // From here on the source may not start it again: the target gets a right of its own.
  const powersOn = after.technique === 'cold' && after.phase === 'powering-on' && migration.phase !== 'powering-on';
  if (powersOn) after = { ...after, generation: after.generation + 1 };
  record(draft, migration, after);
  const vm = draft.vm(after.vm);
  // The shutdown of a cold move that had been given up: the guest is off all the same.
  if (isEnd(migration.phase) && fact.kind === 'powered-off' && vm?.host === after.source && vm.migration === null) {
    if (vm.state.kind !== 'running' || vm.generation !== after.generation) return;
    const stopped: VmRecord = { ...vm, state: { kind: 'stopped' } };
    draft.putVm(stopped);
    settleGuestRoom(draft, stopped);
  }
}

function record(draft: Draft, before: Migration, after: Migration): void {
  if (isDeepStrictEqual(before, after)) return;
  draft.putMigration(after);
  let vm = draft.vm(after.vm);
  if (vm?.migration === after.id) {
    const moved = moveVm(vm, before, after);
    if (!isDeepStrictEqual(moved, vm)) draft.putVm(moved);
    vm = moved;
    // Its room is settled as one of a moving VM, also by the commit that ends the move.
    settleMoveRoom(draft, after, { ...vm, migration: after.id });
    return;
  }
  settleMoveRoom(draft, after, vm);
}

/** The VM's record after what is now proven: owner, generation, and at the end its state. */
function moveVm(vm: VmRecord, before: Migration, after: Migration): VmRecord {
  const arrives = ownerSide(after) === 'target' && ownerSide(before) === 'source';
  const host = arrives ? after.target : vm.host;
  const generation = Math.max(vm.generation, after.generation);
  const moving = { ...vm, host, generation };
  if (!isEnd(after.phase)) return moving;
  if (after.phase === 'failed' && after.guest === 'lost') return whenLost({ ...moving, migration: null }, after);
  return { ...moving, migration: null };
}

/** It was lost with its host, or with its process alone: what its owner wants then. */
function whenLost(vm: VmRecord, { evidence, endedAt, failure }: Extract<Migration, { phase: 'failed' }>): VmRecord {
  const withItsHost = evidence.sourceFenced !== undefined || evidence.targetFenced !== undefined;
  if (withItsHost) {
    const { message } = failure;
    const state: VmState =
      vm.recovery === 'restart'
        ? { kind: 'waiting', since: endedAt, notBefore: endedAt, because: message }
        : { kind: 'crashed', message };
    return { ...vm, state };
  }
  const how = failure.code === 'guest-powered-off' ? ('powered-off' as const) : ('died' as const);
  return afterItsEnd(vm, { how, message: failure.message, at: endedAt });
}

function present(draft: Draft, id: MigrationId): Migration {
  const migration = draft.migration(id);
  if (migration) return migration;
  throw new UserError(
    'not-found',
    `There is no migration '${id}' any more.`,
    '`drover migrations` shows what there is.',
  );
}
