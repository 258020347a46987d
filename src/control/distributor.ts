/**
 * The distributor: looks at the smoothed load, makes plans, and carries them out with the moves that there are. One plan runs at
 * a time, for the loop and for people alike, so nothing it begins can fight with anything else it began; what others have in hand
 * (open moves, sick hosts, hosts that do not report) it leaves alone.
 *
 *   every 10 s: snapshot -> does a host stand out, for how long? -> plan -> proposed | running | shadow, by the mode
 *   every second: steps of the running plan that may begin (plan-runner.ts)
 *   some minutes after a plan: what it has brought -> decisions, caution
 *
 * Everything that is due follows from records; after a restart of the server the load has to be seen again first.
 *
 * Not here: plans (planner/, planning.ts), the judgement of what came of them (conscience.ts).
 */
import { UserError } from '../model/failure.ts';
import type {
  BalanceMode,
  BalanceSettings,
  DecisionRecord,
  MeasuredGain,
  PlanRecord,
  PlanState,
} from '../model/distribution.ts';
import { isOpenPlan } from '../model/distribution.ts';
import type { FleetSnapshot, SnapshotHost } from '../model/fleet-snapshot.ts';
import { newId } from '../model/ids.ts';
import type { HostId, PlanId } from '../model/ids.ts';
import { formatMs } from '../model/units.ts';
import { Judge } from '../planner/judge.ts';
import type { Clock } from '../runtime/clock.ts';
import type { Log } from '../runtime/log.ts';
import type { Random } from '../runtime/random.ts';
import { cautionAfter, cautionNow, hasPaid, measure, measureSleep, wholeCaution } from './conscience.ts';
import type { Energy } from './energy.ts';
import type { Draft, Fleet } from './fleet.ts';
import type { Forecasts } from './forecasts.ts';
import type { Health } from './health.ts';
import { enoughMs } from './load-history.ts';
import type { LoadHistory } from './load-history.ts';
import type { Liveness } from './liveness.ts';
import type { Migrations } from './migrations.ts';
import { ended, isUnderWay } from './plan-run.ts';
import { PlanRunner, distributor } from './plan-runner.ts';
import { isEmpty, planRecord, reasonsKept, sameSteps } from './planning.ts';
import type { MakePlan, PlanAsk, Question } from './planning.ts';
import { clockTime, quietUntil } from './quiet-hours.ts';
import { doneBefore, noteRequest, type RequestKey } from './requests.ts';
import type { Reservations } from './reservations.ts';
import { snapshotOf } from './snapshot.ts';
import type { Sleep } from './sleep.ts';
import { Unevenness, crowdedReadings, unevenReadings } from './unevenness.ts';
import type { Pressure, Reading, StandsOut } from './unevenness.ts';

const lookEveryMs = 10_000;
/** Between two plans; less where a host need not stand out for so long. */
const planAgainAfterMs = 120_000;
/** After plans of nothing in a row it grows to this, unless something else stands out: what cannot be mended is not thought about all the time. */
const longestPauseMs = 900_000;
/** What stands out when a host could be done without. */
const tooMany = 'too many awake';
/** A proposal is of the loads of its time. */
const proposalLastsMs = 900_000;
/** What a person has dismissed is not proposed again for so long. */
const dismissedForMs = 4 * 3_600_000;
const hourMs = 3_600_000;
const plansKept = 200;
/** One record, and one commit, holds a plan: the rest of a longer one comes with the next. */
const movesOfPlan = 1_000;
const decisionsKept = 1_000;
/** Of records in one commit; the store takes somewhat more. */
const writesAtOnce = 50;

interface Parts {
  readonly fleet: Fleet;
  readonly liveness: Liveness;
  readonly health: Health;
  readonly loads: LoadHistory;
  readonly migrations: Migrations;
  readonly reservations: Reservations;
  readonly forecasts: Forecasts;
  readonly energy: Energy;
  readonly sleep: Sleep;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  /** Why nothing may be begun for now; null: it may. */
  readonly held: () => string | null;
  readonly makePlan: MakePlan;
}

