/** `drover migrations` and `drover migration`: what is moving and what has moved. */
import type { Command } from 'commander';
import { phases } from '../../migration/phases.ts';
import { UserError } from '../../model/failure.ts';
import { formatBytes, formatBytesPerSecond, formatMs, pageBytes } from '../../model/units.ts';
import type { MigrationView } from '../../wire/endpoints.ts';
import { exitCodes, named, type Context } from '../context.ts';
import { basisWords, notConvergingWords } from '../forecast-words.ts';
import { recoveringWords, timeline } from '../live.ts';
import { outcome, techniqueWords } from '../outcome.ts';
import { details, table } from '../table.ts';
import { parseCount } from '../numbers.ts';
import { waitForEnd } from './migrate.ts';

export function addMigration(program: Command, context: Context): void {
  program
    .command('migrations')
    .description('migrations, newest first')
    .option('--vm <vm>', 'only of this VM')
    .option('--open', 'only those that have not ended')
    .option('--limit <n>', 'at most so many', '50')
    .addHelpText('after', '\nExample:\n  $ drover migrations --vm web1 --limit 5')
    .action(async (flags: { vm?: string; open?: true; limit: string }) => {
      const query = {
        limit: parseCount(flags.limit, '--limit'),
        ...(flags.vm === undefined ? {} : { vm: flags.vm }),
        ...(flags.open ? { open: 'true' as const } : {}),
      };
      const list = await named(context, { vm: flags.vm }, () => context.client().listMigrations({ query }));
      context.print(list, () => (list.length === 0 ? 'no migrations' : migrationTable(list)));
    });

  const migration = program
    .command('migration')
    .description('one migration, by its id or by the name of its VM (then the latest)')
    .addHelpText('after', '\nExample:\n  $ drover migration show web1');

  migration
    .command('show <id>')
    .description('phases, rounds and measures of one migration')
    .addHelpText('after', '\nExample:\n  $ drover migration show web1')
    .action(async (ref: string) => {
      const view = await find(context, ref);
      context.print(view, () => migrationDetails(view, context.surroundings.clock.now()));
    });

  migration
    .command('watch <id>')
    .description('show it live until it ends')
    .addHelpText('after', '\nExample:\n  $ drover migration watch web1')
    .action(async (ref: string) => waitForEnd(context, await find(context, ref), 'live'));

  addSwitch(migration, context);

  migration
    .command('cancel <id>')
    .description('stop it; the guest goes on running on the source')
    .option('--no-wait', 'return as soon as it was asked for')
    .addHelpText('after', '\nExample:\n  $ drover migration cancel web1')
    .action(async (ref: string, { wait }: { wait: boolean }) => {
      const { id } = await find(context, ref);
      const view = await context.client().cancelMigration({ params: { migration: id } });
      if (wait && !view.ended) await waitForEnd(context, view, 'result');
      else context.print(view, () => (view.ended ? outcome(view).join('\n') : `${id} is being cancelled`));
      const now = wait ? await context.client().getMigration({ params: { migration: id } }) : view;
      // Here the cancelling was the task: done when it worked, failed when the end came first.
      context.end(now.phase === 'cancelled' || !wait ? exitCodes.done : exitCodes.failed);
    });
}

function addSwitch(migration: Command, context: Context): void {
  migration
    .command('switch <id>')
    .description('over to post-copy at once, or complete a move that is held ready; then wait for its end')
    .addHelpText('after', '\nExample:\n  $ drover migration switch web1')
    .action(async (ref: string) => {
      const { id } = await find(context, ref);
      await waitForEnd(context, await context.client().switchMigration({ params: { migration: id } }), 'result');
    });
}

/** By id, or the latest of the VM with that name. @throws UserError not-found */
async function find(context: Context, ref: string): Promise<MigrationView> {
  if (ref.startsWith('mig_')) return context.client().getMigration({ params: { migration: ref } });
  const [latest] = await named(context, { vm: ref }, () =>
    context.client().listMigrations({ query: { vm: ref, limit: 1 } }),
  );
  if (latest) return latest;
  throw new UserError('not-found', `${ref} has never been migrated.`, '`drover migrations` lists all of them.');
}

function migrationTable(list: readonly MigrationView[]): string {
  const ms = (value: number | null): string => (value === null ? '-' : formatMs(value));
  return table(
    [
      'MIGRATION',
      'VM',
      'FROM',
      'TO',
      'TECHNIQUE',
      'PHASE',
      'TOTAL',
      'DOWNTIME',
      'BLACKOUT',
      'SENT',
      'ROUNDS',
      'FAULTS',
    ],
    list.map((view) => [
      view.id,
      view.vmName,
      view.source,
      view.target,
      view.technique,
      view.phase,
      ms(view.measures.totalMs),
      ms(view.measures.downtimeMs),
      ms(view.measures.blackoutMs),
      view.measures.bytes === null ? '-' : formatBytes(view.measures.bytes),
      String(view.rounds.length),
      view.measures.faults === null ? '-' : String(view.measures.faults),
    ]),
  );
}

