/**
 * A task: a command that runs inside one of the fleet's VMs, once. Its record says what was decided and what is proven; what
 * runs is known by the guest itself, which keeps each attempt's claim, output and end.
 *
 * Not here: which VM gets it (planner/tasks.ts), what follows from what is learnt (planner/task-life.ts).
 */
import type { HostId, TaskId, VmId } from './ids.ts';

export const taskOutputLimitBytes = 64 * 1024;
export const taskDefaults = { cpus: 1, memoryMiB: 64, timeLimitMs: 3_600_000, retries: 0 } as const;
/** Tasks at once in a VM that does not say otherwise. */
export const tasksPerVm = 4;
/** A VM says by this label how many tasks it takes at once; "0": none. */
export const tasksLabel = 'drover.tasks';

export interface TaskWish {
  readonly command: readonly string[];
  /** What it needs of the VM: may be a fraction. */
  readonly cpus: number;
  readonly memoryMiB: number;
  /** Only VMs with all of these labels. */
  readonly selector: Readonly<Record<string, string>>;
  readonly timeLimitMs: number;
  /** Further attempts after one that did not succeed. 0: it is never run twice, whatever became of it. */
  readonly retries: number;
}

/**
 * - `failed`: it ended by itself with a status other than 0
 * - `interrupted`: its guest went down or away from under it; how far it came is not known
 * - `refused`: the guest could not begin it, and did not
 * - `unheard`: its guest said nothing of it until long after its time; it may run still
 */
export const taskEnds = ['succeeded', 'failed', 'timed-out', 'cancelled', 'interrupted', 'refused', 'unheard'] as const;
export type TaskEnd = (typeof taskEnds)[number];

export interface TaskOutcome {
  readonly kind: TaskEnd;
  readonly at: number;
  /** Exit status, where it has one; above 128: by the signal of that number less 128. */
  readonly status: number | null;
  readonly says: string;
}

export interface TaskAttempt {
  /** 1 is the first. */
  readonly number: number;
  readonly vm: VmId;
  readonly vmName: string;
  /** Where the VM ran then. */
  readonly host: HostId;
  /** Names the boot of the guest in which it may run, and in no other. */
  readonly boot: string;
  /** Why this VM. */
  readonly why: string;
  readonly assignedAt: number;
  /** Seen to run. A short one may end unseen. */
  readonly startedAt: number | null;
  readonly outcome: TaskOutcome | null;
}

export interface TaskRecord {
  readonly schema: 1;
  readonly id: TaskId;
  /** The first of those that were asked for together. */
  readonly batch: TaskId;
  /** Its place among them, from 0. */
  readonly index: number;
  readonly wish: TaskWish;
  readonly createdAt: number;
  readonly cancelRequestedAt: number | null;
  /** The last one may be open; no other is. */
  readonly attempts: readonly TaskAttempt[];
  /** Of the task as a whole; null: it is queued or runs. */
  readonly outcome: TaskOutcome | null;
}

/** What the last attempt wrote, apart from the record because it is large. */
export interface TaskOutputRecord {
  readonly schema: 1;
  readonly task: TaskId;
  readonly attempt: number;
  readonly text: string;
  readonly truncated: boolean;
}

/** What an agent learnt of an attempt from the guest's own files. */
export type TaskFact = { readonly task: TaskId; readonly attempt: number; readonly at: number } & (
  | { readonly kind: 'task-started' }
  | {
      readonly kind: 'task-ended';
      /** `never-ran`: cancelled before it began; `other-boot`, `vanished`: its end is not known; `refused`: never begun. */
      readonly how: 'exited' | 'timed-out' | 'cancelled' | 'never-ran' | 'other-boot' | 'vanished' | 'refused';
      readonly status: number | null;
      readonly output: string;
      readonly truncated: boolean;
      readonly says: string;
    }
);

export function openAttempt(task: TaskRecord): TaskAttempt | undefined {
  const last = task.attempts.at(-1);
  return last?.outcome === null ? last : undefined;
}

export function taskState(task: TaskRecord): 'queued' | 'assigned' | 'running' | TaskEnd {
  if (task.outcome !== null) return task.outcome.kind;
  const open = openAttempt(task);
  return open === undefined ? 'queued' : open.startedAt === null ? 'assigned' : 'running';
}

/** The name under which a guest keeps an attempt. */
export function taskClaim(task: TaskId, attempt: number): string {
  return `${task}.${attempt}`;
}
