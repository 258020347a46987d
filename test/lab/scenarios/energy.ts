/** A host without guests proves that it can be woken, sleeps without being taken for lost, and is woken when a VM needs its room. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { PoolFiles } from '../../../src/agent/guard/pool-files.ts';
import { run } from '../../../src/lab/exec.ts';
import { powerFilesOf } from '../../../src/lab/power.ts';
import { apiOf, directoriesOf, namesOf, repository } from '../../../src/lab/state.ts';
import type { SleepView } from '../../../src/wire/energy.ts';
import type { Scenario, TestLab } from '../harness.ts';

const host = 'h3';
const params = { host } as const;

/** As a person would: by the command line. @returns what it printed, without words on the way */
function drover(lab: TestLab, ...words: string[]): Promise<string> {
  const { token } = directoriesOf(lab.lab.state.name);
  const where = ['--server', apiOf(lab.lab.state), '--token-file', token];
  return run(join(repository, 'bin', 'drover'), [...where, ...words], { deadlineMs: 60_000 });
}

async function empty(lab: TestLab): Promise<void> {
  for (const vm of await lab.client.listVms({ query: { host } })) {
    if (vm.state === 'running') await lab.ended(await lab.migrate(vm, lab.otherThan(host), 'hybrid'));
  }
}

async function leaseOf(lab: TestLab): Promise<string | undefined> {
  const pool = new PoolFiles({ name: 'default', directory: directoriesOf(lab.lab.state.name).pool });
  try {
    return (await pool.read(host)).lease?.state;
  } finally {
    pool.close();
  }
}

async function is(lab: TestLab, state: SleepView['state']): Promise<SleepView> {
  await lab.until(`${host} to be ${state}`, async () => {
    const view = await lab.client.getHostSleep({ params });
    assert.equal(view.lastFailure, null, view.lastFailure?.says ?? '');
    return view.state === state;
  });
  return lab.client.getHostSleep({ params });
}

export const scenarios: readonly Scenario[] = [
  {
    name: 'energy: a host proves that it wakes, sleeps without being fenced, and is woken when a VM needs its room',
    async run(lab) {
      const { client } = lab;
      const { state } = lab.lab;
      await empty(lab);
      // Others may still be recovering from an earlier scenario.
      const recoveries = async () => (await client.listRecoveries()).filter((lost) => lost.host === host).length;
      const before = await recoveries();
      const bootId = () => readFileSync(powerFilesOf(state.name).bootId(host), 'utf8').trim();
      const bootBefore = bootId();
      try {
        await drover(lab, 'host', 'sleep-way', host, 'off');
        await assert.rejects(client.sendHostToSleep({ params, body: {} }), /never proven/);

        const drilled = await drover(lab, 'host', 'drill', host, '--wait');
        assert.match(drilled, /h3 is awake \(sleeps by off, ready within .* of being woken/);
        assert.notEqual(bootId(), bootBefore);

        await drover(lab, 'host', 'sleep', host);
        await is(lab, 'asleep');
        assert.equal((await client.getHostPower({ params })).state, 'off');
        assert.equal((await run('ip', ['netns', 'pids', namesOf(state.name).host(host)])).trim(), '');
        assert.equal(await leaseOf(lab), 'released', 'the lease was not given back in good order');
        // Long enough to be taken for lost: silence, and the time of a lease.
        await lab.until('its silence to be noticed', async () => (await client.getHost({ params })).state === 'silent');
        const findings = (await client.checkFleet()).filter(({ about }) => about.startsWith(`host ${host}:`));
        assert.deepEqual(
          findings.filter(({ severity }) => severity === 'error'),
          [],
          'drover doctor takes a sleeping host for a broken one',
        );

        await assert.rejects(lab.create({ name: 'roomy', memoryMiB: 128, host }), /h3 is asleep/);
        await drover(lab, 'host', 'wake', host, '--wait', '--because', 'roomy needs its room');
        const roomy = await lab.create({ name: 'roomy', memoryMiB: 128, host });
        assert.equal(roomy.vm.host, host);
        await assert.rejects(client.sendHostToSleep({ params, body: {} }), /h3 has guests: roomy/);
        await lab.remove(roomy.vm);
        assert.equal(await recoveries(), before, 'a sleeping host was fenced');
        assert.equal((await client.getHost({ params })).fenced, null);
      } finally {
        await client.wakeHost({ params, body: {} });
        await lab.until(`${host} to report`, async () => (await client.getHostSleep({ params })).state === 'awake');
        await client.setHostSleep({ params, body: { way: null } });
      }
      await lab.clean();
    },
  },
];
