/** The API as a client meets it. */
import { request as httpRequest } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { silentLog } from '../runtime/log.ts';
import { endpoints, eventView } from '../wire/endpoints.ts';
import type { DrainView } from '../wire/drains.ts';
import type { EventView, HostView, MigrationView, VmView } from '../wire/endpoints.ts';
import type { TaskView } from '../wire/tasks.ts';
import type { Problem } from '../wire/errors.ts';
import { readFleetFile } from '../wire/fleet.ts';
import { createClient } from '../wire/client.ts';
import { FakeFleet, settled, until } from './fake-fleet.ts';
import { createApi } from './server.ts';

const token = 'a-token-for-tests';
let fleet: FakeFleet;
let api: ReturnType<typeof createApi>;
let lines: string[];
beforeEach(async () => {
  fleet = await FakeFleet.start(['h1', 'h2']);
  lines = [];
  const log = { ...silentLog, error: (_: object, message: string) => void lines.push(message) };
  api = createApi({ plane: fleet.plane, token, log, checkReplies: true, batchMs: 0 });
});
afterEach(async () => {
  await api.close();
  await fleet.stopServer();
});

async function call(
  method: 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE',
  path: string,
  body?: unknown,
  headers: object = {},
) {
  const response = await api.inject({
    method,
    url: `/api/v1${path}`,
    headers: { authorization: `Bearer ${token}`, ...headers },
    ...(body === undefined ? {} : { body: body as object }),
  });
  return { status: response.statusCode, type: response.headers['content-type'], body: response.json<unknown>() };
}

const problem = (body: unknown) => body as Problem; // what the test then looks at says whether it is one

