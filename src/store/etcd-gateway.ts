/**
 * HTTP to etcd's JSON gateway (etcd.io/docs/v3.4/dev-guide/api_grpc_gateway): one call at a member that answers, and streams.
 * Integers of 64 bits are strings there, keys and values base64, and what is zero or false is left out.
 *
 * What matters here is what is known of a call that got no answer:
 *
 *     never handed over (refused, no TLS)    -> the next member is asked, whatever the call does
 *     refused by etcd with its reason        -> Refused: nothing was done
 *     handed over and no clear answer        -> the next member is asked if doing it twice is harmless, else Unanswered
 *
 * A member that hangs (a frozen process accepts connections still) is left for another after `tryMs`. Not here: what the
 * calls mean (etcd.ts).
 */
import { Agent as HttpAgent, request as httpRequest } from 'node:http';
import type { ClientRequest, IncomingMessage } from 'node:http';
import { Agent as HttpsAgent, request as httpsRequest } from 'node:https';
import { messageOf } from '../model/failure.ts';
import type { Endpoint } from '../model/host.ts';
import type { Clock } from '../runtime/clock.ts';

/** PEM texts. etcd checks our certificate, we check etcd's. */
export interface EtcdTls {
  readonly ca: string;
  readonly cert: string;
  readonly key: string;
}

/** What etcd said, by its gRPC code (grpc.io/docs/guides/status-codes). Nothing was done. */
export class Refused extends Error {
  override readonly name = 'Refused';
  readonly code: number;

  constructor(message: string, code: number) {
    super(message);
    this.code = code;
  }
}

/** It may have been done or not. */
export class Unanswered extends Error {
  override readonly name = 'Unanswered';
}

/** Nobody could be asked. Nothing was done, or only what may be done twice. */
export class NobodyAsked extends Error {
  override readonly name = 'NobodyAsked';
}

export const notFound = 5;
export const outOfRange = 11;

/** Codes with which etcd answers before it hands anything to its log: what it refuses so was not done and is not done later. */
const certainlyNotDone: ReadonlySet<number> = new Set([3, notFound, 6, 7, 8, 9, outOfRange, 12, 16]);

const tryMs = 1_500;
const callMs = 5_000;
/** After all members were asked in vain. */
const roundPauseMs = 100;
const answerLimitBytes = 64 * 1024 * 1024;
const socketsPerMember = 64;

export interface CallOptions {
  /** Doing it twice does no harm: it is asked again at another member when the answer is lost. */
  readonly repeatable: boolean;
  readonly deadlineMs?: number;
  /** Only there. */
  readonly member?: Endpoint;
  readonly signal?: AbortSignal;
}

type Outcome = { readonly sent: boolean; readonly error: unknown };

export class Gateway {
  readonly #members: readonly Endpoint[];
  readonly #tls: EtcdTls | undefined;
  readonly #clock: Clock;
  readonly #agent: HttpAgent | HttpsAgent;
  /** Index of the member that answered last. */
  #preferred = 0;
  #cluster: string | undefined;

  constructor(members: readonly Endpoint[], tls: EtcdTls | undefined, clock: Clock) {
    this.#members = members;
    this.#tls = tls;
    this.#clock = clock;
    const settings = { keepAlive: true, maxSockets: socketsPerMember };
    this.#agent = tls === undefined ? new HttpAgent(settings) : new HttpsAgent({ ...settings, ...tls });
  }

  /** @throws Refused, Unanswered (only where not `repeatable`), NobodyAsked; the signal's reason */
  async call(path: string, body: object, options: CallOptions): Promise<Record<string, unknown>> {
    const { repeatable, deadlineMs = callMs, member, signal } = options;
    const members = member === undefined ? this.#members.length : 1;
    const deadline = this.#clock.monotonic() + deadlineMs;
    let last: unknown;
    for (let asked = 0; ; asked++) {
      signal?.throwIfAborted();
      const leftMs = deadline - this.#clock.monotonic();
      if (leftMs <= 0) break;
      const index = this.#preferred % this.#members.length;
      const at = member ?? this.#members[index];
      if (at === undefined) break;
      const tried = await this.#once(at, path, body, Math.min(tryMs, leftMs), signal);
      if (!('error' in tried)) return tried.answer;
      last = tried.error;
      if (last instanceof Refused && certainlyNotDone.has(last.code)) throw last;
      signal?.throwIfAborted();
      if (tried.sent && !repeatable) {
        this.#leave(index);
        throw new Unanswered(`${nameOf(at)}: ${messageOf(last)}`, { cause: last });
      }
      if (member !== undefined) break;
      this.#leave(index);
      if ((asked + 1) % members === 0) await this.#clock.sleep(Math.min(roundPauseMs, leftMs), signal);
    }
    throw new NobodyAsked(`no member of etcd answered within ${deadlineMs} ms: ${messageOf(last)}`, { cause: last });
  }

