/**
 * From a snapshot to a plan on record: asks the planner, takes the beginning that the limits allow, and notes for each move what
 * staying would cost. Not here: when that is done, and what becomes of the plan (distributor.ts).
 */
import type { DistributionGoal, PlanMove, PlanPower, PlanRecord, PlanState } from '../model/distribution.ts';
import type { FleetSnapshot } from '../model/fleet-snapshot.ts';
import type { PlanId } from '../model/ids.ts';
import type { KeptForecast } from '../model/forecast.ts';
import type { MoveForecast, Plan, PlannedMove } from '../model/plan.ts';
import { snapshotAfter } from '../planner/answer.ts';
import { balanceSteps } from '../planner/balance.ts';
import { consolidationPlan, type PowerFacts, type PowerPlanned } from '../planner/consolidation-plan.ts';
import { fleetOf } from '../planner/fleet.ts';
import { scoreWith, stayingCosts } from '../planner/judge.ts';
import type { PowerChoice } from '../planner/power-plan.ts';
import { withoutThreads, type PartSearch } from '../planner/parts.ts';
import { droverParts } from '../planner/score.ts';
import type { Fleet } from './fleet.ts';
import type { Forecasts } from './forecasts.ts';

/** Of what a plan leaves alone, so many reasons go on record: in a large fleet many share one. */
export const reasonsKept = 200;

/** Of all moves of the distributor. */
export const technique = 'auto';

export interface PlanAsk {
  readonly goal: DistributionGoal;
  /** Of a longer plan the beginning: each beginning is feasible and of use by itself. */
  readonly maxMoves: number;
}

/** What the planner is asked: for `consolidate` with what is known of sleep. `mends`: rules that do not hold, and no load. */
export type Question =
  | { readonly goal: 'balance'; readonly maxMoves: number; readonly mends?: boolean }
  | {
      readonly goal: 'consolidate';
      readonly maxMoves: number;
      readonly facts: PowerFacts;
      readonly cannot: readonly PowerChoice[];
    };

export interface Planned {
  readonly plan: Plan;
  /** What staying would cost each VM, by its moves; null: it does not move to pay. */
  readonly worth: readonly (number | null)[];
  readonly power: Pick<PowerPlanned, 'sleep' | 'wake' | 'keep'>;
}
export type MakePlan = (snapshot: FleetSnapshot, ask: Question) => Promise<Planned>;

const noPower: Planned['power'] = { sleep: [], wake: [], keep: [] };

export function planned(snapshot: FleetSnapshot, ask: Question): Planned {
  return withoutThreads(plannedInParts(snapshot, ask));
}

/** The same, with the parts of a large fleet handed out to who has threads for them. */
export function* plannedInParts(snapshot: FleetSnapshot, ask: Question): PartSearch<Planned> {
  if (ask.goal === 'consolidate') {
    const { plan, ...power } = consolidationPlan(snapshot, ask.facts, { budget: { moves: ask.maxMoves } });
    return { plan, worth: plan.moves.map(() => null), power };
  }
  const plan = yield* balancePlan(ask.mends ? withoutSpreads(snapshot) : snapshot, ask.maxMoves);
  if (ask.mends) return { plan, worth: plan.moves.map(() => null), power: noPower };
  const hops = new Set(plan.moves.flatMap(({ vm, hop }) => (hop ? [vm] : [])));
  const costs = stayingCosts(snapshotAfter(snapshot, plan), plan.moves);
  return { plan, worth: plan.moves.map(({ vm }, at) => (hops.has(vm) ? null : (costs[at] ?? null))), power: noPower };
}

