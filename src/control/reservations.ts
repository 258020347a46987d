/**
 * Beginning a move: every refusal comes before the one commit that reserves room on the target, opens the migration and
 * marks the VM. Until that commit nothing has changed, after it everything that is due follows from the record.
 *
 * Not here: what happens then (migrations.ts).
 */
import { UserError } from '../model/failure.ts';
import type { HostRecord } from '../model/host.ts';
import { newId } from '../model/ids.ts';
import { noMeasures, type Migration, type Policy, type Technique } from '../model/migration.ts';
import type { VmRecord } from '../model/vm.ts';
import { vmCan } from '../model/vm.ts';
import { outstanding } from '../migration/step.ts';
import { checkTechnique, completePolicy } from '../migration/techniques.ts';
import type { Clock } from '../runtime/clock.ts';
import type { Random } from '../runtime/random.ts';
import type { HandledOf } from '../wire/endpoints.ts';
import type { Draft, Fleet } from './fleet.ts';
import type { Forecasts } from './forecasts.ts';
import type { Health } from './health.ts';
import type { LoadHistory } from './load-history.ts';
import type { Liveness } from './liveness.ts';
import { needOf } from './need.ts';
import { freeMiB, hostsFor, placesFor, refusalOf } from './placement.ts';
import type { Site } from './placement.ts';
import type { RequestKey } from './requests.ts';
import { doneBefore, noteRequest } from './requests.ts';
import { settleMoveRoom } from './rooms.ts';

interface Parts {
  readonly fleet: Fleet;
  readonly liveness: Liveness;
  readonly health: Health;
  readonly forecasts: Forecasts;
  readonly loads: LoadHistory;
  readonly clock: Clock;
  readonly random: Random;
}
type MigrateBody = HandledOf<'migrateVm'>['body'];

export class Reservations {
  readonly #fleet: Fleet;
  readonly #liveness: Liveness;
  readonly #health: Health;
  readonly #loads: LoadHistory;
  readonly #forecasts: Forecasts;
  readonly #clock: Clock;
  readonly #random: Random;

  constructor({ fleet, liveness, health, loads, forecasts, clock, random }: Parts) {
    this.#fleet = fleet;
    this.#liveness = liveness;
    this.#health = health;
    this.#loads = loads;
    this.#forecasts = forecasts;
    this.#clock = clock;
    this.#random = random;
  }

