/** Who may do what over the API, and what is remembered of it. */
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { roleSuffices, type Role } from '../model/access.ts';
import { systemClock } from '../runtime/clock.ts';
import { silentLog } from '../runtime/log.ts';
import { seededRandom } from '../runtime/random.ts';
import { endpoints, type Endpoint, type EndpointName } from '../wire/endpoints.ts';
import type { Problem } from '../wire/errors.ts';
import type { AuditView, MeView } from '../wire/people.ts';
import { Audit } from './audit.ts';
import { FakeFleet } from './fake-fleet.ts';
import { secretHash } from './people.ts';
import { createApi } from './server.ts';

const bootstrap = 'a-token-for-tests';
const password = 'correct horse battery';
let fleet: FakeFleet;
let api: ReturnType<typeof createApi>;
const startApi = (): void => {
  api = createApi({ plane: fleet.plane, token: bootstrap, log: silentLog, checkReplies: true });
};
beforeEach(async () => {
  fleet = await FakeFleet.start(['h1', 'h2']);
  startApi();
});
afterEach(async () => {
  await api.close();
  await fleet.stopServer();
});

type Method = Endpoint['method'];

async function send(method: Method, path: string, headers: Record<string, string>, body?: unknown) {
  const response = await api.inject({
    method,
    url: `/api/v1${path}`,
    headers,
    ...(body === undefined ? {} : { body: body as object }),
  });
  return { status: response.statusCode, headers: response.headers, body: response.json<unknown>() };
}
const bearer = (token: string) => ({ authorization: `Bearer ${token}` });
const admin = (method: Method, path: string, body?: unknown) => send(method, path, bearer(bootstrap), body);

async function tokenWith(role: Role, user: string | null = null): Promise<string> {
  const made = await admin('POST', '/tokens', { name: `t-${role}`, role, user });
  expect(made.status).toBe(201);
  return (made.body as { token: string }).token;
}

async function addUser(name: string, role: Role): Promise<void> {
  expect((await admin('POST', '/users', { name, role, password })).status).toBe(201);
}

/** @returns the cookie as a browser sends it */
async function logIn(name: string, given = password, headers: Record<string, string> = {}) {
  const answer = await send('POST', '/login', headers, { name, password: given });
  const cookie = String(answer.headers['set-cookie'] ?? '');
  return { ...answer, setCookie: cookie, cookie: cookie.split(';')[0] ?? '' };
}

const everyOperation = Object.entries(endpoints) as [EndpointName, Endpoint][];
const pathOf = ({ path }: Endpoint): string =>
  path.replace(':host', 'h1').replace(':vm', 'web1').replace(/:\w+/, 'whatever');

describe('roles', () => {
  test('without a token only login and health answer', async () => {
    for (const [name, endpoint] of everyOperation.filter(([each]) => each !== 'login')) {
      const { status, body } = await send(endpoint.method, pathOf(endpoint), {});
      expect([name, status, (body as Problem).code]).toEqual([name, 401, 'unauthorized']);
    }
    for (const url of ['/healthz', '/readyz']) expect((await api.inject({ url })).statusCode).toBe(200);
  });

  test('a viewer changes nothing, whatever operation is tried', async () => {
    await fleet.run('web1', 'h1');
    await addUser('vera', 'viewer');
    const { cookie } = await logIn('vera');
    const before = await tokenWith('viewer');
    const state = await fleet.dump();
    for (const headers of [bearer(before), { cookie, 'sec-fetch-site': 'same-origin' }]) {
      for (const [name, endpoint] of everyOperation) {
        if (endpoint.stream !== undefined || name === 'login' || (name === 'logout' && 'cookie' in headers)) continue;
        const { status, body } = await send(endpoint.method, pathOf(endpoint), headers, bodyFor(name, endpoint));
        if (endpoint.role !== 'viewer' || name === 'logout') {
          expect([name, status, (body as Problem).code]).toEqual([name, 403, 'forbidden']);
        } else expect([name, status]).not.toEqual([name, 403]);
      }
    }
    expect(await fleet.dump()).toBe(state);
  });

  test('an operator acts, and does not say who may', async () => {
    const token = await tokenWith('operator');
    expect((await send('POST', '/hosts/h1/cordon', bearer(token))).status).toBe(200);
    for (const [name, endpoint] of everyOperation.filter(([, { role }]) => role === 'admin')) {
      const { status } = await send(endpoint.method, pathOf(endpoint), bearer(token));
      expect([name, status]).toEqual([name, 403]);
    }
  });

  test('every operation that changes something asks for more than a viewer', () => {
    const open = everyOperation.filter(([, { method, role }]) => method !== 'GET' && !mayNotView(role));
    expect(open.map(([name]) => name).toSorted()).toEqual(['changeMyPassword', 'forecastVm', 'login', 'logout']);
  });
});

