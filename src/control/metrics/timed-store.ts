/** A store whose reads and commits are timed. Not here: watches and leases, which last. */
import { Histogram, type Registry } from 'prom-client';
import type { Store } from '../../store/store.ts';

const operations = ['commit', 'list', 'get'] as const;
type Operation = (typeof operations)[number];

/** The same store; what it does is seen in `drover_store_operation_duration_seconds`. */
export function timedStore(store: Store, registry: Registry): Store {
  const seconds = new Histogram({
    name: 'drover_store_operation_duration_seconds',
    help: 'How long the store took, by what came of it: refused is a commit whose guards did not hold.',
    labelNames: ['operation', 'outcome'],
    buckets: [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5],
    registers: [registry],
  });
  for (const operation of operations) {
    for (const outcome of ['ok', 'error']) seconds.zero({ operation, outcome });
  }
  const timed = async <T>(operation: Operation, did: Promise<T>, outcomeOf: (result: T) => string): Promise<T> => {
    const stop = seconds.startTimer({ operation });
    try {
      const result = await did;
      stop({ outcome: outcomeOf(result) });
      return result;
    } catch (error) {
      stop({ outcome: 'error' });
      throw error;
    }
  };
  return {
    list: (prefix) => timed('list', store.list(prefix), () => 'ok'),
    get: (key) => timed('get', store.get(key), () => 'ok'),
    commit: (guards, writes, options) =>
      timed('commit', store.commit(guards, writes, options), ({ ok }) => (ok ? 'ok' : 'refused')),
    watch: (prefix, since, signal) => store.watch(prefix, since, signal),
    lease: (ttlMs) => store.lease(ttlMs),
    close: () => store.close(),
  };
}
