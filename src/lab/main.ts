/** `drover lab …`: the words of the command line. What they do is in up, down, status, break and tour. */
import { Command, CommanderError, Option } from 'commander';
import { UserError, messageOf, userErrorCodes } from '../model/failure.ts';
import { parseDurationMs, parseSizeMiB } from '../model/units.ts';
import { createLog } from '../runtime/log.ts';
import { createClient } from '../wire/client.ts';
import { followBlackouts } from './blackout.ts';
import { describe, disturb, mend, switchPower, type Disturbance } from './break.ts';
import { chaosLabName, runChaos } from './chaos/chaos.ts';
import { down } from './down.ts';
import { guestFiles } from './guest/files.ts';
import { createLabVm } from './guests.ts';
import { cutPower, followWishes, powerOf, restorePower } from './power.ts';
import { apiOf, defaultLabName, directoriesOf, namesOf, readJson, readState } from './state.ts';
import { labNames, statusOf, statusText } from './status.ts';
import { Supervisor, supervisorPlan } from './supervise.ts';
import { runTour } from './tour.ts';
import { defaults, openLab, requireRoot, up } from './up.ts';
import { basename, join } from 'node:path';
import { readFileSync } from 'node:fs';

interface Common {
  readonly name: string;
  readonly output: 'table' | 'json';
}

/** @returns the exit code: 0 done, 1 failed, 2 usage, 4 refused, 5 not found, 130 interrupted */
export async function runLab(argv: readonly string[]): Promise<number> {
  let code = 0;
  const interrupt = new AbortController();
  const program = labCommand((result) => (code = result), interrupt);
  try {
    await program.parseAsync([...argv], { from: 'user' });
    return code;
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2;
    if (interrupt.signal.aborted) return 130;
    return report(error);
  }
}

function report(error: unknown): number {
  say(messageOf(error));
  if (!(error instanceof UserError)) {
    const cause = error instanceof Error && error.cause !== undefined ? messageOf(error.cause) : undefined;
    if (cause !== undefined && cause !== messageOf(error)) say(cause);
    return 1;
  }
  say(error.hint);
  const codes = {
    usage: 2,
    'not-found': 5,
    conflict: 4,
    refused: 4,
    forbidden: 4,
    unauthorized: 1,
    unavailable: 1,
  } as const;
  return codes[userErrorCodes[error.code]];
}

const say = (line: string): void => void process.stderr.write(`${line}\n`);
const print = (text: string): void => void process.stdout.write(`${text}\n`);
const asNumber = (text: string): number => (/^\d+$/.test(text) ? Number(text) : Number.NaN);

