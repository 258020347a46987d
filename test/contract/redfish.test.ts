// Redfish over real TLS, against a small server that behaves as the DMTF's schema says (ComputerSystem, SessionService), and against
// ones that do not. On loopback; the certificates are made by openssl for the run.
import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { createServer, type Server } from 'node:https';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { powerOver } from '../../src/control/power/open.ts';
import type { PowerController } from '../../src/control/power/power.ts';
import type { PowerSpec } from '../../src/model/host.ts';
import { systemClock } from '../../src/runtime/clock.ts';

const signal = AbortSignal.timeout(120_000);
const system = '/redfish/v1/Systems/1';
const action = `${system}/Actions/ComputerSystem.Reset`;
const user = 'fencing';
const password = 'Tr0ub4dor&3';

let dir: string;
beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), 'drover-redfish-'));
  for (const [name, alternative] of [
    ['good', 'IP:127.0.0.1'],
    ['misnamed', 'DNS:bmc.factory.example'],
  ] as const) {
    const files = ['-keyout', join(dir, `${name}.key`), '-out', join(dir, `${name}.crt`)];
    const subject = ['-subj', '/CN=bmc', '-addext', `subjectAltName=${alternative}`, '-days', '2'];
    const curve = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'];
    execFileSync('openssl', ['req', '-x509', ...curve, ...files, ...subject], { stdio: 'ignore', timeout: 20_000 });
  }
  writeFileSync(join(dir, 'password'), `${password}\n`, { mode: 0o600 });
});
afterAll(() => rmSync(dir, { recursive: true, force: true }));

let server: Server | undefined;
afterEach(async () => {
  server?.closeAllConnections();
  server?.close();
  server = undefined;
});

interface Behaviour {
  readonly certificate?: 'good' | 'misnamed';
  /** Which ways in there are. */
  readonly basic?: boolean;
  readonly offered?: readonly string[] | null;
  /** Answers of the system resource while it switches, one a reading; then the wanted state. */
  readonly halfway?: readonly (string | null)[];
  /** What a reset is answered, and whether it is done all the same. */
  readonly reset?: { readonly status: number; readonly done: boolean; readonly body?: object };
  /** More that can be read. */
  readonly resources?: Readonly<Record<string, object>>;
  /** Takes a request over: true when it was. */
  readonly instead?: (request: IncomingMessage, response: ServerResponse) => boolean;
}

interface Fake {
  readonly controller: PowerController;
  readonly spec: Extract<PowerSpec, { kind: 'redfish' }>;
  readonly sessions: Set<string>;
  readonly resets: unknown[];
  power: string;
}

