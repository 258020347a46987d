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
import { UserError, messageOf } from '../model/failure.ts';
import type { HostRecord, RoomRecord } from '../model/host.ts';
import { didYouMean } from '../model/ids.ts';
import type { HostId, MigrationId, VmId } from '../model/ids.ts';
import type { Migration } from '../model/migration.ts';
import type { VmRecord } from '../model/vm.ts';
import { outstanding } from '../migration/step.ts';
import { isEnd } from '../migration/phases.ts';
import type { Log } from '../runtime/log.ts';
import { KeyedQueue } from '../runtime/queue.ts';
import type { Leadership } from '../store/leadership.ts';
import { leaderKey } from '../store/leadership.ts';
import { kindOfKey, recordIn, recordKey } from '../store/records.ts';
import type { NameRecord, RequestRecord } from '../store/records.ts';
import { OutcomeUnknown, StoreClosed, StoreUnavailable } from '../store/store.ts';
import type { Guard, Revision, Store, Write } from '../store/store.ts';

const waitingLimit = 20_000;

/** One record before and after a commit. */
export type FleetChange =
  | { readonly kind: 'host'; readonly before: HostRecord | undefined; readonly after: HostRecord | undefined }
  | { readonly kind: 'room'; readonly before: RoomRecord | undefined; readonly after: RoomRecord | undefined }
  | { readonly kind: 'vm'; readonly before: VmRecord | undefined; readonly after: VmRecord | undefined }
  | { readonly kind: 'migration'; readonly before: Migration | undefined; readonly after: Migration | undefined };

/** What a decision reads and writes. Reads see the draft's own writes. */
export interface Draft {
  host(id: HostId): HostRecord | undefined;
  room(host: HostId): RoomRecord | undefined;
  vm(id: VmId): VmRecord | undefined;
  migration(id: MigrationId): Migration | undefined;
  putHost(host: HostRecord): void;
  putRoom(room: RoomRecord): void;
  putVm(vm: VmRecord): void;
  putMigration(migration: Migration): void;
  putRequest(endpoint: string, key: string, request: RequestRecord): void;
  removeHost(host: HostRecord): void;
  removeVm(vm: VmRecord): void;
  removeMigration(id: MigrationId): void;
  removeRequest(storeKey: string): void;
}

export class Fleet {
  readonly #store: Store;
  readonly #leadership: Leadership;
  readonly #log: Log;
  readonly #queue = new KeyedQueue({ limit: waitingLimit });
  readonly #listeners = new Set<(changes: readonly FleetChange[]) => void>();
  readonly #changedAt = new Map<string, Revision>();
  readonly #hosts = new Map<HostId, HostRecord>();
  readonly #rooms = new Map<HostId, RoomRecord>();
  readonly #vms = new Map<VmId, VmRecord>();
  readonly #migrations = new Map<MigrationId, Migration>();
  readonly #unsettled = new Set<MigrationId>();
  readonly #hostNames = new Map<string, HostId>();
  readonly #vmNames = new Map<string, VmId>();
  readonly #requests = new Map<string, RequestRecord>();
  #revision: Revision = 0;

  private constructor(store: Store, leadership: Leadership, log: Log) {
    this.#store = store;
    this.#leadership = leadership;
    this.#log = log;
  }

  static async load(store: Store, leadership: Leadership, log: Log): Promise<Fleet> {
    const fleet = new Fleet(store, leadership, log);
    await fleet.#read();
    return fleet;
  }

  get hosts(): ReadonlyMap<HostId, HostRecord> {
    return this.#hosts;
  }
  get rooms(): ReadonlyMap<HostId, RoomRecord> {
    return this.#rooms;
  }
  get vms(): ReadonlyMap<VmId, VmRecord> {
    return this.#vms;
  }
  /** In the order in which they were started. */
  get migrations(): ReadonlyMap<MigrationId, Migration> {
    return this.#migrations;
  }
  get requests(): ReadonlyMap<string, RequestRecord> {
    return this.#requests;
  }
  get revision(): Revision {
    return this.#revision;
  }
  get term(): number {
    return this.#leadership.term;
  }