/** Its options and help; `end` gets the exit code. */
export function labCommand(end: (code: number) => void, interrupt: AbortController): Command {
  const program = new Command('drover lab')
    .description('Several hosts on this machine, as network namespaces, with real QEMU guests')
    .exitOverride()
    // Here and at `break`: --name behind what is broken belongs to that.
    .enablePositionalOptions()
    .addHelpText(
      'after',
      '\nExample:\n  drover lab up --hosts 3 --link-speed 1gbit\n  drover vm list\n  drover lab down',
    );
  const command = (words: string, description: string, example: string): Command =>
    program
      .command(words)
      .description(description)
      .exitOverride()
      .option('--name <lab>', 'which lab', defaultLabName)
      .addOption(new Option('--output <how>', 'how to print').choices(['table', 'json']).default('table'))
      .addHelpText('after', `\nExample:\n  ${example}`);
  const result = (options: Common, data: unknown, text: () => string): void =>
    print(options.output === 'json' ? JSON.stringify(data, null, 2) : text());

  command('up', 'Start a lab, or repair the one that is up', 'drover lab up --hosts 2 --link-speed 200mbit')
    .option('--hosts <number>', `how many hosts (default: ${defaults.hosts})`, asNumber)
    .option('--link-speed <rate>', `of the migration network: 1gbit, 200mbit, raw (default: ${defaults.linkSpeed})`)
    .option('--servers <number>', 'so many, on an etcd of three members; 1: on a file (default: 1)', asNumber)
    .option('--port <number>', 'of the API on 127.0.0.1 (default: a free one)', asNumber)
    .option('--no-bmc', 'hosts without power controllers')
    .action(
      async (
        options: Common & { hosts?: number; linkSpeed?: string; port?: number; servers?: number; bmc: boolean },
      ) => {
        // Not said: as the lab is.
        const bmc = options.bmc ? undefined : false;
        const lab = await up({ ...options, bmc, say, signal: onInterrupt(interrupt) });
        const shown = {
          server: apiOf(lab.state),
          tokenFile: directoriesOf(lab.state.name).token,
          hosts: lab.state.hosts,
        };
        result(
          options,
          shown,
          () => `Try: drover host list\n     drover lab vm web1 --load 2500,32\n     drover migrate web1 --watch`,
        );
      },
    );

  command('down', 'Take a lab down; nothing of it is left', 'drover lab down --name lab2')
    .option('--all', 'every lab of this directory')
    .action(async (options: Common & { all?: boolean }) => {
      const names = options.all === true ? labNames() : [options.name];
      const gone: string[] = [];
      for (const name of names) if (await down(name, say)) gone.push(name);
      result(options, { down: gone }, () => (gone.length > 0 ? '' : `no lab named '${options.name}' is up`).trim());
    });

  command('status', 'What runs in a lab', 'drover lab status --output json')
    .option('--all', 'every lab of this directory')
    .action(async (options: Common & { all?: boolean }) => {
      const names = options.all === true ? labNames() : [options.name];
      const states = await Promise.all(names.map(statusOf));
      result(options, options.all === true ? states : states[0], () => states.map(statusText).join('\n'));
      if (states.some(({ up: isUp, trouble }) => !isUp || trouble.length > 0)) end(1);
    });

  command(
    'vm <vm>',
    "Create a VM of the lab's own guest, and wait until it answers",
    'drover lab vm web1 --load 2500,32 --disk 20',
  )
    .option('--host <host>', 'where (default: where it fits best)')
    .option('--memory <size>', 'of the VM (default: 256MiB)')
    .option('--fill <size>', 'of memory that holds data which can be verified, e.g. 128MiB')
    .option('--load <pages,MiB>', 'page writes per second and MiB of the set they go to, e.g. 2500,32')
    .option('--disk <writes>', '4 KiB writes per second to its disk', asNumber)
    .action(
      async (
        vm: string,
        options: Common & { host?: string; memory?: string; fill?: string; load?: string; disk?: number },
      ) => {
        requireRoot();
        const made = await createLabVm(openLab(options.name), {
          name: vm,
          host: options.host,
          memoryMiB: options.memory === undefined ? undefined : parseSizeMiB(options.memory),
          fillMiB: options.fill === undefined ? undefined : parseSizeMiB(options.fill),
          load: options.load === undefined ? undefined : parseLoad(options.load),
          diskWritesPerSecond: checkWrites(options.disk),
        });
        result(
          options,
          made.vm,
          () => `${made.vm.name} runs on ${made.vm.host} and answers at ${made.vm.address ?? '?'}`,
        );
      },
    );

  command(
    'power <host> [state]',
    'Press the power button of a host: on or off; without, show it',
    'drover lab power h1 on',
  ).action(async (host: string, state: string | undefined, options: Common) => {
    requireRoot();
    const lab = openLab(options.name);
    if (state !== undefined && state !== 'on' && state !== 'off')
      throw new UserError('invalid-input', `A host cannot be switched '${state}'.`, 'Write on or off.');
    if (state !== undefined) await switchPower(lab, host, state);
    const now = powerOf(lab.state.name, host);
    result(options, { host, state: now }, () => `${host}: power ${now}`);
  });

  breakCommands(command, interrupt);

  command('mend', 'Undo every disturbance: links, speeds, programs', 'drover lab mend').action(
    async (options: Common) => {
      requireRoot();
      await mend(openLab(options.name));
      say('links, speeds and programs are as they were; VMs that died are started with: drover vm start VM');
    },
  );

  command('tour', 'Show every technique on a busy guest, verified', 'drover lab tour --exit')
    .option('--exit', 'end with the table and take the lab down')
    .action(async (options: Common & { exit?: boolean }) => {
      end(
        await runTour({
          name: options.name,
          output: options.output,
          stay: options.exit !== true,
          say,
          print,
          signal: onInterrupt(interrupt),
        }),
      );
    });

  command(
    'chaos',
    'Kill everything in every phase of every technique, and see each guest survive exactly once',
    "drover lab chaos --short\n  drover lab chaos --only 'source-power in .* of hybrid'",
  )
    .option('--only <pattern>', 'cells whose names match this regular expression')
    .option('--short', 'the dozen that matter most')
    .option('--list', 'print the names of the cells and do nothing')
    .action(async (options: Common & { only?: string; short?: boolean; list?: boolean }, self: Command) => {
      const { output, only, short = false, list = false } = options;
      if (!list) requireRoot();
      // Not the lab of other commands, unless it is said.
      const name = self.getOptionValueSource('name') === 'default' ? chaosLabName : options.name;
      end(await runChaos({ name, output, only, short, list, say, print, signal: onInterrupt(interrupt) }));
    });

  program
    .command('supervise <directory>', { hidden: true })
    .description("the lab's own supervisor; started by up")
    .action(async (directory: string) => supervise(basename(directory)));
  return program;
}

