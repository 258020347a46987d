/**
 * QEMU as a process: started so that it outlives the agent, found again by what really runs, ended in an orderly way
 * or by force, and only ever by a pid that was checked to be the one meant.
 *
 * A guest's directory under the run directory holds its sockets and `guest.json`; the process carries the directory's
 * path on its command line, which is how it is found after the agent's restart.
 */
import { spawn } from 'node:child_process';
import {
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { basename, join } from 'node:path';
import { systemClock, type Clock } from '../../runtime/clock.ts';
import type { GuestKey } from '../hypervisor.ts';
import type { VmId } from '../../model/ids.ts';
import type { RunningSpec, VmSpec } from '../../model/vm.ts';

export interface GuestFiles {
  readonly dir: string;
  readonly qmp: string;
  /** A second monitor, for people and emergencies: QEMU serves one client a socket. */
  readonly rescue: string;
  /** Of the monitor that needs no client: two FIFOs of this name, `.in` and `.out`. */
  readonly oob: string;
  readonly console: string;
  /** The host's end of the port to the agent in the guest. */
  readonly agent: string;
  readonly json: string;
  readonly log: string;
}

/** What is remembered beside the sockets: not whether it runs, only what was started. */
export interface GuestFile {
  readonly key: GuestKey;
  readonly name: string;
  readonly running: RunningSpec;
  readonly taps: readonly string[];
}

/** A guest and the process that runs it. */
export interface FoundProcess extends GuestFile {
  readonly pid: number;
  readonly startTicks: string;
}

export function filesOf(runDir: string, logDir: string, key: GuestKey): GuestFiles {
  const dir = join(runDir, `${key.vm}.${key.generation}`);
  return {
    dir,
    qmp: join(dir, 'qmp.sock'),
    rescue: join(dir, 'rescue.sock'),
    oob: join(dir, 'oob'),
    console: join(dir, 'console.sock'),
    agent: join(dir, 'agent.sock'),
    json: join(dir, 'guest.json'),
    log: join(logDir, `${key.vm}.${key.generation}.log`),
  };
}

export interface Started {
  readonly pid: number;
  readonly startTicks: string;
  /** Resolves with its exit code when it ends before anything else was agreed. */
  readonly exited: Promise<number | null>;
}

/** Starts QEMU detached, in a session of its own; its words go to the log file. @throws Error when it cannot be started */
export async function startProcess(
  binary: string,
  argv: readonly string[],
  env: NodeJS.ProcessEnv,
  files: GuestFiles,
): Promise<Started> {
  const out = openSync(files.log, 'a', 0o600);
  try {
    const child = spawn(binary, argv, { detached: true, stdio: ['ignore', out, out], env, cwd: files.dir });
    const exited = new Promise<number | null>((resolve) => child.once('exit', (code) => resolve(code)));
    await new Promise<void>((resolve, reject) => {
      child.once('spawn', resolve);
      child.once('error', (error) =>
        reject(new Error(`${binary} could not be started: ${error.message}`, { cause: error })),
      );
    });
    child.unref();
    const pid = child.pid;
    if (pid === undefined) throw new Error(`${binary} was started without a pid`);
    return { pid, startTicks: startTicksOf(pid) ?? '', exited };
  } finally {
    closeSync(out);
  }
}

export function prepareFiles(files: GuestFiles): void {
  rmSync(files.dir, { recursive: true, force: true });
  mkdirSync(files.dir, { recursive: true, mode: 0o700 });
}

/** Whole or not at all. */
export function writeGuestFile(files: GuestFiles, guest: GuestFile): void {
  writeFileSync(`${files.json}.tmp`, JSON.stringify(guest), { mode: 0o600 });
  renameSync(`${files.json}.tmp`, files.json);
}

/**
 * The guests whose process runs now, by looking at every process's command line; files alone prove nothing. A guest whose
 * file cannot be read runs all the same: what can be seen of it stands in for the file, because a guest that runs and is
 * taken for dead would be started a second time.
 * @throws Error when a process cannot be looked at
 */
export function findRunning(runDir: string): FoundProcess[] {
  const found: FoundProcess[] = [];
  for (const entry of readdirSync('/proc')) {
    if (!/^\d+$/.test(entry)) continue;
    const pid = Number(entry);
    const commandLine = readOfProcess(`/proc/${pid}/cmdline`)?.split('\0') ?? [];
    const argument = commandLine.find((text) => text.startsWith(`unix:${runDir}/`));
    if (argument === undefined || !isAlive(pid)) continue;
    const dir = argument.slice('unix:'.length).split('/qmp.sock')[0] ?? '';
    const startTicks = startTicksOf(pid) ?? '';
    const key = keyOf(basename(dir));
    if (key === undefined) continue;
    if (isQuestion(key)) killProcess(pid, startTicks); // an agent that was ended while it asked a QEMU for its machines
    else found.push({ ...(readGuestFile(join(dir, 'guest.json')) ?? guess(key, commandLine)), pid, startTicks });
  }
  return found;
}

/** The key of a QEMU that is no VM: asked once and ended. */
export const questionKey = { vm: 'probe' as VmId, generation: 0 } satisfies GuestKey; // no VM has such an id

function isQuestion(key: GuestKey): boolean {
  return key.vm === questionKey.vm;
}

function keyOf(directory: string): GuestKey | undefined {
  const match = /^(.+)\.(\d+)$/.exec(directory);
  return match?.[1] === undefined ? undefined : { vm: match[1] as VmId, generation: Number(match[2]) }; // as filesOf wrote it
}

function guess(key: GuestKey, commandLine: readonly string[]): GuestFile {
  const all = commandLine.join('\n');
  const first = (pattern: RegExp) => pattern.exec(all)?.[1];
  const taps = [...all.matchAll(/ifname=([^,\n]+)/g)].map((match) => match[1] ?? '');
  const spec: VmSpec = {
    cpus: Number(first(/^cpus=(\d+)/m) ?? 1),
    memoryMiB: Number(first(/^size=(\d+)M$/m) ?? 1),
    machine: first(/^(pc-[^,\n]+),accel=/m) ?? 'unknown',
    cpuModel: 'unknown',
    boot: { kind: 'disk' },
    disks: [],
    nics: taps.map(() => ({ network: 'unknown', mac: '' })),
  };
  return { key, name: first(/^guest=([^,\n]+)/m) ?? key.vm, running: { argvVersion: 1, argv: [], spec }, taps };
}

function readGuestFile(path: string): GuestFile | undefined {
  try {
    // Written by writeGuestFile above, in a directory only root may write.
    return JSON.parse(readFileSync(path, 'utf8')) as GuestFile;
  } catch {
    return undefined;
  }
}

/** Removes directories of guests that do not run any more. */
export function sweep(runDir: string, running: readonly GuestFile[]): void {
  if (!existsSync(runDir)) return;
  const alive = new Set(running.map((guest) => `${guest.key.vm}.${guest.key.generation}`));
  for (const entry of readdirSync(runDir)) {
    if (!alive.has(entry)) rmSync(join(runDir, entry), { recursive: true, force: true });
  }
}

/** Undefined: there is no such process. @throws Error when that cannot be seen, for want of descriptors or memory */
function readOfProcess(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT' || code === 'ESRCH' || code === 'EACCES' || code === 'EPERM') return undefined;
    throw error;
  }
}

