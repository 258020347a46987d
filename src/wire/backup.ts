/**
 * The file of `drover backup`: everything a store holds at one revision, whatever engine it has. One JSON value a line, the
 * first says what it is, the last how much there was and with which hash, so that a file cut short is never taken for whole:
 *
 *     {"drover-backup":1,"version":"0.1.0","at":...,"term":7,"revision":1234}
 *     {"key":"vm/...","value":{...}}
 *     {"end":true,"entries":321,"sha256":"..."}          of all lines before, each with its line feed
 *
 * Not here: reading a store and writing one (control/backup.ts), files (cli/, control/restore.ts).
 */
import { createHash } from 'node:crypto';
import { z } from 'zod';
import { UserError, messageOf } from '../model/failure.ts';

/** Raised when the lines change their meaning; the records in them have versions of their own. */
const format = 1;

const head = z.object({
  'drover-backup': z.number().int(),
  version: z.string(),
  at: z.number(),
  term: z.number().int(),
  revision: z.number().int(),
});
const line = z.object({ key: z.string().min(1), value: z.unknown() });
const end = z.object({ end: z.literal(true), entries: z.number().int(), sha256: z.string() });

export interface BackupHead {
  /** Of the Drover that wrote it. */
  readonly version: string;
  /** ms since the epoch. */
  readonly at: number;
  /** The newest term given out until then. */
  readonly term: number;
  readonly revision: number;
}

export interface BackupEntry {
  readonly key: string;
  readonly value: unknown;
}

export interface Backup extends BackupHead {
  readonly entries: readonly BackupEntry[];
}

/** The lines of a backup, each with its line feed. */
export function* backupLines(about: BackupHead, entries: Iterable<BackupEntry>): Generator<string, void, void> {
  const hash = createHash('sha256');
  const hashed = (value: object): string => {
    const text = `${JSON.stringify(value)}\n`;
    hash.update(text);
    return text;
  };
  let count = 0;
  const { version, at, term, revision } = about;
  yield hashed({ 'drover-backup': format, version, at, term, revision });
  for (const { key, value } of entries) {
    count++;
    yield hashed({ key, value });
  }
  yield `${JSON.stringify({ end: true, entries: count, sha256: hash.digest('hex') })}\n`;
}

/**
 * Reads a backup and checks that it is whole.
 * @param bytes of the file, in pieces of any size
 * @param name of the file, for errors
 * @throws UserError incompatible: no backup, one of a newer Drover, or not as it was written
 */
export async function readBackup(bytes: AsyncIterable<Uint8Array>, name: string): Promise<Backup> {
  const hash = createHash('sha256');
  const entries: BackupEntry[] = [];
  let about: z.infer<typeof head> | undefined;
  let last: z.infer<typeof end> | undefined;
  for await (const text of linesOf(bytes)) {
    if (last !== undefined) throw broken(name, 'something follows its last line');
    const value = parsed(text, name, about === undefined);
    if (about === undefined) {
      const found = head.safeParse(value);
      if (!found.success) throw noBackup(name);
      if (found.data['drover-backup'] > format) {
        throw new UserError(
          'incompatible',
          `${name} has format ${found.data['drover-backup']}, this Drover knows up to ${format}.`,
          `Drover ${found.data.version} wrote it: restore it with that version.`,
        );
      }
      about = found.data;
      hash.update(`${text}\n`);
      continue;
    }
    last = end.safeParse(value).data;
    if (last !== undefined) continue;
    const entry = line.safeParse(value);
    if (!entry.success) throw broken(name, `line ${entries.length + 2} holds no entry`);
    entries.push({ key: entry.data.key, value: entry.data.value });
    hash.update(`${text}\n`);
  }
  if (about === undefined) throw noBackup(name);
  if (last === undefined) throw broken(name, 'its end is missing');
  if (last.entries !== entries.length || last.sha256 !== hash.digest('hex')) {
    throw broken(name, 'it does not hold what was written');
  }
  const { version, at, term, revision } = about;
  return { version, at, term, revision, entries };
}

/** Ends at line feeds only: node:readline ends lines at characters that JSON leaves as they are. */
async function* linesOf(bytes: AsyncIterable<Uint8Array>): AsyncGenerator<string, void, void> {
  const decoder = new TextDecoder();
  let partial = '';
  for await (const piece of bytes) {
    const lines = (partial + decoder.decode(piece, { stream: true })).split('\n');
    partial = lines.pop() ?? '';
    yield* lines;
  }
  if (partial !== '') yield partial;
}

function parsed(text: string, name: string, first: boolean): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch (error) {
    throw first ? noBackup(name, error) : broken(name, messageOf(error), error);
  }
}

function noBackup(name: string, cause?: unknown): UserError {
  return new UserError('incompatible', `${name} is no backup of Drover.`, 'Name a file that `drover backup` wrote.', {
    cause,
  });
}

function broken(name: string, how: string, cause?: unknown): UserError {
  return new UserError('incompatible', `The backup ${name} is damaged: ${how}.`, 'Use another one.', { cause });
}
