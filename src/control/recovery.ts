/**
 * Lost hosts: gathers what is known of the silent ones, has fencing.ts judge it, and carries the verdict out: asks power
 * controllers and witnesses, fences, and has the VMs started elsewhere. Four times a second, as every moment counts here.
 *
 *   silent -> verdict -> power off and read back / lease taken by a witness -> fence() in one commit -> place()
 *
 * In memory only is what can be asked again: readings, sightings, alarms that were given. A new server looks anew.
 *
 * Not here: judging (fencing.ts), the commit (fence.ts), placing (restarts.ts).
 */
import { UserError, messageOf } from '../model/failure.ts';
import type { GuardReport, HostInventory, HostRecord, LeaseSeen } from '../model/host.ts';
import { newId } from '../model/ids.ts';
import type { HostId } from '../model/ids.ts';
import type { RecoveryRecord } from '../model/recovery.ts';
import type { VmRecord } from '../model/vm.ts';
import { isEnd } from '../migration/phases.ts';
import { outstanding } from '../migration/step.ts';
import type { Clock } from '../runtime/clock.ts';
import type { Log } from '../runtime/log.ts';
import type { Random } from '../runtime/random.ts';
import { anySignal } from '../runtime/retry.ts';
import type { FromAgent, ToAgent } from '../wire/agent.ts';
import { fence } from './fence.ts';
import type { Proof } from './fence.ts';
import { aliveWithinMs, verdicts } from './fencing.ts';
import type { FleetKnown, HostKnown, PowerKnown, PowerTried, Sighting, Stake, Verdict } from './fencing.ts';
import type { Draft, Fleet } from './fleet.ts';
import type { LiveEvents } from './live-events.ts';
import type { Liveness } from './liveness.ts';
import type { OpenPower } from './power/power.ts';
import type { Restarts } from './restarts.ts';
import { sleepsOnPurpose } from './sleep-rules.ts';

/** What a host says of leases counts for this long. */
const freshMs = 2_500;
/** A witness that does not answer is asked again, or another is. */
const leaseAnswerWithinMs = 5_000;
const leaseAgainAfterMs = 1_000;
const historyLimit = 200;

export interface RecoveryOptions {
  /** Take the lease of a host whose guard no watchdog covers for a proof, too. */
  readonly trustGuard: boolean;
  readonly lockWaitMs: number;
}

type Report = Pick<Extract<FromAgent, { type: 'report' }>, 'guards' | 'leases'>;
type LeaseAnswer = Extract<FromAgent, { type: 'lease-answer' }>;

interface Parts {
  readonly fleet: Fleet;
  readonly live: LiveEvents;
  readonly liveness: Liveness;
  readonly restarts: Restarts;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  readonly power: OpenPower;
  readonly trustGuard: boolean;
  /** Why nothing may be fenced for now; null: it may. */
  readonly held: () => string | null;
  /** @returns whether the host is connected */
  readonly tell: (host: HostId, message: ToAgent) => boolean;
}

/** What has been found out about one host since it fell silent. */
interface Inquiry {
  readonly detectedAt: number;
  power: 'unasked' | 'asking' | { readonly off: boolean; readonly says: string; readonly at: number };
  powerTried: PowerTried | null;
  readonly taken: Set<string>;
  readonly failedWitnesses: Set<HostId>;
  asked:
    | { readonly request: string; readonly witness: HostId; readonly poolId: string; readonly at: number }
    | undefined;
  leaseAgainAt: number;
  /** By which code the last alarm was given. */
  alarmed: string | undefined;
  fencing: boolean;
  /** Aborted when the host reports again: what is still being done about its silence ends. */
  readonly over: AbortController;
}

export class Recovery {
  readonly #parts: Parts;
  /** Switched off by a person: when they were heard last before that. */
  readonly #wereOff = new Map<HostId, number>();
  readonly #inquiries = new Map<HostId, Inquiry>();
  readonly #seenBy = new Map<HostId, { readonly at: number; readonly leases: readonly LeaseSeen[] }>();
  readonly #guards = new Map<HostId, { readonly bootId: string | undefined; readonly said: readonly GuardReport[] }>();
  readonly #verdicts = new Map<HostId, Verdict>();
  readonly #stop = new AbortController();
  #lookingSince: number;
  #requests = 0;

  constructor(parts: Parts) {
    this.#parts = parts;
    this.#lookingSince = parts.clock.monotonic();
    parts.fleet.onCommit((changes) => {
      for (const change of changes) {
        if (change.kind === 'recovery' && !change.before && change.after) this.#tellOfLoss(change.after);
      }
    });
  }

