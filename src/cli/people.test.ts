/** `drover user`, `drover token` and `drover audit` as a person meets them. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { afterEach, expect, test } from 'vitest';
import { systemClock } from '../runtime/clock.ts';
import type { AuditView, TokenView, UserView } from '../wire/people.ts';
import { fakeServer, run, token as accepted, type FakeServer, type Handlers, type RunOptions } from './fake-server.ts';

let server: FakeServer | undefined;
afterEach(async () => {
  await server?.close();
  server = undefined;
});

const user: UserView = {
  name: 'alice',
  role: 'operator',
  canLogIn: true,
  tokens: 1,
  sessions: 2,
  createdAt: 0,
  createdBy: 'bootstrap',
};
const token: TokenView = {
  id: 'tok_1',
  name: 'ci',
  user: null,
  role: 'viewer',
  createdAt: 0,
  createdBy: 'bootstrap',
  expiresAt: null,
};

async function cli(handlers: Handlers, line: string, options: RunOptions = {}) {
  server = await fakeServer(handlers);
  const running = run(line, { server: server.url, ...options });
  return { code: await running.code, running, calls: server.calls };
}

test('a password is read from stdin, and asked for twice and hidden on a terminal', async () => {
  const createUser = () => user;
  const piped = await cli({ createUser }, 'user add alice --role operator', { stdin: ['a long password'] });
  expect(piped.code).toBe(0);
  expect(piped.running.stdout).toBe('alice is operator\n');
  expect(piped.calls[0]?.request).toEqual({ body: { name: 'alice', role: 'operator', password: 'a long password' } });
  await server?.close();
  const typed = { tty: true, stdin: ['longer pasx\u007Fsword\r'] };
  const asked = await cli({ createUser }, 'user add alice --role operator', typed);
  expect(asked.code).toBe(0);
  expect(asked.running.raw).toEqual([true, false, true, false]);
  expect(asked.running.stderr).not.toContain('longer');
  expect(asked.calls[0]?.request).toMatchObject({ body: { password: 'longer password' } });
});

test('a generated password is shown once, and no password at all can be wanted', async () => {
  const updateUser = () => user;
  const made = await cli({ updateUser }, 'user set-password alice --generate-password');
  expect(made.calls).toMatchObject([{ request: { body: { password: expect.stringMatching(/^[\w-]{20}$/) } } }]);
  const [, shown] = /not shown again: (.*)\n/.exec(made.running.stdout) ?? [];
  expect(made.calls).toMatchObject([{ request: { body: { password: shown } } }]);
  await server?.close();
  const none = await cli({ createUser: () => ({ ...user, canLogIn: false }) }, 'user add bot --role viewer --no-login');
  expect(none.calls[0]?.request).toMatchObject({ body: { name: 'bot', password: null } });
});

test('the own password is changed with the old one, from two lines of stdin', async () => {
  const me = { name: 'alice', role: 'viewer', via: 'token', token: 'mine', user: 'alice', expiresAt: null } as const;
  const changed = await cli({ getMe: () => me, changeMyPassword: () => me }, 'user change-password', {
    stdin: ['the old one', 'the new one'],
  });
  expect(changed.running.stdout).toBe('alice has a new password\n');
  expect(changed.calls.at(-1)).toMatchObject({
    name: 'changeMyPassword',
    request: { body: { oldPassword: 'the old one', newPassword: 'the new one' } },
  });
  await server?.close();
  const none = await cli({ getMe: () => me }, 'user change-password');
  expect([none.code, none.running.stderr.includes('The old password was not given.')]).toEqual([2, true]);
});

test('two lines are read from a real stdin, whether they come together or not', async () => {
  const me = { name: 'alice', role: 'viewer', via: 'token', token: 'mine', user: 'alice', expiresAt: null } as const;
  server = await fakeServer({ getMe: () => me, changeMyPassword: () => me });
  const main = fileURLToPath(new URL('../main.ts', import.meta.url));
  for (const lines of [['the old one\n', 'the new one\n'], ['the old one\nthe new one\n']]) {
    const env = { ...process.env, DROVER_SERVER: server.url, DROVER_TOKEN: accepted, NODE_NO_WARNINGS: '1' };
    const child = spawn(process.execPath, [main, 'user', 'change-password'], {
      env,
      stdio: ['pipe', 'ignore', 'ignore'],
    });
    const over = once(child, 'exit');
    for (const line of lines) {
      child.stdin.write(line);
      await systemClock.sleep(700); // long enough that it is usually read by itself; either way the end is the same
    }
    child.stdin.end();
    await over;
    const body = { oldPassword: 'the old one', newPassword: 'the new one' };
    expect(server.calls.at(-1)).toMatchObject({ name: 'changeMyPassword', request: { body } });
  }
});

test('nothing is sent without a password, or with a role that is none', async () => {
  expect((await cli({}, 'user add alice --role operator')).code).toBe(2);
  expect(server?.calls).toEqual([]);
  await server?.close();
  const wrong = await cli({}, 'user add alice --role root --no-login');
  expect(wrong.code).toBe(2);
  expect(wrong.running.stderr).toContain('viewer, operator, admin');
});

test('a token alone is on stdout', async () => {
  const made = await cli({ createToken: () => ({ ...token, token: 'drover_x' }) }, 'token create ci --role viewer');
  expect(made.running.stdout).toBe('drover_x\n');
  expect(made.running.stderr).toContain('not shown again');
});

test('lists are tables', async () => {
  const users = await cli({ listUsers: () => [user] }, 'user list');
  expect(users.running.stdout).toContain('alice  operator  password         2       1');
  await server?.close();
  const tokens = await cli({ listTokens: () => [token] }, 'token list');
  expect(tokens.running.stdout).toMatch(/ci +viewer +- +never/);
});

test('the audit log is asked with what was wanted, and says who, what and why', async () => {
  const entry: AuditView = {
    id: 'aud_1',
    at: 0,
    by: 'alice',
    via: 'token',
    token: 'ci',
    address: '10.0.0.1',
    did: 'cordonHost',
    to: 'host h1',
    request: null,
    because: 'new fan',
    outcome: 'done',
    says: null,
  };
  const { running, calls } = await cli({ listAudit: () => [entry] }, 'audit --by alice --failed --limit 5');
  expect(calls[0]?.request).toMatchObject({ query: { by: 'alice', outcome: 'failed', limit: 5 } });
  expect(running.stdout).toMatch(/alice \(ci\) +cordonHost +host h1 +done +new fan/);
});
