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
