/** `drover plan`: asks the planner offline, with a snapshot file and without a server. It only thinks: nothing is moved. */
import { readFile } from 'node:fs/promises';
import { resolve } from 'node:path';
import { InvalidArgumentError, Option, type Command } from 'commander';
import { UserError, messageOf } from '../../model/failure.ts';
import type { FleetSnapshot } from '../../model/fleet-snapshot.ts';
import type { GanetiTraits } from '../../model/ganeti.ts';
import { didYouMean } from '../../model/ids.ts';
import type { Plan, PlanBudget } from '../../model/plan.ts';
import { formatBytes, formatMs, MiB } from '../../model/units.ts';
import { balanceSteps, droverAim, peakAim, type Aim } from '../../planner/balance.ts';
import { consolidate } from '../../planner/consolidate.ts';
import { drain } from '../../planner/drain.ts';
import { failover } from '../../planner/failover.ts';
import { hbalAim } from '../../planner/hbal-aim.ts';
import type { PlanOptions } from '../../planner/answer.ts';
import type { PartJob } from '../../planner/parts.ts';
import { readFleetFile } from '../../wire/fleet.ts';
import { readGaneti } from '../../wire/ganeti.ts';
import { Pool } from '../../runtime/pool.ts';
import { interruptible, type Context } from '../context.ts';
import { details, table } from '../table.ts';
import { collect } from '../labels.ts';

const goals = ['balance', 'consolidate', 'drain', 'failover'] as const;
/** Goals that are about hosts which somebody names. */
const goalsOfHosts: readonly Goal[] = ['drain', 'failover'];
type Goal = (typeof goals)[number];
const objectives = ['drover', 'hbal', 'peak'] as const;
/** Of a number that somebody writes. */
const mostOfAnything = 1e12;

interface Flags {
  readonly snapshot?: string;
  readonly from: 'drover' | 'hbal';
  readonly util?: string;
  readonly goal: Goal;
  readonly objective?: (typeof objectives)[number];
  readonly host: readonly string[];
  readonly maxMoves?: number;
  readonly maxGib?: number;
  readonly maxSeconds?: number;
  readonly seed: number;
  readonly iterations?: number;
  readonly timing?: true;
}

interface Question {
  readonly snapshot: FleetSnapshot;
  readonly traits: GanetiTraits | undefined;
}

export function addPlan(program: Command, context: Context): void {
  program
    .command('plan [file]')
    .description('what the planner would do with a fleet, from a snapshot file; needs no server and moves nothing')
    .option('--snapshot <file>', 'the fleet, as `drover fleet export` writes it; or give the file as it is')
    .addOption(new Option('--from <format>', 'format of the file').choices(['drover', 'hbal']).default('drover'))
    .option('--util <file>', 'load of VMs, as for `hbal -U`; with --from hbal')
    .addOption(new Option('--goal <goal>', 'what is wanted').choices([...goals]).default('balance'))
    .addOption(
      new Option('--objective <name>', 'what balance makes small (drover; with --from hbal: hbal)').choices([
        ...objectives,
      ]),
    )
    .option('--host <name>', 'host to drain, or that is lost; may be given several times', collect, [])
    .option('--max-moves <number>', 'moves at most', atLeast(0, true))
    .option('--max-gib <number>', 'memory of the VMs that move, at most', atLeast(0))
    .option('--max-seconds <number>', 'until the last move is done, at most, by forecast', atLeast(0))
    .option('--seed <number>', 'another seed may give another plan, the same gives the same', atLeast(0, true), 1)
    .option('--iterations <number>', 'how long to look for something better', atLeast(0, true))
    .option('--timing', 'say on stderr, as JSON, how long it thought')
    .addHelpText(
      'after',
      `
Moves are printed in the order in which they can be made: after each of them the fleet is within its rules and no worse
than before. --output json prints { "moves": [{ "vm", "from", "to", ... }], ... }.

--from hbal reads Ganeti's text format (VMs on shared storage), so that plans can be compared with those of hbal.

Examples:
  $ drover plan --snapshot fleet.json --goal balance --max-moves 20
  $ drover plan --snapshot fleet.json --goal drain --host h3
  $ drover plan --from hbal cluster.data --util cluster.util --objective hbal --output json`,
    )
    .action((file: string | undefined, flags: Flags) => plan(context, file, flags));
}

