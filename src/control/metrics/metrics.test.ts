/** What a server says of the fleet to those who watch it, as the fleet changes. */
import { Registry } from 'prom-client';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { DecisionRecord, PlanRecord } from '../../model/distribution.ts';
import type { RecoveryRecord } from '../../model/recovery.ts';
import { silentLog } from '../../runtime/log.ts';
import { Engine } from '../../store/memory.ts';
import { StoreUnavailable, type Store } from '../../store/store.ts';
import { migrateBody } from '../../wire/endpoints.ts';
import { FakeFleet, settled, type MoveFact } from '../fake-fleet.ts';
import type { FleetChange } from '../fleet.ts';
import { createApi } from '../server.ts';
import { fleetCounters } from './fleet-counters.ts';
import { ServerMetrics } from './metrics.ts';
import { timedStore } from './timed-store.ts';

const token = 'a-token-for-tests';
let fleet: FakeFleet;
let shown: ReturnType<ServerMetrics['leads']>;
beforeEach(async () => {
  fleet = await FakeFleet.start(['h1', 'h2']);
  shown = new ServerMetrics('1.2.3', 1).leads(fleet.plane);
});
afterEach(async () => {
  await fleet.stopServer();
});

/** The value of one series, written as Prometheus writes it; undefined: it is not there. */
function valueIn(text: string, name: string): number | undefined {
  const line = text.split('\n').find((each) => each.startsWith(`${name} `));
  return line === undefined ? undefined : Number(line.slice(name.length + 1));
}

async function values(...names: readonly string[]): Promise<(number | undefined)[]> {
  const text = await shown.text();
  return names.map((name) => valueIn(text, name));
}

const endpoint = { address: '10.0.1.2', port: 4000 };
const round = { round: 1, durationMs: 100, bytes: 1e6, dirtyPages: 100, bandwidthBytesPerSecond: 1e8 };
const preCopy: readonly (readonly [host: string, fact: MoveFact])[] = [
  ['h2', { kind: 'listening', endpoint }],
  ['h1', { kind: 'sending' }],
  ['h1', { kind: 'round', round }],
  ['h1', { kind: 'stopped', for: 'stop-and-copy' }],
  ['h1', { kind: 'handed-over' }],
  ['h2', { kind: 'resumed', withFaults: false }],
  ['h1', { kind: 'measured', measures: { bytes: 2e6 } }],
  ['h1', { kind: 'released' }],
];

describe('of the fleet as it is', () => {
  test('hosts and VMs are counted by state, also the states that nobody is in', async () => {
    await fleet.run('web1', 'h1');
    const names = ['drover_hosts{state="up"}', 'drover_hosts{state="cordoned"}', 'drover_hosts{state="silent"}'];
    expect(await values(...names)).toEqual([2, 0, 0]);
    expect(await values('drover_vms{state="running"}', 'drover_vms{state="crashed"}')).toEqual([1, 0]);
    expect(await values('drover_agents_connected', 'drover_records_held')).toEqual([2, 0]);
    expect(await values('drover_guest_memory_reserved_bytes')).toEqual([512 * 1024 * 1024]);
    const host = fleet.plane.fleet.findHost('h2');
    await fleet.plane.fleet.change((draft) => draft.putHost({ ...host, cordoned: true }));
    expect(await values(...names)).toEqual([1, 1, 0]);
    await fleet.clock.advance(10_000);
    expect(await values(...names)).toEqual([0, 0, 2]);
  });

  test('as many VMs as were asked for have series of their own, and the rest is counted', async () => {
    await fleet.run('web1', 'h1');
    await fleet.run('web2', 'h1');
    const load = { diskReadBytesPerSecond: 0, diskWriteBytesPerSecond: 0, netReceiveBytesPerSecond: 0 };
    fleet.guestLoad = () => ({ cpuCores: 0.5, memoryResidentMiB: 100, netSendBytesPerSecond: 0, ...load });
    await fleet.pass(1000);
    const [first, second, rest] = await values(
      'drover_vm_cpu_cores{vm="web1"}',
      'drover_vm_cpu_cores{vm="web2"}',
      'drover_vms_left_out',
    );
    expect([first, second, rest]).toEqual([0.5, undefined, 1]);
  });
});

