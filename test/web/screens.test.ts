import { copyFileSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import axe from 'axe-core';
import type { BrowserContextOptions, Page } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { populate } from '../../src/dev/population.ts';
import { findChromium, screensDir } from './browser.ts';
import { openStage, type Stage } from './stage.ts';

const picturesDir = join(import.meta.dirname, '..', '..', 'docs', 'guide', 'images');
/** What is wrong enough to fail. */
const serious = new Set(['serious', 'critical']);

const looks = {
  light: { viewport: { width: 1360, height: 900 }, colorScheme: 'light' },
  dark: { viewport: { width: 1360, height: 900 }, colorScheme: 'dark' },
  'phone-light': { viewport: { width: 390, height: 844 }, colorScheme: 'light', hasTouch: true, isMobile: true },
  'phone-dark': { viewport: { width: 390, height: 844 }, colorScheme: 'dark', hasTouch: true, isMobile: true },
} as const satisfies Record<string, BrowserContextOptions>;

/** Address of each page, and what is there when it is ready. */
interface Shown {
  readonly path: string;
  readonly ready: string;
}

describe.skipIf(findChromium() === undefined)('every page', () => {
  let stage: Stage;
  const shown = new Map<string, Shown>();

  beforeAll(async () => {
    mkdirSync(screensDir, { recursive: true });
    stage = await openStage({ hosts: 8, linkBytesPerSecond: 400_000_000 });
    await populate(stage.fleet);
    await letThingsHappen(stage);
    for (const [name, page] of await pagesOf(stage)) shown.set(name, page);
  }, 120_000);
  afterAll(async () => {
    await stage?.close();
    // `DROVER_PICTURES=guide` takes the guide's pictures anew.
    if (process.env['DROVER_PICTURES'] !== 'guide') return;
    for (const name of ['fleet', 'migration', 'move-dialog', 'drain'])
      copyFileSync(join(screensDir, `${name}-light.png`), join(picturesDir, `${name}.png`));
  });

  for (const [look, context] of Object.entries(looks)) {
    it(`has nothing that keeps anybody from using it (${look})`, async () => {
      const page = await stage.page(context);
      const found: string[] = [];
      for (const [name, { path, ready }] of shown) {
        await visit(page, path);
        await page.locator(ready).first().waitFor();
        await settled(page);
        // What is dark is as what is light, but for its colours.
        const which = context.colorScheme === 'dark' ? 'contrast' : 'all';
        found.push(...(await troubles(page, which)).map((trouble) => `${name}: ${trouble}`));
        if (await overflows(page)) found.push(`${name}: is wider than the window`);
        await page.screenshot({ path: join(screensDir, `${name}-${look}.png`), animations: 'disabled' });
        if (look === 'light') await photographWhole(page, join(screensDir, `${name}-${look}-whole.png`));
      }
      await page.context().close();
      expect(found).toEqual([]);
      expect(stage.complaints()).toEqual([]);
    }, 120_000);
  }

  it('asks who it is in a form that everybody can use', async () => {
    const context = await stage.browser.newContext({ viewport: { width: 1360, height: 900 } });
    const page = await context.newPage();
    await page.goto(stage.fleet.server.url);
    await page.getByLabel('Password').waitFor();
    expect(await troubles(page)).toEqual([]);
    await page.screenshot({ path: join(screensDir, 'sign-in-light.png') });
    await context.close();
  });

  it('shows the dialog of a move to everybody', async () => {
    const page = await stage.page({ colorScheme: 'dark' });
    await page.goto(`${stage.fleet.server.url}/vms/shop-db`);
    await page.getByRole('button', { name: 'Move…' }).click();
    await page.getByRole('row', { name: /^auto/ }).waitFor();
    await settled(page);
    expect(await troubles(page)).toEqual([]);
    await page.screenshot({ path: join(screensDir, 'move-dialog-dark.png') });
    await page.emulateMedia({ colorScheme: 'light' });
    expect(await troubles(page)).toEqual([]);
    await page.screenshot({ path: join(screensDir, 'move-dialog-light.png') });
    await page.context().close();
  });
});

/** A lost host, moves by all techniques, a drain under way, a plan that waits, and two moves that run. */
async function letThingsHappen({ fleet }: Stage): Promise<void> {
  const { client } = fleet;
  const ended = async (
    vm: string,
    technique: 'pre-copy' | 'post-copy' | 'hybrid' | 'cold',
    why: string,
  ): Promise<void> => {
    await client.migrateVm({ params: { vm }, body: { to: 'h2', technique, why } });
    await fleet.vmWhen(vm, ({ migration }) => migration === null);
  };
  await fleet.host('h8').powerOff();
  await Promise.all([
    ended('shop-cache', 'pre-copy', 'h1 is full').then(() => ended('shop-jump', 'hybrid', 'it goes along')),
    ended('crm-web', 'post-copy', 'maintenance of the rack'),
    ended('mail-web', 'cold', 'the hosts are too different'),
    fleet.recovered('h8'),
  ]);
  await fleet.planned();
  await client.drainHost({ params: { host: 'h5' }, body: { because: 'new memory', movesAtOnce: 1 } });
  const slow = { maxBandwidthBytesPerSecond: 12_000_000, deadlineMs: null };
  await client.migrateVm({
    params: { vm: 'blog-db' },
    body: { technique: 'pre-copy', policy: slow, why: 'asked for by the owner' },
  });
  await client.migrateVm({ params: { vm: 'build1' }, body: { to: 'h4', technique: 'pre-copy', policy: slow } });
}

async function pagesOf({ fleet: { client } }: Stage): Promise<Map<string, Shown>> {
  const migrations = await client.listMigrations({ query: { limit: 50 } });
  const idOf = (found: { id: string } | undefined): string => found?.id ?? 'none';
  const done = idOf(migrations.find(({ technique, phase }) => technique === 'pre-copy' && phase === 'completed'));
  const open = idOf(migrations.find(({ vmName, ended }) => vmName === 'blog-db' && !ended));
  const [plan] = await client.listPlans();
  const [drain] = await client.listDrains();
  const [failure] = await client.listRecoveries();
  return new Map([
    ['fleet', { path: '/', ready: '.lane' }],
    ['host', { path: '/hosts/h1', ready: '.rows-row' }],
    ['vms', { path: '/vms', ready: '.rows-row' }],
    ['vm', { path: '/vms/shop-cache', ready: '.gantt-bar' }],
    ['migrations', { path: '/migrations', ready: '.rows-row' }],
    ['migration', { path: `/migrations/${done}`, ready: '.rounds' }],
    ['migration-live', { path: `/migrations/${open}`, ready: '.phase.now' }],
    ['plans', { path: '/plans', ready: '.figures' }],
    ['plan', { path: `/plans/${plan?.id ?? 'none'}`, ready: 'table' }],
    ['drains', { path: '/drains', ready: '.gantt-row' }],
    ['drain', { path: `/drains/${idOf(drain)}`, ready: '.gantt-row' }],
    ['energy', { path: '/energy', ready: '.figures' }],
    ['audit', { path: '/audit', ready: '.rows-row' }],
    ['failures', { path: '/failures', ready: '.figures' }],
    ['failure', { path: `/failures/${idOf(failure)}`, ready: '.gantt-row' }],
  ]);
}

/** Without loading anew, as a link does it. */
async function visit(page: Page, path: string): Promise<void> {
  await page.evaluate(
    `history.pushState(null, '', ${JSON.stringify(path)}); dispatchEvent(new PopStateEvent('popstate')); scrollTo(0, 0)`,
  );
}

/** Nothing is being read any more, and what fades has faded. */
async function settled(page: Page): Promise<void> {
  await expect.poll(() => page.locator('.spinner').count(), { timeout: 20_000 }).toBe(0);
  await page.evaluate(`(async () => {
    await document.fonts.ready;
    const fading = document.getAnimations().filter(({ effect }) => effect?.getTiming().iterations !== Infinity);
    await Promise.allSettled(fading.map(({ finished }) => finished));
  })()`);
}

async function troubles(page: Page, which: 'all' | 'contrast' = 'all'): Promise<string[]> {
  await page.evaluate(axe.source);
  // Typed by axe: what it gives in the page is what it would give here.
  const { violations } = (await page.evaluate(
    `axe.run(document, { resultTypes: ['violations'], ${which === 'all' ? '' : "runOnly: ['color-contrast']"} })`,
  )) as axe.AxeResults;
  return violations
    .filter(({ impact }) => serious.has(impact ?? ''))
    .flatMap(({ id, nodes }) =>
      nodes.slice(0, 3).map(({ target, failureSummary }) => `${id} at ${target.join(' ')}: ${failureSummary ?? ''}`),
    );
}

async function overflows(page: Page): Promise<boolean> {
  return (await page.evaluate('document.documentElement.scrollWidth > innerWidth + 1')) === true;
}

/** As tall as the page is, without what a page longer than the window would do to sticky parts. */
async function photographWhole(page: Page, path: string): Promise<void> {
  const before = page.viewportSize();
  const height = Number(await page.evaluate('Math.min(4000, document.documentElement.scrollHeight)'));
  if (before === null || height <= before.height) return;
  await page.setViewportSize({ width: before.width, height });
  await settled(page);
  await page.screenshot({ path, animations: 'disabled' });
  await page.setViewportSize(before);
}
