/**
 * Client of the control port of the lab's guest (workload/control.c), also from inside a network namespace: each call
 * runs the small static prober there as a relay, so that no Node starts in the namespace and no connection outlives a
 * call (a guest may be moved, paused or dead at any time).
 */
import { execFile } from 'node:child_process';
import { setTimeout as sleep } from 'node:timers/promises';
import { z } from 'zod';
import { guestFiles } from './files.ts';

const count = z.number().int().nonnegative();

const guestStatus = z.object({
  /** Random for each boot: unchanged after a move means that the guest was not restarted. */
  bootId: z.string(),
  /** Boots that this disk has seen, this one included; 1 without a disk. */
  boots: count,
  uptimeMs: count,
  /** Memory is filled and the disk was checked. */
  ready: z.boolean(),
  /** What of the settings could not be had, in words; empty when all is well. */
  problem: z.string(),
  load: z.object({
    pagesPerSecond: count,
    setMiB: count,
    bytesPerPage: count,
    /** Pages per second in the last full second; 0 before it. */
    achieved: count,
    written: count,
  }),
  disk: z.object({ writesPerSecond: count, achieved: count, sequence: count, errors: count }),
  memory: z.object({ fillPages: count, setPages: count }),
  /** What this boot found on the disk. `sequence`: writes over all boots before it. */
  diskAtBoot: z.object({
    found: z.enum(['checking', 'no-disk', 'foreign', 'blank', 'unsealed', 'sealed']),
    /** The last run ended cleanly, and `bad` of its `blocks` did not hold what was last written. */
    sealed: z.boolean(),
    blocks: count,
    bad: count,
    sequence: count,
  }),
});

const verification = z.object({
  /** Every byte of every page and every written block was as expected, and no disk write had failed. */
  ok: z.boolean(),
  bootId: z.string(),
  pages: count,
  badPages: count,
  blocks: count,
  badBlocks: count,
  diskErrors: count,
  diskSequence: count,
  durationMs: count,
});

const refusal = z.object({ ok: z.literal(false), error: z.string() });

export type GuestStatus = z.infer<typeof guestStatus>;
export type GuestVerification = z.infer<typeof verification>;

export type GuestPlace = {
  readonly address: string;
  /** Name of the network namespace to call from; the caller's own when absent. */
  readonly netns?: string;
  /** The prober's binary; the built one when absent. */
  readonly probe?: string;
  /** For tests that forward the port. */
  readonly port?: number;
};

export type CallOptions = { readonly signal?: AbortSignal; readonly timeoutMs?: number };

/** The guest answered and said no: its own words are in the message. */
export class GuestRefusedError extends Error {
  override name = 'GuestRefusedError';
}

/** No answer: not reachable, not up yet, paused, or too slow for the deadline. */
export class GuestUnreachableError extends Error {
  override name = 'GuestUnreachableError';
}

const controlPort = 7000;
const callTimeoutMs = 10_000;
/** A check reads all memory and disk, under emulation and while others share the CPU. */
const verifyTimeoutMs = 60_000;
const readyTimeoutMs = 60_000;
const readyAttemptMs = 2_000;
const readyPauseMs = 100;

export class GuestClient {
  readonly #place: GuestPlace;

  constructor(place: GuestPlace) {
    this.#place = place;
  }

