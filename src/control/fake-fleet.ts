/**
 * A fleet for tests: the real control plane on a memory store and a clock that stands still, with agents that say what they
 * are told to say over channels within the process. Not here: hypervisors; a fake agent carries nothing out.
 */
import type {
  GuardReport,
  GuestLoad,
  HealthSign,
  HostInventory,
  HostLoad,
  LeaseSeen,
  PowerSpec,
} from '../model/host.ts';
import type { MigrationId, VmId } from '../model/ids.ts';
import type { Migration } from '../model/migration.ts';
import type { SleepRecord } from '../model/sleep.ts';
import type { RunningSpec, VmRecord } from '../model/vm.ts';
import type { MigrationFact } from '../migration/step.ts';
import type { Channel } from '../runtime/channel.ts';
import { TestClock } from '../runtime/clock.ts';
import { silentLog } from '../runtime/log.ts';
import { seededRandom } from '../runtime/random.ts';
import { lead, leaderKey } from '../store/leadership.ts';
import { Engine } from '../store/memory.ts';
import type { Kept } from '../store/memory.ts';
import { protocolVersion } from '../wire/agent.ts';
import type {
  Fact,
  FoundGuest,
  FromAgent,
  GuestFact,
  KnownVm,
  Order,
  OrderKind,
  ReadyGuest,
  StoreMark,
  ToAgent,
} from '../wire/agent.ts';
import type { LiveEvent } from './live-events.ts';
import { newVm } from '../wire/endpoints.ts';
import { startPlane } from './plane.ts';
import { planned } from './planning.ts';
import { EventHub } from './event-hub.ts';
import type { Call } from './handler.ts';
import { bootstrapActor } from './people.ts';
import type { Post } from './webhooks.ts';
import type { ControlPlane } from './plane.ts';
import { controllerOver } from './power/power.ts';
import type { Bmc, PowerController, PowerReading } from './power/power.ts';

type WithoutStamp<F> = F extends MigrationFact ? Omit<F, 'migration' | 'at'> : never;
export type MoveFact = WithoutStamp<MigrationFact>;
type WithoutVm<F> = F extends GuestFact ? Omit<F, 'vm' | 'generation' | 'at'> : never;
export type LifeFact = WithoutVm<GuestFact>;

/** Turns of the event loop after which something that did not happen will not. */
const turnsLimit = 2_000;

/** Waits for an event, not for time. */
export async function until<T>(what: string, look: () => T | undefined | false | null): Promise<T> {
  for (let turn = 0; turn < turnsLimit; turn++) {
    const found = look();
    if (found !== undefined && found !== false && found !== null) return found;
    await new Promise((resolve) => setImmediate(resolve));
  }
  throw new Error(`did not happen: ${what}`);
}

/** Lets everything that is on its way arrive. */
export async function settled(): Promise<void> {
  for (let turn = 0; turn < 20; turn++) await new Promise((resolve) => setImmediate(resolve));
}

export function channelPair(name: string): [Channel, Channel] {
  const ends = [end(), end()] as const;
  const make = (mine: ReturnType<typeof end>, other: ReturnType<typeof end>): Channel => ({
    send(message) {
      if (!mine.open) return false;
      const copy: unknown = JSON.parse(JSON.stringify(message));
      setImmediate(() => other.deliver(copy));
      return true;
    },
    onMessage: (handler) => mine.listen(handler),
    closed: mine.closed,
    get isOpen() {
      return mine.open;
    },
    remote: name,
    close(reason = 'closed') {
      mine.end(reason);
      setImmediate(() => other.end(reason));
    },
  });
  return [make(ends[0], ends[1]), make(ends[1], ends[0])];
}

function end() {
  const { promise, resolve } = Promise.withResolvers<string>();
  let handler: ((message: unknown) => void) | undefined;
  const waiting: unknown[] = [];
  const self = {
    open: true,
    closed: promise,
    deliver(message: unknown) {
      if (!self.open) return;
      if (handler) handler(message);
      else waiting.push(message);
    },
    listen(next: (message: unknown) => void) {
      handler = next;
      for (const message of waiting.splice(0)) next(message);
    },
    end(reason: string) {
      if (!self.open) return;
      self.open = false;
      resolve(reason);
    },
  };
  return self;
}

export function inventory(name: string, changes: Partial<HostInventory> = {}): HostInventory {
  return {
    cpus: 4,
    memoryMiB: 8192,
    cpuModel: 'test',
    accel: 'tcg',
    qemuVersion: '10.0.2',
    machines: ['pc-q35-7.2', 'pc-q35-10.0'],
    liveMigration: { ok: true },
    postCopy: { ok: true },
    switchesOnOrder: true,
    networks: ['default'],
    pools: ['default'],
    hold: { ok: true },
    migrationAddress: '10.0.1.1',
    peer: { address: `${name}.peer`, port: 7072 },
    kernelBootId: `boot-of-${name}`,
    sleep: { off: { ok: true }, suspend: { ok: true }, macs: ['52:54:00:00:00:01'] },
    ...changes,
  };
}

