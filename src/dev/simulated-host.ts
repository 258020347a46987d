/**
 * One simulated host on the real clock: the real agent (agent/agent.ts) over a simulated machine, with its guard, a journal in
 * memory, and real channels on loopback to the server and to its peers. Nothing here needs root or touches the system.
 *
 * Not here: which hosts there are and how their guests behave (fleet.ts).
 */
import { startAgent } from '../agent/agent.ts';
import { factsOn, type Numbered } from '../agent/facts.ts';
import { Guard, type GuardMemory } from '../agent/guard/guard.ts';
import { defaultLeaseTimeMs } from '../agent/guard/lease.ts';
import { MemoryPool, type MemoryStorage } from '../agent/guard/memory-pool.ts';
import type { GuardState } from '../agent/guard/state-file.ts';
import { journalOn, type AgentEntry, type JournalDisk, type VmEntry } from '../agent/journal.ts';
import { openLeases } from '../agent/leases.ts';
import { SimulatedMachine } from '../hypervisor/simulated.ts';
import type { GuestBehaviour, MigrationWire } from '../hypervisor/simulated-surroundings.ts';
import type { Endpoint, GuestLoad, HostInventory, HostLoad } from '../model/host.ts';
import type { VmId } from '../model/ids.ts';
import { listenChannels, openChannel, type Channel, type FleetKey } from '../runtime/channel.ts';
import { systemClock } from '../runtime/clock.ts';
import { silentLog } from '../runtime/log.ts';
import { systemRandom } from '../runtime/random.ts';

const guardTickMs = 500;
const endWithinMs = 1000;
const able = { ok: true } as const;

export interface SimulatedHostOptions {
  readonly name: string;
  readonly number: number;
  readonly cpus: number;
  readonly memoryMiB: number;
  readonly key: FleetKey;
  /** The server's port for agents. */
  readonly server: Endpoint;
  readonly wire: MigrationWire;
  /** The pool that all hosts share. */
  readonly storage: MemoryStorage;
  readonly behaviour: (vm: VmId) => GuestBehaviour;
  readonly linkBytesPerSecond: number;
}

export class SimulatedHost {
  readonly name: string;
  readonly machine: SimulatedMachine;
  readonly migrationAddress: string;
  readonly #options: SimulatedHostOptions;
  readonly #pool: MemoryPool;
  readonly #disk = new MemoryDisk();
  #boots = 0;
  #guard: GuardState | null = null;
  #life: AbortController | undefined;
  #over: Promise<unknown> = Promise.resolve();

  constructor(options: SimulatedHostOptions) {
    const { name, number, wire, behaviour, storage } = options;
    this.#options = options;
    this.name = name;
    this.migrationAddress = `10.1.${Math.floor(number / 250)}.${(number % 250) + 1}`;
    this.machine = new SimulatedMachine({
      name,
      address: this.migrationAddress,
      clock: systemClock,
      random: systemRandom,
      wire,
      accel: 'kvm',
      behaviour,
    });
    this.#pool = new MemoryPool(storage);
  }

