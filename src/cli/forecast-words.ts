/** Forecasts in words: what a move would cost, what that is worked out from, and how it came out. */
import { formatBytes, formatBytesPerSecond, formatMs } from '../model/units.ts';
import { dirtyBytesPerSecond } from '../migration/writing.ts';
import type { MigrationView } from '../wire/endpoints.ts';
import type { ForecastView } from '../wire/forecast.ts';

const sources = {
  measured: 'measured',
  'earlier-moves': 'as earlier moves showed',
  reported: 'as its host reports',
  size: 'all of it: nobody has measured it',
  assumed: 'assumed',
  configured: 'as configured',
  interface: 'as the interfaces say',
} as const;

/** "total 3.9 s  downtime 35 ms  blackout 90 ms  sent 354 MiB  rounds 2" */
export function forecastWords(forecast: ForecastView): string {
  if (!forecast.converges) return `does not converge: ${notConvergingWords(forecast)}`;
  const { totalMs, downtimeMs, blackoutMs, bytes, rounds, faults, because } = forecast;
  return [
    `total ${formatMs(totalMs)}`,
    `downtime ${formatMs(downtimeMs)}`,
    `blackout ${formatMs(blackoutMs)}`,
    `sent ${formatBytes(bytes)}`,
    `rounds ${rounds}`,
    ...(faults > 0 ? [`faults ${faults}`] : []),
    ...(because === null ? [] : [`(${because})`]),
  ].join('  ');
}

/** Why, what trying would cost, and what would do. */
export function notConvergingWords({ because, totalMs, downtimeMs, bytes }: ForecastView): string {
  const why = (because ?? '').replace(/^Warm-up does not converge: /, '').replace(/\.$/, '');
  return `${why}; gives up after ${formatMs(totalMs)} and ${formatBytes(bytes)}; a pause of ${formatMs(downtimeMs)} would do`;
}

/** "340 MiB in use (measured), writes 9.8 MiB/s (measured), link 113 MiB/s (as configured)" */
export function basisWords({ basis, correction, endsBy }: ForecastView): string {
  const writes = dirtyBytesPerSecond(basis.writing);
  const parts =
    endsBy === 'restart'
      ? []
      : [
          `${formatBytes(basis.inUseBytes)} in use (${sources[basis.inUseFrom]})`,
          `writes ${formatBytesPerSecond(writes)} (${sources[basis.writingFrom]})`,
          `link ${formatBytesPerSecond(basis.bytesPerSecond)} (${sources[basis.linkFrom]})`,
        ];
  return [...parts, learntWords(correction)].join(', ');
}

function learntWords({ moves, others }: ForecastView['correction']): string {
  if (moves + others === 0) return 'no earlier move to learn from';
  return `corrected by ${moves} earlier moves of it and ${others} of others`;
}

/** "took 12 % longer than forecast"; null where there is nothing to compare. */
export function comparison({ forecast, measures, phase }: MigrationView): string | null {
  if (phase !== 'completed' || !forecast?.converges || measures.totalMs === null) return null;
  const percent = Math.round((measures.totalMs / forecast.totalMs - 1) * 100);
  if (percent === 0) return 'took as long as forecast';
  return `took ${Math.abs(percent)} % ${percent > 0 ? 'longer' : 'less'} than forecast`;
}
