import { afterEach, expect, it } from 'vitest';
import { aHost, aVm, fakeServer, run, type FakeServer, type Handlers } from './fake-server.ts';

let server: FakeServer | undefined;
afterEach(async () => {
  await server?.close();
  server = undefined;
});

async function serve(handlers: Handlers): Promise<FakeServer> {
  server = await fakeServer(handlers);
  return server;
}

const bodies = (of: FakeServer) => of.calls.map(({ request }) => (request as { body?: unknown }).body);

it('vm label and host label set and remove labels in one request, and show what there is then', async () => {
  const fake = await serve({
    updateVm: () => aVm({ labels: { tier: 'web' } }),
    updateHost: () => aHost({ name: 'h1', labels: {} }),
  });
  const vm = run('vm label web1 tier=web empty= old-', { server: fake.url });
  expect([await vm.code, vm.stdout]).toEqual([0, 'web1: tier=web\n']);
  const host = run('host label h1 rack-', { server: fake.url });
  expect([await host.code, host.stdout]).toEqual([0, 'h1: no labels\n']);
  expect(bodies(fake)).toEqual([{ labels: { tier: 'web', empty: '', old: null } }, { labels: { rack: null } }]);
});

it.each([
  'vm label web1 tier',
  'vm label web1 =x',
  'host label h1 -',
  'vm list --selector tier',
  'host list --selector =a',
])('%s is not understood, and the server is not asked', async (line) => {
  const fake = await serve({});
  expect(await run(line, { server: fake.url }).code).toBe(2);
  expect(fake.calls).toEqual([]);
});

it('lists of hosts and VMs show those with all labels of a selector', async () => {
  const fake = await serve({
    listHosts: () => [
      aHost({ name: 'h1', labels: { rack: 'a', row: '1' } }),
      aHost({ name: 'h2', labels: { rack: 'a' } }),
    ],
    listVms: () => [aVm({ name: 'web1', labels: { tier: 'web' } }), aVm({ name: 'db1' })],
  });
  const shown = async (line: string): Promise<string> => {
    const it = run(line, { server: fake.url });
    await it.code;
    return it.stdout;
  };
  expect(await shown('host list --selector rack=a,row=1')).not.toContain('h2');
  expect(await shown('host list --selector rack=a --selector row=1')).toContain('h1');
  expect(await shown('host list --selector rack=b')).toBe('no host has these labels\n');
  const vms = await shown('vm list --selector tier=web');
  expect([vms.includes('web1'), vms.includes('db1')]).toEqual([true, false]);
});
