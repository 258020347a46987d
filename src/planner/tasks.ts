/**
 * Which VM gets which task: the one whose host has most room by its real load, then the one with fewest tasks. Oldest task
 * first; one that fits nowhere now does not hold up those behind it. Pure.
 *
 * Not here: what becomes of a task then (task-life.ts), where loads come from (control/tasks.ts).
 */
import type { HostId, TaskId, VmId } from '../model/ids.ts';
import type { TaskWish } from '../model/task.ts';
import type { Assignment } from './task-life.ts';

/** What of a VM's memory tasks may have together: the rest is its own. */
const memoryShare = 0.75;
/** Loads that differ by less than this share of a host's cores are taken for alike: they are never steady. */
const roomStep = 0.1;
const rounding = 1e-9;

export interface TaskHost {
  readonly id: HostId;
  readonly name: string;
  readonly cpus: number;
  /** Cores that nobody uses, less what was given to its VMs and does not show in its load yet. */
  readonly freeCpus: number;
}

export interface TaskVm {
  readonly id: VmId;
  readonly name: string;
  readonly host: HostId;
  readonly labels: Readonly<Record<string, string>>;
  readonly cpus: number;
  readonly memoryMiB: number;
  /** Tasks at once. */
  readonly limit: number;
  /** The boot of its guest, or why it takes none now. */
  readonly ready: { readonly boot: string } | { readonly not: string };
  /** Of the tasks it has. */
  readonly has: { readonly tasks: number; readonly cpus: number; readonly memoryMiB: number };
}

export interface WaitingTask {
  readonly id: TaskId;
  readonly wish: TaskWish;
}

export interface Spread {
  readonly assignments: readonly { readonly task: TaskId; readonly to: Assignment }[];
  /** Why the others wait, by what they ask for (`alike`): a long queue asks for few different things. */
  readonly waiting: ReadonlyMap<string, string>;
}

interface Candidate {
  readonly vm: TaskVm;
  readonly boot: string;
  readonly host: TaskHost;
  has: TaskVm['has'];
}

/** @param most assignments at once; the others wait for the next turn */
export function spreadTasks(
  tasks: Iterable<WaitingTask>,
  vms: readonly TaskVm[],
  hosts: ReadonlyMap<HostId, TaskHost>,
  most = Infinity,
): Spread {
  const free = new Map([...hosts.values()].map((host) => [host.id, host.freeCpus]));
  const candidates = vms.flatMap((vm): Candidate[] => {
    const host = hosts.get(vm.host);
    return host && 'boot' in vm.ready ? [{ vm, host, boot: vm.ready.boot, has: vm.has }] : [];
  });
  const assignments: { task: TaskId; to: Assignment }[] = [];
  const waiting = new Map<string, string>();
  for (const { id, wish } of tasks) {
    if (assignments.length >= most) break;
    const asked = alike(wish);
    if (waiting.has(asked)) continue;
    const best = bestOf(candidates, wish, free);
    if (best === undefined) {
      waiting.set(asked, whyNone(vms, candidates, wish));
      continue;
    }
    const { vm, host, boot, has } = best;
    assignments.push({ task: id, to: { vm: vm.id, vmName: vm.name, host: host.id, boot, why: whyOf(best, free) } });
    best.has = { tasks: has.tasks + 1, cpus: has.cpus + wish.cpus, memoryMiB: has.memoryMiB + wish.memoryMiB };
    free.set(host.id, (free.get(host.id) ?? 0) - wish.cpus);
  }
  return { assignments, waiting };
}

const keys = new WeakMap<TaskWish, string>();

/** The same for tasks that can be given to the same VMs. */
export function alike(wish: TaskWish): string {
  const known = keys.get(wish);
  if (known !== undefined) return known;
  const labels = Object.entries(wish.selector).toSorted(([a], [b]) => (a < b ? -1 : 1));
  const key = JSON.stringify([wish.cpus, wish.memoryMiB, labels]);
  keys.set(wish, key);
  return key;
}

/** Undefined: nowhere now. Ties go to the first by name, so that the same fleet gives the same answer. */
function bestOf(
  candidates: readonly Candidate[],
  wish: TaskWish,
  free: ReadonlyMap<HostId, number>,
): Candidate | undefined {
  const roomOf = ({ host }: Candidate) => Math.floor((free.get(host.id) ?? 0) / (host.cpus * roomStep) + rounding);
  const byRoom = (a: Candidate, b: Candidate) =>
    roomOf(b) - roomOf(a) || a.has.tasks - b.has.tasks || (a.vm.name < b.vm.name ? -1 : 1);
  let best: Candidate | undefined;
  for (const each of candidates) {
    if (!matches(each.vm, wish) || !fits(each, wish)) continue;
    if (best === undefined || byRoom(each, best) < 0) best = each;
  }
  return best;
}

function matches({ labels }: TaskVm, { selector }: TaskWish): boolean {
  return Object.entries(selector).every(([key, value]) => labels[key] === value);
}

function isLargeEnough({ limit, ...vm }: TaskVm, { cpus, memoryMiB }: TaskWish): boolean {
  return limit > 0 && cpus <= vm.cpus && memoryMiB <= vm.memoryMiB * memoryShare;
}

function fits({ vm, has }: Candidate, wish: TaskWish): boolean {
  return (
    isLargeEnough(vm, wish) &&
    has.tasks < vm.limit &&
    has.cpus + wish.cpus <= vm.cpus + rounding &&
    has.memoryMiB + wish.memoryMiB <= vm.memoryMiB * memoryShare + rounding
  );
}

/** "h2 has most room: 1.6 of 2 cores free; web3 had 1 of 4 tasks" */
function whyOf({ vm, host, has }: Candidate, free: ReadonlyMap<HostId, number>): string {
  const cores = Math.max(0, free.get(host.id) ?? 0).toFixed(1);
  const room = `${host.name} has most room: ${cores} of ${host.cpus} cores free`;
  return `${room}; ${vm.name} had ${has.tasks} of ${vm.limit} tasks`;
}

/** The first thing that stands in the way of all of them. */
function whyNone(vms: readonly TaskVm[], candidates: readonly Candidate[], wish: TaskWish): string {
  const labels = Object.entries(wish.selector).map(([key, value]) => `${key}=${value}`);
  const matching = vms.filter((vm) => matches(vm, wish));
  if (matching.length === 0) return labels.length === 0 ? 'there is no VM' : `no VM has ${labels.join(' and ')}`;
  const large = matching.filter((vm) => isLargeEnough(vm, wish));
  if (large.length === 0) {
    const needs = `${wish.cpus} CPUs and ${wish.memoryMiB} MiB for tasks (${memoryShare * 100} % of its memory)`;
    return `of ${countOf(matching)} none has ${needs}`;
  }
  const ready = candidates.filter(({ vm }) => matches(vm, wish) && isLargeEnough(vm, wish));
  if (ready.length > 0 && ready.every(({ vm, has }) => has.tasks >= vm.limit)) {
    return `all of ${countOf(ready)} have as many tasks as they take`;
  }
  if (ready.length > 0) return `of ${countOf(ready)} none has that much left beside the tasks that it has`;
  const [first] = large;
  const not = first && 'not' in first.ready ? `: ${first.name} ${first.ready.not}` : '';
  return `of ${countOf(large)} none is ready${not}`;
}

function countOf(list: readonly unknown[]): string {
  return list.length === 1 ? '1 VM' : `${list.length} VMs`;
}
