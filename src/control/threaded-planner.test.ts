import { expect, test } from 'vitest';
import { unevenFleet } from '../planner/fake-fleet.ts';
import { planned } from './planning.ts';
import { planInThread } from './threaded-planner.ts';

test('a plan made in a thread is the plan that would be made here', async () => {
  const ask = { goal: 'balance', maxMoves: 5 } as const;
  const snapshot = unevenFleet(21, 15, 1);
  const there = await planInThread(snapshot, ask);
  expect(there.plan.moves).toHaveLength(5);
  expect(there).toEqual(planned(snapshot, ask));
});

test('the parts of a large fleet are worked on by threads, with the same plan', { timeout: 60_000 }, async () => {
  const ask = { goal: 'balance', maxMoves: 1000 } as const;
  const snapshot = unevenFleet(520, 2, 1);
  const there = await planInThread(snapshot, ask);
  expect(there.plan.moves.length).toBeGreaterThan(20);
  expect(there).toEqual(planned(snapshot, ask));
});
