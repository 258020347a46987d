/** Three servers with TLS on three members of etcd, and an agent that knows all of them: real programs, no guests. */
import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, mkdirSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { setDefaultCACertificates } from 'node:tls';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { UserError } from '../../src/model/failure.ts';
import { leaderKey, watchLeader } from '../../src/store/leadership.ts';
import type { Leader } from '../../src/store/leadership.ts';
import type { Store } from '../../src/store/store.ts';
import { createClient } from '../../src/wire/client.ts';
import type { Client } from '../../src/wire/client.ts';
import { EtcdCluster } from './etcd-cluster.ts';

const main = join(import.meta.dirname, '../../src/main.ts');
const token = 'a-token-of-the-test';
const prefix = '/servers/';

interface Server {
  readonly name: string;
  readonly api: string;
  readonly agents: string;
  process: ChildProcess;
}

let directory: string;
let cluster: EtcdCluster;
let store: Store;
let servers: Server[];
let agent: ChildProcess | undefined;

beforeAll(async () => {
  directory = mkdtempSync(join(tmpdir(), 'drover-servers-'));
  cluster = await EtcdCluster.start();
  setDefaultCACertificates([readFileSync(cluster.files.ca, 'utf8')]);
  store = cluster.open({ prefix });
  writeFileSync(join(directory, 'token'), token, { mode: 0o600 });
  writeFileSync(join(directory, 'fleet.key'), '0123456789abcdef'.repeat(4), { mode: 0o600 });
  const ports = await freePorts(7);
  servers = await Promise.all(
    [0, 1, 2].map(async (n) => {
      const [api, agents] = [`127.0.0.1:${ports[n]}`, `127.0.0.1:${ports[3 + n]}`];
      const server = { name: `s${n + 1}`, api: `https://${api}`, agents };
      return { ...server, process: await startServer(server.name, api, agents) };
    }),
  );
  const own = {
    name: 'h1',
    'fleet-key': join(directory, 'fleet.key'),
    peer: `127.0.0.1:${ports[6]}`,
    'migration-address': '127.0.0.1',
    'send-queue': 'system',
    pool: `default=${join(directory, 'pool')}`,
    state: join(directory, 'h1'),
  };
  agent = run('agent', ['agent', ...servers.flatMap(({ agents }) => ['--server', agents]), ...flags(own)]);
  await hostReports(clientOf(servers), 'h1');
});

afterAll(async () => {
  await store?.close();
  for (const child of [agent, ...(servers ?? []).map((server) => server.process)]) {
    child?.kill('SIGCONT');
    child?.kill('SIGKILL');
  }
  await cluster?.stop();
  if (process.env['KEEP'] === undefined) rmSync(directory, { recursive: true, force: true });
});

/** Its output goes to a file of its own; an agent of an earlier run is no matter, its state is elsewhere. */
function run(name: string, args: readonly string[]): ChildProcess {
  const log = openSync(join(directory, `${name}.log`), 'a');
  const child = spawn(process.execPath, ['--disable-warning=ExperimentalWarning', main, ...args], {
    stdio: ['ignore', 'pipe', log],
  });
  closeSync(log);
  return child;
}

async function startServer(name: string, api: string, agents: string): Promise<ChildProcess> {
  const members = cluster.members.map(({ endpoint }) => `${endpoint.address}:${endpoint.port}`).join(',');
  const state = join(directory, name);
  mkdirSync(state, { recursive: true });
  const own = {
    listen: api,
    agents,
    state,
    'fleet-key': join(directory, 'fleet.key'),
    'token-file': join(directory, 'token'),
    store: `etcd://${members}?prefix=${prefix}`,
    'etcd-ca': cluster.files.ca,
    'etcd-cert': cluster.files.cert,
    'etcd-key': cluster.files.key,
    'tls-cert': cluster.files.cert,
    'tls-key': cluster.files.key,
    'tls-ca': cluster.files.ca,
  };
  const child = run(name, ['server', ...flags(own)]);
  if (child.stdout === null) throw new Error('no output');
  for await (const line of createInterface({ input: child.stdout })) {
    if (line.startsWith('drover server ready')) return child;
  }
  throw new Error(`${name} did not come up: ${logOf(name)}`);
}

