/**
 * VMs that should run and have no host: placed where there is room, the most important first. Each placing is one commit with a
 * generation of its own; a VM that finds no room says why and is tried again when something has changed.
 *
 *   waiting -> starting -> running
 *           <- the dead host's lock is still on a disk: again for `lockWaitMs`, then ever later, and never without the lock
 *
 * Not here: how it came to wait (fence.ts), and what a host says of the start (guests.ts).
 */
import { UserError } from '../model/failure.ts';
import type { Failure } from '../model/failure.ts';
import type { HostRecord } from '../model/host.ts';
import type { HostId, VmId } from '../model/ids.ts';
import type { VmRecord, VmState } from '../model/vm.ts';
import { outstanding } from '../migration/step.ts';
import type { Clock } from '../runtime/clock.ts';
import type { Log } from '../runtime/log.ts';
import { noteRecovered } from './fence.ts';
import type { Draft, Fleet } from './fleet.ts';
import type { LiveEvents } from './live-events.ts';
import type { Health } from './health.ts';
import type { LoadHistory } from './load-history.ts';
import type { Liveness } from './liveness.ts';
import { needOf } from './need.ts';
import { choosePlace, refusalOf } from './placement.ts';
import { settleGuestRoom } from './rooms.ts';

/** While a lock may still go away by itself. */
const lockAgainAfterMs = 2_000;
/** A start that failed for another reason is tried on other hosts so often at once; then somebody is told, and it is tried ever more rarely. */
const startTries = 3;
const startAgainAfterMs = 2_000;
/** When somebody has been told the pauses grow to this. */
const longestPauseMs = 300_000;

interface Parts {
  readonly fleet: Fleet;
  readonly live: LiveEvents;
  readonly liveness: Liveness;
  readonly health: Health;
  readonly loads: LoadHistory;
  readonly clock: Clock;
  readonly log: Log;
  readonly lockWaitMs: number;
  /** Why nothing may be started for now; null: it may. */
  readonly held: () => string | null;
}

/** What went wrong with starts since the VM last ran: in memory, a new server tries as if nothing had. */
interface Tried {
  readonly since: number;
  readonly times: number;
  readonly locked: boolean;
  readonly hosts: readonly HostId[];
}

export class Restarts {
  readonly #fleet: Fleet;
  readonly #live: LiveEvents;
  readonly #liveness: Liveness;
  readonly #health: Health;
  readonly #loads: LoadHistory;
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #lockWaitMs: number;
  readonly #held: () => string | null;
  readonly #tried = new Map<VmId, Tried>();

  constructor({ fleet, live, liveness, health, loads, clock, log, lockWaitMs, held }: Parts) {
    this.#fleet = fleet;
    this.#live = live;
    this.#liveness = liveness;
    this.#health = health;
    this.#loads = loads;
    this.#clock = clock;
    this.#log = log;
    this.#lockWaitMs = lockWaitMs;
    this.#held = held;
    fleet.onCommit((changes) => {
      for (const change of changes) {
        if (change.kind === 'vm' && change.after?.state.kind !== 'starting' && change.after?.state.kind !== 'waiting')
          this.#tried.delete(change.before?.id ?? change.after!.id);
      }
    });
  }

