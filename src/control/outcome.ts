/**
 * A commit whose answer was lost: what came of it, by reading. Pure.
 *
 * Entries carry the revision that changed them last, and that number never comes back. So a key that still shows the number
 * that the commit was guarded by proves that nothing was written. Keys that all show what was meant, written at one
 * revision of our own term, prove that it was: in one term there is one writer.
 *
 * Not here: making sure that a commit still on its way cannot happen after the look (fleet.ts repeats it, with its guards).
 */
import { isDeepStrictEqual } from 'node:util';
import type { Leadership } from '../store/leadership.ts';
import { termIn, termKey } from '../store/leadership.ts';
import type { Entry, Revision } from '../store/store.ts';

export type Outcome =
  | { readonly kind: 'done'; readonly revision: Revision }
  | { readonly kind: 'not-done' }
  /** Somebody else wrote there since: what we did, if we did, can no longer be told apart. */
  | { readonly kind: 'undecided' };

/**
 * @param meant what was to be written, by key; undefined: deleted
 * @param before the revision at which each key had been changed last when it was decided; absent: it was not there
 * @param found everything the store holds, of one revision, read after the commit
 */
export function outcomeOf(
  meant: ReadonlyMap<string, unknown>,
  before: ReadonlyMap<string, Revision>,
  found: { readonly entries: readonly Entry[]; readonly revision: Revision },
  leadership: Leadership,
): Outcome {
  const stored = new Map(found.entries.map((entry) => [entry.key, entry]));
  // Deleting what was not there changes nothing, and so says nothing.
  const keys = [...meant].filter(([key, value]) => value !== undefined || before.has(key));
  if (keys.length === 0) return { kind: 'done', revision: found.revision };
  const untouched = keys.some(([key]) => before.has(key) && stored.get(key)?.changed === before.get(key));
  if (untouched) return { kind: 'not-done' };

  const term = stored.get(termKey);
  const newestTerm = termIn(term);
  const onlyWeWrote = newestTerm === leadership.term;
  const asMeant = keys.every(([key, value]) => {
    const entry = stored.get(key);
    return value === undefined
      ? entry === undefined
      : entry !== undefined && isDeepStrictEqual(entry.value, plain(value));
  });
  if (!asMeant) {
    const absent = keys.some(([key]) => !before.has(key) && !stored.has(key));
    // A key that we would have made is not there: with nobody else writing, nobody can have taken it away.
    return onlyWeWrote && absent ? { kind: 'not-done' } : { kind: 'undecided' };
  }
  const revisions = new Set(keys.flatMap(([key]) => stored.get(key)?.changed ?? []));
  const [revision = found.revision] = revisions;
  if (revisions.size > 1) return { kind: 'undecided' };
  const beforeTheNextTerm =
    newestTerm === leadership.term + 1 && revisions.size === 1 && revision < (term?.changed ?? 0);
  return onlyWeWrote || beforeTheNextTerm ? { kind: 'done', revision } : { kind: 'undecided' };
}

/** As it comes back from a store: without what JSON does not carry. */
function plain(value: unknown): unknown {
  return JSON.parse(JSON.stringify(value));
}
