import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, test } from 'vitest';
import { UserError } from '../../model/failure.ts';
import { silentLog } from '../../runtime/log.ts';
import { openWatchdog } from './watchdog.ts';

const scratch = mkdtempSync(join(tmpdir(), 'drover-watchdog-'));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

/** A file in the place of the device, and the time that its driver would tell. */
function open(seconds: number | null) {
  const path = join(scratch, 'watchdog');
  writeFileSync(path, '');
  const watchdog = openWatchdog(path, 10_000, silentLog, () => (seconds === null ? null : seconds * 1000));
  return { watchdog, strokes: () => readFileSync(path, 'utf8') };
}

test('a watchdog covers a hung guard only when it bites before others may take the lease', () => {
  expect(open(11).watchdog.covers).toBe(true);
  expect(open(12).watchdog.covers).toBe(false);
  expect(open(null).watchdog.covers).toBe(false);
});

test('it is stroked while its bite would come before anybody may take the lease, or no guest is there, and not beyond', () => {
  const { watchdog, strokes } = open(10);
  const leaseEndsMs = 100_000;
  watchdog.strokeIfSafe(leaseEndsMs - 8_000, leaseEndsMs);
  expect(strokes()).toBe('\0');
  watchdog.strokeIfSafe(leaseEndsMs - 7_900, leaseEndsMs);
  expect(strokes()).toBe('\0');
  watchdog.strokeIfSafe(leaseEndsMs + 50_000, Infinity);
  expect(strokes()).toBe('\0\0');
  watchdog.close();
  expect(strokes()).toBe('\0\0V');
});

test('one that cannot be opened is refused with what to do', () => {
  expect(() => openWatchdog(join(scratch, 'none', 'watchdog'), 10_000, silentLog)).toThrow(UserError);
});
