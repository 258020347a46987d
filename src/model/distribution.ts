/**
 * What the distributor keeps: its settings, the plans it made or was asked for, and for each automatic move what was expected
 * of it and what came of it.
 *
 *   proposed -> running -> done
 *      |           '-----> stopped (went stale, a move failed) | cancelled
 *      '-> dismissed | expired                  shadow: would have run, and never does
 *
 * Not here: making plans (planner/), and carrying them out (control/distributor.ts).
 */
import type { DecisionId, HostId, MigrationId, PlanId, VmId } from './ids.ts';
import type { MoveForecast, PlanGoal, PlanRefusal, Score } from './plan.ts';

/**
 * `off`: nothing is done, a person may still ask. `manual`: proposes, a person accepts. `automatic`: does it. `shadow`: notes
 * what it would have done.
 */
export const balanceModes = ['off', 'manual', 'automatic', 'shadow'] as const;
export type BalanceMode = (typeof balanceModes)[number];

/** `balance`: load is spread over all hosts that are awake. `consolidate`: fewer hosts for the same VMs, the others sleep. */
export const distributionGoals = ['balance', 'consolidate'] as const;
export type DistributionGoal = (typeof distributionGoals)[number];

/** How much a move must bring: 1 only much, 5 anything. */
export type BalanceLevel = 1 | 2 | 3 | 4 | 5;

/** Minutes of the day; `to` is not part of it, and may be less than `from`. */
export interface QuietHours {
  readonly from: number;
  readonly to: number;
}

/** Raised by moves that did not pay, from 1 to `cautionLimit`; it falls back by half in `cautionHalfLifeMs`. */
export interface Caution {
  readonly factor: number;
  /** When it was that; ms since the epoch. */
  readonly at: number;
}

export interface BalanceSettings {
  readonly schema: 2;
  readonly mode: BalanceMode;
  /** What the loop is after. */
  readonly goal: DistributionGoal;
  readonly level: BalanceLevel;
  /** Then no plan is begun or gone on with. */
  readonly quietHours: readonly QuietHours[];
  /** IANA name; the quiet hours are of that zone. */
  readonly timeZone: string;
  readonly movesAtOnce: number;
  /** That one host, so one link, sends and receives at once. */
  readonly movesPerHost: number;
  /** Automatic moves begun within any hour. */
  readonly movesPerHour: number;
  /** A VM that was moved is left alone for so long, and a host that was woken stays awake. */
  readonly dwellMs: number;
  /** A host must stand out for so long before anything is done about it. */
  readonly unevenForMs: number;
  /** After a plan's end the gain of its moves is measured. */
  readonly measureAfterMs: number;
  readonly hostFailuresTolerated: number;
  readonly vcpuRatio: number;
  /** Share of a host's CPUs that guests may use after a move there. */
  readonly cpuLimit: number;
  readonly caution: Caution;
}

export const defaultBalanceSettings: BalanceSettings = {
  schema: 2,
  mode: 'off',
  goal: 'balance',
  level: 3,
  quietHours: [],
  timeZone: 'UTC',
  movesAtOnce: 4,
  movesPerHost: 2,
  movesPerHour: 30,
  dwellMs: 1_800_000,
  unevenForMs: 180_000,
  measureAfterMs: 300_000,
  hostFailuresTolerated: 0,
  vcpuRatio: 4,
  cpuLimit: 0.8,
  caution: { factor: 1, at: 0 },
};

export type PlanState =
  | { readonly kind: 'proposed'; readonly until: number }
  | { readonly kind: 'running'; readonly since: number; readonly by: string }
  | { readonly kind: 'shadow' }
  | {
      readonly kind: 'done' | 'stopped' | 'cancelled' | 'dismissed' | 'expired';
      readonly at: number;
      readonly because: string;
    };

/** `due` until it has begun; a host that is waking or falling asleep is `moving`. `left`: it was not begun before the plan ended. */
export type PlanMoveState = 'due' | 'moving' | 'done' | 'failed' | 'left';

export interface PlanMove {
  readonly vm: VmId;
  readonly vmName: string;
  readonly from: HostId;
  readonly to: HostId;
  readonly reason: string;
  readonly hop: boolean;
  readonly wave: number;
  /** By how much the score falls with it, after the moves before it. */
  readonly gain: number;
  /** Score with the VM back at its source, less the score after the plan: what staying would cost. Null: it is not to pay. */
  readonly worth: number | null;
  readonly forecast: MoveForecast;
  readonly state: PlanMoveState;
  readonly migration: MigrationId | null;
}

/** A host that a plan wakes before its moves, or sends to sleep after them. */
export interface PlanPower {
  readonly host: HostId;
  readonly hostName: string;
  readonly to: 'wake' | 'sleep';
  readonly reason: string;
  readonly state: PlanMoveState;
}

export interface PlanRecord {
  readonly schema: 2;
  readonly id: PlanId;
  readonly goal: PlanGoal;
  /** Who made it: the loop by itself, or a person. */
  readonly origin: 'loop' | 'person';
  /** What made the loop look: which host stood out, since when. */
  readonly because: string;
  readonly createdAt: number;
  readonly state: PlanState;
  readonly moves: readonly PlanMove[];
  readonly power: readonly PlanPower[];
  /** Hosts that stay on, and why; for the goal consolidate. */
  readonly keeps: readonly { readonly host: string; readonly because: string }[];
  readonly refused: readonly PlanRefusal[];
  /** Hosts without guests after it. */
  readonly emptied: readonly string[];
  readonly score: { readonly before: Score; readonly after: Score };
  /** What a move had to bring then: level and caution taken together. */
  readonly caution: number;
}

export interface MeasuredGain {
  readonly at: number;
  /** Null: nobody can say any more, `says` has why. */
  readonly gain: number | null;
  readonly paid: boolean | null;
  readonly says: string;
}

/** One move that the distributor made, what was expected and what came. */
export interface DecisionRecord {
  readonly schema: 1;
  readonly id: DecisionId;
  readonly plan: PlanId;
  readonly automatic: boolean;
  readonly migration: MigrationId;
  readonly vm: VmId;
  readonly vmName: string;
  readonly from: HostId;
  readonly to: HostId;
  readonly reason: string;
  readonly at: number;
  /** What staying would have cost, by the loads of that time. Null: it was to make room, or to empty a host. */
  readonly expectedGain: number | null;
  readonly expected: MoveForecast;
  readonly measured: MeasuredGain | null;
}

export function isOpenPlan({ state }: PlanRecord): boolean {
  return state.kind === 'proposed' || state.kind === 'running';
}
