/**
 * What a move will cost before it begins: total time, downtime, blackout, bytes, by each technique. Pure.
 *
 * Method: warm-up is played through round by round on a model of the guest's writing (writing.ts), a geometric series as in
 * Akoush et al. (MASCOTS 2010) and Liu et al. (HPDC 2011); at each boundary the forecast asks the same `steer()` that the source's
 * agent will ask. So it knows the raised limits, the switch of `auto` and when a pre-copy gives up, and changes when they change.
 *
 * Not here: where its inputs come from (control/forecasts.ts), what earlier moves teach (corrections.ts), the short form for
 * hundreds of thousands of moves (quick-forecast.ts).
 */
import type { Correction, Forecast, ForecastFigures, KeptForecast, ForecastBasis, Writing } from '../model/forecast.ts';
import { techniques, type Policy, type Round, type Technique } from '../model/migration.ts';
import { formatMs, pageBytes } from '../model/units.ts';
import { firstDowntimeLimitMs, steer, switchesAtOnce } from './steer.ts';
import { completePolicy, mayUsePostCopy } from './techniques.ts';
import { dirtiedWithin } from './writing.ts';

export interface ForecastInput {
  readonly memoryBytes: number;
  readonly inUseBytes: number;
  readonly writing: Writing;
  /** What the link gives this move, overhead of the network already taken off. */
  readonly bytesPerSecond: number;
  /** As the user gave it: what is left open depends on the technique. */
  readonly policy: Partial<Policy>;
  /** May the guest arrive there by post-copy? */
  readonly postCopy: boolean;
  readonly accel: 'kvm' | 'tcg';
}

/** Reservation to first page, and handover to release of the source: measured, hardly different between hosts. */
export const beginMs = 250;
export const endMs = 370;
/** A zero page crosses as a mark. */
const zeroPageBytes = 9;
/** More rounds than any real move has. */
const mostRounds = 200;
/** QEMU's auto-converge by its defaults. */
const throttle = { first: 20, more: 10, most: 99 } as const;

/**
 * Pausing, device state, loading, waking up (`switchMs`); then until clients are answered (`wakeMs`): without KVM the guest's code is
 * translated anew. Both measured in the lab with TCG; those of KVM are the parts that do not come from translation.
 */
const pauses = { kvm: { switchMs: 15, wakeMs: 10 }, tcg: { switchMs: 25, wakeMs: 55 } } as const;

/** Post-copy: a page that is asked for waits behind what is in the send queue already (bounded, see agent/network.ts). */
const fault = {
  ownMs: 0.5,
  queueBytes: 256 * 1024,
  beforeAnswer: 40,
  moreWhenAllIsMissing: 80,
  shareThatWaits: 0.25,
} as const;

/** Cold: a guest's orderly shutdown, QEMU's start, and the boot until it answers. Guesses; earlier cold moves correct them. */
const cold = { shutdownMs: 3_000, startMs: 150, bootMs: { kvm: 5_000, tcg: 8_000 } } as const;

export function forecastMove(input: ForecastInput): Record<Technique, Forecast> {
  const entries = techniques.map((technique) => [technique, forecastBy(technique, input)] as const);
  // The cast: one entry for each technique.
  return Object.fromEntries(entries) as Record<Technique, Forecast>;
}

export function forecastBy(technique: Technique, given: ForecastInput): Forecast {
  const policy = completePolicy(technique, given.policy);
  const input = sane(given, policy);
  if (technique === 'cold') return coldMove(input, policy);
  const warmUp = new WarmUp(input);
  const postCopyPossible = mayUsePostCopy(technique, policy, { postCopy: ability(input.postCopy) });
  if (switchesAtOnce(technique) && postCopyPossible) return postCopy(input, warmUp, warmUp.bytesToSend, null);
  return playThrough(technique, policy, input, warmUp, postCopyPossible);
}

/** The forecast as it is shown and kept: corrected by what earlier moves of this VM taught. */
export function corrected(forecast: Forecast, correction: Correction, basis: ForecastBasis): KeptForecast {
  const by = (figure: keyof ForecastFigures) => forecast[figure] * correction[figure];
  return {
    ...forecast,
    totalMs: by('totalMs'),
    downtimeMs: by('downtimeMs'),
    blackoutMs: Math.max(by('downtimeMs'), by('blackoutMs')),
    bytes: Math.round(by('bytes')),
    basis,
    correction,
  };
}

