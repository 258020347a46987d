/** What can be changed has a version: told with an answer (ETag), asked for by a change (If-Match). Not here: HTTP. */
import { createHash } from 'node:crypto';
import { UserError } from '../model/failure.ts';
import type { Call } from './handler.ts';

/** Of what can be changed in something, so that only that makes a new version. */
export function versionOf(changeable: unknown): string {
  return createHash('sha256').update(JSON.stringify(changeable)).digest('hex').slice(0, 16);
}

export function tellVersion({ answer }: Call, version: string): void {
  answer.version(version);
}

/** Called in the decision that changes it. @throws UserError version-mismatch: nothing was changed */
export function expectVersion({ ifMatch }: Call, version: string): void {
  if (ifMatch === null || ifMatch.includes('*') || ifMatch.includes(version)) return;
  throw new UserError(
    'version-mismatch',
    'It was changed since you looked.',
    'Nothing was changed. Get it again, look whether your change still makes sense, and send its new ETag.',
  );
}
