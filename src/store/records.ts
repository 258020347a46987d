/**
 * Which records there are, under which keys, and reading them back with their type. One commit may write several of them;
 * names are kept unique by an index entry that must be absent when a record is made.
 *
 *   host/<id>  room/<host id>  sleep/<host id>  vm/<id>  migration/<id>  recovery/<id>  drain/<id>  host-name/<name>
 *   vm-name/<name>  task/<id>  task-output/<task id>  energy/<day>/<host id>  demand/fleet  request/<endpoint>/<key>  restored/fleet
 *   balance/fleet  plan/<id>  decision/<id>
 *   user/<name>  token/<hash>  session/<hash>  audit/<id>  webhook/<id>  delivery/<webhook id>/<id>     (plain: see plainKinds)
 *
 * Not here: what may be written when (control/), and the engines.
 */
import type { AuditRecord, SessionRecord, TokenRecord, UserRecord } from '../model/access.ts';
import type { DrainRecord } from '../model/drain.ts';
import { UserError } from '../model/failure.ts';
import type { EnergyRecord } from '../model/energy.ts';
import type { DemandRecord, RestoredRecord } from '../model/fleet.ts';
import type { HostRecord, RoomRecord } from '../model/host.ts';
import type { DecisionId, DrainId, HostId, MigrationId, PlanId, RecoveryId, TaskId, VmId } from '../model/ids.ts';
import type { BalanceSettings, DecisionRecord, PlanRecord } from '../model/distribution.ts';
import type { Migration } from '../model/migration.ts';
import type { RecoveryRecord } from '../model/recovery.ts';
import type { SleepRecord } from '../model/sleep.ts';
import type { TaskOutputRecord, TaskRecord } from '../model/task.ts';
import { defaultPriority, noPlacingRules, type VmRecord } from '../model/vm.ts';
import type { DeliveryRecord, WebhookRecord } from '../model/webhook.ts';
import type { Entry, Store } from './store.ts';

/** Points from a name to the one record that has it. */
export interface NameRecord {
  readonly schema: 1;
  readonly id: string;
}

/** A POST that was done under an Idempotency-Key: the same key again gets what it made then. */
export interface RequestRecord {
  readonly schema: 1;
  /** What the request made. */
  readonly id: string;
  /** SHA-256 of its path and body, so that the key is not taken for another request. */
  readonly fingerprint: string;
  readonly at: number;
}

export interface RecordTypes {
  host: HostRecord;
  room: RoomRecord;
  sleep: SleepRecord;
  energy: EnergyRecord;
  demand: DemandRecord;
  vm: VmRecord;
  migration: Migration;
  recovery: RecoveryRecord;
  drain: DrainRecord;
  task: TaskRecord;
  'task-output': TaskOutputRecord;
  'host-name': NameRecord;
  'vm-name': NameRecord;
  request: RequestRecord;
  restored: RestoredRecord;
  balance: BalanceSettings;
  plan: PlanRecord;
  decision: DecisionRecord;
  user: UserRecord;
  token: TokenRecord;
  session: SessionRecord;
  audit: AuditRecord;
  webhook: WebhookRecord;
  delivery: DeliveryRecord;
}
export type RecordKind = keyof RecordTypes;

const kinds = {
  host: true,
  room: true,
  sleep: true,
  energy: true,
  demand: true,
  vm: true,
  migration: true,
  recovery: true,
  drain: true,
  task: true,
  'task-output': true,
  'host-name': true,
  'vm-name': true,
  request: true,
  restored: true,
  balance: true,
  plan: true,
  decision: true,
  user: true,
  token: true,
  session: true,
  audit: true,
  webhook: true,
  delivery: true,
} as const satisfies Record<RecordKind, true>;

export const recordKey = {
  host: (id: HostId) => `host/${id}`,
  room: (host: HostId) => `room/${host}`,
  sleep: (host: HostId) => `sleep/${host}`,
  energy: (day: string, host: HostId) => `energy/${day}/${host}`,
  demand: () => 'demand/fleet',
  vm: (id: VmId) => `vm/${id}`,
  migration: (id: MigrationId) => `migration/${id}`,
  recovery: (id: RecoveryId) => `recovery/${id}`,
  drain: (id: DrainId) => `drain/${id}`,
  task: (id: TaskId) => `task/${id}`,
  'task-output': (task: TaskId) => `task-output/${task}`,
  'host-name': (name: string) => `host-name/${name}`,
  'vm-name': (name: string) => `vm-name/${name}`,
  request: (endpoint: string, key: string) => `request/${endpoint}/${key}`,
  restored: () => 'restored/fleet',
  balance: () => 'balance/fleet',
  plan: (id: PlanId) => `plan/${id}`,
  decision: (id: DecisionId) => `decision/${id}`,
  user: (name: string) => `user/${name}`,
  token: (hash: string) => `token/${hash}`,
  session: (hash: string) => `session/${hash}`,
  audit: (id: string) => `audit/${id}`,
  webhook: (id: string) => `webhook/${id}`,
  delivery: (id: string) => `delivery/${id}`,
} as const satisfies Record<RecordKind, (...parts: never[]) => string>;

