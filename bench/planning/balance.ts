/**
 * `npm run bench -- balance`: Drover's planner against hbal on the same clusters, under the same score, with hbal's own number of
 * moves and memory as the budget. Each plan is made by a process of its own, as a person would have it.
 */
import { execFile } from 'node:child_process';
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { promisify } from 'node:util';
import { UserError } from '../../src/model/failure.ts';
import type { Plan } from '../../src/model/plan.ts';
import { readGaneti } from '../../src/wire/ganeti.ts';
import { aimText, ratio, shown, spread, table, type Aim } from '../figures.ts';
import { ganetiCluster, patterns } from './ganeti-cluster.ts';
import { findHbal, runHbal } from './hbal.ts';
import { replay } from './replay.ts';

const run = promisify(execFile);

export interface BalanceBench {
  readonly hosts: readonly number[];
  readonly seeds: number;
  /** Folder of .data and .util files instead of made ones. */
  readonly cases: string | undefined;
  /** A program that scores moves independently: `node SCORER FILE.data [-U FILE.util] --moves FILE.json`. */
  readonly scorer: string | undefined;
  /** Folder of hbal's answers. */
  readonly keep: string | undefined;
  readonly say: (line: string) => void;
  readonly signal: AbortSignal;
}

interface Case {
  readonly name: string;
  readonly data: string;
  readonly util: string | null;
}

interface Contestant {
  readonly score: number;
  readonly moves: number;
  readonly gib: number;
  readonly cpuMs: number;
}

interface Row {
  readonly name: string;
  readonly mode: 'static' | 'with -U';
  readonly online: number;
  readonly before: number;
  readonly floor: number;
  readonly hbal: Contestant & { readonly violations: readonly string[] };
  readonly drover: Contestant & { readonly violations: readonly string[]; readonly startMs: number };
}

export interface BalanceResult {
  readonly hbal: string;
  readonly rows: readonly Row[];
}

