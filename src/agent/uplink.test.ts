import { afterEach, beforeEach, expect, test } from 'vitest';
import type { HostInventory } from '../model/host.ts';
import { listenChannels, type Channel, type Listener } from '../runtime/channel.ts';
import type { FromAgent } from '../wire/agent.ts';
import { TestClock } from '../runtime/clock.ts';
import { FakeHost, fleetKey, migration } from './fake-host.ts';
import { noLeases } from './leases.ts';
import { loadMeter } from './load.ts';
import { Uplink } from './uplink.ts';

let host: FakeHost;
let listener: Listener;
let heard: FromAgent[];
let channels: Channel[];
let changed: (() => void)[];
const end = new AbortController();

beforeEach(async () => {
  host = await new FakeHost('h1').begin();
  [heard, channels, changed] = [[], [], []];
  listener = await listenChannels({
    address: '127.0.0.1',
    port: 0,
    key: fleetKey,
    onChannel(channel) {
      channels.push(channel);
      channel.onMessage((message) => {
        heard.push(message as FromAgent); // what the agent really says
        for (const wake of changed.splice(0)) wake();
      });
    },
  });
});
afterEach(async () => {
  end.abort();
  await listener.close();
  await host.end();
});

async function hear(matches: (message: FromAgent) => boolean): Promise<FromAgent> {
  for (;;) {
    const index = heard.findIndex(matches);
    if (index >= 0) return heard.splice(0, index + 1).at(-1) as FromAgent; // just found
    await new Promise<void>((resolve) => changed.push(resolve));
  }
}

test('facts said before, between and after connections all arrive, and only those not acknowledged come again', async () => {
  const servers = [{ address: '127.0.0.1', port: listener.port }];
  const uplink = new Uplink(host.context, host.guests, host.orders, {
    servers,
    version: '0',
    inventory: async () => ({}) as HostInventory, // carried, not read
    meter: loadMeter(() => null),
    leases: noLeases,
    tasks: { ready: () => [] },
  });
  const fact = (at: number) => host.facts.migration({ migration, at, kind: 'sending' });
  const isFact = (at: number) => (message: FromAgent) => message.type === 'fact' && message.fact.fact.at === at;
  const welcome = { type: 'welcome', hostId: 'h1', term: 3, session: 4 };
  fact(1);
  void uplink.run(end.signal);
  await hear((message) => message.type === 'hello');
  channels[0]?.send(welcome);
  const first = await hear(isFact(1));
  fact(2);
  await hear(isFact(2));
  channels[0]?.send({ type: 'ack', number: first.type === 'fact' ? first.number : 0 });
  channels[0]?.send({
    type: 'order',
    order: { id: 'late', kind: 'keep', vm: 'vm_1', term: 2, session: 4, generation: 1 },
  });
  expect(await hear((message) => message.type === 'answer')).toMatchObject({
    refused: expect.stringContaining('term 2'),
  });
  channels[0]?.close();
  await hear((message) => message.type === 'hello');
  channels[1]?.send(welcome);
  const next = await hear((message) => message.type === 'fact');
  expect(isFact(2)(next)).toBe(true);
  expect(host.context.journal.agent).toMatchObject({ newestTerm: 3, session: 4 });
});

test('a server of an older term is left, and one that talks nonsense too', async () => {
  const uplink = new Uplink(host.context, host.guests, host.orders, {
    servers: [{ address: '127.0.0.1', port: listener.port }],
    version: '0',
    inventory: async () => ({}) as HostInventory,
    meter: loadMeter(() => null),
    leases: noLeases,
    tasks: { ready: () => [] },
  });
  host.context.journal.setAgent({ newestTerm: 9 });
  const stop = new AbortController();
  void uplink.run(stop.signal);
  await hear((message) => message.type === 'hello');
  channels[0]?.send({ type: 'welcome', hostId: 'h1', term: 8, session: 1 });
  await channels[0]?.closed;
  await hear((message) => message.type === 'hello');
  channels[1]?.send({ type: 'nonsense' });
  await channels[1]?.closed;
  stop.abort();
  expect(host.context.journal.agent.newestTerm).toBe(9);
});

test('where the straight way is cut, a peer hands on to the server, and the straight way is taken again when it is back', async () => {
  const clock = new TestClock();
  const cut = await new FakeHost('h2', clock).begin();
  host.servers = [{ address: '127.0.0.1', port: listener.port }];
  cut.context.journal.setAgent({ peers: [host.peer] });
  let straight = false;
  const { dial } = cut.context;
  const blocked: typeof dial = (to, options) =>
    to.port === listener.port && !straight ? Promise.reject(new Error('no route to host')) : dial(to, options);
  const context = { ...cut.context, dial: blocked };
  const uplink = new Uplink(context, cut.guests, cut.orders, {
    servers: [{ address: '127.0.0.1', port: listener.port }],
    version: '0',
    inventory: async () => ({}) as HostInventory,
    meter: loadMeter(() => null),
    leases: noLeases,
    tasks: { ready: () => [] },
  });
  const stop = new AbortController();
  void uplink.run(stop.signal);
  expect(await hear((message) => message.type === 'hello')).toMatchObject({ host: 'h2' });
  channels[0]?.send({ type: 'welcome', hostId: 'h2', term: 3, session: 1 });
  cut.facts.migration({ migration, at: 1, kind: 'sending' });
  await hear((message) => message.type === 'fact');
  straight = true;
  const closed = channels[0]?.closed;
  let over = false;
  void closed?.then(() => (over = true));
  // The beats of the server go on meanwhile; what passes is the time until the straight way is tried.
  while (!over) {
    channels[0]?.send({ type: 'beat' });
    await clock.advance(500);
  }
  await clock.advance(500);
  expect(await hear((message) => message.type === 'hello')).toMatchObject({ host: 'h2' });
  stop.abort();
  await cut.end();
});

test('a server that says nothing any more is left, however open the connection looks', async () => {
  const clock = new TestClock();
  const patient = await new FakeHost('h2', clock).begin();
  const stop = new AbortController();
  const uplink = new Uplink(patient.context, patient.guests, patient.orders, {
    servers: [{ address: '127.0.0.1', port: listener.port }],
    version: '0',
    inventory: async () => ({}) as HostInventory,
    meter: loadMeter(() => null),
    leases: noLeases,
    tasks: { ready: () => [] },
  });
  void uplink.run(stop.signal);
  await hear((message) => message.type === 'hello');
  channels[0]?.send({ type: 'welcome', hostId: 'h2', term: 3, session: 1 });
  patient.facts.migration({ migration, at: 1, kind: 'sending' });
  await hear((message) => message.type === 'fact');
  let over = false;
  void channels[0]?.closed.then(() => (over = true));
  let passedMs = 0;
  for (; !over && passedMs < 60_000; passedMs += 500) await clock.advance(500);
  expect(passedMs).toBeGreaterThanOrEqual(4000);
  expect(over).toBe(true);
  stop.abort();
  await patient.end();
});
