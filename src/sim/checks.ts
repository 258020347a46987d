/**
 * What must hold, looked at whenever nothing is left to run at a moment, at each commit, and once more when everything has
 * come to rest. What is true is asked of the machines, not of anybody's records.
 */
import { freeMiB } from '../control/placement.ts';
import { checkFleet } from '../control/doctor.ts';
import { drainer } from '../control/drain-progress.ts';
import { drainView } from '../control/drain-views.ts';
import type { ControlPlane } from '../control/plane.ts';
import type { SimulatedProcess } from '../hypervisor/simulated-process.ts';
import { ranIn } from '../hypervisor/simulated-tasks.ts';
import { brokenInvariants } from '../migration/invariants.ts';
import { isEnd } from '../migration/phases.ts';
import { outstanding, step, type MigrationFact } from '../migration/step.ts';
import { messageOf } from '../model/failure.ts';
import { roomUsedMiB, type HostRecord } from '../model/host.ts';
import type { HostId, MigrationId, RecoveryId, VmId } from '../model/ids.ts';
import type { Migration } from '../model/migration.ts';
import type { RecoveryRecord } from '../model/recovery.ts';
import { isDown, type SleepRecord } from '../model/sleep.ts';
import { openAttempt, taskClaim, type TaskRecord } from '../model/task.ts';
import type { VmRecord } from '../model/vm.ts';
import { unheardAfterMs } from '../planner/task-life.ts';
import { leaderKey } from '../store/leadership.ts';
import { recordIn } from '../store/records.ts';
import type { Write } from '../store/store.ts';
import type { SimHost } from './host.ts';
import type { World } from './world.ts';

export type Rule =
  | 'runs-once'
  | 'memory-of-host'
  | 'room-kept'
  | 'move-invariants'
  | 'leader-writes'
  | 'facts-on-record'
  | 'guest-vanished'
  | 'ends-in-time'
  | 'drain-speaks'
  | 'nothing-left-over'
  | 'asleep'
  | 'doctor'
  | 'task-once'
  | 'task-ends-once'
  | 'no-crash';

export interface Violation {
  readonly rule: Rule;
  readonly atMs: number;
  readonly says: string;
}

const keptViolations = 20;
const justBegunMs = 60_000;
/** The beat that ends a task comes once a second. */
const taskGraceMs = 3000;
/** These say nothing new when they come again, or are taken back by a later one. */
const passing = new Set<MigrationFact['kind']>(['link-lost', 'link-restored', 'measured', 'round']);

export class Checks {
  readonly violations: Violation[] = [];
  readonly #world: World;
  /** VMs of which a process was killed, or that lost their host: their guests may be gone. */
  readonly #harmed = new Set<VmId>();
  readonly #acknowledged: MigrationFact[] = [];
  readonly #runsOn = new Map<VmId, SimulatedProcess>();
  readonly #phases = new Map<MigrationId, string>();
  readonly #states = new Map<VmId, string>();
  readonly #recoveries = new Set<RecoveryId>();
  readonly #taskEnds = new Map<string, readonly string[]>();
  #twice = new Set<VmId>();
  /** While it is only asked: how much would be. */
  #found: number | null = null;

  constructor(world: World) {
    this.#world = world;
  }

  /** Would `atRest()` find nothing? */
  isAtRest(): boolean {
    this.#found = 0;
    this.atRest();
    const found = this.#found;
    this.#found = null;
    return found === 0;
  }

