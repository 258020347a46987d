/**
 * A request for each operation, for the document and for the test that sends them all to a real server on simulated hosts
 * (control/contract.test.ts), and what that answered: example-replies.gen.json, written by the test.
 */
import { readFileSync } from 'node:fs';
import type { EndpointName, RequestOf } from './endpoints.ts';

interface ExampleRequest {
  readonly params?: Readonly<Record<string, string>>;
  readonly query?: Readonly<Record<string, unknown>>;
  readonly body?: unknown;
}

/** Where an id is wanted that only the server knows, `~kind~` stands. */
const host = { params: { host: 'h1' } };
const spare = { params: { host: 'h3' } };
const vm = { params: { vm: 'web1' } };
const controller = {
  kind: 'ipmi',
  address: '10.9.0.3',
  port: 623,
  user: 'admin',
  passwordFile: '/etc/drover/bmc.password',
} as const;
const migration = { params: { migration: '~migration~' } };
const task = { params: { task: '~task~' } };
const plan = { params: { plan: '~plan~' } };
const webhook = { params: { webhook: '~webhook~' } };

const requests = {
  getStatus: {},
  login: { body: { name: 'alice', password: 'correct horse battery' } },
  logout: {},
  getMe: {},
  changeMyPassword: { body: { oldPassword: 'correct horse battery', newPassword: 'staple horse battery' } },
  listUsers: {},
  createUser: { body: { name: 'alice', role: 'operator', password: 'correct horse battery' } },
  getUser: { params: { user: 'alice' } },
  updateUser: { params: { user: 'alice' }, body: { role: 'viewer' } },
  removeUser: { params: { user: 'alice' } },
  listTokens: {},
  createToken: { body: { name: 'prometheus', role: 'viewer' } },
  revokeToken: { params: { token: 'prometheus' } },
  listAudit: { query: { by: 'bootstrap', limit: 2 } },
  listHosts: {},
  getHost: host,
  updateHost: { ...host, body: { labels: { rack: 'a1' } } },
  cordonHost: host,
  uncordonHost: host,
  fenceHost: { params: { host: 'h4' }, body: { because: 'I pulled its plug' } },
  reportFailing: { ...host, body: { severity: 'suspect', because: 'a fan is loud' } },
  reportWell: host,
  removeHost: { params: { host: 'h4' } },
  getHostPower: spare,
  setHostPower: { ...spare, body: { controller } },
  unsetHostPower: spare,
  switchHostPower: { ...spare, body: { to: 'on' } },
  getEnergy: { query: { by: 'host' } },
  getPowerPlan: { query: { tolerate: 1 } },
  getHostSleep: spare,
  setHostSleep: { ...spare, body: { way: { kind: 'off' } } },
  sendHostToSleep: { ...spare, body: { drill: true, because: 'to see that it wakes' } },
  wakeHost: { ...spare, body: { because: 'it is needed' } },
  setHostWatts: { ...spare, body: { watts: { idle: 60, max: 220 } } },
  listVms: { query: { host: 'h1' } },
  createVm: { body: { name: 'web9', cpus: 2, memoryMiB: 1024, image: '/srv/images/debian.qcow2', host: 'h2' } },
  getVm: vm,
  updateVm: { ...vm, body: { priority: 900, placing: { apart: ['web'] } } },
  deleteVm: { params: { vm: 'old1' }, query: { disks: 'keep' } },
  startVm: { params: { vm: 'old1' }, body: {} },
  stopVm: { params: { vm: 'old1' }, body: { timeoutMs: 60_000 } },
  migrateVm: {
    ...vm,
    body: { to: 'h2', technique: 'pre-copy', policy: { maxDowntimeMs: 300 }, why: 'memory of h1 is replaced' },
  },
  forecastVm: { ...vm, body: { to: 'h2' } },
  consoleVm: vm,
  listMigrations: { query: { vm: 'web1', limit: 1 } },
  getMigration: migration,
  cancelMigration: migration,
  switchMigration: migration,
  recordBlackout: { ...migration, body: { blackoutMs: 42 } },
  listRecoveries: { query: { limit: 1 } },
  getRecovery: { params: { recovery: '~recovery~' } },
  createTasks: { body: { command: ['nice', 'make', 'check'], count: 2, cpus: 0.5 } },
  listTasks: { query: { state: 'open', limit: 1 } },
  getTask: task,
  cancelTask: task,
  getTaskOutput: task,
  getBalance: {},
  setBalance: { body: { mode: 'manual', level: 3 } },
  cancelBalance: { body: { moves: true } },
  listDecisions: { query: { limit: 1 } },
  listPlans: { query: { limit: 1 } },
  makePlan: { body: { goal: 'balance' } },
  getPlan: plan,
  acceptPlan: plan,
  dismissPlan: plan,
  getLoads: { query: { vm: 'web1' } },
  listEvents: { query: { samples: 'false' } },
  listWebhooks: {},
  createWebhook: { body: { url: 'https://example.org/drover', on: ['migration.*', 'failure.*'] } },
  removeWebhook: webhook,
  testWebhook: webhook,
  listDeliveries: { ...webhook, query: { limit: 1 } },
  getFleetSnapshot: {},
  backup: {},
  checkFleet: {},
  drainHost: { params: { host: 'h2' }, body: { because: 'new memory' } },
  getHostDrain: { params: { host: 'h2' } },
  cancelDrain: { params: { host: 'h2' } },
  undrainHost: { params: { host: 'h2' }, body: {} },
  listDrains: { query: { limit: 1 } },
  getDrain: { params: { drain: '~drain~' } },
} as const satisfies { readonly [N in EndpointName]: RequestOf<N> };

export const exampleRequests: Readonly<Record<EndpointName, ExampleRequest>> = requests;

/** As JSON values; text for streams. */
export const exampleReplies = JSON.parse(
  readFileSync(new URL('example-replies.gen.json', import.meta.url), 'utf8'),
) as Readonly<Partial<Record<EndpointName, unknown>>>;
