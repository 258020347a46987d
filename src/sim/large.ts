/**
 * A fleet too large to run host by host: the real distributor with the real records, load history, reservations and moves, on
 * virtual time. All agents are one here: every five minutes it says what each host and guest uses, and it carries a move out in
 * the time that its forecast says; one in some hundred fails.
 *
 * The same load on VMs that stay where they are is looked at beside it, so that it can be seen what the moves bring.
 *
 * Not here: failures of hosts, servers and networks (world.ts, with every agent by itself), and who asks for what (large-fleet.ts).
 */
import { Distributor } from '../control/distributor.ts';
import { Energy } from '../control/energy.ts';
import { Fleet } from '../control/fleet.ts';
import { Forecasts } from '../control/forecasts.ts';
import { Health } from '../control/health.ts';
import { LiveEvents } from '../control/live-events.ts';
import { Liveness } from '../control/liveness.ts';
import { LoadHistory } from '../control/load-history.ts';
import { Migrations } from '../control/migrations.ts';
import type { MakePlan } from '../control/planning.ts';
import type { OpenPower } from '../control/power/power.ts';
import { Reservations } from '../control/reservations.ts';
import { Sleep } from '../control/sleep.ts';
import { planInThread } from '../control/threaded-planner.ts';
import { isEnd } from '../migration/phases.ts';
import { defaultBalanceSettings } from '../model/distribution.ts';
import { roomUsedMiB } from '../model/host.ts';
import type { GuestLoad } from '../model/host.ts';
import type { HostId, MigrationId, VmId } from '../model/ids.ts';
import type { Migration } from '../model/migration.ts';
import { MiB } from '../model/units.ts';
import { TestClock } from '../runtime/clock.ts';
import { silentLog } from '../runtime/log.ts';
import { seededRandom, type Random } from '../runtime/random.ts';
import { lead, type Leadership } from '../store/leadership.ts';
import { Engine } from '../store/memory.ts';
import { entriesOf, hostCpus, largeFleet, type LargeFleet } from './large-fleet.ts';

export interface LargeOptions {
  readonly seed: number;
  readonly hosts: number;
  readonly vms: number;
  readonly minutes: number;
}

export interface LargeResult {
  readonly moves: number;
  readonly failed: number;
  readonly plans: number;
  /** Host-samples with more asked of the CPUs than there is, or nearly: with the distributor, and had nothing moved. */
  readonly overloaded: { readonly now: number; readonly staying: number };
  readonly violations: readonly string[];
}

const sampleMs = 300_000;
/** Between two looks at what is due: no shorter than what a large fleet takes to think about. */
const stepMs = 60_000;
/** The day begins here: the morning's load is on its way, and half an hour shows what is done about it. */
const startHour = 9;
const startedAt = Date.UTC(2030, 0, 1, startHour);
const overload = 0.9;
const sayEveryMs = 10_000;
const failureChance = 1 / 300;
const fallbackBytesPerSecond = 500_000_000;
/** Only where everything before it has gone wrong is it needed. */
const leadTtlMs = 24 * 3_600_000;

/** The agents are one program here, and it is there. */
class AlwaysHeard extends Liveness {
  override isSilent(): boolean {
    return false;
  }
}

/** @param say gets a line each virtual half hour, for each plan, and now and then how far it is */
export async function runLarge(options: LargeOptions, say: (line: string) => void): Promise<LargeResult> {
  const { seed, hosts, vms, minutes } = options;
  const clock = new TestClock(startedAt);
  const made = largeFleet(seed, hosts, vms, startedAt);
  const engine = new Engine({ clock, keepCommits: 10 }, undefined, {
    revision: 1,
    entries: entriesOf(made),
    history: [],
  });
  const store = engine.connect();
  const over = new AbortController();
  const led = Promise.withResolvers<Leadership>();
  const leading = lead(
    store,
    'large',
    over.signal,
    async (leadership) => {
      led.resolve(leadership);
      await new Promise<void>((resolve) => over.signal.addEventListener('abort', () => resolve(), { once: true }));
    },
    { clock, ttlMs: leadTtlMs },
  );
  leading.catch(led.reject);
  const fleet = await Fleet.load(store, await led.promise, silentLog, clock);
  try {
    return await new LargeRun(options, made, fleet, clock, say).run(minutes * 60_000);
  } finally {
    over.abort();
    await leading;
    await store.close();
  }
}

