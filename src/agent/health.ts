/**
 * Signs that this host may die soon: memory errors counted by the kernel (EDAC), disks that call themselves failing
 * (SMART, where smartctl is installed), tasks that all wait for memory or disk (PSI). Only looks.
 *
 * Sources: the kernel's documentation of EDAC (ue_count, ce_count) and of pressure stall information; smartctl(8), exit
 * status bit 3: "SMART status check returned DISK FAILING".
 */
import { execFile } from 'node:child_process';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { HealthSign } from '../model/host.ts';
import type { Clock } from '../runtime/clock.ts';

/** So many corrected errors since boot say that a module is wearing out. */
const correctedErrorsAreMany = 100;
/** Share of a minute in which every task waited. */
const pressureIsHigh = 40;
const disksEveryMs = 600_000;
const smartctlWithinMs = 20_000;
const smartFailing = 1 << 3;

export interface HealthSources {
  /** Where /sys and /proc are. */
  readonly root: string;
  /** Exit status of `smartctl -H` for a disk; undefined when it cannot be asked. */
  readonly smart: (disk: string) => Promise<number | undefined>;
  readonly clock: Pick<Clock, 'monotonic'>;
}

export function healthMeter(sources: HealthSources): () => Promise<HealthSign[]> {
  let disks: HealthSign[] = [];
  let disksAt = -Infinity;
  let asking = false;
  return async () => {
    // Disks are slow to answer: what they said last counts until they have said more.
    if (!asking && sources.clock.monotonic() - disksAt >= disksEveryMs) {
      disksAt = sources.clock.monotonic();
      asking = true;
      void diskSigns(sources)
        .then((signs) => (disks = signs))
        .finally(() => (asking = false));
    }
    return [...memorySigns(sources.root), ...pressureSigns(sources.root), ...disks];
  };
}

/** @returns its exit status; undefined where it is not installed or does not answer */
export function smartctl(disk: string): Promise<number | undefined> {
  return new Promise((resolve) => {
    execFile('smartctl', ['-H', `/dev/${disk}`], { timeout: smartctlWithinMs }, (error) => {
      if (error === null) resolve(0);
      else resolve(typeof error.code === 'number' ? error.code : undefined);
    });
  });
}

function memorySigns(root: string): HealthSign[] {
  const controllers = join(root, 'sys/devices/system/edac/mc');
  if (!existsSync(controllers)) return [];
  return readdirSync(controllers)
    .filter((name) => /^mc\d+$/.test(name))
    .flatMap((name): HealthSign[] => {
      const uncorrected = numberIn(join(controllers, name, 'ue_count'));
      const corrected = numberIn(join(controllers, name, 'ce_count'));
      if (uncorrected > 0) {
        const says = `memory controller ${name} counted ${uncorrected} errors that could not be corrected`;
        return [{ kind: 'memory-errors', severity: 'failing', says }];
      }
      if (corrected < correctedErrorsAreMany) return [];
      const says = `memory controller ${name} corrected more than ${correctedErrorsAreMany} errors since boot`;
      return [{ kind: 'memory-errors', severity: 'warning', says }];
    });
}

function pressureSigns(root: string): HealthSign[] {
  return (['memory', 'io'] as const).flatMap((what): HealthSign[] => {
    const path = join(root, 'proc/pressure', what);
    if (!existsSync(path)) return [];
    const share = Number(/^full .*avg60=([\d.]+)/m.exec(readFileSync(path, 'utf8'))?.[1] ?? 0);
    if (share < pressureIsHigh) return [];
    const says = `every task waited for ${what === 'io' ? 'disks' : 'memory'} for over ${pressureIsHigh} % of a minute`;
    return [{ kind: 'pressure', severity: 'warning', says }];
  });
}

async function diskSigns({ root, smart }: HealthSources): Promise<HealthSign[]> {
  const blocks = join(root, 'sys/block');
  if (!existsSync(blocks)) return [];
  // Only those of real hardware have a device behind them.
  const disks = readdirSync(blocks).filter((name) => existsSync(join(blocks, name, 'device')));
  const signs: HealthSign[] = [];
  for (const disk of disks) {
    const status = await smart(disk);
    if (status === undefined || (status & smartFailing) === 0) continue;
    signs.push({ kind: 'disk', severity: 'failing', says: `the disk ${disk} says that it is failing (SMART)` });
  }
  return signs;
}

function numberIn(path: string): number {
  return existsSync(path) ? Number(readFileSync(path, 'utf8').trim()) || 0 : 0;
}
