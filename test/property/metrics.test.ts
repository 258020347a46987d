/** Every metric there is, against Prometheus' conventions and against the reference. */
import { expect, test } from 'vitest';
import type { Metric, Registry } from 'prom-client';
import { agentMetrics } from '../../src/agent/metrics.ts';
import { FakeFleet } from '../../src/control/fake-fleet.ts';
import { ServerMetrics } from '../../src/control/metrics/metrics.ts';
import { timedStore } from '../../src/control/metrics/timed-store.ts';

interface Shown {
  readonly name: string;
  readonly type: string;
  readonly labels: readonly string[];
  readonly help: string;
}

/** What the registry keeps of a metric beside what its types tell. */
type Kept = Metric & {
  readonly name: string;
  readonly help: string;
  readonly type: string;
  readonly labelNames: string[];
};

function own(registry: Registry): Shown[] {
  const all = registry.getMetricsAsArray() as unknown as Kept[];
  return all
    .map(({ name, type, labelNames, help }) => ({ name, type, labels: labelNames, help }))
    .filter(({ name }) => name.startsWith('drover_'))
    .toSorted((a, b) => (a.name < b.name ? -1 : 1));
}

async function all(): Promise<{ server: Shown[]; agent: Shown[] }> {
  const fleet = await FakeFleet.start(['h1']);
  const metrics = new ServerMetrics('1.2.3', 1);
  timedStore(fleet.plane.store, metrics.registry);
  const { registry } = metrics.leads(fleet.plane);
  const agent = agentMetrics({
    agent: { guests: { running: new Map() } as never, isWelcome: () => true, measuring: () => 0 }, // nobody scrapes here
    hostName: 'h1',
    version: '1.2.3',
    inventory: { accel: 'tcg', qemuVersion: '10' },
    journal: { vms: () => [] },
    facts: { unacknowledged: () => [] },
    leases: { guards: () => [] },
    load: () => null,
  });
  await fleet.stopServer();
  return { server: [...own(metrics.registry), ...own(registry)], agent: own(agent) };
}

const units = ['seconds', 'bytes', 'ratio', 'watts', 'cores', 'score', 'factor', 'info', 'total'];
/** They count things, whose name is their unit. */
const counted =
  /^drover_(hosts|vms|drains|tasks|migration_rounds|migrations_open|recoveries_open|agents_connected|vms_left_out|drains_blocked)$/;

test('names, units and labels are as Prometheus wants them', async () => {
  const { server, agent } = await all();
  for (const { name, type, labels, help } of [...server, ...agent]) {
    expect(name).toMatch(/^drover_[a-z]+(_[a-z]+)*$/);
    expect([name, type === 'counter']).toEqual([name, name.endsWith('_total')]);
    if (type === 'histogram') {
      expect([name, counted.test(name) || units.some((unit) => name.endsWith(`_${unit}`))]).toEqual([name, true]);
      // Each of their series is a dozen: nothing that a user can make more of may split them.
      expect([name, labels.filter((label) => ['vm', 'host', 'migration', 'task'].includes(label))]).toEqual([name, []]);
    }
    expect(help).toMatch(/^[A-Z0-9].*\.$/);
  }
  expect(server.filter(({ labels }) => labels.includes('vm')).map(({ name }) => name)).toEqual([
    'drover_vm_cpu_cores',
    'drover_vm_memory_resident_bytes',
  ]);
});

test('the reference lists them all (write it anew with vitest -u)', async () => {
  const { server, agent } = await all();
  const rows = (shown: readonly Shown[]) =>
    shown
      .map(({ name, type, labels, help }) => `| \`${name}\` | ${type} | ${labels.join(', ')} | ${help} |`)
      .join('\n');
  const table = (shown: readonly Shown[]) =>
    `| name | type | labels | what it says |\n|---|---|---|---|\n${rows(shown)}\n`;
  const text = `# Metrics

Written from the programs themselves. How they are reached, and what to do with them: [the guide](../guide/metrics.md).

## Of a server

Those of the store, \`drover_server_*\` and \`drover_build_info\` are said by every server; the rest by the one that leads.

${table(server)}
## Of an agent

Each also carries the label \`host\`, the name of its host.

${table(agent)}
Both also say what is known of every program on Node: \`process_cpu_seconds_total\`, \`process_resident_memory_bytes\`,
\`process_open_fds\`, \`nodejs_eventloop_lag_seconds\` and their kind.
`;
  await expect(text).toMatchFileSnapshot('../../docs/reference/metrics.md');
});