describe('every row of the table', () => {
  test('answers as its reply type says', async () => {
    await fleet.run('web1', 'h1');
    const ok = async (method: 'GET' | 'POST' | 'PUT' | 'DELETE', path: string, status: number, body?: unknown) => {
      const answer = await call(method, path, body);
      expect([path, answer.status, answer.body]).toEqual([path, status, expect.anything()]);
      return answer.body;
    };
    expect(await ok('GET', '/status', 200)).toMatchObject({ hosts: 2, vms: 1, openMigrations: 0, term: 1 });
    expect((await ok('GET', '/hosts', 200)) as HostView[]).toMatchObject([
      { name: 'h1', usedMiB: 512, vms: ['web1'], state: 'up' },
      { name: 'h2', usedMiB: 0 },
    ]);
    await ok('POST', '/hosts/h2/cordon', 200);
    expect(await ok('GET', '/hosts/h2', 200)).toMatchObject({ cordoned: true });
    expect(await ok('POST', '/hosts/h2/uncordon', 200)).toMatchObject({ cordoned: false });
    expect(await ok('POST', '/hosts/h1/drain', 202, { dryRun: true })).toMatchObject({ total: 1 });
    const drain = (await ok('POST', '/hosts/h2/drain', 202, { because: 'a test' })) as DrainView;
    expect(drain).toMatchObject({ state: 'draining', cordoned: true, total: 0, because: 'a test' });
    await ok('GET', `/drains/${drain.id}`, 200);
    expect(await ok('POST', '/hosts/h2/drain/cancel', 202)).toMatchObject({ state: 'cancelled', cordoned: false });
    expect(await ok('GET', '/hosts/h2/drain', 200)).toMatchObject({ id: drain.id });
    expect(await ok('POST', '/hosts/h2/undrain', 202, {})).toMatchObject({ state: 'returning' });
    expect(await ok('GET', '/drains?limit=1', 200)).toHaveLength(1);
    expect(await ok('GET', '/vms?host=h1', 200)).toHaveLength(1);
    expect(readFleetFile(JSON.stringify(await ok('GET', '/fleet/snapshot', 200)), 'answer')).toMatchObject({
      hosts: [{ name: 'h1', state: 'up' }, { name: 'h2' }],
      vms: [{ name: 'web1', host: 'h1', running: true, memoryMiB: 512, moving: false }],
    });
    expect(await ok('GET', '/vms/web1', 200)).toMatchObject({ state: 'running', host: 'h1' });
    expect(await ok('POST', '/vms', 201, { name: 'web2', diskMiB: 10, start: false })).toMatchObject({
      state: 'creating',
    });
    const move = (await ok('POST', '/vms/web1/migrate', 202, { to: 'h2', why: 'a test' })) as MigrationView;
    expect(move).toMatchObject({ phase: 'reserved', source: 'h1', target: 'h2', why: [{ text: 'a test' }] });
    expect(await ok('GET', '/migrations?open=true&vm=web1&limit=5', 200)).toHaveLength(1);
    expect(await ok('GET', '/migrations?open=false', 200)).toHaveLength(0);
    await ok('GET', `/migrations/${move.id}`, 200);
    expect(await ok('POST', `/migrations/${move.id}/cancel`, 202)).toMatchObject({ phase: 'cancelled', ended: true });
    const { measures } = (await ok('PUT', `/migrations/${move.id}/blackout`, 200, { blackoutMs: 7 })) as MigrationView;
    expect(measures.blackoutMs).toBe(7);
    expect(await ok('POST', '/vms/web1/stop', 202)).toMatchObject({ state: 'stopping' });
    await fleet.agent('h1').life(fleet.vm('web1').id, { kind: 'ended', how: 'stopped', message: '' });
    expect(await ok('POST', '/vms/web1/start', 202, {})).toMatchObject({ state: 'starting' });
    await fleet.agent('h1').life(fleet.vm('web1').id, {
      kind: 'start-failed',
      failure: { code: 'guest-start-failed', message: 'x', hint: '' },
    });
    expect(await ok('DELETE', '/vms/web1?disks=keep', 202)).toMatchObject({ deleting: 'web1' });
    const tasks = (await ok('POST', '/tasks', 201, { command: ['true'], count: 2, cpus: 0.5 })) as TaskView[];
    expect(tasks).toMatchObject([
      { state: 'queued', says: expect.stringContaining('waits: ') },
      { index: 1, cpus: 0.5 },
    ]);
    const [task] = tasks;
    expect(await ok('GET', '/tasks?state=open', 200)).toHaveLength(2);
    expect(await ok('GET', '/tasks?state=ended&limit=3', 200)).toEqual([]);
    await ok('GET', `/tasks/${task?.id}`, 200);
    await ok('GET', `/tasks/${task?.id}/output`, 409);
    expect(await ok('POST', `/tasks/${task?.id}/cancel`, 202)).toMatchObject({ state: 'cancelled', ended: true });
    await ok('GET', `/tasks/${task?.id}/output`, 404);
    expect(await ok('GET', '/doctor', 200)).toEqual(expect.any(Array));
    expect(lines).toEqual([]);
  });

  test('is served in the OpenAPI document', async () => {
    const { body } = await call('GET', '/openapi.json');
    expect(JSON.stringify(body)).toContain('"operationId":"migrateVm"');
  });
});

