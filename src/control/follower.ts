/**
 * A server that does not lead: what comes to its API it passes on to the leader, and agents that dial it are sent on as soon
 * as it is known where to. So every address of the control plane serves everything, with one truth behind it: which hosts
 * report, what they last said and who is connected is known to the leader alone.
 *
 *     request -> wait until somebody leads (leaderWaitMs) -> the leader's API -> its answer, streamed
 *
 * A request that surely did nothing is tried again at the next leader; one that may have done something is not, and says so.
 *
 * Not here: becoming the leader (store/leadership.ts, main.ts).
 */
import { createHash } from 'node:crypto';
import { createServer, request as httpRequest } from 'node:http';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { Server as TlsServer, createServer as createTlsServer, request as httpsRequest } from 'node:https';
import { connect, isIP } from 'node:net';
import type { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { connect as connectTls } from 'node:tls';
import { UserError, messageOf } from '../model/failure.ts';
import type { Endpoint } from '../model/host.ts';
import type { Channel } from '../runtime/channel.ts';
import type { Clock } from '../runtime/clock.ts';
import type { Log } from '../runtime/log.ts';
import { anySignal } from '../runtime/retry.ts';
import { watchLeader } from '../store/leadership.ts';
import type { Leader } from '../store/leadership.ts';
import type { Store } from '../store/store.ts';
import { fromAgent } from '../wire/agent.ts';
import type { ToAgent } from '../wire/agent.ts';
import { problemOf } from '../wire/errors.ts';
import type { AgentDoor } from './agents.ts';
import { metricsPath, metricsType } from './metrics/metrics.ts';
import { passedOn, passedOnHeader } from './credentials.ts';
import type { ServerTls } from './server-tls.ts';

/** Longer than a change of the leader takes. */
const leaderWaitMs = 8_000;
/** What an agent waits for the next leader before it asks the next server: less than it waits for a welcome. */
const agentWaitMs = 6_000;
const helloWithinMs = 5_000;
const againAfterMs = 100;
const bodyLimitBytes = 1024 * 1024;
/** Less than Prometheus waits. */
const metricsAskMs = 2_000;
const metricsReadersLimit = 64;

/** Who leads, kept up to date from the store. */
export class LeaderView {
  #leader: Leader | null = null;
  #changed = new AbortController();

  /** Follows until the signal. */
  async run(store: Store, signal: AbortSignal): Promise<void> {
    await watchLeader(store, signal, (leader) => {
      if (leader?.term === this.#leader?.term && (leader === null) === (this.#leader === null)) return;
      this.#leader = leader;
      const before = this.#changed;
      this.#changed = new AbortController();
      before.abort();
    });
  }

  get leader(): Leader | null {
    return this.#leader;
  }

  /** Aborted when somebody else leads, or nobody. */
  get changed(): AbortSignal {
    return this.#changed.signal;
  }

  /** The leader as soon as there is one; null when there was none in time, or the signal came. */
  async known(clock: Clock, withinMs: number, signal: AbortSignal): Promise<Leader | null> {
    const deadline = clock.monotonic() + withinMs;
    while (this.#leader === null && !signal.aborted) {
      const leftMs = deadline - clock.monotonic();
      if (leftMs <= 0) return null;
      await clock.sleep(leftMs, anySignal(signal, this.changed)).catch(() => {});
    }
    return this.#leader;
  }
}

export interface FollowerParts {
  readonly listen: Endpoint;
  readonly tls: ServerTls | undefined;
  readonly door: AgentDoor;
  readonly view: LeaderView;
  /** Of the API, the same at every server of the fleet: says that a request comes from one of them. */
  readonly token: string;
  readonly clock: Clock;
  readonly log: Log;
  /** Its own, which are not the leader's. */
  readonly metrics: () => Promise<string>;
}

export interface Follower {
  /** Of the API. */
  readonly port: number;
  readonly agentsPort: number;
  /** Frees both ports; what is on its way is broken off. */
  close(): Promise<void>;
}

/** Opens both ports. @throws Error when one of them is taken */
export async function startFollower({
  listen,
  tls,
  door,
  view,
  token,
  clock,
  log,
  metrics,
}: FollowerParts): Promise<Follower> {
  const closing = new AbortController();
  const passer = new Passer(view, token, tls, clock, closing.signal, log);
  const onRequest = (request: IncomingMessage, response: ServerResponse): void => {
    const isMetrics = request.method === 'GET' && request.url?.split('?')[0] === metricsPath;
    void (isMetrics ? passer.answerMetrics(request, response, metrics) : passer.pass(request, response));
  };
  const server = tls ? createTlsServer(tls.material, onRequest) : createServer(onRequest);
  if (server instanceof TlsServer) tls?.follow(server);
  server.on('upgrade', (request, socket, head) => void passer.passTunnel(request, socket, head));
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(listen.port, listen.address, resolve);
  });
  const bound = server.address();
  const agents = await door.open((channel) => void sendOn(channel, view, clock, closing.signal));
  return {
    port: typeof bound === 'object' && bound ? bound.port : listen.port,
    agentsPort: agents.port,
    async close() {
      closing.abort();
      const closed = new Promise<void>((resolve) => server.close(() => resolve()));
      server.closeAllConnections();
      await Promise.all([closed, agents.close()]);
    },
  };
}

