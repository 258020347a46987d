/** A thread that makes one plan: a large fleet takes seconds, and the server has to answer meanwhile. Its parts have more threads. */
import { parentPort, workerData } from 'node:worker_threads';
import type { FleetSnapshot } from '../model/fleet-snapshot.ts';
import type { PartJob } from '../planner/parts.ts';
import { Pool } from '../runtime/pool.ts';
import { plannedInParts, type Question } from './planning.ts';

// What threaded-planner.ts gives it.
const { snapshot, ask } = workerData as { readonly snapshot: FleetSnapshot; readonly ask: Question };
using pool = new Pool<PartJob, Int32Array>(new URL('../planner/parts.ts', import.meta.url), 'polishPart');
parentPort?.postMessage(await pool.drive(plannedInParts(snapshot, ask)));
