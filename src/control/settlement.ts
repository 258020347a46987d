/**
 * Records that went back in time, brought up to what the hosts hold: for one VM, its moves first, then where it runs. What a
 * host that has reported does not hold is not there, so a move that neither side knows any more is over, and a VM that nobody
 * runs is off. Nothing is started by this: a VM that no host runs may have been stopped, or deleted, since.
 *
 *   reports of all hosts -> facts that they prove -> step() -> the VM's record; orders for what must go
 *
 * Not here: waiting for the reports (held.ts).
 */
import type { Failure } from '../model/failure.ts';
import type { HostId, MigrationId, VmId } from '../model/ids.ts';
import { noMeasures } from '../model/migration.ts';
import type { Migration } from '../model/migration.ts';
import { defaultPriority, noPlacingRules } from '../model/vm.ts';
import type { VmRecord } from '../model/vm.ts';
import { isEnd } from '../migration/phases.ts';
import { outstanding, ownerSide } from '../migration/step.ts';
import type { MigrationFact } from '../migration/step.ts';
import type { KnownVm } from '../wire/agent.ts';
import type { Draft, Fleet } from './fleet.ts';
import { take } from './migrations.ts';
import { keepOrder } from './orders.ts';
import type { DueOrder } from './orders.ts';
import { putSettled, settleMoveRoom } from './rooms.ts';

export type Reports = ReadonlyMap<HostId, readonly KnownVm[]>;

interface Copy extends KnownVm {
  readonly host: HostId;
}

export interface Settled {
  readonly orders: readonly DueOrder[];
  /** What a person should look at. */
  readonly alarms: readonly string[];
}

type WithoutStamp<F> = F extends MigrationFact ? Omit<F, 'migration' | 'at'> : never;
type Proven = WithoutStamp<MigrationFact>;

/** Brings everything about one VM up to date. @param now ms since the epoch */
export function settleVm(draft: Draft, fleet: Fleet, id: VmId, reports: Reports, now: number): Settled {
  const copies = [...reports].flatMap(([host, known]): Copy[] =>
    known.filter(({ vm }) => vm === id).map((one) => ({ ...one, host })),
  );
  const alarms: string[] = [];
  if (draft.vm(id) === undefined && !adopt(draft, fleet, id, copies, now, alarms)) return { orders: [], alarms };
  const moves = [...fleet.unsettledMigrations().filter(({ vm }) => vm === id), ...rebuilt(draft, fleet, copies, now)];
  for (const move of moves.toSorted((a, b) => a.startedAt - b.startedAt)) settleMove(draft, move, copies, now);
  return settleWhere(draft, fleet, id, copies, moves, alarms);
}

/** Does its guest run there, or may it? */
function executes({ runs, part }: KnownVm): boolean {
  return runs && (part === 'runs' || part === 'sending' || part === 'powering-off' || part === 'continuing');
}

/* VMs that were made since */

function adopt(draft: Draft, fleet: Fleet, id: VmId, copies: readonly Copy[], now: number, alarms: string[]): boolean {
  const copy = newestFirst(copies).find(executes);
  if (copy === undefined) return false;
  const where = fleet.hostName(copy.host);
  if (copy.running === null) {
    alarms.push(`${where} runs a guest ${id} that no record knows, and cannot say what it is; it is kept`);
    return false;
  }
  const name = fleet.vmNameTaken(copy.name) ? `${copy.name}-${id.slice(-6).toLowerCase()}` : copy.name;
  draft.putVm({
    schema: 3,
    id,
    name,
    spec: copy.running.spec,
    running: copy.running,
    provision: [],
    state: { kind: 'running' },
    host: copy.host,
    generation: copy.generation,
    migration: null,
    labels: {},
    address: null,
    cannotMoveLive: null,
    createdAt: now,
    recovery: 'restart',
    restart: 'never',
    priority: defaultPriority,
    restarts: { count: 0, lastAt: 0 },
    placing: noPlacingRules,
  });
  alarms.push(`${name} was made after the time of the records; it runs on ${where} and is on record again`);
  return true;
}

/* Moves */