  /**
   * Opens a migration, or with `dryRun` only says what it would be.
   * @param haste `measure-first`: may wait a moment for what its forecast needs, after it was found that it can begin
   * @param also what else is written in the same commit; may refuse by throwing
   * @throws UserError for everything that is in the way; then nothing has changed
   */
  async startMigration(
    ref: string,
    asked: MigrateBody,
    request: RequestKey | null,
    by: string,
    haste: 'at-once' | 'measure-first' = 'at-once',
    also?: (draft: Draft, migration: Migration) => void,
  ): Promise<Migration> {
    const looks = haste === 'measure-first' && asked.technique !== 'cold' && asked.holdMs === null;
    if (looks && (asked.dryRun || doneBefore(this.#fleet, request) === undefined)) {
      await this.startMigration(ref, { ...asked, dryRun: true }, null, by);
      await this.#forecasts.prepare(this.#fleet.findVm(ref), 'move');
    }
    return this.#fleet.change((draft) => {
      const before = asked.dryRun ? undefined : doneBefore(this.#fleet, request);
      if (before !== undefined) return this.#fleet.findMigration(before);
      const vm = this.#fleet.findVm(ref);
      const { technique } = asked;
      const to = asked.to === null ? null : this.#fleet.findHost(asked.to);
      const source = this.#checkVm(vm, technique, to);
      const given = withoutUndefined(asked.policy);
      const policy = completePolicy(technique, given);
      if (asked.holdMs !== null) checkHold(technique, policy, source);
      const [target] = this.#targets(vm, technique, policy, source, to);

      const startedAt = this.#clock.now();
      const id = newId('migration', startedAt, this.#random.bytes(8));
      const generation = vm.generation + 1;
      const { running } = vm;
      // How long a move is held says nobody before it is.
      const forecast = asked.holdMs === null ? this.#forecasts.of(vm, source, target, technique, given) : null;
      if (running === null) throw new Error(`${vm.name} runs, but nobody knows what`);
      const migration: Migration = {
        schema: 1,
        id,
        vm: vm.id,
        vmName: vm.name,
        source: source.id,
        target: target.id,
        technique,
        policy,
        why: [{ by, text: asked.why ?? 'asked for', at: startedAt }],
        generation,
        memoryMiB: vm.spec.memoryMiB,
        running,
        startedAt,
        cancelRequestedAt: null,
        giveUp: null,
        evidence: {},
        rounds: [],
        switchedToPostCopy: null,
        measures: noMeasures,
        ...(forecast ? { forecast } : {}),
        ...(asked.holdMs === null ? {} : { hold: { until: startedAt + asked.holdMs, switchRequestedAt: null } }),
        history: [{ phase: 'reserved', at: startedAt }],
        phase: 'reserved',
      };
      if (asked.dryRun) return migration;
      const moving: VmRecord = { ...vm, migration: id, generation };
      draft.putMigration(migration);
      draft.putVm(moving);
      settleMoveRoom(draft, migration, moving);
      noteRequest(draft, request, id, startedAt);
      also?.(draft, migration);
      return migration;
    });
  }

  /**
   * The hosts that could take a VM now by this technique, the one with most free room first.
   * @param rooms as they would be then; left out: as they are
   * @throws UserError what startMigration would say when there is none
   */
  targetsOf(vm: VmRecord, technique: Technique, to: HostRecord | null, rooms?: Site['fleet']['rooms']): HostRecord[] {
    const source = this.#checkVm(vm, technique, to);
    return this.#targets(vm, technique, completePolicy(technique, {}), source, to, rooms);
  }

  #checkVm(vm: VmRecord, technique: Technique, to: HostRecord | null): HostRecord {
    if (vm.migration !== null) {
      throw new UserError(
        'busy',
        `${vm.name} is on the move already: migration ${vm.migration} is open.`,
        `Wait for its end (drover migration show ${vm.migration}), or cancel it: drover migration cancel ${vm.migration}.`,
      );
    }
    if (!vmCan('migrate', vm.state)) {
      const off = vm.state.kind === 'stopped' || vm.state.kind === 'crashed';
      throw new UserError(
        'wrong-state',
        off
          ? `${vm.name} is off: there is nothing to move.`
          : `${vm.name} is ${vm.state.kind} and cannot be moved now.`,
        off
          ? `Start it there: drover vm start ${vm.name} --host ${to?.name ?? 'HOST'}.`
          : `Wait until it runs: drover vm show ${vm.name}.`,
      );
    }
    if (to?.id === vm.host) {
      throw new UserError('same-host', `${vm.name} runs on ${to.name} already.`, 'Choose another host with --to.');
    }
    if (vm.cannotMoveLive !== null && technique !== 'cold') {
      throw new UserError(
        'incompatible',
        `${vm.name} cannot move live: ${vm.cannotMoveLive}.`,
        'Use --technique cold, which starts the guest anew on the target.',
      );
    }
    const source = this.#fleet.hosts.get(vm.host);
    if (source === undefined || this.#liveness.isSilent(vm.host)) {
      const name = source?.name ?? vm.host;
      throw new UserError(
        'unreachable',
        `${name}, where ${vm.name} runs, is silent: its agent does not report.`,
        `Start the agent on ${name} again; the guest is not touched by that.`,
      );
    }
    return source;
  }

  #targets(
    vm: VmRecord,
    technique: Technique,
    policy: Policy,
    source: HostRecord,
    to: HostRecord | null,
    rooms: Site['fleet']['rooms'] | null = null,
  ): [HostRecord, ...HostRecord[]] {
    const { hosts, sleeps, drains, vms, migrations, balance } = this.#fleet;
    const vmNamed = (name: string) => this.#fleet.vmNamed(name);
    const vmsByName = () => this.#fleet.vmsByName();
    const besides = { hosts, sleeps, drains, vms, vmNamed, vmsByName, migrations, balance };
    const fleet = rooms === null ? this.#fleet : { ...besides, rooms };
    const site = { fleet, liveness: this.#liveness, health: this.#health, loads: this.#loads };
    const need = needOf(
      vm.name,
      vm.running?.spec ?? vm.spec,
      source,
      technique === 'cold' ? null : source.inventory.accel,
    );
    if (to !== null) {
      const refusal = refusalOf(site, need, to) ?? this.#leftover(vm, to);
      if (refusal) throw refusal;
      checkTechnique(technique, policy, source, to);
      return [to];
    }
    const others = [...this.#fleet.hosts.values()].filter(({ id }) => id !== source.id);
    const alsoRefuse = (host: HostRecord) => this.#leftover(vm, host) ?? refusalIn(technique, policy, source, host);
    if (rooms === null) return [...placesFor(site, need, others, alsoRefuse).hosts];
    // What else is to be moved there shows in the rooms alone, not in the load of the hosts.
    const places = hostsFor(site, need, others, alsoRefuse);
    const [best, ...rest] = places.toSorted((a, b) => freeMiB(site, b) - freeMiB(site, a));
    return [best ?? places[0], ...rest];
  }

  /** An earlier move's copy must be gone from there before a new one may come. */
  #leftover(vm: VmRecord, host: HostRecord): UserError | undefined {
    const earlier = this.#fleet
      .unsettledMigrations()
      .find((migration) => migration.vm === vm.id && migration.target === host.id && outstanding(migration).length > 0);
    if (earlier === undefined) return undefined;
    return new UserError(
      'busy',
      `${host.name} still clears away the copy of ${vm.name} from migration ${earlier.id}.`,
      'Try again in a moment, or choose another host.',
    );
  }
}

/** @throws UserError policy-conflict, incompatible */
function checkHold(technique: Technique, policy: Policy, source: HostRecord): void {
  if (technique !== 'pre-copy' && technique !== 'auto') {
    throw new UserError(
      'policy-conflict',
      `A move by ${technique} cannot be held ready: only a warm-up can.`,
      'Leave --technique out, or use --technique pre-copy.',
    );
  }
  if (policy.deadlineMs !== null) {
    throw new UserError(
      'policy-conflict',
      'A move that is held has no deadline of its own.',
      'Leave --deadline out: --hold says how long it is held.',
    );
  }
  const { hold } = source.inventory;
  if (hold?.ok === true) return;
  throw new UserError(
    'incompatible',
    `${source.name} cannot hold a move ready: ${hold?.reason ?? 'its agent is of an older version'}.`,
    'Update it, or move the VM without --hold.',
  );
}

function refusalIn(
  technique: Technique,
  policy: Policy,
  source: HostRecord,
  target: HostRecord,
): UserError | undefined {
  try {
    checkTechnique(technique, policy, source, target);
    return undefined;
  } catch (error) {
    if (error instanceof UserError) return error;
    throw error;
  }
}

/** What the caller left out is absent, not undefined. */
function withoutUndefined(policy: MigrateBody['policy']): Partial<Policy> {
  return Object.fromEntries(Object.entries(policy).filter(([, value]) => value !== undefined));
}