/**
 * An agent is sent on at once when another leads than the one it has lost. Else it waits here for the next leader: so it need
 * not ask around, and finds it at its next dials.
 */
async function sendOn(channel: Channel, view: LeaderView, clock: Clock, closing: AbortSignal): Promise<void> {
  const gone = new AbortController();
  void channel.closed.then(() => gone.abort());
  const signal = anySignal(closing, gone.signal);
  const lostTerm = await lostTermOf(channel, clock, signal);
  const deadline = clock.monotonic() + agentWaitMs;
  while (!signal.aborted && (view.leader === null || view.leader.term === lostTerm)) {
    const leftMs = deadline - clock.monotonic();
    if (leftMs <= 0) break;
    await clock.sleep(leftMs, anySignal(signal, view.changed)).catch(() => {});
  }
  const who = view.leader === null ? 'no server leads at this moment' : `${view.leader.holder} leads`;
  channel.send({ type: 'rejected', reason: `this server does not lead: ${who}`, elsewhere: true } satisfies ToAgent);
  channel.close('sent on');
}

/** From the agent's hello; the rest of it is for the leader. */
async function lostTermOf(channel: Channel, clock: Clock, signal: AbortSignal): Promise<number | undefined> {
  const { promise, resolve } = Promise.withResolvers<number | undefined>();
  const timer = clock.setTimeout(() => resolve(undefined), helloWithinMs);
  signal.addEventListener('abort', () => resolve(undefined), { once: true });
  channel.onMessage((message) => {
    const { data } = fromAgent.safeParse(message);
    resolve(data?.type === 'hello' ? data.lostTerm : undefined);
  });
  try {
    return await promise;
  } finally {
    timer.cancel();
  }
}

/** What is passed on of a request, beside its body. */
type Asked = Pick<IncomingMessage, 'method' | 'url' | 'headers'> & Partial<Pick<IncomingMessage, 'socket'>>;

class Passer {
  readonly #view: LeaderView;
  readonly #token: string;
  readonly #tls: ServerTls | undefined;
  readonly #clock: Clock;
  readonly #closing: AbortSignal;
  readonly #log: Log;
  /** Who may read metrics, by what they showed: hashes. */
  readonly #readers = new Set<string>();

  constructor(
    view: LeaderView,
    token: string,
    tls: ServerTls | undefined,
    clock: Clock,
    closing: AbortSignal,
    log: Log,
  ) {
    this.#view = view;
    this.#token = token;
    this.#tls = tls;
    this.#clock = clock;
    this.#closing = closing;
    this.#log = log;
  }

