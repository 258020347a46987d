/** `drover balance` and `drover recommendations`: what would even the load out, doing it, and what came of it. */
import type { Command } from 'commander';
import { UserError } from '../../model/failure.ts';
import { balanceModes, distributionGoals } from '../../model/distribution.ts';
import { MiB, formatBytes, formatMs } from '../../model/units.ts';
import {
  balanceEndpoints,
  balanceSettingsShape,
  type BalanceChanges,
  type BalanceView,
  type DecisionView,
  type PlanView,
} from '../../wire/balance.ts';
import { exitCodes, Interrupted, interruptible, type Context } from '../context.ts';
import { Patience } from '../patience.ts';
import { details, table } from '../table.ts';
import { limitsOf, parseCount, parseDurationWithin, parseNumber, type Limited } from '../numbers.ts';

const pollMs = 500;
const maxMovesLimits = limitsOf(balanceEndpoints.makePlan.body.shape.maxMoves.unwrap());

interface BalanceFlags {
  readonly dryRun?: true;
  readonly yes?: true;
  readonly maxMoves?: string;
  readonly wait: boolean;
}

export function addBalance(program: Command, context: Context): void {
  const balance = program
    .command('balance')
    .description('even the load of hosts out: shows the plan with reasons and cost, and carries it out when you say so')
    .option('--dry-run', 'only show what would be done')
    .option('-y, --yes', 'do not ask')
    .option('--max-moves <n>', 'of a longer plan only the beginning')
    .option('--no-wait', 'return as soon as it was begun')
    .addHelpText(
      'after',
      '\nExamples:\n  $ drover balance --dry-run\n  $ drover balance --yes\n' +
        '  $ drover balance set --mode automatic --level 3 --quiet-hours 22:00-06:00',
    )
    .action((flags: BalanceFlags) => plan(context, 'balance', flags));
  addConsolidate(program, context);
  balance
    .command('status')
    .description('how load is spread, what the distributor does and what it waits for')
    .addHelpText('after', '\nExample:\n  $ drover balance status')
    .action(async () => {
      const view = await context.client().getBalance();
      context.print(view, () => statusWords(view));
    });
  addSet(balance, context);
  balance
    .command('cancel')
    .description('begin nothing more of the plan that is being carried out')
    .option('--moves', 'cancel the moves that are under way as well')
    .addHelpText('after', '\nExample:\n  $ drover balance cancel')
    .action(async ({ moves }: { moves?: true }) => {
      const view = await context.client().cancelBalance({ body: { moves: moves ?? false } });
      const open = view.moves.filter(({ state }) => state === 'moving').map(({ vm }) => vm);
      const still = open.length === 0 ? '' : `; under way: ${open.join(', ')}`;
      context.print(view, () => `${view.id} is cancelled${still}`);
    });
  balance
    .command('history')
    .description('moves of the distributor: what was expected of each and what came, newest first')
    .option('--limit <n>', 'how many', '20')
    .addHelpText('after', '\nExample:\n  $ drover balance history')
    .action(async ({ limit }: { limit: string }) => {
      const list = await context.client().listDecisions({
        query: {
          limit: parseCount(limit, '--limit', limitsOf(balanceEndpoints.listDecisions.query.shape.limit.unwrap())),
        },
      });
      context.print(list, () => (list.length === 0 ? 'the distributor has moved nothing yet' : historyTable(list)));
    });
  addRecommendations(program, context);
}

function addConsolidate(program: Command, context: Context): void {
  program
    .command('consolidate')
    .description('the same VMs on fewer hosts, within rules and limits; emptied hosts sleep, where they may')
    .option('--dry-run', 'only show what would be done')
    .option('-y, --yes', 'do not ask')
    .option('--max-moves <n>', 'no more moves than these')
    .option('--no-wait', 'return as soon as it was begun')
    .addHelpText(
      'after',
      '\nHosts sleep that were proven to wake: drover host drill.\n\nExamples:\n  $ drover consolidate --dry-run\n' +
        '  $ drover balance set --goal consolidate --mode automatic',
    )
    .action((flags: BalanceFlags) => plan(context, 'consolidate', flags));
}

