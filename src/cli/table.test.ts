import { expect, test } from 'vitest';
import { table } from './table.ts';

test('numbers stand right, also those below zero and with a unit, and words left', () => {
  const rows = [
    ['web1', '0.399', '25.6 s'],
    ['db1', '-0.001', '7.2 s'],
  ];
  expect(table(['VM', 'GAIN', 'TIME'], rows)).toBe(
    ['VM      GAIN    TIME', 'web1   0.399  25.6 s', 'db1   -0.001   7.2 s'].join('\n'),
  );
});
