/** A real Prometheus that watches real hosts: what it reads is what the API says, and what every alert and panel needs is there. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { addressesOf, apisOf, directoriesOf, metricsPort } from '../../../src/lab/state.ts';
import { dashboardExpressions, Prometheus, ruleExpressions, selectorsIn } from '../../contract/prometheus.ts';
import type { Scenario, TestLab } from '../harness.ts';

const small = { memoryMiB: 144, fillMiB: 8 } as const;
/** What a healthy lab does not have: requests that fail, and where the kernel has none, pressure. */
const mayBeMissing = /^drover_api_request_duration_seconds_count\{status=~"5\.\."\}$|^drover_agent_pressure_ratio$/;

function scrapesOf({ lab: { state } }: TestLab): object[] {
  const { control } = addressesOf(state.octet);
  const hosts = Array.from({ length: state.hosts }, (_, n) => `${control(`h${n + 1}`)}:${metricsPort}`);
  const token = readFileSync(directoriesOf(state.name).token, 'utf8').trim();
  const servers = apisOf(state).map((api) => new URL(api).host);
  return [
    { job_name: 'drover-server', authorization: { credentials: token }, static_configs: [{ targets: servers }] },
    { job_name: 'drover-agent', static_configs: [{ targets: hosts }] },
  ];
}

async function number(prometheus: Prometheus, expression: string): Promise<number> {
  const [found] = await prometheus.query(expression);
  assert(found !== undefined, `nothing is said of ${expression}`);
  return Number(found.value[1]);
}

export const scenarios: readonly Scenario[] = [
  {
    name: 'metrics: Prometheus sees hosts, guests and moves as they are, and has what every alert and panel looks at',
    async run(lab) {
      const [first, second] = lab.hosts;
      assert(first !== undefined && second !== undefined);
      const mover = await lab.create({ ...small, name: 'watched', host: first });
      const prometheus = await Prometheus.start(scrapesOf(lab));
      try {
        const targets = lab.hosts.length + apisOf(lab.lab.state).length;
        await prometheus.until(`sum(up) == ${targets}`);
        const ended = 'sum(drover_migrations_ended_total{outcome="completed",technique=~"pre-copy|post-copy"})';
        const before = await number(prometheus, ended);
        const downtimeBefore = await number(prometheus, 'sum(drover_migration_downtime_seconds_sum)');
        await prometheus.until(`drover_agent_guests{host="${first}"} >= 1`);

        const moves = [
          await lab.move(mover, second, 'pre-copy'),
          await lab.move({ ...mover, vm: await lab.vm(mover.vm.id) }, first, 'post-copy'),
        ];
        for (const { proof } of moves) assert(proof.ok, proof.says);
        await prometheus.until(`${ended} == ${before + moves.length}`);
        const paused = moves.reduce((sum, { migration }) => sum + (migration.measures.downtimeMs ?? 0), 0) / 1000;
        const seen = (await number(prometheus, 'sum(drover_migration_downtime_seconds_sum)')) - downtimeBefore;
        assert(Math.abs(seen - paused) < 1e-6, `${seen} s of downtime are counted, and ${paused} s were measured`);
        assert((await number(prometheus, 'sum(drover_migration_forecast_ratio_count)')) >= 2 * moves.length);

        const vms = await lab.client.listVms();
        for (const host of lab.hosts) {
          const running = vms.filter((vm) => vm.host === host && vm.state === 'running').length;
          await prometheus.until(`drover_agent_guests{host="${host}"} == ${running}`);
        }
        await prometheus.until(`drover_hosts{state="up"} == ${lab.hosts.length}`);
        await prometheus.until('sum(drover_agent_server_connected) == sum(drover_agents_connected)');
        await prometheus.until('min(drover_agent_lease_left_seconds) > 0');

        const expressions = [...ruleExpressions().values(), ...dashboardExpressions().values()];
        const missing: string[] = [];
        for (const selector of new Set(expressions.flatMap(selectorsIn))) {
          if (!mayBeMissing.test(selector) && (await prometheus.query(selector)).length === 0) missing.push(selector);
        }
        for (const [panel, expression] of dashboardExpressions()) {
          if (mayBeMissing.test(expression)) continue;
          if ((await prometheus.query(expression)).length === 0) missing.push(`${panel}: ${expression}`);
        }
        assert.deepEqual(missing, []);
        assert.deepEqual(await prometheus.firing(), [], 'an alert fires, and nothing is wrong');
        const series = await number(prometheus, 'count({job=~"drover-.*"})');
        process.stdout.write(`       ${expressions.length} expressions on ${series} series of ${targets} programs\n`);
      } finally {
        await prometheus.stop();
        await lab.remove(await lab.vm(mover.vm.id));
      }
      await lab.clean();
    },
  },
];
