/** Lost hosts: how long until each was noticed, proven dead, its VMs placed, and running again. */
import { useEffect, useState } from 'react';
import { messageOf } from '../../model/failure.ts';
import type { RecoveryView } from '../../wire/recovery.ts';
import { live, useLive } from '../live.ts';
import { pathTo } from '../router.ts';
import { duration, moment, plural } from '../words.ts';
import { Gantt, type GanttBar, type GanttRow } from '../charts/gantt.tsx';
import { Badge } from '../parts/badge.tsx';
import { Empty } from '../parts/empty.tsx';
import { HostLink, Link, VmLink } from '../parts/link.tsx';
import { Figure, PageFrame, Section, useNow } from '../parts/page.tsx';

export function FailuresPage() {
  const recoveries = useLive((store) => store.recoveries.list());
  const alarms = useLive((store) => store.alarms);
  return (
    <PageFrame title="Failures">
      {alarms.length > 0 && (
        <Section title="Alarms" about="since this page was opened">
          <ul className="list">
            {alarms.map(({ at, about, says }) => (
              <li key={`${at} ${says}`}>
                <span className="muted">{moment(at)}</span>
                <strong>{about}</strong>
                <span className="grow">{says}</span>
              </li>
            ))}
          </ul>
        </Section>
      )}
      {recoveries.length === 0 ? (
        <Empty
          title="No host has been lost"
          says="When one is, here stands what proved it and how soon its VMs ran again."
        />
      ) : (
        recoveries.map((recovery) => (
          <Section
            key={recovery.id}
            title={recovery.host}
            about={`lost ${moment(recovery.silentSince ?? recovery.detectedAt)}`}
            actions={
              <>
                <Outcome recovery={recovery} />
                <Link to={pathTo.failure(recovery.id)} className="button">
                  Show it
                </Link>
              </>
            }
          >
            <RecoveryFigures recovery={recovery} />
          </Section>
        ))
      )}
    </PageFrame>
  );
}

function Outcome({ recovery }: { recovery: RecoveryView }) {
  const again = recovery.vms.filter(({ kind }) => kind === 'restart');
  const running = again.filter(({ startedAt }) => startedAt !== null).length;
  const isAll = running === again.length;
  return (
    <Badge tone={isAll ? 'ok' : recovery.endedAt === null ? 'run' : 'warn'} icon={isAll ? 'ok' : 'wait'}>
      {`${running} of ${again.length} run again`}
    </Badge>
  );
}

function RecoveryFigures({ recovery }: { recovery: RecoveryView }) {
  const longest = (of: (vm: RecoveryView['vms'][number]) => number | null): number | null => {
    const known = recovery.vms.flatMap((vm) => of(vm) ?? []);
    return known.length === 0 ? null : Math.max(...known);
  };
  return (
    <div className="figures">
      <Figure word="Noticed" value={duration(recovery.detectMs)} about="after its last report" />
      <Figure word="Proven dead" value={duration(recovery.fenceMs)} about={`by ${recovery.proof.replace('-', ' ')}`} />
      <Figure word="Placed" value={duration(longest(({ placeMs }) => placeMs))} about="the last of its VMs" />
      <Figure word="Started" value={duration(longest(({ bootMs }) => bootMs))} about="the slowest of them" />
      <Figure
        word="Running again"
        value={duration(longest(({ totalMs }) => totalMs))}
        about="after the last report, all of them"
      />
    </div>
  );
}

export function FailurePage({ id }: { id: string }) {
  const known = useLive((store) => store.recoveries.get(id));
  const [read, setRead] = useState<RecoveryView>();
  const [trouble, setTrouble] = useState<string>();
  useEffect(() => {
    if (live().recoveries.get(id)) return;
    live()
      .client.getRecovery({ params: { recovery: id } })
      .then(setRead)
      .catch((error: unknown) => setTrouble(messageOf(error)));
  }, [id]);
  const recovery = known ?? read;
  if (recovery) return <Known recovery={recovery} />;
  return trouble === undefined ? (
    <Empty title="Reading what happened" busy />
  ) : (
    <Empty title="There is no such failure" says={trouble}>
      <Link to="/failures">All failures</Link>
    </Empty>
  );
}

function Known({ recovery }: { recovery: RecoveryView }) {
  const now = useNow(recovery.endedAt === null ? 500 : 60_000);
  const from = recovery.silentSince ?? recovery.detectedAt;
  const to = recovery.endedAt ?? Math.max(now, recovery.fencedAt);
  return (
    <PageFrame
      title={`${recovery.host} was lost`}
      about={
        <>
          <Outcome recovery={recovery} />
          <span>{recovery.because}</span>
          <span className="muted">
            {moment(from)}, said by {recovery.by}
          </span>
        </>
      }
    >
      <RecoveryFigures recovery={recovery} />
      <Section title="From the last report on" about={`${plural(recovery.vms.length, 'VM')} of the host`}>
        <Gantt
          says={`What happened when ${recovery.host} was lost`}
          from={from}
          to={Math.max(to, from + 1000)}
          rows={[hostRow(recovery, from), ...recovery.vms.map((vm) => vmRow(vm, recovery, to))]}
        />
        <ul className="legend">
          <li className="wait">not noticed</li>
          <li className="bad">noticed, not proven</li>
          <li className="planned">waits for a place</li>
          <li className="run">starts</li>
          <li className="done">runs again</li>
        </ul>
      </Section>
      <Section title="VM by VM">
        <ul className="list">
          {recovery.vms.map((vm) => (
            <li key={vm.vm}>
              <VmLink name={vm.name} />
              <span>{vm.state}</span>
              {vm.target !== null && (
                <span>
                  on <HostLink name={vm.target} />
                </span>
              )}
              <span className="muted grow">{vm.says ?? (vm.kind === 'left' ? 'left for a person' : '')}</span>
              <span className="number">{duration(vm.totalMs)}</span>
            </li>
          ))}
        </ul>
      </Section>
    </PageFrame>
  );
}

function hostRow({ host, detectedAt, fencedAt }: RecoveryView, from: number): GanttRow {
  return {
    key: host,
    name: <HostLink name={host} />,
    note: 'host',
    bars: [
      {
        from,
        to: detectedAt,
        look: 'wait',
        says: `not noticed for ${duration(detectedAt - from)}`,
        word: duration(detectedAt - from),
      },
      {
        from: detectedAt,
        to: fencedAt,
        look: 'bad',
        says: `not proven dead for ${duration(fencedAt - detectedAt)}`,
        word: duration(fencedAt - detectedAt),
      },
    ],
  };
}

function vmRow(vm: RecoveryView['vms'][number], { fencedAt }: RecoveryView, to: number): GanttRow {
  const placed = vm.placedAt ?? to;
  const started = vm.startedAt ?? to;
  const bars: GanttBar[] = [];
  if (vm.kind === 'restart') {
    bars.push({
      from: fencedAt,
      to: placed,
      look: 'planned',
      says: `waited for a place for ${duration(placed - fencedAt)}`,
    });
    if (vm.placedAt !== null)
      bars.push({
        from: placed,
        to: started,
        look: 'run',
        says: `started in ${duration(started - placed)}`,
        word: vm.target ?? '',
      });
    if (vm.startedAt !== null)
      bars.push({ from: started, to, look: 'done', says: `runs on ${vm.target ?? 'its host'}` });
  }
  return { key: vm.vm, name: <VmLink name={vm.name} />, bars, note: vm.kind === 'left' ? 'left' : undefined };
}
