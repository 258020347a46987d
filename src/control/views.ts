/** Records as the API shows them, and the sentences that tell of their changes. */
import type { Ability, HostRecord } from '../model/host.ts';
import { roomUsedMiB } from '../model/host.ts';
import type { HostId } from '../model/ids.ts';
import { noMeasures, type Migration } from '../model/migration.ts';
import type { RecoveryRecord } from '../model/recovery.ts';
import { newSleepRecord, readyWithinMs, type SleepRecord } from '../model/sleep.ts';
import type { VmRecord } from '../model/vm.ts';
import { isEnd, phases, saysOf } from '../migration/phases.ts';
import { endedInPostCopy } from '../migration/techniques.ts';
import type { SleepView } from '../wire/energy.ts';
import type { HostView, MigrationView, VmView } from '../wire/endpoints.ts';
import type { RecoveryView } from '../wire/recovery.ts';
import type { Fleet } from './fleet.ts';
import type { Health } from './health.ts';
import type { LiveEvents } from './live-events.ts';
import type { Liveness } from './liveness.ts';
import { switchIn } from './migrations.ts';
import { latestDrain } from './drain-progress.ts';
import { powerSays } from './power/open.ts';
import type { Sleep } from './sleep.ts';
import type { SleepOptions } from './sleep-step.ts';

export interface Seen {
  readonly fleet: Fleet;
  readonly liveness: Liveness;
  readonly live: LiveEvents;
  readonly health: Health;
  readonly sleep: Sleep;
}

/** Names of the VMs of each host: for who shows many hosts, which else would each look through all VMs. */
export function namesByHost({ vms }: Pick<Fleet, 'vms'>): ReadonlyMap<HostId, readonly string[]> {
  const names = new Map<HostId, string[]>();
  for (const { host, name } of vms.values()) {
    const there = names.get(host);
    if (there) there.push(name);
    else names.set(host, [name]);
  }
  return names;
}

/** @param names of its VMs, where they are known already */
export function hostView(
  { fleet, liveness, health, sleep }: Seen,
  host: HostRecord,
  names: readonly string[] = namesByHost(fleet).get(host.id) ?? [],
): HostView {
  const { inventory } = host;
  const room = fleet.rooms.get(host.id);
  const slept = fleet.sleeps.get(host.id);
  const load = liveness.loadOf(host.id);
  const reserved = Object.values(room?.reservationsMiB ?? {}).reduce((sum, held) => sum + held, 0);
  return {
    id: host.id,
    name: host.name,
    state: liveness.isSilent(host.id) ? 'silent' : 'up',
    cordoned: host.cordoned,
    drain: openDrainOf(fleet, host),
    labels: { ...host.labels },
    cpus: inventory.cpus,
    memoryMiB: inventory.memoryMiB,
    capacityMiB: room?.capacityMiB ?? 0,
    usedMiB: room ? roomUsedMiB(room) : 0,
    reservedMiB: reserved,
    vms: [...names],
    accel: inventory.accel,
    qemuVersion: inventory.qemuVersion,
    liveMigration: ability(inventory.liveMigration),
    postCopy: ability(inventory.postCopy),
    networks: [...inventory.networks],
    pools: [...inventory.pools],
    migrationAddress: inventory.migrationAddress,
    cpuLoad: load?.cpu ?? null,
    memoryUsedMiB: load?.memoryUsedMiB ?? null,
    sickness: health.sicknessOf(host),
    lastReportAt: liveness.lastReportAt(host.id),
    session: host.session,
    power: host.power === null ? null : powerSays(host.power),
    fenced: host.fenced && { ...host.fenced },
    sleep: slept === undefined ? null : sleepView(host, slept, sleep.options, sleep.refusal(host)?.message ?? null),
  };
}

/** @param refusal why it may not be sent to sleep now */
export function sleepView(
  host: HostRecord,
  record: SleepRecord | undefined,
  { proofAgeMs }: SleepOptions,
  refusal: string | null,
): SleepView {
  const { state, way, proof, readyMs, lastFailure, watts } = record ?? newSleepRecord(host.id, host.joinedAt);
  const spoken = 'by' in state ? state : null;
  return {
    host: host.name,
    way: way?.kind === 'suspend' ? { ...way, macs: [...way.macs] } : way,
    state: state.kind,
    since: state.since,
    by: spoken?.by ?? null,
    because: spoken?.because ?? (state.kind === 'wake-failed' ? state.says : null),
    drill: spoken?.drill ?? false,
    proof: proof && { ...proof, validUntil: proof.at + proofAgeMs },
    readyWithinMs: readyWithinMs({ readyMs }),
    readyMs: [...readyMs],
    lastFailure: lastFailure && { ...lastFailure },
    refusal,
    watts: watts && { ...watts },
  };
}

