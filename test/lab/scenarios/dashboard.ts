/** The dashboard in a real browser, on real guests: a move watched live until its report, one switched, one cancelled by its button. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import type { Page } from 'playwright-core';
import { apiOf, directoriesOf } from '../../../src/lab/state.ts';
import type { MigrationView } from '../../../src/wire/endpoints.ts';
import { findChromium, openBrowser } from '../../web/browser.ts';
import type { Scenario, TestLab } from '../harness.ts';

const withinMs = 60_000;

/** Signed in, and nothing that the page complained of. */
async function onPage(lab: TestLab, look: (page: Page, to: (path: string) => Promise<unknown>) => Promise<void>) {
  if (findChromium() === undefined) {
    process.stdout.write('       left out: there is no Chromium, `npm run setup` unpacks one\n');
    return;
  }
  const browser = await openBrowser();
  const stop = (): void => void browser.close();
  lab.signal.addEventListener('abort', stop, { once: true });
  try {
    const page = await browser.newPage({ viewport: { width: 1360, height: 900 } });
    page.setDefaultTimeout(withinMs);
    const complaints: string[] = [];
    page.on('pageerror', (error) => complaints.push(error.message));
    const api = apiOf(lab.lab.state);
    const token = readFileSync(directoriesOf(lab.lab.state.name).token, 'utf8').trim();
    await page.goto(`${api}/#token=${token}`);
    await page.getByText('Live', { exact: true }).waitFor();
    await look(page, (path) => page.goto(`${api}${path}`));
    assert.deepEqual(complaints, []);
  } finally {
    lab.signal.removeEventListener('abort', stop);
    await browser.close();
  }
}

const badge = (page: Page, phase: string) => page.locator('.page-about .badge', { hasText: phase });

/** The share that is there, as the page says it; nothing is said before the first sample. */
async function share(page: Page): Promise<number> {
  const text = await page.locator('.figure', { hasText: 'There' }).locator('.figure-value').textContent();
  return Number.parseFloat(text ?? '') || 0;
}

async function begin(lab: TestLab, technique: 'pre-copy' | 'auto') {
  const test = await lab.guest('writer');
  const before = await test.guest.status();
  const to = lab.otherThan(test.vm.host);
  const slow = () => lab.migrate(test.vm, to, technique);
  return { test, before, to, slow };
}

async function reported(lab: TestLab, page: Page, migration: MigrationView): Promise<MigrationView> {
  const ended = await lab.ended(migration, 90_000);
  assert.equal(ended.phase, 'completed', ended.failure?.message);
  await badge(page, 'completed').waitFor();
  return ended;
}

export const scenarios: readonly Scenario[] = [
  {
    name: 'dashboard: a real move is watched live from the fleet to its report',
    run: (lab) =>
      onPage(lab, async (page) => {
        const { test, before, to, slow } = await begin(lab, 'pre-copy');
        const migration = await lab.withLinkSpeed('50mbit', async () => {
          const begun = await slow();
          await page.getByRole('link', { name: `${test.vm.name} moves from ${test.vm.host} to ${to}` }).press('Enter');
          await page.waitForURL(`**/migrations/${begun.id}`);
          await badge(page, 'warming-up').waitFor();
          const first = await share(page);
          await lab.until('the page to show progress', async () => (await share(page)) > first, withinMs);
          return begun;
        });
        const ended = await reported(lab, page, migration);
        assert.equal(await page.locator('.rounds tbody tr').count(), ended.rounds.length);
        await page.locator('.phase.paused-on-source').waitFor();
        await lab.unharmed(test, before);
        await lab.clean();
      }),
  },
  {
    name: 'dashboard: a real move is switched to post-copy by its button',
    run: (lab) =>
      onPage(lab, async (page, to) => {
        const { test, before, slow } = await begin(lab, 'auto');
        const migration = await lab.withLinkSpeed('50mbit', async () => {
          const begun = await slow();
          await to(`/migrations/${begun.id}`);
          await page.getByRole('button', { name: 'Switch to post-copy' }).click();
          await page.getByText('it was asked for').waitFor();
          return begun;
        });
        assert((await reported(lab, page, migration)).endedInPostCopy, 'it did not switch');
        await lab.unharmed(test, before);
        await lab.clean();
      }),
  },
  {
    name: 'dashboard: a real move is cancelled by its button, and the guest goes on',
    run: (lab) =>
      onPage(lab, async (page, to) => {
        const { test, before, slow } = await begin(lab, 'pre-copy');
        await lab.withLinkSpeed('50mbit', async () => {
          const migration = await slow();
          await to(`/migrations/${migration.id}`);
          await badge(page, 'warming-up').waitFor();
          await page.getByRole('button', { name: 'Cancel the move' }).click();
          await badge(page, 'cancelled').waitFor();
        });
        assert.equal((await lab.vm(test.vm.id)).host, test.vm.host);
        await lab.unharmed(test, before);
        await lab.clean();
      }),
  },
];
