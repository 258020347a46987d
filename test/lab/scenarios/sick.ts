/** Hosts that are sick but alive: guests are held ready and stay, or leave in time; holding never completes by itself. */
import assert from 'node:assert/strict';
import { isEnd } from '../../../src/migration/phases.ts';
import type { MigrationView } from '../../../src/wire/endpoints.ts';
import type { Scenario, TestLab } from '../harness.ts';

/** Looked at while it is held: what completes by itself does so within a second. */
const heldMs = 8_000;
const switchWithinMs = 1_000;

async function openMove(lab: TestLab, vm: string): Promise<MigrationView> {
  let found: MigrationView | undefined;
  await lab.until(`${vm} is on the move`, async () => {
    found = (await lab.client.listMigrations({ query: { vm, open: 'true' } }))[0];
    return found !== undefined;
  });
  assert(found);
  return found;
}

/** The guest runs on at its source all the time, and what it is sent costs next to nothing. */
async function staysHeld(lab: TestLab, migration: MigrationView): Promise<void> {
  await lab.inPhase(migration, 'armed');
  const deadline = performance.now() + heldMs;
  while (performance.now() < deadline) {
    const now = await lab.client.getMigration({ params: { migration: migration.id } });
    assert.equal(now.phase, 'armed', `it ended its hold by itself: ${now.failure?.message ?? now.phase}`);
    await new Promise((resolve) => setTimeout(resolve, 500));
  }
}

export const scenarios: readonly Scenario[] = [
  ...(['idle', 'writer'] as const).map((kind): Scenario => ({
    name: `sick: the move of a guest that is ${kind} is held, completes only when told to, and then at once`,
    async run(lab) {
      const test = await lab.guest(kind);
      const before = await test.guest.status();
      const to = lab.otherThan(test.vm.host);
      const held = await lab.client.migrateVm({ params: { vm: test.vm.id }, body: { to, holdMs: 600_000 } });
      await staysHeld(lab, held);
      await lab.client.switchMigration({ params: { migration: held.id } });
      const ended = await lab.ended(held);
      assert.equal(ended.phase, 'completed', ended.failure?.message ?? ended.phase);
      assert((ended.measures.downtimeMs ?? Infinity) <= switchWithinMs, `${ended.measures.downtimeMs} ms`);
      await lab.unharmed(test, before);
      await lab.clean();
    },
  })),
  {
    name: 'sick: a suspect host that gets well keeps its guest; one that fails loses it to another host, live',
    async run(lab) {
      const test = await lab.guest('writer');
      const before = await test.guest.status();
      const host = test.vm.host;
      const report = (severity: 'suspect' | 'failing') =>
        lab.client.reportFailing({ params: { host }, body: { severity, because: 'a fan stands still' } });
      try {
        await report('suspect');
        const held = await openMove(lab, test.vm.id);
        await lab.inPhase(held, 'armed');
        await lab.client.reportWell({ params: { host } });
        assert.equal((await lab.ended(held)).phase, 'cancelled');
        assert.equal((await lab.vm(test.vm.id)).host, host);
        await lab.unharmed(test, before);
        await report('suspect');
        const again = await openMove(lab, test.vm.id);
        await lab.inPhase(again, 'armed');
        await report('failing');
        const ended = await lab.ended(again);
        assert.equal(ended.phase, 'completed', ended.failure?.message ?? ended.phase);
        assert(isEnd(ended.phase) && (ended.measures.downtimeMs ?? Infinity) <= switchWithinMs);
        await lab.unharmed(test, before);
      } finally {
        await lab.client.reportWell({ params: { host } });
      }
      await lab.clean();
    },
  },
];