function migrationDetails(view: MigrationView, now: number): string {
  const { measures, policy, forecast } = view;
  const ms = (value: number | null): string | null => (value === null ? null : formatMs(value));
  const beside = (measured: string | null, expected: string | null): string | null => {
    if (!forecast?.converges || expected === null) return measured;
    return measured === null ? `forecast ${expected}` : `${measured} (forecast ${expected})`;
  };
  const rate = policy.maxBandwidthBytesPerSecond;
  const head = details([
    ['migration', view.id],
    ['vm', `${view.vmName} (${view.vm})`],
    ['from, to', `${view.source} -> ${view.target}`],
    ['technique', techniqueWords(view)],
    ['phase', `${view.phase}: ${phases[view.phase].says}${view.cancellable ? ' (can be cancelled)' : ''}`],
    ['link', recoveringWords(view.phase, view.sample)],
    ['started', new Date(view.startedAt).toISOString()],
    ['because', view.why.map(({ by, text }) => `${text} (${by})`).join('; ')],
    ['held until', view.hold && !view.ended ? heldWords(view.hold) : null],
    ['switched', view.switchedToPostCopy?.because],
    [
      'policy',
      `pause up to ${formatMs(policy.maxDowntimeMs)}, ${rate === null ? 'all of the link' : formatBytesPerSecond(rate)}` +
        `${policy.deadlineMs === null ? '' : `, deadline ${formatMs(policy.deadlineMs)}`}` +
        `${policy.autoConverge ? ', throttles' : ''}, not converging: ${policy.whenNotConverging}`,
    ],
    ['forecast', forecast && !forecast.converges ? `does not converge: ${notConvergingWords(forecast)}` : null],
    ['forecast from', forecast && basisWords(forecast)],
    ['total time', beside(ms(measures.totalMs), forecast && formatMs(forecast.totalMs))],
    ['downtime', beside(ms(measures.downtimeMs), forecast && formatMs(forecast.downtimeMs))],
    ["downtime by QEMU's clock", ms(measures.downtimeQemuMs)],
    ['blackout', beside(ms(measures.blackoutMs), forecast && formatMs(forecast.blackoutMs))],
    [
      'sent',
      beside(measures.bytes === null ? null : formatBytes(measures.bytes), forecast && formatBytes(forecast.bytes)),
    ],
    ['faults', measures.faults === null ? null : String(measures.faults)],
    ['waiting for faults', ms(measures.faultBlockedMs)],
    ['degraded', ms(measures.degradedMs)],
    ['link broke', brokenWords(measures)],
    ['throttled', measures.throttlePercent ? `${measures.throttlePercent} %` : null],
    ['first page after', ms(measures.firstPageMs)],
  ]);
  const parts = [head, table(['PHASE', 'TOOK'], timeline(view, now).map(phaseRow))];
  if (view.rounds.length > 0) {
    parts.push(
      table(
        ['ROUND', 'TOOK', 'SENT', 'RATE', 'LEFT DIRTY'],
        view.rounds.map((round) => [
          String(round.round),
          formatMs(round.durationMs),
          formatBytes(round.bytes),
          formatBytesPerSecond(round.bandwidthBytesPerSecond),
          formatBytes(round.dirtyPages * pageBytes),
        ]),
      ),
    );
  }
  if (view.ended) parts.push(outcome(view).join('\n'));
  return parts.join('\n\n');
}

function brokenWords({ recoveries, recoveringMs }: MigrationView['measures']): string | null {
  if (!recoveries) return null;
  const after = formatMs(recoveringMs ?? 0);
  return recoveries === 1
    ? `once in post-copy, joined again after ${after}`
    : `${recoveries} times in post-copy, joined again after ${after} in all`;
}

function heldWords({ until, switchRequestedAt }: NonNullable<MigrationView['hold']>): string {
  return switchRequestedAt === null ? new Date(until).toISOString() : 'told to complete';
}

function phaseRow({ phase, when, tookMs }: ReturnType<typeof timeline>[number]): string[] {
  if (when === 'ahead') return [phase, 'to come'];
  const ended = phases[phase].next.length === 0;
  return [phase, ended || tookMs === null ? '' : `${formatMs(tookMs)}${when === 'now' ? ' so far' : ''}`];
}
