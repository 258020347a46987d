/** What the benchmark asks of everyone who moves a guest. The guests are alike; who moves them is not. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Technique } from '../src/model/migration.ts';
import type { GuestClient } from '../src/lab/guest/guest-client.ts';

export const benchHosts = ['h1', 'h2'] as const;
export type BenchHost = (typeof benchHosts)[number];
export const otherHost = (host: BenchHost): BenchHost => (host === 'h1' ? 'h2' : 'h1');

export type ContestantName = 'drover' | 'script' | 'defaults';

/** Cold moves no memory of a running guest: nothing to compare. */
export type LiveTechnique = Exclude<Technique, 'cold'>;

export const writerNames = ['idle', 'moderate', 'heavy'] as const;
export type WriterName = (typeof writerNames)[number];
export const writers: Readonly<Record<WriterName, { readonly pagesPerSecond: number; readonly setMiB: number }>> = {
  idle: { pagesPerSecond: 0, setMiB: 0 },
  moderate: { pagesPerSecond: 2500, setMiB: 32 },
  heavy: { pagesPerSecond: 50_000, setMiB: 128 },
};

/** A move that is under way. */
export interface Move {
  /** Rejects as soon as it is known to have failed; resolves when there is nothing left to do but to tidy. */
  readonly done: Promise<void>;
  /** Not timed: takes the source away, waits until another move may begin. @returns what the contestant says itself */
  finish(): Promise<OwnFigures>;
}

export interface OwnFigures {
  readonly firstPageMs?: number | null;
}

export interface Contestant {
  readonly name: ContestantName;
  readonly guest: GuestClient;
  readonly address: string;
  readonly host: BenchHost;
  /** Path of the second monitor of its QEMU there; undefined while there is none. */
  monitor(host: BenchHost): string | undefined;
  /** Not timed: brings the sending host into the state in which this contestant finds it. */
  prepare(): Promise<void>;
  /** Asks for the move to the other host; the clock runs from the call. */
  start(technique: LiveTechnique, writer: WriterName, signal: AbortSignal): Move;
}

/** Time for the load to be what was asked for; a heavy one may never be under emulation, and says so. */
export async function warmUp(guest: GuestClient, writer: WriterName, signal: AbortSignal): Promise<number> {
  const load = writers[writer];
  await guest.setLoad(load, { signal });
  let achieved = 0;
  for (let tries = 0; tries < 8; tries++) {
    await sleep(500, undefined, { signal });
    achieved = (await guest.status({ signal })).load.achieved;
    if (tries >= 2 && achieved >= 0.9 * load.pagesPerSecond) break;
  }
  return achieved;
}
