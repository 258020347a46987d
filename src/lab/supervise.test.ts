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
  await it.ensure();
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

function plugged(name: string): ChildPlan {
  return { ...plan(name), host: 'h1' };
}

/** What happens to the host itself, written down. */
function powerStrip(off: readonly string[] = []) {
  const events: string[] = [];
  const note = (what: string) => async (host: string) => void events.push(`${what} ${host}`);
  return { events, cut: note('cut'), restore: note('restore'), isOff: (host: string) => off.includes(host) };
}

async function superviseHosts(power: ReturnType<typeof powerStrip>, ...children: ChildPlan[]): Promise<Supervisor> {
  // Nothing of ours ends processes here, so the test's own host does.
  const cut = async (host: string) => {
    await power.cut(host);
    for (const { pid, state } of supervisor?.status() ?? []) if (state === 'off' && pid !== null) process.kill(pid, 9);
  };
  const recordFile = join(directory, 'children.json');
  supervisor = new Supervisor({ children, recordFile, log: silentLog, power: { ...power, cut } });
  await supervisor.start();
  return supervisor;
}

const states = (of: Supervisor) => of.status().map(({ name, state }) => `${name} ${state}`);

it('starts nothing again on a host whose power is off, and all of it when it is on', async () => {
  const power = powerStrip();
  const it = await superviseHosts(power, plan('server'), plugged('h1'), plugged('h1-guard'));
  await it.ready(10_000);
  await it.power('h1', 'off');
  expect(states(it)).toEqual(['server running', 'h1 off', 'h1-guard off']);
  await it.power('h1', 'off');
  await it.power('h1', 'on');
  await it.ready(10_000);
  await it.power('h1', 'on');
  expect(states(it)).toEqual(['server running', 'h1 running', 'h1-guard running']);
  expect(power.events).toEqual(['cut h1', 'cut h1', 'restore h1']);
});

it('leaves a host off that was off before it came, until it is to ensure that all runs', async () => {
  const power = powerStrip(['h1']);
  const it = await superviseHosts(power, plan('server'), plugged('h1'));
  await it.ready(10_000);
  expect(states(it)).toEqual(['server running', 'h1 off']);
  await it.ensure();
  await it.ready(10_000);
  expect(states(it)).toEqual(['server running', 'h1 running']);
  expect(power.events).toEqual(['restore h1']);
});

it('knows no host of which nothing runs here', async () => {
  const it = await superviseHosts(powerStrip(), plugged('h1'));
  await expect(it.power('h9', 'off')).rejects.toThrow(/h9/);
});