export const frozen = (vm: VmRecord): RunningSpec => ({ argvVersion: 1, argv: ['-m', 'x'], spec: vm.spec });

export class FakeAgent {
  readonly name: string;
  inventory: HostInventory;
  /** What really runs. */
  guests: FoundGuest[] = [];
  newestTerm = 0;
  /** What its journal holds; undefined: as an agent says that is older than this. */
  known: KnownVm[] | undefined;
  mark: StoreMark | undefined;
  newestSession = 0;
  clockAheadMs = 0;
  orders: Order[] = [];
  acked = 0;
  session = 0;
  rejected: string | undefined;
  reports = true;
  health: HealthSign[] = [];
  /** Why it refuses orders. */
  refuses: string | null = null;
  /** Guests whose agent answers. */
  ready: ReadyGuest[] = [];
  channel: Channel | undefined;
  consoles: ToAgent[] = [];
  /** What its reports say of its load, where it is not the usual. */
  load: Partial<HostLoad> = {};
  /** What it answers to `sleep`; null: nothing. */
  sleepAnswer: { result: 'ready' | 'refused' | 'failed'; says: string } | null = { result: 'ready', says: '' };
  asked: string[] = [];
  guards: readonly GuardReport[];
  /** What it sees of the leases of others. */
  leases: () => LeaseSeen[] = () => [];
  readonly #fleet: FakeFleet;
  #number = 0;
  #unacked: { number: number; fact: Fact }[] = [];

  constructor(fleet: FakeFleet, name: string, changes: Partial<HostInventory> = {}) {
    this.#fleet = fleet;
    this.name = name;
    this.inventory = inventory(name, changes);
    const poolId = this.inventory.poolIds?.['default'] ?? 'pool1';
    this.guards = [{ pool: 'default', poolId, leaseTimeMs: 10_000, leftMs: 9_000, watchdog: true }];
  }

  get now(): number {
    return this.#fleet.clock.now() + this.clockAheadMs;
  }

  get connected(): boolean {
    return this.session > 0 && this.channel?.isOpen === true;
  }

  /** Dials; resolves with the welcome, the rejection or the end of the channel. */
  async connect({ protocol = protocolVersion }: { protocol?: number } = {}): Promise<void> {
    const [mine, theirs] = channelPair(this.name);
    this.channel = mine;
    this.session = 0;
    this.rejected = undefined;
    mine.onMessage((message) => this.#receive(message as ToAgent)); // the server is typed
    this.#fleet.plane.agents.accept(theirs);
    this.say({
      type: 'hello',
      protocol,
      version: 'test',
      host: this.name,
      inventory: this.inventory,
      guests: this.guests,
      newestTerm: this.newestTerm,
      known: this.known,
      mark: this.mark,
      session: this.newestSession,
      at: this.now,
    });
    await until(`${this.name} welcomed`, () => this.session > 0 || this.rejected !== undefined || !mine.isOpen);
    if (this.session > 0) await settled();
  }

  say(message: FromAgent): void {
    this.channel?.send(message);
  }

  report(): void {
    if (!this.reports) return;
    const guests = this.#fleet.loadsOn(this.name);
    const idle = { cpu: 0.1, memoryUsedMiB: 100, memoryTotalMiB: 8192, pressure: null, guests };
    const load = { at: this.now, ...idle, ...this.load };
    this.say({
      type: 'report',
      load,
      guards: [...this.guards],
      leases: this.leases(),
      health: this.health,
      ready: this.ready,
    });
  }

  /** Says a fact and waits until it is on record. */
  async fact(fact: Fact): Promise<void> {
    const number = ++this.#number;
    this.#unacked.push({ number, fact });
    this.say({ type: 'fact', number, fact });
    await until(`fact ${number} of ${this.name} acknowledged`, () => this.acked >= number);
  }

  move(migration: MigrationId, fact: MoveFact): Promise<void> {
    // The cast: put together again from the parts that MoveFact was made of.
    const whole = { ...fact, migration, at: this.now } as MigrationFact;
    return this.fact({ about: 'migration', fact: whole });
  }

  life(vm: VmId, fact: LifeFact, generation = this.#fleet.vm(vm).generation): Promise<void> {
    const whole = { ...fact, vm, generation, at: this.now } as GuestFact; // as above
    return this.fact({ about: 'guest', fact: whole });
  }

  order<K extends OrderKind>(kind: K): Promise<Extract<Order, { kind: K }>> {
    const isKind = (order: Order): order is Extract<Order, { kind: K }> => order.kind === kind;
    return until(`${this.name} is ordered to ${kind}`, () => this.orders.find(isKind));
  }

  kinds(): OrderKind[] {
    return this.orders.map(({ kind }) => kind);
  }

  #receive(message: ToAgent): void {
    switch (message.type) {
      case 'welcome':
        this.session = message.session;
        this.newestTerm = message.term;
        this.newestSession = message.session;
        this.mark = { term: message.term, termId: message.termId ?? '', revision: message.revision ?? 0 };
        for (const each of this.#unacked) this.say({ type: 'fact', ...each });
        return;
      case 'rejected':
        this.rejected = message.reason;
        return;
      case 'order':
        this.orders.push(message.order);
        this.mark = { ...this.mark, term: message.order.term, revision: message.order.revision ?? 0 };
        this.say({ type: 'answer', order: message.order.id, refused: this.refuses });
        return;
      case 'ack':
        this.acked = Math.max(this.acked, message.number);
        this.#unacked = this.#unacked.filter(({ number }) => number > message.number);
        return;
      case 'beat':
        return;
      case 'sleep':
        this.asked.push(message.do);
        if (message.do !== 'prepare' || this.sleepAnswer === null) return;
        this.say({ type: 'sleep-answer', request: message.request, ...this.sleepAnswer });
        return;
      case 'wake-other':
        this.asked.push(`wake ${message.macs.join(' ')}`);
        return;
      default:
        this.consoles.push(message);
    }
  }
}

/** Power controllers by address: what each reads, and what it does when told. */
export class FakeBmcs {
  readonly power = new Map<string, PowerReading['state']>();
  readonly orders: string[] = [];
  /** Of those that have a meter. */
  readonly watts = new Map<string, number>();
  /** What a controller does with an order; it obeys unless told otherwise. */
  obeys: (address: string) => boolean = () => true;
  readonly #clock: TestClock;

