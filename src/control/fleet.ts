/**
 * What is known of the fleet: every record in memory, and the one way to change them. Reads come from here; a change is a
 * function that decides on the newest state and writes into a draft, and the draft becomes one guarded commit.
 *
 *   change(decide) -> queue -> decide(draft) -> commit(term guard + a guard per key) -> maps updated -> listeners told
 *
 * Decisions run one after another, so each sees what the one before it wrote: that is why nothing here needs a lock and why a
 * fact that arrives twice finds itself already written. A decision that throws has written nothing.
 *
 * Not here: what the decisions are (guests, migrations, reservations, agents).
 */
import type { DrainRecord } from '../model/drain.ts';
import { UserError, messageOf } from '../model/failure.ts';
import type { EnergyRecord } from '../model/energy.ts';
import type { DemandRecord, RestoredRecord } from '../model/fleet.ts';
import type { HostRecord, RoomRecord } from '../model/host.ts';
import { didYouMean } from '../model/ids.ts';
import type { DecisionId, DrainId, HostId, MigrationId, PlanId, RecoveryId, TaskId, VmId } from '../model/ids.ts';
import { defaultBalanceSettings } from '../model/distribution.ts';
import type { BalanceSettings, DecisionRecord, PlanRecord } from '../model/distribution.ts';
import type { Migration } from '../model/migration.ts';
import type { RecoveryRecord } from '../model/recovery.ts';
import type { SleepRecord } from '../model/sleep.ts';
import { openAttempt, type TaskOutputRecord, type TaskRecord } from '../model/task.ts';
import type { VmRecord } from '../model/vm.ts';
import { outstanding } from '../migration/step.ts';
import { isEnd } from '../migration/phases.ts';
import { systemClock } from '../runtime/clock.ts';
import type { Clock } from '../runtime/clock.ts';
import type { Log } from '../runtime/log.ts';
import { KeyedQueue } from '../runtime/queue.ts';
import type { Leadership } from '../store/leadership.ts';
import { leaderKey } from '../store/leadership.ts';
import { isPlainKind, kindOfKey, plainKinds, recordIn } from '../store/records.ts';
import type { PlainKind, RecordTypes, RequestRecord } from '../store/records.ts';
import { OutcomeUnknown, StoreClosed, StoreUnavailable } from '../store/store.ts';
import type { CommitResult, Guard, Revision, Store, Write } from '../store/store.ts';
import { refuseHalfRestored } from './backup.ts';
import { outcomeOf } from './outcome.ts';
import { Writes } from './writes.ts';

const waitingLimit = 20_000;
/** With the pauses between them some six seconds: longer than a store takes to find a new leader of its own. */
const commitAttempts = 8;
const firstPauseMs = 100;

/** One record before and after a commit. */
export type FleetChange = {
  [K in keyof Kept]: {
    readonly kind: K;
    readonly before: Kept[K][1] | undefined;
    readonly after: Kept[K][1] | undefined;
  };
}[keyof Kept];

/** What a decision reads and writes. Reads see the draft's own writes. */
export interface Draft {
  host(id: HostId): HostRecord | undefined;
  room(host: HostId): RoomRecord | undefined;
  sleep(host: HostId): SleepRecord | undefined;
  vm(id: VmId): VmRecord | undefined;
  migration(id: MigrationId): Migration | undefined;
  recovery(id: RecoveryId): RecoveryRecord | undefined;
  drain(id: DrainId): DrainRecord | undefined;
  task(id: TaskId): TaskRecord | undefined;
  plan(id: PlanId): PlanRecord | undefined;
  decision(id: DecisionId): DecisionRecord | undefined;
  balance(): BalanceSettings;
  plain<K extends PlainKind>(kind: K, rest: string): RecordTypes[K] | undefined;
  putHost(host: HostRecord): void;
  putRoom(room: RoomRecord): void;
  putSleep(sleep: SleepRecord): void;
  putEnergy(energy: EnergyRecord): void;
  putDemand(demand: DemandRecord): void;
  putVm(vm: VmRecord): void;
  putMigration(migration: Migration): void;
  putRecovery(recovery: RecoveryRecord): void;
  putDrain(drain: DrainRecord): void;
  putTask(task: TaskRecord): void;
  putTaskOutput(output: TaskOutputRecord): void;
  putRequest(endpoint: string, key: string, request: RequestRecord): void;
  putRestored(restored: RestoredRecord): void;
  putPlan(plan: PlanRecord): void;
  putDecision(decision: DecisionRecord): void;
  putBalance(settings: BalanceSettings): void;
  removeHost(host: HostRecord): void;
  removeEnergy(energy: EnergyRecord): void;
  removeVm(vm: VmRecord): void;
  removeMigration(id: MigrationId): void;
  removeRecovery(id: RecoveryId): void;
  removeDrain(id: DrainId): void;
  removeTask(id: TaskId): void;
  removeTaskOutput(id: TaskId): void;
  removePlan(id: PlanId): void;
  removeDecision(id: DecisionId): void;
  removeRequest(storeKey: string): void;
  putPlain<K extends PlainKind>(kind: K, rest: string, record: RecordTypes[K]): void;
  removePlain(kind: PlainKind, rest: string): void;
}

