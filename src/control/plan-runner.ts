/**
 * The plan that is carried out: begins its steps one by one as they may begin, each checked anew at that moment, and ends it when
 * one fails or makes no sense any more.
 *
 *   hosts to be woken  ->  moves, wave by wave  ->  each emptied host to sleep
 *
 * Not here: which plan it is and when there is one (distributor.ts), what follows from records alone (plan-run.ts).
 */
import { UserError } from '../model/failure.ts';
import type { DecisionRecord, PlanMove, PlanPower, PlanRecord } from '../model/distribution.ts';
import type { FleetSnapshot } from '../model/fleet-snapshot.ts';
import { newId } from '../model/ids.ts';
import type { HostId, PlanId } from '../model/ids.ts';
import type { Migration } from '../model/migration.ts';
import type { SleepState } from '../model/sleep.ts';
import { formatMs } from '../model/units.ts';
import { isEnd } from '../migration/phases.ts';
import { Judge } from '../planner/judge.ts';
import type { Clock } from '../runtime/clock.ts';
import type { Random } from '../runtime/random.ts';
import type { Energy } from './energy.ts';
import type { Fleet } from './fleet.ts';
import { dueMoves, duePower, hasSlot, isUnderWay, settled } from './plan-run.ts';
import { technique } from './planning.ts';
import type { Reservations } from './reservations.ts';
import type { Sleep } from './sleep.ts';

/** Who asked, in the record of such a move. */
export const distributor = 'distributor';
/** A plan that cannot go on for so long is about another fleet. */
const stalledMs = 1_800_000;

interface Parts {
  readonly fleet: Fleet;
  readonly reservations: Reservations;
  readonly energy: Energy;
  readonly sleep: Sleep;
  readonly clock: Clock;
  readonly random: Random;
  readonly snapshot: () => FleetSnapshot;
  /** Why nothing at all, nothing by itself, and no move by itself is begun now; null: it is. */
  readonly cannotBegin: () => string | null;
  readonly quiet: () => string | null;
  readonly loopWaits: () => string | null;
  readonly end: (id: PlanId, kind: 'done' | 'stopped', because: string) => Promise<unknown>;
}

export class PlanRunner {
  readonly #parts: Parts;
  readonly #fleet: Fleet;
  readonly #clock: Clock;

  constructor(parts: Parts) {
    this.#parts = parts;
    this.#fleet = parts.fleet;
    this.#clock = parts.clock;
  }

