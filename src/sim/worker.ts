/** One of several threads that run seeds: gets options, answers with results. */
import { parentPort } from 'node:worker_threads';
import type { SimOptions } from './options.ts';
import { runSeed } from './run.ts';

// The product makes errors for every refusal, and a stack is most of their price. `--seed` shows whole ones.
Error.stackTraceLimit = 0;

parentPort?.on('message', (options: SimOptions) => {
  void runSeed(options).then((result) => parentPort?.postMessage(result));
});