/** Moves that the records do not know, from the journals of their hosts. */
function rebuilt(draft: Draft, fleet: Fleet, copies: readonly Copy[], now: number): Migration[] {
  const made = new Map<MigrationId, Migration>();
  for (const source of copies) {
    const { job, targetPeer } = source;
    if (job === null || targetPeer === null || draft.migration(job.migration) !== undefined) continue;
    const target = [...fleet.hosts.values()].find(
      ({ inventory: { peer } }) => peer.address === targetPeer.address && peer.port === targetPeer.port,
    );
    if (target === undefined) continue;
    made.set(job.migration, {
      schema: 1,
      id: job.migration,
      vm: source.vm,
      vmName: job.vmName,
      source: source.host,
      target: target.id,
      technique: job.technique,
      policy: job.policy,
      why: [{ by: 'drover', text: 'found on its hosts by records that are older', at: now }],
      generation: source.generation,
      memoryMiB: job.running.spec.memoryMiB,
      running: job.running,
      startedAt: job.startedAt,
      cancelRequestedAt: null,
      giveUp: null,
      evidence: {},
      rounds: [],
      switchedToPostCopy: null,
      measures: noMeasures,
      history: [{ phase: 'reserved', at: job.startedAt }],
      phase: 'reserved',
    });
  }
  return [...made.values()];
}

function settleMove(draft: Draft, move: Migration, copies: readonly Copy[], now: number): void {
  const of = (host: HostId): Copy | undefined => copies.find((copy) => copy.host === host);
  const source = of(move.source);
  const target = of(move.target);
  const vm = draft.vm(move.vm);
  if (draft.migration(move.id) === undefined) {
    draft.putMigration(move);
    if (vm) settleMoveRoom(draft, move, vm);
  }
  if (vm && !isEnd(move.phase)) draft.putVm({ ...vm, migration: move.id });
  const proven = isEnd(move.phase) ? [] : provenBy(move, source, target);
  const note = (fact: Proven): void => {
    const latest = draft.migration(move.id) ?? move;
    take(draft, latest, { ...fact, migration: move.id, at: now });
  };
  for (const fact of proven) note(fact);
  // What is still to be cleared away where nothing is left is cleared away.
  for (const { side, kind } of outstanding(draft.migration(move.id) ?? move)) {
    const holds = (side === 'source' ? source : target)?.migration === move.id;
    if (!holds && kind === 'close') note({ kind: 'closed' });
    if (!holds && kind === 'release') note({ kind: 'released' });
  }
  const after = draft.migration(move.id);
  if (after === undefined || proven.length === 0) return;
  const why = { by: 'drover', text: 'brought up to date by what its hosts hold', at: now };
  draft.putMigration({ ...after, why: [...after.why, why] });
}

/** What both sides together prove of an open move. */
function provenBy(move: Migration, source: Copy | undefined, target: Copy | undefined): Proven[] {
  const sends = source?.migration === move.id ? source.part : null;
  const takes = target?.migration === move.id ? target.part : null;
  const arrived = target !== undefined && target.part === 'runs' && target.runs && target.generation >= move.generation;
  const stayed = source !== undefined && source.part === 'runs' && source.runs;
  const { evidence } = move;
  const cold = move.technique === 'cold';
  const facts: Proven[] = [];
  if (!cold && (sends !== null || takes !== null) && !evidence.listening) {
    facts.push({ kind: 'listening', endpoint: { address: '', port: 0 } });
  }
  if (sends !== null) facts.push({ kind: 'sending' });
  if (sends === 'handed-over') facts.push({ kind: 'handed-over' });
  if (takes === 'continuing' && sends !== null) facts.push({ kind: 'resumed', withFaults: sends === 'sending' });

  if (arrived) {
    if (cold) return [...facts, { kind: 'powered-off' }, { kind: 'resumed', withFaults: false }];
    const withFaults = sends === 'sending';
    facts.push({ kind: 'resumed', withFaults });
    if (withFaults || evidence.resumed?.withFaults) facts.push({ kind: 'all-pages-arrived' });
    return sends === null ? [...facts, { kind: 'released' }] : facts;
  }
  if (sends !== null || takes === 'continuing') return facts; // it goes on, and its hosts will tell
  if (evidence.resumed) {
    // It arrived, and more was decided since.
    if (cold) return facts;
    return [...facts, { kind: 'all-pages-arrived' }, { kind: 'released' }];
  }
  if (stayed) return [...facts, { kind: 'source-running', failure: null }];
  if (takes === 'receiving' && evidence.handedOver) return facts; // it is told to go
  return [...facts, { kind: 'source-lost', failure: endUnknown(move) }];
}

