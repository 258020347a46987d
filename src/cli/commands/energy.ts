/** `drover energy`: what hosts and VMs used, what sleep saved, and which hosts could sleep now. */
import type { Command } from 'commander';
import { Option } from 'commander';
import { UserError } from '../../model/failure.ts';
import { parseDurationMs } from '../../model/units.ts';
import { energyEndpoints, type EnergyView, type PowerPlanView } from '../../wire/energy.ts';
import type { Context } from '../context.ts';
import { limitsOf, parseCount } from '../numbers.ts';
import { table } from '../table.ts';

interface Flags {
  readonly since: string;
  readonly by: 'host' | 'vm';
  readonly plan?: true;
  readonly tolerate?: string;
}

const dayMs = 86_400_000;

export function addEnergy(program: Command, context: Context): void {
  program
    .command('energy')
    .description('energy of hosts and VMs, measured or modelled, and what sleeping hosts saved')
    .option('--since <when>', 'a time back (24h, 7d) or a day (2026-03-01); whole days are shown', '7d')
    .addOption(new Option('--by <what>', 'a row for each').choices(['host', 'vm']).default('host'))
    .addOption(
      new Option('--plan', 'instead: which hosts could sleep now, which must be woken, and why').conflicts([
        'since',
        'by',
      ]),
    )
    .option('--tolerate <hosts>', 'with --plan: as if room for so many dead hosts were to be kept awake')
    .addHelpText('after', '\nExamples:\n  $ drover energy --since 30d --by vm\n  $ drover energy --plan')
    .action(async (flags: Flags) => {
      const client = context.client();
      const { tolerate } = flags;
      if (flags.plan) {
        const limits = limitsOf(energyEndpoints.getPowerPlan.query.shape.tolerate.unwrap());
        if (tolerate !== undefined) parseCount(tolerate, '--tolerate', limits);
        const plan = await client.getPowerPlan({ query: tolerate === undefined ? {} : { tolerate } });
        context.print(plan, () => planWords(plan));
        return;
      }
      if (tolerate !== undefined) {
        throw new UserError('invalid-input', '--tolerate is about --plan.', 'Write drover energy --plan --tolerate 1.');
      }
      const since = sinceOf(flags.since, context.surroundings.clock.now());
      const view = await client.getEnergy({ query: { since: String(since), by: flags.by } });
      context.print(view, () => energyWords(view));
    });
}

/** @throws UserError invalid-input */
function sinceOf(text: string, now: number): number {
  const days = /^(\d{1,4})d$/.exec(text)?.[1];
  if (days !== undefined) return now - Number(days) * dayMs;
  if (isDay(text)) {
    const at = Date.parse(text);
    if (at <= now) return at;
    throw new UserError(
      'invalid-input',
      `${text} is still to come.`,
      'Write a day that has begun, or a time back: 7d.',
    );
  }
  if (/^\d+(\.\d+)?\s*(m|h)$/.test(text)) return now - parseDurationMs(text);
  throw new UserError('invalid-input', `'${text}' is no time back and no day.`, 'Write 24h, 7d or 2026-03-01.');
}

/** 2026-02-31 would be taken for a day of March. */
function isDay(text: string): boolean {
  if (!/^\d{4}-\d\d-\d\d$/.test(text) || Number.isNaN(Date.parse(text))) return false;
  return new Date(text).toISOString().startsWith(text);
}

const kWh = (wh: number): string => `${(wh / 1000).toFixed(wh < 10_000 ? 3 : 1)}`;

function energyWords(view: EnergyView): string {
  const from = new Date(view.since).toISOString().slice(0, 10);
  if (view.rows.length === 0) return `nothing was recorded since ${from}: the first five minutes are not over yet`;
  const rows = view.rows.map((row) => [
    row.name,
    kWh(row.wh),
    ...(view.by === 'host' ? [kWh(row.savedWh ?? 0), hours(row.asleepMs ?? 0), row.known ?? ''] : []),
  ]);
  const heads = view.by === 'host' ? ['HOST', 'KWH', 'SAVED', 'ASLEEP', 'KNOWN BY'] : ['VM', 'KWH'];
  const { usedWh, savedWh, alwaysOnWh } = view.total;
  const share = alwaysOnWh > 0 ? Math.round((100 * savedWh) / alwaysOnWh) : 0;
  const total =
    `since ${from} (UTC): ${kWh(usedWh)} kWh used; with all hosts always on it would have been ${kWh(alwaysOnWh)} kWh: ` +
    `${kWh(savedWh)} kWh saved (${share} %)`;
  return [table(heads, rows), '', total, ...view.says].join('\n');
}

function hours(ms: number): string {
  return ms === 0 ? '-' : `${(ms / 3_600_000).toFixed(1)} h`;
}

function planWords({ sleep, wake, keep }: PowerPlanView): string {
  const rows = [
    ...wake.map(({ host, because }) => [host, 'must be woken', because]),
    ...sleep.map(({ host, because }) => [host, 'may sleep', because]),
    ...keep.map(({ host, because }) => [host, 'stays awake', because]),
  ];
  return rows.length === 0 ? 'no host is empty, and none must be woken' : table(['HOST', 'WHAT', 'WHY'], rows);
}