const mayNotView = (role: Endpoint['role']): boolean => role !== 'none' && !roleSuffices('viewer', role);

function bodyFor(name: EndpointName, { method, body }: Endpoint): unknown {
  if (method === 'GET' || body === undefined) return undefined;
  return name === 'createVm' ? { name: 'web9', diskMiB: 10 } : {};
}

describe('tokens', () => {
  test('are shown once, work until they are revoked, and are not in the store', async () => {
    const secret = await tokenWith('operator');
    expect(await fleet.dump()).not.toContain(secret);
    const listed = await admin('GET', '/tokens');
    expect(JSON.stringify(listed.body)).not.toContain(secret);
    expect(listed.body).toMatchObject([{ name: 't-operator', role: 'operator', user: null, createdBy: 'bootstrap' }]);
    const me = await send('GET', '/me', bearer(secret));
    expect(me.body).toMatchObject({
      name: 'token:t-operator',
      via: 'token',
      role: 'operator',
    } satisfies Partial<MeView>);
    expect((await admin('DELETE', '/tokens/t-operator')).status).toBe(200);
    expect((await send('GET', '/me', bearer(secret))).status).toBe(401);
  });

  test('of a user do no more than the user may today, and go with them', async () => {
    await addUser('olga', 'operator');
    const secret = await tokenWith('admin', 'olga');
    expect((await send('GET', '/me', bearer(secret))).body).toMatchObject({ name: 'olga', role: 'operator' });
    await admin('PATCH', '/users/olga', { role: 'viewer' });
    expect((await send('POST', '/hosts/h1/cordon', bearer(secret))).status).toBe(403);
    expect((await admin('DELETE', '/users/olga')).body).toEqual({ removed: 'olga', tokensRevoked: ['t-admin'] });
    expect((await send('GET', '/me', bearer(secret))).status).toBe(401);
  });

  test('run out', async () => {
    const made = await admin('POST', '/tokens', { name: 'short', role: 'viewer', expiresInMs: 60_000 });
    const { token } = made.body as { token: string };
    expect((await send('GET', '/me', bearer(token))).status).toBe(200);
    await fleet.pass(60_000, 5_000);
    expect((await send('GET', '/me', bearer(token))).status).toBe(401);
    expect((await admin('GET', '/tokens')).body).toEqual([]);
  });
});

describe('a session', () => {
  test('begins with the right password, outlives the server, and ends by logging out', async () => {
    await addUser('alice', 'operator');
    expect((await logIn('alice', 'wrong password')).body).toMatchObject({ status: 401, code: 'login-failed' });
    expect((await logIn('nobody-like-that')).body).toMatchObject({ status: 401, code: 'login-failed' });
    const { cookie, setCookie, body } = await logIn('alice');
    expect(body).toMatchObject({ name: 'alice', role: 'operator', via: 'session' });
    expect(setCookie).toMatch(/^drover-session=[\w-]{43}; Max-Age=43200; Path=\/; HttpOnly; SameSite=Strict$/);
    expect(await fleet.dump()).not.toContain(cookie.split('=')[1]);
    await api.close();
    await fleet.restartServer();
    startApi();
    expect((await send('GET', '/me', { cookie })).body).toMatchObject({ name: 'alice' });
    const own = { cookie, 'sec-fetch-site': 'same-origin' };
    expect((await send('POST', '/hosts/h1/cordon', own)).status).toBe(200);
    const out = await send('POST', '/logout', own);
    expect(out.body).toEqual({ loggedOut: 'alice' });
    expect(out.headers['set-cookie']).toContain('Max-Age=0');
    expect((await send('GET', '/me', { cookie })).status).toBe(401);
  });

  test('has a cookie for TLS only where TLS is', async () => {
    await addUser('alice', 'viewer');
    expect((await logIn('alice', password, { 'x-forwarded-proto': 'https' })).setCookie).toMatch(/; Secure$/);
  });

  test('does what is unsafe only for its own pages', async () => {
    await addUser('alice', 'operator');
    const { cookie } = await logIn('alice');
    const cases: [string, Record<string, string>, number][] = [
      ['with nothing that a browser says', {}, 403],
      ['from a page of another site', { 'sec-fetch-site': 'cross-site' }, 403],
      ['from a sibling', { 'sec-fetch-site': 'same-site', 'drover-session': '1' }, 403],
      ['from another origin', { origin: 'http://evil.example', host: 'drover.example' }, 403],
      ['from no origin', { origin: 'null', host: 'drover.example' }, 403],
      ['from the own origin', { origin: 'http://drover.example', host: 'drover.example' }, 200],
      ['from the own page', { 'sec-fetch-site': 'same-origin' }, 200],
      ['with a header that no form can send', { 'drover-session': '1' }, 200],
    ];
    for (const [name, headers, status] of cases) {
      expect([name, (await send('POST', '/hosts/h1/cordon', { cookie, ...headers })).status]).toEqual([name, status]);
      expect([name, (await send('GET', '/hosts', { cookie, ...headers })).status]).toEqual([name, 200]);
    }
  });

  test('is not begun by a page of another site', async () => {
    await addUser('alice', 'operator');
    expect((await logIn('alice', password, { 'sec-fetch-site': 'cross-site' })).status).toBe(403);
  });

  test('ends with its time, with a new password, and with its user', async () => {
    await addUser('alice', 'viewer');
    const first = await logIn('alice');
    await admin('PATCH', '/users/alice', { password: 'another password' });
    expect((await send('GET', '/me', { cookie: first.cookie })).status).toBe(401);
    const second = await logIn('alice', 'another password');
    expect((await send('GET', '/me', { cookie: second.cookie })).status).toBe(200);
    const short = { schema: 1, user: 'alice', createdAt: 0, expiresAt: fleet.clock.now() + 1_000 } as const;
    await fleet.plane.fleet.change((draft) => draft.putPlain('session', secretHash('short'), short));
    expect((await send('GET', '/me', { cookie: 'drover-session=short' })).status).toBe(200);
    await fleet.clock.advance(1_000);
    expect((await send('GET', '/me', { cookie: 'drover-session=short' })).status).toBe(401);
    const third = await logIn('alice', 'another password');
    await admin('DELETE', '/users/alice');
    expect((await send('GET', '/me', { cookie: third.cookie })).status).toBe(401);
  });

  test('cannot be guessed: after five wrong passwords even the right one has to wait', async () => {
    await addUser('alice', 'viewer');
    for (let i = 0; i < 5; i++) expect((await logIn('alice', `guess ${i}`)).status).toBe(401);
    const held = await logIn('alice');
    expect(held).toMatchObject({ status: 429, body: { code: 'too-many-requests' } });
    expect(Number(held.headers['retry-after'])).toBeGreaterThan(0);
    await fleet.clock.advance(30_000);
    expect((await logIn('alice')).status).toBe(200);
  });
});

