/** The phases of one move, as long as they lasted, and where the guest was in each. */
import { isEnd, phases, type GuestOn } from '../../migration/phases.ts';
import type { MigrationView } from '../../wire/endpoints.ts';
import { duration } from '../words.ts';

interface Stretch {
  readonly phase: MigrationView['phase'];
  readonly from: number;
  readonly to: number;
}

/** Phases are entered once or, as warming-up, once a round: those are one stretch here. */
export function stretchesOf({ history, endedAt }: Pick<MigrationView, 'history' | 'endedAt'>, now: number): Stretch[] {
  const stretches: Stretch[] = [];
  history.forEach(({ phase, at }, index) => {
    if (isEnd(phase)) return;
    const to = history[index + 1]?.at ?? endedAt ?? Math.max(now, at);
    const last = stretches.at(-1);
    if (last?.phase === phase) stretches[stretches.length - 1] = { ...last, to };
    else stretches.push({ phase, from: at, to });
  });
  return stretches;
}

const guestWords: Record<GuestOn, string> = {
  source: 'runs on the source',
  target: 'runs on the target',
  'paused-on-source': 'paused on the source',
  'paused-on-target': 'paused on the target',
  off: 'off',
  'see-failure': 'see the failure',
};

export function PhaseTimeline({ migration, now }: { migration: MigrationView; now: number }) {
  const stretches = stretchesOf(migration, now);
  const total = Math.max(
    1,
    stretches.reduce((sum, { from, to }) => sum + to - from, 0),
  );
  // Both ends of the pause are measured on the hosts; here they may come in together.
  const { downtimeMs } = migration.measures;
  const paused =
    downtimeMs === null ? -1 : stretches.findIndex(({ phase }) => phases[phase].guestOn.startsWith('paused'));
  return (
    <ol className="phases" aria-label="Phases" tabIndex={0}>
      {stretches.map(({ phase, from, to }, index) => {
        const { guestOn } = phases[phase];
        const isNow = !migration.ended && index === stretches.length - 1;
        return (
          <li
            key={`${phase} ${from}`}
            className={`phase ${guestOn}${isNow ? ' now' : ''}`}
            style={{ flexGrow: Math.max(0.06, (to - from) / total) }}
            aria-current={isNow ? 'step' : undefined}
          >
            <span className="phase-bar" />
            <span className="phase-name">{phase}</span>
            <span className="phase-time">{index === paused ? duration(downtimeMs) : duration(to - from)}</span>
            <span className="phase-guest">{guestWords[guestOn]}</span>
          </li>
        );
      })}
      {migration.ended && (
        <li className={`phase end ${migration.phase}`}>
          <span className="phase-bar" />
          <span className="phase-name">{migration.phase}</span>
        </li>
      )}
    </ol>
  );
}
