/** The scripts that a guest's `sh` gets, run by this machine's: what they claim, write and end is the same there. */
import { spawn, type ChildProcess } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { GuestTasks, TaskProgram, TaskSeen } from '../hypervisor.ts';
import { GuestAgentRefusal } from './guest-agent.ts';
import { isAlive } from './process.ts';
import { isSameProcess, parseEnd, tasksOver } from './guest-tasks.ts';

const { signal } = new AbortController();
const bootId = readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim();
const scripts = new Set<ChildProcess>();
let root: string;
let tasks: GuestTasks;
/** Set by a test: what the agent does instead of running anything. */
let refusesExec: Error | undefined;

/** Programs and files of this machine, as the agent in a guest gives its own. */
const agent = {
  exec: async (path: string, argv: readonly string[]) => {
    if (refusesExec) throw refusesExec;
    const child = spawn(path, argv, { stdio: 'ignore', detached: true });
    scripts.add(child);
    return child.pid ?? 0;
  },
  execStatus: async (pid: number) => {
    const child = [...scripts].find((each) => each.pid === pid);
    return { exited: child?.exitCode !== null, exitCode: child?.exitCode ?? null };
  },
  readFile: async (path: string, limit: number) => (existsSync(path) ? readFileSync(path).subarray(0, limit) : null),
};

beforeEach(() => {
  root = join(mkdtempSync(join(tmpdir(), 'drover-tasks-')), 'tasks');
  refusesExec = undefined;
  tasks = tasksOver(agent, { root, checkEveryMs: 50 });
});

afterEach(() => {
  for (const { pid = 0, exitCode } of scripts) if (exitCode === null) killGroup(pid);
  scripts.clear();
  rmSync(join(root, '..'), { recursive: true, force: true });
});

function killGroup(pid: number): void {
  try {
    process.kill(-pid, 'SIGKILL');
  } catch {
    // it has ended meanwhile
  }
}

async function allEnded(): Promise<void> {
  const ended = (child: ChildProcess) => child.exitCode !== null || child.signalCode !== null;
  while (![...scripts].every(ended)) await sleep(10);
}

function task(id: string, command: string, changes: Partial<TaskProgram> = {}): TaskProgram {
  return {
    id,
    boot: bootId,
    command: ['sh', '-c', command],
    env: { DROVER_TASK: id, WORDS: "two words and 'quotes'" },
    limitMs: 30_000,
    outputLimitBytes: 1000,
    ...changes,
  };
}

async function end(program: TaskProgram, from: GuestTasks = tasks): Promise<TaskSeen> {
  for (;;) {
    const seen = await from.look(program, signal);
    if (seen.kind !== 'running' && seen.kind !== 'unclaimed') return seen;
    await sleep(10);
  }
}

