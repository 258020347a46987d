/**
 * Chance as an argument: real for programs, from a seed for tests and the simulator.
 * Not for secrets: keys and tokens take their bytes from `systemRandom.bytes` only.
 */
import { randomBytes } from 'node:crypto';

export interface Random {
  /** Evenly spread over [0, 1). */
  next(): number;
  bytes(count: number): Uint8Array;
}

export const systemRandom: Random = {
  next: () => Math.random(),
  bytes: (count) => new Uint8Array(randomBytes(count)),
};

/**
 * The same seed gives the same sequence on every machine. The generator is xoshiro128** (Blackman and Vigna, 2018), its
 * state filled by a splitmix sequence so that neighbouring seeds have nothing in common.
 */
export function seededRandom(seed: number): Random {
  let fill = seed >>> 0;
  const word = (): number => {
    fill = (fill + 0x9e3779b9) >>> 0;
    let z = fill;
    z = Math.imul(z ^ (z >>> 16), 0x85ebca6b);
    z = Math.imul(z ^ (z >>> 13), 0xc2b2ae35);
    return (z ^ (z >>> 16)) >>> 0;
  };
  let [a, b, c, d] = [word(), word(), word(), word()];
  const rotate = (x: number, by: number): number => ((x << by) | (x >>> (32 - by))) >>> 0;
  const uint32 = (): number => {
    const result = Math.imul(rotate(Math.imul(b, 5) >>> 0, 7), 9) >>> 0;
    const shifted = (b << 9) >>> 0;
    c ^= a;
    d ^= b;
    b = (b ^ c) >>> 0;
    a = (a ^ d) >>> 0;
    c = (c ^ shifted) >>> 0;
    d = rotate(d >>> 0, 11);
    return result;
  };
  return {
    next: () => uint32() / 2 ** 32,
    bytes: (count) => Uint8Array.from({ length: count }, () => uint32() >>> 24),
  };
}
