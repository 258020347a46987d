/** Records as the API shows them, and the sentences that tell of their changes. */
import type { Ability, HostRecord } from '../model/host.ts';
import { roomUsedMiB } from '../model/host.ts';
import type { Migration } from '../model/migration.ts';
import type { VmRecord } from '../model/vm.ts';
import { isEnd, phases } from '../migration/phases.ts';
import { endedInPostCopy } from '../migration/techniques.ts';
import type { HostView, MigrationView, VmView } from '../wire/endpoints.ts';
import type { Fleet } from './fleet.ts';
import type { LiveEvents } from './live-events.ts';
import type { Liveness } from './liveness.ts';

export interface Seen {
  readonly fleet: Fleet;
  readonly liveness: Liveness;
  readonly live: LiveEvents;
}

export function hostView({ fleet, liveness }: Seen, host: HostRecord): HostView {
  const { inventory } = host;
  const room = fleet.rooms.get(host.id);
  const load = liveness.loadOf(host.id);
  const reserved = Object.values(room?.reservationsMiB ?? {}).reduce((sum, held) => sum + held, 0);
  return {
    id: host.id,
    name: host.name,
    state: liveness.isSilent(host.id) ? 'silent' : 'up',
    cordoned: host.cordoned,
    labels: { ...host.labels },
    cpus: inventory.cpus,
    memoryMiB: inventory.memoryMiB,
    capacityMiB: room?.capacityMiB ?? 0,
    usedMiB: room ? roomUsedMiB(room) : 0,
    reservedMiB: reserved,
    vms: [...fleet.vms.values()].filter((vm) => vm.host === host.id).map((vm) => vm.name),
    accel: inventory.accel,
    qemuVersion: inventory.qemuVersion,
    liveMigration: ability(inventory.liveMigration),
    postCopy: ability(inventory.postCopy),
    networks: [...inventory.networks],
    pools: [...inventory.pools],
    migrationAddress: inventory.migrationAddress,
    cpuLoad: load?.cpu ?? null,
    memoryUsedMiB: load?.memoryUsedMiB ?? null,
    lastReportAt: liveness.lastReportAt(host.id),
    session: host.session,
  };
}

export function vmView({ fleet, liveness }: Seen, vm: VmRecord): VmView {
  const { spec } = vm;
  const load = liveness.loadOf(vm.host)?.guests[vm.id];
  return {
    id: vm.id,
    name: vm.name,
    state: vm.state.kind,
    message: vm.state.kind === 'crashed' ? vm.state.message : null,
    host: fleet.hostName(vm.host),
    hostState: liveness.isSilent(vm.host) ? 'silent' : 'up',
    cpus: spec.cpus,
    memoryMiB: spec.memoryMiB,
    machine: spec.machine,
    cpuModel: spec.cpuModel,
    boot: spec.boot.kind === 'disk' ? 'disk' : `kernel ${spec.boot.kernel}`,
    disks: spec.disks.map((disk) => ({ ...disk })),
    nics: spec.nics.map((nic) => ({ ...nic })),
    address: vm.address,
    labels: { ...vm.labels },
    generation: vm.generation,
    migration: vm.migration,
    cpuCores: load?.cpuCores ?? null,
    memoryResidentMiB: load?.memoryResidentMiB ?? null,
    createdAt: vm.createdAt,
  };
}

export function migrationView({ fleet, live }: Seen, migration: Migration): MigrationView {
  const ended = isEnd(migration.phase);
  return {
    id: migration.id,
    vm: migration.vm,
    vmName: migration.vmName,
    source: fleet.hostName(migration.source),
    target: fleet.hostName(migration.target),
    technique: migration.technique,
    endedInPostCopy: endedInPostCopy(migration),
    switchedToPostCopy: migration.switchedToPostCopy,
    phase: migration.phase,
    phaseSays: phases[migration.phase].says,
    cancellable: phases[migration.phase].cancellable && migration.technique !== 'cold',
    ended,
    guest: migration.phase === 'failed' ? migration.guest : null,
    failure: migration.phase === 'failed' ? migration.failure : null,
    policy: { ...migration.policy },
    why: migration.why.map((reason) => ({ ...reason })),
    startedAt: migration.startedAt,
    endedAt: 'endedAt' in migration ? migration.endedAt : null,
    rounds: migration.rounds.map((round) => ({ ...round })),
    measures: { ...migration.measures },
    history: migration.history.map((entry) => ({ ...entry })),
    sample: ended ? null : (live.sampleOf(migration.id) ?? null),
  };
}

/** "mig_... web1 h1 -> h2: warming-up, round 2" */
export function migrationSays(fleet: Fleet, migration: Migration): string {
  const { id, vmName, source, target, phase } = migration;
  const round = phase === 'warming-up' ? migration.history.at(-1)?.round : undefined;
  const end =
    migration.phase === 'failed' ? `, guest ${migration.guest.replace('-', ' ')}: ${migration.failure.message}` : '';
  const more = round === undefined ? end : `, round ${round}`;
  return `${id} ${vmName} ${fleet.hostName(source)} -> ${fleet.hostName(target)}: ${phase}${more}`;
}

export function vmSays(fleet: Fleet, vm: VmRecord): string {
  const message = vm.state.kind === 'crashed' ? `: ${vm.state.message}` : '';
  return `vm ${vm.name}: ${vm.state.kind} on ${fleet.hostName(vm.host)}${message}`;
}

export function hostSays(host: HostView): string {
  const cordoned = host.cordoned ? ', cordoned' : '';
  return `host ${host.name}: ${host.state}${cordoned}, ${host.usedMiB} of ${host.capacityMiB} MiB in use`;
}

function ability(given: Ability): { ok: boolean; reason: string | null } {
  return { ok: given.ok, reason: given.ok ? null : given.reason };
}
