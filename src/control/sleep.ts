/**
 * Hosts that sleep: what people (and the distributor) ask for, each one commit, and the loop that carries it out. Everything
 * follows from the records, so a server that was killed goes on where it was; in memory is only what was asked a moment ago.
 *
 * A host that sleeps is never taken for a lost one: its record says so before it goes down (fencing.ts, placement.ts look there).
 *
 * Not here: the next step (sleep-step.ts), what forbids it (sleep-rules.ts), which host should (planner/power-plan.ts).
 */
import { UserError, messageOf } from '../model/failure.ts';
import type { HostRecord } from '../model/host.ts';
import type { HostId, VmId } from '../model/ids.ts';
import { newSleepRecord, type SleepRecord, type SleepWay, type WattsModel } from '../model/sleep.ts';
import type { VmRecord } from '../model/vm.ts';
import type { Clock } from '../runtime/clock.ts';
import type { Log } from '../runtime/log.ts';
import type { FromAgent, ToAgent } from '../wire/agent.ts';
import type { Draft, Fleet } from './fleet.ts';
import type { Health } from './health.ts';
import type { LiveEvents } from './live-events.ts';
import type { Liveness } from './liveness.ts';
import type { LoadHistory } from './load-history.ts';
import { needOf } from './need.ts';
import { vmOrders } from './orders.ts';
import { freeMiB, refusalOf, sleeperFor } from './placement.ts';
import type { OpenPower, PowerReading } from './power/power.ts';
import { sleepRefusal, useOf, wordsOfKind } from './sleep-rules.ts';
import {
  defaultSleepOptions,
  orderAgainAfterMs,
  sleepStep,
  startWaking,
  type SleepAction,
  type SleepOptions,
  type SleepSeen,
} from './sleep-step.ts';

/** Sends a magic packet from the server's own machine. */
export type SendMagic = (macs: readonly string[]) => Promise<void>;

/** Hosts that are asked to send a magic packet: one of them stands in the right network. */
const wakersAtMost = 16;
const messageExpiresAfterMs = 10_000;
/** A VM that found no room waits so long before a host is woken for it. */
const wakeForRoomMs = 5_000;
/** In one beat. */
const roomlessLookedAt = 50;

interface Parts {
  readonly fleet: Fleet;
  readonly live: LiveEvents;
  readonly liveness: Liveness;
  readonly health: Health;
  readonly loads: LoadHistory;
  readonly clock: Clock;
  readonly log: Log;
  readonly power: OpenPower;
  readonly options?: Partial<SleepOptions>;
  readonly sendMagic?: SendMagic;
  /** Why nothing may be decided on these records; null: it may. */
  readonly held: () => string | null;
  /** VMs that are to leave a sick host and find no room; absent: nobody knows of any. */
  readonly cannotLeave?: () => readonly VmId[];
  readonly isConnected: (host: HostId) => boolean;
  /** @returns whether the host is connected */
  readonly tell: (host: HostId, message: ToAgent) => boolean;
}

type SleepAnswer = Extract<FromAgent, { type: 'sleep-answer' }>;
type Why = { readonly by: string; readonly because: string };

/** What was asked of a host's controller or agent, and when. */
interface Errand {
  power: SleepSeen['power'];
  orderedAt: SleepSeen['orderedAt'];
  busy: boolean;
  /** By action: when it was done last, monotonic. */
  readonly doneAt: Map<SleepAction, number>;
  /** The try for which it was switched off and on again, and until when that took: Infinity while it does. */
  cycledFor: number;
  cycledUntil: number | null;
}

export class Sleep {
  readonly options: SleepOptions;
  readonly #parts: Parts;
  readonly #errands = new Map<HostId, Errand>();
  readonly #stop = new AbortController();

  constructor(parts: Parts) {
    this.#parts = parts;
    this.options = { ...defaultSleepOptions, ...parts.options };
  }

