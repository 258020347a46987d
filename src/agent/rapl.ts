/**
 * Watts of this host's processors and memory by their own meters: RAPL, as the kernel shows it (/sys/class/powercap, see
 * Documentation/power/powercap of the kernel). Null where there are none, as in most virtual machines.
 */
import { readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import type { Clock } from '../runtime/clock.ts';

/** Whole processors, and the memory that hangs on one; what else is in a processor is counted with it. */
const wholeProcessor = /^intel-rapl:\d+$/;
const partOfOne = /^intel-rapl:\d+:\d+$/;

/** @returns a meter: the watts since it was read before */
export function raplMeter(root: string, clock: Pick<Clock, 'monotonic'>): () => number | null {
  let before: { readonly at: number; readonly microjoules: ReadonlyMap<string, number> } | undefined;
  return () => {
    const at = clock.monotonic();
    const microjoules = countersIn(root);
    const last = before;
    before = { at, microjoules };
    if (last === undefined || at <= last.at || microjoules.size === 0) return null;
    let used = 0;
    for (const [zone, now] of microjoules) {
      const then = last.microjoules.get(zone);
      if (then === undefined) return null;
      used += now >= then ? now - then : now + rangeOf(root, zone) - then;
    }
    return used / 1000 / (at - last.at);
  };
}

function countersIn(root: string): Map<string, number> {
  const counters = new Map<string, number>();
  try {
    for (const zone of readdirSync(root)) {
      const counts =
        wholeProcessor.test(zone) ||
        (partOfOne.test(zone) && readFileSync(join(root, zone, 'name'), 'utf8').trim() === 'dram');
      if (counts) counters.set(zone, Number(readFileSync(join(root, zone, 'energy_uj'), 'utf8')));
    }
  } catch {
    counters.clear(); // no such meters, or not for us
  }
  return counters;
}

/** Counters begin again from zero. */
function rangeOf(root: string, zone: string): number {
  try {
    return Number(readFileSync(join(root, zone, 'max_energy_range_uj'), 'utf8'));
  } catch {
    return 0;
  }
}
