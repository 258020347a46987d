/** What stands where there is nothing to show: empty, still loading, or not to be had. */
import type { ReactNode } from 'react';

export function Empty(props: { title: string; says?: string | undefined; busy?: boolean; children?: ReactNode }) {
  const { title, says, busy = false, children } = props;
  return (
    <div className="empty" role="status">
      {busy && <span className="spinner" aria-hidden="true" />}
      <p className="empty-title">{title}</p>
      {says !== undefined && <p>{says}</p>}
      {children}
    </div>
  );
}
