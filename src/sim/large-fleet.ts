/**
 * A large fleet made from a seed: hosts, VMs on them, and what each VM asks for at any time of the day. Most hosts have VMs of
 * one kind more than of others, so their days differ: what is even at night is not at noon.
 *
 * Not here: what is done about it (large.ts).
 */
import type { GuestLoad, HostInventory, HostRecord, RoomRecord } from '../model/host.ts';
import { newId } from '../model/ids.ts';
import type { VmRecord, VmSpec } from '../model/vm.ts';
import { noPlacingRules } from '../model/vm.ts';
import { seededRandom, type Random } from '../runtime/random.ts';
import type { StoredEntry } from '../store/memory.ts';
import { recordKey } from '../store/records.ts';

export interface LargeFleet {
  readonly hosts: readonly HostRecord[];
  readonly rooms: readonly RoomRecord[];
  readonly vms: readonly VmRecord[];
  /** Index into `vms`. @param ms since the beginning of the day @returns cores in use */
  readonly cores: (vm: number, ms: number) => number;
  readonly load: (vm: number, ms: number) => GuestLoad;
}

export const hostCpus = 32;
const hostMemoryMiB = 512 * 1024;
/** As much as the agent keeps for itself. */
const keptMiB = 8 * 1024;
const dayMs = 24 * 3_600_000;
const sizes = [
  { cpus: 1, memoryMiB: 2 * 1024, weight: 0.35 },
  { cpus: 2, memoryMiB: 4 * 1024, weight: 0.3 },
  { cpus: 4, memoryMiB: 16 * 1024, weight: 0.25 },
  { cpus: 8, memoryMiB: 32 * 1024, weight: 0.1 },
] as const;
/** Hour of the day with most load, the width of that peak in hours, and shares of the VM's CPUs at rest and then. */
const kinds = [
  { name: 'office', peak: 11, width: 4, rest: 0.04, most: 0.75 },
  { name: 'evening', peak: 20, width: 3, rest: 0.08, most: 0.8 },
  { name: 'night', peak: 2, width: 2, rest: 0.03, most: 0.95 },
  { name: 'steady', peak: 12, width: 24, rest: 0.25, most: 0.3 },
] as const;
/** Of a host's VMs, so many are of the kind that it has most of. */
const shareOfKind = 0.55;
const sampleMs = 300_000;

export function largeFleet(seed: number, hosts: number, vms: number, startedAt: number): LargeFleet {
  const random = seededRandom(seed);
  const rooms: { host: HostRecord; guestsMiB: Record<string, number>; usedMiB: number; kind: number }[] = [];
  for (let n = 1; n <= hosts; n++) {
    const host = hostRecord(n, startedAt, random);
    rooms.push({ host, guestsMiB: {}, usedMiB: 0, kind: Math.floor(random.next() * kinds.length) });
  }
  const records: VmRecord[] = [];
  const kindOf = new Uint8Array(vms);
  const scale = new Float32Array(vms);
  const shift = new Float32Array(vms);
  for (let v = 0; v < vms; v++) {
    const size = drawn(random);
    // The emptier of two: neither all alike nor one full beside an empty one.
    const pick = () => rooms[Math.floor(random.next() * hosts)]!;
    let room = emptier(pick(), pick());
    for (let n = 0; n < hosts && room.usedMiB + size.memoryMiB > hostMemoryMiB - keptMiB; n++) room = rooms[n]!;
    if (room.usedMiB + size.memoryMiB > hostMemoryMiB - keptMiB) {
      throw new Error(`${hosts} hosts have no room for ${vms} VMs: the first ${v} fill them`);
    }
    const vm = vmRecord(v + 1, room.host, size, startedAt, random);
    records.push(vm);
    room.guestsMiB[vm.id] = size.memoryMiB;
    room.usedMiB += size.memoryMiB;
    kindOf[v] = random.next() < shareOfKind ? room.kind : Math.floor(random.next() * kinds.length);
    scale[v] = 0.4 + 0.8 * random.next();
    shift[v] = 2 * random.next() - 1;
  }
  const cores = (v: number, ms: number): number => {
    const { peak, width, rest, most } = kinds[kindOf[v]!]!;
    const hour = ((ms % dayMs) / 3_600_000 + shift[v]! + 24) % 24;
    const away = Math.min(Math.abs(hour - peak), 24 - Math.abs(hour - peak));
    const busy = Math.exp(-((away / width) ** 2));
    // Of means over five minutes.
    const noise = 0.95 + 0.1 * chanceOf(seed, v, Math.floor(ms / sampleMs));
    const { cpus } = records[v]!.spec;
    return Math.min(cpus, cpus * scale[v]! * noise * (rest + (most - rest) * busy));
  };
  return {
    hosts: rooms.map(({ host }) => host),
    rooms: rooms.map(({ host, guestsMiB }) => ({
      schema: 1,
      host: host.id,
      capacityMiB: hostMemoryMiB - keptMiB,
      guestsMiB,
      reservationsMiB: {},
    })),
    vms: records,
    cores,
    load: (v, ms) => {
      const cpuCores = cores(v, ms);
      const { memoryMiB } = records[v]!.spec;
      return {
        cpuCores,
        memoryResidentMiB: Math.round(memoryMiB * (0.5 + 0.3 * scale[v]!)),
        diskReadBytesPerSecond: Math.round(cpuCores * 400_000),
        diskWriteBytesPerSecond: Math.round(cpuCores * 250_000),
        netReceiveBytesPerSecond: Math.round(cpuCores * 900_000),
        netSendBytesPerSecond: Math.round(cpuCores * 1_300_000),
      };
    },
  };
}

