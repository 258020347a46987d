import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { openSqlite } from './sqlite.ts';
import { HistoryGone } from './store.ts';

let directory: string;
let file: string;

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'drover-sqlite-'));
  file = join(directory, 'store');
});
afterEach(() => rmSync(directory, { recursive: true }));

test('the history in the file is no longer than what is kept, and older revisions are gone after a restart too', async () => {
  const first = openSqlite(file, { keepCommits: 10 });
  for (let i = 1; i <= 50; i++) await first.commit([], [{ key: 'a', put: i }]);
  await first.close();

  const db = new DatabaseSync(file);
  expect(db.prepare('select count(*) as rows, min(revision) as first from history').get()).toEqual({
    rows: 10,
    first: 41,
  });
  db.close();

  const second = openSqlite(file, { keepCommits: 10 });
  const after = (since: number) => second.watch('', since, AbortSignal.timeout(5_000))[Symbol.asyncIterator]().next();
  await expect(after(39)).rejects.toThrow(HistoryGone);
  expect(await after(40)).toMatchObject({ value: { revision: 41, changes: [{ entry: { value: 41, created: 1 } }] } });
  await second.close();
});

test('a value comes back from the file as it went in, whatever text it holds', async () => {
  const value = { text: 'ünï\u0000\n"\\\ud83d\ude00', __proto__x: null, deep: [[[]], {}, -0.5, 1e21, true] };
  const first = openSqlite(file);
  await first.commit([], [{ key: 'a', put: value }]);
  await first.close();
  const second = openSqlite(file);
  expect((await second.get('a'))?.value).toEqual(value);
  await second.close();
});
