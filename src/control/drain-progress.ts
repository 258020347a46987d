/**
 * Open drains, once a second: what has left, what stands in the way of the rest, which moves begin now, and when it is over.
 *
 *   records -> noted(): each VM followed, each obstacle named -> commit -> plan -> moves begin, each in one commit with the drain
 *
 * A move that ended where it began is tried again after a pause that grows. Where nothing goes on at all, the drain says which
 * VM, why, since when and what next, and goes on trying. Everything follows from records, so a server that was killed goes on.
 *
 * Not here: what people ask (drains.ts), targets and order (drain-plan.ts).
 */
import { isDeepStrictEqual } from 'node:util';
import { isOpenDrain } from '../model/drain.ts';
import type { DrainedVm, DrainRecord, Stuck } from '../model/drain.ts';
import { UserError } from '../model/failure.ts';
import type { HostRecord } from '../model/host.ts';
import type { DrainId, HostId } from '../model/ids.ts';
import type { Migration } from '../model/migration.ts';
import { formatMs } from '../model/units.ts';
import type { VmRecord } from '../model/vm.ts';
import { isEnd, saysOf } from '../migration/phases.ts';
import type { Revision } from '../store/store.ts';
import type { Clock } from '../runtime/clock.ts';
import type { Log } from '../runtime/log.ts';
import { mayBegin, planMoves } from './drain-plan.ts';
import type { CannotMove, MovesPlan, PlannedMove, Wanted } from './drain-plan.ts';
import { evacuator } from './evacuation.ts';
import type { Fleet } from './fleet.ts';
import type { Forecasts } from './forecasts.ts';
import type { LiveEvents } from './live-events.ts';
import type { Liveness } from './liveness.ts';
import type { Migrations } from './migrations.ts';
import { costOf } from './move-costs.ts';
import type { Reservations } from './reservations.ts';
import { holdsRoom } from './rooms.ts';
import { wordsOfKind } from './sleep-rules.ts';

/** Who asked, in the record of such a move. */
export const drainer = 'drain';
/** Moves to or from one other host at the same moment: more of them lengthen each other's pause. */
export const movesPerPeer = 2;
const backOffMs = [5_000, 15_000, 45_000, 120_000, 300_000] as const;
/** So many in a row, and somebody is told. */
const manyFailures = 5;
/** How long something may stand in the way before it counts as standing there. */
const patienceMs = { refused: 10_000, busy: 90_000, slow: Infinity, failed: Infinity } as const;
/** A VM that cannot come back for so long stays where it is. */
const returnPatienceMs = 120_000;
const longMoveMs = 10 * 60_000;
const clearedAwayMs = 60_000;
const namesShown = 3;
/** How long a plan will do to say what stands in the way, and of the time between two plans planning takes this part at most. */
const planGoodMs = 2000;
const planAgainAfter = 20;
/** Of one VM in one drain, the newest: one that never succeeds is tried for ever. */
const keptMoves = 20;
/** Drains that are kept for the history. */
const historyLimit = 200;

export interface DrainParts {
  readonly fleet: Fleet;
  readonly live: LiveEvents;
  readonly liveness: Liveness;
  readonly migrations: Migrations;
  readonly reservations: Reservations;
  readonly forecasts: Pick<Forecasts, 'of'>;
  readonly clock: Clock;
  readonly log: Log;
}

/** The newest drain of a host: the one that counts. */
export function latestDrain(fleet: Pick<Fleet, 'drains'>, host: HostId): DrainRecord | undefined {
  let latest: DrainRecord | undefined;
  for (const drain of fleet.drains.values()) if (drain.host === host) latest = drain;
  return latest;
}

interface RecentPlan {
  readonly plan: MovesPlan;
  /** Of these VMs, by their records. */
  readonly wanted: readonly Wanted[];
  readonly revision: Revision;
  /** On the monotonic clock. */
  readonly goodUntil: number;
}

export class DrainProgress {
  readonly #parts: DrainParts;
  readonly #startedAt: number;
  readonly #recent = new Map<DrainId, RecentPlan>();

  constructor(parts: DrainParts) {
    this.#parts = parts;
    this.#startedAt = parts.clock.now();
  }

