/**
 * A copy of the store and its way back, through the interface that all engines have: a list is of one revision, so it is
 * consistent while others write, and needs nothing of the engine.
 *
 * Not here: the file (wire/backup.ts), and what a server makes of a store that was put back (held.ts).
 */
import { UserError, messageOf } from '../model/failure.ts';
import type { Clock } from '../runtime/clock.ts';
import { leaderKey, termIn, termKey } from '../store/leadership.ts';
import { kindOfKey, recordIn, recordKey } from '../store/records.ts';
import { storeLimits } from '../store/store.ts';
import type { CommitResult, Guard, Store, Write } from '../store/store.ts';
import type { Backup, BackupEntry } from '../wire/backup.ts';
import { backupLines } from '../wire/backup.ts';
import type { RestoredRecord } from '../model/fleet.ts';

/** Stands in a store for as long as a restore is writing: what stops in the middle must not be taken for a fleet. */
export const restoringKey = 'control/restoring';

/** The lines of a backup of everything but the lead, which ends with its holder. */
export async function* backupOf(store: Store, version: string, clock: Clock): AsyncGenerator<string, void, void> {
  const { entries, revision } = await store.list('');
  const term = termIn(entries.find(({ key }) => key === termKey));
  const kept = entries.filter(({ key }) => key !== leaderKey);
  yield* backupLines({ version, at: clock.now(), term, revision }, kept);
}

/** @throws UserError incompatible when a newer Drover wrote a record in it; nothing was written then */
export function checkRecords({ entries, version }: Backup): Record<string, number> {
  const counts: Record<string, number> = {};
  for (const entry of entries) {
    try {
      const kind = recordIn(entry)?.kind;
      if (kind !== undefined) counts[kind] = (counts[kind] ?? 0) + 1;
    } catch (error) {
      throw new UserError(
        'incompatible',
        `The backup cannot be restored by this Drover: ${messageOf(error)}.`,
        `Drover ${version} wrote it: restore it with that version or a newer one.`,
        { cause: error },
      );
    }
  }
  return counts;
}

/**
 * Puts a backup into a store that nobody uses, with a record that says so: the server that opens it is held until it knows
 * what happened since.
 * @param replace also when there is a fleet in it; what is there is gone then
 * @throws UserError busy, already-exists: then nothing was written
 */
export async function restoreInto(
  store: Store,
  backup: Backup,
  { replace, at }: { readonly replace: boolean; readonly at: number },
): Promise<void> {
  checkRecords(backup);
  const { entries } = await store.list('');
  if (entries.some(({ key }) => key === leaderKey)) {
    throw new UserError('busy', 'A server leads on this store.', 'Stop every server of the fleet, then restore.');
  }
  const half = entries.some(({ key }) => key === restoringKey);
  const there = entries.filter(({ key }) => kindOfKey(key) !== undefined);
  if (there.length > 0 && !half && !replace) {
    throw new UserError(
      'already-exists',
      `The store holds a fleet already: ${there.length} records.`,
      'Give --replace to put the backup in its place, or another --state.',
    );
  }
  const term = Math.max(backup.term, termIn(entries.find(({ key }) => key === termKey)));
  const restored: RestoredRecord = {
    schema: 1,
    at,
    because: `restored from a backup of ${new Date(backup.at).toISOString()}`,
    endedAt: null,
  };
  const put = new Map(backup.entries.map(({ key, value }) => [key, value]));
  put.delete(leaderKey);
  put.set(termKey, { term });
  put.set(recordKey.restored(), restored);
  await commit(store, [{ key: restoringKey, put: { at } }]);
  const gone = entries.filter(({ key }) => key !== restoringKey && !put.has(key));
  await writeAll(store, [
    ...gone.map(({ key }): Write => ({ key, delete: true })),
    ...[...put].map(([key, value]): Write => ({ key, put: value })),
  ]);
  await commit(store, [{ key: restoringKey, delete: true }]);
}

/** @throws UserError when what is in the store is half a fleet */
export function refuseHalfRestored(entries: readonly BackupEntry[]): void {
  if (!entries.some(({ key }) => key === restoringKey)) return;
  throw new UserError(
    'wrong-state',
    'A restore into this store was begun and not finished.',
    'Run the same `drover restore` again; it begins anew.',
  );
}

async function writeAll(store: Store, writes: readonly Write[]): Promise<void> {
  let batch: Write[] = [];
  let bytes = 0;
  for (const write of writes) {
    const size = 'put' in write ? Buffer.byteLength(JSON.stringify(write.put)) : 0;
    if (batch.length === storeLimits.writes - 1 || bytes + size > storeLimits.commitBytes / 2) {
      await commit(store, batch);
      batch = [];
      bytes = 0;
    }
    batch.push(write);
    bytes += size;
  }
  if (batch.length > 0) await commit(store, batch);
}

/** Whatever becomes of the answer, writing the same again is harmless here: nobody else may write. */
async function commit(store: Store, writes: readonly Write[]): Promise<void> {
  const nobodyLeads: Guard = { key: leaderKey, absent: true };
  const result: CommitResult = await store.commit([nobodyLeads], writes);
  if (result.ok) return;
  throw new UserError(
    'busy',
    'A server was started on this store in the middle of the restore.',
    'Stop every server of the fleet, then run the same `drover restore` again.',
  );
}
