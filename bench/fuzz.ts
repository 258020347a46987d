/**
 * `bench fuzz`: requests of all kinds against the real API over HTTP, on a fleet of simulated hosts whose clock is turned on
 * while something waits. Each must be answered, never with a 5xx; errors are problem+json with a known code, and replies are
 * what the table says (the server checks that itself here, and a reply that is not is a 500).
 */
import { Agent, request as httpRequest } from 'node:http';
import fc from 'fast-check';
import { silentLog } from '../src/runtime/log.ts';
import { userErrorCodes } from '../src/model/failure.ts';
import { FakeFleet, settled } from '../src/control/fake-fleet.ts';
import { createApi } from '../src/control/server.ts';
import { endpoints, type Endpoint } from '../src/wire/endpoints.ts';
import { problem } from '../src/wire/errors.ts';
import { errorsOf } from '../src/wire/operation-errors.ts';
import { anyRequest, type FuzzRequest } from './requests.ts';

const bootstrap = 'a-token-for-the-fuzz';
/** Of the fleet's clock: nothing in it waits longer. */
const hangsAfterMs = 600_000;
const stepMs = 1_000;
/** The fleet is made anew after so many, so that what was asked for does not fill it up for good. */
const perFleet = 1_000;
const shownFailures = 20;

export interface FuzzOptions {
  readonly requests: number;
  readonly seed: number;
  readonly say: (line: string) => void;
  readonly signal: AbortSignal;
}

export interface FuzzResult {
  readonly requests: number;
  readonly seed: number;
  readonly seconds: number;
  /** Answers by kind of request and status. */
  readonly answers: Readonly<Record<string, number>>;
  /** Operations that succeeded at least once. */
  readonly succeeded: readonly string[];
  readonly failures: readonly { readonly because: string; readonly request: FuzzRequest }[];
}

export async function benchFuzz({ requests, seed, say, signal }: FuzzOptions): Promise<FuzzResult> {
  const beganAt = performance.now();
  const answers: Record<string, number> = {};
  const succeeded = new Set<string>();
  const failures: { because: string; request: FuzzRequest }[] = [];
  const all = fc.sample(anyRequest, { numRuns: requests, seed });
  for (let from = 0; from < all.length && !signal.aborted; from += perFleet) {
    const target = await Target.start();
    try {
      for (const request of all.slice(from, from + perFleet)) {
        if (signal.aborted) break;
        const { status, because } = await target.ask(request);
        const key = `${request.kind} ${status}`;
        answers[key] = (answers[key] ?? 0) + 1;
        if (status < 300 && request.name !== undefined) succeeded.add(request.name);
        if (because !== null) failures.push({ because, request });
      }
    } finally {
      await target.stop();
    }
    say(`${Math.min(from + perFleet, all.length)} of ${all.length} requests, ${failures.length} failures`);
  }
  const seconds = (performance.now() - beganAt) / 1000;
  return { requests: all.length, seed, seconds, answers, succeeded: [...succeeded].toSorted(), failures };
}

interface Answer {
  readonly status: number;
  readonly type: string;
  readonly text: string;
}

class Target {
  readonly #fleet: FakeFleet;
  readonly #api: ReturnType<typeof createApi>;
  readonly #address: string;
  readonly #tokens: Record<FuzzRequest['role'], string>;
  readonly #agent = new Agent({ keepAlive: true });
  readonly #errors: string[];

  private constructor(
    fleet: FakeFleet,
    api: ReturnType<typeof createApi>,
    address: string,
    tokens: Record<FuzzRequest['role'], string>,
    errors: string[],
  ) {
    this.#fleet = fleet;
    this.#api = api;
    this.#address = address;
    this.#tokens = tokens;
    this.#errors = errors;
  }

  static async start(): Promise<Target> {
    const fleet = await FakeFleet.start(['h1', 'h2', 'h3']);
    await fleet.run('web1', 'h1');
    await fleet.run('web2', 'h2');
    // No plan is made of a load that was only just seen.
    await fleet.pass(60_000);
    const { people } = fleet.plane;
    await people.add({ name: 'alice', role: 'operator', password: 'a password to guess' }, 'fuzz', null);
    const tokenOf = async (role: 'operator' | 'viewer'): Promise<string> => {
      const made = { name: `t-${role}`, role, user: null, expiresInMs: null };
      return (await people.makeToken(made, 'fuzz')).secret;
    };
    const errors: string[] = [];
    const log = {
      ...silentLog,
      error: (fields: object) => void errors.push('error' in fields ? stackOf(fields.error) : JSON.stringify(fields)),
    };
    const api = createApi({ plane: fleet.plane, token: bootstrap, log, checkReplies: true });
    const address = await api.listen({ host: '127.0.0.1', port: 0 });
    const [operator, viewer] = [await tokenOf('operator'), await tokenOf('viewer')];
    return new Target(fleet, api, address, { admin: bootstrap, operator, viewer, nobody: '' }, errors);
  }

