/** Around what may be wider than the window: it scrolls sideways by itself, by keyboard too. */
import type { ReactNode } from 'react';

export function Wide({ says, children }: { says: string; children: ReactNode }) {
  return (
    <div className="scroll-x" role="region" aria-label={says} tabIndex={0}>
      {children}
    </div>
  );
}
