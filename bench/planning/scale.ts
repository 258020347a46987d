/**
 * `npm run bench -- scale`: fleets that are too large for anybody's patience otherwise. Each is planned twice by a process of its
 * own: once with the descent alone (what a greedy balancer reaches), once as a person would have it.
 */
import { execFile } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import type { Plan } from '../../src/model/plan.ts';
import { aimText, table, type Aim } from '../figures.ts';
import { ganetiCluster } from './ganeti-cluster.ts';

const run = promisify(execFile);

/** Hosts, VMs of each, and how long planning may take. */
export const scales = {
  '1000': { hosts: 1000, vmsPerHost: 15, aimSeconds: 5 },
  '10000': { hosts: 10_000, vmsPerHost: 20, aimSeconds: 30 },
} as const;
export type Scale = keyof typeof scales;

export interface ScaleBench {
  readonly hosts: readonly Scale[];
  readonly say: (line: string) => void;
  readonly signal: AbortSignal;
}

interface Planned {
  readonly score: number;
  readonly moves: number;
  readonly planningMs: number;
  readonly planningCpuMs: number;
  readonly startedMs: number;
  readonly peakMemoryMiB: number;
}

interface Row {
  readonly scale: Scale;
  readonly vms: number;
  readonly before: number;
  readonly greedy: Planned;
  readonly drover: Planned;
}

export interface ScaleResult {
  readonly rows: readonly Row[];
}

export async function benchScale({ hosts, say, signal }: ScaleBench): Promise<ScaleResult> {
  const folder = await mkdtemp(join(tmpdir(), 'drover-bench-'));
  try {
    const rows: Row[] = [];
    for (const scale of hosts) {
      signal.throwIfAborted();
      const { hosts: size, vmsPerHost } = scales[scale];
      const { data, util } = ganetiCluster(size, 'skew', 1, vmsPerHost);
      const file = join(folder, `${scale}.data`);
      await writeFile(file, data);
      say(`${size} hosts: the descent alone`);
      const greedy = await ask(file, ['--iterations', '0'], signal);
      say(`${size} hosts: all of it`);
      const drover = await ask(file, [], signal);
      rows.push({ scale, vms: util.trim().split('\n').length, before: drover.before, greedy, drover });
    }
    return { rows };
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

async function ask(file: string, more: readonly string[], signal: AbortSignal): Promise<Planned & { before: number }> {
  const drover = join(import.meta.dirname, '../../bin/drover');
  const argv = ['plan', '--from', 'hbal', file, '--max-moves', '1000000', '--output', 'json', '--timing', ...more];
  const { stdout, stderr } = await run(drover, argv, { maxBuffer: 1 << 30, signal });
  const { score, used } = JSON.parse(stdout) as Plan;
  // The cast: what `--timing` says is drover's own word.
  const timing = JSON.parse(stderr) as Omit<Planned, 'score' | 'moves'>;
  return { ...timing, before: score.before.total, score: score.after.total, moves: used.moves };
}

export function scaleAims({ rows }: ScaleResult): Aim[] {
  return rows.flatMap(({ scale, drover, greedy }) => [
    {
      of: `${scale} hosts, planning`,
      reached: drover.planningMs / 1000,
      atMost: scales[scale].aimSeconds,
      unit: ' s',
    },
    {
      of: `${scale} hosts, CPU time of all threads (on a busy machine the fairer number)`,
      reached: drover.planningCpuMs / 1000,
      atMost: scales[scale].aimSeconds,
      unit: ' s',
    },
    { of: `${scale} hosts, memory`, reached: drover.peakMemoryMiB, atMost: 1024, unit: ' MiB' },
    {
      of: `${scale} hosts, score against the descent alone`,
      reached: drover.score / greedy.score,
      atMost: 1,
      unit: 'x',
    },
  ]);
}

export function scaleText(result: ScaleResult): string {
  const rows = result.rows.map(({ scale, vms, before, greedy, drover }) => [
    scale,
    String(vms),
    before.toFixed(3),
    greedy.score.toFixed(4),
    drover.score.toFixed(4),
    String(greedy.moves),
    String(drover.moves),
    (greedy.planningMs / 1000).toFixed(1),
    (drover.planningMs / 1000).toFixed(1),
    (drover.planningCpuMs / 1000).toFixed(1),
    (drover.startedMs / 1000).toFixed(1),
    drover.peakMemoryMiB.toFixed(0),
  ]);
  const head = ['hosts', 'VMs', 'before', 'greedy', 'Drover', 'moves', 'moves', 's', 's', 'CPU s', 'start s', 'MiB'];
  return [
    "hbal's score (less is better), moves and planning time: of the descent alone, then of Drover's whole search.",
    table(head, rows),
    ...scaleAims(result).map(aimText),
  ].join('\n');
}