async function plan(context: Context, file: string | undefined, flags: Flags): Promise<void> {
  const question = await readQuestion(context, file, flags);
  checkGoal(question.snapshot, flags);
  const began = { at: performance.now(), cpu: process.cpuUsage() };
  const answer = await think(context, question, flags);
  if (flags.timing) {
    const { user, system } = process.cpuUsage(began.cpu);
    const timing = {
      startedMs: began.at,
      startedCpuMs: (began.cpu.user + began.cpu.system) / 1000,
      planningMs: performance.now() - began.at,
      planningCpuMs: (user + system) / 1000,
      peakMemoryMiB: process.resourceUsage().maxRSS / 1024,
    };
    context.say(JSON.stringify(timing));
  }
  context.print(answer, () => inWords(answer));
}

async function readQuestion(context: Context, positional: string | undefined, flags: Flags): Promise<Question> {
  const file = flags.snapshot ?? positional;
  if (file === undefined) {
    throw new UserError(
      'invalid-input',
      'No snapshot was named.',
      'Write for example: drover plan --snapshot fleet.json',
    );
  }
  if (flags.snapshot !== undefined && positional !== undefined) {
    throw new UserError('invalid-input', 'Two snapshots were named.', 'Give one file, with or without --snapshot.');
  }
  if (flags.util !== undefined && flags.from !== 'hbal') {
    throw new UserError(
      'invalid-input',
      '--util goes with --from hbal.',
      'A snapshot of Drover holds the load itself.',
    );
  }
  const read = (name: string): Promise<string> =>
    readFile(resolve(context.surroundings.cwd, name), 'utf8').catch((error: unknown) => {
      throw new UserError(
        'invalid-input',
        `${name} cannot be read: ${messageOf(error)}.`,
        'Name a file that is there.',
        {
          cause: error,
        },
      );
    });
  const text = await read(file);
  if (flags.from === 'drover') return { snapshot: readFleetFile(text, file), traits: undefined };
  const util = flags.util === undefined ? null : { text: await read(flags.util), name: flags.util };
  return readGaneti(text, util, file);
}

/** What would be left unheard is refused. @throws UserError invalid-input */
function checkGoal({ hosts }: FleetSnapshot, flags: Flags): void {
  const names = hosts.map(({ name }) => name);
  for (const host of flags.host) {
    if (names.includes(host)) continue;
    const meant = didYouMean(host, names);
    throw new UserError(
      'invalid-input',
      `'${host}' is no host of this fleet.`,
      meant === undefined ? 'Name one of its hosts.' : `Did you mean '${meant}'?`,
    );
  }
  const ofHosts = goalsOfHosts.includes(flags.goal);
  if (ofHosts && flags.host.length === 0) {
    throw new UserError(
      'invalid-input',
      `Which host is it about? --goal ${flags.goal} does not say.`,
      'Add --host NAME.',
    );
  }
  if (flags.objective !== undefined && flags.goal !== 'balance') {
    throw new UserError(
      'invalid-input',
      `--objective means nothing with --goal ${flags.goal}.`,
      'Leave it out, or use --goal balance.',
    );
  }
  if (!ofHosts && flags.host.length > 0) {
    throw new UserError(
      'invalid-input',
      `--host means nothing with --goal ${flags.goal}.`,
      'Leave it out, or use --goal drain.',
    );
  }
}

async function think(context: Context, { snapshot, traits }: Question, flags: Flags): Promise<Plan> {
  const options: PlanOptions = { ...budgetOf(flags), seed: flags.seed, ...iterationsOf(flags) };
  switch (flags.goal) {
    case 'balance':
      return onThreads(context, balanceSteps(snapshot, options, aimOf(flags, traits)));
    case 'consolidate':
      return consolidate(snapshot, options);
    case 'drain':
      return drain(snapshot, flags.host, options);
    case 'failover':
      return failover(snapshot, flags.host, options);
  }
}

