/** What is true of the fleet as a whole. */
/**
 * The records are older than the fleet: they were restored, or a host knows of newer decisions. Until every host has said what
 * it holds, or is known to be off, nothing is ordered.
 */
export interface RestoredRecord {
  readonly schema: 1;
  /** When it was done or found out; ms since the epoch. */
  readonly at: number;
  readonly because: string;
  /** Null: not all is known yet. */
  readonly endedAt: number | null;
}

/** Per 5-minute slot of the day (UTC): days seen (no more than count), mean and variance. */
export interface DemandProfile {
  readonly days: readonly number[];
  readonly coresMean: readonly number[];
  readonly coresVariance: readonly number[];
  readonly memoryMean: readonly number[];
  readonly memoryVariance: readonly number[];
}
export type DemandHistory = Readonly<Record<'workday' | 'weekend', DemandProfile>>;

/** The daily pattern of the fleet's load, as planner/demand.ts learns it. */
export interface DemandRecord {
  readonly schema: 1;
  readonly history: DemandHistory;
}
