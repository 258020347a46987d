/**
 * One move of a lab's guest from order to proof: start it, wait for its end and its blackout, and ask the guest itself whether
 * every page and every disk block arrived. By asking again and again, so that it holds out while the server is restarted.
 */
import { UserError, inWords, messageOf } from '../model/failure.ts';
import type { Technique } from '../model/migration.ts';
import { systemClock } from '../runtime/clock.ts';
import type { Client } from '../wire/client.ts';
import type { MigrateBody, MigrationView } from '../wire/endpoints.ts';
import type { GuestClient, GuestStatus } from './guest/guest-client.ts';

const pollMs = 50;
const endedMs = 120_000;
/** After a cold move the guest boots first. */
const blackoutMs = 90_000;

export interface Waiting {
  readonly timeoutMs?: number;
  readonly signal?: AbortSignal | undefined;
  /** Called with every view that was read. */
  readonly onView?: (view: MigrationView) => void;
}

/** Waits until the migration is as wanted. @throws Error with where it stood when the time ran out */
export async function migrationIs(
  client: Client,
  id: string,
  wanted: (view: MigrationView) => boolean,
  { timeoutMs = endedMs, signal, onView }: Waiting = {},
): Promise<MigrationView> {
  const deadline = performance.now() + timeoutMs;
  let last = 'never seen';
  for (;;) {
    const view = await client
      .getMigration({ params: { migration: id } }, { ...(signal && { signal }) })
      .catch((error: unknown) => {
        if (error instanceof UserError && (error.code === 'unavailable' || error.code === 'timed-out'))
          return undefined;
        throw error;
      });
    if (view) {
      onView?.(view);
      if (wanted(view)) return view;
      last = view.phase;
    }
    if (performance.now() > deadline) throw new Error(`migration ${id} is ${last} after ${timeoutMs} ms`);
    await systemClock.sleep(pollMs, signal);
  }
}

export function migrationEnded(client: Client, id: string, waiting: Waiting = {}): Promise<MigrationView> {
  return migrationIs(client, id, (view) => view.ended, waiting);
}

/** Waits for the prober's word, too. @returns the view; its blackout is null when the prober said nothing in time */
export async function blackoutKnown(client: Client, id: string, waiting: Waiting = {}): Promise<MigrationView> {
  const known = (view: MigrationView) => view.measures.blackoutMs !== null;
  return migrationIs(client, id, known, { timeoutMs: blackoutMs, ...waiting }).catch(() =>
    client.getMigration({ params: { migration: id } }),
  );
}

/** What the guest said of itself after a move. */
export interface Proof {
  readonly ok: boolean;
  /** "verified", "disk verified" or what is wrong. */
  readonly says: string;
}

/**
 * Asks the guest. After a live move: not restarted, every page and disk block as last written. After a cold one: every block
 * that the last boot wrote, and nothing lost of what it had written before the move.
 */
export async function proveArrival(
  guest: GuestClient,
  before: GuestStatus,
  move: 'live' | 'cold',
  signal?: AbortSignal,
): Promise<Proof> {
  try {
    const options = signal && { signal };
    const status = await guest.waitReady({ ...options, timeoutMs: 90_000 });
    const checked = await guest.verify({ ...options });
    const wrong: string[] = [];
    if (checked.badPages > 0) wrong.push(`${checked.badPages} of ${checked.pages} pages wrong`);
    if (checked.badBlocks > 0) wrong.push(`${checked.badBlocks} of ${checked.blocks} disk blocks wrong`);
    if (checked.diskErrors > 0) wrong.push(`${checked.diskErrors} disk errors`);
    if (move === 'live') {
      if (checked.bootId !== before.bootId) wrong.push('guest was restarted');
      if (checked.diskSequence < before.disk.sequence) wrong.push('disk writes lost');
      if (!checked.ok && wrong.length === 0) wrong.push('check not finished');
      return { ok: wrong.length === 0, says: wrong.join(', ') || 'verified' };
    }
    const found = status.diskAtBoot;
    if (checked.bootId === before.bootId) wrong.push('guest was not restarted');
    if (!found.sealed) wrong.push(`disk ${found.found}`);
    if (found.bad > 0) wrong.push(`${found.bad} of ${found.blocks} disk blocks wrong at boot`);
    if (found.sequence < before.disk.sequence) wrong.push('disk writes lost');
    return { ok: wrong.length === 0, says: wrong.join(', ') || 'disk verified' };
  } catch (error) {
    if (signal?.aborted) throw error;
    return { ok: false, says: messageOf(error) };
  }
}

export interface Move {
  readonly vm: string;
  readonly to: string;
  readonly technique: Technique;
  readonly policy?: MigrateBody['policy'];
}

export interface ProvenMove {
  readonly migration: MigrationView;
  readonly proof: Proof;
}

/** Moves a guest under the prober's eye and has it checked from inside. A failed migration is a result, not an error. */
export async function moveAndProve(
  client: Client,
  guest: GuestClient,
  move: Move,
  waiting: Waiting = {},
): Promise<ProvenMove> {
  const { signal } = waiting;
  const before = await guest.status({ ...(signal && { signal }) });
  const started = await client.migrateVm({
    params: { vm: move.vm },
    body: { to: move.to, technique: move.technique, ...(move.policy && { policy: move.policy }) },
  });
  const ended = await migrationEnded(client, started.id, waiting);
  if (ended.phase !== 'completed') {
    const why = ended.failure ? inWords(ended.failure) : ended.phase;
    return { migration: ended, proof: { ok: false, says: `${ended.phase}: ${why}` } };
  }
  const proof = await proveArrival(guest, before, move.technique === 'cold' ? 'cold' : 'live', signal);
  return { migration: await blackoutKnown(client, started.id, { signal, timeoutMs: 10_000 }), proof };
}