function addRecommendations(program: Command, context: Context): void {
  const recommendations = program
    .command('recommendations')
    .description('plans that wait for a person to accept them')
    .addHelpText('after', '\nExample:\n  $ drover recommendations list');
  recommendations
    .command('list')
    .alias('ls')
    .description('those that can be accepted now, newest first')
    .option('--shadow', 'instead what the distributor would have done, had it been automatic')
    .addHelpText('after', '\nExample:\n  $ drover recommendations list')
    .action(async ({ shadow }: { shadow?: true }) => {
      const list = await context.client().listPlans({ query: { state: shadow ? 'shadow' : 'proposed' } });
      const none = shadow ? 'nothing would have been done' : 'nothing is recommended';
      context.print(list, () => (list.length === 0 ? none : list.map((each) => planWords(each)).join('\n\n')));
    });
  recommendations
    .command('accept <id>')
    .description('carry this plan out')
    .option('--no-wait', 'return as soon as it was begun')
    .addHelpText('after', '\nExample:\n  $ drover recommendations accept plan_06g3k5v9qx')
    .action((id: string, { wait }: { wait: boolean }) => accept(context, id, wait));
  recommendations
    .command('dismiss <id>')
    .description('drop this plan; the same is not recommended again for some hours')
    .addHelpText('after', '\nExample:\n  $ drover recommendations dismiss plan_06g3k5v9qx')
    .action(async (id: string) => {
      const view = await context.client().dismissPlan({ params: { plan: id } });
      context.print(view, () => `${view.id} is dismissed`);
    });
}

interface SetFlags {
  readonly mode?: string;
  readonly goal?: string;
  readonly level?: string;
  readonly quietHours?: string;
  readonly timeZone?: string;
  readonly maxMovesAtOnce?: string;
  readonly maxMovesPerHost?: string;
  readonly maxMovesPerHour?: string;
  readonly dwell?: string;
  readonly unevenFor?: string;
  readonly measureAfter?: string;
  readonly vcpuRatio?: string;
  readonly cpuLimit?: string;
}

function addSet(balance: Command, context: Context): void {
  balance
    .command('set')
    .description('change how the distributor works; what is not given stays')
    .option('--mode <mode>', `${balanceModes.join(', ')}: nothing, propose, do, or only note what it would have done`)
    .option('--goal <goal>', 'balance: over all hosts that are awake; consolidate: on few hosts, the others sleep')
    .option('--level <1-5>', '1: a move must bring much; 5: it takes any gain')
    .option('--quiet-hours <from-to>', "nothing is begun by itself, e.g. 22:00-06:00,12:00-13:00; 'none' ends it")
    .option('--time-zone <name>', 'of the quiet hours, e.g. Europe/Berlin')
    .option('--max-moves-at-once <n>', 'moves of a plan that run together')
    .option('--max-moves-per-host <n>', 'moves that one host sends and receives at once')
    .option('--max-moves-per-hour <n>', 'moves that are begun by themselves')
    .option('--dwell <duration>', 'a VM that was moved is left alone for so long, a host that was woken stays awake')
    .option('--uneven-for <duration>', 'a host must stand out for so long before anything is done')
    .option('--measure-after <duration>', 'when the gain of moves is measured')
    .option('--vcpu-ratio <n>', 'virtual CPUs per CPU of a host, at most')
    .option('--cpu-limit <percent>', "share of a host's CPUs that guests may use after a move there, e.g. 80%")
    .addHelpText(
      'after',
      '\nExamples:\n  $ drover balance set --mode automatic --level 3 --quiet-hours 22:00-06:00\n' +
        '  $ drover balance set --mode shadow --goal consolidate',
    )
    .action(async (flags: SetFlags) => {
      const view = await context.client().setBalance({ body: changesOf(flags) });
      context.print(view, () => settingsWords(view));
    });
}