/** Kinds that need no index and that nothing else follows from: each is a map from the rest of its key. */
export const plainKinds = ['user', 'token', 'session', 'audit', 'webhook', 'delivery'] as const;
export type PlainKind = (typeof plainKinds)[number];

export function isPlainKind(kind: RecordKind): kind is PlainKind {
  return plainKinds.some((plain) => plain === kind);
}

/** What a key stands for; undefined for keys that are not records (the lead, for one). */
export function kindOfKey(key: string): { readonly kind: RecordKind; readonly rest: string } | undefined {
  const slash = key.indexOf('/');
  const kind = key.slice(0, slash);
  return isKind(kind) ? { kind, rest: key.slice(slash + 1) } : undefined;
}

export type AnyRecord = { [K in RecordKind]: { readonly kind: K; readonly record: RecordTypes[K] } }[RecordKind];

/**
 * The record in an entry; undefined for entries that are none.
 * @throws UserError incompatible when a newer Drover wrote it: reading it wrongly would be worse than stopping
 */
export function recordIn(entry: Pick<Entry, 'key' | 'value'>): AnyRecord | undefined {
  const key = kindOfKey(entry.key);
  if (key === undefined) return undefined;
  const { value } = entry;
  if (value === null || typeof value !== 'object' || !('schema' in value) || typeof value.schema !== 'number') {
    throw new Error(`${entry.key} holds no record: it has no schema number`);
  }
  let record: object = value;
  for (let schema = value.schema; schema !== schemas[key.kind]; schema++) {
    const upgrade = upgrades[`${key.kind} ${schema}`];
    if (upgrade === undefined) {
      throw new UserError(
        'incompatible',
        `${entry.key} was not written by this version of Drover: it knows schema ${schemas[key.kind]}, not ${value.schema}`,
        'a newer Drover wrote it: run that version, or restore a backup that this one made',
      );
    }
    record = upgrade(record);
  }
  // The cast: only records of this kind are ever put under its keys, and the schema number says in which version.
  return { kind: key.kind, record } as unknown as AnyRecord;
}

/**
 * Before anything is written into a store: can all of it be read?
 * @throws UserError incompatible when a newer Drover wrote a record in it
 */
export async function refuseNewerRecords(store: Pick<Store, 'list'>): Promise<void> {
  const { entries } = await store.list('');
  for (const entry of entries) recordIn(entry);
}

/** What is written today. */
const schemas = {
  host: 2,
  room: 1,
  sleep: 1,
  energy: 1,
  demand: 1,
  vm: 3,
  migration: 1,
  recovery: 1,
  drain: 1,
  task: 1,
  'task-output': 1,
  'host-name': 1,
  'vm-name': 1,
  request: 1,
  restored: 1,
  balance: 2,
  plan: 2,
  decision: 1,
  user: 1,
  token: 1,
  session: 1,
  audit: 1,
  webhook: 1,
  delivery: 1,
} as const satisfies { [K in RecordKind]: RecordTypes[K]['schema'] };

/** From the named schema of a kind to the next one. A record is upgraded when it is read and written back when it changes. */
const upgrades: Readonly<Record<string, (record: object) => object>> = {
  'host 1': (record) => ({ ...record, schema: 2, power: null, fenced: null, failing: null }),
  'vm 1': (record) => ({
    ...record,
    schema: 2,
    recovery: 'restart',
    restart: 'never',
    priority: defaultPriority,
    restarts: { count: 0, lastAt: 0 },
  }),
  'balance 1': (record) => ({ ...record, schema: 2, goal: 'balance' }),
  'plan 1': (record) => ({ ...record, schema: 2, power: [], keeps: [] }),
  'vm 2': (record) => ({ ...record, schema: 3, placing: noPlacingRules }),
};

function isKind(text: string): text is RecordKind {
  return Object.hasOwn(kinds, text);
}
