import { afterEach, describe, expect, it } from 'vitest';
import type { PowerView } from '../wire/power.ts';
import { aHost, fakeServer, run, type FakeServer, type Handlers } from './fake-server.ts';

let server: FakeServer | undefined;
afterEach(async () => {
  await server?.close();
  server = undefined;
});

async function serve(handlers: Handlers): Promise<FakeServer> {
  server = await fakeServer(handlers);
  return server;
}

const reads =
  (state: PowerView['state'], says: string | null = null) =>
  (): PowerView => ({
    host: 'h1',
    controller: 'ipmi 10.0.0.5:623 as admin',
    state,
    says,
  });
const bodies = (of: FakeServer) => of.calls.map(({ request }) => (request as { body?: unknown }).body);

describe('drover host power', () => {
  it.each([
    ['10.0.0.5', { address: '10.0.0.5', port: 623 }],
    ['10.0.0.5:6230', { address: '10.0.0.5', port: 6230 }],
    ['bmc1.lan', { address: 'bmc1.lan', port: 623 }],
    ['fd00::5', { address: 'fd00::5', port: 623 }],
    ['[fd00::5]:6230', { address: 'fd00::5', port: 6230 }],
  ])('set --ipmi %s names that controller, with a whole path', async (text, expected) => {
    const fake = await serve({ setHostPower: () => aHost({ power: 'ipmi' }) });
    const it = run(`host power h1 set --ipmi ${text} --user admin --password-file bmc`, { server: fake.url });
    expect(await it.code).toBe(0);
    const controller = { kind: 'ipmi', user: 'admin', passwordFile: '/somewhere/bmc', ...expected };
    expect(bodies(fake)).toEqual([{ controller, untested: false }]);
  });

  it('set --redfish names the system and whom to trust', async () => {
    const fake = await serve({ setHostPower: () => aHost({ power: 'redfish' }) });
    const flags = '--redfish https://bmc1/redfish/v1/Systems/1 --user a --password-file /p --ca-file /ca --untested';
    expect(await run(`host power h1 set ${flags}`, { server: fake.url }).code).toBe(0);
    expect(bodies(fake)).toMatchObject([{ controller: { kind: 'redfish', caFile: '/ca' }, untested: true }]);
  });

  it.each([
    'set --user a --password-file /p',
    'set --ipmi 10.0.0.5 --redfish https://b/x --user a --password-file /p',
    'set --ipmi 10.0.0.5',
    'set --ipmi bmc:x:1 --user a --password-file /p',
    'restart',
  ])('%s is not understood, and the server is not asked', async (line) => {
    const fake = await serve({});
    const it = run(`host power h1 ${line}`, { server: fake.url });
    expect(await it.code).toBe(2);
    expect(fake.calls).toEqual([]);
  });

  it('reads, and ends with 1 when it cannot be read', async () => {
    const fake = await serve({ getHostPower: reads('on') });
    const on = run('host power h1', { server: fake.url });
    expect(await on.code).toBe(0);
    expect(on.stdout).toBe('h1: power on (ipmi 10.0.0.5:623 as admin)\n');
    await fake.close();
    const mute = await serve({ getHostPower: reads('unknown', 'no answer') });
    const unknown = run('host power h1', { server: mute.url });
    expect(await unknown.code).toBe(1);
    expect(unknown.stdout).toContain('power unknown (ipmi 10.0.0.5:623 as admin): no answer');
  });

  it('off ends with 1 when it reads on afterwards', async () => {
    const fake = await serve({ switchHostPower: reads('on', 'refused') });
    const it = run('host power h1 off', { server: fake.url });
    expect(await it.code).toBe(1);
    expect(it.stdout).toContain('power on');
    expect(bodies(fake)).toEqual([{ to: 'off', force: false }]);
  });

  it('off asks on a terminal, and does nothing without a yes', async () => {
    const fake = await serve({ switchHostPower: reads('off') });
    const no = run('host power h1 off', { server: fake.url, tty: true, stdin: ['n\n'] });
    expect(await no.code).toBe(1);
    expect(fake.calls).toEqual([]);
    const yes = run('host power h1 off --force', { server: fake.url, tty: true, stdin: ['y\n'] });
    expect(await yes.code).toBe(0);
    expect(await run('host power h1 off --yes', { server: fake.url, tty: true }).code).toBe(0);
    expect(bodies(fake)).toMatchObject([{ force: true }, { force: false }]);
  });

  it('on and unset are done at once', async () => {
    const fake = await serve({ switchHostPower: reads('on'), unsetHostPower: () => aHost() });
    expect(await run('host power h1 on', { server: fake.url, tty: true }).code).toBe(0);
    expect(await run('host power h1 unset', { server: fake.url, tty: true }).code).toBe(0);
    expect(fake.calls.map(({ name }) => name)).toEqual(['switchHostPower', 'unsetHostPower']);
  });
});