async function bmc(behaviour: Behaviour = {}): Promise<Fake> {
  const {
    certificate = 'good',
    basic = true,
    offered = ['On', 'ForceOff', 'GracefulShutdown'],
    halfway = [],
  } = behaviour;
  const sessions = new Set<string>();
  let logins = 0;
  let between = [...halfway];
  let switching = false;
  const reply = (
    response: ServerResponse,
    status: number,
    body?: object,
    headers: Record<string, string> = {},
  ): void => {
    response.writeHead(status, { 'content-type': 'application/json', 'OData-Version': '4.0', ...headers });
    response.end(body === undefined ? undefined : JSON.stringify(body));
  };
  const trouble = (message: string) => ({
    error: { code: 'Base.1.8.GeneralError', message: 'see there', '@Message.ExtendedInfo': [{ Message: message }] },
  });
  const isIn = ({ headers }: IncomingMessage): boolean => {
    const expected = `Basic ${Buffer.from(`${user}:${password}`).toString('base64')}`;
    return (basic && headers.authorization === expected) || sessions.has(String(headers['x-auth-token']));
  };
  const answer = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    let text = '';
    for await (const part of request) text += String(part);
    const { method, url = '' } = request;
    if (behaviour.instead?.(request, response)) return;
    if (method === 'POST' && url === '/redfish/v1/SessionService/Sessions') {
      const asked = JSON.parse(text) as { UserName: string; Password: string };
      if (asked.UserName !== user || asked.Password !== password)
        return reply(response, 401, trouble('wrong password'));
      const token = `token-${++logins}`;
      sessions.add(token);
      const location = `${url}/${token}`;
      return reply(response, 201, { '@odata.id': location }, { 'X-Auth-Token': token, Location: location });
    }
    if (!isIn(request)) return reply(response, 401, trouble('not signed in'));
    if (method === 'DELETE') {
      sessions.delete(url.split('/').at(-1) ?? '');
      return reply(response, 204);
    }
    if (method === 'GET' && url === system) {
      const shown = switching && between.length > 0 ? between.shift() : fake.power;
      const reset = { target: action, ...(offered && { 'ResetType@Redfish.AllowableValues': offered }) };
      const body = {
        '@odata.id': system,
        Id: '1',
        Name: 'system',
        PowerState: shown,
        Links: { Chassis: [{ '@odata.id': '/redfish/v1/Chassis/1' }] },
        Actions: { '#ComputerSystem.Reset': reset },
      };
      return reply(response, 200, body, { ETag: 'W/"1"' });
    }
    const found = method === 'GET' ? behaviour.resources?.[url] : undefined;
    if (found) return reply(response, 200, found);
    if (method === 'POST' && url === action) {
      const { ResetType: type } = JSON.parse(text) as { ResetType: string };
      fake.resets.push(type);
      const { status, done, body } = behaviour.reset ?? { status: 204, done: true };
      if (done) {
        fake.power = type === 'On' ? 'On' : 'Off';
        switching = true;
        between = [...halfway];
      }
      return reply(response, status, body);
    }
    reply(response, 404, trouble('no such resource'));
  };
  server = createServer(
    { key: readFileSync(join(dir, `${certificate}.key`)), cert: readFileSync(join(dir, `${certificate}.crt`)) },
    (request, response) => void answer(request, response),
  );
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const bound = server.address();
  if (bound === null || typeof bound === 'string') throw new Error('no port');
  const spec = {
    kind: 'redfish',
    url: `https://127.0.0.1:${bound.port}${system}`,
    user,
    passwordFile: join(dir, 'password'),
    caFile: join(dir, `${certificate}.crt`),
  } as const;
  const fake: Fake = { controller: open(spec), spec, sessions, resets: [], power: 'On' };
  return fake;
}
const open = powerOver(systemClock);