export function readCommandLine(pid: number): string[] {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0');
  } catch {
    return [];
  }
}

/** Start time in clock ticks since boot: with the pid, names a process for ever. */
export function startTicksOf(pid: number): string | undefined {
  return statFields(pid)?.[19];
}

/** Fields of /proc/PID/stat after the name, from the state (field 3) on; of the process, or of one of its threads. */
export function statFields(pid: number, thread?: string): string[] | undefined {
  try {
    return readStat(pid, thread);
  } catch {
    return undefined;
  }
}

function readStat(pid: number, thread?: string): string[] | undefined {
  const text = readOfProcess(thread === undefined ? `/proc/${pid}/stat` : `/proc/${pid}/task/${thread}/stat`);
  return text?.slice(text.lastIndexOf(')') + 2).split(' ');
}

/** Is it there and not a zombie that nobody has waited for? One that cannot be looked at is. */
export function isAlive(pid: number, startTicks?: string): boolean {
  let fields: string[] | undefined;
  try {
    fields = readStat(pid);
  } catch {
    return true;
  }
  if (!fields || fields[0] === 'Z' || fields[0] === 'X') return false;
  return startTicks === undefined || startTicks === '' || fields[19] === startTicks;
}

/** Resolves when the process is gone. @throws the signal's reason */
export async function waitGone(
  pid: number,
  startTicks: string,
  clock: Clock = systemClock,
  signal?: AbortSignal,
): Promise<void> {
  for (let waitMs = 2; isAlive(pid, startTicks); waitMs = Math.min(50, waitMs * 2)) await clock.sleep(waitMs, signal);
}

/** SIGKILL, to exactly this process. */
export function killProcess(pid: number, startTicks: string): void {
  if (!isAlive(pid, startTicks)) return;
  try {
    process.kill(pid, 'SIGKILL');
  } catch {
    // gone in between
  }
}

/** The last lines a process wrote, for error messages. */
export function lastWords(logPath: string, limit = 600): string {
  if (!existsSync(logPath) || statSync(logPath).size === 0) return '';
  const lines = readFileSync(logPath, 'utf8').trim().split('\n').slice(-6);
  return lines.join('\n').slice(-limit);
}
