/**
 * May this VM leave, and may it be there? One function per rule, each with its reason in words. The search asks the same of
 * numbers (board.ts, `fits`); a property test holds the two together.
 */
import type { PlanRefusal } from '../model/plan.ts';
import type { Board } from './board.ts';
import { memoryCap, type Fleet } from './fleet.ts';

export interface Broken {
  readonly rule: string;
  readonly says: string;
}

type LeaveRule = (fleet: Fleet, vm: number) => string | null;
type HostRule = (fleet: Fleet, vm: number, host: number) => string | null;
type RoomRule = (fleet: Fleet, board: Board, vm: number, host: number) => string | null;

/** What keeps a VM where it is. */
const leaveRules = {
  moving: ({ vms }, v) => (vms[v]!.moving ? `${vms[v]!.name} is on the move already.` : null),
  'host-silent': (fleet, v) => {
    const host = fleet.hosts[fleet.at[v]!]!;
    const cut = host.state === 'silent' || host.state === 'asleep';
    return cut ? `${host.name} is ${host.state}: nothing can leave it live.` : null;
  },
  'cannot-move-live': (fleet, v) => {
    const vm = fleet.vms[v]!;
    const { noLiveMoves, name } = fleet.hosts[fleet.at[v]!]!;
    if (vm.cannotMoveLive !== null) return `${vm.name} cannot move live: ${vm.cannotMoveLive}.`;
    return noLiveMoves === null ? null : `No live move may leave ${name}: ${noLiveMoves}.`;
  },
  'moved-lately': (fleet, v) => {
    const { lastMovedAt, name } = fleet.vms[v]!;
    const { takenAt, settings } = fleet.snapshot;
    if (fleet.look.ignoreDwell || lastMovedAt === null || takenAt === null) return null;
    const left = lastMovedAt + settings.dwellMs - takenAt;
    return left > 0 ? `${name} was moved lately; it is left alone for another ${Math.ceil(left / 1000)} s.` : null;
  },
} as const satisfies Record<string, LeaveRule>;

/** What a host has to be or to have, whoever else is there. */
const hostRules = {
  'host-state': ({ hosts }, _v, h) => {
    const { name, state } = hosts[h]!;
    return state === 'up' ? null : `${name} is ${state}.`;
  },
  'cannot-move-live': ({ hosts }, _v, h) => {
    const { name, noLiveMoves } = hosts[h]!;
    return noLiveMoves === null ? null : `No live move may reach ${name}: ${noLiveMoves}.`;
  },
  pinned: ({ hosts, vms }, v, h) => {
    const { name, pinnedTo } = vms[v]!;
    if (pinnedTo === null || pinnedTo.includes(hosts[h]!.name)) return null;
    return `${name} is pinned to ${pinnedTo.join(', ') || 'no host'}.`;
  },
  accel: ({ hosts, vms }, v, h) => {
    const [vm, host] = [vms[v]!, hosts[h]!];
    return vm.accel === null || vm.accel === host.accel
      ? null
      : `${vm.name} runs under ${vm.accel}, ${host.name} offers ${host.accel}.`;
  },
  machine: ({ hosts, vms }, v, h) => {
    const [vm, host] = [vms[v]!, hosts[h]!];
    return host.machines.includes(vm.machine)
      ? null
      : `The QEMU of ${host.name} does not know the machine type ${vm.machine} of ${vm.name}.`;
  },
  'cpu-model': ({ hosts, vms }, v, h) => {
    const [vm, host] = [vms[v]!, hosts[h]!];
    return host.cpuModels === null || host.cpuModels.includes(vm.cpuModel)
      ? null
      : `${host.name} cannot run the CPU model ${vm.cpuModel} of ${vm.name}.`;
  },
  network: ({ hosts, vms }, v, h) => {
    const [vm, host] = [vms[v]!, hosts[h]!];
    const missing = vm.networks.find((network) => !host.networks.includes(network));
    return missing === undefined ? null : `${host.name} has no network '${missing}', which ${vm.name} uses.`;
  },
  pool: (fleet, v, h) => {
    const [vm, host] = [fleet.vms[v]!, fleet.hosts[h]!];
    const home = fleet.hosts[fleet.at[v]!]!;
    for (const pool of vm.pools) {
      if (!host.pools.includes(pool)) return `${host.name} has no pool '${pool}', where ${vm.name} has its disks.`;
      const [here, there] = [host.poolIds[pool], home.poolIds[pool]];
      if (here !== undefined && there !== undefined && here !== there) {
        return `The pool '${pool}' of ${host.name} is not the one where ${vm.name} has its disks.`;
      }
    }
    return null;
  },
} as const satisfies Record<string, HostRule>;

