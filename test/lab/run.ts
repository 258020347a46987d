/**
 * The lab's scenarios on real guests, as root: one warm lab serves them all.
 *
 *     node test/lab/run.ts [--only PATTERN] [--list] [--keep] [--soak N] [--cuts N [--seed N]]
 *
 * One line a scenario with its seconds; the last line is `N passed, N failed`. After a failure the logs are kept.
 */
import { appendFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import assert from 'node:assert/strict';
import { messageOf } from '../../src/model/failure.ts';
import { techniques } from '../../src/model/migration.ts';
import { down, keepLogs, leftovers } from '../../src/lab/down.ts';
import { directoriesOf } from '../../src/lab/state.ts';
import { openTestLab, testLabName, type Scenario, type TestLab } from './harness.ts';
import { cuts } from './cuts.ts';
import { scenarios as balance } from './scenarios/balance.ts';
import { scenarios as cancel } from './scenarios/cancel.ts';
import { scenarios as chaos } from './scenarios/chaos.ts';
import { scenarios as consolidate } from './scenarios/consolidate.ts';
import { scenarios as dashboard } from './scenarios/dashboard.ts';
import { scenarios as drain } from './scenarios/drain.ts';
import { scenarios as forecast } from './scenarios/forecast.ts';
import { scenarios as energy } from './scenarios/energy.ts';
import { scenarios as guard } from './scenarios/guard.ts';
import { scenarios as metrics } from './scenarios/metrics.ts';
import { scenarios as refusals } from './scenarios/refusals.ts';
import { scenarios as images } from './scenarios/images.ts';
import { scenarios as outage } from './scenarios/outage.ts';
import { scenarios as power } from './scenarios/power.ts';
import { scenarios as moves } from './scenarios/techniques.ts';
import { scenarios as rejoin } from './scenarios/rejoin.ts';
import { scenarios as servers } from './scenarios/servers.ts';
import { scenarios as sick } from './scenarios/sick.ts';
import { scenarios as tasks } from './scenarios/tasks.ts';
import { scenarios as trouble } from './scenarios/trouble.ts';

const scenarioMs = 180_000;
const all: readonly Scenario[] = [
  ...moves,
  ...forecast,
  ...images,
  ...cancel,
  ...dashboard,
  ...refusals,
  ...trouble,
  ...rejoin,
  ...guard,
  ...power,
  ...energy,
  ...consolidate,
  ...servers,
  ...sick,
  ...drain,
  ...metrics,
  ...tasks,
  ...balance,
  ...chaos,
  ...outage,
];

const { values } = parseArgs({
  options: {
    only: { type: 'string' },
    list: { type: 'boolean', default: false },
    /** Leave the lab up at the end. */
    keep: { type: 'boolean', default: false },
    /** So many moves of one writing guest in a row, techniques mixed. */
    soak: { type: 'string' },
    /** So many link cuts at random moments of post-copy. */
    cuts: { type: 'string' },
    /** Of the cuts: the same seed cuts at the same moments in the same ways. */
    seed: { type: 'string', default: '1' },
  },
});

function soak(times: number): Scenario {
  return {
    name: `soak: ${times} moves of a writing guest in a row, techniques mixed, verified`,
    async run(lab: TestLab) {
      for (let i = 0; i < times; i++) {
        const test = await lab.guest('writer');
        const technique = techniques[i % techniques.length] ?? 'auto';
        const { proof } = await lab.move(test, lab.otherThan(test.vm.host), technique);
        assert(proof.ok, `move ${i + 1}, ${technique}: ${proof.says}`);
        await lab.clean();
      }
      const findings = await lab.client.checkFleet();
      assert.deepEqual(
        findings.filter(({ severity }) => severity !== 'ok'),
        [],
        'drover doctor is not content',
      );
    },
  };
}

const say = (line: string): void => void process.stdout.write(`${line}\n`);

async function main(): Promise<number> {
  const chosen =
    values.cuts !== undefined
      ? [cuts(Number(values.cuts), Number(values.seed), say)]
      : values.soak !== undefined
        ? [soak(Number(values.soak))]
        : all;
  const only = values.only === undefined ? undefined : new RegExp(values.only, 'i');
  const wanted = chosen.filter(({ name }) => only?.test(name) ?? true);
  if (values.list) {
    for (const { name } of wanted) say(name);
    return 0;
  }
  const interrupt = new AbortController();
  for (const name of ['SIGINT', 'SIGTERM'] as const)
    process.once(name, () => interrupt.abort(new Error('interrupted')));
  let passed = 0;
  let failed = 0;
  try {
    await down(testLabName, () => {});
    const lab = await openTestLab(say, interrupt.signal);
    for (const scenario of wanted) {
      if (interrupt.signal.aborted) break;
      const startedAt = performance.now();
      const error = await attempt(scenario, lab, interrupt.signal);
      const seconds = `${((performance.now() - startedAt) / 1000).toFixed(1)} s`.padStart(7);
      if (error === undefined) passed++;
      else failed++;
      say(`${error === undefined ? 'ok    ' : 'FAILED'} ${seconds}  ${scenario.name}`);
      if (error !== undefined) {
        say(indent(wordsOf(error)));
        await note(lab, scenario.name).catch(() => {});
        // What the next scenario finds must not depend on what this one broke.
        await lab.mend().catch((cause: unknown) => say(`       the lab cannot be mended: ${messageOf(cause)}`));
        await settle(lab).catch((cause: unknown) => say(`       and does not settle: ${messageOf(cause)}`));
      }
    }
  } catch (error) {
    failed++;
    say(`FAILED  the lab itself: ${wordsOf(error)}`);
  }
  if (failed > 0) say(`logs are kept in ${keepLogs(testLabName)}`);
  if (!values.keep) {
    await down(testLabName, say);
    const left = await leftovers(testLabName);
    if (left.length > 0) {
      failed++;
      say(`FAILED  the lab left behind: ${left.join('; ')}`);
    }
  }
  say(`${passed} passed, ${failed} failed`);
  return failed === 0 && !interrupt.signal.aborted ? 0 : 1;
}

/** @returns what went wrong, or undefined */
async function attempt(scenario: Scenario, lab: TestLab, signal: AbortSignal): Promise<unknown> {
  const limitMs = scenario.limitMs ?? scenarioMs;
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`not done within ${limitMs / 1000} s`)), limitMs);
    signal.addEventListener('abort', () => reject(new Error('interrupted')), { once: true });
  });
  try {
    // What ran before may have taken so much of the machine that a host fell silent for a moment.
    await Promise.race([lab.programsRun().then(() => scenario.run(lab)), late]);
    return undefined;
  } catch (error) {
    return error ?? new Error('unknown');
  } finally {
    clearTimeout(timer);
  }
}

/** Beside the other logs: what the server knew when the scenario failed. */
async function note(lab: TestLab, name: string): Promise<void> {
  const [vms, migrations] = await Promise.all([
    lab.client.listVms(),
    lab.client.listMigrations({ query: { limit: 3 } }),
  ]);
  const file = join(directoriesOf(testLabName).logs, 'failed-scenarios.log');
  appendFileSync(file, `${JSON.stringify({ at: new Date(), name, vms, migrations }, null, 2)}\n`);
}

/** After a failure: open migrations end or are cancelled, so that one fault does not count many times. */
async function settle(lab: TestLab): Promise<void> {
  for (const migration of await lab.client.listMigrations({ query: { open: 'true' } })) {
    await lab.client.cancelMigration({ params: { migration: migration.id } }).catch(() => {});
    await lab.ended(migration, 30_000);
  }
}

const wordsOf = (error: unknown): string => (error instanceof Error && error.stack) || messageOf(error);
const indent = (text: string): string => text.replaceAll(/^/gm, '       ');

process.exitCode = await main();
