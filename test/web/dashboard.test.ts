import type { Page } from 'playwright-core';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { findChromium } from './browser.ts';
import { centreOf, openStage, type Stage } from './stage.ts';

const leftOut = findChromium() === undefined;
if (leftOut) console.log('The dashboard is not looked at: there is no Chromium. `npm run setup` unpacks one.');

describe.skipIf(leftOut)('the dashboard', () => {
  let stage: Stage;
  let page: Page;
  const to = (path: string): Promise<unknown> => page.goto(`${stage.fleet.server.url}${path}`);
  const chip = (name: string) => page.locator(`button.chip[aria-label^="${name},"]`);
  const lane = (host: string) => page.getByRole('region', { name: `Host ${host}`, exact: true });

  beforeAll(async () => {
    stage = await openStage({ hosts: 4, linkBytesPerSecond: 800_000_000 });
    const { fleet } = stage;
    await Promise.all([
      fleet.run('shop-web', 'web', 'h1'),
      fleet.run('shop-db', 'db', 'h1'),
      fleet.run('build1', 'build', 'h1'),
      fleet.run('build2', 'build', 'h1'),
      fleet.run('blog-web', 'web', 'h2'),
      fleet.run('mail-web', 'web', 'h3'),
    ]);
    page = await stage.page();
  });
  afterAll(() => stage?.close());
  afterEach(() => expect(stage.complaints()).toEqual([]));

  it('takes a name and password, and shows no more than the role allows', async () => {
    const { client, server } = stage.fleet;
    await client.createUser({ body: { name: 'anna', role: 'viewer', password: 'a long enough one' } });
    const context = await stage.browser.newContext();
    const own = await context.newPage();
    await own.goto(`${server.url}/vms/shop-db`);
    await own.getByLabel('Name').fill('anna');
    await own.getByLabel('Password').fill('not the right one');
    await own.getByRole('button', { name: 'Sign in' }).click();
    await own.getByRole('alert').waitFor();
    await own.getByLabel('Password').fill('a long enough one');
    await own.getByRole('button', { name: 'Sign in' }).click();
    // The address it was opened with.
    await own.getByRole('heading', { name: 'shop-db' }).waitFor();
    await own.getByText('anna viewer').waitFor();
    expect(
      await own.evaluate('document.cookie + JSON.stringify(localStorage) + JSON.stringify(sessionStorage)'),
    ).not.toMatch(/session|token|anna/);
    await own.reload();
    await own.getByRole('heading', { name: 'shop-db' }).waitFor();
    const slow = { to: 'h3', technique: 'pre-copy' as const, policy: { maxBandwidthBytesPerSecond: 5_000_000 } };
    const move = await client.migrateVm({ params: { vm: 'blog-web' }, body: slow });
    const pages = ['/hosts/h4', '/vms/shop-db', `/migrations/${move.id}`, '/plans', '/drains'];
    const acts = /cordon|drain|move…|start|cancel|switch|complete|propose|try/i;
    for (const path of pages) {
      await own.goto(`${server.url}${path}`);
      await own.getByText('anna viewer').waitFor();
      await own.getByRole('heading', { level: 1 }).waitFor();
      expect(await own.getByRole('main').getByRole('button', { name: acts }).allTextContents(), path).toEqual([]);
      expect(await own.getByRole('main').getByRole('combobox', { name: /drain/i }).count(), path).toBe(0);
    }
    await client.cancelMigration({ params: { migration: move.id } });
    await own.goto(server.url);
    await own.locator('button.chip[aria-label^="shop-db,"]').press('m');
    expect(await own.getByRole('dialog').count()).toBe(0);
    expect(await own.getByRole('link', { name: 'Audit' }).count()).toBe(0);
    await own.getByRole('button', { name: 'Change password' }).click();
    const dialog = own.getByRole('dialog', { name: 'Password of anna' });
    for (const label of ['New password', 'New password again'])
      await dialog.getByLabel(label, { exact: true }).fill('another long enough one');
    await dialog.getByLabel('Old password').fill('not the right one');
    await dialog.getByRole('button', { name: 'Change it' }).click();
    await dialog.getByText('The old password is not the right one.').waitFor();
    await dialog.getByLabel('Old password').fill('a long enough one');
    await dialog.getByLabel('Old password').press('Enter');
    await own.getByText('The password is changed.').waitFor();
    await own.getByRole('button', { name: 'Sign out' }).click();
    await own.getByLabel('Password').waitFor();
    await own.reload();
    await own.getByLabel('Password').waitFor();
    await context.close();
  });

  it('takes a token, and refuses a wrong one', async () => {
    const context = await stage.browser.newContext();
    const own = await context.newPage();
    await own.goto(stage.fleet.server.url);
    await own.getByRole('button', { name: 'Use a token' }).click();
    await own.getByLabel('Token').fill('not-the-token-of-this-server');
    await own.getByRole('button', { name: 'Sign in' }).click();
    await own.getByText('The server does not know this token.').waitFor();
    await own.getByLabel('Token').fill(stage.fleet.server.token);
    await own.getByRole('button', { name: 'Sign in' }).click();
    await own.locator('.lane').first().waitFor();
    await own.getByRole('button', { name: 'Sign out' }).click();
    await own.getByLabel('Password').waitFor();
    await context.close();
  });

  it('shows hosts as lanes with their guests, and finds one by its name', async () => {
    await to('/');
    await expect.poll(() => lane('h1').locator('button.chip').count()).toBe(4);
    await page.getByLabel('Find a host or VM').fill('blog');
    await expect.poll(() => page.locator('.lane').count()).toBe(1);
    expect(await lane('h2').count()).toBe(1);
    await page.getByLabel('Find a host or VM').fill('');
  });

  it('shows a migration live, and its report afterwards', async () => {
    const { client } = stage.fleet;
    const body = { to: 'h2', technique: 'pre-copy' as const, why: 'to be watched' };
    const move = await client.migrateVm({ params: { vm: 'shop-db' }, body });
    await to('/');
    await page.locator('.move').first().waitFor();
    await page.getByRole('link', { name: /shop-db moves from h1 to h2/ }).press('Enter');
    await page.waitForURL(`**/migrations/${move.id}`);
    await page.getByText('There', { exact: true }).waitFor();
    await expect.poll(() => page.locator('.badge', { hasText: 'completed' }).count(), { timeout: 30_000 }).toBe(1);
    const ended = await client.getMigration({ params: { migration: move.id } });
    expect(ended.phase).toBe('completed');
    expect(await page.locator('.rounds tbody tr').count()).toBe(ended.rounds.length);
    expect(await page.locator('.phase.paused-on-source').count()).toBe(1);
    await page.getByText('to be watched').waitFor();
    await page.reload();
    await page.locator('.rounds tbody tr').first().waitFor();
    await page.getByRole('link', { name: 'Fleet' }).click();
    await lane('h2').locator('button.chip[aria-label^="shop-db,"]').waitFor();
  });

  it('switches a migration to post-copy', async () => {
    const { fleet } = stage;
    await fleet.run('jump', 'idle', 'h1');
    const policy = { maxBandwidthBytesPerSecond: 80_000_000 };
    const move = await fleet.client.migrateVm({
      params: { vm: 'jump' },
      body: { to: 'h4', technique: 'auto', policy },
    });
    await to(`/migrations/${move.id}`);
    await page.getByRole('button', { name: 'Switch to post-copy' }).click();
    await page.getByText('it was asked for').waitFor();
    await page.locator('.badge', { hasText: 'completed' }).waitFor();
    expect((await fleet.client.getMigration({ params: { migration: move.id } })).endedInPostCopy).toBe(true);
  });

  it('cancels a migration, and the guest goes on where it was', async () => {
    const { client } = stage.fleet;
    const body = { to: 'h3', technique: 'pre-copy' as const, policy: { maxBandwidthBytesPerSecond: 5_000_000 } };
    const move = await client.migrateVm({ params: { vm: 'build1' }, body });
    await to(`/migrations/${move.id}`);
    await page.locator('.badge', { hasText: 'warming-up' }).waitFor();
    await page.getByRole('button', { name: 'Cancel the move' }).click();
    await page.locator('.badge', { hasText: 'cancelled' }).waitFor();
    expect((await client.getVm({ params: { vm: 'build1' } })).host).toBe('h1');
    expect(await page.getByRole('button', { name: 'Cancel the move' }).count()).toBe(0);
  });

  it('completes a move that is held ready when told to', async () => {
    const { client } = stage.fleet;
    const body = { to: 'h3', technique: 'pre-copy' as const, holdMs: 120_000 };
    const move = await client.migrateVm({ params: { vm: 'blog-web' }, body });
    await to(`/migrations/${move.id}`);
    await page.locator('.badge', { hasText: 'armed' }).waitFor();
    await page.getByRole('button', { name: 'Complete now' }).click();
    await page.locator('.badge', { hasText: 'completed' }).waitFor();
  });

  it('moves a guest that is dragged onto another host, but only after the forecast was confirmed', async () => {
    const { client } = stage.fleet;
    await to('/');
    const from = centreOf(await chip('shop-web').boundingBox());
    const target = centreOf(await lane('h4').boundingBox());
    await page.mouse.move(from.x, from.y);
    await page.mouse.down();
    await page.mouse.move(from.x + 20, from.y + 20, { steps: 4 });
    await page.mouse.move(target.x, target.y, { steps: 10 });
    await page.getByText('shop-web to h4').waitFor();
    await page.mouse.up();
    const dialog = page.getByRole('dialog', { name: 'Move shop-web to h4' });
    await dialog.getByRole('row', { name: /^auto/ }).waitFor();
    expect(await client.listMigrations({ query: { vm: 'shop-web' } })).toEqual([]);
    await dialog.getByRole('radio', { name: /^post-copy/ }).check();
    await dialog.getByRole('button', { name: 'Move it' }).click();
    await lane('h4').locator('button.chip[aria-label^="shop-web, running"]').waitFor();
    const [move] = await client.listMigrations({ query: { vm: 'shop-web' } });
    expect(move).toMatchObject({ source: 'h1', target: 'h4', technique: 'post-copy' });
  });

  it('moves nothing when the drop is not confirmed, or the key is Escape', async () => {
    await to('/');
    await chip('mail-web').focus();
    await page.keyboard.press('m');
    const dialog = page.getByRole('dialog', { name: /^Move mail-web/ });
    await dialog.getByRole('row', { name: /^auto/ }).waitFor();
    await page.keyboard.press('Escape');
    await expect.poll(() => page.getByRole('dialog').count()).toBe(0);
    expect(await stage.fleet.client.listMigrations({ query: { vm: 'mail-web' } })).toEqual([]);
  });

  it('moves a guest by the keyboard alone', async () => {
    await to('/');
    await chip('mail-web').focus();
    await page.keyboard.press('m');
    const dialog = page.getByRole('dialog', { name: /^Move mail-web/ });
    await dialog.getByLabel(/From h3 to/).selectOption('h2');
    await expect.poll(() => dialog.getByRole('button', { name: 'Move it' }).isEnabled()).toBe(true);
    await dialog.getByRole('button', { name: 'Move it' }).press('Enter');
    await lane('h2').locator('button.chip[aria-label^="mail-web, running"]').waitFor();
  });

  it('shows the load from before the page was opened', async () => {
    const known = async () => (await stage.fleet.client.getLoads({ query: { vm: 'shop-web' } })).cpu.length;
    await expect.poll(known, { timeout: 60_000 }).toBeGreaterThan(1);
    const read = page.waitForResponse((response) => response.url().includes('/api/v1/loads?vm='));
    await to('/vms/shop-web');
    expect((await read).ok()).toBe(true);
    await page.getByRole('img', { name: /Cores that shop-web uses/ }).waitFor();
  });

  it('says why a move is refused, and stays where it was', async () => {
    await stage.fleet.client.cordonHost({ params: { host: 'h4' } });
    await to('/vms/mail-web');
    await page.getByRole('button', { name: 'Move…' }).click();
    const dialog = page.getByRole('dialog', { name: /^Move mail-web/ });
    await dialog.getByLabel(/From h2 to/).selectOption('h4');
    await dialog.getByRole('alert').getByText(/h4/).waitFor();
    expect(await dialog.getByRole('button', { name: 'Move it' }).isEnabled()).toBe(false);
    await dialog.getByRole('button', { name: 'Leave it on h2' }).click();
    await stage.fleet.client.uncordonHost({ params: { host: 'h4' } });
  });

  it('drains a host after its cost was shown, and brings the guests back', async () => {
    await to('/hosts/h2');
    await page.getByRole('button', { name: 'Drain…' }).click();
    const dialog = page.getByRole('dialog', { name: 'Drain h2' });
    await dialog.getByText(/2 VMs can move/).waitFor();
    expect(await stage.fleet.client.listDrains()).toEqual([]);
    await dialog.getByLabel('Why (optional)').fill('new memory');
    await dialog.getByRole('button', { name: 'Drain it' }).click();
    await page.getByRole('heading', { name: 'Drain of h2' }).waitFor();
    await page.locator('.badge', { hasText: 'drained' }).waitFor();
    expect(await page.locator('.gantt-bar.done').count()).toBe(2);
    await page.getByRole('button', { name: 'Undrain' }).click();
    await page.locator('.badge', { hasText: 'undrained' }).waitFor();
    const { vms } = await stage.fleet.client.getHost({ params: { host: 'h2' } });
    expect(vms.toSorted()).toEqual(['mail-web', 'shop-db']);
  });

  it('has a plan accepted, which then moves', async () => {
    const { client } = stage.fleet;
    // The server wants to have seen the load for a while before it plans.
    await to('/plans');
    await expect
      .poll(
        () =>
          client.makePlan({ body: { dryRun: true } }).then(
            ({ moves }) => moves.length,
            () => 0,
          ),
        {
          timeout: 50_000,
          interval: 1000,
        },
      )
      .toBeGreaterThan(0);
    await page.getByRole('button', { name: 'Try a spread (dry run)' }).click();
    await page.getByRole('region', { name: 'Dry run' }).getByRole('table').waitFor();
    expect(await client.listPlans()).toEqual([]);
    await page.getByRole('button', { name: 'Propose a plan' }).click();
    await page.getByRole('heading', { name: 'Plan to balance' }).waitFor();
    await page.getByRole('button', { name: 'Accept' }).click();
    await page.locator('.page-about .badge', { hasText: 'running' }).waitFor();
    await page
      .locator('tbody .badge', { hasText: /moving|done/ })
      .first()
      .waitFor();
    await client.cancelBalance({ body: { moves: true } }).catch(() => {}); // it may be done already
  }, 90_000);

  it('says that the server is away, and goes on by itself when it is back', async () => {
    const { server, client } = stage.fleet;
    await to('/');
    await chip('build1').waitFor();
    await server.kill();
    await page.getByRole('alert').getByText('The server does not answer.').waitFor();
    // What was known is still shown.
    expect(await chip('build1').count()).toBe(1);
    await server.start();
    await page.getByText('Live', { exact: true }).waitFor();
    await expect.poll(() => page.getByRole('alert').count()).toBe(0);
    await stage.fleet.hostsWhen('all back', (hosts) => hosts.every(({ state }) => state === 'up'));
    await client.cordonHost({ params: { host: 'h4' } });
    await lane('h4').getByText('cordoned').waitFor();
    await client.uncordonHost({ params: { host: 'h4' } });
  }, 120_000);

  it('answers addresses that lead nowhere', async () => {
    await to('/vms/nobody');
    await page.getByText('There is no VM called nobody').waitFor();
    await to('/some/thing/else');
    await page.getByText('There is no such page').waitFor();
    await to('/migrations/mig_nothing');
    await page.getByText('There is no such migration').waitFor();
  });
});
