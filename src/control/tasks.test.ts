import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { TaskId } from '../model/ids.ts';
import { taskDefaults, taskState, type TaskFact, type TaskRecord, type TaskWish } from '../model/task.ts';
import type { Order } from '../wire/agent.ts';
import { FakeFleet, settled, until } from './fake-fleet.ts';
import { requestKey } from './requests.ts';

let fleet: FakeFleet;
beforeEach(async () => {
  fleet = await FakeFleet.start();
});
afterEach(() => fleet.stopServer());

type TaskOrder = Extract<Order, { kind: 'task' }>;
type Ended = Extract<TaskFact, { kind: 'task-ended' }>;

/** A VM that runs there and whose guest's agent answers. */
async function ready(name: string, host: string, changes: object = {}): Promise<void> {
  const { id } = await fleet.run(name, host, { cpus: 4, ...changes });
  const agent = fleet.agent(host);
  agent.ready.push({ vm: id, boot: `boot of ${name}` });
  agent.report();
  await settled();
}

async function ask(wish: Partial<TaskWish> = {}, count = 1): Promise<TaskRecord[]> {
  const whole = { ...taskDefaults, command: ['true'], selector: {}, ...wish };
  const tasks = await fleet.plane.tasks.create(whole, { count, firstIndex: 0 }, null);
  await settled();
  return tasks;
}

async function one(wish: Partial<TaskWish> = {}): Promise<TaskId> {
  const [task] = await ask(wish);
  if (task === undefined) throw new Error('no task was made');
  return task.id;
}

const now = (id: TaskId): TaskRecord => fleet.plane.fleet.findTask(id);

function orders(host: string): TaskOrder[] {
  return fleet.agent(host).orders.filter((order): order is TaskOrder => order.kind === 'task');
}

async function ends(host: string, task: TaskId, changes: Partial<Ended> = {}): Promise<void> {
  const attempt = now(task).attempts.length;
  const nothing = { status: 0, output: 'out', truncated: false, says: '' };
  const at = fleet.clock.now();
  const fact: Ended = { task, attempt, at, kind: 'task-ended', how: 'exited', ...nothing, ...changes };
  await fleet.agent(host).fact({ about: 'task', fact });
  await settled();
}

