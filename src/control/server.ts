/**
 * HTTP: mounts the endpoint table, checks what comes in against it, turns errors into problem+json, streams events and
 * upgrades consoles. The only file of the control plane that knows fastify.
 *
 * Not here: what the endpoints do (handlers/).
 */
import { createHash, timingSafeEqual } from 'node:crypto';
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Duplex } from 'node:stream';
import fastify from 'fastify';
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import { z } from 'zod';
import { UserError, messageOf } from '../model/failure.ts';
import type { Log } from '../runtime/log.ts';
import { apiPrefix } from '../wire/client.ts';
import { endpoints } from '../wire/endpoints.ts';
import type { Endpoint, EndpointName } from '../wire/endpoints.ts';
import { problemOf } from '../wire/errors.ts';
import { openApiDocument } from '../wire/openapi.ts';
import type { Call, EventStream, Handler, Tunnel } from './handler.ts';
import { listEvents } from './handlers/events.ts';
import { cordonHost, getHost, listHosts, removeHost, uncordonHost } from './handlers/hosts.ts';
import { cancelMigration, getMigration, listMigrations, recordBlackout } from './handlers/migrations.ts';
import { checkFleet, getStatus } from './handlers/status.ts';
import { consoleVm, createVm, deleteVm, getVm, listVms, migrateVm, startVm, stopVm } from './handlers/vms.ts';
import type { ControlPlane } from './plane.ts';
import { requestKey } from './requests.ts';

const bodyLimitBytes = 256 * 1024;
const eventReadersLimit = 256;
const tunnelsLimit = 256;
/** What a reader of events may leave unread before we wait for it. */
const unreadLimitBytes = 1024 * 1024;
/** A console that does not read is cut off: a guest must not fill our memory. */
const unreadConsoleBytes = 4 * 1024 * 1024;
/** Endpoints that honour an Idempotency-Key. */
const idempotent: ReadonlySet<EndpointName> = new Set(['createVm', 'migrateVm']);

const handlers = {
  getStatus,
  listHosts,
  getHost,
  cordonHost,
  uncordonHost,
  removeHost,
  listVms,
  createVm,
  getVm,
  deleteVm,
  startVm,
  stopVm,
  migrateVm,
  consoleVm,
  listMigrations,
  getMigration,
  cancelMigration,
  recordBlackout,
  listEvents,
  checkFleet,
} satisfies { [N in EndpointName]: Handler<N> };

/** Each handler with the types of its own row folded away: what it gets was parsed by that row. */
type AnyHandler = (input: unknown, call: Call, stream?: unknown) => unknown;

export interface ApiOptions {
  readonly plane: ControlPlane;
  readonly token: string;
  readonly log: Log;
  /** Checks replies against the table too: on in tests. */
  readonly checkReplies?: boolean;
}

/** The server, not listening yet. `close()` also ends event streams and consoles. */
export function createApi({ plane, token, log, checkReplies = false }: ApiOptions): FastifyInstance {
  const app = fastify({
    bodyLimit: bodyLimitBytes,
    forceCloseConnections: true,
    routerOptions: { maxParamLength: 200 },
  });
  const closing = new AbortController();
  const tokenHash = sha256(token);
  const document = openApiDocument(plane.version);
  let readers = 0;

  app.addHook('onRequest', async (request) => {
    if (request.url === apiPrefix || request.url.startsWith(`${apiPrefix}/`)) authorize(request.raw, tokenHash);
  });
  app.addHook('onClose', async () => closing.abort());
  app.addHook('preClose', async () => closing.abort());
  app.setErrorHandler((error, request, reply) => answerError(error, request, reply, log));
  app.setNotFoundHandler((request, reply) => sendProblem(reply, unknownPath(request.method, request.url)));

  app.get(`${apiPrefix}/openapi.json`, () => document);

  for (const [name, endpoint] of Object.entries(endpoints) as [EndpointName, Endpoint][]) {
    const handler = handlers[name] as unknown as AnyHandler; // see AnyHandler
    app.route({
      method: endpoint.method,
      url: `${apiPrefix}${endpoint.path}`,
      handler: async (request, reply) => {
        const input = checkedInput(endpoint, request);
        const call: Call = { plane, request: idempotencyOf(name, request) };
        switch (endpoint.stream) {
          case 'events': {
            if (readers >= eventReadersLimit) {
              throw new UserError('unavailable', `${readers} readers of events are connected.`, 'Close some of them.');
            }
            readers++;
            try {
              return await streamEvents(request, reply, closing.signal, (stream) => handler(input, call, stream));
            } finally {
              readers--;
            }
          }
          case 'tunnel':
            throw new UserError(
              'invalid-input',
              'The console is raw bytes after an upgrade of the connection.',
              'Send the headers `Connection: Upgrade` and `Upgrade: drover-console`, or use `drover vm console`.',
            );
          default: {
            const result = await handler(input, call);
            if (checkReplies) endpoint.reply.parse(result);
            return reply.code(endpoint.status ?? 200).send(result);
          }
        }
      },
    });
  }

  mountTunnels(app, closing.signal, async (request, socket, head) => {
    const { vm } = authorizedTunnel(request, tokenHash);
    const call: Call = { plane, request: null };
    await handlers.consoleVm({ params: { vm } }, call, () => openTunnel(socket, head, closing.signal));
  });
  return app;
}

