/** Drains as the API shows them, and the sentence that tells how one stands. */
import type { DrainedVm, DrainRecord } from '../model/drain.ts';
import type { Migration } from '../model/migration.ts';
import { formatMs } from '../model/units.ts';
import { isEnd, saysOf } from '../migration/phases.ts';
import type { Clock } from '../runtime/clock.ts';
import type { DrainView } from '../wire/drains.ts';
import type { MovesPlan } from './drain-plan.ts';
import type { Drains } from './drains.ts';
import type { Fleet } from './fleet.ts';
import type { Forecasts } from './forecasts.ts';
import type { LiveEvents } from './live-events.ts';
import { costOf } from './move-costs.ts';
import { holdsRoom } from './rooms.ts';

interface Seen {
  readonly fleet: Fleet;
  readonly live: LiveEvents;
  readonly forecasts: Pick<Forecasts, 'of'>;
  readonly drains: Drains;
  readonly clock: Clock;
}

type VmRow = DrainView['vms'][number];

const noPlan: MovesPlan = { moves: [], cannot: [], bytes: 0, ms: 0 };
/** An open move that should be over by its forecast is given so much more. */
const leastMs = 1_000;
const namesShown = 3;

/** @param plan as it was just made for this record; left out: made anew */
export function drainView(seen: Seen, drain: DrainRecord, plan?: MovesPlan): DrainView {
  const { fleet, drains } = seen;
  const { state, blocked, emptyAt, startedAt } = drain;
  const goesOn = state.kind === 'draining' || state.kind === 'returning';
  const ahead = plan ?? (goesOn ? drains.progress.recentPlan(drain) : noPlan);
  const vms = drain.vms
    .flatMap((entry) => vmRow(seen, drain, entry, ahead))
    .toSorted((a, b) => b.priority - a.priority || (a.name < b.name ? -1 : 1));
  const { total, done } = countsOf(drain, vms);
  const view: Omit<DrainView, 'says'> = {
    id: drain.id,
    host: drain.hostName,
    state: state.kind,
    by: drain.by,
    because: drain.because,
    startedAt,
    emptyAt,
    endedAt: state.kind === 'undrained' || state.kind === 'cancelled' ? state.at : null,
    movesAtOnce: drain.movesAtOnce,
    allowCold: drain.allowCold,
    cordoned: fleet.hosts.get(drain.host)?.cordoned ?? false,
    estimate: { ...drain.estimate },
    returnEstimate: drain.returnEstimate && { ...drain.returnEstimate },
    tookMs: emptyAt === null ? null : Math.max(0, emptyAt - startedAt),
    etaMs: goesOn && blocked === null && done < total ? etaOf(seen, drain, ahead) : null,
    total,
    done,
    remaining: [...fleet.vms.values()].filter((vm) => vm.host === drain.host && holdsRoom(vm)).length,
    blocked: blocked && { ...blocked },
    vms,
  };
  return { ...view, says: saysOfDrain(view, state.kind === 'cancelled' ? state.because : '') };
}

function vmRow({ fleet, clock }: Seen, drain: DrainRecord, entry: DrainedVm, ahead: MovesPlan): VmRow[] {
  const vm = fleet.vms.get(entry.vm);
  if (vm === undefined) return [];
  const migration = vm.migration === null ? undefined : fleet.migrations.get(vm.migration);
  const planned = ahead.moves.find((move) => move.vm.id === vm.id);
  const { stuck, stays, failures } = entry;
  const state = rowState(drain, entry, vm.host === drain.host, holdsRoom(vm), migration !== undefined);
  const to = migration?.target ?? planned?.to ?? null;
  const moves = migration && (state === 'moving' || state === 'returning');
  const says = moves ? `${saysOf(migration)}, for ${formatMs(clock.now() - migration.startedAt)}` : null;
  return [
    {
      vm: vm.id,
      name: vm.name,
      priority: vm.priority,
      memoryMiB: vm.spec.memoryMiB,
      state,
      host: fleet.hostName(vm.host),
      to: to === null || to === vm.host ? null : fleet.hostName(to),
      technique: migration?.technique ?? planned?.technique ?? null,
      migration: migration?.id ?? null,
      failures,
      since: stuck?.since ?? migration?.startedAt ?? null,
      says:
        state === 'off'
          ? `is ${vm.state.kind}: it stays there, and nothing of it runs`
          : (says ?? stuck?.says ?? stays?.says ?? null),
      next: state === 'stuck' ? (stuck?.next ?? null) : null,
    },
  ];
}

