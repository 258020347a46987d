/** Things die while a guest moves: it runs on at exactly one side, the record says why, and nothing is left over. */
import assert from 'node:assert/strict';
import type { Scenario, TestGuest, TestLab } from '../harness.ts';
import type { MigrationView } from '../../../src/wire/endpoints.ts';
import { vmState } from '../../../src/lab/guests.ts';

type Trouble = (lab: TestLab, migration: MigrationView, test: TestGuest) => Promise<void>;

/** Starts a move that takes a while, makes trouble in its warm-up, and expects the guest whole wherever the move ended. */
async function inWarmUp(lab: TestLab, trouble: Trouble): Promise<{ ended: MigrationView; test: TestGuest }> {
  const test = await lab.guest('writer');
  const before = await test.guest.status();
  try {
    const migration = await lab.withLinkSpeed('100mbit', async () => {
      const started = await lab.migrate(test.vm, lab.otherThan(test.vm.host), 'pre-copy');
      await lab.warmingUp(started);
      await trouble(lab, started, test);
      return started;
    });
    await lab.mend();
    const ended = await lab.ended(migration, 90_000);
    await lab.unharmed(test, before);
    const { host } = await lab.vm(test.vm.id);
    const expected = ended.phase === 'completed' ? ended.target : ended.source;
    assert.equal(host, expected, `${ended.phase}, but recorded on ${host}`);
    await lab.clean();
    return { ended, test };
  } finally {
    await lab.mend();
  }
}

/** The same in pre-paging, after the point of no return: the guest runs on the target and the move can only complete. */
async function inPrePaging(lab: TestLab, trouble: Trouble): Promise<void> {
  const test = await lab.guest('idle');
  const before = await test.guest.status();
  try {
    const migration = await lab.withLinkSpeed('100mbit', async () => {
      const started = await lab.migrate(test.vm, lab.otherThan(test.vm.host), 'post-copy');
      await lab.inPhase(started, 'resumed-with-faults', 'pre-paging');
      await trouble(lab, started, test);
      await lab.programsRun();
      const now = await lab.client.getMigration({ params: { migration: started.id } });
      assert(!now.ended, 'it was over before everything was back: nothing was shown');
      return started;
    });
    await lab.mend();
    const ended = await lab.ended(migration, 90_000);
    assert.equal(ended.phase, 'completed', ended.failure?.message ?? ended.phase);
    await lab.unharmed(test, before);
    assert.equal((await lab.vm(test.vm.id)).host, ended.target);
    await lab.clean();
  } finally {
    await lab.mend();
  }
}

