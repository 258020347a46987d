/** `drover host sleep | wake | drill | sleep-way | watts`: hosts that sleep when nothing needs them. */
import { Option, type Command } from 'commander';
import { UserError } from '../../model/failure.ts';
import { formatMs } from '../../model/units.ts';
import { macPattern } from '../../model/sleep.ts';
import { watts, type SleepView } from '../../wire/energy.ts';
import { exitCodes, interruptible, named, type Context } from '../context.ts';
import { collect } from '../labels.ts';
import { limitsOf, parseNumber } from '../numbers.ts';
import { Patience } from '../patience.ts';

interface Flags {
  readonly because?: string;
  readonly dryRun?: true;
  readonly wait?: true;
}

/** Between two looks while waiting; hosts take minutes. */
const lookEveryMs = 1_000;

export function addHostSleep(host: Command, context: Context): void {
  host
    .command('sleep <host>')
    .description('send a host without guests to sleep, if it was proven that it can be woken')
    .option('--because <text>', 'why, kept on record')
    .option('--dry-run', 'only say whether it may')
    .option('--wait', 'until it is asleep')
    .addHelpText('after', '\nExample:\n  $ drover host sleep h3 --because "quiet weekend" --wait')
    .action((name: string, flags: Flags) => send(context, name, flags, false));
  host
    .command('wake <host>')
    .description('wake a host; its VMs and others can be placed there when it reports')
    .option('--because <text>', 'why, kept on record')
    .option('--dry-run', 'only say what would be done')
    .option('--wait', 'until it reports')
    .addHelpText('after', '\nExample:\n  $ drover host wake h3 --wait')
    .action((name: string, flags: Flags) => wake(context, name, flags));
  host
    .command('drill <host>')
    .description('prove that a host can be woken: it is sent to sleep and woken again; how long that takes is kept')
    .option('--because <text>', 'why, kept on record')
    .option('--dry-run', 'only say whether it may')
    .option('--wait', 'until it reports again')
    .addHelpText('after', '\nThe host must have no guests.\n\nExample:\n  $ drover host drill h3 --wait')
    .action((name: string, flags: Flags) => send(context, name, flags, true));
  host
    .command('sleep-way <host>')
    .description('how a host sleeps and is woken; without a way: how it stands')
    .argument('[way]', 'off (by its power controller), suspend (to memory, woken by a magic packet), or none')
    .option(
      '--mac <address>',
      'suspend: a card that wakes it, instead of all that it has; may be given again',
      collect,
      [],
    )
    .addHelpText(
      'after',
      '\nExamples:\n  $ drover host sleep-way h3 off\n  $ drover host sleep-way h3 suspend --mac 52:54:00:aa:bb:cc',
    )
    .action(async (name: string, way: string | undefined, { mac }: { mac: readonly string[] }) => {
      const client = context.client();
      const params = { host: name };
      const view = await named(context, params, () =>
        way === undefined
          ? client.getHostSleep({ params })
          : client.setHostSleep({ params, body: { way: wayOf(way, mac) } }),
      );
      context.print(view, () => [sleepWords(view), ...whatNext(view)].join('\n'));
    });
  host
    .command('watts <host>')
    .description('what a host draws, where nothing measures it')
    .option('--idle <watts>', 'with nothing to do')
    .option('--max <watts>', 'with all cores busy')
    .addOption(new Option('--unset', 'by its number of cores again').conflicts(['idle', 'max']))
    .addHelpText('after', '\nExample:\n  $ drover host watts h3 --idle 65 --max 210')
    .action(async (name: string, flags: { idle?: string; max?: string; unset?: true }) => {
      const params = { host: name };
      const [idle, max] = [parseWatts(flags.idle, '--idle'), parseWatts(flags.max, '--max')];
      const both = idle !== undefined && max !== undefined;
      if (both === (flags.unset === true)) {
        throw new UserError(
          'invalid-input',
          'Both numbers of watts are needed.',
          'Give --idle 65 --max 210, or --unset.',
        );
      }
      const body = { watts: both ? { idle, max } : null };
      const view = await named(context, params, () => context.client().setHostWatts({ params, body }));
      context.print(view, () => `${view.host}: ${both ? `${idle} W idle, ${max} W busy` : 'by its number of cores'}`);
    });
}

/** @throws UserError invalid-input */
function parseWatts(text: string | undefined, option: string): number | undefined {
  return text === undefined ? undefined : parseNumber(text, option, limitsOf(watts));
}