  /** Resolves when peers can reach its agent; it dials the server by itself. */
  async powerOn(): Promise<void> {
    if (this.#life) return;
    const life = new AbortController();
    this.#life = life;
    this.#boots++;
    this.machine.powerOn();
    const guarding = this.#runGuard(life.signal);
    const running = this.#runAgent(life.signal);
    const agent = await running;
    this.#over = Promise.allSettled([guarding, agent.run(life.signal)]);
  }

  /** Everything on it ends at once, and nobody is told. */
  async powerOff(): Promise<void> {
    this.machine.powerOff();
    this.#life?.abort();
    this.#life = undefined;
    this.#guard = null;
    // What it still asks of a machine without power is never answered: nobody waits for that.
    await Promise.race([this.#over, systemClock.sleep(endWithinMs)]);
  }

  get isOn(): boolean {
    return this.#life !== undefined;
  }

  async #runAgent(signal: AbortSignal): ReturnType<typeof startAgent> {
    const { name, key, server } = this.#options;
    const hypervisor = this.machine.hypervisor();
    const journal = journalOn(this.#disk);
    let onPeer: (channel: Channel) => void = (channel) => channel.close('not ready');
    const listener = await listenChannels({ address: '127.0.0.1', port: 0, key, onChannel: (one) => onPeer(one) });
    const inventory = this.#inventory(listener.port);
    const leases = openLeases({
      host: name,
      pools: [this.#pool],
      clock: systemClock,
      log: silentLog,
      guardian: { read: () => this.#guard, guestsOn: () => this.#guests(signal), killGuard: () => {} },
      restMark: { set: () => {}, clear: () => {} },
    });
    return startAgent({
      hostName: name,
      hypervisor,
      journal,
      facts: factsOn(this.#disk.facts, journal),
      network: {
        attach: async (vm, nics) => nics.map((_, index) => `${vm}/${index}`),
        detach: async () => {},
        existing: () => [],
        boundSendQueue: () => () => {},
        restoreSendQueue: () => {},
      },
      disks: { pools: { default: '/pool' }, provision: async () => {}, remove: async () => {} },
      clock: systemClock,
      log: silentLog,
      dial: (to, options) => openChannel({ ...to, ...options, key }),
      migrationAddress: this.migrationAddress,
      servers: [server],
      version: 'simulated',
      inventory: async () => ({ ...inventory, ...(await leases.known()) }),
      meter: { measure: (guests, now) => this.#measure(guests, now) },
      leases,
      listen: async (onChannel) => {
        onPeer = onChannel;
        return listener;
      },
    });
  }

  #inventory(peerPort: number): HostInventory {
    const { name, cpus, memoryMiB, linkBytesPerSecond } = this.#options;
    return {
      cpus,
      memoryMiB,
      cpuModel: 'simulated',
      accel: 'kvm',
      qemuVersion: 'simulated',
      machines: ['pc-q35-7.2', 'pc-q35-10.0'],
      liveMigration: able,
      postCopy: able,
      hold: able,
      networks: ['default'],
      pools: ['default'],
      migrationAddress: this.migrationAddress,
      peer: { address: '127.0.0.1', port: peerPort },
      kernelBootId: `${name}-boot-${this.#boots}`,
      measuresMemory: true,
      switchesOnOrder: true,
      interfaceBytesPerSecond: linkBytesPerSecond,
    };
  }

  async #measure(guests: ReadonlyMap<VmId, { load(): Promise<GuestLoad> }>, now: number): Promise<HostLoad> {
    const { cpus, memoryMiB } = this.#options;
    const loads: Record<VmId, GuestLoad> = {};
    let cores = 0.2;
    let residentMiB = 900;
    for (const [vm, guest] of guests) {
      const load = await guest.load();
      loads[vm] = load;
      cores += load.cpuCores;
      residentMiB += load.memoryResidentMiB;
    }
    const pressure = { cpu: Math.max(0, cores / cpus - 0.8), memory: 0 };
    return {
      at: now,
      cpu: Math.min(1, cores / cpus),
      memoryUsedMiB: Math.min(memoryMiB, residentMiB),
      memoryTotalMiB: memoryMiB,
      pressure,
      guests: loads,
    };
  }

  /** The real guard, in the agent's process: its lease on the shared pool is what proves this host dead when it is off. */
  async #runGuard(signal: AbortSignal): Promise<void> {
    const bootId = `${this.name}-boot-${this.#boots}`;
    let memory: GuardMemory | undefined;
    const save = (): void => {
      if (signal.aborted) return;
      this.#guard = {
        schema: 1,
        bootId,
        guard: { pid: this.#boots, startTicks: '0' },
        tickedAtMs: systemClock.monotonic(),
        watchdog: true,
        pools: memory === undefined ? [] : [{ name: this.#pool.name, paths: [], memory }],
      };
    };
    const guard = new Guard({
      host: this.name,
      bootId,
      writer: bootId,
      leaseTimeMs: defaultLeaseTimeMs,
      clock: systemClock,
      pool: this.#pool,
      guests: this.#guests(signal),
      log: silentLog,
      remembered: null,
      remember: (now) => {
        memory = now;
        save();
      },
    });
    const guarding = guard.run(signal);
    while (!signal.aborted) {
      save();
      await systemClock.sleep(guardTickMs, signal).catch(() => {});
    }
    await guarding;
  }

  #guests(signal: AbortSignal): { usingPool(): VmId[]; kill(): void } {
    const usingPool = () => this.machine.processes.map(({ vm }) => vm);
    return {
      usingPool,
      kill: () => {
        if (!signal.aborted) for (const vm of usingPool()) this.machine.killProcess(vm);
      },
    };
  }
}

/** What agent/journal.ts and agent/facts.ts keep in files. Outlives the agent, not the process. */
class MemoryDisk implements JournalDisk {
  #agent: AgentEntry | undefined;
  readonly #vms = new Map<VmId, VmEntry>();
  #facts: Numbered[] = [];
  readonly facts = {
    read: () => [...this.#facts],
    append: (numbered: Numbered) => void this.#facts.push(numbered),
    replace: (all: readonly Numbered[]) => void (this.#facts = [...all]),
  };

  agent(): AgentEntry | undefined {
    return this.#agent;
  }

  vms(): VmEntry[] {
    return [...this.#vms.values()];
  }

  writeAgent(entry: AgentEntry): void {
    this.#agent = entry;
  }

  writeVm(entry: VmEntry): void {
    this.#vms.set(entry.vm, entry);
  }

  removeVm(id: VmId): void {
    this.#vms.delete(id);
  }
}