  constructor(clock: TestClock) {
    this.#clock = clock;
  }

  open(spec: PowerSpec): PowerController {
    const address = spec.kind === 'ipmi' ? spec.address : spec.url;
    const bmc: Bmc = {
      read: async () => {
        const state = this.power.get(address) ?? 'unknown';
        return state === 'unknown' ? { state, says: 'no answer' } : { state };
      },
      order: async (wanted) => {
        this.orders.push(`${address} ${wanted}`);
        if (this.obeys(address)) this.power.set(address, wanted === 'on' ? 'on' : 'off');
      },
      watts: async () => this.watts.get(address) ?? null,
    };
    return controllerOver(bmc, this.#clock);
  }
}

export class FakeFleet {
  /** Magic packets that the server sent itself. */
  readonly magic: string[] = [];
  readonly clock = new TestClock();
  engine = new Engine({ clock: this.clock });
  readonly agents = new Map<string, FakeAgent>();
  readonly alarms: string[] = [];
  readonly live: LiveEvent[] = [];
  newerTerm = 0;
  trustGuard = true;
  /** What guests carry, by name; unset: nothing is said of them. */
  guestLoad: ((name: string) => GuestLoad) | undefined;
  readonly bmcs = new FakeBmcs(this.clock);
  /** How webhooks are sent; undefined: by HTTP. */
  post: Post | undefined;
  plane!: ControlPlane;
  #stop: (() => Promise<void>) | undefined;
  #seed = 1;

  /** A plane with these hosts connected. */
  static async start(names: readonly string[] = ['h1', 'h2', 'h3']): Promise<FakeFleet> {
    const fleet = new FakeFleet();
    await fleet.startServer();
    for (const name of names) await fleet.join(name);
    return fleet;
  }

  async startServer(): Promise<void> {
    const store = this.engine.connect();
    const stop = new AbortController();
    const up = Promise.withResolvers<ControlPlane>();
    const led = lead(
      store,
      'test',
      stop.signal,
      async (leadership) => {
        const plane = await startPlane({
          store,
          leadership,
          door: { open: async () => ({ port: 0, close: async () => {} }) },
          clock: this.clock,
          random: seededRandom(this.#seed++),
          log: silentLog,
          version: '0.0.0',
          power: (spec) => this.bmcs.open(spec),
          passwordCost: 16,
          ...(this.post && { post: this.post }),
          makePlan: async (snapshot, ask) => planned(snapshot, ask),
          recovery: { trustGuard: this.trustGuard, lockWaitMs: 120_000 },
          sleep: { sendMagic: async (macs) => void this.magic.push(...macs) },
          onNewerTerm: (term) => (this.newerTerm = term),
        });
        up.resolve(plane);
        await new Promise<void>((resolve) =>
          leadership.lost.addEventListener('abort', () => resolve(), { once: true }),
        );
        await plane.stop();
      },
      { clock: this.clock, termAbove: () => this.newerTerm },
    );
    led.catch(up.reject);
    this.plane = await up.promise;
    this.plane.live.subscribe((event) => {
      this.live.push(event);
      if (event.kind === 'alarm') this.alarms.push(event.says);
    });
    this.#stop = async () => {
      stop.abort();
      await led;
      await store.close();
    };
  }

