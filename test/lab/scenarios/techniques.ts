/** Every technique moves an idle and a writing guest, and what arrives is what left. */
import assert from 'node:assert/strict';
import type { PhaseName, Technique } from '../../../src/model/migration.ts';
import { mayFollow } from '../../../src/migration/phases.ts';
import type { MigrateBody, MigrationView } from '../../../src/wire/endpoints.ts';
import type { GuestKind, Scenario, TestLab } from '../harness.ts';

/** Phases that a move by this technique cannot do without. */
const mustShow: Readonly<Record<Technique, readonly PhaseName[]>> = {
  auto: ['warming-up'],
  'pre-copy': ['warming-up', 'stop-and-copy', 'resumed'],
  'post-copy': ['suspended', 'resumed-with-faults'],
  hybrid: ['warming-up'],
  cold: ['powering-off', 'powering-on'],
};

function checkRecord(migration: MigrationView, technique: Technique): void {
  const { measures, history, rounds } = migration;
  const names = history.map(({ phase }) => phase);
  for (const phase of mustShow[technique]) assert(names.includes(phase), `${phase} is missing in ${names.join(' > ')}`);
  assert.equal(names[0], 'reserved');
  assert.equal(names.at(-1), 'completed');
  const steps = names.slice(1).map((phase, i) => [names[i] ?? 'reserved', phase] as const);
  for (const [from, to] of steps) assert(from === to || mayFollow(from, to), `${to} may not follow ${from}`);
  const times = history.map(({ at }) => at);
  assert.deepEqual(
    times,
    times.toSorted((a, b) => a - b),
    'phases are not in the order of time',
  );
  assert(measures.totalMs !== null && measures.totalMs > 0, 'no total time');
  assert(measures.downtimeMs !== null && measures.downtimeMs >= 0, 'no downtime');
  assert(measures.downtimeMs <= measures.totalMs, 'longer down than the whole move took');
  assert(measures.blackoutMs !== null, 'no blackout from the prober');
  if (technique === 'cold') return;
  assert(measures.bytes !== null && measures.bytes > 16 * 1024 * 1024, `${measures.bytes} bytes`);
  if (technique === 'pre-copy') assert(rounds.length >= 1, 'no rounds');
  if (technique === 'post-copy') {
    assert(migration.endedInPostCopy, 'did not end in post-copy');
    assert(measures.degradedMs !== null, 'no degraded time');
    assert(measures.faults !== null, 'no count of faults');
  }
}

async function moves(lab: TestLab, kind: GuestKind, technique: Technique): Promise<void> {
  const test = await lab.guest(kind);
  const to = lab.otherThan(test.vm.host);
  const { migration, proof } = await lab.move(test, to, technique);
  assert(proof.ok, proof.says);
  assert.equal((await lab.vm(test.vm.id)).host, to);
  checkRecord(migration, technique);
  if (technique === 'auto') endsSoon(migration);
  await lab.clean();
}

/** Whatever the guest writes, `auto` finds a way to the end. */
function endsSoon({ measures }: MigrationView): void {
  assert((measures.totalMs ?? Infinity) < 30_000, `auto took ${measures.totalMs} ms`);
}

/** Ways of sending that a policy may ask for; each must still bring everything. */
const policies = {
  'two parallel streams': { parallelStreams: 2 },
  'two parallel streams with zstd': { parallelStreams: 2, compression: 'zstd' },
  xbzrle: { compression: 'xbzrle' },
  'auto-converge': { autoConverge: true },
  'half of the bandwidth': { maxBandwidthBytesPerSecond: 60_000_000 },
} as const satisfies Record<string, MigrateBody['policy']>;

async function movesWith(lab: TestLab, policy: MigrateBody['policy']): Promise<void> {
  const test = await lab.guest('writer');
  const { migration, proof } = await lab.move(test, lab.otherThan(test.vm.host), 'pre-copy', policy);
  assert(proof.ok, proof.says);
  assert(!migration.endedInPostCopy);
  for (const [name, value] of Object.entries(policy ?? {}))
    assert.equal(migration.policy[name as keyof typeof migration.policy], value);
  await lab.clean();
}

