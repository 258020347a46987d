/** One host for tests: the real agent's parts, journal and channels, over a hypervisor whose guests are scripted. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { FakeHypervisor, type FakeGuest } from '../hypervisor/fake-guest.ts';
import { completePolicy } from '../migration/techniques.ts';
import type { Endpoint } from '../model/host.ts';
import type { MigrationId, VmId } from '../model/ids.ts';
import type { Policy, Technique } from '../model/migration.ts';
import type { RunningSpec } from '../model/vm.ts';
import { listenChannels, openChannel, type FleetKey, type Listener } from '../runtime/channel.ts';
import { systemClock, type Clock } from '../runtime/clock.ts';
import { createLog } from '../runtime/log.ts';
import type { Fact, MoveJob, Order, OrderKind } from '../wire/agent.ts';
import type { AgentContext } from './context.ts';
import { openFacts, type Facts } from './facts.ts';
import { Guests } from './guests.ts';
import { answerPeer } from './handover.ts';
import { openJournal, type Part } from './journal.ts';
import { Orders } from './orders.ts';
import { Relay } from './relay.ts';
import { Tasks } from './tasks.ts';

/** Names that tests give to things; the real ones come from the server. */
export const vm = 'vm_1' as VmId;
export const migration = 'mig_1' as MigrationId;
export const fleetKey = Object.assign(new Uint8Array(32).fill(7), { fleetKey: true as const }) satisfies FleetKey;

export const running: RunningSpec = {
  argvVersion: 1,
  argv: [],
  spec: {
    cpus: 1,
    memoryMiB: 256,
    machine: 'pc-q35-7.2',
    cpuModel: 'qemu64-v1',
    boot: { kind: 'disk' },
    disks: [],
    nics: [{ network: 'default', mac: '52:54:00:00:00:01' }],
  },
};

export function jobOf(technique: Technique = 'pre-copy', policy: Partial<Policy> = {}): MoveJob {
  return {
    migration,
    vmName: 'web1',
    technique,
    policy: completePolicy(technique, policy),
    running,
    postCopy: technique !== 'cold',
    startedAt: Date.now(),
  };
}

type Wanted<K extends OrderKind> = Omit<Extract<Order, { kind: K }>, 'id' | 'term' | 'session' | 'vm' | 'kind'>;

export class FakeHost {
  readonly hypervisor: FakeHypervisor;
  readonly told: Fact['fact'][] = [];
  readonly taps = new Set<string>();
  facts!: Facts;
  guests!: Guests;
  orders!: Orders;
  tasks!: Tasks;
  context!: AgentContext;
  /** What the guard would say of its guests. */
  leaseTrouble: string | null = null;
  /** Where it hands on to when a peer asks. */
  servers: readonly Endpoint[] = [];
  readonly #clock: Clock;
  readonly #dir = mkdtempSync(join(tmpdir(), 'drover-agent-'));
  readonly #name: string;
  readonly #waiting = new Set<() => void>();
  #listener: Listener | undefined;
  #orderNumber = 0;

  #life = { isOver: false };

  constructor(name: string, clock: Clock = systemClock) {
    this.#name = name;
    this.#clock = clock;
    this.hypervisor = new FakeHypervisor(() => clock.now());
  }