  async pass(request: IncomingMessage, response: ServerResponse): Promise<void> {
    response.on('error', () => {}); // who asked is gone
    if (request.url === '/healthz') return answerJson(response, 200, { alive: true });
    if (request.url === '/readyz') return this.#sayReady(response);
    const gone = new AbortController();
    response.once('close', () => gone.abort());
    const signal = anySignal(gone.signal, this.#closing);
    try {
      const body = await bodyOf(request);
      const answer = await this.#answer(request, body, signal);
      response.writeHead(answer.statusCode ?? 502, answer.headers);
      response.flushHeaders();
      await pipeline(answer, response, { signal });
    } catch (error) {
      if (signal.aborted || response.headersSent) return void response.destroy();
      const problem = problemOf(asUserError(error));
      this.#log.info({ url: request.url, error: messageOf(error) }, 'a request could not be passed on');
      response.writeHead(problem.status, { 'content-type': 'application/problem+json' });
      response.end(JSON.stringify(problem));
    }
  }

  /** A server that follows is ready when it knows who leads: that it learns from the store. */
  #sayReady(response: ServerResponse): void {
    const { leader } = this.#view;
    if (leader !== null) return answerJson(response, 200, { ready: true, leads: false, term: leader.term });
    const problem = problemOf(nobodyLeads());
    answerJson(response, problem.status, problem, 'application/problem+json');
  }