describe('a task in a guest', () => {
  test('gives its output, both streams, and its exit status', async () => {
    const program = task('t1', 'echo "$WORDS"; echo bad >&2; exit 3');
    await tasks.run(program, signal);
    const output = "two words and 'quotes'\nbad\n";
    expect(await end(program)).toEqual({ kind: 'ended', how: 'exited', status: 3, output, truncated: false });
  });

  test('runs once, however often and from wherever it is begun', async () => {
    const program = task('t2', `echo ran >> ${root}/../ran; sleep 0.1`);
    const others = Array.from({ length: 5 }, () => tasksOver(agent, { root, checkEveryMs: 50 }));
    await Promise.all([tasks, ...others].flatMap((each) => [each.run(program, signal), each.run(program, signal)]));
    await end(program);
    await tasks.run(program, signal);
    await allEnded();
    expect(readFileSync(join(root, '../ran'), 'utf8')).toBe('ran\n');
  });

  test('is not begun by a guest that has booted since', async () => {
    const program = task('t3', 'echo x', { boot: '00000000-0000-0000-0000-000000000000' });
    await tasks.run(program, signal);
    expect(await end(program)).toEqual({ kind: 'gone', why: 'other-boot' });
    await tasks.cancel(program, signal);
    await allEnded();
    expect(await end(program)).toEqual({ kind: 'gone', why: 'other-boot' });
    expect(existsSync(join(root, 't3'))).toBe(false);
  });

  test('that ended before its guest booted anew tells its end all the same', async () => {
    const program = task('t4', 'echo done');
    await tasks.run(program, signal);
    await end(program);
    const seen = await tasksOver(agent, { root, checkEveryMs: 50 }).look({ ...program, boot: 'another' }, signal);
    expect(seen).toMatchObject({ kind: 'ended', how: 'exited', output: 'done\n' });
  });

  test('that is cancelled first never runs', async () => {
    const program = task('t5', `echo ran > ${root}/../ran`);
    await tasks.cancel(program, signal);
    expect(await end(program)).toMatchObject({ kind: 'ended', how: 'never-ran' });
    await tasks.run(program, signal);
    expect(await end(program)).toMatchObject({ kind: 'ended', how: 'never-ran' });
    expect(existsSync(join(root, '../ran'))).toBe(false);
  });

  test('begun and cancelled at the same moment ends in one way, and that way is true', async () => {
    for (let turn = 0; turn < 5; turn++) {
      const ran = join(root, `../ran${turn}`);
      const program = task(`t6.${turn}`, `echo ran > ${ran}; sleep 20`);
      await Promise.all([tasks.run(program, signal), sleep(turn * 5).then(() => tasks.cancel(program, signal))]);
      const again = setInterval(() => void tasks.cancel(program, signal), 500);
      const seen = await end(program).finally(() => clearInterval(again));
      expect(seen.kind).toBe('ended');
      if (seen.kind === 'ended' && seen.how === 'never-ran') expect(existsSync(ran)).toBe(false);
    }
  });

  test('is ended with all that it started when its time is over', async () => {
    const program = task('t7', `sleep 60 & echo $! > ${root}/../child; sleep 60`, { limitMs: 1000 });
    await tasks.run(program, signal);
    expect(await end(program)).toMatchObject({ kind: 'ended', how: 'timed-out' });
    const child = Number(readFileSync(join(root, '../child'), 'utf8'));
    expect(isAlive(child)).toBe(false);
  });

  test('writes more than is kept and goes on to its end', async () => {
    const program = task('t8', 'seq 1 200000; exit 5');
    await tasks.run(program, signal);
    const seen = await end(program);
    expect(seen).toMatchObject({ kind: 'ended', how: 'exited', status: 5, truncated: true });
    expect(seen.kind === 'ended' && seen.output.length).toBe(1000);
  });

  test('of which nobody knows how it ended is told as gone, not as done', async () => {
    const program = task('t9', 'kill -9 $PPID; sleep 0.2');
    await tasks.run(program, signal);
    await allEnded();
    expect(await end(program)).toEqual({ kind: 'gone', why: 'vanished' });
  });

  test('that cannot be found is told as a program that the shell does not find', async () => {
    const program = task('t10', '', { command: ['no-such-program'] });
    await tasks.run(program, signal);
    expect(await end(program)).toMatchObject({ kind: 'ended', how: 'exited', status: 127 });
  });

  test('is refused where the guest cannot write down its claim, or its agent runs nothing', async () => {
    writeFileSync(root, 'a file where the directory should be');
    const program = task('t11', 'echo x');
    await tasks.run(program, signal);
    expect(await end(program)).toMatchObject({ kind: 'refused' });
    refusesExec = new GuestAgentRefusal('guest-exec has been disabled');
    await tasks.run(program, signal);
    expect(await end(program)).toMatchObject({ kind: 'refused', says: expect.stringContaining('disabled') });
  });

  test('leaves what is old to be tidied away, and nothing that is not on record for sure', async () => {
    const first = task('t12', 'echo x');
    await tasks.run(first, signal);
    await end(first);
    writeFileSync(join(root, 't12', 'done'), `${bootId} -200000 exited 0\n`);
    writeFileSync(join(root, 'tidied'), '-100000\n');
    const second = task('t13', 'echo y');
    await tasks.run(second, signal);
    await end(second);
    while (existsSync(join(root, 't12'))) await sleep(10);
    expect(readdirSync(root).toSorted()).toEqual(['t13', 'tidied']);
  });
});

describe('what a guest wrote down', () => {
  test.each(['', 'x', 'b 12 exited', 'b 12 exited 0', 'b 12 strange 0\n', 'b 12 exited 0\nmore'])(
    'is no end unless it is whole: %j',
    (text) => expect(parseEnd(text)).toBeNull(),
  );

  test('names a process by its start, too', () => {
    const of = (state: string, start: number) => `7 (a) b) ${state} ${'1 '.repeat(18)}${start} 0`;
    expect(isSameProcess(of('S', 500), of('R', 500))).toBe(true);
    expect(isSameProcess(of('S', 500), of('S', 501))).toBe(false);
    expect(isSameProcess(of('S', 500), of('Z', 500))).toBe(false);
    expect(isSameProcess('', '')).toBe(false);
  });
});
