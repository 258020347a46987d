/**
 * `drover guard`: one per host, beside the agent. Small on purpose: it imports nothing that talks to anybody, so that
 * nothing that happens to the network, the server or the agent reaches it.
 */
import { randomUUID } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { Command, CommanderError } from 'commander';
import { guestsUsing } from '../../hypervisor/qemu/guests-using.ts';
import { startTicksOf } from '../../hypervisor/qemu/process.ts';
import { UserError, messageOf } from '../../model/failure.ts';
import { namePattern } from '../../model/ids.ts';
import { parseDurationMs } from '../../model/units.ts';
import { bootClock } from '../../runtime/clock.ts';
import { createLog, type Log } from '../../runtime/log.ts';
import { holdAlone, runDirectory } from '../alone.ts';
import { collect, parsePairs, usage } from '../options.ts';
import { Guard, type GuardMemory } from './guard.ts';
import { defaultLeaseTimeMs, shortestLeaseTimeMs } from './lease.ts';
import { PoolFiles } from './pool-files.ts';
import { guardRestPath, guardStatePath, readGuardState, writeGuardState } from './state-file.ts';
import { openWatchdog, type Watchdog } from './watchdog.ts';

interface GuardCommandOptions {
  name: string;
  state: string;
  pool: string[];
  leaseTime: string;
  watchdog?: string;
  bootIdFile: string;
}

const tickMs = 500;
const releaseWithinMs = 2_000;
/** Longer than any recovery should wait; a typing error beyond it. */
const longestLeaseTimeMs = 10 * 60_000;

/** Its options and help. */
export function guardCommand(): Command {
  return new Command('drover guard')
    .description(
      "Runs on each host beside its agent: keeps the host's lease on its shared pools, so that its VMs can be restarted\n" +
        'elsewhere when it dies. Kills the guests that use a pool when the lease on it cannot be kept.',
    )
    .requiredOption('--name <host>', 'name of this host in the fleet, as its agent has it')
    .requiredOption(
      '--pool <name=dir>',
      'a shared pool and its directory, as its agent has it; may be given again',
      collect,
    )
    .option('--state <dir>', "its agent's --state", '/var/lib/drover/agent')
    .option(
      '--lease-time <duration>',
      'without a renewal for so long, guests are killed here and may be started elsewhere',
      `${defaultLeaseTimeMs / 1000}s`,
    )
    .option('--watchdog <path>', "the machine's watchdog, e.g. /dev/watchdog: resets the host if the guard hangs")
    .option(
      '--boot-id-file <file>',
      'what changes with every boot, as its agent has it',
      '/proc/sys/kernel/random/boot_id',
    )
    .addHelpText('after', '\nExample:\n  drover guard --name h1 --pool default=/srv/vms --watchdog /dev/watchdog')
    .exitOverride();
}

/** @returns the exit code: 0 after SIGTERM or SIGINT, 1 when it could not start, 2 for a wrong command line */
export async function runGuard(argv: string[]): Promise<number> {
  const parser = guardCommand();
  try {
    parser.parse(argv, { from: 'user' });
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2;
    throw error;
  }
  try {
    await serve(parser.opts<GuardCommandOptions>());
    return 0;
  } catch (error) {
    if (!(error instanceof UserError)) throw error;
    process.stderr.write(`error: ${error.message}\n  next: ${error.hint}\n`);
    return error.code === 'invalid-input' ? 2 : 1;
  }
}

