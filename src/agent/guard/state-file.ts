/**
 * What the guard tells the agent of its host, and itself after a restart: one small file in /run, gone with the host's boot,
 * never on a pool. Times are of the boot clock, the same for both.
 */
import { closeSync, fstatSync, openSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import type { GuardReport } from '../../model/host.ts';
import type { GuardMemory } from './guard.ts';

export interface GuardState {
  readonly schema: 1;
  readonly bootId: string;
  readonly guard: { readonly pid: number; readonly startTicks: string };
  /** When the guard was last seen to move. */
  readonly tickedAtMs: number;
  readonly watchdog: boolean;
  readonly pools: readonly {
    readonly name: string;
    /** The pool's directory as given, and as it really is. */
    readonly paths: readonly string[];
    readonly memory: GuardMemory;
  }[];
}

export function guardStatePath(runDir: string): string {
  return `${runDir}.guard.json`; // beside the directory: what is in it belongs to guests
}

/** There while the host is going to sleep: the agent makes it, the guard obeys it. Gone with the boot, as all of /run. */
export function guardRestPath(runDir: string): string {
  return `${runDir}.guard-rest`;
}

/**
 * Whole or not at all; where there is no room for another file, over the one there is: an agent that does not see its guard move
 * kills it, and then the guests. Whoever reads in that moment may find no state, and looks again. @throws Error when there is neither
 */
export function writeGuardState(path: string, state: GuardState): void {
  const text = JSON.stringify(state);
  try {
    writeFileSync(`${path}.new`, text, { mode: 0o600 });
    renameSync(`${path}.new`, path);
  } catch {
    const file = openSync(path, 'r+');
    try {
      writeFileSync(file, text.padEnd(fstatSync(file).size));
    } finally {
      closeSync(file);
    }
  }
}

/** @returns null where no guard ran in this boot */
export function readGuardState(path: string, bootId: string): GuardState | null {
  try {
    const state = JSON.parse(readFileSync(path, 'utf8')) as GuardState; // written above, where only root may write
    return state.schema === 1 && state.bootId === bootId ? state : null;
  } catch {
    return null;
  }
}

/** What the agent reports of it. A lease that is lost or was given back is none. */
export function reportsOf(state: GuardState | null, nowMs: number): GuardReport[] {
  return (state?.pools ?? []).flatMap(({ name, memory }): GuardReport[] => {
    const { poolId, leaseTimeMs, renewedAtMs } = memory;
    const leftMs = Math.max(0, Math.round(renewedAtMs + leaseTimeMs - nowMs));
    if (memory.state !== 'held' || leftMs === 0) return [];
    return [{ pool: name, poolId, leaseTimeMs, leftMs, watchdog: state?.watchdog === true }];
  });
}
