/**
 * The typed client of the public API, derived from the endpoint table: `client.migrateVm({ params, body })` sends what the
 * row says and returns the checked reply. Works in the browser too: nothing but fetch. Exported as `drover/client`, described in
 * docs/guide/api.md. Not here: where the server and the token are found (cli/connection.ts), and the console's tunnel, which
 * fetch cannot do (cli/commands/console.ts).
 */
import { UserError, messageOf } from '../model/failure.ts';
import {
  endpoints,
  eventView,
  type Endpoint,
  type EndpointName,
  type EventView,
  type ReplyOf,
  type RequestOf,
} from './endpoints.ts';
import { userErrorOf } from './errors.ts';
import { readServerSentEvents } from './server-sent-events.ts';

export { UserError } from '../model/failure.ts';
export type { EventView, HostView, MigrationView, ReplyOf, RequestOf, VmView } from './endpoints.ts';

/** Below this path the server mounts the table. */
export const apiPrefix = '/api/v1';

const callDeadlineMs = 15_000;
/** The server writes a comment more often than this; longer silence is a connection that died without saying so. */
const silenceMs = 60_000;
/** Where there are several servers: how long one may take before another is asked what changes nothing. They wait for a new leader. */
const tryMs = 6_000;
/** How often each of several is asked: while the lead changes hands, the one that takes over breaks off what waited at it. */
const rounds = 8;
const roundPauseMs = 400;
const firstBackOffMs = 250;
const longestBackOffMs = 5_000;

export interface ClientOptions {
  /** Base address, for example http://127.0.0.1:7070; several of one fleet with commas between them. */
  readonly server: string;
  /** Left out: the browser has a session, and sends its cookie. */
  readonly token?: string;
  /** Why: kept in the audit log with all that is done. */
  readonly reason?: string;
  readonly fetch?: typeof fetch;
  /** For one call; the event stream has its own limits. */
  readonly deadlineMs?: number;
}

export interface CallOptions {
  readonly signal?: AbortSignal;
  /** The same key with the same request again is answered with what it made; for what makes something. */
  readonly idempotencyKey?: string;
  /** Change it only if this is still its ETag (with the quotes, as it came). */
  readonly ifMatch?: string;
}

export interface EventsRequest {
  /** Only what concerns this migration (id). */
  readonly migration?: string;
  /** False leaves out the progress samples. */
  readonly samples?: boolean;
  /** True: the load of hosts and VMs too, as it changes. */
  readonly loads?: boolean;
  /** Begin after this event, not now. */
  readonly lastEventId?: string;
  readonly signal?: AbortSignal;
  /** Called at each connection, the first and those after a break: what is read then misses nothing that follows. */
  readonly onOpen?: () => void;
  /** Called when a connection is lost, or could not be made; it is tried again. */
  readonly onBreak?: () => void;
  /** How long to try to connect again before giving up. */
  readonly giveUpAfterMs?: number;
}

/** `id` is null for samples, which cannot be asked for again. */
export interface StreamedEvent {
  readonly id: string | null;
  readonly event: EventView;
}

type Streamed = {
  [N in EndpointName]: (typeof endpoints)[N] extends { readonly stream: string } ? N : never;
}[EndpointName];
type CallName = Exclude<EndpointName, Streamed>;
/** A request is left out where the row has neither params nor body. */
type ArgumentsOf<N extends EndpointName> =
  object extends RequestOf<N>
    ? [request?: RequestOf<N>, options?: CallOptions]
    : [request: RequestOf<N>, options?: CallOptions];

type ListName = { [N in CallName]: ReplyOf<N> extends readonly unknown[] ? N : never }[CallName];

