/** A backup put into a real etcd, and an etcd whose data was put back by its own means. */
import { cpSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { backupOf, restoreInto } from '../../src/control/backup.ts';
import { FakeFleet } from '../../src/control/fake-fleet.ts';
import { Fleet } from '../../src/control/fleet.ts';
import { Held } from '../../src/control/held.ts';
import { LiveEvents } from '../../src/control/live-events.ts';
import { systemClock } from '../../src/runtime/clock.ts';
import { silentLog } from '../../src/runtime/log.ts';
import { systemRandom } from '../../src/runtime/random.ts';
import { lead } from '../../src/store/leadership.ts';
import type { Store } from '../../src/store/store.ts';
import { readBackup } from '../../src/wire/backup.ts';
import { protocolVersion } from '../../src/wire/agent.ts';
import { inventory } from '../../src/control/fake-fleet.ts';
import { EtcdCluster } from './etcd-cluster.ts';

let cluster: EtcdCluster;
beforeAll(async () => {
  cluster = await EtcdCluster.start();
});
afterAll(() => cluster?.stop());

async function* bytesOf(lines: AsyncIterable<string>) {
  for await (const line of lines) yield Buffer.from(line);
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

async function backedUp() {
  const fleet = await FakeFleet.start(['h1', 'h2']);
  await fleet.run('web1', 'h1');
  const backup = await readBackup(bytesOf(backupOf(fleet.plane.store, '0.1.0', systemClock)), 'f');
  await fleet.stopServer();
  return backup;
}

test('a backup of another engine is restored into etcd, and a backup of that holds the same', async () => {
  const backup = await backedUp();
  const store = cluster.open();
  await restoreInto(store, backup, { replace: false, at: 5 });
  const again = await readBackup(bytesOf(backupOf(store, '0.1.0', systemClock)), 'f');
  expect(again.entries.filter(({ key }) => !key.startsWith('restored/'))).toEqual(backup.entries);
  await leading(store, async (fleet) => {
    expect(fleet.term).toBe(backup.term + 1);
    expect(fleet.findVm('web1').state).toEqual({ kind: 'running' });
    expect(fleet.restored?.endedAt).toBeNull();
  });
  await store.close();
});

test('an etcd whose data was put back is noticed by what a host has seen of it', { timeout: 90_000 }, async () => {
  const prefix = cluster.newPrefix();
  const backup = await backedUp();
  const store = cluster.open({ prefix });
  for (const { key, value } of backup.entries) await store.commit([], [{ key, put: value }]);
  await store.close();
  const aside = join(cluster.directory, 'aside');
  const stopped = async (then: () => void) => {
    for (const member of cluster.members) await cluster.kill(member);
    then();
    await cluster.mend();
  };
  const each = (copy: (data: string, kept: string) => void) => () => {
    for (const { name } of cluster.members) copy(join(cluster.directory, name), join(aside, name));
  };
  await stopped(each((data, kept) => cpSync(data, kept, { recursive: true })));

  // A term and an order of it, which the data that is put back then does not know.
  const mark = await leadOnce(prefix, async (fleet) => {
    await fleet.change((draft) => draft.putVm({ ...fleet.findVm('web1'), generation: 7 }));
    return { term: fleet.term, revision: fleet.revision, termId: 'of that leader' };
  });
  await stopped(
    each((data, kept) => {
      rmSync(data, { recursive: true });
      cpSync(kept, data, { recursive: true });
    }),
  );
  await leadOnce(prefix, async (fleet) => {
    expect(fleet.findVm('web1').generation).toBe(1);
    const held = new Held({ fleet, live: new LiveEvents(), clock: systemClock, random: systemRandom, log: silentLog });
    const hello = {
      type: 'hello' as const,
      protocol: protocolVersion,
      version: 'test',
      host: 'h1',
      inventory: inventory('h1'),
      guests: [],
      newestTerm: mark.term,
      at: 0,
    };
    expect(fleet.term).toBe(mark.term);
    expect(await held.noticed({ ...hello, mark })).toBe(true);
    expect(held.isHeld).toBe(true);
  });
});

async function leadOnce<T>(prefix: string, run: (fleet: Fleet) => Promise<T>): Promise<T> {
  const store = cluster.open({ prefix });
  try {
    return await leading(store, run);
  } finally {
    await store.close();
  }
}
