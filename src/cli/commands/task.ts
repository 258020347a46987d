/** `drover task`: commands that run inside VMs, on the VM that has most room for them. */
import type { Command } from 'commander';
import { UserError } from '../../model/failure.ts';
import { MiB, formatBytes, formatMs, parseSizeMiB } from '../../model/units.ts';
import { taskBody, taskEndpoints, tasksPerRequest, type TaskBody, type TaskView } from '../../wire/tasks.ts';
import { Interrupted, exitCodes, interruptible, named, type Context } from '../context.ts';
import { Patience } from '../patience.ts';
import { details, table } from '../table.ts';
import { collect, labelWords, parseSelector } from '../labels.ts';
import { limitsOf, parseCount, parseDurationWithin, parseNumber } from '../numbers.ts';

const pollMs = 500;
const mostAtOnce = 10_000;
const shownCommand = 40;

interface RunFlags {
  readonly cpus: string;
  readonly memory: string;
  readonly selector: readonly string[];
  readonly timeout: string;
  readonly retry: string;
  readonly count: string;
  readonly wait?: true;
  readonly watch?: true;
}

export function addTask(program: Command, context: Context): void {
  const task = program
    .command('task')
    .description('commands that run inside VMs, each on the VM that has most room')
    .addHelpText('after', '\nExample:\n  $ drover task run --wait -- uname -a');

  task
    .command('run <command...>')
    .description('run a command inside a VM, through its guest agent; queued until one has room')
    .option('--cpus <n>', 'what it needs of the VM; may be a fraction', '1')
    .option('--memory <size>', 'what it needs of the VM', '64MiB')
    .option('--selector <key=value>', 'only VMs with this label; may be given several times', collect, [])
    .option('--timeout <duration>', 'it is ended after this long', '1h')
    .option('--retry <n>', 'run it again when it did not succeed, also when nobody can say how far it came', '0')
    .option('--count <n>', 'that many of them; each finds its number in DROVER_TASK_INDEX', '1')
    .option('--wait', 'until all have ended; the exit code tells whether all succeeded')
    .option('--watch', 'as --wait, and tell of each change')
    .addHelpText(
      'after',
      `
Write -- before the command. No shell is put in between: give one where you need it.
Without --retry a task is never run twice, whatever gets lost on the way.

Examples:
  $ drover task run --wait -- uname -a
  $ drover task run --cpus 1 --memory 256MiB --selector tier=batch --timeout 10m -- /opt/report.sh today
  $ drover task run --count 50 --watch -- sh -c 'render frame-$DROVER_TASK_INDEX'`,
    )
    .action((command: string[], flags: RunFlags) => run(context, command, flags));

  task
    .command('list')
    .alias('ls')
    .description('tasks, newest first')
    .option('--state <state>', 'only those: open, ended, queued, assigned, running, succeeded, failed, ...')
    .option('--vm <vm>', 'only those that this VM has or had')
    .option('--batch <id>', 'only those that were asked for together')
    .option('--limit <n>', 'no more than this', '50')
    .addHelpText('after', '\nExample:\n  $ drover task list --state open')
    .action(async (flags: { state?: string; vm?: string; batch?: string; limit: string }) => {
      const query = {
        limit: parseCount(flags.limit, '--limit', limitsOf(taskEndpoints.listTasks.query.shape.limit.unwrap())),
        // The cast: the server knows which there are, and says so.
        ...(flags.state === undefined ? {} : { state: flags.state as 'open' }),
        ...(flags.vm === undefined ? {} : { vm: flags.vm }),
        ...(flags.batch === undefined ? {} : { batch: flags.batch }),
      };
      const tasks = await named(context, { vm: flags.vm }, () => context.client().listTasks({ query }));
      context.print(tasks, () => (tasks.length === 0 ? 'no tasks' : taskTable(tasks)));
    });

  task
    .command('show <task>')
    .description('one task: which VM got it and why, and what came of each attempt')
    .addHelpText('after', '\nExample:\n  $ drover task show task_01hv3x')
    .action(async (id: string) => {
      const view = await context.client().getTask({ params: { task: id } });
      context.print(view, () => taskDetails(view));
    });

  task
    .command('logs <task>')
    .description('what a task wrote, both streams as they came')
    .addHelpText('after', '\nExample:\n  $ drover task logs task_01hv3x')
    .action(async (id: string) => {
      const output = await context.client().getTaskOutput({ params: { task: id } });
      if (context.json) return context.print(output, () => '');
      context.surroundings.stdout.write(output.text);
      if (output.truncated) context.say('The task wrote more; only the beginning is kept.');
    });

  task
    .command('cancel <task>')
    .description('end a task, or see to it that it never begins')
    .addHelpText('after', '\nExample:\n  $ drover task cancel task_01hv3x')
    .action(async (id: string) => {
      const view = await context.client().cancelTask({ params: { task: id } });
      context.print(view, () =>
        view.ended ? `${view.id}: ${view.says}` : `${view.id} ${view.says}; it is being ended there`,
      );
    });
}

