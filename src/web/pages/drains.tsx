/** Drains: hosts that are emptied for maintenance, VM by VM on a time axis, with when it will be done. */
import { useEffect, useMemo, useState } from 'react';
import { messageOf } from '../../model/failure.ts';
import type { DrainView } from '../../wire/drains.ts';
import type { MigrationView } from '../../wire/endpoints.ts';
import { live, useLive } from '../live.ts';
import { pathTo } from '../router.ts';
import { bytes, duration, moment, plural, timeOfDay } from '../words.ts';
import { Gantt, type GanttBar, type GanttRow } from '../charts/gantt.tsx';
import { Act, useMay } from '../parts/act.tsx';
import { Badge } from '../parts/badge.tsx';
import { Empty } from '../parts/empty.tsx';
import { HostLink, Link, VmLink } from '../parts/link.tsx';
import { useDoing } from '../parts/notices.tsx';
import { Figure, PageFrame, Section, useNow } from '../parts/page.tsx';
import { DrainDialog } from './host.tsx';

const looks = {
  draining: ['run', 'run'],
  drained: ['ok', 'lock'],
  returning: ['run', 'run'],
  undrained: ['quiet', 'ok'],
  cancelled: ['quiet', 'off'],
} as const satisfies Record<DrainView['state'], unknown>;

function DrainBadge({ drain }: { drain: DrainView }) {
  const [tone, icon] = drain.blocked === null ? looks[drain.state] : (['warn', 'warn'] as const);
  return (
    <Badge tone={tone} icon={icon}>
      {drain.blocked === null ? drain.state : `${drain.state}, blocked`}
    </Badge>
  );
}

export function DrainsPage() {
  const drains = useLive((store) => store.drains.list());
  const hosts = useLive((store) => store.hosts.list());
  const [name, setName] = useState<string>();
  const mayDrain = useMay('drainHost');
  const free = hosts.filter(({ state, drain }) => state === 'up' && drain === null);
  const host = free.find((each) => each.name === name);
  return (
    <PageFrame
      title="Drains"
      actions={
        mayDrain && (
          <label>
            <span className="sr-only">Drain a host</span>
            <select value="" onChange={(event) => setName(event.target.value)}>
              <option value="">Drain a host…</option>
              {free.map((each) => (
                <option key={each.id}>{each.name}</option>
              ))}
            </select>
          </label>
        )
      }
    >
      {host !== undefined && <DrainDialog host={host} onClose={() => setName(undefined)} />}
      {drains.length === 0 ? (
        <Empty
          title="No host has been drained yet"
          says="Draining empties a host for maintenance and brings its VMs back afterwards."
        />
      ) : (
        drains.map((drain) => (
          <Section
            key={drain.id}
            title={drain.host}
            about={drain.says}
            actions={
              <>
                <DrainBadge drain={drain} />
                <Link to={pathTo.drain(drain.id)} className="button">
                  Show it
                </Link>
              </>
            }
          >
            <DrainGantt drain={drain} />
          </Section>
        ))
      )}
    </PageFrame>
  );
}

export function DrainPage({ id }: { id: string }) {
  const drain = useLive((store) => store.drains.get(id));
  const [trouble, setTrouble] = useState<string>();
  useEffect(() => {
    if (live().drains.get(id)) return;
    live()
      .client.getDrain({ params: { drain: id } })
      .then((found) => live().keepDrain(found))
      .catch((error: unknown) => setTrouble(messageOf(error)));
  }, [id]);
  if (drain) return <Known drain={drain} />;
  return trouble === undefined ? (
    <Empty title="Reading the drain" busy />
  ) : (
    <Empty title="There is no such drain" says={trouble}>
      <Link to="/drains">All drains</Link>
    </Empty>
  );
}

