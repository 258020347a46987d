/**
 * Which orders are due, worked out from the records alone: nothing else remembers what was ordered, so a server that was
 * killed knows it again, and an order that got lost is simply still due. Pure.
 *
 * Not here: stamping and sending (agents.ts).
 */
import type { HostId, MigrationId, VmId } from '../model/ids.ts';
import type { Migration } from '../model/migration.ts';
import { openAttempt, taskOutputLimitBytes, type TaskRecord } from '../model/task.ts';
import type { VmRecord } from '../model/vm.ts';
import { outstanding } from '../migration/step.ts';
import { mayUsePostCopy } from '../migration/techniques.ts';
import type { KnownVm, MoveJob, Order, OrderStamp, TaskJob } from '../wire/agent.ts';
import type { Fleet } from './fleet.ts';

type Unstamped<O> = O extends Order ? Omit<O, keyof OrderStamp> : never;
export type OrderBody = Unstamped<Order>;

/** An order that is due, without the stamp it gets when it is sent. */
export interface DueOrder {
  readonly host: HostId;
  readonly vm: VmId;
  readonly generation: number;
  readonly body: OrderBody;
  /** By the server's clock: after this moment it must not be begun any more. Null: the ordinary expiry. */
  readonly notAfter: number | null;
}

/** How long a host may take to begin what a move needs of it. */
export const answerWithinMs = 20_000;

export function vmOrders(vm: VmRecord): DueOrder[] {
  const due = (body: OrderBody): DueOrder[] => [
    { host: vm.host, vm: vm.id, generation: vm.generation, body, notAfter: null },
  ];
  switch (vm.state.kind) {
    case 'creating':
      return due({ kind: 'provision', provision: vm.provision });
    case 'starting':
      return due({ kind: 'start', name: vm.name, spec: vm.spec, running: null });
    case 'stopping':
      return due({ kind: 'stop', force: vm.state.force, timeoutMs: vm.state.timeoutMs });
    case 'deleting':
      return due({ kind: 'remove', provision: vm.provision, disks: vm.state.disks });
    case 'stopped':
    case 'waiting':
    case 'running':
    case 'crashed':
      return [];
  }
}

/** Tells the VM's host that its guest is the right one, at the newest generation. */
export function keepOrder(vm: VmRecord): DueOrder {
  return { host: vm.host, vm: vm.id, generation: vm.generation, body: { kind: 'keep' }, notAfter: null };
}

/** Tells a host that a VM of its journal was deleted: its files are no matter of this host any more. */
export function forgetOrder(host: HostId, { vm, generation }: Pick<KnownVm, 'vm' | 'generation'>): DueOrder {
  return { host, vm, generation, body: { kind: 'remove', provision: [], disks: 'keep' }, notAfter: null };
}

export function migrationOrders(migration: Migration, fleet: Pick<Fleet, 'hosts'>): DueOrder[] {
  const source = fleet.hosts.get(migration.source)?.inventory;
  const target = fleet.hosts.get(migration.target)?.inventory;
  if (source === undefined || target === undefined) return [];
  const job: MoveJob = {
    migration: migration.id,
    vmName: migration.vmName,
    technique: migration.technique,
    policy: migration.policy,
    running: migration.running,
    postCopy: migration.hold === undefined && mayUsePostCopy(migration.technique, migration.policy, target),
    startedAt: migration.startedAt,
    ...(migration.hold ? { hold: true as const } : {}),
  };
  return outstanding(migration).map((order): DueOrder => {
    const due = (body: OrderBody, notAfter: number | null = null): DueOrder => ({
      host: order.side === 'source' ? migration.source : migration.target,
      vm: migration.vm,
      generation: migration.generation,
      body,
      notAfter,
    });
    switch (order.kind) {
      case 'receive':
        return due({ kind: 'receive', job, sourcePeer: source.peer });
      case 'send':
        return due({
          kind: 'send',
          job,
          endpoint: order.endpoint,
          targetPeer: target.peer,
          ...(target.otherPeers && { otherPeers: target.otherPeers }),
        });
      case 'power-off':
        // A guest must not be shut down by an order that arrives after the move was given up.
        return due({ kind: 'power-off', job }, migration.phase === 'reserved' ? giveUpAt(migration) : null);
      case 'power-on':
        return due({ kind: 'power-on', job });
      case 'cancel':
      case 'switch':
      case 'go':
      case 'roll-back':
      case 'release':
        return due({ kind: order.kind, migration: migration.id });
      case 'close':
        return due({
          kind: 'close',
          migration: migration.id,
          evenIfItRan: order.ends !== 'unrun',
          ...(order.ends === 'incomplete' ? { unlessWhole: true } : {}),
        });
    }
  });
}

/** A task that a VM has is seen to by the host where that VM runs now. */
export function taskOrders(task: TaskRecord, fleet: Pick<Fleet, 'vms'>): DueOrder[] {
  const open = openAttempt(task);
  const vm = open && fleet.vms.get(open.vm);
  if (open === undefined || vm?.state.kind !== 'running') return [];
  const job: TaskJob = {
    task: task.id,
    attempt: open.number,
    boot: open.boot,
    command: task.wish.command,
    env: { DROVER_TASK: task.id, DROVER_TASK_INDEX: String(task.index), DROVER_TASK_ATTEMPT: String(open.number) },
    limitMs: task.wish.timeLimitMs,
    outputLimitBytes: taskOutputLimitBytes,
  };
  const want = task.cancelRequestedAt !== null ? 'cancel' : open.startedAt !== null ? 'watch' : 'run';
  return [
    { host: vm.host, vm: vm.id, generation: vm.generation, body: { kind: 'task', task: job, want }, notAfter: null },
  ];
}

/** When a move in its first phase is given up because a host says nothing, counted from the last proof that it went on. */
export function giveUpAt(migration: Migration): number {
  return (migration.evidence.listening?.at ?? migration.startedAt) + answerWithinMs;
}

/** Two orders with the same key ask for the same thing. */
export function orderKey(due: DueOrder): string {
  const { body } = due;
  const move: MigrationId | '' = 'job' in body ? body.job.migration : 'migration' in body ? body.migration : '';
  const task = body.kind === 'task' ? `${body.task.task}.${body.task.attempt}.${body.want}` : '';
  return [body.kind, move, due.vm, due.generation, body.kind === 'stop' && body.force, task].join('/');
}
