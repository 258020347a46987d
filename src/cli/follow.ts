/**
 * Waiting for a migration: its events until it has ended, whatever happens to the connection meanwhile. Events may be lost
 * around a break, so the record itself is read at every connection and when nothing was heard for a while.
 */
import type { Clock } from '../runtime/clock.ts';
import type { Client } from '../wire/client.ts';
import type { EventView, MigrationView } from '../wire/endpoints.ts';

const pollAfterSilenceMs = 5_000;
/** A reader this far behind loses samples; the state of the migration is in each of its events. */
const queueLimit = 1_000;

/**
 * The last event is of type `migration` with an ended one, and comes exactly once.
 * @throws UserError when the server cannot be reached for a minute; the signal's reason when that is aborted
 */
export async function* follow(
  client: Client,
  id: string,
  { clock, signal }: { clock: Clock; signal: AbortSignal },
): AsyncGenerator<EventView, MigrationView, void> {
  const queue: EventView[] = [];
  const inner = new AbortController();
  const both = AbortSignal.any([signal, inner.signal]);
  let failure: { readonly error: unknown } | undefined;
  let wake = (): void => {};

  const add = (event: EventView): void => {
    if (queue.length < queueLimit || event.type === 'migration') queue.push(event);
    wake();
  };
  const fail = (error: unknown): void => {
    failure ??= { error };
    wake();
  };
  const read = (): void => {
    client.getMigration({ params: { migration: id } }, { signal: both }).then(
      (migration) => add({ type: 'migration', at: clock.now(), says: migration.phaseSays, migration }),
      // The stream tells whether the server is there; this read is tried again anyway.
      () => {},
    );
  };
  const listen = async (): Promise<void> => {
    for await (const { event } of client.events({ migration: id, signal: both, onOpen: read })) add(event);
  };
  const onAbort = (): void => wake();
  signal.addEventListener('abort', onAbort);
  listen().catch(fail);
  try {
    for (;;) {
      signal.throwIfAborted();
      const event = queue.shift();
      if (event) {
        if (event.type !== 'migration' || event.migration.id === id) yield event;
        if (event.type === 'migration' && event.migration.id === id && event.migration.ended) return event.migration;
        continue;
      }
      if (failure) throw failure.error;
      const { promise, resolve } = Promise.withResolvers<void>();
      wake = resolve;
      const timer = clock.setTimeout(() => {
        read();
        resolve();
      }, pollAfterSilenceMs);
      await promise;
      timer.cancel();
    }
  } finally {
    signal.removeEventListener('abort', onAbort);
    inner.abort();
  }
}
