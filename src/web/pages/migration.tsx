/** One move: live while it runs, and its report for good afterwards. */
import { useEffect, useMemo, useState } from 'react';
import { messageOf } from '../../model/failure.ts';
import type { MigrationSampleView, MigrationView } from '../../wire/endpoints.ts';
import { live, useLive } from '../live.ts';
import { bytes, count, duration, moment, percent, rate } from '../words.ts';
import { Compared } from '../charts/compared.tsx';
import { LineChart } from '../charts/line-chart.tsx';
import { PhaseTimeline } from '../charts/phase-timeline.tsx';
import { Rounds } from '../charts/rounds.tsx';
import { Act } from '../parts/act.tsx';
import { PhaseBadge } from '../parts/badge.tsx';
import { Empty } from '../parts/empty.tsx';
import { HostLink, Link, VmLink } from '../parts/link.tsx';
import { useDoing } from '../parts/notices.tsx';
import { Facts, Figure, PageFrame, Section, useNow } from '../parts/page.tsx';
import { crossed } from './fleet-moves.tsx';

const pageBytes = 4096;

export function MigrationPage({ id }: { id: string }) {
  const known = useLive((store) => store.migrations.get(id));
  const [trouble, setTrouble] = useState<string>();
  useEffect(() => {
    if (live().migrations.get(id)) return;
    live()
      .client.getMigration({ params: { migration: id } })
      .then((migration) => live().keep([migration]))
      .catch((error: unknown) => setTrouble(messageOf(error)));
  }, [id]);
  if (known) return <Report migration={known} />;
  if (trouble === undefined) return <Empty title="Reading the migration" busy />;
  return (
    <Empty title="There is no such migration" says={trouble}>
      <Link to="/migrations">All migrations</Link>
    </Empty>
  );
}

function Report({ migration }: { migration: MigrationView }) {
  const now = useNow(migration.ended ? 60_000 : 250);
  const { vmName, source, target, technique, startedAt, endedAt, failure, why, history } = migration;
  return (
    <PageFrame
      title={`${vmName}: ${source} to ${target}`}
      about={
        <>
          <PhaseBadge migration={migration} />
          <span>{migration.phaseSays}</span>
          <span className="muted">
            {technique}, began {moment(startedAt)}
            {endedAt !== null && `, took ${duration(endedAt - startedAt)}`}
          </span>
        </>
      }
      actions={<Actions migration={migration} />}
    >
      {failure !== null && (
        <div className="banner bad" role="alert">
          <div>
            <strong>{failure.message}</strong> The guest is {migration.guest?.replace('-', ' ') ?? 'where it was'}.
            <div>{failure.hint}</div>
            {failure.detail !== undefined && <code className="block">{failure.detail}</code>}
          </div>
        </div>
      )}
      <Figures migration={migration} now={now} />
      <Section title="Phases">
        <PhaseTimeline migration={migration} now={now} />
      </Section>
      <div className="columns">
        <Section title="Downtime" about="how long the guest was paused">
          <Downtime migration={migration} />
        </Section>
        <Section title="Total time">
          <Compared
            format={duration}
            amounts={[
              { word: 'Forecast', value: migration.forecast?.totalMs ?? null, look: 'forecast' },
              { word: endedAt === null ? 'So far' : 'Actual', value: (endedAt ?? now) - startedAt, look: 'actual' },
              ...(migration.policy.deadlineMs === null
                ? []
                : [{ word: 'Deadline', value: migration.policy.deadlineMs, look: 'limit' as const }]),
            ]}
          />
        </Section>
      </div>
      {technique !== 'cold' && (
        <Section title="Transfer against writing" about="it ends when more is sent than the guest writes again">
          <Rates migration={migration} />
        </Section>
      )}
      {migration.rounds.length > 0 && (
        <Section title="Rounds">
          <Rounds migration={migration} />
        </Section>
      )}
      <div className="columns">
        <div className="stacked">
          <Section title="Why">
            <ul className="reasons">
              {why.map(({ by, text, at }) => (
                <li key={`${at} ${text}`}>
                  <span>{text}</span>
                  <span className="muted">
                    {by}, {moment(at)}
                  </span>
                </li>
              ))}
              {why.length === 0 && <li className="muted">Nobody said why.</li>}
            </ul>
            {migration.switchedToPostCopy !== null && (
              <p>
                Switched to post-copy in round {migration.switchedToPostCopy.round}:{' '}
                {migration.switchedToPostCopy.because}
              </p>
            )}
          </Section>
          <Section title="What happened when">
            <ol className="moments">
              {history.map(({ phase, at, round }) => (
                <li key={`${phase} ${at} ${round}`}>
                  <span className="number">{at === startedAt ? '0 ms' : `+${duration(at - startedAt)}`}</span>
                  <span>
                    {phase}
                    {round !== undefined && `, round ${round}`}
                  </span>
                </li>
              ))}
            </ol>
            <p className="muted">
              <VmLink name={vmName} /> from <HostLink name={source} /> to <HostLink name={target} />. Id{' '}
              <code>{migration.id}</code>
            </p>
          </Section>
        </div>
        <Section title="Measures">
          <Measures migration={migration} />
        </Section>
      </div>
    </PageFrame>
  );
}

