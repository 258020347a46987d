/** The distributor's records as the API shows them, and the sentences that tell of them. */
import type { BalanceSettings, DecisionRecord, PlanRecord } from '../model/distribution.ts';
import type { FleetSnapshot } from '../model/fleet-snapshot.ts';
import type { Score } from '../model/plan.ts';
import type { BalanceView, DecisionView, PlanView } from '../wire/balance.ts';
import { cautionNow, wholeCaution } from './conscience.ts';
import type { ControlPlane } from './plane.ts';
import type { Fleet } from './fleet.ts';

type Names = Pick<Fleet, 'hostName'>;

export function planView(fleet: Names, plan: PlanRecord, isKept = true): PlanView {
  const { state } = plan;
  return {
    id: isKept ? plan.id : null,
    goal: plan.goal,
    origin: plan.origin,
    because: plan.because,
    state: state.kind,
    stateSays: 'because' in state ? state.because : state.kind === 'running' ? `begun by ${state.by}` : null,
    createdAt: plan.createdAt,
    endedAt: 'at' in state ? state.at : null,
    moves: plan.moves.map(({ vmName, from, to, reason, hop, wave, gain, forecast, state: of, migration }) => ({
      vm: vmName,
      from: fleet.hostName(from),
      to: fleet.hostName(to),
      reason,
      hop,
      wave,
      gain,
      forecast: { ...forecast },
      state: of,
      migration,
    })),
    power: plan.power.map(({ hostName, to, reason, state: of }) => ({ host: hostName, to, reason, state: of })),
    keeps: plan.keeps.map((each) => ({ ...each })),
    refused: plan.refused.map((refusal) => ({ ...refusal })),
    emptied: [...plan.emptied],
    score: { before: scoreView(plan.score.before), after: scoreView(plan.score.after) },
  };
}

export function decisionView(fleet: Pick<Fleet, 'hostName' | 'migrations'>, decision: DecisionRecord): DecisionView {
  const migration = fleet.migrations.get(decision.migration);
  const { id, plan, automatic, reason, at, expectedGain, expected, measured } = decision;
  return {
    id,
    plan,
    automatic,
    migration: decision.migration,
    vm: decision.vmName,
    from: fleet.hostName(decision.from),
    to: fleet.hostName(decision.to),
    reason,
    at,
    expectedGain,
    expected: { ...expected },
    measured: measured && { ...measured },
    cost: migration
      ? {
          phase: migration.phase,
          totalMs: migration.measures.totalMs,
          downtimeMs: migration.measures.downtimeMs,
          bytes: migration.measures.bytes,
        }
      : null,
  };
}

export function balanceView({ fleet, distributor, clock }: ControlPlane): BalanceView {
  const settings = fleet.balance;
  const running = distributor.running();
  const now = clock.now();
  return {
    settings: settingsView(settings),
    caution: { factor: cautionNow(settings.caution, now), whole: wholeCaution(settings, now) },
    cannotBegin: distributor.cannotBegin(),
    loopWaits: distributor.loopWaits(),
    says: distributor.says,
    standsOut: distributor.standsOut().map(({ says, since }) => ({ says, forMs: clock.monotonic() - since })),
    hosts: hostLoads(distributor.snapshot()),
    plan: running ? planView(fleet, running) : null,
    proposed: [...fleet.plans.values()].filter(({ state }) => state.kind === 'proposed').map(({ id }) => id),
  };
}

function settingsView(settings: BalanceSettings): BalanceView['settings'] {
  const { schema: _, caution: __, ...shown } = settings;
  return { ...shown, quietHours: shown.quietHours.map((hours) => ({ ...hours })) };
}

function hostLoads(snapshot: FleetSnapshot): BalanceView['hosts'] {
  const sums = new Map(snapshot.hosts.map(({ name }) => [name, { vms: 0, cpuCores: 0, memoryMiB: 0 }]));
  for (const vm of snapshot.vms) {
    const sum = vm.running ? sums.get(vm.host) : undefined;
    if (sum === undefined) continue;
    sum.vms++;
    sum.cpuCores += vm.load.cpuCores;
    sum.memoryMiB += vm.memoryMiB;
  }
  return snapshot.hosts.map(({ name, state, cpus, memoryMiB, reservedMiB }) => ({
    name,
    state,
    cpus,
    ...sums.get(name)!,
    capacityMiB: memoryMiB - reservedMiB,
  }));
}

/** "plan_... consolidate, 3 moves, h3 to sleep: running, 1 done: h1 uses 90 % of its CPU ..." */
export function planSays({ id, goal, moves, power, state, because, origin }: PlanRecord): string {
  const done = moves.filter((move) => move.state === 'done').length;
  const progress = state.kind === 'running' ? `running, ${done} done` : state.kind;
  const why = 'because' in state ? state.because : origin === 'loop' ? because : 'asked for';
  const steps = [
    ...(moves.length === 0 && power.length > 0 ? [] : [`${moves.length} ${moves.length === 1 ? 'move' : 'moves'}`]),
    ...power.map(({ hostName, to }) => (to === 'wake' ? `${hostName} to be woken` : `${hostName} to sleep`)),
  ];
  return `${id} ${goal}, ${steps.join(', ')}: ${progress}: ${why}`;
}

/** "web1 h1 -> h2: Evens out CPU ...; expected gain 0.120, measured 0.115: 96 % of what was expected came" */
export function decisionSays(fleet: Names, decision: DecisionRecord): string {
  const { vmName, from, to, reason, expectedGain, measured, automatic } = decision;
  const expected = expectedGain === null ? '' : ` expected gain ${expectedGain.toFixed(3)}`;
  const came =
    measured === null
      ? ''
      : `, ${measured.gain === null ? '' : `measured ${measured.gain.toFixed(3)}: `}${measured.says}`;
  const who = automatic ? 'moved by itself' : 'moved as accepted';
  return `${vmName} ${fleet.hostName(from)} -> ${fleet.hostName(to)}, ${who}: ${reason}${expected}${came}`;
}

function scoreView({ total, parts }: Score): PlanView['score']['before'] {
  return { total, parts: parts.map((part) => ({ ...part })) };
}
