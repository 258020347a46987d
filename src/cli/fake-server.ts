/**
 * For tests only: a server that mounts the endpoint table over HTTP with handlers given by the test, an event stream it
 * pushes into, records to answer with, and the surroundings of one command line. Not here: the behaviour of the real server.
 */
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';
import { defaultPolicy } from '../migration/techniques.ts';
import { UserError } from '../model/failure.ts';
import { noMeasures } from '../model/migration.ts';
import { systemClock, type Clock } from '../runtime/clock.ts';
import {
  endpoints,
  type Endpoint,
  type EndpointName,
  type EventView,
  type HandledOf,
  type HostView,
  type MigrationSampleView,
  type MigrationView,
  type ReplyOf,
  type VmView,
} from '../wire/endpoints.ts';
import { problemOf, statusOf } from '../wire/errors.ts';
import { userErrorCodes } from '../model/failure.ts';
import { runCli } from './main.ts';
import type { Surroundings } from './surroundings.ts';

/** What a handler gives that lets its caller wait. */
export const noAnswer = Symbol('no answer');

export type Handlers = { readonly [N in EndpointName]?: (request: HandledOf<N>) => ReplyOf<N> | typeof noAnswer };

export interface FakeServer {
  readonly url: string;
  /** Method, path and checked request of every call, in order. */
  readonly calls: { readonly name: string; readonly request: unknown }[];
  readonly push: (event: EventView) => void;
  /** Cuts every open event stream. */
  readonly cut: () => void;
  /** Resolves when an event stream is open. */
  readonly listening: () => Promise<void>;
  readonly close: () => Promise<void>;
}

export const token = 'secret';

export async function fakeServer(handlers: Handlers): Promise<FakeServer> {
  const calls: { name: string; request: unknown }[] = [];
  const kept: { id: number; event: EventView }[] = [];
  const streams = new Set<ServerResponse>();
  const sockets = new Set<Socket>();
  let opened = Promise.withResolvers<void>();

  const write = (stream: ServerResponse, { id, event }: { id: number; event: EventView }): void => {
    stream.write(`${event.type === 'sample' ? '' : `id: ${id}\n`}data: ${JSON.stringify(event)}\n\n`);
  };
  const answer = (response: ServerResponse, status: number, body: unknown): void => {
    response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body));
  };

  async function serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    if (request.headers.authorization !== `Bearer ${token}`) {
      throw new UserError(
        'unauthorized',
        'The token is not known to this server.',
        'Use the token of its state directory.',
      );
    }
    const url = new URL(request.url ?? '/', 'http://fake');
    const found = match(request.method ?? '', url.pathname);
    if (!found) throw new UserError('not-found', `There is no ${url.pathname}.`, 'See the API.');
    const { name, endpoint, params } = found;
    if (name === 'listEvents') {
      response.writeHead(200, { 'content-type': 'text/event-stream' });
      response.write(': hello\n\n');
      const last = request.headers['last-event-id'];
      calls.push({ name, request: { query: Object.fromEntries(url.searchParams), lastEventId: last ?? null } });
      streams.add(response);
      response.on('close', () => streams.delete(response));
      if (last !== undefined) for (const event of kept.filter(({ id }) => id > Number(last))) write(response, event);
      opened.resolve();
      return;
    }
    const handled = {
      ...(endpoint.params ? { params: check(endpoint.params, params) } : {}),
      ...(endpoint.query ? { query: check(endpoint.query, Object.fromEntries(url.searchParams)) } : {}),
      ...(endpoint.body ? { body: check(endpoint.body, JSON.parse(await textOf(request))) } : {}),
    };
    calls.push({ name, request: handled });
    // Which handler belongs to which name is in `Handlers`; here they are all alike.
    const handler = handlers[name] as ((request: unknown) => unknown) | undefined;
    if (!handler) throw new UserError('not-found', `Nothing of the kind (${name}).`, 'Look at the list.');
    const reply = handler(handled);
    if (reply !== noAnswer) answer(response, endpoint.status ?? 200, reply);
  }

  const server = createServer((request, response) => {
    serve(request, response).catch((error: unknown) => {
      if (error instanceof UserError) answer(response, statusOf[userErrorCodes[error.code]], problemOf(error));
      else answer(response, 500, { error: String(error) });
    });
  });
  server.on('connection', (socket) => {
    sockets.add(socket);
    socket.on('close', () => sockets.delete(socket));
  });
  // The console: says hello, gives everything back in capitals, and closes at "bye".
  server.on('upgrade', (request, socket) => {
    if (request.headers.upgrade !== 'drover-console') return socket.destroy();
    socket.write('HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: drover-console\r\n\r\nlogin: ');
    socket.on('data', (data: Buffer) => {
      socket.write(data.toString().toUpperCase());
      if (data.toString().includes('bye')) socket.end();
    });
    return undefined;
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    calls,
    push(event) {
      const entry = { id: kept.length + 1, event };
      kept.push(entry);
      for (const stream of streams) write(stream, entry);
    },
    cut() {
      opened = Promise.withResolvers<void>();
      for (const stream of streams) stream.destroy();
    },
    listening: () => opened.promise,
    close() {
      for (const socket of sockets) socket.destroy();
      return new Promise((resolve) => server.close(() => resolve()));
    },
  };
}

