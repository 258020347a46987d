/** `drover events`: what changes in the fleet, as it happens or as it was. */
import type { Command } from 'commander';
import type { StreamedEvent } from '../../wire/client.ts';
import { Interrupted, interruptible, type Context } from '../context.ts';

/** Without --follow the list has ended when nothing more comes for this long. */
const quietMs = 1_000;

interface Flags {
  readonly follow?: true;
  readonly migration?: string;
  readonly samples?: true;
  readonly since?: string;
}

export function addEvents(program: Command, context: Context): void {
  program
    .command('events')
    .description('what has changed, oldest first; with --follow what changes from now on')
    .option('-f, --follow', 'go on until Ctrl-C')
    .option('--migration <id>', 'only of this migration')
    .option('--samples', 'also the progress of migrations, twice a second')
    .option('--since <event>', 'only what came after the event with this id')
    .addHelpText('after', '\nExample:\n  $ drover events --follow --output json')
    .action((flags: Flags) => events(context, flags));
}

async function events(context: Context, flags: Flags): Promise<void> {
  const { clock } = context.surroundings;
  const interruption = interruptible(context);
  const quiet = new AbortController();
  let timer = { cancel: (): void => {} };
  const waitForMore = (): void => {
    timer.cancel();
    if (!flags.follow) timer = clock.setTimeout(() => quiet.abort(), quietMs);
  };
  const since = flags.since ?? (flags.follow ? undefined : '0');
  try {
    const stream = context.client().events({
      ...(flags.migration === undefined ? {} : { migration: flags.migration }),
      samples: flags.samples ?? false,
      ...(since === undefined ? {} : { lastEventId: since }),
      signal: AbortSignal.any([interruption.signal, quiet.signal]),
      onOpen: waitForMore,
    });
    for await (const streamed of stream) {
      show(context, streamed);
      waitForMore();
    }
    if (interruption.signal.aborted) throw new Interrupted('interrupted');
  } finally {
    timer.cancel();
    interruption.stop();
  }
}

function show(context: Context, { id, event }: StreamedEvent): void {
  if (context.json) {
    context.printLine({ id, ...event });
    return;
  }
  const at = new Date(event.at).toISOString().replace('T', ' ').replace('Z', '');
  context.surroundings.stdout.write(`${at}  ${event.type.padEnd(12)}  ${event.says}\n`);
}
