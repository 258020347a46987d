/** A host lost in the middle of a move: what the other side is asked, and how the move ends. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import type { Failure } from '../../src/model/failure.ts';
import type { Migration, Technique } from '../../src/model/migration.ts';
import { brokenInvariants } from '../../src/migration/invariants.ts';
import { isEnd, phases } from '../../src/migration/phases.ts';
import { outstanding, step } from '../../src/migration/step.ts';
import { anyFact, failure, listening, live, reserved, round, run, timed } from './moves.ts';
import type { Body } from './moves.ts';

describe('a host that is lost in the middle of a move, and fenced', () => {
  const sourceLost: Failure = { code: 'source-host-lost', message: 'h1 was lost.', hint: '' };
  const targetLost: Failure = { code: 'target-host-lost', message: 'h2 was lost.', hint: '' };
  const sourceFenced: Body = { kind: 'source-fenced', failure: sourceLost };
  const targetFenced: Body = { kind: 'target-fenced', failure: targetLost };
  const stays: Body = { kind: 'source-running', failure: null };
  const warm: readonly Body[] = [listening, { kind: 'sending' }, round(1)];
  const paused: readonly Body[] = [...warm, { kind: 'stopped', for: 'stop-and-copy' }];
  const handedOver: readonly Body[] = [...paused, { kind: 'handed-over' }];
  const resumed: readonly Body[] = [...handedOver, { kind: 'resumed', withFaults: false }];
  const suspended: readonly Body[] = [
    listening,
    { kind: 'sending' },
    { kind: 'switching', round: 1, because: 'it writes' },
    { kind: 'stopped', for: 'post-copy' },
  ];
  const withFaults: readonly Body[] = [
    ...suspended,
    { kind: 'state-transferred' },
    { kind: 'resumed', withFaults: true },
    { kind: 'pre-paging' },
  ];
  const off: readonly Body[] = [{ kind: 'sending' }, { kind: 'powered-off' }];
  const close = (ends: string) => ({ side: 'target', kind: 'close', ends });
  const cancel = { side: 'source', kind: 'cancel' };
  const go = { side: 'target', kind: 'go' };
  const release = { side: 'source', kind: 'release' };
  const closed: Body = { kind: 'closed' };

  type Case = readonly [
    when: string,
    technique: Technique,
    before: readonly Body[],
    fenced: Body,
    due: readonly object[],
    answer: readonly Body[],
    ends: string,
  ];
  const cases: readonly Case[] = [
    ['source, reserved', 'pre-copy', [], sourceFenced, [close('any')], [closed], 'failed lost'],
    ['source, target listening', 'pre-copy', [listening], sourceFenced, [close('unrun')], [closed], 'failed lost'],
    ['source, warming-up', 'hybrid', warm, sourceFenced, [close('unrun')], [closed], 'failed lost'],
    ['source, stop-and-copy', 'pre-copy', paused, sourceFenced, [close('unrun')], [closed], 'failed lost'],
    [
      'source, stop-and-copy, and the target runs already',
      'auto',
      paused,
      sourceFenced,
      [close('unrun')],
      [{ kind: 'resumed', withFaults: false }],
      'completed',
    ],
    [
      'source, stop-and-copy, and the target’s copy ended unrun',
      'pre-copy',
      paused,
      sourceFenced,
      [close('unrun')],
      [{ kind: 'target-failed', failure }],
      'failed lost',
    ],
    [
      'source, handed over',
      'pre-copy',
      handedOver,
      sourceFenced,
      [go],
      [{ kind: 'resumed', withFaults: false }],
      'completed',
    ],
    [
      'source, handed over, and the copy died before it ran',
      'pre-copy',
      handedOver,
      sourceFenced,
      [go],
      [{ kind: 'target-failed', failure }],
      'failed lost',
    ],
    ['source, resumed', 'pre-copy', resumed, sourceFenced, [], [], 'completed'],
    ['source, suspended', 'post-copy', suspended, sourceFenced, [close('incomplete')], [closed], 'failed lost'],
    ['source, pages missing', 'post-copy', withFaults, sourceFenced, [close('incomplete')], [closed], 'failed lost'],
    [
      'source, pages missing as far as was known',
      'hybrid',
      withFaults,
      sourceFenced,
      [close('incomplete')],
      [{ kind: 'all-pages-arrived' }],
      'completed',
    ],
    [
      'source, switched without our knowing',
      'auto',
      warm,
      sourceFenced,
      [close('unrun')],
      [{ kind: 'resumed', withFaults: true }, closed],
      'failed lost',
    ],
    ['source, powering-off', 'cold', off.slice(0, 1), sourceFenced, [], [], 'failed lost'],
    [
      'source, powering-on',
      'cold',
      off,
      sourceFenced,
      [{ side: 'target', kind: 'power-on' }],
      [{ kind: 'resumed', withFaults: false }],
      'completed',
    ],
    ['target, reserved', 'pre-copy', [], targetFenced, [], [], 'failed on-source'],
    ['target, listening', 'pre-copy', [listening], targetFenced, [cancel], [stays], 'failed on-source'],
    ['target, warming-up', 'pre-copy', warm, targetFenced, [cancel], [stays], 'failed on-source'],
    ['target, stop-and-copy', 'pre-copy', paused, targetFenced, [cancel], [stays], 'failed on-source'],
    [
      'target, stop-and-copy, but handed over',
      'pre-copy',
      paused,
      targetFenced,
      [cancel],
      [{ kind: 'handed-over' }, { kind: 'released' }],
      'failed lost',
    ],
    ['target, handed over', 'pre-copy', handedOver, targetFenced, [release], [{ kind: 'released' }], 'failed lost'],
    ['target, resumed', 'pre-copy', resumed, targetFenced, [release], [{ kind: 'released' }], 'failed lost'],
    ['target, suspended', 'post-copy', suspended, targetFenced, [release], [{ kind: 'released' }], 'failed lost'],
    ['target, pages missing', 'post-copy', withFaults, targetFenced, [release], [{ kind: 'released' }], 'failed lost'],
    [
      'target, powering-off',
      'cold',
      off.slice(0, 1),
      targetFenced,
      [{ side: 'source', kind: 'power-off' }],
      [{ kind: 'powered-off' }],
      'failed lost',
    ],
    [
      'target, powering-off, and the guest ignores it',
      'cold',
      off.slice(0, 1),
      targetFenced,
      [{ side: 'source', kind: 'power-off' }],
      [{ kind: 'source-running', failure }],
      'failed on-source',
    ],
    ['target, powering-on', 'cold', off, targetFenced, [], [], 'failed lost'],
  ];

  const endOf = (migration: Migration) =>
    migration.phase === 'failed' ? `failed ${migration.guest}` : String(migration.phase);

  test.each(cases)('(%s, %s) has the other side asked for what decides, and ends by its answer', (...row) => {
    const [, technique, before, fenced, due, answer, ends] = row;
    const after = run(technique, timed([...before, fenced]));
    expect(outstanding(after)).toEqual(due);
    const end = run(technique, timed([...before, fenced, ...answer]));
    expect(endOf(end)).toBe(ends);
    expect(outstanding(end)).toEqual([]);
    expect(brokenInvariants(end)).toEqual([]);
    if (end.phase === 'failed' && answer[0]?.kind !== 'source-running')
      expect(end.failure).toBe(fenced === sourceFenced ? sourceLost : targetLost);
  });

  test('harms the guest as the table of phases says, whatever the other side knows then', () => {
    const harm: Record<string, (end: Migration) => boolean> = {
      unharmed: (end) => endOf(end) === 'completed' || endOf(end) === 'failed on-source',
      'restart-from-disk': (end) => endOf(end) === 'failed lost',
    };
    for (const [, technique, before, fenced, , answer] of cases) {
      const { phase } = run(technique, timed(before));
      const says = fenced === sourceFenced ? phases[phase].ifSourceLost : phases[phase].ifTargetLost;
      // Cases whose answer shows that the move was further than was known are of a later phase.
      const further = answer.some(
        ({ kind }) => !['closed', 'source-running', 'released', 'powered-off'].includes(kind),
      );
      const ignored = answer.some((each) => each.kind === 'source-running' && each.failure !== null);
      if (says === 'fence-then-decide' || further || ignored) continue;
      if (before.some(({ kind }) => kind === 'handed-over') && phase === 'stop-and-copy') continue;
      const end = run(technique, timed([...before, fenced, ...answer]));
      expect(harm[says]?.(end), `${technique} ${phase} ${fenced.kind}: ${endOf(end)}, ${says}`).toBe(true);
    }
  });

  test('together with the other one leaves the guest nowhere, unless it was whole on the target when the source went', () => {
    for (const [, technique, before] of cases) {
      for (const [one, two] of [
        [sourceFenced, targetFenced],
        [targetFenced, sourceFenced],
      ] as const) {
        const end = run(technique, timed([...before, one, two]));
        expect(isEnd(end.phase)).toBe(true);
        expect(outstanding(end)).toEqual([]);
        if (end.phase === 'failed' && end.guest === 'on-source') expect(end.evidence.listening).toBeUndefined();
        else expect(['failed lost', 'completed']).toContain(endOf(end));
      }
    }
  });

  test('is never asked for anything more about the move, whatever else is said', () => {
    fc.assert(
      fc.property(fc.constantFrom(...live), fc.array(anyFact, { maxLength: 20 }), (technique, bodies) => {
        let migration = reserved(technique);
        for (const each of timed(bodies)) {
          migration = step(migration, each);
          const { sourceFenced: source, targetFenced: target } = migration.evidence;
          for (const { side, kind } of outstanding(migration)) {
            expect(side === 'source' ? source : target, `${kind} to a fenced ${side}`).toBeUndefined();
          }
        }
      }),
      { numRuns: 2_000 },
    );
  });

  test('decides the same when what it had said before is heard after', () => {
    fc.assert(
      fc.property(
        fc.constantFrom(...cases),
        fc.array(anyFact, { maxLength: 6 }),
        ([, technique, before, fenced], late) => {
          const ofTheFenced =
            fenced === sourceFenced
              ? ['sending', 'round', 'stopped', 'handed-over', 'released', 'source-running', 'source-lost', 'switching']
              : ['listening', 'resumed', 'all-pages-arrived', 'closed', 'target-failed', 'target-lost'];
          const after = run(technique, timed([...before, fenced]));
          const heard = late.filter(({ kind }) => ofTheFenced.includes(kind));
          expect(timed(heard).reduce(step, after)).toEqual(after);
        },
      ),
      { numRuns: 500 },
    );
  });

  test('lets the source run the guest only while nothing says that the target may have', () => {
    fc.assert(
      fc.property(fc.constantFrom(...live), fc.array(anyFact, { maxLength: 20 }), (technique, bodies) => {
        let migration = reserved(technique);
        for (const each of timed(bodies)) {
          const before = migration;
          migration = step(migration, each);
          if (!isEnd(migration.phase) || isEnd(before.phase) || !migration.evidence.targetFenced) continue;
          if (migration.phase !== 'failed' || migration.guest !== 'on-source') continue;
          expect(migration.evidence.handedOver).toBeUndefined();
          expect(migration.switchedToPostCopy).toBeNull();
        }
      }),
      { numRuns: 2_000 },
    );
  });
});
