/**
 * The snapshot file: what `drover fleet export` writes and `drover plan --snapshot` reads; a bug report and a fixture alike. Short
 * ones can be written by hand: what is left out has a default. Its schema is published as
 * docs/reference/fleet-snapshot.schema.json, where a test holds it fresh.
 */
import { z } from 'zod';
import { UserError, messageOf } from '../model/failure.ts';
import { defaultFleetSettings, type FleetSnapshot } from '../model/fleet-snapshot.ts';
import { didYouMean } from '../model/ids.ts';
import { defaultPriority } from '../model/vm.ts';

const hostStates = ['up', 'cordoned', 'draining', 'silent', 'asleep'] as const;
const name = z.string().min(1).max(200);
const names = z.array(name).max(10_000);
const cores = z.number().min(0).max(1e6);
const mib = z.number().min(0).max(1e9).describe('MiB');
const bytesPerSecond = z.number().min(0).max(1e15).describe('bytes per second');
const labels = z.record(z.string().max(200), z.string().max(200));
const timeMs = z.number().min(0).max(1e15).describe('ms since the epoch');

const snapshotHost = z
  .object({
    name,
    state: z.enum(hostStates).default('up'),
    cpus: z.number().min(0.01).max(100_000),
    cpuSpeed: z.number().min(0.001).max(1000).default(1).describe('of one of its CPUs; 1 is the usual one'),
    memoryMiB: mib,
    reservedMiB: mib.default(0).describe('MiB of it that guests may not use'),
    labels: labels.default({}),
    accel: z.enum(['kvm', 'tcg']).default('kvm'),
    cpuModels: names.nullable().default(null).describe('guest CPU models it can run; null: all'),
    machines: names.nullable().default(null).describe('machine types its QEMU knows; null: all that the VMs have'),
    networks: names.nullable().default(null).describe('null: all that the VMs have'),
    pools: names.nullable().default(null).describe('null: all that the VMs have'),
    poolIds: z.record(name, z.string().max(200)).default({}).describe('which pool each name stands for here'),
    noLiveMoves: z.string().max(1000).nullable().default(null).describe('why none may leave or reach it'),
    linkBytesPerSecond: z.number().min(1).max(1e15).default(1.25e9).describe('for guest memory, bytes per second'),
    watts: z
      .array(z.number().min(0).max(1e6))
      .min(2)
      .max(101)
      .nullable()
      .default(null)
      .describe('at evenly spaced loads from 0 to 100 %'),
  })
  .strict();

const snapshotVm = z
  .object({
    name,
    host: name,
    running: z.boolean().default(true),
    cpus: z.number().min(0).max(10_000).default(1),
    memoryMiB: mib,
    memoryInUseMiB: mib.nullable().default(null).describe('MiB; null: all of it'),
    dirtyBytesPerSecond: bytesPerSecond.default(0),
    load: z
      .object({
        cpuCores: cores.default(0).describe('usual cores in use'),
        recentCpuCores: z
          .array(cores)
          .max(1000)
          .readonly()
          .optional()
          .describe('means of five minutes each, the newest last'),
        memoryMiB: mib.nullable().default(null).describe('MiB the guest really uses; null: all of it'),
        diskBytesPerSecond: bytesPerSecond.default(0),
        netBytesPerSecond: bytesPerSecond.default(0),
      })
      .strict()
      .prefault({}),
    labels: labels.default({}),
    machine: z.string().max(200).default('pc-q35-7.2'),
    cpuModel: z.string().max(200).default('qemu64-v1'),
    accel: z.enum(['kvm', 'tcg']).nullable().default(null),
    networks: names.default([]),
    pools: names.default([]),
    pinnedTo: names.nullable().default(null).describe('hosts it may be on; null: all'),
    apart: names.default([]).describe('groups of which no two VMs may share a host'),
    together: names.default([]).describe('groups whose VMs share one host'),
    cannotMoveLive: z.string().max(1000).nullable().default(null).describe('why not'),
    moving: z.boolean().default(false),
    priority: z.number().int().min(0).max(1000).default(defaultPriority),
    recovery: z.enum(['restart', 'manual']).default('restart'),
    lastMovedAt: timeMs.nullable().default(null),
  })
  .strict();

