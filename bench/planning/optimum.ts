/** `npm run bench -- optimum`: the planner against the proven optimum on fleets small enough for HiGHS. */
import { balance, peakAim } from '../../src/planner/balance.ts';
import { consolidate } from '../../src/planner/consolidate.ts';
import type { Aim } from '../figures.ts';
import { aimText, table } from '../figures.ts';
import { fewestHosts, leastPeak, type Exact } from './exact.ts';
import { smallFleet, smallPatterns } from './small-fleet.ts';

export interface OptimumBench {
  readonly seeds: number;
  readonly moves: readonly number[];
  /** For the solver, each question. */
  readonly seconds: number;
  readonly say: (line: string) => void;
  readonly signal: AbortSignal;
}

interface Peak {
  readonly fleet: string;
  readonly moves: number;
  readonly before: number;
  readonly optimum: Exact;
  readonly drover: number;
}

interface Hosts {
  readonly fleet: string;
  readonly before: number;
  readonly optimum: Exact;
  readonly drover: number;
  readonly moves: number;
}

export interface OptimumResult {
  readonly peaks: readonly Peak[];
  readonly hosts: readonly Hosts[];
}

export async function benchOptimum({ seeds, moves, seconds, say, signal }: OptimumBench): Promise<OptimumResult> {
  const peaks: Peak[] = [];
  const hosts: Hosts[] = [];
  for (const pattern of smallPatterns) {
    for (let seed = 1; seed <= seeds; seed++) {
      const snapshot = smallFleet(pattern, seed);
      const fleet = `${pattern}${seeds > 1 ? ` #${seed}` : ''}`;
      // The peak is asked for without the limit on load, or the best may be forbidden on the way.
      const unlimited = { ...snapshot, settings: { ...snapshot.settings, cpuLimit: 1000 } };
      for (const k of moves) {
        signal.throwIfAborted();
        say(`${fleet}: smallest peak within ${k} moves`);
        const { score } = balance(unlimited, { budget: { moves: k } }, peakAim);
        const optimum = await leastPeak(unlimited, k, seconds);
        peaks.push({ fleet, moves: k, before: score.before.total, optimum, drover: score.after.total });
      }
      signal.throwIfAborted();
      say(`${fleet}: fewest hosts`);
      const plan = consolidate(snapshot);
      const used = new Set(snapshot.vms.map(({ host }) => host)).size;
      const optimum = await fewestHosts(snapshot, seconds);
      hosts.push({ fleet, before: used, optimum, drover: used - plan.emptied.length, moves: plan.moves.length });
    }
  }
  return { peaks, hosts };
}

export function optimumAims({ peaks, hosts }: OptimumResult): Aim[] {
  const worst = (values: readonly number[]): number => values.reduce((most, value) => Math.max(most, value), 0);
  return [
    {
      of: 'peak against the optimum, worst',
      reached: worst(
        peaks.filter(({ optimum }) => optimum.proven).map(({ drover, optimum }) => drover / optimum.value),
      ),
      atMost: 1.02,
      unit: 'x',
    },
    {
      of: 'hosts more than the optimum, worst',
      reached: worst(
        hosts.filter(({ optimum }) => optimum.proven).map(({ drover, optimum }) => drover - optimum.value),
      ),
      atMost: 0,
      unit: '',
    },
  ];
}

export function optimumText(result: OptimumResult): string {
  const exact = ({ value, proven }: Exact, digits: number): string =>
    `${value.toFixed(digits)}${proven ? '' : ' (not proven)'}`;
  return [
    'Smallest peak of CPU load over cores within so many moves:',
    table(
      ['fleet', 'moves', 'before', 'optimum', 'Drover', 'ratio'],
      result.peaks.map(({ fleet, moves, before, optimum, drover }) => [
        fleet,
        String(moves),
        before.toFixed(4),
        exact(optimum, 4),
        drover.toFixed(4),
        (drover / optimum.value).toFixed(3),
      ]),
    ),
    '',
    'Fewest hosts within the load limit:',
    table(
      ['fleet', 'in use', 'optimum', 'Drover', 'moves'],
      result.hosts.map(({ fleet, before, optimum, drover, moves }) => [
        fleet,
        String(before),
        exact(optimum, 0),
        String(drover),
        String(moves),
      ]),
    ),
    ...optimumAims(result).map(aimText),
  ].join('\n');
}
