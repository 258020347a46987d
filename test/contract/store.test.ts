/**
 * The store's contract over every engine, and what a SQLite file must stand beyond it: other processes, a killed process,
 * a file that is not ours.
 */
import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { DatabaseSync } from 'node:sqlite';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { TestClock } from '../../src/runtime/clock.ts';
import { storeContract } from '../../src/store/contract.ts';
import type { StoreBed } from '../../src/store/contract.ts';
import { Engine } from '../../src/store/memory.ts';
import type { EngineOptions } from '../../src/store/memory.ts';
import { openSqlite, sqliteEngine } from '../../src/store/sqlite.ts';
import type { Store } from '../../src/store/store.ts';
import { EtcdCluster, FreezableClock } from './etcd-cluster.ts';

let directory: string;
let file: string;

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'drover-store-'));
  file = join(directory, 'store.sqlite');
});
afterEach(() => rmSync(directory, { recursive: true }));

/** How far time moves at once: well below any lease of the contract. */
const stepMs = 100;
const keepCommits = 200;

function bedOf(start: (options: EngineOptions) => Engine, restarts: 'restarts' | 'keeps nothing'): StoreBed {
  const engineClock = new TestClock();
  let engine = start({ clock: engineClock, keepCommits });
  let clients: { store: Store; clock: TestClock; frozen: boolean }[] = [];
  const closeAll = async (): Promise<void> => {
    for (const { store } of clients) await store.close();
    clients = [];
  };
  const restart = async (): Promise<void> => {
    await closeAll();
    engine = start({ clock: engineClock, keepCommits });
  };
  return {
    async connect() {
      const client = { clock: new TestClock(), frozen: false };
      const store = engine.connect(client.clock);
      const connected = Object.assign(client, { store });
      clients.push(connected);
      return {
        store,
        freeze: () => (connected.frozen = true),
        async thaw() {
          connected.frozen = false;
          await connected.clock.advance(engineClock.monotonic() - connected.clock.monotonic());
        },
      };
    },
    async pass(ms) {
      for (let passed = 0; passed < ms; passed += stepMs) {
        for (const { clock, frozen } of clients) if (!frozen) await clock.advance(stepMs);
        await engineClock.advance(stepMs);
      }
    },
    async forgetHistory() {
      const store = engine.connect();
      for (let i = 0; i <= keepCommits; i++) await store.commit([], [{ key: 'noise', put: i }]);
      await store.close();
    },
    ...(restarts === 'restarts' ? { restart } : {}),
    close: closeAll,
  };
}

storeContract('memory', async () => bedOf((options) => new Engine(options), 'keeps nothing'));

let cluster: EtcdCluster;
beforeAll(async () => {
  cluster = await EtcdCluster.start();
});
afterAll(() => cluster?.stop());

/** On real time: three members of etcd, and clients whose timers can be held up. */
async function etcdBed(): Promise<StoreBed> {
  const prefix = cluster.newPrefix();
  let stores: Store[] = [];
  const closeAll = async (): Promise<void> => {
    for (const store of stores) await store.close();
    stores = [];
  };
  return {
    async connect() {
      const clock = new FreezableClock();
      const store = cluster.open({ prefix, clock });
      stores.push(store);
      return {
        store,
        freeze: () => clock.freeze(),
        thaw: async () => clock.thaw(),
      };
    },
    pass: (ms) => sleep(ms),
    forgetHistory: () => cluster.compact(),
    async restart() {
      await closeAll();
      for (const member of cluster.members) await cluster.kill(member);
      await cluster.mend();
    },
    close: closeAll,
  };
}

storeContract('etcd', etcdBed);
storeContract('sqlite', async () => bedOf((options) => sqliteEngine(file, options), 'restarts'));

