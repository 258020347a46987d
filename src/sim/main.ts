/** `npm run sim`: one seed with its events, or many on all cores. Exit code 1 when a rule was broken. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { Worker } from 'node:worker_threads';
import { Command, CommanderError, InvalidArgumentError, Option } from 'commander';
import { faults } from './faults.ts';
import { runLarge } from './large.ts';
import { defaultOptions, disturbanceLevels, type DisturbanceLevel, type SimOptions } from './options.ts';
import { runSeed, type SimResult } from './run.ts';

const sayEveryMs = 10_000;
/** Beyond, agents are not run one by one. */
const oneByOneUpTo = 500;
const largeMinutes = 30;
/** By their mean size more would fit; room is to be left for moves. */
const mostVmsOfHost = 40;
/** More failed seeds than these are counted, and neither shown nor kept. */
const shownAtMost = 20;
/** Nearly everything a run makes is soon forgotten. */
const youngMb = 64;
/** Programs that were killed cannot let go of what they waited for; it goes with the thread, some MiB a seed. */
const seedsOfThread = 60;
const keptIn = join(import.meta.dirname, '../../test/sim/kept');

interface Flags {
  readonly seed: number;
  readonly seeds?: readonly [number, number];
  readonly hosts: number;
  readonly vms: number;
  readonly servers: number;
  readonly minutes: number;
  readonly hours?: number;
  readonly disturbances: DisturbanceLevel;
  readonly fault?: string;
  readonly balance?: boolean;
  readonly trace?: boolean;
  readonly jobs: number;
  readonly keep: boolean;
}

async function main(argv: readonly string[]): Promise<number> {
  const { disturbances, ...base } = defaultOptions;
  const command = new Command('npm run sim --')
    .description('The real server and agents in a simulated fleet, on virtual time, from one seed.')
    .option('--seed <number>', 'run this one', wholeNumber, base.seed)
    .option('--seeds <from..to>', 'run all of these, on all cores', range)
    .option('--hosts <count>', 'hosts', wholeNumber, base.hosts)
    .option('--vms <count>', 'VMs', wholeNumber, base.vms)
    .option('--servers <count>', 'servers, one of which leads', wholeNumber, base.servers)
    .option(
      '--minutes <count>',
      `virtual time of a run (above ${oneByOneUpTo} hosts: ${largeMinutes}); nothing is disturbed in the last four`,
      wholeNumber,
      base.minutes,
    )
    .option('--hours <count>', 'the same in hours', wholeNumber)
    .addOption(new Option('--disturbances <level>', 'what goes wrong').choices(disturbanceLevels).default(disturbances))
    .addOption(new Option('--fault <name>', 'break a rule of Drover on purpose').choices(Object.keys(faults)))
    .option('--balance', 'an automatic distributor and guests with load (else in every third seed)')
    .option('--no-balance', 'neither')
    .option('--trace', 'print every event')
    .option('--jobs <count>', 'runs at once', wholeNumber, availableParallelism())
    .option('--no-keep', 'do not write failed seeds to test/sim/kept')
    .addHelpText(
      'after',
      `
A run that breaks a rule prints its newest events and the command that repeats it.
Examples:
  npm run sim -- --seed 7 --hosts 20 --vms 200 --hours 24
  npm run sim -- --seeds 1..1000
  npm run sim -- --hosts 10000 --vms 200000 --hours 2
Above ${oneByOneUpTo} hosts there is one agent for all of them, nothing is disturbed, and what is looked at is the distributor.`,
    )
    .allowExcessArguments(false)
    .exitOverride();
  try {
    command.parse([...argv], { from: 'user' });
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2;
    throw error;
  }
  const flags = command.opts<Flags>();
  // A host has to stand out for a while before a large fleet's distributor does anything at all.
  const usual = command.getOptionValueSource('minutes') === 'default' && flags.hosts > oneByOneUpTo;
  const minutes = flags.hours === undefined ? (usual ? largeMinutes : flags.minutes) : flags.hours * 60;
  const options: SimOptions = {
    seed: flags.seed,
    hosts: flags.hosts,
    vms: flags.vms,
    servers: flags.servers,
    minutes,
    disturbances: flags.disturbances,
    fault: flags.fault ?? null,
    ...(flags.balance === undefined ? {} : { balance: flags.balance }),
  };
  if (flags.hosts > oneByOneUpTo) {
    if (flags.seeds === undefined && options.fault === null) return large(options);
    say(`Above ${oneByOneUpTo} hosts one seed is run, with nothing broken: use --seed, or fewer hosts.`);
    return 2;
  }
  if (flags.seeds === undefined) return one(options, flags);
  return many(options, flags.seeds, flags);
}

