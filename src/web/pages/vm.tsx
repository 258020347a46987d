/** One VM: its load, where it has lived and why it moved. */
import { useEffect, useMemo, useState } from 'react';
import type { MigrationView, VmView } from '../../wire/endpoints.ts';
import { live, useLive } from '../live.ts';
import { pathTo } from '../router.ts';
import { cores, duration, mebibytes, moment, percent } from '../words.ts';
import { Gantt, type GanttBar } from '../charts/gantt.tsx';
import { LineChart } from '../charts/line-chart.tsx';
import { Act } from '../parts/act.tsx';
import { PhaseBadge, VmBadge } from '../parts/badge.tsx';
import { Empty } from '../parts/empty.tsx';
import { HostLink, Link } from '../parts/link.tsx';
import { MoveDialog } from '../parts/move-dialog.tsx';
import { tellRefusal, useDoing } from '../parts/notices.tsx';
import { Facts, Figure, PageFrame, Section, useNow } from '../parts/page.tsx';
import { useLoad } from '../parts/use-load.ts';
import { Wide } from '../parts/wide.tsx';

export function VmPage({ name }: { name: string }) {
  const vm = useLive((store) => store.vm(name));
  if (vm) return <Known vm={vm} />;
  return (
    <Empty title={`There is no VM called ${name}`}>
      <Link to="/vms">All VMs</Link>
    </Empty>
  );
}

function Known({ vm }: { vm: VmView }) {
  const load = useLoad('vm', vm.id);
  const all = useLive((store) => store.migrations.list());
  const moves = useMemo(() => all.filter((migration) => migration.vm === vm.id), [all, vm.id]);
  useEffect(() => {
    live()
      .client.listMigrations({ query: { vm: vm.id, limit: 200 } })
      .then((older) => live().keep(older))
      .catch(tellRefusal);
  }, [vm.id]);
  return (
    <PageFrame
      title={vm.name}
      about={
        <>
          <VmBadge vm={vm} />
          <span>
            on <HostLink name={vm.host} />
          </span>
          {vm.message !== null && <span className="muted">{vm.message}</span>}
        </>
      }
      actions={<Actions vm={vm} />}
    >
      <div className="figures">
        <Figure word="Cores in use" value={cores(vm.cpuCores)} about={`of ${vm.cpus}`} />
        <Figure
          word="CPU"
          value={vm.cpuCores === null ? '–' : percent(vm.cpuCores / vm.cpus)}
          about="of what it may use"
        />
        <Figure
          word="Memory"
          value={mebibytes(vm.memoryMiB)}
          about={`${mebibytes(vm.memoryResidentMiB)} on the host`}
        />
        <Figure word="Moves" value={moves.length} about={moves.length === 0 ? 'it has never moved' : 'on record'} />
      </div>
      <Section title="Load" about="cores in use">
        {load.at.length < 2 ? (
          <Empty title={vm.state === 'running' ? 'Waiting for the first loads' : 'It does not run'} />
        ) : (
          <LineChart
            says={`Cores that ${vm.name} uses over time`}
            at={load.at}
            max={vm.cpus}
            height={170}
            format={(value) => value.toFixed(1)}
            lines={[{ word: 'cores', colour: '--accent', values: load.value }]}
          />
        )}
      </Section>
      <Section title="Where it has lived">
        <Lived vm={vm} moves={moves} />
      </Section>
      <Section title="Why it moved">
        {moves.length === 0 ? <Empty title="It has never moved" /> : <MovesOf moves={moves} />}
      </Section>
      <Section title="What it is">
        <Facts
          rows={[
            ['Machine', `${vm.machine}, ${vm.cpuModel}`],
            ['Boots from', vm.boot],
            ['Disks', vm.disks.map(({ pool, file }) => `${pool}:${file}`).join(', ') || 'none'],
            ['Network cards', vm.nics.map(({ network, mac }) => `${network} ${mac}`).join(', ') || 'none'],
            ['Address', vm.address ?? 'not said'],
            ['When its host is lost', vm.recovery === 'restart' ? 'started elsewhere' : 'left for a person'],
            ['When its guest dies', vm.restart],
            ['Priority', vm.priority],
            ['Apart from others of', vm.placing.apart.join(', ') || 'nobody'],
            ['Together with others of', vm.placing.together.join(', ') || 'nobody'],
            ['Pinned to', vm.placing.pinnedTo?.join(', ') ?? 'no host'],
            ['Created', moment(vm.createdAt)],
            ['Id', <code key="id">{vm.id}</code>],
          ]}
        />
      </Section>
    </PageFrame>
  );
}