describe('a host with a Redfish controller', () => {
  test('reads on, is switched off by ForceOff, reads off, and is switched on again', async () => {
    const fake = await bmc();
    expect(await fake.controller.read(signal)).toEqual({ state: 'on' });
    expect(await fake.controller.off(signal)).toEqual({ state: 'off' });
    expect(await fake.controller.on(signal)).toEqual({ state: 'on' });
    expect(fake.resets).toEqual(['ForceOff', 'On']);
  });

  test('shuts down gracefully where that is asked for', async () => {
    const fake = await bmc();
    await fake.controller.shutDown(signal);
    expect(fake.resets).toEqual(['GracefulShutdown']);
  });

  test('says what it draws by the newer way and by the older one; without a meter it says nothing', async () => {
    const chassis = '/redfish/v1/Chassis/1';
    const newer = { EnvironmentMetrics: { '@odata.id': `${chassis}/EnvironmentMetrics` } };
    const older = { Power: { '@odata.id': `${chassis}/Power` } };
    const metrics = { [`${chassis}/EnvironmentMetrics`]: { PowerWatts: { Reading: 231.5 } } };
    const power = { [`${chassis}/Power`]: { PowerControl: [{ PowerConsumedWatts: 187 }] } };
    const watts = async (resources: Behaviour['resources']) =>
      (await bmc({ ...(resources && { resources }) })).controller.watts?.(signal);
    expect(await watts({ [chassis]: { ...newer, ...older }, ...metrics, ...power })).toBe(231.5);
    expect(await watts({ [chassis]: { ...newer, ...older }, ...power })).toBe(187);
    expect(await watts({ [chassis]: {} })).toBeNull();
    expect(await watts(undefined)).toBeNull();
  });

  test('is let in by a session where Basic is switched off, and leaves none behind', async () => {
    const fake = await bmc({ basic: false });
    expect(await fake.controller.off(signal)).toEqual({ state: 'off' });
    expect(fake.sessions.size).toBe(0);
  });

  test('is not off while it is PoweringOff, nor while it names no state', async () => {
    const fake = await bmc({ halfway: ['On', 'PoweringOff', null], reset: { status: 202, done: true } });
    expect(await fake.controller.off(signal)).toEqual({ state: 'off' });
    const slow = await bmc({ halfway: Array<string>(200).fill('PoweringOff') });
    expect(await slow.controller.off(signal)).toEqual({ state: 'unknown', says: 'it is PoweringOff' });
  });

  test('is not off while its BMC only said so', async () => {
    const fake = await bmc({ reset: { status: 200, done: false } });
    expect(await fake.controller.off(signal)).toEqual({ state: 'on' });
  });

  test('is off when the order was answered with an error and done all the same', async () => {
    const fake = await bmc({ reset: { status: 500, done: true } });
    expect(await fake.controller.off(signal)).toEqual({ state: 'off' });
  });

  test('says why the order was refused, and does not give it again', async () => {
    const body = { error: { message: 'insufficient privilege for the operation' } };
    const fake = await bmc({ reset: { status: 403, done: false, body } });
    const reading = await fake.controller.off(signal);
    expect(reading).toMatchObject({ state: 'on', says: expect.stringContaining('insufficient privilege') });
    expect(fake.resets).toEqual(['ForceOff']);
  });

  test('is never shut down gracefully where it offers no ForceOff', async () => {
    const fake = await bmc({ offered: ['On', 'GracefulShutdown'] });
    const reading = await fake.controller.off(signal);
    expect(reading).toMatchObject({ state: 'on', says: expect.stringContaining('offers no ForceOff') });
    expect(fake.resets).toEqual([]);
  });

  test('is switched off also where it does not say what it offers', async () => {
    const fake = await bmc({ offered: null });
    expect(await fake.controller.off(signal)).toEqual({ state: 'off' });
  });

  test('says that the password is wrong', async () => {
    const { spec } = await bmc();
    writeFileSync(join(dir, 'wrong'), 'nonsense\n');
    const reading = await open({ ...spec, passwordFile: join(dir, 'wrong') }).off(signal);
    expect(reading).toMatchObject({ state: 'unknown', says: expect.stringContaining('wrong password') });
  });

  test('is not talked to when its certificate is not trusted', async () => {
    const { spec } = await bmc();
    const reading = await open({ ...spec, caFile: null }).read(signal);
    expect(reading).toMatchObject({ state: 'unknown', says: expect.stringMatching(/self.signed/i) });
  });

  test('is trusted by its own certificate, whatever name the factory put into it', async () => {
    const fake = await bmc({ certificate: 'misnamed' });
    expect(await fake.controller.read(signal)).toEqual({ state: 'on' });
  });

  test('is unknown while its BMC hangs, within the time for one reading', async () => {
    const { controller } = await bmc({ instead: () => true });
    const startedAt = performance.now();
    expect((await controller.read(signal)).state).toBe('unknown');
    expect(performance.now() - startedAt).toBeLessThan(7_000);
  });

  test('is unknown where nobody listens', async () => {
    const { controller } = await bmc();
    server?.closeAllConnections();
    server?.close();
    expect(await controller.read(signal)).toMatchObject({
      state: 'unknown',
      says: expect.stringContaining('ECONNREFUSED'),
    });
  });

  test('sends no password to where a BMC refers', async () => {
    const elsewhere = { '#ComputerSystem.Reset': { target: 'https://192.0.2.1/collect' } };
    const { controller } = await bmc({
      instead: (request, response) => {
        if (request.method !== 'GET') return false;
        response.end(JSON.stringify({ PowerState: 'On', Actions: elsewhere }));
        return true;
      },
    });
    expect(await controller.off(signal)).toMatchObject({
      state: 'on',
      says: expect.stringContaining('nobody configured'),
    });
  });

  test('is unknown where the address is no system', async () => {
    const { spec } = await bmc();
    const reading = await open({ ...spec, url: spec.url.replace('Systems/1', 'Systems/2') }).read(signal);
    expect(reading).toMatchObject({ state: 'unknown', says: expect.stringContaining('404: no such resource') });
  });
});
