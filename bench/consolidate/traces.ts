/**
 * Days of CPU traces, read from a directory that the caller names. The data is research data (PlanetLab, gathered by CoMon)
 * and no part of this repository. What is done with it is in simulate.ts.
 */
import { createHash } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { brotliDecompressSync } from 'node:zlib';
import { UserError, messageOf } from '../../src/model/failure.ts';

/** Use of each VM's CPU in percent, row by row: `percent[vm * samples + k]` is what was measured `k` steps after midnight. */
export interface Trace {
  readonly day: string;
  readonly vms: number;
  readonly samples: number;
  readonly percent: Uint8Array;
}

interface Entry {
  readonly vms: number;
  readonly samples: number;
  readonly sha256: string;
}

export const formatText = [
  'The directory holds, compressed by brotli:',
  '  index.json.br   { "DAY": { "vms": …, "samples": 288, "sha256": …, … }, … }; sha256 is that of the uncompressed matrix',
  '  DAY.bin.br      the matrix of that day, uint8[vms][samples]: CPU use in percent every 5 minutes, one row a VM,',
  "                  rows sorted by the name of the VM's trace (the order decides which type of VM a trace becomes)",
  'The traces are the PlanetLab days that come with CloudSim (workload/planetlab/DAY/VM, one number a line).',
].join('\n');

const indexFile = 'index.json.br';

/** Days that the directory has, in order. @throws UserError invalid-input: no such directory, no index, a broken index */
export function daysIn(directory: string): string[] {
  return [...readIndex(directory).keys()].filter((day) => existsSync(join(directory, `${day}.bin.br`))).toSorted();
}

/** @throws UserError invalid-input: the day is missing, or its file is not what the index says */
export function readTrace(directory: string, day: string): Trace {
  const entry = readIndex(directory).get(day);
  const file = join(directory, `${day}.bin.br`);
  if (!entry || !existsSync(file)) {
    throw refusal(`There is no day '${day}' in ${directory}.`, `It has ${daysIn(directory).join(', ') || 'no day'}.`);
  }
  const percent = unpacked(file);
  const { vms, samples } = entry;
  if (percent.length !== vms * samples) {
    throw refusal(`${file} holds ${percent.length} bytes, not ${vms} x ${samples} as ${indexFile} says.`, formatText);
  }
  if (createHash('sha256').update(percent).digest('hex') !== entry.sha256) {
    throw refusal(`${file} is not the matrix whose SHA-256 is in ${indexFile}.`, 'Fetch it again.');
  }
  return { day, vms, samples, percent };
}

function readIndex(directory: string): Map<string, Entry> {
  const file = join(directory, indexFile);
  if (!existsSync(file)) throw refusal(`${directory} has no ${indexFile}.`, formatText);
  let index: unknown;
  try {
    index = JSON.parse(unpacked(file).toString());
  } catch (error) {
    throw refusal(`${file} cannot be read: ${messageOf(error)}`, formatText, error);
  }
  const entries = typeof index === 'object' && index !== null ? Object.entries(index) : [];
  return new Map(
    entries.map(([day, entry]) => {
      if (!isEntry(entry)) throw refusal(`${file} says nothing usable of the day '${day}'.`, formatText);
      return [day, entry];
    }),
  );
}

function isEntry(value: unknown): value is Entry {
  if (typeof value !== 'object' || value === null) return false;
  const { vms, samples, sha256 } = value as Partial<Entry>; // each field is checked on the next line
  return Number.isInteger(vms) && Number.isInteger(samples) && Number(samples) > 1 && typeof sha256 === 'string';
}

function unpacked(file: string): Buffer {
  try {
    return brotliDecompressSync(readFileSync(file));
  } catch (error) {
    throw refusal(`${file} cannot be unpacked: ${messageOf(error)}`, formatText, error);
  }
}

function refusal(message: string, hint: string, cause?: unknown): UserError {
  const error = new UserError('invalid-input', message, hint);
  if (cause !== undefined) error.cause = cause;
  return error;
}
