/** What holds for every move, whatever its facts and their order: the phase table, `step`, and what is due. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import type { Failure } from '../../src/model/failure.ts';
import { phaseNames, techniques } from '../../src/model/migration.ts';
import type { Migration, PhaseName, Technique } from '../../src/model/migration.ts';
import { brokenInvariants } from '../../src/migration/invariants.ts';
import { isEnd, mayFollow, phases, wayBetween } from '../../src/migration/phases.ts';
import { outstanding, ownerSide, requestCancel, step, targetIsClean } from '../../src/migration/step.ts';
import type { MigrationFact } from '../../src/migration/step.ts';
import { pathOf } from '../../src/migration/techniques.ts';
import { anyFact, failure, id, listening, live, reserved, round, run, timed } from './moves.ts';
import type { Body } from './moves.ts';

/** What each side says, in its own order, in one way a move can go. */
interface Story {
  readonly technique: Technique;
  readonly source: readonly Body[];
  readonly target: readonly Body[];
  readonly ends: PhaseName;
  readonly owner: 'source' | 'target';
}
const stories: fc.Arbitrary<Story> = fc.oneof(
  fc.record({ technique: fc.constantFrom(...live), rounds: fc.nat(4) }).map(({ technique, rounds }): Story => ({
    technique,
    source: [
      { kind: 'sending' },
      ...Array.from({ length: rounds }, (_, i) => round(i + 1)),
      { kind: 'stopped', for: 'stop-and-copy' },
      { kind: 'handed-over' },
      { kind: 'measured', measures: { bytes: 1 } },
      { kind: 'released' },
    ],
    target: [listening, { kind: 'resumed', withFaults: false }],
    ends: 'completed',
    owner: 'target',
  })),
  fc
    .record({ technique: fc.constantFrom(...live), rounds: fc.nat(3), cut: fc.boolean() })
    .map(({ technique, rounds, cut }): Story => ({
      technique,
      source: [
        { kind: 'sending' },
        ...Array.from({ length: rounds }, (_, i) => round(i + 1)),
        { kind: 'switching', round: rounds, because: 'it writes' },
        { kind: 'stopped', for: 'post-copy' },
        { kind: 'released' },
      ],
      target: [
        listening,
        { kind: 'state-transferred' },
        { kind: 'resumed', withFaults: true },
        { kind: 'pre-paging' },
        ...(cut ? ([{ kind: 'link-lost' }, { kind: 'link-restored' }] as const) : []),
        { kind: 'all-pages-arrived' },
        { kind: 'measured', measures: { faults: 3 } },
      ],
      ends: 'completed',
      owner: 'target',
    })),
  fc.constant<Story>({
    technique: 'cold',
    source: [{ kind: 'sending' }, { kind: 'powered-off' }],
    target: [{ kind: 'resumed', withFaults: false }],
    ends: 'completed',
    owner: 'target',
  }),
  fc
    .record({ technique: fc.constantFrom(...live), rounds: fc.nat(3), dies: fc.boolean() })
    .map(({ technique, rounds, dies }): Story => ({
      technique,
      source: [
        { kind: 'sending' },
        ...Array.from({ length: rounds }, (_, i) => round(i + 1)),
        { kind: 'source-running', failure: dies ? failure : null },
      ],
      target: [listening, { kind: 'closed' }],
      ends: dies ? 'failed' : 'cancelled',
      owner: 'source',
    })),
);

/** Two sequences mixed into one, each in its own order. */
function mixed<T>(a: readonly T[], b: readonly T[], turns: readonly boolean[]): T[] {
  const [left, right] = [[...a], [...b]];
  const out: T[] = [];
  for (let i = 0; left.length + right.length > 0; i++) {
    const next = (turns[i] ?? i % 2 === 0) ? (left.shift() ?? right.shift()) : (right.shift() ?? left.shift());
    if (next !== undefined) out.push(next);
  }
  return out;
}

const turns = fc.array(fc.boolean(), { maxLength: 24 });
/** What does not depend on the order in which facts were heard. */
const outcome = (migration: Migration) => ({
  phase: migration.phase,
  evidence: migration.evidence,
  rounds: migration.rounds,
  owner: ownerSide(migration),
});

describe('the table of phases', () => {
  test('reaches every phase from reserved, and none follows an end', () => {
    for (const phase of phaseNames) {
      if (phase !== 'reserved') expect(wayBetween('reserved', phase, phaseNames), phase).toBeDefined();
      if (isEnd(phase)) expect(phases[phase].next).toEqual([]);
      else expect(phases[phase].next.some((next) => wayBetween(next, 'failed', phaseNames) !== undefined)).toBe(true);
    }
  });

  test('lets nothing be cancelled once the guest may run on the target', () => {
    for (const phase of phaseNames) {
      if (phases[phase].guestOn !== 'source') expect(phases[phase].cancellable, phase).toBe(false);
    }
  });

  test('gives each technique a way to completed through its own phases', () => {
    for (const technique of techniques) expect(wayBetween('reserved', 'completed', pathOf[technique])).toBeDefined();
  });
});