export type Client = { readonly [N in CallName]: (...args: ArgumentsOf<N>) => Promise<ReplyOf<N>> } & {
  /** All items of a list, page after page. */
  all<N extends ListName>(name: N, ...args: ArgumentsOf<N>): AsyncIterableIterator<ReplyOf<N>[number]>;
  /** Endless; resumes by itself after a break. Ends without an error when the signal is aborted. */
  events(request?: EventsRequest): AsyncIterableIterator<StreamedEvent>;
  /** The lines of a backup as bytes; whole only when `readBackup` says so. */
  backup(options?: CallOptions): AsyncIterableIterator<Uint8Array>;
};

interface LooseRequest {
  readonly params?: Readonly<Record<string, string>>;
  readonly query?: Readonly<Record<string, string | number | undefined>>;
  readonly body?: unknown;
}

/** Every call @throws UserError: the server's own, or `unavailable`/`timed-out` when there is no proper answer. */
export function createClient(options: ClientOptions): Client {
  const { server, deadlineMs = callDeadlineMs } = options;
  const bases = server.split(',').map(baseOf);
  /** Index of the server that answered last. */
  let preferred = 0;
  const fetchOne = options.fetch ?? fetch;
  // Checked here because fetch would put the whole of it into its own error, and thus on a screen.
  if (options.token !== undefined && !/^[\x21-\x7E]+$/.test(options.token)) {
    throw new UserError('invalid-input', 'What was given as the token is none.', 'Give the right file or value.');
  }
  const own: Record<string, string> = options.token === undefined ? {} : { authorization: `Bearer ${options.token}` };
  const reason = options.reason === undefined ? {} : { 'drover-reason': encodeURIComponent(options.reason) };

  /** From the first server that answers; what may have been done at one is not sent to another. */
  async function send(
    to: (base: URL) => string,
    init: RequestInit & { readonly signal: AbortSignal },
  ): Promise<Response> {
    const repeatable = init.method === undefined || init.method === 'GET';
    for (let tried = 1; ; tried++) {
      const at = preferred % bases.length;
      const late = new AbortController();
      const last = tried === (bases.length === 1 ? 1 : rounds * bases.length);
      const timer = repeatable && bases.length > 1 ? setTimeout(() => late.abort(), tryMs) : undefined;
      try {
        const base = bases[at];
        if (base === undefined) throw new Error('no server is named');
        return await fetchOne(to(base), { ...init, signal: AbortSignal.any([init.signal, late.signal]) });
      } catch (error) {
        if (init.signal.aborted || !(repeatable || neverSent(error))) throw error;
        preferred = at + 1;
        if (last) throw error;
        if (tried % bases.length === 0) await pause(roundPauseMs, init.signal);
      } finally {
        clearTimeout(timer);
      }
    }
  }

  async function call(endpoint: Endpoint, request?: LooseRequest, callOptions?: CallOptions): Promise<unknown> {
    return (await ask(endpoint, request, callOptions)).reply;
  }

  async function ask(
    endpoint: Endpoint,
    request: LooseRequest = {},
    { signal, idempotencyKey, ifMatch }: CallOptions = {},
  ): Promise<{ reply: unknown; next: string | undefined }> {
    const what = `${endpoint.method} ${apiPrefix}${endpoint.path}`;
    signal?.throwIfAborted();
    const expiry = AbortSignal.timeout(deadlineMs);
    try {
      const response = await send((base) => addressOf(base, endpoint, request), {
        method: endpoint.method,
        headers: {
          accept: 'application/json',
          ...own,
          ...reason,
          ...(idempotencyKey !== undefined && { 'idempotency-key': idempotencyKey }),
          ...(ifMatch !== undefined && { 'if-match': ifMatch }),
          ...(request.body === undefined ? {} : { 'content-type': 'application/json' }),
        },
        ...(request.body === undefined ? {} : { body: JSON.stringify(request.body) }),
        signal: signal ? AbortSignal.any([signal, expiry]) : expiry,
      });
      if (!response.ok) throw await errorOf(response);
      const reply = endpoint.reply.safeParse(await response.json());
      if (reply.success) return { reply: reply.data, next: nextOf(response) };
      throw new UserError(
        'unavailable',
        `The answer of ${server} to ${what} is not understood.`,
        'Is this a drover server, of the same version or the next newer one?',
        { cause: reply.error },
      );
    } catch (error) {
      if (error instanceof UserError || signal?.aborted) throw error;
      if (expiry.aborted) {
        throw new UserError(
          'timed-out',
          `The server at ${server} did not answer ${what} within ${deadlineMs / 1000} s.`,
          'It may have been done all the same: look before you try again.',
          { cause: error },
        );
      }
      throw unreachable(server, error);
    }
  }

  async function* all(name: ListName, request: LooseRequest = {}, callOptions?: CallOptions) {
    let after: string | undefined;
    do {
      const query = { ...request.query, ...(after !== undefined && { after }) };
      const page = await ask(endpoints[name], { ...request, query }, callOptions);
      yield* page.reply as readonly unknown[]; // a list by the type of the name
      after = page.next;
    } while (after !== undefined);
  }

  async function* events(request: EventsRequest = {}): AsyncGenerator<StreamedEvent, void, void> {
    const { signal, onOpen, onBreak, giveUpAfterMs = 60_000 } = request;
    const { listEvents } = endpoints;
    const query = {
      migration: request.migration,
      samples: request.samples === false ? 'false' : 'true',
      // An older server does not know the word.
      loads: request.loads === true ? 'true' : undefined,
    };
    let lastEventId = request.lastEventId;
    let brokenSince: number | undefined;
    let backOffMs = firstBackOffMs;
    const stopped = (): boolean => signal?.aborted ?? false;

    while (!stopped()) {
      const stale = new AbortController();
      const both = signal ? AbortSignal.any([signal, stale.signal]) : stale.signal;
      let watchdog = setTimeout(() => stale.abort(), deadlineMs);
      const alive = (): void => {
        clearTimeout(watchdog);
        watchdog = setTimeout(() => stale.abort(), silenceMs);
      };
      let failure: unknown;
      try {
        const response = await send((base) => addressOf(base, listEvents, { query }), {
          headers: {
            accept: 'text/event-stream',
            ...own,
            ...(lastEventId === undefined ? {} : { 'last-event-id': lastEventId }),
          },
          signal: both,
        });
        if (!response.ok) throw await errorOf(response);
        if (!response.body) throw new Error('the answer has no body');
        alive();
        onOpen?.();
        const heard = (): void => {
          alive();
          brokenSince = undefined;
          backOffMs = firstBackOffMs;
        };
        for await (const message of readServerSentEvents(response.body, heard)) {
          if (message.id !== undefined) lastEventId = message.id;
          const event = eventOf(message.data);
          if (event) yield { id: message.id ?? null, event };
          if (stopped()) return;
        }
      } catch (error) {
        // What the server refuses now it refuses the next time too; only its absence passes.
        if (error instanceof UserError && error.code !== 'unavailable') throw error;
        failure = error;
      } finally {
        clearTimeout(watchdog);
        stale.abort();
      }
      if (stopped()) return;
      onBreak?.();
      brokenSince ??= performance.now();
      if (performance.now() - brokenSince > giveUpAfterMs) {
        throw failure instanceof UserError ? failure : unreachable(server, failure);
      }
      // Between half and all of the time, so that those who lost the server together do not come back together.
      await pause(backOffMs * (0.5 + Math.random() / 2), signal);
      backOffMs = Math.min(longestBackOffMs, backOffMs * 2);
    }
  }

  async function* backup({ signal }: CallOptions = {}): AsyncGenerator<Uint8Array, void, void> {
    const stale = new AbortController();
    let watchdog = setTimeout(() => stale.abort(), deadlineMs);
    try {
      const response = await send((base) => addressOf(base, endpoints.backup, {}), {
        headers: { accept: 'application/x-ndjson', ...own },
        signal: signal ? AbortSignal.any([signal, stale.signal]) : stale.signal,
      });
      if (!response.ok) throw await errorOf(response);
      if (!response.body) throw new Error('the answer has no body');
      const reader = response.body.getReader();
      for (;;) {
        const { done, value } = await reader.read();
        if (done) return;
        clearTimeout(watchdog);
        watchdog = setTimeout(() => stale.abort(), silenceMs);
        yield value;
      }
    } catch (error) {
      if (error instanceof UserError || signal?.aborted) throw error;
      throw unreachable(server, error);
    } finally {
      clearTimeout(watchdog);
      stale.abort();
    }
  }

  const calls = Object.fromEntries(
    Object.entries(endpoints).map(([name, endpoint]: [string, Endpoint]) => [
      name,
      (request?: LooseRequest, callOptions?: CallOptions) => call(endpoint, request, callOptions),
    ]),
  );
  // The table's own types say what each row takes and gives, and `call` has checked the reply by the same row.
  return { ...calls, all, events, backup } as unknown as Client;
}

