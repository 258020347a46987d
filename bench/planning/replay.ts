/**
 * Moves made one by one on a Ganeti cluster: the score after each from the formula alone, and what is broken at the end. Without
 * the planner's sums and rules, so that it can be believed of either contestant.
 */
import type { FleetSnapshot } from '../../src/model/fleet-snapshot.ts';
import type { GanetiTraits } from '../../src/model/ganeti.ts';

export interface Replayed {
  /** Before, and after each move. */
  readonly scores: readonly number[];
  readonly violations: readonly string[];
  readonly memoryMiB: number;
}

export function replay(
  snapshot: FleetSnapshot,
  traits: GanetiTraits,
  moves: readonly { readonly vm: string; readonly to: string }[],
): Replayed {
  const at = new Map(snapshot.vms.map(({ name, host }) => [name, host]));
  const size = new Map(snapshot.vms.map(({ name, memoryMiB }) => [name, memoryMiB]));
  const scores = [scoreOf(snapshot, traits, at)];
  let memoryMiB = 0;
  for (const { vm, to } of moves) {
    if (!at.has(vm)) throw new Error(`a move of ${vm}, which the cluster does not have`);
    at.set(vm, to);
    memoryMiB += size.get(vm) ?? 0;
    scores.push(scoreOf(snapshot, traits, at));
  }
  return { scores, violations: violationsOf(snapshot, traits, at), memoryMiB };
}

type Placement = ReadonlyMap<string, string>;

function scoreOf({ hosts, vms }: FleetSnapshot, traits: GanetiTraits, at: Placement): number {
  const online = hosts.filter(({ state }) => state === 'up');
  const on = new Map(hosts.map(({ name }) => [name, [] as FleetSnapshot['vms'][number][]]));
  for (const vm of vms) on.get(at.get(vm.name)!)?.push(vm);
  const values = online.map((host) => {
    const here = on.get(host.name) ?? [];
    const sum = (of: (vm: (typeof here)[number]) => number): number => here.reduce((total, vm) => total + of(vm), 0);
    const memory = sum((vm) => vm.memoryMiB);
    const free = host.memoryMiB - host.reservedMiB - memory;
    const toCome = (traits.forthcomingMiB[host.name] ?? host.memoryMiB - host.reservedMiB) - memory;
    return {
      free: free / host.memoryMiB,
      toCome: toCome / host.memoryMiB,
      vcpus: ((traits.ownVcpus[host.name] ?? 0) + sum((vm) => vm.cpus)) / host.cpus / host.cpuSpeed,
      cpu: sum((vm) => vm.load.cpuCores),
      memoryLoad: sum((vm) => vm.load.memoryMiB),
      disk: sum((vm) => vm.load.diskBytesPerSecond),
      net: sum((vm) => vm.load.netBytesPerSecond),
      conflicts: tagsTwice(here),
    };
  });
  const spreadOf = (of: (value: (typeof values)[number]) => number): number => {
    const mean = values.reduce((total, value) => total + of(value), 0) / values.length;
    return Math.sqrt(values.reduce((total, value) => total + (of(value) - mean) ** 2, 0) / values.length);
  };
  const onlineNames = new Set(online.map(({ name }) => name));
  const offline = vms.filter((vm) => !onlineNames.has(at.get(vm.name)!)).length;
  return (
    0.5 * spreadOf(({ free }) => free) +
    0.5 * spreadOf(({ toCome }) => toCome) +
    spreadOf(({ vcpus }) => vcpus) +
    spreadOf(({ cpu }) => cpu) +
    spreadOf(({ memoryLoad }) => memoryLoad) +
    spreadOf(({ disk }) => disk) +
    spreadOf(({ net }) => net) +
    20 * offline +
    2 * values.reduce((total, { conflicts }) => total + conflicts, 0) +
    traits.constant
  );
}

function tagsTwice(vms: readonly { readonly apart: readonly string[] }[]): number {
  const tags = vms.flatMap(({ apart }) => apart);
  return tags.length - new Set(tags).size;
}

function violationsOf({ hosts, vms, settings }: FleetSnapshot, traits: GanetiTraits, at: Placement): string[] {
  return hosts
    .filter(({ state }) => state === 'up')
    .flatMap((host) => {
      const here = vms.filter((vm) => at.get(vm.name) === host.name);
      const memory = here.reduce((total, vm) => total + vm.memoryMiB, 0);
      const vcpus = here.reduce((total, vm) => total + vm.cpus, traits.ownVcpus[host.name] ?? 0);
      return [
        ...(host.memoryMiB - host.reservedMiB - memory <= 0 ? [`${host.name}:memory`] : []),
        ...(vcpus / host.cpus > settings.vcpuRatio ? [`${host.name}:vcpus`] : []),
        ...(tagsTwice(here) > 0 ? [`${host.name}:tags`] : []),
      ];
    });
}
