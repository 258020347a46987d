import { describe, expect, it } from 'vitest';
import type { Technique } from '../model/migration.ts';
import type { MigrationView } from '../wire/endpoints.ts';
import { reading, tourTable, type TourRow } from './tour.ts';

type Figures = Partial<MigrationView['measures']> & { phase?: 'completed' | 'failed'; says?: string };

function row(technique: Technique, { phase = 'completed', says = 'verified', ...figures }: Figures): TourRow {
  const none = {
    downtimeQemuMs: null,
    faultBlockedMs: null,
    degradedMs: null,
    throttlePercent: null,
    firstPageMs: null,
  };
  const measures = {
    totalMs: null,
    downtimeMs: null,
    blackoutMs: null,
    bytes: null,
    faults: null,
    ...none,
    ...figures,
  };
  // Only what the table and the reading look at.
  const migration = {
    phase,
    measures,
    rounds: [],
    endedInPostCopy: technique === 'post-copy',
  } as unknown as MigrationView;
  return { technique, migration, proof: { ok: says.endsWith('verified'), says } };
}

const pre = { totalMs: 4100, downtimeMs: 31, blackoutMs: 80, bytes: 420 * 2 ** 20 };
const post = { totalMs: 3200, downtimeMs: 6, blackoutMs: 310, bytes: 380 * 2 ** 20, faults: 52 };

it('shows every technique in a line, and a dash for what does not apply', () => {
  const text = tourTable([
    row('pre-copy', pre),
    row('post-copy', post),
    row('cold', { totalMs: 6000, says: 'disk verified' }),
  ]);
  expect(text.split('\n')).toEqual([
    'technique  total  downtime  blackout    bytes  rounds  faults  verified',
    'pre-copy   4.1 s     31 ms     80 ms  420 MiB       -       -  verified',
    'post-copy  3.2 s      6 ms    310 ms  380 MiB       -      52  verified',
    'cold       6.0 s         -         -        -       -       -  disk verified',
  ]);
});

describe('the reading', () => {
  it('agrees with theory where the figures do', () => {
    const [first, second] = reading([row('pre-copy', pre), row('post-copy', post)]);
    expect(first).toContain('pre-copy: 4.1 s in total against 3.2 s of post-copy, 40 MiB more sent');
    expect(first).toContain('Theory says longer: so it was.');
    expect(second).toContain('shorter in total, paused at the start, then 52 faults');
    expect(second).toContain('Clients lost 310 ms, with pre-copy 80 ms: waiting for pages costs more');
  });

  it('says so where the figures disagree', () => {
    const [first, second] = reading([
      row('pre-copy', { ...pre, totalMs: 3000 }),
      row('post-copy', { ...post, blackoutMs: 40, faults: 0 }),
    ]);
    expect(first).toContain('not so here');
    expect(second).toContain('not shorter in total here');
    expect(second).toContain('theory expects some');
    expect(second).toContain('did not show');
  });

  it('compares nothing when one of the two did not complete', () => {
    expect(reading([row('pre-copy', pre), row('post-copy', { ...post, phase: 'failed', says: 'failed' })])).toEqual([
      'Pre-copy and post-copy cannot be compared: one of them did not complete.',
    ]);
  });
});
