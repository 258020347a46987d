/** `npm run bench -- …`: the words of its command line. What is measured, and how, is in the files it imports. */
import { Command, CommanderError, InvalidArgumentError, Option } from 'commander';
import { UserError, messageOf } from '../src/model/failure.ts';
import { benchConsolidate, consolidateAims, consolidateText, modes } from './consolidate/consolidate.ts';
import { writerNames, type LiveTechnique, type WriterName } from './contestant.ts';
import { benchSse, sseAims, sseText } from './sse.ts';
import { allArrived, benchForecast, forecastAims, forecastText } from './forecast.ts';
import { balanceAims, balanceText, benchBalance } from './planning/balance.ts';
import { benchOptimum, optimumAims, optimumText } from './planning/optimum.ts';
import { benchScale, scaleAims, scales, scaleText, type Scale } from './planning/scale.ts';
import { benchFuzz, fuzzText } from './fuzz.ts';
import { benchFootprint, footprintText } from './footprint.ts';
import { allVerified, aimsOf, benchMigrate, benchTechniques, migrateText, ratiosOf } from './migrate.ts';
import { benchWeb, webAims, webText } from './web/web.ts';
import { allRestartedWell, benchRecovery, recoveryAims, recoveryText } from './recovery.ts';

interface Common {
  readonly lab: string;
  readonly output: 'table' | 'json';
}

const say = (line: string): void => void process.stderr.write(`${line}\n`);
const print = (text: string): void => void process.stdout.write(`${text}\n`);

const some =
  <T extends string>(known: readonly T[]) =>
  (text: string): T[] =>
    text.split(',').map((word) => {
      const found = known.find((each) => each === word.trim());
      if (found === undefined) throw new InvalidArgumentError(`'${word}' is none of ${known.join(', ')}.`);
      return found;
    });

const between = (min: number, max: number) => (text: string) => {
  const value = Number(text);
  if (!Number.isInteger(value) || value < min || value > max) throw new InvalidArgumentError(`Use ${min} to ${max}.`);
  return value;
};

const numbers = (min: number, max: number) => (text: string) =>
  text.split(',').map((word) => between(min, max)(word.trim()));

