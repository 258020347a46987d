import { describe, expect, test } from 'vitest';
import type { HostId } from '../model/ids.ts';
import { newSleepRecord, type SleepRecord } from '../model/sleep.ts';
import { defaultSleepOptions, sleepStep, type SleepSeen } from './sleep-step.ts';

const consented: SleepRecord = {
  ...newSleepRecord('host_1' as HostId, 0),
  state: {
    kind: 'going-to-sleep',
    since: 1_000,
    by: 'test',
    because: 'nothing to do',
    drill: false,
    consent: { at: 2_000, bootId: 'first' },
  },
  way: { kind: 'off' },
};
const seen: SleepSeen = {
  now: 3_000,
  name: 'h1',
  lastReportAt: 2_900,
  connected: true,
  silent: false,
  bootId: 'first',
  power: null,
  orderedAt: null,
  cycledUntil: null,
  obstacle: null,
};
const on = { off: false, says: 'it reads on', at: 3_000 };
const step = (changes: Partial<SleepSeen>) => sleepStep(consented, { ...seen, ...changes }, defaultSleepOptions);

describe('a host whose agent has consented', () => {
  test('is shut down while that boot is heard of, and only looked at while nothing is', () => {
    expect(step({}).action).toBe('shut-down');
    expect(step({ connected: false }).action).toBe('look');
    expect(step({ silent: true }).action).toBe('look');
  });

  test('is switched hard off when it does not go down, heard of or not', () => {
    const now = 2_000 + defaultSleepOptions.hardOffAfterMs + 1;
    expect(step({ now, lastReportAt: now }).action).toBe('switch-off');
    expect(step({ now, connected: false, power: on }).action).toBe('switch-off');
  });

  test('stays awake when it has booted meanwhile, and takes nothing while what was ordered before may still reach it', () => {
    expect(step({ bootId: 'second' })).toMatchObject({ action: 'stay-awake', record: { state: { kind: 'awake' } } });
    expect(step({ bootId: 'second', orderedAt: 2_500 })).toEqual({ action: 'look' });
    const later = 2_500 + defaultSleepOptions.hardOffAfterMs + 1;
    expect(step({ bootId: 'second', orderedAt: 2_500, now: later }).action).toBe('stay-awake');
  });

  test('is asleep when it reads off after its last word, not when it has reported since', () => {
    const off = { off: true, says: 'it reads off', at: 3_000 };
    expect(step({ power: off }).record?.state.kind).toBe('asleep');
    expect(step({ power: off, lastReportAt: 3_500, now: 4_000 }).record).toBeUndefined();
  });
});