async function large({ seed, hosts, vms, minutes }: SimOptions): Promise<number> {
  const most = hosts * mostVmsOfHost;
  if (vms > most) {
    say(`${hosts} hosts of this fleet have room for ${most} VMs, not for ${vms}: ask for more hosts or fewer VMs.`);
    return 2;
  }
  say(`seed ${seed}: ${hosts} hosts and ${vms} VMs on a day's load; the distributor is automatic`);
  const { moves, failed, plans, overloaded, violations } = await runLarge({ seed, hosts, vms, minutes }, say);
  say(`${moves} moves, ${failed} failed, ${plans} plans`);
  say(`host-samples over 90 % of the CPUs: ${overloaded.now}, had nothing moved: ${overloaded.staying}`);
  for (const violation of violations.slice(0, shownAtMost)) say(`broken: ${violation}`);
  say(`violations: ${violations.length}`);
  return violations.length > 0 ? 1 : 0;
}

async function one(options: SimOptions, { trace, keep }: Flags): Promise<number> {
  const startedAt = performance.now();
  let saidAt = startedAt;
  const watch = (atMs: number): void => {
    if (performance.now() - saidAt < sayEveryMs) return;
    saidAt = performance.now();
    say(`${Math.floor(atMs / 60_000)} of ${options.minutes} minutes, ${secondsSince(startedAt)} s`);
  };
  const result = trace === true ? await runSeed(options, say) : await runSeed(options, undefined, watch);
  const total = new Totals();
  total.add(result);
  say(`seed ${options.seed}: ${result.events} events, hash ${result.hash}, ${secondsSince(startedAt)} s`);
  total.show();
  say(`requests: ${counts(result.answers)}`);
  say(`plans of the distributor: ${counts(result.plans) || 'none'}`);
  say(`disturbances: ${counts(result.disturbances) || 'none'}`);
  if (result.violations.length === 0) return 0;
  failed(result, keep);
  return 1;
}

async function many(base: SimOptions, [from, to]: readonly [number, number], { jobs, keep }: Flags): Promise<number> {
  const startedAt = performance.now();
  const total = new Totals();
  let next = from;
  let done = 0;
  let broken = 0;
  let saidAt = startedAt;
  const progress = (): string =>
    `${done} of ${to - from + 1} seeds, ${((done * 1000) / (performance.now() - startedAt)).toFixed(2)} seeds/s, ${broken} broken`;
  const someSeeds = (): Promise<void> =>
    new Promise((resolve, reject) => {
      let given = 0;
      const worker = new Worker(new URL('worker.ts', import.meta.url), {
        resourceLimits: { maxYoungGenerationSizeMb: youngMb },
      });
      const give = (): void => {
        if (next > to || given++ === seedsOfThread) void worker.terminate().then(() => resolve(), reject);
        else worker.postMessage({ ...base, seed: next++ } satisfies SimOptions);
      };
      worker.on('error', reject);
      worker.on('message', (result: SimResult) => {
        done++;
        total.add(result);
        if (result.violations.length > 0 && ++broken <= shownAtMost) failed(result, keep);
        if (performance.now() - saidAt > sayEveryMs) {
          saidAt = performance.now();
          say(progress());
        }
        give();
      });
      give();
    });
  const work = async (): Promise<void> => {
    while (next <= to) await someSeeds();
  };
  await Promise.all(Array.from({ length: Math.min(jobs, to - from + 1) }, work));
  say(`${progress()}, ${secondsSince(startedAt)} s`);
  total.show();
  return broken > 0 ? 1 : 0;
}

