/** One run: a world of its own from these options, with people and disturbances, until everything has come to rest. */
import type { PlanRecord } from '../model/distribution.ts';
import type { Migration } from '../model/migration.ts';
import type { Violation } from './checks.ts';
import { Disturber } from './disturbances.ts';
import { faults, noFault } from './faults.ts';
import { Maintenance } from './maintenance.ts';
import { quietMs, type SimOptions } from './options.ts';
import { Sleepers } from './sleepers.ts';
import { Workload } from './workload.ts';
import { World } from './world.ts';

const minuteMs = 60_000;
const secondMs = 1000;
/** Longer than any pause after which something is tried again. */
const stillMs = 30_000;

export interface SimResult {
  readonly options: SimOptions;
  readonly violations: readonly Violation[];
  /** Two runs of the same options have the same. */
  readonly hash: string;
  readonly events: number;
  readonly newest: readonly string[];
  readonly timers: number;
  /** By technique, then by how it ended. */
  readonly migrations: Readonly<Record<string, Readonly<Record<string, number>>>>;
  /** Of the distributor: how its plans ended, and its moves. */
  readonly plans: Readonly<Record<string, number>>;
  readonly answers: Readonly<Record<string, number>>;
  /** How drains and undrains were answered, and where the drains stand at the end. */
  readonly maintenance: Readonly<Record<string, number>>;
  readonly disturbances: Readonly<Record<string, number>>;
}

/**
 * @param trace gets every event as a line
 * @param watch is told over and over how far virtual time is
 */
export async function runSeed(
  options: SimOptions,
  trace?: (line: string) => void,
  watch?: (atMs: number) => void,
): Promise<SimResult> {
  const fault = options.fault === null ? noFault : faults[options.fault];
  if (fault === undefined) throw new Error(`there is no fault '${options.fault}'`);
  const world = new World(options, fault, trace);
  if (watch !== undefined) world.watch = watch;
  const people = new Workload(world);
  const maintenance = new Maintenance(world);
  const sleepers = new Sleepers(world);
  const disturber = options.disturbances === 'none' ? undefined : new Disturber(world, options.disturbances);
  const unhandled = (error: unknown): void => {
    world.checks.violated('no-crash', `a promise was rejected and nobody cared: ${stackOf(error)}`);
  };
  process.on('unhandledRejection', unhandled);
  try {
    const endMs = options.minutes * minuteMs;
    const quietFromMs = Math.max(endMs / 2, endMs - quietMs);
    world.start();
    people.start();
    maintenance.start();
    sleepers.start();
    disturber?.start(20_000);
    if (fault.act) {
      const { act } = fault;
      const again = (): void => {
        act(world);
        if (world.timeline.nowMs < quietFromMs) world.timeline.after(secondMs, again);
      };
      world.timeline.after(secondMs, again);
    }
    await world.run(quietFromMs);
    people.stop();
    maintenance.stop();
    disturber?.stop();
    sleepers.stop();
    world.note('rest', 'nothing is asked for or disturbed any more');
    await untilAtRest(world, endMs);
    world.checks.atRest();
  } catch (error) {
    world.checks.violated('no-crash', stackOf(error));
  }
  const result: SimResult = {
    options,
    violations: [...world.checks.violations],
    hash: world.events.hash,
    events: world.events.count,
    newest: world.events.newest(),
    timers: world.timeline.fired,
    migrations: tally(world),
    plans: plansOf(world),
    answers: Object.fromEntries(people.answers),
    maintenance: Object.fromEntries(maintenance.answers),
    disturbances: Object.fromEntries([...(disturber?.counts ?? []), ...sleepers.counts]),
  };
  world.end();
  await new Promise((resolve) => setImmediate(resolve));
  process.off('unhandledRejection', unhandled);
  return result;
}

/** Until nothing has happened for a while and nothing is missing, which is how it would stay, or until the end. */
async function untilAtRest(world: World, endMs: number): Promise<void> {
  let before = -1;
  while (world.timeline.nowMs < endMs) {
    await world.run(Math.min(endMs, world.timeline.nowMs + stillMs));
    if (world.events.count === before && world.checks.isAtRest()) return;
    before = world.events.count;
  }
}

function tally(world: World): Record<string, Record<string, number>> {
  const counts: Record<string, Record<string, number>> = {};
  for (const { value } of world.engine.list('migration/')) {
    const migration = value as Migration; // what is under these keys, by store/records.ts
    const end = migration.phase === 'failed' ? `failed ${migration.guest}: ${migration.failure.code}` : migration.phase;
    const row = (counts[migration.technique] ??= {});
    row[end] = (row[end] ?? 0) + 1;
  }
  return counts;
}

function plansOf(world: World): Record<string, number> {
  const counts: Record<string, number> = {};
  for (const { value } of world.engine.list('plan/')) {
    const { state } = value as PlanRecord; // as above
    counts[state.kind] = (counts[state.kind] ?? 0) + 1;
  }
  const moves = world.engine.list('decision/').length;
  return moves === 0 ? counts : { ...counts, moves };
}

function stackOf(error: unknown): string {
  return error instanceof Error ? (error.stack ?? error.message) : String(error);
}
