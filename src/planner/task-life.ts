/**
 * What becomes of a task by what is decided and what is learnt of it. An attempt ends once, by the first proof of its end; a
 * task ends with its last attempt. Pure: each function gives the record after, or the same one when nothing follows.
 */
import type { HostId, TaskId, VmId } from '../model/ids.ts';
import {
  openAttempt,
  type TaskAttempt,
  type TaskFact,
  type TaskOutcome,
  type TaskRecord,
  type TaskWish,
} from '../model/task.ts';

/** How long after its own time limit a task may stay unheard of. */
export const unheardAfterMs = 60_000;

export interface Assignment {
  readonly vm: VmId;
  readonly vmName: string;
  readonly host: HostId;
  readonly boot: string;
  readonly why: string;
}

export function newTask(id: TaskId, batch: TaskId, index: number, wish: TaskWish, at: number): TaskRecord {
  return { schema: 1, id, batch, index, wish, createdAt: at, cancelRequestedAt: null, attempts: [], outcome: null };
}

/** Only a queued task is assigned: a new attempt begins. */
export function assigned(task: TaskRecord, to: Assignment, at: number): TaskRecord {
  if (task.outcome !== null || openAttempt(task) !== undefined) return task;
  const attempt = { ...to, number: task.attempts.length + 1, assignedAt: at, startedAt: null, outcome: null };
  return { ...task, attempts: [...task.attempts, attempt] };
}

/** @param at of the fact, by the server's clock */
export function afterFact(task: TaskRecord, fact: TaskFact, at: number): TaskRecord {
  const open = openAttempt(task);
  if (open?.number !== fact.attempt) return task; // it has ended before, whatever is heard of it now
  if (fact.kind === 'task-started') {
    return open.startedAt === null ? withLast(task, { ...open, startedAt: at }) : task;
  }
  return ended(task, outcomeOf(task, open, fact, at));
}

/** Its VM is gone from under it, or was started anew: that is known without asking the guest. */
export function interrupted(task: TaskRecord, says: string, at: number): TaskRecord {
  return ended(task, { kind: 'interrupted', at, status: null, says });
}

/** Ends an attempt whose guest has said nothing until long after its time; the same record while there is time. */
export function unheard(task: TaskRecord, now: number): TaskRecord {
  const open = openAttempt(task);
  if (open === undefined || now < open.assignedAt + task.wish.timeLimitMs + unheardAfterMs) return task;
  const says = `nothing was heard of it from ${open.vmName} within its time; it may run there still`;
  return ended(task, { kind: 'unheard', at: now, status: null, says });
}

/** One that is queued is over at once; one that was given to a VM is when its guest says so. */
export function cancelled(task: TaskRecord, at: number): TaskRecord {
  if (task.outcome !== null || task.cancelRequestedAt !== null) return task;
  const asked = { ...task, cancelRequestedAt: at };
  if (openAttempt(task) !== undefined) return asked;
  return { ...asked, outcome: { kind: 'cancelled', at, status: null, says: 'cancelled while it was queued' } };
}

/** A queued task whose record went back in time: it may have been run since, so it is not run now. */
export function doubtful(task: TaskRecord, says: string, at: number): TaskRecord {
  if (task.outcome !== null || openAttempt(task) !== undefined) return task;
  return { ...task, outcome: { kind: 'interrupted', at, status: null, says } };
}

function ended(task: TaskRecord, outcome: TaskOutcome): TaskRecord {
  const open = openAttempt(task);
  if (open === undefined) return task;
  const after = withLast(task, { ...open, outcome });
  const final = outcome.kind === 'succeeded' || outcome.kind === 'cancelled' || task.cancelRequestedAt !== null;
  return final || open.number > task.wish.retries ? { ...after, outcome } : after;
}

function withLast(task: TaskRecord, attempt: TaskAttempt): TaskRecord {
  return { ...task, attempts: [...task.attempts.slice(0, -1), attempt] };
}

function outcomeOf(
  { wish }: TaskRecord,
  { vmName }: TaskAttempt,
  fact: Extract<TaskFact, { kind: 'task-ended' }>,
  at: number,
): TaskOutcome {
  const { status } = fact;
  const outcome = (kind: TaskOutcome['kind'], says: string): TaskOutcome => ({ kind, at, status, says });
  switch (fact.how) {
    case 'exited':
      if (status === 0) return outcome('succeeded', `done on ${vmName}`);
      return outcome('failed', `${statusWords(status)} on ${vmName}`);
    case 'timed-out':
      return outcome(
        'timed-out',
        `not done on ${vmName} within ${Math.round(wish.timeLimitMs / 1000)} s; it was ended`,
      );
    case 'cancelled':
      return outcome('cancelled', `cancelled while it ran on ${vmName}`);
    case 'never-ran':
      return outcome('cancelled', `cancelled before it began on ${vmName}`);
    case 'other-boot':
      return outcome('interrupted', `${vmName} was restarted; how far it came is not known`);
    case 'vanished':
      return outcome('interrupted', `what watched over it in ${vmName} is gone; how far it came is not known`);
    case 'refused':
      return outcome('refused', `it was not begun: ${fact.says}`);
  }
}

function statusWords(status: number | null): string {
  if (status === null) return 'failed';
  return status > 128 ? `ended by signal ${status - 128}` : `exit status ${status}`;
}
