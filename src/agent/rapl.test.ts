import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { TestClock } from '../runtime/clock.ts';
import { raplMeter } from './rapl.ts';

let root: string;
const clock = new TestClock();
beforeEach(() => (root = mkdtempSync(join(tmpdir(), 'drover-rapl-'))));
afterEach(() => rmSync(root, { recursive: true, force: true }));

function zone(name: string, words: string, joules: number): void {
  mkdirSync(join(root, name), { recursive: true });
  writeFileSync(join(root, name, 'name'), `${words}\n`);
  writeFileSync(join(root, name, 'energy_uj'), `${joules * 1e6}\n`);
  writeFileSync(join(root, name, 'max_energy_range_uj'), `${1000 * 1e6}\n`);
}

it('Watts are what processors and their memory used since the last look, also when a counter began again.', async () => {
  const meter = raplMeter(root, clock);
  zone('intel-rapl:0', 'package-0', 100);
  zone('intel-rapl:0:0', 'core', 50);
  zone('intel-rapl:0:1', 'dram', 10);
  zone('intel-rapl:1', 'package-1', 990);
  expect(meter()).toBeNull();
  await clock.advance(2_000);
  zone('intel-rapl:0', 'package-0', 140);
  zone('intel-rapl:0:0', 'core', 5000);
  zone('intel-rapl:0:1', 'dram', 20);
  zone('intel-rapl:1', 'package-1', 40);
  expect(meter()).toBe((40 + 10 + 50) / 2);
});

it('A machine without such meters says nothing.', async () => {
  const meter = raplMeter(join(root, 'nothing'), clock);
  expect(meter()).toBeNull();
  await clock.advance(1_000);
  expect(meter()).toBeNull();
});
