/** Tasks on the command line. */
import { afterEach, describe, expect, it } from 'vitest';
import { UserError } from '../model/failure.ts';
import type { TaskView } from '../wire/tasks.ts';
import { fakeServer, run, type FakeServer, type Handlers } from './fake-server.ts';

let server: FakeServer | undefined;
afterEach(async () => {
  await server?.close();
  server = undefined;
});

async function serve(handlers: Handlers): Promise<FakeServer> {
  server = await fakeServer(handlers);
  return server;
}
const bodies = (of: FakeServer) => of.calls.flatMap(({ request }) => (request as { body?: unknown }).body ?? []);

function aTask(changes: Partial<TaskView> = {}): TaskView {
  return {
    id: 'task_1',
    batch: 'task_1',
    index: 0,
    command: ['uname', '-a'],
    cpus: 1,
    memoryMiB: 64,
    selector: {},
    timeLimitMs: 3_600_000,
    retries: 0,
    state: 'queued',
    ended: false,
    succeeded: false,
    says: 'waits: no VM has tier=batch',
    status: null,
    vm: null,
    attempts: [],
    cancelRequested: false,
    createdAt: 0,
    endedAt: null,
    ...changes,
  };
}

const done = (changes: Partial<TaskView> = {}) =>
  aTask({
    state: 'succeeded',
    ended: true,
    succeeded: true,
    says: 'done on web1',
    status: 0,
    vm: 'web1',
    endedAt: 2900,
    attempts: [
      {
        number: 1,
        vm: 'vm_1',
        vmName: 'web1',
        host: 'h2',
        why: 'h2 has most room: 1.6 of 2 cores free; web1 had 0 of 4 tasks',
        assignedAt: 0,
        startedAt: null,
        endedAt: 2900,
        end: 'succeeded',
        status: 0,
        says: 'done on web1',
      },
    ],
    ...changes,
  });
const failed = (changes: Partial<TaskView> = {}) =>
  done({ state: 'failed', succeeded: false, status: 4, says: 'exit status 4 on web1', ...changes });
const output = (text: string, truncated = false) => ({ task: 'task_1', attempt: 1, text, truncated });

