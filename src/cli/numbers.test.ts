import { describe, expect, it } from 'vitest';
import { z } from 'zod';
import { limitsOf, parseCount, parseDurationWithin, parseNumber } from './numbers.ts';

const limits = limitsOf(z.number().int().min(1).max(64));

describe('a number on the command line', () => {
  it.each([
    ['0', '--retry 0 is too small.'],
    ['65', '--retry 65 is too large.'],
    ['-1', "--retry '-1' is not a whole number."],
    ['1.5', "--retry '1.5' is not a whole number."],
    ['1e3', "--retry '1e3' is not a whole number."],
    ['99999999999999999999', "--retry '99999999999999999999' is not a whole number."],
    ['', "--retry '' is not a whole number."],
  ])("'%s' is refused by the name of its option, with what it may be", (text, message) => {
    expect(() => parseCount(text, '--retry', limits)).toThrow(
      expect.objectContaining({ message, hint: 'Write --retry with a whole number from 1 to 64.' }),
    );
  });

  it('is taken at either limit, and as a fraction where that may be', () => {
    expect([parseCount('1', '--n', limits), parseCount('64', '--n', limits)]).toEqual([1, 64]);
    expect(parseNumber('1.5', '--n', limits)).toBe(1.5);
    expect(() => parseNumber('64.1', '--n', limits)).toThrow('--n 64.1 is too large.');
  });
});

describe('a duration on the command line', () => {
  it('is refused outside its limits, which are told as they could be written', () => {
    const of = (text: string) => () => parseDurationWithin(text, '--measure-after', [10_000, 86_400_000]);
    const hint = 'Write --measure-after with 10s to 24h.';
    expect(of('1ms')).toThrow(expect.objectContaining({ message: '--measure-after 1ms is too short.', hint }));
    expect(of('25h')).toThrow(expect.objectContaining({ message: '--measure-after 25h is too long.', hint }));
    expect(of('24h')()).toBe(86_400_000);
  });
});