const settings = z
  .object({
    vcpuRatio: z.number().min(0.1).max(1000).default(defaultFleetSettings.vcpuRatio),
    cpuLimit: z.number().min(0.01).max(1000).default(defaultFleetSettings.cpuLimit).describe('share of CPUs in use'),
    hostFailuresTolerated: z.number().int().min(0).max(100).default(defaultFleetSettings.hostFailuresTolerated),
    dwellMs: z.number().min(0).max(1e12).default(defaultFleetSettings.dwellMs),
    movesPerHost: z.number().int().min(1).max(100).default(defaultFleetSettings.movesPerHost),
    caution: z.number().min(0).max(1000).default(defaultFleetSettings.caution),
    weights: z.record(name, z.number().min(0).max(1e6)).default({}).describe('of parts of the score, by name'),
  })
  .strict();

export const fleetSnapshot = z
  .object({
    'drover-fleet': z.literal(1).describe('version of this format'),
    takenAt: timeMs.nullable().default(null),
    hosts: z.array(snapshotHost).min(1).max(100_000),
    vms: z.array(snapshotVm).max(2_000_000),
    settings: settings.prefault({}),
  })
  .strict();
type FleetFile = z.infer<typeof fleetSnapshot>;

/** As it stands in a file or an answer of the API. */
export function toFleetFile({ version, ...snapshot }: FleetSnapshot): FleetFile {
  return {
    'drover-fleet': version,
    ...snapshot,
    hosts: snapshot.hosts.map((host) => ({ ...host, ...listsOf(host) })),
    vms: snapshot.vms.map(({ networks, pools, apart, together, pinnedTo, ...vm }) => ({
      ...vm,
      networks: [...networks],
      pools: [...pools],
      apart: [...apart],
      together: [...together],
      pinnedTo: pinnedTo && [...pinnedTo],
    })),
  };
}

function listsOf(host: FleetSnapshot['hosts'][number]): {
  machines: string[];
  networks: string[];
  pools: string[];
  cpuModels: string[] | null;
  watts: number[] | null;
} {
  const { machines, networks, pools, cpuModels, watts } = host;
  return {
    machines: [...machines],
    networks: [...networks],
    pools: [...pools],
    cpuModels: cpuModels && [...cpuModels],
    watts: watts && [...watts],
  };
}

/**
 * Reads a snapshot and checks it.
 * @param file its name, for errors
 * @throws UserError invalid-input with the place of the first thing that is wrong
 */
export function readFleetFile(text: string, file: string): FleetSnapshot {
  const parsed = fleetSnapshot.safeParse(jsonOf(text, file));
  if (!parsed.success) throw broken(file, ...firstIssue(parsed.error));
  checkNames(parsed.data, file);
  return filled(parsed.data);
}

function broken(file: string, where: string, what: string, cause?: unknown): UserError {
  return new UserError(
    'invalid-input',
    `${file}${where === '' ? '' : `, ${where}`}: ${what}.`,
    'Mend the file, or write a new one with `drover fleet export`. Its schema: docs/reference/fleet-snapshot.schema.json.',
    { cause },
  );
}

function jsonOf(text: string, file: string): unknown {
  try {
    return JSON.parse(text.replace(/^\uFEFF/, '')); // editors of Windows begin files so
  } catch (error) {
    const at = goodUntil(text);
    const lines = text.slice(0, at).split('\n');
    const place = `line ${lines.length}, column ${(lines.at(-1) ?? '').length + 1}`;
    const cutOff = at >= text.trimEnd().length;
    throw broken(file, place, cutOff ? 'it ends too early: it was cut off' : 'this is not JSON', error);
  }
}

