/** The client of the guest's agent against a scripted one: what gets lost, comes late, or is nonsense. */
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { GuestAgent, GuestAgentRefusal } from './guest-agent.ts';

type Command = { execute: string; arguments: Record<string, unknown> };

const { signal } = new AbortController();
let dir: string;
let server: Server;
let agent: GuestAgent;
const sockets = new Set<Socket>();
const heard: string[] = [];
/** Set by a test; undefined: no answer. A string is sent as it is. */
let answers: (command: Command) => object | string | undefined;

beforeEach(async () => {
  dir = mkdtempSync(join(tmpdir(), 'drover-qga-'));
  heard.length = 0;
  answers = () => ({ return: {} });
  server = createServer((socket) => {
    sockets.add(socket);
    socket.on('error', () => {});
    socket.on('data', (data) => {
      for (const line of data.toString('latin1').replaceAll('\u00ff', '').split('\n').filter(Boolean)) {
        const command = JSON.parse(line) as Command;
        heard.push(command.execute);
        const answer = answers(command);
        if (typeof answer === 'string') socket.write(answer, 'latin1');
        else if (command.execute === 'guest-sync-delimited')
          socket.write(`\u00ff${JSON.stringify({ return: command.arguments['id'] })}\n`, 'latin1');
        else if (answer) socket.write(`${JSON.stringify(answer)}\n`);
      }
    });
  });
  const path = join(dir, 's');
  await new Promise<void>((resolve) => server.listen(path, resolve));
  agent = new GuestAgent(path);
});

afterEach(async () => {
  agent.close();
  for (const socket of sockets) socket.destroy();
  await new Promise((resolve) => server.close(resolve));
  rmSync(dir, { recursive: true, force: true });
});

test('what an earlier client was answered is not taken for an answer', async () => {
  answers = ({ execute, arguments: { id } }) =>
    execute === 'guest-sync-delimited'
      ? `{"return": {"pid": 1}}\nhalf a li\u00ff${JSON.stringify({ return: id })}\n`
      : { return: { pid: 42 } };
  expect(await agent.exec('/bin/true', [], signal)).toBe(42);
});

test('one that is answered with another sync is not used', async () => {
  answers = ({ execute }) => (execute === 'guest-sync-delimited' ? '\u00ff{"return": 7}\n' : { return: { pid: 42 } });
  await expect(agent.exec('/bin/true', [], signal)).rejects.toThrow('answered 7 to sync');
});

test('a file comes in pieces, is cut at the limit, and is closed again', async () => {
  let reads = 0;
  answers = ({ execute }) => {
    if (execute === 'guest-file-open') return { return: 3 };
    if (execute === 'guest-file-read')
      return { return: { count: 4, 'buf-b64': Buffer.from(`abc${reads++}`).toString('base64'), eof: reads === 3 } };
    return { return: {} };
  };
  expect((await agent.readFile('/f', 100, signal))?.toString()).toBe('abc0abc1abc2');
  reads = 0;
  expect((await agent.readFile('/f', 6, signal))?.toString()).toBe('abc0ab');
  expect(heard.filter((command) => command === 'guest-file-close')).toHaveLength(2);
});

test('a file that is not there is no error, and every other refusal is one in the agent’s words', async () => {
  const refuse = (desc: string) => () => ({ error: { class: 'GenericError', desc } });
  answers = refuse("failed to open file '/x' (mode: 'r'): No such file or directory");
  expect(await agent.readFile('/x', 10, signal)).toBeNull();
  answers = refuse('Permission denied');
  await expect(agent.readFile('/x', 10, signal)).rejects.toThrow(GuestAgentRefusal);
  // It has answered: the connection is as good as before.
  answers = () => ({ return: { exited: true, exitcode: 74 } });
  expect(await agent.execStatus(1, signal)).toEqual({ exited: true, exitCode: 74 });
  expect(sockets.size).toBeGreaterThan(0);
  expect(heard.filter((command) => command === 'guest-sync-delimited')).toHaveLength(1);
});

test('an answer that is too long, or none of its language, ends the connection and not this program', async () => {
  answers = ({ execute }) => (execute === 'guest-exec' ? 'x'.repeat(2 * 1024 * 1024) : undefined);
  await expect(agent.exec('/bin/true', [], signal)).rejects.toThrow('says too much');
  answers = ({ execute }) => (execute === 'guest-exec' ? 'no json\n' : undefined);
  await expect(agent.exec('/bin/true', [], signal)).rejects.toThrow('no JSON');
  answers = () => ({ return: { pid: 'seven' } });
  await expect(agent.exec('/bin/true', [], signal)).rejects.toThrow('no number');
  answers = () => ({ return: { pid: 7 } });
  expect(await agent.exec('/bin/true', [], signal)).toBe(7);
});

test('who gives up waiting is answered at once, and the next one is not given the late answer', async () => {
  const over = new AbortController();
  answers = ({ execute }) => {
    if (execute === 'guest-exec') setImmediate(() => over.abort(new Error('given up')));
    return undefined;
  };
  await expect(agent.exec('/bin/sleep', [], over.signal)).rejects.toThrow('given up');
  for (const socket of sockets) if (!socket.destroyed) socket.write('{"return": {"pid": 1}}\n');
  answers = () => ({ return: { pid: 2 } });
  expect(await agent.exec('/bin/true', [], signal)).toBe(2);
});

test('a guest that is gone is asked nothing more', async () => {
  await agent.exec('/bin/true', [], signal).catch(() => {});
  agent.close();
  await expect(agent.exec('/bin/true', [], signal)).rejects.toThrow('gone');
});
