/**
 * `bench sse`: many readers of the event stream at once. Each counts the numbers it is told; some stop reading for a while, are
 * cut off and come back with the id of the last event they read. None may miss one, and the server's memory must stay flat.
 */
import { fork, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { get, type IncomingMessage } from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';
import { benchToken, type Go, type Look } from './sse-server.ts';
import { aimText, type Aim } from './figures.ts';

const settleMs = 30_000;
const lookEveryMs = 5_000;

export interface SseOptions {
  readonly readers: number;
  /** Of them; they stop reading for a third of the time. */
  readonly slow: number;
  readonly perSecond: number;
  readonly seconds: number;
  readonly say: (line: string) => void;
  readonly signal: AbortSignal;
}

export interface SseResult {
  readonly readers: number;
  readonly events: number;
  readonly deliveries: number;
  readonly lost: number;
  readonly repeated: number;
  /** How often a reader was cut off and came back. */
  readonly cuts: number;
  readonly seconds: number;
  readonly looks: readonly Look[];
}

export async function benchSse(options: SseOptions): Promise<SseResult> {
  const { readers: count, slow, perSecond, seconds, say, signal } = options;
  const events = perSecond * seconds;
  const server = fork(new URL('sse-server.ts', import.meta.url), {
    execArgv: ['--expose-gc', '--disable-warning=ExperimentalWarning'],
    signal,
    stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
  });
  server.on('error', () => {}); // the signal
  try {
    const [{ address }] = (await once(server, 'message', { signal })) as [{ address: string }];
    say(`${count} readers connect…`);
    const readers = Array.from({ length: count }, () => new Reader(address));
    for (const reader of readers) await reader.connect();
    const looks = [await look(server)];
    say(`${perSecond} events a second for ${seconds} s…`);
    const beganAt = performance.now();
    server.send({ perSecond, events } satisfies Go);
    const pauses = readers.slice(0, slow).map(async (reader) => {
      await sleep((seconds * 1000) / 3, undefined, { signal });
      reader.pause();
      await sleep((seconds * 1000) / 3, undefined, { signal });
      reader.resume();
    });
    const until = beganAt + seconds * 1000 + settleMs;
    const isDone = (): boolean => readers.every(({ next }) => next >= events);
    for (let lookAt = beganAt; !isDone() && performance.now() < until;) {
      await sleep(250, undefined, { signal });
      if (performance.now() - lookAt < lookEveryMs) continue;
      lookAt = performance.now();
      const seen = await look(server);
      looks.push(seen);
      say(`${seen.sent} of ${events} events, ${seen.heapMiB.toFixed(0)} MiB heap, ${seen.residentMiB.toFixed(0)} MiB`);
    }
    await Promise.all(pauses);
    const took = (performance.now() - beganAt) / 1000;
    looks.push(await look(server));
    for (const reader of readers) reader.end();
    const sum = (of: (reader: Reader) => number): number => readers.reduce((total, reader) => total + of(reader), 0);
    return {
      readers: count,
      events,
      deliveries: sum(({ got }) => got),
      lost: sum(({ lost, next }) => lost + (events - next)),
      repeated: sum(({ repeated }) => repeated),
      cuts: sum(({ connections }) => connections - 1),
      seconds: took,
      looks,
    };
  } finally {
    if (server.connected) server.send('end');
  }
}

async function look(server: ChildProcess): Promise<Look> {
  server.send('look');
  const [seen] = (await once(server, 'message')) as [Look];
  return seen;
}

/** Counts without making objects of what it reads: a thousand of them share one process. */
class Reader {
  got = 0;
  lost = 0;
  repeated = 0;
  connections = 0;
  /** The number that is to come. */
  next = 0;
  readonly #address: string;
  #response: IncomingMessage | undefined;
  #lastEventId: string | undefined;
  #tail = '';
  #ended = false;
  #paused = false;

  constructor(address: string) {
    this.#address = address;
  }

  connect(): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const headers = {
      authorization: `Bearer ${benchToken}`,
      ...(this.#lastEventId === undefined ? {} : { 'last-event-id': this.#lastEventId }),
    };
    const request = get(`${this.#address}/api/v1/events`, { headers, agent: false });
    request.on('error', reject);
    request.on('response', (response) => {
      this.connections++;
      this.#response = response;
      this.#tail = '';
      response.setEncoding('latin1');
      response.on('data', (text: string) => this.#read(text));
      response.on('error', () => {});
      response.on('close', () => this.#again());
      if (this.#paused) response.pause();
      resolve();
    });
    return promise;
  }

  pause(): void {
    this.#paused = true;
    this.#response?.pause();
  }

  resume(): void {
    this.#paused = false;
    this.#response?.resume();
  }

  end(): void {
    this.#ended = true;
    this.#response?.destroy();
  }

  #again(): void {
    if (!this.#ended) void this.connect().catch(() => setTimeout(() => this.#again(), 500));
  }

  #read(more: string): void {
    const text = this.#tail + more;
    const end = text.lastIndexOf('\n\n') + 2;
    this.#tail = text.slice(end);
    const mark = '"number":"';
    for (let at = text.indexOf(mark); at >= 0 && at < end; at = text.indexOf(mark, at)) {
      at += mark.length;
      this.#count(Number(text.slice(at, text.indexOf('"', at))));
    }
    const id = text.lastIndexOf('id: ', end);
    if (id >= 0) this.#lastEventId = text.slice(id + 4, text.indexOf('\n', id));
  }

  #count(number: number): void {
    this.got++;
    if (number < this.next) this.repeated++;
    else {
      this.lost += number - this.next;
      this.next = number + 1;
    }
  }
}

export function sseAims({ lost, looks }: SseResult): Aim[] {
  // The first third fills caches and the history of the store.
  const steady = looks.slice(Math.ceil(looks.length / 3));
  const heaps = steady.map(({ heapMiB }) => heapMiB);
  const growth = heaps.length < 2 ? 1 : (heaps.at(-1) ?? 0) / (heaps[0] ?? 1);
  return [
    { of: 'events that a reader missed', reached: lost, atMost: 0, unit: '' },
    { of: 'heap at the end against after a third', reached: growth, atMost: 1.25, unit: 'x' },
  ];
}

export function sseText(result: SseResult): string {
  const { readers, events, deliveries, lost, repeated, cuts, seconds, looks } = result;
  const last = looks.at(-1);
  const cpu = ((last?.cpuMs ?? 0) - (looks[0]?.cpuMs ?? 0)) / (seconds * 10);
  return [
    `${readers} readers, ${events} events in ${seconds.toFixed(1)} s: ${deliveries} deliveries, ${lost} lost, ${repeated} repeated`,
    `${cuts} times a reader was cut off and came back; server ${cpu.toFixed(0)} % of a core`,
    `server heap ${looks.map(({ heapMiB }) => heapMiB.toFixed(0)).join(', ')} MiB`,
    `server resident ${looks.map(({ residentMiB }) => residentMiB.toFixed(0)).join(', ')} MiB`,
    ...sseAims(result).map(aimText),
  ].join('\n');
}
