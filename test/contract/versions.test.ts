/** A store that another version of the server wrote. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { Fleet } from '../../src/control/fleet.ts';
import { inventory } from '../../src/control/fake-fleet.ts';
import type { HostId, VmId } from '../../src/model/ids.ts';
import { silentLog } from '../../src/runtime/log.ts';
import { lead } from '../../src/store/leadership.ts';
import { openSqlite } from '../../src/store/sqlite.ts';
import type { Store } from '../../src/store/store.ts';

let directory: string;
let file: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'drover-versions-'));
  file = join(directory, 'store.db');
});
afterEach(() => rmSync(directory, { recursive: true }));

// Casts: ids as they stood in the store.
const host = 'host_1' as HostId;
const vm = 'vm_1' as VmId;
const spec = {
  cpus: 1,
  memoryMiB: 512,
  machine: 'pc-q35-7.2',
  cpuModel: 'qemu64-v1',
  boot: { kind: 'disk' },
  disks: [{ pool: 'default', file: 'vm_1.qcow2', format: 'qcow2' }],
  nics: [],
};

/** What a server of the first schema of each record left behind. */
const firstSchemas: Readonly<Record<string, object>> = {
  'control/term': { term: 3 },
  'host/host_1': {
    schema: 1,
    id: host,
    name: 'h1',
    session: 2,
    cordoned: false,
    labels: {},
    inventory: inventory('h1'),
    joinedAt: 1,
  },
  'host-name/h1': { schema: 1, id: host },
  'room/host_1': { schema: 1, host, capacityMiB: 7680, guestsMiB: { [vm]: 512 }, reservationsMiB: {} },
  'vm/vm_1': {
    schema: 1,
    id: vm,
    name: 'web1',
    spec,
    running: { argvVersion: 1, argv: ['-m', '512'], spec },
    provision: [],
    state: { kind: 'running' },
    host,
    generation: 4,
    migration: null,
    labels: { tier: 'web' },
    address: null,
    cannotMoveLive: null,
    createdAt: 1,
  },
  'vm-name/web1': { schema: 1, id: vm },
};

async function written(records: Readonly<Record<string, object>>): Promise<void> {
  const store = openSqlite(file);
  await store.commit(
    [],
    Object.entries(records).map(([key, put]) => ({ key, put })),
  );
  await store.close();
}

async function leading<T>(store: Store, run: (fleet: Fleet) => Promise<T>): Promise<T> {
  const stop = new AbortController();
  const result = Promise.withResolvers<T>();
  const led = lead(store, 'test', stop.signal, async (leadership) => {
    await Fleet.load(store, leadership, silentLog).then(run).then(result.resolve, result.reject);
    stop.abort();
  });
  led.catch(result.reject);
  const value = await result.promise;
  await led;
  return value;
}

test('of the first schema is read as of today, and a record is written as of today when it changes', async () => {
  await written(firstSchemas);
  const store = openSqlite(file);
  await leading(store, async (fleet) => {
    expect(fleet.term).toBe(4);
    expect(fleet.findHost('h1')).toMatchObject({ schema: 2, session: 2, power: null, fenced: null, failing: null });
    expect(fleet.findVm('web1')).toMatchObject({
      schema: 3,
      generation: 4,
      labels: { tier: 'web' },
      recovery: 'restart',
      restart: 'never',
      priority: 500,
      placing: { apart: [], together: [], pinnedTo: null },
    });
    await fleet.change((draft) => draft.putVm({ ...fleet.findVm('web1'), priority: 900 }));
  });
  expect((await store.get('vm/vm_1'))?.value).toMatchObject({ schema: 3, priority: 900, generation: 4 });
  expect((await store.get('host/host_1'))?.value).toEqual(firstSchemas['host/host_1']);
  await store.close();
});

test('of the first schema is guarded: what changed behind the back of the server is not overwritten', async () => {
  await written(firstSchemas);
  const store = openSqlite(file);
  await leading(store, async (fleet) => {
    const old = fleet.findVm('web1');
    await store.commit([], [{ key: 'vm/vm_1', put: { ...firstSchemas['vm/vm_1'], generation: 9 } }]);
    const change = () => fleet.change((draft) => draft.putVm({ ...old, priority: 900 }));
    await expect(change()).rejects.toMatchObject({ code: 'unavailable', hint: 'Nothing was changed. Try again.' });
    expect(fleet.findVm('web1').generation).toBe(9);
  });
  await store.close();
});

test('of a newer schema is refused by the server in words, and holds then what it held', async () => {
  await written({ ...firstSchemas, 'vm/vm_2': { schema: 7, id: 'vm_2', name: 'web2' } });
  const before = await contents();
  const drover = join(import.meta.dirname, '..', '..', 'bin', 'drover');
  const args = ['server', '--state', directory, '--listen', '127.0.0.1:0', '--agents', '127.0.0.1:0'];
  const child = spawn(drover, args, { stdio: ['ignore', 'ignore', 'pipe'] });
  let says = '';
  child.stderr.on('data', (data: Buffer) => (says += data.toString()));
  const [code] = (await once(child, 'close')) as [number]; // how a process ends, by node:child_process
  expect(code).toBe(4);
  expect(says.trimEnd().split('\n')).toEqual([
    expect.stringMatching(
      /^drover server: vm\/vm_2 was not written by this version of Drover: it knows schema \d, not 7$/,
    ),
    'a newer Drover wrote it: run that version, or restore a backup that this one made',
  ]);
  expect(await contents()).toEqual(before);
});

async function contents() {
  const store = openSqlite(file);
  const { entries, revision } = await store.list('');
  await store.close();

  return { entries, revision };
}
