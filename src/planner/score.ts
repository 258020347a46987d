/**
 * What makes a placement better or worse, as a table of parts with weights. A score can be printed part by part; the same
 * table is turned into the numbers that the search keeps up to date. Not here: the sums of the search (board.ts).
 */
import type { SnapshotHost, SnapshotVm } from '../model/fleet-snapshot.ts';
import type { Score, ScorePart } from '../model/plan.ts';
import type { Fleet } from './fleet.ts';
import type { Objective } from './problem.ts';

/** One row of the table. Values of hosts and VMs are functions of what the snapshot says. */
export type Part = { readonly name: string; readonly weight: number } & (
  | ({ readonly kind: 'spread' | 'peak' } & Measure)
  | ({ readonly kind: 'over'; readonly limit: number } & Measure)
  /** VMs on hosts they shall leave. */
  | { readonly kind: 'stranded'; readonly per: number }
  /** VMs of an apart group that share a host, but one. */
  | { readonly kind: 'conflicts' }
  /** Hosts a together group is spread over, but one. */
  | { readonly kind: 'splits' }
  | { readonly kind: 'powered'; readonly per: (host: SnapshotHost) => number }
  /** What no move changes. */
  | { readonly kind: 'constant'; readonly value: number }
);

/** A value of each host: (base + sum of its VMs' amounts) times scale. */
export interface Measure {
  readonly base: (host: SnapshotHost) => number;
  readonly amount: (vm: SnapshotVm) => number;
  readonly scale: (host: SnapshotHost) => number;
}

/** Drover's own objective. Spreads are over the hosts that take guests; shares are of what each host has. */
export function droverParts(fleet: Fleet): Part[] {
  const { settings, hosts } = fleet.snapshot;
  const perMachine = (of: (host: SnapshotHost) => number) => (host: SnapshotHost) => 1 / Math.max(1e-9, of(host));
  const cores = perMachine((host) => host.cpus * host.cpuSpeed);
  const usable = perMachine((host) => host.memoryMiB - host.reservedMiB);
  const none = (): number => 0;
  const cpu: Measure = { base: none, amount: (vm) => vm.load.cpuCores, scale: cores };
  const memory: Measure = { base: none, amount: (vm) => vm.memoryMiB, scale: usable };
  const active: Measure = { base: none, amount: (vm) => vm.load.memoryMiB, scale: usable };
  const vcpus: Measure = { base: none, amount: (vm) => vm.cpus, scale: perMachine((host) => host.cpus) };
  const net: Measure = {
    base: none,
    amount: (vm) => vm.load.netBytesPerSecond,
    scale: perMachine((host) => host.linkBytesPerSecond),
  };
  // Nobody says what a host's disks can do: their use is compared with the fleet's mean.
  const traffic = fleet.vms.reduce((sum, vm) => sum + vm.load.diskBytesPerSecond, 0);
  const mean = traffic / Math.max(1, hosts.length);
  const disk: Measure = {
    base: none,
    amount: (vm) => vm.load.diskBytesPerSecond,
    scale: () => (mean > 0 ? 1 / mean : 0),
  };
  const table: Part[] = [
    { name: 'cpu-spread', weight: 1, kind: 'spread', ...cpu },
    { name: 'memory-spread', weight: 0.4, kind: 'spread', ...memory },
    { name: 'active-memory-spread', weight: 0.2, kind: 'spread', ...active },
    { name: 'vcpu-spread', weight: 0.05, kind: 'spread', ...vcpus },
    { name: 'network-spread', weight: 0.3, kind: 'spread', ...net },
    { name: 'disk-spread', weight: 0.03, kind: 'spread', ...disk },
    { name: 'cpu-overload', weight: 2, kind: 'over', limit: settings.cpuLimit, ...cpu },
    { name: 'memory-overload', weight: 20, kind: 'over', limit: 1, ...memory },
    { name: 'stranded', weight: 1, kind: 'stranded', per: 4 },
    { name: 'apart-broken', weight: 2, kind: 'conflicts' },
    { name: 'together-broken', weight: 2, kind: 'splits' },
  ];
  return withWeights(table, settings.weights);
}

/** The largest load of any host alone, as a share of its cores. */
export function peakParts(): Part[] {
  return [
    {
      name: 'cpu-peak',
      weight: 1,
      kind: 'peak',
      base: () => 0,
      amount: (vm) => vm.load.cpuCores,
      scale: (host) => 1 / Math.max(1e-9, host.cpus * host.cpuSpeed),
    },
    { name: 'stranded', weight: 1, kind: 'stranded', per: 4 },
    { name: 'apart-broken', weight: 2, kind: 'conflicts' },
    { name: 'together-broken', weight: 2, kind: 'splits' },
  ];
}

export function withWeights(table: readonly Part[], weights: Readonly<Record<string, number>>): Part[] {
  return table.map((part) => ({ ...part, weight: weights[part.name] ?? part.weight }));
}

/** Part by part, from the placement alone: slow, plain, and what the fast sums are tested against. */
export function scoreOf(fleet: Fleet, parts: readonly Part[], at: ArrayLike<number>): Score {
  const rows = parts.map((part): ScorePart => {
    const { name, weight } = part;
    return { name, weight, value: valueOf(fleet, part, at) };
  });
  return { total: rows.reduce((sum, { weight, value }) => sum + weight * value, 0), parts: rows };
}