class LargeRun {
  readonly #options: LargeOptions;
  readonly #made: LargeFleet;
  readonly #fleet: Fleet;
  readonly #clock: TestClock;
  readonly #random: Random;
  readonly #liveness: Liveness;
  readonly #loads = new LoadHistory({ longestStepMs: sampleMs, smoothingMs: 3 * sampleMs });
  readonly #migrations: Migrations;
  readonly #distributor: Distributor;
  readonly #hostIndex: ReadonlyMap<HostId, number>;
  readonly #staysAt: Int32Array;
  /** When each open move ends, by the agents. */
  readonly #endsAt = new Map<MigrationId, number>();
  readonly #lastMoved = new Map<VmId, number>();
  readonly #overloaded = { now: 0, staying: 0 };
  readonly #violations: string[] = [];
  readonly #say: (line: string) => void;
  readonly #startedAt = performance.now();
  #saidAt = performance.now();
  /** The plan that is being made, in real time. */
  #thinking: Promise<unknown> | null = null;
  #moves = 0;
  #failed = 0;

  constructor(options: LargeOptions, made: LargeFleet, fleet: Fleet, clock: TestClock, say: (line: string) => void) {
    this.#options = options;
    this.#say = say;
    this.#made = made;
    this.#fleet = fleet;
    this.#clock = clock;
    this.#random = seededRandom(options.seed ^ 0x5bd1e995);
    this.#liveness = new AlwaysHeard(clock);
    this.#hostIndex = new Map(made.hosts.map(({ id }, n) => [id, n]));
    this.#staysAt = Int32Array.from(made.vms, ({ host }) => this.#hostIndex.get(host)!);
    const shared = {
      fleet,
      live: new LiveEvents(),
      liveness: this.#liveness,
      health: new Health(clock),
      loads: this.#loads,
      clock,
      random: this.#random,
      log: { ...silentLog, warn: (_: object, says: string) => void this.#violations.push(says) },
    };
    this.#migrations = new Migrations(shared);
    const power: OpenPower = () => {
      throw new Error('hosts of a large fleet have no power controller');
    };
    const sleep = new Sleep({ ...shared, power, held: () => null, isConnected: () => true, tell: () => false });
    const forecasts = new Forecasts({ ...shared, tell: () => false, linkBytesPerSecond: undefined });
    this.#distributor = new Distributor({
      ...shared,
      migrations: this.#migrations,
      reservations: new Reservations({ ...shared, forecasts }),
      forecasts,
      sleep,
      energy: new Energy({ ...shared, sleep, power }),
      held: () => null,
      makePlan: (snapshot, ask) => (this.#thinking = this.#plan(snapshot, ask)),
    });
    fleet.onCommit((changes) => {
      for (const change of changes) {
        if (change.kind === 'migration' && !change.before && change.after) this.#begun(change.after);
      }
    });
  }