function match(
  method: string,
  path: string,
): { name: EndpointName; endpoint: Endpoint; params: Record<string, string> } | undefined {
  for (const [name, endpoint] of Object.entries(endpoints) as [EndpointName, Endpoint][]) {
    const pattern = new RegExp(`^/api/v1${endpoint.path.replace(/:(\w+)/g, '(?<$1>[^/]+)')}$`);
    const found = endpoint.method === method ? pattern.exec(path) : null;
    if (!found) continue;
    const params = Object.entries(found.groups ?? {}).map(([key, value]) => [key, decodeURIComponent(value)]);
    return { name, endpoint, params: Object.fromEntries(params) as Record<string, string> };
  }
  return undefined;
}

function check(
  schema: { safeParse(value: unknown): { success: boolean; data?: unknown; error?: Error } },
  value: unknown,
) {
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  throw new UserError('invalid-input', result.error?.message ?? 'invalid', 'Mend it.');
}

async function textOf(request: IncomingMessage): Promise<string> {
  let text = '';
  for await (const chunk of request) text += String(chunk);
  return text;
}

export interface Run {
  readonly code: Promise<number>;
  readonly stdout: string;
  readonly stderr: string;
  /** Resolves as soon as one of the streams holds the text. */
  shows(text: string): Promise<void>;
  signal(name: 'SIGINT' | 'SIGTERM'): void;
  resize(columns: number): void;
  readonly exitedWith: readonly number[];
  /** Whether stdin is raw now, and how often that was set. */
  readonly raw: readonly boolean[];
}

export interface RunOptions {
  readonly server?: string;
  readonly tty?: boolean;
  readonly stdin?: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
  readonly columns?: number;
  /** Writing to stdout throws, as nothing of ours expects. */
  readonly stdoutFails?: true;
  readonly clock?: Clock;
  /** What a shell command does; its exit code. */
  readonly shell?: (command: string, env: Readonly<Record<string, string>>) => number | Promise<number>;
}

/** Runs one command line against it, with everything captured. */
export function run(line: string | readonly string[], options: RunOptions = {}): Run {
  const text = { stdout: '', stderr: '' };
  const listeners = new Map<string, Set<() => void>>();
  const waiting = new Set<() => void>();
  const raw: boolean[] = [];
  const exitedWith: number[] = [];
  let columns = options.columns ?? 100;
  const tty = options.tty ?? false;
  const lines = [...(options.stdin ?? [])];
  const on = (name: string, fn: () => void): (() => void) => {
    const set = listeners.get(name) ?? new Set();
    listeners.set(name, set.add(fn));
    return () => set.delete(fn);
  };
  const fire = (name: string): void => [...(listeners.get(name) ?? [])].forEach((fn) => fn());
  const output = (name: 'stdout' | 'stderr') => ({
    write(more: string | Uint8Array) {
      if (name === 'stdout' && options.stdoutFails) throw new Error('the disk is full');
      text[name] += typeof more === 'string' ? more : Buffer.from(more).toString();
      for (const look of waiting) look();
    },
    isTTY: tty,
    get columns() {
      return columns;
    },
    rows: 40,
    onResize: (fn: () => void) => on('resize', fn),
  });
  const surroundings: Surroundings = {
    stdout: output('stdout'),
    stderr: output('stderr'),
    stdin: {
      isTTY: tty,
      setRaw: (on) => void raw.push(on),
      leave: () => {},
      readLine: () => Promise.resolve(lines.shift()),
      async *[Symbol.asyncIterator]() {
        for (const chunk of options.stdin ?? []) yield await Promise.resolve(Buffer.from(chunk));
      },
    },
    env: {
      ...(options.server === undefined ? {} : { DROVER_SERVER: options.server, DROVER_TOKEN: token }),
      ...options.env,
    },
    cwd: '/somewhere',
    home: '/nowhere',
    repoRoot: new URL('../..', import.meta.url).pathname,
    clock: options.clock ?? systemClock,
    onSignal: on,
    runShell: async (command, { env }) => (await options.shell?.(command, env)) ?? 127,
    exitNow: (code) => void exitedWith.push(code),
  };
  return {
    code: runCli(typeof line === 'string' ? line.split(' ') : [...line], surroundings),
    get stdout() {
      return text.stdout;
    },
    get stderr() {
      return text.stderr;
    },
    shows(wanted) {
      const { promise, resolve } = Promise.withResolvers<void>();
      const look = (): void => {
        if (!text.stdout.includes(wanted) && !text.stderr.includes(wanted)) return;
        waiting.delete(look);
        resolve();
      };
      waiting.add(look);
      look();
      return promise;
    },
    signal: fire,
    resize(to) {
      columns = to;
      fire('resize');
    },
    exitedWith,
    raw,
  };
}