function valueOf(fleet: Fleet, part: Part, at: ArrayLike<number>): number {
  switch (part.kind) {
    case 'constant':
      return part.value;
    case 'spread':
    case 'peak':
    case 'over':
      return statisticOf(fleet, part, at);
    case 'stranded':
      return fleet.vms.reduce((sum, _, v) => sum + (fleet.leave[at[v]!] === 1 ? part.per : 0), 0);
    case 'conflicts':
      return sharing(fleet.apart, at).reduce((sum, { members, hosts }) => sum + members - hosts, 0);
    case 'splits':
      return sharing(fleet.together, at).reduce((sum, { hosts }) => sum + hosts - 1, 0);
    case 'powered': {
      const used = new Set(fleet.vms.map((_, v) => at[v]!));
      return fleet.hosts.reduce((sum, host, h) => sum + (used.has(h) ? part.per(host) : 0), 0);
    }
  }
}

function statisticOf(
  fleet: Fleet,
  part: Extract<Part, { kind: 'spread' | 'peak' | 'over' }>,
  at: ArrayLike<number>,
): number {
  const values = fleet.hosts.map((host) => part.base(host));
  fleet.vms.forEach((vm, v) => (values[at[v]!]! += part.amount(vm)));
  const counted = fleet.hosts.flatMap((host, h) => (fleet.counted[h] === 1 ? [values[h]! * part.scale(host)] : []));
  if (counted.length === 0) return 0;
  switch (part.kind) {
    case 'spread': {
      const mean = counted.reduce((sum, x) => sum + x, 0) / counted.length;
      return Math.sqrt(counted.reduce((sum, x) => sum + (x - mean) ** 2, 0) / counted.length);
    }
    case 'peak':
      return counted.reduce((most, x) => Math.max(most, x), 0);
    case 'over':
      return counted.reduce((sum, x) => sum + Math.max(0, x - part.limit), 0);
  }
}

function sharing(
  groups: ReadonlyMap<string, readonly number[]>,
  at: ArrayLike<number>,
): { members: number; hosts: number }[] {
  return [...groups.values()].map((members) => ({
    members: members.length,
    hosts: new Set(members.map((vm) => at[vm]!)).size,
  }));
}

/** The table as numbers. Parts of the same values are kept as one metric, parts without any are left out. */
export function objectiveOf(fleet: Fleet, parts: readonly Part[]): Objective {
  const { hosts, vms } = fleet;
  const columns: { weight: number; amount: Float64Array; base: Float64Array; scale: Float64Array }[] = [];
  const over: { metric: number; limit: number; weight: number }[] = [];
  let peak: { metric: number; weight: number } | null = null;
  const column = (part: Measure, weight: number): number => {
    const scale = Float64Array.from(hosts, (host) => part.scale(host));
    const base = Float64Array.from(hosts, (host, h) => part.base(host) * scale[h]!);
    const amount = Float64Array.from(vms, (vm) => part.amount(vm));
    const index = columns.findIndex((c) => same(c.amount, amount) && same(c.base, base) && same(c.scale, scale));
    const found = columns[index];
    if (found !== undefined) {
      found.weight += weight;
      return index;
    }
    return columns.push({ weight, amount, base, scale }) - 1;
  };
  let conflict = 0;
  let split = 0;
  const stranded = new Float64Array(vms.length);
  const powered = new Float64Array(hosts.length);
  for (const part of parts) {
    switch (part.kind) {
      case 'spread':
        if (part.weight > 0 && vms.some((vm) => part.amount(vm) !== 0)) column(part, part.weight);
        break;
      case 'over':
        if (part.weight > 0) over.push({ metric: column(part, 0), limit: part.limit, weight: part.weight });
        break;
      case 'peak':
        peak = { metric: column(part, 0), weight: part.weight };
        break;
      case 'stranded':
        stranded.forEach((_, v) => (stranded[v]! += part.per * part.weight));
        break;
      case 'conflicts':
        conflict += part.weight;
        break;
      case 'splits':
        split += part.weight;
        break;
      case 'powered':
        hosts.forEach((host, h) => (powered[h]! += part.per(host) * part.weight));
        break;
      case 'constant':
        break;
    }
  }
  const metrics = columns.length;
  const byRow = (rows: number, of: (column: number, row: number) => number): Float64Array =>
    Float64Array.from({ length: rows * metrics }, (_, i) => of(i % metrics, Math.floor(i / metrics)));
  const amount = byRow(vms.length, (k, v) => columns[k]!.amount[v]!);
  const base = byRow(hosts.length, (k, h) => columns[k]!.base[h]!);
  const scale = byRow(hosts.length, (k, h) => columns[k]!.scale[h]!);
  return {
    metrics,
    weight: Float64Array.from(columns, ({ weight }) => weight),
    amount,
    base,
    scale,
    outside: { hosts: 0, sum: new Float64Array(metrics), squares: new Float64Array(metrics) },
    reference: means(fleet, metrics, amount, base, scale),
    over,
    peak,
    stranded,
    conflict,
    split,
    powered,
  };
}

function means(
  fleet: Fleet,
  metrics: number,
  amount: Float64Array,
  base: Float64Array,
  scale: Float64Array,
): Float64Array {
  const x = Float64Array.from(base);
  fleet.at.forEach((h, v) => {
    for (let k = 0; k < metrics; k++) x[h * metrics + k]! += amount[v * metrics + k]! * scale[h * metrics + k]!;
  });
  const counted = Math.max(
    1,
    fleet.counted.reduce((sum, each) => sum + each, 0),
  );
  return Float64Array.from(
    { length: metrics },
    (_, k) =>
      fleet.hosts.reduce((sum, _host, h) => sum + (fleet.counted[h] === 1 ? x[h * metrics + k]! : 0), 0) / counted,
  );
}

function same(a: Float64Array, b: Float64Array): boolean {
  return a.length === b.length && a.every((value, i) => value === b[i]);
}
