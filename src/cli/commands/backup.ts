/** `drover backup`: the server's records into a file, checked before it counts as one. Putting it back: control/restore.ts. */
import { createReadStream } from 'node:fs';
import { link, open, rename, rm } from 'node:fs/promises';
import { dirname, resolve } from 'node:path';
import type { Command } from 'commander';
import { UserError, messageOf } from '../../model/failure.ts';
import { readBackup, type Backup } from '../../wire/backup.ts';
import { interruptible, type Context } from '../context.ts';

interface Flags {
  readonly force?: true;
}

export function addBackup(program: Command, context: Context): void {
  program
    .command('backup <file>')
    .description('write a copy of all records of the server to a file, while it runs')
    .option('--force', 'replace the file when it is there')
    .addHelpText(
      'after',
      `
The file is read back and checked before it gets its name. It holds no keys and no tokens: keep those of the
server's state directory apart from it. \`drover restore\` puts it back.

Example:
  $ drover backup /srv/backups/fleet-2026-11-22.backup`,
    )
    .action((file: string, flags: Flags) => backUp(context, file, flags));
}

async function backUp(context: Context, name: string, { force }: Flags): Promise<void> {
  const file = resolve(context.surroundings.cwd, name);
  const aside = `${file}.part`;
  const interruption = interruptible(context);
  try {
    await write(context, aside, interruption.signal);
    const whole = await readBackup(createReadStream(aside), name);
    await giveName(aside, file, name, force === true);
    const { version, at, term, revision } = whole;
    context.print({ file, version, at, term, revision, records: counted(whole) }, () => inWords(file, whole));
  } finally {
    interruption.stop();
    await rm(aside, { force: true });
  }
}

async function write(context: Context, path: string, signal: AbortSignal): Promise<void> {
  const handle = await open(path, 'w', 0o600).catch((error: unknown) => {
    throw new UserError('invalid-input', `${path} cannot be written: ${messageOf(error)}.`, 'Name another file.', {
      cause: error,
    });
  });
  try {
    for await (const bytes of context.client().backup({ signal })) await handle.write(bytes);
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/** A link fails where a file is, however that came there meanwhile; a rename replaces it. */
async function giveName(aside: string, file: string, name: string, force: boolean): Promise<void> {
  if (force) {
    await rename(aside, file);
  } else {
    await link(aside, file).catch((error: unknown) => {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
      throw new UserError('already-exists', `${name} is there already.`, 'Name another file, or give --force.', {
        cause: error,
      });
    });
  }
  const directory = await open(dirname(file));
  await directory.sync();
  await directory.close();
}

function counted({ entries }: Backup): { hosts: number; vms: number; migrations: number; all: number } {
  const of = (kind: string): number => entries.filter(({ key }) => key.startsWith(`${kind}/`)).length;
  return { hosts: of('host'), vms: of('vm'), migrations: of('migration'), all: entries.length };
}

function inWords(file: string, whole: Backup): string {
  const { hosts, vms, migrations } = counted(whole);
  return `${file}: ${hosts} hosts, ${vms} VMs, ${migrations} migrations, as of ${new Date(whole.at).toISOString()}; read back and checked`;
}