const start = Date.UTC(2030, 0, 1);

export function aHost(more: Partial<HostView> = {}): HostView {
  return {
    id: 'host_1',
    name: 'h1',
    state: 'up',
    cordoned: false,
    drain: null,
    labels: {},
    cpus: 8,
    memoryMiB: 16_384,
    capacityMiB: 15_360,
    usedMiB: 1024,
    reservedMiB: 0,
    vms: ['web1'],
    accel: 'kvm',
    qemuVersion: '10.0.2',
    liveMigration: { ok: true, reason: null },
    postCopy: { ok: false, reason: 'the kernel forbids userfaultfd' },
    networks: ['default'],
    pools: ['default'],
    migrationAddress: '10.0.0.1',
    cpuLoad: 0.25,
    memoryUsedMiB: 2048,
    sickness: null,
    lastReportAt: start,
    session: 1,
    power: null,
    fenced: null,
    sleep: null,
    ...more,
  };
}

export function aVm(more: Partial<VmView> = {}): VmView {
  return {
    id: 'vm_1',
    name: 'web1',
    state: 'running',
    message: null,
    host: 'h1',
    hostState: 'up',
    cpus: 2,
    memoryMiB: 1024,
    machine: 'pc-q35-7.2',
    cpuModel: 'qemu64-v1',
    boot: 'disk',
    disks: [{ pool: 'default', file: 'web1.qcow2', format: 'qcow2' }],
    nics: [{ network: 'default', mac: '52:54:00:00:00:01' }],
    address: null,
    labels: {},
    generation: 1,
    migration: null,
    recovery: 'restart',
    restart: 'on-failure',
    priority: 500,
    placing: { apart: [], together: [], pinnedTo: null },
    cpuCores: 0.5,
    memoryResidentMiB: 700,
    createdAt: start,
    ...more,
  };
}

export function aMigration(more: Partial<MigrationView> = {}): MigrationView {
  const phase = more.phase ?? 'reserved';
  return {
    id: 'mig_1',
    vm: 'vm_1',
    vmName: 'web1',
    source: 'h1',
    target: 'h2',
    technique: 'auto',
    endedInPostCopy: false,
    switchedToPostCopy: null,
    phase,
    phaseSays: '',
    hold: null,
    cancellable: true,
    switchable: null,
    ended: phase === 'completed' || phase === 'failed' || phase === 'cancelled',
    guest: null,
    failure: null,
    policy: defaultPolicy,
    why: [],
    startedAt: start,
    endedAt: null,
    rounds: [],
    measures: noMeasures,
    forecast: null,
    history: [{ phase: 'reserved', at: start }],
    sample: null,
    ...more,
  };
}

export function aSample(more: Partial<MigrationSampleView> = {}): MigrationSampleView {
  return {
    migration: 'mig_1',
    at: start + 1000,
    phase: 'warming-up',
    round: 1,
    totalBytes: 1024 * 1024 * 1024,
    remainingBytes: 512 * 1024 * 1024,
    sentBytes: 500 * 1024 * 1024,
    bandwidthBytesPerSecond: 112 * 1024 * 1024,
    dirtyBytesPerSecond: 0,
    downtimeLimitMs: 30,
    faults: 0,
    throttlePercent: 0,
    ...more,
  };
}

export const migrationEvent = (migration: MigrationView): EventView => ({
  type: 'migration',
  at: migration.history.at(-1)?.at ?? start,
  says: `${migration.vmName}: ${migration.phase}`,
  migration,
});

export const sampleEvent = (sample: MigrationSampleView): EventView => ({
  type: 'sample',
  at: sample.at,
  says: '',
  sample,
});