describe('the own password', () => {
  const change = (headers: Record<string, string>, oldPassword: string) =>
    send('PUT', '/me/password', headers, { oldPassword, newPassword: 'a quite new one' });

  test('is changed with the old one; the session goes on, others end, and nothing of it is written down', async () => {
    await addUser('vera', 'viewer');
    const [here, elsewhere] = [await logIn('vera'), await logIn('vera')];
    const own = { cookie: here.cookie, 'sec-fetch-site': 'same-origin' };
    expect(await change(own, 'not the old one')).toMatchObject({ status: 401, body: { code: 'login-failed' } });
    expect((await send('GET', '/me', { cookie: elsewhere.cookie })).status).toBe(200);
    expect(await change(own, password)).toMatchObject({ status: 200, body: { name: 'vera' } });
    expect((await send('GET', '/me', { cookie: here.cookie })).status).toBe(200);
    expect((await send('GET', '/me', { cookie: elsewhere.cookie })).status).toBe(401);
    expect((await logIn('vera')).status).toBe(401);
    expect((await logIn('vera', 'a quite new one')).status).toBe(200);
    const audit = JSON.stringify((await admin('GET', '/audit')).body);
    expect(audit).toContain('changeMyPassword');
    expect(audit).not.toMatch(/not the old one|a quite new one|correct horse/);
  });

  test('is changed with a token of the user, which ends all sessions, and not with one that belongs to nobody', async () => {
    await addUser('vera', 'viewer');
    const { cookie } = await logIn('vera');
    expect(await change(bearer(bootstrap), password)).toMatchObject({ status: 403 });
    expect(await change(bearer(await tokenWith('viewer')), password)).toMatchObject({ status: 403 });
    expect((await change(bearer(await tokenWith('admin', 'vera')), password)).status).toBe(200);
    expect((await send('GET', '/me', { cookie })).status).toBe(401);
  });

  test('cannot be guessed by who has found an open session', async () => {
    await addUser('vera', 'viewer');
    const { cookie } = await logIn('vera');
    const own = { cookie, 'sec-fetch-site': 'same-origin' };
    for (let i = 0; i < 5; i++) expect((await change(own, `guess ${i}`)).status).toBe(401);
    expect((await change(own, password)).status).toBe(429);
  });

  test('is not changed by a page of another site', async () => {
    await addUser('vera', 'viewer');
    const { cookie } = await logIn('vera');
    expect((await change({ cookie, 'sec-fetch-site': 'cross-site' }, password)).status).toBe(403);
  });
});

