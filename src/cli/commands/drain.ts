/** `drover host drain` and `undrain`, `drover drains`, `drover drain show|watch`: hosts that are emptied for a while. */
import { Option, type Command } from 'commander';
import { formatMs } from '../../model/units.ts';
import { drainBody, type DrainView } from '../../wire/drains.ts';
import { exitCodes, named, type Context } from '../context.ts';
import { drainExitCode, drainOutcome, planWords } from '../drain-words.ts';
import { followDrain } from '../follow-drain.ts';
import { details, table } from '../table.ts';
import { limitsOf, parseCount } from '../numbers.ts';

interface Flags {
  readonly because?: string;
  readonly maxMovesAtOnce?: string;
  readonly allowCold?: true;
  readonly dryRun?: true;
  readonly watch?: true;
  readonly wait: boolean;
  readonly cancel?: true;
  readonly yes?: true;
}

const exitWords = `
Exit code: 0 the host is empty, 3 guests remain (each is named with the reason and what next), or it was cancelled.
Ctrl-C stops the waiting, not the drain: the server goes on with it.`;

export function addHostDrain(host: Command, context: Context): void {
  host
    .command('drain <host>')
    .description('empty a host: its VMs move to other hosts, and nothing more is placed there')
    .option('--because <text>', 'the reason, kept with every move (else "maintenance")')
    .option('--max-moves-at-once <n>', 'moves that run at the same time (else 2)')
    .option('--allow-cold', 'VMs that cannot move live are shut down and started elsewhere')
    .option('--dry-run', 'say how long it takes and what cannot leave; change nothing')
    .option('--watch', 'show it live, also one that is under way')
    .addOption(new Option('--no-wait', 'return as soon as it has begun').conflicts('watch'))
    .addOption(
      new Option(
        '--cancel',
        'stop it: open moves are cancelled where they can be, what has left stays where it is',
      ).conflicts(['dryRun', 'because', 'maxMovesAtOnce', 'allowCold', 'watch']),
    )
    .option('-y, --yes', 'do not ask, also when some VMs cannot leave')
    .addHelpText(
      'after',
      `${exitWords}\n\nExamples:\n  $ drover host drain h1 --because "new memory"\n  $ drover host drain h1 --dry-run\n  $ drover host drain h1 --cancel`,
    )
    .action((name: string, flags: Flags) =>
      named(context, { host: name }, () => (flags.cancel ? cancel(context, name) : drain(context, name, flags))),
    );

  host
    .command('undrain <host>')
    .description('uncordon a host and bring back the VMs that its drain took away')
    .option('--max-moves-at-once <n>', 'moves that run at the same time (else as for the drain)')
    .option('--dry-run', 'say which VMs would come back and how long it takes; change nothing')
    .option('--watch', 'show it live')
    .option('--no-wait', 'return as soon as it has begun')
    .addHelpText(
      'after',
      '\nVMs that were deleted, switched off or moved by somebody since stay as they are.\n' +
        'Exit code: 0 all that were to come back have, 3 some could not, or it was cancelled.\n\n' +
        'Example:\n  $ drover host undrain h1',
    )
    .action((name: string, flags: Flags) => named(context, { host: name }, () => undrain(context, name, flags)));
}

export function addDrain(program: Command, context: Context): void {
  program
    .command('drains')
    .description('hosts that are or were emptied, newest first')
    .addHelpText('after', '\nExample:\n  $ drover drains')
    .action(async () => {
      const list = await context.client().listDrains();
      context.print(list, () => (list.length === 0 ? 'no host was drained' : drainTable(list)));
    });
  const one = program
    .command('drain')
    .description('one drain, by its id or the name of its host (then the newest); to begin one: drover host drain')
    .addHelpText('after', '\nExample:\n  $ drover drain show h1');
  one
    .command('show <id>')
    .description('how it stands, VM by VM')
    .addHelpText('after', '\nExample:\n  $ drover drain show h1')
    .action(async (ref: string) => {
      const view = await find(context, ref);
      context.print(view, () => drainDetails(view));
    });
  one
    .command('watch <id>')
    .description('follow it until it is over, or does not go on')
    .addHelpText('after', '\nExample:\n  $ drover drain watch h1')
    .action(async (ref: string) => end(context, await find(context, ref), { wait: true, watch: true }));
}

function find(context: Context, ref: string): Promise<DrainView> {
  const client = context.client();
  if (ref.startsWith('drn_')) return client.getDrain({ params: { drain: ref } });
  return named(context, { host: ref }, () => client.getHostDrain({ params: { host: ref } }));
}

