/**
 * Goal `drain`: hosts that shall have no guests. All leave that can, the others are named with what keeps them. Where a host is
 * too full for one of them, others make room. Not here: whether the host is cordoned meanwhile; the caller sees to that.
 */
import type { FleetSnapshot } from '../model/fleet-snapshot.ts';
import type { Plan, PlanRefusal } from '../model/plan.ts';
import { planOf, seedOf, type PlanOptions } from './answer.ts';
import { Board } from './board.ts';
import { chanceFrom } from './chance.ts';
import { iterationsFor, problemOf } from './compile.ts';
import { fleetOf, ordinaryLook } from './fleet.ts';
import { order } from './order.ts';
import { whyNowhere } from './rules.ts';
import { droverParts, objectiveOf } from './score.ts';
import { evacuate, polish } from './search.ts';

/** VMs elsewhere move only to make room: more than any evenness, less than one VM that stays behind. */
const costOfBystander = 1;
const costPerGiB = 0.05;
/** A bystander's move may cost some evenness, less than one VM that stays behind counts. */
const makingRoom = 2;

/** @param hosts names of hosts of the snapshot; those whose state is `draining` are drained as well */
export function drain(snapshot: FleetSnapshot, hosts: readonly string[], options: PlanOptions = {}): Plan {
  const drained = new Set(hosts);
  const fleet = fleetOf(
    {
      ...snapshot,
      hosts: snapshot.hosts.map((host) =>
        drained.has(host.name) && host.state !== 'silent' && host.state !== 'asleep'
          ? { ...host, state: 'draining' }
          : host,
      ),
    },
    { ...ordinaryLook, ignoreDwell: true },
  );
  const parts = droverParts(fleet);
  const problem = problemOf(fleet, objectiveOf(fleet, parts), {
    budget: options.budget ?? {},
    moveCost: (vm) =>
      fleet.leave[fleet.at[vm]!] === 1 ? 1e-6 : costOfBystander + (costPerGiB * fleet.vms[vm]!.memoryMiB) / 1024,
  });
  const board = new Board(problem);
  evacuate(board);
  polish(board, chanceFrom(seedOf(options)), { iterations: options.iterations ?? iterationsFor(problem) });
  evacuate(board);
  const { maxMoves, maxMoveMiB } = problem;
  const ordered = order(problem, board.at, { maxMoves, maxMoveMiB, hops: true, slack: makingRoom });
  const emptied = (host: number): boolean => fleet.leave[host] === 1 || drained.has(fleet.hosts[host]!.name);
  const refused = ordered.board.on
    .flatMap((vms, host) => (emptied(host) ? vms.toSorted((a, b) => a - b) : []))
    .map((vm): PlanRefusal => whyNowhere(fleet, ordered.board, vm));
  return planOf({ goal: 'drain', objective: 'drover', fleet, parts, problem, steps: ordered.steps, refused }, options);
}
