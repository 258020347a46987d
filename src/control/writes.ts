/** What one decision writes, kept until it is committed; what it reads sees its own writes. Not here: the commit (fleet.ts). */
import { defaultBalanceSettings } from '../model/distribution.ts';
import type { BalanceSettings, DecisionRecord, PlanRecord } from '../model/distribution.ts';
import type { DrainRecord } from '../model/drain.ts';
import type { EnergyRecord } from '../model/energy.ts';
import type { DemandRecord, RestoredRecord } from '../model/fleet.ts';
import type { HostRecord, RoomRecord } from '../model/host.ts';
import type { DecisionId, DrainId, HostId, MigrationId, PlanId, RecoveryId, TaskId, VmId } from '../model/ids.ts';
import type { Migration } from '../model/migration.ts';
import type { RecoveryRecord } from '../model/recovery.ts';
import type { SleepRecord } from '../model/sleep.ts';
import type { TaskOutputRecord, TaskRecord } from '../model/task.ts';
import type { VmRecord } from '../model/vm.ts';
import { recordKey } from '../store/records.ts';
import type { NameRecord, PlainKind, RecordTypes, RequestRecord } from '../store/records.ts';
import type { Draft, Fleet } from './fleet.ts';

export class Writes implements Draft {
  /** Undefined: delete. */
  readonly writes = new Map<string, unknown>();
  readonly #fleet: Fleet;

  constructor(fleet: Fleet) {
    this.#fleet = fleet;
  }

