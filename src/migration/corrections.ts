/**
 * What earlier moves teach: how far the model was off for this VM, what its rounds say of its writing, and what a link gave. Pure;
 * everything comes from migration records.
 *
 * Method: the median of log(measured / forecast), so that one odd move counts for little, shrunk towards "right as it is" while there
 * are few moves, or towards what other VMs' moves showed. Learnt apart for each way a move ends: what is off in a pre-copy is not what is off in a post-copy.
 */
import type { Correction, Dirtied, Forecast, ForecastFigures, KeptForecast } from '../model/forecast.ts';
import type { HostId } from '../model/ids.ts';
import type { Migration } from '../model/migration.ts';
import { pageBytes } from '../model/units.ts';
import { endedInPostCopy } from './techniques.ts';

/** Older moves say less about the guest of today. */
const movesAtMost = 15;
/** A pause of two instead of ten ms is no reason to believe that the next one takes two. */
const farthest = 4;
const linkMovesAtMost = 5;
/** A shorter time says little about a link. */
const shortestLinkMs = 500;
/** As fast as it was allowed to be: says nothing about the link. */
const nearTheLimit = 0.9;

/**
 * @param own moves of this VM, newest first
 * @param others moves of other VMs, newest first: what they show is believed until this VM's own moves show something else
 */
export function correctionFor(
  forecast: Pick<Forecast, 'endsBy' | 'rounds'>,
  own: Iterable<Migration>,
  others: Iterable<Migration> = [],
): Correction {
  const kind = kindOf(forecast);
  const [mine, theirs] = [alike(own, kind), alike(others, kind)];
  const factor = (figure: keyof ForecastFigures): number => {
    const prior = shrunk(logsOf(figure, theirs), 0);
    return Math.min(farthest, Math.max(1 / farthest, Math.exp(shrunk(logsOf(figure, mine), prior))));
  };
  return {
    totalMs: factor('totalMs'),
    downtimeMs: factor('downtimeMs'),
    blackoutMs: factor('blackoutMs'),
    bytes: factor('bytes'),
    moves: mine.length,
    others: theirs.length,
  };
}

type Learnt = Migration & { readonly forecast: KeptForecast };

function alike(moves: Iterable<Migration>, kind: string): Learnt[] {
  const found: Learnt[] = [];
  for (const move of moves) {
    if (!ranAsForecast(move) || kindOf(move.forecast) !== kind) continue;
    found.push(move);
    if (found.length === movesAtMost) break;
  }
  return found;
}

/** How far off the model was, before any correction. */
function logsOf(figure: keyof ForecastFigures, moves: readonly Learnt[]): number[] {
  return moves.flatMap(({ forecast, measures }) => {
    const modelled = forecast[figure] / forecast.correction[figure];
    const measured = measures[figure];
    return measured !== null && measured > 0 && modelled > 0 ? [Math.log(measured / modelled)] : [];
  });
}

/** The median, as if one more move had shown the prior. */
function shrunk(logs: readonly number[], prior: number): number {
  return ((medianOf(logs) ?? 0) * logs.length + prior) / (logs.length + 1);
}

/** A post-copy at once and one after rounds cost clients differently. */
function kindOf({ endsBy, rounds }: Pick<Forecast, 'endsBy' | 'rounds'>): string {
  return endsBy === 'post-copy' ? `post-copy ${rounds > 0 ? 'after rounds' : 'at once'}` : endsBy;
}

/** It ended in the way that was forecast, and nothing happened on the way that no forecast knows. */
function ranAsForecast(move: Migration): move is Learnt {
  const { forecast, measures } = move;
  if (move.phase !== 'completed' || !forecast?.converges || move.hold || measures.recoveries) return false;
  const ended = move.technique === 'cold' ? 'restart' : endedInPostCopy(move) ? 'post-copy' : 'stop-and-copy';
  return forecast.endsBy === ended;
}

/** What the guest wrote within each round of a move. A throttled guest wrote less than it will. */
export function dirtiedIn({ rounds, measures }: Pick<Migration, 'rounds' | 'measures'>): Dirtied[] {
  if (measures.throttlePercent) return [];
  return rounds.map(({ durationMs, dirtyPages }) => ({ overMs: durationMs, bytes: dirtyPages * pageBytes }));
}

/** What the first round of a move had to send, or all of a post-copy without rounds; undefined: it sent nothing whole. */
export function wholeMemoryIn(move: Migration): number | undefined {
  const first = move.rounds.find(({ round }) => round === 1);
  if (first) return first.bytes;
  return endedInPostCopy(move) && move.phase === 'completed' ? (move.measures.bytes ?? undefined) : undefined;
}

/**
 * Bytes per second that the link between two hosts gave, by the newest moves over it; else by those the other way, else by those
 * of either host.
 * @param moves newest first
 */
export function linkSpeedIn(moves: Iterable<Migration>, source: HostId, target: HostId): number | undefined {
  const same: number[] = [];
  const back: number[] = [];
  const near: number[] = [];
  for (const move of moves) {
    const kind =
      move.source === source && move.target === target
        ? same
        : move.source === target && move.target === source
          ? back
          : move.source === source || move.target === target
            ? near
            : undefined;
    const speed = kind && kind.length < linkMovesAtMost ? linkSpeedOf(move) : undefined;
    if (speed !== undefined) kind?.push(speed);
    // No move leads from a host to itself: of one host there is nothing nearer to be found.
    if (same.length === linkMovesAtMost || (source === target && near.length === linkMovesAtMost)) break;
  }
  return medianOf(same) ?? medianOf(back) ?? medianOf(near);
}

function linkSpeedOf(move: Migration): number | undefined {
  const { rounds, measures, policy } = move;
  const [longest] = rounds.toSorted((a, b) => b.durationMs - a.durationMs);
  const { degradedMs, bytes, recoveries } = measures;
  const speed =
    longest && longest.durationMs >= shortestLinkMs
      ? longest.bandwidthBytesPerSecond
      : rounds.length === 0 && degradedMs !== null && degradedMs >= shortestLinkMs && bytes && !recoveries
        ? (bytes * 1000) / degradedMs
        : undefined;
  const limit = policy.maxBandwidthBytesPerSecond;
  return speed !== undefined && limit !== null && speed > nearTheLimit * limit ? undefined : speed;
}

export function medianOf(values: readonly number[]): number | undefined {
  const sorted = values.toSorted((a, b) => a - b);
  const [low, high] = [sorted[Math.floor((sorted.length - 1) / 2)], sorted[Math.ceil((sorted.length - 1) / 2)]];
  return low === undefined || high === undefined ? undefined : (low + high) / 2;
}
