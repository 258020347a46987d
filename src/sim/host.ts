/**
 * One simulated host: the machine with what really runs on it, its disk, its clock, and the lives of its agent, which is the
 * real one (agent/agent.ts). Its supervisor starts an agent again that has ended.
 */
import { startAgent } from '../agent/agent.ts';
import type { Disks } from '../agent/disks.ts';
import { factsOn } from '../agent/facts.ts';
import { journalOn } from '../agent/journal.ts';
import { openLeases } from '../agent/leases.ts';
import type { Network as HostNetwork } from '../agent/network.ts';
import { SimulatedMachine } from '../hypervisor/simulated.ts';
import { messageOf } from '../model/failure.ts';
import type { Endpoint, GuestLoad, HostInventory } from '../model/host.ts';
import type { VmId } from '../model/ids.ts';
import { isBalanced } from './options.ts';
import { HostDisk, type AtWrite } from './disk.ts';
import { gatedHypervisor, gatedPool } from './gate.ts';
import { SimGuard } from './guard.ts';
import { Life } from './life.ts';
import type { World } from './world.ts';

const peerPort = 7072;
const able = { ok: true } as const;

export class SimHost {
  readonly name: string;
  readonly machine: SimulatedMachine;
  readonly disk: HostDisk;
  readonly guard: SimGuard;
  readonly memoryMiB: number;
  readonly peer: Endpoint;
  readonly migrationAddress: string;
  /** How far its wall clock is from the time of the world. */
  clockOffsetMs = 0;
  readonly bmcAddress: string;
  /** Whether its power controller is cut off for now, or gone with the host. */
  bmc: 'answers' | 'away' | 'gone' = 'answers';
  /** It will never come back. */
  isLost = false;
  readonly #world: World;
  readonly #drift: number;
  #boots = 0;
  #life: Life | undefined;
  #hasPower = true;

  constructor(world: World, number: number, memoryMiB: number) {
    const { timeline } = world;
    this.#world = world;
    this.name = `h${number}`;
    this.memoryMiB = memoryMiB;
    this.peer = { address: `10.0.0.${number}`, port: peerPort };
    this.migrationAddress = `10.1.0.${number}`;
    this.bmcAddress = `10.2.0.${number}`;
    const random = world.randomOf(this.name);
    // Clocks that nobody keeps together for a while: some tens of parts in a million, and a few milliseconds off.
    this.#drift = (random.next() - 0.5) * 1e-4;
    this.clockOffsetMs = (random.next() - 0.5) * 20;
    this.disk = new HostDisk(
      () => timeline.nowMs,
      (fact) => world.checks.acknowledged(fact),
    );
    this.machine = new SimulatedMachine({
      name: this.name,
      address: this.migrationAddress,
      clock: world.clockOf({ now: () => this.now() }),
      random,
      wire: world.wire,
      accel: 'kvm',
      behaviour: (vm) => world.behaviourOf(vm),
      ...(world.locks === undefined ? {} : { locks: world.locks }),
    });
    this.guard = new SimGuard(world, this);
    world.network.name(this.name, this.peer.address);
  }

