/** The API's own TLS with the real program: https for browsers and the CLI, and a certificate that is exchanged without a restart. */
import { execFile, execFileSync, spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { copyFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import type { IncomingMessage } from 'node:http';
import { request } from 'node:https';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import type { TLSSocket } from 'node:tls';
import { promisify } from 'node:util';
import { afterAll, beforeAll, expect, test } from 'vitest';

const repository = join(import.meta.dirname, '..', '..');
const token = 'a-token-of-the-test';
const file = (name: string): string => join(directory, name);
let directory: string;
let server: ChildProcess;
let url: string;

/** One that signs itself, so it is its own CA. */
function makeCertificate(name: string): void {
  const files = ['-keyout', file(`${name}.key`), '-out', file(`${name}.crt`)];
  const subject = ['-subj', `/CN=${name}`, '-addext', 'subjectAltName=IP:127.0.0.1', '-days', '2'];
  const curve = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'];
  execFileSync('openssl', ['req', '-x509', ...curve, ...files, ...subject], { stdio: 'ignore', timeout: 20_000 });
}

function use(name: string): void {
  for (const end of ['crt', 'key']) copyFileSync(file(`${name}.${end}`), file(`used.${end}`));
}

function start(...more: readonly string[]): ChildProcess {
  const ports = ['--listen', '127.0.0.1:0', '--agents', '127.0.0.1:0', '--state', directory];
  const args = ['--disable-warning=ExperimentalWarning', join(repository, 'src/main.ts'), 'server', ...ports, ...more];
  return spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'pipe'] });
}

async function nextLine(of: NodeJS.ReadableStream | null, wanted: RegExp): Promise<string> {
  if (of === null) throw new Error('no output');
  for await (const line of createInterface({ input: of })) if (wanted.test(line)) return line;
  throw new Error(`it ended without ${String(wanted)}`);
}

async function ask(ca: string, method: string, path: string, body?: object) {
  const asked = request(new URL(path, url), {
    method,
    ca: readFileSync(file(ca)),
    agent: false,
    headers: { authorization: `Bearer ${token}`, ...(body && { 'content-type': 'application/json' }) },
  });
  asked.end(body && JSON.stringify(body));
  const [answer] = (await once(asked, 'response')) as [IncomingMessage];
  const shown = (answer.socket as TLSSocket).getPeerCertificate().subject.CN;
  answer.resume();
  return { status: answer.statusCode, headers: answer.headers, shown };
}

beforeAll(async () => {
  directory = mkdtempSync(join(tmpdir(), 'drover-tls-'));
  writeFileSync(file('token'), token, { mode: 0o600 });
  makeCertificate('first');
  makeCertificate('second');
  use('first');
  server = start('--tls-cert', file('used.crt'), '--tls-key', file('used.key'));
  const line = await nextLine(server.stdout, /ready/);
  url = /ready: (https:\S+)/.exec(line)?.[1] ?? '';
});
afterAll(() => {
  server?.kill('SIGKILL');
  rmSync(directory, { recursive: true, force: true });
});

test('the API and the page come by https, and the cookie of a session is for https only', async () => {
  expect(await ask('first.crt', 'GET', '/api/v1/status')).toMatchObject({ status: 200, shown: 'first' });
  expect((await ask('first.crt', 'GET', '/healthz')).status).toBe(200);
  const user = { name: 'alice', role: 'viewer', password: 'correct horse battery' };
  expect((await ask('first.crt', 'POST', '/api/v1/users', user)).status).toBe(201);
  const { role: _, ...login } = user;
  const { headers } = await ask('first.crt', 'POST', '/api/v1/login', login);
  expect(headers['set-cookie']?.[0]).toMatch(/; HttpOnly; SameSite=Strict; Secure$/);
});

test('the CLI believes a certificate by --ca, and says what to do about one that it does not know', async () => {
  const cli = (...more: string[]) => {
    const env = { ...process.env, DROVER_SERVER: url, DROVER_TOKEN: token };
    return promisify(execFile)(join(repository, 'bin/drover'), ['host', 'list', '-o', 'json', ...more], { env });
  };
  expect(JSON.parse((await cli('--ca', file('first.crt'))).stdout)).toEqual([]);
  await expect(cli()).rejects.toMatchObject({
    stderr: expect.stringContaining('name who signs it with --ca or DROVER_CA'),
  });
  await expect(cli('--ca', file('token'))).rejects.toMatchObject({ code: 2 });
});

test('a new certificate is used after SIGHUP, and one that is broken is not', async () => {
  writeFileSync(file('used.crt'), 'not a certificate');
  server.kill('SIGHUP');
  await nextLine(server.stderr, /could not be read again/);
  expect((await ask('first.crt', 'GET', '/healthz')).shown).toBe('first');
  use('second');
  server.kill('SIGHUP');
  await expect.poll(() => ask('second.crt', 'GET', '/healthz').catch(() => null)).toMatchObject({ shown: 'second' });
});

test('a certificate without its key, or with another key, is refused at the start', async () => {
  const wrong = [[], ['--tls-key', file('second.key')], ['--tls-key', file('nothing.key')]];
  const ends = wrong.map((more) => once(start('--tls-cert', file('first.crt'), ...more), 'exit'));
  expect((await Promise.all(ends)).map(([code]) => code as number)).toEqual([2, 2, 2]);
});