  /** What has become of steps under way, also of plans that have ended since. */
  async settle(): Promise<void> {
    for (const { id } of [...this.#fleet.plans.values()].filter(isUnderWay)) {
      await this.#fleet.change((draft) => {
        const before = draft.plan(id);
        if (before === undefined) return;
        const sleepOf = (host: HostId): SleepState | undefined => draft.sleep(host)?.state;
        const after = settled(before, (migration) => draft.migration(migration), sleepOf);
        if (after !== before) draft.putPlan(after);
      });
    }
  }

  /** One beat of the plan that runs. */
  async advance(plan: PlanRecord): Promise<void> {
    if (plan.state.kind !== 'running') return;
    const { end, cannotBegin, quiet, loopWaits } = this.#parts;
    const failed = plan.moves.find(({ state }) => state === 'failed');
    const unpowered = plan.power.find(({ state }) => state === 'failed');
    if (failed !== undefined || unpowered !== undefined) {
      const says = failed && `${failed.vmName} did not move: ${this.#howItEnded(failed)}`;
      await end(plan.id, 'stopped', says ?? this.#whyUnpowered(unpowered!));
      return;
    }
    const moves = dueMoves(plan);
    const power = duePower(plan);
    if (moves.length + power.length === 0) {
      if (!isUnderWay(plan)) await end(plan.id, 'done', 'all its steps are done');
      return;
    }
    const byItself = plan.origin === 'loop';
    const waits = cannotBegin() ?? (byItself ? (moves.length > 0 ? loopWaits() : quiet()) : null);
    if (waits !== null) {
      const stalled = !isUnderWay(plan) && this.#clock.now() - plan.state.since > stalledMs;
      if (stalled) await end(plan.id, 'stopped', `it could not go on: ${waits}`);
      return;
    }
    for (const step of power) if (!(await this.#tryPower(plan.id, step))) return;
    // Of this beat: only the moves of this plan change it meanwhile, and whatever else does is refused where the move begins.
    let judge: Judge | undefined;
    const judgeNow = (): Judge => (judge ??= new Judge(this.#parts.snapshot()));
    for (const move of moves) if (!(await this.#tryBegin(plan.id, move, judgeNow))) return;
  }

  /** Wakes the host or sends it to sleep, if that still makes sense. @returns whether the next step may be tried */
  async #tryPower(id: PlanId, { host, hostName, to, reason }: PlanPower): Promise<boolean> {
    const { energy, sleep, end } = this.#parts;
    const plan = this.#fleet.plans.get(id);
    if (plan?.state.kind !== 'running') return false;
    const kind = this.#fleet.sleeps.get(host)?.state.kind ?? 'awake';
    const why = { by: distributor, because: `${reason} (${id})`.slice(0, 500) };
    if (to === 'sleep' && kind === 'awake') {
      const { sleep: may, keep } = energy.plan({ byPerson: plan.origin === 'person' });
      const stays = keep.find((each) => each.host === hostName);
      if (may.every((each) => each.host !== hostName)) {
        // What its last move has left is cleared away by itself; a guest that came since is another matter.
        if (stays === undefined && this.#clock.now() - plan.state.since < stalledMs && !this.#hasGuests(host))
          return true;
        await end(id, 'stopped', `${hostName} stays awake: ${stays?.because ?? 'it is in use'}`);
        return false;
      }
    }
    try {
      if (to === 'wake') await sleep.wake(host, why, { dryRun: false });
      else if (kind === 'awake') await sleep.send(host, why, { drill: false, dryRun: false });
    } catch (error) {
      if (!(error instanceof UserError)) throw error;
      await end(id, 'stopped', `${hostName} ${to === 'wake' ? 'is not woken' : 'stays awake'}: ${error.message}`);
      return false;
    }
    await this.#fleet.change((draft) => {
      const now = draft.plan(id);
      const at = now?.power.findIndex((step) => step.host === host && step.to === to && step.state === 'due') ?? -1;
      if (now === undefined || at < 0) return;
      draft.putPlan({ ...now, power: now.power.with(at, { ...now.power[at]!, state: 'moving' }) });
    });
    return true;
  }

  #hasGuests(host: HostId): boolean {
    return [...this.#fleet.vms.values()].some((vm) => vm.host === host && vm.state.kind === 'running');
  }

  #whyUnpowered({ host, hostName, to }: PlanPower): string {
    const says = this.#fleet.sleeps.get(host)?.lastFailure?.says;
    return says ?? `${hostName} ${to === 'wake' ? 'did not wake' : 'was woken before it slept'}`;
  }

  /** @returns whether the next one may be tried */
  async #tryBegin(id: PlanId, move: PlanMove, judgeNow: () => Judge): Promise<boolean> {
    const plan = this.#fleet.plans.get(id);
    if (plan?.state.kind !== 'running' || (plan.origin === 'loop' && this.#parts.loopWaits() !== null)) return false;
    const open = this.#fleet.unsettledMigrations().filter(({ phase }) => !isEnd(phase));
    if (!hasSlot(plan, move, open, this.#fleet.balance)) return true;
    const stale = this.#whyStale(plan, move, judgeNow);
    if (stale !== null) {
      await this.#parts.end(id, 'stopped', stale);
      return false;
    }
    try {
      await this.#begin(plan, move);
      judgeNow().moved(move.vmName, this.#fleet.hostName(move.to));
      return true;
    } catch (error) {
      if (!(error instanceof UserError) || error.code === 'unavailable') throw error;
      // What an earlier move has left there is cleared away by itself.
      if (error.code === 'busy' && this.#clock.now() - plan.state.since < stalledMs) return true;
      await this.#parts.end(id, 'stopped', `${move.vmName} cannot move: ${error.message}`);
      return false;
    }
  }

  /** Does the move still make sense, by what is known at this moment? */
  #whyStale(plan: PlanRecord, move: PlanMove, judgeNow: () => Judge): string | null {
    const vm = this.#fleet.vms.get(move.vm);
    const [from, to] = [this.#fleet.hostName(move.from), this.#fleet.hostName(move.to)];
    if (vm === undefined) return `${move.vmName} is not there any more`;
    if (vm.host !== move.from) return `${vm.name} is on ${this.#fleet.hostName(vm.host)} now, not on ${from}`;
    if (vm.migration !== null) return `${vm.name} is on the move for another reason`;
    const rest = plan.moves.filter(({ state }) => state === 'due');
    const judge = judgeNow();
    const broken = judge.whyNotThere(vm.name, to);
    if (broken !== null) return `${vm.name} may not go to ${to} any more: ${broken.says}`;
    if (plan.goal === 'consolidate') {
      const empties = plan.power.some((step) => step.to === 'sleep' && step.host === move.from);
      const [needed] = empties ? this.#parts.energy.plan({ byPerson: plan.origin === 'person' }).wake : [];
      return needed === undefined ? null : `more hosts are needed by now: ${needed.because}`;
    }
    if (rest.every(({ worth }) => worth === null)) return null;
    const ahead = new Map(rest.map((each) => [each.vmName, this.#fleet.hostName(each.to)]));
    return judge.gainOf(ahead) > 0 ? null : 'by the loads as they are now the rest of it would bring nothing';
  }

  /** One commit: the move, the plan that it is part of, and what is expected of it. */
  async #begin(plan: PlanRecord, move: PlanMove): Promise<void> {
    const { downtimeMs, totalMs } = move.forecast;
    const cost = `about ${formatMs(totalMs)}, pause ${formatMs(downtimeMs)}`;
    const why = `${move.reason} Gain ${move.gain.toFixed(3)}, ${cost} (${plan.id}).`.slice(0, 500);
    const body = { to: move.to, technique, policy: {}, why, dryRun: false, holdMs: null } as const;
    await this.#parts.reservations.startMigration(move.vm, body, null, distributor, 'at-once', (draft, migration) => {
      const now = draft.plan(plan.id);
      const at = now?.moves.findIndex((each) => each.vm === move.vm && each.wave === move.wave && each.to === move.to);
      if (now?.state.kind !== 'running' || at === undefined || at < 0 || now.moves[at]?.state !== 'due') {
        throw new UserError('wrong-state', `The plan ${plan.id} does not run any more.`, 'Make a new one.');
      }
      const moves = now.moves.with(at, { ...move, state: 'moving', migration: migration.id });
      draft.putPlan({ ...now, moves });
      draft.putDecision(this.#decision(plan, move, migration));
    });
  }

  #decision(plan: PlanRecord, move: PlanMove, migration: Migration): DecisionRecord {
    const at = migration.startedAt;
    return {
      schema: 1,
      id: newId('decision', at, this.#parts.random.bytes(8)),
      plan: plan.id,
      automatic: plan.origin === 'loop',
      migration: migration.id,
      vm: move.vm,
      vmName: move.vmName,
      from: move.from,
      to: move.to,
      reason: move.reason,
      at,
      expectedGain: move.worth,
      expected: move.forecast,
      measured: null,
    };
  }

  #howItEnded({ migration }: PlanMove): string {
    const record = migration === null ? undefined : this.#fleet.migrations.get(migration);
    if (record?.phase === 'failed') return record.failure.message;
    return record?.phase === 'cancelled' ? 'its move was cancelled' : 'its move ended otherwise';
  }
}
