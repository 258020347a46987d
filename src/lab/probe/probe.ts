/**
 * The outside observer of a guest: starts probe.c in a client's namespace, keeps the gaps it reports and answers
 * questions about them. What counts as a gap, and how it is measured, is written in probe.c.
 */
import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { z } from 'zod';

const gapLine = z.object({ t: z.literal('gap'), from: z.number(), ms: z.number() });
const replyLine = z.object({ t: z.literal('reply'), at: z.number() });
const aliveLine = z.object({
  t: z.literal('alive'),
  at: z.number(),
  sent: z.number(),
  received: z.number(),
  open: z.number(),
  lateMs: z.number(),
  rttMaxMs: z.number(),
});
const endLine = z.object({
  t: z.literal('end'),
  sent: z.number(),
  received: z.number(),
  longestGapMs: z.number(),
  rttMedianMs: z.number(),
  rttP99Ms: z.number(),
  rttMaxMs: z.number(),
});
const probeLine = z.discriminatedUnion('t', [gapLine, replyLine, aliveLine, endLine]);

type ProbeLine = z.infer<typeof probeLine>;
export type ProbeSummary = Omit<z.infer<typeof endLine>, 't'>;
/** How the prober itself fared in the quarter of a second before `atMs`. */
export type ProbeSample = Omit<z.infer<typeof aliveLine>, 't' | 'at'> & { readonly atMs: number };

/** A stretch without replies; `fromMs` counts from 1970. `open`: it had not ended yet. */
export type Gap = { readonly fromMs: number; readonly lengthMs: number; readonly state: 'ended' | 'open' };

const echoPort = 7001;
/** Days of observation; older ones are dropped first. */
const maxGaps = 100_000;
const maxSamples = 20_000;
const stopTimeoutMs = 2_000;

/** What was seen, without the process that sees it. */
export class Observation {
  readonly #gaps: Gap[] = [];
  readonly #samples: ProbeSample[] = [];

  take(line: ProbeLine): void {
    if (line.t === 'gap') push(this.#gaps, { fromMs: line.from, lengthMs: line.ms, state: 'ended' }, maxGaps);
    if (line.t === 'alive') {
      const { sent, received, open, lateMs, rttMaxMs } = line;
      push(this.#samples, { atMs: line.at, sent, received, open, lateMs, rttMaxMs }, maxSamples);
    }
  }

  /** Every gap so far, in order; a gap of more than 10 ms that is still open comes last, as long as last reported. */
  gaps(): Gap[] {
    const last = this.#samples.at(-1);
    if (last === undefined || last.open <= 10 || last.received === 0) return [...this.#gaps];
    const open: Gap = { fromMs: last.atMs - last.open, lengthMs: last.open, state: 'open' };
    const newest = this.#gaps.at(-1);
    // Reported as ended since that sample: the same stretch is not told twice.
    const ended = newest !== undefined && newest.fromMs + newest.lengthMs >= last.atMs;
    return ended ? [...this.#gaps] : [...this.#gaps, open];
  }

  samples(): readonly ProbeSample[] {
    return this.#samples;
  }

  /** Milliseconds of the longest gap that touches this time, whole even where it reaches beyond; 0: none over 10 ms. */
  longestGap(fromMs: number, toMs: number): number {
    return this.gaps()
      .filter((gap) => gap.fromMs <= toMs && gap.fromMs + gap.lengthMs >= fromMs)
      .reduce((longest, gap) => Math.max(longest, gap.lengthMs), 0);
  }
}

function push<T>(list: T[], item: T, limit: number): void {
  list.push(item);
  if (list.length > limit) list.shift();
}

/** One line of the prober's output. @throws ZodError, SyntaxError for anything else */
export function parseProbeLine(line: string): ProbeLine {
  return probeLine.parse(JSON.parse(line));
}

export type ProbeOptions = {
  readonly binary: string;
  /** Name of the network namespace to look from; the caller's own when absent. */
  readonly netns?: string;
  readonly address: string;
  /** For tests that forward the port. */
  readonly port?: number;
  readonly intervalMs?: number;
  readonly signal?: AbortSignal;
};

export type Probe = AsyncDisposable & {
  gaps(): Gap[];
  longestGap(fromMs: number, toMs: number): number;
  samples(): readonly ProbeSample[];
  /**
   * The time (ms since 1970) of the next reply; gaps before it are known when it resolves.
   * @throws the signal's reason, or why the prober ended
   */
  waitForReply(signal: AbortSignal): Promise<number>;
  /** Ends the prober; what was seen stays readable. Undefined when it had died before. */
  stop(): Promise<ProbeSummary | undefined>;
};

/** Starts a prober; it runs until `stop`, disposal or the signal. A guest that is not up yet is no error. */
export function startProbe(options: ProbeOptions): Probe {
  const { binary, netns, address, port = echoPort, intervalMs = 1, signal } = options;
  const own = [binary, 'udp', address, String(port), String(Math.round(intervalMs * 1000))];
  const [file = '', ...rest] = netns === undefined ? own : ['ip', 'netns', 'exec', netns, ...own];
  const child = spawn(file, rest, { stdio: ['pipe', 'pipe', 'pipe'] });
  const seen = new Observation();
  let waiters: { resolve: (atMs: number) => void; reject: (why: Error) => void }[] = [];
  let summary: ProbeSummary | undefined;
  let said = '';
  let failure: Error | undefined;

  child.stdin.on('error', () => {}); // it ended first; `close` below says so
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    said = `${said}${text}`.slice(-1000);
  });
  const lines = createInterface({ input: child.stdout });
  lines.on('line', (text) => {
    const line = parseProbeLine(text);
    seen.take(line);
    if (line.t === 'end') {
      const { t: _, ...rest } = line;
      summary = rest;
    }
    if (line.t !== 'reply') return;
    const waiting = waiters;
    waiters = [];
    for (const { resolve } of waiting) resolve(line.at);
  });
  const ended = new Promise<void>((resolve) => {
    const end = (why: Error): void => {
      failure = why;
      for (const { reject } of waiters) reject(why);
      waiters = [];
      resolve();
    };
    child.on('error', (cause) => end(new Error(`the prober of ${address} did not start: ${cause.message}`, { cause })));
    child.on('close', (code) => end(new Error(`the prober of ${address} ended with code ${code}: ${said.trim()}`)));
  });
  const stop = async (): Promise<ProbeSummary | undefined> => {
    child.stdin.end();
    const hard = setTimeout(() => child.kill('SIGKILL'), stopTimeoutMs);
    await ended;
    clearTimeout(hard);
    return summary;
  };
  signal?.addEventListener('abort', () => void stop(), { once: true });
  if (signal?.aborted === true) void stop();

  return {
    gaps: () => seen.gaps(),
    longestGap: (fromMs, toMs) => seen.longestGap(fromMs, toMs),
    samples: () => seen.samples(),
    waitForReply: async (wait) => {
      wait.throwIfAborted();
      if (failure !== undefined) throw failure;
      return await new Promise<number>((resolve, reject) => {
        const onAbort = (): void => {
          waiters = waiters.filter((each) => each !== waiter);
          reject(new Error(`no reply from ${address}`, { cause: wait.reason }));
        };
        const settled = (): void => wait.removeEventListener('abort', onAbort);
        const waiter = {
          resolve: (atMs: number) => (settled(), resolve(atMs)),
          reject: (why: Error) => (settled(), reject(why)),
        };
        wait.addEventListener('abort', onAbort, { once: true });
        waiters.push(waiter);
        child.stdin.write('\n');
      });
    },
    stop,
    [Symbol.asyncDispose]: async () => void (await stop()),
  };
}
