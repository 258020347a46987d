/**
 * A plan on its way: which of its steps have ended, which may begin now, when it is over. Pure, on records. Hosts are woken first.
 * Then the moves of one wave run together, a wave begins when all before it have ended. A host is sent to sleep when no move of the
 * plan has to do with it any more.
 *
 * Not here: whether the steps still make sense (plan-runner.ts).
 */
import type { PlanMove, PlanMoveState, PlanPower, PlanRecord, PlanState } from '../model/distribution.ts';
import type { HostId, MigrationId } from '../model/ids.ts';
import type { Migration } from '../model/migration.ts';
import type { SleepState } from '../model/sleep.ts';
import { isEnd } from '../migration/phases.ts';

/** The plan as its migrations and the sleep of its hosts have turned out since; the same object when nothing has. */
export function settled(
  plan: PlanRecord,
  migrationOf: (id: MigrationId) => Migration | undefined,
  sleepOf: (host: HostId) => SleepState | undefined,
): PlanRecord {
  let changed = false;
  const moves = plan.moves.map((move): PlanMove => {
    if (move.state !== 'moving' || move.migration === null) return move;
    const migration = migrationOf(move.migration);
    if (migration !== undefined && !isEnd(migration.phase)) return move;
    changed = true;
    return { ...move, state: migration?.phase === 'completed' ? 'done' : 'failed' };
  });
  const power = plan.power.map((step): PlanPower => {
    const state = step.state === 'moving' ? powerEnd(step, sleepOf(step.host)) : null;
    if (state === null) return step;
    changed = true;
    return { ...step, state };
  });
  return changed ? { ...plan, moves, power } : plan;
}

/** What has come of it; null: it is under way. */
function powerEnd({ to }: PlanPower, sleep: SleepState | undefined): PlanMoveState | null {
  switch (sleep?.kind) {
    case undefined:
    case 'awake':
      return to === 'wake' ? 'done' : 'failed';
    case 'going-to-sleep':
      return null;
    case 'asleep':
      // One that could not be stopped on its way down is woken as soon as it is there.
      return to === 'sleep' ? 'done' : sleep.drill ? null : 'failed';
    case 'waking':
      return to === 'sleep' ? 'done' : null;
    case 'wake-failed':
      return to === 'sleep' ? 'done' : 'failed';
  }
}

/** Hosts to be woken or sent to sleep now. */
export function duePower({ moves, power }: PlanRecord): readonly PlanPower[] {
  const open = moves.filter((move) => !isOver(move));
  return power.filter(({ state, to, host }) => {
    if (state !== 'due') return false;
    return to === 'wake' || (isAwake(power) && open.every((move) => move.from !== host && move.to !== host));
  });
}

function isAwake(power: readonly PlanPower[]): boolean {
  return power.every((step) => step.to !== 'wake' || isOver(step));
}

/** Of the lowest wave that is not over, those that have not begun. */
export function dueMoves({ moves, power }: PlanRecord): readonly PlanMove[] {
  if (!isAwake(power)) return [];
  const wave = Math.min(...moves.flatMap((move) => (isOver(move) ? [] : [move.wave])));
  return moves.filter((move) => move.wave === wave && move.state === 'due');
}

export function isUnderWay({ moves, power }: PlanRecord): boolean {
  return [...moves, ...power].some(({ state }) => state === 'moving');
}

export interface Limits {
  readonly movesAtOnce: number;
  readonly movesPerHost: number;
}

/** May this one begin beside what is under way? A host's moves of others count as well. */
export function hasSlot(plan: PlanRecord, move: PlanMove, open: readonly Migration[], limits: Limits): boolean {
  if (plan.moves.filter(({ state }) => state === 'moving').length >= limits.movesAtOnce) return false;
  const at = (host: HostId): number => open.filter(({ source, target }) => source === host || target === host).length;
  return at(move.from) < limits.movesPerHost && at(move.to) < limits.movesPerHost;
}

/** Nothing of it is begun any more. */
export function ended(
  plan: PlanRecord,
  state: Exclude<PlanState, { kind: 'proposed' | 'running' | 'shadow' }>,
): PlanRecord {
  const left = <S extends PlanMove | PlanPower>(step: S): S =>
    step.state === 'due' ? { ...step, state: 'left' } : step;
  return { ...plan, moves: plan.moves.map(left), power: plan.power.map(left), state };
}

function isOver({ state }: { readonly state: PlanMoveState }): boolean {
  return state === 'done' || state === 'failed' || state === 'left';
}
