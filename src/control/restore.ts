/** `drover restore`: puts a backup into the store of a server that is stopped. What the server then does is in held.ts. */
import { createReadStream } from 'node:fs';
import { mkdir, open } from 'node:fs/promises';
import { join } from 'node:path';
import { Command, CommanderError } from 'commander';
import { UserError, messageOf, userErrorCodes } from '../model/failure.ts';
import { systemClock } from '../runtime/clock.ts';
import { kindOfKey } from '../store/records.ts';
import type { Store } from '../store/store.ts';
import { readBackup } from '../wire/backup.ts';
import { backupOf, checkRecords, restoreInto } from './backup.ts';

export interface RestoreOptions {
  readonly state: string;
  readonly store?: string;
  readonly etcdCa?: string;
  readonly etcdCert?: string;
  readonly etcdKey?: string;
  readonly replace?: true;
}

/** Its options and help. */
export function restoreProgram(): Command {
  return new Command('drover restore')
    .description('Puts a backup back into the store of a server that is stopped.')
    .argument('<file>', 'what `drover backup` wrote')
    .option('--state <dir>', 'the state directory of the server', '/var/lib/drover/server')
    .option(
      '--store <address>',
      'etcd://HOST:PORT,HOST:PORT: the store of several servers (default: a file in --state)',
    )
    .option('--etcd-ca <file>', "who signs etcd's certificates (PEM)")
    .option('--etcd-cert <file>', 'certificate to show to etcd (PEM)')
    .option('--etcd-key <file>', 'its key (PEM)')
    .option('--replace', 'also when there are records in the store; those are kept in a backup beside it')
    .addHelpText(
      'after',
      `
The fleet has gone on since the backup was made. The server that is started on the restored store therefore first
only listens: it orders nothing until every host has said what runs there, or a person has said that it is off.

Example:
  drover restore /srv/backups/fleet.backup --state /var/lib/drover/server`,
    )
    .exitOverride();
}

/**
 * Restores, or says why not.
 * @param openStore the engine that the options name
 * @returns the exit code
 */
export async function restoreCommand(
  argv: readonly string[],
  openStore: (options: RestoreOptions) => Store,
): Promise<number> {
  const command = restoreProgram();
  try {
    command.parse([...argv], { from: 'user' });
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2;
    throw error;
  }
  try {
    process.stdout.write(`${await restore(command.args[0] ?? '', command.opts<RestoreOptions>(), openStore)}\n`);
    return 0;
  } catch (error) {
    const hint = error instanceof UserError ? `\n  next: ${error.hint}` : '';
    process.stderr.write(`error: ${messageOf(error)}${hint}\n`);
    if (!(error instanceof UserError)) return 1;
    const kind = userErrorCodes[error.code];
    return kind === 'usage' ? 2 : kind === 'conflict' || kind === 'refused' ? 4 : 1;
  }
}

async function restore(
  file: string,
  options: RestoreOptions,
  openStore: (options: RestoreOptions) => Store,
): Promise<string> {
  const { state, replace } = options;
  const backup = await readBackup(await bytesOf(file), file);
  const records = checkRecords(backup);
  await mkdir(state, { recursive: true, mode: 0o700 });
  const store = openStore(options);
  try {
    const kept = replace ? await keepOld(store, state) : undefined;
    await restoreInto(store, backup, { replace: replace === true, at: systemClock.now() });
    const was = kept === undefined ? '' : `\nWhat was there is kept in ${kept}.`;
    const { host = 0, vm = 0, migration = 0 } = records;
    return (
      `restored: ${host} hosts, ${vm} VMs, ${migration} migrations, as of ${new Date(backup.at).toISOString()}.${was}\n` +
      'Start the server; it orders nothing until every host has reported (drover doctor shows which are missing).'
    );
  } finally {
    await store.close();
  }
}

async function bytesOf(file: string): Promise<AsyncIterable<Uint8Array>> {
  const handle = await open(file).catch((error: unknown) => {
    throw new UserError('invalid-input', `${file} cannot be read: ${messageOf(error)}.`, 'Name a backup.', {
      cause: error,
    });
  });
  return createReadStream('', { fd: handle });
}

/** @returns the file with what the store holds; undefined when it holds nothing */
async function keepOld(store: Store, state: string): Promise<string | undefined> {
  const { entries } = await store.list('');
  if (!entries.some(({ key }) => kindOfKey(key) !== undefined)) return undefined;
  const path = join(state, `replaced-${new Date(systemClock.now()).toISOString().replaceAll(':', '')}.backup`);
  const handle = await open(path, 'wx', 0o600);
  try {
    for await (const line of backupOf(store, 'replaced', systemClock)) await handle.write(line);
    await handle.sync();
  } finally {
    await handle.close();
  }
  return path;
}
