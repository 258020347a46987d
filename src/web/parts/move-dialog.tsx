/** Before a guest is moved: where to, what it would cost by each technique, and the limit it is held to. Nothing happens before the last button. */
import { useEffect, useId, useState } from 'react';
import { messageOf } from '../../model/failure.ts';
import { techniques, type Technique } from '../../model/migration.ts';
import type { VmView } from '../../wire/endpoints.ts';
import type { ForecastTable } from '../../wire/forecast.ts';
import { live, useLive } from '../live.ts';
import { pathTo } from '../router.ts';
import { bytes, duration } from '../words.ts';
import { Act } from './act.tsx';
import { Dialog } from './dialog.tsx';
import { Empty } from './empty.tsx';
import { tell, tellRefusal } from './notices.tsx';
import { Wide } from './wide.tsx';

type Asked =
  | { readonly kind: 'measuring' }
  | { readonly kind: 'refused'; readonly says: string }
  | { readonly kind: 'known'; readonly table: ForecastTable };

const limits = [
  [null, "as the technique's own"],
  [50, '50 ms'],
  [100, '100 ms'],
  [300, '300 ms'],
  [1000, '1 s'],
] as const;

/** @param to a host; null: the person chooses it here, or it is left to the server */
export function MoveDialog({ vm, to, onClose }: { vm: VmView; to: string | null; onClose: () => void }) {
  const hosts = useLive((store) => store.hosts.list());
  const [target, setTarget] = useState(to);
  const [technique, setTechnique] = useState<Technique>('auto');
  const [limitMs, setLimit] = useState<number | null>(null);
  const [asked, setAsked] = useState<Asked>({ kind: 'measuring' });
  const [busy, setBusy] = useState(false);
  const id = useId();

  useEffect(() => {
    const over = new AbortController();
    setAsked({ kind: 'measuring' });
    const policy = limitMs === null ? {} : { maxDowntimeMs: limitMs };
    live()
      .client.forecastVm({ params: { vm: vm.id }, body: { to: target, policy } }, { signal: over.signal })
      .then((table) => setAsked({ kind: 'known', table }))
      .catch((error: unknown) => over.signal.aborted || setAsked({ kind: 'refused', says: messageOf(error) }));
    return () => over.abort();
  }, [vm.id, target, limitMs]);

  const refusal = asked.kind === 'known' ? rowOf(asked.table, technique)?.refused : null;
  const move = (): void => {
    setBusy(true);
    const policy = limitMs === null ? {} : { maxDowntimeMs: limitMs };
    live()
      .client.migrateVm({
        params: { vm: vm.id },
        body: { to: target, technique, policy, why: 'asked for in the dashboard' },
      })
      .then((migration) => {
        live().keep([migration]);
        tell(
          `${migration.vmName} moves from ${migration.source} to ${migration.target}.`,
          pathTo.migration(migration.id),
        );
        onClose();
      })
      .catch((error: unknown) => {
        tellRefusal(error);
        setBusy(false);
      });
  };

  const chosen = asked.kind === 'known' ? asked.table.target : target;
  return (
    <Dialog
      title={`Move ${vm.name}${chosen === null ? '' : ` to ${chosen}`}`}
      onClose={onClose}
      actions={
        <>
          <button type="button" onClick={onClose}>
            Leave it on {vm.host}
          </button>
          <Act
            does="migrateVm"
            className="primary"
            disabled={busy || asked.kind !== 'known' || typeof refusal === 'string'}
            onClick={move}
          >
            {busy ? 'Beginning' : `Move it`}
          </Act>
        </>
      }
    >
      <div className="fields">
        <label htmlFor={`${id}-to`}>
          From {vm.host} to
          <select id={`${id}-to`} value={target ?? ''} onChange={(event) => setTarget(event.target.value || null)}>
            <option value="">where it fits best</option>
            {hosts.map(({ name, state }) => (
              <option key={name} value={name} disabled={name === vm.host || state === 'silent'}>
                {name}
              </option>
            ))}
          </select>
        </label>
        <label htmlFor={`${id}-limit`}>
          Downtime at most
          <select
            id={`${id}-limit`}
            value={limitMs ?? ''}
            onChange={(event) => setLimit(event.target.value === '' ? null : Number(event.target.value))}
          >
            {limits.map(([value, says]) => (
              <option key={says} value={value ?? ''}>
                {says}
              </option>
            ))}
          </select>
        </label>
      </div>
      {asked.kind === 'measuring' && <Empty title="Measuring how much the guest writes" busy />}
      {asked.kind === 'refused' && (
        <p className="refusal" role="alert">
          {asked.says}
        </p>
      )}
      {asked.kind === 'known' && <Forecasts table={asked.table} technique={technique} onChoose={setTechnique} />}
    </Dialog>
  );
}

function rowOf({ techniques: rows }: ForecastTable, technique: Technique) {
  return rows.find((row) => row.technique === technique);
}

const tells: Record<Technique, string> = {
  auto: 'begins as pre-copy, switches when the guest writes too fast',
  'pre-copy': 'copied while it runs; a failure costs nothing',
  'post-copy': 'runs on the target at once, memory follows',
  hybrid: 'one round of copying, then as post-copy',
  cold: 'shut down, started again on the target',
};

function Forecasts(props: { table: ForecastTable; technique: Technique; onChoose: (technique: Technique) => void }) {
  const { table, technique, onChoose } = props;
  return (
    <Wide says="Forecasts">
      <table className="forecasts">
        <caption className="sr-only">What the move would cost by each technique</caption>
        <thead>
          <tr>
            <th scope="col">Technique</th>
            <th scope="col" className="number">
              Downtime
            </th>
            <th scope="col" className="number">
              Total
            </th>
            <th scope="col" className="number">
              Sent
            </th>
          </tr>
        </thead>
        <tbody>
          {techniques.map((each) => {
            const row = rowOf(table, each);
            const forecast = row?.forecast ?? null;
            return (
              <tr key={each} className={each === technique ? 'chosen' : ''}>
                <th scope="row">
                  <label className="check">
                    <input
                      type="radio"
                      name="technique"
                      checked={each === technique}
                      disabled={forecast === null}
                      onChange={() => onChoose(each)}
                    />
                    <span>
                      {each}
                      <span className="muted block">{row?.refused ?? forecast?.because ?? tells[each]}</span>
                    </span>
                  </label>
                </th>
                <td className="number">{forecast === null ? '–' : duration(forecast.downtimeMs)}</td>
                <td className="number">{forecast === null ? '–' : duration(forecast.totalMs)}</td>
                <td className="number">{forecast === null ? '–' : bytes(forecast.bytes)}</td>
              </tr>
            );
          })}
        </tbody>
      </table>
    </Wide>
  );
}