describe('a task', () => {
  test('is given to a VM whose guest answers, ordered there, and ends with its output when the guest says so', async () => {
    await ready('web1', 'h2');
    const task = await one({ command: ['echo', 'x'], timeLimitMs: 5000 });
    expect(now(task).attempts[0]).toMatchObject({ vmName: 'web1', boot: 'boot of web1', outcome: null });
    expect(now(task).attempts[0]?.why).toContain('h2 has most room');
    expect(orders('h2')).toMatchObject([
      { want: 'run', task: { task, attempt: 1, boot: 'boot of web1', command: ['echo', 'x'], limitMs: 5000 } },
    ]);
    await ends('h2', task);
    expect(taskState(now(task))).toBe('succeeded');
    expect(fleet.plane.fleet.taskOutputs.get(task)?.text).toBe('out');
  });

  test('waits while no VM can take it, says why, and begins as soon as one can', async () => {
    const task = await one();
    const why = () => fleet.plane.tasks.whyQueued(now(task));
    expect(why()).toBe('there is no VM');
    await fleet.run('web1', 'h1');
    await fleet.pass(1_500);
    expect(why()).toContain('web1 has no guest agent that answers');
    fleet.agent('h1').ready.push({ vm: fleet.vm('web1').id, boot: 'b' });
    fleet.agent('h1').report();
    await until('it is given', () => taskState(now(task)) === 'assigned');
    expect(why()).toBeNull();
  });

  test('is never more than a VM says it takes at once', async () => {
    await ready('web1', 'h1', { labels: { 'drover.tasks': '2' } });
    const tasks = await ask({ cpus: 0.1 }, 5);
    const states = () => tasks.map(({ id }) => taskState(now(id)));
    expect(states().toSorted()).toEqual(['assigned', 'assigned', 'queued', 'queued', 'queued']);
    const [first] = tasks.filter(({ id }) => taskState(now(id)) === 'assigned');
    if (first) await ends('h1', first.id);
    expect(states().toSorted()).toEqual(['assigned', 'assigned', 'queued', 'queued', 'succeeded']);
  });

  test('seen to run is only watched from then on, also by a server that has begun again', async () => {
    await ready('web1', 'h1');
    const task = await one();
    const at = fleet.clock.now();
    await fleet.agent('h1').fact({ about: 'task', fact: { task, attempt: 1, at, kind: 'task-started' } });
    expect(taskState(now(task))).toBe('running');
    await fleet.restartServer();
    await until('it is watched', () => orders('h1').some(({ want }) => want === 'watch'));
    expect(orders('h1').every(({ want }) => want === 'watch')).toBe(true);
  });

  test('goes with its VM: the host where that runs now is told of it', async () => {
    await ready('web1', 'h1');
    const task = await one();
    const { id, host } = fleet.vm('web1');
    const h3 = fleet.plane.fleet.findHost('h3');
    expect(host).not.toBe(h3.id);
    await fleet.plane.fleet.change((draft) => {
      const vm = draft.vm(id);
      if (vm) draft.putVm({ ...vm, host: h3.id, generation: vm.generation + 1 });
    });
    await settled();
    expect(orders('h3')).toMatchObject([
      { vm: id, generation: fleet.vm('web1').generation, task: { task, attempt: 1 } },
    ]);
    await ends('h3', task);
    expect(taskState(now(task))).toBe('succeeded');
  });

  test('whose VM went down is told as interrupted, and what is heard of it later changes nothing', async () => {
    await ready('web1', 'h1');
    const task = await one();
    const { id } = fleet.vm('web1');
    await fleet.agent('h1').life(id, { kind: 'ended', how: 'died', message: 'killed' });
    await fleet.pass(1_500);
    const before = now(task);
    expect(before.outcome).toMatchObject({
      kind: 'interrupted',
      says: 'web1 is crashed; how far it came is not known',
    });
    await ends('h1', task);
    expect(now(task)).toEqual(before);
    expect(fleet.plane.fleet.taskOutputs.get(task)).toBeUndefined();
  });

  test('is not given to a VM that was started anew before its new guest has answered', async () => {
    await ready('web1', 'h1');
    const { id } = fleet.vm('web1');
    await fleet.agent('h1').life(id, { kind: 'ended', how: 'died', message: 'killed' });
    await fleet.plane.vms.start('web1', null);
    fleet.agent('h1').ready = [];
    await fleet
      .agent('h1')
      .life(id, { kind: 'started', running: { argvVersion: 3, argv: [], spec: fleet.vm('web1').spec } });
    const task = await one();
    await fleet.pass(1_500);
    expect(taskState(now(task))).toBe('queued');
  });

  test('runs again elsewhere only with --retry, and never more often than that', async () => {
    await ready('web1', 'h1');
    const [never, twice] = [await one({ cpus: 1 }), await one({ cpus: 1, retries: 1 })];
    for (const task of [never, twice]) await ends('h1', task, { how: 'other-boot', status: null });
    expect(taskState(now(never))).toBe('interrupted');
    expect(now(twice).attempts).toHaveLength(2);
    expect(taskState(now(twice))).toBe('assigned');
    await ends('h1', twice, { status: 7 });
    expect(now(twice).outcome).toMatchObject({ kind: 'failed', status: 7, says: 'exit status 7 on web1' });
  });

  test('that is cancelled is over at once while it is queued; else its guest is told, and says what came of it', async () => {
    const queued = await one();
    await fleet.plane.tasks.cancel(queued);
    expect(taskState(now(queued))).toBe('cancelled');
    await expect(fleet.plane.tasks.cancel(queued)).rejects.toThrow('has ended already');
    await ready('web1', 'h1');
    const task = await one();
    await fleet.plane.tasks.cancel(task);
    await settled();
    expect(orders('h1').at(-1)).toMatchObject({ want: 'cancel', task: { task, attempt: 1 } });
    expect(taskState(now(task))).toBe('assigned');
    await ends('h1', task, { how: 'never-ran' });
    expect(now(task).outcome).toMatchObject({ kind: 'cancelled', says: 'cancelled before it began on web1' });
  });

  test('that nobody hears of ends when its time is long over', async () => {
    await ready('web1', 'h1');
    const task = await one({ timeLimitMs: 10_000 });
    await fleet.pass(69_000);
    expect(taskState(now(task))).toBe('assigned');
    await fleet.pass(3_000);
    expect(now(task).outcome).toMatchObject({ kind: 'unheard' });
  });

  test('asked for again under the same key is the same task', async () => {
    const key = requestKey('createTasks', 'k1', 'body');
    const wish = { ...taskDefaults, command: ['true'], selector: {} };
    const first = await fleet.plane.tasks.create(wish, { count: 3, firstIndex: 0 }, key);
    const again = await fleet.plane.tasks.create(wish, { count: 3, firstIndex: 0 }, key);
    expect(again.map(({ id }) => id)).toEqual(first.map(({ id }) => id));
    expect(fleet.plane.fleet.tasks.size).toBe(3);
  });

  test('queued by records that went back in time is not run: nobody knows whether it has been', async () => {
    const [task, again] = [await one(), await one({ retries: 1 })];
    await fleet.clock.advance(10);
    await fleet.plane.fleet.change((draft) =>
      draft.putRestored({
        schema: 1,
        at: fleet.clock.now(),
        because: 'restored from a backup',
        endedAt: fleet.clock.now(),
      }),
    );
    await ready('web1', 'h1');
    await fleet.pass(1_500);
    expect(now(task).outcome).toMatchObject({
      kind: 'interrupted',
      says: expect.stringContaining('restored from a backup'),
    });
    expect(now(task).attempts).toEqual([]);
    expect(taskState(now(again))).toBe('assigned');
  });
});