function baseOf(server: string): URL {
  const address = server.endsWith('/') ? server : `${server}/`;
  if (URL.canParse(address) && /^https?:$/.test(new URL(address).protocol)) return new URL(address);
  throw new UserError('invalid-input', `'${server}' is not the address of a server.`, 'Write http://HOST:PORT.');
}

function addressOf(base: URL, endpoint: Endpoint, { params = {}, query = {} }: LooseRequest): string {
  const path = endpoint.path.replace(/:(\w+)/g, (_, key: string) => encodeURIComponent(params[key] ?? ''));
  const url = new URL(`.${apiPrefix}${path}`, base);
  for (const [key, value] of Object.entries(query)) {
    if (value !== undefined) url.searchParams.set(key, String(value));
  }
  return url.href;
}

/** Where the next page begins, from the Link header. */
function nextOf(response: Response): string | undefined {
  const link = /<([^>]*)>;\s*rel="next"/.exec(response.headers.get('link') ?? '')?.[1];
  return link === undefined ? undefined : (new URL(link, 'http://server').searchParams.get('after') ?? undefined);
}

async function errorOf(response: Response): Promise<UserError> {
  const body: unknown = await response.json().catch(() => undefined);
  return userErrorOf(body, response.status);
}

/** The connection was never made, so the server knows nothing of it. */
function neverSent(error: unknown): boolean {
  const inner = error instanceof Error ? error.cause : undefined;
  const code = inner instanceof Error && 'code' in inner ? String(inner.code) : '';
  return ['ECONNREFUSED', 'EHOSTUNREACH', 'ENETUNREACH', 'ENOTFOUND', 'UND_ERR_CONNECT_TIMEOUT'].includes(code);
}

function unreachable(server: string, cause: unknown): UserError {
  // fetch hides the reason one level down: "fetch failed", cause ECONNREFUSED.
  const inner = cause instanceof Error && cause.cause !== undefined ? cause.cause : cause;
  const words = inner === undefined ? 'the connection ended' : messageOf(inner) || 'the connection failed';
  return new UserError(
    'unavailable',
    server.includes(',')
      ? `None of the servers ${server.replaceAll(',', ', ')} can be reached: ${words}.`
      : `The server at ${server} cannot be reached: ${words}.`,
    /certificate/i.test(words)
      ? 'The server is there, but its certificate is not trusted under this address: name who signs it with --ca or DROVER_CA.'
      : 'Check that `drover server` runs there, or name another address.',
    { cause },
  );
}

/** Undefined for what a newer server says and this client does not know. */
function eventOf(data: string): EventView | undefined {
  try {
    return eventView.safeParse(JSON.parse(data)).data;
  } catch {
    return undefined;
  }
}

function pause(ms: number, signal: AbortSignal | undefined): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  const timer = setTimeout(resolve, ms);
  signal?.addEventListener('abort', () => resolve(), { once: true });
  return promise.finally(() => clearTimeout(timer));
}
