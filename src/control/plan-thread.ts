/** A thread that makes one plan: a large fleet takes seconds, and the server has to answer meanwhile. */
import { parentPort, workerData } from 'node:worker_threads';
import type { FleetSnapshot } from '../model/fleet-snapshot.ts';
import { planned, type Question } from './planning.ts';

// What threaded-planner.ts gives it.
const { snapshot, ask } = workerData as { readonly snapshot: FleetSnapshot; readonly ask: Question };
parentPort?.postMessage(planned(snapshot, ask));
