/** Tasks over the API: rows of the endpoint table, what a person asks for, what is shown. */
import { z } from 'zod';
import { taskDefaults, taskEnds, taskOutputLimitBytes } from '../model/task.ts';
import { after, type Endpoint } from './endpoint.ts';

/** At once, so that one request is one commit; and so large, written as JSON. */
export const tasksPerRequest = 100;
const requestBytes = 512 * 1024;
const commandBytes = 8 * 1024;
const labels = 16;
const longestMs = 7 * 86_400_000;

const timeMs = z.number().describe('ms since the epoch');
const word = z.string().regex(/^[^\0]*$/, 'must not hold a NUL');
const ref = z.string().min(1).max(100).describe('id');

export const taskBody = z
  .object({
    command: z
      .array(word)
      .min(1)
      .max(256)
      .refine((words) => words[0] !== '', 'its first word is the program')
      .refine(
        (words) => sizeOf(words) <= commandBytes,
        `is longer than ${commandBytes} bytes: put it into a file in the guest`,
      )
      .describe('the program and its arguments; no shell is put in between'),
    cpus: z.number().positive().max(64).default(taskDefaults.cpus).describe('of the VM; may be a fraction'),
    memoryMiB: z.number().int().min(1).max(4_194_304).default(taskDefaults.memoryMiB),
    selector: z
      .record(z.string().max(63), z.string().max(255))
      .refine((selector) => Object.keys(selector).length <= labels, `has more than ${labels} labels`)
      .default({})
      .describe('labels the VM must have'),
    timeLimitMs: z.number().int().min(1000).max(longestMs).default(taskDefaults.timeLimitMs),
    retries: z
      .number()
      .int()
      .min(0)
      .max(10)
      .default(taskDefaults.retries)
      .describe('further attempts after one that did not succeed; 0: it never runs twice'),
    count: z.number().int().min(1).max(tasksPerRequest).default(1).describe('that many alike'),
    firstIndex: z.number().int().min(0).max(1_000_000).default(0).describe('DROVER_TASK_INDEX of the first'),
  })
  .strict()
  .refine(({ count, command, selector }) => count * sizeOf([command, selector]) <= requestBytes, {
    path: ['count'],
    message: 'that many with so long a command are too much for one request: ask for fewer at once',
  });
export type TaskBody = z.input<typeof taskBody>;

function sizeOf(value: unknown): number {
  return new TextEncoder().encode(JSON.stringify(value)).length;
}

const states = ['queued', 'assigned', 'running', ...taskEnds] as const;

const attemptView = z.object({
  number: z.number().int(),
  vm: z.string().describe('id'),
  vmName: z.string(),
  host: z.string().describe('name of the host where the VM ran when it was given the task'),
  why: z.string().describe('why this VM'),
  assignedAt: timeMs,
  startedAt: timeMs.nullable().describe('seen to run; a short one may end unseen'),
  endedAt: timeMs.nullable(),
  end: z.enum(taskEnds).nullable(),
  status: z.number().nullable().describe('exit status; above 128: by the signal of that number less 128'),
  says: z.string().nullable(),
});

export const taskView = z.object({
  id: z.string(),
  batch: z.string().describe('the first of those asked for together'),
  index: z.number().int(),
  command: z.array(z.string()),
  cpus: z.number(),
  memoryMiB: z.number(),
  selector: z.record(z.string(), z.string()),
  timeLimitMs: z.number(),
  retries: z.number(),
  state: z.enum(states),
  ended: z.boolean(),
  succeeded: z.boolean(),
  says: z.string().describe('how it ended, where it runs, or why it waits'),
  status: z.number().nullable(),
  vm: z.string().nullable().describe('name of the VM that has or had it'),
  attempts: z.array(attemptView),
  cancelRequested: z.boolean(),
  createdAt: timeMs,
  endedAt: timeMs.nullable(),
});
export type TaskView = z.infer<typeof taskView>;

export const taskEvent = z.object({ type: z.literal('task'), at: timeMs, says: z.string(), task: taskView });

export const taskOutputView = z.object({
  task: z.string(),
  attempt: z.number().int(),
  text: z.string().describe(`both streams as they came, the first ${taskOutputLimitBytes} bytes`),
  truncated: z.boolean(),
});

const taskParams = z.object({ task: ref });

export const taskEndpoints = {
  createTasks: {
    method: 'POST',
    path: '/tasks',
    role: 'operator',
    idempotent: true,
    summary: 'Run a command inside a VM that has room for it, or many',
    body: taskBody,
    reply: z.array(taskView),
    status: 201,
  },
  listTasks: {
    method: 'GET',
    path: '/tasks',
    role: 'viewer',
    summary: 'Tasks, newest first',
    query: z
      .object({
        state: z.enum([...states, 'open', 'ended']).optional(),
        vm: z.string().min(1).max(100).optional().describe('name or id'),
        batch: ref.optional(),
        limit: z.coerce.number().int().min(1).max(5000).default(50),
        after,
      })
      .strict(),
    reply: z.array(taskView),
  },
  getTask: {
    method: 'GET',
    path: '/tasks/:task',
    role: 'viewer',
    summary: 'One task',
    params: taskParams,
    reply: taskView,
  },
  cancelTask: {
    method: 'POST',
    path: '/tasks/:task/cancel',
    role: 'operator',
    summary: 'End a task, or see to it that it never begins',
    params: taskParams,
    reply: taskView,
    status: 202,
  },
  getTaskOutput: {
    method: 'GET',
    path: '/tasks/:task/output',
    role: 'viewer',
    summary: 'What the last attempt that ended wrote',
    params: taskParams,
    reply: taskOutputView,
  },
} as const satisfies Record<string, Endpoint>;
