/**
 * A whole fleet in one process: hosts, servers, the store between them and two networks, on one time line, from one seed.
 * What really runs, and what everybody knows of it, can be looked at from outside at any moment.
 *
 * Not here: who does what to it (workload.ts, disturbances.ts), and what must hold (checks.ts).
 */
import { MemoryStorage } from '../agent/guard/memory-pool.ts';
import type { OpenPower } from '../control/power/power.ts';
import type { MigrationWire } from '../hypervisor/simulated-surroundings.ts';
import { calmGuest, DiskLocks, type GuestBehaviour } from '../hypervisor/simulated-surroundings.ts';
import type { VmId } from '../model/ids.ts';
import { sleepOn, type Clock } from '../runtime/clock.ts';
import type { Log } from '../runtime/log.ts';
import { seededRandom, type Random } from '../runtime/random.ts';
import { Engine } from '../store/memory.ts';
import { Checks } from './checks.ts';
import { EventLog } from './event-log.ts';
import type { Fault } from './faults.ts';
import { SimHost } from './host.ts';
import type { Life, WallClock } from './life.ts';
import { Links } from './links.ts';
import { Network } from './network.ts';
import type { SimOptions } from './options.ts';
import { simulatedPower } from './power.ts';
import { SimServer } from './server.ts';
import { Timeline } from './timeline.ts';

/** 2030-01-01: nothing of the real time comes in. */
const startedAt = Date.UTC(2030, 0, 1);
const bytesPerSecond = 250_000_000;
/** Of a guest's load, up and down again. */
const swingMs = 5 * 60_000;

/** Called at each write to a host's disk and each event of its guests. @returns what to do around a write */
export type MomentHook = (host: SimHost, what: string) => 'kill-before' | 'kill-after' | 'nothing';

export class World {
  readonly options: SimOptions;
  readonly startedAt = startedAt;
  readonly timeline = new Timeline();
  readonly events: EventLog;
  readonly fault: Fault;
  readonly migrationLinks = new Links();
  readonly network: Network;
  readonly wire: MigrationWire;
  readonly engine: Engine;
  readonly power: OpenPower;
  readonly locks: DiskLocks | undefined;
  readonly hosts: SimHost[] = [];
  readonly servers: SimServer[] = [];
  readonly checks: Checks;
  readonly log: { of(program: string, life: Life): Log };
  /** Where there are none, two programs of a host that hang together are more than a lease can prove... */
  readonly hasWatchdogs: boolean;
  /** ...and the servers take it for a proof all the same, or wait for a person. */
  readonly trustsGuards: boolean;
  /** The pool that all hosts share. */
  readonly storage = new MemoryStorage();
  /** Something may have changed about what runs. */
  machinesStirred = true;
  onMoment: MomentHook = () => 'nothing';
  /** Told how far it is after each thing that happens. */
  watch: (atMs: number) => void = () => {};
  /** Of each VM that ever was. */
  readonly memoryMiB = new Map<VmId, number>();
  readonly #swings = new Map<VmId, { readonly mean: number; readonly share: number; readonly phase: number }>();
  readonly #behaviours = new Map<VmId, GuestBehaviour>();
  readonly #behaviourRandom: Random;
  readonly #loadRandom: Random;

