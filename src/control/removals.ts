/**
 * VMs that are being deleted and whose host does not answer. Nothing of them runs there: only a VM that is off can be deleted.
 * So nobody waits for that host:
 *
 *   disks are kept                        its record goes
 *   another host shares all its pools     that one removes the files
 *   only that host has them               on record until it is back, or is removed itself
 *
 * What the silent host's journal still knows of the VM goes when it says hello (guests.ts).
 */
import type { HostRecord } from '../model/host.ts';
import type { VmId } from '../model/ids.ts';
import type { VmRecord } from '../model/vm.ts';
import type { Clock } from '../runtime/clock.ts';
import type { Log } from '../runtime/log.ts';
import { blindAfterMs } from './fencing.ts';
import type { Draft, Fleet } from './fleet.ts';
import type { LiveEvents } from './live-events.ts';
import type { Liveness } from './liveness.ts';
import { putSettled } from './rooms.ts';

interface Parts {
  readonly fleet: Fleet;
  readonly live: LiveEvents;
  readonly liveness: Liveness;
  readonly clock: Clock;
  readonly log: Log;
}

export class Removals {
  readonly #parts: Parts;
  /** In memory: a new server says it once more. */
  readonly #told = new Set<VmId>();

  constructor(parts: Parts) {
    this.#parts = parts;
  }

  /** Once a second. */
  async tick(): Promise<void> {
    const { fleet } = this.#parts;
    for (const vm of fleet.vms.values()) {
      if (this.#isAlone(vm)) await fleet.change((draft) => this.#takeOver(draft, vm.id));
    }
  }

  /** Is it being deleted, and its host has not answered for a while? */
  #isAlone({ state, host }: VmRecord): boolean {
    const { fleet, liveness } = this.#parts;
    if (state.kind !== 'deleting') return false;
    const home = fleet.hosts.get(host);
    // An agent that is only being upgraded is waited for.
    return home !== undefined && (home.fenced !== null || liveness.silentMs(host) > blindAfterMs);
  }

  #takeOver(draft: Draft, id: VmId): void {
    const { fleet, log } = this.#parts;
    const vm = draft.vm(id);
    const home = vm && fleet.hosts.get(vm.host);
    if (vm?.state.kind !== 'deleting' || home === undefined || !this.#isAlone(vm)) return;
    if (vm.state.disks === 'keep' || vm.provision.length === 0) {
      log.info({ vm: vm.name, host: home.name }, 'deleted without its host, which does not answer');
      return draft.removeVm(vm);
    }
    const other = this.#whoShares(vm, home);
    if (other) {
      log.info({ vm: vm.name, host: other.name }, `its disks are removed here: ${home.name} does not answer`);
      return putSettled(draft, { ...vm, host: other.id, generation: vm.generation + 1 });
    }
    this.#tell(vm, home);
  }

  #whoShares({ provision }: VmRecord, home: HostRecord): HostRecord | undefined {
    const { fleet, liveness } = this.#parts;
    const pools = new Set(provision.map(({ pool }) => pool));
    return [...fleet.hosts.values()].find((host) => {
      if (host.id === home.id || host.fenced !== null || liveness.isSilent(host.id)) return false;
      const [here, there] = [host.inventory.poolIds ?? {}, home.inventory.poolIds ?? {}];
      return [...pools].every((pool) => here[pool] !== undefined && here[pool] === there[pool]);
    });
  }

  #tell(vm: VmRecord, home: HostRecord): void {
    if (this.#told.has(vm.id)) return;
    this.#told.add(vm.id);
    const { live, clock, log } = this.#parts;
    const about = `vm ${vm.name}`;
    const says = `${vm.name} is deleted when ${home.name}, which alone is known to have its disks, is back`;
    log.warn({ about }, says);
    live.emit({ kind: 'alarm', at: clock.now(), about, says });
  }
}

/** Files of a VM, for people. */
export function diskFiles({ spec }: VmRecord): string[] {
  return spec.disks.map(({ pool, file }) => `${pool}:${file}`);
}
