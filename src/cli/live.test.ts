import { describe, expect, it } from 'vitest';
import type { EventView, MigrationView } from '../wire/endpoints.ts';
import { aMigration, aSample, migrationEvent, sampleEvent } from './fake-server.ts';
import { etaMs, liveState, percentDone, plainLines, render, timeline, updated, writesTooFast } from './live.ts';

const start = Date.UTC(2030, 0, 1);
const MiB = 1024 * 1024;
const ascii = { colour: false, unicode: false };
const unicode = { colour: false, unicode: true };

function after(migration: MigrationView, ...events: EventView[]) {
  return events.reduce(updated, liveState(migration, start));
}

const round = (n: number, durationMs: number, sentMiB: number, leftMiB: number) => ({
  round: n,
  durationMs,
  bytes: sentMiB * MiB,
  dirtyPages: (leftMiB * MiB) / 4096,
  bandwidthBytesPerSecond: Math.round((sentMiB * MiB * 1000) / durationMs),
});

const warmingUp = aMigration({
  phase: 'warming-up',
  history: [
    { phase: 'reserved', at: start },
    { phase: 'warming-up', at: start + 400, round: 1 },
  ],
});

const notConverging = aMigration({
  technique: 'pre-copy',
  phase: 'warming-up',
  policy: { ...warmingUp.policy, whenNotConverging: 'fail' },
  history: [
    { phase: 'reserved', at: start },
    { phase: 'warming-up', at: start + 400, round: 1 },
    { phase: 'warming-up', at: start + 9_400, round: 2 },
    { phase: 'warming-up', at: start + 11_200, round: 3 },
    { phase: 'warming-up', at: start + 13_000, round: 4 },
  ],
  rounds: [round(1, 9000, 1000, 200), round(2, 1800, 200, 201), round(3, 1800, 201, 199)],
});

const prePaging = aMigration({
  technique: 'post-copy',
  phase: 'pre-paging',
  endedInPostCopy: true,
  cancellable: false,
  switchedToPostCopy: { round: 0, because: 'post-copy was asked for' },
  history: [
    { phase: 'reserved', at: start },
    { phase: 'warming-up', at: start + 400, round: 1 },
    { phase: 'suspended', at: start + 420 },
    { phase: 'state-transferred', at: start + 450 },
    { phase: 'resumed-with-faults', at: start + 460 },
    { phase: 'pre-paging', at: start + 480 },
  ],
});

