/**
 * Metrics, alert rules and dashboard against a real Prometheus, which scrapes a server with simulated hosts and an agent. What
 * real hosts say is the lab's (test/lab/scenarios/metrics.ts).
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { FakeHost } from '../../src/agent/fake-host.ts';
import { agentMetrics, listenForMetrics } from '../../src/agent/metrics.ts';
import { FakeFleet } from '../../src/control/fake-fleet.ts';
import { ServerMetrics } from '../../src/control/metrics/metrics.ts';
import { timedStore } from '../../src/control/metrics/timed-store.ts';
import { createApi } from '../../src/control/server.ts';
import { silentLog } from '../../src/runtime/log.ts';
import {
  dashboardExpressions,
  dashboardFile,
  Prometheus,
  promtool,
  ruleExpressions,
  rulesFile,
  selectorsIn,
} from './prometheus.ts';

const token = 'a-token-for-tests';
const reference = readFileSync(join(import.meta.dirname, '../../docs/reference/metrics.md'), 'utf8');
/** What cannot be there while nothing is wrong. That it works all the same is shown by drover.rules.test.yml. */
const onlyWhenWrong = ['drover_api_request_duration_seconds_count{status=~"5.."}'];

let fleet: FakeFleet;
let host: FakeHost;
let api: ReturnType<typeof createApi>;
let door: Awaited<ReturnType<typeof listenForMetrics>>;
let prometheus: Prometheus;
beforeAll(async () => {
  fleet = await FakeFleet.start(['h1', 'h2']);
  await fleet.run('web1', 'h1');
  const metrics = new ServerMetrics('1.2.3', 10);
  timedStore(fleet.plane.store, metrics.registry);
  api = createApi({ plane: fleet.plane, token, log: silentLog, metrics: metrics.leads(fleet.plane) });
  await api.listen({ host: '127.0.0.1', port: 0 });
  await api.inject({ method: 'GET', url: '/api/v1/vms', headers: { authorization: `Bearer ${token}` } });
  host = await new FakeHost('h1').begin();
  const registry = agentMetrics({
    agent: { guests: host.guests, isWelcome: () => true, measuring: () => 0 },
    hostName: 'h1',
    version: '1.2.3',
    inventory: { accel: 'tcg', qemuVersion: '10.0.2' },
    journal: host.context.journal,
    facts: host.facts,
    leases: { guards: () => [{ pool: 'fast', poolId: 'p', leaseTimeMs: 10_000, leftMs: 9_000, watchdog: false }] },
    load: () => ({
      at: 1,
      cpu: 0.5,
      memoryUsedMiB: 1,
      memoryTotalMiB: 2,
      guests: {},
      pressure: { cpu: 0, memory: 0 },
      raplWatts: 40,
    }),
  });
  door = await listenForMetrics({ address: '127.0.0.1', port: 0 }, () => registry);
  const bound = api.server.address();
  const port = typeof bound === 'object' && bound ? bound.port : 0;
  const at = (targets: string) => ({ static_configs: [{ targets: [targets] }] });
  prometheus = await Prometheus.start([
    { job_name: 'drover-server', authorization: { credentials: token }, ...at(`127.0.0.1:${port}`) },
    { job_name: 'drover-agent', ...at(`127.0.0.1:${door.port}`) },
    { job_name: 'without-token', metrics_path: '/metrics', ...at(`localhost:${port}`) },
  ]);
  await prometheus.until('sum(count_over_time(up{job=~"drover-.*"}[1m]) > 2) > 4');
});
afterAll(async () => {
  await prometheus?.stop();
  door?.close();
  await host?.end();
  await api?.close();
  await fleet?.stopServer();
});

test('Prometheus reads server and agent, and the server only with a token', async () => {
  const targets = (await prometheus.targets()).map(({ labels, health, lastError }) => [
    labels['job'],
    health,
    lastError,
  ]);
  expect(targets.toSorted(([a = ''], [b = '']) => (a < b ? -1 : 1))).toEqual([
    ['drover-agent', 'up', ''],
    ['drover-server', 'up', ''],
    ['without-token', 'down', 'server returned HTTP status 401 Unauthorized'],
  ]);
  expect(await prometheus.query('sum(drover_hosts)')).toMatchObject([{ value: [expect.any(Number), '2'] }]);
});

