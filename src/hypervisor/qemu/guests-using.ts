/**
 * The guests of this host that use a directory, found and killed by what the kernel knows of them. Asks /proc only: nothing
 * here waits for the directory's storage, and nothing for a QEMU. For the guard (agent/guard), whose word is final.
 */
import { readdirSync, readlinkSync } from 'node:fs';
import { readCommandLine, startTicksOf, statFields } from './process.ts';

/** @param directories the directory, under all its names */
export function guestsUsing(runDir: string, directories: () => readonly string[]) {
  /** By pid and start: a process that ends forgets what it used before its last thread is gone. */
  const known = new Map<string, UsingProcess>();
  const look = (): UsingProcess[] => {
    for (const found of processesUsing(runDir, directories())) known.set(`${found.pid}.${found.startTicks}`, found);
    for (const [key, { pid, startTicks }] of known) if (isWhollyGone(pid, startTicks)) known.delete(key);
    return [...known.values()];
  };
  return {
    usingPool: (): string[] => look().map(({ says }) => says),
    kill(): void {
      for (const { pid, startTicks } of look()) signalKill(pid, startTicks);
    },
  };
}

/** A process of a guest, found by what it has open; `says` names it in logs. */
interface UsingProcess {
  readonly pid: number;
  readonly startTicks: string;
  readonly says: string;
}

/**
 * The guests under `runDir` that have something of these directories on their command line or open. Reads /proc only, so
 * that it answers also while the directories' storage hangs.
 */
function processesUsing(runDir: string, directories: readonly string[]): UsingProcess[] {
  const inside = (path: string) => {
    const plain = path.replaceAll(/\/+/g, '/');
    return directories.some((directory) => plain.includes(`${directory.replaceAll(/\/+/g, '/').replace(/\/$/, '')}/`));
  };
  return readdirSync('/proc').flatMap((entry) => {
    if (!/^\d+$/.test(entry)) return [];
    const pid = Number(entry);
    const commandLine = readCommandLine(pid);
    const own = commandLine.find((text) => text.startsWith(`unix:${runDir}/`));
    if (own === undefined || !(commandLine.some(inside) || openPaths(pid).some(inside))) return [];
    const startTicks = startTicksOf(pid);
    const directory = own.slice(`unix:${runDir}/`.length).split('/')[0] ?? '';
    return startTicks === undefined ? [] : [{ pid, startTicks, says: `${directory} (pid ${pid})` }];
  });
}

function openPaths(pid: number): string[] {
  try {
    return readdirSync(`/proc/${pid}/fd`).flatMap((fd) => {
      try {
        return [readlinkSync(`/proc/${pid}/fd/${fd}`)];
      } catch {
        return []; // closed in between
      }
    });
  } catch {
    return [];
  }
}

/**
 * No thread of it is left. A killed process whose first thread has ended looks dead already while another one still waits
 * in the kernel for its last write.
 */
export function isWhollyGone(pid: number, startTicks: string): boolean {
  if (startTicksOf(pid) !== startTicks) return true;
  try {
    return readdirSync(`/proc/${pid}/task`).every((thread) => {
      const state = statFields(pid, thread)?.[0];
      return state === undefined || state === 'Z' || state === 'X';
    });
  } catch {
    return true;
  }
}

/** SIGKILL to a process that may have ended in part already. */
function signalKill(pid: number, startTicks: string): void {
  if (startTicksOf(pid) !== startTicks) return;
  try {
    process.kill(pid, 'SIGKILL');
  } catch {
    // gone in between
  }
}