describe('a request that is wrong', () => {
  const wrong: readonly (readonly [string, 'GET' | 'POST' | 'DELETE', string, unknown, number, string, RegExp])[] = [
    ['malformed JSON', 'POST', '/vms', '{"name":', 400, 'invalid-input', /JSON/],
    ['an unknown field', 'POST', '/vms/web1/migrate', { too: 'h2' }, 400, 'unknown-field', /"too"/],
    ['an unknown field inside', 'POST', '/vms/web1/migrate', { policy: { x: 1 } }, 400, 'unknown-field', /policy: /],
    [
      'a negative limit',
      'POST',
      '/vms/web1/migrate',
      { policy: { maxDowntimeMs: -5 } },
      400,
      'invalid-input',
      /policy\.maxDowntimeMs: /,
    ],
    [
      'an absurd bandwidth',
      'POST',
      '/vms/web1/migrate',
      { policy: { maxBandwidthBytesPerSecond: 3 } },
      400,
      'invalid-input',
      /at least 1Mbit/,
    ],
    ['a missing field', 'POST', '/vms', {}, 400, 'invalid-input', /name: /],
    ['a task without a command', 'POST', '/tasks', { command: [] }, 400, 'invalid-input', /command: /],
    [
      'a task with a book for a command',
      'POST',
      '/tasks',
      { command: ['x'.repeat(9000)] },
      400,
      'invalid-input',
      /command: /,
    ],
    ['many long tasks', 'POST', '/tasks', { command: ['x'.repeat(8000)], count: 99 }, 400, 'invalid-input', /count: /],
    ['too many tasks at once', 'POST', '/tasks', { command: ['x'], count: 101 }, 400, 'invalid-input', /count: /],
    ['a body that is a list', 'POST', '/vms', [], 400, 'invalid-input', /expected object/],
    ['a body where none is taken', 'POST', '/hosts/h1/cordon', { a: 1 }, 400, 'unknown-field', /"a"/],
    ['an unknown query', 'GET', '/vms?hots=h1', undefined, 400, 'unknown-field', /"hots"/],
    ['a query where none is taken', 'GET', '/hosts?x=1', undefined, 400, 'unknown-field', /"x"/],
    ['an unknown host', 'GET', '/hosts/h9', undefined, 404, 'not-found', /'h9'/],
    ['an unknown path', 'GET', '/hots', undefined, 404, 'not-found', /GET \/api\/v1\/hots/],
    ['a console without an upgrade', 'GET', '/vms/web1/console', undefined, 400, 'invalid-input', /upgrade/],
    ['a move to the same host', 'POST', '/vms/web1/migrate', { to: 'h1' }, 422, 'same-host', /h1/],
    ['deleting what runs', 'DELETE', '/vms/web1', undefined, 409, 'wrong-state', /running/],
    ['removing a host that reports', 'DELETE', '/hosts/h2', undefined, 409, 'wrong-state', /reports/],
    ['removing a host with VMs', 'DELETE', '/hosts/h1', undefined, 409, 'busy', /web1/],
  ];
  test.each(wrong)('%s: %s %s', async (_, method, path, body, status, code, words) => {
    await fleet.run('web1', 'h1');
    const before = await fleet.dump();
    const json = typeof body === 'string' ? { 'content-type': 'application/json' } : {};
    const answer = await call(method, path, body, json);
    expect(answer).toMatchObject({ status, type: expect.stringContaining('application/problem+json') });
    expect(problem(answer.body)).toMatchObject({ status, code, detail: expect.stringMatching(words) });
    expect(problem(answer.body).hint).not.toBe('');
    expect(await fleet.dump()).toBe(before);
  });

  test('too large a body', async () => {
    const answer = await call('POST', '/vms', { name: 'x'.repeat(300_000) });
    expect(answer).toMatchObject({ status: 413, body: { code: 'too-large', status: 413 } });
  });

  test.each([[undefined], ['Bearer wrong'], ['Basic x'], [`Bearer ${token}x`]])(
    'with the authorization %s',
    async (given) => {
      for (const url of ['/api/v1/status', '/api/v1/nothing', '/api/v1/openapi.json']) {
        const response = await api.inject({ url, headers: given === undefined ? {} : { authorization: given } });
        expect([response.statusCode, response.json<Problem>().code]).toEqual([401, 'unauthorized']);
      }
    },
  );

  test('gets no inside view when the server fails, but the log does', async () => {
    fleet.plane.fleet.findHost = () => {
      throw new Error('secret of the inside');
    };
    const answer = await call('GET', '/hosts/h1');
    expect(answer.status).toBe(500);
    expect(JSON.stringify(answer.body)).not.toContain('secret');
    expect(lines).toEqual(['a request failed']);
  });
});