export class Fleet {
  readonly #store: Store;
  readonly #clock: Clock;
  readonly #leadership: Leadership;
  readonly #log: Log;
  readonly #queue = new KeyedQueue({ limit: waitingLimit });
  readonly #listeners = new Set<(changes: readonly FleetChange[]) => void>();
  readonly #changedAt = new Map<string, Revision>();
  readonly #hosts = new Map<HostId, HostRecord>();
  readonly #rooms = new Map<HostId, RoomRecord>();
  readonly #sleeps = new Map<HostId, SleepRecord>();
  readonly #vms = new Map<VmId, VmRecord>();
  readonly #migrations = new Map<MigrationId, Migration>();
  readonly #recoveries = new Map<RecoveryId, RecoveryRecord>();
  readonly #drains = new Map<DrainId, DrainRecord>();
  readonly #plans = new Map<PlanId, PlanRecord>();
  readonly #decisions = new Map<DecisionId, DecisionRecord>();
  #balance: BalanceSettings | undefined;
  readonly #unsettled = new Set<MigrationId>();
  readonly #tasks = new Map<TaskId, TaskRecord>();
  readonly #taskOutputs = new Map<TaskId, TaskOutputRecord>();
  readonly #queuedTasks = new Set<TaskId>();
  readonly #givenTasks = new Set<TaskId>();
  readonly #hostNames = new Map<string, HostId>();
  readonly #vmNames = new Map<string, VmId>();
  /** By name; null: to be sorted again. */
  #vmOrder: VmId[] | null = null;
  readonly #requests = new Map<string, RequestRecord>();
  readonly #energies = new Map<string, EnergyRecord>();
  #demand: DemandRecord | undefined;
  #restored: RestoredRecord | undefined;
  readonly #plain = new Map<PlainKind, Map<string, unknown>>(plainKinds.map((kind) => [kind, new Map()]));
  #revision: Revision = 0;
  /** Nobody could say what came of the last commit: nothing is decided before the next look. */
  #stale = false;

  private constructor(store: Store, leadership: Leadership, log: Log, clock: Clock) {
    this.#clock = clock;
    this.#store = store;
    this.#leadership = leadership;
    this.#log = log;
  }

  static async load(store: Store, leadership: Leadership, log: Log, clock: Clock = systemClock): Promise<Fleet> {
    const fleet = new Fleet(store, leadership, log, clock);
    await fleet.#read();
    return fleet;
  }