export const scenarios: readonly Scenario[] = [
  {
    name: 'trouble: QEMU on the target dies in warm-up; the guest runs on at the source',
    async run(lab) {
      const { ended } = await inWarmUp(lab, (_, __, { vm }) =>
        lab.disturb({ kind: 'kill-qemu', vm: vm.id, side: 'target' }),
      );
      assert.equal(ended.phase, 'failed', ended.phase);
      assert.equal(ended.guest, 'on-source');
      assert(ended.failure && ended.failure.message.length > 0 && ended.failure.hint.length > 0, 'no reason');
      assert.equal(ended.failure.code, 'target-died', JSON.stringify(ended.failure));
    },
  },
  {
    name: 'trouble: the agent of the source dies in warm-up; the move ends properly after its restart',
    run: async (lab) => {
      await inWarmUp(lab, (_, { source }) => lab.disturb({ kind: 'kill-agent', host: source, afterwards: 'restart' }));
    },
  },
  {
    name: 'trouble: the agent of the target dies in warm-up; the move ends properly after its restart',
    run: async (lab) => {
      await inWarmUp(lab, (_, { target }) => lab.disturb({ kind: 'kill-agent', host: target, afterwards: 'restart' }));
    },
  },
  {
    name: 'trouble: the server dies in warm-up; the move ends properly after its restart',
    run: async (lab) => {
      await inWarmUp(lab, () => lab.disturb({ kind: 'kill-server', afterwards: 'restart' }));
    },
  },
  {
    name: 'trouble: the server is away until after the end; the move completes without it',
    async run(lab) {
      const { ended } = await inWarmUp(lab, async (_, migration) => {
        await lab.disturb({ kind: 'kill-server', afterwards: 'hold' });
        await lab.withLinkSpeed('1gbit', async () => {
          // Nobody can be asked; the target's client answers as soon as the guest runs there. Long enough for the rest.
          await new Promise((resolve) => setTimeout(resolve, 6000));
        });
        assert.notEqual(migration.phase, 'completed');
      });
      assert.equal(ended.phase, 'completed', ended.failure?.message ?? ended.phase);
    },
  },
  {
    name: 'trouble: the agent of the source is away for a while in warm-up, then comes back',
    run: async (lab) => {
      await inWarmUp(lab, async (_, { source }) => {
        await lab.disturb({ kind: 'kill-agent', host: source, afterwards: 'hold' });
        const silent = async () => (await lab.client.getHost({ params: { host: source } })).state === 'silent';
        await lab.until(`${source} to be silent`, silent);
      });
    },
  },
  {
    name: 'trouble: the migration link of the target is cut in warm-up; the guest runs on at the source',
    async run(lab) {
      const { ended } = await inWarmUp(lab, async (_, migration) => {
        await lab.setLink(migration.target, 'migration', 'down');
        await lab.ended(migration, 90_000);
      });
      assert.equal(ended.phase, 'failed', ended.phase);
      assert.equal(ended.guest, 'on-source');
    },
  },
  {
    name: 'trouble: the agent of the target dies in pre-paging; the move completes after its restart',
    run: (lab) =>
      inPrePaging(lab, (_, { target }) => lab.disturb({ kind: 'kill-agent', host: target, afterwards: 'restart' })),
  },
  {
    name: 'trouble: the agent of the source dies in pre-paging; the move completes after its restart',
    run: (lab) =>
      inPrePaging(lab, (_, { source }) => lab.disturb({ kind: 'kill-agent', host: source, afterwards: 'restart' })),
  },
  {
    name: 'trouble: the server dies in pre-paging; the move completes after its restart',
    run: (lab) => inPrePaging(lab, () => lab.disturb({ kind: 'kill-server', afterwards: 'restart' })),
  },
  {
    name: 'trouble: a guest that writes faster than the link, told to fail: fails with the reason, runs on at the source',
    async run(lab) {
      const test = await lab.guest('writer');
      const before = await test.guest.status();
      await lab.withLinkSpeed('60mbit', async () => {
        const migration = await lab.migrate(test.vm, lab.otherThan(test.vm.host), 'pre-copy', {
          whenNotConverging: 'fail',
          deadlineMs: 60_000,
        });
        const ended = await lab.ended(migration, 90_000);
        assert.equal(ended.phase, 'failed', ended.phase);
        assert.equal(ended.guest, 'on-source');
        assert(
          ended.failure && ['no-convergence', 'deadline-passed'].includes(ended.failure.code),
          ended.failure?.code ?? '',
        );
      });
      await lab.unharmed(test, before);
      await lab.clean();
    },
  },
  {
    name: 'trouble: a guest that ignores the power button: a cold move fails, it runs on at the source',
    async run(lab) {
      const test = await lab.create({ name: 'stubborn', memoryMiB: 192, powerButton: 'ignored' });
      const before = await test.guest.status();
      const migration = await lab.migrate(test.vm, lab.otherThan(test.vm.host), 'cold', { shutdownTimeoutMs: 2000 });
      const ended = await lab.ended(migration, 30_000);
      assert.equal(ended.phase, 'failed', ended.phase);
      assert.equal(ended.guest, 'on-source');
      assert.equal(ended.failure?.code, 'shutdown-ignored');
      await lab.unharmed(test, before);
      await lab.remove(test.vm);
      await lab.clean();
    },
  },
  {
    name: 'trouble: the kernel of a guest panics after a move; it is noticed and ended, its neighbour runs on',
    async run(lab) {
      const neighbour = await lab.guest('idle');
      const before = await neighbour.guest.status();
      const test = await lab.create({ name: 'panics', memoryMiB: 192, host: neighbour.vm.host });
      const moved = await lab.ended(await lab.migrate(test.vm, lab.otherThan(test.vm.host), 'pre-copy'));
      assert.equal(moved.phase, 'completed', moved.failure?.message ?? moved.phase);
      await test.guest.panic();
      const crashed = await vmState(lab.client, test.vm.id, ['crashed']);
      assert.match(crashed.message ?? '', /panicked/);
      await lab.unharmed(neighbour, before);
      await lab.remove(test.vm);
      await lab.clean();
    },
  },
  {
    name: 'trouble: a guest dies by itself; its record says so, it can be started again, and is by its policy',
    async run(lab) {
      const test = await lab.guest('idle');
      await lab.disturb({ kind: 'kill-qemu', vm: test.vm.id, side: 'source' });
      const crashed = await vmState(lab.client, test.vm.id, ['crashed']);
      assert(crashed.message !== null && crashed.message.length > 0, 'no reason');
      await lab.clean();
      await lab.client.startVm({ params: { vm: test.vm.id }, body: {} });
      await vmState(lab.client, test.vm.id, ['running']);
      await test.guest.waitReady({ timeoutMs: 60_000 });
      await lab.client.updateVm({ params: { vm: test.vm.id }, body: { restart: 'on-failure' } });
      const before = await test.guest.status();
      await lab.disturb({ kind: 'kill-qemu', vm: test.vm.id, side: 'source' });
      await vmState(lab.client, test.vm.id, ['waiting', 'starting']);
      await vmState(lab.client, test.vm.id, ['running']);
      const after = await test.guest.waitReady({ timeoutMs: 60_000 });
      assert.notEqual(after.bootId, before.bootId, 'it was not started anew');
      await lab.client.updateVm({ params: { vm: test.vm.id }, body: { restart: 'never' } });
      await lab.clean();
    },
  },
];
