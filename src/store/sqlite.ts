/**
 * The store in one SQLite file, for a control plane of a single process: memory.ts does the work, this file makes it durable
 * and reads it back. SQL lives here and nowhere else.
 *
 *     meta      one row: version of this layout, revision of the last commit
 *     entries   what is there now
 *     history   one row per kept commit and key, for watchers that go on after a restart
 *
 * Durable: WAL with `synchronous = full`, so a commit that was answered survives a power cut. All commits of one turn of the
 * event loop share one fsync.
 *
 * One process: the connection holds SQLite's exclusive lock for as long as it is open. It is a lock of the kernel, so it ends
 * with its process however that dies. (It also ends when this process opens and closes the file by other means than SQLite:
 * never do that while the store is open; a backup goes through this connection.)
 */
import { closeSync, openSync } from 'node:fs';
import { DatabaseSync } from 'node:sqlite';
import { UserError } from '../model/failure.ts';
import { Engine, frozenJson } from './memory.ts';
import type { EngineOptions, Journal, Kept, StoredCommit, StoredEntry } from './memory.ts';
import { OutcomeUnknown, StoreUnavailable } from './store.ts';
import type { Change, Commit, Revision, Store } from './store.ts';

/** Version of the tables below. What stands in the values has versions of its own. */
export const sqliteLayout = 1;

/** Marks the file as ours ("Drov"), so that another program's database is refused and not written to. */
const applicationId = 0x44726f76;

const layoutSql = `
  pragma application_id = ${applicationId};
  create table meta (layout integer not null, revision integer not null) strict;
  insert into meta values (${sqliteLayout}, 0);
  create table entries (
    key text primary key, value text not null, created integer not null, changed integer not null, lease text
  ) strict, without rowid;
  create table history (
    revision integer not null, position integer not null, key text not null, value text, created integer,
    primary key (revision, position)
  ) strict, without rowid;
`;

/** Result codes of SQLite (sqlite.org/rescode.html), without their extension. */
const sqliteBusy = 5;
const sqliteFull = 13;
const sqliteCorrupt = 11;
const sqliteNotADatabase = 26;

/**
 * Opens or creates the store in `path`, readable by its owner only. Throws a UserError when another process has it open, a
 * newer Drover wrote it, or it is no file of ours.
 */
export function openSqlite(path: string, options: EngineOptions = {}): Store {
  return sqliteEngine(path, options).connect();
}

/** As `openSqlite`, for several clients in this process. The file is closed with the last of them. */
export function sqliteEngine(path: string, options: EngineOptions = {}): Engine {
  const db = openExclusively(path);
  try {
    return new Engine(options, journal(db, path), readBack(db));
  } catch (error) {
    db.close();
    throw asUserError(error, path);
  }
}

function openExclusively(path: string): DatabaseSync {
  let db: DatabaseSync | undefined;
  try {
    createPrivate(path);
    db = new DatabaseSync(path);
    // The lock comes first and with the first read; nothing of a file that is not ours is changed.
    db.exec('pragma locking_mode = exclusive; begin immediate; commit');
    const { application_id: owner } = one(db, 'pragma application_id');
    const { tables } = one(db, 'select count(*) as tables from sqlite_schema');
    if (owner !== applicationId && tables !== 0) {
      throw new UserError(
        'incompatible',
        `${path} is a database, but not a store of Drover`,
        'give another path; the file was not changed',
      );
    }
    db.exec('pragma journal_mode = wal; pragma synchronous = full');
    if (tables === 0) db.exec(`begin immediate; ${layoutSql} commit`);
    const { layout } = one(db, 'select layout from meta');
    if (Number(layout) > sqliteLayout) {
      throw new UserError(
        'incompatible',
        `the store ${path} has layout ${String(layout)}, this Drover knows up to ${sqliteLayout}`,
        'a newer Drover wrote it: run that version, or restore a backup made by this one',
      );
    }
    return db;
  } catch (error) {
    db?.close();
    throw asUserError(error, path);
  }
}

/** SQLite gives a new file the rights of the umask; ours holds what only the server may read. */
function createPrivate(path: string): void {
  try {
    closeSync(openSync(path, 'wx', 0o600));
  } catch (error) {
    // It was not opened then, so no lock of this process was lost by closing it.
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
  }
}

