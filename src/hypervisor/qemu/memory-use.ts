/**
 * How much of a guest's memory is in use and how fast it writes: the host's own books, and QEMU's page sampling.
 *
 * What QEMU does that shaped this (measured, 10.0 and 7.2, TCG):
 * - `page-sampling` is the only mode that works everywhere: `dirty-bitmap` says 0 without KVM and ends a 7.2, guest and all;
 * - its default of 512 samples per GiB misses what small working sets write: more are taken, the fewer the shorter it looks;
 * - memory blocks below 128 MiB are not sampled: a small guest cannot be measured and would be said to write nothing;
 * - times of less than a second are known from 8.2 on.
 */
import { readFile } from 'node:fs/promises';
import type { Dirtied, MemoryUse } from '../../model/forecast.ts';
import { MiB } from '../../model/units.ts';
import { systemClock } from '../../runtime/clock.ts';
import type { Qmp } from './monitor.ts';
import { QmpCommandError } from './qmp-errors.ts';

/** Short and long together tell a small set that is written again and again from a large one. */
const looks = [
  { ms: 250, samplesPerGiB: 16_384 },
  { ms: 1000, samplesPerGiB: 8192 },
] as const;
const smallestSampledMiB = 128;
const pollMs = 20;
/** Beyond the time it looks: reading the samples twice takes longer on a busy host. */
const lateMs = 2000;

/** @throws when QEMU does not answer or measures for somebody else already */
export async function readMemoryUse(qmp: Qmp, pid: number, memoryMiB: number): Promise<MemoryUse> {
  const inUseBytes = inUseIn(await readFile(`/proc/${pid}/smaps`, 'utf8'), memoryMiB);
  return { inUseBytes, dirtied: memoryMiB < smallestSampledMiB ? [] : await readDirtied(qmp) };
}

/**
 * Resident part of the mapping that holds the guest's memory, from the text of `/proc/PID/smaps`: the process has more than that,
 * translated code above all. The kernel may have merged a neighbour into it.
 */
export function inUseIn(smaps: string, memoryMiB: number): number {
  const field = (mapping: string, name: string) => Number(new RegExp(`^${name}:\\s+(\\d+) kB`, 'm').exec(mapping)?.[1]);
  const [guest] = smaps
    .split(/\n(?=[0-9a-f]+-[0-9a-f]+ )/)
    .map((mapping) => ({
      sizeKiB: field(mapping, 'Size'),
      residentKiB: field(mapping, 'Rss'),
      hugeKiB: hugeIn(mapping),
    }))
    .filter(({ sizeKiB }) => sizeKiB >= memoryMiB * 1024)
    .toSorted((a, b) => a.sizeKiB - b.sizeKiB || b.residentKiB - a.residentKiB);
  if (!guest) return memoryMiB * MiB;
  return Math.min(memoryMiB * MiB, (guest.residentKiB + guest.hugeKiB) * 1024);
}

/** Huge pages of hugetlbfs are not in `Rss`. */
function hugeIn(mapping: string): number {
  const found = mapping.matchAll(/^(?:Shared|Private)_Hugetlb:\s+(\d+) kB/gm);
  return [...found].reduce((sum, [, kiB]) => sum + Number(kiB), 0);
}

async function readDirtied(qmp: Qmp): Promise<Dirtied[]> {
  const dirtied: Dirtied[] = [];
  for (const { ms, samplesPerGiB } of looks) {
    const look = await sampleFor(qmp, ms, samplesPerGiB, 'millisecond').catch((error: unknown) => {
      if (!isUnknownUnit(error)) throw error;
      return ms % 1000 === 0 ? sampleFor(qmp, ms, samplesPerGiB, 'second') : undefined;
    });
    if (look) dirtied.push(look);
  }
  return dirtied;
}

/** An older QEMU takes the unit for a mistake of ours. */
function isUnknownUnit(error: unknown): boolean {
  return error instanceof QmpCommandError && /calc-time-unit/.test(error.desc);
}

async function sampleFor(
  qmp: Qmp,
  ms: number,
  samplesPerGiB: number,
  unit: 'second' | 'millisecond',
): Promise<Dirtied> {
  const time = unit === 'second' ? { 'calc-time': ms / 1000 } : { 'calc-time': ms, 'calc-time-unit': unit };
  await qmp.execute('calc-dirty-rate', { ...time, mode: 'page-sampling', 'sample-pages': samplesPerGiB });
  const deadline = systemClock.monotonic() + ms + lateMs;
  await systemClock.sleep(ms);
  for (;;) {
    const { status, 'dirty-rate': MiBPerSecond } = await qmp.execute('query-dirty-rate');
    if (status === 'measured') return { overMs: ms, bytes: ((MiBPerSecond ?? 0) * MiB * ms) / 1000 };
    if (systemClock.monotonic() > deadline)
      throw new Error(`the dirty rate is still ${status} after ${ms + lateMs} ms`);
    await systemClock.sleep(pollMs);
  }
}
