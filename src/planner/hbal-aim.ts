/**
 * The aim `hbal`: exactly the cluster score of Ganeti's balancer, for VMs on shared storage, so that both can be compared move by
 * move. The formula is that of Ganeti 3.0 (its HTools metrics), written down from its documentation and checked against the
 * scores it prints. Not here: Ganeti's files (wire/ganeti.ts).
 */
import type { SnapshotHost, SnapshotVm } from '../model/fleet-snapshot.ts';
import type { GanetiTraits } from '../model/ganeti.ts';
import type { Aim } from './balance.ts';
import type { Fleet } from './fleet.ts';
import type { Part } from './score.ts';

export const noTraits: GanetiTraits = { ownVcpus: {}, forthcomingMiB: {}, constant: 0 };

/**
 * hbal stops when a step brings less than this and the score is low. With a budget any gain is taken.
 */
const leastPerMove = 0.01;
const hardlyAnything = 1e-5;

export function hbalAim(traits: GanetiTraits = noTraits, bounded = true): Aim {
  return {
    name: 'hbal',
    look: {
      ignoreDwell: true,
      // It wants some memory left, not none.
      marginMiB: 1,
      limitCpu: false,
      ownVcpus: traits.ownVcpus,
    },
    parts: (fleet) => hbalParts(fleet, traits),
    moveCost: ({ vms }, vm) => (bounded ? hardlyAnything : leastPerMove) * (1 + (vms[vm]!.memoryMiB / 1024) * 0.01),
    leastGain: 0,
    settles: false,
    // Numbers of VMs are evened out in whole ones, and a budget leaves no move to waste: some searches end a step short.
    tries: 2,
  };
}

function hbalParts({ hosts }: Fleet, { ownVcpus, forthcomingMiB, constant }: GanetiTraits): Part[] {
  const share = (host: SnapshotHost): number => 1 / Math.max(1, host.memoryMiB);
  const memory = (vm: SnapshotVm): number => -vm.memoryMiB;
  const free = (host: SnapshotHost): number => host.memoryMiB - host.reservedMiB;
  const none = (): number => 0;
  const one = (): number => 1;
  const load = (name: string, amount: (vm: SnapshotVm) => number): Part => ({
    name,
    weight: 1,
    kind: 'spread',
    base: none,
    amount,
    scale: one,
  });
  const apart = hosts.some(({ name }) => forthcomingMiB[name] !== undefined);
  const forthcoming = (host: SnapshotHost): number => forthcomingMiB[host.name] ?? free(host);
  const table: Part[] = [
    { name: 'free-memory', weight: apart ? 0.5 : 1, kind: 'spread', base: free, amount: memory, scale: share },
    { name: 'free-memory-to-come', weight: 0.5, kind: 'spread', base: forthcoming, amount: memory, scale: share },
    {
      name: 'vcpus',
      weight: 1,
      kind: 'spread',
      base: (host) => ownVcpus[host.name] ?? 0,
      amount: (vm) => vm.cpus,
      scale: (host) => 1 / Math.max(1e-9, host.cpus * host.cpuSpeed),
    },
    load('cpu-load', (vm) => vm.load.cpuCores),
    load('memory-load', (vm) => vm.load.memoryMiB),
    load('disk-load', (vm) => vm.load.diskBytesPerSecond),
    load('net-load', (vm) => vm.load.netBytesPerSecond),
    { name: 'offline', weight: 1, kind: 'stranded', per: 20 },
    { name: 'tags', weight: 2, kind: 'conflicts' },
    { name: 'storage', weight: 1, kind: 'constant', value: constant },
  ];
  return table.filter((part) => apart || part.name !== 'free-memory-to-come');
}
