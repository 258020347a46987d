import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, expect, test } from 'vitest';
import type { Lease, TakenMark } from './lease.ts';
import { PoolFiles } from './pool-files.ts';

const directories: string[] = [];
const pools: PoolFiles[] = [];
afterEach(() => {
  for (const pool of pools.splice(0)) pool.close();
  for (const directory of directories.splice(0)) rmSync(directory, { recursive: true, force: true });
});

function makeDirectory(): string {
  const directory = mkdtempSync(join(tmpdir(), 'drover-pool-'));
  directories.push(directory);
  return directory;
}

function open(directory: string): PoolFiles {
  const pool = new PoolFiles({ name: 'default', directory });
  pools.push(pool);
  return pool;
}

const lease: Lease = {
  schema: 1,
  host: 'h1',
  poolId: 'p',
  generation: 1,
  writer: 'w',
  sequence: 1,
  state: 'held',
  bootId: 'b',
  leaseTimeMs: 10_000,
  wallAt: 5,
};
const mark: TakenMark = {
  schema: 1,
  host: 'h1',
  generation: 1,
  sequence: 1,
  bootId: 'b',
  by: 'h2',
  term: 3,
  wallAt: 6,
};

test('Hosts that find a pool without an identity at the same moment agree on one.', async () => {
  const directory = makeDirectory();
  const ids = await Promise.all(Array.from({ length: 4 }, () => open(directory).identify()));
  expect(new Set(ids).size).toBe(1);
  expect(await open(makeDirectory()).identify()).not.toBe(ids[0]);
});

test('Lease and mark are read by others as they were written, and neither write touches the other.', async () => {
  const directory = makeDirectory();
  const [holder, other] = [open(directory), open(directory)];
  expect(await other.read('h1')).toEqual({ lease: null, taken: null });
  await holder.writeLease(lease, 'create');
  await other.writeTaken(mark);
  const renewed = { ...lease, sequence: 2 };
  await holder.writeLease(renewed, 'overwrite');
  expect(await other.read('h1')).toEqual({ lease: renewed, taken: mark });
  expect(await holder.read('h1')).toEqual({ lease: renewed, taken: mark });
  expect(statSync(join(directory, '.drover/leases/h1')).size).toBe(8192);
});

test('A renewal makes no file: a pool that is not mounted any more renews nothing.', async () => {
  const pool = open(makeDirectory());
  await pool.identify();
  await expect(pool.writeLease(lease, 'overwrite')).rejects.toThrow('ENOENT');
  await expect(pool.writeTaken(mark)).rejects.toThrow('ENOENT');
});

test('A block that is half another writing is an error, not a lease.', async () => {
  const directory = makeDirectory();
  const pool = open(directory);
  await pool.writeLease(lease, 'create');
  const path = join(directory, '.drover/leases/h1');
  const bytes = readFileSync(path);
  bytes[40] = 'x'.charCodeAt(0);
  writeFileSync(path, bytes);
  await expect(pool.read('h1')).rejects.toThrow('damaged');
});

test('A pool whose directory is not there is an error with its path.', async () => {
  const pool = open(join(makeDirectory(), 'not-mounted'));
  await expect(pool.identify()).rejects.toThrow('not-mounted');
});
