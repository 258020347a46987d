/** `drover migrate`: starts a migration, waits for its end and says what it cost. */
import { Option, type Command } from 'commander';
import { UserError } from '../../model/failure.ts';
import { techniques, type Technique } from '../../model/migration.ts';
import { parseBytesPerSecond, parseDurationMs } from '../../model/units.ts';
import type { Client } from '../../wire/client.ts';
import type { MigrateBody, MigrationView } from '../../wire/endpoints.ts';
import { policyInput } from '../../wire/policy.ts';
import { Interrupted, interruptible, named, type Context } from '../context.ts';
import { follow } from '../follow.ts';
import { basisWords, forecastWords } from '../forecast-words.ts';
import { limitsOf, parseCount, parseDurationWithin } from '../numbers.ts';
import { exitCodeOf, outcome } from '../outcome.ts';
import { openScreen } from '../screen.ts';

/** What is allowed to a move, as words of a command line. */
export interface PolicyFlags {
  readonly maxDowntime?: string;
  readonly maxBandwidth?: string;
  readonly deadline?: string;
  readonly autoConverge?: true;
  readonly parallelStreams?: string;
  readonly compression?: 'none' | 'xbzrle' | 'zstd';
  readonly whenNotConverging?: 'fail' | 'post-copy' | 'pause';
  readonly shutdownTimeout?: string;
  readonly forceOff?: true;
}

interface Flags extends PolicyFlags {
  readonly to?: string;
  readonly technique: Technique;
  readonly because?: string;
  readonly watch?: true;
  readonly wait: boolean;
  readonly dryRun?: true;
  readonly hold?: string;
}

export function addMigrate(program: Command, context: Context): void {
  const command = program
    .command('migrate <vm>')
    .description('move a running VM to another host')
    .option('--to <host>', 'where to (else where it fits best)')
    .addOption(new Option('--technique <technique>', 'how').choices(techniques).default('auto'));
  addPolicyOptions(command)
    .option('--hold <duration>', 'warm up and hold ready for so long, e.g. 10m; `drover migration switch` completes it')
    .option('--because <text>', 'the reason, kept with the migration')
    .option('--watch', 'show it live')
    .option('--no-wait', 'return as soon as it has begun')
    .option('--dry-run', 'check everything, say what it would cost, change nothing')
    .addHelpText(
      'after',
      `
Waits for the end unless --no-wait is given. Exit code: 0 the guest runs on the target, 1 failed, 3 cancelled or not converged.
Ctrl-C stops the waiting, not the migration.

Examples:
  $ drover migrate web1 --to h2 --watch
  $ drover migrate web1 --technique post-copy --max-bandwidth 1Gbit --output json --watch
  $ drover migrate web1 --to h2 --hold 10m`,
    )
    .action((vm: string, flags: Flags) => migrate(context, vm, flags));
}

export function addPolicyOptions(command: Command): Command {
  return command
    .option('--max-downtime <duration>', 'longest pause of the guest in pre-copy, e.g. 300ms')
    .option('--max-bandwidth <rate>', 'use no more of the link, e.g. 1Gbit or 100MiB/s')
    .option('--deadline <duration>', 'time that warm-up may take, e.g. 60s')
    .option('--auto-converge', 'slow the guest down when it writes faster than the link')
    .option('--parallel-streams <n>', 'send memory over n connections (not with post-copy)')
    .addOption(new Option('--compression <kind>', 'of the memory sent').choices(['none', 'xbzrle', 'zstd']))
    .addOption(
      new Option('--when-not-converging <what>', 'what to do when warm-up does not get ahead of the guest').choices([
        'fail',
        'post-copy',
        'pause',
      ]),
    )
    .option('--shutdown-timeout <duration>', 'cold: time the guest has to shut down, e.g. 60s')
    .option('--force-off', 'cold: switch the guest off when it does not shut down in time');
}