  async stopServer(): Promise<void> {
    await this.#stop?.();
    this.#stop = undefined;
  }

  /** What a copy of the store's file would hold. */
  async copyStore(): Promise<Kept> {
    const store = this.engine.connect();
    const { entries, revision } = await store.list('');
    await store.close();
    return { entries: entries.filter(({ key }) => key !== leaderKey), revision, history: [] };
  }

  /** The server is gone and comes back on a store that holds this; the agents do not dial yet. */
  async startServerOn(kept: Kept): Promise<void> {
    await this.stopServer();
    this.engine = new Engine({ clock: this.clock }, undefined, kept);
    await this.startServer();
  }

  /** The server is gone and comes back on the same store; the agents dial again. */
  async restartServer(): Promise<void> {
    await this.stopServer();
    await this.startServer();
    for (const agent of this.agents.values()) {
      agent.orders = [];
      await agent.connect();
    }
  }

  async join(name: string, changes: Partial<HostInventory> = {}): Promise<FakeAgent> {
    const agent = new FakeAgent(this, name, changes);
    this.agents.set(name, agent);
    await agent.connect();
    agent.report();
    await settled();
    return agent;
  }

  loadsOn(host: string): Record<VmId, GuestLoad> {
    const { guestLoad, plane } = this;
    const there = plane.fleet.hostNamed(host)?.id;
    const vms = [...plane.fleet.vms.values()].filter((vm) => vm.host === there && vm.state.kind === 'running');
    return Object.fromEntries(guestLoad === undefined ? [] : vms.map(({ id, name }) => [id, guestLoad(name)]));
  }

  agent(name: string): FakeAgent {
    const agent = this.agents.get(name);
    if (agent) return agent;
    throw new Error(`no agent ${name}`);
  }

  vm(ref: string): VmRecord {
    return this.plane.fleet.findVm(ref);
  }

  migration(id: string): Migration {
    return this.plane.fleet.findMigration(id);
  }

  /** Room of a host as "guests+reservations" in MiB. */
  room(name: string): string {
    const room = this.plane.fleet.rooms.get(this.plane.fleet.findHost(name).id);
    const sum = (held: object | undefined) => Object.values(held ?? {}).reduce((a: number, b: number) => a + b, 0);
    return `${sum(room?.guestsMiB)}+${sum(room?.reservationsMiB)}`;
  }

  /** What is known of the sleep of a host. */
  slept(name: string): SleepRecord {
    const found = this.plane.fleet.sleeps.get(this.plane.fleet.findHost(name).id);
    if (found) return found;
    throw new Error(`nobody spoke of the sleep of ${name}`);
  }

  /** What a handler is called with, by the admin of the state directory. */
  call(changes: Partial<Call> = {}): Call {
    const answer = { more() {}, version() {}, session() {} };
    const own = { plane: this.plane, request: null, actor: bootstrapActor, address: '127.0.0.1', ifMatch: null };
    return { ...own, answer, hub: new EventHub(this.plane, this.clock), ...changes };
  }

  /** Everything in the store but the lead and the audit log. */
  async dump(): Promise<string> {
    const store = this.engine.connect();
    const { entries } = await store.list('');
    await store.close();
    return JSON.stringify(entries.filter(({ key }) => !/^(control|audit)\//.test(key)));
  }

  /** A VM that runs on `host`. */
  async run(name: string, host: string, changes: object = {}): Promise<VmRecord> {
    const body = newVm.parse({
      name,
      host,
      boot: { kind: 'kernel', kernel: 'k', initrd: null, append: '' },
      restart: 'never',
      ...changes,
    });
    const vm = await this.plane.vms.create(body, null);
    const agent = this.agent(host);
    if (vm.state.kind === 'creating') await agent.life(vm.id, { kind: 'provisioned' });
    await agent.life(vm.id, { kind: 'started', running: frozen(vm) });
    agent.guests.push({ vm: vm.id, generation: vm.generation, state: 'runs', migration: null });
    return this.vm(name);
  }

  /** Lets time pass, with a report of each connected agent every half second, or as often as is said. */
  async pass(ms: number, stepMs = 500): Promise<void> {
    for (let left = ms; left > 0; left -= stepMs) {
      for (const agent of this.agents.values()) if (agent.connected) agent.report();
      await settled();
      await this.clock.advance(Math.min(stepMs, left));
      await settled();
    }
  }
}
