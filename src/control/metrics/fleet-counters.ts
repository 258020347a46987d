/**
 * What has happened since this server came to lead, counted from the commits: one listener compares each record before and
 * after, and nothing else in the control plane knows that anybody counts. Counters begin at 0 with each term.
 *
 * Not here: what is true at this moment (fleet-gauges.ts).
 */
import { Counter, Histogram, type Registry } from 'prom-client';
import type { DrainRecord, DrainState } from '../../model/drain.ts';
import { failureCodes } from '../../model/failure.ts';
import type { FenceProof } from '../../model/host.ts';
import { techniques, type Measures, type Migration } from '../../model/migration.ts';
import type { RecoveryRecord } from '../../model/recovery.ts';
import { taskEnds, type TaskRecord } from '../../model/task.ts';
import { isEnd } from '../../migration/phases.ts';
import type { DecisionRecord, PlanRecord } from '../../model/distribution.ts';
import type { FleetChange } from '../fleet.ts';

const pauseBuckets = [0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.3, 0.5, 1, 2, 5, 10, 30];
const durationBuckets = [1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600];
/** 1 MiB to 1 TiB. */
const byteBuckets = Array.from({ length: 11 }, (_, n) => 2 ** (20 + 2 * n));
const roundBuckets = [1, 2, 3, 4, 5, 7, 10, 15, 20, 30, 50];
const ratioBuckets = [0.1, 0.25, 0.5, 0.67, 0.8, 0.9, 1, 1.1, 1.25, 1.5, 2, 4, 10];
const recoveryBuckets = [0.5, 1, 2, 3, 5, 10, 15, 20, 30, 60, 120, 300];
const proofs = ['power-off', 'lease-taken', 'boot-id', 'word'] as const satisfies readonly FenceProof[];
const drainEnds = ['drained', 'undrained', 'cancelled'] as const satisfies readonly DrainState['kind'][];
const planGoals = ['balance', 'consolidate'] as const;
const quantities = ['downtime', 'blackout', 'duration', 'bytes'] as const;

/** Counts what the commits it is given have changed. */
export function fleetCounters(registry: Registry): (changes: readonly FleetChange[]) => void {
  const migration = migrationCounters(registry);
  const drain = drainCounters(registry);
  const recovery = recoveryCounters(registry);
  const task = taskCounters(registry);
  const { plan, decision } = balanceCounters(registry);
  return (changes) => {
    for (const change of changes) {
      // A record that goes has been counted when it ended.
      if (change.after === undefined) continue;
      switch (change.kind) {
        case 'migration':
          migration(change.before, change.after);
          break;
        case 'drain':
          drain(change.before, change.after);
          break;
        case 'recovery':
          recovery(change.before, change.after);
          break;
        case 'task':
          task(change.before, change.after);
          break;
        case 'plan':
          plan(change.before, change.after);
          break;
        case 'decision':
          decision(change.before, change.after);
          break;
        case 'host':
        case 'room':
        case 'sleep':
        case 'vm':
          break;
      }
    }
  };
}

type Count<R> = (before: R | undefined, after: R) => void;