/** Migrations by technique and end, and rules that were broken, over all runs. */
class Totals {
  readonly #migrations = new Map<string, Map<string, number>>();
  readonly #violations = new Map<string, number>();

  add(result: SimResult): void {
    for (const [technique, ends] of Object.entries(result.migrations)) {
      const row = this.#migrations.get(technique) ?? new Map<string, number>();
      this.#migrations.set(technique, row);
      for (const [end, count] of Object.entries(ends)) row.set(end, (row.get(end) ?? 0) + count);
    }
    for (const { rule } of result.violations) this.#violations.set(rule, (this.#violations.get(rule) ?? 0) + 1);
  }

  show(): void {
    let all = 0;
    for (const [technique, ends] of [...this.#migrations].toSorted(([a], [b]) => (a < b ? -1 : 1))) {
      const sum = [...ends.values()].reduce((a, b) => a + b, 0);
      all += sum;
      const said = [...ends].toSorted(([, a], [, b]) => b - a).map(([end, count]) => `${end} ${count}`);
      say(`  ${technique.padEnd(9)} ${String(sum).padStart(6)}: ${said.join(', ')}`);
    }
    say(`${all} migrations; violations: ${counts(Object.fromEntries(this.#violations)) || '0'}`);
  }
}

function failed(result: SimResult, keep: boolean): void {
  const { options, violations, newest } = result;
  say('');
  for (const line of newest.slice(-40)) say(`    ${line}`);
  for (const { rule, atMs, says } of violations.slice(0, 5)) {
    say(`seed ${options.seed}: ${rule} at ${(atMs / 1000).toFixed(3)} s: ${says}`);
  }
  say(`again: ${commandOf(options)}\n`);
  if (!keep || options.fault !== null) return;
  mkdirSync(keptIn, { recursive: true });
  writeFileSync(join(keptIn, `seed-${options.seed}.json`), `${JSON.stringify(options, null, 2)}\n`);
}

function commandOf(options: SimOptions): string {
  const { seed, hosts, vms, servers, minutes, disturbances, fault, balance } = options;
  const flags = { seed, hosts, vms, servers, minutes, disturbances, ...(fault === null ? {} : { fault }) };
  const words = Object.entries(flags).map(([name, value]) => `--${name} ${value}`);
  if (balance !== undefined) words.push(balance ? '--balance' : '--no-balance');
  return `npm run sim -- ${words.join(' ')} --trace`;
}

function counts(of: Readonly<Record<string, number>>): string {
  return Object.entries(of)
    .map(([name, count]) => `${name} ${count}`)
    .join(', ');
}

function secondsSince(startedAt: number): string {
  return ((performance.now() - startedAt) / 1000).toFixed(1);
}

function say(line: string): void {
  process.stdout.write(`${line}\n`);
}

function wholeNumber(text: string): number {
  if (!/^\d{1,9}$/.test(text) || Number(text) === 0) throw new InvalidArgumentError('Write a whole number above 0.');
  return Number(text);
}

function range(text: string): readonly [number, number] {
  const match = /^(\d{1,9})\.\.(\d{1,9})$/.exec(text);
  const [from, to] = [Number(match?.[1]), Number(match?.[2])];
  if (!(from <= to)) throw new InvalidArgumentError('Write 1..1000.');
  return [from, to];
}

// Whoever read the rest is gone (`| head`).
process.stdout.on('error', () => process.exit(1));
process.exitCode = await main(process.argv.slice(2));
