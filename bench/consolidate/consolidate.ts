/**
 * `bench consolidate`: Drover's consolidation beside the published policies, on days of CPU traces in the fleet of the
 * published comparisons (world.ts), by its rules (simulate.ts). Needs no lab and no root; nothing depends on the machine but
 * the seconds of planning.
 */
import { UserError } from '../../src/model/failure.ts';
import { aimText, spread, table, type Aim } from '../figures.ts';
import { droverPolicy } from './drover.ts';
import { peers } from './peers.ts';
import { simulateDay, slav, type DayFigures, type Policy } from './simulate.ts';
import { daysIn, formatText, readTrace } from './traces.ts';
import { publishedScene } from './world.ts';

const aims = { kWh: 135, migrations: 2700, slavE5: 1 } as const;

/** Does a VM whose demand is zero leave for good, as in the published figures, or does it stay and go on later? */
export const modes = ['compatible', 'stay'] as const;
export type Mode = (typeof modes)[number];

export interface ConsolidateOptions {
  /** Absent: refused, with a description of what belongs there. */
  readonly data: string | undefined;
  /** Absent: all that are there. */
  readonly days: readonly string[] | undefined;
  readonly modes: readonly Mode[];
  readonly say: (line: string) => void;
}

export interface Row extends DayFigures {
  readonly mode: Mode;
  readonly day: string;
  readonly policy: string;
  readonly slav: number;
  readonly esv: number;
}

const ours = 'Drover';
const strongest = 'LR-MMT 1.2';

/** A policy for each day anew: Drover's remembers when VMs moved. */
const contestants: readonly (() => Policy)[] = [droverPolicy, ...peers.map((peer) => () => peer)];

/** @throws UserError invalid-input: no directory, no such day, a broken file */
export function benchConsolidate({ data, days, modes: wanted, say }: ConsolidateOptions): Row[] {
  if (data === undefined) {
    throw new UserError('invalid-input', 'No directory with CPU traces was named.', `Use --data DIR.\n${formatText}`);
  }
  const known = daysIn(data);
  const chosen = days ?? known;
  if (chosen.length === 0) throw new UserError('invalid-input', `${data} holds no day of its index.`, formatText);
  const traces = chosen.map((day) => readTrace(data, day));
  return wanted.flatMap((mode) =>
    traces.flatMap((trace) => {
      const scene = publishedScene(trace);
      return contestants.map((contestant) => {
        const policy = contestant();
        say(`${mode}, ${trace.day}, ${trace.vms} VMs: ${policy.name}…`);
        const figures = simulateDay(scene, policy, { stay: mode === 'stay', clock: () => performance.now() / 1000 });
        const broken = slav(figures);
        return { mode, day: trace.day, policy: policy.name, ...figures, slav: broken, esv: figures.kWh * broken };
      });
    }),
  );
}

type Figure = Exclude<keyof Row, 'mode' | 'day' | 'policy'>;

/** Over the days; undefined where there is none. */
export function medianOf(rows: readonly Row[], mode: Mode, policy: string, figure: Figure): number | undefined {
  return spread(rows.filter((row) => row.mode === mode && row.policy === policy).map((row) => row[figure]))?.median;
}

export function consolidateAims(rows: readonly Row[]): Aim[] {
  return modes
    .filter((mode) => rows.some((row) => row.mode === mode))
    .flatMap((mode) => {
      const slavMedian = medianOf(rows, mode, ours, 'slav');
      const aim = (what: string, reached: number | undefined, atMost: number, unit: string): Aim => ({
        of: `${mode}, ${what}`,
        reached,
        atMost,
        unit,
      });
      return [
        aim('energy', medianOf(rows, mode, ours, 'kWh'), aims.kWh, ' kWh'),
        aim('migrations', medianOf(rows, mode, ours, 'migrations'), aims.migrations, ''),
        aim('SLAV', slavMedian === undefined ? undefined : slavMedian * 1e5, aims.slavE5, 'e-5'),
      ];
    });
}

const columns: readonly {
  readonly title: string;
  readonly figure: Figure;
  readonly scale: number;
  readonly digits: number;
}[] = [
  { title: 'kWh', figure: 'kWh', scale: 1, digits: 1 },
  { title: 'migrations', figure: 'migrations', scale: 1, digits: 0 },
  { title: 'SLATAH %', figure: 'slatah', scale: 100, digits: 2 },
  { title: 'PDM %', figure: 'pdm', scale: 100, digits: 4 },
  { title: 'SLAV e-5', figure: 'slav', scale: 1e5, digits: 2 },
  { title: 'ESV e-3', figure: 'esv', scale: 1e3, digits: 2 },
  { title: 'hosts on', figure: 'hostsOn', scale: 1, digits: 1 },
  { title: 'wakes', figure: 'wakes', scale: 1, digits: 0 },
  { title: 'least kWh', figure: 'leastKWh', scale: 1, digits: 1 },
  { title: 'planning s', figure: 'planningSeconds', scale: 1, digits: 2 },
];

export function consolidateText(rows: readonly Row[]): string {
  return [
    'SLATAH: time of active hosts in which they gave less than was asked (also while a VM arrives). PDM: work kept back by',
    'migrations. SLAV: their product. ESV: SLAV x kWh. least kWh: the same work on the best hosts, all full.',
    'compatible: a VM that asks for nothing leaves for good, as in CloudSim; stay: it does not.',
    ...modes.filter((mode) => rows.some((row) => row.mode === mode)).flatMap((mode) => ['', modeText(rows, mode)]),
    '',
    ...consolidateAims(rows).map(aimText),
  ].join('\n');
}

function modeText(rows: readonly Row[], mode: Mode): string {
  const own = rows.filter((row) => row.mode === mode);
  const policies = [...new Set(own.map(({ policy }) => policy))];
  const days = [...new Set(own.map(({ day }) => day))];
  const cells = (value: (figure: Figure) => number | undefined): string[] =>
    columns.map(({ figure, scale, digits }) => {
      const found = value(figure);
      return found === undefined ? '-' : (found * scale).toFixed(digits);
    });
  const ofDay = own.map((row) => [row.day, row.policy, ...cells((figure) => row[figure])]);
  const medians = policies.map((policy) => [
    `median of ${days.length}`,
    policy,
    ...cells((figure) => medianOf(rows, mode, policy, figure)),
  ]);
  const ratios = columns.map(({ figure }) => {
    const [a, b] = [medianOf(rows, mode, ours, figure), medianOf(rows, mode, strongest, figure)];
    return a === undefined || b === undefined || b === 0 ? '-' : `${(a / b).toFixed(3)}x`;
  });
  const head = [mode, 'policy', ...columns.map(({ title }) => title)];
  return table(head, [...ofDay, ...medians, ['ratio', `${ours} / ${strongest}`, ...ratios]], 2);
}
