/**
 * `npm run bench -- web`: the dashboard on a large fleet, in a real browser: how long until the fleet is seen, and whether it
 * scrolls smoothly while loads keep changing. The server is a program of its own (large-server.ts).
 */
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import type { Page } from 'playwright-core';
import { UserError } from '../../src/model/failure.ts';
import { openBrowser } from '../../test/web/browser.ts';
import { aimText, table, type Aim } from '../figures.ts';

export interface WebBench {
  readonly hosts: number;
  readonly vms: number;
  readonly rounds: number;
  readonly say: (line: string) => void;
  readonly signal: AbortSignal;
}

interface Scrolled {
  readonly frames: number;
  readonly halfMs: number;
  readonly mostMs: number;
  readonly longestMs: number;
}

export interface WebResult {
  readonly hosts: number;
  readonly vms: number;
  /** From the navigation until lanes are painted, each round. */
  readonly firstViewMs: readonly number[];
  readonly fleet: Scrolled;
  readonly vmList: Scrolled;
  /** Elements of the page when all is there. */
  readonly elements: number;
}

const pageDir = join(import.meta.dirname, '..', '..', '.drover', 'web');
const firstViewAimMs = 2000;
/** A frame and the next one: what is missed now and then nobody sees. */
const frameAimMs = 34;
const scrollMs = 4000;

export async function benchWeb({ hosts, vms, rounds, say, signal }: WebBench): Promise<WebResult> {
  if (!existsSync(pageDir)) throw new UserError('unavailable', 'The dashboard is not built.', 'Run: npm run build');
  say(`${hosts} hosts, ${vms} VMs: the server starts`);
  const args = [join(import.meta.dirname, 'large-server.ts'), String(hosts), String(vms), pageDir];
  const server = spawn(process.execPath, ['--disable-warning=ExperimentalWarning', ...args], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  const ended = new Promise<void>((resolve) => server.once('close', () => resolve()));
  try {
    const ready = await new Promise<string>((resolve, reject) => {
      server.stdout.once('data', (chunk: Buffer) => resolve(chunk.toString()));
      server.once('close', () => reject(new Error('the server ended before it was ready')));
    });
    // Its own line, see there.
    const { url, token } = JSON.parse(ready) as { url: string; token: string };
    const browser = await openBrowser();
    try {
      const firstViewMs: number[] = [];
      let page: Page | undefined;
      for (let round = 1; round <= rounds; round++) {
        signal.throwIfAborted();
        await page?.context().close();
        const context = await browser.newContext({ viewport: { width: 1360, height: 900 } });
        page = await context.newPage();
        await page.addInitScript(watchForLanes);
        await page.goto(`${url}/#token=${token}`);
        await page.locator('.lane').first().waitFor({ timeout: 60_000 });
        firstViewMs.push(Number(await page.evaluate('window.firstLane')));
        say(`first view ${Math.round(firstViewMs.at(-1) ?? 0)} ms`);
      }
      if (!page) throw new Error('there was no round');
      const fleet = await scrolled(page);
      const elements = Number(await page.evaluate('document.querySelectorAll("*").length'));
      await page.getByRole('link', { name: 'VMs', exact: true }).first().click();
      await page.locator('.rows-row').first().waitFor();
      const vmList = await scrolled(page);
      return { hosts, vms, firstViewMs, fleet, vmList, elements };
    } finally {
      await browser.close();
    }
  } finally {
    server.stdin.end();
    await ended;
  }
}

/** In the page: when the first lanes were painted, in ms since the navigation. */
const watchForLanes = `
  new MutationObserver((_, watcher) => {
    if (document.querySelector('.lane') === null) return;
    watcher.disconnect();
    requestAnimationFrame(() => setTimeout(() => { window.firstLane = performance.now(); }));
  }).observe(document, { childList: true, subtree: true });
`;

/** Scrolls down steadily and takes the time between frames. */
async function scrolled(page: Page): Promise<Scrolled> {
  const times = (await page.evaluate(`new Promise((resolve) => {
    const times = [];
    const begin = performance.now();
    let before = begin;
    const frame = () => {
      const now = performance.now();
      times.push(now - before);
      before = now;
      scrollBy(0, 40);
      if (now - begin < ${scrollMs}) requestAnimationFrame(frame);
      else resolve(times.slice(1));
    };
    requestAnimationFrame(frame);
  })`)) as number[]; // by the text above
  const sorted = times.toSorted((a, b) => a - b);
  const at = (share: number): number => sorted[Math.floor(share * (sorted.length - 1))] ?? 0;
  return { frames: times.length, halfMs: at(0.5), mostMs: at(0.95), longestMs: at(1) };
}

export function webAims({ firstViewMs, fleet, vmList }: WebResult): Aim[] {
  const median = firstViewMs.toSorted((a, b) => a - b)[Math.floor(firstViewMs.length / 2)] ?? Infinity;
  const aim = (of: string, reached: number, atMost: number): Aim => ({ of, reached, atMost, unit: ' ms' });
  return [
    aim('first view of the fleet', median, firstViewAimMs),
    aim('95 % of frames while the fleet is scrolled', fleet.mostMs, frameAimMs),
    aim('95 % of frames while the list of VMs is scrolled', vmList.mostMs, frameAimMs),
  ];
}

export function webText(result: WebResult): string {
  const { hosts, vms, firstViewMs, fleet, vmList, elements } = result;
  const row = (what: string, { frames, halfMs, mostMs, longestMs }: Scrolled): string[] => [
    what,
    String(frames),
    ...[halfMs, mostMs, longestMs].map((ms) => `${ms.toFixed(1)} ms`),
  ];
  return [
    `${hosts} hosts, ${vms} VMs, ${elements} elements on the page`,
    `first view: ${firstViewMs.map((ms) => `${Math.round(ms)} ms`).join(', ')}`,
    table(['scrolled', 'frames', 'half within', '95 % within', 'longest'], [row('fleet', fleet), row('VMs', vmList)]),
    ...webAims(result).map(aimText),
  ].join('\n');
}
