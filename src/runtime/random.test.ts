import { expect, test } from 'vitest';
import { seededRandom, systemRandom } from './random.ts';

const draw = (seed: number, count = 8): number[] => {
  const random = seededRandom(seed);
  return Array.from({ length: count }, () => random.next());
};

test('the same seed gives the same numbers, another seed others', () => {
  expect(draw(7)).toEqual(draw(7));
  expect(draw(7)).not.toEqual(draw(8));
});

test('numbers are spread evenly over [0, 1), also across neighbouring seeds', () => {
  for (const numbers of [draw(1, 20_000), Array.from({ length: 20_000 }, (_, seed) => draw(seed, 1)[0]!)]) {
    const tenths = Array.from({ length: 10 }, () => 0);
    for (const n of numbers) tenths[Math.floor(n * 10)]!++;
    for (const count of tenths) expect(Math.abs(count - 2_000)).toBeLessThan(200);
  }
});

test('bytes are as many as asked for and not all alike', () => {
  for (const random of [seededRandom(7), systemRandom]) {
    const bytes = random.bytes(1_000);
    expect(bytes).toHaveLength(1_000);
    expect(new Set(bytes).size).toBeGreaterThan(200);
  }
});
