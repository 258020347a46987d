/**
 * HTTP: mounts the endpoint table, asks who may, checks what comes in against it, writes down what was done, turns errors into
 * problem+json, and lets events and consoles through. The only file of the control plane that knows fastify.
 *
 * Not here: what the endpoints do (handlers/), whose a token is (people.ts).
 */
import type { IncomingMessage } from 'node:http';
import type { Server as HttpsServer } from 'node:https';
import { Readable } from 'node:stream';
import fastify from 'fastify';
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import { z } from 'zod';
import { roleSuffices } from '../model/access.ts';
import type { Actor } from '../model/access.ts';
import { UserError, messageOf } from '../model/failure.ts';
import { systemClock } from '../runtime/clock.ts';
import type { Log } from '../runtime/log.ts';
import { apiPrefix } from '../wire/client.ts';
import { endpoints } from '../wire/endpoints.ts';
import type { Endpoint, EndpointName } from '../wire/endpoints.ts';
import { openApiDocument } from '../wire/openapi.ts';
import {
  asUserError,
  bodyLimitBytes,
  internalError,
  methodsAt,
  notHttp,
  problemAnswer,
  problemType,
  unknownPath,
  wrongMethod,
} from './answers.ts';
import { isAudited, reasonIn, subjectOf } from './audited.ts';
import { actorOf, addressOf, refuseOtherSites, sessionCookie } from './credentials.ts';
import { EventHub } from './event-hub.ts';
import { streamEvents } from './event-stream.ts';
import type { Answer, Call } from './handler.ts';
import { handlers, type AnyHandler } from './handlers/table.ts';
import { secretHash } from './people.ts';
import { metricsPath, metricsType, type ApiMetrics } from './metrics/metrics.ts';
import type { Page } from './page.ts';
import type { ControlPlane } from './plane.ts';
import { requestKey } from './requests.ts';
import type { ServerTls } from './server-tls.ts';
import { mountTunnels, openTunnel, vmOfTunnel } from './tunnels.ts';

const eventReadersLimit = 4_096;

/** What may be done while the records are held: what ends that, and what the records of hosts and VMs have no part in. */
const doneWhileHeld: ReadonlySet<string> = new Set([
  'fenceHost',
  'login',
  'logout',
  'createUser',
  'updateUser',
  'changeMyPassword',
  'removeUser',
  'createToken',
  'revokeToken',
]);

const nobody: Actor = {
  name: 'nobody',
  role: 'viewer',
  via: 'session',
  token: null,
  user: null,
  expiresAt: null,
  session: null,
};

export interface ApiOptions {
  readonly plane: ControlPlane;
  /** Of the state directory: opens everything. */
  readonly token: string;
  readonly log: Log;
  /** What is served beside the API; it is open to everybody. */
  readonly page?: Page;
  /** Absent: nothing is at /metrics. */
  readonly metrics?: ApiMetrics;
  /** Checks replies against the table too: on in tests. */
  readonly checkReplies?: boolean;
  /** Absent: plain HTTP. */
  readonly tls?: ServerTls | undefined;
  /** Of events; as usual where it is left out. */
  readonly batchMs?: number;
}