  async stop(): Promise<void> {
    this.#agent.destroy();
    await this.#api.close();
    await this.#fleet.stopServer();
  }

  async ask(request: FuzzRequest): Promise<{ status: number; because: string | null }> {
    let answer: Answer | Error | undefined;
    void this.#send(request).then(
      (given) => (answer = given),
      (error: unknown) => (answer = error instanceof Error ? error : new Error(String(error))),
    );
    for (let turn = 0; answer === undefined && turn < 2_000; turn++) await settled();
    for (let waitedMs = 0; answer === undefined && waitedMs < hangsAfterMs; waitedMs += stepMs) {
      await this.#fleet.pass(stepMs);
      for (let turn = 0; answer === undefined && turn < 5; turn++) await settled();
    }
    if (answer === undefined) return { status: 0, because: 'no answer' };
    if (answer instanceof Error) return { status: 0, because: `no HTTP answer: ${answer.message}` };
    return { status: answer.status, because: this.#wrongWith(request, answer) };
  }

  /** The newest there is of its kind. */
  #idOf(kind: string): string {
    const { fleet } = this.#fleet.plane;
    const ids: Record<string, Iterable<string>> = {
      migration: fleet.migrations.keys(),
      recovery: fleet.recoveries.keys(),
      drain: fleet.drains.keys(),
      task: fleet.tasks.keys(),
      plan: fleet.plans.keys(),
      webhook: fleet.plain('webhook').keys(),
    };
    return [...(ids[kind] ?? [])].at(-1) ?? 'nothing';
  }

  #send({ method, path, headers, body, role }: FuzzRequest): Promise<Answer> {
    const { promise, resolve, reject } = Promise.withResolvers<Answer>();
    const token = this.#tokens[role];
    const sent = httpRequest(
      `${this.#address}/`,
      {
        method,
        path: path.replace(/~(\w+)~/, (_, kind: string) => this.#idOf(kind)),
        agent: this.#agent,
        headers: {
          ...headers,
          ...(token === '' ? {} : { authorization: `Bearer ${token}` }),
          ...(body === undefined ? {} : { 'content-length': String(Buffer.byteLength(body)) }),
        },
      },
      (response) => {
        const { statusCode: status = 0 } = response;
        const type = String(response.headers['content-type'] ?? '');
        if (type === 'text/event-stream') {
          response.on('error', () => {});
          response.destroy();
          return resolve({ status, type, text: '' });
        }
        let text = '';
        response.setEncoding('utf8');
        response.on('data', (more: string) => (text += more));
        response.on('error', reject);
        response.on('end', () => resolve({ status, type, text }));
        return undefined;
      },
    );
    sent.on('error', reject);
    sent.end(body);
    return promise;
  }

  #wrongWith({ kind, name, method, role }: FuzzRequest, { status, type, text }: Answer): string | null {
    if (status >= 500) return `${status}: ${text.slice(0, 300)} ${this.#errors.splice(0).join(' | ').slice(0, 1500)}`;
    const endpoint: Endpoint | undefined = name === undefined ? undefined : endpoints[name];
    if (status >= 400) {
      if (method === 'HEAD') return null;
      if (!type.startsWith('application/problem+json')) return `${status} is ${type}`;
      const parsed = problem.safeParse(JSON.parse(text));
      if (!parsed.success) return `${status} is no problem: ${text.slice(0, 200)}`;
      if (parsed.data.status !== status) return `${status} says ${parsed.data.status}`;
      const { code } = parsed.data;
      if (!Object.hasOwn(userErrorCodes, code)) return `the code ${code} is not known`;
      const known = name === undefined || errorsOf(name, endpoints[name]).some((each) => each === code);
      return known || kind === 'spoilt' ? null : `${name} may not be refused with ${code} by the document`;
    }
    if (endpoint === undefined) return null;
    if (role === 'nobody' && endpoint.role !== 'none') return `${status} without a token`;
    if (role === 'viewer' && endpoint.role !== 'viewer' && endpoint.role !== 'none') return `${status} for a viewer`;
    return null;
  }
}

function stackOf(error: unknown): string {
  return error instanceof Error ? (error.stack ?? error.message) : String(error);
}

export function fuzzText({ requests, seed, seconds, answers, succeeded, failures }: FuzzResult): string {
  const rows = Object.entries(answers).toSorted(([a], [b]) => (a < b ? -1 : 1));
  return [
    `${requests} requests of seed ${seed} in ${seconds.toFixed(0)} s`,
    `${succeeded.length} of ${Object.keys(endpoints).length} operations succeeded at least once`,
    ...rows.map(([key, count]) => `  ${key.padEnd(12)} ${String(count).padStart(7)}`),
    ...failures
      .slice(0, shownFailures)
      .map(({ because, request }) => `FAILED ${JSON.stringify(request).slice(0, 400)}\n  ${because}`),
    `${failures.length} failures`,
  ].join('\n');
}