function Actions({ migration }: { migration: MigrationView }) {
  const { busy, run } = useDoing();
  const { id, cancellable, switchable, ended, vmName, source } = migration;
  if (ended) return null;
  const why = cancellable ? undefined : 'In this phase it cannot be taken back any more.';
  return (
    <>
      {switchable !== null && (
        <Act
          does="switchMigration"
          className={switchable === 'completion' ? 'primary' : ''}
          disabled={busy}
          title={switchable === 'post-copy' ? 'The guest goes on at the target at once and pulls what is missing.' : ''}
          onClick={() =>
            run(async () => {
              live().keep([await live().client.switchMigration({ params: { migration: id } })]);
              return switchable === 'completion'
                ? `${vmName} completes its move now.`
                : `${vmName} goes over to post-copy.`;
            })
          }
        >
          {switchable === 'completion' ? 'Complete now' : 'Switch to post-copy'}
        </Act>
      )}
      <Act
        does="cancelMigration"
        disabled={busy || !cancellable}
        title={why}
        onClick={() =>
          run(async () => {
            live().keep([await live().client.cancelMigration({ params: { migration: id } })]);
            return `The move is cancelled; ${vmName} goes on running on ${source}.`;
          })
        }
      >
        Cancel the move
      </Act>
    </>
  );
}

function Figures({ migration, now }: { migration: MigrationView; now: number }) {
  const { sample, measures, startedAt, endedAt, ended, forecast } = migration;
  const share = crossed(migration);
  const left = forecast === null || ended ? null : forecast.totalMs - (now - startedAt);
  return (
    <div className="figures">
      {!ended && (
        <Figure
          word="There"
          value={percent(share)}
          about={sample ? `${bytes(sample.remainingBytes)} of ${bytes(sample.totalBytes)} left` : 'not begun yet'}
        />
      )}
      <Figure
        word={ended ? 'Took' : 'Under way for'}
        value={duration((endedAt ?? now) - startedAt)}
        about={
          left === null
            ? 'from reservation to the end'
            : left > 0
              ? `about ${duration(Math.ceil(left / 1000) * 1000)} more`
              : 'longer than expected'
        }
      />
      <Figure
        word="Sent"
        value={bytes(measures.bytes ?? sample?.sentBytes ?? null)}
        about={`expected ${bytes(forecast?.bytes ?? null)}`}
      />
      {!ended && (
        <Figure
          word="Transfer"
          value={rate(sample?.bandwidthBytesPerSecond ?? null)}
          about={`guest writes ${rate(sample?.dirtyBytesPerSecond ?? null)}`}
        />
      )}
      <Figure
        word="Downtime"
        value={duration(measures.downtimeMs)}
        about={`allowed ${duration(migration.policy.maxDowntimeMs)}`}
      />
      <Figure
        word="Faults"
        value={measures.faults === null && sample === null ? '–' : count(measures.faults ?? sample?.faults ?? 0)}
        about={
          measures.faultBlockedMs === null ? 'pages waited for' : `blocked for ${duration(measures.faultBlockedMs)}`
        }
      />
    </div>
  );
}

