/** Quantities as people write them. */
import { expect, test } from 'vitest';
import { UserError } from './failure.ts';
import { formatBytes, formatMs, parseBytesPerSecond, parseDurationMs, parseSizeMiB } from './units.ts';

test.each([
  ['300ms', 300],
  ['1.5s', 1500],
  ['2 m', 120_000],
])('the duration %s is %i ms', (text, ms) => {
  expect(parseDurationMs(text)).toBe(ms);
});

test('sizes are whole MiB and rates are bytes per second', () => {
  expect(parseSizeMiB('1GiB')).toBe(1024);
  expect(parseBytesPerSecond('1Gbit')).toBe(125_000_000);
  expect(parseBytesPerSecond('10MiB/s')).toBe(10 * 1024 * 1024);
  expect(() => parseSizeMiB('1.5MiB')).toThrow('whole number');
});

test.each(['', '300', '-5ms', '0ms', '1e3ms', '5 parsecs', 'ms'])(
  '%j is no duration, and the error shows one',
  (text) => {
    expect(() => parseDurationMs(text)).toThrow(UserError);
    try {
      parseDurationMs(text);
    } catch (error) {
      expect(error).toMatchObject({ code: 'invalid-input', hint: expect.stringContaining('300ms') });
    }
  },
);

test('what is printed has one unit and few digits', () => {
  expect([0.42, 38.2, 4321, 125_000].map(formatMs)).toEqual(['0.4 ms', '38 ms', '4.3 s', '2 min 5 s']);
  expect([59_940, 59_990, 119_600].map(formatMs)).toEqual(['59.9 s', '1 min 0 s', '2 min 0 s']);
  expect([0, 1023, 3.1 * 1024 ** 2, 15 * 1024 ** 3].map(formatBytes)).toEqual(['0 B', '1023 B', '3.1 MiB', '15 GiB']);
});