describe('of what has happened', () => {
  test('a move is open in its phase, and counts once with each of its measures when it is completed', async () => {
    await fleet.run('web1', 'h1');
    const ask = migrateBody.parse({ to: 'h2', technique: 'pre-copy' });
    const { id } = await fleet.plane.reservations.startMigration('web1', ask, null, 'test');
    const open = 'drover_migrations_open{technique="pre-copy",phase="reserved"}';
    expect(await values(open)).toEqual([1]);
    for (const [host, fact] of preCopy) {
      await fleet.clock.advance(10);
      await fleet.agent(host).move(id, fact);
    }
    await settled();
    const ended = 'drover_migrations_ended_total{technique="pre-copy",outcome="completed",failure="none"}';
    expect(await values(open, ended)).toEqual([0, 1]);
    for (const name of ['migration_downtime_seconds', 'migration_duration_seconds', 'migration_rounds'])
      expect([name, ...(await values(`drover_${name}_count{technique="pre-copy"}`))]).toEqual([name, 1]);
    expect(await values('drover_migration_sent_bytes_sum{technique="pre-copy"}')).toEqual([2e6]);
    expect(await values('drover_migration_downtime_seconds_sum{technique="pre-copy"}')).toEqual([0.02]);
    const ratio = 'drover_migration_forecast_ratio_count{technique="pre-copy",quantity="downtime"}';
    expect(await values(ratio)).toEqual([1]);

    const blackout = 'drover_migration_blackout_seconds_count{technique="pre-copy"}';
    expect(await values(blackout)).toEqual([0]);
    await fleet.plane.migrations.recordBlackout(id, 40);
    expect(await values(blackout, ended, ratio)).toEqual([1, 1, 1]);
  });

  test('a move that fails counts under its code', async () => {
    await fleet.run('web1', 'h1');
    const ask = migrateBody.parse({ to: 'h2', technique: 'pre-copy' });
    const { id } = await fleet.plane.reservations.startMigration('web1', ask, null, 'test');
    await fleet.agent('h2').move(id, {
      kind: 'target-failed',
      failure: { code: 'target-died', message: 'QEMU is gone.', hint: 'Look.' },
    });
    await settled();
    const code = 'drover_migrations_ended_total{technique="pre-copy",outcome="failed",failure="target-died"}';
    expect(await values(code)).toEqual([1]);
    expect(await values('drover_migration_downtime_seconds_count{technique="pre-copy"}')).toEqual([0]);
  });

  test('a recovery counts how long it took to see, to prove, to place and to boot', async () => {
    const registry = new Registry();
    const count = fleetCounters(registry);
    const vm = { vm: 'vm_1', vmName: 'web1', priority: 500, kind: 'restart', target: null, placedAt: null };
    // The casts: ids are made elsewhere, and the rest is of no matter here.
    const before = {
      proof: 'power-off',
      silentSince: 1000,
      detectedAt: 4000,
      fencedAt: 9000,
      vms: [{ ...vm, startedAt: null }],
    } as unknown as RecoveryRecord;
    const placed = { ...before, vms: [{ ...vm, placedAt: 9500, startedAt: null }] } as unknown as RecoveryRecord;
    const started = { ...before, vms: [{ ...vm, placedAt: 9500, startedAt: 11_500 }] } as unknown as RecoveryRecord;
    count([{ kind: 'recovery', before: undefined, after: before }]);
    count([{ kind: 'recovery', before, after: placed }]);
    count([{ kind: 'recovery', before: placed, after: started }]);
    count([{ kind: 'recovery', before: started, after: { ...started, endedAt: 12_000 } }]);
    const text = await registry.metrics();
    const sums = ['detect', 'fence', 'place', 'boot'].map((what) =>
      valueIn(text, `drover_recovery_${what}_seconds_sum`),
    );
    expect(sums).toEqual([3, 5, 0.5, 2]);
    expect(valueIn(text, 'drover_recoveries_total{proof="power-off"}')).toBe(1);
    expect(valueIn(text, 'drover_recovered_vms_total')).toBe(1);
  });

  test('the distributor counts what it proposed, what it made and what has paid', async () => {
    const registry = new Registry();
    const count = fleetCounters(registry);
    const plan = { goal: 'balance', origin: 'loop', moves: [{}, {}] } as unknown as PlanRecord;
    const decision = { automatic: true, measured: null } as unknown as DecisionRecord;
    const judged = { ...decision, measured: { at: 1, gain: 2, paid: true, says: '' } } as DecisionRecord;
    const changes: FleetChange[] = [
      { kind: 'plan', before: undefined, after: plan },
      { kind: 'plan', before: plan, after: plan },
      { kind: 'decision', before: undefined, after: decision },
      { kind: 'decision', before: decision, after: judged },
      { kind: 'decision', before: judged, after: undefined },
    ];
    for (const change of changes) count([change]);
    const text = await registry.metrics();
    expect(valueIn(text, 'drover_balance_moves_proposed_total{goal="balance",origin="loop"}')).toBe(2);
    expect(valueIn(text, 'drover_balance_moves_made_total{automatic="true"}')).toBe(1);
    expect(valueIn(text, 'drover_balance_moves_judged_total{paid="yes"}')).toBe(1);
  });

  test('tasks and drains count when they end', async () => {
    const { fleet: records } = fleet.plane;
    const [task] = await fleet.plane.tasks.create(
      { command: ['true'], cpus: 1, memoryMiB: 64, selector: {}, timeLimitMs: 1000, retries: 0 },
      { count: 1, firstIndex: 0 },
      null,
    );
    expect(await values('drover_tasks{state="queued"}')).toEqual([1]);
    await fleet.plane.tasks.cancel(task?.id ?? '');
    expect(await values('drover_tasks{state="queued"}', 'drover_tasks_ended_total{outcome="cancelled"}')).toEqual([
      0, 1,
    ]);
    await fleet.plane.drains.begin(
      'h2',
      { because: 'a test', movesAtOnce: 1, allowCold: false, dryRun: false },
      'test',
    );
    await fleet.pass(2000);
    expect([...records.drains.values()].map(({ state }) => state.kind)).toEqual(['drained']);
    expect(await values('drover_drains{state="drained"}', 'drover_drains_ended_total{outcome="drained"}')).toEqual([
      1, 1,
    ]);
  });
});

