/** Drover's own policy in the simulated day: hands the simulator's numbers over as a fleet, and back. */
import {
  planConsolidation,
  consolidationDefaults,
  type ConsolidationSettings,
} from '../../src/planner/consolidation.ts';
import type { Instant, Move, Policy } from './simulate.ts';
import { totalMips } from './world.ts';

/** After midnight memory binds nobody in these comparisons. */
const roomEnough = 1e9;

/** Remembers when each VM moved: a policy is for one day only. */
export function droverPolicy(settings: ConsolidationSettings = consolidationDefaults): Policy {
  const movedAt = new Map<number, number>();
  return {
    name: 'Drover',
    firstPlacement: 'least-power',
    decide({ scene, step, members, use }: Instant): Move[] {
      const names = members.flat();
      const { samples } = scene.trace;
      const { moves } = planConsolidation(
        {
          hosts: scene.hosts.map((type, h) => ({
            capacity: totalMips(type),
            memoryMiB: roomEnough,
            watts: type.watts,
            state: members[h]?.length ? 'on' : 'asleep',
          })),
          vms: members.flatMap((vms, host) =>
            vms.map((vm) => {
              const { mips, memoryMB } = scene.vms[vm]!;
              const from = Math.max(1, step + 1 - settings.window);
              return {
                host,
                size: mips,
                memoryMiB: memoryMB,
                movedAgo: step - (movedAt.get(vm) ?? -Infinity),
                demands: use.subarray(vm * samples + from, vm * samples + step + 1).map((share) => share * mips),
              };
            }),
          ),
          mayRun: (vm, host) => scene.vms[names[vm]!]!.mips <= scene.hosts[host]!.coreMips,
        },
        settings,
      );
      return moves.map(({ vm, target }) => {
        movedAt.set(names[vm]!, step);
        return { vm: names[vm]!, target };
      });
    },
  };
}
