/** What a row of the endpoint table is, and the small schemas that many rows share. Not here: the rows. */
import { z } from 'zod';
import type { Role } from '../model/access.ts';
import { namePattern } from '../model/ids.ts';

export const name = z
  .string()
  .regex(namePattern, 'a name has 1 to 63 of a-z, 0-9, "-" and ".", and begins and ends with a letter or digit');
export const ref = z.string().min(1).max(100).describe('name or id');
export const dryRun = z.boolean().default(false).describe('check everything, change nothing');
/** Of lists in pages: where the page before ended. */
export const after = z
  .string()
  .min(1)
  .max(200)
  .optional()
  .describe('go on after this one: from the Link header of the page before');
export const timeMs = z.number().describe('ms since the epoch');

export interface Endpoint {
  readonly method: 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE';
  readonly path: string;
  readonly summary: string;
  /** What whoever asks must at least be; `none`: it is open to everybody. */
  readonly role: Role | 'none';
  /** Takes an Idempotency-Key: the same key with the same request again is answered with what it made. */
  readonly idempotent?: true;
  /** The answer has an ETag of what can be changed, and a change takes it as If-Match. */
  readonly versioned?: true;
  readonly params?: z.ZodObject;
  readonly query?: z.ZodObject;
  readonly body?: z.ZodType;
  readonly reply: z.ZodType;
  /** Status of success; 200 unless said. */
  readonly status?: number;
  /** `events`: server-sent events of the reply type. `tunnel`: the connection is upgraded to raw bytes. `lines`: a file. */
  readonly stream?: 'events' | 'tunnel' | 'lines';
}
