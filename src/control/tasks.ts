/**
 * Tasks: asked for, given to VMs, followed to their end. Once a second, and whenever a task is asked for or ends, the queue is
 * spread over the VMs that can take some; each assignment is on record, with its reason, before anything is ordered.
 *
 *   queued -> assigned (a VM, a boot of its guest) -> running -> ended      interrupted and friends: queued again, with --retry
 *
 * The guest decides whether an attempt runs, once (hypervisor/qemu/guest-tasks.ts); nothing here is ever taken for a proof that
 * one did not. Not here: which VM (planner/tasks.ts), what follows from a fact (planner/task-life.ts), orders (orders.ts).
 */
import { UserError } from '../model/failure.ts';
import { newId, type HostId, type TaskId, type VmId } from '../model/ids.ts';
import {
  openAttempt,
  taskOutputLimitBytes,
  tasksLabel,
  tasksPerVm,
  type TaskFact,
  type TaskRecord,
  type TaskWish,
} from '../model/task.ts';
import type { VmRecord } from '../model/vm.ts';
import { afterFact, assigned, cancelled, doubtful, interrupted, newTask, unheard } from '../planner/task-life.ts';
import { alike, spreadTasks, type TaskHost, type TaskVm } from '../planner/tasks.ts';
import type { Clock } from '../runtime/clock.ts';
import type { Log } from '../runtime/log.ts';
import type { Random } from '../runtime/random.ts';
import type { FromAgent } from '../wire/agent.ts';
import type { Draft, Fleet } from './fleet.ts';
import type { Health } from './health.ts';
import type { Liveness } from './liveness.ts';
import { doneBefore, noteRequest, type RequestKey } from './requests.ts';

/** Ended tasks that are kept. */
const historyLimit = 5_000;
/** Of the outputs of ended tasks; the oldest go first. */
const outputsLimitBytes = 64 * 1024 * 1024;
/** Queued and given to VMs. */
const openLimit = 20_000;
/** With the longest commands and the most attempts a record has some 20 KiB; a commit takes 1 MiB. */
const assignmentsPerCommit = 32;
const forgottenPerTick = 50;
/** What was given to a VM less long ago does not show in its host's load yet. */
const showsAfterMs = 5_000;
/** Weight of the newest report in a host's load. */
const newest = 0.3;

interface Parts {
  readonly fleet: Fleet;
  readonly liveness: Liveness;
  readonly health: Health;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  /** Why the records are not to be trusted yet; null: they are. */
  readonly held: () => string | null;
}

interface Ready {
  readonly host: HostId;
  readonly boot: string;
}

export class Tasks {
  readonly #parts: Parts;
  readonly #fleet: Fleet;
  readonly #ready = new Map<VmId, Ready>();
  /** Share of its cores that each host uses, smoothed. */
  readonly #cpu = new Map<HostId, number>();
  /** Why tasks wait, by what they ask for. */
  #waiting: ReadonlyMap<string, string> = new Map();
  #isSpreading = false;
  #spreadAgain = false;

  constructor(parts: Parts) {
    this.#parts = parts;
    this.#fleet = parts.fleet;
    parts.fleet.onCommit((changes) => {
      // Its next guest is another one, whatever its host says until it has looked.
      for (const { kind, after } of changes) {
        if (kind === 'vm' && after !== undefined && after.state.kind !== 'running') this.#ready.delete(after.id);
      }
      const news = changes.some(
        ({ kind, after }) => kind === 'task' && after !== undefined && openAttempt(after) === undefined,
      );
      if (news) this.#spreadSoon();
    });
  }

