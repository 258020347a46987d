/**
 * Hosts that are sick but alive lose their guests before they die, the most important first.
 *
 *   suspect -> each VM is warmed up to a target and held there (armed)     better again -> cancelled, nothing happened
 *   failing -> what is held switches at once, the rest moves live
 *
 * Everything follows from records, so a server that was killed goes on where it was.
 *
 * Not here: hosts that do not report (liveness.ts and what follows from silence).
 */
import { UserError } from '../model/failure.ts';
import type { Failing, HostRecord } from '../model/host.ts';
import type { HostId, VmId } from '../model/ids.ts';
import type { Migration } from '../model/migration.ts';
import type { VmRecord } from '../model/vm.ts';
import { isEnd } from '../migration/phases.ts';
import type { Clock } from '../runtime/clock.ts';
import type { Log } from '../runtime/log.ts';
import type { Fleet } from './fleet.ts';
import type { Health } from './health.ts';
import type { LiveEvents } from './live-events.ts';
import type { Liveness } from './liveness.ts';
import type { Migrations } from './migrations.ts';
import type { Reservations } from './reservations.ts';

/** Who asked, in the record of such a move. */
export const evacuator = 'evacuation';
/** Guests that leave one host at the same moment: more of them lengthen each other's pause. */
const movesAtOnce = 2;
export const holdForMs = 3_600_000;
const tryAgainAfterMs = 10_000;

interface Parts {
  readonly fleet: Fleet;
  readonly live: LiveEvents;
  readonly liveness: Liveness;
  readonly migrations: Migrations;
  readonly reservations: Reservations;
  readonly health: Health;
  /** Does somebody else see to it that guests leave this host? */
  readonly isDraining: (host: HostId) => boolean;
  readonly clock: Clock;
  readonly log: Log;
}

export class Evacuation {
  readonly #parts: Parts;
  /** By VM: why it cannot leave, and when that is looked at again (monotonic). */
  readonly #stuck = new Map<VmId, { readonly says: string; readonly againAt: number }>();
  readonly #announced = new Map<HostId, string>();

  constructor(parts: Parts) {
    this.#parts = parts;
  }

  /** VMs that could not leave a sick host when it was tried last. */
  stuck(): VmId[] {
    return [...this.#stuck.keys()];
  }

  /** Why a VM of a sick host has not left yet. */
  stuckOn(host: HostId): { readonly vm: VmRecord; readonly says: string }[] {
    return [...this.#stuck].flatMap(([id, { says }]) => {
      const vm = this.#parts.fleet.vms.get(id);
      return vm?.host === host ? [{ vm, says }] : [];
    });
  }

  /** Once a second. */
  async tick(): Promise<void> {
    for (const host of this.#parts.fleet.hosts.values()) {
      const sickness = this.#parts.health.sicknessOf(host);
      this.#announce(host, sickness);
      if (sickness === null || this.#parts.liveness.isSilent(host.id)) await this.#standDown(host, sickness);
      else if (!this.#parts.isDraining(host.id)) await this.#evacuate(host, sickness);
    }
  }

  #announce(host: HostRecord, sickness: Failing | null): void {
    const says = sickness === null ? '' : `${host.name} is ${sickness.severity}: ${sickness.because}`;
    if ((this.#announced.get(host.id) ?? '') === says) return;
    this.#announced.set(host.id, says);
    const { live, clock, log } = this.#parts;
    log.warn({ host: host.name }, says === '' ? 'nothing speaks against this host any more' : says);
    live.emit({
      kind: 'alarm',
      at: clock.now(),
      about: `host ${host.name}`,
      says: says === '' ? `nothing speaks against ${host.name} any more` : says,
    });
  }

  async #standDown(host: HostRecord, sickness: Failing | null): Promise<void> {
    if (sickness !== null) return;
    for (const { vm } of this.stuckOn(host.id)) this.#stuck.delete(vm.id);
    for (const migration of this.#openFrom(host.id)) {
      const held = migration.hold?.switchRequestedAt === null && isOurs(migration);
      if (held && migration.cancelRequestedAt === null) await this.#parts.migrations.cancel(migration.id);
    }
  }

  async #evacuate(host: HostRecord, sickness: Failing): Promise<void> {
    const open = this.#openFrom(host.id);
    const busy = open.filter(({ phase, hold }) => phase !== 'armed' || hold?.switchRequestedAt !== null).length;
    let free = movesAtOnce - busy;
    for (const vm of this.#leaving(host.id)) {
      if (free <= 0) return;
      const migration = open.find((each) => each.vm === vm.id);
      if (migration !== undefined) {
        if (sickness.severity !== 'failing' || migration.hold?.switchRequestedAt !== null) continue;
        await this.#parts.migrations.switchNow(migration.id);
        free--;
      } else if (await this.#begin(vm, host, sickness)) {
        free--;
      }
    }
  }

  /** The most important first. */
  #leaving(host: HostId): VmRecord[] {
    return [...this.#parts.fleet.vms.values()]
      .filter((vm) => vm.host === host && vm.state.kind === 'running')
      .toSorted((a, b) => b.priority - a.priority || (a.name < b.name ? -1 : 1));
  }

  /** @returns whether a move has begun */
  async #begin(vm: VmRecord, host: HostRecord, sickness: Failing): Promise<boolean> {
    const { fleet, reservations, clock, log } = this.#parts;
    const stuck = this.#stuck.get(vm.id);
    if (stuck && clock.monotonic() < stuck.againAt) return false;
    const holds = sickness.severity === 'suspect';
    if (holds && this.#wasHeldSince(vm, sickness.at)) return false;
    const why = `${host.name} is ${sickness.severity}: ${sickness.because}`;
    const body = { to: null, technique: holds ? 'pre-copy' : 'auto', policy: {}, why, dryRun: false } as const;
    try {
      await reservations.startMigration(vm.id, { ...body, holdMs: holds ? holdForMs : null }, null, evacuator);
      this.#stuck.delete(vm.id);
      return true;
    } catch (error) {
      if (!(error instanceof UserError)) throw error;
      const says = `${error.message} ${error.hint}`;
      this.#stuck.set(vm.id, { says, againAt: clock.monotonic() + tryAgainAfterMs });
      if (stuck?.says !== says) log.warn({ host: host.name, vm: fleet.vms.get(vm.id)?.name, says }, 'cannot leave');
      return false;
    }
  }

  /** Held once for this sickness and cancelled, by a person or because its time was over: not again for the same reason. */
  #wasHeldSince(vm: VmRecord, at: number): boolean {
    return [...this.#parts.fleet.migrations.values()].some(
      (migration) =>
        migration.vm === vm.id && migration.hold && migration.phase === 'cancelled' && migration.startedAt >= at,
    );
  }

  #openFrom(host: HostId): Migration[] {
    return this.#parts.fleet
      .unsettledMigrations()
      .filter((migration) => migration.source === host && !isEnd(migration.phase));
  }
}

function isOurs(migration: Migration): boolean {
  return migration.why[0]?.by === evacuator;
}