function changesOf(flags: SetFlags): BalanceChanges {
  const given = <T>(name: string, text: string | undefined, parse: (text: string) => T): Record<string, T> =>
    text === undefined ? {} : { [name]: parse(text) };
  const { level, movesAtOnce, movesPerHost, movesPerHour, dwellMs, unevenForMs, measureAfterMs, vcpuRatio, cpuLimit } =
    balanceSettingsShape;
  const count = (option: string, of: Limited) => (text: string) => parseCount(text, option, limitsOf(of));
  const duration = (option: string, of: Limited) => (text: string) => parseDurationWithin(text, option, limitsOf(of));
  const [leastShare, mostShare] = limitsOf(cpuLimit);
  const changes = {
    ...(flags.mode === undefined ? {} : { mode: parseMode(flags.mode) }),
    ...(flags.goal === undefined ? {} : { goal: parseGoal(flags.goal) }),
    ...given('level', flags.level, count('--level', level)),
    ...(flags.quietHours === undefined ? {} : { quietHours: parseQuietHours(flags.quietHours) }),
    ...given('timeZone', flags.timeZone, String),
    ...given('movesAtOnce', flags.maxMovesAtOnce, count('--max-moves-at-once', movesAtOnce)),
    ...given('movesPerHost', flags.maxMovesPerHost, count('--max-moves-per-host', movesPerHost)),
    ...given('movesPerHour', flags.maxMovesPerHour, count('--max-moves-per-hour', movesPerHour)),
    ...given('dwellMs', flags.dwell, duration('--dwell', dwellMs)),
    ...given('unevenForMs', flags.unevenFor, duration('--uneven-for', unevenForMs)),
    ...given('measureAfterMs', flags.measureAfter, duration('--measure-after', measureAfterMs)),
    ...given('vcpuRatio', flags.vcpuRatio, (text) => parseNumber(text, '--vcpu-ratio', limitsOf(vcpuRatio))),
    ...given('cpuLimit', flags.cpuLimit, (text) => {
      const percent = parseNumber(text.replace(/ ?%$/, ''), '--cpu-limit', [100 * leastShare, 100 * mostShare]);
      return percent / 100;
    }),
  };
  if (Object.keys(changes).length > 0) return changes;
  throw new UserError(
    'invalid-input',
    'Nothing is to be changed.',
    'Name a setting, for example --mode manual; `drover balance set --help` lists them.',
  );
}

function parseMode(text: string): BalanceView['settings']['mode'] {
  const found = balanceModes.find((mode) => mode === text);
  if (found !== undefined) return found;
  throw new UserError('invalid-input', `There is no mode '${text}'.`, `Use --mode ${balanceModes.join(', ')}.`);
}

function parseGoal(text: string): BalanceView['settings']['goal'] {
  const found = distributionGoals.find((goal) => goal === text);
  if (found !== undefined) return found;
  throw new UserError('invalid-input', `There is no goal '${text}'.`, `Use --goal ${distributionGoals.join(' or ')}.`);
}

function parseQuietHours(text: string): { from: number; to: number }[] {
  if (text === 'none') return [];
  return text.split(',').map((part) => {
    const [from, to] = part.split('-').map(parseMinute);
    if (from === undefined || to === undefined || from === to || from === 1_440 || part.split('-').length !== 2) {
      throw new UserError('invalid-input', `'${part}' are not quiet hours.`, 'Write 22:00-06:00.');
    }
    return { from, to };
  });
}

function parseMinute(text: string): number | undefined {
  const [, hours, minutes] = /^(\d{1,2}):(\d{2})$/.exec(text.trim()) ?? [];
  const minute = Number(hours) * 60 + Number(minutes);
  return Number(minutes) < 60 && minute <= 1_440 ? minute : undefined;
}

async function plan(context: Context, goal: 'balance' | 'consolidate', flags: BalanceFlags): Promise<void> {
  const client = context.client();
  const { stdin, stderr } = context.surroundings;
  const maxMoves =
    flags.maxMoves === undefined ? {} : { maxMoves: parseCount(flags.maxMoves, '--max-moves', maxMovesLimits) };
  const view = await client.makePlan({ body: { goal, ...maxMoves, dryRun: flags.dryRun ?? false } });
  const { id } = view;
  if (id === null || (!flags.yes && !stdin.isTTY)) {
    context.print(view, () => planWords(view));
    if (id !== null) context.say(`Nothing was moved. To carry it out: drover recommendations accept ${id}`);
    return;
  }
  if (!context.json) context.surroundings.stdout.write(`${planWords(view)}\n`);
  if (!flags.yes) {
    stderr.write('Carry it out? [y/N] ');
    if (!/^y(es)?$/i.test((await stdin.readLine())?.trim() ?? '')) {
      await client.dismissPlan({ params: { plan: id } });
      context.say('Nothing was moved.');
      context.end(exitCodes.failed);
      return;
    }
  }
  await accept(context, id, flags.wait);
}

