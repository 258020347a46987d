/**
 * The fleet's energy and load, watched: what each host draws and how that is known, shared out to its VMs, and how much of the fleet is
 * used. Kept in memory for five minutes, then added to the records of the day. A server that dies loses those five minutes.
 *
 *   BMC (once a minute) > RAPL (each report) > the host's model by its load
 *
 * Here too: what the daily pattern says of the hosts that may sleep or must wake. Not here: the formulas (model/energy.ts,
 * planner/demand.ts, planner/power-plan.ts), and doing it (sleep.ts).
 */
import { messageOf } from '../model/failure.ts';
import type { HostRecord } from '../model/host.ts';
import { roomUsedMiB } from '../model/host.ts';
import type { HostId, VmId } from '../model/ids.ts';
import {
  defaultWatts,
  modelWatts,
  shareOut,
  wattsSources,
  type EnergyRecord,
  type WattsSource,
} from '../model/energy.ts';
import { readyWithinMs } from '../model/sleep.ts';
import { formatMs } from '../model/units.ts';
import { capacityNeeded, newDemandHistory, slotMs, withSample, type Demand } from '../planner/demand.ts';
import type { PowerFacts } from '../planner/consolidation-plan.ts';
import { powerPlan, type PowerChoice, type PowerHost, type PowerPlan } from '../planner/power-plan.ts';
import type { Clock } from '../runtime/clock.ts';
import type { Log } from '../runtime/log.ts';
import { wholeCaution } from './conscience.ts';
import type { Fleet } from './fleet.ts';
import type { Health } from './health.ts';
import type { LoadHistory } from './load-history.ts';
import type { Liveness } from './liveness.ts';
import type { OpenPower } from './power/power.ts';
import type { Sleep } from './sleep.ts';
import { useOf } from './sleep-rules.ts';

const sampleEveryMs = 10_000;
/** Longer gaps were not watched: nothing is made up for them. */
const longestGapMs = 60_000;
const askEveryMs = 60_000;
/** A controller that has no meter is seldom asked again. */
const askMeterlessEveryMs = 30 * 60_000;
const askedAtOnce = 8;
/** Below this load a host counts as idle. */
const idleBelow = 0.1;
const newIdleWeighs = 0.05;
const daysKept = 92;
const recordsPerCommit = 200;
const hourMs = 3_600_000;
/** On top of what is needed before a host must be woken; before one may sleep as much again as the distributor is cautious. */
const wakeMargin = 0.05;
const marginOfCaution = 0.2;

interface Parts {
  readonly fleet: Fleet;
  readonly liveness: Liveness;
  readonly health: Health;
  readonly loads: LoadHistory;
  readonly sleep: Sleep;
  readonly power: OpenPower;
  readonly clock: Clock;
  readonly log: Log;
}

/** Since the last write. */
interface Pending {
  wh: Record<WattsSource, number>;
  savedWh: number;
  awakeMs: number;
  asleepMs: number;
  readonly vms: Map<VmId, number>;
}

interface Meter {
  watts: number | null;
  readAt: number;
  askedAt: number;
  asking: boolean;
}

export interface HostWatts {
  readonly watts: number;
  readonly source: WattsSource;
}

export class Energy {
  readonly #parts: Parts;
  readonly #pending = new Map<HostId, Pending>();
  readonly #meters = new Map<HostId, Meter>();
  readonly #idle = new Map<HostId, number>();
  readonly #stop = new AbortController();
  #asking = 0;
  #sampledAt: number;
  #slot: number;
  #load = { cores: 0, memoryMiB: 0, samples: 0 };

  constructor(parts: Parts) {
    this.#parts = parts;
    this.#sampledAt = parts.clock.monotonic();
    this.#slot = Math.floor(parts.clock.now() / slotMs);
    // The newest day comes last.
    for (const { host, idleWatts } of [...parts.fleet.energies.values()].toSorted((a, b) => (a.day < b.day ? -1 : 1)))
      if (idleWatts !== null) this.#idle.set(host, idleWatts);
  }

