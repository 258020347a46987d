/** A few amounts of one kind under each other: what was allowed, what was expected, what came. */

export interface Amount {
  readonly word: string;
  readonly value: number | null;
  readonly look: 'limit' | 'forecast' | 'actual' | 'over';
}

export function Compared({ amounts, format }: { amounts: readonly Amount[]; format: (value: number) => string }) {
  const most = Math.max(1e-9, ...amounts.map(({ value }) => value ?? 0));
  return (
    <dl className="compared">
      {amounts.map(({ word, value, look }) => (
        <div key={word} className={look}>
          <dt>{word}</dt>
          <dd>
            <span className="compared-track" aria-hidden="true">
              <span className="compared-bar" style={{ width: `${((value ?? 0) / most) * 100}%` }} />
            </span>
            <span className="compared-value">{value === null ? '–' : format(value)}</span>
          </dd>
        </div>
      ))}
    </dl>
  );
}