test('a dry run says what would be, refuses what would be refused, and changes nothing', async () => {
  await fleet.run('web1', 'h1');
  const before = await fleet.dump();
  const made = await call('POST', '/vms', { name: 'web2', diskMiB: 10, dryRun: true });
  expect(made).toMatchObject({ status: 201, body: { name: 'web2', host: 'h2', placedBecause: expect.any(String) } });
  expect(await call('POST', '/vms/web1/stop', { dryRun: true })).toMatchObject({ status: 202, body: { name: 'web1' } });
  expect(await call('POST', '/vms/web1/start', { dryRun: true })).toMatchObject({ status: 409 });
  expect(await call('DELETE', '/vms/web1?dryRun=true')).toMatchObject({ status: 409 });
  expect(await call('POST', '/hosts/h1/fenced', { because: 'x', dryRun: true })).toMatchObject({ status: 409 });
  expect(await fleet.dump()).toBe(before);
  expect(fleet.plane.fleet.plain('audit').size).toBe(0);
});

test('what can be changed has a version, and a change of an older one is refused', async () => {
  await fleet.run('web1', 'h1');
  for (const [path, body] of [
    ['/vms/web1', { priority: 7 }],
    ['/balance', { mode: 'shadow' }],
  ] as const) {
    const seen = async () =>
      (await api.inject({ url: `/api/v1${path}`, headers: { authorization: `Bearer ${token}` } })).headers['etag'];
    const tag = await seen();
    const change = () => call('PATCH', path, body, { 'if-match': String(tag) });
    expect([path, (await change()).status]).toEqual([path, 200]);
    expect([path, (await change()).status]).toEqual([path, 412]);
    expect((await call('PATCH', path, body, { 'if-match': `"x", ${await seen()}` })).status).toBe(200);
  }
});

test('a method that is not done somewhere is told what is', async () => {
  const response = await api.inject({
    method: 'PUT',
    url: '/api/v1/vms/web1',
    headers: { authorization: `Bearer ${token}` },
  });
  expect(response.json()).toMatchObject({ status: 405, code: 'method-not-allowed' });
  expect(response.headers['allow']).toBe('GET, PATCH, DELETE');
});

test('the same Idempotency-Key makes one VM', async () => {
  const make = () => call('POST', '/vms', { name: 'web2', diskMiB: 10 }, { 'idempotency-key': 'k-1' });
  const [one, two] = [await make(), await make()];
  expect([one.status, two.status]).toEqual([201, 201]);
  expect((two.body as VmView).id).toBe((one.body as VmView).id);
  expect((await call('POST', '/vms', { name: 'web3', diskMiB: 10 }, { 'idempotency-key': 'k-1' })).status).toBe(422);
  expect((await call('POST', '/vms', { name: 'web3', diskMiB: 10 }, { 'idempotency-key': 'no space' })).status).toBe(
    400,
  );
});

test('the same Idempotency-Key begins one drain, also when that is over', async () => {
  await fleet.run('web1', 'h1');
  const drain = () => call('POST', '/hosts/h1/drain', { because: 'x' }, { 'idempotency-key': 'd-1' });
  const first = (await drain()).body as DrainView;
  await call('POST', '/hosts/h1/drain/cancel');
  expect(await drain()).toMatchObject({ status: 202, body: { id: first.id, state: 'cancelled' } });
  expect(fleet.plane.fleet.drains.size).toBe(1);
});