function Actions({ vm }: { vm: VmView }) {
  const [moving, setMoving] = useState(false);
  const { busy, run } = useDoing();
  const params = { params: { vm: vm.id } };
  return (
    <>
      {vm.migration !== null && (
        <Link to={pathTo.migration(vm.migration)} className="button">
          Its move
        </Link>
      )}
      {['stopped', 'crashed'].includes(vm.state) && (
        <Act
          does="startVm"
          disabled={busy}
          onClick={() =>
            run(async () => {
              await live().client.startVm({ ...params, body: {} });
              return `${vm.name} starts.`;
            })
          }
        >
          Start
        </Act>
      )}
      <Act
        does="migrateVm"
        className="primary"
        disabled={vm.state !== 'running' || vm.migration !== null}
        onClick={() => setMoving(true)}
      >
        Move…
      </Act>
      {moving && <MoveDialog vm={vm} to={null} onClose={() => setMoving(false)} />}
    </>
  );
}

/** One bar a stay, and between them the moves. */
function Lived({ vm, moves }: { vm: VmView; moves: readonly MigrationView[] }) {
  const now = useNow(5000);
  const done = moves.filter(({ phase }) => phase === 'completed').toReversed();
  const bars = new Map<string, GanttBar[]>();
  const stay = (host: string, from: number, to: number): void => {
    const bar: GanttBar = {
      from,
      to,
      look: host === vm.host && to === now ? 'done' : 'quiet',
      says: `on ${host} for ${duration(to - from)}`,
      word: duration(to - from),
    };
    bars.set(host, [...(bars.get(host) ?? []), bar]);
  };
  let host = done[0]?.source ?? vm.host;
  let since = vm.createdAt;
  for (const { target, startedAt, endedAt } of done) {
    const at = endedAt ?? startedAt;
    stay(host, since, at);
    host = target;
    since = at;
  }
  stay(vm.host, since, now);
  return (
    <Gantt
      says={`Hosts on which ${vm.name} has lived`}
      from={vm.createdAt}
      to={now}
      clock
      rows={[...bars].map(([name, stays]) => ({ key: name, name: <HostLink name={name} />, bars: stays }))}
    />
  );
}

function MovesOf({ moves }: { moves: readonly MigrationView[] }) {
  return (
    <Wide says="Moves">
      <table>
        <thead>
          <tr>
            <th scope="col">When</th>
            <th scope="col">From and to</th>
            <th scope="col">Outcome</th>
            <th scope="col">Why</th>
            <th scope="col" className="number">
              Downtime
            </th>
            <th scope="col" className="number">
              Total
            </th>
          </tr>
        </thead>
        <tbody>
          {moves.map((move) => (
            <tr key={move.id}>
              <td>
                <Link to={pathTo.migration(move.id)}>{moment(move.startedAt)}</Link>
              </td>
              <td>
                {move.source} → {move.target}
              </td>
              <td>
                <PhaseBadge migration={move} />
              </td>
              <td>{move.why.map(({ text }) => text).join('; ') || <span className="muted">nobody said</span>}</td>
              <td className="number">{duration(move.measures.downtimeMs)}</td>
              <td className="number">{duration(move.measures.totalMs)}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </Wide>
  );
}
