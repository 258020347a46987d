import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { silentLog } from '../runtime/log.ts';
import { commandLine, isAlive, processId } from './processes.ts';
import { askSupervisor, endRecorded, Supervisor, type ChildPlan } from './supervise.ts';

let directory: string;
let supervisor: Supervisor | undefined;

/** A child that says it is ready and then waits for ever, ignoring nothing. */
const waits = "console.log('ready for work'); setInterval(() => {}, 1000)";

function plan(name: string, script = waits): ChildPlan {
  return {
    name,
    command: process.execPath,
    args: ['-e', script, join(directory, name)],
    readyLine: 'ready for work',
    log: join(directory, `${name}.log`),
  };
}

async function supervise(...children: ChildPlan[]): Promise<Supervisor> {
  supervisor = new Supervisor({ children, recordFile: join(directory, 'children.json'), log: silentLog });
  await supervisor.start();
  return supervisor;
}

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'drover-supervise-'));
});
afterEach(async () => {
  await supervisor?.stop();
  supervisor = undefined;
  rmSync(directory, { recursive: true, force: true });
});

it('says that all are ready when each has said its line', async () => {
  const it = await supervise(plan('a'), plan('b'));
  await it.ready(10_000);
  expect(it.status().map(({ name, state, ready }) => ({ name, state, ready }))).toEqual([
    { name: 'a', state: 'running', ready: true },
    { name: 'b', state: 'running', ready: true },
  ]);
});

it('names who is not ready in time and where its log is', async () => {
  const it = await supervise(plan('mute', 'setInterval(() => {}, 1000)'));
  await expect(it.ready(50)).rejects.toThrow(/mute \(started 1 times, log: .*mute\.log\)/);
});

it('starts a child again that was killed', async () => {
  const it = await supervise(plan('a'));
  await it.ready(10_000);
  const before = it.status()[0]?.pid;
  await it.kill('a', 'restart');
  await it.ready(10_000);
  expect(it.status()[0]?.pid).not.toBe(before);
  expect(it.status()[0]?.starts).toBe(2);
});

it('leaves a child dead that is held, until everything shall run again', async () => {
  const it = await supervise(plan('a'), plan('b'));
  await it.ready(10_000);
  await it.kill('a', 'hold');
  await it.ready(10_000);
  expect(it.status()[0]).toMatchObject({ state: 'held', pid: null });
  it.ensure();
  await it.ready(10_000);
  expect(it.status()[0]).toMatchObject({ state: 'running', ready: true });
});

it('ends a frozen child, too', async () => {
  const it = await supervise(plan('a'));
  await it.ready(10_000);
  const id = processId(it.status()[0]?.pid ?? 0);
  it.freeze('a');
  expect(it.status()[0]?.state).toBe('frozen');
  await it.stop();
  expect(id && isAlive(id)).toBe(false);
});

it('answers over its socket, and refuses names it does not know', async () => {
  const it = await supervise(plan('a'));
  const socket = join(directory, 's.sock');
  await it.listen(socket);
  await expect(askSupervisor(socket, { do: 'ready', timeoutMs: 10_000 })).resolves.toMatchObject([{ ready: true }]);
  await expect(askSupervisor(socket, { do: 'freeze', name: 'z' })).rejects.toThrow(/nothing here is called z.*a/);
  await askSupervisor(socket, { do: 'stop' });
  expect(await askSupervisor(socket, { do: 'status' })).toBeUndefined();
});

it('finds and ends what a killed supervisor left, and nothing else', async () => {
  const it = await supervise(plan('a'));
  await it.ready(10_000);
  const pid = it.status()[0]?.pid ?? 0;
  expect(commandLine(pid).at(-1)).toBe(join(directory, 'a'));
  const id = processId(pid);
  // As seen by the next supervisor: only the record is left of the one before.
  await endRecorded(join(directory, 'children.json'));
  expect(id && isAlive(id)).toBe(false);
  await endRecorded(join(directory, 'no-such-file.json'));
});
