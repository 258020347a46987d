/**
 * `drover fleet roll`: host by host: drain, run the operator's command here, wait until the host is well, bring its VMs back.
 * Stops at the first failure and says where it stands; nothing is remembered, because each step can be done again.
 */
import type { Command } from 'commander';
import { UserError, userErrorCodes } from '../../model/failure.ts';
import { formatMs, parseDurationMs } from '../../model/units.ts';
import type { DrainView } from '../../wire/drains.ts';
import type { Finding, HostView } from '../../wire/endpoints.ts';
import { exitCodes, interruptible, Interrupted, named, type Context } from '../context.ts';
import { drainExitCode, drainOutcome, planWords } from '../drain-words.ts';
import { followDrain } from '../follow-drain.ts';
import { followSleep } from './host-sleep.ts';
import { collect, hasLabels, parseSelector } from '../labels.ts';
import { parseMovesAtOnce } from './drain.ts';

interface Flags {
  readonly command: string;
  readonly hosts?: string;
  readonly selector: readonly string[];
  readonly because?: string;
  readonly maxMovesAtOnce?: string;
  readonly allowCold?: true;
  readonly healthTimeout: string;
  readonly settle: string;
  readonly dryRun?: true;
  readonly yes?: true;
}

const pollMs = 1_000;

export function addFleetRoll(fleet: Command, context: Context): void {
  fleet
    .command('roll')
    .description('host by host: drain it, run a command of yours here, wait until it is well, bring its VMs back')
    .requiredOption('--command <command>', 'for the shell; {host} stands for the name of the host')
    .option('--hosts <names>', 'these, in this order, with commas between them (else all, by name)')
    .option('--selector <key=value>', 'only hosts with this label; may be given several times', collect, [])
    .option('--because <text>', 'the reason, kept with every move (else "rolling: COMMAND")')
    .option('--max-moves-at-once <n>', 'moves that run at the same time (else 2)')
    .option('--allow-cold', 'VMs that cannot move live are shut down and started elsewhere')
    .option('--health-timeout <duration>', 'time a host may take to be well after the command', '10m')
    .option('--settle <duration>', 'how long it must be well without a break: more than it takes to go down', '10s')
    .option('--dry-run', 'say what each drain would cost and what cannot leave; run and change nothing')
    .option('-y, --yes', 'do not ask')
    .addHelpText(
      'after',
      `
The command runs on this machine with DROVER_HOST, DROVER_HOST_ADDRESS, DROVER_DRAIN, DROVER_ROLL_STEP and DROVER_ROLL_STEPS in
its environment. It is to return when its work is done: after a reboot, when the host is up again.
Stops at the first failure and says how to go on. Exit code: 0 all hosts are done, 1 a command or a host failed,
3 a host could not be emptied or a VM could not come back.

Examples:
  $ drover fleet roll --command 'ssh {host} "apt-get -y upgrade && systemctl reboot"; sleep 60'
  $ drover fleet roll --hosts h2,h3 --command './update.sh {host}' --dry-run`,
    )
    .action((flags: Flags) => roll(context, flags));
}

async function roll(context: Context, flags: Flags): Promise<void> {
  if (flags.command.trim() === '') {
    throw new UserError(
      'invalid-input',
      'The command is empty.',
      "Write what is to be run: --command './update.sh {host}'.",
    );
  }
  const times = { healthMs: parseDurationMs(flags.healthTimeout), settleMs: parseDurationMs(flags.settle) };
  const movesAtOnce = parseMovesAtOnce(flags.maxMovesAtOnce);
  const ask = {
    because: flags.because ?? `rolling: ${flags.command}`.slice(0, 500),
    movesAtOnce,
    allowCold: flags.allowCold ?? null,
  };
  const hosts = await chosenHosts(context, flags);
  const plans: DrainView[] = [];
  for (const { name } of hosts) {
    plans.push(await context.client().drainHost({ params: { host: name }, body: { ...ask, dryRun: true } }));
  }
  if (flags.dryRun) {
    context.print(plans, () => `${plans.map(planWords).join('\n\n')}\n\nnothing was run or changed`);
    if (plans.some(cannotLeave)) context.end(exitCodes.notConverged);
    return;
  }
  for (const plan of plans) context.say(planWords(plan));
  if (!(await isMeant(context, hosts, plans, flags))) return;
  const done: string[] = [];
  for (const [at, host] of hosts.entries()) {
    const rest = hosts.slice(at).map(({ name }) => name);
    const step: Step = { host, number: at + 1, of: hosts.length, rest, flags, ask, ...times };
    context.say(`\n${host.name} (${step.number} of ${step.of})`);
    if (!(await rollOne(context, step))) {
      const so = done.length === 0 ? 'none is done' : `done: ${done.join(', ')}`;
      context.say(`stopped at ${host.name}; ${so}; not begun: ${rest.slice(1).join(', ') || 'none'}`);
      return;
    }
    done.push(host.name);
  }
  context.print({ done }, () => `all ${hosts.length} hosts are done: ${done.join(', ')}`);
}

