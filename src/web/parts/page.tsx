/** The frame of a page: its title with what can be done, and sections below. */
import { useEffect, useId, useState, type ReactNode } from 'react';

export function PageFrame(props: {
  title: string;
  about?: ReactNode;
  actions?: ReactNode;
  children: ReactNode;
  wide?: boolean;
}) {
  const { title, about, actions, children } = props;
  return (
    <>
      <header className="page-head">
        <div className="page-title">
          <h1>{title}</h1>
          {about !== undefined && <div className="page-about">{about}</div>}
        </div>
        {actions !== undefined && <div className="actions">{actions}</div>}
      </header>
      {children}
    </>
  );
}

export function Section(props: { title: string; about?: string; actions?: ReactNode; children: ReactNode }) {
  const { title, about, actions, children } = props;
  const id = useId();
  return (
    <section className="card" aria-labelledby={id}>
      <header className="card-head">
        <h2 id={id}>{title}</h2>
        {about !== undefined && <p className="muted">{about}</p>}
        {actions !== undefined && <div className="actions">{actions}</div>}
      </header>
      {children}
    </section>
  );
}

/** Pairs of a word and a value, aligned. */
export function Facts({ rows }: { rows: readonly (readonly [string, ReactNode])[] }) {
  return (
    <dl className="facts">
      {rows.map(([word, value]) => (
        <div key={word}>
          <dt>{word}</dt>
          <dd>{value}</dd>
        </div>
      ))}
    </dl>
  );
}

export function Figure({ word, value, about }: { word: string; value: ReactNode; about?: ReactNode }) {
  return (
    <div className="figure">
      <div className="figure-word">{word}</div>
      <div className="figure-value">{value}</div>
      {about !== undefined && <div className="figure-about">{about}</div>}
    </div>
  );
}

/** A share as a bar, with the number in words beside it. */
export function Meter({ share, says, word }: { share: number | null; says: string; word: string }) {
  const value = Math.min(1, Math.max(0, share ?? 0));
  return (
    <div className="meter" title={`${word}: ${says}`}>
      <span className="meter-word">{word}</span>
      <span className="meter-bar" aria-hidden="true">
        <span className={value > 0.9 ? 'full' : ''} style={{ width: `${value * 100}%` }} />
      </span>
      <span className="meter-says">{says}</span>
    </div>
  );
}

/** The time, told anew so often. */
export function useNow(everyMs = 1000): number {
  const [now, setNow] = useState(Date.now);
  useEffect(() => {
    const timer = setInterval(() => setNow(Date.now()), everyMs);
    return () => clearInterval(timer);
  }, [everyMs]);
  return now;
}