describe('a user', () => {
  test('is changed only by who has seen the newest version', async () => {
    await addUser('alice', 'viewer');
    const seen = await admin('GET', '/users/alice');
    const etag = String(seen.headers['etag']);
    expect(etag).toMatch(/^"\d+"$/);
    const change = (role: Role) => send('PATCH', '/users/alice', { ...bearer(bootstrap), 'if-match': etag }, { role });
    expect((await change('operator')).status).toBe(200);
    expect(await change('admin')).toMatchObject({ status: 412, body: { code: 'version-mismatch' } });
    expect((await admin('GET', '/users/alice')).body).toMatchObject({ role: 'operator' });
  });

  test('is not added twice, but the same request may come twice', async () => {
    const headers = { ...bearer(bootstrap), 'idempotency-key': 'k1' };
    const body = { name: 'alice', role: 'viewer' };
    expect((await send('POST', '/users', headers, body)).status).toBe(201);
    expect((await send('POST', '/users', headers, body)).status).toBe(201);
    expect(await send('POST', '/users', headers, { ...body, role: 'admin' })).toMatchObject({
      status: 422,
      body: { code: 'key-reused' },
    });
    expect((await admin('POST', '/users', body)).status).toBe(409);
  });

  test('needs a name that is none of ours and a password that is one', async () => {
    expect((await admin('POST', '/users', { name: 'bootstrap', role: 'viewer' })).status).toBe(400);
    expect((await admin('POST', '/users', { name: 'alice', role: 'viewer', password: 'short' })).status).toBe(400);
    expect((await admin('POST', '/users', { name: 'alice', role: 'owner' })).status).toBe(400);
    expect((await admin('GET', '/users')).body).toEqual([]);
  });
});

describe('the audit log', () => {
  const audit = async (query = ''): Promise<AuditView[]> => (await admin('GET', `/audit${query}`)).body as AuditView[];

  test('says who did what, to what, why, and how it came out, without secrets', async () => {
    await addUser('alice', 'operator');
    const { cookie } = await logIn('alice');
    const own = { cookie, 'sec-fetch-site': 'same-origin' };
    await send('POST', '/hosts/h1/cordon', { ...own, 'drover-reason': 'neuer%20L%C3%BCfter' });
    await send('DELETE', '/vms/nothing', { ...own, authorization: `Bearer ${await tokenWith('operator')}` });
    await admin('POST', '/hosts/h1/drain', { because: 'new memory', dryRun: true });
    const entries = await audit();
    expect(entries.map(({ by, did, to, outcome, because }) => [by, did, to, outcome, because])).toEqual([
      ['token:t-operator', 'deleteVm', 'vm nothing', 'not-found', null],
      ['bootstrap', 'createToken', 't-operator', 'done', null],
      ['alice', 'cordonHost', 'host h1', 'done', 'neuer Lüfter'],
      ['alice', 'login', 'alice', 'done', null],
      ['bootstrap', 'createUser', 'alice', 'done', null],
    ]);
    expect(JSON.stringify(entries)).not.toContain(password);
    expect(entries[2]).toMatchObject({ via: 'session', address: '127.0.0.1' });
    expect(await audit('?outcome=failed')).toHaveLength(1);
    expect(await audit('?by=alice&did=cordonHost')).toHaveLength(1);
    expect(await audit('?to=h1')).toHaveLength(1);
  });

  test('comes in pages that go on after what was read', async () => {
    for (let i = 0; i < 5; i++) await admin('POST', `/hosts/h1/${i % 2 === 0 ? 'cordon' : 'uncordon'}`);
    const seen: string[] = [];
    let next: string | undefined = '/audit?limit=2';
    while (next !== undefined) {
      const page = await admin('GET', next);
      seen.push(...(page.body as AuditView[]).map(({ id }) => id));
      await admin('POST', '/hosts/h2/cordon');
      next = /^<\/api\/v1(.*)>; rel="next"$/.exec(String(page.headers['link'] ?? ''))?.[1];
    }
    expect(new Set(seen).size).toBe(5);
    expect(seen).toHaveLength(5);
  });

  test('does not grow for ever', async () => {
    const entry = { by: 'x', via: 'token', token: null, address: 'a', did: 'cordonHost', to: null } as const;
    const rest = { request: null, because: null, outcome: 'done', says: null };
    let now = fleet.clock.now();
    const { plane } = fleet;
    const log = new Audit({
      fleet: plane.fleet,
      clock: { ...systemClock, now: () => now },
      random: seededRandom(1),
      log: silentLog,
    });
    await Promise.all(Array.from({ length: 900 }, () => log.note({ ...entry, ...rest })));
    now += 181 * 86_400_000;
    await log.note({ ...entry, ...rest });
    for (let i = 0; i < 10; i++) await log.tidy();
    expect([...plane.fleet.plain('audit').values()].map(({ at }) => at)).toEqual([now]);
  });
});
