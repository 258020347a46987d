import { describe, expect, test } from 'vitest';
import type { Correction, KeptForecast } from '../model/forecast.ts';
import type { HostId, MigrationId, VmId } from '../model/ids.ts';
import { noMeasures, type Measures, type Migration, type Round } from '../model/migration.ts';
import { correctionFor, dirtiedIn, linkSpeedIn, medianOf, wholeMemoryIn } from './corrections.ts';
import { defaultPolicy } from './techniques.ts';
import { noWriting } from './writing.ts';

const [h1, h2, h3] = ['host_1' as HostId, 'host_2' as HostId, 'host_3' as HostId];
const asItIs: Correction = { totalMs: 1, downtimeMs: 1, blackoutMs: 1, bytes: 1, moves: 0, others: 0 };

function forecast(changes: Partial<KeptForecast> = {}): KeptForecast {
  return {
    converges: true,
    because: null,
    endsBy: 'stop-and-copy',
    totalMs: 1000,
    downtimeMs: 50,
    blackoutMs: 100,
    bytes: 1000,
    rounds: 2,
    faults: 0,
    basis: {
      inUseBytes: 1,
      inUseFrom: 'measured',
      writing: noWriting,
      writingFrom: 'measured',
      bytesPerSecond: 1,
      linkFrom: 'assumed',
    },
    correction: asItIs,
    ...changes,
  };
}

const round = (durationMs: number, bandwidthBytesPerSecond: number, dirtyPages = 0): Round => ({
  round: 1,
  durationMs,
  bytes: (durationMs * bandwidthBytesPerSecond) / 1000,
  dirtyPages,
  bandwidthBytesPerSecond,
});

function moved(measured: Partial<Measures>, changes: Partial<Migration> = {}): Migration {
  const spec = {
    cpus: 1,
    memoryMiB: 512,
    machine: '',
    cpuModel: '',
    boot: { kind: 'disk' },
    disks: [],
    nics: [],
  } as const;
  // The cast: a union of phases, of which the tests set one.
  return {
    schema: 1,
    id: 'mig_1' as MigrationId,
    vm: 'vm_1' as VmId,
    vmName: 'web1',
    source: h1,
    target: h2,
    technique: 'pre-copy',
    policy: defaultPolicy,
    why: [],
    generation: 1,
    memoryMiB: 512,
    running: { argvVersion: 2, argv: [], spec },
    startedAt: 0,
    cancelRequestedAt: null,
    giveUp: null,
    evidence: {},
    rounds: [],
    switchedToPostCopy: null,
    measures: { ...noMeasures, ...measured },
    forecast: forecast(),
    history: [],
    phase: 'completed',
    endedAt: 1000,
    ...changes,
  } as Migration;
}

