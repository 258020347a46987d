/** Files in this host's pools: images copied in, blank disks made, what a deleted VM leaves removed. Originals are only read. */
import { execFile } from 'node:child_process';
import { constants } from 'node:fs';
import { access, copyFile, link, mkdir, rename, rm, rmdir } from 'node:fs/promises';
import { dirname, resolve, sep } from 'node:path';
import { promisify } from 'node:util';
import { messageOf } from '../model/failure.ts';
import type { Provision } from '../model/vm.ts';
import { FailureError } from '../hypervisor/hypervisor.ts';

const run = promisify(execFile);

export interface Disks {
  readonly pools: Readonly<Record<string, string>>;
  /** Makes what is not there yet; what is there is left alone. @throws FailureError guest-start-failed */
  provision(items: readonly Provision[]): Promise<void>;
  remove(items: readonly Provision[]): Promise<void>;
}

export function openDisks(options: {
  /** Its name is unique among those that share a pool. */
  host: string;
  pools: Readonly<Record<string, string>>;
  qemuImg: string;
  env: Record<string, string>;
}): Disks {
  const pathOf = (item: Provision): string => {
    const pool = options.pools[item.pool];
    if (pool === undefined)
      throw failed(`This host has no pool '${item.pool}'.`, `Start its agent with --pool ${item.pool}=DIR.`);
    const path = resolve(pool, item.file);
    if (!path.startsWith(resolve(pool) + sep))
      throw failed(`'${item.file}' leads out of the pool '${item.pool}'.`, 'Use a path inside the pool.');
    return path;
  };
  const qemuImg = (args: string[]) => run(options.qemuImg, args, { env: { ...process.env, ...options.env } });

  const make = async (item: Provision): Promise<void> => {
    const path = pathOf(item);
    if (await exists(path)) return;
    await mkdir(dirname(path), { recursive: true });
    // Of this host alone: one that was given up in the middle of it may still be at it.
    const aside = `${path}.${options.host}.part`;
    await rm(aside, { force: true });
    try {
      if (item.source.kind === 'blank') {
        await qemuImg(['create', '-q', '-f', item.source.format, aside, `${item.source.sizeMiB}M`]);
      } else {
        if (!(await exists(item.source.from)))
          throw failed(
            `There is no file ${item.source.from} on this host.`,
            'Give the path of an image that this host can read.',
          );
        await copyFile(item.source.from, aside, constants.COPYFILE_FICLONE);
        if (item.source.growToMiB !== null) {
          await qemuImg(['resize', '-q', '-f', item.source.format, aside, `${item.source.growToMiB}M`]);
        }
      }
      await appear(aside, path);
    } catch (error) {
      await rm(aside, { force: true });
      if (error instanceof FailureError) throw error;
      throw failed(
        `${item.file} could not be made in the pool '${item.pool}'.`,
        'The detail says why.',
        messageOf(error),
        error,
      );
    }
  };

  return {
    pools: options.pools,
    async provision(items) {
      for (const item of items) await make(item);
    },
    async remove(items) {
      for (const item of items) {
        const path = pathOf(item);
        await rm(path, { force: true });
        await rmdir(dirname(path)).catch(() => {}); // others may still have files there
      }
    },
  };
}

function failed(message: string, hint: string, detail?: string, cause?: unknown): FailureError {
  return new FailureError(
    { code: 'guest-start-failed', message, hint, ...(detail === undefined ? {} : { detail }) },
    { cause },
  );
}

/** Gives a file its name, unless another has it by now: what a guest may have written to is never replaced. */
async function appear(aside: string, path: string): Promise<void> {
  try {
    await link(aside, path);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code !== 'EEXIST') {
      // File systems without hard links.
      if (code !== 'EPERM' && code !== 'ENOTSUP' && code !== 'EMLINK') throw error;
      return rename(aside, path);
    }
  }
  await rm(aside, { force: true });
}

async function exists(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  );
}