/** Waits for its end, telling of each move. */
async function accept(context: Context, id: string, wait: boolean): Promise<void> {
  const client = context.client();
  let view = await client.acceptPlan({ params: { plan: id } });
  const interruption = interruptible(context);
  const patience = new Patience(context.surroundings.clock, interruption.signal, context.say);
  const told = new Map<string, string>();
  const isOpen = (): boolean =>
    view.state === 'running' || [...view.moves, ...view.power].some(({ state }) => state === 'moving');
  try {
    while (wait && isOpen()) {
      await context.surroundings.clock.sleep(pollMs, interruption.signal);
      view = (await patience.ask((signal) => client.getPlan({ params: { plan: id } }, { signal }))) ?? view;
      for (const move of view.moves) {
        const key = `${move.vm} ${move.wave}`;
        if (move.state === 'due' || told.get(key) === move.state) continue;
        told.set(key, move.state);
        context.say(`${move.vm} ${move.from} -> ${move.to}: ${move.state}`);
      }
      for (const { host, to, state } of view.power) {
        if (state === 'due' || told.get(host) === state) continue;
        told.set(host, state);
        context.say(`${host} ${powerWords[to][state]}`);
      }
    }
  } catch (error) {
    if (!interruption.signal.aborted) throw error;
    context.say(`The server goes on with ${id}; only the waiting was stopped. To stop it: drover balance cancel`);
    throw new Interrupted('interrupted', { cause: error });
  } finally {
    interruption.stop();
  }
  const empty = view.state === 'done' && view.emptied.length > 0 ? `; empty: ${view.emptied.join(', ')}` : '';
  const says = view.stateSays === null ? '' : `: ${view.stateSays}`;
  context.print(view, () => `${id} is ${view.state}${says}${empty}`);
  if (wait && view.state !== 'done')
    context.end(view.state === 'cancelled' ? exitCodes.notConverged : exitCodes.failed);
}

const powerWords = {
  wake: { moving: 'is woken', done: 'is awake', failed: 'did not wake', left: 'is left asleep' },
  sleep: { moving: 'is sent to sleep', done: 'sleeps', failed: 'did not fall asleep', left: 'stays awake' },
} as const;

function planWords(view: PlanView): string {
  const { moves, score, refused, emptied, power, keeps } = view;
  const head =
    view.id === null ? [] : [`${view.id}: ${view.state}${view.origin === 'loop' ? `, ${view.because}` : ''}`];
  const steps = (to: 'wake' | 'sleep'): string[] =>
    power.flatMap((step) => (step.to === to ? [`${step.host} ${powerWill[to]}: ${step.reason}`] : []));
  const stay = keepsWords(keeps);
  if (moves.length === 0) {
    const nothing = power.length > 0 ? [] : [nothingWords[view.goal === 'consolidate' ? 'consolidate' : 'balance']];
    return [...head, ...nothing, ...steps('wake'), ...steps('sleep'), ...stay, ...refusals(refused)].join('\n');
  }
  const list = table(
    ['WAVE', 'VM', 'FROM', 'TO', 'TIME', 'PAUSE', 'BYTES', 'GAIN', 'REASON'],
    moves.map(({ wave, vm, from, to, forecast, gain, reason }) => [
      String(wave),
      vm,
      from,
      to,
      formatMs(forecast.totalMs),
      formatMs(forecast.downtimeMs),
      formatBytes(forecast.bytes),
      gain.toFixed(3),
      reason,
    ]),
  );
  const empty = emptied.length === 0 ? [] : [`empty afterwards: ${emptied.join(', ')}`];
  const after = [...empty, ...steps('sleep'), ...stay, ...refusals(refused)];
  return [...head, ...steps('wake'), list, '', scoreTable(score), ...after].join('\n');
}

/** Hosts that stay on for the same reason share a line. */
function keepsWords(keeps: PlanView['keeps']): string[] {
  const alike = Map.groupBy(keeps, ({ host, because }) => because.replaceAll(host, '*'));
  return [...alike.values()].flatMap(([first, ...others]) => {
    if (first === undefined) return [];
    const likewise = others.length === 0 ? '' : ` Likewise ${others.map(({ host }) => host).join(', ')}.`;
    return [`${first.host} stays on: ${first.because}${likewise}`];
  });
}

const powerWill = { wake: 'is woken first', sleep: 'is sent to sleep then' } as const;
const nothingWords = {
  balance: 'Nothing is to be moved: no move is worth what it costs.',
  consolidate: 'Nothing is to be moved: no host can be emptied.',
} as const;

