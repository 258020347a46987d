/**
 * What becomes of a VM whose guest ended without being told to: left alone, or started again, ever later while it keeps
 * ending. Pure; starting what waits is restarts.ts.
 */
import type { VmRecord } from '../model/vm.ts';

const firstPauseMs = 1_000;
const longestPauseMs = 300_000;
/** A guest that lived so long has ended of something new: the pauses begin again with the first. */
const calmMs = 600_000;

export interface Ending {
  /** `died`: its process, its kernel, or the move it was on. */
  readonly how: 'died' | 'powered-off';
  readonly message: string;
  readonly at: number;
}

export function afterItsEnd(vm: VmRecord, { how, message, at }: Ending): VmRecord {
  const again = vm.restart === 'always' || (vm.restart === 'on-failure' && how === 'died');
  if (!again) return { ...vm, state: how === 'died' ? { kind: 'crashed', message } : { kind: 'stopped' } };
  const count = at - vm.restarts.lastAt > calmMs ? 0 : vm.restarts.count;
  const notBefore = at + Math.min(longestPauseMs, firstPauseMs * 2 ** count);
  const because = message === '' ? 'its guest powered itself off' : message;
  return {
    ...vm,
    generation: vm.generation + 1,
    state: { kind: 'waiting', since: at, notBefore, because },
    restarts: { count: count + 1, lastAt: at },
  };
}
