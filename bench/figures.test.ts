import { describe, expect, it } from 'vitest';
import { aimText, ratio, spread, spreadText, table } from './figures.ts';

describe('figures of a benchmark', () => {
  it('take the middle value, or the mean of the two middle ones, whatever the order', () => {
    expect(spread([30, 10, 20])).toEqual({ median: 20, min: 10, max: 30 });
    expect(spread([40, 10, 20, 30])).toEqual({ median: 25, min: 10, max: 40 });
  });

  it('have no median where nothing was measured', () => {
    expect(spread([])).toBeUndefined();
    expect(spreadText([])).toBe('-');
    expect(ratio([], [1])).toBeUndefined();
  });

  it('compare medians, so that one move that went wrong does not decide', () => {
    expect(ratio([10, 10, 9000], [20, 20, 20])).toBe(0.5);
    expect(ratio([10], [0])).toBeUndefined();
  });

  it('say whether an aim was met, and that it was not measured rather than met', () => {
    const aim = { of: 'total', atMost: 1.05, unit: 'x' };
    expect(aimText({ ...aim, reached: 1.05 })).toBe('total: 1.05x, aim 1.05x: met');
    expect(aimText({ ...aim, reached: 1.06 })).toContain('MISSED');
    expect(aimText({ ...aim, reached: undefined })).toContain('not measured');
  });

  it('stand in columns, words to the left and numbers to the right', () => {
    expect(table(['by', 'ms'], [['drover', '7']])).toBe('by      ms\ndrover   7');
  });
});
