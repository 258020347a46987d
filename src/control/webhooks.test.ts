/** Webhooks: what is sent, how it is signed, and that nothing is lost. */
import { createHmac } from 'node:crypto';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { FakeFleet, settled } from './fake-fleet.ts';
import { matches } from './topics.ts';
import type { Post } from './webhooks.ts';

interface Got {
  readonly url: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: { id: string; topic: string; says: string };
}

let fleet: FakeFleet;
let got: Got[];
/** What the receiver answers. */
let answer: () => number;
beforeEach(async () => {
  got = [];
  answer = () => 204;
  const post: Post = async (url, headers, body) => {
    const status = answer();
    got.push({ url, headers, body: JSON.parse(body) as Got['body'] });
    return { status };
  };
  fleet = new FakeFleet();
  fleet.post = post;
  await fleet.startServer();
  for (const name of ['h1', 'h2']) await fleet.join(name);
});
afterEach(() => fleet.stopServer());

const add = (on: string[], secret: string | null = null) =>
  fleet.plane.webhooks.add({ url: 'http://receiver/hook', on, secret }, 'test', null);
const topics = () => got.map(({ body }) => body.topic);

async function cancelledMove(): Promise<string> {
  const body = { to: 'h2', technique: 'pre-copy', policy: {}, why: null, dryRun: false, holdMs: null } as const;
  const { id } = await fleet.plane.reservations.startMigration('web1', body, null, 'test');
  await fleet.plane.migrations.cancel(id);
  return id;
}

test('a webhook is told of what it wants, in order, each state once', async () => {
  await fleet.run('web1', 'h1');
  await add(['migration.*']);
  await fleet.pass(1_500);
  await cancelledMove();
  await fleet.plane.fleet.change((draft) => draft.putHost({ ...fleet.plane.fleet.findHost('h1'), labels: { a: 'b' } }));
  await fleet.pass(3_000);
  expect(topics()).toEqual(['migration.reserved', 'migration.cancelled']);
  expect(new Set(got.map(({ body }) => body.id)).size).toBe(2);
});

test('a delivery is signed over its time and body', async () => {
  await add(['vm.*'], 'a secret of sixteen');
  await fleet.pass(1_500);
  await fleet.run('web1', 'h1');
  await fleet.pass(2_000);
  const [, at, hex] = /^t=(\d+),v1=([0-9a-f]{64})$/.exec(got[0]?.headers['drover-signature'] ?? '') ?? [];
  const body = JSON.stringify(got[0]?.body);
  expect(hex).toBe(createHmac('sha256', 'a secret of sixteen').update(`${at}.${body}`).digest('hex'));
  expect(got[0]?.headers['drover-delivery']).toBe(got[0]?.body.id);
});

test('what is not taken is tried again with growing pauses, in order, until it is', async () => {
  const { webhook } = await add(['vm.*']);
  await fleet.pass(1_500);
  answer = () => 500;
  await fleet.run('web1', 'h1');
  await fleet.pass(20_000);
  const first = got[0]?.body.id;
  expect(got.every(({ body }) => body.id === first)).toBe(true);
  expect(got.length).toBeGreaterThan(3);
  expect(got.length).toBeLessThan(7);
  expect(fleet.plane.webhooks.deliveriesOf(webhook.id)[0]).toMatchObject({
    state: 'waiting',
    status: 500,
    says: 'it answered with status 500',
  });
  answer = () => 200;
  got = [];
  await fleet.pass(30_000);
  expect(topics()).toEqual(['vm.starting', 'vm.running']);
  expect(fleet.plane.webhooks.deliveriesOf(webhook.id).every(({ state }) => state === 'delivered')).toBe(true);
});

test('a receiver that cannot be reached is told of it for a day, and then given up', async () => {
  const { webhook } = await add(['vm.*']);
  await fleet.pass(1_500);
  answer = () => {
    throw new Error('nobody there');
  };
  await fleet.run('web1', 'h1');
  await fleet.pass(1_500);
  const [old] = fleet.plane.webhooks.deliveriesOf(webhook.id);
  if (old === undefined) throw new Error('nothing waits');
  const yesterday = { ...old, at: old.at - 25 * 3_600_000, nextAt: 0 };
  await fleet.plane.fleet.change((draft) => draft.putPlain('delivery', old.id, yesterday));
  await fleet.pass(3_000);
  expect(fleet.plane.webhooks.deliveriesOf(webhook.id)[0]).toMatchObject({ state: 'given-up', says: 'nobody there' });
});

test('a server that ends between an event and its delivery loses neither', async () => {
  await fleet.run('web1', 'h1');
  await add(['migration.*']);
  await fleet.pass(1_500);
  await cancelledMove();
  await fleet.restartServer();
  await fleet.pass(4_000);
  expect(new Set(topics())).toEqual(new Set(['migration.reserved', 'migration.cancelled']));
});

test('a webhook that was away for too long is told that it missed something', async () => {
  await add(['vm.*']);
  await fleet.stopServer();
  const store = fleet.engine.connect();
  for (let i = 0; i < 5_100; i++) await store.commit([], [{ key: 'other/x', put: { i } }]);
  await store.close();
  await fleet.startServer();
  await fleet.pass(4_000);
  expect(topics()).toEqual(['webhook.missed']);
});

test('a test is sent at once and says what came of it; a removed webhook leaves nothing behind', async () => {
  const { webhook } = await add(['*']);
  expect(await fleet.plane.webhooks.test(webhook.id)).toMatchObject({ state: 'delivered', topic: 'webhook.test' });
  answer = () => 404;
  expect(await fleet.plane.webhooks.test(webhook.id)).toMatchObject({ state: 'given-up', status: 404 });
  await fleet.plane.webhooks.remove(webhook.id);
  await fleet.pass(3_000);
  expect(fleet.plane.fleet.plain('delivery').size).toBe(0);
});

test('it goes over HTTP, and does not follow where it is sent', async () => {
  const seen: string[] = [];
  const server = createServer((request, response) => {
    seen.push(`${request.method} ${request.url} ${String(request.headers['drover-topic'])}`);
    response.writeHead(request.url === '/hook' ? 200 : 302, { location: '/elsewhere' }).end();
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  fleet.post = undefined;
  await fleet.restartServer();
  const { webhooks } = fleet.plane;
  const make = (path: string) =>
    webhooks.add({ url: `http://127.0.0.1:${port}${path}`, on: ['*'], secret: null }, 'test', null);
  const [good, bad] = [await make('/hook'), await make('/moved')];
  expect(await webhooks.test(good.webhook.id)).toMatchObject({ state: 'delivered', status: 200 });
  expect(await webhooks.test(bad.webhook.id)).toMatchObject({ state: 'given-up', status: 302 });
  expect(seen).toEqual(['POST /hook webhook.test', 'POST /moved webhook.test']);
  await settled();
  await new Promise((resolve) => server.close(resolve));
});

test('patterns', () => {
  expect(
    ['*', 'vm.*', 'vm.running', 'v.*', 'vm.run', 'migration.*'].map((each) => matches(each, 'vm.running')),
  ).toEqual([true, true, true, false, false, false]);
});
