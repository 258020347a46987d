/**
 * Link cuts at random moments of post-copy, several a move, in every way a link breaks: away for a while, ended at one side,
 * or both, so that sometimes QEMU notices, sometimes one of the two, sometimes nobody. From a seed.
 */
import assert from 'node:assert/strict';
import { seededRandom, type Random } from '../../src/runtime/random.ts';
import type { MigrationView } from '../../src/wire/endpoints.ts';
import type { Scenario, TestLab } from './harness.ts';

/** Slow enough that some cuts fit into one move. */
const linkSpeed = '100mbit';
/** At most; then the move is left to end. */
const cutsPerMove = 14;
/** With less than this left a move may end before its next cut. */
const worthCuttingBytes = 4 * 1024 * 1024;

type Cut = 'away' | 'reset' | 'reset-unheard' | 'away-for-long';

export function cuts(wanted: number, seed: number, say: (line: string) => void): Scenario {
  return {
    name: `cuts: ${wanted} link cuts in post-copy (seed ${seed}), no guest lost, all verified`,
    limitMs: wanted * 10_000 + 120_000,
    async run(lab) {
      const random = seededRandom(seed);
      const done: Record<Cut, number> = { away: 0, reset: 0, 'reset-unheard': 0, 'away-for-long': 0 };
      const startedAt = performance.now();
      let moves = 0;
      let recoveries = 0;
      let recoveringMs = 0;
      const total = () => Object.values(done).reduce((sum, each) => sum + each, 0);
      const test = await lab.guest('writer');
      await lab.withLinkSpeed(linkSpeed, async () => {
        while (total() < wanted) {
          const vm = await lab.vm(test.vm.id);
          const before = await test.guest.status();
          const technique = random.next() < 0.7 ? 'post-copy' : 'hybrid';
          const started = await lab.migrate(vm, lab.otherThan(vm.host), technique);
          await lab.inPhase(started, 'resumed-with-faults', 'pre-paging', 'recovering', 'completed');
          const last = Math.min(wanted, total() + 2 + Math.floor(random.next() * cutsPerMove));
          while (total() < last) {
            await pause(100 + random.next() * 700);
            const now = await lab.client.getMigration({ params: { migration: started.id } });
            if (now.ended || (now.sample && now.sample.remainingBytes < worthCuttingBytes)) break;
            done[await cutOnce(lab, now, random)] += 1;
          }
          const ended = await lab.ended(started, 120_000);
          assert.equal(ended.phase, 'completed', `after ${total()} cuts: ${ended.failure?.message ?? ended.phase}`);
          await lab.unharmed({ ...test, vm }, before);
          assert.equal((await lab.vm(vm.id)).host, ended.target);
          moves += 1;
          recoveries += ended.measures.recoveries ?? 0;
          recoveringMs += ended.measures.recoveringMs ?? 0;
          say(`       ${total()} cuts in ${moves} moves, all verified; ${recoveries} times joined again`);
        }
      });
      await lab.clean();
      const each = Object.entries(done)
        .map(([kind, times]) => `${times} ${kind}`)
        .join(', ');
      const seconds = Math.round((performance.now() - startedAt) / 1000);
      say(
        `       ${total()} cuts (${each}) in ${moves} moves and ${seconds} s: ${recoveries} times joined again, ` +
          `${Math.round(recoveringMs / Math.max(1, recoveries))} ms each; 0 guests lost, ${moves} of ${moves} moves verified`,
      );
    },
  };
}

async function cutOnce(lab: TestLab, migration: MigrationView, random: Random): Promise<Cut> {
  const host = random.next() < 0.5 ? migration.source : migration.target;
  const way = random.next();
  if (way < 0.35) {
    await lab.resetMigrations(host);
    return 'reset';
  }
  const forLong = way > 0.95;
  const unheard = way > 0.65 && !forLong;
  await lab.setLink(migration.target, 'migration', 'down');
  try {
    if (unheard) await lab.resetMigrations(host);
    await pause(forLong ? 4000 + random.next() * 3000 : 100 + random.next() * 1400);
  } finally {
    await lab.setLink(migration.target, 'migration', 'up');
  }
  return forLong ? 'away-for-long' : unheard ? 'reset-unheard' : 'away';
}

const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));
