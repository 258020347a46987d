import { describe, expect, test } from 'vitest';
import { cautionAfter, cautionHalfLifeMs, cautionLimit, cautionNow } from './conscience.ts';

const fresh = { factor: 1, at: 0 };
const outcomes = (paid: number, not: number) => [
  ...Array.from({ length: paid }, () => true),
  ...Array.from({ length: not }, () => false),
];

describe('caution', () => {
  test('rises by what did not pay, to a limit, and halves with time', () => {
    let caution = cautionAfter(fresh, [false], 0);
    expect(caution.factor).toBeGreaterThan(1);
    expect(cautionNow(caution, cautionHalfLifeMs)).toBeCloseTo(1 + (caution.factor - 1) / 2);
    for (let n = 0; n < 20; n++) caution = cautionAfter(caution, [false], 0);
    expect(caution.factor).toBe(cautionLimit);
  });

  test('takes the moves that were measured together for one experience, by the share that paid', () => {
    const few = cautionAfter(fresh, outcomes(1, 2), 0);
    const many = cautionAfter(fresh, outcomes(30, 60), 0);
    expect(many.factor).toBeCloseTo(few.factor);
    expect(cautionAfter(fresh, outcomes(90, 10), 0).factor).toBe(1);
    expect(many.factor).toBeLessThan(cautionAfter(fresh, [false], 0).factor);
  });

  test('stays where nothing was measured', () => {
    expect(cautionAfter({ factor: 3, at: 0 }, [], 0).factor).toBe(3);
  });
});
