/** Hours in which the distributor begins nothing by itself. Not here: whose hours (model/distribution.ts). */
import type { BalanceSettings, QuietHours } from '../model/distribution.ts';

const dayMinutes = 1_440;

/** Minute of the day at which the quiet hours end; null: it is none of them. */
export function quietUntil({ quietHours, timeZone }: BalanceSettings, now: number): number | null {
  if (quietHours.length === 0) return null;
  const minute = minuteOfDay(now, timeZone);
  return quietHours.find((hours) => isWithin(hours, minute))?.to ?? null;
}

/** "22:00" */
export function clockTime(minute: number): string {
  const of = minute % dayMinutes;
  return `${String(Math.floor(of / 60)).padStart(2, '0')}:${String(of % 60).padStart(2, '0')}`;
}

export function isTimeZone(name: string): boolean {
  try {
    minuteOfDay(0, name);
    return true;
  } catch (error) {
    if (error instanceof RangeError) return false;
    throw error;
  }
}

function isWithin({ from, to }: QuietHours, minute: number): boolean {
  return from <= to ? minute >= from && minute < to : minute >= from || minute < to;
}

function minuteOfDay(now: number, timeZone: string): number {
  const parts = new Intl.DateTimeFormat('en', { timeZone, hour: '2-digit', minute: '2-digit', hourCycle: 'h23' });
  const of = Object.fromEntries(parts.formatToParts(now).map(({ type, value }) => [type, Number(value)]));
  return (of['hour'] ?? 0) * 60 + (of['minute'] ?? 0);
}
