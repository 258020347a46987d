/** Backups: whole or refused, of one moment, and never over a fleet by mistake. */
import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { promisify } from 'node:util';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { systemClock } from '../../src/runtime/clock.ts';
import { silentLog } from '../../src/runtime/log.ts';
import { leaderKey, termKey } from '../../src/store/leadership.ts';
import { Engine } from '../../src/store/memory.ts';
import { openSqlite } from '../../src/store/sqlite.ts';
import { backupLines, readBackup } from '../../src/wire/backup.ts';
import { backupOf, restoreInto, restoringKey } from '../../src/control/backup.ts';
import { FakeFleet } from '../../src/control/fake-fleet.ts';
import { Fleet } from '../../src/control/fleet.ts';
import { restoreCommand } from '../../src/control/restore.ts';

let directory: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'drover-backup-'));
});
afterEach(() => rmSync(directory, { recursive: true }));

const head = { version: '0.1.0', at: 1, term: 3, revision: 9 };

async function* pieces(text: string, size: number) {
  const bytes = Buffer.from(text);
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size);
}

async function textOf(lines: AsyncIterable<string>): Promise<string> {
  let text = '';
  for await (const line of lines) text += line;
  return text;
}

async function backupOfFakeFleet(): Promise<{ text: string; fleet: FakeFleet }> {
  const fleet = await FakeFleet.start(['h1', 'h2']);
  await fleet.run('web1', 'h1');
  return { fleet, text: await textOf(backupOf(fleet.plane.store, '0.1.0', fleet.clock)) };
}

describe('the file', () => {
  test('comes back as it was written, however it is cut into pieces', async () => {
    const entries = fc.array(fc.record({ key: fc.string({ minLength: 1 }), value: fc.jsonValue() }));
    await fc.assert(
      fc.asyncProperty(entries, fc.integer({ min: 1, max: 50 }), async (written, size) => {
        const odd = [...written, { key: 'vm/x', value: 'a\u2028b\u2029c\r\n' }];
        const text = [...backupLines(head, odd)].join('');
        const read = await readBackup(pieces(text, size), 'f');
        expect(read).toEqual({ ...head, entries: JSON.parse(JSON.stringify(odd)) });
      }),
      { numRuns: 100 },
    );
  });

  test('is refused when it was cut short or changed anywhere', async () => {
    const text = [
      ...backupLines(head, [
        { key: 'vm/a', value: 1 },
        { key: 'vm/b', value: { c: 'd' } },
      ]),
    ].join('');
    await fc.assert(
      fc.asyncProperty(fc.integer({ min: 0, max: text.length - 2 }), fc.boolean(), async (at, cut) => {
        const other = text[at] === '0' ? '1' : '0';
        const spoilt = cut ? text.slice(0, at) : text.slice(0, at) + other + text.slice(at + 1);
        await expect(readBackup(pieces(spoilt, 20), 'f')).rejects.toMatchObject({ code: 'incompatible' });
      }),
      { numRuns: 200 },
    );
  });

  test('of a newer format is refused with the version that wrote it', async () => {
    const text = [...backupLines(head, [])].join('').replace('"drover-backup":1', '"drover-backup":2');
    await expect(readBackup(pieces(text, 99), 'f')).rejects.toThrow('f has format 2, this Drover knows up to 1');
  });
});