  /** What each report says of leases. */
  onReport(host: HostId, { guards, leases }: Report): void {
    this.#endInquiry(host);
    this.#wereOff.delete(host);
    const bootId = this.#parts.fleet.hosts.get(host)?.inventory.kernelBootId;
    this.#guards.set(host, { bootId, said: guards });
    this.#seenBy.set(host, { at: this.#parts.clock.monotonic(), leases });
  }

  /**
   * A person had it switched off, and it read off. If it has said nothing since, not even hello, that proves it even when it was switched
   * on again: it is not switched off once more while it boots.
   */
  wasOff(host: HostId): void {
    this.#wereOff.set(host, this.#parts.liveness.heardAt(host));
  }

  onLeaseAnswer(host: HostId, answer: LeaseAnswer): void {
    for (const [silent, inquiry] of this.#inquiries) {
      if (inquiry.asked?.request !== answer.request || inquiry.asked.witness !== host) continue;
      const { poolId } = inquiry.asked;
      const name = this.#parts.fleet.hostName(silent);
      this.#parts.log.info(
        { host: name, witness: this.#parts.fleet.hostName(host), poolId, ...answer },
        'about a lease',
      );
      inquiry.asked = undefined;
      inquiry.leaseAgainAt = this.#parts.clock.monotonic() + leaseAgainAfterMs;
      if (answer.result === 'taken') inquiry.taken.add(poolId);
      if (answer.result === 'failed') inquiry.failedWitnesses.add(host);
    }
  }

  /** This process stood still: what it last heard is old for no fault of the hosts. */
  excuse(): void {
    this.#lookingSince = this.#parts.clock.monotonic();
  }

  /** The verdict on a silent host, for people. */
  verdictOn(host: HostId): Verdict | undefined {
    return this.#verdicts.get(host);
  }

  /** What the host's own guard said last in this boot; undefined: nothing yet. */
  guardsOf(host: HostId): readonly GuardReport[] | undefined {
    const latest = this.#guards.get(host);
    return latest?.bootId === this.#parts.fleet.hosts.get(host)?.inventory.kernelBootId ? latest?.said : undefined;
  }

  get trustsGuards(): boolean {
    return this.#parts.trustGuard;
  }

  async tick(): Promise<void> {
    const { fleet, liveness } = this.#parts;
    for (const host of this.#inquiries.keys()) {
      if (!fleet.hosts.has(host) || !liveness.isSilent(host)) this.#endInquiry(host);
    }
    const known = this.#known();
    if (known === undefined) {
      this.#verdicts.clear();
      return;
    }
    for (const [host, verdict] of verdicts(known)) {
      this.#verdicts.set(host, verdict);
      await this.#carryOut(host, verdict);
    }
  }

  /** Closes what is over, drops the oldest of the history, keeps what guards have said. Once a second. */
  async tidy(): Promise<void> {
    const { fleet } = this.#parts;
    const at = this.#parts.clock.now();
    await this.#keepWhatGuardsSay();
    const open = [...fleet.recoveries.values()].filter(({ endedAt }) => endedAt === null);
    for (const { id } of open) {
      await fleet.change((draft) => {
        const record = draft.recovery(id);
        if (record?.endedAt === null && isOver(draft, record)) draft.putRecovery({ ...record, endedAt: at });
      });
    }
    const excess = fleet.recoveries.size - historyLimit;
    const oldest = [...fleet.recoveries.values()]
      .filter(({ endedAt }) => endedAt !== null)
      .slice(0, Math.max(0, excess));
    if (oldest.length > 0) await fleet.change((draft) => oldest.forEach(({ id }) => draft.removeRecovery(id)));
  }