describe('a correction', () => {
  test('without earlier moves changes nothing', () => {
    expect(correctionFor(forecast(), [])).toEqual(asItIs);
  });

  test('goes half of the way after one move, more after many', () => {
    const twice = moved({ totalMs: 2000, downtimeMs: 50, blackoutMs: null, bytes: 1000 });
    const after = (moves: number) =>
      correctionFor(
        forecast(),
        Array.from({ length: moves }, () => twice),
      );
    expect(after(1)).toMatchObject({ downtimeMs: 1, blackoutMs: 1, bytes: 1, moves: 1 });
    expect(after(1).totalMs).toBeCloseTo(Math.sqrt(2), 9);
    expect(after(3).totalMs).toBeCloseTo(2 ** 0.75, 9);
    expect(after(40)).toMatchObject({ moves: 15 });
  });

  test('of a VM that has not moved is what other VMs showed, and its own moves soon outweigh them', () => {
    const twice = moved({ totalMs: 2000 });
    const half = moved({ totalMs: 500 });
    const others = Array.from({ length: 3 }, () => twice);
    const fresh = correctionFor(forecast(), [], others);
    expect(fresh).toMatchObject({ moves: 0, others: 3 });
    expect(fresh.totalMs).toBeCloseTo(2 ** 0.75, 9);
    // (3 * -1 + 0.75) / 4
    expect(correctionFor(forecast(), [half, half, half], others).totalMs).toBeCloseTo(2 ** -0.5625, 9);
  });

  test('is learnt from the model, not from forecasts that were corrected already', () => {
    const right = forecast({ totalMs: 2000, correction: { ...asItIs, totalMs: 2 } });
    expect(correctionFor(forecast(), [moved({ totalMs: 2000 }, { forecast: right })]).totalMs).toBeCloseTo(
      Math.sqrt(2),
      9,
    );
  });

  test('minds one odd move little, and goes no further than four times', () => {
    const moves = [1000, 1000, 90_000, 1000, 1000].map((totalMs) => moved({ totalMs }));
    expect(correctionFor(forecast(), moves).totalMs).toBe(1);
    const far = Array.from({ length: 15 }, () => moved({ totalMs: 1_000_000 }));
    expect(correctionFor(forecast(), far).totalMs).toBe(4);
  });

  test('does not learn from moves that ended in another way, broke off, were held or did not arrive', () => {
    const others = [
      moved({ totalMs: 9000 }, { phase: 'cancelled' }),
      moved({ totalMs: 9000, recoveries: 1 }),
      moved({ totalMs: 9000 }, { hold: { until: 1, switchRequestedAt: 1 } }),
      moved({ totalMs: 9000 }, { evidence: { stopped: { at: 1, for: 'post-copy' } } }),
      moved({ totalMs: 9000 }, { forecast: forecast({ converges: false }) }),
      moved({ totalMs: 9000 }, { technique: 'cold' }),
    ];
    expect(correctionFor(forecast(), others)).toEqual(asItIs);
  });

  test('keeps a post-copy at once apart from one after rounds', () => {
    const atOnce = forecast({ endsBy: 'post-copy', rounds: 0 });
    const move = moved({ totalMs: 2000 }, { forecast: atOnce, evidence: { stopped: { at: 1, for: 'post-copy' } } });
    expect(correctionFor(atOnce, [move]).moves).toBe(1);
    expect(correctionFor(forecast({ endsBy: 'post-copy', rounds: 1 }), [move]).moves).toBe(0);
  });
});

describe('the speed of a link', () => {
  test('is the median of what the newest moves over it had in their longest round', () => {
    const moves = [100, 120, 110].map((speed) => moved({}, { rounds: [round(3000, speed), round(20, 900)] }));
    expect(linkSpeedIn(moves, h1, h2)).toBe(110);
  });

  test('is taken from moves the other way, else from other moves of either host, where there are none over it', () => {
    const moves = [moved({}, { rounds: [round(3000, 100)] })];
    expect(linkSpeedIn(moves, h1, h3)).toBe(100);
    expect(linkSpeedIn(moves, h3, h1)).toBeUndefined();
    const another = moved({}, { source: h3, target: h1, rounds: [round(3000, 900)] });
    expect(linkSpeedIn([another, ...moves], h2, h1)).toBe(100);
  });

  test('is not learnt from a move that used all it was allowed, nor from one that was too short', () => {
    const limited = { ...defaultPolicy, maxBandwidthBytesPerSecond: 100 };
    const moves = [moved({}, { rounds: [round(3000, 99)], policy: limited }), moved({}, { rounds: [round(100, 500)] })];
    expect(linkSpeedIn(moves, h1, h2)).toBeUndefined();
  });

  test('is learnt from a post-copy without rounds, too', () => {
    expect(linkSpeedIn([moved({ degradedMs: 2000, bytes: 400 })], h1, h2)).toBe(200);
  });
});

test('rounds say what was written, unless the guest was throttled', () => {
  const rounds = [round(3000, 100, 10)];
  expect(dirtiedIn(moved({}, { rounds }))).toEqual([{ overMs: 3000, bytes: 40_960 }]);
  expect(dirtiedIn(moved({ throttlePercent: 20 }, { rounds }))).toEqual([]);
});

test('the first round says what there is to send, or a whole post-copy does', () => {
  expect(wholeMemoryIn(moved({}, { rounds: [round(1000, 100)] }))).toBe(100);
  const postCopy = { evidence: { stopped: { at: 1, for: 'post-copy' } } } as const;
  expect(wholeMemoryIn(moved({ bytes: 300 }, postCopy))).toBe(300);
  expect(wholeMemoryIn(moved({ bytes: 300 }))).toBeUndefined();
});

test('the median of nothing is nothing, of an even number the middle', () => {
  expect([medianOf([]), medianOf([3]), medianOf([4, 1, 2, 3])]).toEqual([undefined, 3, 2.5]);
});
