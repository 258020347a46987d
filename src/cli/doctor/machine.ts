/** What doctor looks at on a machine, behind an interface so that every finding can be had in a test. */
import { execFile } from 'node:child_process';
import { access, constants, readFile, statfs } from 'node:fs/promises';
import { dirname } from 'node:path';
import { promisify } from 'node:util';

export interface Machine {
  readonly isRoot: boolean;
  /** Undefined when it cannot be read. */
  read(path: string): Promise<string | undefined>;
  can(path: string, what: 'read-write' | 'execute'): Promise<boolean>;
  exists(path: string): Promise<boolean>;
  /** Of the file system that holds the path, or its nearest parent that exists. */
  freeMiB(path: string): Promise<number | undefined>;
  /** What a program prints; undefined when it is missing, fails or takes longer than 10 s. */
  run(program: string, args: readonly string[], env?: Readonly<Record<string, string>>): Promise<string | undefined>;
}

const runDeadlineMs = 10_000;

export function realMachine(env: Readonly<Record<string, string | undefined>>): Machine {
  return {
    isRoot: process.getuid?.() === 0,
    read: (path) => readFile(path, 'utf8').catch(() => undefined),
    can: (path, what) =>
      access(path, what === 'execute' ? constants.X_OK : constants.R_OK | constants.W_OK).then(
        () => true,
        () => false,
      ),
    exists: (path) =>
      access(path).then(
        () => true,
        () => false,
      ),
    async freeMiB(path) {
      for (let place = path; ; place = dirname(place)) {
        const found = await statfs(place).catch(() => undefined);
        if (found) return (found.bavail * found.bsize) / (1024 * 1024);
        if (place === dirname(place)) return undefined;
      }
    },
    async run(program, args, more = {}) {
      try {
        const options = { timeout: runDeadlineMs, killSignal: 'SIGKILL', env: { ...env, ...more } } as const;
        return (await promisify(execFile)(program, args, options)).stdout;
      } catch {
        return undefined;
      }
    },
  };
}
