/**
 * A task ends exactly once and, without retries, runs at most once: the real decisions (planner/task-life.ts) and the real
 * agent-side rules of a guest's claim (hypervisor/simulated-tasks.ts), while answers get lost, facts come late, twice and in any
 * order, hosts forget, and guests go down and come back.
 */
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { TaskMemory } from '../../src/hypervisor/simulated-tasks.ts';
import type { TaskSeen } from '../../src/hypervisor/hypervisor.ts';
import type { HostId, TaskId, VmId } from '../../src/model/ids.ts';
import { openAttempt, taskClaim, taskDefaults, type TaskFact, type TaskRecord } from '../../src/model/task.ts';
import {
  afterFact,
  assigned,
  cancelled,
  interrupted,
  newTask,
  unheard,
  unheardAfterMs,
} from '../../src/planner/task-life.ts';

const id = 'task_1' as TaskId;
const limitMs = 10_000;

type Step =
  | { do: 'assign' }
  /** `lost`: it is carried out, and nobody hears of it. */
  | { do: 'run' | 'look' | 'cancel-in-guest'; claim: number; lost: boolean }
  | { do: 'cancel' | 'reboot' | 'vm-down' | 'silence' }
  | { do: 'deliver'; which: number; keep: boolean }
  | { do: 'pass'; ms: number };

const claim = fc.integer({ min: 0, max: 4 });
const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 3, arbitrary: fc.constant<Step>({ do: 'assign' }) },
  {
    weight: 8,
    arbitrary: fc.record({
      do: fc.constantFrom('run' as const, 'look' as const, 'cancel-in-guest' as const),
      claim,
      lost: fc.boolean(),
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      do: fc.constantFrom('cancel' as const, 'reboot' as const, 'vm-down' as const, 'silence' as const),
    }),
  },
  { weight: 5, arbitrary: fc.record({ do: fc.constant('deliver' as const), which: fc.nat(20), keep: fc.boolean() }) },
  { weight: 3, arbitrary: fc.record({ do: fc.constant('pass' as const), ms: fc.integer({ min: 1, max: 5000 }) }) },
);

class World {
  now = 0;
  task: TaskRecord;
  /** Every guest there ever was, the newest last. */
  readonly guests = [new TaskMemory(1)];
  readonly facts: TaskFact[] = [];
  /** Ends on record, in order, each time one came to be there. */
  readonly ends: string[] = [];

  constructor(retries: number, lastsMs: number) {
    const command = lastsMs === 0 ? ['fail', '1'] : ['sleep', String(lastsMs / 1000)];
    const wish = { ...taskDefaults, command, selector: {}, timeLimitMs: limitMs, retries };
    this.task = newTask(id, id, 0, wish, 0);
  }

  take(next: TaskRecord): void {
    if (this.task.outcome === null && next.outcome !== null) this.ends.push(next.outcome.kind);
    if (this.task.outcome !== null) expect(next).toBe(this.task);
    for (const [index, attempt] of this.task.attempts.entries())
      if (attempt.outcome !== null) expect(next.attempts[index]).toEqual(attempt);
    this.task = next;
  }

  get guest(): TaskMemory {
    return this.guests.at(-1) ?? new TaskMemory(0);
  }

  act(what: Step): void {
    switch (what.do) {
      case 'assign': {
        const to = { vm: 'vm_1' as VmId, vmName: 'v', host: 'h1' as HostId, boot: this.guest.boot, why: 'test' };
        return this.take(assigned(this.task, to, this.now));
      }
      case 'run':
      case 'look':
      case 'cancel-in-guest':
        return this.#inGuest(what);
      case 'cancel':
        return this.take(cancelled(this.task, this.now));
      case 'reboot':
        this.guests.push(new TaskMemory(this.guests.length + 1));
        return;
      case 'vm-down':
        this.guests.push(new TaskMemory(this.guests.length + 1));
        return this.take(interrupted(this.task, 'the VM went down', this.now));
      case 'silence':
        return this.take(unheard(this.task, this.now));
      case 'deliver': {
        const index = what.which % Math.max(1, this.facts.length);
        const fact = this.facts[index];
        if (fact === undefined) return;
        if (!what.keep) this.facts.splice(index, 1);
        return this.#hear(fact);
      }
      case 'pass':
        this.now += what.ms;
    }
  }

