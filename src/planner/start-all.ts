/** What placing and failing over have in common: VMs that run nowhere, one after another, each where the score is best. */
import type { FleetSnapshot, SnapshotVm } from '../model/fleet-snapshot.ts';
import type { Placement, Plan, PlanRefusal } from '../model/plan.ts';
import { planOf, type PlanOptions } from './answer.ts';
import { Board } from './board.ts';
import { problemOf } from './compile.ts';
import { fleetOf, ordinaryLook } from './fleet.ts';
import { mayBeThere } from './rules.ts';
import { droverParts, objectiveOf, scoreOf } from './score.ts';
import { bestPlace } from './search.ts';
import { Spare, noSpareLeft } from './spare.ts';

export interface Start {
  readonly goal: 'place' | 'failover';
  /** Must room remain for the VMs of hosts that die? */
  readonly keepsSpare: boolean;
  readonly because: string;
}

/**
 * @param snapshot where these VMs stand on hosts that are draining
 * @param vms in the order in which they are placed
 */
export function startAll(
  snapshot: FleetSnapshot,
  vms: readonly SnapshotVm[],
  { goal, keepsSpare, because }: Start,
  options: PlanOptions,
): Plan {
  const fleet = fleetOf(snapshot, { ...ordinaryLook, ignoreDwell: true });
  const parts = droverParts(fleet);
  const problem = problemOf(fleet, objectiveOf(fleet, parts), { budget: {}, moveCost: () => 0 });
  const board = new Board(problem);
  const spare = new Spare(fleet, board);
  const allows = keepsSpare ? (changed: Board): boolean => spare.isKept(changed) : undefined;
  const placements: Placement[] = [];
  const refused: PlanRefusal[] = [];
  for (const { name } of vms) {
    const vm = fleet.vmIndex.get(name)!;
    const to = bestPlace(board, vm, allows);
    if (to !== null) {
      board.move(vm, to);
      placements.push({ vm: name, to: fleet.hosts[to]!.name, reason: because });
      continue;
    }
    for (const [h, host] of fleet.hosts.entries()) {
      if (h === board.at[vm]) continue;
      refused.push({ vm: name, wanted: host.name, ...(mayBeThere(fleet, board, vm, h) ?? noSpareLeft(host.name)) });
    }
  }
  const plan = planOf({ goal, objective: 'drover', fleet, parts, problem, steps: [], placements, refused }, options);
  return { ...plan, emptied: [], score: { before: plan.score.before, after: scoreOf(fleet, parts, board.at) } };
}
