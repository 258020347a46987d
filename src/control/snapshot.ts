/**
 * The fleet as the planner sees it, from the records and the smoothed loads: one function for balance, consolidation, placement
 * and export. What somebody else has in hand (an open move, a start or a stop, a sick host's guests) is marked as moving, so that
 * no plan touches it; a VM on the move counts where it is going.
 *
 * Not here: smoothing (load-history.ts).
 */
import type { FleetSettings, FleetSnapshot, SnapshotHost, SnapshotVm, VmLoad } from '../model/fleet-snapshot.ts';
import { defaultFleetSettings } from '../model/fleet-snapshot.ts';
import type { BalanceSettings } from '../model/distribution.ts';
import { isOpenDrain } from '../model/drain.ts';
import { roomUsedMiB } from '../model/host.ts';
import type { HostRecord } from '../model/host.ts';
import type { HostId, VmId } from '../model/ids.ts';
import { dirtiedIn, linkSpeedIn } from '../migration/corrections.ts';
import { isEnd } from '../migration/phases.ts';
import type { Migration } from '../model/migration.ts';
import type { VmRecord } from '../model/vm.ts';
import type { Fleet } from './fleet.ts';
import type { Health } from './health.ts';
import type { Liveness } from './liveness.ts';
import type { LoadHistory } from './load-history.ts';
import { needOf } from './need.ts';
import { holdsRoom } from './rooms.ts';

/** A gigabit, less what the protocol takes: where no move has shown more. */
const assumedBytesPerSecond = 112_000_000;
/** Of the newest moves is learnt: a fleet keeps thousands. */
const movesLookedAt = 500;

export interface SnapshotSource {
  readonly fleet: Pick<
    Fleet,
    'hosts' | 'rooms' | 'sleeps' | 'drains' | 'vms' | 'vmNamed' | 'vmsByName' | 'migrations' | 'balance'
  >;
  readonly liveness: Pick<Liveness, 'isSilent'>;
  readonly health: Pick<Health, 'sicknessOf'>;
  readonly loads: LoadHistory;
}

/** @param now ms since the epoch */
export function snapshotOf(source: SnapshotSource, now: number): FleetSnapshot {
  const { fleet } = source;
  const learnt = learntFrom(fleet.migrations);
  const drained = ofOpenDrains(fleet.drains);
  const vms: SnapshotVm[] = [];
  const guestsMiB = new Map<HostId, number>();
  const hosts = [...fleet.hosts.values()].toSorted(byName);
  const names = new Set(hosts.map(({ name }) => name));
  for (const vm of fleet.vmsByName()) {
    const host = fleet.hosts.get(whereItGoes(fleet, vm));
    if (host === undefined) continue;
    if (holdsRoom(vm)) guestsMiB.set(host.id, (guestsMiB.get(host.id) ?? 0) + vm.spec.memoryMiB);
    vms.push(vmIn(source, learnt, names, host, vm, drained.has(vm.id)));
  }
  return {
    version: 1,
    takenAt: now,
    hosts: hosts.map((host) => hostIn(source, learnt, host, guestsMiB.get(host.id) ?? 0)),
    vms,
    settings: fleetSettingsOf(fleet.balance),
  };
}

/** Without what makes the distributor more cautious: rules and limits. */
export function fleetSettingsOf(settings: BalanceSettings): FleetSettings {
  const { vcpuRatio, cpuLimit, hostFailuresTolerated, dwellMs, movesPerHost } = settings;
  return { ...defaultFleetSettings, vcpuRatio, cpuLimit, hostFailuresTolerated, dwellMs, movesPerHost };
}

/** A move that is held or being cancelled ends where it began. */
function whereItGoes({ migrations }: Pick<Fleet, 'migrations'>, vm: VmRecord): HostId {
  const migration = vm.migration === null ? undefined : migrations.get(vm.migration);
  if (migration === undefined || isEnd(migration.phase) || migration.cancelRequestedAt !== null) return vm.host;
  return migration.hold?.switchRequestedAt === null ? vm.host : migration.target;
}

function hostIn(source: SnapshotSource, learnt: Learnt, host: HostRecord, ofGuestsMiB: number): SnapshotHost {
  const { fleet } = source;
  const { inventory } = host;
  const room = fleet.rooms.get(host.id);
  const capacity = room?.capacityMiB ?? 0;
  // Moves under way to it, and remains of those that have left.
  const besides = Math.max(0, (room === undefined ? 0 : roomUsedMiB(room)) - ofGuestsMiB);
  return {
    name: host.name,
    state: stateOf(source, host),
    cpus: inventory.cpus,
    cpuSpeed: 1,
    memoryMiB: inventory.memoryMiB,
    reservedMiB: Math.max(0, inventory.memoryMiB - capacity) + besides,
    labels: { ...host.labels },
    accel: inventory.accel,
    cpuModels: null,
    machines: [...inventory.machines],
    networks: [...inventory.networks],
    pools: [...inventory.pools],
    poolIds: { ...inventory.poolIds },
    noLiveMoves: inventory.liveMigration.ok ? null : inventory.liveMigration.reason,
    linkBytesPerSecond: learnt.linkOf(host.id) ?? inventory.interfaceBytesPerSecond ?? assumedBytesPerSecond,
    watts: null,
  };
}