function Known({ drain }: { drain: DrainView }) {
  const now = useNow();
  const { host, estimate, etaMs, tookMs, blocked } = drain;
  return (
    <PageFrame
      title={`Drain of ${host}`}
      about={
        <>
          <DrainBadge drain={drain} />
          <span>{drain.says}</span>
          <span className="muted">
            {drain.because === '' ? '' : `${drain.because}, `}by {drain.by}, {moment(drain.startedAt)}
          </span>
        </>
      }
      actions={<Actions drain={drain} />}
    >
      {blocked !== null && (
        <p className="banner" role="alert">
          {blocked.says} {blocked.next}
        </p>
      )}
      <div className="figures">
        <Figure
          word="Moved"
          value={`${drain.done} of ${drain.total}`}
          about={`${plural(drain.remaining, 'guest')} on the host`}
        />
        <Figure
          word={etaMs === null ? 'Took' : 'Done in about'}
          value={duration(etaMs === null ? tookMs : Math.ceil(etaMs / 1000) * 1000)}
          about={
            etaMs === null
              ? drain.emptyAt === null
                ? 'not empty yet'
                : `empty at ${timeOfDay(drain.emptyAt)}`
              : `at ${timeOfDay(now + etaMs)}`
          }
        />
        <Figure word="Expected" value={duration(estimate.ms)} about={`${bytes(estimate.bytes)} to send`} />
        <Figure
          word="At once"
          value={plural(drain.movesAtOnce, 'move')}
          about={drain.allowCold ? 'also cold' : 'only live'}
        />
      </div>
      <Section title="VM by VM" about="solid: as it was; hatched: as it is expected">
        <DrainGantt drain={drain} />
      </Section>
      <Section title="What each VM does">
        <ul className="list">
          {drain.vms.map((vm) => (
            <li key={vm.vm}>
              <VmLink name={vm.name} />
              <span>{vm.state}</span>
              <span className="muted grow">
                {vm.says ?? (vm.to === null ? `on ${vm.host}` : `to ${vm.to}`)} {vm.next}
              </span>
              {vm.migration !== null && <Link to={pathTo.migration(vm.migration)}>its move</Link>}
            </li>
          ))}
        </ul>
        {drain.vms.length === 0 && <Empty title="No VM was on the host" />}
      </Section>
      <p className="muted">
        Host <HostLink name={host} />
      </p>
    </PageFrame>
  );
}

function Actions({ drain }: { drain: DrainView }) {
  const { busy, run } = useDoing();
  const params = { params: { host: drain.host } };
  const isOpen = drain.state === 'draining' || drain.state === 'returning';
  return (
    <>
      {isOpen && (
        <Act
          does="cancelDrain"
          disabled={busy}
          onClick={() =>
            run(async () => {
              live().keepDrain(await live().client.cancelDrain(params));
              return 'Nothing more moves; what has moved stays where it is.';
            })
          }
        >
          Stop it
        </Act>
      )}
      {(drain.state === 'drained' || drain.state === 'draining') && (
        <Act
          does="undrainHost"
          className={drain.state === 'drained' ? 'primary' : ''}
          disabled={busy}
          onClick={() =>
            run(async () => {
              live().keepDrain(await live().client.undrainHost({ ...params, body: {} }));
              return `${drain.host} takes VMs again; those that left come back.`;
            })
          }
        >
          Undrain
        </Act>
      )}
    </>
  );
}

function DrainGantt({ drain }: { drain: DrainView }) {
  const isOpen = drain.state === 'draining' || drain.state === 'returning';
  const now = useNow(isOpen ? 1000 : 60_000);
  const migrations = useLive((store) => store.migrations.list());
  const end = drain.endedAt ?? drain.emptyAt ?? now;
  const to = isOpen ? now + (drain.etaMs ?? 0) : Math.max(end, drain.startedAt + 1000);
  const rows = useMemo(() => rowsOf(drain, migrations, now), [drain, migrations, now]);
  const padded = to + (to - drain.startedAt) * 0.04;
  if (rows.length === 0) return <Empty title="No VM was on the host" />;
  return (
    <Gantt says={`Moves of the drain of ${drain.host}`} rows={rows} from={drain.startedAt} to={padded} now={now} />
  );
}

function rowsOf(drain: DrainView, migrations: readonly MigrationView[], now: number): GanttRow[] {
  const over = drain.endedAt ?? Infinity;
  const own = migrations.filter(
    ({ source, target, startedAt }) =>
      startedAt >= drain.startedAt && startedAt <= over && (source === drain.host || target === drain.host),
  );
  const queued = drain.vms.filter(({ state }) => state === 'queued');
  const expectedMs =
    queued.length === 0 ? 0 : ((drain.etaMs ?? 0) * drain.movesAtOnce) / (queued.length + drain.movesAtOnce);
  return drain.vms.map((vm): GanttRow => {
    const bars = own.filter((move) => move.vm === vm.vm).map((move) => barOf(move, now));
    const place = queued.indexOf(vm);
    if (place !== -1) {
      const from = now + (Math.floor(place / drain.movesAtOnce) + 0.5) * expectedMs;
      bars.push({
        from,
        to: from + expectedMs,
        look: 'planned',
        says: `expected to move ${vm.to === null ? '' : `to ${vm.to}`}`,
        word: vm.to ?? '',
      });
    }
    return { key: vm.vm, name: <VmLink name={vm.name} />, bars, note: vm.state };
  });
}

function barOf({ phase, startedAt, endedAt, source, target, ended }: MigrationView, now: number): GanttBar {
  const look = !ended ? 'run' : phase === 'completed' ? 'done' : phase === 'failed' ? 'bad' : 'quiet';
  const to = endedAt ?? now;
  return {
    from: startedAt,
    to,
    look,
    says: `${source} to ${target}: ${phase}, ${duration(to - startedAt)}`,
    word: target,
  };
}