  /** Does a drain own the moves from this host? Then nobody else begins any. */
  owns(host: HostId): boolean {
    return latestDrain(this.#parts.fleet, host)?.state.kind === 'draining';
  }

  async tick(): Promise<void> {
    for (const { id } of [...this.#parts.fleet.drains.values()].filter(isOpenDrain)) {
      await this.#note(id);
      const drain = this.#parts.fleet.drains.get(id);
      if (drain?.state.kind === 'draining') await this.#switchHeld(drain);
      if (drain?.state.kind === 'draining' || drain?.state.kind === 'returning') await this.#begin(drain);
    }
    await this.#forgetOldest();
  }

  /**
   * What is still to be moved, where to and at what cost, as of now.
   * @param home the host as it will be; left out: as it is
   */
  plan(drain: DrainRecord, home?: HostRecord): MovesPlan {
    const { fleet, reservations } = this.#parts;
    const { allowCold, movesAtOnce, host } = drain;
    return planMoves(this.#wanted(drain, home), {
      drained: host,
      rooms: fleet.rooms,
      targetsOf: (vm, technique, to, rooms) => reservations.targetsOf(vm, technique, to, rooms),
      costOf: (vm, to, technique) => costOf(this.#parts, vm, to, technique),
      allowCold,
      movesAtOnce,
      movesPerPeer,
    });
  }

  /** The same, some moments old: to say what stands in the way, not to act on. */
  recentPlan(drain: DrainRecord): MovesPlan {
    const recent = this.#recent.get(drain.id);
    const wanted = this.#wanted(drain);
    const isGood = recent && this.#parts.clock.monotonic() < recent.goodUntil && sameVms(recent.wanted, wanted);
    return isGood ? recent.plan : this.#planAgain(drain);
  }

  #planAgain(drain: DrainRecord): MovesPlan {
    const { clock, fleet } = this.#parts;
    const begunAt = clock.monotonic();
    const plan = this.plan(drain);
    const endedAt = clock.monotonic();
    const goodUntil = endedAt + Math.max(planGoodMs, planAgainAfter * (endedAt - begunAt));
    this.#recent.set(drain.id, { plan, wanted: this.#wanted(drain), revision: fleet.revision, goodUntil });
    return plan;
  }

  /** Running VMs with nothing else under way: those that are to leave, or to come back. */
  #wanted(drain: DrainRecord, home?: HostRecord): Wanted[] {
    const { fleet } = this.#parts;
    const back = drain.state.kind === 'returning' ? (home ?? fleet.hosts.get(drain.host) ?? null) : null;
    return drain.vms.flatMap((entry): Wanted[] => {
      const vm = fleet.vms.get(entry.vm);
      if (vm?.state.kind !== 'running' || vm.migration !== null) return [];
      if (back === null) return vm.host === drain.host ? [{ vm, to: null }] : [];
      const comes = this.#comesBack(drain, entry, vm) && this.#staysSince(drain, entry, vm) === null;
      return comes ? [{ vm, to: back }] : [];
    });
  }

