/**
 * Room on hosts: who holds how much memory where. Only bookkeeping on drafts; called in the same commit as whatever takes or
 * frees the room, so that it can never be taken without a reason on record or freed while something is still there.
 */
import type { HostId, MigrationId, VmId } from '../model/ids.ts';
import type { Migration } from '../model/migration.ts';
import type { VmRecord } from '../model/vm.ts';
import { ownerSide, targetIsClean } from '../migration/step.ts';
import type { Draft } from './fleet.ts';

/** Left to the host itself: its kernel, the agent, and what QEMU needs beside the guest's memory. */
const marginMiB = 512;

/** What guests may use: all memory but 512 MiB, or but a tenth on small hosts. */
export function capacityMiB(memoryMiB: number): number {
  return Math.max(0, Math.floor(memoryMiB - Math.min(marginMiB, memoryMiB / 10)));
}

/** Does this VM hold room on its host? From the decision to run it until its process is gone. */
export function holdsRoom(vm: VmRecord): boolean {
  switch (vm.state.kind) {
    case 'creating':
      return vm.state.thenStart;
    case 'starting':
    case 'running':
    case 'stopping':
      return true;
    case 'stopped':
    case 'waiting':
    case 'crashed':
    case 'deleting':
      return false;
  }
}

/** @param memoryMiB null: it holds none */
export function setGuestRoom(draft: Draft, host: HostId, vm: VmId, memoryMiB: number | null): void {
  const room = draft.room(host);
  if (room === undefined || (room.guestsMiB[vm] ?? null) === memoryMiB) return;
  draft.putRoom({ ...room, guestsMiB: withEntry(room.guestsMiB, vm, memoryMiB) });
}

/** @param memoryMiB null: it holds none */
export function setReservation(draft: Draft, host: HostId, migration: MigrationId, memoryMiB: number | null): void {
  const room = draft.room(host);
  if (room === undefined || (room.reservationsMiB[migration] ?? null) === memoryMiB) return;
  draft.putRoom({ ...room, reservationsMiB: withEntry(room.reservationsMiB, migration, memoryMiB) });
}

/** Brings the room of a VM that is not moving in line with its state. */
export function settleGuestRoom(draft: Draft, vm: VmRecord): void {
  setGuestRoom(draft, vm.host, vm.id, holdsRoom(vm) ? vm.spec.memoryMiB : null);
}

/**
 * Brings the room of both sides in line with what is proven of a move. The target's room stays reserved until its copy is
 * known to be gone, the source's is held until its process is.
 * @param vm as it is after the move's newest fact; undefined when it was deleted since
 */
export function settleMoveRoom(draft: Draft, migration: Migration, vm: VmRecord | undefined): void {
  const { source, target, memoryMiB, evidence } = migration;
  const arrived = ownerSide(migration) === 'target' && migration.phase !== 'failed';
  setReservation(draft, target, migration.id, arrived || targetIsClean(migration) ? null : memoryMiB);
  if (vm && vm.migration === migration.id && vm.host === target) settleGuestRoom(draft, vm);
  const livesOnSource = vm?.host === source && holdsRoom(vm);
  const released = migration.technique === 'cold' ? evidence.poweredOff : evidence.released;
  const sourceIsGone = released ?? evidence.sourceFenced;
  if (!livesOnSource && sourceIsGone) setGuestRoom(draft, source, migration.vm, null);
}

/** Writes a VM that is not on the move, with the room that follows from its state and place. */
export function putSettled(draft: Draft, vm: VmRecord): void {
  const before = draft.vm(vm.id);
  if (before && before.host !== vm.host) setGuestRoom(draft, before.host, vm.id, null);
  draft.putVm(vm);
  settleGuestRoom(draft, vm);
}

function withEntry<K extends string>(
  held: Readonly<Record<K, number>>,
  key: K,
  value: number | null,
): Readonly<Record<K, number>> {
  const { [key]: _, ...others } = held;
  // The cast: leaving one key out of a record and putting it back gives the same kind of record.
  return (value === null ? others : { ...others, [key]: value }) as Readonly<Record<K, number>>;
}