const ability = (ok: boolean) => (ok ? ({ ok } as const) : ({ ok, reason: 'not available' } as const));

/** Within what a forecast can be made from: no link carries nothing, no guest holds more than its memory. */
function sane(input: ForecastInput, policy: Policy): ForecastInput {
  const cap = policy.maxBandwidthBytesPerSecond ?? Infinity;
  const memoryBytes = Math.max(pageBytes, input.memoryBytes);
  return {
    ...input,
    memoryBytes,
    inUseBytes: Math.min(memoryBytes, Math.max(pageBytes, input.inUseBytes)),
    bytesPerSecond: Math.max(1, Math.min(input.bytesPerSecond, cap)),
  };
}

/** How far warm-up has come. */
class WarmUp {
  readonly rounds: Round[] = [];
  elapsedMs = 0;
  sentBytes = 0;
  /** Of the round that comes next. */
  bytesToSend: number;
  limitMs = 0;
  throttlePercent = 0;
  #dirtiedMuch = 0;
  readonly #input: ForecastInput;

  constructor(input: ForecastInput) {
    const { memoryBytes, inUseBytes } = input;
    this.#input = input;
    this.bytesToSend = inUseBytes + ((memoryBytes - inUseBytes) / pageBytes) * zeroPageBytes;
  }

  /** Would what is left fit into the pause that QEMU may take now? */
  get fits(): boolean {
    return this.bytesToSend * 1000 <= this.limitMs * this.#input.bytesPerSecond;
  }

  /** Sends for so long, at most what there is; what the guest writes meanwhile is left. */
  send(mostMs: number): 'round ended' | 'time is over' {
    const { bytesPerSecond, writing, memoryBytes } = this.#input;
    const neededMs = (this.bytesToSend * 1000) / bytesPerSecond;
    const tookMs = Math.min(neededMs, mostMs);
    const bytes = (tookMs * bytesPerSecond) / 1000;
    const dirty = dirtiedWithin(writing, tookMs * (1 - this.throttlePercent / 100), memoryBytes);
    this.elapsedMs += tookMs;
    this.sentBytes += bytes;
    this.bytesToSend = Math.min(memoryBytes, this.bytesToSend - bytes + dirty);
    if (tookMs < neededMs) return 'time is over';
    this.rounds.push({
      round: this.rounds.length + 1,
      durationMs: tookMs,
      bytes,
      dirtyPages: this.bytesToSend / pageBytes,
      bandwidthBytesPerSecond: bytesPerSecond,
    });
    return 'round ended';
  }