test('promtool finds nothing wrong with names, help and types', async () => {
  const headers = { authorization: `Bearer ${token}` };
  const server = (await api.inject({ method: 'GET', url: '/metrics', headers })).body;
  const agent = await (await fetch(`http://127.0.0.1:${door.port}/metrics`)).text();
  // What is not ours is as its library says it.
  const ours = (text: string) => text.replaceAll(/^(# (HELP|TYPE) )?(nodejs|process)_.*\n/gm, '');
  for (const text of [server, agent]) expect(await promtool(['check', 'metrics'], ours(text))).toBe('');
});

test('the alert rules are sound: each fires when it shall, and none when all is well', async () => {
  expect(await promtool(['check', 'rules', '--lint-fatal', rulesFile])).toContain(
    `${ruleExpressions().size} rules found`,
  );
  expect(await promtool(['test', 'rules', rulesFile.replace('.yml', '.test.yml')])).toContain('SUCCESS');
  const tested = readFileSync(rulesFile.replace('.yml', '.test.yml'), 'utf8');
  for (const alert of ruleExpressions().keys()) expect(tested).toContain(`alertname="${alert}"`);
});

test('everything that rules and dashboard look at is there', async () => {
  const expressions = [...ruleExpressions().values(), ...dashboardExpressions().values()];
  const selectors = [...new Set(expressions.flatMap(selectorsIn))];
  expect(selectors.length).toBeGreaterThan(60);
  const missing: string[] = [];
  for (const selector of selectors) if ((await prometheus.query(selector)).length === 0) missing.push(selector);
  expect(missing).toEqual(onlyWhenWrong);
});

test('every panel of the dashboard shows something, and its identity is one that Grafana takes', async () => {
  const empty: string[] = [];
  for (const [panel, expression] of dashboardExpressions()) {
    if ((await prometheus.query(expression)).length === 0) empty.push(`${panel}: ${expression}`);
  }
  expect(empty).toEqual([]);
  const { panels, uid, templating } = JSON.parse(readFileSync(dashboardFile, 'utf8')) as {
    uid: string;
    panels: { id: number; type: string; title: string; description?: string; datasource?: { uid: string } }[];
    templating: { list: { name: string; type: string }[] };
  };
  expect(uid).toMatch(/^[\w-]{1,40}$/);
  expect(new Set(panels.map(({ id }) => id)).size).toBe(panels.length);
  expect(templating.list).toMatchObject([{ name: 'datasource', type: 'datasource' }]);
  // None is tied to somebody's own Prometheus.
  for (const { type, datasource } of panels) if (type !== 'row') expect(datasource?.uid).toBe('${datasource}');
});

test('rules and dashboard look at each kind of thing that the reference knows, and at nothing else of ours', () => {
  const used = new Set([...ruleExpressions().values(), ...dashboardExpressions().values()].flatMap(selectorsIn));
  const names = [...used].map((selector) => selector.replace(/\{.*/, '').replace(/_(bucket|sum|count)$/, ''));
  const ours = new Set(names.filter((name) => name.startsWith('drover_')));
  expect([...ours].filter((name) => !reference.includes(`| \`${name}\``))).toEqual([]);
  const known = [...reference.matchAll(/^\| `(drover_\w+)`/gm)].map(([, name = '']) => name);
  expect(known.filter((name) => !ours.has(name)).toSorted()).toEqual([
    // One series or two a VM, for whoever asked for them; what is only there with meters; and what never changes.
    'drover_agent_info',
    'drover_agent_power_watts',
    'drover_build_info',
    'drover_build_info',
    'drover_vm_cpu_cores',
    'drover_vm_memory_resident_bytes',
    'drover_vms_left_out',
  ]);
});