type MakeCommand = (words: string, description: string, example: string) => Command;

function breakCommands(command: MakeCommand, interrupt: AbortController): void {
  const lasting = '--for <duration>';
  const doIt = async (options: Common & { for?: string }, disturbance: Disturbance): Promise<void> => {
    requireRoot();
    const forMs = options.for === undefined ? undefined : parseDurationMs(options.for);
    const lab = openLab(options.name);
    await disturb(lab, disturbance);
    say(describe(disturbance));
    if (forMs === undefined) {
      if (disturbance.kind !== 'kill-qemu') say('undo with: drover lab mend');
      return;
    }
    const signal = onInterrupt(interrupt);
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, forMs);
      signal.addEventListener('abort', () => (clearTimeout(timer), resolve()), { once: true });
    });
    await mend(lab);
    say('mended');
  };
  const parent = command(
    'break',
    'Disturb a lab, to see what it bears',
    'drover lab break agent h1 --for 30s',
  ).enablePositionalOptions();
  const child = (words: string, description: string, example: string): Command =>
    parent
      .command(words)
      .description(description)
      .exitOverride()
      .option('--name <lab>', 'which lab', defaultLabName)
      .addHelpText('after', `\nExample:\n  drover lab break ${example}`);

  child('agent <host>', 'Kill the agent of a host', 'agent h1 --for 60s')
    .option(lasting, 'keep it dead so long; without, it is started again at once')
    .action((host: string, options: Common & { for?: string }) =>
      doIt(options, { kind: 'kill-agent', host, afterwards: options.for === undefined ? 'restart' : 'hold' }),
    );
  child('guard <host>', 'Kill the guard of a host', 'guard h1 --for 60s')
    .option(lasting, 'keep it dead so long; without, it is started again at once')
    .action((host: string, options: Common & { for?: string }) =>
      doIt(options, { kind: 'kill-guard', host, afterwards: options.for === undefined ? 'restart' : 'hold' }),
    );
  child('server', 'Kill the server, or the one of several that leads', 'server --for 10s')
    .option(lasting, 'keep it dead so long; without, it is started again at once')
    .action((options: Common & { for?: string }) =>
      doIt(options, { kind: 'kill-server', afterwards: options.for === undefined ? 'restart' : 'hold' }),
    );
  child('qemu <vm>', 'Kill the QEMU of a VM', 'qemu web1 --side target')
    .addOption(new Option('--side <side>', 'of its migration').choices(['source', 'target']).default('source'))
    .action((vm: string, options: Common & { side: 'source' | 'target' }) =>
      doIt(options, { kind: 'kill-qemu', vm, side: options.side }),
    );
  child('link <host> <link>', 'Cut a link of a host: migration or control', 'link h1 migration --for 5s')
    .option(lasting, 'mend it after so long')
    .action((host: string, link: string, options: Common & { for?: string }) => {
      if (link !== 'migration' && link !== 'control') {
        throw new UserError('invalid-input', `A host has no ${link} link.`, 'Use migration or control.');
      }
      return doIt(options, { kind: 'cut-link', host, link });
    });
  child('power <host>', 'Pull the plug of a host: all on it dies at once', 'power h1 --for 30s')
    .option('--with-bmc', 'its BMC goes dark as well')
    .option(lasting, 'switch it on again after so long')
    .action((host: string, options: Common & { withBmc?: true; for?: string }) =>
      doIt(options, { kind: 'power-off', host, bmc: options.withBmc ? 'dead' : 'reachable' }),
    );
  child('path <from> <to>', 'Lose what one host (or the server) sends to another', 'path h1 server --both --for 10s')
    .option('--both', 'both ways')
    .option(lasting, 'mend it after so long')
    .action((from: string, to: string, options: Common & { both?: true; for?: string }) =>
      doIt(options, { kind: 'cut-path', from, to, ways: options.both ? 'both' : 'one' }),
    );
  child('freeze <what> <host>', 'Freeze the agent or the guard of a host', 'freeze agent h1 --for 5s')
    .option(lasting, 'thaw it after so long')
    .action((what: string, host: string, options: Common & { for?: string }) => {
      if (what !== 'agent' && what !== 'guard')
        throw new UserError(
          'invalid-input',
          `'${what}' cannot be frozen.`,
          'Write: freeze agent h1, or freeze guard h1',
        );
      return doIt(options, { kind: `freeze-${what}`, host });
    });
  child('link-speed <rate>', 'Change the speed of the migration network', 'link-speed 200mbit')
    .option(lasting, 'change it back after so long')
    .action((speed: string, options: Common & { for?: string }) => doIt(options, { kind: 'link-speed', speed }));
}

