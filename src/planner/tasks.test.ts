import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import type { HostId, TaskId, VmId } from '../model/ids.ts';
import { taskDefaults, type TaskWish } from '../model/task.ts';
import { alike, spreadTasks, type TaskHost, type TaskVm, type WaitingTask } from './tasks.ts';

// Names that tests give to things; the real ones come from the server.
const hostId = (name: string) => name as HostId;
const vmId = (name: string) => name as VmId;
const taskId = (name: string) => name as TaskId;

const wish = (changes: Partial<TaskWish> = {}): TaskWish => ({
  ...taskDefaults,
  command: ['true'],
  selector: {},
  ...changes,
});

const waiting = (count: number, changes: Partial<TaskWish> = {}): WaitingTask[] =>
  Array.from({ length: count }, (_, n) => ({ id: taskId(`t${n + 1}`), wish: wish(changes) }));

function vm(name: string, host: string, changes: Partial<TaskVm> = {}): TaskVm {
  return {
    id: vmId(name),
    name,
    host: hostId(host),
    labels: {},
    cpus: 4,
    memoryMiB: 4096,
    limit: 4,
    ready: { boot: `boot of ${name}` },
    has: { tasks: 0, cpus: 0, memoryMiB: 0 },
    ...changes,
  };
}

const hosts = (free: Record<string, number>): Map<HostId, TaskHost> =>
  new Map(
    Object.entries(free).map(([name, freeCpus]) => [hostId(name), { id: hostId(name), name, cpus: 8, freeCpus }]),
  );

const given = (spread: ReturnType<typeof spreadTasks>) => spread.assignments.map(({ to }) => to.vmName);

describe('which VM gets a task', () => {
  test('the one whose host has most room, whatever the others have to do', () => {
    const vms = [vm('a', 'h1'), vm('b', 'h2', { has: { tasks: 3, cpus: 3, memoryMiB: 192 } })];
    const spread = spreadTasks(waiting(1), vms, hosts({ h1: 2, h2: 6 }));
    expect(given(spread)).toEqual(['b']);
    expect(spread.assignments[0]?.to.why).toBe('h2 has most room: 6.0 of 8 cores free; b had 3 of 4 tasks');
  });

  test('among those of one host, or of hosts alike, the one with fewest tasks', () => {
    const vms = [vm('a', 'h1', { has: { tasks: 2, cpus: 1, memoryMiB: 64 } }), vm('b', 'h1'), vm('c', 'h2')];
    expect(given(spreadTasks(waiting(3, { cpus: 0.1 }), vms, hosts({ h1: 6, h2: 6.1 })))).toEqual(['b', 'c', 'b']);
  });

  test('what it gets counts at once, so that many are spread and not heaped', () => {
    const vms = ['h1', 'h2', 'h3'].map((host) => vm(`on-${host}`, host));
    const counts = new Map<string, number>();
    for (const name of given(spreadTasks(waiting(9), vms, hosts({ h1: 8, h2: 8, h3: 8 }))))
      counts.set(name, (counts.get(name) ?? 0) + 1);
    expect([...counts.values()]).toEqual([3, 3, 3]);
  });

  test('one that finds no place says whether tasks are too many or too large', () => {
    const vms = [vm('a', 'h1', { has: { tasks: 4, cpus: 1, memoryMiB: 64 } })];
    const spread = spreadTasks(waiting(1), vms, hosts({ h1: 8 }));
    expect(spread.waiting.get(alike(wish()))).toBe('all of 1 VM have as many tasks as they take');
  });

  test('one that fits nowhere does not hold up those behind it', () => {
    const tasks = [{ id: taskId('large'), wish: wish({ cpus: 3 }) }, ...waiting(1)];
    const vms = [vm('a', 'h1', { has: { tasks: 1, cpus: 2, memoryMiB: 64 } })];
    const spread = spreadTasks(tasks, vms, hosts({ h1: 8 }));
    expect(spread.assignments.map(({ task }) => task)).toEqual(['t1']);
    expect(spread.waiting.get(alike(wish({ cpus: 3 })))).toBe(
      'of 1 VM none has that much left beside the tasks that it has',
    );
  });

  test.each([
    [{ selector: { tier: 'batch', zone: 'a' } }, 'no VM has tier=batch and zone=a'],
    [{ cpus: 5 }, 'of 2 VMs none has 5 CPUs and 64 MiB for tasks (75 % of its memory)'],
    [{ memoryMiB: 4000 }, 'of 2 VMs none has 1 CPUs and 4000 MiB for tasks (75 % of its memory)'],
    [{ selector: { sick: 'yes' } }, 'of 1 VM none is ready: off is stopped'],
  ] as const)('who waits is told why: %j', (changes, why) => {
    const vms = [vm('a', 'h1'), vm('off', 'h1', { ready: { not: 'is stopped' }, labels: { sick: 'yes' } })];
    const spread = spreadTasks(waiting(1, changes), vms, hosts({ h1: 8 }));
    expect(spread.assignments).toEqual([]);
    expect(spread.waiting.get(alike(wish(changes)))).toBe(why);
  });

  test('without any VM that is said', () => {
    expect(spreadTasks(waiting(1), [], hosts({})).waiting.get(alike(wish()))).toBe('there is no VM');
  });
});

