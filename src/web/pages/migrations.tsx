/** All moves: what runs, what was, what it cost by technique, and any of them side by side. */
import { useEffect, useMemo, useState } from 'react';
import { techniques } from '../../model/migration.ts';
import type { MigrationView } from '../../wire/endpoints.ts';
import { live, useLive } from '../live.ts';
import { pathTo, setQuery, useQuery } from '../router.ts';
import { bytes, count, duration, moment, percentile, plural } from '../words.ts';
import { PhaseBadge } from '../parts/badge.tsx';
import { Empty } from '../parts/empty.tsx';
import { HostLink, Link, VmLink } from '../parts/link.tsx';
import { tellRefusal } from '../parts/notices.tsx';
import { PageFrame, Section } from '../parts/page.tsx';
import { Rows, type Column } from '../parts/rows.tsx';
import { Wide } from '../parts/wide.tsx';

const outcomes = ['all', 'under way', 'completed', 'failed', 'cancelled'] as const;
const mostRead = 1000;
const mostCompared = 4;

export function MigrationsPage() {
  const all = useLive((store) => store.migrations.list());
  const query = useQuery();
  const text = (query.get('q') ?? '').toLowerCase();
  const outcome = outcomes.find((each) => each === query.get('outcome')) ?? 'all';
  const technique = techniques.find((each) => each === query.get('technique')) ?? 'all';
  const [chosen, setChosen] = useState<readonly string[]>([]);
  useEffect(() => {
    live()
      .client.listMigrations({ query: { limit: mostRead } })
      .then((older) => live().keep(older))
      .catch(tellRefusal);
  }, []);
  const found = useMemo(
    () => all.filter((each) => isLike(each, text, outcome) && (technique === 'all' || each.technique === technique)),
    [all, text, outcome, technique],
  );
  const toggle = (id: string): void =>
    setChosen((before) =>
      before.includes(id) ? before.filter((each) => each !== id) : [...before.slice(1 - mostCompared), id],
    );
  const compared = chosen.flatMap((id) => all.find((each) => each.id === id) ?? []);
  return (
    <PageFrame title="Migrations" about={<span className="muted">{plural(found.length, 'move')}</span>}>
      {all.length === 0 ? (
        <Empty
          title="Nothing has moved yet"
          says="Drag a guest onto another host in the fleet, or: drover migrate VM"
        />
      ) : (
        <>
          <Percentiles migrations={found} />
          {compared.length > 1 && <Comparison migrations={compared} onClear={() => setChosen([])} />}
          <div className="toolbar">
            <input
              type="search"
              aria-label="Find by VM, host or reason"
              placeholder="VM, host or reason"
              value={query.get('q') ?? ''}
              onChange={(event) => setQuery({ q: event.target.value })}
            />
            <label>
              Outcome
              <select value={outcome} onChange={(event) => setQuery({ outcome: event.target.value })}>
                {outcomes.map((each) => (
                  <option key={each}>{each}</option>
                ))}
              </select>
            </label>
            <label>
              Technique
              <select value={technique} onChange={(event) => setQuery({ technique: event.target.value })}>
                <option>all</option>
                {techniques.map((each) => (
                  <option key={each}>{each}</option>
                ))}
              </select>
            </label>
            <button type="button" onClick={() => download(found)} disabled={found.length === 0}>
              Save as JSON
            </button>
            <p className="muted hint">Tick two or more to compare them.</p>
          </div>
          {found.length === 0 ? (
            <Empty title="No move is like that" />
          ) : (
            <div className="card">
              <Rows says="Migrations" rows={found} columns={columnsWith(chosen, toggle)} keyOf={({ id }) => id} />
            </div>
          )}
        </>
      )}
    </PageFrame>
  );
}

function isLike(migration: MigrationView, text: string, outcome: (typeof outcomes)[number]): boolean {
  if (outcome === 'under way' ? migration.ended : outcome !== 'all' && migration.phase !== outcome) return false;
  const { vmName, source, target, why, id } = migration;
  return (
    text === '' ||
    [vmName, source, target, id, ...why.map((each) => each.text)].some((word) => word.toLowerCase().includes(text))
  );
}

function columnsWith(chosen: readonly string[], toggle: (id: string) => void): readonly Column<MigrationView>[] {
  return [
    {
      word: 'Compare',
      width: '70px',
      isMinor: true,
      cell: ({ id, vmName }) => (
        <input
          type="checkbox"
          aria-label={`Compare the move of ${vmName}`}
          checked={chosen.includes(id)}
          onChange={() => toggle(id)}
        />
      ),
    },
    {
      word: 'Began',
      width: '104px',
      cell: ({ id, startedAt }) => <Link to={pathTo.migration(id)}>{moment(startedAt)}</Link>,
    },
    { word: 'VM', width: 'minmax(90px, 1.4fr)', cell: ({ vmName }) => <VmLink name={vmName} /> },
    {
      word: 'From and to',
      width: 'minmax(90px, 1fr)',
      isMinor: true,
      cell: ({ source, target }) => (
        <>
          <HostLink name={source} /> → <HostLink name={target} />
        </>
      ),
    },
    { word: 'Technique', width: '94px', isMinor: true, cell: ({ technique }) => technique },
    { word: 'Outcome', width: '168px', cell: (migration) => <PhaseBadge migration={migration} /> },
    {
      word: 'Downtime',
      width: '88px',
      isNumber: true,
      isMinor: true,
      cell: ({ measures }) => duration(measures.downtimeMs),
    },
    { word: 'Total', width: '84px', isNumber: true, isMinor: true, cell: ({ measures }) => duration(measures.totalMs) },
    { word: 'Sent', width: '88px', isNumber: true, isMinor: true, cell: ({ measures }) => bytes(measures.bytes) },
  ];
}

