/**
 * Every operation of the table, asked of a real server over HTTP on simulated hosts: each succeeds, and its answer is what the
 * OpenAPI document says. What was answered becomes the document's examples (vitest -u writes them anew).
 */
import type { AddressInfo } from 'node:net';
import { Validator } from '@seriousme/openapi-schema-validator';
import { Ajv2020, type ValidateFunction } from 'ajv/dist/2020.js';
import { afterEach, beforeEach, expect, test } from 'vitest';
import type { GuestLoad } from '../model/host.ts';
import type { Migration } from '../model/migration.ts';
import type { TaskFact } from '../model/task.ts';
import { silentLog } from '../runtime/log.ts';
import { endpoints, type Endpoint, type EndpointName } from '../wire/endpoints.ts';
import { exampleRequests } from '../wire/examples.ts';
import { openApiDocument } from '../wire/openapi.ts';
import { FakeFleet, settled } from './fake-fleet.ts';
import { createApi } from './server.ts';

const bootstrap = 'a-token-for-tests';
const bmc = '10.9.0.3';
let fleet: FakeFleet;
let api: ReturnType<typeof createApi>;
let address: string;
let replies: Partial<Record<EndpointName, unknown>>;
const busy: Record<string, number> = { web1: 1.5, web2: 1.2, web3: 0.9 };

beforeEach(async () => {
  fleet = new FakeFleet();
  fleet.post = async () => ({ status: 204 });
  fleet.guestLoad = (name): GuestLoad => ({
    cpuCores: busy[name] ?? 0,
    memoryResidentMiB: 200,
    diskReadBytesPerSecond: 0,
    diskWriteBytesPerSecond: 0,
    netReceiveBytesPerSecond: 0,
    netSendBytesPerSecond: 0,
  });
  await fleet.startServer();
  for (const name of ['h1', 'h2', 'h3', 'h4']) await fleet.join(name);
  fleet.bmcs.power.set(bmc, 'on');
  api = createApi({ plane: fleet.plane, token: bootstrap, log: silentLog, checkReplies: true, batchMs: 0 });
  await api.listen({ host: '127.0.0.1', port: 0 });
  address = `http://127.0.0.1:${(api.server.address() as AddressInfo).port}`;
  replies = {};
});
afterEach(async () => {
  await api.close();
  await fleet.stopServer();
});

const document = openApiDocument('0.0.0');
const ajv = new Ajv2020({ strict: false, allErrors: true });
ajv.addSchema({ $id: 'document', ...document });

function validatorOf({ method, path }: Endpoint, status: number, type: string): ValidateFunction {
  const escaped = (text: string): string => encodeURIComponent(text.replaceAll('~', '~0').replaceAll('/', '~1'));
  const words = ['paths', path.replace(/:(\w+)/g, '{$1}'), method.toLowerCase(), 'responses', String(status)];
  return ajv.compile({ $ref: `document#/${[...words, 'content', type, 'schema'].map(escaped).join('/')}` });
}

/** The newest there is of its kind. */
function idOf(kind: string): string {
  const { fleet: records } = fleet.plane;
  const ids: Record<string, Iterable<string>> = {
    migration: records.migrations.keys(),
    recovery: records.recoveries.keys(),
    drain: records.drains.keys(),
    task: records.tasks.keys(),
    plan: records.plans.keys(),
    webhook: records.plain('webhook').keys(),
  };
  return [...(ids[kind] ?? [])].at(-1) ?? 'nothing';
}

/** Waits for an answer and lets the fleet's time pass meanwhile. */
async function answered<T>(promise: Promise<T>): Promise<T> {
  let isOver = false;
  void promise.finally(() => (isOver = true)).catch(() => {});
  for (let turn = 0; !isOver && turn < 500; turn++) await settled();
  while (!isOver) await fleet.pass(500);
  return promise;
}

async function send(name: EndpointName, headers: Record<string, string>): Promise<Response> {
  const endpoint: Endpoint = endpoints[name];
  const { params = {}, query = {}, body } = exampleRequests[name];
  const path = endpoint.path.replace(/:(\w+)/g, (_, key: string) => {
    const value = params[key] ?? '';
    return encodeURIComponent(/^~.*~$/.test(value) ? idOf(value.slice(1, -1)) : value);
  });
  const search = new URLSearchParams(
    Object.entries(query).map(([key, value]): [string, string] => [key, String(value)]),
  );
  return fetch(`${address}/api/v1${path}${search.size > 0 ? `?${search.toString()}` : ''}`, {
    method: endpoint.method,
    headers: { ...headers, ...(body === undefined ? {} : { 'content-type': 'application/json' }) },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  });
}

/** Asks as the example says; the answer is a success and as documented. */
async function ask(name: EndpointName, headers: Record<string, string> = {}) {
  const endpoint: Endpoint = endpoints[name];
  const own = { authorization: `Bearer ${bootstrap}`, ...headers };
  const response = await answered(send(name, own));
  const body: unknown = await response.json();
  expect([name, response.status, body]).toEqual([name, endpoint.status ?? 200, expect.anything()]);
  const validate = validatorOf(endpoint, response.status, 'application/json');
  expect([name, validate(body), validate.errors ?? []]).toEqual([name, true, []]);
  replies[name] ??= body;
  return { body, headers: response.headers };
}

