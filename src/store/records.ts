/**
 * Which records there are, under which keys, and reading them back with their type. One commit may write several of them;
 * names are kept unique by an index entry that must be absent when a record is made.
 *
 *   host/<id>  room/<host id>  vm/<id>  migration/<id>  host-name/<name>  vm-name/<name>  request/<endpoint>/<key>
 *
 * Not here: what may be written when (control/), and the engines.
 */
import type { HostRecord, RoomRecord } from '../model/host.ts';
import type { HostId, MigrationId, VmId } from '../model/ids.ts';
import type { Migration } from '../model/migration.ts';
import type { VmRecord } from '../model/vm.ts';
import type { Entry } from './store.ts';

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
  vm: VmRecord;
  migration: Migration;
  'host-name': NameRecord;
  'vm-name': NameRecord;
  request: RequestRecord;
}
export type RecordKind = keyof RecordTypes;

const kinds = {
  host: true,
  room: true,
  vm: true,
  migration: true,
  'host-name': true,
  'vm-name': true,
  request: true,
} as const satisfies Record<RecordKind, true>;

export const recordKey = {
  host: (id: HostId) => `host/${id}`,
  room: (host: HostId) => `room/${host}`,
  vm: (id: VmId) => `vm/${id}`,
  migration: (id: MigrationId) => `migration/${id}`,
  'host-name': (name: string) => `host-name/${name}`,
  'vm-name': (name: string) => `vm-name/${name}`,
  request: (endpoint: string, key: string) => `request/${endpoint}/${key}`,
} as const satisfies Record<RecordKind, (...parts: never[]) => string>;

/** What a key stands for; undefined for keys that are not records (the lead, for one). */
export function kindOfKey(key: string): { readonly kind: RecordKind; readonly rest: string } | undefined {
  const slash = key.indexOf('/');
  const kind = key.slice(0, slash);
  return isKind(kind) ? { kind, rest: key.slice(slash + 1) } : undefined;
}

export type AnyRecord = { [K in RecordKind]: { readonly kind: K; readonly record: RecordTypes[K] } }[RecordKind];

/**
 * The record in an entry; undefined for entries that are none.
 * @throws Error when a newer Drover wrote it: reading it wrongly would be worse than stopping
 */
export function recordIn(entry: Pick<Entry, 'key' | 'value'>): AnyRecord | undefined {
  const key = kindOfKey(entry.key);
  if (key === undefined) return undefined;
  const { value } = entry;
  if (value === null || typeof value !== 'object' || !('schema' in value) || value.schema !== 1) {
    throw new Error(`${entry.key} was not written by this version of Drover: its schema is unknown`);
  }
  // The cast: only records of this kind are ever put under its keys, and the schema number says in which version.
  return { kind: key.kind, record: value } as unknown as AnyRecord;
}

function isKind(text: string): text is RecordKind {
  return Object.hasOwn(kinds, text);
}
