/**
 * How a lease and a taken mark stand in their file: two blocks at fixed places, each one line of text (so that a person can
 * read it) behind a checksum, filled up with zeros. A block that is half one writing and half another does not pass.
 *
 *     <pool>/.drover/leases/<host>     0: lease, by its holder     4096: taken, by another host
 */
import { crc32 } from 'node:zlib';
import type { Lease, TakenMark } from './lease.ts';

/** A multiple of every sector size: written as one by the storage. */
export const blockBytes = 4096;
export const fileBytes = 2 * blockBytes;
export const placeOf = { lease: 0, taken: blockBytes } as const;

export class DamagedBlock extends Error {
  override readonly name = 'DamagedBlock';
}

export function encodeBlock(value: Lease | TakenMark): Uint8Array {
  const text = JSON.stringify(value);
  const line = Buffer.from(`${checksum(text)} ${text}\n`);
  if (line.length > blockBytes) throw new RangeError(`a lease of ${line.length} bytes does not fit into its block`);
  const block = new Uint8Array(blockBytes);
  block.set(line);
  return block;
}

/** @returns null for a block that was never written @throws DamagedBlock */
export function decodeBlock<T extends Lease | TakenMark>(block: Uint8Array): T | null {
  if (block.every((byte) => byte === 0)) return null;
  const text = Buffer.from(block).toString('utf8');
  const [line = ''] = text.split('\n');
  const body = line.slice(9);
  if (line.slice(0, 8) !== checksum(body)) throw new DamagedBlock('a block of the lease file is damaged');
  return JSON.parse(body) as T; // whole, as encodeBlock wrote it
}

function checksum(text: string): string {
  return crc32(text).toString(16).padStart(8, '0');
}
