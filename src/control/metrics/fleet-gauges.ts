/**
 * What is true of the fleet at this moment, read from the records when somebody scrapes. Nothing is kept here, and nothing runs
 * between two scrapes. Series are bounded by kinds, never by VMs, but for those that somebody asked for by number.
 *
 * Not here: what has happened (fleet-counters.ts).
 */
import type { Registry } from 'prom-client';
import { isOpenDrain } from '../../model/drain.ts';
import { roomUsedMiB, type HostRecord } from '../../model/host.ts';
import { phaseNames, techniques } from '../../model/migration.ts';
import { taskState } from '../../model/task.ts';
import { vmActions, type VmState } from '../../model/vm.ts';
import { isEnd } from '../../migration/phases.ts';
import { scoreWith } from '../../planner/judge.ts';
import { countsOf, readGauge, readNumber, type Reading } from '../../runtime/metrics.ts';
import { cautionNow } from '../conscience.ts';
import type { ControlPlane } from '../plane.ts';

const hostStates = [
  'up',
  'cordoned',
  'suspect',
  'failing',
  'silent',
  'fenced',
  'going-to-sleep',
  'asleep',
  'waking',
  'wake-failed',
] as const;
type HostState = (typeof hostStates)[number];
// The cast: the keys of that table are the states.
const vmStates = Object.keys(vmActions) as VmState['kind'][];
const openPhases = phaseNames.filter((phase) => !isEnd(phase));
const taskStates = ['queued', 'assigned', 'running'] as const;
const mib = 1024 * 1024;

/** What reads the fleet: all that a scrape looks at. */
export type Watched = Pick<ControlPlane, 'fleet' | 'liveness' | 'health' | 'agents' | 'held' | 'distributor' | 'clock'>;

/** @param perVm how many VMs get series of their own, by name; 0: none */
export function fleetGauges(registry: Registry, plane: Watched, perVm: number): void {
  const { fleet, liveness, agents, held, distributor, clock } = plane;
  const number = (name: string, help: string, read: () => number | null): void =>
    readNumber(registry, name, help, read);
  const byKind = <L extends string, K extends string>(
    name: string,
    help: string,
    label: L,
    kinds: readonly K[],
    of: () => Iterable<K>,
  ): void => readGauge({ registry, name, help, labels: [label] }, () => labelled(label, countsOf(kinds, of())));

  byKind(
    'drover_hosts',
    'Hosts by state; each is in one of them, the one that matters most.',
    'state',
    hostStates,
    () => [...fleet.hosts.values()].map((host) => stateOf(plane, host)),
  );
  byKind('drover_vms', 'VMs by state.', 'state', vmStates, () =>
    [...fleet.vms.values()].map(({ state }) => state.kind),
  );
  number('drover_agents_connected', 'Hosts whose agent is connected.', () => {
    return [...fleet.hosts.keys()].filter((host) => agents.isConnected(host)).length;
  });
  number('drover_records_held', '1 while nothing is ordered because the records are older than the fleet.', () =>
    held.isHeld ? 1 : 0,
  );
  number('drover_guest_memory_capacity_bytes', "What guests may use of all hosts' memory.", () => {
    return mib * sum([...fleet.rooms.values()].map(({ capacityMiB }) => capacityMiB));
  });
  number('drover_guest_memory_reserved_bytes', 'What guests and moves hold of it.', () => {
    return mib * sum([...fleet.rooms.values()].map(roomUsedMiB));
  });

  readGauge(
    {
      registry,
      name: 'drover_migrations_open',
      help: 'Migrations under way, by technique and phase.',
      labels: ['technique', 'phase'],
    },
    () => {
      const open = [...fleet.migrations.values()].filter(({ phase }) => !isEnd(phase));
      const kinds = techniques.flatMap((technique) => openPhases.map((phase) => `${technique} ${phase}` as const));
      const counts = countsOf<string>(
        kinds,
        open.map(({ technique, phase }) => `${technique} ${phase}`),
      );
      return [...counts].map(([kind, value]) => {
        const [technique = '', phase = ''] = kind.split(' ');
        return { labels: { technique, phase }, value };
      });
    },
  );

  byKind(
    'drover_drains',
    'Drains that are not over, by state.',
    'state',
    ['draining', 'drained', 'returning'] as const,
    () => {
      // Of each host the newest counts: one drained long ago and undrained since is over.
      const newest = new Map([...fleet.drains.values()].map((drain) => [drain.host, drain.state.kind]));
      return [...newest.values()].filter((kind) => kind !== 'undrained' && kind !== 'cancelled');
    },
  );
  number('drover_drains_blocked', 'Open drains in which nothing goes on.', () => {
    return [...fleet.drains.values()].filter((drain) => isOpenDrain(drain) && drain.blocked !== null).length;
  });
  number('drover_recoveries_open', 'Lost hosts of which VMs are still waited for.', () => {
    return [...fleet.recoveries.values()].filter(({ endedAt }) => endedAt === null).length;
  });
  byKind('drover_tasks', 'Tasks that have not ended, by state.', 'state', taskStates, () =>
    [...fleet.queuedTasks(), ...fleet.givenTasks()].flatMap((task) => {
      const state = taskState(task);
      return taskStates.filter((each) => each === state);
    }),
  );

  number('drover_balance_unevenness_score', "The planner's score of the fleet as it is; smaller is more even.", () => {
    return fleet.hosts.size === 0 ? null : scoreWith(distributor.snapshot()).total;
  });
  number('drover_balance_standing_out', 'Hosts, resources and groups that stand out of the mean of the fleet.', () => {
    return distributor.standsOut().length;
  });
  number('drover_balance_caution_factor', 'Above 1: moves have not paid, so the next must promise more.', () => {
    return cautionNow(fleet.balance.caution, clock.now());
  });

  const vmsByName = () => [...fleet.vms.values()].toSorted((a, b) => (a.name < b.name ? -1 : 1)).slice(0, perVm);
  const ofVms = (name: string, help: string, read: (load: { cpuCores: number; memoryResidentMiB: number }) => number) =>
    readGauge({ registry, name, help, labels: ['vm'] }, () =>
      vmsByName().flatMap((vm): Reading<'vm'>[] => {
        const load = liveness.loadOf(vm.host)?.guests[vm.id];
        return load === undefined ? [] : [{ labels: { vm: vm.name }, value: read(load) }];
      }),
    );
  if (perVm === 0) return;
  ofVms('drover_vm_cpu_cores', 'Cores that the VM uses.', ({ cpuCores }) => cpuCores);
  ofVms('drover_vm_memory_resident_bytes', 'Memory of the host that it has.', (load) => mib * load.memoryResidentMiB);
  number('drover_vms_left_out', 'VMs beyond --metrics-per-vm, which have no series of their own.', () =>
    Math.max(0, fleet.vms.size - perVm),
  );
}

/** A host is often several of them; what a person must know first wins. */
function stateOf({ fleet, liveness, health }: Watched, host: HostRecord): HostState {
  if (host.fenced !== null) return 'fenced';
  const sleep = fleet.sleeps.get(host.id)?.state.kind ?? 'awake';
  if (sleep !== 'awake') return sleep;
  if (liveness.isSilent(host.id)) return 'silent';
  return health.sicknessOf(host)?.severity ?? (host.cordoned ? 'cordoned' : 'up');
}

function labelled<L extends string>(label: L, counts: ReadonlyMap<string, number>): Reading<L>[] {
  // The cast: one label, of that name.
  return [...counts].map(([kind, value]) => ({ labels: { [label]: kind } as Record<L, string>, value }));
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}
