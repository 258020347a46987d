/** Numbers of a benchmark and how they are printed: medians with their range, ratios, aims, tables. Pure. */

export interface Spread {
  readonly median: number;
  readonly min: number;
  readonly max: number;
}

/** Undefined for no values at all: a contestant that never arrived has no median. */
export function spread(values: readonly number[]): Spread | undefined {
  const sorted = values.toSorted((a, b) => a - b);
  const [min, max] = [sorted.at(0), sorted.at(-1)];
  const [low, high] = [sorted[Math.floor((sorted.length - 1) / 2)], sorted[Math.ceil((sorted.length - 1) / 2)]];
  if (min === undefined || max === undefined || low === undefined || high === undefined) return undefined;
  return { median: (low + high) / 2, min, max };
}

/** Of the medians. Undefined where one of them is missing or nothing can be divided by it. */
export function ratio(ours: readonly number[], theirs: readonly number[]): number | undefined {
  const [a, b] = [spread(ours)?.median, spread(theirs)?.median];
  return a === undefined || b === undefined || b <= 0 ? undefined : a / b;
}

export interface Aim {
  readonly of: string;
  readonly reached: number | undefined;
  readonly atMost: number;
  readonly unit: string;
}

/** "total against the script: 1.02x, aim 1.05x: met" */
export function aimText({ of, reached, atMost, unit }: Aim): string {
  if (reached === undefined) return `${of}: not measured, aim ${atMost}${unit}`;
  return `${of}: ${shown(reached)}${unit}, aim ${atMost}${unit}: ${reached <= atMost ? 'met' : 'MISSED'}`;
}

/** Two digits after the point for small numbers, none for large ones. */
export function shown(value: number): string {
  return Math.abs(value) < 10 ? value.toFixed(2) : String(Math.round(value));
}

/** "4210 (3980-4350)" */
export function spreadText(values: readonly number[]): string {
  const found = spread(values);
  if (!found) return '-';
  const { median, min, max } = found;
  const whole = values.length > 1 ? ` (${Math.round(min)}-${Math.round(max)})` : '';
  return `${Math.round(median)}${whole}`;
}

/** Columns as wide as they must be; the first `left` to the left, the others to the right. */
export function table(head: readonly string[], rows: readonly (readonly string[])[], left = 1): string {
  const widths = head.map((title, column) => Math.max(title.length, ...rows.map((row) => (row[column] ?? '').length)));
  return [head, ...rows]
    .map((row) =>
      head
        .map((_, column) => {
          const cell = row[column] ?? '';
          return column < left ? cell.padEnd(widths[column] ?? 0) : cell.padStart(widths[column] ?? 0);
        })
        .join('  ')
        .trimEnd(),
    )
    .join('\n');
}
