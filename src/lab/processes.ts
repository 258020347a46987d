/**
 * Finding and ending processes by what the kernel says of them. A process is known by its pid and its start time, because
 * pids are used again.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { basename } from 'node:path';

export interface ProcessId {
  readonly pid: number;
  /** Clock ticks since boot. */
  readonly startTime: number;
}

/** @returns undefined when there is no such process, or it is dead and only not yet collected */
export function processId(pid: number): ProcessId | undefined {
  try {
    // The name in parentheses may hold blanks and parentheses of its own.
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    return fields[0] === 'Z' || fields[0] === 'X' ? undefined : { pid, startTime: Number(fields[19]) };
  } catch {
    return undefined;
  }
}

export function isAlive(process: ProcessId): boolean {
  return processId(process.pid)?.startTime === process.startTime;
}

/** Empty for kernel threads and for what is gone. */
export function commandLine(pid: number): string[] {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0').filter(Boolean);
  } catch {
    return [];
  }
}

export function parentOf(pid: number): number | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    return Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[1]);
  } catch {
    return undefined;
  }
}

/**
 * Programs of ours that were told of `directory`: QEMU, node and the prober, by their command lines. A person's editor or
 * pager that looks at a file there is none of them; neither are this process and its parents.
 */
export function processesOf(directory: string): ProcessId[] {
  const family = new Set<number>();
  for (let pid: number | undefined = process.pid; pid !== undefined && pid > 0; pid = parentOf(pid)) family.add(pid);
  const found: ProcessId[] = [];
  for (const entry of readdirSync('/proc')) {
    const pid = Number(entry);
    if (!Number.isInteger(pid) || family.has(pid)) continue;
    const argv = commandLine(pid);
    if (!/^(qemu-|node$|probe$)/.test(basename(argv[0] ?? ''))) continue;
    if (!argv.some((argument) => argument.includes(`${directory}/`) || argument === directory)) continue;
    const id = processId(pid);
    if (id) found.push(id);
  }
  return found;
}

/** Asks them to end, then forces those that are left. @throws Error naming what cannot be ended */
export async function endAll(processes: readonly ProcessId[], politeMs: number): Promise<void> {
  if (politeMs > 0) {
    signalAll(processes, 'SIGTERM');
    if (await allGone(processes, politeMs)) return;
  }
  signalAll(processes, 'SIGKILL');
  if (await allGone(processes, 5000)) return;
  const left = processes.filter(isAlive).map(({ pid }) => `${pid} (${commandLine(pid)[0] ?? '?'})`);
  throw new Error(`These processes do not end: ${left.join(', ')}`);
}

function signalAll(processes: readonly ProcessId[], signal: NodeJS.Signals): void {
  for (const each of processes.filter(isAlive)) {
    try {
      process.kill(each.pid, signal);
    } catch {
      // It ended by itself in this moment.
    }
  }
}

/** The kernel has no event for the end of somebody else's child, so this looks again and again. */
async function allGone(processes: readonly ProcessId[], withinMs: number): Promise<boolean> {
  const deadline = performance.now() + withinMs;
  while (processes.some(isAlive)) {
    if (performance.now() > deadline) return false;
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  return true;
}
