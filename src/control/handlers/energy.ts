/** Sleep of hosts and energy over the API. */
import { wattsSources, type EnergyRecord, type WattsSource } from '../../model/energy.ts';
import { UserError } from '../../model/failure.ts';
import type { HostRecord } from '../../model/host.ts';
import type { EnergyView } from '../../wire/energy.ts';
import type { Handler } from '../handler.ts';
import type { ControlPlane } from '../plane.ts';
import { sleepView } from '../views.ts';

export const getHostSleep: Handler<'getHostSleep'> = ({ params }, { plane }) =>
  view(plane, plane.fleet.findHost(params.host));

export const setHostSleep: Handler<'setHostSleep'> = async ({ params, body }, { plane }) =>
  view(plane, await plane.sleep.setWay(params.host, body.way));

export const sendHostToSleep: Handler<'sendHostToSleep'> = async ({ params, body }, { plane, actor }) => {
  const { drill, because, dryRun } = body;
  return view(plane, await plane.sleep.send(params.host, { by: actor.name, because }, { drill, dryRun }));
};

export const wakeHost: Handler<'wakeHost'> = async ({ params, body }, { plane, actor }) => {
  const { because, dryRun } = body;
  return view(plane, await plane.sleep.wake(params.host, { by: actor.name, because }, { dryRun }));
};

export const setHostWatts: Handler<'setHostWatts'> = async ({ params, body }, { plane }) => {
  const { watts } = body;
  if (watts && watts.idle > watts.max) {
    const hint = 'Give the idle watts first, for example --idle 60 --max 220.';
    throw new UserError('invalid-input', `A host that draws ${watts.idle} W idle draws no less when busy.`, hint);
  }
  return view(plane, await plane.sleep.setWatts(params.host, watts));
};

const sourceNames = { bmc: 'BMC', rapl: 'RAPL', model: 'model' } as const satisfies Record<WattsSource, string>;

export const getEnergy: Handler<'getEnergy'> = ({ query }, { plane }): EnergyView => {
  const { fleet, clock } = plane;
  const until = clock.now();
  const first = new Date(query.since ?? until - 7 * 86_400_000).toISOString().slice(0, 10);
  const records = [...fleet.energies.values()].filter(({ day }) => day >= first);
  const sum = (numbers: readonly number[]): number => numbers.reduce((a, b) => a + b, 0);
  const whOf = (source: WattsSource, of = records): number => sum(of.map(({ wh }) => wh[source]));
  const usedWh = sum(wattsSources.map((source) => whOf(source)));
  const savedWh = sum(records.map((record) => record.savedWh));
  return {
    since: Date.parse(first),
    until,
    by: query.by,
    total: { usedWh, measuredWh: whOf('bmc'), savedWh, alwaysOnWh: usedWh + savedWh },
    rows: query.by === 'host' ? hostRows(records) : vmRows(records),
    says: energySays(usedWh, whOf('rapl'), whOf('model'), query.by),
  };

  function hostRows(all: readonly EnergyRecord[]): EnergyView['rows'] {
    return [...Map.groupBy(all, ({ host }) => host)]
      .map(([id, of]) => {
        const wh = sum(wattsSources.map((source) => whOf(source, of)));
        const shares = wattsSources.map((source) => ({ source, share: wh > 0 ? whOf(source, of) / wh : 0 }));
        const used = shares.filter(({ share }) => share > 0.005);
        const known = used.map(({ source, share }) =>
          used.length === 1 ? sourceNames[source] : `${sourceNames[source]} ${Math.round(100 * share)} %`,
        );
        const latest = of.toSorted((a, b) => (a.day < b.day ? -1 : 1)).at(-1);
        return {
          id,
          name: latest?.hostName ?? id,
          wh,
          savedWh: sum(of.map((record) => record.savedWh)),
          asleepMs: sum(of.map((record) => record.asleepMs)),
          idleWatts: latest?.idleWatts ?? null,
          known: known.join(', '),
        };
      })
      .toSorted((a, b) => b.wh - a.wh || (a.name < b.name ? -1 : 1));
  }
};

function vmRows(records: readonly EnergyRecord[]): EnergyView['rows'] {
  const rows = new Map<string, { name: string; wh: number }>();
  for (const { vms } of records) {
    for (const [id, [name, wh]] of Object.entries(vms)) rows.set(id, { name, wh: (rows.get(id)?.wh ?? 0) + wh });
  }
  const nothing = { savedWh: null, asleepMs: null, idleWatts: null, known: null };
  return [...rows].map(([id, row]) => ({ id, ...row, ...nothing })).toSorted((a, b) => b.wh - a.wh);
}

function energySays(usedWh: number, raplWh: number, modelWh: number, by: 'host' | 'vm'): string[] {
  const percent = (wh: number): string => `${Math.round((100 * wh) / usedWh)} %`;
  return [
    ...(usedWh > 0 && modelWh > 0
      ? [`modelled: ${percent(modelWh)}, from load and the watts of \`drover host watts\`, or a default by cores`]
      : []),
    ...(raplWh > 0 ? [`RAPL: ${percent(raplWh)}; it measures processors and memory, not fans, disks and losses`] : []),
    'saved: what a sleeping host draws idle, as measured while it was awake, else by its model; its standby power is not taken off',
    ...(by === 'vm'
      ? ['by VM: a share by processor time, and of what the host draws idle by memory; the rest is the host’s own']
      : []),
  ];
}

export const getPowerPlan: Handler<'getPowerPlan'> = ({ query }, { plane }) => {
  const { sleep, wake, keep } = plane.energy.plan(query.tolerate === undefined ? {} : { tolerate: query.tolerate });
  return { sleep: [...sleep], wake: [...wake], keep: [...keep] };
};

function view(plane: ControlPlane, host: HostRecord) {
  const { fleet, sleep } = plane;
  return sleepView(host, fleet.sleeps.get(host.id), sleep.options, sleep.refusal(host)?.message ?? null);
}
