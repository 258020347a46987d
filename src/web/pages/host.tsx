/** One host: what it carries, its guests, and emptying it with the cost shown first. */
import { useEffect, useState } from 'react';
import { messageOf } from '../../model/failure.ts';
import type { DrainView } from '../../wire/drains.ts';
import type { HostView } from '../../wire/endpoints.ts';
import { live, useLive } from '../live.ts';
import { goTo, pathTo } from '../router.ts';
import { bytes, duration, mebibytes, moment, percent, plural } from '../words.ts';
import { LineChart } from '../charts/line-chart.tsx';
import { Act } from '../parts/act.tsx';
import { HostBadge } from '../parts/badge.tsx';
import { Dialog } from '../parts/dialog.tsx';
import { Empty } from '../parts/empty.tsx';
import { Link } from '../parts/link.tsx';
import { tell, tellRefusal, useDoing } from '../parts/notices.tsx';
import { Facts, Figure, PageFrame, Section } from '../parts/page.tsx';
import { useLoad } from '../parts/use-load.ts';
import { VmTable } from '../parts/vm-table.tsx';
import { Wide } from '../parts/wide.tsx';

export function HostPage({ name }: { name: string }) {
  const host = useLive((store) => store.host(name));
  const vms = useLive((store) => store.vmsByHost().get(host?.name ?? name));
  const load = useLoad('host', host?.id ?? '');
  if (!host)
    return (
      <Empty title={`There is no host called ${name}`}>
        <Link to="/">To the fleet</Link>
      </Empty>
    );
  const { sickness, fenced } = host;
  return (
    <PageFrame
      title={host.name}
      about={
        <>
          <HostBadge host={host} />
          <span className="muted">
            {plural(vms?.length ?? 0, 'VM')}, {host.cpus} CPUs, {mebibytes(host.memoryMiB)}
          </span>
        </>
      }
      actions={<Actions host={host} />}
    >
      {sickness !== null && (
        <p className="banner">
          {sickness.severity === 'failing' ? 'Failing' : 'Suspect'} since {moment(sickness.at)}: {sickness.because} (
          {sickness.by})
        </p>
      )}
      {fenced !== null && (
        <p className="banner">
          Proven to run no guests since {moment(fenced.at)} by {fenced.proof.replace('-', ' ')}: {fenced.because}
        </p>
      )}
      <div className="figures">
        <Figure word="CPU" value={percent(host.cpuLoad)} about={`of ${host.cpus} CPUs`} />
        <Figure
          word="Memory given"
          value={percent(host.usedMiB / Math.max(1, host.capacityMiB))}
          about={`${mebibytes(host.usedMiB)} of ${mebibytes(host.capacityMiB)}`}
        />
        <Figure word="Memory in use" value={mebibytes(host.memoryUsedMiB)} about="as the host says" />
        <Figure word="Reserved" value={mebibytes(host.reservedMiB)} about="for moves on their way here" />
      </div>
      <Section title="CPU" about="share of all cores">
        {load.at.length < 2 ? (
          <Empty title="Waiting for the first loads" busy />
        ) : (
          <LineChart
            says={`CPU load of ${host.name} over time`}
            at={load.at}
            max={1}
            height={170}
            format={(value) => percent(value)}
            lines={[{ word: 'CPU', colour: '--accent', values: load.value }]}
          />
        )}
      </Section>
      <Section title="Guests">
        {vms === undefined || vms.length === 0 ? <Empty title="No VM is on this host" /> : <VmTable vms={vms} />}
      </Section>
      <Section title="What it is">
        <Facts
          rows={[
            ['Last report', host.lastReportAt === null ? 'never' : moment(host.lastReportAt)],
            ['Guests run by', host.accel === 'kvm' ? 'KVM' : 'emulation'],
            ['QEMU', host.qemuVersion],
            ['Live moves', host.liveMigration.ok ? 'yes' : (host.liveMigration.reason ?? 'no')],
            ['Post-copy here', host.postCopy.ok ? 'yes' : (host.postCopy.reason ?? 'no')],
            ['Migration address', host.migrationAddress],
            ['Networks', host.networks.join(', ') || 'none'],
            ['Pools', host.pools.join(', ') || 'none'],
            ['Power controller', host.power ?? 'none'],
            [
              'Labels',
              Object.entries(host.labels)
                .map(([key, value]) => `${key}=${value}`)
                .join(', ') || 'none',
            ],
          ]}
        />
      </Section>
    </PageFrame>
  );
}