  now(): number {
    const { timeline, startedAt } = this.#world;
    return startedAt + timeline.nowMs * (1 + this.#drift) + this.clockOffsetMs;
  }

  get agent(): Life | undefined {
    return this.#life;
  }

  get bootId(): string {
    return `${this.name}-boot-${this.#boots}`;
  }

  get bmcAnswers(): boolean {
    return this.bmc === 'answers';
  }

  get hasPower(): boolean {
    return this.#hasPower;
  }

  startAgent(): void {
    if (!this.#hasPower || this.#life) return;
    const life = new Life(this.#world.timeline, this);
    this.#life = life;
    this.#world.note('agent', `${this.name} starts`);
    this.#run(life).catch((error: unknown) => {
      if (life.isOver) return;
      this.#world.note('agent', `${this.name} could not start: ${messageOf(error)}`);
      this.killAgent();
    });
  }

  /** As kill -9; its supervisor starts it again. */
  killAgent(againAfterMs = 1000): void {
    if (!this.#life) return;
    this.#world.note('agent', `${this.name} ends`);
    this.#life.end();
    this.#life = undefined;
    this.machine.agentGone();
    this.#world.timeline.after(againAfterMs, () => this.startAgent());
  }

  /** Everything on it ends at once, and nobody is told. */
  powerOff(): void {
    if (!this.#hasPower) return;
    const { network, migrationLinks } = this.#world;
    this.#hasPower = false;
    for (const { vm } of this.machine.processes) this.#world.checks.harmed(vm);
    this.#world.note('power', `${this.name} off`);
    this.#world.machinesStirred = true;
    network.links.power(this.name, false);
    migrationLinks.power(this.name, false);
    this.#life?.end();
    this.#life = undefined;
    this.guard.powerLost();
    this.machine.powerOff();
    const random = this.#world.randomOf(`${this.name} power ${this.#boots}`);
    this.disk.loseWhatIsNotWrittenBack(() => random.next() < 0.3);
  }

  powerOn(): void {
    if (this.#hasPower || this.isLost) return;
    const { network, migrationLinks } = this.#world;
    this.#hasPower = true;
    this.#boots++;
    this.#world.note('power', `${this.name} on`);
    this.machine.powerOn();
    network.links.power(this.name, true);
    migrationLinks.power(this.name, true);
    network.forgetConnectionsOf(this.name);
    this.guard.start();
    this.startAgent();
  }

  async #run(life: Life): Promise<void> {
    const { network, servers, log, fault } = this.#world;
    const atWrite: AtWrite = (what, write) => this.#world.atWrite(this, life, what, write);
    const sound = journalOn(this.disk.journal(life, atWrite));
    const journal = fault.journal?.(sound) ?? sound;
    const hypervisor = gatedHypervisor(this.machine.hypervisor(), life, (event) => {
      this.#world.onMoment(this, event.kind === 'transfer' ? event.state.kind : event.kind);
    });
    const described = await hypervisor.describe();
    const inventory: HostInventory = {
      cpus: 16,
      memoryMiB: this.memoryMiB,
      cpuModel: 'simulated',
      accel: described.accel,
      qemuVersion: described.version,
      machines: described.machines,
      liveMigration: described.liveMigration,
      postCopy: able,
      networks: ['default'],
      pools: ['default'],
      migrationAddress: this.migrationAddress,
      peer: this.peer,
      kernelBootId: this.bootId,
      measuresMemory: true,
      switchesOnOrder: true,
    };
    const leases = openLeases({
      host: this.name,
      pools: [gatedPool(this.guard.pool, life)],
      clock: life.clock,
      log: log.of(this.name, life),
      guardian: {
        read: () => this.guard.state,
        guestsOn: () => this.guard.guests,
        killGuard: () => this.guard.kill(),
      },
      restMark: { set: () => (this.guard.rests = true), clear: () => (this.guard.rests = false) },
    });
    const agent = await startAgent({
      hostName: this.name,
      hypervisor,
      journal,
      facts: factsOn(this.disk.facts(life, atWrite), journal),
      network: taps(),
      disks: this.#disks(life),
      clock: life.clock,
      log: log.of(this.name, life),
      dial: (to, options) => network.dial(life, this.name, to, options),
      migrationAddress: this.migrationAddress,
      servers: servers.map(({ endpoint }) => endpoint),
      version: 'simulated',
      inventory: async () => ({ ...inventory, ...(await leases.known()) }),
      meter: {
        measure: async (guests, now) => ({
          at: now,
          cpu: 0,
          memoryUsedMiB: 0,
          memoryTotalMiB: this.memoryMiB,
          pressure: null,
          guests: isBalanced(this.#world.options) ? this.#loads(guests.keys()) : {},
        }),
      },
      leases,
      sleep: {
        ability: { off: able, suspend: { ok: false, reason: 'simulated hosts do not suspend' }, macs: [] },
        suspend: () => Promise.reject(new Error('simulated hosts do not suspend')),
        sendMagic: async () => {},
      },
      listen: async (onChannel) => network.listen(life, this.peer, onChannel),
    });
    await agent.run(new AbortController().signal);
  }

  #loads(guests: Iterable<VmId>): Record<VmId, GuestLoad> {
    const load = { diskReadBytesPerSecond: 0, diskWriteBytesPerSecond: 0, netReceiveBytesPerSecond: 0 };
    const of = (vm: VmId): GuestLoad => ({
      ...load,
      cpuCores: this.#world.coresOf(vm),
      memoryResidentMiB: (this.#world.memoryMiB.get(vm) ?? 0) / 2,
      netSendBytesPerSecond: 0,
    });
    return Object.fromEntries([...guests].map((vm) => [vm, of(vm)]));
  }

  #disks(life: Life): Disks {
    return {
      pools: { default: '/pool' },
      provision: async () => life.clock.sleep(50),
      remove: async () => life.clock.sleep(5),
    };
  }
}

function taps(): HostNetwork {
  return {
    attach: async (vm, nics) => nics.map((_, index) => `${vm}/${index}`),
    detach: async () => {},
    existing: () => [],
    boundSendQueue: () => () => {},
    restoreSendQueue: () => {},
  };
}
