/** Several servers: the one that leads dies while guests move, and another finishes what it began. In a lab of its own. */
import assert from 'node:assert/strict';
import { down, leftovers } from '../../../src/lab/down.ts';
import { up } from '../../../src/lab/up.ts';
import type { Client } from '../../../src/wire/client.ts';
import { TestLab, type Scenario } from '../harness.ts';

type StatusView = Awaited<ReturnType<Client['getStatus']>>;

const name = 'test-ha';
/** `DROVER_TEST_MOVERS=10` for more, where the machine has the cores for so many guests. */
const movers = Number(process.env.DROVER_TEST_MOVERS ?? 3);
/** Its answer, with guests at work on the same cores; the change alone takes less than 4 s (test/contract/servers.test.ts). */
const answersWithinMs = 45_000;

async function nextStatus(lab: TestLab): Promise<StatusView> {
  let status: StatusView | undefined;
  const answers = async (): Promise<boolean> => {
    status = await lab.client.getStatus().catch(() => undefined);
    return status !== undefined;
  };
  await lab.until('another server to answer', answers, answersWithinMs);
  assert(status !== undefined);
  return status;
}

export const scenarios: readonly Scenario[] = [
  {
    name: `servers: the leading one of three is killed during ${movers} moves; another leads, all of them end properly`,
    limitMs: 600_000,
    async run({ signal }) {
      await down(name, () => {});
      try {
        const lab = new TestLab(await up({ name, hosts: 2, servers: 3, say: () => {}, signal }), signal);
        const guests = await Promise.all(
          Array.from({ length: movers }, (_, n) =>
            lab.create({ name: `mover${n + 1}`, memoryMiB: 128, fillMiB: 16, host: 'h1' }),
          ),
        );
        const moving = await Promise.all(guests.map(async (test) => ({ test, before: await test.guest.status() })));
        const { term } = await lab.client.getStatus();
        const ended = await lab.withLinkSpeed('200mbit', async () => {
          // Guests that have just booted may write faster than their share of the link carries.
          const started = await Promise.all(guests.map(({ vm }) => lab.migrate(vm, 'h2', 'auto')));
          const [first] = started;
          assert(first !== undefined);
          await lab.warmingUp(first);
          const killedAt = performance.now();
          await lab.disturb({ kind: 'kill-server', afterwards: 'hold' });
          // Answered by whoever leads next; a client gives up sooner than a machine full of guests has made it lead.
          const status = await nextStatus(lab);
          const tookMs = performance.now() - killedAt;
          assert(status.term > term, `term ${status.term} after term ${term}`);
          assert(tookMs < answersWithinMs, `the next leader answered after ${Math.round(tookMs)} ms`);
          process.stdout.write(
            `       term ${term} killed, term ${status.term} answers after ${Math.round(tookMs)} ms\n`,
          );
          return Promise.all(started.map((migration) => lab.ended(migration, 120_000)));
        });
        for (const { vmName, phase, failure } of ended) {
          assert.equal(phase, 'completed', `${vmName}: ${failure?.message ?? phase}`);
        }
        for (const { test, before } of moving) {
          await lab.unharmed(test, before);
          assert.equal((await lab.vm(test.vm.id)).host, 'h2');
        }
        await lab.mend();
        const wrong = (await lab.client.checkFleet()).filter(({ severity }) => severity === 'error');
        assert.deepEqual(wrong, [], 'drover doctor is not content');
      } finally {
        await down(name, () => {});
      }
      assert.deepEqual(await leftovers(name), []);
    },
  },
];
