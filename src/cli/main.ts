/**
 * The command line: builds the commands, runs one, turns what was thrown into words on stderr and an exit code. Not here: what
 * a command does (commands/).
 *
 *   0 done   1 failed   2 usage   3 not converged, cancelled or guests remain   4 refused   5 not found   130 interrupted
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { Command, CommanderError, Option } from 'commander';
import { UserError, messageOf, userErrorCodes, type UserErrorClass } from '../model/failure.ts';
import { addBackup } from './commands/backup.ts';
import { addBalance } from './commands/balance.ts';
import { addCompletion } from './commands/completion.ts';
import { addDrain } from './commands/drain.ts';
import { addDoctor } from './commands/doctor.ts';
import { addEnergy } from './commands/energy.ts';
import { addEvents } from './commands/events.ts';
import { addFleet } from './commands/fleet.ts';
import { addForecast } from './commands/forecast.ts';
import { addHost } from './commands/host.ts';
import { addMigrate } from './commands/migrate.ts';
import { addMigration } from './commands/migration.ts';
import { addPeople } from './commands/people.ts';
import { addPlan } from './commands/plan.ts';
import { addRecovery } from './commands/recovery.ts';
import { addTask } from './commands/task.ts';
import { addTop } from './commands/top.ts';
import { addVm } from './commands/vm.ts';
import { addWebhook } from './commands/webhook.ts';
import { Interrupted, createContext, exitCodes, type Context, type GlobalFlags } from './context.ts';
import { realSurroundings, type Surroundings } from './surroundings.ts';

const exitCodeOfClass = {
  usage: exitCodes.usage,
  'not-found': exitCodes.notFound,
  conflict: exitCodes.refused,
  refused: exitCodes.refused,
  unauthorized: exitCodes.failed,
  forbidden: exitCodes.refused,
  unavailable: exitCodes.failed,
} as const satisfies Record<UserErrorClass, number>;

/**
 * Runs one command line to its end.
 * @param argv the words after `drover`
 * @returns the exit code; never throws
 */
export async function runCli(argv: string[], surroundings: Surroundings = realSurroundings()): Promise<number> {
  let code: number = exitCodes.done;
  const program = new Command('drover');
  const context = createContext(
    surroundings,
    () => program.opts<GlobalFlags>(),
    (ended) => (code = ended),
  );
  build(program, context);
  try {
    if (argv.length === 0) {
      surroundings.stdout.write(program.helpInformation());
      return exitCodes.done;
    }
    await program.parseAsync(argv, { from: 'user' });
    return code;
  } catch (error) {
    return report(error, context);
  }
}

/** Every command of the CLI, as its reference and the completion of shells need it; nothing is run. */
export function commandTree(surroundings: Surroundings = realSurroundings()): Command {
  const program = new Command('drover');
  build(
    program,
    createContext(
      surroundings,
      () => ({}),
      () => {},
    ),
  );
  return program;
}

function build(program: Command, context: Context): void {
  const { stdout, stderr, repoRoot } = context.surroundings;
  program
    .description('Moves virtual machines between the hosts that run them, while they run.')
    .addOption(new Option('-o, --output <format>', 'how data is printed').choices(['table', 'json']).default('table'))
    .option(
      '--server <url>',
      'address of the server, or several with commas (else DROVER_SERVER, ~/.config/drover/cli.json, a lab that is up)',
    )
    .option('--reason <text>', 'why, for the audit log')
    .option('--token-file <file>', 'file with the token for it (else DROVER_TOKEN or DROVER_TOKEN_FILE)')
    .option('--ca <file>', 'who may sign its certificate, for https (PEM; else DROVER_CA, or whom this machine trusts)')
    .version(versionOf(repoRoot), '--version', 'print the version')
    .helpOption('-h, --help', 'print this help')
    .configureHelp({ showGlobalOptions: true, sortSubcommands: false })
    .exitOverride()
    .configureOutput({
      writeOut: (text) => stdout.write(text),
      writeErr: (text) => stderr.write(text),
      // Its errors are printed in the one way all errors are, see `report`.
      outputError: () => {},
      getOutHelpWidth: () => Math.min(120, stdout.columns),
      getErrHelpWidth: () => Math.min(120, stderr.columns),
    })
    .addHelpText(
      'after',
      `
Examples:
  $ drover vm create web1 --image debian.qcow2 --cpus 2 --memory 1GiB
  $ drover migrate web1 --to h2 --watch

Exit codes:
  0 done  1 failed  2 usage  3 not converged, cancelled, or guests remain  4 refused  5 not found  130 interrupted`,
    );
  program.hook('preAction', (_, command) => refuseEmpty(command));
  addHost(program, context);
  addVm(program, context);
  addMigrate(program, context);
  addForecast(program, context);
  addMigration(program, context);
  addTask(program, context);
  addTop(program, context);
  addRecovery(program, context);
  addDrain(program, context);
  addFleet(program, context);
  addPlan(program, context);
  addBalance(program, context);
  addEvents(program, context);
  addEnergy(program, context);
  addDoctor(program, context);
  addPeople(program, context);
  addWebhook(program, context);
  addBackup(program, context);
  addCompletion(program, context);
  addPrograms(program);
}