/** How much of it could be the beginning of JSON. The parser names the place of some mistakes only. */
function goodUntil(text: string): number {
  let good = 0;
  for (let bad = text.length + 1; bad - good > 1;) {
    const middle = Math.floor((good + bad) / 2);
    if (couldGoOn(text.slice(0, middle))) good = middle;
    else bad = middle;
  }
  return good;
}

function couldGoOn(beginning: string): boolean {
  try {
    JSON.parse(beginning);
    return true;
  } catch (error) {
    const message = messageOf(error);
    const [, position] = /at position (\d+)/.exec(message) ?? [];
    return /end of JSON|Unterminated/.test(message) || Number(position ?? -1) >= beginning.length;
  }
}

function firstIssue(error: z.ZodError): [where: string, what: string] {
  const [issue] = error.issues;
  if (issue === undefined) return ['', 'it is not as it should be'];
  const where = issue.path.reduce<string>(
    (path, part) =>
      typeof part === 'number' ? `${path}[${part}]` : path === '' ? String(part) : `${path}.${String(part)}`,
    '',
  );
  const missing = issue.code === 'invalid_type' && /received undefined/.test(issue.message);
  return [where, missing ? 'it is missing' : issue.message.replace(/^Invalid input: /, '').replace(/\.$/, '')];
}

/** Each name once, and each host that a VM names is there. */
function checkNames({ hosts, vms }: FleetFile, file: string): void {
  const known = new Map<string, number>();
  hosts.forEach((host, i) => {
    const before = known.get(host.name);
    if (before !== undefined) throw broken(file, `hosts[${i}]`, `'${host.name}' is hosts[${before}] already`);
    known.set(host.name, i);
    if (host.reservedMiB > host.memoryMiB) throw broken(file, `hosts[${i}].reservedMiB`, 'it is more than memoryMiB');
  });
  const unknown = (where: string, host: string): UserError => {
    const meant = didYouMean(host, [...known.keys()]);
    return broken(file, where, `'${host}' is no host of this fleet${meant === undefined ? '' : `; '${meant}' is`}`);
  };
  const seen = new Map<string, number>();
  vms.forEach((vm, i) => {
    const before = seen.get(vm.name);
    const first = before === undefined ? undefined : vms[before];
    if (first !== undefined) {
      const twice = `'${vm.name}' is vms[${before}] already`;
      throw broken(
        file,
        `vms[${i}]`,
        first.host === vm.host ? twice : `${twice}: on ${first.host} there, on ${vm.host} here`,
      );
    }
    seen.set(vm.name, i);
    if (!known.has(vm.host)) throw unknown(`vms[${i}].host`, vm.host);
    vm.pinnedTo?.forEach((host, p) => {
      if (!known.has(host)) throw unknown(`vms[${i}].pinnedTo[${p}]`, host);
    });
  });
}

/** What was left out because it goes without saying. */
function filled({ 'drover-fleet': version, hosts, vms, ...rest }: FleetFile): FleetSnapshot {
  const every = (of: (vm: FleetFile['vms'][number]) => string[]): string[] => [...new Set(vms.flatMap(of))];
  const machines = every((vm) => [vm.machine]);
  const networks = every((vm) => vm.networks);
  const pools = every((vm) => vm.pools);
  return {
    version,
    ...rest,
    hosts: hosts.map((host) => ({
      ...host,
      machines: host.machines ?? machines,
      networks: host.networks ?? networks,
      pools: host.pools ?? pools,
    })),
    vms: vms.map((vm) => ({
      ...vm,
      memoryInUseMiB: vm.memoryInUseMiB ?? vm.memoryMiB,
      load: { ...vm.load, memoryMiB: vm.load.memoryMiB ?? vm.memoryMiB },
    })),
  };
}
