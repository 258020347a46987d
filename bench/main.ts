/** `npm run bench -- …`: the words of its command line. What is measured, and how, is in migrate.ts and footprint.ts. */
import { Command, CommanderError, InvalidArgumentError, Option } from 'commander';
import { UserError, messageOf } from '../src/model/failure.ts';
import { writerNames, type LiveTechnique, type WriterName } from './contestant.ts';
import { benchFootprint, footprintText } from './footprint.ts';
import { allVerified, aimsOf, benchMigrate, benchTechniques, migrateText, ratiosOf } from './migrate.ts';

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

/** @returns the exit code: 0 measured, 1 a guest was not as it should be or something broke, 2 usage, 130 interrupted */
async function run(argv: readonly string[]): Promise<number> {
  let code = 0;
  const interrupt = new AbortController();
  const onInterrupt = (): AbortSignal => {
    for (const name of ['SIGINT', 'SIGTERM'] as const) {
      process.once(name, () => {
        say('interrupted; taking the lab down');
        interrupt.abort(new Error('interrupted'));
      });
    }
    return interrupt.signal;
  };
  const program = new Command('npm run bench --')
    .description('Benchmarks. They need root, make a lab of their own and leave nothing behind')
    .exitOverride()
    .addHelpText('after', '\nExample:\n  npm run bench -- migrate --rounds 5 --writers moderate --techniques pre-copy');
  const command = (words: string, description: string): Command =>
    program
      .command(words)
      .description(description)
      .exitOverride()
      .option('--lab <name>', 'name of the lab that is made for it', 'bench')
      .addOption(new Option('--output <how>', 'how to print').choices(['table', 'json']).default('table'));

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

  command('footprint', 'Memory and CPU of an idle server and of an agent with ten guests')
    .option('--seconds <number>', 'how long to look', between(1, 3600), 20)
    .action(async (options: Common & { seconds: number }) => {
      const result = await benchFootprint({ ...options, name: options.lab, say, signal: onInterrupt() });
      print(options.output === 'json' ? JSON.stringify(result, null, 2) : footprintText(result));
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
