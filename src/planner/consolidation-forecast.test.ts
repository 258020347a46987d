import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { DemandForecast, HostForecast } from './consolidation-forecast.ts';

const vm = (...demands: number[]) => ({ size: 4, demands });

function hostOf(vms: readonly { size: number; demands: readonly number[] }[]): HostForecast {
  const host = new HostForecast(new DemandForecast(vms, 24), 1);
  vms.forEach((_, index) => host.add(0, index));
  return host;
}

describe('DemandForecast', () => {
  it('takes a VM that has always done the same for what it is, however the others differ', () => {
    const { mean, doubt } = new DemandForecast([vm(1, 1, 1, 1), vm(3, 3, 3, 3), vm(2, 2, 2, 2)], 24);
    expect([...mean]).toEqual([1, 3, 2]);
    expect([...doubt]).toEqual([0, 0, 0]);
  });

  it('draws a single sample half way to the mean of the fleet, and doubts it', () => {
    const { mean, doubt } = new DemandForecast([vm(0), vm(4)], 24);
    expect([...mean]).toEqual([1, 3]);
    expect(doubt[0]).toBeGreaterThan(0);
  });

  it('believes noisy VMs less the fewer samples there are', () => {
    const noisy = (samples: number, level: number): number[] =>
      Array.from({ length: samples }, (_, i) => level + (i % 2 === 0 ? 1 : -1));
    const drawn = (samples: number): number =>
      1.5 - (new DemandForecast([vm(...noisy(samples, 1.5)), vm(...noisy(samples, 2.5))], 24).mean[0] ?? 0);
    expect(Math.abs(drawn(24))).toBeLessThan(Math.abs(drawn(4)));
  });

  it('looks no further back than its window', () => {
    const { mean, window } = new DemandForecast([vm(4, 4, 4, 1, 1), vm(4, 4, 4, 2, 2)], 2);
    expect(window).toBe(2);
    expect([...mean]).toEqual([1, 2]);
  });

  it('expects what earlier days promise when that is more than what is now', () => {
    const now = vm(1, 1, 1, 1);
    expect([
      ...new DemandForecast(
        [
          { ...now, expected: 3 },
          { ...now, expected: 0.5 },
        ],
        24,
      ).mean,
    ]).toEqual([3, 1]);
  });
});

describe('HostForecast', () => {
  const early = Array.from({ length: 24 }, (_, i) => (i < 12 ? 3 : 1));
  const late = early.toReversed();

  it('needs less room for VMs that are busy at different times', () => {
    const [apart, together] = [hostOf([vm(...early), vm(...late)]), hostOf([vm(...early), vm(...early)])];
    expect(apart.mean(0)).toBeCloseTo(together.mean(0));
    expect(apart.bound(0, 2)).toBeLessThan(together.bound(0, 2) - 1);
  });

  it('leaves no margin where nothing ever changes', () => {
    expect(hostOf([vm(1, 1, 1), vm(1, 1, 1)]).bound(0, 3)).toBeCloseTo(2);
  });

  it('foresees of a host with or without a VM what it says once the VM came or went', () => {
    const demands = fc.array(fc.double({ min: 0, max: 4, noNaN: true }), { minLength: 1, maxLength: 30 });
    fc.assert(
      fc.property(fc.array(demands, { minLength: 2, maxLength: 8 }), (histories) => {
        const vms = histories.map((history) => vm(...history));
        const host = hostOf(vms);
        const without = host.boundWithout(0, 0, 2);
        const full = host.bound(0, 2);
        host.remove(0, 0);
        expect(host.bound(0, 2)).toBeCloseTo(without, 6);
        expect(host.boundWith(0, 0, 2)).toBeCloseTo(full, 6);
      }),
    );
  });
});