/** What the planner says; the score after is of the moves that are left. */
function* balancePlan(snapshot: FleetSnapshot, maxMoves: number): PartSearch<Plan> {
  const plan = yield* balanceSteps(snapshot, { first: maxMoves });
  if (plan.moves.length <= maxMoves) return plan;
  const moves = withoutHalfWay(plan.moves.slice(0, maxMoves));
  const after = scoreWith(snapshotAfter(snapshot, { moves, placements: [] }));
  const memoryOf = new Map(snapshot.vms.map(({ name, memoryMiB }) => [name, memoryMiB]));
  return {
    ...plan,
    moves,
    emptied: [],
    score: { before: plan.score.before, after },
    used: {
      moves: moves.length,
      memoryMiB: moves.reduce((sum, { vm }) => sum + (memoryOf.get(vm) ?? 0), 0),
      seconds: moves.reduce((last, { startMs, forecast }) => Math.max(last, (startMs + forecast.totalMs) / 1000), 0),
    },
  };
}

/** Only rules count: nothing is moved for the sake of evenness. */
function withoutSpreads(snapshot: FleetSnapshot): FleetSnapshot {
  const spreads = droverParts(fleetOf(snapshot)).filter(({ kind }) => kind === 'spread');
  const weights = Object.fromEntries(spreads.map(({ name }) => [name, 0]));
  return { ...snapshot, settings: { ...snapshot.settings, weights: { ...snapshot.settings.weights, ...weights } } };
}

/** A VM that would be left where it only makes room is not sent there. */
function withoutHalfWay(moves: readonly PlannedMove[]): PlannedMove[] {
  const arrives = (hop: PlannedMove, at: number): boolean => moves.slice(at + 1).some(({ vm }) => vm === hop.vm);
  return moves.filter((move, at) => !move.hop || arrives(move, at));
}

export function planRecord(
  { plan, worth, power }: Planned,
  fleet: Pick<Fleet, 'findVm' | 'findHost'>,
  forecasts: Pick<Forecasts, 'of'>,
  more: Pick<PlanRecord, 'origin' | 'because' | 'createdAt' | 'caution' | 'keeps'> & {
    readonly id: PlanId;
    readonly state: PlanState;
  },
): PlanRecord {
  const powerStep =
    (to: PlanPower['to']) =>
    ({ host: hostName, because }: PowerChoice): PlanPower => {
      return { host: fleet.findHost(hostName).id, hostName, to, reason: because, state: 'due' };
    };
  return {
    schema: 2,
    ...more,
    power: [...power.wake.map(powerStep('wake')), ...power.sleep.map(powerStep('sleep'))],
    // That it may not sleep is said of a host before anything else.
    keeps: [...more.keeps, ...power.keep.filter(({ host }) => more.keeps.every((known) => known.host !== host))],
    goal: plan.goal,
    moves: plan.moves.map((move, at): PlanMove => {
      const { reason, hop, wave, gain } = move;
      const [vm, from, to] = [fleet.findVm(move.vm), fleet.findHost(move.from), fleet.findHost(move.to)];
      // The planner's own is for ordering; this one knows the guest and its earlier moves.
      const known = forecasts.of(vm, from, to, technique, {});
      return {
        vm: vm.id,
        vmName: move.vm,
        from: from.id,
        to: to.id,
        reason,
        hop,
        wave,
        gain,
        worth: worth[at] ?? null,
        forecast: known === null ? { ...move.forecast } : forecastIn(known),
        state: 'due',
        migration: null,
      };
    }),
    refused: plan.refused.slice(0, reasonsKept).map((refusal) => ({ ...refusal })),
    emptied: [...plan.emptied],
    score: plan.score,
  };
}

function forecastIn({ totalMs, downtimeMs, bytes }: KeptForecast): MoveForecast {
  return { technique, totalMs, downtimeMs, bytes };
}

/** Do both move the same VMs to the same hosts, and have the same hosts woken and sent to sleep? */
export function sameSteps(a: Steps, b: Steps): boolean {
  const words = ({ moves, power }: Steps): string =>
    [...moves.map(({ vm, to }) => `${vm} ${to}`), ...power.map(({ host, to }) => `${host} ${to}`)].toSorted().join();
  return words(a) === words(b);
}

type Steps = Pick<PlanRecord, 'moves' | 'power'>;

export function isEmpty({ moves, power }: Steps): boolean {
  return moves.length === 0 && power.length === 0;
}