export class Distributor {
  readonly #parts: Parts;
  readonly #fleet: Fleet;
  readonly #clock: Clock;
  readonly #runner: PlanRunner;
  readonly #unevenness = new Unevenness();
  #lookAt = -Infinity;
  #planAt = -Infinity;
  #isPlanning = false;
  /** Plans of nothing in a row, what they were about, and until when that is left alone. */
  #inVain = { times: 0, about: new Set<string>(), until: -Infinity };
  #lastSays: string | null = null;

  constructor(parts: Parts) {
    this.#parts = parts;
    this.#fleet = parts.fleet;
    this.#clock = parts.clock;
    this.#runner = new PlanRunner({
      ...parts,
      snapshot: () => this.snapshot(),
      cannotBegin: () => this.cannotBegin(),
      quiet: () => this.#quiet(),
      loopWaits: () => this.loopWaits(),
      end: (id, kind, because) => this.#end(id, kind, because),
    });
  }

  /** Once a second. */
  async tick(): Promise<void> {
    await this.#runner.settle();
    const running = this.running();
    if (running !== undefined) await this.#runner.advance(running);
    if (this.#clock.monotonic() - this.#lookAt < lookEveryMs) return;
    this.#lookAt = this.#clock.monotonic();
    this.#parts.loads.keepOnly(this.#fleet.hosts, this.#fleet.vms);
    await this.#tidy();
    if (this.cannotBegin() === null) {
      await this.#judge();
      await this.#look();
    }
  }

  /** What the loop waits for or found last, in words; null: nothing to say. */
  get says(): string | null {
    return this.#lastSays;
  }

  standsOut(): readonly StandsOut[] {
    return this.#unevenness.current();
  }

  running(): PlanRecord | undefined {
    return [...this.#fleet.plans.values()].find(({ state }) => state.kind === 'running');
  }

  snapshot(): FleetSnapshot {
    return snapshotOf(this.#parts, this.#clock.now());
  }

  /** Why nothing at all is begun now; null: it is. */
  cannotBegin(): string | null {
    const { held, liveness, loads } = this.#parts;
    const why = held();
    if (why !== null) return why;
    const awake = (id: HostId): boolean => (this.#fleet.sleeps.get(id)?.state.kind ?? 'awake') === 'awake';
    const present = [...this.#fleet.hosts.values()].filter(({ id, fenced }) => fenced === null && awake(id));
    const silent = present.find(({ id }) => liveness.isSilent(id));
    if (silent !== undefined) return `${silent.name} is silent, and nobody knows what it does`;
    const least = Math.min(...present.map(({ id }) => loads.seenMs(id)));
    if (least >= enoughMs) return null;
    return `the load of the hosts has been seen for ${formatMs(Math.round(least))}, ${formatMs(enoughMs)} are needed`;
  }

  /** Why the loop begins nothing of its own now; null: it does. */
  loopWaits(): string | null {
    const settings = this.#fleet.balance;
    const quiet = this.#quiet();
    if (quiet !== null) return quiet;
    if (this.#movesLeft(settings) > 0) return null;
    const most = settings.movesPerHour;
    return `${most} ${most === 1 ? 'move was' : 'moves were'} begun by itself within the last hour, and more it may not`;
  }

  #quiet(): string | null {
    const until = quietUntil(this.#fleet.balance, this.#clock.now());
    return until === null ? null : `it is quiet until ${clockTime(until)}`;
  }

  /**
   * What would be done now; nothing is written.
   * @throws UserError unavailable when that cannot be said
   */
  async preview(ask: PlanAsk, because: string): Promise<PlanRecord> {
    const why = this.cannotBegin();
    if (why !== null) {
      throw new UserError('unavailable', `No plan can be made now: ${why}.`, 'Try again in a moment.');
    }
    const until = this.#clock.now() + proposalLastsMs;
    return this.#make(this.#questionOf(ask, true), 'person', because, { kind: 'proposed', until });
  }

  /** The same, kept so that it can be accepted. A plan of nothing is not kept. */
  async propose(ask: PlanAsk, because: string, request: RequestKey | null = null): Promise<PlanRecord> {
    const before = doneBefore(this.#fleet, request);
    if (before !== undefined) return this.#fleet.findPlan(before);
    const plan = await this.preview(ask, because);
    if (isEmpty(plan)) return plan;
    await this.#fleet.change((draft) => {
      draft.putPlan(plan);
      noteRequest(draft, request, plan.id, plan.createdAt);
    });
    return plan;
  }

  /** @throws UserError not-found, wrong-state, busy */
  async accept(ref: string, by: string): Promise<PlanRecord> {
    this.#refuseAgainstLoop(this.#fleet.findPlan(ref).goal);
    const why = this.cannotBegin();
    if (why !== null) throw new UserError('unavailable', `Nothing is begun now: ${why}.`, 'Try again in a moment.');
    const at = this.#clock.now();
    return this.#fleet.change((draft) => {
      const plan = proposedPlan(this.#fleet.findPlan(ref), at);
      const running = this.running();
      if (running !== undefined) {
        throw new UserError(
          'busy',
          `The plan ${running.id} is still being carried out.`,
          'Wait for its end (drover balance status), or cancel it: drover balance cancel.',
        );
      }
      const accepted: PlanRecord = { ...plan, state: { kind: 'running', since: at, by } };
      draft.putPlan(accepted);
      this.#expireOthers(draft, accepted, 'another plan was accepted', at);
      return accepted;
    });
  }

  /** @throws UserError not-found, wrong-state */
  async dismiss(ref: string, by: string): Promise<PlanRecord> {
    const at = this.#clock.now();
    return this.#fleet.change((draft) => {
      const plan = proposedPlan(this.#fleet.findPlan(ref), at);
      const dismissed = ended(plan, { kind: 'dismissed', at, because: `dismissed by ${by}` });
      draft.putPlan(dismissed);
      return dismissed;
    });
  }

  /**
   * Begins nothing more of the running plan.
   * @param alsoMoves cancels what is under way as well
   * @throws UserError wrong-state when none runs
   */
  async cancel(by: string, alsoMoves: boolean): Promise<PlanRecord> {
    const running = this.running();
    if (running === undefined) {
      throw new UserError('wrong-state', 'No plan is being carried out.', '`drover balance status` shows what is.');
    }
    const cancelled = await this.#end(running.id, 'cancelled', `cancelled by ${by}`);
    for (const { migration } of alsoMoves ? cancelled.moves.filter(({ state }) => state === 'moving') : []) {
      // One that cannot be cancelled any more is about to arrive.
      await this.#parts.migrations.cancel(migration!).catch((error: unknown) => {
        if (!(error instanceof UserError)) throw error;
      });
    }
    return cancelled;
  }

  /** @throws UserError invalid-input */
  async set(
    changes: Partial<BalanceSettings>,
    by: string,
    check: (settings: BalanceSettings) => void = () => {},
  ): Promise<BalanceSettings> {
    const at = this.#clock.now();
    const next = await this.#fleet.change((draft) => {
      check(draft.balance());
      const settings: BalanceSettings = { ...draft.balance(), ...changes };
      draft.putBalance(settings);
      const running = this.running();
      if (running?.origin === 'loop' && settings.mode !== 'automatic') {
        draft.putPlan(ended(running, { kind: 'cancelled', at, because: `${by} set the mode to ${settings.mode}` }));
      }
      return settings;
    });
    this.#lastSays = null;
    this.#lookAt = this.#planAt = -Infinity;
    this.#inVain = { ...this.#inVain, times: 0, until: -Infinity };
    return next;
  }

  /** What one empties the other would fill. @throws UserError policy-conflict */
  #refuseAgainstLoop(goal: PlanRecord['goal']): void {
    const { mode, goal: after } = this.#fleet.balance;
    if (goal === after || mode !== 'automatic') return;
    const [does, would] =
      after === 'balance'
        ? ['spreads VMs over all hosts that are awake', 'fill again what is emptied']
        : ['keeps VMs on few hosts', 'empty again what is filled'];
    throw new UserError(
      'policy-conflict',
      `The distributor is automatic and ${does}: it would ${would}.`,
      `Give it the other goal (drover balance set --goal ${goal}), or let it propose only: drover balance set --mode manual.`,
    );
  }

  async #end(id: PlanId, kind: 'done' | 'stopped' | 'cancelled', because: string): Promise<PlanRecord> {
    const at = this.#clock.now();
    this.#planAt = this.#clock.monotonic() + this.#pauseMs();
    this.#parts.log.info({ plan: id, because }, `a plan is ${kind}`);
    return this.#fleet.change((draft) => {
      const plan = draft.plan(id) ?? this.#fleet.findPlan(id);
      const after = isOpenPlan(plan) ? ended(plan, { kind, at, because }) : plan;
      draft.putPlan(after);
      return after;
    });
  }

  /* The loop */

  async #look(): Promise<void> {
    const { mode, unevenForMs } = this.#fleet.balance;
    const now = this.#clock.monotonic();
    const out = this.#unevenness.look(this.#readings(), now);
    if (mode === 'off') return;
    const lasting = out.filter(({ since }) => now - since >= unevenForMs);
    if (lasting.length === 0 || this.running() !== undefined || this.#isPlanning || now < this.#planAt) return;
    const { about, until } = this.#inVain;
    if (now < until && lasting.every(({ key }) => about.has(key))) return;
    const waits = this.loopWaits();
    if (waits !== null) {
      this.#lastSays = waits;
      return;
    }
    this.#planAt = now + this.#pauseMs();
    // Not waited for: the beat goes on while a large fleet is thought about.
    this.#isPlanning = true;
    void this.#plan(mode, lasting, now)
      .catch((error: unknown) => this.#parts.log.warn({ error }, 'no plan was made; it is tried again'))
      .finally(() => (this.#isPlanning = false));
  }

  /** What may stand out, by the goal. */
  #readings(): Reading[] {
    const { goal, level } = this.#fleet.balance;
    const snapshot = this.snapshot();
    if (goal === 'balance') return unevenReadings(snapshot, level, this.#pressures());
    const { wake, spare } = this.#parts.energy.plan();
    const power = (key: string, says: string): Reading => ({ key, about: 'power', distance: 1, says });
    return [
      ...crowdedReadings(snapshot),
      ...wake.slice(0, 1).map(({ because }) => power('too few awake', because)),
      ...(spare === null ? [] : [power(tooMany, `${spare.host} could sleep: ${spare.because}`)]),
    ];
  }

  /** For each kind of what stands out the plan that may help, until one does. */
  async #plan(mode: Exclude<BalanceMode, 'off'>, lasting: readonly StandsOut[], now: number): Promise<void> {
    const { goal } = this.#fleet.balance;
    const maxMoves = this.#movesLeft(this.#fleet.balance);
    const rule = lasting.find(({ about }) => about === 'rule');
    // That one host more could sleep is the least of reasons.
    const other =
      lasting.find(({ about, key }) => about !== 'rule' && key !== tooMany) ??
      lasting.find(({ key }) => key === tooMany);
    const asks: [StandsOut | undefined, () => Question][] =
      goal === 'balance'
        ? [[lasting[0], () => ({ goal, maxMoves })]]
        : [
            [rule, () => ({ goal: 'balance', maxMoves, mends: true })],
            [other, () => this.#questionOf({ goal, maxMoves }, false)],
          ];
    for (const [first, ask] of asks) {
      if (first === undefined) continue;
      const because = `${first.says}, for ${formatMs(now - first.since)}`;
      if (!(await this.#planFor(mode, ask(), because))) continue;
      this.#inVain = { times: 0, about: new Set(), until: -Infinity };
      return;
    }
    const times = this.#inVain.times + 1;
    const until = now + Math.min(longestPauseMs, this.#pauseMs() * 2 ** times);
    this.#inVain = { times, about: new Set(lasting.map(({ key }) => key)), until };
  }

  /** @returns whether there was something to do */
  async #planFor(mode: Exclude<BalanceMode, 'off'>, ask: Question, because: string): Promise<boolean> {
    const at = this.#clock.now();
    const state: PlanState =
      mode === 'automatic'
        ? { kind: 'running', since: at, by: distributor }
        : mode === 'manual'
          ? { kind: 'proposed', until: at + proposalLastsMs }
          : { kind: 'shadow' };
    const plan = await this.#make(ask, 'loop', because, state);
    this.#lastSays = isEmpty(plan) ? `${because}; no step is worth what it costs` : null;
    if (isEmpty(plan)) return false;
    if (this.#isKnown(plan, at)) return true;
    await this.#fleet.change((draft) => {
      if (draft.balance().mode !== mode || this.running() !== undefined) return;
      if (mode === 'manual') this.#expireOthers(draft, plan, 'a newer one took its place', at);
      draft.putPlan(plan);
    });
    return true;
  }

  #questionOf({ goal, maxMoves }: PlanAsk, byPerson: boolean): Question {
    return goal === 'balance' ? { goal, maxMoves } : { goal, maxMoves, ...this.#parts.energy.facts(byPerson) };
  }

  /** Proposed already, or dismissed not long ago; or noted in shadow mode, where nothing changes by it. */
  #isKnown(plan: PlanRecord, at: number): boolean {
    return [...this.#fleet.plans.values()].some((other) => {
      if (other.origin !== 'loop' || !sameSteps(plan, other)) return false;
      if (other.state.kind === 'proposed') return other.state.until > at;
      if (other.state.kind === 'dismissed') return at - other.state.at < dismissedForMs;
      return other.state.kind === 'shadow' && at - other.createdAt < this.#fleet.balance.dwellMs;
    });
  }

  async #make(wanted: Question, origin: PlanRecord['origin'], because: string, state: PlanState): Promise<PlanRecord> {
    const ask = { ...wanted, maxMoves: Math.min(wanted.maxMoves, movesOfPlan) };
    const createdAt = this.#clock.now();
    const plain = this.snapshot();
    const caution = wholeCaution(this.#fleet.balance, createdAt);
    const hosts = ask.goal === 'consolidate' ? plain.hosts.map((host) => this.#withWatts(host)) : plain.hosts;
    const made = await this.#parts.makePlan({ ...plain, hosts, settings: { ...plain.settings, caution } }, ask);
    const id = newId('plan', createdAt, this.#parts.random.bytes(8));
    const keeps = ask.goal === 'consolidate' ? ask.cannot.slice(0, reasonsKept) : [];
    const more = { id, origin, because, createdAt, state, caution, keeps };
    return planRecord(made, this.#fleet, this.#parts.forecasts, more);
  }

  #withWatts(host: SnapshotHost): SnapshotHost {
    return { ...host, watts: [...this.#parts.energy.wattsRange(this.#fleet.findHost(host.name))] };
  }

  #pressures(): Map<string, Pressure> {
    const pressures = new Map<string, Pressure>();
    for (const { id, name } of this.#fleet.hosts.values()) {
      const seen = this.#parts.loads.hostOf(id);
      if (seen) pressures.set(name, { cpu: seen.cpuPressure.value, memory: seen.memoryPressure.value });
    }
    return pressures;
  }

  #pauseMs(): number {
    return Math.min(planAgainAfterMs, this.#fleet.balance.unevenForMs);
  }

  #movesLeft({ movesPerHour }: BalanceSettings): number {
    const since = this.#clock.now() - hourMs;
    const begun = [...this.#fleet.decisions.values()].filter(({ automatic, at }) => automatic && at > since).length;
    return Math.max(0, movesPerHour - begun);
  }

  #expireOthers(draft: Draft, than: PlanRecord, because: string, at: number): void {
    for (const plan of this.#fleet.plans.values()) {
      if (plan.id === than.id || plan.state.kind !== 'proposed') continue;
      draft.putPlan(ended(plan, { kind: 'expired', at, because }));
    }
  }

  /* What came of it */

  /** Measures the moves of plans that ended a while ago, and becomes more or less cautious by it. */
  async #judge(): Promise<void> {
    const { measureAfterMs } = this.#fleet.balance;
    const at = this.#clock.now();
    const due = [...this.#fleet.decisions.values()].filter(({ measured, plan: id }) => {
      const plan = this.#fleet.plans.get(id);
      if (measured !== null) return false;
      return plan === undefined || (!isUnderWay(plan) && 'at' in plan.state && at - plan.state.at >= measureAfterMs);
    });
    if (due.length === 0) return;
    const judge = new Judge(this.snapshot());
    const name = (host: DecisionRecord['from']): string => this.#fleet.hostName(host);
    const paid: boolean[] = [];
    const hosts = new Set<string>();
    const plans = new Map<string, { gain: number; expected: number }>();
    const judged: DecisionRecord[] = [];
    for (const decision of due) {
      const arrived = this.#fleet.migrations.get(decision.migration)?.phase === 'completed';
      const where = { from: name(decision.from), to: name(decision.to), arrived };
      const slept = arrived ? this.#sleepOf(decision, at) : undefined;
      const measured = slept === undefined ? measure(decision, judge, where, at) : slept;
      if (measured === null) continue;
      judged.push({ ...decision, measured });
      // All the moves that emptied a host have paid together, or have not.
      if (!decision.automatic || measured.paid === null) continue;
      if (slept === undefined) {
        const sums = plans.get(decision.plan) ?? { gain: 0, expected: 0 };
        plans.set(decision.plan, sums);
        sums.gain += measured.gain ?? 0;
        sums.expected += decision.expectedGain ?? 0;
      } else if (!hosts.has(decision.from)) {
        hosts.add(decision.from);
        paid.push(measured.paid);
      }
    }
    for (const { gain, expected } of plans.values()) paid.push(hasPaid(gain, expected));
    // All but the last commit of them are full: the caution that follows goes with the last.
    for (let from = 0; from < judged.length; from += writesAtOnce) {
      await this.#fleet.change((draft) => {
        for (const decision of judged.slice(from, from + writesAtOnce)) draft.putDecision(decision);
        if (from + writesAtOnce < judged.length) return;
        const settings = draft.balance();
        const caution = cautionAfter(settings.caution, paid, at);
        if (paid.length > 0 && caution.factor !== cautionNow(settings.caution, at))
          draft.putBalance({ ...settings, caution });
      });
    }
  }

  /** Where a move was to empty a host that sleeps then; null: not known yet. */
  #sleepOf({ plan: id, from }: DecisionRecord, at: number): MeasuredGain | null | undefined {
    const plan = this.#fleet.plans.get(id);
    const step = plan?.power.find(({ host, to }) => host === from && to === 'sleep');
    if (plan === undefined || step === undefined || !('at' in plan.state)) return undefined;
    const sleep = this.#fleet.sleeps.get(from)?.state;
    return measureSleep({ host: step.hostName, fellAsleep: step.state === 'done', sleep }, plan.state.at, at);
  }

  /** Proposals that are too old, and the oldest of the history. */
  async #tidy(): Promise<void> {
    const at = this.#clock.now();
    const plans = [...this.#fleet.plans.values()];
    const old = plans.filter(({ state }) => state.kind === 'proposed' && state.until <= at);
    const past = plans.filter((plan) => !isOpenPlan(plan) && !isUnderWay(plan));
    const excess = past.slice(0, Math.min(writesAtOnce, Math.max(0, plans.length - plansKept)));
    const decisions = [...this.#fleet.decisions.values()];
    // Those of the last hour are counted, and each is to be judged.
    const over = decisions.filter((each) => each.measured !== null && at - each.at > hourMs);
    const before = over.slice(0, Math.min(writesAtOnce, Math.max(0, decisions.length - decisionsKept)));
    if (old.length + excess.length + before.length === 0) return;
    await this.#fleet.change((draft) => {
      for (const plan of old)
        draft.putPlan(ended(plan, { kind: 'expired', at, because: 'nobody accepted it in time' }));
      for (const { id } of excess) draft.removePlan(id);
      for (const { id } of before) draft.removeDecision(id);
    });
  }
}

/** @throws UserError wrong-state */
function proposedPlan(plan: PlanRecord, now: number): PlanRecord {
  const { id, goal, state } = plan;
  if (state.kind === 'proposed' && state.until > now) return plan;
  if (state.kind === 'running') {
    throw new UserError(
      'wrong-state',
      `The plan ${id} is being carried out already.`,
      'See how far it is: drover balance status. To begin nothing more of it: drover balance cancel.',
    );
  }
  const because = 'because' in state ? `: ${state.because}` : '';
  throw new UserError(
    'wrong-state',
    `The plan ${id} is ${state.kind === 'proposed' ? 'expired' : state.kind}${because}.`,
    `Ask for a new one: drover ${goal === 'consolidate' ? 'consolidate' : 'balance'}.`,
  );
}