async function run(context: Context, command: readonly string[], flags: RunFlags): Promise<void> {
  const { count, ...body } = bodyOf(command, flags);
  const client = context.client();
  const tasks: TaskView[] = [];
  while (tasks.length < count) {
    const part = Math.min(tasksPerRequest, count - tasks.length);
    try {
      tasks.push(...(await client.createTasks({ body: { ...body, count: part, firstIndex: tasks.length } })));
    } catch (error) {
      if (tasks.length > 0) context.say(`Only ${tasks.length} of ${count} tasks were queued.`);
      throw error;
    }
  }
  const wait = flags.wait ?? flags.watch ?? false;
  const batches = [...new Set(tasks.map(({ batch }) => batch))];
  if (!wait) {
    const [first] = tasks;
    context.print(tasks, () =>
      tasks.length === 1 && first
        ? `${first.id} ${first.says}`
        : `${tasks.length} tasks queued: drover task list --batch ${batches.join(' or ')}`,
    );
    return;
  }
  const ended = await untilEnded(context, tasks, batches, flags.watch ?? false);
  await tell(context, ended);
  if (!ended.every(({ succeeded }) => succeeded)) context.end(exitCodes.failed);
}

/**
 * @returns all that were made, as they were seen last: the server forgets what ended long ago, and a long queue outlasts that
 * @throws Interrupted, having said that they go on
 */
async function untilEnded(
  context: Context,
  made: readonly TaskView[],
  batches: readonly string[],
  each: boolean,
): Promise<TaskView[]> {
  const { clock } = context.surroundings;
  const interruption = interruptible(context);
  const { signal } = interruption;
  const told = new Map<string, string>();
  const patience = new Patience(clock, signal, context.say);
  const list = (batch: string): Promise<TaskView[]> =>
    context.client().listTasks({ query: { batch, limit: tasksPerRequest } }, { signal });
  const seen = new Map(made.map((task) => [task.id, task]));
  let progress = '';
  let waits = '';
  try {
    for (;;) {
      const lists = await patience.ask(() => Promise.all(batches.map(list)));
      if (lists !== undefined) {
        const there = new Map(lists.flat().map((task) => [task.id, task]));
        for (const [id, task] of there) seen.set(id, task);
        const tasks = [...seen.values()].toSorted((a, b) => a.index - b.index);
        if (each) tellChanges(context, tasks, told);
        const now = progressWords(tasks);
        if (now !== progress && !each && tasks.length > 1) context.say(now);
        progress = now;
        if (tasks.every(({ id, ended }) => ended || !there.has(id))) return tasks;
        const why = waitingWords(tasks);
        if (why !== waits && !each && why !== '') context.say(why);
        waits = why;
      }
      await clock.sleep(pollMs, signal);
    }
  } catch (error) {
    if (!signal.aborted) throw error;
    context.say(
      `The tasks go on; only the waiting was stopped. To end one: drover task cancel ID (drover task list --batch ${batches.join(' or ')}).`,
    );
    throw new Interrupted('interrupted', { cause: error });
  } finally {
    interruption.stop();
  }
}

function tellChanges(context: Context, tasks: readonly TaskView[], told: Map<string, string>): void {
  for (const view of tasks) {
    const says = `${view.state}: ${view.says}`;
    if (told.get(view.id) === says) continue;
    told.set(view.id, says);
    context.say(`${view.id}  ${says}`);
  }
}

/** What those that are queued wait for: who waits for them is not to guess. Empty: none, or it is not known yet. */
function waitingWords(tasks: readonly TaskView[]): string {
  const queued = tasks.filter(({ state, says }) => state === 'queued' && says.startsWith('waits: '));
  const reasons = [...new Set(queued.map(({ says }) => says.slice('waits: '.length)))];
  const who = tasks.length === 1 ? `${tasks[0]?.id} waits` : `${queued.length} wait`;
  return reasons.length === 0 ? '' : `${who}: ${reasons.slice(0, 3).join('; ')}`;
}

function progressWords(tasks: readonly TaskView[]): string {
  const ended = tasks.filter((task) => task.ended);
  const failed = ended.filter(({ succeeded }) => !succeeded).length;
  const running = tasks.filter(({ state }) => state === 'assigned' || state === 'running').length;
  return `${ended.length} of ${tasks.length} ended${failed > 0 ? `, ${failed} of them not well` : ''}; ${running} with VMs`;
}

