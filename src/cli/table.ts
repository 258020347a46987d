/** Data as text in columns. Not here: which columns there are. */

/** Columns as wide as their widest cell, two blanks between; numbers, also with a unit, stand right. */
export function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const right = head.map(
    (_, column) => rows.length > 0 && rows.every((row) => /^(-|-?\d+(\.\d+)?( \S+)*)$/.test(row[column] ?? '-')),
  );
  const widths = head.map((title, column) => Math.max(title.length, ...rows.map((row) => (row[column] ?? '').length)));
  return [head, ...rows]
    .map((row) =>
      head
        .map((_, column) => {
          const cell = row[column] ?? '';
          const width = widths[column] ?? 0;
          return right[column] ? cell.padStart(width) : cell.padEnd(width);
        })
        .join('  ')
        .trimEnd(),
    )
    .join('\n');
}

/** One line per pair; pairs without a value are left out. */
export function details(pairs: readonly (readonly [name: string, value: string | null | undefined])[]): string {
  const shown = pairs.filter(([, value]) => value !== null && value !== undefined && value !== '');
  const width = Math.max(0, ...shown.map(([name]) => name.length));
  return shown.map(([name, value]) => `${name.padEnd(width)}  ${value}`).join('\n');
}