  host(id: HostId): HostRecord | undefined {
    return this.#read(recordKey.host(id), this.#fleet.hosts.get(id));
  }
  room(host: HostId): RoomRecord | undefined {
    return this.#read(recordKey.room(host), this.#fleet.rooms.get(host));
  }
  sleep(host: HostId): SleepRecord | undefined {
    return this.#read(recordKey.sleep(host), this.#fleet.sleeps.get(host));
  }
  vm(id: VmId): VmRecord | undefined {
    return this.#read(recordKey.vm(id), this.#fleet.vms.get(id));
  }
  migration(id: MigrationId): Migration | undefined {
    return this.#read(recordKey.migration(id), this.#fleet.migrations.get(id));
  }
  recovery(id: RecoveryId): RecoveryRecord | undefined {
    return this.#read(recordKey.recovery(id), this.#fleet.recoveries.get(id));
  }
  drain(id: DrainId): DrainRecord | undefined {
    return this.#read(recordKey.drain(id), this.#fleet.drains.get(id));
  }
  task(id: TaskId): TaskRecord | undefined {
    return this.#read(recordKey.task(id), this.#fleet.tasks.get(id));
  }
  plan(id: PlanId): PlanRecord | undefined {
    return this.#read(recordKey.plan(id), this.#fleet.plans.get(id));
  }
  decision(id: DecisionId): DecisionRecord | undefined {
    return this.#read(recordKey.decision(id), this.#fleet.decisions.get(id));
  }
  balance(): BalanceSettings {
    return this.#read(recordKey.balance(), this.#fleet.balance) ?? defaultBalanceSettings;
  }
  plain<K extends PlainKind>(kind: K, rest: string): RecordTypes[K] | undefined {
    return this.#read<RecordTypes[K]>(plainKey(kind, rest), this.#fleet.plain(kind).get(rest));
  }
  putHost(host: HostRecord): void {
    if (this.host(host.id) === undefined) this.#index(recordKey['host-name'](host.name), host.id);
    this.writes.set(recordKey.host(host.id), host);
  }
  putRoom(room: RoomRecord): void {
    this.writes.set(recordKey.room(room.host), room);
  }
  putSleep(sleep: SleepRecord): void {
    this.writes.set(recordKey.sleep(sleep.host), sleep);
  }
  putEnergy(energy: EnergyRecord): void {
    this.writes.set(recordKey.energy(energy.day, energy.host), energy);
  }
  putDemand(demand: DemandRecord): void {
    this.writes.set(recordKey.demand(), demand);
  }
  putVm(vm: VmRecord): void {
    if (this.vm(vm.id) === undefined) this.#index(recordKey['vm-name'](vm.name), vm.id);
    this.writes.set(recordKey.vm(vm.id), vm);
  }
  putMigration(migration: Migration): void {
    this.writes.set(recordKey.migration(migration.id), migration);
  }
  putRecovery(recovery: RecoveryRecord): void {
    this.writes.set(recordKey.recovery(recovery.id), recovery);
  }
  putDrain(drain: DrainRecord): void {
    this.writes.set(recordKey.drain(drain.id), drain);
  }
  putTask(task: TaskRecord): void {
    this.writes.set(recordKey.task(task.id), task);
  }
  putTaskOutput(output: TaskOutputRecord): void {
    this.writes.set(recordKey['task-output'](output.task), output);
  }
  putPlan(plan: PlanRecord): void {
    this.writes.set(recordKey.plan(plan.id), plan);
  }
  putDecision(decision: DecisionRecord): void {
    this.writes.set(recordKey.decision(decision.id), decision);
  }
  putBalance(settings: BalanceSettings): void {
    this.writes.set(recordKey.balance(), settings);
  }
  putRequest(endpoint: string, key: string, request: RequestRecord): void {
    this.writes.set(recordKey.request(endpoint, key), request);
  }
  putRestored(restored: RestoredRecord): void {
    this.writes.set(recordKey.restored(), restored);
  }
  removeHost(host: HostRecord): void {
    this.writes.set(recordKey.host(host.id), undefined);
    this.writes.set(recordKey.room(host.id), undefined);
    this.writes.set(recordKey.sleep(host.id), undefined);
    this.writes.set(recordKey['host-name'](host.name), undefined);
  }
  removeEnergy({ day, host }: EnergyRecord): void {
    this.writes.set(recordKey.energy(day, host), undefined);
  }
  removeVm(vm: VmRecord): void {
    this.writes.set(recordKey.vm(vm.id), undefined);
    this.writes.set(recordKey['vm-name'](vm.name), undefined);
  }
  removeMigration(id: MigrationId): void {
    this.writes.set(recordKey.migration(id), undefined);
  }
  removeRecovery(id: RecoveryId): void {
    this.writes.set(recordKey.recovery(id), undefined);
  }
  removeDrain(id: DrainId): void {
    this.writes.set(recordKey.drain(id), undefined);
  }
  removeTask(id: TaskId): void {
    this.writes.set(recordKey.task(id), undefined);
    this.removeTaskOutput(id);
  }
  removeTaskOutput(id: TaskId): void {
    if (this.#fleet.taskOutputs.has(id)) this.writes.set(recordKey['task-output'](id), undefined);
  }
  removePlan(id: PlanId): void {
    this.writes.set(recordKey.plan(id), undefined);
  }
  removeDecision(id: DecisionId): void {
    this.writes.set(recordKey.decision(id), undefined);
  }
  removeRequest(storeKey: string): void {
    this.writes.set(storeKey, undefined);
  }
  putPlain<K extends PlainKind>(kind: K, rest: string, record: RecordTypes[K]): void {
    this.writes.set(plainKey(kind, rest), record);
  }
  removePlain(kind: PlainKind, rest: string): void {
    this.writes.set(plainKey(kind, rest), undefined);
  }

  #index(key: string, id: string): void {
    this.writes.set(key, { schema: 1, id } satisfies NameRecord);
  }

  #read<T>(key: string, committed: T | undefined): T | undefined {
    // The cast: only the put of the same kind writes under this key.
    return this.writes.has(key) ? (this.writes.get(key) as T | undefined) : committed;
  }
}

const plainKey = (kind: PlainKind, rest: string): string => recordKey[kind](rest);
