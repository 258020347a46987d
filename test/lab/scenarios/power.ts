/** A host loses its power, by its BMC and by its plug: all of it is dead at once, what is read says so, and it comes back as after a boot. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import type { Scenario, TestLab } from '../harness.ts';
import { run } from '../../../src/lab/exec.ts';
import { guestProcesses } from '../../../src/lab/guests.ts';
import { powerFilesOf } from '../../../src/lab/power.ts';
import { namesOf } from '../../../src/lab/state.ts';
import { hostsUp } from '../../../src/lab/up.ts';

const host = 'h1';
const params = { host } as const;

const bootId = (lab: TestLab) => readFileSync(powerFilesOf(lab.lab.state.name).bootId(host), 'utf8').trim();

async function nothingLives(lab: TestLab): Promise<void> {
  const { name } = lab.lab.state;
  const pids = await run('ip', ['netns', 'pids', namesOf(name).host(host)]);
  assert.equal(pids.trim(), '', `processes live on ${host}, which is off`);
}

export const scenarios: readonly Scenario[] = [
  {
    name: 'power: a host is switched off by its BMC with its guest, and comes back with another boot',
    async run(lab) {
      const { client } = lab;
      const { vm } = await lab.create({ name: 'unplugged', memoryMiB: 128, host });
      const before = { bootId: bootId(lab), session: (await client.getHost({ params })).session };
      try {
        await assert.rejects(client.switchHostPower({ params, body: { to: 'off' } }), /unplugged/);
        const off = await client.switchHostPower({ params, body: { to: 'off', force: true } });
        assert.equal(off.state, 'off', off.says ?? 'no words');
        await nothingLives(lab);
        assert.deepEqual(
          (await guestProcesses(lab.lab.state, vm.id)).filter((guest) => guest.host === host),
          [],
        );
        assert.equal((await client.getHostPower({ params })).state, 'off');
        const on = await client.switchHostPower({ params, body: { to: 'on' } });
        assert.equal(on.state, 'on', on.says ?? 'no words');
        const reports = async () => {
          const now = await client.getHost({ params });
          return now.state === 'up' && now.session > before.session;
        };
        await lab.until(`${host} to report again`, reports, 60_000);
        assert.notEqual(bootId(lab), before.bootId);
      } finally {
        await lab.mend();
        await lab.remove(vm);
      }
      await lab.clean();
    },
  },
  {
    name: 'power: a plug is pulled together with that of the BMC: nothing lives, and nobody can say so',
    async run(lab) {
      try {
        await lab.disturb({ kind: 'power-off', host, bmc: 'dead' });
        await nothingLives(lab);
        assert.equal((await lab.client.getHostPower({ params })).state, 'unknown');
      } finally {
        await lab.mend();
      }
      assert.equal((await lab.client.getHostPower({ params })).state, 'on');
      await hostsUp(lab.lab, lab.signal);
      await lab.clean();
    },
  },
];
