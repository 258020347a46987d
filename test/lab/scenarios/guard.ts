/** The guard and its lease: what may stop a guest (a pool that cannot be written, no guardian left), and what never does. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Lease } from '../../../src/agent/guard/lease.ts';
import { blockBytes, decodeBlock } from '../../../src/agent/guard/lease-block.ts';
import { run } from '../../../src/lab/exec.ts';
import { guestProcesses, vmState } from '../../../src/lab/guests.ts';
import { directoriesOf } from '../../../src/lab/state.ts';
import { askSupervisor } from '../../../src/lab/supervise.ts';
import { guardOf } from '../../../src/lab/up.ts';
import type { Scenario, TestLab } from '../harness.ts';

const leaseTimeMs = 10_000;

function leaseOf(lab: TestLab, host: string): Lease {
  const path = join(directoriesOf(lab.lab.state.name).pool, '.drover/leases', host);
  const lease = decodeBlock<Lease>(readFileSync(path).subarray(0, blockBytes));
  assert(lease, `${host} has no lease`);
  return lease;
}

async function guardProcess(lab: TestLab, host: string): Promise<{ pid: number; starts: number }> {
  const { supervisorSocket } = directoriesOf(lab.lab.state.name);
  const found = (await askSupervisor(supervisorSocket, { do: 'status' }))?.find(({ name }) => name === guardOf(host));
  return { pid: found?.pid ?? 0, starts: found?.starts ?? 0 };
}

function renewed(lab: TestLab, host: string, than: Lease): Promise<void> {
  return lab.until(`${host} to renew its lease`, async () => leaseOf(lab, host).sequence > than.sequence + 1);
}

/** A guest that nobody else uses: the scenario may end it. */
const ownGuest = { memoryMiB: 256, fillMiB: 32 };

/** The pool cannot be written any more, for this host's guard and for nobody else: a mount in its own namespace. */
async function withReadOnlyPool(lab: TestLab, host: string, fn: () => Promise<void>): Promise<void> {
  const { pool } = directoriesOf(lab.lab.state.name);
  const { pid } = await guardProcess(lab, host);
  const inNamespace = (...words: string[]) => run('nsenter', ['-t', String(pid), '-m', ...words]);
  await inNamespace('mount', '--bind', pool, pool);
  await inNamespace('mount', '-o', 'remount,ro,bind', pool);
  try {
    await fn();
  } finally {
    await inNamespace('umount', pool);
  }
}

export const scenarios: readonly Scenario[] = [
  {
    name: 'guard: killed, it is started again and goes on with the lease; the guest notices nothing',
    async run(lab) {
      const test = await lab.guest('idle');
      const before = await test.guest.status();
      const { host } = test.vm;
      const lease = leaseOf(lab, host);
      await lab.disturb({ kind: 'kill-guard', host, afterwards: 'restart' });
      await lab.programsRun();
      await renewed(lab, host, lease);
      assert.equal(leaseOf(lab, host).generation, lease.generation);
      await lab.unharmed(test, before);
    },
  },
  {
    name: 'guard: frozen, its agent has another one started in time; the guest notices nothing',
    async run(lab) {
      const test = await lab.guest('idle');
      const before = await test.guest.status();
      const { host } = test.vm;
      const lease = leaseOf(lab, host);
      const { starts } = await guardProcess(lab, host);
      await lab.disturb({ kind: 'freeze-guard', host });
      await lab.until('another guard', async () => (await guardProcess(lab, host)).starts > starts, leaseTimeMs);
      await lab.programsRun();
      await renewed(lab, host, leaseOf(lab, host));
      assert.equal(leaseOf(lab, host).generation, lease.generation);
      await lab.unharmed(test, before);
    },
  },
  {
    name: 'guard: the server is dead and the control network cut for longer than a lease; no guest stops',
    async run(lab) {
      const test = await lab.guest('idle');
      const before = await test.guest.status();
      const { host } = test.vm;
      const lease = leaseOf(lab, host);
      try {
        await lab.disturb({ kind: 'kill-server', afterwards: 'hold' });
        await lab.setLink(host, 'control', 'down');
        await lab.until(
          'more than a lease time of renewals',
          async () => leaseOf(lab, host).wallAt > lease.wallAt + 1.3 * leaseTimeMs,
        );
        assert.equal(leaseOf(lab, host).generation, lease.generation);
      } finally {
        await lab.mend();
      }
      await lab.unharmed(test, before);
    },
  },
  {
    name: 'guard: a host that cannot write the pool kills its own guests in time, and no others',
    async run(lab) {
      const [host, other] = [lab.hosts[0], lab.hosts[1]];
      assert(host !== undefined && other !== undefined);
      const doomed = await lab.create({ ...ownGuest, name: 'doomed', host });
      const safe = await lab.guest('idle', other);
      const before = await safe.guest.status();
      const lease = leaseOf(lab, host);
      await withReadOnlyPool(lab, host, async () => {
        const last = leaseOf(lab, host);
        const ended = await vmState(lab.client, doomed.vm.id, ['crashed']);
        const tookMs = Date.now() - last.wallAt;
        assert(JSON.stringify(ended).includes('lost its lease'), `not told why: ${JSON.stringify(ended)}`);
        assert(tookMs > leaseTimeMs - 1500 && tookMs < leaseTimeMs + 2500, `killed after ${tookMs} ms`);
        const left = (await guestProcesses(lab.lab.state)).filter((each) => each.host === host);
        assert.deepEqual(left, [], 'guests are left on the host');
      });
      await renewed(lab, host, leaseOf(lab, host));
      assert.equal(leaseOf(lab, host).generation, lease.generation + 1);
      await lab.unharmed(safe, before);
      await lab.remove(await lab.vm(doomed.vm.id));
      await lab.clean();
    },
  },
  {
    name: 'guard: dead for good, its agent kills the guests when the lease has run out; the next guard begins a new one',
    async run(lab) {
      const host = lab.hosts[2];
      assert(host !== undefined);
      const doomed = await lab.create({ ...ownGuest, name: 'doomed', host });
      try {
        await lab.disturb({ kind: 'kill-guard', host, afterwards: 'hold' });
        const last = leaseOf(lab, host);
        await vmState(lab.client, doomed.vm.id, ['crashed']);
        const tookMs = Date.now() - last.wallAt;
        assert(tookMs > leaseTimeMs - 500 && tookMs < leaseTimeMs + 2500, `killed after ${tookMs} ms`);
      } finally {
        await lab.mend();
      }
      await renewed(lab, host, leaseOf(lab, host));
      await lab.remove(await lab.vm(doomed.vm.id));
      await lab.clean();
    },
  },
];