  #comesBack({ host }: DrainRecord, { left, backAt, stays }: DrainedVm, vm: VmRecord): boolean {
    return left !== null && backAt === null && stays === null && vm.host !== host;
  }

  async #note(id: DrainId): Promise<void> {
    const { fleet, live, clock, log } = this.#parts;
    const changed = await fleet.change((draft) => {
      const drain = draft.drain(id);
      if (drain === undefined) return undefined;
      const next = this.#noted(drain);
      if (isDeepStrictEqual(next, drain)) return undefined;
      draft.putDrain(next);
      return { before: drain, after: next };
    });
    if (changed === undefined) return;
    const { before, after } = changed;
    if (before.state.kind !== after.state.kind) log.info({ host: after.hostName }, `drain: ${after.state.kind}`);
    if (after.blocked === null || after.blocked.says === before.blocked?.says) return;
    const says = `the drain of ${after.hostName} does not go on: ${after.blocked.says}`;
    log.warn({ host: after.hostName }, says);
    live.emit({ kind: 'alarm', at: clock.now(), about: `host ${after.hostName}`, says });
  }

  /** The record as what is known now makes it. */
  #noted(drain: DrainRecord): DrainRecord {
    const { fleet, clock } = this.#parts;
    const now = clock.now();
    const followed = drain.vms.flatMap((entry) => this.#followed(drain, entry, now));
    const host = fleet.hosts.get(drain.host);
    switch (drain.state.kind) {
      case 'draining': {
        if (host?.cordoned !== true) {
          const because = host === undefined ? 'the host was removed' : 'the host was uncordoned';
          return {
            ...drain,
            vms: followed,
            blocked: null,
            state: { kind: 'cancelled', at: now, by: drainer, because },
          };
        }
        return this.#notedDraining({ ...drain, vms: [...followed, ...this.#arrived(drain)] }, now);
      }
      case 'returning':
        return this.#notedReturning({ ...drain, vms: followed }, now);
      case 'drained':
      case 'undrained':
      case 'cancelled':
        return { ...drain, vms: followed };
    }
  }

  /** VMs that came to the host since: moves that were on their way, or what was created there. */
  #arrived(drain: DrainRecord): DrainedVm[] {
    const known = new Set(drain.vms.map(({ vm }) => vm));
    return [...this.#parts.fleet.vms.values()].filter((vm) => vm.host === drain.host && !known.has(vm.id)).map(entryOf);
  }

  /** How the move that was begun for it has ended, and where it is. @returns none for one that was deleted */
  #followed(drain: DrainRecord, entry: DrainedVm, now: number): DrainedVm[] {
    const { fleet } = this.#parts;
    const vm = fleet.vms.get(entry.vm);
    if (vm === undefined) return [];
    let next = entry;
    let arrived = false;
    if (entry.open !== null && vm.migration !== entry.open) {
      const migration = fleet.migrations.get(entry.open);
      arrived = migration?.target === vm.host;
      next =
        arrived || migration === undefined
          ? { ...entry, open: null, failures: 0, stuck: null }
          : failed(entry, migration, now);
    }
    if (vm.migration !== null) return [next];
    const isHome = vm.host === drain.host;
    const draining = drain.state.kind === 'draining';
    if (isHome && draining) next = { ...next, left: null };
    if (isHome && !draining && next.left !== null && next.backAt === null) next = { ...next, backAt: now, stuck: null };
    if (!isHome && next.left === null && (draining || arrived))
      next = { ...next, left: { to: vm.host, at: now }, stuck: null };
    return [next];
  }

  #notedDraining(drain: DrainRecord, now: number): DrainRecord {
    const { fleet } = this.#parts;
    const cannot = new Map(this.recentPlan(drain).cannot.map((one) => [one.vm.id, one]));
    const vms = drain.vms.map((entry) => {
      const vm = fleet.vms.get(entry.vm);
      const stuck = vm && vm.host === drain.host ? this.#stuck(entry, vm, cannot.get(vm.id), now) : null;
      return { ...entry, stuck };
    });
    const remaining = vms.filter(({ vm }) => this.#isOn(drain.host, vm));
    const touching = this.#touching(drain.host);
    if (remaining.length === 0 && touching.length === 0) {
      return { ...drain, vms, blocked: null, emptyAt: now, state: { kind: 'drained', at: now } };
    }
    return { ...drain, vms, blocked: this.#blocked(drain, remaining, touching, now) };
  }

  #notedReturning(drain: DrainRecord, now: number): DrainRecord {
    const { fleet, liveness } = this.#parts;
    const cannot = new Map(this.recentPlan(drain).cannot.map((one) => [one.vm.id, one]));
    const silent = liveness.isSilent(drain.host);
    const sleep = fleet.sleeps.get(drain.host)?.state.kind ?? 'awake';
    const vms = drain.vms.map((entry): DrainedVm => {
      const vm = fleet.vms.get(entry.vm);
      if (vm === undefined || !this.#comesBack(drain, entry, vm)) return entry;
      if (sleep !== 'awake') {
        const says = `${drain.hostName} is ${wordsOfKind[sleep]}`;
        const since = entry.stuck?.kind === 'slow' ? entry.stuck.since : now;
        return {
          ...entry,
          stuck: { kind: 'slow', since, says, next: 'It is woken; VMs come back as soon as it reports.' },
        };
      }
      const stays = vm.migration === null ? this.#staysSince(drain, entry, vm) : null;
      if (stays !== null) return { ...entry, stays: { says: stays, gaveUp: false }, stuck: null };
      const stuck = this.#stuck(entry, vm, cannot.get(vm.id), now);
      const givenUp =
        stuck !== null &&
        ((stuck.kind === 'failed' && entry.open === null && entry.failures >= manyFailures) ||
          (stuck.kind !== 'failed' &&
            stuck.kind !== 'slow' &&
            !silent &&
            this.#age(stuck.since, now) > returnPatienceMs));
      return givenUp ? { ...entry, stuck: null, stays: { says: stuck.says, gaveUp: true } } : { ...entry, stuck };
    });
    const waits = vms.some((entry) => {
      const vm = fleet.vms.get(entry.vm);
      return entry.open !== null || (vm !== undefined && this.#comesBack(drain, entry, vm));
    });
    return waits ? { ...drain, vms } : { ...drain, vms, state: { kind: 'undrained', at: now } };
  }

  /** Why it is not brought back: nobody's decision since is undone. */
  #staysSince(drain: DrainRecord, { left }: DrainedVm, vm: VmRecord): string | null {
    const { fleet } = this.#parts;
    if (left === null) return null;
    if (this.#whereDrainsTook(drain, vm, left.to) !== vm.host)
      return `it was moved to ${fleet.hostName(vm.host)} since`;
    switch (vm.state.kind) {
      case 'running':
      case 'starting':
      case 'stopping':
      case 'creating':
        return null;
      case 'stopped':
      case 'crashed':
      case 'waiting':
      case 'deleting':
        return `it is ${vm.state.kind} on ${fleet.hostName(vm.host)}`;
    }
  }

  /** Drains of other hosts may have taken it further since: that was nobody's wish for this VM. */
  #whereDrainsTook(drain: DrainRecord, vm: VmRecord, from: HostId): HostId {
    let at = from;
    for (const other of this.#parts.fleet.drains.values()) {
      if (other.startedAt < drain.startedAt || other.host !== at) continue;
      const entry = other.vms.find((each) => each.vm === vm.id);
      if (entry !== undefined && entry.left !== null && entry.backAt === null) at = entry.left.to;
    }
    return at;
  }

  #stuck(entry: DrainedVm, vm: VmRecord, cannot: CannotMove | undefined, now: number): Stuck | null {
    const { fleet } = this.#parts;
    if (!holdsRoom(vm)) return null;
    const since = (kind: Stuck['kind']): number => (entry.stuck?.kind === kind ? entry.stuck.since : now);
    if (vm.migration !== null) {
      const migration = fleet.migrations.get(vm.migration);
      return migration === undefined ? null : this.#stuckMove(entry, migration, now);
    }
    if (vm.state.kind !== 'running') {
      const says = `${vm.name} is ${vm.state.kind}`;
      return { kind: 'busy', since: since('busy'), says, next: 'It goes as soon as it runs, or is off.' };
    }
    if (cannot !== undefined) return { kind: 'refused', since: since('refused'), says: cannot.says, next: cannot.next };
    return entry.stuck?.kind === 'failed' ? entry.stuck : null;
  }

  #stuckMove(entry: DrainedVm, migration: Migration, now: number): Stuck | null {
    const { vmName, id, hold, startedAt } = migration;
    if (isHeld(migration) && !isEvacuators(migration)) {
      const says = `${vmName} is held ready by ${id}, which ${migration.why[0]?.by ?? 'somebody'} asked for, until ${new Date(hold?.until ?? 0).toISOString()}`;
      const next = `Complete it: drover migration switch ${id}; or cancel it: drover migration cancel ${id}.`;
      return { kind: 'busy', since: startedAt, says, next };
    }
    if (now - startedAt > longMoveMs) {
      const says = `${vmName} has been on the move for long: ${saysOf(migration)}`;
      const next = `drover migration show ${id}; cancel it if it leads nowhere.`;
      return { kind: 'slow', since: startedAt, says, next };
    }
    return entry.stuck?.kind === 'failed' ? entry.stuck : null;
  }

  /** Nothing moves, and nothing will by itself. */
  #blocked(
    drain: DrainRecord,
    remaining: readonly DrainedVm[],
    touching: readonly Migration[],
    now: number,
  ): DrainRecord['blocked'] {
    const open = touching.filter(
      (migration) => !isEnd(migration.phase) && (!isHeld(migration) || isEvacuators(migration)),
    );
    if (open.length > 0) return null;
    const since = drain.blocked?.since ?? now;
    if (remaining.length === 0) {
      const [left] = touching;
      if (left === undefined || this.#age(left.history.at(-1)?.at ?? now, now) < clearedAwayMs) return null;
      const says = `what is left of ${left.id} (${left.vmName}) is not cleared away yet`;
      return { since, says, next: `See \`drover migration show ${left.id}\` and \`drover doctor\`.` };
    }
    const stands = remaining.every(
      ({ stuck, failures }) =>
        stuck !== null && (this.#age(stuck.since, now) >= patienceMs[stuck.kind] || failures >= manyFailures),
    );
    if (!stands) return null;
    const all = remaining.flatMap(({ vmName, stuck }) => (stuck === null ? [] : [{ vmName, stuck }]));
    const more = all.length > namesShown ? ` And ${all.length - namesShown} others.` : '';
    const says =
      all
        .slice(0, namesShown)
        .map(({ vmName, stuck }) => `${vmName}: ${stuck.says}`)
        .join(' ') + more;
    return { since, says, next: all[0]?.stuck.next ?? '' };
  }

  /** A server that was away has not looked meanwhile. */
  #age(since: number, now: number): number {
    return now - Math.max(since, this.#startedAt);
  }

  #isOn(host: HostId, vm: VmRecord['id']): boolean {
    const found = this.#parts.fleet.vms.get(vm);
    return found !== undefined && found.host === host && holdsRoom(found);
  }

  #touching(host: HostId): Migration[] {
    return this.#parts.fleet.unsettledMigrations().filter(({ source, target }) => source === host || target === host);
  }

  /** What a sick host has held ready leaves by the drain now. */
  async #switchHeld(drain: DrainRecord): Promise<void> {
    const { fleet, migrations } = this.#parts;
    const mine = fleet.unsettledMigrations().filter((each) => each.source === drain.host && !isEnd(each.phase));
    let free = drain.movesAtOnce - mine.filter((each) => !isHeld(each)).length;
    for (const migration of mine) {
      if (free <= 0) return;
      if (!isHeld(migration) || !isEvacuators(migration) || migration.cancelRequestedAt !== null) continue;
      await migrations.switchNow(migration.id).catch(onlyRefusals);
      free--;
    }
  }

  async #begin(drain: DrainRecord): Promise<void> {
    const { fleet, liveness, clock } = this.#parts;
    const { host, movesAtOnce } = drain;
    const entries = new Map(drain.vms.map((entry) => [entry.vm, entry]));
    // A move that waits for a host that says nothing may wait for a person, and takes nobody's place.
    const open: { source: HostId; target: HostId }[] = fleet
      .unsettledMigrations()
      .filter(({ source, target }) => !liveness.isSilent(source) && !liveness.isSilent(target))
      .filter((each) => !isEnd(each.phase) && !isHeld(each));
    const touching = open.filter(({ source, target }) => source === host || target === host);
    if (touching.length >= movesAtOnce) return;
    const endsOf = (move: PlannedMove) => ({ source: move.vm.host, target: move.to });
    const mayGo = (move: PlannedMove): boolean => {
      const entry = entries.get(move.vm.id);
      if (entry === undefined || entry.notBefore > clock.now() || entry.open !== null) return false;
      return mayBegin(endsOf(move), open, { drained: host, movesAtOnce, movesPerPeer });
    };
    let plan = this.recentPlan(drain);
    if (!plan.moves.some(mayGo)) return;
    if (this.#recent.get(drain.id)?.revision !== fleet.revision) plan = this.#planAgain(drain);
    for (const move of plan.moves) if (mayGo(move) && (await this.#beginOne(drain, move))) open.push(endsOf(move));
  }

  /** One commit: the move and the drain that knows of it. @returns whether it has begun */
  async #beginOne(drain: DrainRecord, { vm, to, technique }: PlannedMove): Promise<boolean> {
    const { reservations, fleet, clock, log } = this.#parts;
    const { kind } = drain.state;
    const why =
      kind === 'returning'
        ? `${drain.hostName} is back: ${drain.because}`
        : `${drain.hostName} is drained: ${drain.because}`;
    const body = { to, technique, policy: {}, why, dryRun: false, holdMs: null };
    try {
      await reservations.startMigration(vm.id, body, null, drainer, 'at-once', (draft, migration) => {
        const now = draft.drain(drain.id);
        if (now?.state.kind !== kind)
          throw new UserError('wrong-state', 'The drain was ended meanwhile.', 'Look again.');
        draft.putDrain(
          withEntry(now, vm, (entry) => ({
            ...entry,
            open: migration.id,
            moves: [...entry.moves, migration.id].slice(-keptMoves),
          })),
        );
      });
      return true;
    } catch (error) {
      if (!(error instanceof UserError) || error.code === 'unavailable') throw error;
      log.info({ vm: vm.name, says: error.message }, 'a move of a drain was refused');
      const at = clock.now();
      await fleet.change((draft) => {
        const now = draft.drain(drain.id);
        if (now?.state.kind !== kind) return;
        draft.putDrain(withEntry(now, vm, (entry) => failedWith(entry, at, error.message, error.hint)));
      });
      return false;
    }
  }

  async #forgetOldest(): Promise<void> {
    const { fleet } = this.#parts;
    for (const id of this.#recent.keys()) {
      const drain = fleet.drains.get(id);
      if (drain === undefined || !isOpenDrain(drain)) this.#recent.delete(id);
    }
    const excess = fleet.drains.size - historyLimit;
    if (excess <= 0) return;
    const old = [...fleet.drains.values()]
      .filter((drain) => !isOpenDrain(drain) && latestDrain(fleet, drain.host)?.id !== drain.id)
      .slice(0, excess);
    if (old.length > 0) await fleet.change((draft) => old.forEach(({ id }) => draft.removeDrain(id)));
  }
}