  /** A host that dies is judged by it, whoever leads then. */
  async #keepWhatGuardsSay(): Promise<void> {
    const { fleet } = this.#parts;
    for (const { id, inventory } of fleet.hosts.values()) {
      if (withGuards(inventory, this.guardsOf(id)) === inventory) continue;
      await fleet.change((draft) => {
        const host = draft.host(id);
        if (host) draft.putHost({ ...host, inventory: withGuards(host.inventory, this.guardsOf(id)) });
      });
    }
  }

  /** The host said hello with another boot id: whatever ran there is gone. Written into the commit that takes the hello. */
  rebooted(draft: Draft, host: HostRecord): void {
    if (host.fenced !== null || this.#parts.held() !== null) return;
    // It ran nothing when it went to sleep, and was woken.
    if (sleepsOnPurpose(this.#parts, host)) return;
    const because = `${host.name} has booted since`;
    this.#fenceIn(draft, host, { proof: 'boot-id', by: 'drover', because });
  }

  /**
   * A person says that the host is off. Believed, unless something speaks against it.
   * @throws UserError not-found, wrong-state, invalid-input
   */
  async fencedByWord(
    ref: string,
    because: string,
    force: boolean,
    by = 'a person',
    dryRun = false,
  ): Promise<RecoveryRecord> {
    const { fleet, liveness, restarts } = this.#parts;
    const { id } = fleet.findHost(ref);
    const held = this.#parts.held();
    const record = await fleet.change(
      (draft) => {
        const host = draft.host(id) ?? fleet.findHost(ref);
        const refuse = (message: string, hint: string) => new UserError('wrong-state', message, hint);
        if (host.fenced) {
          throw refuse(
            `${host.name} is fenced already: ${host.fenced.because}.`,
            '`drover recoveries` shows what became of its VMs.',
          );
        }
        if (!liveness.isSilent(id)) {
          throw refuse(
            `${host.name} reports: it is on, and so are its guests.`,
            `To empty it, move its VMs away. To switch it off: drover host power ${host.name} off.`,
          );
        }
        const alive = this.#sightings(id).find(
          ({ lease }) => lease.state === 'held' && lease.unchangedMs < Math.max(aliveWithinMs, lease.leaseTimeMs),
        );
        if (alive && !force) {
          throw refuse(
            `${host.name} keeps its lease: ${alive.witnessName} saw it renewed ${Math.round(alive.lease.unchangedMs / 1000)} s ago, so its guests may run.`,
            `Switch it off first, and wait until its lease has run out. --force believes you against what is seen: if a guest still ` +
              'runs there, it and its second copy write to the same disks, and only the disk locks stand between.',
          );
        }
        const proof = { proof: 'word', by, because } as const;
        // What the records say of its VMs is not to be trusted then: what becomes of them is settled with the rest (held.ts).
        return this.#fenceIn(draft, host, proof, held === null ? 'all' : 'host');
      },
      { dryRun },
    );
    if (!dryRun) await restarts.place();
    return record;
  }

  stop(): void {
    this.#stop.abort();
  }

  #known(): FleetKnown | undefined {
    const { fleet, liveness, clock, trustGuard, held } = this.#parts;
    const silent = [...fleet.hosts.keys()].some((id) => liveness.isSilent(id));
    if (!silent) return undefined;
    const hosts = [...fleet.hosts.values()].map((host): HostKnown => {
      const { id, name } = host;
      const inventory = withGuards(host.inventory, this.guardsOf(id));
      const silentMs = liveness.isSilent(id) ? liveness.silentMs(id) : null;
      const inquiry = silentMs === null ? undefined : this.#inquiryInto(id);
      return {
        id,
        name,
        silentMs,
        fenced: host.fenced !== null,
        asleep: sleepsOnPurpose(this.#parts, host),
        bootId: inventory.kernelBootId,
        power:
          silentMs !== null && this.#wereOff.get(id) === liveness.heardAt(id)
            ? { kind: 'off' }
            : powerKnown(host, inquiry, clock.monotonic()),
        stakes: silentMs === null ? [] : this.#stakes({ ...host, inventory }),
        sightings: silentMs === null ? [] : this.#sightings(id),
        taken: [...(inquiry?.taken ?? [])],
        failedWitnesses: [...(inquiry?.failedWitnesses ?? [])],
        watchdog: inventory.watchdog ?? null,
      };
    });
    return { hosts, lookingForMs: clock.monotonic() - this.#lookingSince, held: held(), trustGuard };
  }

  #inquiryInto(host: HostId): Inquiry {
    let inquiry = this.#inquiries.get(host);
    if (inquiry === undefined) {
      inquiry = {
        detectedAt: this.#parts.clock.now(),
        power: 'unasked',
        powerTried: null,
        taken: new Set(),
        failedWitnesses: new Set(),
        asked: undefined,
        leaseAgainAt: 0,
        alarmed: undefined,
        fencing: false,
        over: new AbortController(),
      };
      this.#inquiries.set(host, inquiry);
    }
    return inquiry;
  }

  /** It reports, or is gone: nothing that was found out about its silence counts for the next. */
  #endInquiry(host: HostId): void {
    this.#inquiries.get(host)?.over.abort(new Error('the host reports again'));
    this.#inquiries.delete(host);
  }

  /** What others, which report, saw of its leases a moment ago. */
  #sightings(host: HostId): Sighting[] {
    const { fleet, liveness, clock } = this.#parts;
    const name = fleet.hostName(host);
    return [...this.#seenBy].flatMap(([witness, { at, leases }]) => {
      if (witness === host || liveness.isSilent(witness) || clock.monotonic() - at > freshMs) return [];
      const witnessName = fleet.hostName(witness);
      return leases.filter((lease) => lease.host === name).map((lease) => ({ witness, witnessName, lease }));
    });
  }

  /** Guests that run there, or may, by the records. */
  #stakes(host: HostRecord): Stake[] {
    const { fleet } = this.#parts;
    const stake = (vm: VmRecord): Stake => {
      const spec = vm.running?.spec ?? vm.spec;
      const kernelPool = spec.boot.kind === 'kernel' ? [spec.boot.pool] : [];
      const pools = [...spec.disks.map(({ pool }) => pool), ...kernelPool];
      const poolIds = [...new Set(pools.flatMap((pool) => host.inventory.poolIds?.[pool] ?? []))];
      return { vmName: vm.name, poolIds };
    };
    const there = new Map<VmRecord['id'], VmRecord>();
    for (const vm of fleet.vms.values()) {
      if (vm.host === host.id && needsItsHost(vm)) there.set(vm.id, vm);
    }
    for (const migration of fleet.unsettledMigrations()) {
      const vm = fleet.vms.get(migration.vm);
      const open = !isEnd(migration.phase) && (migration.source === host.id || migration.target === host.id);
      const owes = outstanding(migration).some(
        ({ side }) => (side === 'source' ? migration.source : migration.target) === host.id,
      );
      if (vm && (open || owes)) there.set(vm.id, vm);
    }
    return [...there.values()].map(stake);
  }

  async #carryOut(host: HostId, verdict: Verdict): Promise<void> {
    const inquiry = this.#inquiries.get(host);
    if (inquiry === undefined) return;
    switch (verdict.do) {
      case 'nothing':
        return;
      case 'wait':
        if (verdict.meanwhile) this.#askPower(host, inquiry, verdict.meanwhile);
        return this.#sayWaiting(host, inquiry, verdict);
      case 'read-power':
      case 'switch-off':
        return this.#askPower(host, inquiry, verdict.do);
      case 'take-lease':
        return this.#askForLease(host, inquiry, verdict);
      case 'fence':
        return this.#fenceNow(host, inquiry, verdict);
    }
  }

  #sayWaiting(host: HostId, inquiry: Inquiry, { code, because, person }: Extract<Verdict, { do: 'wait' }>): void {
    if (inquiry.alarmed === code || !(person || code === 'alive')) return;
    inquiry.alarmed = code;
    const name = this.#parts.fleet.hostName(host);
    const says = person ? `nothing is started elsewhere for ${name}: ${because}` : because;
    this.#alarm(`host ${name}`, says);
  }

  /** Beside everything else: a controller may take seconds. */
  #askPower(host: HostId, inquiry: Inquiry, what: 'read-power' | 'switch-off'): void {
    const record = this.#parts.fleet.hosts.get(host);
    if (!record?.power || inquiry.power === 'asking') return;
    const { clock, log, power } = this.#parts;
    inquiry.power = 'asking';
    const signal = anySignal(this.#stop.signal, inquiry.over.signal);
    log.warn({ host: record.name }, what === 'switch-off' ? 'a silent host is switched off' : 'its power is read');
    const ask = async (): Promise<void> => {
      let off = false;
      let says = '';
      try {
        const controller = power(record.power!);
        const reading = what === 'switch-off' ? await controller.off(signal) : await controller.read(signal);
        off = reading.state === 'off';
        says = reading.says ?? `it reads ${reading.state}`;
      } catch (error) {
        says = messageOf(error);
      }
      inquiry.power = { off, says, at: clock.monotonic() };
      const offTries = (inquiry.powerTried?.offTries ?? 0) + (what === 'switch-off' ? 1 : 0);
      inquiry.powerTried = { says, offTries };
      log.info({ host: record.name, off, says }, 'power controller');
      // Not at the next beat: its guests' users wait.
      if (off && !signal.aborted) await this.tick();
    };
    void ask().catch((error: unknown) =>
      log.warn({ host: record.name, error }, 'fencing went wrong; it is tried again'),
    );
  }

  #askForLease(host: HostId, inquiry: Inquiry, verdict: Extract<Verdict, { do: 'take-lease' }>): void {
    const { fleet, clock, tell } = this.#parts;
    const now = clock.monotonic();
    if (inquiry.asked && now - inquiry.asked.at < leaseAnswerWithinMs) return;
    if (inquiry.asked) inquiry.failedWitnesses.add(inquiry.asked.witness);
    if (now < inquiry.leaseAgainAt) return;
    const { witness, poolId, bootId } = verdict;
    const request = `lease-${fleet.term}-${++this.#requests}`;
    const message = {
      type: 'take-lease',
      request,
      term: fleet.term,
      host: fleet.hostName(host),
      poolId,
      bootId,
    } as const;
    if (tell(witness, message)) inquiry.asked = { request, witness, poolId, at: now };
    else inquiry.failedWitnesses.add(witness);
  }

  async #fenceNow(id: HostId, inquiry: Inquiry, verdict: Extract<Verdict, { do: 'fence' }>): Promise<void> {
    const { fleet, liveness, restarts } = this.#parts;
    if (inquiry.fencing) return;
    inquiry.fencing = true;
    try {
      const fenced = await fleet.change((draft) => {
        const host = draft.host(id);
        // It may have come back while this waited for its turn.
        if (host === undefined || host.fenced || !liveness.isSilent(id)) return false;
        this.#fenceIn(draft, host, { proof: verdict.proof, by: 'drover', because: verdict.because });
        return true;
      });
      if (fenced) await restarts.place();
    } finally {
      inquiry.fencing = false;
    }
  }

  #fenceIn(
    draft: Draft,
    host: HostRecord,
    proof: Pick<Proof, 'proof' | 'by' | 'because'>,
    what: 'all' | 'host' = 'all',
  ): RecoveryRecord {
    const { fleet, liveness, clock, random } = this.#parts;
    const at = clock.now();
    return fence(draft, fleet, host, {
      ...proof,
      id: newId('recovery', at, random.bytes(8)),
      at,
      silentSince: liveness.lastReportAt(host.id),
      detectedAt: this.#inquiries.get(host.id)?.detectedAt ?? at,
      what,
    });
  }

  #tellOfLoss({ hostName, because, vms }: RecoveryRecord): void {
    const again = vms.filter(({ kind }) => kind === 'restart').length;
    const what = again === 1 ? 'one VM is' : `${again} VMs are`;
    this.#alarm(`host ${hostName}`, `${hostName} is fenced: ${because}; ${what} started again where there is room`);
  }

  #alarm(about: string, says: string): void {
    this.#parts.log.warn({ about }, says);
    this.#parts.live.emit({ kind: 'alarm', at: this.#parts.clock.now(), about, says });
  }
}

