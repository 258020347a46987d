/**
 * Switching a host off and on from outside, and reading whether it is: what every kind of power controller (BMC) has in common.
 *
 * A BMC's "ok" proves nothing: some answer before they act, some answer and never act. What counts is what is read back. Fencing
 * takes nothing but `{ state: 'off' }` for a proof.
 *
 * Not here: how a kind of BMC is talked to (ipmi.ts, redfish.ts), and when a host is switched off.
 */
import type { PowerSpec } from '../../model/host.ts';
import type { Clock } from '../../runtime/clock.ts';
import { DeadlineExceeded, withDeadline } from '../../runtime/retry.ts';

/** `says`: the controller's words, where there are any; a refusal stands there also when the power could be read. */
export type PowerReading =
  | { readonly state: 'on' | 'off'; readonly says?: string }
  | { readonly state: 'unknown'; readonly says: string };

/** None of these throws but for the signal's reason: a controller that cannot be asked reads `unknown`. */
export interface PowerController {
  /** Within `readMs`. */
  read(signal: AbortSignal): Promise<PowerReading>;
  /** Orders hard off, then reads until it is off or `settleMs` are over. What is returned was read after the order. */
  off(signal: AbortSignal): Promise<PowerReading>;
  /** Likewise. */
  on(signal: AbortSignal): Promise<PowerReading>;
  /** Presses its power button, so that it shuts down by itself, which takes its time; read once after that. */
  shutDown(signal: AbortSignal): Promise<PowerReading>;
  /** What the whole machine draws now; null: it has no meter. Absent: this kind has none. @throws Error when it does not answer */
  watts?(signal: AbortSignal): Promise<number | null>;
}

export type OpenPower = (spec: PowerSpec) => PowerController;

/** Longest for one answer; a BMC under load takes a second or two. */
export const readMs = 5_000;
/** Longest from an order to its effect. */
export const settleMs = 10_000;
/** Nobody waits for these: BMCs with many sensors are slow to find the right one. */
const wattsMs = 20_000;
const pollMs = 250;
/** A reading is given this long even when the time for the order is over. */
const lastReadMs = 1_000;
/** An order that was perhaps lost is given again this often at most within `settleMs`. */
const orderMs = 4_000;

/** What a kind of BMC can do by itself: one question, one order. Both may throw; the words of the error are shown. */
export interface Bmc {
  read(signal: AbortSignal): Promise<PowerReading>;
  /** Resolves when the order was accepted. @throws OrderRefused when asking again is of no use */
  order(wanted: PowerOrder, signal: AbortSignal): Promise<void>;
  watts?(signal: AbortSignal): Promise<number | null>;
}

export type PowerOrder = 'on' | 'off' | 'shut-down';

/** The BMC has understood and will not: a wrong password, a missing right. */
export class OrderRefused extends Error {
  override readonly name = 'OrderRefused';
}

export function controllerOver(bmc: Bmc, clock: Clock): PowerController {
  const read = async (signal: AbortSignal, ms = readMs): Promise<PowerReading> => {
    try {
      return await withDeadline((inner) => bmc.read(inner), { ms, what: 'reading the power', clock, signal });
    } catch (error) {
      signal.throwIfAborted();
      return { state: 'unknown', says: wordsOf(error) };
    }
  };

  /** @returns why it was not accepted; undefined when it was */
  const order = async (wanted: PowerOrder, signal: AbortSignal): Promise<Error | undefined> => {
    try {
      await withDeadline((inner) => bmc.order(wanted, inner), {
        ms: orderMs,
        what: `ordering power ${wanted}`,
        clock,
        signal,
      });
      return undefined;
    } catch (error) {
      signal.throwIfAborted();
      return error instanceof Error ? error : new Error(String(error));
    }
  };

  const bring = async (wanted: 'on' | 'off', signal: AbortSignal): Promise<PowerReading> => {
    const end = clock.monotonic() + settleMs;
    let orderedAt = clock.monotonic();
    let refusal = await order(wanted, signal);
    for (;;) {
      const leftMs = end - clock.monotonic();
      const reading = await read(signal, Math.min(readMs, Math.max(lastReadMs, leftMs)));
      if (reading.state === wanted) return reading;
      const over = clock.monotonic() + pollMs > end;
      if (over || refusal instanceof OrderRefused) return refusal ? { ...reading, says: wordsOf(refusal) } : reading;
      await clock.sleep(pollMs, signal);
      if (refusal && clock.monotonic() - orderedAt > orderMs / 2) {
        orderedAt = clock.monotonic();
        refusal = await order(wanted, signal);
      }
    }
  };

  const shutDown = async (signal: AbortSignal): Promise<PowerReading> => {
    const refusal = await order('shut-down', signal);
    const reading = await read(signal);
    return refusal ? { ...reading, says: wordsOf(refusal) } : reading;
  };

  return {
    read: (signal) => read(signal),
    off: (signal) => bring('off', signal),
    on: (signal) => bring('on', signal),
    shutDown,
    ...(bmc.watts && {
      watts: (signal) =>
        withDeadline((inner) => bmc.watts!(inner), { ms: wattsMs, what: 'reading the watts', clock, signal }),
    }),
  };
}

function wordsOf(error: unknown): string {
  if (error instanceof DeadlineExceeded) return `no answer (${error.message})`;
  return error instanceof Error ? error.message : String(error);
}
