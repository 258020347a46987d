/**
 * What a guest does with its memory, looked at when the server asks. A guest on the move is left alone: looking takes CPU that the move
 * needs, and what it would see is the move.
 */
import type { Guest } from '../hypervisor/hypervisor.ts';
import { messageOf } from '../model/failure.ts';
import type { MemoryUse } from '../model/forecast.ts';
import type { VmId } from '../model/ids.ts';
import type { Guests } from './guests.ts';

export interface Measurement {
  /** Null: not measured, and `says` why. */
  readonly memory: MemoryUse | null;
  readonly says: string;
}

export class Measuring {
  readonly #guests: Pick<Guests, 'running' | 'part'>;
  readonly #busy = new Map<VmId, Promise<Measurement>>();

  constructor(guests: Pick<Guests, 'running' | 'part'>) {
    this.#guests = guests;
  }

  /** Guests that are being looked at. */
  get busy(): number {
    return this.#busy.size;
  }

  /** Asked for again meanwhile: the same answer for both. */
  measure(vm: VmId): Promise<Measurement> {
    const busy = this.#busy.get(vm);
    if (busy) return busy;
    const guest = this.#guests.running.get(vm);
    const { kind } = this.#guests.part(vm);
    if (!guest || kind !== 'runs')
      return Promise.resolve({ memory: null, says: `its guest is ${guest ? kind : 'not here'}` });
    const looking = look(guest).finally(() => this.#busy.delete(vm));
    this.#busy.set(vm, looking);
    return looking;
  }
}

async function look(guest: Guest): Promise<Measurement> {
  try {
    return { memory: await guest.memoryUse(), says: '' };
  } catch (error) {
    return { memory: null, says: messageOf(error) };
  }
}
