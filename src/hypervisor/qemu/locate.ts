/**
 * Finds the QEMU to use and whether it may use KVM. Looks only; installing is the set-up's work, and whether a version is
 * good enough for a live move without KVM is decided by who moves.
 *
 * Order: a directory asked for, DROVER_QEMU, the private copy of the repository, the system's. The first that is there is
 * used; one that is there and does not run is an error, never a silent step to the next: the next may be a version that
 * corrupts guests.
 */

import { execFile } from 'node:child_process';
import { accessSync, closeSync, constants, existsSync, openSync, readFileSync, readdirSync, statSync } from 'node:fs';
import { delimiter, dirname, join, resolve } from 'node:path';
import { promisify } from 'node:util';

const binaryName = 'qemu-system-x86_64';
const versionTimeoutMs = 10_000;

export interface QemuInstallation {
  ok: true;
  binary: string;
  imgBinary: string;
  version: { major: number; minor: number; micro: number };
  /** To be put first on the command line: where its firmware lies (`-L …`); empty for the system's. */
  libArgs: string[];
  /** To be added to the environment of `binary` and `imgBinary`: its own modules and shared libraries. */
  env: Record<string, string>;
  foundBy: 'directory' | 'DROVER_QEMU' | 'private' | 'PATH';
}

export interface QemuNotFound {
  ok: false;
  code: 'qemu-missing' | 'qemu-broken';
  reason: string;
  hint: string;
}

export interface LocateOptions {
  /** A directory that holds `usr/bin`, `bin`, or the binary itself; or the binary. */
  qemuDir?: string;
  env: Readonly<Record<string, string | undefined>>;
  /** Whose `.drover/qemu` is looked at. */
  repoRoot?: string;
}

/** Never throws: a QEMU that is missing or does not run comes back as `ok: false`. */
export async function locateQemu(options: LocateOptions): Promise<QemuInstallation | QemuNotFound> {
  const asked = [
    { from: 'directory', place: options.qemuDir },
    { from: 'DROVER_QEMU', place: options.env['DROVER_QEMU'] },
  ] as const;
  for (const { from, place } of asked) {
    if (place === undefined || place === '') continue;
    const binary = binaryIn(resolve(place));
    if (binary !== undefined) return inspect(binary, from, options.env);
    return {
      ok: false,
      code: 'qemu-missing',
      reason: `there is no ${binaryName} in ${place} (${from === 'directory' ? 'the directory asked for' : 'from DROVER_QEMU'})`,
      hint: `give the directory that holds usr/bin/${binaryName} or bin/${binaryName}, or leave it out`,
    };
  }
  if (options.repoRoot !== undefined) {
    const binary = binaryIn(join(options.repoRoot, '.drover', 'qemu'));
    if (binary !== undefined) return inspect(binary, 'private', options.env);
  }
  const binary = onPath(binaryName, options.env);
  if (binary !== undefined) return inspect(binary, 'PATH', options.env);
  return {
    ok: false,
    code: 'qemu-missing',
    reason: `there is no ${binaryName} on this machine (looked in DROVER_QEMU, .drover/qemu and PATH)`,
    hint: 'run `npm start`, whose set-up fetches it, or install qemu-system-x86 and qemu-utils',
  };
}

function binaryIn(place: string): string | undefined {
  const candidates = [
    place,
    join(place, 'usr', 'bin', binaryName),
    join(place, 'bin', binaryName),
    join(place, binaryName),
  ];
  return candidates.find(isProgram);
}

function onPath(name: string, env: LocateOptions['env']): string | undefined {
  return (env['PATH'] ?? '')
    .split(delimiter)
    .filter((directory) => directory !== '')
    .map((directory) => join(directory, name))
    .find(isProgram);
}

function isProgram(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return statSync(path).isFile();
  } catch {
    return false;
  }
}

