/**
 * The next step of a host that is sent to sleep or woken: (its record, what is seen of it) -> the record afterwards, and what is
 * to be done now. Pure.
 *
 *   going-to-sleep   ask its agent until it consents -> shut that boot down / let it suspend -> it reads off / is silent
 *   asleep           nothing; a host that reports has woken by itself
 *   waking           wake it, again and again, until it reports or is given up
 *   wake-failed      its capacity is gone, and an alarm was given; a host that reports after all is awake
 *
 * Not here: whether it may sleep (sleep-rules.ts), and carrying it out (sleep.ts).
 */
import type { SleepRecord, SleepState } from '../model/sleep.ts';
import { readyTimesKept, readyWithinMs } from '../model/sleep.ts';
import { formatMs } from '../model/units.ts';

export interface SleepOptions {
  /** A proof that a host can be woken counts for so long. */
  readonly proofAgeMs: number;
  /** Within this its agent consents, or the host stays awake. */
  readonly consentWithinMs: number;
  /** Then it is switched hard off: whatever shuts down there hangs, and no guest is on it. */
  readonly hardOffAfterMs: number;
  /** A host that is not down by then is left alone. */
  readonly downWithinMs: number;
  /** A try to wake a host whose time is not known yet; others get three times what they took. */
  readonly firstWakeWithinMs: number;
  readonly shortestWakeMs: number;
  readonly wakeTries: number;
}

const minute = 60_000;
export const defaultSleepOptions: SleepOptions = {
  proofAgeMs: 30 * 24 * 60 * minute,
  consentWithinMs: 30_000,
  hardOffAfterMs: 90_000,
  downWithinMs: 3 * minute,
  firstWakeWithinMs: 10 * minute,
  shortestWakeMs: minute,
  wakeTries: 3,
};

/** Packets and orders may be lost: within one try they are sent again this often. */
export const orderAgainAfterMs = 5_000;

export interface SleepSeen {
  readonly now: number;
  readonly name: string;
  /** When it reported last, to this server; null: never. */
  readonly lastReportAt: number | null;
  readonly connected: boolean;
  readonly silent: boolean;
  readonly bootId: string;
  /** What its power controller read last, and when that was; null: not read, or it has none. */
  readonly power: { readonly off: boolean; readonly says: string; readonly at: number } | null;
  /** When this server last ordered it down by that controller; null: it has not. */
  readonly orderedAt: number | null;
  /** When it had been switched off for another try to wake it, Infinity while it is: reports from before do not count; null: it was not. */
  readonly cycledUntil: number | null;
  /** What stands in the way of its sleep now; null: nothing. */
  readonly obstacle: string | null;
}

export type SleepAction = 'ask-agent' | 'shut-down' | 'switch-off' | 'look' | 'suspend' | 'wake' | 'stay-awake';

export interface SleepStep {
  /** Undefined: as it was. */
  readonly record?: SleepRecord;
  readonly action: SleepAction | null;
  /** What people are told. */
  readonly says?: string;
  readonly alarm?: boolean;
}

const nothing: SleepStep = { action: null };

export function sleepStep(record: SleepRecord, seen: SleepSeen, options: SleepOptions): SleepStep {
  const { state } = record;
  switch (state.kind) {
    case 'awake':
      return nothing;
    case 'going-to-sleep':
      return goingToSleep(record, state, seen, options);
    case 'asleep': {
      if (reportsSince(seen, state.since)) {
        const says = `${seen.name} has woken by itself`;
        return { record: awake(record, seen.now), action: 'stay-awake', says };
      }
      if (!state.drill) return nothing;
      const { by, because } = state;
      return wakeStep(startWaking(record, { by, because, drill: true, at: seen.now }), `${seen.name} is woken again`);
    }
    case 'waking':
      return waking(record, state, seen, options);
    case 'wake-failed':
      if (!reportsSince(seen, state.since)) return nothing;
      return { record: awake(record, seen.now), action: 'stay-awake', says: `${seen.name} reports after all` };
  }
}

type GoingToSleep = Extract<SleepState, { kind: 'going-to-sleep' }>;