describe('events', () => {
  interface Reader {
    readonly events: { id: string | null; event: EventView }[];
    readonly stop: AbortController;
    readonly done: Promise<void>;
  }
  let readers: Reader[] = [];
  afterEach(async () => {
    for (const { stop } of readers) stop.abort();
    await Promise.all(readers.map(({ done }) => done));
    readers = [];
  });

  async function read(options: { lastEventId?: string; migration?: string; samples?: boolean } = {}): Promise<Reader> {
    if (!api.server.listening) await api.listen({ host: '127.0.0.1', port: 0 });
    const { port } = api.server.address() as AddressInfo;
    const stop = new AbortController();
    const events: Reader['events'] = [];
    const open = Promise.withResolvers<void>();
    const client = createClient({ server: `http://127.0.0.1:${port}`, token });
    const done = (async () => {
      for await (const each of client.events({ ...options, signal: stop.signal, onOpen: open.resolve }))
        events.push(each);
    })().catch(open.reject);
    const reader = { events, stop, done };
    readers.push(reader);
    await open.promise;
    return reader;
  }
  const says = (reader: Reader) => reader.events.map(({ event }) => event.says);
  const heard = (reader: Reader, words: RegExp) =>
    until(`event ${words}`, () => reader.events.find(({ event }) => words.test(event.says)));

  test('tell of each change in words and with its revision', async () => {
    const reader = await read();
    await fleet.run('web1', 'h1');
    const { body } = await call('POST', '/vms/web1/migrate', { to: 'h2', technique: 'pre-copy' });
    const { id } = body as MigrationView;
    await fleet.agent('h2').move(fleet.migration(id).id, { kind: 'listening', endpoint: { address: 'a', port: 1 } });
    await fleet.agent('h1').move(fleet.migration(id).id, { kind: 'sending' });
    const told = await heard(reader, /warming-up, round 1/);
    expect(told.event.says).toBe(`${id} web1 h1 -> h2: warming-up, round 1`);
    expect(Number(told.id)).toBeGreaterThan(0);
    expect(says(reader)).toContain('vm web1: running on h1');
    expect(says(reader)).toContain('host h1: up, 512 of 7680 MiB in use');
    for (const { event } of reader.events) eventView.parse(event);
  });

  test('go on after the last one that was read', async () => {
    const reader = await read();
    await fleet.run('web1', 'h1');
    const last = await heard(reader, /vm web1: running/);
    reader.stop.abort();
    await fleet.run('web2', 'h2');
    const next = await read({ lastEventId: last.id ?? '' });
    await heard(next, /vm web2: running/);
    expect(says(next).some((text) => text.includes('web1'))).toBe(false);
    expect(says(next)).toContain('vm web2: starting on h2');
  });

  test('begin with the state of everything when the history is gone', async () => {
    await fleet.run('web1', 'h1');
    for (let i = 0; i < 5_100; i++) {
      await fleet.plane.fleet.change((draft) => {
        const host = fleet.plane.fleet.findHost('h1');
        draft.putHost({ ...host, labels: { i: String(i) } });
      });
    }
    const reader = await read({ lastEventId: '3' });
    await heard(reader, /vm web1: running on h1/);
    expect(reader.events.length).toBeLessThan(10);
    await fleet.run('web2', 'h2');
    await heard(reader, /vm web2: running/);
  });

  test('tell of VMs that were removed, by name', async () => {
    const { id } = await fleet.run('web1', 'h1');
    await fleet.agent('h1').life(id, { kind: 'ended', how: 'stopped', message: '' });
    const reader = await read();
    await fleet.plane.vms.remove('web1', 'keep');
    await fleet.agent('h1').life(id, { kind: 'removed' });
    expect((await heard(reader, /removed/)).event).toMatchObject({ type: 'vm-removed', id, name: 'web1' });
  });

  test('carry samples and alarms without an id, and only those of one migration when asked', async () => {
    await fleet.run('web1', 'h1');
    const { id } = (await call('POST', '/vms/web1/migrate', { to: 'h2' })).body as MigrationView;
    const all = await read();
    const one = await read({ migration: id });
    const quiet = await read({ migration: id, samples: false });
    const sample = {
      migration: fleet.migration(id).id,
      at: 1,
      phase: 'warming-up',
      round: 3,
      totalBytes: 1,
      remainingBytes: 1,
      sentBytes: 1,
      bandwidthBytesPerSecond: 1,
      dirtyBytesPerSecond: 1,
      downtimeLimitMs: 30,
      faults: 0,
      throttlePercent: 0,
    } as const;
    fleet.agent('h1').say({ type: 'sample', sample });
    await fleet.agent('h1').life(fleet.vm('web1').id, { kind: 'panicked' });
    await fleet.agent('h2').life(fleet.vm('web1').id, { kind: 'panicked' });
    expect(await heard(one, /round 3/)).toMatchObject({
      id: null,
      event: { type: 'sample', says: 'web1: warming-up, round 3' },
    });
    await heard(all, /panicked/);
    expect((await call('GET', `/migrations/${id}`)).body).toMatchObject({ sample: { round: 3 } });
    await call('POST', `/migrations/${id}/cancel`);
    await heard(quiet, /cancelled/);
    expect(quiet.events.map(({ event }) => event.type)).toEqual(['migration']);
    expect(one.events.every(({ event }) => event.type === 'sample' || event.type === 'migration')).toBe(true);
  });

  test('of a migration that is not there, or after an id that is none, are refused', async () => {
    await expect(read({ migration: 'mig_x' })).rejects.toMatchObject({ code: 'not-found' });
    await expect(read({ lastEventId: 'x' })).rejects.toMatchObject({ code: 'invalid-input' });
  });

  test('end when the server closes', async () => {
    const reader = await read();
    const closed = api.close();
    reader.stop.abort();
    await closed;
  });
});