function rowState(
  { state: { kind } }: DrainRecord,
  { left, backAt, stays, stuck }: DrainedVm,
  isHome: boolean,
  isOn: boolean,
  moves: boolean,
): VmRow['state'] {
  const held = stuck?.kind === 'busy';
  switch (kind) {
    case 'draining':
      if (moves && !held) return 'moving';
      if (!isHome) return 'left';
      if (!isOn) return 'off';
      return stuck === null ? 'queued' : 'stuck';
    case 'returning':
      if (moves && !held) return 'returning';
      if (left === null) return isOn ? 'remained' : 'off';
      if (backAt !== null) return 'back';
      if (stays !== null) return stays.gaveUp ? 'gave-up' : 'stays';
      return stuck === null ? 'queued' : 'stuck';
    case 'drained':
    case 'undrained':
    case 'cancelled':
      if (backAt !== null) return 'back';
      if (stays !== null) return stays.gaveUp ? 'gave-up' : 'stays';
      if (left !== null) return 'left';
      return isOn ? 'remained' : 'off';
  }
}

function countsOf({ state: { kind } }: DrainRecord, vms: readonly VmRow[]): { total: number; done: number } {
  const inState = (...states: VmRow['state'][]): number => vms.filter(({ state }) => states.includes(state)).length;
  if (kind === 'returning' || kind === 'undrained') {
    const done = inState('back', 'stays', 'gave-up');
    return { total: done + inState('queued', 'stuck', 'returning', 'left'), done };
  }
  return { total: vms.length - inState('off'), done: inState('left') };
}

/** The moves that run, and then those that are planned; null: there are none. */
function etaOf(seen: Seen, drain: DrainRecord, ahead: MovesPlan): number | null {
  const running = drain.vms.flatMap(({ vm }) => {
    const open = seen.fleet.vms.get(vm)?.migration ?? null;
    const migration = open === null ? undefined : seen.fleet.migrations.get(open);
    return migration === undefined || isEnd(migration.phase) ? [] : [leftOf(seen, migration)];
  });
  const planned = ahead.moves.length === 0 ? 0 : ahead.ms;
  if (running.length === 0) return planned === 0 ? null : planned;
  return planned === 0 ? Math.max(...running) : Math.max(Math.max(...running), Math.min(...running) + planned);
}

function leftOf(seen: Seen, migration: Migration): number {
  const { fleet, live, clock } = seen;
  const sample = live.sampleOf(migration.id);
  if (sample !== undefined && sample.bandwidthBytesPerSecond > 0) {
    return leastMs + (1000 * sample.remainingBytes) / sample.bandwidthBytesPerSecond;
  }
  const vm = fleet.vms.get(migration.vm);
  if (vm === undefined) return leastMs;
  const { transferMs, fixedMs } = costOf(seen, vm, migration.target, migration.technique);
  return Math.max(leastMs, transferMs + fixedMs - (clock.now() - migration.startedAt));
}

/** "h1 is drained: 3 of 5 VMs have left; web1 and db1 on the move; about 2 min 5 s left" */
function saysOfDrain(view: Omit<DrainView, 'says'>, because: string): string {
  const { host, state, done, total, etaMs, tookMs, remaining, blocked, vms } = view;
  const named = (...states: VmRow['state'][]): string => {
    const names = vms.filter((row) => states.includes(row.state)).map(({ name }) => name);
    const more = names.length > namesShown ? ` and ${names.length - namesShown} others` : '';
    return names.slice(0, namesShown).join(', ') + more;
  };
  const moving = named('moving', 'returning');
  const stuck = named('stuck');
  const eta = etaMs === null ? [] : [`about ${formatMs(etaMs)} left`];
  const onTheMove = moving === '' ? [] : [`${moving} on the move`];
  switch (state) {
    case 'draining': {
      const cannot = blocked ? [`it does not go on: ${blocked.says}`] : stuck === '' ? [] : [`${stuck} cannot leave`];
      return `${host} is being drained: ${[`${done} of ${total} VMs have left`, ...onTheMove, ...cannot, ...eta].join('; ')}`;
    }
    case 'drained':
      return `${host} is drained: no guest is left, ${done} moved in ${formatMs(tookMs ?? 0)}`;
    case 'returning': {
      const cannot = stuck === '' ? [] : [`${stuck} cannot come`];
      return `${host} gets its VMs back: ${[`${done} of ${total} are done`, ...onTheMove, ...cannot, ...eta].join('; ')}`;
    }
    case 'undrained': {
      const stays = named('stays', 'gave-up');
      const back = vms.filter((row) => row.state === 'back').length;
      return `${host} is undrained: ${back} of ${total} VMs are back${stays === '' ? '' : `; ${stays} stay where they are`}`;
    }
    case 'cancelled':
      return `the drain of ${host} was cancelled (${because}): ${done} of ${total} VMs had left, ${remaining} run there`;
  }
}