  /** QEMU takes time from a guest whose rounds leave more than half of what they sent. */
  slowDown(): void {
    const last = this.rounds.at(-1);
    if (!last || last.dirtyPages * pageBytes <= last.bytes / 2 || ++this.#dirtiedMuch < 2) return;
    this.#dirtiedMuch = 0;
    const more = this.throttlePercent === 0 ? throttle.first : throttle.more;
    this.throttlePercent = Math.min(throttle.most, this.throttlePercent + more);
  }
}

function playThrough(
  technique: Technique,
  policy: Policy,
  input: ForecastInput,
  warmUp: WarmUp,
  postCopyPossible: boolean,
): Forecast {
  warmUp.limitMs = Math.min(firstDowntimeLimitMs, policy.maxDowntimeMs);
  while (warmUp.rounds.length < mostRounds) {
    const leftMs = policy.deadlineMs === null ? Infinity : Math.max(1, policy.deadlineMs - warmUp.elapsedMs);
    const isBoundary = warmUp.send(leftMs) === 'round ended';
    if (isBoundary && warmUp.fits) return stopAndCopy(input, warmUp, null);
    if (isBoundary && policy.autoConverge) warmUp.slowDown();
    const { rounds, limitMs: downtimeLimitMs, elapsedMs } = warmUp;
    const action = steer(technique, policy, { rounds, downtimeLimitMs, elapsedMs, postCopyPossible });
    switch (action.do) {
      case 'go-on':
        break;
      case 'raise-downtime-limit':
        warmUp.limitMs = action.toMs;
        if (warmUp.fits) return stopAndCopy(input, warmUp, null);
        break;
      case 'switch-to-post-copy': {
        const isNews = technique !== 'hybrid';
        return postCopy(input, warmUp, warmUp.bytesToSend, isNews ? action.because : null);
      }
      case 'pause':
        return stopAndCopy(input, warmUp, `paused for ${formatMs(pauseMs(input, warmUp))}: ${action.because}`);
      case 'give-up':
        return givesUp(input, warmUp, action.failure.message);
    }
  }
  return givesUp(input, warmUp, `Warm-up would take more than ${mostRounds} rounds.`);
}

function pauseMs({ bytesPerSecond, accel }: ForecastInput, { bytesToSend }: WarmUp): number {
  return (bytesToSend * 1000) / bytesPerSecond + pauses[accel].switchMs;
}

function stopAndCopy(input: ForecastInput, warmUp: WarmUp, because: string | null): Forecast {
  const downtimeMs = pauseMs(input, warmUp);
  return {
    converges: true,
    because,
    endsBy: 'stop-and-copy',
    totalMs: beginMs + warmUp.elapsedMs + downtimeMs + endMs,
    downtimeMs,
    blackoutMs: downtimeMs + pauses[input.accel].wakeMs,
    bytes: Math.round(warmUp.sentBytes + warmUp.bytesToSend),
    rounds: warmUp.rounds.length,
    faults: 0,
  };
}

function givesUp(input: ForecastInput, warmUp: WarmUp, because: string): Forecast {
  const downtimeMs = pauseMs(input, warmUp);
  return {
    converges: false,
    because,
    endsBy: 'stop-and-copy',
    totalMs: beginMs + warmUp.elapsedMs,
    downtimeMs,
    blackoutMs: downtimeMs + pauses[input.accel].wakeMs,
    bytes: Math.round(warmUp.sentBytes),
    rounds: warmUp.rounds.length,
    faults: 0,
  };
}

/** Each missing page once. Clients wait for the pages that the guest needs to answer; the rest arrives while it runs. */
function postCopy(input: ForecastInput, warmUp: WarmUp, missingBytes: number, because: string | null): Forecast {
  const { bytesPerSecond, accel, inUseBytes, writing, memoryBytes } = input;
  const { switchMs, wakeMs } = pauses[accel];
  const faultMs = fault.ownMs + (fault.queueBytes * 1000) / bytesPerSecond;
  const missingMs = (missingBytes * 1000) / bytesPerSecond;
  const missingPages = missingBytes / pageBytes;
  const missingShare = Math.min(1, missingBytes / inUseBytes);
  const beforeAnswer = Math.min(missingPages, fault.beforeAnswer + fault.moreWhenAllIsMissing * missingShare);
  const written = dirtiedWithin(writing, missingMs, memoryBytes) / pageBytes;
  const whileItRuns = Math.min(missingMs / faultMs, written * missingShare) * fault.shareThatWaits;
  return {
    converges: true,
    because,
    endsBy: 'post-copy',
    totalMs: beginMs + warmUp.elapsedMs + switchMs + missingMs + endMs,
    downtimeMs: switchMs,
    blackoutMs: switchMs + wakeMs + Math.min(missingMs, beforeAnswer * faultMs),
    bytes: Math.round(warmUp.sentBytes + missingBytes),
    rounds: warmUp.rounds.length,
    faults: Math.round(Math.min(missingPages, beforeAnswer + whileItRuns)),
  };
}

function coldMove({ accel }: ForecastInput, policy: Policy): Forecast {
  const shutdownMs = Math.min(cold.shutdownMs, policy.shutdownTimeoutMs);
  return {
    converges: true,
    because: null,
    endsBy: 'restart',
    totalMs: shutdownMs + cold.startMs,
    downtimeMs: cold.startMs,
    blackoutMs: shutdownMs + cold.startMs + cold.bootMs[accel],
    bytes: 0,
    rounds: 0,
    faults: 0,
  };
}
