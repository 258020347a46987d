/**
 * Quantities as people write them ("300ms", "1GiB", "1Gbit") and as we print them. Inside, the unit is in the name:
 * downtimeMs, memoryMiB, bytesPerSecond.
 */
import { UserError } from './failure.ts';

export const MiB = 1024 * 1024;
export const pageBytes = 4096;

const durationUnits = { ms: 1, s: 1000, m: 60_000, h: 3_600_000 } as const;
const sizeUnits = { KiB: 1 / 1024, MiB: 1, GiB: 1024, TiB: 1024 * 1024 } as const;
const rateUnits = {
  Kbit: 125,
  Mbit: 125_000,
  Gbit: 125_000_000,
  'KiB/s': 1024,
  'MiB/s': MiB,
  'GiB/s': 1024 * MiB,
} as const;

function parse(text: string, units: Readonly<Record<string, number>>, what: string, example: string): number {
  const match = /^(\d+(?:\.\d+)?)\s*([A-Za-z/]+)$/.exec(text.trim());
  const unit = match?.[2] === undefined ? undefined : Object.entries(units).find(([name]) => name === match[2]);
  if (!match?.[1] || !unit) {
    throw new UserError(
      'invalid-input',
      `'${text}' is not a ${what}.`,
      `Write a number and one of ${Object.keys(units).join(', ')}, for example ${example}.`,
    );
  }
  const value = Number(match[1]) * unit[1];
  if (value > 0) return value;
  throw new UserError(
    'invalid-input',
    `'${text}' is too little for a ${what}.`,
    `Write more than zero, for example ${example}.`,
  );
}

/** "300ms", "5s", "2m" -> milliseconds. @throws UserError invalid-input */
export function parseDurationMs(text: string): number {
  return parse(text, durationUnits, 'duration', '300ms');
}

/** "512MiB", "1GiB" -> whole MiB. @throws UserError invalid-input */
export function parseSizeMiB(text: string): number {
  const size = parse(text, sizeUnits, 'size', '1GiB');
  if (!Number.isInteger(size)) {
    throw new UserError('invalid-input', `'${text}' is not a whole number of MiB.`, 'Use a multiple of 1MiB.');
  }
  return size;
}

/** "1Gbit", "100MiB/s" -> bytes per second. @throws UserError invalid-input */
export function parseBytesPerSecond(text: string): number {
  return parse(text, rateUnits, 'data rate', '1Gbit');
}

/** 0.42 ms, 38 ms, 4.3 s, 2 min 5 s */
export function formatMs(ms: number): string {
  if (ms < 10) return `${Number(ms.toFixed(1))} ms`;
  if (ms < 1000) return `${Math.round(ms)} ms`;
  if (ms < 59_950) return `${(ms / 1000).toFixed(1)} s`;
  const seconds = Math.round(ms / 1000);
  return `${Math.floor(seconds / 60)} min ${seconds % 60} s`;
}

/** 512 B, 3.1 MiB, 1.2 GiB */
export function formatBytes(bytes: number): string {
  if (bytes < 1024) return `${Math.round(bytes)} B`;
  const names = ['KiB', 'MiB', 'GiB', 'TiB'];
  let value = bytes;
  let name = 'B';
  for (const next of names) {
    if (value < 1024) break;
    value /= 1024;
    name = next;
  }
  return `${value < 10 ? value.toFixed(1) : Math.round(value)} ${name}`;
}

export function formatBytesPerSecond(bytesPerSecond: number): string {
  return `${formatBytes(bytesPerSecond)}/s`;
}
