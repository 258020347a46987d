/** What must always hold of one migration. Used by tests, the simulator and `drover doctor`. */
import type { Migration } from '../model/migration.ts';
import { isEnd, mayFollow } from './phases.ts';

/** @returns one sentence per broken rule; empty when all hold. */
export function brokenInvariants(migration: Migration): string[] {
  const broken: string[] = [];
  const { evidence, history } = migration;
  const names = history.map((entry) => entry.phase);
  if (names[0] !== 'reserved') broken.push('a migration begins as reserved');
  if (names.at(-1) !== migration.phase)
    broken.push(`phase is ${migration.phase} but the history ends in ${names.at(-1)}`);
  for (let i = 1; i < names.length; i++) {
    const [from, to] = [names[i - 1], names[i]];
    if (from === undefined || to === undefined || (from === 'warming-up' && to === 'warming-up')) continue;
    if (!mayFollow(from, to)) broken.push(`${to} may not follow ${from}`);
  }
  for (let i = 1; i < history.length; i++) {
    if ((history[i]?.at ?? 0) < (history[i - 1]?.at ?? 0))
      broken.push(`${history[i]?.phase} was entered before ${history[i - 1]?.phase}`);
  }
  if (migration.phase === 'completed' && !evidence.resumed)
    broken.push('completed without proof that the guest runs on the target');
  if (migration.phase === 'cancelled' && evidence.resumed)
    broken.push('cancelled although the guest ran on the target');
  if (migration.phase === 'failed' && migration.guest === 'on-source' && evidence.resumed) {
    broken.push('failed on the source although the guest ran on the target');
  }
  if (!isEnd(migration.phase) && 'endedAt' in migration) broken.push('an open migration has an end time');
  return broken;
}