  /** @throws UserError busy; already-exists for a key that was used for something else */
  async create(
    wish: TaskWish,
    { count, firstIndex }: { readonly count: number; readonly firstIndex: number },
    request: RequestKey | null,
  ): Promise<TaskRecord[]> {
    const { clock, random } = this.#parts;
    return this.#fleet.change((draft) => {
      const before = doneBefore(this.#fleet, request);
      if (before !== undefined) return this.batch(before);
      const open = this.#fleet.openTaskCount;
      if (open + count > openLimit) {
        throw new UserError(
          'busy',
          `${open} tasks are queued or running; ${openLimit} are the most.`,
          'Wait until some have ended, or cancel some: drover task list --state queued.',
        );
      }
      const at = clock.now();
      // In the order in which they were asked for, also where the clock stands still.
      const ids = Array.from({ length: count }, () => newId('task', at, random.bytes(8))).toSorted();
      const [batch] = ids;
      if (batch === undefined) return [];
      const tasks = ids.map((id, number) => newTask(id, batch, firstIndex + number, wish, at));
      for (const task of tasks) draft.putTask(task);
      noteRequest(draft, request, batch, at);
      return tasks;
    });
  }

  batch(id: string): TaskRecord[] {
    return [...this.#fleet.tasks.values()].filter(({ batch }) => batch === id);
  }

  /** @throws UserError not-found, wrong-state */
  async cancel(ref: string): Promise<TaskRecord> {
    const { id } = this.#fleet.findTask(ref);
    return this.#fleet.change((draft) => {
      const task = draft.task(id);
      if (task === undefined || task.outcome !== null) {
        throw new UserError(
          'wrong-state',
          `Task ${id} has ended already: ${task?.outcome?.says ?? 'it is not kept any more'}.`,
          'Nothing is left to cancel.',
        );
      }
      const after = cancelled(task, this.#parts.clock.now());
      if (after !== task) draft.putTask(after);
      return after;
    });
  }

  /** Why a task is queued still; null: it is not. */
  whyQueued(task: TaskRecord): string | null {
    if (task.outcome !== null || openAttempt(task) !== undefined) return null;
    return this.#parts.held() ?? this.#waiting.get(alike(task.wish)) ?? 'it is looked at next';
  }

  /** Resolves when the fact is on record, or is known to change nothing. */
  async onFact(host: HostId, fact: TaskFact): Promise<void> {
    const { liveness, log } = this.#parts;
    const at = fact.at - liveness.offsetMs(host);
    await this.#fleet.change((draft) => {
      const task = draft.task(fact.task);
      const after = task && afterFact(task, fact, at);
      if (after === undefined || after === task) {
        log.debug({ task: fact.task, host, kind: fact.kind }, 'a fact about no attempt that is open');
        return;
      }
      draft.putTask(after);
      if (fact.kind !== 'task-ended') return;
      const text = fact.output.slice(0, taskOutputLimitBytes);
      draft.putTaskOutput({ schema: 1, task: fact.task, attempt: fact.attempt, text, truncated: fact.truncated });
    });
  }

  onReport(host: HostId, { load, ready }: Extract<FromAgent, { type: 'report' }>): void {
    const before = this.#cpu.get(host);
    this.#cpu.set(host, before === undefined ? load.cpu : before + newest * (load.cpu - before));
    const now = new Map(ready.map(({ vm, boot }) => [vm, boot]));
    for (const [vm, { host: where }] of this.#ready) if (where === host && !now.has(vm)) this.#ready.delete(vm);
    let isNew = false;
    for (const [vm, boot] of now) {
      if (this.#fleet.vms.get(vm)?.host !== host) continue;
      isNew ||= this.#ready.get(vm)?.boot !== boot;
      this.#ready.set(vm, { host, boot });
    }
    if (isNew) this.#spreadSoon();
  }

  /** Once a second. */
  async tick(): Promise<void> {
    if (this.#parts.held() !== null) return;
    await this.#endLost();
    await this.spread();
    await this.#forget();
  }

  /** Gives queued tasks to VMs, as many as they take. */
  async spread(): Promise<void> {
    if (this.#parts.held() !== null) return;
    while (this.#fleet.hasQueuedTasks) {
      if (await this.#doubtOlder()) continue;
      const given = await this.#fleet.change((draft) => {
        const { vms, hosts } = this.#snapshot();
        const { assignments, waiting } = spreadTasks(this.#fleet.queuedTasks(), vms, hosts, assignmentsPerCommit);
        const at = this.#parts.clock.now();
        for (const { task: id, to } of assignments) {
          const task = draft.task(id);
          if (task) draft.putTask(assigned(task, to, at));
        }
        this.#waiting = waiting;
        return assignments.length;
      });
      if (given < assignmentsPerCommit) return;
    }
  }

  /** Not in the middle of a commit's listeners, and once for all that asked meanwhile. */
  #spreadSoon(): void {
    this.#spreadAgain = true;
    if (!this.#isSpreading) void this.#spreadWhileAsked();
  }

  async #spreadWhileAsked(): Promise<void> {
    this.#isSpreading = true;
    while (this.#spreadAgain) {
      this.#spreadAgain = false;
      await this.spread().catch((error: unknown) =>
        this.#parts.log.info({ error }, 'tasks were not spread; the next beat tries again'),
      );
    }
    this.#isSpreading = false;
  }

  #snapshot(): { vms: TaskVm[]; hosts: Map<HostId, TaskHost> } {
    const now = this.#parts.clock.now();
    const has = new Map<VmId, { tasks: number; cpus: number; memoryMiB: number }>();
    const unseenCpus = new Map<HostId, number>();
    for (const { wish, attempts } of this.#fleet.givenTasks()) {
      const last = attempts.at(-1);
      const vm = last && this.#fleet.vms.get(last.vm);
      if (last === undefined || vm === undefined) continue;
      const { tasks, cpus, memoryMiB } = has.get(vm.id) ?? { tasks: 0, cpus: 0, memoryMiB: 0 };
      has.set(vm.id, { tasks: tasks + 1, cpus: cpus + wish.cpus, memoryMiB: memoryMiB + wish.memoryMiB });
      if (last.assignedAt > now - showsAfterMs) {
        unseenCpus.set(vm.host, (unseenCpus.get(vm.host) ?? 0) + wish.cpus);
      }
    }
    const hosts = new Map<HostId, TaskHost>();
    for (const { id, name, inventory } of this.#fleet.hosts.values()) {
      const free = inventory.cpus * (1 - (this.#cpu.get(id) ?? 0)) - (unseenCpus.get(id) ?? 0);
      hosts.set(id, { id, name, cpus: inventory.cpus, freeCpus: free });
    }
    const vms = [...this.#fleet.vms.values()].map((vm): TaskVm => ({
      id: vm.id,
      name: vm.name,
      host: vm.host,
      labels: vm.labels,
      cpus: vm.spec.cpus,
      memoryMiB: vm.spec.memoryMiB,
      limit: limitOf(vm),
      ready: this.#readiness(vm),
      has: has.get(vm.id) ?? { tasks: 0, cpus: 0, memoryMiB: 0 },
    }));
    return { vms, hosts };
  }

  #readiness(vm: VmRecord): TaskVm['ready'] {
    const { liveness, health } = this.#parts;
    const host = this.#fleet.hosts.get(vm.host);
    if (vm.state.kind !== 'running') return { not: `is ${vm.state.kind}` };
    if (host === undefined || liveness.isSilent(host.id)) return { not: 'runs on a host that is silent' };
    if (health.sicknessOf(host)?.severity === 'failing') return { not: `runs on ${host.name}, which is failing` };
    const migration = vm.migration === null ? undefined : this.#fleet.migrations.get(vm.migration);
    if (migration?.technique === 'cold') return { not: 'is being moved cold' };
    const ready = this.#ready.get(vm.id);
    // One that has just arrived is asked by its new host first.
    if (ready?.host !== vm.host) return { not: 'has no guest agent that answers (docs/guide/tasks.md)' };
    return { boot: ready.boot };
  }

  /** Tasks whose guest is gone for certain, and those that were not heard of for too long. */
  async #endLost(): Promise<void> {
    const now = this.#parts.clock.now();
    const after = (task: TaskRecord): TaskRecord => {
      const why = this.#lost(task);
      return why === null ? unheard(task, now) : interrupted(task, why, now);
    };
    const over = this.#fleet.givenTasks().filter((task) => after(task) !== task);
    for (let from = 0; from < over.length; from += assignmentsPerCommit) {
      await this.#fleet.change((draft) => {
        for (const { id } of over.slice(from, from + assignmentsPerCommit)) {
          const task = draft.task(id);
          const next = task && after(task);
          if (next && next !== task) draft.putTask(next);
        }
      });
    }
  }

  /** A VM that does not run any more has taken its tasks with it. One that runs is asked itself: by its boot. */
  #lost(task: TaskRecord): string | null {
    const open = openAttempt(task);
    if (open === undefined) return null;
    const state = this.#fleet.vms.get(open.vm)?.state.kind;
    switch (state) {
      case undefined:
      case 'deleting':
        return `${open.vmName} was deleted; how far it came is not known`;
      case 'stopped':
      case 'crashed':
        return `${open.vmName} is ${state}; how far it came is not known`;
      case 'waiting':
      case 'starting':
      case 'creating':
        return `${open.vmName} went down; how far it came is not known`;
      case 'running':
      case 'stopping':
        return null;
    }
  }

  /**
   * Records that went back in time say "queued" of tasks that may have run since: those are over. With --retry they may run
   * again. @returns whether there were any
   */
  async #doubtOlder(): Promise<boolean> {
    const { restored } = this.#fleet;
    if (restored === undefined) return false;
    const older = this.#fleet
      .queuedTasks()
      .filter(({ createdAt, wish, attempts }) => createdAt < restored.at && attempts.length >= wish.retries)
      .slice(0, assignmentsPerCommit);
    if (older.length === 0) return false;
    const says = `the records went back in time (${restored.because}); whether it ran is not known`;
    await this.#fleet.change((draft) => {
      for (const { id } of older) {
        const task = draft.task(id);
        if (task) draft.putTask(doubtful(task, says, this.#parts.clock.now()));
      }
    });
    return true;
  }

  async #forget(): Promise<void> {
    const { tasks, taskOutputs } = this.#fleet;
    const excess = Math.min(tasks.size - historyLimit, forgottenPerTick);
    const oldest = excess <= 0 ? [] : [...tasks.values()].filter(({ outcome }) => outcome !== null).slice(0, excess);
    let keptBytes = 0;
    for (const { text } of taskOutputs.values()) keptBytes += text.length;
    const outputs: TaskId[] = [];
    for (const [id, { text }] of taskOutputs) {
      if (keptBytes <= outputsLimitBytes || outputs.length >= forgottenPerTick) break;
      keptBytes -= text.length;
      outputs.push(id);
    }
    if (oldest.length + outputs.length === 0) return;
    await this.#fleet.change((draft: Draft) => {
      for (const { id } of oldest) draft.removeTask(id);
      for (const id of outputs) draft.removeTaskOutput(id);
    });
  }
}

/** A label that is no number says nothing. */
function limitOf({ labels }: VmRecord): number {
  const said = labels[tasksLabel];
  return said !== undefined && /^\d{1,4}$/.test(said) ? Number(said) : tasksPerVm;
}