  /** What is heard of one attempt says nothing of another. */
  #hear(fact: TaskFact): void {
    const before = this.task.attempts;
    this.take(afterFact(this.task, fact, this.now));
    for (const [index, { number, outcome }] of this.task.attempts.entries())
      if (outcome !== null && before[index]?.outcome === null) expect(number).toBe(fact.attempt);
  }

  /** As an agent does it, for any attempt that was ever ordered: orders, too, may come late. */
  #inGuest({ do: what, claim: number, lost }: Extract<Step, { claim: number }>): void {
    const attempt = this.task.attempts[number % Math.max(1, this.task.attempts.length)];
    if (attempt === undefined) return;
    const { command } = this.task.wish;
    const program = {
      id: taskClaim(id, attempt.number),
      boot: attempt.boot,
      command,
      env: {},
      limitMs,
      outputLimitBytes: 10,
    };
    if (what === 'run') this.guest.run(program, this.now);
    if (what === 'cancel-in-guest' && this.task.cancelRequestedAt !== null) this.guest.cancel(program, this.now);
    const seen = this.guest.look(program, this.now);
    const fact = factOf(seen, attempt.number, this.now);
    if (!lost && fact) this.facts.push(fact);
  }

  /** Nothing is disturbed any more: what is due is done until the task has ended. */
  settle(): void {
    for (let turn = 0; turn < 50 && this.task.outcome === null; turn++) {
      this.now += limitMs;
      this.act({ do: 'assign' });
      const open = this.task.attempts.findIndex((attempt) => attempt === openAttempt(this.task));
      if (open === -1) continue;
      const cancels = this.task.cancelRequestedAt !== null;
      this.#inGuest({ do: cancels ? 'cancel-in-guest' : 'run', claim: open, lost: false });
      this.now += limitMs;
      this.#inGuest({ do: 'look', claim: open, lost: false });
      for (const fact of this.facts.splice(0)) this.#hear(fact);
    }
  }
}

function factOf(seen: TaskSeen, attempt: number, at: number): TaskFact | undefined {
  const base = { task: id, attempt, at };
  const nothing = { status: null, output: '', truncated: false, says: '' };
  switch (seen.kind) {
    case 'unclaimed':
      return undefined;
    case 'running':
      return { ...base, kind: 'task-started' };
    case 'ended':
      return { ...base, ...nothing, kind: 'task-ended', how: seen.how, status: seen.status };
    case 'gone':
      return { ...base, ...nothing, kind: 'task-ended', how: seen.why };
    case 'refused':
      return { ...base, ...nothing, kind: 'task-ended', how: 'refused' };
  }
}

const runs = fc.record({
  steps: fc.array(step, { maxLength: 60 }),
  retries: fc.constantFrom(0, 0, 1, 3),
  lastsMs: fc.constantFrom(0, 1000, 4000, 60_000),
});

test('a task ends exactly once, and no attempt of it ever runs twice, whatever is lost, late, repeated or restarted', () => {
  fc.assert(
    fc.property(runs, ({ steps, retries, lastsMs }) => {
      const world = new World(retries, lastsMs);
      for (const each of steps) world.act(each);
      world.settle();
      expect(world.task.outcome).not.toBeNull();
      expect(world.ends).toHaveLength(1);
      const ran = world.guests.flatMap((guest) => guest.ran);
      expect(new Set(ran).size).toBe(ran.length);
      expect(world.task.attempts.length).toBeLessThanOrEqual(retries + 1);
      expect(ran.length).toBeLessThanOrEqual(retries + 1);
      const { kind } = world.task.outcome ?? { kind: 'interrupted' };
      if (kind === 'succeeded' || kind === 'failed' || kind === 'timed-out') expect(ran.length).toBeGreaterThan(0);
    }),
    { numRuns: 3000 },
  );
});

test('a task that nobody hears of ends as well, when its time is long over', () => {
  const world = new World(0, 1000);
  world.act({ do: 'assign' });
  world.now = limitMs + unheardAfterMs - 1;
  world.act({ do: 'silence' });
  expect(world.ends).toEqual([]);
  world.now++;
  world.act({ do: 'silence' });
  expect(world.ends).toEqual(['unheard']);
});