function openDrainOf(fleet: Fleet, host: HostRecord): HostView['drain'] {
  const kind = latestDrain(fleet, host.id)?.state.kind;
  return kind === undefined || kind === 'undrained' || kind === 'cancelled' ? null : kind;
}

export function vmView({ fleet, liveness }: Seen, vm: VmRecord): VmView {
  const { spec } = vm;
  const load = liveness.loadOf(vm.host)?.guests[vm.id];
  return {
    id: vm.id,
    name: vm.name,
    state: vm.state.kind,
    message: messageOf(vm),
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
    recovery: vm.recovery,
    restart: vm.restart,
    priority: vm.priority,
    placing: {
      apart: [...vm.placing.apart],
      together: [...vm.placing.together],
      pinnedTo: vm.placing.pinnedTo && [...vm.placing.pinnedTo],
    },
    cpuCores: load?.cpuCores ?? null,
    memoryResidentMiB: load?.memoryResidentMiB ?? null,
    createdAt: vm.createdAt,
  };
}

export function migrationView({ fleet, live }: Seen, migration: Migration): MigrationView {
  const ended = isEnd(migration.phase);
  const may = switchIn(fleet, migration);
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
    phaseSays: saysOf(migration),
    cancellable: phases[migration.phase].cancellable && migration.technique !== 'cold',
    switchable: may.to === null || may.asked ? null : may.to,
    ended,
    guest: migration.phase === 'failed' ? migration.guest : null,
    failure: migration.phase === 'failed' ? migration.failure : null,
    hold: migration.hold ?? null,
    policy: { ...migration.policy },
    why: migration.why.map((reason) => ({ ...reason })),
    startedAt: migration.startedAt,
    endedAt: 'endedAt' in migration ? migration.endedAt : null,
    rounds: migration.rounds.map((round) => ({ ...round })),
    measures: { ...noMeasures, ...migration.measures },
    forecast: migration.forecast ?? null,
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
  // Once, at its beginning: who reads events finds there why each move was made.
  const why = phase === 'reserved' ? migration.why.at(-1) : undefined;
  const more = round !== undefined ? `, round ${round}` : why === undefined ? end : `: ${why.text} (${why.by})`;
  return `${id} ${vmName} ${fleet.hostName(source)} -> ${fleet.hostName(target)}: ${phase}${more}`;
}

export function vmSays(fleet: Fleet, vm: VmRecord): string {
  const message = messageOf(vm);
  const where = vm.state.kind === 'waiting' ? '' : ` on ${fleet.hostName(vm.host)}`;
  return `vm ${vm.name}: ${vm.state.kind}${where}${message === null ? '' : `: ${message}`}`;
}

/** Why it does not run although it should. */
function messageOf({ state }: VmRecord): string | null {
  return state.kind === 'crashed' ? state.message : state.kind === 'waiting' ? state.because : null;
}

export function recoveryView({ fleet }: Pick<Seen, 'fleet'>, record: RecoveryRecord): RecoveryView {
  const { silentSince, detectedAt, fencedAt } = record;
  const between = (from: number | null, to: number | null) =>
    from === null || to === null ? null : Math.max(0, to - from);
  return {
    id: record.id,
    host: record.hostName,
    proof: record.proof,
    by: record.by,
    because: record.because,
    silentSince,
    detectedAt,
    fencedAt,
    endedAt: record.endedAt,
    detectMs: between(silentSince, detectedAt),
    fenceMs: between(detectedAt, fencedAt),
    vms: record.vms.map(({ vm, vmName, priority, kind, target, placedAt, startedAt }) => {
      const now = fleet.vms.get(vm);
      return {
        vm,
        name: vmName,
        priority,
        kind,
        state: now?.state.kind ?? 'deleted',
        says: now ? messageOf(now) : null,
        target: target === null ? null : fleet.hostName(target),
        placedAt,
        startedAt,
        placeMs: between(fencedAt, placedAt),
        bootMs: between(placedAt, startedAt),
        totalMs: between(silentSince, startedAt),
      };
    }),
  };
}

/** "h1 lost (power-off): 2 of 3 VMs run again" */
export function recoverySays({ hostName, proof, vms }: RecoveryRecord): string {
  const again = vms.filter(({ kind }) => kind === 'restart');
  const run = again.filter(({ startedAt }) => startedAt !== null).length;
  return `${hostName} lost (${proof}): ${run} of ${again.length} VMs run again`;
}

export function hostSays(host: HostView): string {
  const cordoned = host.drain === null ? (host.cordoned ? ', cordoned' : '') : `, ${host.drain}`;
  const state = host.sleep && host.sleep.state !== 'awake' ? host.sleep.state : host.state;
  return `host ${host.name}: ${state}${cordoned}, ${host.usedMiB} of ${host.capacityMiB} MiB in use`;
}

function ability(given: Ability): { ok: boolean; reason: string | null } {
  return { ok: given.ok, reason: given.ok ? null : given.reason };
}
