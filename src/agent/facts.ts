/**
 * Facts on their way to the server: numbered, kept on disk until the server has committed them, sent again after each
 * reconnect. The order of numbers is the order in which this host learnt them.
 */
import { appendFileSync, existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Fact, GuestFact } from '../wire/agent.ts';
import type { MigrationFact } from '../migration/step.ts';
import { factNumbers, type Journal } from './journal.ts';

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
      if (waiting.length < before && waiting.length === 0) writeFileSync(path, '', { mode: 0o600 });
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