function flags(values: Readonly<Record<string, string>>): string[] {
  return Object.entries(values).flatMap(([name, value]) => [`--${name}`, value]);
}

function logOf(name: string): string {
  return readFileSync(join(directory, `${name}.log`), 'utf8');
}

function clientOf(of: readonly Server[]): Client {
  return createClient({ server: of.map(({ api }) => api).join(','), token });
}

/** @returns the cookie */
async function logIn(api: string): Promise<string> {
  const password = 'correct horse battery';
  await clientOf(servers).createUser({ body: { name: 'alice', role: 'viewer', password } });
  const answer = await fetch(`${api}/api/v1/login`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ name: 'alice', password }),
  });
  expect(answer.status).toBe(200);
  return answer.headers.get('set-cookie')?.split(';')[0] ?? '';
}

/** The first leader that is another than `before`, and when it was seen. */
async function nextLeader(before: Leader | null): Promise<{ server: Server; leader: Leader; at: number }> {
  const done = new AbortController();
  const { promise, resolve } = Promise.withResolvers<{ leader: Leader; at: number }>();
  const watching = watchLeader(store, done.signal, (leader) => {
    if (leader !== null && leader.term !== before?.term) resolve({ leader, at: performance.now() });
  });
  const { leader, at } = await promise;
  done.abort();
  await watching;
  const server = servers.find(({ api }) => api === leader.api);
  if (server === undefined) throw new Error(`nobody is at ${String(leader.api)}`);
  return { server, leader, at };
}

/** Resolves when the host has said something to the server that leads. */
async function hostReports(client: Client, name: string): Promise<number> {
  for (;;) {
    const hosts = await client.listHosts();
    if (hosts.some((host) => host.name === name && host.state === 'up' && host.lastReportAt !== null)) {
      return performance.now();
    }
    await sleep(20);
  }
}

test('every server answers as the leader does, for reads, changes and events', async () => {
  const { leader } = await nextLeader(null);
  const over = new AbortController();
  const followed = await Promise.all(
    servers.map(async (server) => {
      const client = clientOf([server]);
      expect((await client.getStatus()).term).toBe(leader.term);
      const opened = Promise.withResolvers<void>();
      const events = client.events({ signal: over.signal, onOpen: opened.resolve });
      const cordoned = firstCordoned(events);
      await opened.promise;
      return { cordoned };
    }),
  );
  // Asked of one that does not lead.
  const [follower] = servers.filter(({ api }) => api !== leader.api);
  const client = clientOf(follower === undefined ? [] : [follower]);
  await client.cordonHost({ params: { host: 'h1' } });
  for (const { cordoned } of followed) expect(await cordoned).toBe('h1');
  await client.uncordonHost({ params: { host: 'h1' } });
  over.abort();
});

test('a wrong token is refused at every server', async () => {
  for (const { api } of servers) {
    const client = createClient({ server: api, token: 'not-the-token-at-all' });
    await expect(client.listVms()).rejects.toMatchObject({ code: 'unauthorized' });
  }
});

test('one server speaks of the fleet, every one of itself, and to nobody whom the leader would not let in', async () => {
  const read = async ({ api }: Server, shown: string) => {
    const answer = await fetch(`${api}/metrics`, { headers: { authorization: `Bearer ${shown}` } });
    return { status: answer.status, text: await answer.text() };
  };
  const { server: leading } = await nextLeader(null);
  for (const server of servers) {
    const { status, text } = await read(server, token);
    expect(status).toBe(200);
    const leads = server === leading;
    expect(text).toMatch(leads ? /^drover_server_leader 1$/m : /^drover_server_leader 0$/m);
    expect(text.includes('drover_hosts{')).toBe(leads);
    expect(text).toContain('drover_store_operation_duration_seconds_count');
    expect((await read(server, 'not-the-token-at-all')).status).toBe(401);
  }
  const [follower] = servers.filter((server) => server !== leading);
  if (follower === undefined) throw new Error('all of them lead');
  // Nobody leads, as far as it can know: it goes on for those who were let in.
  for (const each of servers) if (each !== follower) each.process.kill('SIGSTOP');
  try {
    const answers = await Promise.all([read(follower, token), read(follower, 'not-the-token-at-all')]);
    expect(answers.map(({ status }) => status)).toEqual([200, 503]);
  } finally {
    for (const each of servers) each.process.kill('SIGCONT');
  }
});