  /** Says how a host sleeps and is woken; a proof of another way counts no more. @throws UserError not-found, wrong-state, invalid-input */
  async setWay(ref: string, way: SleepWay | null): Promise<HostRecord> {
    const { fleet } = this.#parts;
    return fleet.change((draft) => {
      const host = fleet.findHost(ref);
      const record = this.#record(draft, host.id);
      if (record.state.kind !== 'awake') {
        throw new UserError(
          'wrong-state',
          `${host.name} is ${wordsOfKind[record.state.kind]}.`,
          `Change how it sleeps while it is awake: drover host wake ${host.name}.`,
        );
      }
      const chosen = way?.kind === 'suspend' && way.macs.length === 0 ? { ...way, macs: macsOf(host) } : way;
      draft.putSleep({ ...record, way: chosen, proof: null, readyMs: [], lastFailure: null });
      return host;
    });
  }

  /** @throws UserError not-found */
  async setWatts(ref: string, watts: WattsModel | null): Promise<HostRecord> {
    const { fleet } = this.#parts;
    return fleet.change((draft) => {
      const host = fleet.findHost(ref);
      draft.putSleep({ ...this.#record(draft, host.id), watts });
      return host;
    });
  }

  /** Its controller is another one: what was proven with the old one counts no more. */
  forgetProof(draft: Draft, host: HostId): void {
    const record = draft.sleep(host);
    if (record?.way?.kind === 'off') draft.putSleep({ ...record, proof: null });
  }

  /** Why it may not be sent to sleep now; undefined when it may. @param onceEmpty as if nothing ran there */
  refusal(host: HostRecord, { drill = false, onceEmpty = false } = {}): UserError | undefined {
    const { fleet, clock } = this.#parts;
    const asked = { drill, onceEmpty, now: clock.now(), options: this.options };
    return sleepRefusal(this.#parts, host, fleet.sleeps.get(host.id), asked);
  }

  /** Sends it to sleep; a drill wakes it at once. @throws UserError what forbids it */
  async send(ref: string, why: Why, { drill, dryRun }: { drill: boolean; dryRun: boolean }): Promise<HostRecord> {
    const { fleet, clock } = this.#parts;
    const host = await fleet.change((draft) => {
      const found = fleet.findHost(ref);
      const refusal = this.refusal(found, { drill });
      if (refusal) throw refusal;
      const at = clock.now();
      if (!dryRun) {
        const record = this.#record(draft, found.id);
        draft.putSleep({ ...record, state: { kind: 'going-to-sleep', since: at, ...why, drill, consent: null } });
      }
      return found;
    });
    if (!dryRun) {
      this.#say(host, `${host.name} is sent to sleep: ${why.because} (${why.by})`);
      await this.#advance(host.id);
    }
    return host;
  }

  /** Wakes it, or lets it stay awake. No harm to one that is awake. @throws UserError not-found */
  async wake(ref: string, why: Why, { dryRun }: { dryRun: boolean }): Promise<HostRecord> {
    const { fleet } = this.#parts;
    const { id } = fleet.findHost(ref);
    const host = await fleet.change((draft) => {
      const found = fleet.findHost(ref);
      if (!dryRun) this.#startWaking(draft, found, why);
      return found;
    });
    if (!dryRun) await this.#advance(id);
    return host;
  }

  /** What a host answers to `sleep`. */
  async onAnswer(id: HostId, { request, result, says }: SleepAnswer): Promise<void> {
    const { fleet, clock } = this.#parts;
    const staysBecause = await fleet.change((draft) => {
      const record = draft.sleep(id);
      const host = draft.host(id);
      if (record?.state.kind !== 'going-to-sleep' || host === undefined || request !== requestOf(record))
        return undefined;
      const at = clock.now();
      const obstacle = useOf(this.#parts, host)?.message;
      if (result === 'ready' && obstacle === undefined) {
        if (record.state.consent === null) {
          const consent = { at, bootId: host.inventory.kernelBootId };
          draft.putSleep({ ...record, state: { ...record.state, consent } });
        }
        return undefined;
      }
      const because = `${host.name} stays awake: ${obstacle ?? says}`;
      draft.putSleep({ ...record, state: { kind: 'awake', since: at }, lastFailure: { at, says: because } });
      return because;
    });
    const host = fleet.hosts.get(id);
    if (staysBecause !== undefined && host) {
      this.#say(host, staysBecause, result === 'failed');
      this.#tell(host, 'stay-awake');
    }
    await this.#advance(id);
  }

  /** Once a second. */
  async tick(): Promise<void> {
    for (const record of this.#parts.fleet.sleeps.values()) {
      if (record.state.kind === 'awake') this.#errands.delete(record.host);
      else await this.#advance(record.host);
    }
    await this.#wakeForNeed();
  }

  stop(): void {
    this.#stop.abort();
  }

  /** Those that must be up, whatever anybody saves: for records in doubt, for orders to them, and for VMs that found no room. */
  async #wakeForNeed(): Promise<void> {
    const { fleet, held } = this.#parts;
    const asleep = [...fleet.sleeps.values()].filter(({ state }) => state.kind === 'asleep');
    if (asleep.length === 0) return;
    const doubt = held();
    if (doubt !== null) {
      for (const { host } of asleep) await this.wake(host, { by: 'drover', because: doubt }, { dryRun: false });
      return;
    }
    for (const { host } of asleep) {
      const due = [...fleet.vms.values()].find((vm) => vm.host === host && vmOrders(vm).length > 0);
      const back = [...fleet.drains.values()].some((drain) => drain.host === host && drain.state.kind === 'returning');
      const because = due ? `${due.name} is ${due.state.kind} there` : back ? 'its VMs come back to it' : null;
      if (because !== null) await this.wake(host, { by: 'drover', because }, { dryRun: false });
    }
    await this.#wakeForRoom();
  }

  /** As many as hold the VMs together that find no room on hosts that are awake. */
  async #wakeForRoom(): Promise<void> {
    const { fleet } = this.#parts;
    const hosts = [...fleet.hosts.values()];
    const promisedMiB = new Map<HostId, number>();
    for (const { vm, because } of this.#roomless().slice(0, roomlessLookedAt)) {
      const home = fleet.hosts.get(vm.host) ?? null;
      const need = needOf(vm.name, vm.spec, home);
      // One that has just woken takes it in a moment.
      if (hosts.some((host) => host.id !== vm.host && refusalOf(this.#parts, need, host) === undefined)) continue;
      const left = (host: HostRecord): number => freeMiB(this.#parts, host) - (promisedMiB.get(host.id) ?? 0);
      const able = hosts.filter((host) => left(host) >= need.memoryMiB);
      const isWaking = ({ id }: HostRecord): boolean => fleet.sleeps.get(id)?.state.kind === 'waking';
      const host = sleeperFor(this.#parts, need, able.filter(isWaking)) ?? sleeperFor(this.#parts, need, able);
      if (host === undefined) continue;
      promisedMiB.set(host.id, (promisedMiB.get(host.id) ?? 0) + need.memoryMiB);
      if (!isWaking(host)) await this.wake(host.id, { by: 'drover', because }, { dryRun: false });
    }
  }

  /** VMs that should run and do not, or should leave their host and cannot, for a while: the most important first. */
  #roomless(): { readonly vm: VmRecord; readonly because: string }[] {
    const { fleet, clock, cannotLeave } = this.#parts;
    const isLong = (since: number): boolean => clock.now() - since > wakeForRoomMs;
    const waiting = [...fleet.vms.values()]
      .filter(({ state, migration }) => state.kind === 'waiting' && migration === null && isLong(state.since))
      .map((vm) => ({ vm, because: `${vm.name} waits for a host` }));
    const drained = [...fleet.drains.values()]
      .filter(({ state }) => state.kind === 'draining')
      .flatMap(({ vms }) => vms.filter(({ stuck }) => stuck?.kind === 'refused' && isLong(stuck.since)));
    const leaving = [...drained.map(({ vm }) => vm), ...(cannotLeave?.() ?? [])].flatMap((id) => {
      const vm = fleet.vms.get(id);
      const stays = vm?.state.kind !== 'running' || vm.migration !== null || vm.cannotMoveLive !== null;
      return vm === undefined || stays ? [] : [{ vm, because: `${vm.name} is to leave ${fleet.hostName(vm.host)}` }];
    });
    return [...waiting, ...leaving].toSorted(
      (a, b) => b.vm.priority - a.vm.priority || (a.vm.name < b.vm.name ? -1 : 1),
    );
  }

  #startWaking(draft: Draft, host: HostRecord, why: Why): void {
    const record = draft.sleep(host.id);
    const at = this.#parts.clock.now();
    switch (record?.state.kind) {
      case undefined:
      case 'awake':
      case 'waking':
        return;
      case 'going-to-sleep':
        if (record.state.consent === null) {
          draft.putSleep({ ...record, state: { kind: 'awake', since: at } });
          this.#tell(host, 'stay-awake');
          return;
        }
        // It is on its way down and cannot be stopped: woken as soon as it is there.
        draft.putSleep({ ...record, state: { ...record.state, ...why, drill: true } });
        return;
      case 'asleep':
      case 'wake-failed':
        draft.putSleep(startWaking(record, { at, ...why, drill: false }));
        this.#errands.delete(host.id);
        this.#say(host, `${host.name} is woken: ${why.because} (${why.by})`);
    }
  }

  /** One step of one host. */
  async #advance(id: HostId): Promise<void> {
    const { fleet } = this.#parts;
    const seenOf = (draft: Draft): [SleepRecord, HostRecord] | undefined => {
      const record = draft.sleep(id);
      const host = draft.host(id);
      return record && host ? [record, host] : undefined;
    };
    const done = await fleet.change((draft) => {
      const [record, host] = seenOf(draft) ?? [];
      if (record === undefined || host === undefined) return undefined;
      const step = sleepStep(record, this.#seen(host), this.options);
      if (step.record) draft.putSleep(step.record);
      return { step, host, record: step.record ?? record };
    });
    if (done === undefined) return;
    const { step, host, record } = done;
    if (step.says !== undefined) this.#say(host, step.says, step.alarm);
    if (step.action !== null) this.#act(host, record, step.action);
  }

  #seen(host: HostRecord): SleepSeen {
    const { liveness, clock, isConnected } = this.#parts;
    return {
      now: clock.now(),
      name: host.name,
      lastReportAt: liveness.lastReportAt(host.id),
      connected: isConnected(host.id),
      silent: liveness.isSilent(host.id),
      bootId: host.inventory.kernelBootId,
      power: this.#errands.get(host.id)?.power ?? null,
      orderedAt: this.#errands.get(host.id)?.orderedAt ?? null,
      cycledUntil: this.#errands.get(host.id)?.cycledUntil ?? null,
      obstacle: useOf(this.#parts, host)?.message ?? null,
    };
  }

  /** Done at once or in the background, and not again for a while. */
  #act(host: HostRecord, record: SleepRecord, action: SleepAction): void {
    if (action === 'stay-awake') {
      this.#errands.delete(host.id);
      return this.#tell(host, 'stay-awake');
    }
    const errand = this.#errandOf(record);
    const now = this.#parts.clock.monotonic();
    const doneAt = errand.doneAt.get(action);
    if (errand.busy || (doneAt !== undefined && now - doneAt < orderAgainAfterMs)) return;
    errand.doneAt.set(action, now);
    switch (action) {
      case 'ask-agent':
        return this.#tell(host, 'prepare', requestOf(record));
      case 'suspend':
        return this.#tell(host, 'suspend', requestOf(record));
      case 'shut-down':
      case 'switch-off':
      case 'look':
        return this.#inBackground(host, errand, () => this.#powerDown(host, errand, action));
      case 'wake':
        return this.#inBackground(host, errand, () => this.#wakeNow(host, record, errand));
    }
  }

  async #powerDown(host: HostRecord, errand: Errand, action: 'shut-down' | 'switch-off' | 'look'): Promise<void> {
    if (host.power === null) return;
    const controller = this.#parts.power(host.power);
    const already = await controller.read(this.#stop.signal);
    // The button is pressed once: a second press ends the shutdown of some systems, or begins it anew.
    const mayPress = errand.orderedAt === null && this.#isStill(host);
    if (already.state === 'off' || action === 'look' || (action === 'shut-down' && !mayPress)) {
      this.#note(errand, already);
    } else {
      errand.orderedAt = this.#parts.clock.now();
      const { signal } = this.#stop;
      this.#note(errand, await (action === 'shut-down' ? controller.shutDown(signal) : controller.off(signal)));
    }
    await this.#advance(host.id);
  }

  /** Is it heard of, in the same boot? */
  #isStill({ id, inventory }: HostRecord): boolean {
    const { fleet, isConnected } = this.#parts;
    return isConnected(id) && fleet.hosts.get(id)?.inventory.kernelBootId === inventory.kernelBootId;
  }

  async #wakeNow(host: HostRecord, record: SleepRecord, errand: Errand): Promise<void> {
    const { fleet, tell, sendMagic, power } = this.#parts;
    if (record.way?.kind === 'suspend') {
      const { macs } = record.way;
      await sendMagic?.(macs).catch((error: unknown) => {
        this.#parts.log.warn({ host: host.name, error: messageOf(error) }, 'no magic packet could be sent from here');
      });
      const able = [...fleet.hosts.values()].filter(({ id, inventory }) => id !== host.id && inventory.sleep);
      let told = 0;
      for (const { id } of able) {
        if (told >= wakersAtMost) return;
        if (tell(id, { type: 'wake-other', macs: [...macs] })) told++;
      }
      return;
    }
    if (host.power === null) return;
    const controller = power(host.power);
    const tries = record.state.kind === 'waking' ? record.state.tries : 1;
    // One that was switched on and hangs on its way up is switched off once a try: nothing runs there.
    if (tries > 1 && errand.cycledFor !== tries) {
      errand.cycledFor = tries;
      errand.cycledUntil = Infinity;
      try {
        await controller.off(this.#stop.signal);
      } finally {
        errand.cycledUntil = this.#parts.clock.now();
      }
    }
    this.#note(errand, await controller.on(this.#stop.signal));
  }

  #note(errand: Errand, { state, says }: PowerReading): void {
    errand.power = { off: state === 'off', says: says ?? `it reads ${state}`, at: this.#parts.clock.now() };
  }

  #inBackground(host: HostRecord, errand: Errand, work: () => Promise<void>): void {
    errand.busy = true;
    const { log, clock } = this.#parts;
    void work()
      .catch((error: unknown) => {
        errand.power = { off: false, says: messageOf(error), at: clock.now() };
        if (!this.#stop.signal.aborted)
          log.warn({ host: host.name, error: messageOf(error) }, 'its power could not be changed');
      })
      .finally(() => (errand.busy = false));
  }

  /** A try that another server has begun is gone on with as it is: its host may be up by now. */
  #errandOf({ host, state }: SleepRecord): Errand {
    let errand = this.#errands.get(host);
    if (errand === undefined) {
      const cycledFor = state.kind === 'waking' ? state.tries : 1;
      errand = { power: null, orderedAt: null, busy: false, doneAt: new Map(), cycledFor, cycledUntil: null };
      this.#errands.set(host, errand);
    }
    return errand;
  }

  #tell(host: HostRecord, what: 'prepare' | 'suspend' | 'stay-awake', request = ''): void {
    if (!host.inventory.sleep) return;
    const { fleet, clock, liveness, tell } = this.#parts;
    const expiresAt = clock.now() + messageExpiresAfterMs + liveness.offsetMs(host.id);
    tell(host.id, { type: 'sleep', request, term: fleet.term, session: host.session, expiresAt, do: what });
  }

  #record(draft: Draft, host: HostId): SleepRecord {
    return draft.sleep(host) ?? newSleepRecord(host, this.#parts.clock.now());
  }

  #say(host: HostRecord, says: string, alarm = false): void {
    const at = this.#parts.clock.now();
    this.#parts.log[alarm ? 'warn' : 'info']({ host: host.name }, says);
    if (alarm) this.#parts.live.emit({ kind: 'alarm', at, about: `host ${host.name}`, says });
    else this.#parts.live.emit({ kind: 'host', at, host: host.id, says });
  }
}

/** The same for every server that asks for this sleep. */
function requestOf({ host, state }: SleepRecord): string {
  return `sleep-${host}-${state.since}`;
}

/** @throws UserError invalid-input */
function macsOf(host: HostRecord): readonly string[] {
  const macs = host.inventory.sleep?.macs ?? [];
  if (macs.length > 0) return macs;
  throw new UserError(
    'invalid-input',
    `${host.name} names no network card that could be woken.`,
    `Give its address: drover host sleep-way ${host.name} suspend --mac 52:54:00:aa:bb:cc.`,
  );
}