async function drain(context: Context, name: string, flags: Flags): Promise<void> {
  const client = context.client();
  const params = { host: name };
  const body = {
    because: flags.because ?? null,
    movesAtOnce: parseMovesAtOnce(flags.maxMovesAtOnce),
    allowCold: flags.allowCold ?? null,
  };
  const plan = await client.drainHost({ params, body: { ...body, dryRun: true } });
  if (flags.dryRun) {
    context.print(plan, () => `${planWords(plan)}\nnothing was changed`);
    if (plan.vms.some(({ state }) => state === 'stuck')) context.end(exitCodes.notConverged);
    return;
  }
  context.say(planWords(plan));
  if (!(await isMeant(context, plan, flags))) return;
  await end(context, await client.drainHost({ params, body }), flags);
}

async function isMeant(context: Context, plan: DrainView, flags: Flags): Promise<boolean> {
  const { stdin, stderr } = context.surroundings;
  const stuck = plan.vms.filter(({ state }) => state === 'stuck').length;
  if (stuck === 0 || !stdin.isTTY || flags.yes) return true;
  stderr.write(`Begin although ${stuck} cannot leave? [y/N] `);
  if (/^y(es)?$/i.test((await stdin.readLine())?.trim() ?? '')) return true;
  context.say('Nothing was changed.');
  context.end(exitCodes.failed);
  return false;
}

async function undrain(context: Context, name: string, flags: Flags): Promise<void> {
  const client = context.client();
  const params = { host: name };
  const movesAtOnce = parseMovesAtOnce(flags.maxMovesAtOnce);
  if (flags.dryRun) {
    const plan = await client.undrainHost({ params, body: { movesAtOnce, dryRun: true } });
    context.print(plan, () => `${planWords(plan)}\nnothing was changed`);
    return;
  }
  const view = await client.undrainHost({ params, body: { movesAtOnce } });
  context.say(planWords(view));
  await end(context, view, flags);
}

async function cancel(context: Context, name: string): Promise<void> {
  const view = await context.client().cancelDrain({ params: { host: name } });
  context.print(view, () => drainOutcome(view).join('\n'));
}

/** Waits unless told otherwise, says how it stands, sets the exit code. */
async function end(context: Context, first: DrainView, flags: Pick<Flags, 'wait' | 'watch'>): Promise<void> {
  if (!flags.wait) {
    context.print(first, () => first.id);
    context.say(`Follow it: drover drain watch ${first.host}`);
    return;
  }
  const live = flags.watch ? ('json' as const) : ('nothing' as const);
  const view = await followDrain(context, first, context.json ? live : 'live');
  if (context.json && flags.watch) context.printLine(view);
  else context.print(view, () => drainOutcome(view).join('\n'));
  context.end(drainExitCode(view));
}

/** Null: as it is. @throws UserError invalid-input */
export function parseMovesAtOnce(text: string | undefined): number | null {
  if (text === undefined) return null;
  return parseCount(text, '--max-moves-at-once', limitsOf(drainBody.shape.movesAtOnce.unwrap().unwrap()));
}

function drainTable(list: readonly DrainView[]): string {
  return table(
    ['DRAIN', 'HOST', 'STATE', 'BEGUN', 'VMS', 'DONE', 'ESTIMATED', 'TOOK', 'BECAUSE'],
    list.map((view) => [
      view.id,
      view.host,
      view.blocked ? `${view.state}, blocked` : view.state,
      new Date(view.startedAt).toISOString(),
      String(view.total),
      String(view.done),
      formatMs(view.estimate.ms),
      view.tookMs === null ? '-' : formatMs(view.tookMs),
      view.because,
    ]),
  );
}

function drainDetails(view: DrainView): string {
  const head = details([
    ['drain', view.id],
    ['host', view.host],
    ['state', view.says],
    ['because', `${view.because} (${view.by})`],
    ['begun', new Date(view.startedAt).toISOString()],
    ['estimated', `${view.estimate.moves} moves, ${formatMs(view.estimate.ms)}`],
    ['took', view.tookMs === null ? null : formatMs(view.tookMs)],
    ['left', view.etaMs === null ? null : `about ${formatMs(view.etaMs)}`],
    ['blocked', view.blocked?.says],
    ['next', view.blocked?.next],
  ]);
  if (view.vms.length === 0) return head;
  const rows = view.vms.map((row) => [
    row.name,
    String(row.priority),
    row.state,
    row.host,
    row.to ?? '-',
    row.migration ?? '-',
    row.says ?? '-',
  ]);
  return `${head}\n\n${table(['VM', 'PRIORITY', 'STATE', 'HOST', 'TO', 'MIGRATION', 'SAYS'], rows)}`;
}
