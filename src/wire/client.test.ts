import { describe, expect, it } from 'vitest';
import { UserError } from '../model/failure.ts';
import { createClient, type EventsRequest } from './client.ts';
import type { EventView } from './endpoints.ts';
import { problemOf } from './errors.ts';

interface Seen {
  readonly url: string;
  readonly method: string | undefined;
  readonly headers: Record<string, string>;
  readonly body: unknown;
}

/** A client whose server is a list of answers, given one after the other. */
function clientOf(answers: readonly (() => Response | Promise<Response>)[], deadlineMs = 5_000) {
  const seen: Seen[] = [];
  const client = createClient({
    server: 'http://fleet:7070',
    token: 't0k',
    deadlineMs,
    fetch: async (url, init) => {
      const { method, headers, body, signal } = init ?? {};
      seen.push({
        url: hrefOf(url),
        method,
        headers: headers as Record<string, string>,
        body: typeof body === 'string' ? (JSON.parse(body) as unknown) : undefined,
      });
      const answer = answers[seen.length - 1];
      if (answer) return answer();
      return new Promise((_, reject) => signal?.addEventListener('abort', () => reject(signal.reason as Error)));
    },
  });
  return { client, seen };
}

const hrefOf = (url: Parameters<typeof fetch>[0]): string => (url instanceof Request ? url.url : url.toString());
const json =
  (body: unknown, status = 200) =>
  () =>
    Response.json(body, { status });
const stream =
  (...chunks: readonly string[]) =>
  () =>
    new Response(ReadableStream.from(chunks.map((chunk) => new TextEncoder().encode(chunk))));
const alarm = (says: string): EventView => ({ type: 'alarm', at: 1, says, about: 'h1' });
const message = (id: number | null, event: unknown): string =>
  `${id === null ? '' : `id: ${id}\n`}data: ${JSON.stringify(event)}\n\n`;

async function failure(promise: Promise<unknown>): Promise<UserError> {
  const error = await promise.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  if (!(error instanceof UserError)) throw new Error('no UserError was thrown', { cause: error });
  return error;
}

describe('a call', () => {
  it('carries key, version and reason, and follows pages to their end', async () => {
    const page = (next: string | null) => () =>
      Response.json([], {
        headers: next === null ? {} : { link: `</api/v1/tasks?limit=1&after=${next}>; rel="next"` },
      });
    const { client, seen } = clientOf([json({ status: 'no' }), page('a%2Fb'), page(null)]);
    const options = { idempotencyKey: 'k', ifMatch: '"7"' };
    await failure(client.cordonHost({ params: { host: 'h1' } }, options));
    expect(seen[0]?.headers).toMatchObject({ 'idempotency-key': 'k', 'if-match': '"7"' });
    for await (const task of client.all('listTasks', { query: { limit: 1 } })) throw new Error(`there is ${task.id}`);
    expect(seen.slice(1).map(({ url }) => new URL(url).search)).toEqual(['?limit=1', '?limit=1&after=a%2Fb']);
  });

  it('fills in the path, sends query, body and token, and gives back the checked reply', async () => {
    const { client, seen } = clientOf([json({ deleting: 'web1', disksKept: [], more: 'of a newer server' }, 202)]);
    const reply = await client.deleteVm({ params: { vm: 'web/1' }, query: { disks: 'keep' } });
    expect(reply).toEqual({ deleting: 'web1', disksKept: [] });
    expect(seen[0]).toMatchObject({ url: 'http://fleet:7070/api/v1/vms/web%2F1?disks=keep', method: 'DELETE' });
    expect(seen[0]?.headers['authorization']).toBe('Bearer t0k');
  });

  it('sends a body as JSON, and no content type where there is none', async () => {
    const { client, seen } = clientOf([json([]), json({}, 404)]);
    await client.listHosts();
    expect(seen[0]?.headers['content-type']).toBeUndefined();
    await failure(client.stopVm({ params: { vm: 'web1' }, body: { force: true } }));
    expect(seen[1]).toMatchObject({ body: { force: true }, headers: { 'content-type': 'application/json' } });
  });

  it("throws the server's own error", async () => {
    const { client } = clientOf([json(problemOf(new UserError('no-room', 'h2 is full.', 'Choose another.')), 422)]);
    expect(await failure(client.migrateVm({ params: { vm: 'web1' }, body: { to: 'h2' } }))).toMatchObject({
      code: 'no-room',
      message: 'h2 is full.',
      hint: 'Choose another.',
    });
  });

  it('says which server cannot be reached and why', async () => {
    const refused = () => Promise.reject(new TypeError('fetch failed', { cause: new Error('connect ECONNREFUSED') }));
    const error = await failure(clientOf([refused]).client.listVms());
    expect(error.code).toBe('unavailable');
    expect(error.message).toBe('The server at http://fleet:7070 cannot be reached: connect ECONNREFUSED.');
  });

  it('gives up when the server does not answer in time', async () => {
    const error = await failure(clientOf([], 20).client.listVms());
    expect(error).toMatchObject({ code: 'timed-out' });
    expect(error.message).toContain('GET /api/v1/vms within 0.02 s');
  });

  it('ends at once when its caller aborts', async () => {
    const reason = new Error('enough');
    await expect(clientOf([]).client.listVms({}, { signal: AbortSignal.abort(reason) })).rejects.toBe(reason);
  });

  it('refuses an answer that is not what the table says', async () => {
    const error = await failure(clientOf([json({ hello: 'world' })]).client.listVms());
    expect(error).toMatchObject({ code: 'unavailable' });
    expect(error.cause).toBeDefined();
  });

  it('refuses a token that is none, without showing it', () => {
    const make = () => createClient({ server: 'http://h1:7070', token: 'two\nlines' });
    expect(make).toThrow(expect.objectContaining({ code: 'invalid-input' }) as Error);
    expect(make).not.toThrow('lines');
  });

  it('goes on to the next server where one cannot be reached, and stays there', async () => {
    const asked: string[] = [];
    const client = createClient({
      server: 'http://a:1,http://b:2',
      token: 't0k',
      fetch: async (url, init) => {
        asked.push(`${init?.method} ${hrefOf(url)}`);
        if (hrefOf(url).startsWith('http://a')) throw new TypeError('fetch failed', { cause: refusal });
        return Response.json([]);
      },
    });
    const refusal = Object.assign(new Error('connect ECONNREFUSED'), { code: 'ECONNREFUSED' });
    await client.listVms();
    await client.listHosts();
    expect(asked).toEqual(['GET http://a:1/api/v1/vms', 'GET http://b:2/api/v1/vms', 'GET http://b:2/api/v1/hosts']);
  });

  it('sends what may have been done at one server to no other', async () => {
    const asked: string[] = [];
    const broken = Object.assign(new Error('read ECONNRESET'), { code: 'ECONNRESET' });
    const client = createClient({
      server: 'http://a:1,http://b:2',
      token: 't0k',
      fetch: async (url) => {
        asked.push(hrefOf(url));
        throw new TypeError('fetch failed', { cause: broken });
      },
    });
    const error = await failure(client.startVm({ params: { vm: 'web1' }, body: {} }));
    expect(error.message).toContain('http://a:1, http://b:2');
    expect(asked).toEqual(['http://a:1/api/v1/vms/web1/start']);
    await failure(client.listVms());
    expect(asked).toHaveLength(17);
  });

  it('refuses an address that is none', () => {
    expect(() => createClient({ server: 'h1:7070', token: 't0k' })).toThrow(
      expect.objectContaining({ code: 'invalid-input' }) as Error,
    );
  });
});