describe('the facts of a move as two hosts send them', () => {
  test('lead to its end in whatever order the two are heard', () => {
    fc.assert(
      fc.property(stories, turns, (story, order) => {
        const end = run(story.technique, timed(mixed(story.source, story.target, order)));
        expect(end.phase).toBe(story.ends);
        expect(ownerSide(end)).toBe(story.owner);
      }),
    );
  });

  test('keep all invariants at every step, also when the clocks of hosts are set while they move', () => {
    const set = fc.array(fc.integer({ min: -5_000, max: 5_000 }), { minLength: 40, maxLength: 40 });
    fc.assert(
      fc.property(stories, turns, set, (story, order, by) => {
        let migration = reserved(story.technique);
        for (const [at, each] of timed(mixed(story.source, story.target, order)).entries()) {
          migration = step(migration, { ...each, at: each.at + (by[at] ?? 0) });
          expect(brokenInvariants(migration)).toEqual([]);
        }
      }),
    );
  });

  test('keep all invariants at every step', () => {
    fc.assert(
      fc.property(stories, turns, (story, order) => {
        let migration = reserved(story.technique);
        for (const each of timed(mixed(story.source, story.target, order))) {
          migration = step(migration, each);
          expect(brokenInvariants(migration)).toEqual([]);
        }
      }),
    );
  });

  test('lead to the same end when each comes again at any later time', () => {
    fc.assert(
      fc.property(stories, turns, fc.array(fc.nat(30), { maxLength: 10 }), (story, order, again) => {
        const facts = timed(mixed(story.source, story.target, order));
        const once = run(story.technique, facts);
        const replayed = [...facts];
        for (const which of again) {
          const each = facts[which % facts.length];
          // Not before it came the first time, and not in between a link that broke and was mended.
          if (each && each.kind !== 'link-lost' && each.kind !== 'link-restored') replayed.push(each);
        }
        expect(outcome(run(story.technique, replayed))).toEqual(outcome(once));
        expect(run(story.technique, replayed).history).toEqual(once.history);
      }),
    );
  });

  test('lead to the same end when all of them are told twice in a row', () => {
    fc.assert(
      fc.property(stories, turns, (story, order) => {
        const facts = timed(mixed(story.source, story.target, order));
        const twice = facts.flatMap((each) => [each, each]);
        expect(run(story.technique, twice)).toEqual(run(story.technique, facts));
      }),
    );
  });

  test('leave nothing due at the end, and the target clean unless the guest runs there', () => {
    fc.assert(
      fc.property(stories, turns, (story, order) => {
        const end = run(story.technique, timed(mixed(story.source, story.target, order)));
        expect(outstanding(end)).toEqual([]);
        expect(targetIsClean(end)).toBe(true);
      }),
    );
  });

  test('never have the source released before the target is known to run', () => {
    fc.assert(
      fc.property(stories, turns, (story, order) => {
        let migration = reserved(story.technique);
        for (const each of timed(mixed(story.source, story.target, order))) {
          migration = step(migration, each);
          if (outstanding(migration).some(({ kind }) => kind === 'release')) {
            expect(migration.evidence.resumed).toBeDefined();
          }
        }
      }),
    );
  });
});

describe('any facts at all, also impossible ones', () => {
  test('move phases only along the table, and nothing after an end', () => {
    fc.assert(
      fc.property(fc.constantFrom(...techniques), fc.array(anyFact, { maxLength: 20 }), (technique, bodies) => {
        let migration = reserved(technique);
        for (const each of timed(bodies)) {
          const next = step(migration, each);
          if (isEnd(migration.phase)) {
            expect(next.phase).toBe(migration.phase);
            expect(next.history).toEqual(migration.history);
          }
          const names = next.history.map(({ phase }) => phase);
          for (let i = 1; i < names.length; i++) {
            const [from, to] = [names[i - 1] as PhaseName, names[i] as PhaseName]; // within bounds
            expect(from === to || mayFollow(from, to), `${from} -> ${to}`).toBe(true);
          }
          expect(names.at(-1)).toBe(next.phase);
          migration = next;
        }
      }),
      { numRuns: 1_000 },
    );
  });

  test('never end on the source after the guest is known to have run on the target', () => {
    fc.assert(
      fc.property(fc.constantFrom(...techniques), fc.array(anyFact, { maxLength: 20 }), (technique, bodies) => {
        let migration = reserved(technique);
        for (const each of timed(bodies)) {
          const ranThere = migration.evidence.resumed !== undefined && !isEnd(migration.phase);
          migration = step(migration, each);
          if (!ranThere) continue;
          expect(migration.phase).not.toBe('cancelled');
          if (migration.phase === 'failed') expect(migration.guest).not.toBe('on-source');
        }
      }),
      { numRuns: 1_000 },
    );
  });

  test('let a move be cancelled only in the phases that the table names', () => {
    fc.assert(
      fc.property(fc.constantFrom(...live), fc.array(anyFact, { maxLength: 12 }), (technique, bodies) => {
        const migration = run(technique, timed(bodies));
        const asked = requestCancel(migration, 9_000);
        expect(asked !== undefined).toBe(phases[migration.phase].cancellable);
        if (asked && !isEnd(asked.phase)) expect(asked.cancelRequestedAt).not.toBeNull();
      }),
    );
  });
});

