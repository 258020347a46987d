/**
 * How much the fleet will need: the daily pattern of its load, learned from 5-minute samples, and what follows for the next while.
 * Pure; the history is small enough to be one record.
 *
 * Per slot of the day the mean and the variance, each new day weighing 1/7 (exponentially weighted moments: T. Finch, "Incremental
 * calculation of weighted mean and variance", 2009). Working days and weekends are learned apart; a slot that was never seen on its kind
 * of day is taken to be as on the other. Slots are in UTC: where clocks change twice a year the spread grows for some days.
 *
 * Not here: who takes the samples (control/energy.ts), and what is done about it (power-plan.ts).
 */
import type { DemandHistory, DemandProfile } from '../model/fleet.ts';

export const slotMs = 300_000;
const slotsPerDay = 288;
const dayMs = slotsPerDay * slotMs;
const newDayWeighs = 1 / 7;
/** Of a normal spread, one need in a hundred and sixty lies above the mean by more than this many deviations. */
const deviations = 2.5;
/** Until a slot was seen on so many days its spread is not known: a fifth of the mean is put on it. */
const knownFromDays = 3;
const unknownSpread = 0.2;

/** Of all hosts together. */
export interface Demand {
  readonly cores: number;
  /** Held by guests and moves, not what they really use: that is what is refused when it is gone. */
  readonly memoryMiB: number;
}

export function newDemandHistory(): DemandHistory {
  const zeros = (): number[] => Array.from({ length: slotsPerDay }, () => 0);
  const profile = (): DemandProfile => ({
    days: zeros(),
    coresMean: zeros(),
    coresVariance: zeros(),
    memoryMean: zeros(),
    memoryVariance: zeros(),
  });
  return { workday: profile(), weekend: profile() };
}

/** The history with one more sample: the mean of its five minutes. @param at ms since the epoch */
export function withSample(history: DemandHistory, at: number, { cores, memoryMiB }: Demand): DemandHistory {
  const slot = slotOf(at);
  const kind = kindOf(at);
  const before = history[kind];
  const days = before.days[slot] ?? 0;
  const weight = Math.max(newDayWeighs, 1 / (days + 1));
  const [coresMean, coresVariance] = moments(before.coresMean[slot], before.coresVariance[slot], cores, weight);
  const [memoryMean, memoryVariance] = moments(before.memoryMean[slot], before.memoryVariance[slot], memoryMiB, weight);
  const profile: DemandProfile = {
    days: before.days.with(slot, Math.min(days + 1, 1 / newDayWeighs)),
    coresMean: before.coresMean.with(slot, rounded(coresMean)),
    coresVariance: before.coresVariance.with(slot, rounded(coresVariance)),
    memoryMean: before.memoryMean.with(slot, rounded(memoryMean)),
    memoryVariance: before.memoryVariance.with(slot, rounded(memoryVariance)),
  };
  return { ...history, [kind]: profile };
}

/**
 * The most that is needed at any moment from now until `horizonMs` later: never less than what is needed now.
 * @param current what is in use now
 * @param sinceMs what was needed since so long before counts as well: it may be again, also where no day has shown it yet
 */
export function capacityNeeded(
  history: DemandHistory,
  current: Demand,
  now: number,
  horizonMs: number,
  sinceMs = 0,
): Demand {
  const last = now + Math.min(horizonMs, dayMs);
  const moments: number[] = [last];
  for (let at = now - sinceMs; at < last; at += slotMs) moments.push(at);
  const expected = moments.map((at) => expectedAt(history, at));
  return {
    cores: Math.max(current.cores, ...expected.map(({ cores }) => cores)),
    memoryMiB: Math.ceil(Math.max(current.memoryMiB, ...expected.map(({ memoryMiB }) => memoryMiB))),
  };
}

/** With the spread on top: what suffices but for rare days. Nothing is expected of slots that were never seen. */
function expectedAt(history: DemandHistory, at: number): Demand {
  const slot = slotOf(at);
  const kind = kindOf(at);
  const other = kind === 'workday' ? 'weekend' : 'workday';
  const profile = history[kind].days[slot] ? history[kind] : history[other];
  const days = profile.days[slot] ?? 0;
  const above = (mean = 0, variance = 0): number =>
    mean + Math.max(deviations * Math.sqrt(variance), days < knownFromDays ? unknownSpread * mean : 0);
  return {
    cores: above(profile.coresMean[slot], profile.coresVariance[slot]),
    memoryMiB: above(profile.memoryMean[slot], profile.memoryVariance[slot]),
  };
}

function moments(mean = 0, variance = 0, value: number, weight: number): [number, number] {
  const off = value - mean;
  const step = weight * off;
  return [mean + step, (1 - weight) * (variance + off * step)];
}

function slotOf(at: number): number {
  return Math.floor((at % dayMs) / slotMs);
}

/** 1 January 1970 was a Thursday. */
function kindOf(at: number): keyof DemandHistory {
  const weekday = (Math.floor(at / dayMs) + 4) % 7;
  return weekday === 0 || weekday === 6 ? 'weekend' : 'workday';
}

/** A record of some thousand numbers is to stay small. */
function rounded(value: number): number {
  return Math.round(value * 1000) / 1000;
}
