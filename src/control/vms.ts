/**
 * What users ask of VMs: create, start, stop, delete. Each request is checked whole, then becomes one commit; the orders that
 * follow are worked out from the record.
 *
 * Not here: moving (reservations.ts), and what hosts report (guests.ts).
 */
import { isDeepStrictEqual } from 'node:util';
import { UserError } from '../model/failure.ts';
import type { HostRecord } from '../model/host.ts';
import { newId } from '../model/ids.ts';
import type { Boot, DiskSpec, PlacingRules, Provision, VmRecord, VmSpec, VmState } from '../model/vm.ts';
import { noPlacingRules, vmCan } from '../model/vm.ts';
import { outstanding } from '../migration/step.ts';
import type { Clock } from '../runtime/clock.ts';
import type { Random } from '../runtime/random.ts';
import type { HandledOf } from '../wire/endpoints.ts';
import type { PlacingChanges } from '../wire/placing.ts';
import type { Draft, Fleet } from './fleet.ts';
import type { Health } from './health.ts';
import type { LoadHistory } from './load-history.ts';
import type { Liveness } from './liveness.ts';
import { labelsAfter } from './labels.ts';
import { needOf } from './need.ts';
import type { Need } from './need.ts';
import { placesFor, refusalOf, sleeperFor } from './placement.ts';
import type { Site } from './placement.ts';
import type { RequestKey } from './requests.ts';
import { doneBefore, noteRequest } from './requests.ts';
import type { Restarts } from './restarts.ts';
import { settleGuestRoom } from './rooms.ts';

interface Parts {
  readonly fleet: Fleet;
  readonly liveness: Liveness;
  readonly restarts: Restarts;
  readonly health: Health;
  readonly loads: LoadHistory;
  readonly clock: Clock;
  readonly random: Random;
}
type NewVm = HandledOf<'createVm'>['body'];
interface DryRun {
  readonly dryRun?: boolean;
}

export class Vms {
  readonly #fleet: Fleet;
  readonly #liveness: Liveness;
  readonly #health: Health;
  readonly #loads: LoadHistory;
  readonly #restarts: Restarts;
  readonly #clock: Clock;
  readonly #random: Random;

  constructor({ fleet, liveness, health, loads, restarts, clock, random }: Parts) {
    this.#fleet = fleet;
    this.#liveness = liveness;
    this.#health = health;
    this.#loads = loads;
    this.#restarts = restarts;
    this.#clock = clock;
    this.#random = random;
  }

  /** @throws UserError already-exists, not-found, invalid-input, and the refusals of placement */
  async create(wanted: NewVm, request: RequestKey | null): Promise<VmRecord> {
    return (await this.createSaying(wanted, request)).vm;
  }

