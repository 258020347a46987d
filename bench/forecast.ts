/**
 * `bench forecast`: ten moves of guests that idle, write moderately and write heavily, each forecast by the server before it begins and
 * measured as every move is. The first moves of a guest have nothing to learn from; the later ones learn from those before them.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { createLabVm, type LabGuest } from '../src/lab/guests.ts';
import { moveAndProve } from '../src/lab/moves.ts';
import { formatMs, MiB } from '../src/model/units.ts';
import type { MigrationView } from '../src/wire/endpoints.ts';
import { otherHost, writers, type BenchHost, type LiveTechnique, type WriterName } from './contestant.ts';
import { aimText, spread, table, type Aim } from './figures.ts';
import { load, machineOf, machineText, onStage, type Machine, type Stage, type StageOptions } from './stage.ts';

const memoryMiB = 512;
const fillMiB = 256;
/** A load begins, and a guest that has arrived settles. */
const settleMs = 2_000;

const plan = [
  ['idle', ['pre-copy', 'post-copy', 'hybrid']],
  ['moderate', ['pre-copy', 'post-copy', 'hybrid', 'pre-copy']],
  ['heavy', ['post-copy', 'hybrid', 'hybrid']],
] as const satisfies readonly (readonly [WriterName, readonly LiveTechnique[]])[];

const closeEnough = 0.15;
/** Of downtime, at the 90th percentile. */
const downtimeAimMs = 300;

export interface ForecastMove {
  readonly writer: WriterName;
  readonly technique: LiveTechnique;
  readonly migration: MigrationView;
  /** "verified", or what is wrong with the guest. */
  readonly says: string;
  readonly ok: boolean;
}

export interface ForecastResult {
  readonly machine: Machine;
  readonly moves: readonly ForecastMove[];
}

export function benchForecast(options: StageOptions): Promise<ForecastResult> {
  const loadBefore = load();
  return onStage(options, async (stage) => {
    const moves: ForecastMove[] = [];
    for (const [writer, techniques] of plan) moves.push(...(await play(stage, writer, techniques)));
    return { machine: machineOf(stage, loadBefore), moves };
  });
}

/** One guest at a time: what the others wrote would take the cores of the one that moves. */
async function play(stage: Stage, writer: WriterName, techniques: readonly LiveTechnique[]): Promise<ForecastMove[]> {
  const { lab, say, signal } = stage;
  say(`booting the ${writer} guest…`);
  const load = writers[writer];
  const wanted = { name: writer, memoryMiB, fillMiB, host: 'h1', ...(load.pagesPerSecond > 0 && { load }) };
  const { vm, guest }: LabGuest = await createLabVm(lab, wanted, signal);
  const moves: ForecastMove[] = [];
  let host: BenchHost = 'h1';
  for (const technique of techniques) {
    await sleep(settleMs, undefined, { signal });
    const to = otherHost(host);
    const { migration, proof } = await moveAndProve(lab.client, guest, { vm: vm.id, to, technique }, { signal });
    const move = { writer, technique, migration, says: proof.says, ok: proof.ok };
    say(`  ${writer} ${technique}: ${oneLine(move)}`);
    moves.push(move);
    if (migration.phase === 'completed') host = to;
  }
  await lab.client.stopVm({ params: { vm: vm.id }, body: { force: true } }, { signal });
  return moves;
}

const totalOff = ({ migration: { forecast, measures } }: ForecastMove): number | undefined =>
  forecast?.converges && measures.totalMs !== null ? measures.totalMs / forecast.totalMs - 1 : undefined;
const downtimeOff = ({ migration: { forecast, measures } }: ForecastMove): number | undefined =>
  forecast?.converges && measures.downtimeMs !== null ? measures.downtimeMs - forecast.downtimeMs : undefined;

function oneLine(move: ForecastMove): string {
  const { forecast, measures } = move.migration;
  return `total ${formatMs(measures.totalMs ?? 0)}, forecast ${forecast ? formatMs(forecast.totalMs) : 'none'}; ${move.says}`;
}

export function forecastAims({ moves }: Pick<ForecastResult, 'moves'>): Aim[] {
  const missed = moves.filter((move) => Math.abs(totalOff(move) ?? Infinity) > closeEnough).length;
  const downtimes = moves.flatMap((move) => Math.abs(downtimeOff(move) ?? Infinity)).toSorted((a, b) => a - b);
  return [
    {
      of: `totals off by more than ${closeEnough * 100} %`,
      reached: missed,
      atMost: Math.floor(moves.length / 5),
      unit: '',
    },
    {
      of: 'downtime off, 90th percentile',
      reached: downtimes[Math.ceil(downtimes.length * 0.9) - 1],
      atMost: downtimeAimMs,
      unit: ' ms',
    },
  ];
}

export function allArrived({ moves }: Pick<ForecastResult, 'moves'>): boolean {
  return moves.every(({ ok }) => ok);
}

const head = [
  'guest',
  'technique',
  'total s',
  'forecast',
  'off',
  'downtime ms',
  'forecast',
  'blackout ms',
  'forecast',
  'sent MiB',
];

export function forecastText({ machine, moves }: ForecastResult): string {
  const whole = (value: number | null | undefined) =>
    value === null || value === undefined ? '-' : String(Math.round(value));
  const rows = moves.map((move) => {
    const { forecast, measures } = move.migration;
    const off = totalOff(move);
    return [
      move.writer,
      move.technique,
      measures.totalMs === null ? '-' : (measures.totalMs / 1000).toFixed(2),
      forecast ? (forecast.totalMs / 1000).toFixed(2) : '-',
      off === undefined ? '-' : `${off > 0 ? '+' : ''}${(off * 100).toFixed(1)} %`,
      whole(measures.downtimeMs),
      whole(forecast?.downtimeMs),
      whole(measures.blackoutMs),
      whole(forecast?.blackoutMs),
      whole(measures.bytes === null ? null : measures.bytes / MiB),
      whole(forecast && forecast.bytes / MiB),
      whole(forecast?.correction.moves),
      move.says,
    ];
  });
  const offs = moves.flatMap((move) => {
    const off = totalOff(move);
    return off === undefined ? [] : [Math.abs(off) * 100];
  });
  const within = moves.filter((move) => Math.abs(totalOff(move) ?? Infinity) <= closeEnough).length;
  return [
    machineText(machine),
    `guests: ${memoryMiB} MiB, ${fillMiB} MiB filled; link 1 Gbit/s (tbf); one move each`,
    '',
    table([...head, 'forecast', 'learnt from', 'guest'], rows, 2),
    '',
    `${within} of ${moves.length} totals within ${closeEnough * 100} %, median ${spread(offs)?.median.toFixed(1) ?? '-'} %`,
    ...forecastAims({ moves }).map(aimText),
  ].join('\n');
}
