/** Two questions about small fleets answered exactly, as mixed-integer programs for HiGHS: what a plan could be at best. */
import highs from 'highs';
import type { FleetSnapshot, SnapshotHost } from '../../src/model/fleet-snapshot.ts';

export interface Exact {
  readonly value: number;
  /** False: the best found in time, no better one was ruled out. */
  readonly proven: boolean;
}

/** The smallest possible peak of CPU load over cores, reached by so many moves at most. */
export function leastPeak(fleet: FleetSnapshot, moves: number, seconds: number): Promise<Exact> {
  const stay = fleet.vms.map((vm, v) => x(v, hostOf(fleet, vm.host)));
  const rows = [
    ...placed(fleet),
    ...fleet.hosts.map((host, h) => `${loads(fleet, h)} - ${number(host.cpus * host.cpuSpeed)} z <= 0`),
    ...room(fleet, () => null),
    `${stay.join(' + ')} >= ${fleet.vms.length - moves}`,
  ];
  return solve('z', rows, binaries(fleet), seconds);
}

/** The fewest hosts that can hold all VMs within the load limit. */
export function fewestHosts(fleet: FleetSnapshot, seconds: number): Promise<Exact> {
  const used = fleet.hosts.map((_, h) => `y${h}`);
  const limit = (host: SnapshotHost): number => host.cpus * host.cpuSpeed * fleet.settings.cpuLimit;
  const rows = [
    ...placed(fleet),
    ...fleet.hosts.map((host, h) => `${loads(fleet, h)} - ${number(limit(host))} y${h} <= 0`),
    ...room(fleet, (h) => `y${h}`),
  ];
  return solve(used.join(' + '), rows, [...binaries(fleet), ...used], seconds);
}

async function solve(
  objective: string,
  rows: readonly string[],
  whole: readonly string[],
  seconds: number,
): Promise<Exact> {
  // The cast: its types say CommonJS with a default export, Node gives that export itself.
  const solver = await (highs as unknown as typeof highs.default)();
  const constraints = rows.map((row, i) => ` c${i}: ${wrapped(row)}`).join('\n');
  const text = `Minimize\n obj: ${wrapped(objective)}\nSubject To\n${constraints}\nBinary\n ${wrapped(whole.join(' '))}\nEnd\n`;
  const { Status, ObjectiveValue } = solver.solve(text, { time_limit: seconds, mip_rel_gap: 0 });
  if (Status !== 'Optimal' && Status !== 'Time limit reached') throw new Error(`HiGHS says ${Status}`);
  return { value: ObjectiveValue, proven: Status === 'Optimal' };
}

/** Readers of the format take lines of some hundred characters only. */
function wrapped(text: string): string {
  return text.replaceAll(/(.{60,}?) /g, '$1\n  ');
}

const x = (vm: number, host: number): string => `x${vm}_${host}`;
const number = (value: number): string => value.toFixed(6);

function hostOf({ hosts }: FleetSnapshot, name: string): number {
  return hosts.findIndex((host) => host.name === name);
}

function binaries({ vms, hosts }: FleetSnapshot): string[] {
  return vms.flatMap((_, v) => hosts.map((__, h) => x(v, h)));
}

function placed({ vms, hosts }: FleetSnapshot): string[] {
  return vms.map((_, v) => `${hosts.map((__, h) => x(v, h)).join(' + ')} = 1`);
}

function loads({ vms }: FleetSnapshot, h: number): string {
  return vms.map(({ load }, v) => `${number(load.cpuCores)} ${x(v, h)}`).join(' + ');
}

/** @param open the variable that says whether the host is used; null: it is */
function room({ hosts, vms, settings }: FleetSnapshot, open: (h: number) => string | null): string[] {
  const groups = [...new Set(vms.flatMap(({ apart }) => apart))];
  return hosts.flatMap((host, h) => {
    const y = open(h);
    const within = (terms: string, cap: number): string =>
      y === null ? `${terms} <= ${number(cap)}` : `${terms} - ${number(cap)} ${y} <= 0`;
    const memory = vms.map(({ memoryMiB }, v) => `${memoryMiB} ${x(v, h)}`).join(' + ');
    const vcpus = vms.map(({ cpus }, v) => `${cpus} ${x(v, h)}`).join(' + ');
    return [
      within(memory, host.memoryMiB - host.reservedMiB),
      within(vcpus, host.cpus * settings.vcpuRatio),
      ...groups.map((group) =>
        within(vms.flatMap(({ apart }, v) => (apart.includes(group) ? [x(v, h)] : [])).join(' + '), 1),
      ),
    ];
  });
}
