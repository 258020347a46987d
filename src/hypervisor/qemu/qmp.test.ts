// The client against recorded conversations (a fake QEMU on a real socket), against misbehaviour no recording has, and
// against a real QEMU where one is found. No guest system is needed: the machine stays at its first instruction.

import { execFileSync, spawn, spawnSync } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, readdirSync, rmSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { createServer } from 'node:net';
import type { Server, Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';

import { afterEach, beforeEach, describe, expect, test } from 'vitest';

import { locateQemu } from './locate.ts';
import { QmpCommandError, QmpDisconnected, QmpNotSent, QmpTimeout } from './qmp-errors.ts';
import type { QmpEvent } from './qmp-events.ts';
import { connectQmp } from './qmp.ts';
import type { QmpConnection } from './qmp.ts';

let directory: string;
let cleanUp: (() => void)[];
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'drover-qmp-'));
  cleanUp = [() => rmSync(directory, { recursive: true })];
});
afterEach(() => {
  for (const undo of cleanUp.toReversed()) undo();
});

// --- fakes

const greeting =
  '{"QMP": {"version": {"qemu": {"micro": 2, "minor": 0, "major": 10}, "package": ""}, "capabilities": ["oob"]}}\r\n';

type Message = Record<string, unknown> & { id: number };

/** A QEMU of our making: `onMessage` answers each message; the handshake is answered here. */
async function fakeQemu(
  onMessage: (message: Message, socket: Socket) => void,
  hello: string = greeting,
): Promise<string> {
  return serve((socket) => {
    socket.write(hello);
    createInterface({ input: socket }).on('line', (line) => {
      const message: Message = JSON.parse(line);
      if (message['execute'] === 'qmp_capabilities') socket.write(`{"return": {}, "id": ${message.id}}\r\n`);
      else if (message['execute'] === 'query-commands') {
        socket.write(`{"return": [{"name": "query-status"}, {"name": "cont"}], "id": ${message.id}}\r\n`);
      } else onMessage(message, socket);
    });
  });
}