  /** The same, with why it is on its host; null: that was said, or the request is an old one. */
  async createSaying(wanted: NewVm, request: RequestKey | null): Promise<{ vm: VmRecord; because: string | null }> {
    return this.#fleet.change((draft) => {
      const before = doneBefore(this.#fleet, request);
      if (before !== undefined) return { vm: this.#fleet.findVm(before), because: null };
      if (this.#fleet.vmNameTaken(wanted.name)) {
        throw new UserError(
          'already-exists',
          `There is a VM '${wanted.name}' already.`,
          `Choose another name, or delete it first: drover vm delete ${wanted.name}.`,
        );
      }
      const createdAt = this.#clock.now();
      const id = newId('vm', createdAt, this.#random.bytes(8));
      const { spec, provision } = this.#specOf(wanted, id);
      const placing = this.#placingOf(noPlacingRules, wanted.placing);
      const need = { ...needOf(wanted.name, spec), placing, leavesSpare: wanted.start };
      const place = { fleet: this.#fleet, liveness: this.#liveness, health: this.#health, loads: this.#loads };
      // A VM that is not to be started needs no room yet.
      const needNow = wanted.start ? need : { ...need, memoryMiB: 0 };
      let host: HostRecord;
      let because: string | null = null;
      let waits: VmState | null = null;
      if (wanted.host === null) {
        const places = this.#placesOrSleeper(place, needNow, wanted.start);
        host = places.host;
        because = places.because;
        waits = places.waits;
      } else {
        host = this.#fleet.findHost(wanted.host);
        const refusal = refusalOf(place, needNow, host);
        if (refusal) throw refusal;
      }
      const vm: VmRecord = {
        schema: 3,
        id,
        name: wanted.name,
        spec,
        running: null,
        provision,
        state:
          waits ??
          (provision.length > 0
            ? { kind: 'creating', thenStart: wanted.start }
            : { kind: wanted.start ? 'starting' : 'stopped' }),
        host: host.id,
        generation: 1,
        migration: null,
        labels: wanted.labels,
        address: wanted.address,
        cannotMoveLive: null,
        createdAt,
        recovery: wanted.recovery,
        restart: wanted.restart,
        priority: wanted.priority,
        restarts: { count: 0, lastAt: 0 },
        placing,
      };
      put(draft, vm);
      noteRequest(draft, request, id, createdAt);
      return { vm, because };
    }, wanted);
  }

  /**
   * @param to null: where it ran last; where that sleeps or is full, it waits until a host is woken for it
   * @throws UserError not-found, wrong-state, busy, and the refusals of placement
   */
  async start(ref: string, to: string | null, how: DryRun = {}): Promise<VmRecord> {
    const { id } = this.#fleet.findVm(ref);
    return this.#fleet.change((draft) => {
      const vm = present(draft, id, ref);
      refuseWhileMoving(vm);
      refuseState(vm, 'start');
      if (vm.state.kind === 'waiting') {
        return this.#restarts.placeNow(draft, vm, to === null ? null : this.#fleet.findHost(to));
      }
      const host = to === null ? this.#fleet.hosts.get(vm.host) : this.#fleet.findHost(to);
      if (host === undefined) {
        throw new UserError(
          'not-found',
          `The host where ${vm.name} ran last is gone.`,
          `Say where: drover vm start ${vm.name} --host HOST.`,
        );
      }
      const place = { fleet: this.#fleet, liveness: this.#liveness, health: this.#health, loads: this.#loads };
      const home = this.#fleet.hosts.get(vm.host) ?? null;
      const need = needOf(vm.name, vm.spec, home);
      const leftover = this.#leftover(vm, host);
      if (leftover) throw leftover;
      const refusal = refusalOf(place, need, host);
      if (refusal && to === null && sleeperFor(place, need, [...this.#fleet.hosts.values()]) !== undefined) {
        const waits: VmRecord = { ...vm, generation: vm.generation + 1, state: this.#waiting(refusal) };
        put(draft, waits);
        return waits;
      }
      if (refusal) throw refusal;
      // A VM that never ran may lack its disks: making them again loses nothing.
      const neverRan = vm.running === null && vm.provision.length > 0;
      const next: VmRecord = {
        ...vm,
        host: host.id,
        generation: vm.generation + 1,
        state: neverRan ? { kind: 'creating', thenStart: true } : { kind: 'starting' },
      };
      put(draft, next);
      return next;
    }, how);
  }

  /** @throws UserError not-found, wrong-state, busy */
  async stop(
    ref: string,
    { force, timeoutMs, ...how }: { force: boolean; timeoutMs: number } & DryRun,
  ): Promise<VmRecord> {
    const { id } = this.#fleet.findVm(ref);
    return this.#fleet.change((draft) => {
      const vm = present(draft, id, ref);
      refuseWhileMoving(vm);
      refuseState(vm, 'stop');
      const asked = vm.state.kind === 'stopping' && (vm.state.force || !force);
      if (asked) return vm;
      const next: VmRecord = {
        ...vm,
        generation: vm.generation + 1,
        // No host has anything of a VM that waits for one.
        state: vm.state.kind === 'waiting' ? { kind: 'stopped' } : { kind: 'stopping', force, timeoutMs },
      };
      put(draft, next);
      return next;
    }, how);
  }

  /** Changes what is no matter of its generation: nothing it runs depends on it. @param check of what it is before. @throws UserError not-found */
  async update(
    ref: string,
    changes: HandledOf<'updateVm'>['body'],
    check: (vm: VmRecord) => void = () => {},
  ): Promise<VmRecord> {
    const { id } = this.#fleet.findVm(ref);
    return this.#fleet.change((draft) => {
      const vm = present(draft, id, ref);
      check(vm);
      const { recovery = vm.recovery, restart = vm.restart, priority = vm.priority } = changes;
      const placing = this.#placingOf(vm.placing, changes.placing ?? {});
      const labels = changes.labels === undefined ? vm.labels : labelsAfter(vm.labels, changes.labels);
      const next: VmRecord = { ...vm, recovery, restart, priority, placing, labels };
      if (!isDeepStrictEqual(next, vm)) draft.putVm(next);
      return next;
    });
  }

