/** `drover host power`: a host's power controller. */
import { resolve } from 'node:path';
import type { Command } from 'commander';
import { UserError } from '../../model/failure.ts';
import type { PowerBody, PowerView } from '../../wire/power.ts';
import { exitCodes, named, type Context } from '../context.ts';

const verbs = ['show', 'set', 'unset', 'on', 'off'] as const;
type Verb = (typeof verbs)[number];

interface Flags {
  readonly ipmi?: string;
  readonly redfish?: string;
  readonly user?: string;
  readonly passwordFile?: string;
  readonly caFile?: string;
  readonly untested?: true;
  readonly force?: true;
  readonly yes?: true;
}

export function addHostPower(host: Command, context: Context): void {
  host
    .command('power <host> [verb]')
    .description('read its power; set or unset its power controller; switch it on or off')
    .option('--ipmi <address[:port]>', 'set: a BMC that speaks IPMI 2.0')
    .option('--redfish <url>', 'set: a system that speaks Redfish, e.g. https://bmc1/redfish/v1/Systems/1')
    .option('--user <name>', 'set: whom the controller lets switch the power')
    .option('--password-file <file>', "set: file of the server's machine with the password in its first line")
    .option('--ca-file <file>', "set, Redfish: certificate to trust, a file of the server's machine")
    .option('--untested', 'set: store it without reading it once')
    .option('--force', 'off: also while guests run there; what they hold in memory is lost')
    .option('-y, --yes', 'off: do not ask')
    .addHelpText(
      'after',
      '\nVerbs: show (when none is given), set, unset, on, off\n\n' +
        'Examples:\n' +
        '  $ drover host power h1 set --ipmi 10.0.0.5 --user admin --password-file /etc/drover/bmc-h1\n' +
        '  $ drover host power h1\n' +
        '  $ drover host power h1 off',
    )
    .action(async (name: string, verb: string | undefined, flags: Flags) => {
      const wanted = verbs.find((each) => each === (verb ?? 'show'));
      if (wanted === undefined) {
        throw new UserError('invalid-input', `A host's power cannot '${verb}'.`, `Use one of ${verbs.join(', ')}.`);
      }
      await named(context, { host: name }, () => act(context, name, wanted, flags));
    });
}

async function act(context: Context, host: string, verb: Verb, flags: Flags): Promise<void> {
  const client = context.client();
  const params = { host };
  switch (verb) {
    case 'show': {
      const view = await client.getHostPower({ params });
      context.print(view, () => says(view));
      if (view.state === 'unknown') context.end(exitCodes.failed);
      return;
    }
    case 'set': {
      const view = await client.setHostPower({ params, body: bodyOf(flags, context.surroundings.cwd) });
      context.print(view, () => `${view.name} is switched by ${view.power ?? 'nothing'}`);
      return;
    }
    case 'unset': {
      const view = await client.unsetHostPower({ params });
      context.print(view, () => `${view.name} has no power controller any more`);
      return;
    }
    case 'on':
    case 'off': {
      if (verb === 'off' && !(await isMeant(context, host, flags))) return;
      const view = await client.switchHostPower({ params, body: { to: verb, force: flags.force ?? false } });
      context.print(view, () => says(view));
      if (view.state !== verb) context.end(exitCodes.failed);
    }
  }
}

function says({ host, state, says: words, controller }: PowerView): string {
  const reading = state === 'unknown' ? 'power unknown' : `power ${state}`;
  return `${host}: ${reading} (${controller})${words === null ? '' : `: ${words}`}`;
}

async function isMeant(context: Context, host: string, flags: Flags): Promise<boolean> {
  const { stdin, stderr } = context.surroundings;
  if (!stdin.isTTY || flags.yes) return true;
  stderr.write(`Switch ${host} hard off? [y/N] `);
  if (/^y(es)?$/i.test((await stdin.readLine())?.trim() ?? '')) return true;
  context.say('Nothing was switched.');
  context.end(exitCodes.failed);
  return false;
}

/** @param cwd relative files are meant from there; the server is given whole paths */
function bodyOf(flags: Flags, cwd: string): PowerBody {
  const { ipmi, redfish, user } = flags;
  if ((ipmi === undefined) === (redfish === undefined)) {
    throw new UserError('invalid-input', 'One power controller is needed.', 'Give --ipmi ADDRESS or --redfish URL.');
  }
  if (user === undefined || flags.passwordFile === undefined) {
    throw new UserError(
      'invalid-input',
      'A power controller lets nobody in without a name and a password.',
      'Give --user NAME and --password-file FILE.',
    );
  }
  const passwordFile = resolve(cwd, flags.passwordFile);
  const untested = flags.untested ?? false;
  if (redfish !== undefined) {
    const caFile = flags.caFile === undefined ? null : resolve(cwd, flags.caFile);
    return { controller: { kind: 'redfish', url: redfish, user, passwordFile, caFile }, untested };
  }
  return { controller: { kind: 'ipmi', ...parseAddress(ipmi ?? ''), user, passwordFile }, untested };
}

/** 10.0.0.5, 10.0.0.5:6230, bmc1, [fd00::5]:623, fd00::5 */
function parseAddress(text: string): { address: string; port?: number } {
  const match = /^(?:\[([0-9a-f:]+)\]|([^\s:[\]]+))(?::(\d{1,5}))?$/i.exec(text);
  const bare = /^[0-9a-f]*:[0-9a-f:]*:[0-9a-f:]*$/i.test(text) ? text : undefined;
  const address = bare ?? match?.[1] ?? match?.[2];
  if (address === undefined) {
    throw new UserError('invalid-input', `'${text}' is not an address.`, 'Write 10.0.0.5 or 10.0.0.5:623.');
  }
  return { address, ...(bare === undefined && match?.[3] !== undefined && { port: Number(match[3]) }) };
}
