/**
 * A host is proven to run no guests: ONE commit says so, and all that follows from it. The host's stay is over (session +1); each
 * VM that should run there waits for another place (generation +1, its room freed); each move it takes part in learns of it.
 *
 *   running, starting -> waiting          recovery: restart
 *                     -> crashed          recovery: manual
 *   stopping          -> stopped
 *   creating          -> crashed          its files may be half there; starting it makes them anew, on a host that a person names
 *   on the move       -> its migration decides (migration/step.ts), now or by the other host's word
 *
 * The generation rises for moving VMs too: a copy that a wrong proof has left on the host is outdated when the host comes back.
 *
 * Not here: what the proof is (fencing.ts, recovery.ts), and where VMs are started again (restarts.ts).
 */
import type { Failure } from '../model/failure.ts';
import type { FenceProof, HostRecord } from '../model/host.ts';
import type { HostId, RecoveryId } from '../model/ids.ts';
import type { RecoveredVm, RecoveryRecord } from '../model/recovery.ts';
import type { VmRecord, VmState } from '../model/vm.ts';
import { isEnd } from '../migration/phases.ts';
import type { Draft, Fleet } from './fleet.ts';
import { take } from './migrations.ts';
import { settleGuestRoom } from './rooms.ts';

export interface Proof {
  readonly id: RecoveryId;
  readonly proof: FenceProof;
  readonly by: string;
  readonly because: string;
  readonly at: number;
  readonly silentSince: number | null;
  readonly detectedAt: number;
  /** `host`: its VMs and moves are not touched, they are settled elsewhere. */
  readonly what: 'all' | 'host';
}

/** Writes it all into the draft. @returns the record of the loss */
export function fence(draft: Draft, fleet: Fleet, host: HostRecord, proof: Proof): RecoveryRecord {
  const { at, because, by } = proof;
  const fenced = { at, proof: proof.proof, by, because };
  draft.putHost({ ...host, session: host.session + 1, fenced });
  const vms = proof.what === 'all' ? takeAway(draft, fleet, host, because, at) : [];
  const record: RecoveryRecord = {
    schema: 1,
    id: proof.id,
    host: host.id,
    hostName: host.name,
    silentSince: proof.silentSince,
    detectedAt: proof.detectedAt,
    fencedAt: at,
    proof: proof.proof,
    by,
    because,
    vms: vms.toSorted((a, b) => b.priority - a.priority || (a.vmName < b.vmName ? -1 : 1)),
    endedAt: null,
  };
  draft.putRecovery(record);
  return record;
}

/** Takes everything from the host that the records place there. */
function takeAway(draft: Draft, fleet: Fleet, host: HostRecord, because: string, at: number): RecoveredVm[] {
  const moving = fenceMoves(draft, fleet, host, at);
  const vms: RecoveredVm[] = [];
  for (const { id } of fleet.vms.values()) {
    const vm = draft.vm(id);
    if (vm === undefined) continue;
    if (moving.has(id)) {
      const kind = vm.state.kind === 'waiting' ? 'restart' : vm.state.kind === 'crashed' ? 'left' : 'move';
      vms.push(entry(vm, kind));
      draft.putVm({ ...vm, generation: vm.generation + 1 });
      continue;
    }
    if (vm.host !== host.id || vm.migration !== null) continue;
    const state = stateAfterLoss(vm, host.name, because, at);
    if (state === undefined) continue;
    const next = { ...vm, state, generation: vm.generation + 1 };
    draft.putVm(next);
    settleGuestRoom(draft, next);
    if (state.kind !== 'stopped') vms.push(entry(next, state.kind === 'waiting' ? 'restart' : 'left'));
  }
  return vms;
}

/** What becomes of a VM whose guest is gone with its host; undefined: nothing ran, and nothing changes. */
function stateAfterLoss(vm: VmRecord, host: string, proof: string, at: number): VmState | undefined {
  const because = `its host ${host} was lost: ${proof}`;
  switch (vm.state.kind) {
    case 'creating':
      return { kind: 'crashed', message: `its host ${host} was lost before its disks were made: ${proof}` };
    case 'starting':
    case 'running':
      return vm.recovery === 'restart'
        ? { kind: 'waiting', since: at, notBefore: at, because }
        : { kind: 'crashed', message: because };
    case 'stopping':
      return { kind: 'stopped' };
    case 'stopped':
    case 'waiting':
    case 'crashed':
    case 'deleting':
      return undefined;
  }
}

/** Tells every move in which the host takes part. @returns VMs that were on the move until now */
function fenceMoves(draft: Draft, fleet: Fleet, host: HostRecord, at: number): Set<VmRecord['id']> {
  const moving = new Set<VmRecord['id']>();
  for (const { id } of fleet.unsettledMigrations()) {
    const migration = draft.migration(id);
    if (migration === undefined || (migration.source !== host.id && migration.target !== host.id)) continue;
    if (!isEnd(migration.phase)) moving.add(migration.vm);
    const side = migration.source === host.id ? 'source' : 'target';
    const failure: Failure = {
      code: `${side}-host-lost`,
      message: `${host.name} was lost while ${migration.vmName} moved ${side === 'source' ? 'away from' : 'to'} it.`,
      hint: `\`drover vm show ${migration.vmName}\` says where it runs now.`,
    };
    take(draft, migration, { kind: `${side}-fenced`, migration: id, at, failure });
  }
  return moving;
}

function entry(vm: VmRecord, kind: RecoveredVm['kind']): RecoveredVm {
  return { vm: vm.id, vmName: vm.name, priority: vm.priority, kind, target: null, placedAt: null, startedAt: null };
}

/** Notes in every open record of a loss that the VM was placed, or runs. */
export function noteRecovered(
  draft: Draft,
  fleet: Fleet,
  vm: VmRecord['id'],
  news: { readonly placed: { readonly on: HostId; readonly at: number } } | { readonly startedAt: number },
): void {
  for (const { id, endedAt } of fleet.recoveries.values()) {
    const record = endedAt === null ? draft.recovery(id) : undefined;
    if (record === undefined || !record.vms.some((each) => each.vm === vm && each.startedAt === null)) continue;
    const vms = record.vms.map((each): RecoveredVm => {
      if (each.vm !== vm || each.startedAt !== null) return each;
      if ('placed' in news)
        return { ...each, kind: 'restart', target: news.placed.on, placedAt: each.placedAt ?? news.placed.at };
      return { ...each, startedAt: each.placedAt === null ? null : news.startedAt };
    });
    draft.putRecovery({ ...record, vms });
  }
}