  async run(forMs: number): Promise<LargeResult> {
    const { hosts } = this.#options;
    await this.#fleet.change((draft) =>
      draft.putBalance({
        ...defaultBalanceSettings,
        mode: 'automatic',
        // What is usual for ten hosts, for as many more.
        movesAtOnce: Math.max(defaultBalanceSettings.movesAtOnce, Math.round(hosts / 20)),
        movesPerHour: Math.max(defaultBalanceSettings.movesPerHour, hosts),
      }),
    );
    for (let at = 0; at <= forMs; at += stepMs) {
      const isSample = at % sampleMs === 0;
      if (isSample) this.#sample();
      await this.#endMoves();
      await this.#migrations.tick();
      await this.#distributor.tick();
      await this.#untilThought();
      this.#check();
      if (isSample && (at / sampleMs) % 6 === 0) this.#tell(this.#line());
      else if (performance.now() - this.#saidAt > sayEveryMs) this.#tell(`${at / 60_000} of ${forMs / 60_000} minutes`);
      await this.#clock.advance(stepMs);
    }
    return {
      moves: this.#moves,
      failed: this.#failed,
      plans: this.#fleet.plans.size,
      overloaded: this.#overloaded,
      violations: this.#violations,
    };
  }

  readonly #plan: MakePlan = async (snapshot, ask) => {
    this.#tell('a plan is being made');
    const startedAt = performance.now();
    const used = process.cpuUsage();
    const made = await planInThread(snapshot, ask);
    const { user, system } = process.cpuUsage(used);
    const { moves, score } = made.plan;
    const took = `${((performance.now() - startedAt) / 1000).toFixed(1)} s, ${((user + system) / 1e6).toFixed(1)} s of CPU`;
    const scores = `score ${score.before.total.toFixed(4)} to ${score.after.total.toFixed(4)}`;
    this.#tell(`a plan of ${moves.length} moves, ${scores}; it took ${took}`);
    return made;
  };

  /** A plan is made beside the beat; virtual time waits for it, and then for what becomes of it. */
  async #untilThought(): Promise<void> {
    while (this.#thinking !== null) {
      const thinking = this.#thinking;
      // What went wrong the distributor says.
      await thinking.catch(() => {});
      if (this.#thinking === thinking) this.#thinking = null;
      for (let turn = 0; turn < 5; turn++) await new Promise((resolve) => setImmediate(resolve));
    }
  }

  #tell(says: string): void {
    this.#saidAt = performance.now();
    const time = new Date(this.#clock.now()).toISOString().slice(11, 16);
    this.#say(`${time}  ${says}; ${((this.#saidAt - this.#startedAt) / 1000).toFixed(0)} s`);
  }

  get #dayMs(): number {
    return startHour * 3_600_000 + this.#clock.monotonic();
  }

  /** Hands in what all hosts and guests use. */
  #sample(): void {
    const { hosts, vms, load } = this.#made;
    const guests = hosts.map((): Record<VmId, GuestLoad> => ({}));
    const used = hosts.map(() => 0);
    vms.forEach(({ id }, v) => {
      const host = this.#hostIndex.get(this.#fleet.vms.get(id)!.host)!;
      const seen = load(v, this.#dayMs);
      guests[host]![id] = seen;
      used[host]! += seen.memoryResidentMiB;
    });
    const shares = this.#shares(false);
    hosts.forEach(({ id, inventory }, h) => {
      const report = {
        at: this.#clock.now(),
        cpu: Math.min(1, shares[h]!),
        memoryUsedMiB: used[h]!,
        memoryTotalMiB: inventory.memoryMiB,
        pressure: null,
        guests: guests[h]!,
      };
      this.#liveness.heard(id, this.#clock.now(), report);
      this.#loads.observe(id, report, this.#clock.monotonic(), () => true);
    });
    this.#overloaded.now += shares.filter((share) => share > overload).length;
    this.#overloaded.staying += this.#shares(true).filter((share) => share > overload).length;
  }

  /** Of its CPUs what each host is asked for. */
  #shares(staying: boolean): number[] {
    const shares = this.#made.hosts.map(() => 0);
    this.#made.vms.forEach(({ id }, v) => {
      const host = staying ? this.#staysAt[v]! : this.#hostIndex.get(this.#fleet.vms.get(id)!.host)!;
      shares[host]! += this.#made.cores(v, this.#dayMs) / hostCpus;
    });
    return shares;
  }

  #begun({ id, vm, vmName, startedAt: at, forecast, memoryMiB }: Migration): void {
    const { dwellMs } = this.#fleet.balance;
    const before = this.#lastMoved.get(vm);
    if (before !== undefined && at - before < dwellMs) this.#violations.push(`${vmName} is moved again at once`);
    this.#lastMoved.set(vm, at);
    this.#moves++;
    const totalMs = forecast?.totalMs ?? (1000 * memoryMiB * MiB) / fallbackBytesPerSecond;
    this.#endsAt.set(id, this.#clock.monotonic() + totalMs);
  }

  async #endMoves(): Promise<void> {
    for (const [id, endsAt] of this.#endsAt) {
      if (endsAt > this.#clock.monotonic()) continue;
      this.#endsAt.delete(id);
      const migration = this.#fleet.migrations.get(id);
      if (migration === undefined || isEnd(migration.phase)) continue;
      const fails = this.#random.next() < failureChance;
      if (fails) this.#failed++;
      for (const [side, fact] of fails ? failing : arriving) {
        const at = this.#clock.now();
        await this.#migrations.onFact(migration[side], { ...fact, migration: id, at });
      }
    }
  }

  /** What must hold, whatever the distributor does. */
  #check(): void {
    for (const room of this.#fleet.rooms.values()) {
      if (roomUsedMiB(room) > room.capacityMiB) this.#violations.push(`${this.#fleet.hostName(room.host)} is too full`);
    }
    const touching = new Map<HostId, number>();
    for (const { phase, source, target } of this.#fleet.unsettledMigrations()) {
      if (isEnd(phase)) continue;
      for (const host of [source, target]) touching.set(host, (touching.get(host) ?? 0) + 1);
    }
    const { movesPerHost } = this.#fleet.balance;
    for (const [host, count] of touching) {
      if (count > movesPerHost) this.#violations.push(`${count} moves at once on ${this.#fleet.hostName(host)}`);
    }
  }

  #line(): string {
    const now = this.#shares(false);
    const staying = this.#shares(true);
    const of = (shares: readonly number[]): string => {
      const mean = shares.reduce((sum, share) => sum + share, 0) / shares.length;
      const spread = Math.sqrt(shares.reduce((sum, share) => sum + (share - mean) ** 2, 0) / shares.length);
      const most = shares.reduce((max, share) => Math.max(max, share), 0);
      const high = shares.filter((share) => share > overload).length;
      return `busiest ${percent(most)}, spread ${percent(spread)}, ${high} hosts over ${percent(overload)}`;
    };
    const open = this.#endsAt.size;
    const says = this.#distributor.says;
    const caution = this.#fleet.balance.caution.factor;
    return [
      `${of(now)} (staying: ${of(staying)})`,
      `moves ${this.#moves}, ${open} open, ${this.#fleet.plans.size} plans, caution ${caution.toFixed(1)}`,
      ...(says === null ? [] : [says]),
    ].join('; ');
  }
}

const arriving = [
  ['target', { kind: 'listening', endpoint: { address: 'simulated', port: 1 } }],
  ['source', { kind: 'sending' }],
  ['source', { kind: 'stopped', for: 'stop-and-copy' }],
  ['source', { kind: 'handed-over' }],
  ['target', { kind: 'resumed', withFaults: false }],
  ['source', { kind: 'released' }],
] as const;
const failing = [
  ['target', { kind: 'listening', endpoint: { address: 'simulated', port: 1 } }],
  ['source', { kind: 'sending' }],
  [
    'source',
    {
      kind: 'source-running',
      failure: { code: 'no-convergence', message: 'It writes faster than the link carries.', hint: 'Try again.' },
    },
  ],
  ['target', { kind: 'closed' }],
] as const;

function percent(share: number): string {
  return `${Math.round(100 * share)} %`;
}
