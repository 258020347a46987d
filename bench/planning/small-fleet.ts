/** Small fleets that can be solved exactly: ten hosts, uneven in four ways. */
import type { FleetSnapshot, SnapshotVm } from '../../src/model/fleet-snapshot.ts';
import { chanceFrom } from '../../src/planner/chance.ts';
import { fakeHost, fakeSnapshot, fakeVm } from '../../src/planner/fake-fleet.ts';

export const smallPatterns = ['skew', 'hot', 'newhosts', 'tight'] as const;
export type SmallPattern = (typeof smallPatterns)[number];

export function smallFleet(pattern: SmallPattern, seed: number): FleetSnapshot {
  const chance = chanceFrom(100 * seed + smallPatterns.indexOf(pattern));
  const hosts = Array.from({ length: 10 }, (_, i) => fakeHost(`h${i + 1}`, { cpus: 16, memoryMiB: 65_536 }));
  const vmsPerHost = pattern === 'tight' ? 12 : 6;
  const held = hosts.map(() => ({ memoryMiB: 0, cpus: 0, groups: new Set<string>() }));
  const vms: SnapshotVm[] = [];
  for (let i = 0; i < hosts.length * vmsPerHost; i++) {
    const memoryMiB = [1024, 2048, 4096, 8192][chance.below(pattern === 'tight' ? 3 : 4)]!;
    const cpus = [1, 2, 4, 8][chance.below(4)]!;
    const group = chance.next() < 0.25 ? `g${chance.below(6)}` : null;
    const fits = (h: number): boolean => {
      const { memoryMiB: mib, cpus: vcpus, groups } = held[h]!;
      return mib + memoryMiB <= 60_000 && vcpus + cpus <= 64 && (group === null || !groups.has(group));
    };
    const wanted = wantedHost(pattern, hosts.length, chance.next(), chance.next());
    const h = fits(wanted) ? wanted : hosts.findIndex((_, other) => fits(other));
    if (h < 0) continue;
    held[h]!.memoryMiB += memoryMiB;
    held[h]!.cpus += cpus;
    if (group !== null) held[h]!.groups.add(group);
    const busy = pattern === 'hot' && h < 2 ? 3 : 1;
    const cpuCores = Math.round(cpus * (0.05 + 0.35 * chance.next()) * busy * 1000) / 1000;
    vms.push(
      fakeVm(`vm${i + 1}`, `h${h + 1}`, {
        memoryMiB,
        cpus,
        apart: group === null ? [] : [group],
        load: { cpuCores, memoryMiB, diskBytesPerSecond: 0, netBytesPerSecond: 0 },
      }),
    );
  }
  return fakeSnapshot(hosts, vms, { vcpuRatio: 4, dwellMs: 0 });
}

function wantedHost(pattern: SmallPattern, hosts: number, a: number, b: number): number {
  switch (pattern) {
    case 'skew':
      return Math.floor(hosts * Math.min(a, b));
    case 'newhosts':
      return Math.floor(hosts * 0.8 * a);
    case 'tight':
      return Math.floor(hosts * a ** 1.4);
    case 'hot':
      return Math.floor(hosts * a);
  }
}
