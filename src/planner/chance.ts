/** Chance from a seed: the planner's only source of it, so that the same question gets the same plan. */

export interface Chance {
  /** Evenly spread over [0, 1). */
  next(): number;
  /** A whole number from 0 to below `limit`. */
  below(limit: number): number;
}

/** xorshift128 (Marsaglia, 2003), its state filled by a mixing sequence so that neighbouring seeds have nothing in common. */
export function chanceFrom(seed: number): Chance {
  let fill = Math.trunc(seed) >>> 0;
  const word = (): number => {
    fill = (fill + 0x9e3779b9) >>> 0;
    let z = fill;
    z = Math.imul(z ^ (z >>> 16), 0x85ebca6b);
    z = Math.imul(z ^ (z >>> 13), 0xc2b2ae35);
    return (z ^ (z >>> 16)) >>> 0;
  };
  let a = word();
  let b = word();
  let c = word();
  let d = word() | 1;
  const next = (): number => {
    const t = a ^ (a << 11);
    a = b;
    b = c;
    c = d;
    d = d ^ (d >>> 19) ^ t ^ (t >>> 8);
    return (d >>> 0) / 2 ** 32;
  };
  return { next, below: (limit) => Math.floor(next() * limit) };
}