  /** Begins, or begins again after `crash`: what was in memory is gone, the journal and the guests are not. */
  async begin(): Promise<this> {
    const journal = openJournal(this.#dir);
    const life = { isOver: false };
    this.#life = life;
    this.facts = openFacts(this.#dir, journal);
    const { facts } = this;
    this.facts.onFact(({ fact: { fact } }) => {
      this.told.push(fact);
      for (const wake of this.#waiting) wake();
      this.#waiting.clear();
    });
    this.context = {
      hostName: this.#name,
      hypervisor: this.hypervisor,
      journal,
      // One that is dead says nothing, also when a timer of its life fires.
      facts: {
        ...facts,
        migration: (fact) => (life.isOver ? undefined : facts.migration(fact)),
        guest: (fact) => (life.isOver ? undefined : facts.guest(fact)),
        task: (fact) => (life.isOver ? undefined : facts.task(fact)),
      },
      network: {
        attach: async (of, nics) => {
          const taps = nics.map((_, index) => `${of}/${index}`);
          for (const tap of taps) this.taps.add(tap);
          return taps;
        },
        detach: async (taps) => taps.forEach((tap) => this.taps.delete(tap)),
        existing: () => [],
        boundSendQueue: () => () => {},
        restoreSendQueue: () => {},
      },
      disks: { pools: {}, provision: async () => {}, remove: async () => {} },
      clock: this.#clock,
      log: createLog({ to: { write: () => {} } }),
      dial: (to, dialling) => openChannel({ ...to, ...dialling, key: fleetKey }),
      migrationAddress: '127.0.0.1',
      leaseTrouble: () => this.leaseTrouble,
      sample: () => {},
    };
    this.guests = new Guests(this.context);
    this.tasks = new Tasks(this.context, this.guests);
    this.orders = new Orders(this.context, this.guests, this.tasks);
    await this.guests.adopt();
    this.#listener = await listenChannels({
      address: '127.0.0.1',
      port: 0,
      key: fleetKey,
      onChannel: (channel) => {
        const relay = new Relay(this.context, this.servers);
        answerPeer(this.context, channel, this.orders, (one) => void relay.carry(one));
      },
    });
    this.orders.resume();
    return this;
  }

  /** As kill -9 would: nothing more is heard or said by the one that was. */
  async crash(): Promise<void> {
    this.#life.isOver = true;
    this.facts.onFact(() => {});
    await this.#listener?.close();
    // The old objects stay in memory, but not one of their guests answers them any more.
    for (const [index, guest] of this.hypervisor.guests.entries()) {
      if (guest.hasEnded) continue;
      const next = this.hypervisor.add({ key: guest.key, running: guest.running }, guest.now);
      next.numbers = guest.numbers;
      this.hypervisor.guests.splice(index, 1, next);
      this.hypervisor.guests.pop();
    }
  }

  get peer(): Endpoint {
    return { address: '127.0.0.1', port: this.#listener?.port ?? 0 };
  }

  get guest(): FakeGuest {
    const guest = this.hypervisor.guests.at(-1);
    if (!guest) throw new Error(`${this.#name} has no guest`);
    return guest;
  }

  part(): Part {
    return this.guests.part(vm);
  }

  /** A guest that runs here since before the test. */
  async withGuest(generation = 1): Promise<this> {
    this.guests.setPart(vm, { kind: 'runs' }, { generation, name: 'web1', taps: [`${vm}/0`] });
    this.guests.add(this.hypervisor.add({ key: { vm, generation }, running }, 'running'));
    return this;
  }

  /** @returns why it was refused, or null */
  order<K extends OrderKind>(
    kind: K,
    what: Omit<Wanted<K>, 'generation' | 'expiresAt'>,
    generation = 2,
  ): string | null {
    const stamp = { id: `o${++this.#orderNumber}`, term: 1, session: 1, vm, generation, expiresAt: Date.now() + 1e12 };
    return this.orders.admit({ ...stamp, kind, ...what } as unknown as Order); // the union is not seen through K
  }

  kinds(): string[] {
    return this.told.map((fact) => fact.kind);
  }

  /** The first fact of that kind, told already or yet to come. */
  async fact<K extends Fact['fact']['kind']>(kind: K): Promise<Extract<Fact['fact'], { kind: K }>> {
    for (;;) {
      const found = this.told.find((fact): fact is Extract<Fact['fact'], { kind: K }> => fact.kind === kind);
      if (found) return found;
      await new Promise<void>((resolve) => this.#waiting.add(resolve));
    }
  }

  async end(): Promise<void> {
    this.#life.isOver = true;
    for (const guest of this.hypervisor.guests) guest.end('destroyed');
    await this.#listener?.close();
    rmSync(this.#dir, { recursive: true, force: true });
  }
}
