import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { TestClock } from '../runtime/clock.ts';
import { healthMeter } from './health.ts';

let root: string;
const put = (path: string, text: string): void => {
  mkdirSync(dirname(join(root, path)), { recursive: true });
  writeFileSync(join(root, path), text);
};
const meter = (status?: number, clock = new TestClock()) => healthMeter({ root, smart: async () => status, clock });
const pressure = (full: number) =>
  `some avg10=90.00 avg60=90.00 avg300=1.00 total=1\nfull avg10=99.00 avg60=${full.toFixed(2)} avg300=1.00 total=1\n`;

beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'drover-health-'));
});
afterEach(() => rmSync(root, { recursive: true, force: true }));

test('a machine that tells nothing of itself shows no sign', async () => {
  expect(await meter()()).toEqual([]);
});

test('memory errors that could not be corrected are failing, many that could be are a warning, few are nothing', async () => {
  put('sys/devices/system/edac/mc/mc0/ue_count', '2\n');
  put('sys/devices/system/edac/mc/mc0/ce_count', '5000\n');
  put('sys/devices/system/edac/mc/mc1/ue_count', '0\n');
  put('sys/devices/system/edac/mc/mc1/ce_count', '100\n');
  put('sys/devices/system/edac/mc/mc2/ue_count', '0\n');
  put('sys/devices/system/edac/mc/mc2/ce_count', '99\n');
  expect((await meter()()).map(({ severity, says }) => [severity, says])).toEqual([
    ['failing', 'memory controller mc0 counted 2 errors that could not be corrected'],
    ['warning', 'memory controller mc1 corrected more than 100 errors since boot'],
  ]);
});

test('a minute in which everything waited is a warning, whatever some tasks did', async () => {
  put('proc/pressure/memory', pressure(39.99));
  put('proc/pressure/io', pressure(40));
  expect((await meter()()).map(({ kind, severity, says }) => [kind, severity, says])).toEqual([
    ['pressure', 'warning', 'every task waited for disks for over 40 % of a minute'],
  ]);
});

test('a disk that calls itself failing is a sign until it is asked again; one that cannot be asked is none', async () => {
  put('sys/block/sda/device/model', 'x');
  put('sys/block/loop0/size', '1');
  const clock = new TestClock();
  const asked: string[] = [];
  let status: number | undefined = 1 << 3;
  const look = healthMeter({ root, clock, smart: async (disk) => (asked.push(disk), status) });
  const sign = { kind: 'disk', severity: 'failing', says: 'the disk sda says that it is failing (SMART)' };
  await vi.waitFor(async () => expect(await look()).toEqual([sign]));
  expect(asked).toEqual(['sda']);
  status = undefined;
  await clock.advance(600_000);
  await vi.waitFor(async () => expect(await look()).toEqual([]));
  expect(asked).toEqual(['sda', 'sda']);
});
