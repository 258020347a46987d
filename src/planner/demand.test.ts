import { describe, expect, it } from 'vitest';
import type { DemandHistory } from '../model/fleet.ts';
import { capacityNeeded, newDemandHistory, withSample } from './demand.ts';

const minute = 60_000;
const hour = 60 * minute;
const day = 24 * hour;
/** Monday, 7 January 2030. */
const monday = 1_893_974_400_000;
const isBusy = (at: number) => at % day >= 8 * hour && at % day < 18 * hour;

/** @param wobble share by which every other day is above, and the others below */
function learned(days: number, wobble = 0): DemandHistory {
  let history = newDemandHistory();
  for (let at = monday; at < monday + days * day; at += 5 * minute) {
    const dayNumber = Math.floor((at - monday) / day);
    const high = isBusy(at) && dayNumber % 7 < 5;
    const factor = 1 + (dayNumber % 2 === 0 ? wobble : -wobble);
    history = withSample(history, at, { cores: (high ? 20 : 2) * factor, memoryMiB: (high ? 8000 : 1000) * factor });
  }
  return history;
}

const now = { cores: 2, memoryMiB: 1000 };

describe('what will be needed', () => {
  it('is what is in use now where nothing was learned', () => {
    expect(capacityNeeded(newDemandHistory(), now, monday, hour)).toEqual(now);
  });

  it('rises before the morning, by as much as is looked ahead', () => {
    const history = learned(14);
    const early = monday + 14 * day + 7 * hour;
    expect(capacityNeeded(history, now, early, 30 * minute).memoryMiB).toBe(1000);
    expect(capacityNeeded(history, now, early, 70 * minute).memoryMiB).toBe(8000);
    expect(capacityNeeded(history, now, early + 59 * minute, 2 * minute).cores).toBe(20);
  });

  it('does not rise on a weekend', () => {
    const saturday = monday + 19 * day;
    expect(capacityNeeded(learned(14), now, saturday, day - hour).cores).toBe(2);
  });

  it('has the spread of the days on top', () => {
    const at = monday + 14 * day + 9 * hour;
    const wobbly = capacityNeeded(learned(14, 0.2), now, at, 0).cores;
    expect(capacityNeeded(learned(14), now, at, 0).cores).toBe(20);
    expect(wobbly).toBeGreaterThan(26);
    expect(wobbly).toBeLessThan(36);
  });

  it('has a margin on top after one day, and is never less than what is in use', () => {
    const tuesday = monday + day + 9 * hour;
    expect(capacityNeeded(learned(1), now, tuesday, 0).cores).toBeCloseTo(24);
    const more = { cores: 50, memoryMiB: 9000 };
    expect(capacityNeeded(learned(14), more, tuesday, hour)).toEqual(more);
  });

  it('follows a change of habits within two weeks', () => {
    let history = learned(14);
    for (let n = 14; n < 28; n++) history = withSample(history, monday + n * day, { cores: 30, memoryMiB: 5000 });
    expect(capacityNeeded(history, now, monday + 28 * day, 0).cores).toBeGreaterThan(28);
  });

  it('is learned in a record of some kilobytes, however long', () => {
    expect(JSON.stringify(learned(35, 0.1)).length).toBeLessThan(40_000);
  });
});