  violated(rule: Rule, says: string): void {
    if (this.#found !== null) {
      this.#found++;
      return;
    }
    if (this.violations.length >= keptViolations) return;
    this.violations.push({ rule, atMs: this.#world.timeline.nowMs, says });
    this.#world.note('VIOLATION', `${rule}: ${says}`);
  }

  /** A process of it was killed, or its machine lost its power. */
  harmed(vm: VmId): void {
    this.#harmed.add(vm);
  }

  /** A host is shut down because it was sent to sleep. */
  goesToSleep({ name, machine }: SimHost): void {
    const guests = machine.processes.map(({ vm }) => vm);
    if (guests.length > 0) this.violated('asleep', `${name} is shut down to sleep with ${guests.join(', ')}`);
  }

  acknowledged(fact: MigrationFact): void {
    if (!passing.has(fact.kind)) this.#acknowledged.push(fact);
  }

  /** Whenever nothing is left to run. */
  between(): void {
    if (!this.#world.machinesStirred) return;
    this.#world.machinesStirred = false;
    const seen = this.#runsOn;
    seen.clear();
    for (const { machine, memoryMiB, name } of this.#world.hosts) {
      let usedMiB = 0;
      for (const process of machine.processes) {
        usedMiB += this.#world.memoryMiB.get(process.vm) ?? 0;
        if (!process.vcpusRun) continue;
        const other = seen.get(process.vm);
        if (other === undefined) seen.set(process.vm, process);
        else if (!this.#twice.has(process.vm)) {
          this.#twice.add(process.vm);
          this.violated(
            'runs-once',
            `${process.vm} runs on ${other.machine} (${wordsOf(other)}) and on ${process.machine} (${wordsOf(process)})`,
          );
        }
      }
      if (usedMiB > memoryMiB)
        this.violated('memory-of-host', `${name} has ${memoryMiB} MiB, its guests ${usedMiB} MiB`);
    }
  }

  onCommit(server: string, writes: readonly Write[]): void {
    const { engine } = this.#world;
    const isRecord = writes.some(({ key }) => !key.startsWith('control/'));
    if (isRecord) {
      const leader = engine.get(leaderKey)?.value as { holder: string } | undefined; // leadership.ts writes it
      if (leader?.holder !== server) {
        this.violated('leader-writes', `${server} wrote although ${leader?.holder ?? 'nobody'} leads`);
      }
    }
    for (const write of writes) {
      const value = 'put' in write ? write.put : undefined;
      if (value === undefined) continue;
      const found = recordIn({ key: write.key, value });
      if (found?.kind === 'migration') this.#migrationCommitted(found.record);
      if (found?.kind === 'vm') this.#vmCommitted(found.record);
      if (found?.kind === 'recovery') this.#recoveryCommitted(found.record);
      if (found?.kind === 'task') this.#taskCommitted(found.record);
      if (found?.kind === 'room') {
        const used = roomUsedMiB(found.record);
        if (used > found.record.capacityMiB && Object.keys(found.record.reservationsMiB).length > 0)
          this.violated(
            'room-kept',
            `${used} MiB are promised of ${found.record.capacityMiB} MiB on ${found.record.host}`,
          );
      }
    }
  }

  #migrationCommitted(migration: Migration): void {
    for (const broken of brokenInvariants(migration)) this.violated('move-invariants', `${migration.id}: ${broken}`);
    const now = `${migration.phase}${migration.cancelRequestedAt === null ? '' : ' (cancel asked)'}`;
    const before = this.#phases.get(migration.id);
    if (before === now) return;
    this.#phases.set(migration.id, now);
    const how = migration.phase === 'failed' ? ` ${migration.guest}: ${migration.failure.code}` : '';
    const where = before === undefined ? `, ${migration.technique} ${migration.source} -> ${migration.target}` : '';
    this.#world.note('move', `${migration.vmName} ${migration.id.slice(-6)} ${now}${how}${where}`);
  }

  /** Each attempt, and the task as a whole, ends once: what is on record of an end stays. */
  #taskCommitted(task: TaskRecord): void {
    const now = [task.outcome, ...task.attempts.map(({ outcome }) => outcome)].map((end) => end?.kind ?? 'open');
    const before = this.#taskEnds.get(task.id) ?? [];
    this.#taskEnds.set(task.id, now);
    if (before.some((end, index) => end !== 'open' && end !== now[index]))
      this.violated('task-ends-once', `${task.id} was ${before.join(', ')} and is ${now.join(', ')}`);
    const says = task.outcome?.says ?? task.attempts.at(-1)?.outcome?.says ?? '';
    if (String(before) !== String(now)) this.#world.note('task', `${task.id.slice(-6)} ${now.join(', ')} ${says}`);
  }

  #vmCommitted(vm: VmRecord): void {
    this.#world.memoryMiB.set(vm.id, vm.spec.memoryMiB);
    const now = `${vm.state.kind} on ${this.#nameOf(vm.host)} generation ${vm.generation}`;
    if (this.#states.get(vm.id) === now) return;
    if (vm.state.kind === 'starting' && this.#isDown(vm.host))
      this.violated('asleep', `${vm.name} is started on ${this.#nameOf(vm.host)}, which sleeps`);
    this.#states.set(vm.id, now);
    const words = vm.state.kind === 'crashed' ? `: ${vm.state.message}` : '';
    this.#world.note('vm', `${vm.name} ${now}${words}`);
  }

  /** One that is new: what is written into it later tells what became of the VMs. */
  #recoveryCommitted({ id, host, hostName, because }: RecoveryRecord): void {
    if (this.#recoveries.has(id)) return;
    this.#recoveries.add(id);
    if (this.#isDown(host)) this.violated('asleep', `${hostName} sleeps, and is fenced: ${because}`);
  }

  #isDown(host: string): boolean {
    const value = this.#world.engine.get(`sleep/${host}`)?.value as SleepRecord | undefined; // records.ts
    return isDown(value?.state);
  }

  #nameOf(host: string): string {
    const value = this.#world.engine.get(`host/${host}`)?.value as HostRecord | undefined; // records.ts
    return value?.name ?? host;
  }

  /** Everything has had time to come to rest. */
  atRest(): void {
    const plane = this.#world.leaders()[0]?.plane;
    if (plane === undefined)
      return this.violated('ends-in-time', 'nobody leads although nothing is disturbed any more');
    this.#checkMoves(plane);
    this.#checkVms(plane);
    this.#checkProcesses(plane);
    this.#checkRooms(plane);
    this.#checkDrains(plane);
    for (const finding of checkFleet({ ...plane })) {
      if (finding.mend?.startsWith('This is a bug')) this.violated('doctor', `${finding.about}: ${finding.says}`);
    }
    this.#checkFacts(plane);
    this.#checkTasks(plane);
  }

  /** A host that is gone for good, where nothing but a person's word can prove it, and the server says that it waits for that. */
  #needsPerson({ fleet, recovery }: ControlPlane, id: HostId): boolean {
    const host = this.#world.hosts.find(({ name }) => name === fleet.hostName(id));
    if (host?.isLost !== true || this.#canBeProven(host, fleet.hosts.get(id))) return false;
    const verdict = recovery.verdictOn(id);
    return verdict?.do === 'wait' && verdict.person;
  }

  /** Does the world hold a proof that it is off, whatever the server makes of it? */
  #canBeProven(host: SimHost, record: HostRecord | undefined): boolean {
    if (record?.power && host.bmcAnswers) return true;
    const lease = this.#world.storage.leases.get(host.name);
    const guardCounts = this.#world.trustsGuards || this.#world.hasWatchdogs;
    return guardCounts && lease?.state === 'held' && lease.bootId === host.bootId;
  }

