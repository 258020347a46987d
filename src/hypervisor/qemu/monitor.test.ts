import { mkdtempSync, rmSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import type { GuestEvent } from '../hypervisor.ts';
import { Monitor } from './monitor.ts';
import { connectQmp } from './qmp.ts';

/** As much of a QEMU as a monitor asks of one. */
let running: boolean;
let status: string | undefined;
let postCopyBytes: number;
let alive: boolean;
let server: Server;
let clients: Socket[];
let dir: string;
let path: string;

beforeEach(async () => {
  dir = mkdtempSync(join(tmpdir(), 'drover-monitor-'));
  path = join(dir, 'qmp.sock');
  [running, status, postCopyBytes, alive, clients] = [true, undefined, 0, true, []];
  server = createServer((socket) => {
    clients.push(socket);
    const say = (message: object) => socket.write(`${JSON.stringify(message)}\n`);
    say({ QMP: { version: { qemu: { major: 10, minor: 0, micro: 2 }, package: '' }, capabilities: ['oob'] } });
    socket.on('error', () => {});
    socket.on('data', (chunk) => {
      for (const line of chunk.toString().split('\n').filter(Boolean)) {
        const { execute, id } = JSON.parse(line) as { execute: string; id: number };
        const answers: Record<string, unknown> = {
          'query-commands': [],
          'query-status': { running, status: running ? 'running' : 'paused' },
          'query-migrate': status === undefined ? {} : { status, ram: { 'postcopy-bytes': postCopyBytes } },
        };
        say({ return: answers[execute] ?? {}, id });
      }
    });
  });
  await new Promise<void>((resolve) => server.listen(path, resolve));
});
afterEach(() => {
  alive = false;
  for (const client of clients) client.destroy();
  server.close();
  rmSync(dir, { recursive: true, force: true });
});

const emit = (event: string, data: object = {}) =>
  clients.at(-1)?.write(`${JSON.stringify({ event, data, timestamp: { seconds: 1, microseconds: 0 } })}\n`);
const words = (event: GuestEvent) => (event.kind === 'transfer' ? event.state.kind : event.kind);

async function open() {
  const monitor = new Monitor({ paths: [path], isAlive: () => alive, connection: await connectQmp({ path }) });
  const heard: string[] = [];
  const listening = (async () => {
    for await (const event of monitor.events(new AbortController().signal)) heard.push(words(event));
  })();
  return { monitor, heard, listening };
}

test('a monitor whose connection breaks is connected again, and tells what happened meanwhile', async () => {
  const { monitor, heard } = await open();
  emit('MIGRATION', { status: 'active' });
  emit('STOP');
  emit('RESUME');
  await expect.poll(() => heard).toEqual(['sending', 'stopped', 'resumed']);
  [running, status] = [false, 'completed'];
  clients.at(-1)?.destroy();
  await expect.poll(() => heard.slice(3)).toEqual(['stopped', 'completed']);
  await monitor.execute('cont');
  emit('RESUME');
  await expect.poll(() => heard.at(-1)).toBe('resumed');
});

test('a transfer that went through post-copy meanwhile is not taken for one that did not', async () => {
  const { heard } = await open();
  emit('STOP');
  emit('MIGRATION', { status: 'device' });
  await expect.poll(() => heard).toEqual(['stopped', 'switching']);
  [running, status, postCopyBytes] = [false, 'completed', 4096];
  clients.at(-1)?.destroy();
  await expect.poll(() => heard.slice(2)).toEqual(['post-copy', 'completed']);
});

test('a monitor says nothing of what it had told before, and ends with its process', async () => {
  const { monitor, heard, listening } = await open();
  emit('MIGRATION', { status: 'active' });
  await expect.poll(() => heard).toEqual(['sending']);
  status = 'active';
  clients.at(-1)?.destroy();
  await expect.poll(() => clients.length).toBe(2);
  await expect.poll(() => monitor.execute('query-status').catch(() => undefined)).toBeDefined();
  alive = false;
  clients.at(-1)?.destroy();
  await listening;
  await monitor.over;
  expect(heard).toEqual(['sending']);
  await expect(async () => monitor.execute('cont')).rejects.toThrow();
});
