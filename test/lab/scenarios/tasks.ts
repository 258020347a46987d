/**
 * Tasks in real guests: one that runs on while its VM moves, and many while a VM moves and a host dies. What ran is read from
 * the guests' own word on their serial lines, which the hosts keep, also of guests that are gone.
 */
import assert from 'node:assert/strict';
import { readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { directoriesOf } from '../../../src/lab/state.ts';
import type { TaskBody, TaskView } from '../../../src/wire/tasks.ts';
import type { Scenario, TestGuest, TestLab } from '../harness.ts';

const small = { memoryMiB: 144, fillMiB: 8 } as const;
const tiny = { cpus: 0.25, memoryMiB: 16 } as const;
const many = 200;
/** When the move begins, and when the host dies: after so many have ended. */
const moveAfter = 30;
const powerOffAfter = 80;

async function runTask(lab: TestLab, body: TaskBody): Promise<TaskView> {
  const [task] = await lab.client.createTasks({ body });
  assert(task !== undefined);
  return task;
}

async function ended(lab: TestLab, id: string, timeoutMs = 60_000): Promise<TaskView> {
  const view = () => lab.client.getTask({ params: { task: id } });
  await lab.until(`task ${id} to end`, async () => (await view()).ended, timeoutMs);
  return view();
}

async function output(lab: TestLab, id: string): Promise<string> {
  return (await lab.client.getTaskOutput({ params: { task: id } })).text;
}

/** How often each task was begun, by the guests themselves. */
function begun(lab: TestLab): Map<string, number> {
  const counts = new Map<string, number>();
  for (const host of lab.hosts) {
    const logs = join(directoriesOf(lab.lab.state.name).host(host), 'logs');
    for (const file of readdirSync(logs).filter((name) => name.endsWith('.console.log'))) {
      for (const [, id = ''] of readFileSync(join(logs, file), 'latin1').matchAll(/ran (task_\w+) once/g)) {
        counts.set(id, (counts.get(id) ?? 0) + 1);
      }
    }
  }
  return counts;
}

async function listed(lab: TestLab, batches: readonly string[]): Promise<TaskView[]> {
  const lists = await Promise.all(batches.map((batch) => lab.client.listTasks({ query: { batch, limit: 1000 } })));
  return lists.flat().toSorted((a, b) => a.index - b.index);
}

async function removeAll(lab: TestLab, guests: readonly TestGuest[]): Promise<void> {
  for (const { vm } of guests) await lab.remove(vm);
}

export const scenarios: readonly Scenario[] = [
  {
    name: 'tasks: one runs on while its VM moves by pre-copy and by post-copy, and its output arrives whole',
    async run(lab) {
      const [host] = lab.hosts;
      assert(host !== undefined);
      const worker = await lab.create({ ...small, name: 'worker', host, labels: { use: 'one' } });
      try {
        const selector = { use: 'one' };
        const count = 'n=0; until [ -e /tmp/enough ]; do n=$((n+1)); echo line $n; sleep 0.1; done; echo $n lines';
        const task = await runTask(lab, { command: ['sh', '-c', count], selector, ...tiny });
        const state = async () => (await lab.client.getTask({ params: { task: task.id } })).state;
        await lab.until('the task to run', async () => (await state()) === 'running');
        for (const technique of ['pre-copy', 'post-copy'] as const) {
          const { vm } = worker;
          const to = lab.otherThan((await lab.vm(vm.id)).host);
          const { proof } = await lab.move(worker, to, technique);
          assert(proof.ok, `${technique}: ${proof.says}`);
          assert.equal(await state(), 'running');
          // The host where it is now reads what the guest has: this one's end, and then the other's.
          const through = await runTask(lab, { command: ['echo', technique], selector, ...tiny });
          const done = await ended(lab, through.id);
          assert.equal(done.state, 'succeeded', done.says);
          assert.equal(await output(lab, through.id), `${technique}\n`);
        }
        await ended(lab, (await runTask(lab, { command: ['touch', '/tmp/enough'], selector, ...tiny })).id);
        const done = await ended(lab, task.id);
        assert.equal(done.state, 'succeeded', done.says);
        assert.equal(done.attempts.length, 1);
        const lines = (await output(lab, task.id)).trimEnd().split('\n');
        const total = lines.length - 1;
        assert.deepEqual(lines, [...Array.from({ length: total }, (_, n) => `line ${n + 1}`), `${total} lines`]);
        process.stdout.write(`       ${total} lines over two moves\n`);
      } finally {
        await removeAll(lab, [worker]);
      }
      await lab.clean();
    },
  },
  {
    name: `tasks: ${many} on 6 VMs of 3 hosts, one VM moving, one host without power: each ends once, and none runs twice`,
    limitMs: 300_000,
    async run(lab) {
      const [first, second, third] = lab.hosts;
      assert(first !== undefined && second !== undefined && third !== undefined);
      const guests: TestGuest[] = [];
      for (const host of [first, second, third]) {
        const names = [`task-${host}a`, `task-${host}b`];
        const made = names.map((name) => lab.create({ ...small, name, host, labels: { use: 'many' } }));
        guests.push(...(await Promise.all(made)));
      }
      const startedAt = performance.now();
      try {
        const words = 'echo "ran $DROVER_TASK once" > /dev/ttyS0; echo "did $DROVER_TASK_INDEX"';
        const body = { command: ['sh', '-c', words], selector: { use: 'many' }, timeLimitMs: 60_000, ...tiny };
        const batches: string[] = [];
        for (let firstIndex = 0; firstIndex < many; firstIndex += 100) {
          const [task] = await lab.client.createTasks({ body: { ...body, count: 100, firstIndex } });
          assert(task !== undefined);
          batches.push(task.batch);
        }
        const hasEnded = async (wanted: number) =>
          (await listed(lab, batches)).filter((each) => each.ended).length >= wanted;
        await lab.until(`${moveAfter} to end`, () => hasEnded(moveAfter), 120_000);
        const [mover] = guests;
        assert(mover !== undefined);
        const migration = await lab.migrate(mover.vm, second, 'pre-copy');
        await lab.until(`${powerOffAfter} to end`, () => hasEnded(powerOffAfter), 120_000);
        await lab.disturb({ kind: 'power-off', host: third, bmc: 'reachable' });
        await lab.until('all to end', () => hasEnded(many), 200_000);
        const tookS = Math.round((performance.now() - startedAt) / 1000);
        const moved = await lab.ended(migration);
        assert.equal(moved.phase, 'completed', moved.failure?.message);

        const tasks = await listed(lab, batches);
        assert.equal(new Set(tasks.map(({ id }) => id)).size, many);
        const ran = begun(lab);
        const twice = tasks.filter(({ id }) => (ran.get(id) ?? 0) > 1).map(({ id }) => id);
        assert.deepEqual(twice, [], 'ran twice, by the word of the guests');
        for (const task of tasks) {
          assert.equal(task.attempts.length, 1, `${task.id} was given to ${task.attempts.length} VMs`);
          if (!task.succeeded) {
            assert.equal(task.state, 'interrupted', `${task.id}: ${task.says}`);
            assert.equal(task.attempts[0]?.host, third, task.says);
            continue;
          }
          assert.equal(ran.get(task.id), 1, `${task.id} succeeded, and no guest says that it ran`);
          assert.equal(await output(lab, task.id), `did ${task.index}\n`);
        }
        const lost = tasks.filter(({ succeeded }) => !succeeded);
        const on = new Set(tasks.map(({ vm }) => vm)).size;
        const says = `${many - lost.length} succeeded, ${lost.length} interrupted with ${third}`;
        process.stdout.write(`       ${says}, on ${on} VMs, in ${tookS} s\n`);
        assert.equal(on, guests.length, 'some VM got nothing');
      } finally {
        await lab.mend();
        await removeAll(lab, guests);
      }
      await lab.until('no host to be fenced', async () => (await lab.client.listHosts()).every((each) => !each.fenced));
      await lab.clean();
    },
  },
];
