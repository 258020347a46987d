/** What a move is expected to cost, what that is worked out from, and what was measured for it. The thinking is in migration/. */

/** Distinct memory that a guest wrote within a while. */
export interface Dirtied {
  readonly overMs: number;
  readonly bytes: number;
}

/** A running guest's memory, measured on its host. */
export interface MemoryUse {
  /** What the host has given it so far; pages of zeroes among that cost a move next to nothing. */
  readonly inUseBytes: number;
  /** Shortest first. Empty: it cannot be measured for this guest. */
  readonly dirtied: readonly Dirtied[];
}

/**
 * How a guest writes: a hot set that is written again and again, and cold pages written once in a while.
 * After t ms, `hotBytes * (1 - e^(-t / hotMs)) + coldBytesPerSecond * t / 1000` are dirty.
 */
export interface Writing {
  readonly hotBytes: number;
  readonly hotMs: number;
  readonly coldBytesPerSecond: number;
}

/** `stop-and-copy`: as pre-copies end; `restart`: cold. */
export type ForecastEnd = 'stop-and-copy' | 'post-copy' | 'restart';

export interface ForecastFigures {
  /** As in Measures: from reservation until the source is released. */
  readonly totalMs: number;
  readonly downtimeMs: number;
  readonly blackoutMs: number;
  readonly bytes: number;
}

/** What one move is expected to cost. */
export interface Forecast extends ForecastFigures {
  /** False: it gives up. Total and bytes are then what that costs, downtime and blackout what a pause would take all the same. */
  readonly converges: boolean;
  /** Why it does not converge, or why it switches or pauses; null: nothing of that kind is expected. */
  readonly because: string | null;
  readonly endsBy: ForecastEnd;
  readonly rounds: number;
  readonly faults: number;
}

/** What a forecast is worked out from, and how well that is known. */
export interface ForecastBasis {
  readonly inUseBytes: number;
  readonly inUseFrom: 'measured' | 'earlier-moves' | 'reported' | 'size';
  readonly writing: Writing;
  readonly writingFrom: 'measured' | 'earlier-moves' | 'assumed';
  readonly bytesPerSecond: number;
  readonly linkFrom: 'earlier-moves' | 'configured' | 'interface' | 'assumed';
}

/** What the model's figures were multiplied by, because earlier moves came out like that. */
export interface Correction extends ForecastFigures {
  /** How many earlier moves of this VM, and how many of others, it was learnt from. */
  readonly moves: number;
  readonly others: number;
}

/** As it is kept with a migration: made when it began, never changed afterwards. */
export interface KeptForecast extends Forecast {
  readonly basis: ForecastBasis;
  readonly correction: Correction;
}
