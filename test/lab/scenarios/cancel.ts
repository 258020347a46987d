/** Cancelling: in every phase that allows it the guest runs on at the source; in the others it is refused and the move goes on. */
import assert from 'node:assert/strict';
import type { Technique } from '../../../src/model/migration.ts';
import type { MigrationView } from '../../../src/wire/endpoints.ts';
import type { Scenario, TestGuest, TestLab } from '../harness.ts';

const cancel = (lab: TestLab, migration: MigrationView) =>
  lab.client.cancelMigration({ params: { migration: migration.id } });

async function ranOn(
  lab: TestLab,
  test: TestGuest,
  migration: MigrationView,
  before: Awaited<ReturnType<TestGuest['guest']['status']>>,
) {
  const ended = await lab.ended(migration, 30_000);
  assert.equal(ended.phase, 'cancelled', ended.failure?.message);
  assert.equal((await lab.vm(test.vm.id)).host, test.vm.host);
  await lab.unharmed(test, before);
  await lab.clean();
}

async function cancelInWarmUp(lab: TestLab, technique: Technique): Promise<void> {
  const test = await lab.guest('writer');
  const before = await test.guest.status();
  await lab.withLinkSpeed('50mbit', async () => {
    const migration = await lab.migrate(test.vm, lab.otherThan(test.vm.host), technique);
    await lab.warmingUp(migration);
    await cancel(lab, migration);
    await ranOn(lab, test, migration, before);
  });
}

export const scenarios: readonly Scenario[] = [
  {
    name: 'cancel: while the target prepares (reserved)',
    async run(lab) {
      const test = await lab.guest('writer');
      const to = lab.otherThan(test.vm.host);
      const before = await test.guest.status();
      // A target whose agent is frozen prepares for as long as we need.
      await lab.disturb({ kind: 'freeze-agent', host: to });
      try {
        const migration = await lab.migrate(test.vm, to, 'pre-copy');
        assert.equal(migration.phase, 'reserved');
        await cancel(lab, migration);
        const ended = await lab.ended(migration, 15_000);
        assert.equal(ended.phase, 'cancelled', ended.failure?.message);
        await lab.mend();
        await ranOn(lab, test, migration, before);
      } finally {
        await lab.mend();
      }
    },
  },
  { name: 'cancel: pre-copy in warm-up', run: (lab) => cancelInWarmUp(lab, 'pre-copy') },
  { name: 'cancel: hybrid in warm-up', run: (lab) => cancelInWarmUp(lab, 'hybrid') },
  {
    name: 'cancel: twice is as once',
    async run(lab) {
      const test = await lab.guest('writer');
      const before = await test.guest.status();
      await lab.withLinkSpeed('50mbit', async () => {
        const migration = await lab.migrate(test.vm, lab.otherThan(test.vm.host), 'pre-copy');
        await lab.warmingUp(migration);
        // The second may come after the end, which it is then told.
        await Promise.allSettled([cancel(lab, migration), cancel(lab, migration)]);
        await ranOn(lab, test, migration, before);
      });
    },
  },
  {
    name: 'cancel: refused once post-copy has switched, and the move completes',
    async run(lab) {
      const test = await lab.guest('idle');
      const before = await test.guest.status();
      await lab.withLinkSpeed('200mbit', async () => {
        const migration = await lab.migrate(test.vm, lab.otherThan(test.vm.host), 'post-copy');
        await lab.inPhase(migration, 'resumed-with-faults', 'pre-paging');
        await assert.rejects(cancel(lab, migration), { code: 'not-cancellable' });
        assert.equal((await lab.ended(migration)).phase, 'completed');
      });
      await lab.unharmed(test, before);
      await lab.clean();
    },
  },
  {
    name: 'cancel: refused when it has ended',
    async run(lab) {
      const [last] = await lab.client.listMigrations({ query: { open: 'false', limit: 1 } });
      assert(last !== undefined);
      await lab.refused(
        { method: 'POST', path: `/migrations/${last.id}/cancel` },
        { status: 409, code: 'not-cancellable' },
      );
    },
  },
];
