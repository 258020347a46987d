/** What the planner answers: moves in order, why, what each costs, what it brings, and what was wanted and cannot be. */
import type { Technique } from './migration.ts';

export type PlanGoal = 'balance' | 'consolidate' | 'drain' | 'failover' | 'place';

/** Unbounded where nothing is said. */
export interface PlanBudget {
  readonly moves?: number;
  /** Memory of the VMs that move, in all. */
  readonly memoryMiB?: number;
  /** Until the last move is done, by forecast. */
  readonly seconds?: number;
}

export interface MoveForecast {
  readonly technique: Technique;
  readonly totalMs: number;
  readonly downtimeMs: number;
  readonly bytes: number;
}

export interface PlannedMove {
  readonly vm: string;
  readonly from: string;
  readonly to: string;
  /** One sentence for people. */
  readonly reason: string;
  /** A VM that stands in another's way moves twice; this is the first time. */
  readonly hop: boolean;
  readonly forecast: MoveForecast;
  /** After the plan begins, by forecast. */
  readonly startMs: number;
  /** Moves of one wave may run together once all lower waves are done; from 1. */
  readonly wave: number;
  /** By how much the score falls with this move, after those before it. */
  readonly gain: number;
}

/** A VM to be started where it does not run now: a new one, or one whose host is lost. */
export interface Placement {
  readonly vm: string;
  readonly to: string;
  readonly reason: string;
}

/** What was wanted and cannot be, with the rule that forbids it. */
export interface PlanRefusal {
  readonly vm: string;
  /** The host where it should have gone; null: none can take it, `says` has the reasons. */
  readonly wanted: string | null;
  readonly rule: string;
  readonly says: string;
}

export interface ScorePart {
  readonly name: string;
  readonly weight: number;
  readonly value: number;
}

/** Smaller is better; the sum of weight times value over the parts. */
export interface Score {
  readonly total: number;
  readonly parts: readonly ScorePart[];
}

export interface Plan {
  readonly version: 1;
  readonly goal: PlanGoal;
  readonly objective: string;
  readonly seed: number;
  /** In the order of execution; every beginning of this list is feasible and no worse than before. */
  readonly moves: readonly PlannedMove[];
  readonly placements: readonly Placement[];
  readonly refused: readonly PlanRefusal[];
  /** Hosts without guests after it that have some now. */
  readonly emptied: readonly string[];
  readonly score: { readonly before: Score; readonly after: Score };
  readonly used: { readonly moves: number; readonly memoryMiB: number; readonly seconds: number };
}
