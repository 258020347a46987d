/** Who did what, to what, when and why: as the server has written it down, page after page. */
import { useEffect, useState } from 'react';
import { messageOf } from '../../model/failure.ts';
import type { AuditView } from '../../wire/people.ts';
import { live } from '../live.ts';
import { setQuery, useQuery } from '../router.ts';
import { moment } from '../words.ts';
import { useMay } from '../parts/act.tsx';
import { Badge } from '../parts/badge.tsx';
import { Empty } from '../parts/empty.tsx';
import { PageFrame } from '../parts/page.tsx';
import { Rows, type Column } from '../parts/rows.tsx';

const shown = 500;
const readEveryMs = 10_000;
const outcomes = ['all', 'done', 'failed'] as const;

export function AuditPage() {
  if (useMay('listAudit')) return <Log />;
  return <Empty title="Not for your role" says="Operators and admins see who did what." />;
}

function Log() {
  const query = useQuery();
  const by = query.get('by') ?? '';
  const to = query.get('to') ?? '';
  const outcome = outcomes.find((each) => each === query.get('outcome')) ?? 'all';
  const [entries, setEntries] = useState<readonly AuditView[]>();
  const [trouble, setTrouble] = useState<string>();
  useEffect(() => {
    const over = new AbortController();
    const read = (): void => {
      const wanted = {
        limit: shown,
        ...(by === '' ? {} : { by }),
        ...(to === '' ? {} : { to }),
        ...(outcome === 'all' ? {} : { outcome }),
      };
      live()
        .client.listAudit({ query: wanted }, { signal: over.signal })
        .then((found) => {
          setEntries(found);
          setTrouble(undefined);
        })
        .catch((error: unknown) => over.signal.aborted || setTrouble(messageOf(error)));
    };
    read();
    const timer = setInterval(read, readEveryMs);
    return () => {
      clearInterval(timer);
      over.abort();
    };
  }, [by, to, outcome]);
  return (
    <PageFrame title="Audit" about={<span className="muted">the last {shown}, newest first</span>}>
      <div className="toolbar">
        <input
          type="search"
          aria-label="By whom"
          placeholder="By whom"
          value={by}
          onChange={(event) => setQuery({ by: event.target.value })}
        />
        <input
          type="search"
          aria-label="To what, such as vm web1"
          placeholder="To what, such as vm web1"
          value={to}
          onChange={(event) => setQuery({ to: event.target.value })}
        />
        <label>
          Outcome
          <select value={outcome} onChange={(event) => setQuery({ outcome: event.target.value })}>
            {outcomes.map((each) => (
              <option key={each}>{each}</option>
            ))}
          </select>
        </label>
      </div>
      {trouble !== undefined && <Empty title="The audit log cannot be read" says={trouble} />}
      {trouble === undefined && entries === undefined && <Empty title="Reading the audit log" busy />}
      {trouble === undefined && entries?.length === 0 && <Empty title="Nothing of that kind was done" />}
      {trouble === undefined && entries !== undefined && entries.length > 0 && (
        <div className="card">
          <Rows says="Audit log" rows={entries} columns={columns} keyOf={({ id }) => id} />
        </div>
      )}
    </PageFrame>
  );
}

const columns: readonly Column<AuditView>[] = [
  { word: 'When', width: '84px', cell: ({ at }) => <span title={new Date(at).toISOString()}>{moment(at)}</span> },
  {
    word: 'Who',
    width: 'minmax(80px, 1fr)',
    cell: ({ by, via, address }) => <span title={`by ${via}, from ${address}`}>{by}</span>,
  },
  { word: 'Did', width: 'minmax(110px, 1fr)', cell: ({ did }) => did },
  { word: 'To', width: 'minmax(70px, 1fr)', isMinor: true, cell: ({ to }) => to ?? '–' },
  {
    word: 'Outcome',
    width: '150px',
    isMinor: true,
    cell: ({ outcome }) => (
      <Badge tone={outcome === 'done' ? 'ok' : 'bad'} icon={outcome === 'done' ? 'ok' : 'bad'}>
        {outcome}
      </Badge>
    ),
  },
  {
    word: 'Why, and with what',
    width: 'minmax(140px, 2fr)',
    isMinor: true,
    cell: ({ because, request, says }) => {
      const words = [because, says, request].filter((each) => each !== null).join(' · ');
      return <span title={words}>{words || '–'}</span>;
    },
  },
];
