/**
 * Ganeti's text format (`gnt-cluster` dumps for its htools, `hbal -t`): five sections with an empty line between them: groups,
 * nodes, instances, tags, policies. Read, never written. VMs on shared storage can be moved; DRBD is refused, plain disks stay.
 *
 * Not here: what is made of it (planner/hbal-aim.ts).
 */
import { UserError } from '../model/failure.ts';
import {
  defaultFleetSettings,
  type FleetSnapshot,
  type SnapshotHost,
  type SnapshotVm,
} from '../model/fleet-snapshot.ts';
import type { GanetiTraits } from '../model/ganeti.ts';

const shared = new Set(['diskless', 'sharedfile', 'blockdev', 'rbd', 'ext', 'gluster']);
const local = new Set(['plain', 'file']);
const exclusion = 'htools:iextags:';
/** Ganeti knows no network speed: what forecasts take. */
const linkBytesPerSecond = 125_000_000;

interface Row {
  readonly line: number;
  readonly fields: readonly string[];
}

/**
 * @param text of the cluster file
 * @param util of the file for `hbal -U`; null: every VM has the load 1 in each resource, as hbal takes it
 * @param name of the file, for errors
 * @throws UserError invalid-input with file and line
 */
export function readGaneti(
  text: string,
  util: { readonly text: string; readonly name: string } | null,
  name: string,
): { snapshot: FleetSnapshot; traits: GanetiTraits } {
  const [groups = [], nodeRows = [], instanceRows = [], tags = [], policies = []] = sections(text);
  const fail = failIn(name);
  if (nodeRows.length === 0) fail(1, 'there are no nodes: the second section, after an empty line, holds them');
  if (new Set(nodeRows.map(({ fields }) => fields[8])).size > 1 || groups.length > 1) {
    fail(1, 'there is more than one node group: give one group at a time');
  }
  const located = tags.find(({ fields }) => /^htools:(nlocation|desiredlocation):/.test(fields[0] ?? ''));
  if (located) fail(located.line, 'location tags are not supported');
  const nodes = nodeRows.map((row) => nodeOf(row, fail));
  unique(nodes, 'node', fail);
  const byName = new Map(nodes.map((node) => [node.host.name, node]));
  const prefixes = tags.map(({ fields }) => fields[0] ?? '').filter((tag) => tag.startsWith(exclusion));
  const excluded = prefixes.map((tag) => `${tag.slice(exclusion.length)}:`);
  const instances = instanceRows.map((row) => instanceOf(row, byName, excluded, fail));
  unique(instances, 'instance', fail);
  const loads =
    util === null ? null : loadsOf(util.text, new Set(instances.map(({ vm }) => vm.name)), failIn(util.name));
  for (const { vm, node, usesMemory } of instances) if (usesMemory) node.guestsMiB += vm.memoryMiB;
  const [vcpuRatio, spindleRatio] = ratiosOf(policies, fail);
  const hosts = nodes.map(({ host, ownMiB, freeMiB, guestsMiB }): SnapshotHost => {
    // What is neither free nor accounted for counts as used for ever, as hbal does.
    const missing = Math.max(0, host.memoryMiB - ownMiB - guestsMiB - freeMiB);
    return { ...host, reservedMiB: ownMiB + missing };
  });
  const moreFree = nodes.filter(
    ({ host, ownMiB, freeMiB, guestsMiB }) => freeMiB + guestsMiB > host.memoryMiB - ownMiB,
  );
  const vms = instances.map(({ vm }): SnapshotVm => ({
    ...vm,
    load: loads?.get(vm.name) ?? (loads ? noLoad : unitLoad),
  }));
  return {
    snapshot: {
      version: 1,
      takenAt: null,
      hosts,
      vms,
      settings: { ...defaultFleetSettings, vcpuRatio, cpuLimit: 1000 },
    },
    traits: {
      ownVcpus: Object.fromEntries(nodes.map(({ host, ownVcpus }) => [host.name, ownVcpus])),
      forthcomingMiB: Object.fromEntries(
        moreFree.map(({ host, freeMiB, guestsMiB }) => [host.name, freeMiB + guestsMiB]),
      ),
      constant: storageSpread(nodes, instances, spindleRatio),
    },
  };
}