async function serve(onSocket: (socket: Socket) => void): Promise<string> {
  const path = join(directory, 'fake');
  const sockets = new Set<Socket>();
  const server: Server = createServer((socket) => {
    sockets.add(socket);
    socket.on('error', () => undefined); // the client may leave while we write
    onSocket(socket);
  });
  server.listen(path);
  await once(server, 'listening');
  cleanUp.push(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  return path;
}

/** Plays QEMU's side of a recording, and holds the client to its own. */
async function replay(name: string): Promise<{ path: string; done: Promise<void> }> {
  const lines = readFileSync(new URL(`fixtures/${name}.ndjson`, import.meta.url), 'utf8')
    .trim()
    .split('\n')
    .map((line): { from: 'client' | 'qemu'; text: string } => JSON.parse(line));
  const { promise: done, resolve, reject } = Promise.withResolvers<void>();
  done.catch(() => undefined);
  const path = await serve((socket) => {
    let at = 0;
    const play = (): void => {
      for (; lines[at]?.from === 'qemu'; at += 1) socket.write(`${lines[at]?.text}\r\n`);
      if (at < lines.length) return;
      socket.end();
      resolve();
    };
    createInterface({ input: socket }).on('line', (text) => {
      const expected = lines[at]?.text ?? 'the end';
      at += 1;
      if (text !== expected) reject(new Error(`the client said ${text} where ${expected} was recorded`));
      play();
    });
    play();
  });
  return { path, done };
}

async function connect(path: string): Promise<QmpConnection> {
  const qmp = await connectQmp({ path });
  cleanUp.push(() => qmp.close());
  return qmp;
}

async function take(events: AsyncIterable<QmpEvent>, wanted: (event: QmpEvent) => boolean): Promise<QmpEvent[]> {
  const seen: QmpEvent[] = [];
  for await (const event of events) {
    seen.push(event);
    if (wanted(event)) return seen;
  }
  throw new Error(`the events ended after ${seen.map((event) => event.name).join(', ')}`);
}

async function all(events: AsyncIterable<QmpEvent>): Promise<QmpEvent[]> {
  const seen: QmpEvent[] = [];
  for await (const event of events) seen.push(event);
  return seen;
}

function failure<E extends Error>(promise: Promise<unknown>, kind: new (...args: never[]) => E): Promise<E> {
  return promise.then(
    () => {
      throw new Error('it did not fail');
    },
    (error: unknown) => {
      if (error instanceof kind) return error;
      throw error;
    },
  );
}

// --- recorded

for (const version of ['10.0', '7.2']) {
  describe(`QEMU ${version}, recorded`, () => {
    test('a conversation with answers, a refusal, events and the end goes as recorded', async () => {
      const { path, done } = await replay(`attach-${version}`);
      const qmp = await connect(path);
      expect(`${qmp.version.major}.${qmp.version.minor}`).toBe(version);
      expect(qmp.oob).toBe(true);
      expect(qmp.supports('migrate-recover')).toBe(true);
      expect(qmp.supports('no-such-command')).toBe(false);
      const events = all(qmp.events());

      expect(await qmp.execute('query-status')).toMatchObject({ status: 'prelaunch', running: false });
      const capabilities = await qmp.execute('query-migrate-capabilities');
      expect(capabilities).toContainEqual({ capability: 'postcopy-ram', state: false });
      const refusal = await failure(qmp.execute('device_del', { id: 'nothing' }), QmpCommandError);
      expect(refusal).toMatchObject({ command: 'device_del', class: 'DeviceNotFound', path });
      expect(refusal.message).toContain("Device 'nothing' not found");
      await qmp.execute('cont');
      await qmp.execute('stop');
      expect(await qmp.executeOob('query-yank')).toEqual([{ type: 'chardev', id: 'compat_monitor0' }]);
      await qmp.execute('quit');
      await done;
      expect(await qmp.closed).toEqual({ kind: 'qemu-gone' });
      expect((await events).map((event) => event.name)).toEqual(['RESUME', 'STOP', 'SHUTDOWN']);
    });

    test('a migration tells its states and passes in order', async () => {
      const { path } = await replay(`migrate-${version}`);
      const qmp = await connect(path);
      const events = qmp.events();
      await qmp.execute('migrate-set-capabilities', { capabilities: [{ capability: 'events', state: true }] });
      await qmp.execute('migrate-set-parameters', { 'downtime-limit': 30 });
      await qmp.execute('migrate', { uri: 'exec:cat >/dev/null' });
      const seen = await take(events, (event) => event.name === 'MIGRATION' && event.data.status === 'completed');
      const states = seen.flatMap((event) => (event.name === 'MIGRATION' ? [event.data.status] : []));
      expect(states).toEqual(
        version === '10.0' ? ['setup', 'active', 'device', 'completed'] : ['setup', 'active', 'completed'],
      );
      expect(seen.flatMap((event) => (event.name === 'MIGRATION_PASS' ? [event.data.pass] : []))).toEqual([1, 2]);
      expect((await qmp.execute('query-migrate')).status).toBe('completed');
    });
  });
}

// --- what no recording has

describe('the stream', () => {
  test('answers arrive whole however they are cut, also inside a character', async () => {
    const path = await fakeQemu((message, socket) => {
      const bytes = Buffer.from(`{"return": {"status": "läuft"}, "id": ${message.id}}\r\n`);
      const cut = bytes.indexOf(0xc3) + 1;
      socket.write(bytes.subarray(0, cut));
      setImmediate(() => socket.write(bytes.subarray(cut)));
    });
    const qmp = await connect(path);
    expect(await qmp.execute('query-status')).toEqual({ status: 'läuft' });
  });

  test('several messages in one chunk are all taken, in order', async () => {
    const path = await fakeQemu((message, socket) => {
      const event = (name: string) => `{"event": "${name}", "timestamp": {"seconds": 7, "microseconds": 1500}}\r\n`;
      socket.write(
        `${event('STOP')}\r\n${event('SOME_NEW_EVENT')}{"return": {}, "id": ${message.id}}\r\n${event('RESUME')}`,
      );
    });
    const qmp = await connect(path);
    const events = qmp.events();
    await qmp.execute('cont');
    const seen = await take(events, (event) => event.name === 'RESUME');
    expect(seen).toMatchObject([
      { name: 'STOP', qemuTimeMs: 7001.5 },
      { name: 'other', event: 'SOME_NEW_EVENT', data: {} },
      { name: 'RESUME' },
    ]);
  });

  test('an answer of 20 MB comes through', async () => {
    const path = await fakeQemu((message, socket) => {
      socket.write(`{"return": {"status": "${'x'.repeat(20_000_000)}"}, "id": ${message.id}}\r\n`);
    });
    const qmp = await connect(path);
    expect((await qmp.execute('query-status')).status).toHaveLength(20_000_000);
  });

  test.each([
    ['a line that is no JSON', 'Segmentation fault\r\n'],
    ['a JSON value that is no object', '42\r\n'],
    ['an answer to nothing', '{"return": {}, "id": 4711}\r\n'],
    ['an error without id', '{"error": {"class": "GenericError", "desc": "JSON parse error"}}\r\n'],
  ])('%s closes the connection as a protocol error, and the pending command says so', async (_, junk) => {
    const path = await fakeQemu((_message, socket) => socket.write(junk));
    const qmp = await connect(path);
    const error = await failure(qmp.execute('query-status'), QmpDisconnected);
    expect(error).toMatchObject({ command: 'query-status', reason: { kind: 'protocol-error' } });
    expect(await qmp.closed).toMatchObject({ kind: 'protocol-error', detail: expect.stringContaining(junk.trim()) });
  });

  test('something that is no QEMU is told by its greeting', async () => {
    const path = await fakeQemu(() => undefined, 'SSH-2.0-OpenSSH_9.2\r\n');
    const error = await failure(connectQmp({ path }), QmpDisconnected);
    expect(error.reason.kind).toBe('protocol-error');
  });
});

describe('deadlines', () => {
  test('a late answer is dropped and the connection stays usable', async () => {
    const held: (() => void)[] = [];
    const path = await fakeQemu((message, socket) => {
      const answer = (status: string) => socket.write(`{"return": {"status": "${status}"}, "id": ${message.id}}\r\n`);
      if (held.length === 0) held.push(() => answer('late'));
      else {
        held[0]?.();
        answer('in time');
      }
    });
    const qmp = await connect(path);
    const error = await failure(qmp.execute('query-status', {}, { timeoutMs: 20 }), QmpTimeout);
    expect(error).toMatchObject({ command: 'query-status', timeoutMs: 20, sent: true });
    expect(await qmp.execute('query-status')).toEqual({ status: 'in time' });
  });

  test('at most six ordinary commands are on their way, so that QEMU goes on reading the emergency ones', async () => {
    const got: string[] = [];
    const unanswered: number[] = [];
    const path = await fakeQemu((message, socket) => {
      got.push(String(message['execute'] ?? message['exec-oob']));
      if ('exec-oob' in message) socket.write(`{"return": [], "id": ${message.id}}\r\n`);
      else if (message['execute'] === 'query-status') unanswered.push(message.id);
      else socket.write(`{"return": {}, "id": ${message.id}}\r\n`);
      if (message['execute'] === 'cont') return;
      if (unanswered.length === 6 && got.includes('query-yank')) {
        for (const id of unanswered) socket.write(`{"return": {}, "id": ${id}}\r\n`);
      }
    });
    const qmp = await connect(path);
    const hung = Array.from({ length: 6 }, () =>
      failure(qmp.execute('query-status', {}, { timeoutMs: 30 }), QmpTimeout),
    );
    const seventh = await failure(qmp.execute('cont', {}, { timeoutMs: 30 }), QmpTimeout);
    expect(seventh.sent).toBe(false);
    for (const error of await Promise.all(hung)) expect(error.sent).toBe(true);

    const eighth = qmp.execute('cont');
    await qmp.executeOob('query-yank');
    await eighth; // its turn came when the late answers did
    expect(got).toEqual([...Array.from({ length: 6 }, () => 'query-status'), 'query-yank', 'cont']);
  });

  test('a caller that keeps asking a hung QEMU is stopped at a limit', async () => {
    const path = await fakeQemu(() => undefined);
    const qmp = await connect(path);
    const asked = Array.from({ length: 6 + 256 }, () => failure(qmp.execute('query-status'), QmpDisconnected));
    expect((await failure(qmp.execute('query-status'), QmpNotSent)).why).toBe('too-many-waiting');
    qmp.close();
    await Promise.all(asked);
  });

  test('a signal ends a command with its reason, and connecting too', async () => {
    const path = await fakeQemu(() => undefined);
    const qmp = await connect(path);
    const stop = new AbortController();
    const asked = failure(qmp.execute('query-status', {}, { signal: stop.signal }), RangeError);
    stop.abort(new RangeError('enough'));
    expect((await asked).message).toBe('enough');
    await expect(connectQmp({ path, signal: stop.signal })).rejects.toThrow('enough');
  });

  test('a QEMU without out-of-band commands is still driven, and refuses only those', async () => {
    const path = await fakeQemu(
      (message, socket) => socket.write(`{"return": {}, "id": ${message.id}}\r\n`),
      greeting.replace('"oob"', ''),
    );
    const qmp = await connect(path);
    expect(qmp.oob).toBe(false);
    await qmp.execute('cont');
    expect((await failure(qmp.executeOob('query-yank'), QmpNotSent)).why).toBe('no-out-of-band');
  });
});

describe('events', () => {
  test('a slow consumer loses the oldest and is told how many; a quick one loses none', async () => {
    const path = await fakeQemu((message, socket) => {
      for (let pass = 1; pass <= 10; pass += 1) {
        socket.write(
          `{"event": "MIGRATION_PASS", "data": {"pass": ${pass}}, "timestamp": {"seconds": 1, "microseconds": 0}}\r\n`,
        );
      }
      socket.write(`{"return": {}, "id": ${message.id}}\r\n`);
    });
    const qmp = await connect(path);
    const slow = qmp.events({ limit: 3 });
    const quick = qmp.events();
    await qmp.execute('cont');
    qmp.close();
    expect(
      (await all(slow)).map((event) =>
        event.name === 'lost' ? event.count : event.name === 'MIGRATION_PASS' && -event.data.pass,
      ),
    ).toEqual([7, -8, -9, -10]);
    expect(await all(quick)).toHaveLength(10);
  });

  test('leaving the loop or aborting ends one consumer and no other', async () => {
    const path = await fakeQemu((message, socket) => {
      socket.write(
        `{"event": "STOP", "timestamp": {"seconds": 1, "microseconds": 0}}\r\n{"return": {}, "id": ${message.id}}\r\n`,
      );
    });
    const qmp = await connect(path);
    const stop = new AbortController();
    const left = qmp.events();
    const aborted = all(qmp.events({ signal: stop.signal }));
    const staying = qmp.events();
    await qmp.execute('cont');
    await take(left, (event) => event.name === 'STOP');
    expect(await left.next()).toEqual({ done: true, value: undefined });
    stop.abort();
    expect(await aborted).toHaveLength(1);
    await qmp.execute('cont');
    expect(await staying.next()).toMatchObject({ value: { name: 'STOP' } });
    expect(await staying.next()).toMatchObject({ value: { name: 'STOP' } });
  });
});

test('a socket that is not there, and one that a killed QEMU left, are told apart', async () => {
  const nowhere = await failure(connectQmp({ path: join(directory, 'nowhere') }), QmpDisconnected);
  expect(nowhere.message).toContain('no such socket');
  expect(nowhere.cause).toMatchObject({ code: 'ENOENT' });
  const left = join(directory, 'left');
  spawnSync(process.execPath, [
    '-e',
    `require('node:net').createServer().listen('${left}', () => process.kill(process.pid, 'SIGKILL'))`,
  ]);
  expect((await failure(connectQmp({ path: left }), QmpDisconnected)).message).toContain('nobody listens');
});

// --- real

const repoRoot = new URL('../../..', import.meta.url).pathname;
const qemu = await locateQemu({ env: process.env, repoRoot });
if (!qemu.ok) process.stderr.write(`qmp.test.ts: tests with a real QEMU are left out: ${qemu.reason}\n`);

async function startQemu(): Promise<{ path: string; process: ChildProcess; qmp: QmpConnection }> {
  if (!qemu.ok) throw new Error(qemu.reason);
  const path = join(directory, 'qmp');
  const started = spawn(
    qemu.binary,
    [...qemu.libArgs, '-machine', 'q35', '-accel', 'tcg', '-m', '16', '-nodefaults', '-display', 'none', '-S'].concat([
      '-qmp',
      `unix:${path},server=on,wait=off`,
    ]),
    { stdio: ['ignore', 'ignore', 'inherit'], env: { ...process.env, ...qemu.env } },
  );
  cleanUp.push(() => started.kill('SIGKILL'));
  for (let tries = 0; ; tries += 1) {
    try {
      return { path, process: started, qmp: await connect(path) };
    } catch (error) {
      // Not there yet, or there and not listened on yet.
      if (!(error instanceof QmpDisconnected) || tries === 400) throw error;
      await sleep(25);
    }
  }
}

/** Stops the process and waits until each of its threads stands still: the signal alone returns before that. */
async function freeze(child: ChildProcess): Promise<void> {
  child.kill('SIGSTOP');
  const tasks = `/proc/${child.pid}/task`;
  const running = (): boolean =>
    readdirSync(tasks).some((task) => !/\) T /.test(readFileSync(join(tasks, task, 'stat'), 'utf8')));
  for (let tries = 0; running(); tries += 1) {
    if (tries === 400) throw new Error('the process does not stop');
    await sleep(5);
  }
}

