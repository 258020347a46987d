/**
 * Requests that must not be done twice: a POST under an Idempotency-Key leaves a record in the commit that does it, and the
 * same key again is answered with what it made.
 */
import { createHash } from 'node:crypto';
import { UserError } from '../model/failure.ts';
import type { Clock } from '../runtime/clock.ts';
import { recordKey } from '../store/records.ts';
import type { Draft, Fleet } from './fleet.ts';

/** Kept at least this long. */
const keepMs = 25 * 3_600_000;
const perSweep = 100;

export interface RequestKey {
  readonly endpoint: string;
  readonly key: string;
  readonly fingerprint: string;
}

/** @param what everything that makes the request the same request */
export function requestKey(endpoint: string, key: string, what: unknown): RequestKey {
  return { endpoint, key, fingerprint: createHash('sha256').update(JSON.stringify(what)).digest('hex') };
}

/** What the same request made before. @throws UserError key-reused when the key was used for another request */
export function doneBefore(fleet: Fleet, request: RequestKey | null): string | undefined {
  if (request === null) return undefined;
  const found = fleet.requests.get(recordKey.request(request.endpoint, request.key));
  if (found === undefined) return undefined;
  if (found.fingerprint === request.fingerprint) return found.id;
  throw new UserError(
    'key-reused',
    `The Idempotency-Key '${request.key}' was used for another request.`,
    'Use a new key for each request; repeat a key only to repeat the same request.',
  );
}

export function noteRequest(draft: Draft, request: RequestKey | null, id: string, at: number): void {
  if (request === null) return;
  draft.putRequest(request.endpoint, request.key, { schema: 1, id, fingerprint: request.fingerprint, at });
}

/** Drops keys that are old enough; a bounded number at a time. */
export async function forgetOldRequests(fleet: Fleet, clock: Clock): Promise<void> {
  const oldest = clock.now() - keepMs;
  const old = [...fleet.requests].filter(([, { at }]) => at < oldest).slice(0, perSweep);
  if (old.length > 0) await fleet.change((draft) => old.forEach(([key]) => draft.removeRequest(key)));
}