describe('a backup', () => {
  test('holds everything but the lead, of one moment, while others write', async () => {
    const store = new Engine().connect();
    await store.commit(
      [],
      [
        { key: leaderKey, put: { holder: 'x', term: 4 } },
        { key: termKey, put: { term: 4 } },
      ],
    );
    const both = (n: number) =>
      store.commit(
        [],
        [
          { key: 'vm/a', put: n },
          { key: 'vm/b', put: n },
        ],
      );
    await both(0);
    let n = 0;
    for (let round = 0; round < 20; round++) {
      const reading = textOf(backupOf(store, '0.1.0', systemClock));
      await Promise.all([both(++n), both(++n), both(++n)]);
      const { entries, term } = await readBackup(pieces(await reading, 64), 'f');
      const found = Object.fromEntries(entries.map(({ key, value }) => [key, value]));
      expect(found['vm/a']).toBe(found['vm/b']);
      expect(Object.keys(found)).toEqual([termKey, 'vm/a', 'vm/b']);
      expect(term).toBe(4);
    }
  });

  test('is restored into either engine with all records, the term kept, and a word that it was restored', async () => {
    const { text, fleet } = await backupOfFakeFleet();
    await fleet.stopServer();
    const backup = await readBackup(pieces(text, 1000), 'f');
    for (const store of [new Engine().connect(), openSqlite(join(directory, 'store.db'))]) {
      await restoreInto(store, { ...backup, term: 7 }, { replace: false, at: 5 });
      const { entries } = await store.list('');
      const back = new Map(entries.map(({ key, value }) => [key, value]));
      for (const { key, value } of backup.entries) if (key !== termKey) expect(back.get(key)).toEqual(value);
      expect(back.get(termKey)).toEqual({ term: 7 });
      expect(back.get('restored/fleet')).toMatchObject({ at: 5, endedAt: null });
      expect(back.size).toBe(backup.entries.length + 1);
      await store.close();
    }
  });

  test('goes over another fleet only when told to, and then nothing of that is left', async () => {
    const { text, fleet } = await backupOfFakeFleet();
    await fleet.stopServer();
    const backup = await readBackup(pieces(text, 1000), 'f');
    const store = new Engine().connect();
    await store.commit(
      [],
      [
        { key: 'vm/other', put: { schema: 2 } },
        { key: termKey, put: { term: 99 } },
      ],
    );
    await expect(restoreInto(store, backup, { replace: false, at: 5 })).rejects.toMatchObject({
      code: 'already-exists',
    });
    expect((await store.list('')).entries).toHaveLength(2);
    await restoreInto(store, backup, { replace: true, at: 5 });
    expect(await store.get('vm/other')).toBeUndefined();
    // The term never goes back, whatever the backup says.
    expect((await store.get(termKey))?.value).toEqual({ term: 99 });
  });

  test('is not restored under a server that leads', async () => {
    const { text, fleet } = await backupOfFakeFleet();
    const backup = await readBackup(pieces(text, 1000), 'f');
    const store = fleet.engine.connect();
    await expect(restoreInto(store, backup, { replace: true, at: 5 })).rejects.toMatchObject({ code: 'busy' });
    await fleet.stopServer();
  });

  test('with a record of a newer Drover is refused before anything is written', async () => {
    const { text, fleet } = await backupOfFakeFleet();
    await fleet.stopServer();
    const backup = await readBackup(pieces(text, 1000), 'f');
    const entries = [...backup.entries, { key: 'vm/new', value: { schema: 99 } }];
    const store = new Engine().connect();
    await expect(restoreInto(store, { ...backup, entries }, { replace: true, at: 5 })).rejects.toThrow(
      /vm\/new was not written by this version of Drover: it knows schema \d+, not 99/,
    );
    expect((await store.list('')).entries).toEqual([]);
  });

  test('half restored is no fleet: the server refuses it, and the same restore again mends it', async () => {
    const { text, fleet } = await backupOfFakeFleet();
    await fleet.stopServer();
    const backup = await readBackup(pieces(text, 1000), 'f');
    const many = Array.from({ length: 300 }, (_, n) => ({ key: `request/x/${n}`, value: { schema: 1, n } }));
    const whole = { ...backup, entries: [...backup.entries, ...many] };
    const inner = new Engine().connect();
    let commits = 0;
    const dying = {
      ...bound(inner),
      commit: (...args: Parameters<typeof inner.commit>) => {
        if (++commits === 3) throw new Error('killed');
        return inner.commit(...args);
      },
    };
    await expect(restoreInto(dying, whole, { replace: false, at: 5 })).rejects.toThrow('killed');
    const leadership = {
      term: 1,
      guard: { key: leaderKey, absent: true as const },
      lost: new AbortController().signal,
    };
    await expect(Fleet.load(inner, leadership, silentLog)).rejects.toMatchObject({ code: 'wrong-state' });
    await restoreInto(inner, whole, { replace: false, at: 6 });
    expect(await inner.get(restoringKey)).toBeUndefined();
    await expect(Fleet.load(inner, leadership, silentLog)).resolves.toBeDefined();
    expect((await inner.list('request/')).entries).toHaveLength(300);
  });
});