function stateOf({ fleet, liveness, health }: SnapshotSource, host: HostRecord): SnapshotHost['state'] {
  if ((fleet.sleeps.get(host.id)?.state.kind ?? 'awake') !== 'awake') return 'asleep';
  if (host.fenced !== null || liveness.isSilent(host.id)) return 'silent';
  return host.cordoned || health.sicknessOf(host) !== null ? 'cordoned' : 'up';
}

function vmIn(
  source: SnapshotSource,
  learnt: Learnt,
  hostNames: ReadonlySet<string>,
  host: HostRecord,
  vm: VmRecord,
  isDrained: boolean,
): SnapshotVm {
  const running = holdsRoom(vm);
  const isUp = vm.state.kind === 'running';
  const need = needOf(
    vm.name,
    isUp ? (vm.running?.spec ?? vm.spec) : vm.spec,
    host,
    isUp ? host.inventory.accel : null,
  );
  const spec = isUp ? (vm.running?.spec ?? vm.spec) : vm.spec;
  const load = loadOf(source.loads, vm);
  return {
    name: vm.name,
    host: host.name,
    running,
    cpus: spec.cpus,
    memoryMiB: vm.spec.memoryMiB,
    memoryInUseMiB: load.memoryMiB,
    dirtyBytesPerSecond: learnt.dirtyOf.get(vm.id) ?? 0,
    load,
    labels: { ...vm.labels },
    machine: need.machine,
    cpuModel: spec.cpuModel,
    accel: need.accel,
    networks: [...need.networks],
    pools: [...need.pools],
    pinnedTo: vm.placing.pinnedTo && vm.placing.pinnedTo.filter((name) => hostNames.has(name)),
    apart: [...vm.placing.apart],
    together: [...vm.placing.together],
    cannotMoveLive: vm.cannotMoveLive,
    // The guests of a sick host are the evacuation's.
    moving: vm.migration !== null || isDrained || (running && !isUp) || source.health.sicknessOf(host) !== null,
    priority: vm.priority,
    recovery: vm.recovery,
    lastMovedAt: learnt.movedAt.get(vm.id) ?? null,
  };
}

/** VMs that a drain is to take away, or to bring back. */
function ofOpenDrains(drains: Fleet['drains']): ReadonlySet<VmId> {
  const waiting = [...drains.values()]
    .filter(isOpenDrain)
    .flatMap(({ state, vms }) =>
      vms.filter(({ left, backAt }) => (state.kind === 'draining' ? left === null : left !== null && backAt === null)),
    );
  return new Set(waiting.map(({ vm }) => vm));
}

/** A guest that was not seen yet counts with all its memory and no other load. */
function loadOf(loads: LoadHistory, vm: VmRecord): VmLoad {
  const seen = loads.guestOf(vm.id);
  return {
    cpuCores: seen?.cpuCores.value ?? 0,
    recentCpuCores: [...loads.recentCpuCores(vm.id)],
    memoryMiB: Math.round(Math.min(vm.spec.memoryMiB, seen?.memoryMiB.value ?? vm.spec.memoryMiB)),
    diskBytesPerSecond: Math.round(seen?.diskBytesPerSecond.value ?? 0),
    netBytesPerSecond: Math.round(seen?.netBytesPerSecond.value ?? 0),
  };
}

interface Learnt {
  readonly movedAt: ReadonlyMap<VmId, number>;
  readonly dirtyOf: ReadonlyMap<VmId, number>;
  /** By the moves from and to the host. */
  readonly linkOf: (host: HostId) => number | undefined;
}

/** What earlier moves showed. */
function learntFrom(migrations: Fleet['migrations']): Learnt {
  const movedAt = new Map<VmId, number>();
  const dirtyOf = new Map<VmId, number>();
  for (const migration of migrations.values()) {
    // A move that failed or was cancelled is not tried again at once either.
    if ('endedAt' in migration) movedAt.set(migration.vm, migration.endedAt);
  }
  const moves = [...migrations.values()].slice(-movesLookedAt);
  for (const migration of moves) {
    const dirtied = dirtiedIn(migration).findLast(({ overMs }) => overMs > 0);
    if (dirtied) dirtyOf.set(migration.vm, Math.round((1000 * dirtied.bytes) / dirtied.overMs));
  }
  const newestFirst = new Map<HostId, Migration[]>();
  for (const move of moves.toReversed()) {
    for (const host of [move.source, move.target]) {
      const known = newestFirst.get(host);
      if (known === undefined) newestFirst.set(host, [move]);
      else known.push(move);
    }
  }
  return { movedAt, dirtyOf, linkOf: (host) => linkSpeedIn(newestFirst.get(host) ?? [], host, host) };
}

function byName(a: { readonly name: string }, b: { readonly name: string }): number {
  return a.name < b.name ? -1 : 1;
}