/** Small fleets never ask for a thread. */
async function onThreads(
  context: Context,
  steps: Generator<readonly PartJob[], Plan, readonly Int32Array[]>,
): Promise<Plan> {
  using pool = new Pool<PartJob, Int32Array>(new URL('../../planner/parts.ts', import.meta.url), 'polishPart');
  const interruption = interruptible(context);
  try {
    return await pool.drive(steps, interruption.signal);
  } finally {
    interruption.stop();
  }
}

function aimOf(flags: Flags, traits: GanetiTraits | undefined): Aim {
  const objective = flags.objective ?? (traits === undefined ? 'drover' : 'hbal');
  switch (objective) {
    case 'drover':
      return droverAim;
    case 'peak':
      return peakAim;
    case 'hbal':
      return hbalAim(traits, flags.maxMoves !== undefined);
  }
}

function budgetOf({ maxMoves, maxGib, maxSeconds }: Flags): { budget?: PlanBudget } {
  if (maxMoves === undefined && maxGib === undefined && maxSeconds === undefined) return {};
  return {
    budget: {
      ...(maxMoves === undefined ? {} : { moves: maxMoves }),
      ...(maxGib === undefined ? {} : { memoryMiB: maxGib * 1024 }),
      ...(maxSeconds === undefined ? {} : { seconds: maxSeconds }),
    },
  };
}

function iterationsOf({ iterations }: Flags): { iterations?: number } {
  return iterations === undefined ? {} : { iterations };
}

function inWords(answer: Plan): string {
  const { moves, placements, refused, score, used, emptied } = answer;
  const blocks: string[] = [];
  if (moves.length > 0) {
    const rows = moves.map(({ vm, from, to, wave, startMs, forecast, reason }) => [
      String(wave),
      vm,
      from,
      to,
      formatMs(startMs),
      formatMs(forecast.totalMs),
      formatMs(forecast.downtimeMs),
      reason,
    ]);
    blocks.push(table(['WAVE', 'VM', 'FROM', 'TO', 'START', 'TAKES', 'DOWNTIME', 'WHY'], rows));
  }
  if (placements.length > 0) {
    blocks.push(
      table(
        ['VM', 'TO', 'WHY'],
        placements.map(({ vm, to, reason }) => [vm, to, reason]),
      ),
    );
  }
  if (refused.length > 0) {
    blocks.push(
      table(
        ['VM', 'RULE', 'CANNOT BE DONE'],
        refused.map(({ vm, rule, says }) => [vm, rule, says]),
      ),
    );
  }
  if (moves.length + placements.length + refused.length === 0) blocks.push('Nothing to do.');
  const parts = score.before.parts.flatMap(({ name, value, weight }, i) => {
    const after = score.after.parts[i]?.value ?? 0;
    return value === 0 && after === 0 ? [] : [[name, weight.toString(), value.toFixed(4), after.toFixed(4)]];
  });
  parts.push(['total', '', score.before.total.toFixed(4), score.after.total.toFixed(4)]);
  blocks.push(table(['SCORE', 'WEIGHT', 'BEFORE', 'AFTER'], parts));
  blocks.push(
    details([
      ['moves', String(used.moves)],
      ['memory moved', formatBytes(used.memoryMiB * MiB)],
      ['done after', moves.length === 0 ? null : formatMs(used.seconds * 1000)],
      ['hosts emptied', emptied.join(', ')],
    ]),
  );
  return blocks.join('\n\n');
}

function atLeast(min: number, whole = false): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (text.trim() !== '' && value >= min && value <= mostOfAnything && (!whole || Number.isInteger(value)))
      return value;
    throw new InvalidArgumentError(`Use a${whole ? ' whole' : ''} number from ${min} to ${mostOfAnything}.`);
  };
}