async function stop(name: string): Promise<void> {
  const { id, host } = fleet.vm(name);
  const agent = fleet.agent(fleet.plane.fleet.hostName(host));
  agent.guests = agent.guests.filter(({ vm }) => vm !== id);
  await agent.life(id, { kind: 'ended', how: 'stopped', message: '' });
}

const newest = (): Migration => fleet.migration(idOf('migration'));
const sourceOf = ({ source }: Migration) => fleet.agent(fleet.plane.fleet.hostName(source));
const targetOf = ({ target }: Migration) => fleet.agent(fleet.plane.fleet.hostName(target));

async function complete(migration: Migration): Promise<void> {
  const [source, target] = [sourceOf(migration), targetOf(migration)];
  await target.move(migration.id, { kind: 'listening', endpoint: { address: '10.0.1.2', port: 4444 } });
  await source.move(migration.id, { kind: 'sending' });
  await source.move(migration.id, { kind: 'stopped', for: 'stop-and-copy' });
  await source.move(migration.id, { kind: 'handed-over' });
  await target.move(migration.id, { kind: 'resumed', withFaults: false });
  await source.move(migration.id, { kind: 'released' });
}

/** What a host does whose power is as its controller says. */
async function followPower(): Promise<void> {
  const agent = fleet.agent('h3');
  const on = fleet.bmcs.power.get(bmc) === 'on';
  if (!on && agent.connected) {
    agent.channel?.close('power off');
    agent.session = 0;
  } else if (on && !agent.connected) {
    agent.inventory = { ...agent.inventory, kernelBootId: `boot-${fleet.clock.now()}` };
    await agent.connect();
  }
}