async function migrate(context: Context, vm: string, flags: Flags): Promise<void> {
  const body = bodyOf(flags);
  const client = context.client();
  const migration = await named(context, { vm, host: flags.to }, () => begin(context, client, vm, body));
  const { vmName, source, target, technique, id } = migration;
  if (flags.dryRun) {
    const { forecast } = migration;
    context.print(migration, () =>
      [
        `${vmName} can move from ${source} to ${target} by ${technique}; nothing was changed`,
        ...(forecast ? [`  forecast: ${forecastWords(forecast)}`, `  from: ${basisWords(forecast)}`] : []),
      ].join('\n'),
    );
    return;
  }
  if (flags.hold !== undefined && !flags.watch) {
    context.print(migration, () => id);
    context.say(
      `${vmName} is warmed up for ${target} and held. Complete it: drover migration switch ${id}; or cancel it: drover migration cancel ${id}`,
    );
    return;
  }
  if (!flags.wait) {
    context.print(migration, () => id);
    context.say(`${vmName} moves from ${source} to ${target} (${technique}). Follow it: drover migration watch ${id}`);
    return;
  }
  if (!flags.watch) context.say(`${vmName}: ${source} -> ${target} (${technique}), ${id}`);
  await waitForEnd(context, migration, flags.watch ? 'live' : 'result');
}

/** Ctrl-C before the answer has come leaves open whether it has begun, and says so. */
async function begin(context: Context, client: Client, vm: string, body: MigrateBody): Promise<MigrationView> {
  const interruption = interruptible(context);
  try {
    return await client.migrateVm({ params: { vm }, body }, { signal: interruption.signal });
  } catch (error) {
    if (interruption.signal.aborted) {
      context.say(`Interrupted before the server had answered. See whether it has begun: drover migration show ${vm}`);
      throw new Interrupted('interrupted', { cause: error });
    }
    throw error;
  } finally {
    interruption.stop();
  }
}

/** Waits, shows, and sets the exit code. @throws Interrupted after Ctrl-C, having said that the migration goes on */
export async function waitForEnd(context: Context, migration: MigrationView, show: 'live' | 'result'): Promise<void> {
  const { clock } = context.surroundings;
  const { id } = migration;
  const interruption = interruptible(context);
  const screen = show === 'live' ? openScreen(context, migration) : undefined;
  let last = migration;
  let open = true;
  const close = (): void => {
    if (open) screen?.close();
    open = false;
  };
  try {
    for await (const event of follow(context.client(), id, { clock, signal: interruption.signal })) {
      screen?.show(event);
      if (event.type === 'migration') last = event.migration;
    }
    close();
    if (!screen?.tellsEnd) context.print(last, () => outcome(last).join('\n'));
    context.end(exitCodeOf(last));
  } catch (error) {
    close();
    if (interruption.signal.aborted) {
      context.say(
        `The migration goes on. Follow it: drover migration watch ${id}\nTo stop it: drover migration cancel ${id}`,
      );
    } else if (error instanceof UserError) {
      context.say(`The migration ${id} may still be going on; it does not need this command.`);
    }
    throw error;
  } finally {
    interruption.stop();
  }
}

function bodyOf(flags: Flags): MigrateBody {
  return {
    to: flags.to ?? null,
    technique: flags.technique,
    policy: policyOf(flags),
    why: flags.because ?? null,
    dryRun: flags.dryRun ?? false,
    holdMs: flags.hold === undefined ? null : parseDurationMs(flags.hold),
  };
}

/** @throws UserError invalid-input */
export function policyOf(flags: PolicyFlags): NonNullable<MigrateBody['policy']> {
  const { maxDowntime, maxBandwidth, deadline, autoConverge, parallelStreams, shutdownTimeout, forceOff } = flags;
  const { compression, whenNotConverging } = flags;
  const shape = policyInput.shape;
  const longestPause = limitsOf(shape.maxDowntimeMs.unwrap());
  const streams = limitsOf(shape.parallelStreams.unwrap());
  return {
    ...(maxDowntime !== undefined && {
      maxDowntimeMs: parseDurationWithin(maxDowntime, '--max-downtime', longestPause),
    }),
    ...(maxBandwidth === undefined ? {} : { maxBandwidthBytesPerSecond: parseBytesPerSecond(maxBandwidth) }),
    ...(deadline === undefined ? {} : { deadlineMs: parseDurationMs(deadline) }),
    ...(autoConverge === undefined ? {} : { autoConverge }),
    ...(parallelStreams !== undefined && {
      parallelStreams: parseCount(parallelStreams, '--parallel-streams', streams),
    }),
    ...(compression === undefined ? {} : { compression }),
    ...(whenNotConverging === undefined ? {} : { whenNotConverging }),
    ...(shutdownTimeout === undefined ? {} : { shutdownTimeoutMs: parseDurationMs(shutdownTimeout) }),
    ...(forceOff === undefined ? {} : { forceOff }),
  };
}