async function serve(options: GuardCommandOptions): Promise<void> {
  if (!namePattern.test(options.name)) {
    throw usage(`'${options.name}' is not a host name.`, 'Use a-z, 0-9, "-" and ".".');
  }
  const leaseTimeMs = parseDurationMs(options.leaseTime);
  if (leaseTimeMs < shortestLeaseTimeMs || leaseTimeMs > longestLeaseTimeMs) {
    throw usage(`A lease cannot last ${options.leaseTime}.`, 'Use 2s to 10m, for example 10s.');
  }
  const pools = parsePairs(options.pool, 'pool');
  const stateDir = resolve(options.state);
  const runDir = runDirectory(stateDir);
  mkdirSync('/run/drover', { recursive: true, mode: 0o700 });
  await holdAlone(`${runDir}.guard.sock`, stateDir, 'guard');
  const log = createLog({ fields: { host: options.name, program: 'guard' } });
  process.on('unhandledRejection', (error) => log.error({ error }, 'an error that nobody handled'));
  standFirm(log);

  const bootId = readFileSync(options.bootIdFile, 'utf8').trim();
  const statePath = guardStatePath(runDir);
  const before = readGuardState(statePath, bootId);
  const dog: Dog = { path: options.watchdog, leaseTimeMs, opened: undefined };
  if (dog.path !== undefined) dog.opened = openWatchdog(dog.path, leaseTimeMs, log);
  const memories = new Map<string, GuardMemory>((before?.pools ?? []).map(({ name, memory }) => [name, memory]));
  const files = Object.entries(pools).map(
    ([name, directory]) => new PoolFiles({ name, directory: resolve(directory) }),
  );

  const save = (): void => {
    const own = files.flatMap(({ name, paths }) => {
      const memory = memories.get(name);
      return memory ? [{ name, paths, memory }] : [];
    });
    const tickedAtMs = bootClock.monotonic();
    const guard = { pid: process.pid, startTicks: startTicksOf(process.pid) ?? '' };
    try {
      writeGuardState(statePath, {
        schema: 1,
        bootId,
        guard,
        tickedAtMs,
        watchdog: dog.opened?.covers === true,
        pools: own,
      });
    } catch (error) {
      log.warn({ error: messageOf(error) }, 'the agent cannot be told of the leases'); // it will think this guard hangs
    }
  };
  const guards = files.map(
    (pool) =>
      new Guard({
        host: options.name,
        bootId,
        writer: randomUUID(),
        leaseTimeMs,
        clock: bootClock,
        pool,
        guests: guestsUsing(runDir, () => pool.paths),
        log,
        remembered: memories.get(pool.name) ?? null,
        remember: (memory) => {
          memories.set(pool.name, memory);
          save();
        },
      }),
  );

  const end = new AbortController();
  for (const signal of ['SIGTERM', 'SIGINT'] as const) process.once(signal, () => end.abort());
  process.stdout.write(`drover guard ready: ${options.name}\n`);
  await Promise.all([
    ...guards.map((guard) => guard.run(end.signal)),
    tick({ guards, dog, save, restPath: guardRestPath(runDir), log }, end.signal),
  ]);
  await endOrderly(guards, dog.opened, log);
  process.exit(0); // also when a thread still waits for its pool
}

interface Dog {
  readonly path: string | undefined;
  readonly leaseTimeMs: number;
  opened: Watchdog | undefined;
}

interface Ticked {
  readonly guards: readonly Guard[];
  readonly dog: Dog;
  readonly save: () => void;
  readonly restPath: string;
  readonly log: Log;
}

/** @returns undefined when another program has taken it meanwhile: the next tick tries again */
function reopen({ path = '', leaseTimeMs }: Dog, log: Log): Watchdog | undefined {
  try {
    return openWatchdog(path, leaseTimeMs, log);
  } catch (error) {
    log.warn({ path, error: messageOf(error) }, 'the watchdog does not cover this guard');
    return undefined;
  }
}

/** Says to the agent and to the watchdog that this process moves, and rests while the host goes to sleep. */
async function tick({ guards, dog, save, restPath, log }: Ticked, signal: AbortSignal): Promise<void> {
  while (!signal.aborted) {
    const rests = existsSync(restPath);
    for (const guard of guards) guard.rest(rests);
    // Nobody strokes it while the host is suspended, and nothing is there to be guarded.
    const asleep = rests && guards.every(({ state }) => state === 'released');
    if (asleep) {
      dog.opened?.close();
      dog.opened = undefined;
    } else if (!rests && dog.path !== undefined) dog.opened ??= reopen(dog, log);
    save();
    dog.opened?.strokeIfSafe(bootClock.monotonic(), Math.min(...guards.map((guard) => guard.safeUntilMs())));
    await bootClock.sleep(tickMs, signal).catch(() => {});
  }
}

async function endOrderly(guards: readonly Guard[], watchdog: Watchdog | undefined, log: Log): Promise<void> {
  const released = Promise.all(
    guards.map((guard) =>
      guard.release().then(
        () => true,
        (error: unknown) => {
          log.warn({ error: messageOf(error) }, 'a lease could not be given back: its guests end when it runs out');
          return false;
        },
      ),
    ),
  );
  const late = bootClock.sleep(releaseWithinMs).then(() => [false]);
  const all = (await Promise.race([released, late])).every(Boolean);
  if (all) watchdog?.close(); // else the host is reset: nobody else is left to see to the guests
  log.info({ released: all }, 'the guard ends');
}

/** Memory pressure of the host must not take this one first. */
function standFirm(log: Log): void {
  try {
    writeFileSync('/proc/self/oom_score_adj', '-1000');
  } catch (error) {
    log.debug({ error: messageOf(error) }, 'not protected from the kernel running out of memory');
  }
}