/** The records of the fleet as a store holds them. */
export function entriesOf({ hosts, rooms, vms }: LargeFleet): StoredEntry[] {
  const entry = (key: string, value: unknown): StoredEntry => ({ key, value, created: 1, changed: 1 });
  return [
    ...hosts.map((host) => entry(recordKey.host(host.id), host)),
    ...rooms.map((room) => entry(recordKey.room(room.host), room)),
    ...vms.map((vm) => entry(recordKey.vm(vm.id), vm)),
    ...hosts.map(({ id, name }) => entry(recordKey['host-name'](name), { schema: 1, id })),
    ...vms.map(({ id, name }) => entry(recordKey['vm-name'](name), { schema: 1, id })),
  ];
}

function emptier<R extends { readonly usedMiB: number }>(a: R, b: R): R {
  return b.usedMiB < a.usedMiB ? b : a;
}

function drawn(random: Random): (typeof sizes)[number] {
  let left = random.next();
  return sizes.find(({ weight }) => (left -= weight) < 0) ?? sizes[0];
}

/** Even over [0, 1), the same for the same three: what a VM does at a time depends on no other. */
function chanceOf(seed: number, vm: number, sample: number): number {
  let z =
    (Math.imul(seed ^ 0x9e3779b9, 0x85ebca6b) + Math.imul(vm + 1, 0xc2b2ae35) + Math.imul(sample, 0x27d4eb2f)) | 0;
  z = Math.imul(z ^ (z >>> 16), 0x85ebca6b);
  z = Math.imul(z ^ (z >>> 13), 0xc2b2ae35);
  return ((z ^ (z >>> 16)) >>> 0) / 2 ** 32;
}

const inventory: Omit<HostInventory, 'migrationAddress' | 'peer' | 'kernelBootId'> = {
  cpus: hostCpus,
  memoryMiB: hostMemoryMiB,
  cpuModel: 'simulated',
  accel: 'kvm',
  qemuVersion: '10.0.2',
  machines: ['pc-q35-10.0'],
  liveMigration: { ok: true },
  postCopy: { ok: true },
  networks: ['default'],
  pools: ['default'],
  interfaceBytesPerSecond: 1_250_000_000,
};

function hostRecord(n: number, at: number, random: Random): HostRecord {
  const name = `h${n}`;
  return {
    schema: 2,
    id: newId('host', at, random.bytes(8)),
    name,
    session: 1,
    cordoned: false,
    labels: {},
    inventory: { ...inventory, migrationAddress: name, peer: { address: name, port: 7072 }, kernelBootId: `boot-${n}` },
    joinedAt: at,
    power: null,
    fenced: null,
    failing: null,
  };
}

function vmRecord(
  n: number,
  host: HostRecord,
  { cpus, memoryMiB }: (typeof sizes)[number],
  at: number,
  random: Random,
): VmRecord {
  const spec: VmSpec = {
    cpus,
    memoryMiB,
    machine: 'pc-q35-10.0',
    cpuModel: 'qemu64-v1',
    boot: { kind: 'disk' },
    disks: [{ pool: 'default', file: `vm${n}.qcow2`, format: 'qcow2' }],
    nics: [],
  };
  return {
    schema: 3,
    id: newId('vm', at, random.bytes(8)),
    name: `vm${n}`,
    spec,
    running: { argvVersion: 3, argv: [], spec },
    provision: [],
    state: { kind: 'running' },
    host: host.id,
    generation: 1,
    migration: null,
    labels: {},
    address: null,
    cannotMoveLive: null,
    createdAt: at,
    recovery: 'restart',
    restart: 'never',
    priority: 500,
    restarts: { count: 0, lastAt: 0 },
    placing: noPlacingRules,
  };
}