  get hosts(): ReadonlyMap<HostId, HostRecord> {
    return this.#hosts;
  }
  get rooms(): ReadonlyMap<HostId, RoomRecord> {
    return this.#rooms;
  }
  /** Of hosts about whose sleep something was ever said. */
  get sleeps(): ReadonlyMap<HostId, SleepRecord> {
    return this.#sleeps;
  }
  /** By day and host: `2026-03-01/host_...` */
  get energies(): ReadonlyMap<string, EnergyRecord> {
    return this.#energies;
  }
  /** The pattern of the fleet's load; undefined: nothing was learned yet. */
  get demand(): DemandRecord | undefined {
    return this.#demand;
  }
  get vms(): ReadonlyMap<VmId, VmRecord> {
    return this.#vms;
  }
  /** In the order in which they were started. */
  get migrations(): ReadonlyMap<MigrationId, Migration> {
    return this.#migrations;
  }
  /** In the order in which hosts were fenced. */
  get recoveries(): ReadonlyMap<RecoveryId, RecoveryRecord> {
    return this.#recoveries;
  }
  /** In the order in which they were begun. */
  get drains(): ReadonlyMap<DrainId, DrainRecord> {
    return this.#drains;
  }
  /** In the order in which they were asked for. */
  get tasks(): ReadonlyMap<TaskId, TaskRecord> {
    return this.#tasks;
  }
  /** Of tasks that have ended, those ended longest ago first. */
  get taskOutputs(): ReadonlyMap<TaskId, TaskOutputRecord> {
    return this.#taskOutputs;
  }
  /** In the order in which they were made. */
  get plans(): ReadonlyMap<PlanId, PlanRecord> {
    return this.#plans;
  }
  /** In the order in which they were taken. */
  get decisions(): ReadonlyMap<DecisionId, DecisionRecord> {
    return this.#decisions;
  }
  get balance(): BalanceSettings {
    return this.#balance ?? defaultBalanceSettings;
  }
  get requests(): ReadonlyMap<string, RequestRecord> {
    return this.#requests;
  }
  /** By the rest of their key, in its order. */
  plain<K extends PlainKind>(kind: K): ReadonlyMap<string, RecordTypes[K]> {
    // The cast: `#take` puts only records of this kind there.
    return this.#plain.get(kind) as ReadonlyMap<string, RecordTypes[K]>;
  }
  /** Since the records last turned out to be older than the fleet; undefined: never. */
  get restored(): RestoredRecord | undefined {
    return this.#restored;
  }
  get revision(): Revision {
    return this.#revision;
  }
  /** The revision with which this term began: what earlier terms wrote is older. */
  get termStart(): Revision {
    const { guard } = this.#leadership;
    return 'created' in guard ? guard.created : 0;
  }
  get term(): number {
    return this.#leadership.term;
  }

