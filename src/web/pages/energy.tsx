/** Energy: what hosts drew, what sleep saved, who sleeps, and what could. */
import { useEffect, useState } from 'react';
import { messageOf } from '../../model/failure.ts';
import type { EnergyView, PowerPlanView } from '../../wire/energy.ts';
import { live, useLive } from '../live.ts';
import { setQuery, useQuery } from '../router.ts';
import { duration, moment, percent, plural, wattHours } from '../words.ts';
import { Badge } from '../parts/badge.tsx';
import { Empty } from '../parts/empty.tsx';
import { HostLink, VmLink } from '../parts/link.tsx';
import { Figure, PageFrame, Section } from '../parts/page.tsx';
import { Rows, type Column } from '../parts/rows.tsx';

const readEveryMs = 60_000;
type Row = EnergyView['rows'][number];

export function EnergyPage() {
  const by = useQuery().get('by') === 'vm' ? 'vm' : 'host';
  const [energy, setEnergy] = useState<EnergyView>();
  const [plan, setPlan] = useState<PowerPlanView>();
  const [trouble, setTrouble] = useState<string>();
  useEffect(() => {
    const read = (): void => {
      const { client } = live();
      client
        .getEnergy({ query: { by } })
        .then(setEnergy)
        .catch((error: unknown) => setTrouble(messageOf(error)));
      client
        .getPowerPlan()
        .then(setPlan)
        .catch(() => setPlan(undefined)); // not enough is known yet: the section says so
    };
    read();
    const timer = setInterval(read, readEveryMs);
    return () => clearInterval(timer);
  }, [by]);
  if (energy === undefined)
    return trouble === undefined ? (
      <Empty title="Adding up" busy />
    ) : (
      <Empty title="Energy cannot be read" says={trouble} />
    );
  const { total } = energy;
  return (
    <PageFrame
      title="Energy"
      about={
        <span className="muted">
          {moment(energy.since)} to {moment(energy.until)}
        </span>
      }
      actions={
        <label>
          By
          <select value={by} onChange={(event) => setQuery({ by: event.target.value })}>
            <option value="host">host</option>
            <option value="vm">VM</option>
          </select>
        </label>
      }
    >
      <div className="figures">
        <Figure
          word="Used"
          value={wattHours(total.usedWh)}
          about={`${percent(total.usedWh > 0 ? total.measuredWh / total.usedWh : 0)} of it measured`}
        />
        <Figure word="Saved by sleep" value={wattHours(total.savedWh)} about="what sleepers would have drawn idle" />
        <Figure word="With all hosts on" value={wattHours(total.alwaysOnWh)} about="used and saved" />
      </div>
      <ul className="notes">
        {energy.says.map((each) => (
          <li key={each}>{each}</li>
        ))}
      </ul>
      <Section title={by === 'host' ? 'By host' : 'By VM'}>
        {energy.rows.length === 0 ? (
          <Empty title="Nothing has been counted yet" says="It is counted once a minute." />
        ) : (
          <Rows says="Energy" rows={energy.rows} columns={columnsOf(energy)} keyOf={({ id }) => id} />
        )}
      </Section>
      <Sleepers />
      {plan !== undefined && <PowerPlan plan={plan} />}
    </PageFrame>
  );
}

function columnsOf({ rows, by }: EnergyView): readonly Column<Row>[] {
  const most = Math.max(1e-9, ...rows.map(({ wh, savedWh }) => wh + (savedWh ?? 0)));
  const common: readonly Column<Row>[] = [
    {
      word: 'Name',
      width: 'minmax(80px, 1fr)',
      cell: ({ name }) => (by === 'host' ? <HostLink name={name} /> : <VmLink name={name} />),
    },
    {
      word: 'Used and saved',
      width: 'minmax(100px, 2fr)',
      cell: ({ wh, savedWh }) => (
        <span className="stack" aria-hidden="true">
          <span className="used" style={{ width: `${(wh / most) * 100}%` }} />
          <span className="saved" style={{ width: `${((savedWh ?? 0) / most) * 100}%` }} />
        </span>
      ),
    },
    { word: 'Used', width: '100px', isNumber: true, cell: ({ wh }) => wattHours(wh) },
  ];
  if (by === 'vm') return common;
  return [
    ...common,
    {
      word: 'Saved',
      width: '100px',
      isNumber: true,
      isMinor: true,
      cell: ({ savedWh }) => (savedWh === null ? '–' : wattHours(savedWh)),
    },
    {
      word: 'Asleep',
      width: '110px',
      isNumber: true,
      isMinor: true,
      cell: ({ asleepMs }) => (asleepMs === null ? '–' : duration(asleepMs)),
    },
    { word: 'How it is known', width: 'minmax(120px, 1.4fr)', isMinor: true, cell: ({ known }) => known ?? '–' },
  ];
}

function Sleepers() {
  const hosts = useLive((store) => store.hosts.list());
  const spoken = hosts.filter(({ sleep }) => sleep !== null);
  return (
    <Section title="Sleep" about="a host sleeps only after it was woken once">
      {spoken.length === 0 ? (
        <Empty title="No host may sleep" says="drover host sleep HOST --help says how that is set up" />
      ) : (
        <ul className="list">
          {spoken.map(({ name, sleep }) => (
            <li key={name}>
              <HostLink name={name} />
              <Badge
                tone={sleep?.state === 'wake-failed' ? 'bad' : sleep?.state === 'awake' ? 'ok' : 'quiet'}
                icon={sleep?.state === 'awake' ? 'ok' : sleep?.state === 'wake-failed' ? 'bad' : 'moon'}
              >
                {sleep?.state ?? 'awake'}
              </Badge>
              <span className="muted grow">{sleep?.refusal ?? sleep?.because ?? ''}</span>
              <span className="muted">
                {sleep?.proof ? `woken last ${moment(sleep.proof.at)}` : 'never woken'}
                {sleep?.readyWithinMs ? `, ready within ${duration(sleep.readyWithinMs)}` : ''}
              </span>
            </li>
          ))}
        </ul>
      )}
    </Section>
  );
}

const choices = [
  ['wake', 'Must be woken'],
  ['sleep', 'May sleep'],
  ['keep', 'Stay on'],
] as const;

function PowerPlan({ plan }: { plan: PowerPlanView }) {
  return (
    <Section title="What would be next" about="nothing of this is done by looking at it">
      {choices.map(([key, word]) =>
        plan[key].length === 0 ? null : (
          <details key={key} open={key !== 'keep'}>
            <summary>
              {word}: {plural(plan[key].length, 'host')}
            </summary>
            <ul className="reasons">
              {plan[key].map(({ host, because }) => (
                <li key={host}>
                  <HostLink name={host} />
                  <span className="muted">{because}</span>
                </li>
              ))}
            </ul>
          </details>
        ),
      )}
    </Section>
  );
}