const unitLoad = { cpuCores: 1, memoryMiB: 1, diskBytesPerSecond: 1, netBytesPerSecond: 1 };
const noLoad = { cpuCores: 0, memoryMiB: 0, diskBytesPerSecond: 0, netBytesPerSecond: 0 };

type Fail = (line: number, what: string) => never;

function failIn(name: string): Fail {
  return (line, what) => {
    throw new UserError(
      'invalid-input',
      `${name}, line ${line}: ${what}.`,
      "It is to be a file of Ganeti's text format, as `hbal -t` reads it. drover plan --help says more.",
    );
  };
}

function sections(text: string): Row[][] {
  const found: Row[][] = [[]];
  text.split('\n').forEach((line, i) => {
    if (line === '') found.push([]);
    else found.at(-1)?.push({ line: i + 1, fields: line.split('|') });
  });
  return found;
}

function numberIn(row: Row, at: number, what: string, fail: Fail, missing?: number): number {
  const text = row.fields[at];
  if (text === undefined || text === '') {
    return missing ?? fail(row.line, `field ${at + 1} (${what}) is missing; the line may be cut off`);
  }
  const value = Number(text);
  if (!/^-?\d+(\.\d+)?$/.test(text) || Math.abs(value) > 1e12) {
    return fail(row.line, `'${text}' is no number for ${what}`);
  }
  return value < 0 ? fail(row.line, `${what} is negative: ${text}`) : value;
}

function unique(rows: readonly { readonly line: number; readonly name: string }[], what: string, fail: Fail): void {
  const seen = new Map<string, number>();
  for (const { line, name } of rows) {
    const before = seen.get(name);
    if (before !== undefined) fail(line, `the ${what} ${name} was on line ${before} already`);
    seen.set(name, line);
  }
}

interface Node {
  readonly line: number;
  readonly name: string;
  readonly host: SnapshotHost;
  readonly ownMiB: number;
  readonly freeMiB: number;
  readonly ownVcpus: number;
  readonly disk: { readonly total: number; readonly free: number };
  readonly spindles: number;
  guestsMiB: number;
}

function nodeOf(row: Row, fail: Fail): Node {
  const [name = ''] = row.fields;
  if (name === '') fail(row.line, 'the node has no name');
  const unknown = row.fields.slice(1, 7).includes('?');
  const state = row.fields[7];
  if (state !== 'Y' && state !== 'N' && state !== 'M') fail(row.line, `'${state ?? ''}' is no node state (Y, N or M)`);
  const read = (at: number, what: string, missing?: number): number =>
    unknown ? 0 : numberIn(row, at, what, fail, missing);
  const offline = unknown || state === 'Y';
  const cores = read(6, 'CPUs');
  if (!offline && cores < 1) fail(row.line, `${name} has no CPUs`);
  return {
    line: row.line,
    name,
    ownMiB: read(2, 'memory of the node itself'),
    freeMiB: read(3, 'free memory'),
    ownVcpus: read(13, 'virtual CPUs of the node itself', 1),
    disk: { total: read(4, 'disk'), free: read(5, 'free disk') },
    spindles: read(9, 'spindles', 1),
    guestsMiB: 0,
    host: {
      name,
      state: offline ? 'draining' : 'up',
      cpus: cores,
      cpuSpeed: read(14, 'CPU speed', 1),
      memoryMiB: read(1, 'memory'),
      reservedMiB: 0,
      labels: {},
      accel: 'kvm',
      cpuModels: null,
      machines: [''],
      networks: [],
      pools: [],
      poolIds: {},
      noLiveMoves: null,
      linkBytesPerSecond,
      watts: null,
    },
  };
}

interface Instance {
  readonly line: number;
  readonly name: string;
  readonly vm: SnapshotVm;
  readonly node: Node;
  readonly usesMemory: boolean;
  readonly diskMiB: number;
  /** Spindles it uses on its node; on shared storage none. */
  readonly spindleUse: number;
}