describe('the reason of a move that stays on its source', () => {
  const echo: Failure = { code: 'target-refused-state', message: 'QEMU ended.', hint: '' };
  const own: Failure = { code: 'deadline-passed', message: 'Too late.', hint: '' };
  const brokeOff: Failure = { code: 'target-died', message: 'The transfer broke off.', hint: '' };
  const sending = [
    { migration: id, at: 2_000, kind: 'listening', endpoint: { address: 'a', port: 1 } },
    { migration: id, at: 3_000, kind: 'sending' },
  ] as const satisfies MigrationFact[];
  const warm = () => sending.reduce<Migration>(step, reserved('pre-copy'));
  const targetFailed: MigrationFact = { migration: id, at: 4_000, kind: 'target-failed', failure: echo };
  const sourceRuns = (why: Failure | null): MigrationFact => ({
    migration: id,
    at: 5_000,
    kind: 'source-running',
    failure: why,
  });

  test('is the cancel that was asked for, although the target failed as its echo', () => {
    const asked = requestCancel(warm(), 3_500);
    expect(asked && [targetFailed, sourceRuns(null)].reduce(step, asked)).toMatchObject({ phase: 'cancelled' });
  });

  test("is the source's own, although the target failed first as its echo", () => {
    const ended = [targetFailed, sourceRuns(own)].reduce(step, warm());
    expect(ended).toMatchObject({ phase: 'failed', guest: 'on-source', failure: own });
  });

  test("is the target's where the source only saw the other end break off", () => {
    const ended = [targetFailed, sourceRuns(brokeOff)].reduce(step, warm());
    expect(ended).toMatchObject({ phase: 'failed', guest: 'on-source', failure: echo });
  });
});

test('a guest is lost when its source dies after the handover and the copy is gone and never ran, in either order', () => {
  const until: readonly Body[] = [
    listening,
    { kind: 'sending' },
    { kind: 'stopped', for: 'stop-and-copy' },
    { kind: 'handed-over' },
  ];
  const gone: Body = { kind: 'target-failed', failure };
  const dead: Body = { kind: 'source-lost', failure };
  const first = run('pre-copy', timed([...until, gone]));
  expect(outstanding(first)).toContainEqual({ side: 'source', kind: 'roll-back' });
  expect(run('pre-copy', timed([...until, gone, dead]))).toMatchObject({ phase: 'failed', guest: 'lost' });
  // Said before anybody knew of the copy's end, it is said again as the answer to 'roll-back'.
  const early = run('pre-copy', timed([...until, dead, gone]));
  expect(outstanding(early)).toContainEqual({ side: 'source', kind: 'roll-back' });
});

test('a guest is lost when QEMU has switched and the copy never ran, in whatever order that is heard', () => {
  const source: readonly Body[] = [
    { kind: 'sending' },
    { kind: 'switching', round: 1, because: 'it writes' },
    { kind: 'stopped', for: 'post-copy' },
    { kind: 'state-transferred' },
  ];
  const target: readonly Body[] = [listening, { kind: 'target-failed', failure }];
  fc.assert(
    fc.property(fc.constantFrom(...live), turns, (technique, order) => {
      const ended = run(technique, timed(mixed(source, target, order)));
      expect(ended).toMatchObject({ phase: 'failed', guest: 'lost', failure });
      expect(outstanding(ended)).toContainEqual({ side: 'source', kind: 'release' });
    }),
  );
});

test('a move that was handed over cannot be cancelled, also when nobody said that its guest was stopped', () => {
  const handedOver = run('pre-copy', timed([listening, { kind: 'sending' }, { kind: 'handed-over' }]));
  expect(handedOver.phase).toBe('stop-and-copy');
  expect(requestCancel(handedOver, 9_000)).toBeUndefined();
});