  #checkMoves(plane: ControlPlane): void {
    const now = plane.clock.now();
    for (const migration of plane.fleet.unsettledMigrations()) {
      // Drains go on at rest: a move of theirs may have only just begun.
      if (migration.why[0]?.by === drainer && now - migration.startedAt < justBegunMs) continue;
      if (this.#needsPerson(plane, migration.source) || this.#needsPerson(plane, migration.target)) continue;
      const due = outstanding(migration).map(({ kind, side }) => `${kind} on ${side}`);
      const says = `${migration.vmName} ${migration.id} is ${migration.phase}, due: ${due.join(', ') || 'nothing'}`;
      this.violated(isEnd(migration.phase) ? 'nothing-left-over' : 'ends-in-time', says);
    }
  }

  #checkVms(plane: ControlPlane): void {
    const { fleet, clock } = plane;
    for (const vm of fleet.vms.values()) {
      if (vm.migration !== null || this.#needsPerson(plane, vm.host)) continue;
      const { kind } = vm.state;
      const here = this.#processesOf(vm.id).filter(({ machine }) => machine === fleet.hostName(vm.host));
      const runs = here.filter(({ vcpusRun }) => vcpusRun);
      if (kind === 'running') {
        if (runs.length !== 1)
          this.violated(
            'guest-vanished',
            `${vm.name} is on record as running on ${fleet.hostName(vm.host)} and does not`,
          );
      } else if (kind === 'crashed') {
        // A host without its lease starts nothing, and says so.
        const { message } = vm.state;
        const neverRan = message.includes('lost its lease') || message.includes('was lost before its disks were made');
        if (!this.#harmed.has(vm.id) && !neverRan)
          this.violated('guest-vanished', `${vm.name} crashed though nothing of it was killed: ${vm.state.message}`);
      } else if (kind === 'waiting') {
        const roomMiB = Math.max(
          0,
          ...[...fleet.hosts.values()].map((host) =>
            host.cordoned || plane.liveness.isSilent(host.id) ? 0 : freeMiB(plane, host),
          ),
        );
        const lastMoves = fleet.unsettledMigrations().filter((move) => move.vm === vm.id);
        const mayStillRun = lastMoves.some(
          ({ source, target }) => this.#needsPerson(plane, source) || this.#needsPerson(plane, target),
        );
        if (roomMiB >= vm.spec.memoryMiB && vm.state.notBefore < clock.now() && !mayStillRun)
          this.violated('ends-in-time', `${vm.name} waits though there is room for it: ${vm.state.because}`);
      } else if (kind !== 'stopped') {
        this.violated('ends-in-time', `${vm.name} is still ${kind}`);
      }
    }
  }

  #checkProcesses({ fleet }: ControlPlane): void {
    const unsettled = fleet.unsettledMigrations();
    for (const host of this.#world.hosts) {
      for (const process of host.machine.processes) {
        const vm = fleet.vms.get(process.vm);
        const belongs = vm && fleet.hostName(vm.host) === host.name && vm.state.kind !== 'stopped';
        const moves = unsettled.some((migration) => migration.vm === process.vm);
        if (!belongs && !moves) {
          const says = `${vm?.name ?? process.vm} has a process on ${host.name} (${wordsOf(process)})`;
          this.violated(
            'nothing-left-over',
            `${says}, and is ${vm ? `${vm.state.kind} on ${fleet.hostName(vm.host)}` : 'deleted'}`,
          );
        }
      }
    }
  }