function Actions({ host }: { host: HostView }) {
  const { busy, run } = useDoing();
  const [draining, setDraining] = useState(false);
  const { name } = host;
  const params = { params: { host: name } };
  return (
    <>
      {host.drain === null ? (
        <Act
          does={host.cordoned ? 'uncordonHost' : 'cordonHost'}
          disabled={busy}
          onClick={() =>
            run(async () => {
              await (host.cordoned ? live().client.uncordonHost(params) : live().client.cordonHost(params));
              return host.cordoned ? `VMs may be placed on ${name} again.` : `Nothing more is placed on ${name}.`;
            })
          }
        >
          {host.cordoned ? 'Uncordon' : 'Cordon'}
        </Act>
      ) : (
        <Act
          does="undrainHost"
          disabled={busy}
          onClick={() =>
            run(async () => {
              live().keepDrain(await live().client.undrainHost({ ...params, body: {} }));
              return `${name} takes VMs again; those that its drain took away come back.`;
            })
          }
        >
          Undrain
        </Act>
      )}
      <Act
        does="drainHost"
        className="primary"
        disabled={busy || host.state === 'silent'}
        onClick={() => setDraining(true)}
      >
        Drain…
      </Act>
      {draining && <DrainDialog host={host} onClose={() => setDraining(false)} />}
    </>
  );
}

/** What the drain would be is asked of the server first; nothing happens before the last button. */
export function DrainDialog({ host, onClose }: { host: HostView; onClose: () => void }) {
  const [dry, setDry] = useState<DrainView>();
  const [refusal, setRefusal] = useState<string>();
  const [because, setBecause] = useState('');
  const [busy, setBusy] = useState(false);
  const params = { host: host.name };
  useEffect(() => {
    live()
      .client.drainHost({ params: { host: host.name }, body: { dryRun: true } })
      .then(setDry)
      .catch((error: unknown) => setRefusal(messageOf(error)));
  }, [host.name]);
  const drain = (): void => {
    setBusy(true);
    live()
      .client.drainHost({ params, body: { because: because.trim() || null } })
      .then((begun) => {
        live().keepDrain(begun);
        tell(`${host.name} is drained: ${plural(begun.total, 'VM')} leave it.`);
        goTo(pathTo.drain(begun.id));
      })
      .catch((error: unknown) => {
        tellRefusal(error);
        setBusy(false);
      });
  };
  const stuck = dry?.vms.filter(({ state }) => state === 'stuck') ?? [];
  return (
    <Dialog
      title={`Drain ${host.name}`}
      onClose={onClose}
      actions={
        <>
          <button type="button" onClick={onClose}>
            Leave it as it is
          </button>
          <Act does="drainHost" className="primary" disabled={busy || dry === undefined} onClick={drain}>
            {busy ? 'Beginning' : 'Drain it'}
          </Act>
        </>
      }
    >
      {refusal !== undefined && (
        <p className="refusal" role="alert">
          {refusal}
        </p>
      )}
      {dry === undefined && refusal === undefined && <Empty title="Working out where its VMs go" busy />}
      {dry !== undefined && (
        <>
          <p>
            {plural(dry.estimate.moves, 'VM')} can move, {bytes(dry.estimate.bytes)} to send, about{' '}
            {duration(Math.ceil(dry.estimate.ms / 1000) * 1000)}. {dry.movesAtOnce} at a time. New VMs are not placed
            here.
          </p>
          {stuck.length > 0 && (
            <p className="refusal">
              {plural(stuck.length, 'VM')} cannot leave:{' '}
              {stuck.map(({ name, says }) => `${name} (${says ?? 'no reason'})`).join(', ')}
            </p>
          )}
          <Wide says="Where its VMs would go">
            <table>
              <thead>
                <tr>
                  <th scope="col">VM</th>
                  <th scope="col" className="number">
                    Memory
                  </th>
                  <th scope="col">To</th>
                  <th scope="col">By</th>
                </tr>
              </thead>
              <tbody>
                {dry.vms.map((vm) => (
                  <tr key={vm.vm}>
                    <td>{vm.name}</td>
                    <td className="number">{mebibytes(vm.memoryMiB)}</td>
                    <td>{vm.to ?? '–'}</td>
                    <td>{vm.technique ?? vm.says ?? '–'}</td>
                  </tr>
                ))}
              </tbody>
            </table>
          </Wide>
          <label className="field">
            Why (optional)
            <input value={because} maxLength={500} onChange={(event) => setBecause(event.target.value)} />
          </label>
        </>
      )}
    </Dialog>
  );
}