  /**
   * This server's own. Who may read them is asked of the leader; while nobody leads, whoever the leader let in before may: that is
   * when they are wanted most.
   */
  async answerMetrics(
    request: IncomingMessage,
    response: ServerResponse,
    metrics: () => Promise<string>,
  ): Promise<void> {
    response.on('error', () => {}); // who asked is gone
    const who = createHash('sha256')
      .update(`${request.headers.authorization ?? ''}\n${request.headers.cookie ?? ''}`)
      .digest('hex');
    try {
      const leader = this.#view.leader?.api;
      const status = leader ? await this.#headOf(new URL(leader), request) : undefined;
      if (status === undefined && !this.#readers.has(who)) throw nobodyLeads();
      if (status !== undefined && status !== 200) {
        this.#readers.delete(who);
        // The leader's own words on why not.
        return await this.pass(request, response);
      }
      if (this.#readers.size < metricsReadersLimit) this.#readers.add(who);
      response.writeHead(200, { 'content-type': metricsType, 'cache-control': 'no-store' });
      response.end(await metrics());
    } catch (error) {
      const problem = problemOf(asUserError(error));
      response.writeHead(problem.status, { 'content-type': 'application/problem+json' });
      response.end(JSON.stringify(problem));
    }
  }

  /** What the leader would answer, by its status; undefined: it says nothing. */
  async #headOf(leader: URL, { url, headers }: Asked): Promise<number | undefined> {
    const signal = anySignal(this.#closing, AbortSignal.timeout(metricsAskMs), this.#view.changed);
    const answer = await this.#ask(leader, { method: 'HEAD', url, headers }, Buffer.alloc(0), signal).catch(
      () => undefined,
    );
    answer?.destroy();
    return answer?.statusCode;
  }

  async passTunnel(request: IncomingMessage, socket: Duplex, head: Buffer): Promise<void> {
    socket.on('error', () => socket.destroy());
    try {
      const leader = await this.#leaderOf(request, this.#clock.monotonic() + leaderWaitMs, this.#closing);
      const upstream = this.#connect(leader);
      const end = (): void => {
        upstream.destroy();
        socket.destroy();
      };
      this.#closing.addEventListener('abort', end, { once: true });
      upstream.once('close', () => {
        this.#closing.removeEventListener('abort', end);
        end();
      });
      upstream.on('error', end);
      socket.once('close', end);
      const headers = Object.entries(headersOn(request, this.#token)).map(
        ([name, value]) => `${name}: ${String(value)}`,
      );
      upstream.write(`${request.method} ${request.url} HTTP/1.1\r\n${headers.join('\r\n')}\r\n\r\n`);
      upstream.write(head);
      socket.pipe(upstream);
      upstream.pipe(socket);
    } catch (error) {
      const problem = problemOf(asUserError(error));
      const lines = [`HTTP/1.1 ${problem.status} ${problem.title}`, 'content-type: application/problem+json'];
      socket.end(`${lines.join('\r\n')}\r\nconnection: close\r\n\r\n${JSON.stringify(problem)}`);
    }
  }

  #connect({ protocol, hostname, port }: URL): Socket {
    const host = hostname.replace(/^\[(.*)\]$/, '$1');
    if (protocol !== 'https:') return connect(Number(port || 80), host);
    const name = isIP(host) === 0 ? { servername: host } : {};
    return connectTls({ host, port: Number(port || 443), ca: this.#tls?.trusted, ...name });
  }

  /** The leader's answer, its body still to come. */
  async #answer(request: IncomingMessage, body: Buffer, signal: AbortSignal): Promise<IncomingMessage> {
    const deadline = this.#clock.monotonic() + leaderWaitMs;
    for (;;) {
      const leader = await this.#leaderOf(request, deadline, signal);
      try {
        return await this.#ask(leader, request, body, anySignal(signal, this.#view.changed));
      } catch (error) {
        if (signal.aborted) throw error;
        const harmless = request.method === 'GET' || error instanceof NotSent;
        if (!harmless) {
          throw new UserError(
            'unavailable',
            'The answer of the leading server was lost.',
            'It may have been done or not: look before you try again.',
            { cause: error },
          );
        }
        if (this.#clock.monotonic() > deadline) throw nobodyLeads(error);
        await this.#clock.sleep(againAfterMs, signal);
      }
    }
  }

  async #leaderOf(request: IncomingMessage, deadline: number, signal: AbortSignal): Promise<URL> {
    if (request.headers[passedOnHeader] !== undefined) throw nobodyLeads();
    const leader = await this.#view.known(this.#clock, deadline - this.#clock.monotonic(), signal);
    if (leader === null || leader.api === null) throw nobodyLeads();
    return new URL(leader.api);
  }

  #ask(leader: URL, request: Asked, body: Buffer, signal: AbortSignal): Promise<IncomingMessage> {
    const { promise, resolve, reject } = Promise.withResolvers<IncomingMessage>();
    const { method, url = '/' } = request;
    const overTls = leader.protocol === 'https:';
    const upstream = (overTls ? httpsRequest : httpRequest)(new URL(url, leader), {
      ...(method !== undefined && { method }),
      ...(overTls && { ca: this.#tls?.trusted }),
      headers: headersOn(request, this.#token),
      agent: false,
    });
    let sent = false;
    upstream.once('socket', (socket) => socket.once(overTls ? 'secureConnect' : 'connect', () => (sent = true)));
    upstream.once('response', (answer) => {
      signal.removeEventListener('abort', stop);
      answer.on('error', () => {}); // told by the pipeline that reads it
      resolve(answer);
    });
    upstream.on('error', (error) => reject(sent ? error : new NotSent(messageOf(error), { cause: error })));
    const stop = (): void => void upstream.destroy(new Error('another server leads now'));
    signal.addEventListener('abort', stop, { once: true });
    if (signal.aborted) stop();
    upstream.end(body);
    return promise;
  }
}

function answerJson(response: ServerResponse, status: number, body: object, type = 'application/json'): void {
  response.writeHead(status, { 'content-type': type }).end(JSON.stringify(body));
}

/** The leader was not reached: nothing was done. */
class NotSent extends Error {
  override readonly name = 'NotSent';
}

/** Of the request, for the leader: as they are, but for what concerns this connection. */
function headersOn(asked: Asked, token: string): Record<string, string | string[]> {
  const { headers, socket } = asked;
  // What was passed on once: between two servers that both follow, nothing goes in circles.
  const on: Record<string, string | string[]> = { [passedOnHeader]: passedOn(socket?.remoteAddress, token) };
  for (const [name, value] of Object.entries(headers)) {
    if (name === passedOnHeader) continue;
    if (value === undefined || name === 'keep-alive' || name === 'transfer-encoding') continue;
    if (name === 'connection' && headers.upgrade === undefined) continue;
    on[name] = value;
  }
  return on;
}

async function bodyOf(request: IncomingMessage): Promise<Buffer> {
  const parts: Buffer[] = [];
  let bytes = 0;
  for await (const part of request as AsyncIterable<Buffer>) {
    bytes += part.length;
    if (bytes > bodyLimitBytes) {
      throw new UserError('invalid-input', `The body is larger than ${bodyLimitBytes} bytes.`, 'Send less.');
    }
    parts.push(part);
  }
  return Buffer.concat(parts);
}

function asUserError(error: unknown): UserError {
  return error instanceof UserError ? error : nobodyLeads(error);
}

function nobodyLeads(cause?: unknown): UserError {
  return new UserError(
    'unavailable',
    'No server leads at this moment, or it cannot be reached from here.',
    'Another takes over within seconds: try again. If it stays so, look at the logs of the servers and at etcd.',
    { cause },
  );
}
