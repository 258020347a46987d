/** A table of which only the rows in view are drawn, however many there are. All rows are of one height. */
import { useRef, type ReactNode } from 'react';
import { useVisible } from './visible.ts';

export interface Column<T> {
  readonly word: string;
  readonly cell: (row: T) => ReactNode;
  /** Share of the width, as CSS grid has it. */
  readonly width: string;
  readonly isNumber?: boolean;
  /** Left out where there is little room. */
  readonly isMinor?: boolean;
}

const rowHeight = 38;

export function Rows<T>(props: {
  says: string;
  rows: readonly T[];
  columns: readonly Column<T>[];
  keyOf: (row: T) => string;
}) {
  const { says, rows, columns, keyOf } = props;
  const ref = useRef<HTMLDivElement>(null);
  const { from, to, width } = useVisible(ref);
  const shown = width > 0 && width < 640 ? columns.filter(({ isMinor }) => isMinor !== true) : columns;
  const template = { gridTemplateColumns: shown.map((column) => column.width).join(' ') };
  const first = Math.max(0, Math.floor(from / rowHeight));
  const seen = rows.slice(first, Math.max(first, Math.ceil(to / rowHeight)));
  return (
    <div className="rows" role="table" aria-label={says} aria-rowcount={rows.length + 1}>
      <div className="rows-head" role="row" aria-rowindex={1} style={template}>
        {shown.map(({ word, isNumber }) => (
          <span key={word} role="columnheader" className={isNumber ? 'number' : ''}>
            {word}
          </span>
        ))}
      </div>
      <div ref={ref} role="rowgroup" className="rows-body" style={{ height: rows.length * rowHeight }}>
        {seen.map((row, index) => (
          <div
            key={keyOf(row)}
            role="row"
            aria-rowindex={first + index + 2}
            className="rows-row"
            style={{ ...template, top: (first + index) * rowHeight }}
          >
            {shown.map(({ word, cell, isNumber }) => (
              <span key={word} role="cell" className={isNumber ? 'number' : ''}>
                {cell(row)}
              </span>
            ))}
          </div>
        ))}
      </div>
    </div>
  );
}