  /** Called each second; samples and writes when it is time. */
  async tick(): Promise<void> {
    const { clock } = this.#parts;
    const now = clock.monotonic();
    const ms = now - this.#sampledAt;
    if (ms < sampleEveryMs) return;
    this.#sampledAt = now;
    const load = this.current();
    this.#load.cores += load.cores;
    this.#load.memoryMiB += load.memoryMiB;
    this.#load.samples++;
    if (ms <= longestGapMs) for (const host of this.#parts.fleet.hosts.values()) this.#sample(host, ms);
    const slot = Math.floor(clock.now() / slotMs);
    if (slot === this.#slot) return;
    const at = this.#slot * slotMs;
    this.#slot = slot;
    await this.#write(at);
  }

  stop(): void {
    this.#stop.abort();
  }

  /** What the guests of the fleet use now, smoothed, and the memory that is held. */
  current(): Demand {
    const { fleet, loads } = this.#parts;
    let cores = 0;
    let memoryMiB = 0;
    for (const { id } of fleet.vms.values()) cores += loads.guestOf(id)?.cpuCores.value ?? 0;
    for (const room of fleet.rooms.values()) memoryMiB += roomUsedMiB(room);
    return { cores, memoryMiB };
  }

  /** The most that is needed until then, by what is used now and by the pattern of the days. */
  capacityNeeded(horizonMs: number, used = this.current(), sinceMs = 0): Demand {
    const { fleet, clock } = this.#parts;
    return capacityNeeded(fleet.demand?.history ?? newDemandHistory(), used, clock.now(), horizonMs, sinceMs);
  }

  /**
   * Which hosts may sleep now, which must be woken, and why.
   * @param byPerson one that asks now does not wait until hosts have been awake for a while
   * @param tolerate dead hosts to keep room for, where not as the fleet is set
   */
  plan({ byPerson = false, tolerate }: { byPerson?: boolean; tolerate?: number } = {}): PowerPlan {
    const { fleet, clock } = this.#parts;
    const waiting = [...fleet.vms.values()].filter(({ state }) => state.kind === 'waiting');
    const settings = fleet.balance;
    const used = this.current();
    const known = new Map<string, Demand>();
    const needed = (horizonMs: number, sinceMs: number): Demand => {
      const key = `${horizonMs} ${sinceMs}`;
      const demand = known.get(key) ?? this.capacityNeeded(horizonMs, used, sinceMs);
      known.set(key, demand);
      return demand;
    };
    return powerPlan({
      hosts: [...fleet.hosts.values()].map((host) => this.#powerHost(host)),
      needed,
      used,
      waiting: {
        cores: 0,
        memoryMiB: waiting.reduce((sum, { spec }) => sum + spec.memoryMiB, 0),
      },
      hostFailuresTolerated: tolerate ?? settings.hostFailuresTolerated,
      options: {
        coresBusy: settings.cpuLimit,
        wakeMargin,
        sleepMargin: wakeMargin + marginOfCaution * wholeCaution(settings, clock.now()),
        shortestAwakeMs: byPerson ? 0 : settings.dwellMs,
      },
    });
  }

  /** What the planner is told of the hosts' sleep, and why some may not sleep. */
  facts(byPerson: boolean): { readonly facts: PowerFacts; readonly cannot: readonly PowerChoice[] } {
    const { fleet } = this.#parts;
    const { wake, room } = this.plan({ byPerson });
    const maySleep: string[] = [];
    const cannot: PowerChoice[] = [];
    for (const host of fleet.hosts.values()) {
      const { name, state, forMs, mayNotSleep } = this.#powerHost(host);
      if (state !== 'awake') continue;
      const young = !byPerson && forMs < fleet.balance.dwellMs;
      const because = mayNotSleep ?? (young ? `it has been awake for ${formatMs(forMs)} only` : null);
      if (because === null) maySleep.push(name);
      else cannot.push({ host: name, because });
    }
    const mayWake = [...fleet.sleeps.values()]
      .filter(({ host, state }) => state.kind === 'asleep' && fleet.hosts.get(host)?.cordoned === false)
      .map(({ host }) => fleet.hostName(host));
    const leastAwake = fleet.balance.hostFailuresTolerated + 1;
    return { facts: { maySleep, mayWake, wake, room, leastAwake, emptiesOthers: byPerson }, cannot };
  }

  /** Watts idle and with all cores busy: as learned or set, else by its cores. */
  wattsRange(host: HostRecord): readonly [number, number] {
    const idle = this.idleWattsOf(host);
    return [idle, Math.max(idle, this.#modelOf(host).max)];
  }

  /** What a host that is awake draws now, and how that is known. */
  wattsOf(host: HostRecord): HostWatts {
    const meter = this.#meters.get(host.id);
    const fresh = meter && this.#parts.clock.monotonic() - meter.readAt < 2.5 * askEveryMs;
    if (fresh && meter.watts !== null) return { watts: meter.watts, source: 'bmc' };
    const load = this.#parts.liveness.loadOf(host.id);
    if (load?.raplWatts !== undefined) return { watts: load.raplWatts, source: 'rapl' };
    return { watts: modelWatts(this.#modelOf(host), load?.cpu ?? 0), source: 'model' };
  }

  /** What it draws with nothing to do: as learned, else by its model. */
  idleWattsOf(host: HostRecord): number {
    return this.#idle.get(host.id) ?? this.#modelOf(host).idle;
  }

  #modelOf({ id, inventory }: HostRecord) {
    return this.#parts.fleet.sleeps.get(id)?.watts ?? defaultWatts(inventory.cpus);
  }

  #powerHost(host: HostRecord): PowerHost {
    const { fleet, liveness, health, sleep, clock } = this.#parts;
    const record = fleet.sleeps.get(host.id);
    const state = record?.state ?? { kind: 'awake' as const, since: host.joinedAt };
    const lost = state.kind === 'awake' && (liveness.isSilent(host.id) || host.fenced !== null);
    const room = fleet.rooms.get(host.id);
    return {
      name: host.name,
      state: lost || state.kind === 'wake-failed' ? 'gone' : state.kind,
      forMs: clock.now() - state.since,
      capacity: { cores: host.inventory.cpus, memoryMiB: room?.capacityMiB ?? 0 },
      // Asked only where the records of room do not say it already: it looks at every VM.
      empty:
        state.kind === 'awake' &&
        Object.keys(room?.guestsMiB ?? {}).length === 0 &&
        useOf({ fleet, liveness }, host) === undefined,
      closed: host.cordoned || health.sicknessOf(host) !== null,
      mayNotSleep: state.kind === 'awake' ? (sleep.refusal(host, { onceEmpty: true })?.message ?? null) : null,
      idleWatts: this.idleWattsOf(host),
      readyMs: record === undefined ? null : readyWithinMs(record),
    };
  }

  #sample(host: HostRecord, ms: number): void {
    const { fleet, liveness } = this.#parts;
    const pending = this.#pendingOf(host.id);
    if (fleet.sleeps.get(host.id)?.state.kind === 'asleep') {
      pending.asleepMs += ms;
      pending.savedWh += (this.idleWattsOf(host) * ms) / hourMs;
      return;
    }
    this.#ask(host);
    const load = liveness.loadOf(host.id);
    if (liveness.isSilent(host.id) || load === null) return;
    const { watts, source } = this.wattsOf(host);
    const wh = (watts * ms) / hourMs;
    pending.wh[source] += wh;
    pending.awakeMs += ms;
    if (source !== 'model' && load.cpu < idleBelow) {
      const before = this.#idle.get(host.id) ?? watts;
      this.#idle.set(host.id, before + newIdleWeighs * (watts - before));
    }
    const guests = Object.entries(load.guests).map(([id, guest]) => {
      const vm = id as VmId; // HostLoad keys them so
      return { vm, cpuCores: guest.cpuCores, memoryMiB: fleet.vms.get(vm)?.spec.memoryMiB ?? 0 };
    });
    const shares = shareOut(guests, {
      wh,
      idleWh: (this.idleWattsOf(host) * ms) / hourMs,
      busyCores: load.cpu * host.inventory.cpus,
      memoryMiB: fleet.rooms.get(host.id)?.capacityMiB ?? 0,
    });
    for (const [vm, share] of shares) pending.vms.set(vm, (pending.vms.get(vm) ?? 0) + share);
  }

  /** Reads the meter of its controller, beside everything else. */
  #ask(host: HostRecord): void {
    const { clock, power, log } = this.#parts;
    if (host.power === null) return;
    const now = clock.monotonic();
    let meter = this.#meters.get(host.id);
    if (meter === undefined) {
      meter = { watts: null, readAt: -Infinity, askedAt: -Infinity, asking: false };
      this.#meters.set(host.id, meter);
    }
    const every = meter.watts === null && meter.askedAt !== -Infinity ? askMeterlessEveryMs : askEveryMs;
    if (meter.asking || now - meter.askedAt < every || this.#asking >= askedAtOnce) return;
    const controller = power(host.power);
    meter.askedAt = now;
    if (!controller.watts) return;
    const asked = meter;
    asked.asking = true;
    this.#asking++;
    void controller
      .watts(this.#stop.signal)
      .then((watts) => {
        asked.watts = watts;
        asked.readAt = clock.monotonic();
      })
      .catch((error: unknown) => log.debug({ host: host.name, error: messageOf(error) }, 'no watts could be read'))
      .finally(() => {
        asked.asking = false;
        this.#asking--;
      });
  }

  /** Adds what was gathered to the records of the day. @param at begin of the five minutes */
  async #write(at: number): Promise<void> {
    const { fleet } = this.#parts;
    const day = new Date(at).toISOString().slice(0, 10);
    const { cores, memoryMiB, samples } = this.#load;
    this.#load = { cores: 0, memoryMiB: 0, samples: 0 };
    if (samples > 0) {
      const mean = { cores: cores / samples, memoryMiB: memoryMiB / samples };
      await fleet.change((draft) => {
        const history = withSample(fleet.demand?.history ?? newDemandHistory(), at, mean);
        draft.putDemand({ schema: 1, history });
      });
    }
    const hosts = [...this.#pending].filter(([id]) => fleet.hosts.has(id));
    for (let from = 0; from < hosts.length; from += recordsPerCommit) {
      const some = hosts.slice(from, from + recordsPerCommit);
      await fleet.change((draft) => {
        for (const [id, pending] of some) draft.putEnergy(this.#added(day, id, pending));
      });
      for (const [id] of some) this.#pending.delete(id);
    }
    await this.#forgetOld(at);
  }

  #added(day: string, id: HostId, pending: Pending): EnergyRecord {
    const { fleet } = this.#parts;
    const before = fleet.energies.get(`${day}/${id}`);
    const vms: Record<VmId, readonly [string, number]> = { ...before?.vms };
    for (const [vm, wh] of pending.vms) {
      const name = fleet.vms.get(vm)?.name ?? vms[vm]?.[0] ?? vm;
      vms[vm] = [name, rounded((vms[vm]?.[1] ?? 0) + wh)];
    }
    const wh = { bmc: 0, rapl: 0, model: 0 };
    for (const source of wattsSources) wh[source] = rounded((before?.wh[source] ?? 0) + pending.wh[source]);
    return {
      schema: 1,
      day,
      host: id,
      hostName: fleet.hostName(id),
      wh,
      savedWh: rounded((before?.savedWh ?? 0) + pending.savedWh),
      awakeMs: (before?.awakeMs ?? 0) + Math.round(pending.awakeMs),
      asleepMs: (before?.asleepMs ?? 0) + Math.round(pending.asleepMs),
      idleWatts: this.#idle.get(id) ?? null,
      vms,
    };
  }

  async #forgetOld(at: number): Promise<void> {
    const { fleet } = this.#parts;
    const oldest = new Date(at - daysKept * 24 * hourMs).toISOString().slice(0, 10);
    const old = [...fleet.energies.values()].filter(({ day }) => day < oldest).slice(0, recordsPerCommit);
    if (old.length > 0) await fleet.change((draft) => old.forEach((record) => draft.removeEnergy(record)));
  }

  #pendingOf(host: HostId): Pending {
    let pending = this.#pending.get(host);
    if (pending === undefined) {
      pending = { wh: { bmc: 0, rapl: 0, model: 0 }, savedWh: 0, awakeMs: 0, asleepMs: 0, vms: new Map() };
      this.#pending.set(host, pending);
    }
    return pending;
  }
}

/** To a thousandth of a Wh: records stay short. */
function rounded(wh: number): number {
  return Math.round(wh * 1000) / 1000;
}
