/** What an agent says of its host, and the door by which it is read. */
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { HostLoad } from '../model/host.ts';
import { FakeHost, jobOf, vm } from './fake-host.ts';
import { remembering } from './load.ts';
import { agentMetrics, listenForMetrics, type AgentSeen } from './metrics.ts';

const load: HostLoad = {
  at: 1,
  cpu: 0.25,
  memoryUsedMiB: 100,
  memoryTotalMiB: 400,
  pressure: { cpu: 0.1, memory: 0 },
  guests: {},
};
let host: FakeHost;
let seen: AgentSeen;
let last: HostLoad | null;
beforeEach(async () => {
  last = null;
  host = await new FakeHost('h1').begin();
  seen = {
    agent: { guests: host.guests, isWelcome: () => true, measuring: () => 2 },
    hostName: 'h1',
    version: '1.2.3',
    inventory: { accel: 'tcg', qemuVersion: '10.0.2' },
    journal: host.context.journal,
    facts: host.facts,
    leases: { guards: () => [{ pool: 'fast', poolId: 'p', leaseTimeMs: 10_000, leftMs: 7_000, watchdog: false }] },
    load: () => last,
  };
});
afterEach(() => host.end());

const lines = async (name: string): Promise<string[]> =>
  (await agentMetrics(seen).metrics()).split('\n').filter((line) => line.startsWith(name));

describe('an agent says', () => {
  test('what runs, what it sends and receives, and how old its leases are, each with its name', async () => {
    expect(await lines('drover_agent_guests')).toEqual(['drover_agent_guests{host="h1"} 0']);
    expect(await lines('drover_agent_server_connected')).toEqual(['drover_agent_server_connected{host="h1"} 1']);
    expect(await lines('drover_agent_measuring')).toEqual(['drover_agent_measuring{host="h1"} 2']);
    expect(await lines('drover_agent_lease')).toEqual([
      'drover_agent_lease_age_seconds{pool="fast",host="h1"} 3',
      'drover_agent_lease_left_seconds{pool="fast",host="h1"} 7',
    ]);
    const streams = (direction: string) => `drover_agent_migration_streams{direction="${direction}",host="h1"}`;
    expect(await lines('drover_agent_migration_streams')).toEqual([`${streams('in')} 0`, `${streams('out')} 0`]);
    const entry = { schema: 1, vm, name: 'web1', generation: 1, taps: [] } as const;
    host.context.journal.setVm({ ...entry, part: { kind: 'receiving', job: jobOf() } });
    expect(await lines('drover_agent_migration_streams')).toEqual([`${streams('in')} 1`, `${streams('out')} 0`]);
  });

  test('nothing of a load that was not measured, nor of a pressure that the kernel does not know', async () => {
    expect(await lines('drover_agent_cpu')).toEqual([]);
    expect(await lines('drover_agent_pressure')).toEqual([]);
    last = load;
    expect(await lines('drover_agent_cpu')).toEqual(['drover_agent_cpu_used_ratio{host="h1"} 0.25']);
    expect(await lines('drover_agent_pressure')).toHaveLength(2);
    last = { ...load, pressure: null };
    expect(await lines('drover_agent_pressure')).toEqual([]);
    expect(await lines('drover_agent_power')).toEqual([]);
  });

  test('what the meter measured for the report, without asking it again', async () => {
    let asked = 0;
    const { meter, last: known } = remembering({ measure: async () => (asked++, load) });
    expect(known()).toBeNull();
    await meter.measure(new Map(), 1);
    expect([known(), known(), asked]).toEqual([load, load, 1]);
  });
});

describe('its door', () => {
  test('answers GET /metrics and nothing else, and says when it is too early', async () => {
    let registry: ReturnType<typeof agentMetrics> | null = null;
    const door = await listenForMetrics({ address: '127.0.0.1', port: 0 }, () => registry);
    const ask = (path: string, method = 'GET') => fetch(`http://127.0.0.1:${door.port}${path}`, { method });
    expect((await ask('/metrics')).status).toBe(503);
    registry = agentMetrics(seen);
    const answer = await ask('/metrics');
    expect([answer.status, answer.headers.get('content-type')]).toEqual([200, expect.stringMatching(/^text\/plain;/)]);
    expect(await answer.text()).toContain('drover_build_info{version="1.2.3",host="h1"} 1');
    expect([(await ask('/')).status, (await ask('/metrics', 'POST')).status]).toEqual([404, 404]);
    await expect(listenForMetrics({ address: '127.0.0.1', port: door.port }, () => registry)).rejects.toMatchObject({
      code: 'invalid-input',
    });
    door.close();
  });
});
