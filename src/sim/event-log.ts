/**
 * What happened, in order: the newest events for a failed run, all of them for --trace, and one number over all of them, by
 * which two runs of a seed are compared.
 */
import { messageOf } from '../model/failure.ts';

const keptEvents = 80;

export class EventLog {
  readonly isTraced: boolean;
  count = 0;
  readonly #now: () => number;
  readonly #trace: ((line: string) => void) | undefined;
  readonly #newest: string[] = [];
  #hashA = 0x811c9dc5;
  #hashB = 0x9e3779b9;

  constructor(now: () => number, trace: ((line: string) => void) | undefined) {
    this.#now = now;
    this.#trace = trace;
    this.isTraced = trace !== undefined;
  }

  note(kind: string, says: string): void {
    this.count++;
    const line = `${(this.#now() / 1000).toFixed(4).padStart(10)} ${kind.padEnd(11)} ${says}`;
    this.#mix(line);
    this.#newest[this.count % keptEvents] = line;
    this.#trace?.(line);
  }

  /** Words for people: shown, and not part of the number, so that --trace does not change it. */
  log(program: string, level: string, fields: Readonly<Record<string, unknown>>, message: string): void {
    if (!this.#trace) return;
    const said = Object.entries(fields).map(
      ([name, value]) => `${name}=${value instanceof Error ? messageOf(value) : JSON.stringify(value)}`,
    );
    this.#trace(
      `${(this.#now() / 1000).toFixed(4).padStart(10)} ${'log'.padEnd(11)} ${program} ${level}: ${message} ${said.join(' ')}`,
    );
  }

  /** Oldest first. */
  newest(): string[] {
    const from = this.count + 1;
    return Array.from({ length: keptEvents }, (_, at) => this.#newest[(from + at) % keptEvents] ?? '').filter(
      (line) => line !== '',
    );
  }

  get hash(): string {
    return (this.#hashA >>> 0).toString(16).padStart(8, '0') + (this.#hashB >>> 0).toString(16).padStart(8, '0');
  }

  /** FNV-1a over two states. */
  #mix(line: string): void {
    let a = this.#hashA;
    let b = this.#hashB;
    for (let at = 0; at < line.length; at++) {
      const code = line.charCodeAt(at);
      a = Math.imul(a ^ code, 0x01000193);
      b = Math.imul(b ^ code, 0x85ebca6b);
    }
    this.#hashA = a;
    this.#hashB = b ^ (a >>> 13);
  }
}
