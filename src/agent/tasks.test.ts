import { afterEach, beforeEach, expect, test } from 'vitest';
import type { GuestTasks } from '../hypervisor/hypervisor.ts';
import { TaskMemory } from '../hypervisor/simulated-tasks.ts';
import type { TaskId } from '../model/ids.ts';
import { systemClock } from '../runtime/clock.ts';
import type { TaskJob } from '../wire/agent.ts';
import { FakeHost, vm } from './fake-host.ts';

const task = 'task_1' as TaskId;
let host: FakeHost;
let memory: TaskMemory;
const strays: unknown[] = [];
const stray = (error: unknown) => strays.push(error);
/** Calls that get no answer, though they are carried out. */
const lost = new Set<keyof GuestTasks>();
const asked: (keyof GuestTasks)[] = [];

function inside(): GuestTasks {
  const call = async <T>(what: keyof GuestTasks, run: () => T): Promise<T> => {
    asked.push(what);
    const value = run();
    if (lost.has(what)) throw new Error('no answer');
    return value;
  };
  return {
    boot: () => call('boot', () => memory.boot),
    run: (program) => call('run', () => memory.run(program, Date.now())),
    look: (program) => call('look', () => memory.look(program, Date.now())),
    cancel: (claim) => call('cancel', () => memory.cancel(claim, Date.now())),
  };
}

const job = (changes: Partial<TaskJob> = {}): TaskJob => ({
  task,
  attempt: 1,
  boot: memory.boot,
  command: ['say', 'hello'],
  env: {},
  limitMs: 60_000,
  outputLimitBytes: 100,
  ...changes,
});

beforeEach(async () => {
  process.on('unhandledRejection', stray);
  asked.length = 0;
  lost.clear();
  memory = new TaskMemory(1);
  host = await new FakeHost('h1').begin();
  await host.withGuest();
  host.guest.tasks = inside();
});

afterEach(async () => {
  await host.end();
  await systemClock.sleep(5);
  process.off('unhandledRejection', stray);
  expect(strays.splice(0)).toEqual([]);
});

test('an order runs the task in the guest and its end is told, however often it is ordered', async () => {
  for (let n = 0; n < 3; n++) expect(host.order('task', { task: job(), want: 'run' })).toBeNull();
  expect(await host.fact('task-ended')).toMatchObject({
    task,
    attempt: 1,
    how: 'exited',
    status: 0,
    output: 'say hello',
  });
  host.order('task', { task: job(), want: 'run' }); // it was on its way when the end was told
  await systemClock.sleep(300);
  expect(host.kinds().filter((kind) => kind === 'task-ended')).toHaveLength(1);
  expect(memory.ran).toEqual(['task_1.1']);
});

test('a lost answer makes it ask again, and the task runs once all the same', async () => {
  lost.add('run');
  host.order('task', { task: job({ command: ['sleep', '0.2'] }), want: 'run' });
  expect(await host.fact('task-ended')).toMatchObject({ how: 'exited' });
  expect(memory.ran).toEqual(['task_1.1']);
});

test('an agent that began again tells the end of what the one before it began', async () => {
  host.order('task', { task: job({ command: ['sleep', '0.5'] }), want: 'run' });
  await host.fact('task-started');
  await host.crash();
  await host.begin();
  host.guest.tasks = inside();
  host.order('task', { task: job({ command: ['sleep', '0.5'] }), want: 'watch' });
  expect(await host.fact('task-ended')).toMatchObject({ how: 'exited', status: 0 });
  expect(memory.ran).toEqual(['task_1.1']);
});

test('what was seen to run and is not there any more is told as vanished, and not begun anew', async () => {
  host.order('task', { task: job(), want: 'watch' });
  expect(await host.fact('task-ended')).toMatchObject({ how: 'vanished', status: null });
  expect(memory.ran).toEqual([]);
});

test('a guest that has booted since runs nothing of before', async () => {
  const before = job();
  memory = new TaskMemory(2);
  host.order('task', { task: before, want: 'run' });
  expect(await host.fact('task-ended')).toMatchObject({ how: 'other-boot' });
  expect(memory.ran).toEqual([]);
});

test('to cancel ends what runs, and what has not begun never does', async () => {
  host.order('task', { task: job({ command: ['sleep', '50'] }), want: 'run' });
  await host.fact('task-started');
  host.order('task', { task: job({ command: ['sleep', '50'] }), want: 'cancel' });
  expect(await host.fact('task-ended')).toMatchObject({ how: 'cancelled' });
  host.order('task', { task: job({ attempt: 2 }), want: 'cancel' });
  while (host.kinds().filter((kind) => kind === 'task-ended').length < 2) await systemClock.sleep(10);
  expect(host.told.at(-1)).toMatchObject({ attempt: 2, how: 'never-ran' });
  expect(memory.ran).toEqual(['task_1.1']);
});

test('a guest that is only arriving, or was given away, is asked nothing', async () => {
  host.guests.setPart(vm, { kind: 'none' });
  host.order('task', { task: job(), want: 'run' });
  await systemClock.sleep(50);
  expect(asked).toEqual([]);
});

test('guests whose agent answers are reported with their boot; those without, and those that are gone, are not', async () => {
  const over = new AbortController();
  lost.add('boot');
  const running = host.tasks.run(over.signal);
  while (!asked.includes('boot')) await systemClock.sleep(20);
  expect(host.tasks.ready()).toEqual([]);
  lost.clear();
  while (host.tasks.ready().length === 0) await systemClock.sleep(20);
  expect(host.tasks.ready()).toEqual([{ vm, boot: 'boot-1' }]);
  host.guest.end('died');
  await host.fact('ended');
  expect(host.tasks.ready()).toEqual([]);
  over.abort();
  await running;
});