/** Does it run there, or wait for what only that host can say? */
function needsItsHost({ state: { kind } }: VmRecord): boolean {
  return kind === 'running' || kind === 'starting' || kind === 'stopping' || kind === 'creating';
}

/** The inventory with what its guards have said since: the same object where that is nothing new. */
function withGuards(inventory: HostInventory, guards: readonly GuardReport[] = []): HostInventory {
  if (guards.length === 0) return inventory;
  const { poolIds = {} } = inventory;
  const watchdog = guards.every((guard) => guard.watchdog);
  const isKnown = watchdog === inventory.watchdog && guards.every(({ pool, poolId }) => poolIds[pool] === poolId);
  if (isKnown) return inventory;
  const said = Object.fromEntries(guards.map(({ pool, poolId }) => [pool, poolId]));
  return { ...inventory, watchdog, poolIds: { ...poolIds, ...said } };
}

function powerKnown(host: HostRecord, inquiry: Inquiry | undefined, now: number): PowerKnown {
  if (host.power === null) return { kind: 'none' };
  const power = inquiry?.power ?? 'unasked';
  const before = inquiry?.powerTried ?? null;
  if (power === 'unasked') return { kind: 'unasked' };
  if (power === 'asking') return { kind: 'asking', before };
  if (power.off) return { kind: 'off' };
  return { kind: 'not-off', says: power.says, offTries: before?.offTries ?? 0, agoMs: now - power.at };
}

/** Nobody waits for anything of it any more: each VM runs, or somebody decided otherwise. */
function isOver(draft: Draft, record: RecoveryRecord): boolean {
  return record.vms.every((each) => {
    const vm = draft.vm(each.vm);
    if (vm === undefined || each.startedAt !== null) return true;
    return vm.migration === null && vm.state.kind !== 'waiting' && vm.state.kind !== 'starting';
  });
}
