/** Rows of bars on one time axis: drains, where a VM has lived, what became of the VMs of a lost host. */
import type { ReactNode } from 'react';
import { duration, moment } from '../words.ts';

export interface GanttBar {
  readonly from: number;
  readonly to: number;
  readonly look: 'done' | 'run' | 'planned' | 'bad' | 'quiet' | 'wait';
  readonly says: string;
  readonly word?: string;
}

export interface GanttRow {
  readonly key: string;
  readonly name: ReactNode;
  readonly bars: readonly GanttBar[];
  readonly note?: ReactNode;
}

export function Gantt(props: {
  says: string;
  rows: readonly GanttRow[];
  from: number;
  to: number;
  now?: number;
  clock?: boolean;
}) {
  const { says, rows, from, to, now, clock = false } = props;
  const span = Math.max(1, to - from);
  const at = (time: number): number => Math.min(100, Math.max(0, ((time - from) / span) * 100));
  const ticks = [0, 0.25, 0.5, 0.75, 1].map((share) => from + share * span);
  return (
    <div className="gantt" role="table" aria-label={says}>
      <div className="gantt-axis" aria-hidden="true">
        <span />
        <div className="gantt-ticks">
          {ticks.map((tick, index) => (
            <span key={tick} style={{ left: `${index * 25}%` }}>
              {clock ? moment(tick) : `+${duration(tick - from)}`}
            </span>
          ))}
        </div>
      </div>
      {rows.map(({ key, name, bars, note }) => (
        <div key={key} className="gantt-row" role="row">
          <div className="gantt-name" role="rowheader">
            {name}
            {note !== undefined && <span className="muted gantt-note">{note}</span>}
          </div>
          <div className="gantt-bars" role="cell">
            {bars.map((bar) => {
              const left = at(bar.from);
              return (
                <span
                  key={`${bar.from} ${bar.says}`}
                  className={`gantt-bar ${bar.look}`}
                  style={{ left: `${left}%`, width: `max(3px, ${at(bar.to) - left}%)` }}
                  title={bar.says}
                >
                  <span className="sr-only">{bar.says}</span>
                  <span aria-hidden="true" className="gantt-word">
                    {bar.word}
                  </span>
                </span>
              );
            })}
            {now !== undefined && now < to && (
              <span className="gantt-now" style={{ left: `${at(now)}%` }} aria-hidden="true" />
            )}
          </div>
        </div>
      ))}
    </div>
  );
}
