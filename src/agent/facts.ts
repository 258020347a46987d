/**
 * Facts on their way to the server: numbered, kept on disk until the server has committed them, sent again after each
 * reconnect. The order of numbers is the order in which this host learnt them.
 */
import { appendFileSync, existsSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Fact, GuestFact } from '../wire/agent.ts';
import type { MigrationFact } from '../migration/step.ts';
import { factNumbers, type Journal } from './journal.ts';

/** The file is written anew when it holds this many lines too many. */
const rewriteAfter = 500;

interface Numbered {
  readonly number: number;
  readonly fact: Fact;
}

export interface Facts {
  migration(fact: MigrationFact): void;
  guest(fact: GuestFact): void;
  /** Everything not yet acknowledged, oldest first. */
  unacknowledged(): readonly Numbered[];
  /** The server has committed all facts up to this number. */
  acknowledge(number: number): void;
  /** Called for each new fact. */
  onFact(send: (numbered: Numbered) => void): void;
}

export function openFacts(stateDir: string, journal: Journal): Facts {
  const path = join(stateDir, 'facts.ndjson');
  const nextNumber = factNumbers(journal);
  let waiting = readLines(path);
  /** Lines of the file that nobody needs any more. */
  let acknowledged = 0;
  const rewrite = () => {
    writeFileSync(`${path}.tmp`, waiting.map((numbered) => `${JSON.stringify(numbered)}\n`).join(''), { mode: 0o600 });
    renameSync(`${path}.tmp`, path);
    acknowledged = 0;
  };
  rewrite(); // a last line that a crash cut short would spoil the next one
  let send: (numbered: Numbered) => void = () => {};
  const add = (fact: Fact) => {
    const numbered = { number: nextNumber(), fact };
    appendFileSync(path, `${JSON.stringify(numbered)}\n`, { mode: 0o600 });
    waiting.push(numbered);
    send(numbered);
  };
  return {
    migration: (fact) => add({ about: 'migration', fact }),
    guest: (fact) => add({ about: 'guest', fact }),
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

function readLines(path: string): Numbered[] {
  if (!existsSync(path)) return [];
  const lines = readFileSync(path, 'utf8').split('\n');
  // The last line may have been cut short by a crash: it was never sent.
  return lines.flatMap((line) => {
    try {
      return line === '' ? [] : [JSON.parse(line) as Numbered];
    } catch {
      return [];
    }
  });
}
