/** Fleets for tests and benchmarks: plain hosts and VMs to vary, and random ones from a seed. */
import {
  defaultFleetSettings,
  type FleetSettings,
  type FleetSnapshot,
  type SnapshotHost,
  type SnapshotVm,
} from '../model/fleet-snapshot.ts';
import { chanceFrom } from './chance.ts';

export function fakeHost(name: string, more: Partial<SnapshotHost> = {}): SnapshotHost {
  return {
    name,
    state: 'up',
    cpus: 16,
    cpuSpeed: 1,
    memoryMiB: 65_536,
    reservedMiB: 512,
    labels: {},
    accel: 'kvm',
    cpuModels: null,
    machines: ['pc-q35-7.2'],
    networks: ['default'],
    pools: ['default'],
    poolIds: {},
    noLiveMoves: null,
    linkBytesPerSecond: 1.25e9,
    watts: null,
    ...more,
  };
}

export function fakeVm(name: string, host: string, more: Partial<SnapshotVm> = {}): SnapshotVm {
  const memoryMiB = more.memoryMiB ?? 4096;
  return {
    name,
    host,
    running: true,
    cpus: 2,
    memoryMiB,
    memoryInUseMiB: memoryMiB / 2,
    dirtyBytesPerSecond: 10e6,
    load: { cpuCores: 0.5, memoryMiB: memoryMiB / 2, diskBytesPerSecond: 0, netBytesPerSecond: 0 },
    labels: {},
    machine: 'pc-q35-7.2',
    cpuModel: 'qemu64-v1',
    accel: null,
    networks: ['default'],
    pools: ['default'],
    pinnedTo: null,
    apart: [],
    together: [],
    cannotMoveLive: null,
    moving: false,
    priority: 500,
    recovery: 'restart',
    lastMovedAt: null,
    ...more,
  };
}

export function fakeSnapshot(
  hosts: readonly SnapshotHost[],
  vms: readonly SnapshotVm[],
  settings: Partial<FleetSettings> = {},
): FleetSnapshot {
  return { version: 1, takenAt: 1_000_000_000, hosts, vms, settings: { ...defaultFleetSettings, ...settings } };
}

/** Hosts of one kind with VMs spread unevenly: the first ones have more. */
export function unevenFleet(hosts: number, vmsPerHost: number, seed: number): FleetSnapshot {
  const chance = chanceFrom(seed);
  const names = Array.from({ length: hosts }, (_, i) => `h${i + 1}`);
  const vms = Array.from({ length: hosts * vmsPerHost }, (_, i) => {
    const host = names[Math.min(chance.below(hosts), chance.below(hosts))]!;
    const memoryMiB = [1024, 1024, 2048, 2048, 4096][chance.below(5)]!;
    const cpus = [1, 2, 4][chance.below(3)]!;
    const load = {
      cpuCores: cpus * chance.next() * 0.3,
      memoryMiB: memoryMiB / 2,
      diskBytesPerSecond: 0,
      netBytesPerSecond: 0,
    };
    return fakeVm(`vm${i + 1}`, host, { memoryMiB, cpus, load });
  });
  return fakeSnapshot(
    names.map((name) => fakeHost(name, { cpus: 32, memoryMiB: 262_144 })),
    vms,
    { vcpuRatio: 8 },
  );
}
