/** `drover top`: hosts, guests and moves as they are, drawn again and again on a terminal; once everywhere else. */
import { Option, type Command } from 'commander';
import { UserError } from '../../model/failure.ts';
import { parseDurationMs } from '../../model/units.ts';
import { isLive, openCanvas, styleOf } from '../canvas.ts';
import { interruptible, type Context } from '../context.ts';
import { orders, topLines, type Look, type Order } from '../top.ts';

const shortestMs = 250;

interface Flags {
  readonly once?: true;
  readonly every: string;
  readonly sort: Order;
}

export function addTop(program: Command, context: Context): void {
  program
    .command('top')
    .description('hosts, guests and moves with their load, live on a terminal')
    .option('--once', 'print it once; what is done anyway where there is no terminal')
    .option('--every <time>', 'how often it is asked for', '2s')
    .addOption(new Option('--sort <order>', 'of the guests').choices([...orders]).default('cpu'))
    .addHelpText('after', '\nCtrl-C ends it.\n\nExamples:\n  $ drover top\n  $ drover top --once --sort memory')
    .action((flags: Flags) => top(context, flags));
}

async function top(context: Context, { once, every, sort }: Flags): Promise<void> {
  const everyMs = parseDurationMs(every);
  if (everyMs < shortestMs) {
    throw new UserError('invalid-input', `--every ${every} is too often.`, `Write ${shortestMs}ms or more.`);
  }
  const { surroundings } = context;
  if (once || (!context.json && !isLive(surroundings))) {
    const look = await ask(context);
    context.print(look, () => topLines(look, sort, null, styleOf(surroundings)).join('\n'));
    return;
  }
  await goOn(context, sort, everyMs);
}

/** Until Ctrl-C, which is how it is meant to end. */
async function goOn(context: Context, sort: Order, everyMs: number): Promise<void> {
  const { surroundings } = context;
  const interruption = interruptible(context);
  const { signal } = interruption;
  let look = await ask(context);
  let trouble = '';
  const canvas = context.json
    ? undefined
    : openCanvas(surroundings, (columns, style) => {
        const room = { columns, rows: surroundings.stdout.rows - 2 };
        return [...topLines(look, sort, room, style), ...(trouble === '' ? [] : [trouble])];
      });
  try {
    for (;;) {
      if (context.json) context.printLine(look);
      await surroundings.clock.sleep(everyMs, signal);
      try {
        look = await ask(context, signal);
        trouble = '';
      } catch (error) {
        // What was there a moment ago stays in sight: a server that is replaced is back within seconds.
        if (!(error instanceof UserError) || signal.aborted || context.json) throw error;
        trouble = `${error.message} It is asked again.`;
      }
      canvas?.soon();
    }
  } catch (error) {
    if (!signal.aborted) throw error;
  } finally {
    canvas?.close();
    interruption.stop();
  }
}

async function ask(context: Context, signal?: AbortSignal): Promise<Look> {
  const client = context.client();
  const options = signal ? { signal } : {};
  const [hosts, vms, migrations] = await Promise.all([
    client.listHosts({}, options),
    client.listVms({}, options),
    client.listMigrations({ query: { open: 'true' } }, options),
  ]);
  return { at: context.surroundings.clock.now(), hosts, vms, migrations };
}
