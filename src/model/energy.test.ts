import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { defaultWatts, modelWatts, shareOut } from './energy.ts';
import type { VmId } from './ids.ts';

const guest = (name: string, cpuCores: number, memoryMiB: number) => ({ vm: name as VmId, cpuCores, memoryMiB });

describe('the model of a host', () => {
  it('is idle and busy at its ends, and rises fastest at the beginning', () => {
    const watts = { idle: 60, max: 200 };
    expect(modelWatts(watts, 0)).toBe(60);
    expect(modelWatts(watts, 1)).toBe(200);
    expect(modelWatts(watts, 0.5)).toBeGreaterThan(130);
    expect(modelWatts(watts, 7)).toBe(200);
    expect(defaultWatts(32)).toEqual({ idle: 104, max: 296 });
  });
});

describe("a host's energy", () => {
  it('goes to its guests by processor time, and what it draws idle by memory', () => {
    const shares = shareOut([guest('a', 3, 1000), guest('b', 1, 3000)], {
      wh: 100,
      idleWh: 60,
      busyCores: 5,
      memoryMiB: 8000,
    });
    expect(Object.fromEntries(shares)).toEqual({ a: (40 * 3) / 5 + 60 / 8, b: 40 / 5 + (60 * 3) / 8 });
  });

  it('is never given out more than once, whatever the meters say', () => {
    const positive = fc.nat(1_000_000);
    const guests = fc.array(fc.tuple(positive, positive), { maxLength: 20 });
    const property = fc.property(
      guests,
      positive,
      positive,
      positive,
      positive,
      (all, wh, idleWh, busyCores, memoryMiB) => {
        const shares = shareOut(
          all.map(([cores, memory], n) => guest(`vm${n}`, cores, memory)),
          { wh, idleWh, busyCores, memoryMiB },
        );
        const sum = [...shares.values()].reduce((a, b) => a + b, 0);
        expect(sum).toBeLessThanOrEqual(wh * (1 + 1e-9));
      },
    );
    fc.assert(property);
  });
});
