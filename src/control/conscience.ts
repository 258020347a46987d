/**
 * What came of automatic moves, and what follows: a move whose gain did not come makes the distributor more cautious for a
 * while. Pure.
 *
 *   gain that came = score now with the VM back at its source - score now, by the smoothed loads as they have become
 *
 * Not here: the score (planner/).
 */
import type { BalanceLevel, BalanceSettings, Caution, DecisionRecord, MeasuredGain } from '../model/distribution.ts';
import type { SleepState } from '../model/sleep.ts';
import { formatMs } from '../model/units.ts';
import type { Judge } from '../planner/judge.ts';

export const cautionLimit = 8;
export const cautionHalfLifeMs = 6 * 3_600_000;
const whenNotPaid = 1.5;
const whenPaid = 0.9;
/** A move has paid when so much of its expected gain came. */
const paysFrom = 0.5;

/** What the planner asks of a move at each level; 1 is its own measure. */
const cautionOfLevel: Readonly<Record<BalanceLevel, number>> = { 1: 6, 2: 2.5, 3: 1, 4: 0.5, 5: 0.2 };

/** As it is now: half of what is above 1 goes in each half-life. */
export function cautionNow({ factor, at }: Caution, now: number): number {
  const left = Math.pow(0.5, Math.max(0, now - at) / cautionHalfLifeMs);
  return Math.min(cautionLimit, Math.max(1, 1 + (factor - 1) * left));
}

/** Level and experience together. */
export function wholeCaution({ level, caution }: BalanceSettings, now: number): number {
  return cautionOfLevel[level] * cautionNow(caution, now);
}

/** Has so much of what was expected come? Of moves of one plan by their sums: one alone says as much of chance as of the plan. */
export function hasPaid(gain: number, expected: number): boolean {
  return gain > 0 && gain >= paysFrom * expected;
}

/** @param paid what was measured together: however much, it is one experience, by the share that paid */
export function cautionAfter(before: Caution, paid: readonly boolean[], now: number): Caution {
  const share = paid.filter((each) => each).length / Math.max(1, paid.length);
  const learnt = paid.length === 0 ? 1 : whenPaid ** share * whenNotPaid ** (1 - share);
  const factor = cautionNow(before, now) * learnt;
  return { factor: Math.min(cautionLimit, Math.max(1, factor)), at: now };
}

/** A host that was emptied has paid for its moves when it slept for so long: the planner asks for no less. */
const sleepPaysAfterMs = 3_600_000;

/**
 * What came of a move that emptied a host, so that it could sleep; null: that is not known yet.
 * @param asleepAt when the plan had ended
 */
export function measureSleep(
  { host, fellAsleep, sleep }: { host: string; fellAsleep: boolean; sleep: SleepState | undefined },
  asleepAt: number,
  at: number,
): MeasuredGain | null {
  const known = (paid: boolean, says: string): MeasuredGain => ({ at, gain: null, paid, says });
  if (!fellAsleep) return known(false, `${host} did not fall asleep`);
  const isDown = sleep?.kind === 'asleep' || sleep?.kind === 'going-to-sleep';
  const sleptMs = Math.max(0, (isDown || sleep === undefined ? at : sleep.since) - asleepAt);
  if (sleptMs >= sleepPaysAfterMs) return known(true, `${host} slept for ${formatMs(sleptMs)}`);
  return isDown ? null : known(false, `${host} slept for ${formatMs(sleptMs)} only`);
}

/** What the decision has brought. @param names of its source and target */
export function measure(
  decision: DecisionRecord,
  judge: Judge,
  { from, to, arrived }: { readonly from: string; readonly to: string; readonly arrived: boolean },
  at: number,
): MeasuredGain {
  const unknown = (says: string): MeasuredGain => ({ at, gain: null, paid: null, says });
  const { expectedGain } = decision;
  if (!arrived) return { at, gain: 0, paid: false, says: 'the move did not succeed' };
  if (expectedGain === null) return unknown('it was to make room or to empty a host, and not to pay');
  const vm = judge.vm(decision.vmName);
  if (vm === undefined || !vm.running) return unknown('the VM does not run any more');
  if (vm.host !== to) return unknown(`it has gone on to ${vm.host}`);
  const source = judge.host(from);
  if (source?.state !== 'up' && source?.state !== 'cordoned') return unknown(`${from} takes no guests any more`);
  const gain = -judge.gainOf(new Map([[vm.name, from]]));
  const paid = hasPaid(gain, expectedGain);
  const share = Math.round((100 * gain) / Math.max(1e-9, expectedGain));
  return {
    at,
    gain,
    paid,
    says: paid ? `${share} % of what was expected came` : `only ${Math.max(0, share)} % of it came`,
  };
}
