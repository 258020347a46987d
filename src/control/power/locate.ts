/**
 * Finds the IPMI programs: `ipmitool`, and for the lab and the tests `ipmi_sim`. The private copy of the repository comes first,
 * then PATH. Looks only; fetching is the set-up's work (tools/setup/ipmi.mjs).
 */
import { accessSync, constants, existsSync, statSync } from 'node:fs';
import { delimiter, join } from 'node:path';

export interface IpmiProgram {
  readonly ok: true;
  readonly binary: string;
  /** To be added to the environment: an unpacked package does not find its own libraries. */
  readonly env: Readonly<Record<string, string>>;
}

export interface IpmiMissing {
  readonly ok: false;
  readonly reason: string;
  readonly hint: string;
}

export interface LocateIpmiOptions {
  readonly env: Readonly<Record<string, string | undefined>>;
  /** Whose `.drover/ipmi` is looked at. */
  readonly repoRoot: string;
}

const packageOf = { ipmitool: 'ipmitool', ipmi_sim: 'openipmi' } as const;

export function locateIpmi(name: keyof typeof packageOf, options: LocateIpmiOptions): IpmiProgram | IpmiMissing {
  const own = join(options.repoRoot, '.drover', 'ipmi');
  const unpacked = join(own, 'usr', 'bin', name);
  if (isProgram(unpacked)) {
    const triple = process.arch === 'arm64' ? 'aarch64-linux-gnu' : 'x86_64-linux-gnu';
    const libraries = [join(own, 'usr', 'lib', triple), join(own, 'lib', triple)].filter((path) => existsSync(path));
    return { ok: true, binary: unpacked, env: { LD_LIBRARY_PATH: libraries.join(delimiter) } };
  }
  const onPath = (options.env['PATH'] ?? '')
    .split(delimiter)
    .filter((directory) => directory !== '')
    .map((directory) => join(directory, name))
    .find(isProgram);
  if (onPath !== undefined) return { ok: true, binary: onPath, env: {} };
  return {
    ok: false,
    reason: `${name} is not installed on the server's machine`,
    hint: `Install it there: apt-get install ${packageOf[name]}`,
  };
}

function isProgram(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return statSync(path).isFile();
  } catch {
    return false;
  }
}