describe('events', () => {
  async function take(count: number, client: ReturnType<typeof clientOf>['client'], request: EventsRequest = {}) {
    const taken = [];
    for await (const streamed of client.events(request)) {
      taken.push(streamed);
      if (taken.length === count) break;
    }
    return taken;
  }

  it('are put together from chunks cut anywhere, comments and unknown kinds left out', async () => {
    const text = `: hello\n\n${message(4, alarm('ä'))}${message(5, { type: 'of-tomorrow' })}${message(null, alarm('b'))}`;
    const bytes = new TextEncoder().encode(text);
    const { client } = clientOf([
      () => new Response(ReadableStream.from(Array.from(bytes, (_, index) => bytes.subarray(index, index + 1)))),
    ]);
    expect(await take(2, client)).toEqual([
      { id: '4', event: alarm('ä') },
      { id: null, event: alarm('b') },
    ]);
  });

  it('resume after a break where they stopped, and say that they did', async () => {
    const { client, seen } = clientOf([
      stream(message(7, alarm('a')), message(null, alarm('sample'))),
      () => Promise.reject(new TypeError('fetch failed')),
      json({}, 503),
      stream(message(8, alarm('b'))),
    ]);
    let opened = 0;
    const taken = await take(3, client, { migration: 'mig_1', samples: false, onOpen: () => opened++ });
    expect(taken.map(({ event }) => event.says)).toEqual(['a', 'sample', 'b']);
    expect(opened).toBe(2);
    expect(seen[0]?.url).toBe('http://fleet:7070/api/v1/events?migration=mig_1&samples=false');
    expect(seen.map(({ headers }) => headers['last-event-id'])).toEqual([undefined, '7', '7', '7']);
  });

  it('end with the refusal that would come again', async () => {
    const refused = json(problemOf(new UserError('unauthorized', 'No.', 'Take the token.')), 401);
    expect(await failure(take(1, clientOf([refused]).client))).toMatchObject({ code: 'unauthorized' });
  });

  it('give up when the server has been away for too long', async () => {
    const away = () => Promise.reject(new TypeError('fetch failed'));
    const error = await failure(take(1, clientOf([away, away, away]).client, { giveUpAfterMs: 1 }));
    expect(error).toMatchObject({ code: 'unavailable' });
  });

  it('end without an error when the signal is aborted', async () => {
    const stop = new AbortController();
    const { client } = clientOf([stream(message(1, alarm('a')))]);
    const taken = [];
    for await (const streamed of client.events({ signal: stop.signal })) {
      taken.push(streamed);
      stop.abort();
    }
    expect(taken).toHaveLength(1);
  });
});