export const scenarios: readonly Scenario[] = [
  ...Object.entries(policies).map(([name, policy]) => ({
    name: `policy: ${name} moves the writer guest, verified`,
    run: (lab: TestLab) => movesWith(lab, policy),
  })),
  {
    name: 'policy: a heavy writer that may be paused is paused, and moves without post-copy, verified',
    async run(lab) {
      const test = await lab.guest('heavy');
      const to = lab.otherThan(test.vm.host);
      const { migration, proof } = await lab.move(test, to, 'auto', { whenNotConverging: 'pause' });
      assert(proof.ok, proof.says);
      assert(!migration.endedInPostCopy, 'was switched to post-copy');
      await lab.clean();
    },
  },
  ...(['idle', 'writer'] as const).flatMap((kind) =>
    (['pre-copy', 'post-copy', 'hybrid', 'auto', 'cold'] as const).map((technique) => ({
      name: `technique: ${technique} moves the ${kind} guest, verified`,
      run: (lab: TestLab) => moves(lab, kind, technique),
    })),
  ),
  {
    name: 'technique: whatever way a guest came, it can leave in any, and nothing is left of it',
    async run(lab) {
      const live = ['pre-copy', 'hybrid', 'post-copy'] as const;
      await lab.withLinkSpeed('raw', async () => {
        for (const [came, leaves] of live.flatMap((a) => live.map((b) => [a, b] as const))) {
          for (const technique of [came, leaves]) {
            const { vm } = await lab.guest('idle');
            const ended = await lab.ended(await lab.migrate(vm, lab.otherThan(vm.host), technique));
            assert.equal(ended.phase, 'completed', `${came}, ${leaves}: ${ended.failure?.message ?? ended.phase}`);
          }
          await lab.clean();
        }
      });
    },
  },
  {
    name: 'technique: auto moves the heavy writer within 30 s, by post-copy, verified',
    async run(lab) {
      const test = await lab.guest('heavy');
      // So slow that the guest writes faster also where other work takes most of the machine from it.
      const move = () => lab.move(test, lab.otherThan(test.vm.host), 'auto');
      const { migration, proof } = await lab.withLinkSpeed('400mbit', move);
      assert(proof.ok, proof.says);
      assert(migration.endedInPostCopy, 'did not switch to post-copy');
      assert(migration.switchedToPostCopy !== null, 'does not say why it switched');
      endsSoon(migration);
      await lab.clean();
      await lab.remove(await lab.vm(test.vm.id));
    },
  },
  {
    name: 'technique: auto is told to switch to post-copy in its first round, verified, and then refuses to be told again',
    async run(lab) {
      const test = await lab.guest('writer');
      const before = await test.guest.status();
      const begun = await lab.withLinkSpeed('50mbit', async () => {
        const move = await lab.migrate(test.vm, lab.otherThan(test.vm.host), 'auto');
        const params = { migration: move.id };
        assert.equal((await lab.warmingUp(move)).switchable, 'post-copy');
        await lab.client.switchMigration({ params });
        await lab.inPhase(move, 'resumed-with-faults', 'pre-paging', 'completed');
        await assert.rejects(lab.client.switchMigration({ params }), { code: 'wrong-state' });
        return move;
      });
      const migration = await lab.ended(begun, 60_000);
      assert.equal(migration.phase, 'completed', migration.failure?.message);
      assert(migration.endedInPostCopy && migration.rounds.length === 0, 'it was not switched in its first round');
      assert.equal(migration.switchedToPostCopy?.because, 'it was asked for');
      await lab.unharmed(test, before);
      await lab.clean();
    },
  },
  {
    name: 'technique: a damaged page is found by the check that all these moves rely on',
    async run(lab) {
      const test = await lab.create({ name: 'damaged', memoryMiB: 192, fillMiB: 16 });
      await test.guest.corrupt('memory');
      const { proof } = await lab.move(test, lab.otherThan(test.vm.host), 'pre-copy');
      assert(!proof.ok, 'a damaged guest was called verified');
      await lab.remove(test.vm);
      await lab.clean();
    },
  },
];