function migrationCounters(registry: Registry): Count<Migration> {
  const registers = [registry];
  const ended = new Counter({
    name: 'drover_migrations_ended_total',
    help: 'Migrations that ended, by technique and outcome; failure is the code of one that failed, else none.',
    labelNames: ['technique', 'outcome', 'failure'],
    registers,
  });
  const byTechnique = (name: string, help: string, buckets: number[]) =>
    new Histogram({ name, help, labelNames: ['technique'], buckets, registers });
  const downtime = byTechnique(
    'drover_migration_downtime_seconds',
    'Of completed migrations: the guest paused on the source until it ran on the target.',
    pauseBuckets,
  );
  const blackout = byTechnique(
    'drover_migration_blackout_seconds',
    'Of completed migrations: the longest silence that an outside prober saw, where there was one.',
    pauseBuckets,
  );
  const duration = byTechnique(
    'drover_migration_duration_seconds',
    'Of completed migrations: from the reservation until the source was released.',
    durationBuckets,
  );
  const bytes = byTechnique('drover_migration_sent_bytes', 'Of completed migrations: bytes sent.', byteBuckets);
  const rounds = byTechnique('drover_migration_rounds', 'Of completed migrations: warm-up rounds.', roundBuckets);
  const ratio = new Histogram({
    name: 'drover_migration_forecast_ratio',
    help: 'Of completed migrations: what was forecast divided by what was measured; above 1 it was less than expected.',
    labelNames: ['technique', 'quantity'],
    buckets: ratioBuckets,
    registers,
  });
  for (const technique of techniques) {
    for (const histogram of [downtime, blackout, duration, bytes, rounds]) histogram.zero({ technique });
    for (const quantity of quantities) ratio.zero({ technique, quantity });
    for (const outcome of ['completed', 'cancelled']) ended.inc({ technique, outcome, failure: 'none' }, 0);
    for (const failure of failureCodes) ended.inc({ technique, outcome: 'failed', failure }, 0);
  }

  return (before, after) => {
    const { technique, phase, forecast } = after;
    if (isEnd(phase) && !(before && isEnd(before.phase))) {
      ended.inc({ technique, outcome: phase, failure: after.phase === 'failed' ? after.failure.code : 'none' });
      if (phase === 'completed') rounds.observe({ technique }, after.rounds.length);
    }
    // Each measure counts once, when its migration is completed and it is known: some come later than the end.
    const learnt = (measure: keyof Measures): number | null => {
      const knownBefore = before?.phase === 'completed' && before.measures[measure] !== null;
      return phase === 'completed' && !knownBefore ? after.measures[measure] : null;
    };
    const observe = (
      histogram: Histogram<'technique'>,
      quantity: (typeof quantities)[number],
      measured: number | null,
      forecasted: number | undefined,
      unit: number,
    ): void => {
      if (measured === null) return;
      histogram.observe({ technique }, measured / unit);
      if (forecasted !== undefined && measured > 0) ratio.observe({ technique, quantity }, forecasted / measured);
    };
    observe(downtime, 'downtime', learnt('downtimeMs'), forecast?.downtimeMs, 1000);
    observe(blackout, 'blackout', learnt('blackoutMs'), forecast?.blackoutMs, 1000);
    observe(duration, 'duration', learnt('totalMs'), forecast?.totalMs, 1000);
    observe(bytes, 'bytes', learnt('bytes'), forecast?.bytes, 1);
  };
}

function drainCounters(registry: Registry): Count<DrainRecord> {
  const registers = [registry];
  const reached = new Counter({
    name: 'drover_drains_ended_total',
    help: 'Drains that came to this: the host empty, its VMs brought back, or given up.',
    labelNames: ['outcome'],
    registers,
  });
  const duration = new Histogram({
    name: 'drover_drain_duration_seconds',
    help: 'From the wish until the host had no guest left.',
    buckets: durationBuckets,
    registers,
  });
  for (const outcome of drainEnds) reached.inc({ outcome }, 0);
  return (before, after) => {
    const outcome = drainEnds.find((kind) => kind === after.state.kind);
    if (outcome !== undefined && before?.state.kind !== outcome) reached.inc({ outcome });
    if (after.emptyAt !== null && (before?.emptyAt ?? null) === null)
      duration.observe((after.emptyAt - after.startedAt) / 1000);
  };
}

