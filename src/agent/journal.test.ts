/** What an agent keeps, read by another version of it. */
import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import type { VmId } from '../model/ids.ts';
import { openFacts } from './facts.ts';
import { factNumbers, journalOn, openJournal, type AgentEntry, type JournalDisk } from './journal.ts';

let dir: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'drover-journal-'));
  mkdirSync(join(dir, 'vms'));
});
afterEach(() => rmSync(dir, { recursive: true }));

const write = (path: string, value: object) => writeFileSync(join(dir, path), JSON.stringify(value));
const everything = () =>
  readdirSync(dir, { recursive: true, encoding: 'utf8' })
    .toSorted()
    .map((path) => (path === 'vms' ? path : [path, readFileSync(join(dir, path), 'utf8')]));

test('a journal of the first version is read, and facts that still wait in it are kept', () => {
  write('agent.json', { schema: 1, newestTerm: 4, session: 2, nextFact: 1001 });
  write('vms/vm_1.json', { schema: 1, vm: 'vm_1', name: 'web1', generation: 3, part: { kind: 'runs' }, taps: [] });
  writeFileSync(
    join(dir, 'facts.ndjson'),
    `${JSON.stringify({ number: 7, fact: { about: 'guest', fact: { vm: 'vm_1', generation: 3, at: 1, kind: 'panicked' } } })}\n`,
  );
  const journal = openJournal(dir);
  expect(journal.agent).toMatchObject({ newestTerm: 4, session: 2 });
  // The cast: an id as it stands in the file.
  expect(journal.vm('vm_1' as VmId)).toMatchObject({ name: 'web1', generation: 3 });
  expect(openFacts(dir, journal).unacknowledged()).toMatchObject([{ number: 7, fact: { fact: { kind: 'panicked' } } }]);
  expect(openFacts(dir, openJournal(dir)).unacknowledged()).toHaveLength(1);
});

test('what finds no room is an error, and leaves what was there before as it was', async () => {
  write('vms/vm_1.json', { schema: 1, vm: 'vm_1', name: 'web1', generation: 3, part: { kind: 'runs' }, taps: [] });
  const script = `
    import { readdirSync } from 'node:fs';
    const { openJournal } = await import(${JSON.stringify(join(import.meta.dirname, 'journal.ts'))});
    const journal = openJournal(${JSON.stringify(dir)});
    const entry = { ...journal.vm('vm_1'), generation: 4, name: 'x'.repeat(5_000) };
    for (let tries = 0; tries < 50; tries++) {
      try { journal.setVm(entry); process.exit(1) } catch {}
    }
    if (journal.vm('vm_1').generation !== 3) process.exit(2);
    if (readdirSync('/proc/self/fd').length > 40) process.exit(3);`;
  // The kernel takes 4 KiB of a file in this shell, and no more: as on a disk where one block is left.
  const limited = ['-c', 'ulimit -f 4; exec "$0" "$@"', process.execPath, '--input-type=module', '-e'];
  expect(spawnSync('bash', [...limited, script], { encoding: 'utf8' })).toMatchObject({ status: 0 });
  expect(openJournal(dir).vm('vm_1' as VmId)).toMatchObject({ name: 'web1', generation: 3 }); // the cast: as above
});

test('what could not be written is not believed: neither a newer term nor a block of numbers', () => {
  let isFull = false;
  let written: AgentEntry | undefined;
  const disk: JournalDisk = {
    agent: () => written,
    vms: () => [],
    writeAgent(entry) {
      if (isFull) throw new Error('no space left on device');
      written = entry;
    },
    writeVm: () => {},
    removeVm: () => {},
  };
  const journal = journalOn(disk);
  const next = factNumbers(journal);
  isFull = true;
  expect(() => journal.setAgent({ newestTerm: 7 })).toThrow('no space');
  expect(journal.agent.newestTerm).toBe(0);
  expect(next).toThrow('no space');
  expect(next).toThrow('no space');
  isFull = false;
  const given = next();
  expect(factNumbers(journalOn(disk))()).toBeGreaterThan(given);
});

test.each([
  ['agent.json', { schema: 2, newestTerm: 4, session: 2, nextFact: 1001 }],
  ['vms/vm_1.json', { schema: 9, vm: 'vm_1' }],
  ['facts.ndjson', { schema: 2, number: 7, fact: {} }],
])('what a newer agent wrote into %s is refused with both versions, and not touched', (path, value) => {
  write('vms/vm_0.json.tmp', { half: 'written' });
  write(path, value);
  const before = everything();
  expect(() => openFacts(dir, openJournal(dir))).toThrow(
    expect.objectContaining({
      code: 'incompatible',
      message: expect.stringMatching(
        new RegExp(`${path} was written by a newer Drover: it has schema ${value.schema},`),
      ),
      hint: expect.stringContaining('run on'),
    }),
  );
  // Half-written files of a crash may go: they are nobody's.
  const kept = (all: ReturnType<typeof everything>) => all.filter((each) => !String(each).includes('.tmp'));
  expect(kept(everything())).toEqual(kept(before));
});