describe('the console', () => {
  async function upgrade(
    path: string,
    headers: object = {},
  ): Promise<{ status: number; socket?: Socket; body: string }> {
    if (!api.server.listening) await api.listen({ host: '127.0.0.1', port: 0 });
    const { port } = api.server.address() as AddressInfo;
    const { promise, resolve, reject } = Promise.withResolvers<{ status: number; socket?: Socket; body: string }>();
    const asked = httpRequest({
      port,
      host: '127.0.0.1',
      path: `/api/v1${path}`,
      headers: { connection: 'Upgrade', upgrade: 'drover-console', authorization: `Bearer ${token}`, ...headers },
    });
    asked.on('upgrade', (response, socket: Socket) => resolve({ status: response.statusCode ?? 0, socket, body: '' }));
    asked.on('response', (response) => {
      let body = '';
      response.on('data', (chunk: Buffer) => (body += chunk.toString()));
      response.on('end', () => resolve({ status: response.statusCode ?? 0, body }));
    });
    asked.on('error', reject);
    asked.end();
    return promise;
  }

  test('carries bytes both ways, and tells the agent when it is closed', async () => {
    const vm = await fleet.run('web1', 'h1');
    const { status, socket } = await upgrade(endpoints.consoleVm.path.replace(':vm', 'web1'));
    expect(status).toBe(101);
    const h1 = fleet.agent('h1');
    const opened = await until('console opened', () => h1.consoles.find(({ type }) => type === 'console-open'));
    if (opened.type !== 'console-open' || !socket) throw new Error('not opened');
    expect(opened.vm).toBe(vm.id);
    let text = '';
    socket.on('data', (chunk: Buffer) => (text += chunk.toString('latin1')));
    h1.say({
      type: 'console-data',
      stream: opened.stream,
      data: Buffer.from('login: \xff', 'latin1').toString('base64'),
    });
    await until('the guest is read', () => text === 'login: \xff');
    socket.write('root\r');
    const typed = await until('the guest is typed to', () => h1.consoles.find(({ type }) => type === 'console-data'));
    expect(typed).toMatchObject({ data: Buffer.from('root\r').toString('base64') });
    socket.destroy();
    await until('console closed', () => h1.consoles.find(({ type }) => type === 'console-end'));
  });

  test('ends with a reason when the agent is gone', async () => {
    await fleet.run('web1', 'h1');
    const { socket } = await upgrade('/vms/web1/console');
    let text = '';
    let ended = false;
    socket?.on('data', (chunk: Buffer) => (text += chunk.toString()));
    socket?.on('end', () => (ended = true));
    fleet.agent('h1').channel?.close();
    await until('the console ends', () => ended);
    expect(text).toContain('h1 is not connected any more');
  });

  test.each([
    ['without a token', '/vms/web1/console', { authorization: '' }, 401, 'unauthorized'],
    ['of a VM that is not there', '/vms/nope/console', {}, 404, 'not-found'],
    ['at another path', '/vms', {}, 404, 'not-found'],
    ['by another protocol', '/vms/web1/console', { upgrade: 'websocket' }, 400, 'invalid-input'],
  ] as const)('%s is refused', async (_, path, headers, status, code) => {
    await fleet.run('web1', 'h1');
    const answer = await upgrade(path, headers);
    expect([answer.status, (JSON.parse(answer.body) as Problem).code]).toEqual([status, code]);
    await settled();
  });
});