  /**
   * An endless answer, object by object, from one member. Ends when the member ends it; throws when it breaks and after the
   * signal. `opened` is told which member it is.
   */
  async *stream(
    path: string,
    body: object,
    signal: AbortSignal,
    opened: (member: Endpoint) => void,
  ): AsyncGenerator<Record<string, unknown>, void, void> {
    const index = this.#preferred % this.#members.length;
    const member = this.#members[index];
    if (member === undefined) return;
    const { promise, resolve, reject } = Promise.withResolvers<IncomingMessage>();
    const request = this.#request(member, path, resolve);
    const timer = this.#clock.setTimeout(() => request.destroy(new Error('no answer in time')), tryMs);
    const stop = (): void => void request.destroy(signal.reason as Error);
    request.on('error', reject);
    signal.addEventListener('abort', stop, { once: true });
    try {
      if (signal.aborted) stop();
      request.end(JSON.stringify(body));
      const response = await promise;
      timer.cancel();
      opened(member);
      let text = '';
      response.setEncoding('utf8');
      for await (const part of response as AsyncIterable<string>) {
        text += part;
        if (text.length > answerLimitBytes) throw new Error('the answer has no end');
        for (let end = text.indexOf('\n'); end >= 0; end = text.indexOf('\n')) {
          const line = text.slice(0, end);
          text = text.slice(end + 1);
          if (line !== '') yield this.#checked(line, response.statusCode ?? 0);
        }
      }
    } catch (error) {
      this.#leave(index);
      throw error;
    } finally {
      timer.cancel();
      signal.removeEventListener('abort', stop);
      request.destroy();
    }
  }

  /** Breaks what is open. */
  close(): void {
    this.#agent.destroy();
  }

  /** The next call begins elsewhere, unless another call has gone there already. */
  #leave(index: number): void {
    if (this.#preferred % this.#members.length === index) this.#preferred++;
  }

  async #once(
    member: Endpoint,
    path: string,
    body: object,
    withinMs: number,
    signal: AbortSignal | undefined,
  ): Promise<{ readonly answer: Record<string, unknown> } | Outcome> {
    const { promise, resolve, reject } = Promise.withResolvers<IncomingMessage>();
    const request = this.#request(member, path, resolve);
    let sent = false;
    request.once('socket', (socket) => {
      // Bytes are handed over with the connection; one that was used before has it already.
      const secure = this.#tls !== undefined;
      const pending = secure && 'secureConnecting' in socket ? socket.secureConnecting : socket.connecting;
      if (request.reusedSocket || pending !== true) sent = true;
      else socket.once(secure ? 'secureConnect' : 'connect', () => (sent = true));
    });
    request.on('error', reject);
    const timer = this.#clock.setTimeout(
      () => request.destroy(new Error(`no answer within ${Math.round(withinMs)} ms`)),
      withinMs,
    );
    const stop = (): void => void request.destroy(new Error('given up'));
    signal?.addEventListener('abort', stop, { once: true });
    try {
      request.end(JSON.stringify(body));
      const response = await promise;
      const text = await textOf(response);
      return { answer: this.#checked(text, response.statusCode ?? 0) };
    } catch (error) {
      return { sent, error: explained(error, member) };
    } finally {
      timer.cancel();
      signal?.removeEventListener('abort', stop);
    }
  }

  #request(member: Endpoint, path: string, onResponse: (response: IncomingMessage) => void): ClientRequest {
    const options = {
      host: member.address,
      port: member.port,
      path,
      method: 'POST',
      agent: this.#agent,
      headers: { 'content-type': 'application/json' },
    };
    return this.#tls === undefined ? httpRequest(options, onResponse) : httpsRequest(options, onResponse);
  }

  /** What a line of an answer says; throws what it says went wrong. */
  #checked(text: string, status: number): Record<string, unknown> {
    let parsed: unknown;
    try {
      parsed = JSON.parse(text);
    } catch (error) {
      throw new Error(`answered ${status} and no JSON: is it etcd 3.4 or newer?`, { cause: error });
    }
    const said = objectOf(parsed);
    if (said['error'] !== undefined) {
      // Streams wrap it once more: {"error": {"grpc_code": 5, "message": "…"}}.
      const inner = typeof said['error'] === 'object' ? objectOf(said['error']) : said;
      const code = inner['code'] ?? inner['grpc_code'];
      throw new Refused(String(inner['message'] ?? inner['error']), typeof code === 'number' ? code : 2);
    }
    if (status !== 200) throw new Error(`answered ${status}: is it etcd 3.4 or newer?`);
    const answer = said['result'] === undefined ? said : objectOf(said['result']);
    const cluster = String(objectOf(answer['header'])['cluster_id']);
    this.#cluster ??= cluster;
    // Two clusters in one list of addresses would be two stores that each know half.
    if (cluster !== this.#cluster) throw new Error(`it is a member of another cluster (${cluster})`);
    return answer;
  }
}

export function objectOf(value: unknown): Record<string, unknown> {
  return value !== null && typeof value === 'object' ? (value as Record<string, unknown>) : {};
}

async function textOf(response: IncomingMessage): Promise<string> {
  response.setEncoding('utf8');
  let text = '';
  for await (const part of response as AsyncIterable<string>) {
    text += part;
    if (text.length > answerLimitBytes) throw new Error('the answer is too long');
  }
  return text;
}

/** Node's words for a failed handshake do not say whose certificate is meant. */
function explained(error: unknown, member: Endpoint): unknown {
  if (error instanceof Refused) return error;
  return new Error(`${nameOf(member)}: ${messageOf(error)}`, { cause: error });
}

function nameOf({ address, port }: Endpoint): string {
  return `${address}:${port}`;
}
