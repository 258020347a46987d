/**
 * Facts on their way to the server: numbered, kept on disk until the server has committed them, sent again after each
 * reconnect. The order of numbers is the order in which this host learnt them.
 */
import { appendFileSync, existsSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Fact, GuestFact } from '../wire/agent.ts';
import type { TaskFact } from '../model/task.ts';
import type { MigrationFact } from '../migration/step.ts';
import { factNumbers, refuseNewer, type Journal } from './journal.ts';

/** Of the lines of the file. */
const factSchema = 1;

/** The file is written anew when it holds this many lines too many. */
const rewriteAfter = 500;

export interface Numbered {
  readonly number: number;
  readonly fact: Fact;
}

export interface Facts {
  migration(fact: MigrationFact): void;
  guest(fact: GuestFact): void;
  task(fact: TaskFact): void;
  /** Everything not yet acknowledged, oldest first. */
  unacknowledged(): readonly Numbered[];
  /** The server has committed all facts up to this number. */
  acknowledge(number: number): void;
  /** Called for each new fact. */
  onFact(send: (numbered: Numbered) => void): void;
}

/** Where facts wait. What is appended survives the end of this program. */
export interface FactDisk {
  read(): Numbered[];
  append(numbered: Numbered): void;
  /** These, and nothing else. */
  replace(all: readonly Numbered[]): void;
}

export function openFacts(stateDir: string, journal: Journal): Facts {
  return factsOn(factFile(stateDir), journal);
}

export function factsOn(disk: FactDisk, journal: Journal): Facts {
  const nextNumber = factNumbers(journal);
  let waiting = disk.read();
  /** What is on disk and nobody needs any more. */
  let acknowledged = 0;
  /** An append that failed may have left half a line, which would spoil the next one. */
  let isTorn = false;
  const rewrite = () => {
    disk.replace(waiting);
    acknowledged = 0;
    isTorn = false;
  };
  rewrite(); // a last line that a crash cut short would spoil the next one
  let send: (numbered: Numbered) => void = () => {};
  const add = (fact: Fact) => {
    const numbered = { number: nextNumber(), fact };
    if (isTorn) rewrite();
    isTorn = true;
    disk.append(numbered);
    isTorn = false;
    waiting.push(numbered);
    send(numbered);
  };
  return {
    migration: (fact) => add({ about: 'migration', fact }),
    guest: (fact) => add({ about: 'guest', fact }),
    task: (fact) => add({ about: 'task', fact }),
    unacknowledged: () => waiting,
    acknowledge(number) {
      const before = waiting.length;
      waiting = waiting.filter((numbered) => numbered.number > number);
      acknowledged += before - waiting.length;
      if (acknowledged > (waiting.length === 0 ? 0 : rewriteAfter)) rewrite();
    },
    onFact(handler) {
      send = handler;
    },
  };
}

function factFile(stateDir: string): FactDisk {
  const path = join(stateDir, 'facts.ndjson');
  const lineOf = (numbered: Numbered) => `${JSON.stringify({ schema: factSchema, ...numbered })}\n`;
  return {
    read: () => readLines(path),
    append: (numbered) => appendFileSync(path, lineOf(numbered), { mode: 0o600 }),
    replace(all) {
      writeFileSync(`${path}.tmp`, all.map(lineOf).join(''), { mode: 0o600 });
      renameSync(`${path}.tmp`, path);
    },
  };
}

function readLines(path: string): Numbered[] {
  if (!existsSync(path)) return [];
  const lines = readFileSync(path, 'utf8').split('\n');
  // The last line may have been cut short by a crash: it was never sent.
  return lines.flatMap((line) => {
    const written = parsed(line);
    if (written === undefined) return [];
    const { schema = 1, number, fact } = written;
    refuseNewer(path, schema, factSchema);
    return [{ number, fact }];
  });
}

/** The first lines that were ever written had no schema. */
function parsed(line: string): (Numbered & { readonly schema?: number }) | undefined {
  try {
    return line === '' ? undefined : (JSON.parse(line) as Numbered & { readonly schema?: number });
  } catch {
    return undefined;
  }
}