  /** Migrations that are open, or ended while something is still to be cleared away. */
  unsettledMigrations(): Migration[] {
    return [...this.#unsettled].flatMap((id) => this.#migrations.get(id) ?? []);
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

  /** By name or id. @throws UserError not-found */
  findVm(ref: string): VmRecord {
    const id = this.#vmNames.get(ref) ?? (ref as VmId); // as above
    const found = this.#vms.get(id);
    if (found) return found;
    throw notFound('VM', ref, [...this.#vmNames.keys()], 'drover vm list');
  }

  /** By id. @throws UserError not-found */
  findMigration(ref: string): Migration {
    const found = this.#migrations.get(ref as MigrationId); // as above
    if (found) return found;
    throw notFound('migration', ref, [], 'drover migrations');
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
   * @throws what `decide` throws, then nothing was written; UserError unavailable when the store or the lead is gone
   */
  async change<T>(decide: (draft: Draft) => T): Promise<T> {
    return this.#queue.run('commits', async () => {
      const draft = new Writes(this);
      const result = decide(draft);
      const { writes } = draft;
      if (writes.size > 0) await this.#commit(writes);
      return result;
    });
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
    let result;
    try {
      result = await this.#store.commit(guards, list);
    } catch (error) {
      if (error instanceof OutcomeUnknown) await this.#read();
      if (error instanceof OutcomeUnknown || error instanceof StoreUnavailable || error instanceof StoreClosed) {
        throw new UserError(
          'unavailable',
          `The store did not take the change: ${messageOf(error)}.`,
          error instanceof OutcomeUnknown
            ? 'It may have happened or not: look before you try again.'
            : 'Nothing was changed. Try again; if it stays so, look at the log and the disk of the server.',
          { cause: error },
        );
      }
      throw error;
    }
    if (!result.ok) {
      if (result.failed.key !== leaderKey) await this.#read();
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

  async #read(): Promise<void> {
    const { entries, revision } = await this.#store.list('');
    this.#changedAt.clear();
    for (const map of [
      this.#hosts,
      this.#rooms,
      this.#vms,
      this.#migrations,
      this.#hostNames,
      this.#vmNames,
      this.#requests,
    ])
      map.clear();
    this.#unsettled.clear();
    for (const entry of entries) {
      if (recordIn(entry) !== undefined) this.#take(entry.key, entry.value, entry.changed);
    }
    this.#revision = revision;
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
    switch (kind.kind) {
      case 'host':
        return swap('host', this.#hosts, rest as HostId, found?.kind === 'host' ? found.record : undefined);
      case 'room':
        return swap('room', this.#rooms, rest as HostId, found?.kind === 'room' ? found.record : undefined);
      case 'vm':
        return swap('vm', this.#vms, rest as VmId, found?.kind === 'vm' ? found.record : undefined);
      case 'migration': {
        const migration = found?.kind === 'migration' ? found.record : undefined;
        const id = rest as MigrationId;
        if (migration && (!isEnd(migration.phase) || outstanding(migration).length > 0)) this.#unsettled.add(id);
        else this.#unsettled.delete(id);
        return swap('migration', this.#migrations, id, migration);
      }
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
    }
  }
}

interface Kept {
  host: [HostId, HostRecord];
  room: [HostId, RoomRecord];
  vm: [VmId, VmRecord];
  migration: [MigrationId, Migration];
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

class Writes implements Draft {
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
  vm(id: VmId): VmRecord | undefined {
    return this.#read(recordKey.vm(id), this.#fleet.vms.get(id));
  }
  migration(id: MigrationId): Migration | undefined {
    return this.#read(recordKey.migration(id), this.#fleet.migrations.get(id));
  }
  putHost(host: HostRecord): void {
    if (this.host(host.id) === undefined) this.#index(recordKey['host-name'](host.name), host.id);
    this.writes.set(recordKey.host(host.id), host);
  }
  putRoom(room: RoomRecord): void {
    this.writes.set(recordKey.room(room.host), room);
  }
  putVm(vm: VmRecord): void {
    if (this.vm(vm.id) === undefined) this.#index(recordKey['vm-name'](vm.name), vm.id);
    this.writes.set(recordKey.vm(vm.id), vm);
  }
  putMigration(migration: Migration): void {
    this.writes.set(recordKey.migration(migration.id), migration);
  }
  putRequest(endpoint: string, key: string, request: RequestRecord): void {
    this.writes.set(recordKey.request(endpoint, key), request);
  }
  removeHost(host: HostRecord): void {
    this.writes.set(recordKey.host(host.id), undefined);
    this.writes.set(recordKey.room(host.id), undefined);
    this.writes.set(recordKey['host-name'](host.name), undefined);
  }
  removeVm(vm: VmRecord): void {
    this.writes.set(recordKey.vm(vm.id), undefined);
    this.writes.set(recordKey['vm-name'](vm.name), undefined);
  }
  removeMigration(id: MigrationId): void {
    this.writes.set(recordKey.migration(id), undefined);
  }
  removeRequest(storeKey: string): void {
    this.writes.set(storeKey, undefined);
  }

  #index(key: string, id: string): void {
    this.writes.set(key, { schema: 1, id } satisfies NameRecord);
  }

  #read<T>(key: string, committed: T | undefined): T | undefined {
    // The cast: only the put of the same kind writes under this key.
    return this.writes.has(key) ? (this.writes.get(key) as T | undefined) : committed;
  }
}

function notFound(kind: string, ref: string, names: readonly string[], list: string): UserError {
  const near = didYouMean(ref, names);
  return new UserError(
    'not-found',
    `There is no ${kind} '${ref}'.`,
    near === undefined ? `\`${list}\` shows what there is.` : `Did you mean '${near}'?`,
  );
}
