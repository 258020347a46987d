/** Spread of values that a few wild ones do not move, by CloudSim's definitions of quartile and median. */

function sorted(values: readonly number[]): number[] {
  return values.toSorted((a, b) => a - b);
}

/** 0 for no values. */
export function median(values: readonly number[]): number {
  const ordered = sorted(values);
  const low = ordered[Math.floor((ordered.length - 1) / 2)] ?? 0;
  const high = ordered[Math.ceil((ordered.length - 1) / 2)] ?? 0;
  return (low + high) / 2;
}

/** Median distance from the median. */
export function mad(values: readonly number[]): number {
  const middle = median(values);
  return median(values.map((value) => Math.abs(value - middle)));
}

export function interquartileRange(values: readonly number[]): number {
  const ordered = sorted(values);
  const at = (share: number): number => ordered[Math.round(share * (ordered.length + 1)) - 1] ?? 0;
  return at(0.75) - at(0.25);
}