  async status(options: CallOptions = {}): Promise<GuestStatus> {
    return guestStatus.parse(await this.#call('status', options));
  }

  /** Waits until the guest answers and is ready; `timeoutMs` counts for the whole. */
  async waitReady({ signal, timeoutMs = readyTimeoutMs }: CallOptions = {}): Promise<GuestStatus> {
    const deadline = deadlineSignal(signal, timeoutMs);
    for (;;) {
      try {
        const status = await this.status({ signal: deadline, timeoutMs: readyAttemptMs });
        if (status.ready) return status;
      } catch (error) {
        if (!(error instanceof GuestUnreachableError) || deadline.aborted) throw error;
      }
      await sleep(readyPauseMs, undefined, { signal: deadline }).catch((cause: unknown) => {
        throw new GuestUnreachableError(`guest ${this.#place.address} was not ready in ${timeoutMs} ms`, { cause });
      });
    }
  }

  /** Zero pages per second stops the dirtying; the set stays and is still checked. */
  async setLoad(
    load: { readonly pagesPerSecond: number; readonly setMiB: number; readonly bytesPerPage?: number },
    options: CallOptions = {},
  ): Promise<void> {
    await this.#call(`load ${load.pagesPerSecond} ${load.setMiB} ${load.bytesPerPage ?? 64}`, options);
  }

  async setDisk(writesPerSecond: number, options: CallOptions = {}): Promise<void> {
    await this.#call(`disk ${writesPerSecond}`, options);
  }

  /** Damage that was found is a result (`ok: false`), not an error. */
  async verify({ signal, timeoutMs = verifyTimeoutMs }: CallOptions = {}): Promise<GuestVerification> {
    return verification.parse(await this.#call('verify', { ...(signal && { signal }), timeoutMs }));
  }

  /** Flips one bit, so that a test can see `verify` find it. */
  async corrupt(what: 'memory' | 'disk', options: CallOptions = {}): Promise<void> {
    await this.#call(`corrupt ${what}`, options);
  }

  /** The kernel of the guest panics. Resolves when it does not answer any more. */
  async panic(options: CallOptions = {}): Promise<void> {
    try {
      await this.#call('panic', options);
    } catch (error) {
      if (!(error instanceof GuestUnreachableError)) throw error;
    }
  }

  async sync(options: CallOptions = {}): Promise<void> {
    await this.#call('sync', options);
  }

  async #call(line: string, { signal, timeoutMs = callTimeoutMs }: CallOptions): Promise<unknown> {
    const { address, netns, probe = guestFiles().probe, port = controlPort } = this.#place;
    const relay = [probe, 'ctl', address, String(port)];
    const command = netns === undefined ? relay : ['ip', 'netns', 'exec', netns, ...relay];
    const answer = await exchange(command, `${line}\n`, deadlineSignal(signal, timeoutMs)).catch((cause: unknown) => {
      const why = cause instanceof Error ? cause.message.trim() : String(cause);
      throw new GuestUnreachableError(`guest ${address} did not answer '${line}' in ${timeoutMs} ms: ${why}`, {
        cause,
      });
    });
    const reply = parseReply(answer);
    if (reply === undefined) throw new GuestUnreachableError(`guest ${address} broke off while answering '${line}'`);
    const refused = refusal.safeParse(reply);
    if (refused.success) throw new GuestRefusedError(`guest ${address} refused '${line}': ${refused.data.error}`);
    return reply;
  }
}

/** The object on the first whole line; undefined when the line is cut short. */
export function parseReply(text: string): unknown {
  const end = text.indexOf('\n');
  return end < 0 ? undefined : (JSON.parse(text.slice(0, end)) as unknown);
}

function deadlineSignal(signal: AbortSignal | undefined, timeoutMs: number): AbortSignal {
  const deadline = AbortSignal.timeout(timeoutMs);
  return signal === undefined ? deadline : AbortSignal.any([signal, deadline]);
}

async function exchange(command: readonly string[], input: string, signal: AbortSignal): Promise<string> {
  const [file = '', ...rest] = command;
  return await new Promise((resolve, reject) => {
    const child = execFile(file, rest, { signal, maxBuffer: 1 << 20 }, (error, stdout, stderr) => {
      if (error !== null) reject(new Error(stderr.trim() === '' ? error.message : stderr.trim(), { cause: error }));
      else resolve(stdout);
    });
    child.stdin?.on('error', () => {}); // the process ended first: the callback above says why
    child.stdin?.end(input);
  });
}