async function send(context: Context, name: string, flags: Flags, drill: boolean): Promise<void> {
  const client = context.client();
  const params = { host: name };
  const dryRun = flags.dryRun ?? false;
  const body = { drill, dryRun, ...(flags.because !== undefined && { because: flags.because }) };
  const view = await named(context, params, () => client.sendHostToSleep({ params, body }));
  if (dryRun)
    return context.print(
      view,
      () => `${view.host} may be sent to sleep${drill ? ' and be woken' : ''}; nothing was done`,
    );
  if (!flags.wait) return context.print(view, () => sleepWords(view));
  await follow(context, view, drill ? 'awake' : 'asleep');
}

async function wake(context: Context, name: string, flags: Flags): Promise<void> {
  const client = context.client();
  const params = { host: name };
  const dryRun = flags.dryRun ?? false;
  const body = { dryRun, ...(flags.because !== undefined && { because: flags.because }) };
  const view = await named(context, params, () => client.wakeHost({ params, body }));
  if (dryRun) return context.print(view, () => `${sleepWords(view)}; nothing was done`);
  if (!flags.wait) return context.print(view, () => sleepWords(view));
  await follow(context, view, 'awake');
}

async function follow(context: Context, first: SleepView, wanted: 'asleep' | 'awake'): Promise<void> {
  const { view, came } = await followSleep(context, first, wanted);
  context.print(view, () => (came ? undefined : view.lastFailure?.says) ?? sleepWords(view));
  if (!came) context.end(exitCodes.failed);
}

/** Says each change on stderr until it is as wanted, or will not be. Ctrl-C ends the waiting, not what was asked for. */
export async function followSleep(
  context: Context,
  first: SleepView,
  wanted: 'asleep' | 'awake',
): Promise<{ readonly view: SleepView; readonly came: boolean }> {
  const { clock } = context.surroundings;
  const client = context.client();
  const params = { host: first.host };
  const interruption = interruptible(context);
  const patience = new Patience(clock, interruption.signal, context.say);
  const failedBefore = first.lastFailure?.at ?? 0;
  let view = first;
  let said = '';
  try {
    for (;;) {
      const words = sleepWords(view);
      if (words !== said) context.say(words);
      said = words;
      const failed = view.lastFailure !== null && view.lastFailure.at > failedBefore;
      if (view.state === 'wake-failed' || (view.state === 'awake' && failed)) return { view, came: false };
      if (view.state === wanted) return { view, came: true };
      await clock.sleep(lookEveryMs, interruption.signal);
      view = (await patience.ask((signal) => client.getHostSleep({ params }, { signal }))) ?? view;
    }
  } catch (error) {
    if (interruption.signal.aborted)
      context.say(`Not waited for any longer; it goes on: drover host sleep-way ${first.host}`);
    throw interruption.signal.aborted ? interruption.signal.reason : error;
  } finally {
    interruption.stop();
  }
}

const stateWords = {
  awake: 'awake',
  'going-to-sleep': 'going to sleep',
  asleep: 'asleep',
  waking: 'being woken',
  'wake-failed': 'asleep, and did not wake',
} as const satisfies Record<SleepView['state'], string>;

/** "h3: asleep (off), ready 48.0 s after it is woken" */
export function sleepWords(view: SleepView): string {
  const way = view.way === null ? 'never sleeps' : `sleeps by ${view.way.kind}`;
  const ready = view.readyWithinMs === null ? '' : `, ready within ${formatMs(view.readyWithinMs)} of being woken`;
  const proof = view.proof === null ? ', never woken so far' : `, woken last ${new Date(view.proof.at).toISOString()}`;
  return `${view.host} is ${stateWords[view.state]} (${way}${view.way === null ? '' : `${ready}${proof}`})`;
}

/** Why it may not sleep yet, and the drill that is to come: without a power controller that would be refused as well. */
function whatNext({ host, way, state, proof, refusal }: SleepView): string[] {
  if (way === null || state !== 'awake') return [];
  const not = refusal === null ? [] : [`it may not be sent to sleep now: ${refusal}`];
  return proof !== null ? not : [...not, `It may sleep once it was proven that it wakes: drover host drill ${host}`];
}

function wayOf(way: string, macs: readonly string[]) {
  const wrong = macs.find((mac) => !macPattern.test(mac));
  if (wrong !== undefined) {
    throw new UserError('invalid-input', `'${wrong}' is no address of a card.`, 'Write --mac 52:54:00:aa:bb:cc.');
  }
  if (macs.length > 0 && way !== 'suspend') {
    throw new UserError('invalid-input', `--mac means nothing with ${way}.`, 'Leave it out, or use suspend.');
  }
  if (way === 'none') return null;
  if (way === 'off') return { kind: 'off' as const };
  if (way === 'suspend') return { kind: 'suspend' as const, macs: [...macs] };
  throw new UserError('invalid-input', `A host cannot sleep by '${way}'.`, 'Use off, suspend or none.');
}