function recoveryCounters(registry: Registry): Count<RecoveryRecord> {
  const registers = [registry];
  const begun = new Counter({
    name: 'drover_recoveries_total',
    help: 'Hosts proven dead, by what proved it.',
    labelNames: ['proof'],
    registers,
  });
  const seconds = (name: string, help: string) => new Histogram({ name, help, buckets: recoveryBuckets, registers });
  const detect = seconds(
    'drover_recovery_detect_seconds',
    "From a lost host's last report until it was seen to be silent.",
  );
  const fence = seconds('drover_recovery_fence_seconds', 'Of a lost host: from silence seen until it was proven dead.');
  const place = seconds(
    'drover_recovery_place_seconds',
    'From the proof that its host is dead until a VM was placed on another.',
  );
  const boot = seconds(
    'drover_recovery_boot_seconds',
    'From its placing on another host until a VM of a lost host ran.',
  );
  const vms = new Counter({
    name: 'drover_recovered_vms_total',
    help: 'VMs of lost hosts that run again elsewhere.',
    registers,
  });
  for (const proof of proofs) begun.inc({ proof }, 0);
  return (before, after) => {
    const { silentSince, detectedAt, fencedAt } = after;
    if (before === undefined) {
      begun.inc({ proof: after.proof });
      if (silentSince !== null) detect.observe(between(silentSince, detectedAt));
      fence.observe(between(detectedAt, fencedAt));
    }
    const known = new Map(before?.vms.map((each) => [each.vm, each]));
    for (const { vm, placedAt, startedAt } of after.vms) {
      const was = known.get(vm);
      if (placedAt !== null && (was?.placedAt ?? null) === null) place.observe(between(fencedAt, placedAt));
      if (startedAt === null || (was?.startedAt ?? null) !== null) continue;
      vms.inc();
      if (placedAt !== null) boot.observe(between(placedAt, startedAt));
    }
  };
}

function taskCounters(registry: Registry): Count<TaskRecord> {
  const registers = [registry];
  const ended = new Counter({
    name: 'drover_tasks_ended_total',
    help: 'Tasks that ended, by how.',
    labelNames: ['outcome'],
    registers,
  });
  const queued = new Histogram({
    name: 'drover_task_queue_seconds',
    help: 'From the wish until a task was given to a VM for the first time.',
    buckets: recoveryBuckets,
    registers,
  });
  for (const outcome of taskEnds) ended.inc({ outcome }, 0);
  return (before, after) => {
    if (after.outcome !== null && (before?.outcome ?? null) === null) ended.inc({ outcome: after.outcome.kind });
    const [first] = after.attempts;
    if (first !== undefined && (before?.attempts.length ?? 0) === 0)
      queued.observe(between(after.createdAt, first.assignedAt));
  };
}

function balanceCounters(registry: Registry): { plan: Count<PlanRecord>; decision: Count<DecisionRecord> } {
  const registers = [registry];
  const plans = new Counter({
    name: 'drover_balance_plans_total',
    help: 'Plans of the distributor on record, by goal and who asked.',
    labelNames: ['goal', 'origin'],
    registers,
  });
  const proposed = new Counter({
    name: 'drover_balance_moves_proposed_total',
    help: 'Moves in the plans of the distributor.',
    labelNames: ['goal', 'origin'],
    registers,
  });
  const made = new Counter({
    name: 'drover_balance_moves_made_total',
    help: 'Moves that the distributor began; automatic: without a person who accepted the plan.',
    labelNames: ['automatic'],
    registers,
  });
  const judged = new Counter({
    name: 'drover_balance_moves_judged_total',
    help: 'Moves of which it was measured afterwards whether they had paid; unknown: nobody can say.',
    labelNames: ['paid'],
    registers,
  });
  for (const goal of planGoals) {
    for (const origin of ['loop', 'person']) {
      plans.inc({ goal, origin }, 0);
      proposed.inc({ goal, origin }, 0);
    }
  }
  for (const automatic of ['true', 'false']) made.inc({ automatic }, 0);
  for (const paid of ['yes', 'no', 'unknown']) judged.inc({ paid }, 0);
  return {
    plan: (before, { goal, origin, moves }) => {
      if (before !== undefined) return;
      plans.inc({ goal, origin });
      proposed.inc({ goal, origin }, moves.length);
    },
    decision: (before, { automatic, measured }) => {
      if (before === undefined) made.inc({ automatic: String(automatic) });
      if (measured === null || (before?.measured ?? null) !== null) return;
      judged.inc({ paid: measured.paid === null ? 'unknown' : measured.paid ? 'yes' : 'no' });
    },
  };
}

/** Seconds; clocks of ours, so what is less than nothing is nothing. */
function between(from: number, to: number): number {
  return Math.max(0, to - from) / 1000;
}
