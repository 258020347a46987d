/** What the tests of the dashboard have in common: a fleet, a browser, a page that is signed in, and no word of the page about errors. */
import type { Browser, BrowserContextOptions, Page } from 'playwright-core';
import { DevFleet, type DevFleetOptions } from '../../src/dev/fleet.ts';
import { openBrowser } from './browser.ts';

export interface Stage {
  readonly fleet: DevFleet;
  readonly browser: Browser;
  /** A page of its own session, signed in. */
  page(options?: BrowserContextOptions): Promise<Page>;
  /** What pages have complained of since the last look. */
  complaints(): string[];
  close(): Promise<void>;
}

/** Longest wait for something to appear. */
export const withinMs = 30_000;

export async function openStage(options: DevFleetOptions): Promise<Stage> {
  const fleet = await DevFleet.start(options);
  const browser = await openBrowser().catch(async (error: unknown) => {
    await fleet.close();
    throw error;
  });
  const complaints: string[] = [];
  return {
    fleet,
    browser,
    async page(context = {}) {
      const opened = await browser.newContext({ viewport: { width: 1360, height: 900 }, ...context });
      const page = await opened.newPage();
      page.setDefaultTimeout(withinMs);
      page.on('pageerror', (error) => complaints.push(error.message));
      page.on('console', (message) => {
        // A server that is away is part of the play, and the browser says so by itself.
        if (message.type() === 'error' && !/Failed to load resource|ERR_/.test(message.text()))
          complaints.push(message.text());
      });
      const { url, token } = fleet.server;
      await page.goto(`${url}/#token=${token}`);
      await page.getByText('Live', { exact: true }).waitFor();
      return page;
    },
    complaints: () => complaints.splice(0),
    async close() {
      await browser.close();
      await fleet.close();
    },
  };
}

export function centreOf(box: { x: number; y: number; width: number; height: number } | null): {
  x: number;
  y: number;
} {
  if (box === null) throw new Error('it is not on the page');
  return { x: box.x + box.width / 2, y: box.y + box.height / 2 };
}