describe.skipIf(!qemu.ok)('a real QEMU', () => {
  test('greets, answers, refuses, and tells stop and cont with times of both sides', async () => {
    const { qmp } = await startQemu();
    if (qemu.ok) expect(qmp.version).toMatchObject(qemu.version);
    expect(qmp.supports('migrate')).toBe(true);
    expect(await qmp.execute('query-status')).toMatchObject({ running: false, status: 'prelaunch' });
    expect(await failure(qmp.execute('device_del', { id: 'none' }), QmpCommandError)).toMatchObject({
      class: 'DeviceNotFound',
    });
    const events = qmp.events();
    await qmp.execute('cont');
    await qmp.execute('stop');
    const seen = await take(events, (event) => event.name === 'STOP');
    expect(seen.map((event) => event.name)).toEqual(['RESUME', 'STOP']);
    for (const event of seen) {
      if (event.name === 'lost') throw new Error('lost');
      expect(Math.abs(event.receivedTimeMs - event.qemuTimeMs)).toBeLessThan(5_000);
      expect(event.receivedMonotonicMs).toBeLessThanOrEqual(performance.now());
    }
  });

  test('a second client gets no greeting, is told why, and is served when the first has left', async () => {
    const { path, qmp: first } = await startQemu();
    const error = await failure(connectQmp({ path, timeoutMs: 200 }), QmpTimeout);
    expect(error).toMatchObject({ command: 'greeting', sent: false });
    expect(error.message).toContain('another client holds this socket');
    first.close();
    expect(await first.closed).toEqual({ kind: 'closed-here' });
    const second = await connect(path);
    expect(await second.execute('query-status')).toMatchObject({ running: false });
  });

  test('a stopped process runs into the deadline; continued, it answers again and its late answer is dropped', async () => {
    const { process: child, qmp } = await startQemu();
    await freeze(child);
    const error = await failure(qmp.execute('query-status', {}, { timeoutMs: 100 }), QmpTimeout);
    expect(error.sent).toBe(true);
    child.kill('SIGCONT');
    expect(await qmp.execute('query-name')).toEqual({});
  });

  test('while the main loop hangs, ordinary commands run into deadlines and emergency ones are answered', async () => {
    const { qmp } = await startQemu();
    // Writing to a pipe that nobody reads blocks in open(), inside the main loop.
    const pipe = join(directory, 'pipe');
    execFileSync('/usr/bin/mkfifo', [pipe]);
    const hang = qmp.execute('human-monitor-command', { 'command-line': `pmemsave 0 4096 "${pipe}"` });
    const asked = Array.from({ length: 20 }, () =>
      failure(qmp.execute('query-status', {}, { timeoutMs: 100 }), QmpTimeout),
    );
    const sent = (await Promise.all(asked)).filter((error) => error.sent);
    expect(sent).toHaveLength(5);
    expect(await qmp.executeOob('query-yank')).toEqual([{ type: 'chardev', id: 'compat_monitor0' }]);

    const reader = await open(pipe, 'r');
    expect(await hang).toBe('');
    await reader.close();
    expect(await qmp.execute('query-status')).toMatchObject({ running: false });
  });

  test('killed, it ends the pending commands, the events and the connection', async () => {
    const { path, process: child, qmp } = await startQemu();
    const events = all(qmp.events());
    await freeze(child); // so that the command is pending for certain
    const pending = failure(qmp.execute('query-status'), QmpDisconnected);
    const emergency = failure(qmp.executeOob('query-yank'), QmpDisconnected);
    const exited = once(child, 'exit');
    child.kill('SIGKILL');
    expect(await pending).toMatchObject({ command: 'query-status', reason: { kind: 'qemu-gone' } });
    expect(await emergency).toMatchObject({ command: 'query-yank' });
    expect(await events).toEqual([]);
    expect((await qmp.closed).kind).toBe('qemu-gone');
    expect(await failure(qmp.execute('cont'), QmpDisconnected)).toMatchObject({ command: 'cont' });
    await exited; // a dying process may close its connections before it closes the socket it listens on
    expect((await failure(connectQmp({ path }), QmpDisconnected)).message).toContain('nobody listens');
  });
});