function goingToSleep(record: SleepRecord, state: GoingToSleep, seen: SleepSeen, options: SleepOptions): SleepStep {
  const { name, now } = seen;
  const stay = (why: string, alarm: boolean): SleepStep => {
    const says = `${name} stays awake: ${why}`;
    return { record: failed(record, now, says), action: 'stay-awake', says, alarm };
  };
  if (state.consent === null) {
    if (seen.obstacle !== null) return stay(seen.obstacle, false);
    if (now - state.since > options.consentWithinMs) return stay('its agent did not answer', true);
    return { action: 'ask-agent' };
  }
  const { consent } = state;
  const sinceMs = now - consent.at;
  const hasBooted = seen.bootId !== consent.bootId;
  // What was ordered a moment ago was meant for the boot before, and may still take this one down: nothing is put there yet.
  const mayFall = seen.orderedAt !== null && now - seen.orderedAt < options.hardOffAfterMs;
  if (hasBooted && !mayFall) return stay('it has booted meanwhile', true);
  const { by, because, drill } = state;
  const asleep = (): SleepStep => ({
    record: { ...record, state: { kind: 'asleep', since: now, by, because, drill }, lastFailure: null },
    action: null,
    says: `${name} is asleep`,
  });
  if (record.way?.kind === 'suspend') {
    // What speaks of its sleep is its silence: nobody else can look at it.
    if (seen.silent) return asleep();
    if (sinceMs > options.downWithinMs) return stay('it did not suspend', true);
    return { action: 'suspend' };
  }
  if (seen.power?.off && seen.power.at >= consent.at && seen.power.at > (seen.lastReportAt ?? 0)) return asleep();
  if (sinceMs > options.downWithinMs) {
    return stay(`its power controller does not read off (${seen.power?.says ?? 'no answer'})`, true);
  }
  if (hasBooted) return { action: 'look' };
  if (sinceMs > options.hardOffAfterMs) return { action: 'switch-off' };
  // The button is for the boot whose agent consented: where nobody hears of that, it may have come up anew.
  return { action: seen.connected && !seen.silent ? 'shut-down' : 'look' };
}

type Waking = Extract<SleepState, { kind: 'waking' }>;

function waking(record: SleepRecord, state: Waking, seen: SleepSeen, options: SleepOptions): SleepStep {
  const { now, name } = seen;
  // One that came up just when it was switched off for another try goes down once more: nothing is put there.
  if (reportsSince(seen, Math.max(state.since, seen.cycledUntil ?? 0))) {
    const tookMs = now - state.since;
    const proof = { at: now, by: state.drill ? ('drill' as const) : ('wake' as const) };
    const readyMs = [...record.readyMs, tookMs].slice(-readyTimesKept);
    const next = { ...awake(record, now), proof, readyMs, lastFailure: null };
    return { record: next, action: 'stay-awake', says: `${name} is awake, ${formatMs(tookMs)} after the order` };
  }
  const triedMs = now - state.triedAt;
  if (triedMs <= wakeWithinMs(record, options)) return { action: 'wake' };
  if (state.tries < options.wakeTries) {
    const next: SleepRecord = { ...record, state: { ...state, tries: state.tries + 1, triedAt: now } };
    return wakeStep(next, `${name} does not wake: trying again`);
  }
  const controller = record.way?.kind === 'off' ? `; its power controller: ${seen.power?.says ?? 'no answer'}` : '';
  const says = `${name} does not wake: it was tried ${state.tries} times in ${formatMs(now - state.since)}${controller}`;
  const next: SleepRecord = {
    ...record,
    state: { kind: 'wake-failed', since: now, says },
    proof: null,
    lastFailure: { at: now, says },
  };
  return { record: next, action: null, says: `${says}. Its capacity counts as gone`, alarm: true };
}

/** How long one try may take. */
export function wakeWithinMs(record: SleepRecord, options: SleepOptions): number {
  const known = readyWithinMs(record);
  if (known === null) return options.firstWakeWithinMs;
  return Math.min(options.firstWakeWithinMs, Math.max(options.shortestWakeMs, 3 * known));
}

/** The record of a host that is woken from now on. */
export function startWaking(
  record: SleepRecord,
  { at, ...why }: { readonly at: number; readonly by: string; readonly because: string; readonly drill: boolean },
): SleepRecord {
  return { ...record, state: { kind: 'waking', since: at, tries: 1, triedAt: at, ...why } };
}

function wakeStep(record: SleepRecord, says: string): SleepStep {
  return { record, action: 'wake', says };
}

function awake(record: SleepRecord, at: number): SleepRecord {
  return { ...record, state: { kind: 'awake', since: at } };
}

function failed(record: SleepRecord, at: number, says: string): SleepRecord {
  return { ...awake(record, at), lastFailure: { at, says } };
}

/** A report that this server has received since then, over a connection that is there. */
function reportsSince({ connected, silent, lastReportAt }: SleepSeen, since: number): boolean {
  return connected && !silent && lastReportAt !== null && lastReportAt > since;
}
