/** Short notices of what was done or refused, and the one way to do something to the fleet: say what came of it. */
import { useCallback, useState, useSyncExternalStore } from 'react';
import { UserError, messageOf } from '../../model/failure.ts';
import { Icon } from './icon.tsx';
import { Link } from './link.tsx';

interface Notice {
  readonly id: number;
  readonly kind: 'done' | 'refused';
  readonly says: string;
  readonly hint?: string | undefined;
  readonly to?: string | undefined;
}

const shownMs = 8_000;
let notices: readonly Notice[] = [];
let next = 1;
const listeners = new Set<() => void>();

function set(changed: readonly Notice[]): void {
  notices = changed;
  for (const listener of listeners) listener();
}

function subscribe(listener: () => void): () => void {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

function dismiss(id: number): void {
  set(notices.filter((notice) => notice.id !== id));
}

/** @param to the page that shows it */
export function tell(says: string, to?: string): void {
  add({ id: next++, kind: 'done', says, to });
}

export function tellRefusal(error: unknown): void {
  add({
    id: next++,
    kind: 'refused',
    says: messageOf(error),
    hint: error instanceof UserError ? error.hint : undefined,
  });
}

function add(notice: Notice): void {
  set([...notices.slice(-3), notice]);
  // A refusal stays until it is read.
  if (notice.kind === 'done') setTimeout(() => dismiss(notice.id), shownMs);
}

/** Does it, and says so or why not. `busy` while it is under way. */
export function useDoing(): { busy: boolean; run: (work: () => Promise<string | null>) => void } {
  const [busy, setBusy] = useState(false);
  const run = useCallback((work: () => Promise<string | null>) => {
    setBusy(true);
    work()
      .then((says) => says !== null && tell(says))
      .catch(tellRefusal)
      .finally(() => setBusy(false));
  }, []);
  return { busy, run };
}

export function Notices() {
  const shown = useSyncExternalStore(subscribe, () => notices);
  return (
    <div className="notices" role="log" aria-live="polite" aria-label="Notices">
      {shown.map(({ id, kind, says, hint, to }) => (
        <div key={id} className={`notice ${kind}`}>
          <Icon name={kind === 'done' ? 'ok' : 'warn'} />
          <div>
            <div>{says}</div>
            {hint !== undefined && <div className="muted">{hint}</div>}
            {to !== undefined && <Link to={to}>Show it</Link>}
          </div>
          <button type="button" className="plain close" aria-label="Dismiss" onClick={() => dismiss(id)}>
            <Icon name="bad" />
          </button>
        </div>
      ))}
    </div>
  );
}