  /** Places every VM that waits and may be placed now. */
  async place(): Promise<void> {
    if (this.#held() !== null) return;
    const waiting = [...this.#fleet.vms.values()]
      .filter(({ state, migration }) => state.kind === 'waiting' && migration === null)
      .toSorted((a, b) => b.priority - a.priority || (a.name < b.name ? -1 : 1));
    for (const { id } of waiting) await this.#fleet.change((draft) => this.#placeOne(draft, id));
  }

  /** Starts a waiting VM now. @param to null: where there is room. @throws UserError what stands in the way */
  placeNow(draft: Draft, vm: VmRecord, to: HostRecord | null): VmRecord {
    const blocked = mayStillRun(this.#fleet, vm.id);
    if (blocked !== undefined) {
      throw new UserError(
        'busy',
        `${vm.name} is not started yet: ${blocked}.`,
        'A second copy must never run beside it.',
      );
    }
    const home = this.#fleet.hosts.get(vm.host) ?? null;
    const tried = this.#tried.get(vm.id)?.hosts ?? [];
    const hosts = to === null ? [...this.#fleet.hosts.values()] : [to];
    const untried = hosts.filter(({ id }) => !tried.includes(id));
    const site = { fleet: this.#fleet, liveness: this.#liveness, health: this.#health, loads: this.#loads };
    const need = needOf(vm.name, vm.spec, home);
    // Where it was, if that is back; else wherever it was not tried in vain.
    const atHome = untried.filter((host) => host.id === home?.id && refusalOf(site, need, host) === undefined);
    const somewhere = untried.some((host) => refusalOf(site, need, host) === undefined) ? untried : hosts;
    const host = choosePlace(site, need, atHome.length > 0 ? atHome : somewhere);
    // One that never ran may have no disks yet: making them again loses nothing.
    const neverRan = vm.running === null && vm.provision.length > 0;
    const state: VmState = neverRan ? { kind: 'creating', thenStart: true } : { kind: 'starting' };
    const placed: VmRecord = { ...vm, host: host.id, generation: vm.generation + 1, state };
    draft.putVm(placed);
    settleGuestRoom(draft, placed);
    noteRecovered(draft, this.#fleet, vm.id, { placed: { on: host.id, at: this.#clock.now() } });
    return placed;
  }

  #placeOne(draft: Draft, id: VmId): void {
    const vm = draft.vm(id);
    if (vm?.state.kind !== 'waiting' || vm.migration !== null || vm.state.notBefore > this.#clock.now()) return;
    try {
      const { host } = this.placeNow(draft, vm, null);
      this.#log.info({ vm: vm.name, host: this.#fleet.hostName(host) }, 'a VM that waited is started');
    } catch (error) {
      if (!(error instanceof UserError)) throw error;
      if (vm.state.because !== error.message) draft.putVm({ ...vm, state: { ...vm.state, because: error.message } });
    }
  }

  /**
   * A VM that was placed from here could not be started.
   * @returns how it waits for the next try; undefined: it was started by a person
   */
  afterFailedStart(vm: VmRecord, failure: Pick<Failure, 'message' | 'detail'>): VmState | undefined {
    if (!isRecovered(this.#fleet, vm.id)) return undefined;
    const at = this.#clock.now();
    const locked = isDiskLock(failure);
    const before = this.#tried.get(vm.id) ?? { since: at, times: 0, locked, hosts: [] };
    const tried: Tried = {
      ...before,
      times: before.times + 1,
      locked,
      hosts: locked ? before.hosts : [...before.hosts, vm.host],
    };
    this.#tried.set(vm.id, tried);
    if (!locked) {
      const because = `it could not be started on ${this.#fleet.hostName(vm.host)}: ${failure.message}`;
      const tooMany = tried.times - startTries;
      if (tooMany === 0)
        this.#alarm(
          vm,
          `${vm.name} could not be started in ${startTries} tries: ${because}; it is tried again, ever more rarely`,
        );
      const pauseMs = Math.min(longestPauseMs, startAgainAfterMs * 2 ** Math.max(0, tooMany + 1));
      return { kind: 'waiting', since: at, notBefore: at + pauseMs, because };
    }
    const waitedMs = at - tried.since;
    const because = 'another QEMU still holds the lock of one of its disks: it is waited for, never broken';
    if (waitedMs < this.#lockWaitMs) return { kind: 'waiting', since: at, notBefore: at + lockAgainAfterMs, because };
    const seconds = Math.round(waitedMs / 1000);
    const says = `${vm.name} cannot be started: for ${seconds} s another QEMU has held the lock of one of its disks`;
    this.#alarm(vm, says);
    return { kind: 'waiting', since: at, notBefore: at + Math.min(longestPauseMs, waitedMs / 4), because };
  }

  #alarm({ name }: VmRecord, says: string): void {
    this.#log.warn({ vm: name }, says);
    this.#live.emit({ kind: 'alarm', at: this.#clock.now(), about: `vm ${name}`, says });
  }
}

/** Was the VM placed by the recovery from a lost host, and has not run since? */
function isRecovered(fleet: Fleet, vm: VmId): boolean {
  return [...fleet.recoveries.values()].some(
    ({ endedAt, vms }) =>
      endedAt === null && vms.some((each) => each.vm === vm && each.placedAt !== null && each.startedAt === null),
  );
}

/** QEMU's words when another process has the image open: block/file-posix.c. */
export function isDiskLock({ message, detail }: Pick<Failure, 'message' | 'detail'>): boolean {
  return /Failed to get (shared )?"(write|consistent read)" lock/.test(`${message} ${detail ?? ''}`);
}

/** A move that lost the guest may have left something of it on a host that has not answered and is not fenced. */
export function mayStillRun(fleet: Fleet, vm: VmId): string | undefined {
  for (const migration of fleet.unsettledMigrations()) {
    if (migration.vm !== vm || migration.phase !== 'failed' || migration.guest !== 'lost') continue;
    for (const { side } of outstanding(migration)) {
      const where = fleet.hostName(side === 'source' ? migration.source : migration.target);
      return `${where} may still hold its guest from migration ${migration.id} and has not answered yet`;
    }
  }
  return undefined;
}
