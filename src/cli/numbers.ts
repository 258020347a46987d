/**
 * Numbers and durations as options take them, within what the API takes: who writes one that is too large is told so in the
 * words of the option. The limits are those of the wire's own schemas, so that there is one truth. Not here: units (model/units.ts).
 */
import { UserError } from '../model/failure.ts';
import { parseDurationMs } from '../model/units.ts';

/** A number of a schema in wire/, which knows its own limits. */
export interface Limited {
  readonly minValue: number | null;
  readonly maxValue: number | null;
}
export type Limits = readonly [least: number, most: number];

/** @param schema `z.number()` with a least and a most */
export function limitsOf({ minValue, maxValue }: Limited): Limits {
  return [minValue ?? 0, maxValue ?? Number.MAX_SAFE_INTEGER];
}

/** A whole number. @throws UserError invalid-input */
export function parseCount(text: string, option: string, limits?: Limits): number {
  return parseWithin(text, option, /^\d{1,15}$/, 'a whole number', limits);
}

/** A number that may be a fraction. @throws UserError invalid-input */
export function parseNumber(text: string, option: string, limits?: Limits): number {
  return parseWithin(text, option, /^\d{1,15}(\.\d+)?$/, 'a number', limits);
}

function parseWithin(text: string, option: string, looks: RegExp, what: string, limits?: Limits): number {
  const value = Number(text);
  const range = limits && `from ${limits[0]} to ${limits[1]}`;
  const hint =
    range === undefined ? `Write ${what}, for example ${option} 4.` : `Write ${option} with ${what} ${range}.`;
  if (!looks.test(text)) throw new UserError('invalid-input', `${option} '${text}' is not ${what}.`, hint);
  if (limits === undefined || (value >= limits[0] && value <= limits[1])) return value;
  const off = value < limits[0] ? 'too small' : 'too large';
  throw new UserError('invalid-input', `${option} ${text} is ${off}.`, hint);
}

/** "90s" -> ms. @param limits in ms @throws UserError invalid-input */
export function parseDurationWithin(text: string, option: string, limits: Limits): number {
  const ms = parseDurationMs(text);
  if (ms >= limits[0] && ms <= limits[1]) return ms;
  throw new UserError(
    'invalid-input',
    `${option} ${text} is too ${ms < limits[0] ? 'short' : 'long'}.`,
    `Write ${option} with ${asWritten(limits[0])} to ${asWritten(limits[1])}.`,
  );
}

/** In the words in which it could be written. */
function asWritten(ms: number): string {
  const units = [
    [3_600_000, 'h'],
    [60_000, 'm'],
    [1_000, 's'],
  ] as const;
  const [size, unit] = units.find(([each]) => ms >= each && ms % each === 0) ?? [1, 'ms'];
  return `${ms / size}${unit}`;
}