/** The server, not listening yet. `close()` also ends event streams and consoles. */
export function createApi(options: ApiOptions): FastifyInstance {
  const { plane, token, log, page, metrics, tls, checkReplies = false, batchMs } = options;
  const bootstrapHash = secretHash(token);
  const app: FastifyInstance = fastify({
    // Its types tell servers of HTTP and HTTPS apart; for routes and hooks they are the same.
    ...(tls && ({ https: tls.material } as object)),
    bodyLimit: bodyLimitBytes,
    forceCloseConnections: true,
    routerOptions: { maxParamLength: 200 },
    // What the router refuses before it has found a row.
    frameworkErrors: (error, request, reply) => {
      try {
        actorOf(request.raw, plane.people, bootstrapHash);
        void answerError(error, request, reply, log);
      } catch (refusal) {
        void answerError(refusal, request, reply, log);
      }
    },
    clientErrorHandler(error, socket) {
      if (error.code === 'ECONNRESET' || socket.destroyed) return;
      if (socket.writable) socket.end(notHttp(error.code));
      else socket.destroy();
    },
  });
  if (tls) tls.follow(app.server as unknown as HttpsServer); // see above
  const closing = new AbortController();
  // Made when it is first asked for: a new leader has other things to do.
  let document: object | undefined;
  const actors = new WeakMap<object, Actor>();
  const hub = new EventHub(plane, systemClock, batchMs);

  const allowed = (name: string, { role }: Pick<Endpoint, 'role'>, request: FastifyRequest['raw']): Actor => {
    if (role === 'none') {
      refuseOtherSites(request);
      return nobody;
    }
    const actor = actorOf(request, plane.people, bootstrapHash);
    if (roleSuffices(actor.role, role)) return actor;
    log.info({ by: actor.name, did: name, role: actor.role }, 'a request was not allowed');
    throw new UserError(
      'forbidden',
      `${actor.name} is ${actor.role}; ${name} needs ${role}.`,
      `Ask an admin: drover user set-role ${actor.user ?? 'NAME'} ${role}, or a token with that role.`,
    );
  };

  app.addHook('onClose', async () => closing.abort());
  app.addHook('preClose', async () => closing.abort());
  app.setErrorHandler((error, request, reply) => answerError(error, request, reply, log));
  app.setNotFoundHandler((request, reply) => {
    const { method, url } = request;
    if (url === apiPrefix || url.startsWith(`${apiPrefix}/`)) actorOf(request.raw, plane.people, bootstrapHash);
    const there = methodsAt(url);
    const isOurs = page !== undefined && /^(GET|HEAD)$/.test(method) && !/^\/api(\/|$)/.test(url);
    if (there.length === 0 && isOurs) return sendPage(page, request, reply);
    if (there.length === 0) throw unknownPath(method, url);
    void reply.header('allow', there.join(', '));
    throw wrongMethod(method, there);
  });

  app.get(`${apiPrefix}/openapi.json`, (request) => {
    allowed('openapi.json', { role: 'viewer' }, request.raw);
    document ??= openApiDocument(plane.version);
    return document;
  });
  if (metrics) mountMetrics(app, metrics, (request) => void allowed('metrics', { role: 'viewer' }, request));
  app.get('/healthz', () => ({ alive: true }));
  app.get('/readyz', async () => {
    await plane.store.get('control/ready').catch((error: unknown) => {
      throw new UserError('unavailable', `The store cannot be read: ${messageOf(error)}.`, 'Look at it first.', {
        cause: error,
      });
    });
    return { ready: true, leads: true, term: plane.fleet.term };
  });

  for (const [name, endpoint] of Object.entries(endpoints) as [EndpointName, Endpoint][]) {
    const handler = handlers[name] as unknown as AnyHandler; // see AnyHandler
    app.route({
      method: endpoint.method,
      url: `${apiPrefix}${endpoint.path}`,
      // The head of what never ends is no answer.
      exposeHeadRoute: endpoint.stream === undefined,
      // Before the body is read: whoever may not do it need not send it.
      onRequest: async (request) => void actors.set(request, allowed(name, endpoint, request.raw)),
      handler: async (request, reply) => {
        const input = checkedInput(endpoint, request);
        const call: Call = {
          plane,
          request: idempotencyOf(name, endpoint, request),
          actor: actors.get(request) ?? nobody,
          address: addressOf(request.raw, token),
          ifMatch: ifMatchOf(endpoint, request),
          answer: answerOf(request, reply),
          hub,
        };
        const done = (stream?: unknown): Promise<unknown> =>
          audited(name, endpoint, input, call, request, async () => {
            if (endpoint.method !== 'GET' && !doneWhileHeld.has(name)) plane.held.refuseWhileHeld();
            return handler(input, call, stream);
          });
        switch (endpoint.stream) {
          case 'events': {
            if (hub.readers >= eventReadersLimit) {
              throw new UserError('unavailable', `${hub.readers} readers of events are connected.`, 'Close some.');
            }
            metrics?.readers(1);
            try {
              await streamEvents(request.raw, reply.raw, closing.signal, () => void reply.hijack(), done);
              return reply;
            } finally {
              metrics?.readers(-1);
            }
          }
          case 'lines':
            return reply
              .type('application/x-ndjson')
              .header('cache-control', 'no-store')
              .send(Readable.from((await done()) as AsyncIterable<string>)); // by AnyHandler: what such a row gives
          case 'tunnel':
            throw new UserError(
              'invalid-input',
              'The console is raw bytes after an upgrade of the connection.',
              'Send the headers `Connection: Upgrade` and `Upgrade: drover-console`, or use `drover vm console`.',
            );
          default: {
            const result = await done();
            if (checkReplies) endpoint.reply.parse(result);
            return reply.code(endpoint.status ?? 200).send(result);
          }
        }
      },
    });
  }

  mountTunnels(app.server, closing.signal, async (request, socket, head) => {
    const actor = allowed('consoleVm', endpoints.consoleVm, request);
    const input = { params: { vm: vmOfTunnel(request) } };
    const answer: Answer = { more() {}, version() {}, session() {} };
    const call: Call = { plane, request: null, actor, address: addressOf(request, token), ifMatch: null, answer, hub };
    const note = (error?: unknown): Promise<void> =>
      noteDone('consoleVm', call, subjectOf(call, input, reasonIn(request.headers['drover-reason'])), error);
    try {
      await handlers.consoleVm(input, call, () => {
        void note();
        return openTunnel(socket, head, closing.signal);
      });
    } catch (error) {
      await note(error);
      throw error;
    }
  });
  return app;

  async function audited(
    name: EndpointName,
    endpoint: Endpoint,
    input: CheckedInput,
    call: Call,
    request: FastifyRequest,
    run: () => Promise<unknown>,
  ): Promise<unknown> {
    if (!isAudited(name, endpoint, input)) return run();
    const subject = subjectOf(call, input, reasonIn(request.headers['drover-reason']));
    try {
      const result = await run();
      await noteDone(name, call, subject);
      return result;
    } catch (error) {
      await noteDone(name, call, subject, error);
      throw error;
    }
  }

  function noteDone(
    did: EndpointName,
    { actor, address }: Call,
    subject: ReturnType<typeof subjectOf>,
    error?: unknown,
  ): Promise<void> {
    const known = error === undefined ? undefined : (asUserError(error) ?? internalError());
    const who =
      actor === nobody
        ? { by: subject.to ?? 'nobody', via: 'login' as const, token: null }
        : { by: actor.name, via: actor.via, token: actor.token };
    return plane.audit.note({
      ...who,
      address,
      did,
      ...subject,
      outcome: known?.code ?? 'done',
      says: known?.message ?? null,
    });
  }
}

