/** How a migration ended, in words and as an exit code; the measures that are shown everywhere. */
import type { MigrationView } from '../wire/endpoints.ts';
import { formatBytes, formatMs } from '../model/units.ts';
import { exitCodes } from './context.ts';
import { comparison, forecastWords } from './forecast-words.ts';

/** The first line says what became of the guest, the others what it cost. For a migration that has ended. */
export function outcome(migration: MigrationView): string[] {
  const { vmName, source, target, id, failure, measures } = migration;
  const after = measures.totalMs === null ? '' : ` after ${formatMs(measures.totalMs)}`;
  switch (migration.phase) {
    case 'completed':
      return [
        `${vmName} moved from ${source} to ${target} by ${techniqueWords(migration)} in ${formatMs(measures.totalMs ?? 0)}`,
        `  ${measureWords(migration)}`,
        ...forecastLines(migration),
      ];
    case 'cancelled':
      return [`${vmName}: migration ${id} was cancelled${after}; the guest runs on ${source}`];
    case 'failed':
      return [
        `${vmName}: migration ${id} failed${after}: ${failure?.message ?? 'no reason was given'}`,
        ...(failure?.detail ? [`  detail: ${failure.detail}`] : []),
        `  guest: ${guestWords(migration)}`,
        ...(failure ? [`  next: ${failure.hint}`] : []),
      ];
    default:
      return [`${vmName}: migration ${id} is in phase ${migration.phase}`];
  }
}

function forecastLines(migration: MigrationView): string[] {
  const { forecast } = migration;
  if (!forecast) return [];
  const compared = comparison(migration);
  return [`  forecast: ${forecastWords(forecast)}${compared === null ? '' : `  (${compared})`}`];
}

export function techniqueWords({ technique, switchedToPostCopy }: MigrationView): string {
  if (!switchedToPostCopy || technique === 'post-copy' || technique === 'hybrid') return technique;
  return `${technique} (post-copy after round ${switchedToPostCopy.round})`;
}

function measureWords({ measures, rounds }: MigrationView): string {
  const ms = (value: number | null): string => (value === null ? '-' : formatMs(value));
  return [
    `total ${ms(measures.totalMs)}`,
    `downtime ${ms(measures.downtimeMs)}`,
    measures.blackoutMs === null ? '' : `blackout ${ms(measures.blackoutMs)}`,
    measures.bytes === null ? '' : `sent ${formatBytes(measures.bytes)}`,
    `rounds ${rounds.length}`,
    measures.faults === null ? '' : `faults ${measures.faults}`,
    measures.degradedMs === null ? '' : `degraded ${ms(measures.degradedMs)}`,
    measures.recoveries ? `link broke ${measures.recoveries}x for ${ms(measures.recoveringMs)}` : '',
    measures.throttlePercent ? `throttled ${measures.throttlePercent} %` : '',
  ]
    .filter((text) => text !== '')
    .join('  ');
}

function guestWords({ guest, source, target }: MigrationView): string {
  switch (guest) {
    case 'on-source':
      return `runs on ${source}`;
    case 'on-target':
      return `runs on ${target}`;
    case 'lost':
      return `lost: neither ${source} nor ${target} is known to run it`;
    case null:
      return 'not known';
  }
}

/** 0 completed, 3 cancelled or not converged (in time), 1 failed otherwise. */
export function exitCodeOf(migration: MigrationView): number {
  if (migration.phase === 'completed') return exitCodes.done;
  if (migration.phase === 'cancelled') return exitCodes.notConverged;
  const code = migration.failure?.code;
  return code === 'no-convergence' || code === 'deadline-passed' ? exitCodes.notConverged : exitCodes.failed;
}
