/** Tasks over the API. */
import { UserError } from '../../model/failure.ts';
import { openAttempt, taskState, type TaskRecord } from '../../model/task.ts';
import type { TaskView } from '../../wire/tasks.ts';
import type { Call, Handler } from '../handler.ts';
import { pageOf } from '../pages.ts';

type Plane = Pick<Call['plane'], 'fleet' | 'tasks'>;

export const createTasks: Handler<'createTasks'> = async ({ body }, { plane, request }) => {
  const { count, firstIndex, ...wish } = body;
  const tasks = await plane.tasks.create(wish, { count, firstIndex }, request);
  return tasks.map((task) => taskView(plane, task));
};

export const listTasks: Handler<'listTasks'> = ({ query }, call) => {
  const { plane } = call;
  const vm = query.vm === undefined ? undefined : plane.fleet.findVm(query.vm).id;
  const wanted = (task: TaskRecord): boolean => {
    if (query.batch !== undefined && task.batch !== query.batch) return false;
    if (vm !== undefined && !task.attempts.some((attempt) => attempt.vm === vm)) return false;
    if (query.state === 'open') return task.outcome === null;
    if (query.state === 'ended') return task.outcome !== null;
    return query.state === undefined || taskState(task) === query.state;
  };
  const tasks = [...plane.fleet.tasks.values()].toReversed().filter(wanted);
  return pageOf(call, tasks, query, ({ id }) => id, 'descending').map((task) => taskView(plane, task));
};

export const getTask: Handler<'getTask'> = ({ params }, { plane }) =>
  taskView(plane, plane.fleet.findTask(params.task));

export const cancelTask: Handler<'cancelTask'> = async ({ params }, { plane }) =>
  taskView(plane, await plane.tasks.cancel(params.task));

export const getTaskOutput: Handler<'getTaskOutput'> = ({ params }, { plane }) => {
  const task = plane.fleet.findTask(params.task);
  const output = plane.fleet.taskOutputs.get(task.id);
  if (output !== undefined) {
    const { attempt, text, truncated } = output;
    return { task: task.id, attempt, text, truncated };
  }
  const ended = task.outcome !== null;
  throw new UserError(
    ended ? 'not-found' : 'wrong-state',
    ended
      ? `No output of task ${task.id} is kept.`
      : `Task ${task.id} is ${taskState(task)}: its output comes with its end.`,
    ended ? `See how it ended: drover task show ${task.id}` : `Wait for it: drover task show ${task.id}`,
  );
};

export function taskView({ fleet, tasks }: Plane, task: TaskRecord): TaskView {
  const { wish, outcome } = task;
  const last = task.attempts.at(-1);
  return {
    id: task.id,
    batch: task.batch,
    index: task.index,
    command: [...wish.command],
    cpus: wish.cpus,
    memoryMiB: wish.memoryMiB,
    selector: { ...wish.selector },
    timeLimitMs: wish.timeLimitMs,
    retries: wish.retries,
    state: taskState(task),
    ended: outcome !== null,
    succeeded: outcome?.kind === 'succeeded',
    says: saysOf(task, tasks.whyQueued(task)),
    status: outcome?.status ?? null,
    vm: last?.vmName ?? null,
    attempts: task.attempts.map((attempt) => ({
      number: attempt.number,
      vm: attempt.vm,
      vmName: attempt.vmName,
      host: fleet.hostName(attempt.host),
      why: attempt.why,
      assignedAt: attempt.assignedAt,
      startedAt: attempt.startedAt,
      endedAt: attempt.outcome?.at ?? null,
      end: attempt.outcome?.kind ?? null,
      status: attempt.outcome?.status ?? null,
      says: attempt.outcome?.says ?? null,
    })),
    cancelRequested: task.cancelRequestedAt !== null,
    createdAt: task.createdAt,
    endedAt: outcome?.at ?? null,
  };
}

/** "task_... running on web3: h2 has most room: ..." */
export function taskSays(task: TaskRecord): string {
  const open = openAttempt(task);
  const where = open === undefined ? '' : ` to ${open.vmName}: ${open.why}`;
  if (task.outcome !== null) return `${task.id} ${task.outcome.kind}: ${task.outcome.says}`;
  if (open?.startedAt !== null && open !== undefined) return `${task.id} runs on ${open.vmName}`;
  return open === undefined ? `${task.id} queued` : `${task.id} given${where}`;
}

function saysOf(task: TaskRecord, whyQueued: string | null): string {
  const open = openAttempt(task);
  if (task.outcome !== null) return task.outcome.says;
  if (open !== undefined) return `${open.startedAt === null ? 'given to' : 'runs on'} ${open.vmName}`;
  const before = task.attempts.at(-1)?.outcome;
  return `${before ? `attempt ${task.attempts.length}: ${before.says}; ` : ''}waits: ${whyQueued ?? 'it is looked at next'}`;
}