function sendPage(page: Page, request: FastifyRequest, reply: FastifyReply): FastifyReply {
  const path = request.url.split('?')[0] ?? '/';
  const { status, headers, body } = page.answer(path, /\bgzip\b/.test(request.headers['accept-encoding'] ?? ''));
  return reply.code(status).headers(headers).send(body);
}

function mountMetrics(app: FastifyInstance, metrics: ApiMetrics, allow: (request: IncomingMessage) => void): void {
  const operations = new Map<string, EndpointName>();
  for (const [name, { method, path, stream }] of Object.entries(endpoints) as [EndpointName, Endpoint][]) {
    if (stream === undefined) operations.set(`${method} ${apiPrefix}${path}`, name);
  }
  app.get(metricsPath, { onRequest: async (request) => allow(request.raw) }, async (_, reply) =>
    reply
      .type(metricsType)
      .header('cache-control', 'no-store')
      .send(await metrics.text()),
  );
  app.addHook('onResponse', async ({ method, routeOptions }, reply) => {
    const operation = operations.get(`${method} ${routeOptions.url}`);
    if (operation !== undefined) metrics.request(operation, reply.statusCode, reply.elapsedTime / 1000);
  });
}

interface CheckedInput {
  readonly params: Readonly<Record<string, unknown>>;
  readonly query: Readonly<Record<string, unknown>>;
  readonly body: unknown;
}

function checkedInput(endpoint: Endpoint, request: FastifyRequest): CheckedInput {
  const parse = (schema: z.ZodType | undefined, value: unknown, what: string): unknown => {
    // What a row does not take must not be sent: it would be silently ignored otherwise.
    const result = (schema ?? z.object({}).strict()).safeParse(value ?? {});
    if (result.success) return result.data;
    const unknownField = result.error.issues.some((issue) => issue.code === 'unrecognized_keys');
    throw new UserError(
      unknownField ? 'unknown-field' : 'invalid-input',
      `The ${what} is not as it should be: ${issuesInWords(result.error)}.`,
      `What is understood is in ${apiPrefix}/openapi.json, and for the command line in the --help of each command.`,
    );
  };
  return {
    // The casts: params and query are objects by the type of a row.
    params: parse(endpoint.params, request.params, 'path') as CheckedInput['params'],
    query: parse(endpoint.query, request.query, 'query') as CheckedInput['query'],
    body: parse(endpoint.body, request.body, 'body'),
  };
}

/** "maxMoves: Too small: expected number to be >=1; dryRun: ..." */
function issuesInWords({ issues }: z.ZodError): string {
  return issues
    .map(({ path, message }) => [...(path.length > 0 ? [path.join('.')] : []), message].join(': '))
    .join('; ');
}

function idempotencyOf(name: EndpointName, endpoint: Endpoint, request: FastifyRequest): Call['request'] {
  const key = request.headers['idempotency-key'];
  if (key === undefined || endpoint.idempotent !== true) return null;
  if (typeof key !== 'string' || !/^[\w.:-]{1,200}$/.test(key)) {
    throw new UserError(
      'invalid-input',
      'The Idempotency-Key is not usable.',
      'Send 1 to 200 letters, digits, ".", ":", "_" or "-", for example a UUID.',
    );
  }
  return requestKey(name, key, { params: request.params, body: request.body ?? {} });
}

function ifMatchOf(endpoint: Endpoint, request: FastifyRequest): Call['ifMatch'] {
  const header = request.headers['if-match'];
  if (header === undefined || endpoint.versioned !== true) return null;
  return header.split(',').map((tag) => tag.trim().replace(/^"(.*)"$/, '$1'));
}

function answerOf(request: FastifyRequest, reply: FastifyReply): Answer {
  return {
    more: (after) => {
      const url = new URL(request.url, 'http://server');
      url.searchParams.set('after', after);
      void reply.header('link', `<${url.pathname}${url.search}>; rel="next"`);
    },
    version: (version) => void reply.header('etag', `"${version}"`),
    session: (secret, forMs) => void reply.header('set-cookie', sessionCookie(request.raw, secret, forMs)),
  };
}

function answerError(error: unknown, request: FastifyRequest, reply: FastifyReply, log: Log): FastifyReply {
  const known = asUserError(error);
  // Ours: the log gets all of it, the client only learns that it happened.
  if (!known) log.error({ error, method: request.method, url: request.url }, 'a request failed');
  const { body, headers } = problemAnswer(known ?? internalError());
  return reply.code(body.status).headers(headers).type(problemType).send(JSON.stringify(body));
}