function checkedInput(endpoint: Endpoint, request: FastifyRequest): unknown {
  const parse = (schema: z.ZodType | undefined, value: unknown, what: string): unknown => {
    // What a row does not take must not be sent: it would be silently ignored otherwise.
    const result = (schema ?? z.object({}).strict()).safeParse(value ?? {});
    if (result.success) return result.data;
    const unknownField = result.error.issues.some((issue) => issue.code === 'unrecognized_keys');
    throw new UserError(
      unknownField ? 'unknown-field' : 'invalid-input',
      `The ${what} is not as it should be:\n${z.prettifyError(result.error)}`,
      `What is understood is in ${apiPrefix}/openapi.json; \`drover --help\` shows the same for people.`,
    );
  };
  return {
    params: parse(endpoint.params, request.params, 'path'),
    query: parse(endpoint.query, request.query, 'query'),
    body: parse(endpoint.body, request.body, 'body'),
  };
}

function idempotencyOf(name: EndpointName, request: FastifyRequest): Call['request'] {
  const key = request.headers['idempotency-key'];
  if (key === undefined || !idempotent.has(name)) return null;
  if (typeof key !== 'string' || !/^[\w.:-]{1,200}$/.test(key)) {
    throw new UserError(
      'invalid-input',
      'The Idempotency-Key is not usable.',
      'Send 1 to 200 letters, digits, ".", ":", "_" or "-", for example a UUID.',
    );
  }
  return requestKey(name, key, { params: request.params, body: request.body ?? {} });
}

function authorize(request: IncomingMessage, tokenHash: Buffer): void {
  const given = /^Bearer (.+)$/i.exec(request.headers.authorization ?? '')?.[1];
  // Compared by their hashes, so that neither content nor length tells by the time it takes.
  if (given !== undefined && timingSafeEqual(sha256(given), tokenHash)) return;
  throw new UserError(
    'unauthorized',
    given === undefined ? 'This needs a bearer token.' : 'The bearer token is not the one of this server.',
    "Send `Authorization: Bearer TOKEN`; the token is in the file `token` of the server's state directory.",
  );
}

function sha256(text: string): Buffer {
  return createHash('sha256').update(text).digest();
}

/* Errors */

function answerError(error: unknown, request: FastifyRequest, reply: FastifyReply, log: Log): FastifyReply {
  if (error instanceof UserError) return sendProblem(reply, error);
  const known = asUserError(error);
  if (known) return sendProblem(reply, known.error, known.status);
  // Ours: the log gets all of it, the client only learns that it happened.
  log.error({ error, method: request.method, url: request.url }, 'a request failed');
  return sendProblem(
    reply,
    new UserError('unavailable', 'The server failed at this request.', "The reason is in the server's log."),
    500,
  );
}

/** What fastify refuses before a handler sees it. */
function asUserError(error: unknown): { error: UserError; status?: number } | undefined {
  const code = error instanceof Error && 'code' in error ? error.code : undefined;
  const status = error instanceof Error && 'statusCode' in error ? error.statusCode : undefined;
  if (typeof code !== 'string' || typeof status !== 'number' || status >= 500) return undefined;
  switch (code) {
    case 'FST_ERR_CTP_BODY_TOO_LARGE':
      return {
        error: new UserError('invalid-input', `The body is larger than ${bodyLimitBytes} bytes.`, 'Send less.'),
        status,
      };
    case 'FST_ERR_CTP_INVALID_MEDIA_TYPE':
      return {
        error: new UserError('invalid-input', 'The body is not JSON.', 'Send `Content-Type: application/json`.'),
        status,
      };
    case 'FST_ERR_CTP_EMPTY_JSON_BODY':
      return { error: new UserError('invalid-input', 'The body is empty.', 'Send {} or leave the Content-Type out.') };
    default:
      return {
        error: new UserError(
          'invalid-input',
          `The request cannot be read: ${messageOf(error)}.`,
          'Send one JSON object as the body.',
          { cause: error },
        ),
      };
  }
}

function sendProblem(reply: FastifyReply, error: UserError, status?: number): FastifyReply {
  const problem = problemOf(error);
  const body = status === undefined ? problem : { ...problem, status };
  if (error.code === 'unauthorized') void reply.header('www-authenticate', 'Bearer');
  return reply.code(body.status).type('application/problem+json').send(JSON.stringify(body));
}

