/** One thread of a pool (pool.ts): loads the function and answers one job after another. */
import { parentPort, workerData } from 'node:worker_threads';
import type { PoolWork } from './pool.ts';

// The cast: pool.ts starts this and nobody else does.
const { module, name } = workerData as PoolWork;
const loaded = (await import(module)) as Readonly<Record<string, (job: unknown) => unknown>>;

parentPort?.on('message', (job: unknown) => {
  try {
    parentPort?.postMessage({ ok: true, value: loaded[name]?.(job) });
  } catch (error) {
    parentPort?.postMessage({ ok: false, error });
  }
});
