/**
 * The typed client of the public API, derived from the endpoint table: `client.migrateVm({ params, body })` sends what the
 * row says and returns the checked reply. Works in the browser too: nothing but fetch. Not here: where the server and the
 * token are found (cli/connection.ts), and the console's tunnel, which fetch cannot do (cli/commands/console.ts).
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

/** Below this path the server mounts the table. */
export const apiPrefix = '/api/v1';

const callDeadlineMs = 15_000;
/** The server writes a comment more often than this; longer silence is a connection that died without saying so. */
const silenceMs = 60_000;
const firstBackOffMs = 250;
const longestBackOffMs = 5_000;

export interface ClientOptions {
  /** Base address, for example http://127.0.0.1:7070 */
  readonly server: string;
  readonly token: string;
  readonly fetch?: typeof fetch;
  /** For one call; the event stream has its own limits. */
  readonly deadlineMs?: number;
}

export interface CallOptions {
  readonly signal?: AbortSignal;
}

export interface EventsRequest {
  /** Only what concerns this migration (id). */
  readonly migration?: string;
  /** False leaves out the progress samples. */
  readonly samples?: boolean;
  /** Begin after this event, not now. */
  readonly lastEventId?: string;
  readonly signal?: AbortSignal;
  /** Called at each connection, the first and those after a break: what is read then misses nothing that follows. */
  readonly onOpen?: () => void;
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

export type Client = { readonly [N in CallName]: (...args: ArgumentsOf<N>) => Promise<ReplyOf<N>> } & {
  /** Endless; resumes by itself after a break. Ends without an error when the signal is aborted. */
  events(request?: EventsRequest): AsyncIterableIterator<StreamedEvent>;
};

interface LooseRequest {
  readonly params?: Readonly<Record<string, string>>;
  readonly query?: Readonly<Record<string, string | number | undefined>>;
  readonly body?: unknown;
}

/** Every call @throws UserError: the server's own, or `unavailable`/`timed-out` when there is no proper answer. */
export function createClient(options: ClientOptions): Client {
  const { server, deadlineMs = callDeadlineMs } = options;
  const base = baseOf(server);
  const send = options.fetch ?? fetch;
  // Checked here because fetch would put the whole of it into its own error, and thus on a screen.
  if (!/^[\x21-\x7E]+$/.test(options.token)) {
    throw new UserError('invalid-input', 'What was given as the token is none.', 'Give the right file or value.');
  }
  const authorization = `Bearer ${options.token}`;

  async function call(endpoint: Endpoint, request: LooseRequest = {}, { signal }: CallOptions = {}): Promise<unknown> {
    const what = `${endpoint.method} ${apiPrefix}${endpoint.path}`;
    signal?.throwIfAborted();
    const expiry = AbortSignal.timeout(deadlineMs);
    try {
      const response = await send(addressOf(base, endpoint, request), {
        method: endpoint.method,
        headers: {
          accept: 'application/json',
          authorization,
          ...(request.body === undefined ? {} : { 'content-type': 'application/json' }),
        },
        ...(request.body === undefined ? {} : { body: JSON.stringify(request.body) }),
        signal: signal ? AbortSignal.any([signal, expiry]) : expiry,
      });
      if (!response.ok) throw await errorOf(response);
      const reply = endpoint.reply.safeParse(await response.json());
      if (reply.success) return reply.data;
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

  async function* events(request: EventsRequest = {}): AsyncGenerator<StreamedEvent, void, void> {
    const { signal, onOpen, giveUpAfterMs = 60_000 } = request;
    const { listEvents } = endpoints;
    const query = { migration: request.migration, samples: request.samples === false ? 'false' : 'true' };
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
        const response = await send(addressOf(base, listEvents, { query }), {
          headers: {
            accept: 'text/event-stream',
            authorization,
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
      brokenSince ??= performance.now();
      if (performance.now() - brokenSince > giveUpAfterMs) {
        throw failure instanceof UserError ? failure : unreachable(server, failure);
      }
      // Between half and all of the time, so that those who lost the server together do not come back together.
      await pause(backOffMs * (0.5 + Math.random() / 2), signal);
      backOffMs = Math.min(longestBackOffMs, backOffMs * 2);
    }
  }

  const calls = Object.fromEntries(
    Object.entries(endpoints).map(([name, endpoint]: [string, Endpoint]) => [
      name,
      (request?: LooseRequest, callOptions?: CallOptions) => call(endpoint, request, callOptions),
    ]),
  );
  // The table's own types say what each row takes and gives, and `call` has checked the reply by the same row.
  return { ...calls, events } as unknown as Client;
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

async function errorOf(response: Response): Promise<UserError> {
  const body: unknown = await response.json().catch(() => undefined);
  return userErrorOf(body, response.status);
}

function unreachable(server: string, cause: unknown): UserError {
  // fetch hides the reason one level down: "fetch failed", cause ECONNREFUSED.
  const inner = cause instanceof Error && cause.cause !== undefined ? cause.cause : cause;
  const words = inner === undefined ? 'the connection ended' : messageOf(inner) || 'the connection failed';
  return new UserError(
    'unavailable',
    `The server at ${server} cannot be reached: ${words}.`,
    'Check that `drover server` runs there, or name another address.',
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