/** What depends on who else is there. */
const roomRules = {
  memory: (fleet, board, v, h) => {
    const [vm, host] = [fleet.vms[v]!, fleet.hosts[h]!];
    const free = memoryCap(fleet, host) - board.memory[h]!;
    return board.problem.vmMemory[v]! <= free
      ? null
      : `${vm.name} needs ${vm.memoryMiB} MiB, ${host.name} has ${Math.max(0, Math.floor(free))} MiB free.`;
  },
  vcpus: (fleet, board, v, h) => {
    const [vm, host] = [fleet.vms[v]!, fleet.hosts[h]!];
    const total = board.vcpus[h]! + board.problem.vmVcpus[v]!;
    return total <= board.problem.vcpuCap[h]!
      ? null
      : `With ${vm.name} ${host.name} would have ${total} virtual CPUs on ${host.cpus}, more than ${fleet.snapshot.settings.vcpuRatio} each.`;
  },
  cpu: (fleet, board, v, h) => {
    const [vm, host] = [fleet.vms[v]!, fleet.hosts[h]!];
    const total = board.cpu[h]! + board.problem.vmCpu[v]!;
    if (total <= board.problem.cpuCap[h]!) return null;
    const share = Math.round((100 * total) / (host.cpus * host.cpuSpeed));
    const limit = Math.round(100 * fleet.snapshot.settings.cpuLimit);
    return `With ${vm.name} ${host.name} would use ${share} % of its CPUs; ${limit} % is the limit.`;
  },
  apart: (fleet, board, v, h) => {
    if (!board.meetsRival(v, h)) return null;
    const vm = fleet.vms[v]!;
    const group = vm.apart.find((name) => fleet.apart.get(name)?.some((other) => other !== v && board.at[other] === h));
    const rival = fleet.apart.get(group ?? '')?.find((other) => other !== v && board.at[other] === h);
    return `${vm.name} and ${rival === undefined ? 'another' : fleet.vms[rival]!.name} of the group '${group}' are to be kept apart.`;
  },
  together: (fleet, board, v, h) => {
    if (!board.leavesCompanions(v, h)) return null;
    const { name, together } = fleet.vms[v]!;
    return `${name} is to stay together with the others of '${together.join("', '")}', none of which is on ${fleet.hosts[h]!.name}.`;
  },
} as const satisfies Record<string, RoomRule>;

function first<A extends readonly unknown[]>(
  rules: Readonly<Record<string, (...args: A) => string | null>>,
  ...args: A
): Broken | null {
  for (const [rule, ask] of Object.entries(rules)) {
    const says = ask(...args);
    if (says !== null) return { rule, says };
  }
  return null;
}

/** Why this VM has to stay where it is; null: it may leave. */
export function mayMove(fleet: Fleet, vm: number): Broken | null {
  return first(leaveRules, fleet, vm);
}

/** Why this host is not for this VM, whoever else is there; null: it is. */
export function fitsHost(fleet: Fleet, vm: number, host: number): Broken | null {
  return first(hostRules, fleet, vm, host);
}

/** Why this VM may not be on that host now; null: it may. */
export function mayBeThere(fleet: Fleet, board: Board, vm: number, host: number): Broken | null {
  return fitsHost(fleet, vm, host) ?? first(roomRules, fleet, board, vm, host);
}

/** Why no host can take the VM: each host's reason, those that many share said once. */
export function whyNowhere(fleet: Fleet, board: Board, vm: number): PlanRefusal {
  const name = fleet.vms[vm]!.name;
  const stays = mayMove(fleet, vm);
  if (stays !== null) return { vm: name, wanted: null, ...stays };
  const byRule = new Map<string, { says: string; hosts: string[] }>();
  fleet.hosts.forEach((host, h) => {
    if (h === board.at[vm]) return;
    const broken = mayBeThere(fleet, board, vm, h);
    if (broken === null) return;
    const known = byRule.get(broken.rule);
    if (known === undefined) byRule.set(broken.rule, { says: broken.says, hosts: [host.name] });
    else known.hosts.push(host.name);
  });
  const reasons = [...byRule].map(([rule, { says, hosts }]) =>
    hosts.length === 1
      ? says
      : `${says} (${rule}: ${hosts.slice(0, 5).join(', ')}${hosts.length > 5 ? `, and ${hosts.length - 5} more` : ''}.)`,
  );
  if (reasons.length === 0 && board.problem.hosts > 1) {
    return { vm: name, wanted: null, rule: 'budget', says: `${name} could go, but the budget of the plan is used up.` };
  }
  const rule = [...byRule.keys()].at(-1) ?? 'no-other-host';
  return { vm: name, wanted: null, rule, says: reasons.join(' ') || `There is no other host for ${name}.` };
}