describe('drover task run', () => {
  it('says what is wanted and, without --wait, why it is not running yet', async () => {
    const fake = await serve({ createTasks: () => [aTask()] });
    const words = 'task run --cpus 0.5 --memory 256MiB --selector tier=batch,zone=a --timeout 10m --retry 2 -- sh -c x';
    const ran = run(words, { server: fake.url });
    expect(await ran.code).toBe(0);
    expect(ran.stdout).toContain('task_1 waits: no VM has tier=batch');
    expect(bodies(fake)).toEqual([
      {
        command: ['sh', '-c', 'x'],
        cpus: 0.5,
        memoryMiB: 256,
        selector: { tier: 'batch', zone: 'a' },
        timeLimitMs: 600_000,
        retries: 2,
        count: 1,
        firstIndex: 0,
      },
    ]);
  });

  it('gives the output and the outcome of one that it waits for, as if it had run here', async () => {
    const fake = await serve({
      createTasks: () => [aTask()],
      listTasks: () => [failed()],
      getTaskOutput: () => output('first lines\n', true),
    });
    const ran = run('task run --wait -- uname -a', { server: fake.url });
    expect(await ran.code).toBe(1);
    expect(ran.stdout).toBe('first lines\n');
    expect(ran.stderr).toContain('only the beginning is kept');
    expect(ran.stderr).toContain('task_1 failed: exit status 4 on web1');
  });

  it('asks for many in parts, numbers them through, and tells which of them did not end well', async () => {
    let made = 0;
    const fake = await serve({
      createTasks: ({ body }) =>
        Array.from({ length: body.count }, (_, n) =>
          aTask({ id: `task_${made++}`, batch: `b${body.firstIndex}`, index: n }),
        ),
      listTasks: ({ query }) => {
        const [from, to] = query.batch === 'b0' ? [0, 100] : [100, 150];
        const ids = Array.from({ length: to - from }, (_, n) => `task_${from + n}`);
        return ids.map((id) => (id === 'task_8' ? failed({ id }) : done({ id })));
      },
    });
    const ran = run('task run --count 150 --wait -- true', { server: fake.url });
    expect(await ran.code).toBe(1);
    expect(bodies(fake)).toMatchObject([
      { count: 100, firstIndex: 0 },
      { count: 50, firstIndex: 100 },
    ]);
    expect(ran.stdout).toContain('149 of 150 tasks succeeded');
    expect(ran.stdout).toContain('task_8 ');
    expect(ran.stdout).not.toContain('task_9 ');
    expect(ran.stderr).toContain('150 of 150 ended, 1 of them not well');
  });

  it('counts also those that the server has forgotten meanwhile, as they were seen last', async () => {
    let looks = 0;
    const [a, b, c] = ['a', 'b', 'c'].map((id) => ({ id, batch: 'b' }));
    const fake = await serve({
      createTasks: () => [aTask(a), aTask(b), aTask(c)],
      // The one that failed is forgotten before the last ends; what became of `c` nobody has seen.
      listTasks: () => (++looks === 1 ? [failed(a), aTask(b), aTask(c)] : [done(b)]),
    });
    const ran = run('task run --count 3 --wait -- true', { server: fake.url });
    expect(await ran.code).toBe(1);
    expect(ran.stdout).toContain('1 of 3 tasks succeeded');
    expect(ran.stdout).toMatch(/a +failed/);
    expect(ran.stdout).toMatch(/c +queued/);
  });

  it('says what a task waits for, and waits for a server that is away for a moment', async () => {
    let looks = 0;
    const fake = await serve({
      createTasks: () => [aTask()],
      listTasks: () => {
        if (++looks === 2) throw new UserError('unavailable', 'This server does not lead any more.', 'Try again.');
        return looks < 4 ? [aTask()] : [done()];
      },
      getTaskOutput: () => output(''),
    });
    const ran = run('task run --wait -- true', { server: fake.url });
    expect(await ran.code).toBe(0);
    expect(ran.stderr).toBe(
      'task_1 waits: no VM has tier=batch\n' +
        'the server does not answer; what was begun goes on with it, so it is waited for\nthe server answers again\n',
    );
  });

  it('goes on with the tasks when the waiting is stopped', async () => {
    const fake = await serve({ createTasks: () => [aTask()], listTasks: () => [aTask()] });
    const ran = run('task run --wait -- true', { server: fake.url });
    while (!fake.calls.some(({ name }) => name === 'listTasks')) await new Promise((next) => setTimeout(next, 5));
    ran.signal('SIGINT');
    expect(await ran.code).toBe(130);
    expect(ran.stderr).toContain('The tasks go on');
  });

  it.each([
    ['task run --cpus zero -- true', "--cpus 'zero' is not a number"],
    ['task run --selector batch -- true', 'is not a label'],
    ['task run --count 0 -- true', '--count 0 is too small'],
    ['task run --timeout 8d -- true', 'is not a duration'],
    ['task run --timeout 169h -- true', 'with 1s to 168h'],
    ['task run --retry 11 -- true', '--retry 11 is too large'],
    ['task run --memory 5TiB -- true', '--memory 5TiB is too large'],
    ['task list --limit 0', '--limit 0 is too small'],
    ['task run', 'missing required argument'],
  ])('%s is refused before anything is asked', async (words, says) => {
    const fake = await serve({});
    const ran = run(words, { server: fake.url });
    expect(await ran.code).toBe(2);
    expect(ran.stderr.toLowerCase()).toContain(says.toLowerCase());
    expect(fake.calls).toEqual([]);
  });
});

describe('drover task', () => {
  it('shows which VM got it and why', async () => {
    const fake = await serve({ getTask: () => done() });
    const ran = run('task show task_1', { server: fake.url });
    expect(await ran.code).toBe(0);
    expect(ran.stdout).toContain('attempt 1: web1 on h2, because h2 has most room');
    expect(ran.stdout).toContain('ended after 2.9 s: done on web1');
    expect(ran.stdout).toContain('none: it never runs twice');
  });

  it('lists, cancels and prints what was written', async () => {
    const fake = await serve({
      listTasks: ({ query }) => (query.state === 'open' ? [aTask()] : []),
      cancelTask: () => aTask({ says: 'runs on web1' }),
      getTaskOutput: () => output('all of it\n'),
    });
    const list = run('task list --state open', { server: fake.url });
    await list.code;
    expect(list.stdout).toContain('uname -a');
    const cancel = run('task cancel task_1', { server: fake.url });
    await cancel.code;
    expect(cancel.stdout).toContain('task_1 runs on web1; it is being ended there');
    const logs = run('task logs task_1', { server: fake.url });
    await logs.code;
    expect(logs.stdout).toBe('all of it\n');
  });

  it('tells a task that is not there from a bug', async () => {
    const fake = await serve({
      getTask: () => {
        throw new UserError('not-found', "There is no task 'x'.", '`drover task list` shows what there is.');
      },
    });
    const ran = run('task show x', { server: fake.url });
    expect(await ran.code).toBe(5);
    expect(ran.stderr).toContain("There is no task 'x'.");
  });
});