interface Step {
  readonly host: HostView;
  readonly number: number;
  readonly of: number;
  /** This one and those after it. */
  readonly rest: readonly string[];
  readonly flags: Flags;
  readonly ask: { readonly because: string; readonly movesAtOnce: number | null; readonly allowCold: boolean | null };
  readonly healthMs: number;
  readonly settleMs: number;
}

/** @returns whether the host is done; if not, the exit code is set and it was said how to go on */
async function rollOne(context: Context, step: Step): Promise<boolean> {
  const { host, ask } = step;
  const { name } = host;
  const client = context.client();
  const params = { host: name };
  const show = context.json ? ('nothing' as const) : ('live' as const);
  if (!(await inStep(context, step, 'being woken', () => isAwake(context, host)))) {
    return failed(context, step, exitCodes.failed, `${name} did not wake, so nothing was run`);
  }
  const drained = await inStep(context, step, 'being drained', async () =>
    followDrain(context, await client.drainHost({ params, body: ask }), show),
  );
  context.say(drainOutcome(drained)[0] ?? '');
  if (drained.state !== 'drained') {
    for (const line of drainOutcome(drained).slice(1)) context.say(line);
    return failed(context, step, drainExitCode(drained), `${name} could not be emptied, so nothing was run`);
  }
  const code = await inStep(context, step, 'drained, and the command was broken off', () =>
    runCommand(context, step, drained),
  );
  if (code !== 0) {
    return failed(context, step, exitCodes.failed, `the command ended with ${code}; ${name} is drained and stays so`);
  }
  const ill = await inStep(context, step, 'drained, and the command is done', () => untilWell(context, step));
  if (ill !== null) {
    return failed(
      context,
      step,
      exitCodes.failed,
      `the command is done, but ${name} is not well: ${ill}; it stays drained`,
    );
  }
  const back = await inStep(context, step, 'getting its VMs back', async () =>
    followDrain(context, await client.undrainHost({ params, body: { movesAtOnce: ask.movesAtOnce } }), show),
  );
  for (const line of drainOutcome(back)) context.say(line);
  if (drainExitCode(back) === exitCodes.done) return true;
  return failed(
    context,
    step,
    drainExitCode(back),
    `${name} is done, but not all of its VMs came back`,
    step.rest.slice(1),
  );
}

/** A host that sleeps is woken first: the command is to find it up. @returns whether it is awake */
async function isAwake(context: Context, { name, sleep }: HostView): Promise<boolean> {
  if (sleep === null || sleep.state === 'awake') return true;
  const body = { because: 'the fleet is rolled' };
  const view = await context.client().wakeHost({ params: { host: name }, body });
  return (await followSleep(context, view, 'awake')).came;
}

/** Ctrl-C says where the roll stands. */
async function inStep<T>(context: Context, step: Step, where: string, fn: () => Promise<T>): Promise<T> {
  try {
    return await fn();
  } catch (error) {
    const { name } = step.host;
    if (error instanceof Interrupted || error instanceof UserError) {
      context.say(`the roll ends here: ${name} is ${where}`);
      context.say(howToGoOn(step, step.rest));
    }
    throw error;
  }
}

function failed(context: Context, step: Step, code: number, says: string, goOnWith = step.rest): false {
  context.say(`error: ${says}.`);
  context.say(howToGoOn(step, goOnWith));
  context.end(code);
  return false;
}

function howToGoOn({ host, rest, flags }: Step, goOnWith: readonly string[]): string {
  const again = (hosts: readonly string[]): string =>
    `drover fleet roll --hosts ${hosts.join(',')} --command ${quoted(flags.command)}`;
  const others = rest.slice(1);
  const lines = goOnWith.length === 0 ? [] : [`  to go on: ${again(goOnWith)}`];
  if (goOnWith === rest) {
    lines.push(`  to leave ${host.name} as it is: drover host undrain ${host.name}`);
    if (others.length > 0) lines.push(`    and then: ${again(others)}`);
  }
  return lines.join('\n');
}

function quoted(text: string): string {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}