describe('at /metrics', () => {
  const ask = (api: ReturnType<typeof createApi>, url: string, shows = token) =>
    api.inject({ method: 'GET', url, headers: { authorization: `Bearer ${shows}` } });

  test('a token is needed, and what the API did is counted by operation and status', async () => {
    const api = createApi({ plane: fleet.plane, token, log: silentLog, metrics: shown });
    expect((await api.inject({ method: 'GET', url: '/metrics' })).statusCode).toBe(401);
    expect((await ask(api, '/metrics?x=1', 'another')).statusCode).toBe(401);
    await ask(api, '/api/v1/vms');
    await ask(api, '/api/v1/vms/nobody');
    await ask(api, '/api/v1/vms', 'another');
    const answer = await ask(api, '/metrics');
    expect(answer.statusCode).toBe(200);
    expect(answer.headers['content-type']).toMatch(/^text\/plain; version=0\.0\.4/);
    const count = (operation: string, status: number) =>
      valueIn(answer.body, `drover_api_request_duration_seconds_count{operation="${operation}",status="${status}"}`);
    expect([count('listVms', 200), count('listVms', 401), count('getVm', 404)]).toEqual([1, 1, 1]);
    expect(valueIn(answer.body, 'drover_build_info{version="1.2.3"}')).toBe(1);
    await api.close();
  });

  test('a server that leads no more says nothing of the fleet', async () => {
    const metrics = new ServerMetrics('1.2.3', 0);
    const leads = metrics.leads(fleet.plane);
    expect(await leads.text()).toMatch(/^drover_server_leader 1$/m);
    expect(await leads.text()).toMatch(/^drover_hosts\{/m);
    leads.ends();
    const text = await metrics.text();
    expect(text).toMatch(/^drover_server_leader 0$/m);
    expect(text).not.toMatch(/^drover_server_term |drover_hosts/m);
  });
});

test('a store is timed by what came of it, and otherwise what it was', async () => {
  const registry = new Registry();
  const engine = new Engine({ clock: fleet.clock });
  const broken: Store = { ...engine.connect(), get: async () => Promise.reject(new StoreUnavailable('no disk')) };
  const store = timedStore(engine.connect(), registry);
  expect(await store.commit([], [{ key: 'a', put: 1 }])).toMatchObject({ ok: true });
  expect(await store.commit([{ key: 'a', absent: true }], [{ key: 'a', put: 2 }])).toMatchObject({ ok: false });
  await expect(timedStore(broken, new Registry()).get('a')).rejects.toThrow('no disk');
  expect((await store.get('a'))?.value).toBe(1);
  const text = await registry.metrics();
  const count = (operation: string, outcome: string) =>
    valueIn(text, `drover_store_operation_duration_seconds_count{operation="${operation}",outcome="${outcome}"}`);
  expect([count('commit', 'ok'), count('commit', 'refused'), count('get', 'ok')]).toEqual([1, 1, 1]);
});