function endUnknown(move: Migration): Failure {
  return {
    code: 'end-unknown',
    message: `The move of ${move.vmName} was open at the time of the records, and is over; no host knows of it any more.`,
    hint: `See where it runs: drover vm show ${move.vmName}.`,
  };
}

/* Where the VM is */

function settleWhere(
  draft: Draft,
  fleet: Fleet,
  id: VmId,
  copies: readonly Copy[],
  moves: readonly Migration[],
  alarms: string[],
): Settled {
  const vm = draft.vm(id);
  if (vm === undefined) return { orders: [], alarms };
  const generation = Math.max(vm.generation, ...copies.map((copy) => copy.generation));
  const open = vm.migration === null ? undefined : draft.migration(vm.migration);
  if (open !== undefined && !isEnd(open.phase)) {
    const host = ownerSide(open) === 'target' ? open.target : open.source;
    const moving: VmRecord = { ...vm, host, generation, running: open.running, state: { kind: 'running' } };
    draft.putVm(moving);
    settleMoveRoom(draft, open, moving);
    return { orders: [], alarms };
  }

  const idle: VmRecord = { ...vm, generation, migration: null };
  const [best, ...others] = newestFirst(copies.filter(executes));
  if (best === undefined) {
    putSettled(draft, { ...idle, state: whenNowhere(vm) });
    return { orders: discards(draft, vm, generation, copies, moves), alarms };
  }
  const rivals = others.filter((other) => other.generation === best.generation);
  const kept = [best, ...rivals].find(({ host }) => host === vm.host) ?? best;
  for (const { host } of [best, ...rivals]) {
    if (host === kept.host) continue;
    alarms.push(`${fleet.hostName(host)} runs ${vm.name} too, by the same decision as ${fleet.hostName(kept.host)}`);
  }
  const unchanged = vm.host === kept.host && vm.generation >= kept.generation && vm.state.kind === 'stopping';
  const after: VmRecord = {
    ...idle,
    host: kept.host,
    running: kept.running ?? vm.running,
    state: unchanged ? vm.state : stateOf(kept),
  };
  putSettled(draft, after);
  const older = copies.filter(({ host, generation: its }) => host !== kept.host && its < best.generation);
  return { orders: [keepOrder(after), ...discards(draft, after, generation, older, moves)], alarms };
}

/** A cold move that nobody can rebuild has begun by shutting its guest down: it ends as a stop. */
function stateOf({ part, job }: Copy): VmRecord['state'] {
  if (part !== 'powering-off' || job === null) return { kind: 'running' };
  return { kind: 'stopping', force: job.policy.forceOff, timeoutMs: job.policy.shutdownTimeoutMs };
}

function whenNowhere({ state }: VmRecord): VmRecord['state'] {
  switch (state.kind) {
    case 'stopped':
    case 'crashed':
    case 'deleting':
      return state;
    case 'stopping':
      return { kind: 'stopped' };
    case 'creating':
    case 'starting':
    case 'running':
    case 'waiting': {
      const was = state.kind === 'running' ? 'ran' : `was ${state.kind}`;
      return {
        kind: 'crashed',
        message: `by older records it ${was}, and no host runs it now: it may have been stopped or deleted since`,
      };
    }
  }
}

/** Processes of this VM that belong to nothing any more. */
function discards(
  draft: Draft,
  vm: VmRecord,
  generation: number,
  copies: readonly Copy[],
  moves: readonly Migration[],
): DueOrder[] {
  const clearing = new Set(
    moves.flatMap(({ id }) => {
      const move = draft.migration(id);
      return move !== undefined && outstanding(move).length > 0 ? [move.id] : [];
    }),
  );
  return copies
    .filter(({ runs, migration }) => runs && (migration === null || !clearing.has(migration)))
    .map(({ host }) => ({ host, vm: vm.id, generation, body: { kind: 'discard' }, notAfter: null }));
}

function newestFirst(copies: readonly Copy[]): Copy[] {
  return copies.toSorted((a, b) => b.generation - a.generation);
}
