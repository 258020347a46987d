/**
 * The store as one server reaches it: over a network that takes time, may be away, and may swallow the answer to a commit.
 * The engine behind it is the real one (store/memory.ts), shared by all servers.
 */
import type { Clock } from '../runtime/clock.ts';
import type { Random } from '../runtime/random.ts';
import type { Engine } from '../store/memory.ts';
import type { CommitResult, Guard, Store, Write } from '../store/store.ts';
import { OutcomeUnknown, StoreUnavailable } from '../store/store.ts';
import type { Life } from './life.ts';
import type { Timeline } from './timeline.ts';

const renewAgainMs = 200;

/** What is wrong between one server and the store; changed while it runs. */
export interface StoreTrouble {
  isAway: boolean;
  /** Chance that the answer to a commit is lost, 0..1; half of these were done. */
  unknown: number;
}

/** What a seeded fault does to commits. */
export type CommitFault = (
  guards: readonly Guard[],
  writes: readonly Write[],
) => { readonly guards: readonly Guard[]; readonly writes: readonly Write[] } | 'pretend';

export interface StoreParts {
  readonly engine: Engine;
  readonly life: Life;
  readonly timeline: Timeline;
  readonly random: Random;
  readonly trouble: StoreTrouble;
  readonly fault: CommitFault | undefined;
  readonly onCommit: (writes: readonly Write[]) => void;
}

export function simStore({ engine, life, timeline, random, trouble, fault, onCommit }: StoreParts): Store {
  const inner = engine.connect(renewalClock(life.clock, trouble));
  const travel = () => new Promise<void>((resolve) => timeline.after(0.3 + random.next() * 1.5, resolve));
  const ask = <T>(what: () => Promise<T>): Promise<T> =>
    life.answer(async () => {
      await travel();
      if (trouble.isAway) throw new StoreUnavailable('the store does not answer');
      return what();
    });
  return {
    list: (prefix) => ask(() => inner.list(prefix)),
    get: (key) => ask(() => inner.get(key)),
    commit: (guards, writes, options) =>
      ask(async () => {
        // Drawn at each commit, so that trouble with one does not change the chances of the others.
        const chance = random.next();
        if (chance < trouble.unknown / 2) throw new OutcomeUnknown('the connection broke before the commit');
        const altered = fault?.(guards, writes) ?? { guards, writes };
        if (altered === 'pretend') return { ok: true, revision: engine.revision } satisfies CommitResult;
        const result = await inner.commit(altered.guards, altered.writes, options);
        if (result.ok) onCommit(altered.writes);
        if (chance < trouble.unknown) throw new OutcomeUnknown('the connection broke after the commit');
        return result;
      }),
    watch: (prefix, since, signal) => life.each(inner.watch(prefix, since, signal)),
    lease: (ttlMs) => ask(() => inner.lease(ttlMs)),
    close: () => life.answer(() => inner.close()),
  };
}

/** The store's client has no timers but its renewals: where the store is away they come too late. */
function renewalClock(clock: Clock, trouble: StoreTrouble): Clock {
  return {
    ...clock,
    setTimeout(fn, ms) {
      let timer = clock.setTimeout(function attempt() {
        if (trouble.isAway) timer = clock.setTimeout(attempt, renewAgainMs);
        else fn();
      }, ms);
      return { cancel: () => timer.cancel() };
    },
  };
}