export function entryOf(vm: VmRecord): DrainedVm {
  const nothing = {
    open: null,
    moves: [],
    failures: 0,
    notBefore: 0,
    left: null,
    backAt: null,
    stuck: null,
    stays: null,
  };
  return { vm: vm.id, vmName: vm.name, ...nothing };
}

function withEntry(drain: DrainRecord, vm: VmRecord, change: (entry: DrainedVm) => DrainedVm): DrainRecord {
  return { ...drain, vms: drain.vms.map((entry) => (entry.vm === vm.id ? change(entry) : entry)) };
}

function failed(entry: DrainedVm, migration: Migration, now: number): DrainedVm {
  const how = migration.phase === 'failed' ? `failed: ${migration.failure.message}` : 'was cancelled';
  const next = migration.phase === 'failed' ? migration.failure.hint : 'To keep it there, cancel the drain.';
  return failedWith({ ...entry, open: null }, now, `its move ${migration.id} ${how}`, next);
}

function failedWith(entry: DrainedVm, now: number, says: string, next: string): DrainedVm {
  const failures = entry.failures + 1;
  const pauseMs = backOffMs[Math.min(failures, backOffMs.length) - 1] ?? 0;
  const times = failures === 1 ? '' : ` (${failures} times in a row)`;
  const since = entry.stuck?.kind === 'failed' ? entry.stuck.since : now;
  const again = `It is tried again after ${formatMs(pauseMs)}.`;
  const stuck: Stuck = { kind: 'failed', since, says: `${says}${times}`, next: `${again} ${next}` };
  return { ...entry, failures, notBefore: now + pauseMs, stuck };
}

function isHeld({ hold, phase }: Migration): boolean {
  return hold !== undefined && hold.switchRequestedAt === null && !isEnd(phase);
}

function isEvacuators({ why }: Migration): boolean {
  return why[0]?.by === evacuator;
}

function onlyRefusals(error: unknown): void {
  if (!(error instanceof UserError)) throw error;
}

function sameVms(a: readonly Wanted[], b: readonly Wanted[]): boolean {
  return a.length === b.length && a.every(({ vm, to }, n) => vm === b[n]?.vm && to?.id === b[n]?.to?.id);
}
