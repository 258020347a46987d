/** The link breaks in post-copy: the move goes on by itself as soon as it carries again, and the guest has lost nothing. */
import assert from 'node:assert/strict';
import type { MigrationView } from '../../../src/wire/endpoints.ts';
import { migrationIs } from '../../../src/lab/moves.ts';
import type { Scenario, TestGuest, TestLab } from '../harness.ts';

interface Broken {
  readonly lab: TestLab;
  readonly migration: MigrationView;
  readonly test: TestGuest;
}

/**
 * Cuts the migration link of the target in pre-paging, waits until the break was noticed, makes more trouble, mends the link,
 * and expects the move to complete within `goesOnMs` of that as far as the rest's own time allows.
 */
async function cut(lab: TestLab, trouble: (broken: Broken) => Promise<void>): Promise<MigrationView> {
  const test = await lab.guest('idle');
  const before = await test.guest.status();
  try {
    const migration = await lab.withLinkSpeed('100mbit', async () => {
      const started = await lab.migrate(test.vm, lab.otherThan(test.vm.host), 'post-copy');
      await lab.inPhase(started, 'pre-paging');
      await lab.setLink(started.target, 'migration', 'down');
      const noticed = await lab.inPhase(started, 'recovering');
      await trouble({ lab, migration: noticed, test });
      const stuck = await lab.client.getMigration({ params: { migration: started.id } }).catch(() => undefined);
      assert(!stuck?.ended, `it ended as ${stuck?.phase ?? ''} while the link was cut`);
      await lab.setLink(started.target, 'migration', 'up');
      return started;
    });
    const mendedAt = Date.now();
    await lab.programsRun();
    const goesOn = await migrationIs(lab.client, migration.id, ({ phase }) => phase !== 'recovering', {
      timeoutMs: 20_000,
      signal: lab.signal,
    });
    const goesOnMs = Date.now() - mendedAt;
    assert.notEqual(goesOn.phase, 'failed', goesOn.failure?.message);
    const ended = await lab.ended(migration, 60_000);
    assert.equal(ended.phase, 'completed', ended.failure?.message ?? ended.phase);
    assert((ended.measures.recoveries ?? 0) >= 1, 'no recovery was counted');
    assert((ended.measures.recoveringMs ?? 0) > 0, 'no time without the link was counted');
    await lab.unharmed(test, before);
    assert.equal((await lab.vm(test.vm.id)).host, ended.target);
    await lab.clean();
    assert(goesOnMs < 8000, `it went on only ${goesOnMs} ms after the link was mended`);
    return ended;
  } finally {
    await lab.mend();
  }
}

const seconds = (n: number) => new Promise((resolve) => setTimeout(resolve, n * 1000));

export const scenarios: readonly Scenario[] = [
  {
    name: 'rejoin: the link is cut in pre-paging; it is told, and the move goes on by itself',
    async run(lab) {
      await cut(lab, async ({ migration }) => {
        const shown = await migrationIs(
          lab.client,
          migration.id,
          ({ sample }) => (sample?.recovering?.attempts ?? 0) > 1,
          {
            timeoutMs: 20_000,
          },
        );
        assert.equal(shown.sample?.phase, 'recovering');
        assert((shown.sample?.remainingBytes ?? 0) > 0, 'not told how much is missing');
        assert(shown.sample?.recovering?.lastError, 'not told why it does not go on');
      });
    },
  },
  {
    name: 'rejoin: the link is cut for longer than twenty seconds; the move goes on by itself',
    async run(lab) {
      await cut(lab, async () => void (await seconds(20)));
    },
  },
  {
    name: 'rejoin: the agent of the source is killed while the link is cut; the move goes on',
    async run(lab) {
      await cut(lab, async ({ migration: { source } }) => {
        await lab.disturb({ kind: 'kill-agent', host: source, afterwards: 'restart' });
        await lab.programsRun();
      });
    },
  },
  {
    name: 'rejoin: the agent of the target is killed while the link is cut; the move goes on',
    async run(lab) {
      // Its QEMU may hang on a missing page, and negotiate with nobody.
      await cut(lab, async ({ migration: { target } }) => {
        await lab.disturb({ kind: 'kill-agent', host: target, afterwards: 'restart' });
        await lab.programsRun();
      });
    },
  },
  {
    name: 'rejoin: the server is dead while the link is cut and mended; the move goes on without it',
    async run(lab) {
      await cut(lab, async ({ migration }) => {
        await lab.disturb({ kind: 'kill-server', afterwards: 'hold' });
        await seconds(1);
        await lab.setLink(migration.target, 'migration', 'up');
        await seconds(4);
        await lab.mend();
      });
    },
  },
];
