import { afterEach, beforeEach, expect, test } from 'vitest';
import type { HostInventory } from '../model/host.ts';
import { listenChannels, type Channel, type Listener } from '../runtime/channel.ts';
import type { FromAgent } from '../wire/agent.ts';
import { FakeHost, migration } from './fake-host.ts';
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
    key: host.context.fleetKey,
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