function Downtime({ migration: { policy, forecast, measures } }: { migration: MigrationView }) {
  const over = measures.downtimeMs !== null && measures.downtimeMs > policy.maxDowntimeMs;
  return (
    <>
      <Compared
        format={duration}
        amounts={[
          { word: 'Limit', value: policy.maxDowntimeMs, look: 'limit' },
          { word: 'Forecast', value: forecast?.downtimeMs ?? null, look: 'forecast' },
          { word: 'Actual', value: measures.downtimeMs, look: over ? 'over' : 'actual' },
          ...(measures.blackoutMs === null
            ? []
            : [{ word: 'Blackout', value: measures.blackoutMs, look: 'actual' as const }]),
        ]}
      />
      {over && <p className="refusal">Longer than allowed.</p>}
    </>
  );
}

/** From samples while they are there; of a move from before, from its rounds. */
function Rates({ migration }: { migration: MigrationView }) {
  const samples = useLive((store) => store.samplesOf(migration.id));
  const chart = useMemo(
    () => (samples.length > 1 ? fromSamples(samples, migration.startedAt) : fromRounds(migration)),
    [samples, migration],
  );
  if (chart.at.length < 2)
    return <Empty title={migration.ended ? 'Nothing was measured on the way' : 'Waiting for the first measures'} />;
  return (
    <LineChart
      says="Transfer rate and writing rate over time"
      at={chart.at}
      relative
      stepped={samples.length <= 1}
      format={rate}
      lines={[
        { word: 'transfer', colour: '--accent', values: chart.sent },
        { word: 'guest writes', colour: '--warn', values: chart.written, dashed: true },
      ]}
    />
  );
}

interface RatesOverTime {
  readonly at: readonly number[];
  readonly sent: readonly number[];
  readonly written: readonly number[];
}

function fromSamples(samples: readonly MigrationSampleView[], startedAt: number): RatesOverTime {
  return {
    at: samples.map(({ at }) => at - startedAt),
    sent: samples.map(({ bandwidthBytesPerSecond }) => bandwidthBytesPerSecond),
    written: samples.map(({ dirtyBytesPerSecond }) => dirtyBytesPerSecond),
  };
}

function fromRounds({ rounds, history, startedAt }: MigrationView): RatesOverTime {
  const began = (history.find(({ phase }) => phase === 'warming-up')?.at ?? startedAt) - startedAt;
  const at: number[] = rounds.length > 0 ? [began] : [];
  for (const { durationMs } of rounds) at.push((at.at(-1) ?? began) + durationMs);
  const sent = rounds.map(({ bandwidthBytesPerSecond }) => bandwidthBytesPerSecond);
  const written = rounds.map(({ dirtyPages, durationMs }) => (dirtyPages * pageBytes * 1000) / Math.max(1, durationMs));
  return { at, sent: sent.slice(0, 1).concat(sent), written: written.slice(0, 1).concat(written) };
}

function Measures({ migration }: { migration: MigrationView }) {
  const { measures, policy, forecast } = migration;
  return (
    <Facts
      rows={[
        ['Guest paused', duration(measures.downtimeMs)],
        ["By QEMU's own clock", duration(measures.downtimeQemuMs)],
        ['Blackout seen from outside', duration(measures.blackoutMs)],
        ['First page after', duration(measures.firstPageMs)],
        ['Ran with pages missing', duration(measures.degradedMs)],
        ['Faults', measures.faults === null ? '–' : count(measures.faults)],
        ['Guest throttled at most', measures.throttlePercent === null ? '–' : `${measures.throttlePercent} %`],
        ['Link lost and joined again', measures.recoveries === null ? '–' : plural(measures.recoveries)],
        [
          'Bandwidth allowed',
          policy.maxBandwidthBytesPerSecond === null ? 'all' : rate(policy.maxBandwidthBytesPerSecond),
        ],
        ['When it does not converge', policy.whenNotConverging],
        [
          'Forecast rests on',
          forecast === null ? '–' : `writing ${forecast.basis.writingFrom}, link ${forecast.basis.linkFrom}`,
        ],
      ]}
    />
  );
}

function plural(times: number): string {
  return times === 1 ? 'once' : `${times} times`;
}
