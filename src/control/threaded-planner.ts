/** Plans of small fleets at once, those of large ones in a thread of their own. Not here: what a plan is made of (planning.ts). */
import { Worker } from 'node:worker_threads';
import { planned } from './planning.ts';
import type { MakePlan, Planned } from './planning.ts';

/** Up to here a plan takes less than starting a thread. */
const smallFleet = 300;
/** Of the largest fleets ten times what was ever seen. */
const deadlineMs = 300_000;

export const planInThread: MakePlan = async (snapshot, ask) => {
  if (snapshot.vms.length <= smallFleet) return planned(snapshot, ask);
  const worker = new Worker(new URL('plan-thread.ts', import.meta.url), { workerData: { snapshot, ask } });
  const { promise, resolve, reject } = Promise.withResolvers<Planned>();
  const timer = setTimeout(() => reject(new Error(`no plan was found within ${deadlineMs / 1000} s`)), deadlineMs);
  worker.once('message', resolve);
  worker.once('error', reject);
  worker.once('exit', (code) => reject(new Error(`the thread that makes plans ended with ${code}`)));
  try {
    return await promise;
  } finally {
    clearTimeout(timer);
    void worker.terminate();
  }
};
