/** `drover lab status`: what of a lab is there and what it does. Gathered from what runs, not only from the state file. */
import { existsSync, readdirSync } from 'node:fs';
import { messageOf } from '../model/failure.ts';
import type { HostView, VmView } from '../wire/endpoints.ts';
import { run } from './exec.ts';
import { findNetwork } from './network.ts';
import { apiOf, directoriesOf, hostNames, labsDirectory, namesOf, readState } from './state.ts';
import { askSupervisor, type ChildStatus } from './supervise.ts';
import { openLab } from './up.ts';

export interface LabStatus {
  readonly name: string;
  readonly up: boolean;
  readonly server: string | null;
  readonly linkSpeed: string | null;
  readonly namespaces: number;
  readonly programs: readonly ChildStatus[];
  readonly hosts: readonly HostView[];
  readonly vms: readonly VmView[];
  /** What does not work, in words. */
  readonly trouble: readonly string[];
}

export async function statusOf(name: string): Promise<LabStatus> {
  const state = readState(name);
  const network = await findNetwork(name);
  const trouble: string[] = [];
  if (!state) {
    if (network.namespaces.length > 0 || network.rootLink || existsSync(directoriesOf(name).root)) {
      trouble.push(`parts of it are left: take them away with drover lab down --name ${name}`);
    }
    return {
      name,
      up: false,
      server: null,
      linkSpeed: null,
      namespaces: network.namespaces.length,
      programs: [],
      hosts: [],
      vms: [],
      trouble,
    };
  }
  const wanted = state.hosts + 2;
  if (network.namespaces.length < wanted) {
    trouble.push(
      `${wanted - network.namespaces.length} network namespaces are missing: repair with drover lab up --name ${name}`,
    );
  }
  const programs = await askSupervisor(directoriesOf(name).supervisorSocket, { do: 'status' }).catch(
    (error: unknown) => {
      trouble.push(messageOf(error));
      return undefined;
    },
  );
  if (!programs) trouble.push(`its supervisor does not run: repair with drover lab up --name ${name}`);
  for (const { name: program, state: is } of programs ?? []) {
    if (is !== 'running') trouble.push(`${program} is ${is}: mend with drover lab mend --name ${name}`);
  }
  const read = async () => {
    const { client } = openLab(name);
    return Promise.all([client.listHosts(), client.listVms()]);
  };
  const [hosts, vms] = await read().catch((error: unknown) => {
    trouble.push(messageOf(error));
    return [[], []] as [HostView[], VmView[]];
  });
  for (const host of hosts) if (host.state !== 'up') trouble.push(`${host.name} is ${host.state}`);
  const linkSpeed = await linkSpeedNow(name, state.hosts).catch(() => state.linkSpeed);
  const up = programs !== undefined && hosts.length > 0;
  return {
    name,
    up,
    server: apiOf(state),
    linkSpeed,
    namespaces: network.namespaces.length,
    programs: programs ?? [],
    hosts,
    vms,
    trouble,
  };
}

/** Names of the labs of this directory, up or half down. */
export function labNames(): string[] {
  if (!existsSync(labsDirectory)) return [];
  return readdirSync(labsDirectory, { withFileTypes: true })
    .filter((entry) => entry.isDirectory())
    .map((entry) => entry.name)
    .toSorted();
}

export function statusText(status: LabStatus): string {
  if (status.server === null) {
    const words = status.trouble.length > 0 ? status.trouble : ['start it with: drover lab up'];
    return [`lab '${status.name}' is not up`, ...words.map((word) => `  ${word}`)].join('\n');
  }
  const vmsOn = (host: string) => status.vms.filter((vm) => vm.host === host);
  const lines = [
    `lab '${status.name}' is ${status.up ? 'up' : 'not working'}: ${status.server}, migration links ${status.linkSpeed ?? '?'}`,
    ...status.programs.map(
      ({ name, state, pid, starts }) =>
        `  ${name.padEnd(8)} ${state.padEnd(8)} ${pid === null ? '' : `pid ${pid}`}${starts > 1 ? `, started ${starts} times` : ''}`,
    ),
    ...status.hosts.map((host) => {
      const vms = vmsOn(host.name).map(
        (vm) => `${vm.name} (${vm.state}${vm.address === null ? '' : `, ${vm.address}`})`,
      );
      return `  ${host.name}: ${host.usedMiB} of ${host.capacityMiB} MiB, ${vms.length === 0 ? 'no VMs' : vms.join(', ')}`;
    }),
    ...status.trouble.map((word) => `  trouble: ${word}`),
  ];
  return lines.join('\n');
}

async function linkSpeedNow(name: string, hosts: number): Promise<string> {
  const speeds = await Promise.all(
    hostNames(hosts).map(async (host) => {
      const text = await run('tc', ['-n', namesOf(name).host(host), 'qdisc', 'show', 'dev', 'mig0']);
      return /rate (\w+)/.exec(text)?.[1] ?? 'raw';
    }),
  );
  return [...new Set(speeds)].join(', ');
}