async function inspect(
  binary: string,
  foundBy: QemuInstallation['foundBy'],
  env: LocateOptions['env'],
): Promise<QemuInstallation | QemuNotFound> {
  const { libArgs, env: own } = surroundings(binary);
  const broken = (reason: string, hint: string): QemuNotFound => ({ ok: false, code: 'qemu-broken', reason, hint });
  let printed: string;
  try {
    ({ stdout: printed } = await promisify(execFile)(binary, ['--version'], {
      env: { ...env, ...own },
      timeout: versionTimeoutMs,
      killSignal: 'SIGKILL',
    }));
  } catch (error) {
    const said = error instanceof Error ? error.message.trim().split('\n').at(-1) : String(error);
    return broken(
      `${binary} does not run: ${said}`,
      foundBy === 'private'
        ? 'remove .drover/qemu and run `npm start`, whose set-up fetches it again'
        : 'install what it misses (`ldd` names the libraries), or choose another with DROVER_QEMU',
    );
  }
  const match = /version (\d+)\.(\d+)\.(\d+)/.exec(printed);
  if (match === null) {
    return broken(`${binary} --version says no version: ${printed.slice(0, 100)}`, 'choose another with DROVER_QEMU');
  }
  const beside = join(dirname(binary), 'qemu-img');
  const imgBinary = isProgram(beside) ? beside : onPath('qemu-img', env);
  if (imgBinary === undefined) {
    return broken(`there is no qemu-img beside ${binary} nor in PATH`, 'install qemu-utils');
  }
  return {
    ok: true,
    binary,
    imgBinary,
    version: { major: Number(match[1]), minor: Number(match[2]), micro: Number(match[3]) },
    libArgs,
    env: own,
    foundBy,
  };
}

/** An unpacked package does not know where it lies: tells it its firmware, modules and libraries, where they are beside it. */
function surroundings(binary: string): { libArgs: string[]; env: Record<string, string> } {
  const prefix = dirname(dirname(binary));
  if (['/', '/usr', '/usr/local'].includes(prefix)) return { libArgs: [], env: {} };
  const firmware = ['qemu', 'seabios'].map((name) => join(prefix, 'share', name)).filter((path) => existsSync(path));
  const triple = process.arch === 'arm64' ? 'aarch64-linux-gnu' : 'x86_64-linux-gnu';
  const modules = [join(prefix, 'lib', triple, 'qemu'), join(prefix, 'lib', 'qemu')].find((path) => existsSync(path));
  // Debian 12 without its own QEMU lacks some libraries; a private copy may bring them.
  const libraries = [join(prefix, 'lib', triple), join(dirname(prefix), 'lib', triple)].filter(holdsLibraries);
  return {
    libArgs: firmware.flatMap((path) => ['-L', path]),
    env: {
      ...(modules === undefined ? {} : { QEMU_MODULE_DIR: modules }),
      ...(libraries.length === 0 ? {} : { LD_LIBRARY_PATH: libraries.join(delimiter) }),
    },
  };
}

function holdsLibraries(directory: string): boolean {
  if (directory.startsWith('/lib/') || directory.startsWith('/usr/lib/')) return false;
  return existsSync(directory) && readdirSync(directory).some((name) => /^lib.+\.so(\.|$)/.test(name));
}

export type Accel = 'kvm' | 'tcg';

export interface DetectAccelOptions {
  /** What the user asked for (`--accel`); taken as it is, the reason says when it will not work. */
  override?: Accel;
  /** For tests. */
  cpuinfoPath?: string;
  /** For tests. */
  kvmPath?: string;
}

/** KVM only where it really runs guests: /dev/kvm exists on machines whose CPU cannot (a container's, a cloud's). */
export function detectAccel(options: DetectAccelOptions = {}): { accel: Accel; reason: string } {
  const { override, cpuinfoPath = '/proc/cpuinfo', kvmPath = '/dev/kvm' } = options;
  const obstacle = cpuObstacle(cpuinfoPath) ?? kvmObstacle(kvmPath);
  if (override === 'tcg') return { accel: 'tcg', reason: 'asked for' };
  if (override === 'kvm') {
    return {
      accel: 'kvm',
      reason: obstacle === undefined ? 'asked for' : `asked for, but will hardly work: ${obstacle}`,
    };
  }
  if (obstacle !== undefined) return { accel: 'tcg', reason: obstacle };
  return { accel: 'kvm', reason: `the CPU has virtualization and ${kvmPath} opens` };
}

function cpuObstacle(cpuinfoPath: string): string | undefined {
  let cpuinfo: string;
  try {
    cpuinfo = readFileSync(cpuinfoPath, 'utf8');
  } catch (error) {
    return `${cpuinfoPath} cannot be read (${code(error)})`;
  }
  const flags = /^flags\s*:(.*)$/m.exec(cpuinfo)?.[1]?.split(' ') ?? [];
  return flags.includes('vmx') || flags.includes('svm') ? undefined : 'the CPU shows no virtualization (vmx or svm)';
}

function kvmObstacle(kvmPath: string): string | undefined {
  try {
    closeSync(openSync(kvmPath, 'r+'));
    return undefined;
  } catch (error) {
    return `${kvmPath} does not open (${code(error)})`;
  }
}

function code(error: unknown): string {
  return error instanceof Error && 'code' in error ? String(error.code) : String(error);
}
