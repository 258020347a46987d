/**
 * The audit log: each thing that somebody did or was refused, written when its outcome is known and before it is answered. What
 * comes at the same moment is one commit. Bounded by number and age.
 *
 * Not here: which operations are written down (server.ts).
 */
import type { AuditRecord } from '../model/access.ts';
import { newId } from '../model/ids.ts';
import type { Clock } from '../runtime/clock.ts';
import type { Log } from '../runtime/log.ts';
import type { Random } from '../runtime/random.ts';
import type { Fleet } from './fleet.ts';

const keepCount = 10_000;
const keepMs = 180 * 86_400_000;
const perCommit = 100;
/** Waiting to be written; beyond it something is very wrong, and the log of the server has them. */
const waitingLimit = 1_000;

interface Parts {
  readonly fleet: Fleet;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
}

export class Audit {
  readonly #fleet: Fleet;
  readonly #clock: Clock;
  readonly #random: Random;
  readonly #log: Log;
  #waiting: AuditRecord[] = [];
  #writing: Promise<void> = Promise.resolve();
  #newest = 0;

  constructor({ fleet, clock, random, log }: Parts) {
    this.#fleet = fleet;
    this.#clock = clock;
    this.#random = random;
    this.#log = log;
  }

  /** Resolves when it is on record. What cannot be written is in the server's own log; nothing fails because of it. */
  note(entry: Omit<AuditRecord, 'schema' | 'id' | 'at'>): Promise<void> {
    const at = this.#clock.now();
    // Never two of one moment: they are shown in the order of their ids.
    this.#newest = Math.max(at, this.#newest + 1);
    const id = newId('audit', this.#newest, this.#random.bytes(8));
    const record: AuditRecord = { schema: 1, id, at, ...entry };
    if (this.#waiting.length >= waitingLimit) {
      this.#log.error({ entry: record }, 'the audit log is not written fast enough');
      return Promise.resolve();
    }
    this.#waiting.push(record);
    this.#writing = this.#writing.then(() => this.#write());
    return this.#writing;
  }

  async #write(): Promise<void> {
    const some = this.#waiting.splice(0, perCommit);
    if (some.length === 0) return;
    try {
      await this.#fleet.change((draft) => some.forEach((record) => draft.putPlain('audit', record.id, record)));
    } catch (error) {
      this.#log.error({ error, entries: some }, 'the audit log was not written');
    }
  }

  /** Drops what is too old or too much; a bounded number at a time. */
  async tidy(): Promise<void> {
    const entries = this.#fleet.plain('audit');
    const oldest = this.#clock.now() - keepMs;
    const tooMany = entries.size - keepCount;
    const old: string[] = [];
    // In the order in which they were written.
    for (const [id, { at }] of entries) {
      if (old.length >= perCommit || (at >= oldest && old.length >= tooMany)) break;
      old.push(id);
    }
    if (old.length > 0) await this.#fleet.change((draft) => old.forEach((id) => draft.removePlain('audit', id)));
  }
}