/** A name that is empty is one that a script did not find: said here for all commands. @throws UserError invalid-input */
function refuseEmpty({ registeredArguments, processedArgs }: Command): void {
  const empty = registeredArguments.find((_, at) => processedArgs[at] === '');
  if (empty === undefined) return;
  throw new UserError(
    'invalid-input',
    `<${empty.name()}> is empty.`,
    'Write what is meant in its place; --help says more.',
  );
}

/** Programs of their own: here for the help and for "did you mean" only; src/main.ts starts them. */
function addPrograms(program: Command): void {
  const programs = [
    ['server', 'the control plane (drover server --help)', 'drover server --listen 127.0.0.1:7070'],
    ['agent', 'what runs on each host (drover agent --help)', 'drover agent --name h1 --server 10.0.0.1:7071'],
    [
      'restore',
      'puts a backup back, on the machine of a stopped server',
      'drover restore fleet.backup --state /var/lib/drover/server',
    ],
    ['lab', 'several hosts on this machine (drover lab --help)', 'drover lab up'],
  ] as const;
  for (const [name, summary, example] of programs) {
    program
      .command(name)
      .description(summary)
      .allowUnknownOption()
      .allowExcessArguments()
      .addHelpText('after', `\nExample:\n  $ ${example}`)
      .action(() => {
        throw new UserError(
          'invalid-input',
          `${name} is a program of its own.`,
          `Write it first: drover ${name} --help`,
        );
      });
  }
}

function versionOf(repoRoot: string): string {
  const { version } = JSON.parse(readFileSync(join(repoRoot, 'package.json'), 'utf8')) as { version: string };
  return version;
}

function report(error: unknown, context: Context): number {
  const { env } = context.surroundings;
  const say = (message: string, hint: string): void => context.say(`error: ${message}\n  next: ${hint}`);
  if (error instanceof CommanderError) return reportUsage(error, say);
  if (error instanceof Interrupted) return exitCodes.interrupted;
  if (error instanceof UserError) {
    const kind = userErrorCodes[error.code];
    const connection = context.connection();
    const whence =
      kind === 'unavailable' && error.cause !== undefined && connection
        ? ` (The address ${connection.server} is from ${connection.saidBy}.)`
        : '';
    say(error.message, `${error.hint}${whence}`);
    if (env['DROVER_DEBUG'] === '1' && error.cause !== undefined) context.say(messageOf(error.cause));
    return exitCodeOfClass[kind];
  }
  say(
    `This is a bug in drover: ${messageOf(error)}`,
    'Please report it with the command you gave. DROVER_DEBUG=1 shows where it happened.',
  );
  if (env['DROVER_DEBUG'] === '1' && error instanceof Error) context.say(error.stack ?? '');
  return exitCodes.failed;
}

function reportUsage(error: CommanderError, say: (message: string, hint: string) => void): number {
  // Help and version were asked for and have been printed; `drover vm` alone prints its help as a reminder.
  if (error.code === 'commander.helpDisplayed' || error.code === 'commander.version') return exitCodes.done;
  if (error.code === 'commander.help') return exitCodes.usage;
  const [, message = error.message, meant] =
    /^(?:error: )?([\s\S]*?)(?:\n\((Did you mean [\s\S]*\?)\))?$/.exec(error.message) ?? [];
  const sentence = message.trim().replace(/^./, (letter) => letter.toUpperCase());
  say(/[.!?]$/.test(sentence) ? sentence : `${sentence}.`, meant ?? '--help shows what can be written here.');
  return exitCodes.usage;
}