describe('a SQLite store among processes', () => {
  const children: ChildProcess[] = [];
  afterEach(() => {
    for (const child of children.splice(0)) child.kill('SIGKILL');
  });

  /** Another process running `body` with `store` open on the file and `say` for its answers. */
  function inAnotherProcess(body: string) {
    const module = new URL('../../src/store/sqlite.ts', import.meta.url).href;
    const code = `
      import { openSqlite } from ${JSON.stringify(module)};
      const say = (what) => process.stdout.write(what + '\\n');
      let store;
      try { store = openSqlite(${JSON.stringify(file)}); } catch (error) { say(error.code + ': ' + error.message); process.exit(3); }
      ${body}`;
    const child = spawn(process.execPath, ['--input-type=module', '-e', code], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    children.push(child);
    const exited = once(child, 'exit');
    return { child, exited, lines: createInterface({ input: child.stdout })[Symbol.asyncIterator]() };
  }

  test('every commit that was answered is there after kill -9, and nothing of a lease', async () => {
    const { child, exited, lines } = inAnotherProcess(`
      const lease = await store.lease(60_000);
      await store.commit([], [{ key: 'leader', put: 'me', lease: lease.id }]);
      for (let n = 1; ; n++) {
        await store.commit([], [{ key: 'a', put: n }, { key: 'b', put: n }]);
        say(String(n));
      }`);
    let answered = 0;
    while (answered < 20) answered = Number((await lines.next()).value);
    child.kill('SIGKILL');
    await exited;
    for (let line = await lines.next(); !line.done; line = await lines.next()) answered = Number(line.value);

    const store = openSqlite(file);
    const [a, b] = [await store.get('a'), await store.get('b')];
    // The last commit may have been written without its answer getting out.
    expect([answered, answered + 1]).toContain(a?.value);
    expect(b).toEqual({ ...a, key: 'b' });
    expect(await store.get('leader')).toBeUndefined();
    await store.close();
  });

  test('a second process is refused while the first lives and not when it was killed', async () => {
    const first = inAnotherProcess(
      `await store.commit([], [{ key: 'a', put: 1 }]); say('open'); setInterval(() => {}, 1000);`,
    );
    expect((await first.lines.next()).value).toBe('open');
    const second = inAnotherProcess(`say('open too')`);
    expect((await second.lines.next()).value).toBe(`busy: the store ${file} is in use by another process`);
    await second.exited;
    expect(() => openSqlite(file)).toThrow(
      expect.objectContaining({ code: 'busy', hint: expect.stringContaining(file) }),
    );
    first.child.kill('SIGKILL');
    await first.exited;
    const store = openSqlite(file);
    expect((await store.get('a'))?.value).toBe(1);
    await store.close();
  });

  test('a second opening in the same process is refused too, and leaves the first unharmed', async () => {
    const store = openSqlite(file);
    await store.commit([], [{ key: 'a', put: 1 }]);
    expect(() => openSqlite(file)).toThrow(expect.objectContaining({ code: 'busy' }));
    const other = inAnotherProcess(`say('open too')`);
    expect((await other.lines.next()).value).toMatch(/^busy: /);
    await other.exited;
    await store.commit([], [{ key: 'a', put: 2 }]);
    await store.close();
    const again = openSqlite(file);
    expect((await again.get('a'))?.value).toBe(2);
    await again.close();
  });
});

describe('a SQLite file', () => {
  test('is readable by its owner only, its log too', async () => {
    const store = openSqlite(file);
    await store.commit([], [{ key: 'a', put: 1 }]);
    for (const name of [file, `${file}-wal`]) expect(statSync(name).mode & 0o777).toBe(0o600);
    await store.close();
  });

  test('written by a newer Drover is refused with both versions named', async () => {
    await openSqlite(file).close();
    const db = new DatabaseSync(file);
    db.exec('update meta set layout = 99');
    db.close();
    expect(() => openSqlite(file)).toThrow(
      expect.objectContaining({ code: 'incompatible', message: expect.stringMatching(/layout 99.* 1$/) }),
    );
  });

  test('of another program is refused and stays as it was', () => {
    const db = new DatabaseSync(file);
    db.exec('create table theirs (x)');
    db.close();
    expect(() => openSqlite(file)).toThrow(expect.objectContaining({ code: 'incompatible' }));
    const after = new DatabaseSync(file);
    expect(after.prepare('select name from sqlite_schema').all()).toEqual([{ name: 'theirs' }]);
    expect(after.prepare('pragma journal_mode').get()).toEqual({ journal_mode: 'delete' });
    after.close();
  });

  test('that is no database, a directory, or in a directory that is not there is refused with what to do', () => {
    writeFileSync(file, 'these are notes, not a database'.repeat(100));
    expect(() => openSqlite(file)).toThrow(expect.objectContaining({ code: 'incompatible', hint: expect.any(String) }));
    expect(() => openSqlite(directory)).toThrow(expect.objectContaining({ code: 'unavailable' }));
    expect(() => openSqlite(join(directory, 'absent', 'store'))).toThrow(
      expect.objectContaining({ code: 'unavailable' }),
    );
  });
});