  constructor(options: SimOptions, fault: Fault, trace: ((line: string) => void) | undefined) {
    this.options = options;
    this.fault = fault;
    this.events = new EventLog(() => this.timeline.nowMs, trace);
    this.network = new Network(this.timeline, this.randomOf('network'), new Links());
    this.network.tamper = fault.tamper;
    const clock = this.clockOf({ now: () => startedAt + this.timeline.nowMs });
    this.power = simulatedPower(this);
    this.engine = new Engine({ clock, keepCommits: 500 });
    this.checks = new Checks(this);
    this.log = { of: (program, life) => this.#logOf(program, life) };
    this.#behaviourRandom = this.randomOf('behaviour');
    const guarding = this.randomOf('watchdogs').next();
    this.hasWatchdogs = guarding < 0.5;
    this.trustsGuards = guarding > 0.75;
    this.#loadRandom = this.randomOf('load');
    const chance = this.randomOf('locks');
    // Whether a shared pool has locks, and for how long it keeps those of a machine without power, differs; once must hold anyway.
    this.locks = chance.next() < 0.5 ? undefined : new DiskLocks(clock, chance.next() < 0.5 ? 0 : 30_000);
    const machineOf = (address: string) => this.hosts.find(({ migrationAddress }) => migrationAddress === address);
    const names = (from: string, to: string) => [machineOf(from)?.name ?? from, machineOf(to)?.name ?? to] as const;
    this.wire = {
      rate: (from, to) => {
        const [source, target] = names(from, to);
        if (!this.migrationLinks.bothWays(source, target)) return 0;
        return bytesPerSecond * this.migrationLinks.shareOf(source, target);
      },
      machineAt: (address) => machineOf(address)?.machine,
      onChange: (listener) => this.migrationLinks.onChange(listener),
      latencyMs: () => 0.3,
    };
    const sizes = this.randomOf('sizes');
    for (let n = 1; n <= options.servers; n++) this.servers.push(new SimServer(this, n));
    // Room for all, and not much more.
    const perHostMiB = (options.vms * 1536 * 1.7) / options.hosts;
    for (let n = 1; n <= options.hosts; n++) {
      this.hosts.push(new SimHost(this, n, Math.round(perHostMiB * (0.8 + 0.4 * sizes.next())) + 3072));
    }
  }

  /** Chance of its own for each user of it, so that one draw more here changes nothing there. */
  randomOf(name: string): Random {
    let hash = 0x811c9dc5 ^ this.options.seed;
    for (let at = 0; at < name.length; at++) hash = Math.imul(hash ^ name.charCodeAt(at), 0x01000193);
    return seededRandom(hash ^ (this.options.seed << 7));
  }

  /** Of something that is not a program: it ends with the world. */
  clockOf(wall: WallClock): Clock {
    const setTimeout: Clock['setTimeout'] = (fn, ms) =>
      this.timeline.after(ms, () => {
        this.machinesStirred = true;
        fn();
      });
    return {
      now: () => wall.now(),
      monotonic: () => this.timeline.nowMs,
      setTimeout,
      sleep: (ms, signal) => sleepOn({ setTimeout }, ms, signal),
    };
  }

  note(kind: string, says: string): void {
    this.events.note(kind, says);
  }

  behaviourOf(vm: VmId): GuestBehaviour {
    let behaviour = this.#behaviours.get(vm);
    if (behaviour === undefined) {
      const draw = () => this.#behaviourRandom.next();
      const busy = draw();
      behaviour = {
        ...calmGuest,
        workingSetMiB: 16 + Math.floor(240 * draw()),
        // Most write little, some more than the link carries.
        dirtyPagesPerSecond: busy < 0.6 ? 500 * draw() : busy < 0.9 ? 20_000 * draw() : 80_000 + 40_000 * draw(),
        shutdownMs: draw() < 0.1 ? null : 500 + 4000 * draw(),
      };
      this.#behaviours.set(vm, behaviour);
    }
    return behaviour;
  }

  /** Cores that a guest uses now: its own mean, and a slow swing around it. */
  coresOf(vm: VmId): number {
    let swing = this.#swings.get(vm);
    if (swing === undefined) {
      const draw = () => this.#loadRandom.next();
      swing = { mean: draw() < 0.3 ? 2 + 4 * draw() : 0.1 + 0.4 * draw(), share: 0.8 * draw(), phase: draw() };
      this.#swings.set(vm, swing);
    }
    const turn = 2 * Math.PI * (this.timeline.nowMs / swingMs + swing.phase);
    return swing.mean * (1 + swing.share * Math.sin(turn));
  }

  atWrite(host: SimHost, life: Life, what: string, write: () => void): void {
    const fate = this.onMoment(host, what);
    if (fate !== 'kill-before' && this.fault.forgets?.(what) !== true) write();
    if (fate === 'nothing') return;
    if (host.agent === life) {
      this.note('disturbance', `${fate} ${what} on ${host.name}`);
      host.killAgent();
    }
  }

  host(name: string): SimHost {
    const found = this.hosts.find((host) => host.name === name);
    if (!found) throw new Error(`there is no host ${name}`);
    return found;
  }

  /** Servers that believe that they lead, and run. */
  leaders(): SimServer[] {
    return this.servers.filter(({ plane, life }) => plane !== undefined && life !== undefined && !life.isFrozen);
  }

  start(): void {
    for (const server of this.servers) server.start();
    for (const host of this.hosts) {
      host.guard.start();
      host.startAgent();
    }
  }

  /** Nothing of it runs any more. Node keeps signals that somebody listens to, and with them whole worlds, until they are aborted. */
  end(): void {
    for (const { life } of this.servers) life?.end();
    for (const host of this.hosts) host.agent?.end();
    this.engine.shutDown();
  }

  run(untilMs: number): Promise<void> {
    return this.timeline.run(untilMs, () => {
      this.checks.between();
      this.watch(this.timeline.nowMs);
    });
  }

  #logOf(program: string, life: Life): Log {
    const line = (level: string, fields: Readonly<Record<string, unknown>>, message: string): void => {
      if (!life.isOver) this.events.log(program, level, fields, message);
    };
    const log: Log = {
      debug: (fields, message) => (this.events.isTraced ? line('debug', fields, message) : undefined),
      info: (fields, message) => (this.events.isTraced ? line('info', fields, message) : undefined),
      warn: (fields, message) => line('warn', fields, message),
      error: (fields, message) => line('error', fields, message),
      child: () => log,
    };
    return log;
  }
}
