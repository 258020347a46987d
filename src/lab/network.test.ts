import { createServer, type Server } from 'node:net';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { run } from './exec.ts';
import { cutPath, findNetwork, processesInside, raise, raze, setLink, shape, tapsOn } from './network.ts';
import { addressesOf, checkSettings, namesOf } from './state.ts';

const settings = { name: 'net-test', hosts: 2, linkSpeed: '1gbit' };
const names = namesOf(settings.name);

/** Tries a TCP connection from inside a namespace, by the one program that is surely there. */
async function reaches(namespace: string, address: string, port: number): Promise<boolean> {
  const script = `require('net').connect(${port}, '${address}').setTimeout(1000, () => process.exit(1))
    .on('connect', () => process.exit(0)).on('error', () => process.exit(1))`;
  return run('ip', ['netns', 'exec', namespace, process.execPath, '-e', script]).then(
    () => true,
    () => false,
  );
}

describe('names and limits', () => {
  it.each(['', 'Lab', 'a-name-too-long', '-lab', 'a b'])('the lab name %j is refused', (name) => {
    expect(() => checkSettings({ ...settings, name })).toThrow(/cannot be the name of a lab/);
  });

  it.each([1, 17, 2.5])('%d hosts are refused', (hosts) => {
    expect(() => checkSettings({ ...settings, hosts })).toThrow(/cannot have/);
  });

  it.each(['', 'fast', '1 gbit', '0gbit', '1gbit; reboot'])('the link speed %j is refused', (linkSpeed) => {
    expect(() => checkSettings({ ...settings, linkSpeed })).toThrow(/is not a link speed/);
  });
});

describe.runIf(process.getuid?.() === 0)('the network of a lab, as root', () => {
  let octet = 0;
  let server: Server;
  let port = 0;

  beforeAll(async () => {
    octet = await raise(settings);
    server = createServer((socket) => socket.end());
    await new Promise<void>((resolve) => server.listen(0, addressesOf(octet).server, resolve));
    const bound = server.address();
    port = typeof bound === 'object' && bound ? bound.port : 0;
  });
  afterAll(async () => {
    server.close();
    await raze(settings.name);
  });

  it('lets a host reach the root namespace over the control network', async () => {
    expect(await reaches(names.host('h2'), addressesOf(octet).server, port)).toBe(true);
  });

  it('cuts and mends the control link of one host', async () => {
    await setLink(settings.name, 'h2', 'control', 'down');
    expect(await reaches(names.host('h2'), addressesOf(octet).server, port)).toBe(false);
    expect(await reaches(names.host('h1'), addressesOf(octet).server, port)).toBe(true);
    await setLink(settings.name, 'h2', 'control', 'up');
    expect(await reaches(names.host('h2'), addressesOf(octet).server, port)).toBe(true);
  });

  it('loses what one host sends to the server, and nothing else, until it is raised again', async () => {
    const state = { ...settings, octet };
    await cutPath(state, 'h1', 'server');
    expect(await reaches(names.host('h1'), addressesOf(octet).server, port)).toBe(false);
    expect(await reaches(names.host('h2'), addressesOf(octet).server, port)).toBe(true);
    await raise(settings);
    expect(await reaches(names.host('h1'), addressesOf(octet).server, port)).toBe(true);
    await cutPath(state, 'server', 'h1');
    expect(await reaches(names.host('h1'), addressesOf(octet).server, port)).toBe(false);
    await raise(settings);
    expect(await reaches(names.host('h1'), addressesOf(octet).server, port)).toBe(true);
  });

  it('raised twice is as raised once, with the same addresses', async () => {
    expect(await raise(settings)).toBe(octet);
    expect((await findNetwork(settings.name)).namespaces.toSorted()).toEqual(
      [names.host('h1'), names.host('h2'), names.switch, names.client].toSorted(),
    );
  });

  it('repairs a host whose namespace is gone', async () => {
    await run('ip', ['netns', 'del', names.host('h1')]);
    expect(await raise(settings)).toBe(octet);
    expect(await reaches(names.host('h1'), addressesOf(octet).server, port)).toBe(true);
    expect(await tapsOn(settings.name, 'h1')).toEqual([]);
  });

  it('changes the speed of the migration links, and takes the shaping off for raw', async () => {
    const shaping = () => run('tc', ['-n', names.host('h1'), 'qdisc', 'show', 'dev', 'mig0']);
    await shape({ ...settings, linkSpeed: '200mbit' });
    expect(await shaping()).toContain('rate 200Mbit');
    await shape({ ...settings, linkSpeed: 'raw' });
    expect(await shaping()).not.toContain('tbf');
    await shape({ ...settings, linkSpeed: 'raw' });
  });

  it('gives a second lab other addresses', async () => {
    const other = { ...settings, name: 'net-test-2' };
    try {
      expect(await raise(other)).not.toBe(octet);
    } finally {
      await raze(other.name);
    }
  });

  it('leaves no namespace and no link behind, and razing again is no error', async () => {
    await raze(settings.name);
    expect(await findNetwork(settings.name)).toEqual({ namespaces: [], rootLink: false, owner: undefined });
    expect(await processesInside(settings.name)).toEqual([]);
    await raze(settings.name);
  });
});