test('no VM gets more than it takes, one that is not ready gets nothing, and each task is given or told why it waits', () => {
  const fleet = fc.array(
    fc.record({
      host: fc.constantFrom('h1', 'h2', 'h3'),
      limit: fc.integer({ min: 0, max: 5 }),
      cpus: fc.integer({ min: 1, max: 4 }),
      memoryMiB: fc.integer({ min: 64, max: 1024 }),
      isReady: fc.boolean(),
      tier: fc.constantFrom('batch', 'web'),
      has: fc.integer({ min: 0, max: 3 }),
    }),
    { maxLength: 12 },
  );
  const wishes = fc.array(
    fc.record({
      cpus: fc.constantFrom(0.25, 0.5, 1, 2),
      memoryMiB: fc.integer({ min: 1, max: 512 }),
      selector: fc.constantFrom<Record<string, string>>({}, { tier: 'batch' }, { tier: 'web' }),
    }),
    { maxLength: 40 },
  );
  const free = fc.record({ h1: fc.double({ min: -2, max: 8, noNaN: true }), h2: fc.constant(4), h3: fc.constant(0) });
  fc.assert(
    fc.property(fleet, wishes, free, fc.integer({ min: 1, max: 50 }), (drawn, asked, room, most) => {
      const vms = drawn.map(({ host, isReady, tier, has, ...rest }, n) =>
        vm(`vm${n}`, host, {
          ...rest,
          labels: { tier },
          ready: isReady ? { boot: 'b' } : { not: 'is off' },
          has: { tasks: has, cpus: has * 0.25, memoryMiB: has },
        }),
      );
      const tasks = asked.map((changes, n) => ({ id: taskId(`t${n}`), wish: wish(changes) }));
      const spread = spreadTasks(tasks, vms, hosts(room), most);
      expect(spread.assignments.length).toBeLessThanOrEqual(most);
      const given = new Set(spread.assignments.map(({ task }) => task));
      if (given.size < most)
        for (const { id, wish: wished } of tasks) expect(given.has(id) || spread.waiting.has(alike(wished))).toBe(true);
      for (const each of vms) {
        const mine = spread.assignments.filter(({ to }) => to.vm === each.id);
        const wishesOf = mine.map(({ task }) => tasks.find(({ id }) => id === task)?.wish ?? wish());
        if (mine.length === 0) continue;
        expect(each.ready).toEqual({ boot: 'b' });
        const sum = (of: (wished: TaskWish) => number) => wishesOf.reduce((total, wished) => total + of(wished), 0);
        expect(each.has.tasks + mine.length).toBeLessThanOrEqual(each.limit);
        expect(each.has.cpus + sum(({ cpus }) => cpus)).toBeLessThanOrEqual(each.cpus + 1e-6);
        expect(each.has.memoryMiB + sum(({ memoryMiB }) => memoryMiB)).toBeLessThanOrEqual(
          each.memoryMiB * 0.75 + 1e-6,
        );
        for (const { selector } of wishesOf) expect(each.labels).toMatchObject(selector);
      }
      expect(spreadTasks(tasks, vms, hosts(room), most)).toEqual(spread);
    }),
  );
});