function bound(store: ReturnType<Engine['connect']>) {
  return {
    list: (prefix: string) => store.list(prefix),
    get: (key: string) => store.get(key),
    watch: (prefix: string, since: number, signal: AbortSignal) => store.watch(prefix, since, signal),
    lease: (ttlMs: number) => store.lease(ttlMs),
    close: () => store.close(),
  };
}

describe('drover restore', () => {
  const open = ({ state }: { readonly state: string }) => openSqlite(join(state, 'store.db'));

  test('writes the store of a state directory, and keeps what it replaces in a backup beside it', async () => {
    const { text, fleet } = await backupOfFakeFleet();
    await fleet.stopServer();
    const file = join(directory, 'f.backup');
    writeFileSync(file, text);
    const state = join(directory, 'state');
    expect(await restoreCommand([file, '--state', state], open)).toBe(0);
    expect(await restoreCommand([file, '--state', state], open)).toBe(4);
    expect(await restoreCommand([file, '--state', state, '--replace'], open)).toBe(0);
    const [kept] = readdirSync(state).filter((name) => name.startsWith('replaced-'));
    expect(statSync(join(state, kept ?? '')).mode & 0o777).toBe(0o600);
    const old = await readBackup(pieces(readFileSync(join(state, kept ?? ''), 'utf8'), 500), 'f');
    expect(old.entries.map(({ key }) => key)).toContain('restored/fleet');
  });

  test('refuses a store in use, a file that is none and a file that is not there', async () => {
    const { text, fleet } = await backupOfFakeFleet();
    await fleet.stopServer();
    const file = join(directory, 'f.backup');
    writeFileSync(file, text);
    const store = open({ state: directory });
    expect(await restoreCommand([file, '--state', directory, '--replace'], open)).toBe(4);
    await store.close();
    writeFileSync(file, 'notes\n');
    expect(await restoreCommand([file, '--state', directory], open)).toBe(4);
    expect(await restoreCommand([join(directory, 'none'), '--state', directory], open)).toBe(2);
  });
});

describe('the programs', () => {
  const drover = join(import.meta.dirname, '..', '..', 'bin', 'drover');
  const run = promisify(execFile);

  test('a server is backed up while it runs, and what was restored can be served', { timeout: 60_000 }, async () => {
    const state = join(directory, 'server');
    const startServer = async (dir: string) => {
      const args = ['server', '--state', dir, '--listen', '127.0.0.1:0', '--agents', '127.0.0.1:0'];
      const child = spawn(drover, args, { stdio: ['ignore', 'pipe', 'inherit'] });
      const { value } = await createInterface({ input: child.stdout })[Symbol.asyncIterator]().next();
      const url = /http:\S+/.exec(String(value))?.[0] ?? '';
      const stop = async () => {
        child.kill('SIGTERM');
        await once(child, 'exit');
      };
      const cli = (...words: string[]) =>
        run(drover, [...words, '--server', url, '--token-file', join(dir, 'token'), '--output', 'json']);
      return { cli, stop };
    };
    const first = await startServer(state);
    const file = join(directory, 'f.backup');
    const { stdout } = await first.cli('backup', file);
    expect(JSON.parse(stdout)).toMatchObject({ file, term: 1, records: { hosts: 0, vms: 0 } });
    expect(statSync(file).mode & 0o777).toBe(0o600);
    expect(readdirSync(directory).toSorted()).toEqual(['f.backup', 'server']);
    await expect(first.cli('backup', file)).rejects.toThrow('is there already');
    await first.cli('backup', file, '--force');
    await expect(run(drover, ['restore', file, '--state', state])).rejects.toThrow('in use by another process');
    await first.stop();
    const other = join(directory, 'other');
    expect((await run(drover, ['restore', file, '--state', other])).stdout).toContain('restored: 0 hosts');
    const second = await startServer(other);
    expect(JSON.parse((await second.cli('host', 'list')).stdout)).toEqual([]);
    await second.stop();
  });
});
