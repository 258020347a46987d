/**
 * A fleet for tests: the real control plane on a memory store and a clock that stands still, with agents that say what they
 * are told to say over channels within the process. Not here: hypervisors; a fake agent carries nothing out.
 */
import type { HostInventory } from '../model/host.ts';
import type { MigrationId, VmId } from '../model/ids.ts';
import type { Migration } from '../model/migration.ts';
import type { RunningSpec, VmRecord } from '../model/vm.ts';
import type { MigrationFact } from '../migration/step.ts';
import type { Channel } from '../runtime/channel.ts';
import { TestClock } from '../runtime/clock.ts';
import { silentLog } from '../runtime/log.ts';
import { seededRandom } from '../runtime/random.ts';
import { lead } from '../store/leadership.ts';
import { Engine } from '../store/memory.ts';
import { protocolVersion } from '../wire/agent.ts';
import type { Fact, FoundGuest, FromAgent, GuestFact, Order, OrderKind, ToAgent } from '../wire/agent.ts';
import type { LiveEvent } from './live-events.ts';
import { newVm } from '../wire/endpoints.ts';
import { startPlane } from './plane.ts';
import type { ControlPlane } from './plane.ts';

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
    networks: ['default'],
    pools: ['default'],
    migrationAddress: '10.0.1.1',
    peer: { address: `${name}.peer`, port: 7072 },
    kernelBootId: `boot-of-${name}`,
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
  clockAheadMs = 0;
  orders: Order[] = [];
  acked = 0;
  session = 0;
  rejected: string | undefined;
  reports = true;
  channel: Channel | undefined;
  consoles: ToAgent[] = [];
  readonly #fleet: FakeFleet;
  #number = 0;
  #unacked: { number: number; fact: Fact }[] = [];

  constructor(fleet: FakeFleet, name: string, changes: Partial<HostInventory> = {}) {
    this.#fleet = fleet;
    this.name = name;
    this.inventory = inventory(name, changes);
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
    const load = { at: this.now, cpu: 0.1, memoryUsedMiB: 100, memoryTotalMiB: 8192, pressure: null, guests: {} };
    this.say({ type: 'report', load });
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
        for (const each of this.#unacked) this.say({ type: 'fact', ...each });
        return;
      case 'rejected':
        this.rejected = message.reason;
        return;
      case 'order':
        this.orders.push(message.order);
        this.say({ type: 'answer', order: message.order.id, refused: null });
        return;
      case 'ack':
        this.acked = Math.max(this.acked, message.number);
        this.#unacked = this.#unacked.filter(({ number }) => number > message.number);
        return;
      default:
        this.consoles.push(message);
    }
  }
}

export class FakeFleet {
  readonly clock = new TestClock();
  readonly engine = new Engine({ clock: this.clock });
  readonly agents = new Map<string, FakeAgent>();
  readonly alarms: string[] = [];
  readonly live: LiveEvent[] = [];
  newerTerm = 0;
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
          onNewerTerm: (term) => (this.newerTerm = term),
        });
        up.resolve(plane);
        await new Promise<void>((resolve) =>
          leadership.lost.addEventListener('abort', () => resolve(), { once: true }),
        );
        await plane.stop();
      },
      { clock: this.clock },
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

  /** Everything in the store but the lead. */
  async dump(): Promise<string> {
    const store = this.engine.connect();
    const { entries } = await store.list('');
    await store.close();
    return JSON.stringify(entries.filter(({ key }) => !key.startsWith('control/')));
  }

  /** A VM that runs on `host`. */
  async run(name: string, host: string, changes: object = {}): Promise<VmRecord> {
    const body = newVm.parse({
      name,
      host,
      boot: { kind: 'kernel', kernel: 'k', initrd: null, append: '' },
      ...changes,
    });
    const vm = await this.plane.vms.create(body, null);
    const agent = this.agent(host);
    if (vm.state.kind === 'creating') await agent.life(vm.id, { kind: 'provisioned' });
    await agent.life(vm.id, { kind: 'started', running: frozen(vm) });
    agent.guests.push({ vm: vm.id, generation: vm.generation, state: 'running', migration: null });
    return this.vm(name);
  }

  /** Lets time pass, with a report of each connected agent every half second. */
  async pass(ms: number): Promise<void> {
    for (let left = ms; left > 0; left -= 500) {
      for (const agent of this.agents.values()) if (agent.connected) agent.report();
      await settled();
      await this.clock.advance(Math.min(500, left));
      await settled();
    }
  }
}