/** @returns the exit code: 0 measured, 1 a guest was not as it should be or something broke, 2 usage, 130 interrupted */
async function run(argv: readonly string[]): Promise<number> {
  let code = 0;
  const interrupt = new AbortController();
  const onInterrupt = (): AbortSignal => {
    for (const name of ['SIGINT', 'SIGTERM'] as const) {
      process.once(name, () => {
        say('interrupted; tidying up');
        interrupt.abort(new Error('interrupted'));
      });
    }
    return interrupt.signal;
  };
  const program = new Command('npm run bench --')
    .description('Benchmarks. Those of moves need root, make a lab of their own and leave nothing behind')
    .exitOverride()
    .addHelpText('after', '\nExample:\n  npm run bench -- migrate --rounds 5 --writers moderate --techniques pre-copy');
  const planning = (words: string, description: string): Command =>
    program
      .command(words)
      .description(description)
      .exitOverride()
      .addOption(new Option('--output <how>', 'how to print').choices(['table', 'json']).default('table'));
  const command = (words: string, description: string): Command =>
    planning(words, description).option('--lab <name>', 'name of the lab that is made for it', 'bench');

  command('migrate', 'Drover against a bare QMP script of the same tuning, and against what QEMU does by itself')
    .option('--rounds <number>', 'moves of each contestant in each cell', between(1, 1000), 5)
    .option('--writers <list>', 'how the guest writes', some(writerNames), [...writerNames])
    .option('--techniques <list>', 'how it is moved', some(benchTechniques), [...benchTechniques])
    .action(async (options: Common & { rounds: number; writers: WriterName[]; techniques: LiveTechnique[] }) => {
      const result = await benchMigrate({ ...options, name: options.lab, say, signal: onInterrupt() });
      const cells = result.cells.map((cell) => ({ ...cell, ratios: ratiosOf(cell), aims: aimsOf(cell) }));
      print(options.output === 'json' ? JSON.stringify({ ...result, cells }, null, 2) : migrateText(result));
      if (!allVerified(result)) code = 1;
    });

  command('forecast', 'Ten moves of three guests, forecast and measured: how near the forecasts come').action(
    async (options: Common) => {
      const result = await benchForecast({ ...options, name: options.lab, say, signal: onInterrupt() });
      const aims = forecastAims(result);
      print(options.output === 'json' ? JSON.stringify({ ...result, aims }, null, 2) : forecastText(result));
      if (!allArrived(result)) code = 1;
    },
  );

  command('footprint', 'Memory and CPU of an idle server and of an agent with ten guests')
    .option('--seconds <number>', 'how long to look', between(1, 3600), 20)
    .action(async (options: Common & { seconds: number }) => {
      const result = await benchFootprint({ ...options, name: options.lab, say, signal: onInterrupt() });
      print(options.output === 'json' ? JSON.stringify(result, null, 2) : footprintText(result));
    });

  command(
    'recovery',
    'Seconds until five guests of a host that lost its power answer again, with a BMC and by the lease alone',
  )
    .option('--rounds <number>', 'losses of each way', between(1, 100), 1)
    .action(async (options: Common & { rounds: number }) => {
      const result = await benchRecovery({ ...options, name: options.lab, say, signal: onInterrupt() });
      const aims = recoveryAims(result);
      print(options.output === 'json' ? JSON.stringify({ ...result, aims }, null, 2) : recoveryText(result));
      if (!allRestartedWell(result)) code = 1;
    });

  program
    .command('consolidate')
    .description(
      'Energy, migrations and broken promises of consolidation on days of CPU traces, beside published policies; no root',
    )
    .exitOverride()
    .option('--data <directory>', 'where the traces are; without it, what belongs there is described')
    .option('--days <list>', 'some of the days, e.g. 20110303,20110309', (text: string) => text.split(','))
    .option('--compatible', 'only: a VM that asks for nothing leaves for good, as in CloudSim')
    .option('--stay', 'only: it stays; without either, both are run')
    .addOption(new Option('--output <how>', 'how to print').choices(['table', 'json']).default('table'))
    .addHelpText('after', '\nExample:\n  npm run bench -- consolidate --data traces --days 20110303')
    .action((options: { data?: string; days?: string[]; compatible?: true; stay?: true; output: Common['output'] }) => {
      const named = modes.filter((mode) => options[mode] === true);
      const wanted = named.length === 0 ? modes : named;
      const rows = benchConsolidate({ data: options.data, days: options.days, modes: wanted, say });
      print(
        options.output === 'json'
          ? JSON.stringify({ rows, aims: consolidateAims(rows) }, null, 2)
          : consolidateText(rows),
      );
    });
  planning('balance', "Drover's planner against Debian's hbal, on the same clusters and under hbal's score")
    .option('--hosts <list>', 'sizes of clusters; hbal takes minutes for each of 50', numbers(2, 100_000), [10, 20])
    .option('--seeds <number>', 'clusters of each size and pattern', between(1, 100), 1)
    .option('--cases <dir>', 'a folder of .data and .util files instead')
    .option('--keep <dir>', "keep hbal's answers there, and do not ask again what is there")
    .option('--scorer <file>', 'a script that scores moves too: FILE.data [-U FILE.util] --moves FILE.json')
    .action(
      async (
        options: Pick<Common, 'output'> & {
          hosts: number[];
          seeds: number;
          cases?: string;
          keep?: string;
          scorer?: string;
        },
      ) => {
        const { hosts, seeds, cases, keep, scorer } = options;
        const result = await benchBalance({ hosts, seeds, cases, keep, scorer, say, signal: onInterrupt() });
        const aims = balanceAims(result);
        print(options.output === 'json' ? JSON.stringify({ ...result, aims }, null, 2) : balanceText(result));
        if (result.rows.some(({ drover }) => drover.violations.length > 0)) code = 1;
      },
    );

  planning('optimum', "Drover's planner against the proven optimum (HiGHS) on small fleets")
    .option('--seeds <number>', 'fleets of each pattern', between(1, 100), 1)
    .option('--moves <list>', 'budgets of moves', numbers(1, 100), [2, 4, 6])
    .option('--seconds <number>', 'for the solver, each question', between(1, 3600), 60)
    .action(async (options: Pick<Common, 'output'> & { seeds: number; moves: number[]; seconds: number }) => {
      const { seeds, moves, seconds } = options;
      const result = await benchOptimum({ seeds, moves, seconds, say, signal: onInterrupt() });
      const aims = optimumAims(result);
      print(options.output === 'json' ? JSON.stringify({ ...result, aims }, null, 2) : optimumText(result));
    });

  planning('scale', 'Planning for large fleets: time, memory, and the score beside that of a greedy descent')
    .option('--hosts <list>', 'sizes', some(Object.keys(scales) as Scale[]), Object.keys(scales) as Scale[])
    .action(async ({ hosts, output }: Pick<Common, 'output'> & { hosts: Scale[] }) => {
      const result = await benchScale({ hosts, say, signal: onInterrupt() });
      const aims = scaleAims(result);
      print(output === 'json' ? JSON.stringify({ ...result, aims }, null, 2) : scaleText(result));
    });

  planning('sse', 'Many readers of the event stream: none may miss an event, and memory stays flat; no root')
    .option('--readers <number>', 'how many', between(1, 4000), 1000)
    .option('--slow <number>', 'of them stop reading for a third of the time', between(0, 1000), 10)
    .option('--per-second <number>', 'events', between(1, 1000), 100)
    .option('--seconds <number>', 'how long', between(1, 3600), 60)
    .action(
      async ({
        output,
        ...options
      }: Pick<Common, 'output'> & { readers: number; slow: number; perSecond: number; seconds: number }) => {
        const result = await benchSse({ ...options, say, signal: onInterrupt() });
        const reached = sseAims(result);
        print(output === 'json' ? JSON.stringify({ ...result, aims: reached }, null, 2) : sseText(result));
        if (result.lost > 0) code = 1;
      },
    );

  planning('fuzz', 'Requests of all kinds, right and wrong, against the API on simulated hosts; no root')
    .option('--requests <number>', 'how many', between(1, 10_000_000), 20_000)
    .option('--seed <number>', 'of chance', between(0, 2 ** 31 - 1), 1)
    .action(async ({ output, requests, seed }: Pick<Common, 'output'> & { requests: number; seed: number }) => {
      const result = await benchFuzz({ requests, seed, say, signal: onInterrupt() });
      print(output === 'json' ? JSON.stringify(result, null, 2) : fuzzText(result));
      if (result.failures.length > 0) code = 1;
    });

  planning('web', 'The dashboard on a large fleet, in a browser: first view, and scrolling while loads change')
    .option('--hosts <number>', 'how many', between(1, 20_000), 1000)
    .option('--vms <number>', 'how many', between(1, 200_000), 15_000)
    .option('--rounds <number>', 'first views', between(1, 100), 3)
    .action(async (options: Pick<Common, 'output'> & { hosts: number; vms: number; rounds: number }) => {
      const result = await benchWeb({ ...options, say, signal: onInterrupt() });
      const aims = webAims(result);
      print(options.output === 'json' ? JSON.stringify({ ...result, aims }, null, 2) : webText(result));
    });

  try {
    await program.parseAsync([...argv], { from: 'user' });
    return code;
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2;
    if (interrupt.signal.aborted) return 130;
    say(messageOf(error));
    if (error instanceof UserError) say(error.hint);
    else if (error instanceof Error && error.cause !== undefined) say(messageOf(error.cause));
    return 1;
  }
}

process.exitCode = await run(process.argv.slice(2));