function asUserError(error: unknown, path: string): unknown {
  if (error instanceof UserError) return error;
  const { errcode, message } = error as Error & { errcode?: number };
  const cause = { cause: error };
  switch (errcode === undefined ? undefined : errcode & 0xff) {
    case sqliteBusy:
      return new UserError(
        'busy',
        `the store ${path} is in use by another process`,
        `one server at a time may use it; see which with: fuser -v ${path}`,
        cause,
      );
    case sqliteCorrupt:
    case sqliteNotADatabase:
      return new UserError(
        'incompatible',
        `the store ${path} cannot be read: ${message}`,
        'it is damaged or no store of Drover: give another path, or restore a backup',
        cause,
      );
    default:
      return new UserError(
        'unavailable',
        `the store ${path} cannot be opened: ${message}`,
        'the directory must exist and be writable, with room on its disk',
        cause,
      );
  }
}

function one(db: DatabaseSync, sql: string): Record<string, unknown> {
  const row = db.prepare(sql).get();
  if (row === undefined) throw new Error(`no answer to: ${sql}`);
  return row;
}

interface EntryRow {
  readonly key: string;
  readonly value: string;
  readonly created: number;
  readonly changed: number;
  readonly lease: string | null;
}

interface HistoryRow {
  readonly revision: number;
  readonly key: string;
  readonly value: string | null;
  readonly created: number | null;
}

/** The casts say what the tables above hold; they are `strict`, so SQLite holds itself to it. */
function readBack(db: DatabaseSync): Kept {
  const { revision } = one(db, 'select revision from meta') as { revision: number };
  const rows = db.prepare('select * from entries').all() as unknown as EntryRow[];
  const entries = rows.map(({ value, lease, ...row }): StoredEntry => {
    return { ...row, value: frozenJson(value), ...(lease === null ? {} : { lease }) };
  });
  const changes = new Map<Revision, Change[]>();
  const kept = db.prepare('select * from history order by revision, position').all() as unknown as HistoryRow[];
  for (const { revision: changed, key, value, created } of kept) {
    const ofCommit = changes.get(changed) ?? [];
    changes.set(changed, ofCommit);
    if (value === null || created === null) ofCommit.push({ kind: 'delete', key });
    else ofCommit.push({ kind: 'put', key, entry: { key, value: frozenJson(value), created, changed } });
  }
  const history = [...changes].map(([at, ofCommit]): Commit => ({ revision: at, changes: ofCommit }));
  return { revision, entries, history };
}

function journal(db: DatabaseSync, path: string): Journal {
  const put = db.prepare(
    `insert into entries values (?, ?, ?, ?, ?)
     on conflict do update set value = excluded.value, created = excluded.created, changed = excluded.changed, lease = excluded.lease`,
  );
  const remove = db.prepare('delete from entries where key = ?');
  const remember = db.prepare('insert into history values (?, ?, ?, ?, ?)');
  const forget = db.prepare('delete from history where revision <= ?');
  const advance = db.prepare('update meta set revision = ?');

  const writeAll = (commits: readonly StoredCommit[], historyFrom: Revision): void => {
    for (const { revision, changes } of commits) {
      for (const [position, change] of changes.entries()) {
        if (change.kind === 'put') {
          const { key, value, created, lease } = change.entry;
          const json = JSON.stringify(value);
          put.run(key, json, created, revision, lease ?? null);
          remember.run(revision, position, key, json, created);
        } else {
          remove.run(change.key);
          remember.run(revision, position, change.key, null, null);
        }
      }
      advance.run(revision);
    }
    forget.run(historyFrom);
  };

  return {
    write(commits, historyFrom) {
      try {
        db.exec('begin immediate');
        writeAll(commits, historyFrom);
        db.exec('commit');
      } catch (error) {
        const { errcode, message } = error as Error & { errcode?: number };
        // A full disk is the one failure after which SQLite vouches for the state before; after a failed fsync nobody does.
        if (errcode === undefined || (errcode & 0xff) !== sqliteFull) {
          throw new OutcomeUnknown(`writing to the store ${path} failed: ${message}`, { cause: error });
        }
        if (db.isTransaction) db.exec('rollback');
        throw new StoreUnavailable(`no room to write to the store ${path}`, { cause: error });
      }
    },
    close: () => db.close(),
  };
}
