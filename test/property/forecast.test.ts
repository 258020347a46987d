/** Laws of the forecast, over guests, links and policies of every kind. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import type { Writing } from '../../src/model/forecast.ts';
import { techniques } from '../../src/model/migration.ts';
import { MiB } from '../../src/model/units.ts';
import { forecastBy, forecastMove, type ForecastInput } from '../../src/migration/forecast.ts';
import { quickBytes } from '../../src/migration/quick-forecast.ts';
import { firstDowntimeLimitMs } from '../../src/migration/steer.ts';
import { dirtiedWithin, fitWriting } from '../../src/migration/writing.ts';

const size = (most: number) => fc.double({ min: 0, max: most, noNaN: true });

const writing: fc.Arbitrary<Writing> = fc.record({
  hotBytes: size(4096 * MiB),
  hotMs: fc.double({ min: 20, max: 500_000, noNaN: true }),
  coldBytesPerSecond: size(1024 * MiB),
});

const input: fc.Arbitrary<ForecastInput> = fc
  .record({
    memoryBytes: fc.double({ min: 64 * MiB, max: 1024 * 1024 * MiB, noNaN: true }),
    usedShare: fc.double({ min: 0, max: 1, noNaN: true }),
    writing,
    bytesPerSecond: fc.double({ min: MiB, max: 20_000 * MiB, noNaN: true }),
    policy: fc.record(
      {
        maxDowntimeMs: fc.integer({ min: 1, max: 2_000_000 }),
        maxBandwidthBytesPerSecond: fc.option(fc.integer({ min: 125_000, max: 1e10 })),
        deadlineMs: fc.option(fc.integer({ min: 1, max: 86_400_000 })),
        autoConverge: fc.boolean(),
        parallelStreams: fc.constantFrom(0, 4),
        whenNotConverging: fc.constantFrom('fail', 'post-copy', 'pause'),
      },
      { requiredKeys: [] },
    ),
    postCopy: fc.boolean(),
    accel: fc.constantFrom('kvm', 'tcg'),
  })
  .map(({ usedShare, ...rest }) => ({ ...rest, inUseBytes: usedShare * rest.memoryBytes }));

/** Neither raises its limit nor switches: what is compared differs in nothing but what is varied. */
const plain = input.map((given) => ({ ...given, policy: { maxDowntimeMs: firstDowntimeLimitMs } }));

describe('a forecast', () => {
  test('is finite and positive for every technique, and has a reason where it does not converge', () => {
    fc.assert(
      fc.property(input, (given) => {
        const all = forecastMove(given);
        for (const technique of techniques) {
          const { converges, because, totalMs, downtimeMs, blackoutMs, bytes, rounds, faults } = all[technique];
          for (const figure of [totalMs, downtimeMs, blackoutMs, bytes, rounds, faults])
            expect(Number.isFinite(figure) && figure >= 0).toBe(true);
          expect(totalMs).toBeGreaterThan(0);
          expect(downtimeMs).toBeGreaterThan(0);
          expect(blackoutMs).toBeGreaterThanOrEqual(downtimeMs);
          if (technique !== 'cold') expect(bytes).toBeGreaterThan(0);
          if (!converges) expect(because).toMatch(/\w/);
        }
      }),
      { numRuns: 2000 },
    );
  });

  test('of a pre-copy is never faster for a guest that writes more', () => {
    fc.assert(
      fc.property(plain, fc.double({ min: 1, max: 10, noNaN: true }), (given, times) => {
        const busier = {
          ...given.writing,
          hotBytes: given.writing.hotBytes * times,
          coldBytesPerSecond: given.writing.coldBytesPerSecond * times,
        };
        const calm = forecastBy('pre-copy', given);
        const busy = forecastBy('pre-copy', { ...given, writing: busier });
        if (!calm.converges || !busy.converges) return;
        expect(busy.totalMs).toBeGreaterThanOrEqual(calm.totalMs * (1 - 1e-9));
        expect(busy.bytes).toBeGreaterThanOrEqual(calm.bytes - 1);
      }),
      { numRuns: 2000 },
    );
  });

  test('is never slower over a faster link', () => {
    const live = fc.constantFrom('pre-copy', 'post-copy', 'hybrid');
    fc.assert(
      fc.property(plain, live, fc.double({ min: 1, max: 10, noNaN: true }), (given, technique, times) => {
        const slow = forecastBy(technique, given);
        const fast = forecastBy(technique, { ...given, bytesPerSecond: given.bytesPerSecond * times });
        if (!slow.converges || !fast.converges) return;
        expect(fast.totalMs).toBeLessThanOrEqual(slow.totalMs * (1 + 1e-9));
      }),
      { numRuns: 2000 },
    );
  });

  test('in its short form is finite, and sends at least what is in use and at most one hot set more a round', () => {
    fc.assert(
      fc.property(
        size(1e12),
        size(1e10),
        size(1e11),
        fc.double({ min: 1, max: 1e11, noNaN: true }),
        (used, rate, hot, link) => {
          const bytes = quickBytes(used, rate, hot, link);
          expect(Number.isFinite(bytes)).toBe(true);
          expect(bytes).toBeGreaterThanOrEqual(used);
          expect(bytes).toBeLessThanOrEqual(used + Math.min(used, hot) / (1 - 0.8) + 1);
        },
      ),
    );
  });
});

test('a fitted writing never writes less in a longer time', () => {
  const points = fc.array(fc.record({ overMs: fc.double({ min: 1, max: 600_000, noNaN: true }), bytes: size(1e11) }), {
    maxLength: 12,
  });
  fc.assert(
    fc.property(points, size(1e6), size(1e6), (some, a, b) => {
      const fit = fitWriting(some);
      const [short, long] = [Math.min(a, b), Math.max(a, b)];
      const [less, more] = [dirtiedWithin(fit, short, 1e12), dirtiedWithin(fit, long, 1e12)];
      expect(less).toBeGreaterThanOrEqual(0);
      expect(more).toBeGreaterThanOrEqual(less * (1 - 1e-9));
    }),
    { numRuns: 500 },
  );
});