export async function benchBalance(options: BalanceBench): Promise<BalanceResult> {
  const version = await findHbal();
  const folder = await mkdtemp(join(tmpdir(), 'drover-bench-'));
  try {
    const rows: Row[] = [];
    for (const each of await casesOf(options, folder)) {
      for (const util of each.util === null ? [null] : [null, each.util]) {
        options.signal.throwIfAborted();
        options.say(`${each.name}${util === null ? '' : ' with loads'}: hbal, then Drover`);
        rows.push(await compare({ ...each, util }, folder, options));
      }
    }
    return { hbal: version, rows };
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

async function casesOf({ cases, hosts, seeds }: BalanceBench, folder: string): Promise<Case[]> {
  if (cases !== undefined) {
    const files = await readdir(cases);
    const data = files.filter((file) => file.endsWith('.data')).toSorted();
    if (data.length === 0) {
      throw new UserError('invalid-input', `${cases} has no .data files.`, 'Name a folder of Ganeti cluster files.');
    }
    return data.map((file) => {
      const util = file.replace(/\.data$/, '.util');
      const name = basename(file, '.data');
      return { name, data: join(cases, file), util: files.includes(util) ? join(cases, util) : null };
    });
  }
  const made: Case[] = [];
  for (const size of hosts) {
    for (const pattern of patterns) {
      for (let seed = 1; seed <= seeds; seed++) {
        const { data, util } = ganetiCluster(size, pattern, seed);
        const name = `${size} ${pattern}${seeds > 1 ? ` #${seed}` : ''}`;
        const base = join(folder, name.replaceAll(/\W+/g, '-'));
        await writeFile(`${base}.data`, data);
        await writeFile(`${base}.util`, util);
        made.push({ name, data: `${base}.data`, util: `${base}.util` });
      }
    }
  }
  return made;
}

async function compare({ name, data, util }: Case, folder: string, options: BalanceBench): Promise<Row> {
  const text = await readFile(data, 'utf8');
  const load = util === null ? null : { text: await readFile(util, 'utf8'), name: util };
  const { snapshot, traits } = readGaneti(text, load, data);
  const theirs = await runHbal(data, util, options.keep);
  const replayed = replay(snapshot, traits, theirs.moves);
  // Both must speak of one score, or nothing below means anything.
  const worst = theirs.moves.reduce(
    (most, { score }, i) => Math.max(most, Math.abs(score - replayed.scores[i + 1]!)),
    0,
  );
  if (worst > 1e-6) throw new Error(`${name}: hbal prints other scores than the formula gives, by ${worst}`);
  const plan = await ask(data, util, theirs.moves.length, replayed.memoryMiB / 1024);
  const ours = replay(snapshot, traits, plan.moves);
  if (options.scorer !== undefined)
    await checkScore(options.scorer, { data, util, plan, folder, score: ours.scores.at(-1)! });
  const online = snapshot.hosts.filter(({ state }) => state === 'up').length;
  return {
    name,
    mode: util === null ? 'static' : 'with -U',
    online,
    before: replayed.scores[0]!,
    floor: util === null ? integerFloor(snapshot.vms.length, online) : 0,
    hbal: {
      score: replayed.scores.at(-1)!,
      moves: theirs.moves.length,
      gib: replayed.memoryMiB / 1024,
      cpuMs: theirs.cpuMs,
      violations: replayed.violations,
    },
    drover: {
      score: ours.scores.at(-1)!,
      moves: plan.moves.length,
      gib: ours.memoryMiB / 1024,
      cpuMs: plan.timing.planningCpuMs,
      startMs: plan.timing.startedCpuMs,
      violations: ours.violations,
    },
  };
}

/** Each VM counts once in four equal metrics: their spread cannot fall below what whole VMs allow. */
function integerFloor(vms: number, hosts: number): number {
  const part = (vms / Math.max(1, hosts)) % 1;
  return 4 * Math.sqrt(part * (1 - part));
}

interface Timing {
  readonly startedCpuMs: number;
  readonly planningCpuMs: number;
}

async function ask(data: string, util: string | null, moves: number, gib: number): Promise<Plan & { timing: Timing }> {
  const drover = join(import.meta.dirname, '../../bin/drover');
  const argv = ['plan', '--from', 'hbal', data, '--objective', 'hbal', '--output', 'json', '--timing'];
  argv.push('--max-moves', String(moves), '--max-gib', String(gib), ...(util === null ? [] : ['--util', util]));
  const { stdout, stderr } = await run(drover, argv, { maxBuffer: 1 << 28 });
  return { ...(JSON.parse(stdout) as Plan), timing: JSON.parse(stderr) as Timing };
}

async function checkScore(
  scorer: string,
  { data, util, plan, folder, score }: { data: string; util: string | null; plan: Plan; folder: string; score: number },
): Promise<void> {
  const file = join(folder, 'moves.json');
  await writeFile(file, JSON.stringify(plan.moves));
  const argv = [scorer, data, ...(util === null ? [] : ['-U', util]), '--moves', file];
  const { stdout } = await run(process.execPath, argv);
  const { final, violations } = JSON.parse(stdout) as { final: number; violations: string[] };
  if (Math.abs(final - score) > 1e-6 || violations.length > 0) {
    throw new Error(`${data}: the scorer says ${final} and ${violations.join(', ') || 'no violations'}, not ${score}`);
  }
}

export function balanceAims({ rows }: BalanceResult): Aim[] {
  const above = (row: Row, of: Contestant): number => Math.max(0, of.score - row.floor);
  // hbal waives rules to empty an offline node; a score that was reached by breaking them is no measure.
  const fair = rows.filter(({ hbal }) => hbal.violations.length === 0);
  const ratios = (mode: Row['mode']): number[] =>
    rows.filter((row) => row.mode === mode).map((row) => above(row, row.drover) / Math.max(1e-9, above(row, row.hbal)));
  const worst = (of: (row: Row) => number, among = rows): number =>
    among.reduce((most, row) => Math.max(most, of(row)), 0);
  const time = (hosts: (row: Row) => boolean): number | undefined => {
    const some = rows.filter(hosts);
    return ratio(
      some.map(({ drover }) => drover.cpuMs),
      some.map(({ hbal }) => hbal.cpuMs),
    );
  };
  const dynamic = rows.filter(({ mode }) => mode === 'with -U');
  return [
    { of: 'rule violations', reached: worst(({ drover }) => drover.violations.length), atMost: 0, unit: '' },
    {
      of: 'moves against hbal, worst',
      reached: worst(({ drover, hbal }) => drover.moves / Math.max(1, hbal.moves)),
      atMost: 1,
      unit: 'x',
    },
    {
      of: 'GiB against hbal, worst',
      reached: worst(({ drover, hbal }) => drover.gib / Math.max(1e-9, hbal.gib)),
      atMost: 1,
      unit: 'x',
    },
    {
      of: 'score against hbal where it broke no rule, worst',
      reached: worst(({ drover, hbal }) => drover.score / hbal.score, fair),
      atMost: 1,
      unit: 'x',
    },
    { of: 'score above the floor, median, static', reached: spread(ratios('static'))?.median, atMost: 0.5, unit: 'x' },
    { of: 'score, median, with -U', reached: spread(ratios('with -U'))?.median, atMost: 0.6, unit: 'x' },
    {
      of: 'GiB with -U, worst',
      reached: worst(({ drover, hbal }) => drover.gib / Math.max(1e-9, hbal.gib), dynamic),
      atMost: 1.05,
      unit: 'x',
    },
    {
      of: 'planning time against hbal, up to 10 hosts',
      reached: time(({ online }) => online <= 10),
      atMost: 1,
      unit: 'x',
    },
    {
      of: 'planning time against hbal, 50 hosts',
      reached: time(({ online }) => online > 40 && online <= 50),
      atMost: 0.01,
      unit: 'x',
    },
  ];
}

export function balanceText(result: BalanceResult): string {
  const rows = result.rows.map(({ name, mode, before, floor, hbal, drover }) => [
    name,
    mode,
    before.toFixed(3),
    floor.toFixed(3),
    hbal.score.toFixed(4),
    drover.score.toFixed(4),
    ((drover.score - floor) / Math.max(1e-9, hbal.score - floor)).toFixed(2),
    `${hbal.moves}`,
    `${drover.moves}`,
    hbal.gib.toFixed(0),
    drover.gib.toFixed(0),
    shown(hbal.cpuMs),
    shown(drover.cpuMs),
    shown(drover.startMs),
    drover.violations.join(' ') || '-',
    hbal.violations.join(' ') || '-',
  ]);
  const head = [
    'cluster',
    'mode',
    'before',
    'floor',
    'hbal',
    'Drover',
    'ratio',
    'moves',
    'moves',
    'GiB',
    'GiB',
    'ms',
    'ms',
    'start ms',
    'broken',
    "hbal's",
  ];
  return [
    `Drover against hbal ${result.hbal}, its moves and memory as the budget.`,
    "Score (less is better), moves, memory, user CPU time; first hbal's, then Drover's.",
    table(head, rows, 2),
    ...balanceAims(result).map(aimText),
  ].join('\n');
}