  /** Migrations that are open, or ended while something is still to be cleared away. */
  unsettledMigrations(): Migration[] {
    return [...this.#unsettled].flatMap((id) => this.#migrations.get(id) ?? []);
  }

  get hasQueuedTasks(): boolean {
    return this.#queuedTasks.size > 0;
  }

  /** Queued, or given to a VM. */
  get openTaskCount(): number {
    return this.#queuedTasks.size + this.#givenTasks.size;
  }

  /** Those that no VM has, in the order in which they came to be queued. */
  queuedTasks(): TaskRecord[] {
    return [...this.#queuedTasks].flatMap((id) => this.#tasks.get(id) ?? []);
  }

  /** Those that a VM has and of whose end nothing is known. */
  givenTasks(): TaskRecord[] {
    return [...this.#givenTasks].flatMap((id) => this.#tasks.get(id) ?? []);
  }

  hostNamed(name: string): HostRecord | undefined {
    const id = this.#hostNames.get(name);
    return id === undefined ? undefined : this.#hosts.get(id);
  }

  /** By name or id. @throws UserError not-found */
  findHost(ref: string): HostRecord {
    // The cast: whether it is an id is what is being asked.
    const found = this.hostNamed(ref) ?? this.#hosts.get(ref as HostId);
    if (found) return found;
    throw notFound('host', ref, [...this.#hostNames.keys()], 'drover host list');
  }

  /** All VMs, sorted by name: once, for as long as there are none but these. */
  vmsByName(): VmRecord[] {
    this.#vmOrder ??= [...this.#vms.values()].toSorted((a, b) => (a.name < b.name ? -1 : 1)).map(({ id }) => id);
    return this.#vmOrder.flatMap((id) => this.#vms.get(id) ?? []);
  }

  vmNamed(name: string): VmRecord | undefined {
    const id = this.#vmNames.get(name);
    return id === undefined ? undefined : this.#vms.get(id);
  }

  /** By name or id. @throws UserError not-found */
  findVm(ref: string): VmRecord {
    const found = this.vmNamed(ref) ?? this.#vms.get(ref as VmId); // as above
    if (found) return found;
    throw notFound('VM', ref, [...this.#vmNames.keys()], 'drover vm list');
  }

  /** This and the next ones by id. @throws UserError not-found */
  findMigration(ref: string): Migration {
    return ofId('migration', this.#migrations, ref, 'drover migrations');
  }
  findRecovery(ref: string): RecoveryRecord {
    return ofId('recovery', this.#recoveries, ref, 'drover recoveries');
  }
  findDrain(ref: string): DrainRecord {
    return ofId('drain', this.#drains, ref, 'drover drains');
  }
  findTask(ref: string): TaskRecord {
    return ofId('task', this.#tasks, ref, 'drover task list');
  }
  findPlan(ref: string): PlanRecord {
    return ofId('plan', this.#plans, ref, 'drover recommendations list');
  }

  vmNameTaken(name: string): boolean {
    return this.#vmNames.has(name);
  }

  hostName(id: HostId): string {
    return this.#hosts.get(id)?.name ?? id;
  }

  /** Told after each commit, in order. A listener must not throw. */
  onCommit(listener: (changes: readonly FleetChange[]) => void): void {
    this.#listeners.add(listener);
  }

  /**
   * Decides on the newest state and commits what was written, all or nothing.
   * @param dryRun decides all the same, and writes nothing
   * @throws what `decide` throws, then nothing was written; UserError unavailable when the store or the lead is gone
   */
  async change<T>(decide: (draft: Draft) => T, { dryRun = false } = {}): Promise<T> {
    return this.#queue.run('commits', async () => {
      if (this.#stale) await this.#look();
      const draft = new Writes(this);
      const result = decide(draft);
      const { writes } = draft;
      if (writes.size > 0 && !dryRun) await this.#commit(writes);
      return result;
    });
  }

  /** The revision at which the record under this key was last changed; undefined: there is none. */
  changedAt(key: string): Revision | undefined {
    return this.#changedAt.get(key);
  }

  /** Resolves when the maps hold at least what the store held when this was called: its watchers can be earlier than we. */
  caughtUp(): Promise<void> {
    return this.#queue.run('commits', async () => {});
  }

  async #commit(writes: ReadonlyMap<string, unknown>): Promise<void> {
    const guards: Guard[] = [this.#leadership.guard];
    const list: Write[] = [];
    for (const [key, value] of writes) {
      const changed = this.#changedAt.get(key);
      guards.push(changed === undefined ? { key, absent: true } : { key, changed });
      list.push(value === undefined ? { key, delete: true } : { key, put: value });
    }
    const result = await this.#commitOnce(guards, list, writes);
    if (!result.ok) {
      if (result.failed.key !== leaderKey) await this.#look();
      throw new UserError(
        'unavailable',
        result.failed.key === leaderKey
          ? 'This server does not lead any more.'
          : `Something else changed ${result.failed.key} at the same moment.`,
        'Nothing was changed. Try again.',
      );
    }
    const changes: FleetChange[] = [];
    for (const [key, value] of writes) {
      const change = this.#take(key, value, result.revision);
      if (change) changes.push(change);
    }
    this.#revision = result.revision;
    for (const listener of this.#listeners) listener(changes);
  }

  /**
   * A commit whose answer is lost is sent again, with its guards: if the first one happened they fail, and if it is still on
   * its way it fails by them when it arrives. So one look is then enough to say which it was.
   * @throws UserError when nothing was changed, or nobody can say
   */
  async #commitOnce(
    guards: readonly Guard[],
    list: readonly Write[],
    writes: ReadonlyMap<string, unknown>,
  ): Promise<CommitResult> {
    let lost: OutcomeUnknown | undefined;
    for (let attempt = 0; attempt < commitAttempts; attempt++) {
      if (attempt > 1) await this.#clock.sleep(firstPauseMs * 2 ** (attempt - 2));
      try {
        const result = await this.#store.commit(guards, list);
        if (result.ok || lost === undefined) return result;
        const found = await this.#store.list('');
        const outcome = outcomeOf(writes, this.#changedAt, found, this.#leadership);
        this.#log.info({ outcome: outcome.kind }, 'looked what came of a commit whose answer was lost');
        if (outcome.kind === 'done') return { ok: true, revision: outcome.revision };
        if (outcome.kind === 'not-done') return result;
        break;
      } catch (error) {
        if (error instanceof OutcomeUnknown) {
          lost = error;
          continue;
        }
        if (!(error instanceof StoreUnavailable || error instanceof StoreClosed)) throw error;
        if (lost === undefined) {
          throw new UserError(
            'unavailable',
            `The store did not take the change: ${messageOf(error)}.`,
            'Nothing was changed. Try again; if it stays so, look at the log and the disk of the server.',
            { cause: error },
          );
        }
        if (error instanceof StoreClosed) break;
      }
    }
    this.#stale = true;
    throw new UserError(
      'unavailable',
      `The store did not say what came of the change: ${lost === undefined ? 'no answer' : messageOf(lost)}.`,
      'It may have happened or not: look before you try again.',
      { cause: lost },
    );
  }

  /** Nothing is decided on records that may be old. @throws UserError unavailable */
  async #look(): Promise<void> {
    this.#stale = true;
    try {
      await this.#read();
    } catch (error) {
      if (!(error instanceof StoreUnavailable || error instanceof StoreClosed)) throw error;
      throw new UserError(
        'unavailable',
        `The store cannot be read: ${messageOf(error)}.`,
        'Nothing was changed. Try again; if it stays so, look at the log and the disk of the server.',
        { cause: error },
      );
    }
  }

  async #read(): Promise<void> {
    const { entries, revision } = await this.#store.list('');
    refuseHalfRestored(entries);
    this.#changedAt.clear();
    this.#restored = undefined;
    this.#demand = undefined;
    this.#balance = undefined;
    for (const map of [
      this.#hosts,
      this.#rooms,
      this.#sleeps,
      this.#energies,
      this.#vms,
      this.#migrations,
      this.#recoveries,
      this.#drains,
      this.#tasks,
      this.#taskOutputs,
      this.#plans,
      this.#decisions,
      this.#hostNames,
      this.#vmNames,
      this.#requests,
      ...this.#plain.values(),
    ])
      map.clear();
    this.#vmOrder = null;
    this.#unsettled.clear();
    this.#queuedTasks.clear();
    this.#givenTasks.clear();
    for (const entry of entries) {
      if (recordIn(entry) !== undefined) this.#take(entry.key, entry.value, entry.changed);
    }
    this.#revision = revision;
    this.#stale = false;
    this.#log.debug({ revision, vms: this.#vms.size, migrations: this.#migrations.size }, 'read the store');
  }

  #take(key: string, value: unknown, revision: Revision): FleetChange | undefined {
    const kind = kindOfKey(key);
    if (kind === undefined) return undefined;
    if (value === undefined) this.#changedAt.delete(key);
    else this.#changedAt.set(key, revision);
    const rest = kind.rest;
    // The casts of `rest`: a key's last part is the id of its record, by records.ts.
    const found = value === undefined ? undefined : recordIn({ key, value });
    if (isPlainKind(kind.kind)) {
      if (found === undefined) this.#plain.get(kind.kind)?.delete(rest);
      else this.#plain.get(kind.kind)?.set(rest, found.record);
      return undefined;
    }
    switch (kind.kind) {
      case 'host':
        return swap('host', this.#hosts, rest as HostId, found?.kind === 'host' ? found.record : undefined);
      case 'room':
        return swap('room', this.#rooms, rest as HostId, found?.kind === 'room' ? found.record : undefined);
      case 'sleep':
        return swap('sleep', this.#sleeps, rest as HostId, found?.kind === 'sleep' ? found.record : undefined);
      case 'vm': {
        const vm = found?.kind === 'vm' ? found.record : undefined;
        if (this.#vms.get(rest as VmId)?.name !== vm?.name) this.#vmOrder = null;
        return swap('vm', this.#vms, rest as VmId, vm);
      }
      case 'migration': {
        const migration = found?.kind === 'migration' ? found.record : undefined;
        const id = rest as MigrationId;
        if (migration && (!isEnd(migration.phase) || outstanding(migration).length > 0)) this.#unsettled.add(id);
        else this.#unsettled.delete(id);
        return swap('migration', this.#migrations, id, migration);
      }
      case 'recovery': {
        const recovery = found?.kind === 'recovery' ? found.record : undefined;
        return swap('recovery', this.#recoveries, rest as RecoveryId, recovery);
      }
      case 'drain':
        return swap('drain', this.#drains, rest as DrainId, found?.kind === 'drain' ? found.record : undefined);
      case 'task': {
        const task = found?.kind === 'task' ? found.record : undefined;
        const id = rest as TaskId;
        const open = task?.outcome === null;
        const given = open && openAttempt(task) !== undefined;
        toggle(this.#givenTasks, id, given);
        toggle(this.#queuedTasks, id, open && !given);
        return swap('task', this.#tasks, id, task);
      }
      case 'task-output':
        this.#taskOutputs.delete(rest as TaskId);
        if (found?.kind === 'task-output') this.#taskOutputs.set(rest as TaskId, found.record);
        return undefined;
      case 'plan': {
        const plan = found?.kind === 'plan' ? found.record : undefined;
        return swap('plan', this.#plans, rest as PlanId, plan);
      }
      case 'decision': {
        const decision = found?.kind === 'decision' ? found.record : undefined;
        return swap('decision', this.#decisions, rest as DecisionId, decision);
      }
      case 'balance':
        this.#balance = found?.kind === 'balance' ? found.record : undefined;
        return undefined;
      case 'host-name':
        if (found?.kind === 'host-name') this.#hostNames.set(rest, found.record.id as HostId);
        else this.#hostNames.delete(rest);
        return undefined;
      case 'vm-name':
        if (found?.kind === 'vm-name') this.#vmNames.set(rest, found.record.id as VmId);
        else this.#vmNames.delete(rest);
        return undefined;
      case 'request':
        if (found?.kind === 'request') this.#requests.set(key, found.record);
        else this.#requests.delete(key);
        return undefined;
      case 'energy':
        if (found?.kind === 'energy') this.#energies.set(rest, found.record);
        else this.#energies.delete(rest);
        return undefined;
      case 'demand':
        this.#demand = found?.kind === 'demand' ? found.record : undefined;
        return undefined;
      case 'restored':
        this.#restored = found?.kind === 'restored' ? found.record : undefined;
        return undefined;
    }
  }
}

interface Kept {
  host: [HostId, HostRecord];
  room: [HostId, RoomRecord];
  sleep: [HostId, SleepRecord];
  vm: [VmId, VmRecord];
  migration: [MigrationId, Migration];
  recovery: [RecoveryId, RecoveryRecord];
  drain: [DrainId, DrainRecord];
  task: [TaskId, TaskRecord];
  plan: [PlanId, PlanRecord];
  decision: [DecisionId, DecisionRecord];
}

function swap<K extends keyof Kept>(
  kind: K,
  map: Map<Kept[K][0], Kept[K][1]>,
  id: Kept[K][0],
  after: Kept[K][1] | undefined,
): FleetChange {
  const before = map.get(id);
  if (after === undefined) map.delete(id);
  else map.set(id, after);
  // The cast: kind and record come from the same row of `Kept`, which the compiler cannot follow through a generic.
  return { kind, before, after } as FleetChange;
}

function toggle<T>(set: Set<T>, value: T, isIn: boolean): void {
  if (isIn) set.add(value);
  else set.delete(value);
}

function ofId<K extends string, V>(kind: string, map: ReadonlyMap<K, V>, ref: string, list: string): V {
  const found = map.get(ref as K); // whether it is one is what is being asked
  if (found !== undefined) return found;
  throw notFound(kind, ref, [], list);
}

function notFound(kind: string, ref: string, names: readonly string[], list: string): UserError {
  const near = didYouMean(ref, names);
  return new UserError(
    'not-found',
    `There is no ${kind} '${ref}'.`,
    near === undefined ? `\`${list}\` shows what there is.` : `Did you mean '${near}'?`,
  );
}