/** Parts that are nothing before and after are left out. */
function scoreTable({ before, after }: PlanView['score']): string {
  const later = new Map(after.parts.map(({ name, value }) => [name, value]));
  const rows = before.parts.flatMap(({ name, weight, value }) => {
    const then = later.get(name) ?? 0;
    return Math.max(value, then) < 5e-4 ? [] : [[name, String(weight), value.toFixed(3), then.toFixed(3)]];
  });
  return table(
    ['SCORE', 'WEIGHT', 'BEFORE', 'AFTER'],
    [...rows, ['total', '', before.total.toFixed(3), after.total.toFixed(3)]],
  );
}

function refusals(refused: PlanView['refused']): string[] {
  return refused.map(({ vm, says }) => `${vm} stays: ${says}`);
}

function statusWords(view: BalanceView): string {
  const { cannotBegin, loopWaits, says, standsOut, plan: open, proposed } = view;
  const waits = cannotBegin ?? (view.settings.mode === 'off' ? null : loopWaits);
  const hosts = table(
    ['HOST', 'STATE', 'VMS', 'CPU', 'OF', 'SHARE', 'MEMORY', 'OF'],
    view.hosts.map((host) => [
      host.name,
      host.state,
      String(host.vms),
      host.cpuCores.toFixed(2),
      String(host.cpus),
      `${Math.round((100 * host.cpuCores) / Math.max(1e-9, host.cpus))} %`,
      formatBytes(host.memoryMiB * MiB),
      formatBytes(host.capacityMiB * MiB),
    ]),
  );
  const done = open?.moves.filter(({ state }) => state === 'done').length ?? 0;
  return [
    settingsWords(view),
    '',
    hosts,
    '',
    ...standsOut.map((each) => `${each.says}, for ${formatMs(each.forMs)}`),
    ...(waits === null ? [] : [`nothing is begun: ${waits}`]),
    ...(says === null ? [] : [says]),
    ...(open === null ? [] : [`${open.id} is being carried out: ${done} of ${open.moves.length} moves are done`]),
    ...(proposed.length === 0 ? [] : [`recommended: ${proposed.join(', ')} (drover recommendations list)`]),
  ]
    .join('\n')
    .trimEnd();
}

function settingsWords({ settings, caution }: BalanceView): string {
  const quiet = settings.quietHours.map(({ from, to }) => `${clock(from)}-${clock(to)}`).join(', ');
  return details([
    ['mode', `${settings.mode}, level ${settings.level}, goal ${settings.goal}`],
    ['caution', `${caution.factor.toFixed(2)} by moves that did not pay, ${caution.whole.toFixed(2)} with the level`],
    ['quiet hours', quiet === '' ? 'none' : `${quiet} (${settings.timeZone})`],
    [
      'moves',
      `${settings.movesAtOnce} at once, ${settings.movesPerHost} per host, ${settings.movesPerHour} an hour by itself`,
    ],
    ['dwell', `${formatMs(settings.dwellMs)}; a host must stand out for ${formatMs(settings.unevenForMs)}`],
    ['gain measured', `${formatMs(settings.measureAfterMs)} after a plan`],
    [
      'rules',
      `${settings.vcpuRatio} virtual CPUs per CPU, CPU limit ${Math.round(100 * settings.cpuLimit)} %, ` +
        `room for ${settings.hostFailuresTolerated} lost ${settings.hostFailuresTolerated === 1 ? 'host' : 'hosts'}`,
    ],
  ]);
}

function historyTable(list: readonly DecisionView[]): string {
  return table(
    ['WHEN', 'VM', 'FROM', 'TO', 'EXPECTED', 'MEASURED', 'TIME', 'PAUSE', 'PAID', 'REASON'],
    list.map(({ at, vm, from, to, expectedGain, measured, cost, expected, reason }) => [
      new Date(at).toISOString().slice(0, 16).replace('T', ' '),
      vm,
      from,
      to,
      expectedGain === null ? '-' : expectedGain.toFixed(3),
      measured?.gain === null || measured === null ? '-' : measured.gain.toFixed(3),
      `${formatMs(expected.totalMs)}, was ${cost === null || cost.totalMs === null ? '-' : formatMs(cost.totalMs)}`,
      `${formatMs(expected.downtimeMs)}, was ${cost === null || cost.downtimeMs === null ? '-' : formatMs(cost.downtimeMs)}`,
      measured === null ? 'not yet known' : measured.paid === null ? measured.says : measured.paid ? 'yes' : 'no',
      reason,
    ]),
  );
}

function clock(minute: number): string {
  return `${String(Math.floor(minute / 60)).padStart(2, '0')}:${String(minute % 60).padStart(2, '0')}`;
}