/** @returns its exit code */
async function runCommand(context: Context, { host, number, of, flags }: Step, drain: DrainView): Promise<number> {
  const command = flags.command.replaceAll('{host}', host.name);
  const { clock } = context.surroundings;
  const startedAt = clock.monotonic();
  context.say(`runs: ${command}`);
  const interruption = interruptible(context);
  try {
    const code = await context.surroundings.runShell(command, {
      env: {
        DROVER_HOST: host.name,
        DROVER_HOST_ADDRESS: host.migrationAddress,
        DROVER_DRAIN: drain.id,
        DROVER_ROLL_STEP: String(number),
        DROVER_ROLL_STEPS: String(of),
      },
      stdoutTo: context.json ? 'stderr' : 'stdout',
      signal: interruption.signal,
    });
    if (interruption.signal.aborted) throw new Interrupted('interrupted');
    context.say(`the command ended with ${code} after ${formatMs(clock.monotonic() - startedAt)}`);
    return code;
  } finally {
    interruption.stop();
  }
}

/** Waits until the host is well for some time without a break. @returns null, or what is wrong with it when time is over */
async function untilWell(context: Context, { host, healthMs, settleMs }: Step): Promise<string | null> {
  const { clock } = context.surroundings;
  const interruption = interruptible(context);
  const { signal } = interruption;
  const startedAt = clock.monotonic();
  let wellSince: number | null = null;
  let said = '';
  try {
    for (;;) {
      const ill = await illness(context, host.name, signal);
      const now = clock.monotonic();
      if (ill !== null && ill !== said) context.say(`waits until ${host.name} is well: ${ill}`);
      said = ill ?? said;
      wellSince = ill === null ? (wellSince ?? now) : null;
      if (wellSince !== null && now - wellSince >= settleMs) return null;
      if (now - startedAt >= healthMs + settleMs) return ill ?? 'it was well only for moments';
      await clock.sleep(pollMs, signal);
    }
  } catch (error) {
    if (signal.aborted) throw new Interrupted('interrupted', { cause: error });
    throw error;
  } finally {
    interruption.stop();
  }
}

/** What speaks against giving the host its VMs back; null: nothing. */
async function illness(context: Context, name: string, signal: AbortSignal): Promise<string | null> {
  try {
    const host = await context.client().getHost({ params: { host: name } }, { signal });
    if (host.state !== 'up') return `${name} is silent`;
    if (host.fenced !== null) return `${name} is fenced`;
    if (host.sickness !== null) return `${name} is ${host.sickness.severity}: ${host.sickness.because}`;
    const findings: Finding[] = await context.client().checkFleet({}, { signal });
    const wrong = findings.find(({ severity, about }) => severity === 'error' && about.startsWith(`host ${name}:`));
    return wrong === undefined ? null : `${wrong.about}: ${wrong.says}`;
  } catch (error) {
    if (signal.aborted || !(error instanceof UserError)) throw error;
    if (userErrorCodes[error.code] !== 'unavailable') throw error;
    return 'the server does not answer';
  }
}

async function chosenHosts(context: Context, flags: Flags): Promise<HostView[]> {
  const all = await context.client().listHosts();
  const wanted = flags.hosts
    ?.split(',')
    .map((name) => name.trim())
    .filter((name) => name !== '');
  const among = wanted === undefined ? all : await Promise.all(wanted.map((name) => hostNamed(context, all, name)));
  const selector = parseSelector(flags.selector);
  const chosen = among.filter(({ labels }) => hasLabels(labels, selector));
  if (new Set(chosen.map(({ id }) => id)).size < chosen.length) {
    throw new UserError('invalid-input', 'A host is named twice.', 'Name each host once with --hosts.');
  }
  if (chosen.length > 0) return chosen;
  throw new UserError(
    'invalid-input',
    'No host is chosen.',
    flags.selector.length > 0
      ? 'No host has these labels: drover host label HOST key=value sets them.'
      : '`drover host list` shows what there is.',
  );
}

function hostNamed(context: Context, all: readonly HostView[], name: string): Promise<HostView> {
  const found = all.find((host) => host.name === name || host.id === name);
  return found
    ? Promise.resolve(found)
    : named(context, { host: name }, () => context.client().getHost({ params: { host: name } }));
}

const cannotLeave = ({ vms }: DrainView): boolean => vms.some(({ state }) => state === 'stuck');

async function isMeant(
  context: Context,
  hosts: readonly HostView[],
  plans: readonly DrainView[],
  { yes }: Flags,
): Promise<boolean> {
  const { stdin, stderr } = context.surroundings;
  const stuck = plans.filter(cannotLeave).map(({ host }) => host);
  if (stuck.length > 0) context.say(`the roll will stop where VMs cannot leave: ${stuck.join(', ')}`);
  if (!stdin.isTTY || yes) return true;
  stderr.write(`Roll over ${hosts.map(({ name }) => name).join(', ')}? [y/N] `);
  if (/^y(es)?$/i.test((await stdin.readLine())?.trim() ?? '')) return true;
  context.say('Nothing was run or changed.');
  context.end(exitCodes.failed);
  return false;
}