/** Ctrl-C and SIGTERM abort; a second one ends the program as it would have ended without us. */
function onInterrupt(interrupt: AbortController): AbortSignal {
  for (const name of ['SIGINT', 'SIGTERM'] as const)
    process.once(name, () => interrupt.abort(new Error('interrupted')));
  return interrupt.signal;
}

function parseLoad(text: string): { pagesPerSecond: number; setMiB: number } {
  const match = /^(\d{1,7}),(\d{1,6})$/.exec(text);
  if (match) return { pagesPerSecond: Number(match[1]), setMiB: Number(match[2]) };
  throw new UserError(
    'invalid-input',
    `'${text}' is not a load.`,
    'Write page writes per second, a comma and MiB, for example 2500,32.',
  );
}

function checkWrites(writes: number | undefined): number | undefined {
  if (writes === undefined || (writes >= 0 && writes <= 100_000)) return writes;
  throw new UserError(
    'invalid-input',
    'That is not a number of disk writes per second.',
    'Use 0 to 100000, for example 20.',
  );
}

/** The detached process that `up` starts: programs and prober of one lab, until it is asked to stop. */
async function supervise(name: string): Promise<void> {
  const directories = directoriesOf(name);
  const log = createLog({ fields: { lab: name } });
  const plan = readJson(directories.supervisorPlan, supervisorPlan);
  const state = readState(name);
  if (!plan || !state) throw new Error(`${directories.root} holds no lab`);
  const supervisor = new Supervisor({
    children: plan.children,
    recordFile: directories.children,
    log,
    power: {
      cut: (host) => cutPower(name, host),
      restore: (host) => restorePower(name, host),
      isOff: (host) => powerOf(name, host) === 'off',
    },
  });
  const ending = new AbortController();
  for (const signal of ['SIGTERM', 'SIGINT'] as const) process.on(signal, () => void supervisor.stop());
  await supervisor.start();
  followWishes(name, (host, to) => supervisor.power(host, to), { log, signal: ending.signal });
  await supervisor.listen(directories.supervisorSocket);
  await supervisor.ready(60_000).catch((error: unknown) => log.error({ error }, 'not everything came up'));
  // The prober needs the token, which the server makes when it first starts.
  const token = readFileSync(join(directories.token), 'utf8').trim();
  const probing = followBlackouts({
    client: createClient({ server: apiOf(state), token }),
    binary: guestFiles().probe,
    netns: namesOf(name).client,
    log,
    signal: ending.signal,
  });
  await supervisor.stopped;
  ending.abort();
  await probing;
}