/** One task is told as if it had run here; of many, how they ended. */
async function tell(context: Context, tasks: readonly TaskView[]): Promise<void> {
  const [only, ...others] = tasks;
  if (context.json) return context.print(tasks, () => '');
  if (only !== undefined && others.length === 0) {
    const output = await context
      .client()
      .getTaskOutput({ params: { task: only.id } })
      .catch(notKept);
    context.surroundings.stdout.write(output?.text ?? '');
    if (output?.truncated === true) context.say('The task wrote more; only the beginning is kept.');
    if (!only.succeeded) context.say(`${only.id} ${only.state}: ${only.says}`);
    return;
  }
  const notWell = tasks.filter(({ succeeded }) => !succeeded);
  const words = `${tasks.length - notWell.length} of ${tasks.length} tasks succeeded`;
  context.print(tasks, () => (notWell.length === 0 ? words : `${words}\n\n${taskTable(notWell)}`));
}

function notKept(error: unknown): undefined {
  if (error instanceof UserError && error.code === 'not-found') return undefined; // it has written nothing, or never ran
  throw error;
}

function bodyOf(command: readonly string[], flags: RunFlags): TaskBody & { readonly count: number } {
  const { timeLimitMs, retries } = taskBody.shape;
  return {
    command: [...command],
    cpus: parseCpus(flags.cpus),
    memoryMiB: parseMemoryMiB(flags.memory),
    selector: parseSelector(flags.selector),
    timeLimitMs: parseDurationWithin(flags.timeout, '--timeout', limitsOf(timeLimitMs.unwrap())),
    retries: parseCount(flags.retry, '--retry', limitsOf(retries.unwrap())),
    count: parseCount(flags.count, '--count', [1, mostAtOnce]),
  };
}

function parseCpus(text: string): number {
  const [, most] = limitsOf(taskBody.shape.cpus.unwrap());
  const cpus = parseNumber(text, '--cpus', [0, most]);
  if (cpus > 0) return cpus;
  throw new UserError('invalid-input', 'A task without CPUs cannot run.', 'Write --cpus 1, or 0.25.');
}

function parseMemoryMiB(text: string): number {
  const memoryMiB = parseSizeMiB(text);
  const [, most] = limitsOf(taskBody.shape.memoryMiB.unwrap());
  if (memoryMiB <= most) return memoryMiB;
  throw new UserError('invalid-input', `--memory ${text} is too large.`, `Write ${formatBytes(most * MiB)} or less.`);
}

function taskTable(tasks: readonly TaskView[]): string {
  return table(
    ['TASK', 'STATE', 'VM', 'STATUS', 'COMMAND', 'SAYS'],
    tasks.map((view) => [
      view.id,
      view.state,
      view.vm ?? '-',
      view.status === null ? '-' : String(view.status),
      commandWords(view.command),
      view.says,
    ]),
  );
}

function commandWords(command: readonly string[]): string {
  const words = command.join(' ').replaceAll(/\s+/g, ' ');
  return words.length > shownCommand ? `${words.slice(0, shownCommand - 3)}...` : words;
}

function taskDetails(view: TaskView): string {
  const time = (at: number | null): string | null => (at === null ? null : new Date(at).toISOString());
  const head = details([
    ['task', view.id],
    ['state', `${view.state}: ${view.says}`],
    ['command', view.command.join(' ')],
    [
      'needs',
      `${view.cpus} ${view.cpus === 1 ? 'CPU' : 'CPUs'}, ${view.memoryMiB} MiB, within ${formatMs(view.timeLimitMs)}`,
    ],
    ['selector', labelWords(view.selector)],
    ['retries', view.retries === 0 ? 'none: it never runs twice' : String(view.retries)],
    ['batch', view.batch === view.id ? null : `${view.batch}, number ${view.index}`],
    ['asked for', time(view.createdAt)],
    ['ended', time(view.endedAt)],
    ['output', view.ended && view.attempts.length > 0 ? `drover task logs ${view.id}` : null],
  ]);
  const attempts = view.attempts.map(
    ({ number, vmName, host, why, says, assignedAt, endedAt }) =>
      `attempt ${number}: ${vmName} on ${host}, because ${why}\n` +
      `  ${time(assignedAt)} ${says === null ? 'not ended yet' : `ended after ${formatMs((endedAt ?? 0) - assignedAt)}: ${says}`}`,
  );
  return [head, ...attempts].join('\n\n');
}