function unknownPath(method: string, url: string): UserError {
  const path = url.split('?')[0] ?? url;
  return new UserError(
    'not-found',
    `There is nothing at ${method} ${path.slice(0, 200)}.`,
    `${apiPrefix}/openapi.json lists what there is.`,
  );
}

/* Server-sent events */

async function streamEvents(
  request: FastifyRequest,
  reply: FastifyReply,
  closing: AbortSignal,
  run: (stream: EventStream) => unknown,
): Promise<FastifyReply> {
  const { raw } = reply;
  const gone = new AbortController();
  raw.once('close', () => gone.abort());
  const signal = AbortSignal.any([gone.signal, closing]);
  const write = async (text: string): Promise<void> => {
    if (signal.aborted) return;
    if (!raw.headersSent) {
      reply.hijack();
      raw.writeHead(200, {
        'content-type': 'text/event-stream',
        'cache-control': 'no-store',
        'x-accel-buffering': 'no',
      });
    }
    raw.write(text);
    if (raw.writableLength > unreadLimitBytes) await drained(raw, signal);
  };
  const header = request.headers['last-event-id'];
  try {
    await run({
      lastEventId: typeof header === 'string' ? header : null,
      signal,
      write: (event, id) => write(`${id === null ? '' : `id: ${id}\n`}data: ${JSON.stringify(event)}\n\n`),
      heartbeat: () => write(': heartbeat\n\n'),
    });
  } catch (error) {
    if (!raw.headersSent) throw error; // refused before anything was streamed
    if (!signal.aborted) throw error;
  } finally {
    gone.abort();
    if (raw.headersSent) raw.end();
  }
  return reply;
}

function drained(raw: ServerResponse, signal: AbortSignal): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  const done = (): void => {
    raw.off('drain', done);
    signal.removeEventListener('abort', done);
    resolve();
  };
  raw.once('drain', done);
  signal.addEventListener('abort', done, { once: true });
  return promise;
}

/* The console's tunnel */

const tunnelPath = new RegExp(`^${apiPrefix}${endpoints.consoleVm.path.replace(':vm', '([^/]+)')}$`);

function authorizedTunnel(request: IncomingMessage, tokenHash: Buffer): { vm: string } {
  authorize(request, tokenHash);
  const path = (request.url ?? '').split('?')[0] ?? '';
  const vm = tunnelPath.exec(path)?.[1];
  if (vm === undefined) throw unknownPath(request.method ?? 'GET', path);
  if (request.headers.upgrade?.toLowerCase() !== 'drover-console') {
    throw new UserError('invalid-input', 'This upgrade is not offered.', 'Send `Upgrade: drover-console`.');
  }
  try {
    return { vm: decodeURIComponent(vm) };
  } catch (error) {
    throw new UserError('invalid-input', 'The path is not properly encoded.', 'Encode it as a URL.', { cause: error });
  }
}

function mountTunnels(
  app: FastifyInstance,
  closing: AbortSignal,
  run: (request: IncomingMessage, socket: Duplex, head: Buffer) => Promise<void>,
): void {
  const open = new Set<Duplex>();
  closing.addEventListener('abort', () => open.forEach((socket) => socket.destroy()), { once: true });
  app.server.on('upgrade', (request: IncomingMessage, socket: Duplex, head: Buffer) => {
    socket.on('error', () => socket.destroy()); // the other side went away; `close` follows
    if (open.size >= tunnelsLimit) return socket.destroy();
    open.add(socket);
    socket.once('close', () => open.delete(socket));
    run(request, socket, head).catch((error: unknown) => {
      const user =
        error instanceof UserError
          ? error
          : new UserError('unavailable', 'The console failed.', "The reason is in the server's log.", { cause: error });
      const problem = problemOf(user);
      const body = JSON.stringify(problem);
      const head = [
        `HTTP/1.1 ${problem.status} ${problem.title}`,
        'content-type: application/problem+json',
        `content-length: ${Buffer.byteLength(body)}`,
        'connection: close',
      ];
      socket.end(`${head.join('\r\n')}\r\n\r\n${body}`);
    });
  });
}

function openTunnel(socket: Duplex, head: Buffer, signal: AbortSignal): Tunnel {
  socket.write('HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: drover-console\r\n\r\n');
  const closed = new Promise<void>((resolve) => socket.once('close', () => resolve()));
  if (head.length > 0) socket.unshift(head);
  return {
    write: (bytes) => {
      if (socket.writableLength > unreadConsoleBytes) socket.destroy();
      else if (!socket.destroyed && !signal.aborted) socket.write(bytes);
    },
    end: (reason) => socket.end(`\r\n[drover: ${reason}]\r\n`),
    onData: (handler) => {
      socket.on('data', handler);
      socket.on('end', () => socket.end());
    },
    closed,
  };
}