function Percentiles({ migrations }: { migrations: readonly MigrationView[] }) {
  const rows = techniques.flatMap((technique) => {
    const of = migrations.filter((migration) => migration.technique === technique && migration.ended);
    if (of.length === 0) return [];
    const completed = of.filter(({ phase }) => phase === 'completed');
    const downtimes = completed.flatMap(({ measures }) => measures.downtimeMs ?? []);
    const totals = completed.flatMap(({ measures }) => measures.totalMs ?? []);
    return [{ technique, ended: of.length, completed: completed.length, downtimes, totals }];
  });
  return (
    <Section title="What moves cost" about="completed moves of those below">
      {rows.length === 0 ? (
        <Empty title="None of these has ended" />
      ) : (
        <Wide says="What moves cost">
          <table>
            <thead>
              <tr>
                <th scope="col" rowSpan={2}>
                  Technique
                </th>
                <th scope="col" rowSpan={2} className="number">
                  Completed
                </th>
                <th scope="colgroup" colSpan={3} className="group">
                  Downtime
                </th>
                <th scope="colgroup" colSpan={3} className="group">
                  Total
                </th>
              </tr>
              <tr>
                {['downtime', 'total'].flatMap((what) =>
                  ['half', '95 %', '99 %'].map((word) => (
                    <th key={`${what} ${word}`} scope="col" className="number">
                      {word}
                    </th>
                  )),
                )}
              </tr>
            </thead>
            <tbody>
              {rows.map(({ technique, ended, completed, downtimes, totals }) => (
                <tr key={technique}>
                  <th scope="row">{technique}</th>
                  <td className="number">
                    {count(completed)} of {count(ended)}
                  </td>
                  {[downtimes, totals].flatMap((values, which) =>
                    [0.5, 0.95, 0.99].map((share) => (
                      <td key={`${which} ${share}`} className="number">
                        {duration(percentile(values, share))}
                      </td>
                    )),
                  )}
                </tr>
              ))}
            </tbody>
          </table>
        </Wide>
      )}
    </Section>
  );
}

const compared: readonly (readonly [string, (migration: MigrationView) => string])[] = [
  ['From and to', ({ source, target }) => `${source} → ${target}`],
  [
    'Technique',
    ({ technique, endedInPostCopy }) => `${technique}${endedInPostCopy && technique === 'auto' ? ', switched' : ''}`,
  ],
  ['Outcome', ({ phase }) => phase],
  ['Downtime', ({ measures }) => duration(measures.downtimeMs)],
  ['expected', ({ forecast }) => duration(forecast?.downtimeMs)],
  ['Total', ({ measures }) => duration(measures.totalMs)],
  ['expected', ({ forecast }) => duration(forecast?.totalMs)],
  ['Sent', ({ measures }) => bytes(measures.bytes)],
  ['Rounds', ({ rounds }) => String(rounds.length)],
  ['Faults', ({ measures }) => (measures.faults === null ? '–' : count(measures.faults))],
  ['Ran with pages missing', ({ measures }) => duration(measures.degradedMs)],
];

function Comparison({ migrations, onClear }: { migrations: readonly MigrationView[]; onClear: () => void }) {
  return (
    <Section
      title="Side by side"
      actions={
        <button type="button" onClick={onClear}>
          Clear
        </button>
      }
    >
      <Wide says="Side by side">
        <table>
          <thead>
            <tr>
              <th scope="col">Measure</th>
              {migrations.map(({ id, vmName, startedAt }) => (
                <th key={id} scope="col" className="number">
                  <Link to={pathTo.migration(id)}>
                    {vmName} {moment(startedAt)}
                  </Link>
                </th>
              ))}
            </tr>
          </thead>
          <tbody>
            {compared.map(([word, say], index) => (
              <tr key={index}>
                <th scope="row" className={word === 'expected' ? 'under' : ''}>
                  {word}
                </th>
                {migrations.map((migration) => (
                  <td key={migration.id} className="number">
                    {say(migration)}
                  </td>
                ))}
              </tr>
            ))}
          </tbody>
        </table>
      </Wide>
    </Section>
  );
}

function download(migrations: readonly MigrationView[]): void {
  const url = URL.createObjectURL(new Blob([JSON.stringify(migrations, null, 2)], { type: 'application/json' }));
  const link = document.createElement('a');
  link.href = url;
  link.download = 'migrations.json';
  link.click();
  URL.revokeObjectURL(url);
}