test('every operation succeeds once, and answers as the document says', { timeout: 120_000 }, async () => {
  await fleet.run('web1', 'h1');
  await fleet.run('web2', 'h1');
  await fleet.run('web3', 'h1');
  await fleet.run('old1', 'h2');
  await fleet.pass(60_000, 2_500);

  for (const name of ['getStatus', 'getMe', 'createUser', 'listUsers', 'getUser'] as const) await ask(name);
  const cookie = String((await ask('login', { authorization: '' })).headers.get('set-cookie')).split(';')[0] ?? '';
  const inSession = { authorization: '', cookie, 'sec-fetch-site': 'same-origin' };
  for (const name of ['changeMyPassword', 'logout'] as const) await ask(name, inSession);
  for (const name of ['updateUser', 'createToken', 'listTokens', 'revokeToken', 'listAudit', 'removeUser'] as const)
    await ask(name);

  for (const name of ['createWebhook', 'listWebhooks', 'testWebhook', 'listDeliveries', 'removeWebhook'] as const)
    await ask(name);

  await ask('listHosts');
  for (const name of ['getHost', 'updateHost', 'cordonHost', 'uncordonHost', 'reportFailing', 'reportWell'] as const)
    await ask(name);

  for (const name of ['setHostPower', 'getHostPower', 'switchHostPower', 'setHostSleep', 'setHostWatts'] as const)
    await ask(name);
  await ask('sendHostToSleep');
  await ask('getHostSleep');
  for (let i = 0; i < 30; i++) {
    await fleet.pass(500);
    await followPower();
  }
  for (const name of ['wakeHost', 'getEnergy', 'getPowerPlan', 'unsetHostPower'] as const) await ask(name);

  for (const name of ['listVms', 'getVm', 'updateVm', 'createVm', 'forecastVm', 'stopVm'] as const) await ask(name);
  await stop('old1');
  await ask('startVm');
  await fleet.agent('h2').life(fleet.vm('old1').id, {
    kind: 'start-failed',
    failure: { code: 'guest-start-failed', message: 'QEMU ended.', hint: 'Look at its log.' },
  });
  await ask('deleteVm');

  await ask('migrateVm');
  for (const name of ['listMigrations', 'getMigration', 'cancelMigration', 'recordBlackout'] as const) await ask(name);
  await fleet.plane.vms.update('web1', { placing: { apart: [] } });
  const held = { to: 'h2', technique: 'pre-copy', policy: {}, why: null, dryRun: false, holdMs: 60_000 } as const;
  await fleet.plane.reservations.startMigration('web2', held, null, 'test');
  const armed = newest();
  await targetOf(armed).move(armed.id, { kind: 'listening', endpoint: { address: '10.0.1.2', port: 4444 } });
  await sourceOf(armed).move(armed.id, { kind: 'sending' });
  await sourceOf(armed).move(armed.id, { kind: 'armed' });
  await ask('getLoads');
  await ask('switchMigration');
  await sourceOf(armed).move(armed.id, { kind: 'stopped', for: 'stop-and-copy' });
  await sourceOf(armed).move(armed.id, { kind: 'handed-over' });
  await targetOf(armed).move(armed.id, { kind: 'resumed', withFaults: false });
  await sourceOf(armed).move(armed.id, { kind: 'released' });
  await fleet.plane.reservations.startMigration('web2', { ...held, to: 'h1', holdMs: null }, null, 'test');
  await complete(newest());

  for (const name of ['createTasks', 'listTasks', 'getTask', 'cancelTask'] as const) await ask(name);
  const web3 = fleet.vm('web3');
  fleet.agent('h1').ready.push({ vm: web3.id, boot: 'boot of web3' });
  await fleet.pass(2_000);
  const [waiting] = [...fleet.plane.fleet.tasks.values()];
  if (waiting === undefined) throw new Error('no task was made');
  const ran: TaskFact = {
    task: waiting.id,
    attempt: 1,
    at: fleet.clock.now(),
    kind: 'task-ended',
    how: 'exited',
    status: 0,
    output: 'all checks passed\n',
    truncated: false,
    says: '',
  };
  await fleet.agent('h1').fact({ about: 'task', fact: ran });
  const [, later] = [...fleet.plane.fleet.tasks.values()];
  if (later !== undefined) await fleet.plane.fleet.change((draft) => draft.removeTask(later.id));
  await ask('getTaskOutput');

  await ask('getBalance');
  await ask('setBalance');
  await fleet.pass(120_000, 2_500);
  await ask('makePlan');
  for (const name of ['listPlans', 'getPlan', 'dismissPlan', 'makePlan', 'acceptPlan'] as const) await ask(name);
  await fleet.pass(5_000);
  await ask('cancelBalance');
  await fleet.pass(5_000);
  await ask('listDecisions');
  for (const name of ['drainHost', 'getHostDrain', 'listDrains', 'getDrain', 'cancelDrain', 'undrainHost'] as const)
    await ask(name);

  fleet.agent('h4').reports = false;
  fleet.agent('h4').channel?.close('gone');
  await fleet.pass(8_000);
  for (const name of ['fenceHost', 'listRecoveries', 'getRecovery', 'removeHost'] as const) await ask(name);
  for (const name of ['getFleetSnapshot', 'checkFleet'] as const) await ask(name);

  const backup = await send('backup', { authorization: `Bearer ${bootstrap}` });
  expect(backup.headers.get('content-type')).toBe('application/x-ndjson');
  expect(JSON.parse((await backup.text()).trimEnd().split('\n').at(-1) ?? '')).toMatchObject({ end: true });
  replies.backup =
    '{"drover-backup":1,...}\n{"key":"host/...","value":{...}}\n{"end":true,"entries":1,"sha256":"..."}\n';

  const events = await send('listEvents', { authorization: `Bearer ${bootstrap}` });
  const reader = events.body?.getReader();
  await fleet.plane.fleet.change((draft) => draft.putHost({ ...fleet.plane.fleet.findHost('h1'), cordoned: true }));
  let text = '';
  while (!text.includes('data: ') || !text.endsWith('\n\n')) {
    text += new TextDecoder().decode((await reader?.read())?.value);
  }
  await reader?.cancel();
  const event: unknown = JSON.parse(/^data: (.*)$/m.exec(text)?.[1] ?? '');
  const validate = validatorOf(endpoints.listEvents, 200, 'text/event-stream');
  expect([validate(event), validate.errors ?? []]).toEqual([true, []]);
  replies.listEvents = text.slice(text.indexOf('id: '));

  const missing = Object.keys(endpoints).filter((name) => name !== 'consoleVm' && !(name in replies));
  expect(missing).toEqual([]);
  await expect(exampleFile(replies)).toMatchFileSnapshot('../wire/example-replies.gen.json');
});

/** Without what is another each time: secrets, and what this machine is. */
function exampleFile(all: Partial<Record<EndpointName, unknown>>): string {
  const inOrder = Object.keys(endpoints).flatMap((name) => (name in all ? [[name, all[name as EndpointName]]] : []));
  const text = JSON.stringify(Object.fromEntries(inOrder), null, 2);
  return `${text.replaceAll(/drover_[\w-]{43}/g, 'drover_...').replaceAll(/("secret": ")[^"]+/g, '$1...')}\n`;
}

test('the document is valid by a validator of others, and its examples by its own schemas', async () => {
  const result = await new Validator().validate(structuredClone(document));
  expect([result.valid, result.errors ?? []]).toEqual([true, []]);
  const wrong: string[] = [];
  for (const [name, endpoint] of Object.entries(endpoints) as [EndpointName, Endpoint][]) {
    const { params, query, body } = exampleRequests[name];
    if (endpoint.params?.safeParse(params).success === false) wrong.push(`${name}: params`);
    if (endpoint.query?.safeParse(query ?? {}).success === false) wrong.push(`${name}: query`);
    if (endpoint.body?.safeParse(body ?? {}).success === false) wrong.push(`${name}: body`);
  }
  expect(wrong).toEqual([]);
});