test('the leader killed, another leads within four seconds, the API and the agent find it at once', async () => {
  const before = await nextLeader(null);
  const others = servers.filter((server) => server !== before.server);
  const cookie = await logIn(others[0]?.api ?? '');
  const next = nextLeader(before.leader);
  const killedAt = performance.now();
  before.server.process.kill('SIGKILL');
  await once(before.server.process, 'exit');
  // Asked where nobody listens any more, and at servers that do not know yet who leads.
  const client = clientOf([before.server, ...servers.filter((server) => server !== before.server)]);
  const status = client.getStatus().then(({ term }) => ({ term, at: performance.now() }));
  const { leader, at } = await next;
  const reportedAt = await hostReports(client, 'h1');
  // A session is of the fleet, not of the server that began it.
  for (const { api } of others) {
    const me = await fetch(`${api}/api/v1/me`, { headers: { cookie } });
    expect(await me.json()).toMatchObject({ name: 'alice', via: 'session' });
    expect((await fetch(`${api}/readyz`)).status).toBe(200);
  }
  const answered = await status;
  const ms = (when: number): string => `${Math.round(when - killedAt)} ms`;
  console.log(
    `killed: another leads after ${ms(at)}, the API answers after ${ms(answered.at)}, the agent reports to it after ${ms(reportedAt)}`,
  );
  expect(at - killedAt).toBeLessThan(4_000);
  expect(leader.term).toBe(before.leader.term + 1);
  expect(answered.term).toBe(leader.term);
  expect(reportedAt - at).toBeLessThan(1_500);
  const { name, api, agents } = before.server;
  before.server.process = await startServer(name, new URL(api).host, agents);
  expect((await clientOf([before.server]).getStatus()).term).toBe(leader.term);
});

test('a leader frozen for ten seconds writes nothing when it wakes, and follows', async () => {
  const before = await nextLeader(null);
  const next = nextLeader(before.leader);
  const others = servers.filter((server) => server !== before.server);
  const thaw = sleep(10_000);
  before.server.process.kill('SIGSTOP');
  const { leader } = await next;
  const client = clientOf(others);
  await hostReports(client, 'h1');
  const known = await store.get(leaderKey);
  // What is asked of the frozen one is on its doorstep when it wakes.
  const zombie = clientOf([before.server]).cordonHost({ params: { host: 'h1' } });
  const refused = expect(zombie).rejects.toMatchObject({ code: 'unavailable' });
  await thaw;
  before.server.process.kill('SIGCONT');
  await refused;
  expect((await client.getHost({ params: { host: 'h1' } })).cordoned).toBe(false);
  // Between leading and following it closes its port for a moment.
  expect((await statusWhenItListens(before.server)).term).toBe(leader.term);
  expect(await store.get(leaderKey)).toEqual(known);
  expect(before.server.process.exitCode).toBe(null);
  expect(logOf(before.server.name)).toContain('leading no more');
});

async function statusWhenItListens(server: Server): ReturnType<Client['getStatus']> {
  const client = clientOf([server]);
  for (;;) {
    try {
      return await client.getStatus();
    } catch (error) {
      if (!(error instanceof UserError) || error.code !== 'unavailable') throw error;
      await sleep(20);
    }
  }
}

async function firstCordoned(events: ReturnType<Client['events']>): Promise<string | undefined> {
  for await (const { event } of events) if (event.type === 'host' && event.host.cordoned) return event.host.name;
  return undefined;
}

async function freePorts(count: number): Promise<number[]> {
  const holders = await Promise.all(
    Array.from({ length: count }, async () => {
      const holder = createServer().listen(0, '127.0.0.1');
      await once(holder, 'listening');
      return holder;
    }),
  );
  const ports = holders.map((holder) => (holder.address() as AddressInfo).port);
  await Promise.all(holders.map((holder) => new Promise((resolve) => holder.close(resolve))));
  return ports;
}
