import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { listenChannels, openChannel, readFleetKey, type Channel, type FleetKey } from './channel.ts';

const keyOf = (byte: number): FleetKey => Object.assign(new Uint8Array(32).fill(byte), { fleetKey: true as const });
const address = '127.0.0.1';

async function pair(key = keyOf(1)) {
  const accepted = Promise.withResolvers<Channel>();
  const listener = await listenChannels({ address, port: 0, key: keyOf(1), onChannel: accepted.resolve });
  const open = () => openChannel({ address, port: listener.port, key, timeoutMs: 3000 });
  return { listener, open, accepted: accepted.promise };
}

test('messages arrive whole and in order, also those sent before anybody listened', async () => {
  const { listener, open, accepted } = await pair();
  const here = await open();
  const big = 'é'.repeat(100_000);
  for (const message of [1, big, { three: 3 }]) expect(here.send(message)).toBe(true);
  const there = await accepted;
  const heard: unknown[] = [];
  await new Promise<void>((resolve) => there.onMessage((message) => heard.push(message) === 3 && resolve()));
  expect(heard).toEqual([1, big, { three: 3 }]);
  await listener.close();
  expect(await here.closed).toBe('connection closed');
  expect(here.send('late')).toBe(false);
});

test('another key is turned away', async () => {
  const { listener, open } = await pair(keyOf(2));
  await expect(open()).rejects.toThrow('No channel to 127.0.0.1');
  await listener.close();
});

test('a message that its reader cannot handle closes that channel and nothing else', async () => {
  const { listener, open, accepted } = await pair();
  const here = await open();
  here.send('a');
  here.send('b');
  const there = await accepted;
  const heard: unknown[] = [];
  there.onMessage((message) => {
    heard.push(message);
    throw new Error('not today');
  });
  expect(await there.closed).toContain('not today');
  expect(heard).toHaveLength(1);
  (await open()).close();
  await listener.close();
});

test('a fleet key that is short, absent or open to everybody is refused with the file named', () => {
  const dir = mkdtempSync(join(tmpdir(), 'drover-key-'));
  const path = join(dir, 'fleet.key');
  expect(() => readFleetKey(path)).toThrow(`${path} cannot be read`);
  writeFileSync(path, 'ab'.repeat(32), { mode: 0o600 });
  expect(readFleetKey(path)).toHaveLength(32);
  chmodSync(path, 0o644);
  expect(() => readFleetKey(path)).toThrow('chmod 600');
  chmodSync(path, 0o600);
  writeFileSync(path, 'abc');
  expect(() => readFleetKey(path)).toThrow('at least 32');
  rmSync(dir, { recursive: true });
});