function instanceOf(row: Row, nodes: ReadonlyMap<string, Node>, excluded: readonly string[], fail: Fail): Instance {
  const [name = '', , , , state = '', , primary = '', , template = '', tags = ''] = row.fields;
  if (name === '') fail(row.line, 'the instance has no name');
  const node = nodes.get(primary) ?? fail(row.line, `${name} is on '${primary}', which is no node`);
  if (template === 'drbd') fail(row.line, `${name} uses DRBD; only VMs on shared storage can be planned`);
  if (!shared.has(template) && !local.has(template)) fail(row.line, `'${template}' is no disk template of ${name}`);
  const usesMemory = !['ADMIN_down', 'ADMIN_offline', 'ERROR_down'].includes(state);
  const memoryMiB = numberIn(row, 1, 'memory', fail);
  const cpus = numberIn(row, 3, 'virtual CPUs', fail);
  const own = tags.split(',').filter((tag) => excluded.some((prefix) => prefix !== ':' && tag.startsWith(prefix)));
  return {
    line: row.line,
    name,
    node,
    usesMemory,
    diskMiB: numberIn(row, 2, 'disk', fail),
    spindleUse: local.has(template) ? numberIn(row, 10, 'spindle use', fail, 1) : 0,
    vm: {
      name,
      host: primary,
      running: true,
      cpus: state === 'ADMIN_offline' ? 0 : cpus,
      memoryMiB: usesMemory ? memoryMiB : 0,
      memoryInUseMiB: usesMemory ? memoryMiB : 0,
      dirtyBytesPerSecond: 0,
      load: unitLoad,
      labels: {},
      machine: '',
      cpuModel: '',
      accel: null,
      networks: [],
      pools: [],
      pinnedTo: null,
      apart: own,
      together: [],
      cannotMoveLive: local.has(template) ? `its disk is the node's own (${template})` : null,
      moving: false,
      priority: 500,
      recovery: 'restart',
      lastMovedAt: null,
    },
  };
}

function loadsOf(text: string, known: ReadonlySet<string>, fail: Fail): Map<string, SnapshotVm['load']> {
  const loads = new Map<string, SnapshotVm['load']>();
  text.split('\n').forEach((words, i) => {
    if (words.trim() === '') return;
    const fields = words.trim().split(/\s+/);
    const [name = ''] = fields;
    if (!known.has(name)) fail(i + 1, `'${name}' is no instance of the cluster`);
    const value = (at: number, what: string): number => numberIn({ line: i + 1, fields }, at, what, fail);
    loads.set(name, {
      cpuCores: value(1, 'CPU load'),
      memoryMiB: value(2, 'memory load'),
      diskBytesPerSecond: value(3, 'disk load'),
      netBytesPerSecond: value(4, 'network load'),
    });
  });
  return loads;
}

function ratiosOf(policies: readonly Row[], fail: Fail): [vcpus: number, spindles: number] {
  const last = policies.at(-1);
  if (last === undefined) return [4, 32];
  return [numberIn(last, 4, 'vCPU ratio', fail, 4), numberIn(last, 5, 'spindle ratio', fail, 32)];
}

/** Spreads of free disk and of spindle use: disks on shared storage are nobody's. */
function storageSpread(nodes: readonly Node[], instances: readonly Instance[], spindleRatio: number): number {
  const online = nodes.filter(({ host }) => host.state === 'up');
  const used = new Map<Node, number>();
  for (const { node, spindleUse } of instances) used.set(node, (used.get(node) ?? 0) + spindleUse);
  const disks = online.map(({ disk }) => (disk.total === 0 ? 1 : disk.free / disk.total));
  const spindles = online.map((node) => (used.get(node) ?? 0) / Math.max(1e-9, node.spindles * spindleRatio));
  return deviation(disks) + deviation(spindles);
}

function deviation(values: readonly number[]): number {
  const mean = values.reduce((sum, x) => sum + x, 0) / Math.max(1, values.length);
  return Math.sqrt(values.reduce((sum, x) => sum + (x - mean) ** 2, 0) / Math.max(1, values.length));
}
