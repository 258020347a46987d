/**
 * One of several servers leads. Written once, on any engine: the leader holds `control/leader` under a lease, and the number
 * of its term, larger than any before, stands in `control/term`.
 *
 * Being leader is never a matter of believing it: every write of a term carries the term's guard, so the write of a leader
 * that was replaced while it slept is refused by the store; and agents refuse orders of an older term.
 */
import { systemClock } from '../runtime/clock.ts';
import type { Clock } from '../runtime/clock.ts';
import { silentLog } from '../runtime/log.ts';
import type { Log } from '../runtime/log.ts';
import { anySignal } from '../runtime/retry.ts';
import { HistoryGone, OutcomeUnknown, StoreUnavailable } from './store.ts';
import type { Entry, Guard, Lease, Revision, Store } from './store.ts';

export const leaderKey = 'control/leader';
export const termKey = 'control/term';

export interface Leadership {
  /** Rises with every leader. Orders to agents carry it. */
  readonly term: number;
  /** Holds for as long as this is the leader. To be among the guards of every commit of the term. */
  readonly guard: Guard;
  /** Aborted when the lead is over or may be. Its commits will be refused from then on. */
  readonly lost: AbortSignal;
}

export interface LeadOptions {
  /** How long after a leader's death another takes over, and how long it may stall without losing the lead. */
  readonly ttlMs?: number;
  /**
   * The largest term any agent is known to have obeyed; the next term is larger. Needed after a store was restored from a
   * backup, whose own count is behind. Asked at each campaign.
   */
  readonly termAbove?: () => number;
  /** Where the leader's API is reached; stands in the leader's entry for the servers that do not lead. */
  readonly api?: string;
  readonly clock?: Clock;
  readonly log?: Log;
}

/** Who leads, as the others see it. */
export interface Leader {
  readonly holder: string;
  readonly term: number;
  readonly api: string | null;
}

const pauseAfterTroubleMs = 250;

/**
 * Tries to lead until the signal: waits for the lead, calls `onTerm`, and when that is over tries again. `onTerm` must end
 * soon after `lost`; when it ends earlier the lead is given back. The next term is not begun before it has ended. Its errors,
 * and the store's beyond passing trouble, end `lead`. Resolves after the signal, with nothing held.
 */
export async function lead(
  store: Store,
  me: string,
  signal: AbortSignal,
  onTerm: (leadership: Leadership) => Promise<void>,
  options: LeadOptions = {},
): Promise<void> {
  const { ttlMs = 3_000, termAbove = () => 0, api, clock = systemClock, log = silentLog } = options;
  const record = { holder: me, ...(api === undefined ? {} : { api }) };
  while (!signal.aborted) {
    let won: { lease: Lease; leadership: Leadership } | undefined;
    try {
      won = await campaign(store, record, signal, ttlMs, termAbove);
    } catch (error) {
      if (signal.aborted) return;
      if (!isPassing(error)) throw error;
      log.warn({ error }, 'the store gave no clear answer to the campaign; trying again');
      await clock.sleep(pauseAfterTroubleMs, signal).catch(() => {});
    }
    if (won === undefined) continue;
    const { lease, leadership } = won;
    log.info({ term: leadership.term }, 'leading');
    try {
      await onTerm({ ...leadership, lost: anySignal(lease.lost, signal) });
    } finally {
      await giveBack(lease, log);
      log.info({ term: leadership.term }, 'leading no more');
    }
  }
}

/** Waits until nobody leads and tries once. Undefined: somebody else was faster, or the signal came. */
async function campaign(
  store: Store,
  record: Omit<Partial<Leader>, 'term'>,
  signal: AbortSignal,
  ttlMs: number,
  termAbove: () => number,
): Promise<{ lease: Lease; leadership: Leadership } | undefined> {
  const seen = await store.list('control/');
  const find = (key: string): Entry | undefined => seen.entries.find((entry) => entry.key === key);
  if (find(leaderKey) !== undefined) {
    await leaderGone(store, seen.revision, signal);
    return undefined;
  }
  const lastTerm = find(termKey);
  const term = Math.max(termIn(lastTerm), termAbove()) + 1;
  const lease = await store.lease(ttlMs);
  let won = false;
  try {
    const result = await store.commit(
      // Whoever led since the list was read has changed the term, so this one guard covers the leader's entry as well.
      [lastTerm === undefined ? { key: termKey, absent: true } : { key: termKey, changed: lastTerm.changed }],
      [
        { key: leaderKey, put: { ...record, term }, lease: lease.id },
        { key: termKey, put: { term } },
      ],
      { signal },
    );
    if (!result.ok) return undefined;
    won = true;
    return { lease, leadership: { term, guard: { key: leaderKey, created: result.revision }, lost: lease.lost } };
  } finally {
    // Also when the outcome is unknown: without its lease an entry that was written goes away, and the next campaign sees.
    if (!won) await lease.dispose();
  }
}

async function leaderGone(store: Store, since: Revision, signal: AbortSignal): Promise<void> {
  for await (const { changes } of store.watch(leaderKey, since, signal)) {
    if (changes.some(({ kind, key }) => kind === 'delete' && key === leaderKey)) return;
  }
}

/** The newest term that a store gave out, from the entry under `termKey`; 0 before the first. */
export function termIn(entry: Entry | undefined): number {
  if (entry === undefined) return 0;
  const { value } = entry;
  if (value !== null && typeof value === 'object' && 'term' in value && Number.isSafeInteger(value.term)) {
    return Number(value.term);
  }
  throw new Error(`${termKey} holds no term: ${JSON.stringify(value)}`);
}

/** The store had no clear answer; it may have one the next time. */
export function isPassing(error: unknown): boolean {
  return error instanceof StoreUnavailable || error instanceof OutcomeUnknown || error instanceof HistoryGone;
}

/** A lease that cannot be given back runs out by itself. */
async function giveBack(lease: Lease, log: Log): Promise<void> {
  try {
    await lease.dispose();
  } catch (error) {
    log.warn({ error }, 'the lead could not be given back; it ends with its lease');
  }
}

/** Tells who leads now and each time it changes, until the signal; null: nobody. Passing trouble of the store is sat out. */
export async function watchLeader(
  store: Store,
  signal: AbortSignal,
  onLeader: (leader: Leader | null) => void,
  clock: Clock = systemClock,
): Promise<void> {
  while (!signal.aborted) {
    try {
      const { entries, revision } = await store.list(leaderKey);
      onLeader(leaderIn(entries.find(({ key }) => key === leaderKey)));
      for await (const { changes } of store.watch(leaderKey, revision, signal)) {
        for (const change of changes) {
          if (change.key === leaderKey) onLeader(change.kind === 'put' ? leaderIn(change.entry) : null);
        }
      }
    } catch (error) {
      if (signal.aborted) return;
      if (!isPassing(error)) throw error;
      await clock.sleep(pauseAfterTroubleMs, signal).catch(() => {});
    }
  }
}

function leaderIn(entry: Entry | undefined): Leader | null {
  const value = entry?.value;
  if (value === null || typeof value !== 'object') return null;
  const { holder, term, api } = value as Readonly<Record<string, unknown>>;
  if (typeof holder !== 'string' || typeof term !== 'number') return null;
  return { holder, term, api: typeof api === 'string' ? api : null };
}