describe('render', () => {
  it('shows the first round by percent of the memory, with the least time it can take', () => {
    const state = after(warmingUp, sampleEvent(aSample({ at: start + 5000 })));
    expect(render(state, 100, unicode)).toEqual([
      'web1  h1 → h2  auto  5.0 s  mig_1',
      '✓ reserved 400 ms ─ ▶ warming-up 4.6 s ─ · stop-and-copy ─ · resumed ─ · completed',
      'memory is copied while the guest runs',
      '████████████████████░░░░░░░░░░░░░░░░░░░░  round 1: 50 %, 512 MiB left',
      'sent 500 MiB at 112 MiB/s  pause up to 30 ms  at least 4.5 s to go',
    ]);
  });

  it('shows a later round by percent of what the round before left, and counts the writing into the time left', () => {
    const migration = { ...warmingUp, rounds: [round(1, 9000, 1000, 200)] };
    const sample = aSample({ round: 2, remainingBytes: 50 * MiB, dirtyBytesPerSecond: 32 * MiB, at: start + 10_000 });
    const state = after(migration, sampleEvent(sample));
    expect(percentDone(state)).toBe(75);
    expect(Math.round(etaMs(state) ?? 0)).toBe(583); // (50 - 112 * 0.03) / (112 - 32) s
    expect(render(state, 100, ascii).slice(3)).toEqual([
      '##############################..........  round 2: 75 %, 50 MiB left',
      'sent 500 MiB at 112 MiB/s  guest writes 32 MiB/s  pause up to 30 ms  about 583 ms to go',
    ]);
  });

  it('says how to switch, where that is allowed', () => {
    const last = (switchable: MigrationView['switchable']) =>
      render(after({ ...warmingUp, switchable }), 100, ascii).at(-1);
    expect(last('post-copy')).toBe('over to post-copy now: drover migration switch web1');
    expect(last('completion')).toBe('complete it now: drover migration switch web1');
    expect(last(null)).toBe('memory is copied while the guest runs');
  });

  it('says in words that the guest writes faster than the link, with the three ways out, and draws no bar', () => {
    const sample = aSample({ round: 4, remainingBytes: 150 * MiB, dirtyBytesPerSecond: 118 * MiB, at: start + 14_000 });
    const lines = render(after(notConverging, sampleEvent(sample)), 110, ascii);
    expect(lines.slice(2)).toEqual([
      'memory is copied while the guest runs',
      'round 4, 150 MiB left',
      'sent 500 MiB at 112 MiB/s  guest writes 118 MiB/s  pause up to 30 ms',
      'The guest writes faster than the link: it dirtied 111 MiB/s in round 3, 112 MiB/s were sent.',
      'More rounds do not help; if this goes on, its policy is to give up. Three ways out, from a new start:',
      '  post-copy     --technique hybrid: switch first, send the rest afterwards',
      '  longer pause  --max-downtime 2150ms or --when-not-converging pause (now up to 300 ms)',
      '  throttle      --auto-converge: slow the guest down',
    ]);
    expect(lines.join('\n')).not.toContain('###');
  });

  it('walks through post-copy with faults and the pages that are still missing', () => {
    const first = aSample({ phase: 'pre-paging', remainingBytes: 1000 * MiB, faults: 12, at: start + 600 });
    const then = { ...first, remainingBytes: 250 * MiB, faults: 960, at: start + 7000, sentBytes: 774 * MiB };
    expect(render(after(prePaging, sampleEvent(first), sampleEvent(then)), 100, ascii)).toEqual([
      'web1  h1 -> h2  post-copy  7.0 s  mig_1',
      '+ reserved 400 ms - + warming-up 20 ms - + suspended 30 ms - + state-transferred 10 ms',
      '  + resumed-with-faults 20 ms - > pre-paging 6.5 s - . completed',
      'the remaining pages are pushed',
      '##############################..........  missing pages: 75 %, 250 MiB left',
      'sent 774 MiB at 112 MiB/s  faults 960  about 2.2 s to go',
      'switched to post-copy after round 0: post-copy was asked for',
    ]);
  });

  it('ends with what a completed migration cost', () => {
    const done = aMigration({
      ...prePaging,
      phase: 'completed',
      ended: true,
      endedAt: start + 9_200,
      history: [...prePaging.history, { phase: 'completed', at: start + 9_200 }],
      measures: {
        ...prePaging.measures,
        totalMs: 9200,
        downtimeMs: 38,
        bytes: 1_100_000_000,
        faults: 960,
        degradedMs: 8700,
      },
    });
    expect(render(after(prePaging, migrationEvent(done)), 120, ascii).slice(-2)).toEqual([
      'web1 moved from h1 to h2 by post-copy in 9.2 s',
      '  total 9.2 s  downtime 38 ms  sent 1.0 GiB  rounds 0  faults 960  degraded 8.7 s',
    ]);
  });

  it('ends with where the guest is when it was cancelled', () => {
    const cancelled = aMigration({
      ...warmingUp,
      phase: 'cancelled',
      ended: true,
      endedAt: start + 3000,
      history: [...warmingUp.history, { phase: 'cancelled', at: start + 3000 }],
      measures: { ...warmingUp.measures, totalMs: 3000 },
    });
    expect(render(after(warmingUp, migrationEvent(cancelled)), 100, unicode)).toEqual([
      'web1  h1 → h2  auto  3.0 s  mig_1',
      '✓ reserved 400 ms ─ ✓ warming-up 2.6 s ─ ✗ cancelled',
      'web1: migration mig_1 was cancelled after 3.0 s; the guest runs on h1',
    ]);
  });

  it('ends with the reason, the place of the guest and what to do when it failed', () => {
    const failed = aMigration({
      ...warmingUp,
      phase: 'failed',
      ended: true,
      endedAt: start + 3000,
      guest: 'on-source',
      failure: { code: 'target-died', message: 'QEMU on h2 died.', hint: 'Look at its log.', detail: 'signal 9' },
      history: [...warmingUp.history, { phase: 'failed', at: start + 3000 }],
    });
    expect(render(after(warmingUp, migrationEvent(failed)), 100, ascii).slice(1)).toEqual([
      '+ reserved 400 ms - + warming-up 2.6 s - x failed',
      'web1: migration mig_1 failed: QEMU on h2 died.',
      '  detail: signal 9',
      '  guest: runs on h1',
      '  next: Look at its log.',
    ]);
  });

  it('never exceeds the width, whatever it is', () => {
    const state = after(notConverging, sampleEvent(aSample({ round: 4 })));
    for (const width of [1, 20, 40, 79, 200]) {
      for (const line of render(state, width, unicode)) expect(line.length).toBeLessThanOrEqual(width);
    }
  });

  it('colours only when asked to, and what is seen stays the same', () => {
    const state = after(warmingUp, sampleEvent(aSample()));
    const coloured = render(state, 100, { colour: true, unicode: false });
    expect(coloured.join('')).toContain('\u001B[');
    // oxlint-disable-next-line no-control-regex -- the escape character is what is looked for
    expect(coloured.map((line) => line.replace(/\u001B\[\d*m/g, ''))).toEqual(render(state, 100, ascii));
  });
});

describe('what is known', () => {
  it('gives no end when the guest writes as fast as it is sent', () => {
    const sample = aSample({ round: 3, dirtyBytesPerSecond: 112 * MiB });
    expect(etaMs(after(warmingUp, sampleEvent(sample)))).toBeNull();
  });

  it('does not call it too fast while each round leaves less', () => {
    const shrinking = {
      ...notConverging,
      rounds: [round(1, 9000, 1000, 400), round(2, 3600, 400, 350), round(3, 3150, 350, 300)],
    };
    expect(writesTooFast(shrinking)).toBeNull();
    expect(writesTooFast(notConverging)).not.toBeNull();
  });

  it('leaves out samples of another migration', () => {
    const state = liveState(warmingUp, start);
    expect(updated(state, sampleEvent(aSample({ migration: 'mig_2' }))).sample).toBeNull();
  });

  it('forgets the samples of the rounds once pages are pulled', () => {
    const state = after(warmingUp, sampleEvent(aSample()), migrationEvent({ ...warmingUp, phase: 'suspended' }));
    expect(state.sample).toBeNull();
  });

  it('puts a broken link into the road where it happened', () => {
    const recovering = aMigration({
      ...prePaging,
      phase: 'recovering',
      history: [...prePaging.history, { phase: 'recovering', at: start + 2000 }],
    });
    expect(timeline(recovering, start + 3000).slice(-3)).toEqual([
      { phase: 'pre-paging', when: 'past', tookMs: 1520 },
      { phase: 'recovering', when: 'now', tookMs: 1000 },
      { phase: 'completed', when: 'ahead', tookMs: null },
    ]);
  });
});

describe('plainLines', () => {
  it('gives a line for each phase, round and progress, and the words once', () => {
    const first = liveState(notConverging, start + 13_000);
    const lines = plainLines(null, first);
    expect(lines.slice(0, 6)).toEqual([
      '    0 ms  reserved: room is reserved, the target prepares',
      '  400 ms  warming-up: memory is copied while the guest runs',
      '   9.4 s  round 1 took 9.0 s: 1000 MiB sent at 111 MiB/s, 200 MiB written meanwhile',
      '  11.2 s  round 2 took 1.8 s: 200 MiB sent at 111 MiB/s, 201 MiB written meanwhile (112 MiB/s)',
      '  13.0 s  round 3 took 1.8 s: 201 MiB sent at 112 MiB/s, 199 MiB written meanwhile (111 MiB/s)',
      '          The guest writes faster than the link: it dirtied 111 MiB/s in round 3, 112 MiB/s were sent.',
    ]);
    const next = updated(first, sampleEvent(aSample({ round: 4, at: start + 14_000, remainingBytes: 100 * MiB })));
    expect(plainLines(first, next)).toEqual([
      '  14.0 s  round 4, 100 MiB left; sent 500 MiB at 112 MiB/s, guest writes 0 B/s, pause up to 30 ms',
    ]);
    expect(plainLines(next, next)).toEqual([]);
  });

  it('tells of a broken link what is missing, which attempt it is and what stands in its way', () => {
    const broken = aMigration({ ...prePaging, phase: 'recovering' });
    const recovering = { since: start + 2000, attempts: 4, lastError: 'no route to host' };
    const missing = aSample({ phase: 'recovering', remainingBytes: 130 * MiB, recovering });
    const lines = plainLines(liveState(broken, start + 5000), after(broken, sampleEvent(missing)));
    expect(lines.at(-1)).toContain('the link broke; 130 MiB still missing; trying again (attempt 4: no route to host)');
  });
});