  #checkRooms({ fleet }: ControlPlane): void {
    const unsettled = new Set<string>(fleet.unsettledMigrations().map(({ id }) => id));
    for (const room of fleet.rooms.values()) {
      for (const id of Object.keys(room.reservationsMiB)) {
        if (!unsettled.has(id)) this.violated('nothing-left-over', `room on ${room.host} is reserved for ${id}`);
      }
    }
  }

  /** A drain has ended, or says of each VM that is left why it does not go on; what could go on does. */
  #checkDrains(plane: ControlPlane): void {
    for (const drain of plane.fleet.drains.values()) {
      const { state, says, blocked, vms, remaining, host } = drainView(plane, drain);
      if ((state !== 'draining' && state !== 'returning') || this.#needsPerson(plane, drain.host)) continue;
      if (vms.some(({ migration }) => migration !== null)) continue; // what a move waits for is looked at by itself
      const queued = vms.filter((row) => row.state === 'queued').map(({ name }) => name);
      if (queued.length > 0)
        this.violated('drain-speaks', `${queued.join(', ')} could go, and nothing begins: ${says}`);
      if (vms.some((row) => row.state === 'stuck' && (row.says === null || row.next === null)))
        this.violated('drain-speaks', `a VM on ${host} is stuck without a word`);
      const left = plane.fleet
        .unsettledMigrations()
        .some((each) => each.source === drain.host || each.target === drain.host);
      if (state === 'draining' && remaining === 0 && !left)
        this.violated('drain-speaks', `${host} is empty, and its drain does not end`);
      const refused = drain.vms.filter(({ stuck }) => stuck !== null).every(({ stuck }) => stuck?.kind === 'refused');
      if (state === 'draining' && remaining > 0 && refused && blocked === null)
        this.violated('drain-speaks', `the drain of ${host} does not go on and does not say so: ${says}`);
    }
  }

  /** A fact that was acknowledged is on record: told once more it changes nothing. */
  #checkFacts({ fleet }: ControlPlane): void {
    for (const fact of this.#acknowledged) {
      const migration = fleet.migrations.get(fact.migration);
      if (migration === undefined) {
        this.violated(
          'facts-on-record',
          `${fact.migration} is on no record, though '${fact.kind}' of it was acknowledged`,
        );
        continue;
      }
      let again: Migration;
      try {
        again = step(migration, fact);
      } catch (error) {
        this.violated('facts-on-record', `${fact.kind} once more: ${messageOf(error)}`);
        continue;
      }
      const proofs = Object.keys(again.evidence).length - Object.keys(migration.evidence).length;
      if (again.phase !== migration.phase || proofs !== 0) {
        this.violated(
          'facts-on-record',
          `${migration.id} (${migration.phase}): '${fact.kind}' was acknowledged and is not on record`,
        );
      }
    }
  }

  /** What guests really ran, against what is on record of it. */
  #checkTasks({ fleet, clock }: ControlPlane): void {
    const ran = new Map<string, number>();
    for (const id of ranIn(this.#world.wire)) ran.set(id, (ran.get(id) ?? 0) + 1);
    for (const [id, times] of ran) if (times > 1) this.violated('task-once', `${id} ran ${times} times`);
    for (const task of fleet.tasks.values()) {
      for (const { number, outcome } of task.attempts) {
        const times = ran.get(taskClaim(task.id, number)) ?? 0;
        const hasRun = outcome?.kind === 'succeeded' || outcome?.kind === 'failed' || outcome?.kind === 'timed-out';
        if (hasRun && times !== 1) this.violated('task-once', `${task.id} ${outcome.kind}, and no guest has run it`);
      }
      const open = openAttempt(task);
      const lateMs = open && clock.now() - open.assignedAt - task.wish.timeLimitMs - unheardAfterMs;
      if (lateMs !== undefined && lateMs > taskGraceMs) this.violated('ends-in-time', `${task.id} has not ended`);
      const may = open === undefined && task.attempts.length <= task.wish.retries;
      if (task.outcome === null && open === undefined && !may)
        this.violated('task-once', `${task.id} is queued after ${task.attempts.length} attempts`);
    }
  }

  #processesOf(vm: VmId): SimulatedProcess[] {
    return this.#world.hosts.flatMap(({ machine }) => machine.processes.filter((process) => process.vm === vm));
  }
}

/** A host's guests, for whoever does something to all of them. */
export function guestsOn(host: SimHost): VmId[] {
  return host.machine.processes.map(({ vm }) => vm);
}

function wordsOf({ state, generation, life }: SimulatedProcess): string {
  return `${state}, generation ${generation}, life ${life}`;
}