  /** @throws UserError not-found, wrong-state, busy */
  async remove(ref: string, disks: 'keep' | 'delete', how: DryRun = {}): Promise<VmRecord> {
    const { id } = this.#fleet.findVm(ref);
    return this.#fleet.change((draft) => {
      const vm = present(draft, id, ref);
      refuseWhileMoving(vm);
      refuseState(vm, 'delete');
      const leftover = this.#leftover(vm, null);
      if (leftover) throw leftover;
      const next: VmRecord = { ...vm, generation: vm.generation + 1, state: { kind: 'deleting', disks } };
      put(draft, next);
      return next;
    }, how);
  }

  /** The best place; where there is none but a host that sleeps could take it, the VM waits until that is awake. @throws as placesFor */
  #placesOrSleeper(
    place: Site,
    need: Need,
    starts: boolean,
  ): { readonly host: HostRecord; readonly because: string; readonly waits: VmState | null } {
    const hosts = [...this.#fleet.hosts.values()];
    try {
      const { hosts: best, because } = placesFor(place, need, hosts);
      return { host: best[0], because, waits: null };
    } catch (error) {
      const sleeper = starts ? sleeperFor(place, need, hosts) : undefined;
      if (!(error instanceof UserError) || sleeper === undefined) throw error;
      return { host: sleeper, because: `${sleeper.name} is woken for it.`, waits: this.#waiting(error) };
    }
  }

  #waiting({ message }: UserError): VmState {
    return { kind: 'waiting', since: this.#clock.now(), notBefore: 0, because: message };
  }

  /** What is not said stays. @throws UserError not-found for a host that is not there */
  #placingOf(before: PlacingRules, changes: PlacingChanges): PlacingRules {
    const { apart = before.apart, together = before.together, pinnedTo = before.pinnedTo } = changes;
    const inBoth = apart.find((group) => together.includes(group));
    if (inBoth !== undefined) {
      throw new UserError(
        'invalid-input',
        `The group '${inBoth}' cannot be kept apart and together at once.`,
        'Give the two groups different names.',
      );
    }
    return {
      apart: unique(apart),
      together: unique(together),
      pinnedTo: pinnedTo && unique(pinnedTo.map((host) => this.#fleet.findHost(host).name)),
    };
  }

  /**
   * A move may have left something of the guest on a host that has not answered yet. Where the guest was lost, that may still
   * run; otherwise it is a paused copy, which is only in the way on its own host.
   */
  #leftover(vm: VmRecord, goingTo: HostRecord | null): UserError | undefined {
    for (const migration of this.#fleet.unsettledMigrations()) {
      if (migration.vm !== vm.id) continue;
      const lost = migration.phase === 'failed' && migration.guest === 'lost';
      for (const { side } of outstanding(migration)) {
        const host = side === 'source' ? migration.source : migration.target;
        if (!lost && host !== goingTo?.id) continue;
        const where = this.#fleet.hostName(host);
        return new UserError(
          'busy',
          `${where} may still hold the guest of ${vm.name} from migration ${migration.id} and has not answered yet.`,
          `Wait until ${where} has cleared it away; a second copy must never run beside it.`,
        );
      }
    }
    return undefined;
  }

  #specOf(wanted: NewVm, id: string): { spec: VmSpec; provision: Provision[] } {
    const { pool } = wanted;
    const disks: DiskSpec[] = [];
    const provision: Provision[] = [];
    if (wanted.image !== null) {
      const format = formatOf(wanted.image);
      const file = `${id}.${format}`;
      disks.push({ pool, file, format });
      provision.push({
        pool,
        file,
        source: { kind: 'copy', from: wanted.image, format, growToMiB: wanted.diskMiB },
      });
    } else if (wanted.diskMiB !== null) {
      const file = `${id}.qcow2`;
      disks.push({ pool, file, format: 'qcow2' });
      provision.push({ pool, file, source: { kind: 'blank', sizeMiB: wanted.diskMiB, format: 'qcow2' } });
    } else if (wanted.boot.kind === 'disk') {
      throw new UserError(
        'invalid-input',
        `${wanted.name} has nothing to boot from.`,
        'Give it an image (--image debian.qcow2), a blank disk (--disk 10GiB), or a kernel (--kernel).',
      );
    }
    const boot = this.#bootOf(wanted, id, provision);
    const nics = wanted.network === null ? [] : [{ network: wanted.network, mac: this.#newMac() }];
    const { cpus, memoryMiB, machine, cpuModel } = wanted;
    return { spec: { cpus, memoryMiB, machine, cpuModel, boot, disks, nics }, provision };
  }

  /** A file of the host is copied into the pool, so that the VM can boot on every host; a name in the pool is taken as it is. */
  #bootOf({ boot, pool }: NewVm, id: string, provision: Provision[]): Boot {
    if (boot.kind === 'disk') return boot;
    const inPool = (path: string, part: 'kernel' | 'initrd'): string => {
      if (!path.startsWith('/')) return path;
      const file = `${id}.${part}`;
      provision.push({ pool, file, source: { kind: 'copy', from: path, format: 'raw', growToMiB: null } });
      return file;
    };
    const kernel = inPool(boot.kernel, 'kernel');
    const initrd = boot.initrd === null ? null : inPool(boot.initrd, 'initrd');
    return { ...boot, pool, kernel, initrd };
  }

  /** Under QEMU's own prefix; drawn until no VM of the fleet has it. */
  #newMac(): string {
    const taken = new Set([...this.#fleet.vms.values()].flatMap((vm) => vm.spec.nics.map((nic) => nic.mac)));
    for (let attempt = 0; attempt < 100; attempt++) {
      const tail = [...this.#random.bytes(3)].map((byte) => byte.toString(16).padStart(2, '0'));
      const mac = ['52', '54', '00', ...tail].join(':');
      if (!taken.has(mac)) return mac;
    }
    throw new Error('no free MAC address was found in 100 attempts');
  }
}

const unique = (words: readonly string[]): string[] => [...new Set(words)].toSorted();

/** The format is said by the name and never guessed from the content, which a guest may have written. */
function formatOf(image: string): 'qcow2' | 'raw' {
  if (image.endsWith('.qcow2')) return 'qcow2';
  if (image.endsWith('.raw') || image.endsWith('.img')) return 'raw';
  throw new UserError(
    'invalid-input',
    `The name of the image '${image}' does not say its format.`,
    'Name it .qcow2, or .raw or .img for a raw disk.',
  );
}

function put(draft: Draft, vm: VmRecord): void {
  const before = draft.vm(vm.id);
  if (before && before.host !== vm.host) settleGuestRoom(draft, { ...before, state: { kind: 'stopped' } });
  draft.putVm(vm);
  settleGuestRoom(draft, vm);
}

function present(draft: Draft, id: VmRecord['id'], ref: string): VmRecord {
  const vm = draft.vm(id);
  if (vm) return vm;
  throw new UserError('not-found', `There is no VM '${ref}' any more.`, '`drover vm list` shows what there is.');
}

function refuseWhileMoving(vm: VmRecord): void {
  if (vm.migration === null) return;
  throw new UserError(
    'busy',
    `${vm.name} is on the move (${vm.migration}).`,
    `Wait for the end (drover migration show ${vm.migration}), or cancel it: drover migration cancel ${vm.migration}.`,
  );
}

const verbs = { start: 'started', stop: 'stopped', delete: 'deleted' } as const;

function refuseState(vm: VmRecord, action: keyof typeof verbs): void {
  if (vmCan(action, vm.state)) return;
  const hint =
    action === 'delete' && vmCan('stop', vm.state)
      ? `Stop it first: drover vm stop ${vm.name}.`
      : `See \`drover vm show ${vm.name}\`.`;
  throw new UserError('wrong-state', `${vm.name} is ${vm.state.kind} and cannot be ${verbs[action]}.`, hint);
}
