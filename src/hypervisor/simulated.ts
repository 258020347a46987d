/**
 * A simulated host's hypervisor: what really runs there, and the agent's view of it, on a clock that is an argument.
 * Processes outlive the agent and die with the power. One life of an agent has one connection: what happened before it
 * is not told, and when that agent is killed or halted its calls stay without answer.
 *
 * simulated-process.ts holds what one QEMU does, simulated-stream.ts what travels between two, simulated-surroundings.ts
 * what the world gives. Not here: agents, servers and what befalls them (sim/).
 */
import type { MemoryUse } from '../model/forecast.ts';
import type { Endpoint, GuestLoad } from '../model/host.ts';
import type { VmId } from '../model/ids.ts';
import { MiB, pageBytes } from '../model/units.ts';
import type { RunningSpec, VmSpec } from '../model/vm.ts';
import type { Clock, Timer } from '../runtime/clock.ts';
import { AsyncQueue } from '../runtime/queue.ts';
import type { Random } from '../runtime/random.ts';
import {
  FailureError,
  type Guest,
  type GuestEvent,
  type GuestGone,
  type GuestKey,
  type GuestState,
  type GuestTasks,
  type Hypervisor,
  type HypervisorDescription,
  type LaunchOptions,
  type Transfer,
  type TransferOptions,
} from './hypervisor.ts';
import { dirtyPages } from './simulated-memory.ts';
import { SimulatedQemu, type ProcessHost, type SimulatedProcess } from './simulated-process.ts';
import type { Stream } from './simulated-stream.ts';
import { tasksIn, type TaskMemory } from './simulated-tasks.ts';
import { pathRate } from './simulated-tcp.ts';
import type { MigrationWire, Surroundings } from './simulated-surroundings.ts';

/** From the start of a process until its monitor answers. */
const startMs = 30;
const answerTimeoutMs = 5000;
const numbersTimeoutMs = 2000;
const quitTimeoutMs = 3000;
/** How long an address is given to answer at all. */
const probeMs = 1000;
/** As the real one looks at a guest's writing. */
const samplingMs = [250, 1000] as const;
const firstPort = 49152;

/** Lineages of memory, numbered within one world. */
const lives = new WeakMap<MigrationWire, number>();

export interface MachineOptions extends Surroundings {
  readonly name: string;
  readonly address: string;
  readonly clock: Clock;
  readonly random: Random;
  readonly wire: MigrationWire;
  readonly accel?: 'kvm' | 'tcg';
}

/** What really runs on one host. */
export class SimulatedMachine implements ProcessHost {
  readonly name: string;
  readonly address: string;
  readonly clock: Clock;
  readonly random: Random;
  readonly wire: MigrationWire;
  readonly surroundings: Surroundings;
  readonly accel: 'kvm' | 'tcg';
  readonly streams = new Set<Stream>();
  isOn = true;
  readonly #running = new Map<number, SimulatedQemu>();
  #nextPid = 1;
  #nextPort = firstPort;
  #connection: Connection | undefined;

  constructor(options: MachineOptions) {
    this.name = options.name;
    this.address = options.address;
    this.clock = options.clock;
    this.random = options.random;
    this.wire = options.wire;
    this.surroundings = options;
    this.accel = options.accel ?? 'tcg';
  }

  /** A fresh client for one life of an agent: the one before it gets no answer any more and has no effect. */
  hypervisor(): Hypervisor {
    this.agentGone();
    this.#connection = new Connection(this);
    return new SimulatedHypervisor(this, this.#connection);
  }

  /** Every live process: what is true, whoever knows it. */
  get processes(): readonly SimulatedProcess[] {
    return [...this.#running.values()];
  }

  /** The agent was killed: nothing of what it still waits for comes, nothing it still says is heard. */
  agentGone(): void {
    this.#connection?.close();
    this.#connection = undefined;
  }

  /** The agent was stopped by a signal: answers and events wait for it. */
  haltAgent(): void {
    this.#connection?.halt();
  }

  wakeAgent(): void {
    this.#connection?.wake();
  }

  /** As kill -9. All generations of the VM, unless one is named. */
  killProcess(vm: VmId, generation?: number): void {
    for (const process of this.#of(vm, generation)) process.end('exit');
  }

  /** The guest's kernel gives up. */
  panic(vm: VmId): void {
    for (const process of this.#of(vm)) process.panic();
  }

  /** Somebody inside the guest shuts it down. */
  shutDownFromInside(vm: VmId): void {
    for (const process of this.#of(vm)) if (process.vcpusRun) process.powerDown();
  }

  /** All processes are gone at once, the agent with them, and nobody is told. */
  powerOff(): void {
    if (!this.isOn) return;
    this.isOn = false;
    this.agentGone();
    for (const process of this.found) process.end('power');
    for (const stream of this.streams) stream.powerLost(this);
  }

  powerOn(): void {
    this.isOn = true;
    for (const stream of this.streams) stream.pathChanged();
  }

  listening(port: number): SimulatedQemu | undefined {
    return this.found.find((process) => process.port === port);
  }

  ended(process: SimulatedQemu): void {
    this.#running.delete(process.pid);
  }

  /** @throws Error in QEMU's words when the process ends at once */
  start(options: LaunchOptions, incoming: boolean): SimulatedQemu {
    const words = this.surroundings.refuses?.('start', options.key);
    if (words !== undefined) throw new Error(words);
    const life = incoming ? 0 : (lives.get(this.wire) ?? 0) + 1;
    const process = new SimulatedQemu(this, options, { pid: this.#nextPid++, life, incoming });
    if (!incoming) {
      if (!process.takeDisks()) throw new Error('Failed to get "write" lock\nIs another process using the image?');
      lives.set(this.wire, life);
    }
    this.#running.set(process.pid, process);
    return process;
  }

  freePort(): number {
    return this.#nextPort++;
  }

  /** Those an agent finds by looking at what runs. */
  get found(): readonly SimulatedQemu[] {
    return [...this.#running.values()];
  }

  #of(vm: VmId, generation?: number): SimulatedQemu[] {
    return this.found.filter(
      (process) => process.vm === vm && (generation === undefined || process.generation === generation),
    );
  }
}

/** Between one life of an agent and the monitors of its host's guests. */
class Connection {
  readonly #machine: SimulatedMachine;
  #isClosed = false;
  #held: (() => void)[] | undefined;

  constructor(machine: SimulatedMachine) {
    this.#machine = machine;
  }

  get isClosed(): boolean {
    return this.#isClosed;
  }

  get clock(): Clock {
    return this.#machine.clock;
  }

  close(): void {
    this.#isClosed = true;
    this.#held = undefined;
  }

  halt(): void {
    this.#held ??= [];
  }

  wake(): void {
    const held = this.#held ?? [];
    this.#held = undefined;
    for (const deliver of held) this.pass(deliver);
  }

  /** Hands something to the agent, if and when it can take it. */
  pass(deliver: () => void): void {
    if (this.#isClosed) return;
    if (this.#held === undefined) deliver();
    else this.#held.push(deliver);
  }

  /** An answer at once, also while the main loop hangs. */
  atOnce<T>(process: SimulatedQemu, command: string, run: () => T): Promise<T> {
    return this.#ask(
      command,
      null,
      (task) => {
        if (process.isAlive) task.run();
        else task.refuse(new Error('QEMU closed the connection or died'));
      },
      run,
    );
  }

  /** An ordinary command: it waits for the main loop, and may be carried out after its caller was told of the timeout. */
  ordinary<T>(process: SimulatedQemu, command: string, run: () => T, timeoutMs = answerTimeoutMs): Promise<T> {
    return this.#ask(command, timeoutMs, (task) => process.whenFree(task), run);
  }

  #ask<T>(
    command: string,
    timeoutMs: number | null,
    submit: (task: { run: () => void; refuse: (error: Error) => void }) => void,
    run: () => T,
  ): Promise<T> {
    const { promise, resolve, reject } = Promise.withResolvers<T>();
    if (this.#isClosed) return promise;
    let isAnswered = false;
    const deadline: { timer?: Timer } = {};
    const refuse = (cause: Error) => {
      isAnswered = true;
      deadline.timer?.cancel();
      this.pass(() => reject(new Error(`QEMU refused ${command}: ${cause.message}`, { cause })));
    };
    submit({
      run: () => {
        if (this.#isClosed) return; // a monitor forgets what waits when its client goes
        isAnswered = true;
        deadline.timer?.cancel();
        try {
          const value = run();
          this.pass(() => resolve(value));
        } catch (error) {
          refuse(error instanceof Error ? error : new Error(String(error)));
        }
      },
      refuse,
    });
    if (isAnswered || timeoutMs === null) return promise;
    deadline.timer = this.clock.setTimeout(() => {
      this.pass(() => reject(new Error(`no answer to ${command} from QEMU within ${timeoutMs} ms`)));
    }, timeoutMs);
    return promise;
  }

  /** Resolves after that time, unless the agent is gone by then. */
  sleep(ms: number): Promise<void> {
    return new Promise((resolve) => this.clock.setTimeout(() => this.pass(resolve), ms));
  }
}

class SimulatedHypervisor implements Hypervisor {
  readonly #machine: SimulatedMachine;
  readonly #connection: Connection;

  constructor(machine: SimulatedMachine, connection: Connection) {
    this.#machine = machine;
    this.#connection = connection;
  }

  async describe(): Promise<HypervisorDescription> {
    const able = { ok: true } as const;
    const machines = ['pc-q35-7.2', 'pc-q35-10.0'];
    return { version: '10.0.2', accel: this.#machine.accel, machines, liveMigration: able, postCopy: able, hold: able };
  }

  freeze(spec: VmSpec): RunningSpec {
    return { argvVersion: 3, argv: [], spec };
  }

  async launch(options: LaunchOptions): Promise<Guest> {
    return this.#start(options, false);
  }

  async receive(
    options: LaunchOptions,
    _transfer: TransferOptions,
    listenOn: string,
  ): Promise<{ guest: Guest; endpoint: Endpoint }> {
    const guest = await this.#start(options, true);
    const port = this.#machine.freePort();
    guest.process.listen(port);
    return { guest, endpoint: { address: listenOn, port } };
  }

  async adopt(): Promise<Guest[]> {
    const found = this.#machine.found;
    await this.#connection.sleep(startMs);
    // Both monitors are tried: the greeting comes from the main loop. One that does not answer is there all the same.
    const connect = (process: SimulatedQemu) =>
      this.#connection.ordinary(process, 'connect', () => {}, 2 * answerTimeoutMs).catch(() => {});
    await Promise.all(found.filter(({ isAlive }) => isAlive).map(connect));
    return found
      .filter(({ isAlive }) => isAlive)
      .map((process) => new SimulatedGuest(this.#machine, this.#connection, process));
  }

  async #start(options: LaunchOptions, incoming: boolean): Promise<SimulatedGuest> {
    if (this.#connection.isClosed) return new Promise(() => {}); // nobody is there to wait for it
    let process: SimulatedQemu | undefined;
    let words = '';
    try {
      process = this.#machine.start(options, incoming);
    } catch (error) {
      words = error instanceof Error ? error.message : String(error);
    }
    await this.#connection.sleep(startMs);
    if (process?.isAlive === true) return new SimulatedGuest(this.#machine, this.#connection, process);
    throw new FailureError({
      code: 'guest-start-failed',
      message: `QEMU did not start ${options.name}.`,
      hint: 'The detail is what QEMU said. Mend that and start it again.',
      detail: words === '' ? 'it ended at once' : words,
    });
  }
}

class SimulatedGuest implements Guest {
  readonly key: GuestKey;
  readonly pid: number;
  readonly running: RunningSpec;
  readonly consolePath = '';
  readonly gone: Promise<GuestGone>;
  readonly transfer: Transfer;
  readonly tasks: GuestTasks;
  readonly process: SimulatedQemu;
  readonly #connection: Connection;
  #destroying = false;

  constructor(machine: SimulatedMachine, connection: Connection, process: SimulatedQemu) {
    this.#connection = connection;
    this.process = process;
    this.key = process.key;
    this.pid = process.pid;
    this.running = process.running;
    this.transfer = transferOf(connection, process, machine);
    this.tasks = tasksOf(connection, process);
    this.gone = new Promise((resolve) => {
      process.subscribe({ event: () => {}, end: () => connection.pass(() => resolve(this.#end())) });
    });
  }

  #end(): GuestGone {
    const { poweredOff, words, endedAt } = this.process;
    const how = poweredOff ? 'powered-off' : this.#destroying ? 'destroyed' : 'died';
    return { at: endedAt ?? this.#connection.clock.now(), how, words };
  }

  state(): Promise<GuestState> {
    return this.#connection.ordinary(this.process, 'query-status', () => this.process.state);
  }

  events(signal: AbortSignal): AsyncIterable<GuestEvent> {
    const queue = new AsyncQueue<GuestEvent>({ limit: 1000, overflow: 'fail' });
    const stop = this.process.subscribe({
      event: (event) => {
        if (this.#connection.isClosed) stop();
        this.#connection.pass(() => {
          if (!queue.push(event)) stop();
        });
      },
      end: () => this.#connection.pass(() => queue.close()),
    });
    const abort = () => {
      stop();
      queue.close();
    };
    if (signal.aborted) abort();
    else signal.addEventListener('abort', abort, { once: true });
    return queue;
  }

  continue(): Promise<void> {
    return this.#connection.ordinary(this.process, 'cont', () => this.process.continue());
  }

  powerDown(): Promise<void> {
    return this.#connection.ordinary(this.process, 'system_powerdown', () => this.process.powerDown());
  }

  async destroy(): Promise<void> {
    this.#destroying = true;
    // Asked to quit, then by force.
    const quit = this.#connection.ordinary(this.process, 'quit', () => this.process.end('exit'), quitTimeoutMs);
    await quit.catch(() => this.process.end('exit'));
    await this.gone;
  }

  async memoryUse(): Promise<MemoryUse> {
    const { process } = this;
    const { memoryMiB } = process.running.spec;
    await this.#connection.ordinary(process, 'calc-dirty-rate', () => {});
    await this.#connection.sleep(samplingMs.reduce((sum, ms) => sum + ms, 0));
    return this.#connection.ordinary(process, 'query-dirty-rate', () => {
      const { behaviour, vcpusRun } = process;
      const bytesIn = (ms: number) => (vcpusRun ? dirtyPages(behaviour, ms) * pageBytes : 0);
      return {
        inUseBytes: behaviour.residentShare * memoryMiB * MiB,
        dirtied: samplingMs.map((overMs) => ({ overMs, bytes: bytesIn(overMs) })),
      };
    });
  }

  async load(): Promise<GuestLoad> {
    const { process } = this;
    const { cpuCores, residentShare } = process.behaviour;
    return {
      cpuCores: process.vcpusRun ? cpuCores : 0,
      memoryResidentMiB: Math.round(residentShare * process.running.spec.memoryMiB),
      diskReadBytesPerSecond: 0,
      diskWriteBytesPerSecond: 0,
      netReceiveBytesPerSecond: 0,
      netSendBytesPerSecond: 0,
    };
  }
}

/** The guest's agent answers as long as its vCPUs run; what it has begun belongs to the guest's memory and moves with it. */
function tasksOf(connection: Connection, process: SimulatedQemu): GuestTasks {
  const inside = <T>(what: string, run: (memory: TaskMemory) => T): Promise<T> =>
    connection.ordinary(process, what, () => {
      if (!process.vcpusRun) throw new Error("the guest's agent did not answer");
      return run(tasksIn(process.host.wire, process.life));
    });
  const now = () => process.host.clock.now();
  return {
    boot: () => inside('boot', (memory) => memory.boot),
    run: (task) => inside('run', (memory) => memory.run(task, now())),
    look: (task) => inside('look', (memory) => memory.look(task, now())),
    cancel: (task) => inside('cancel', (memory) => memory.cancel(task, now())),
  };
}

function transferOf(connection: Connection, process: SimulatedQemu, machine: SimulatedMachine): Transfer {
  return {
    start: (to, options) => connection.ordinary(process, 'migrate', () => process.start(to, options)),
    numbers: () => connection.ordinary(process, 'query-migrate', () => process.numbers(), numbersTimeoutMs),
    limitDowntime: (ms) => connection.ordinary(process, 'migrate-set-parameters', () => process.limitDowntime(ms)),
    limitBandwidth: (limit) =>
      connection.ordinary(process, 'migrate-set-parameters', () => process.limitBandwidth(limit)),
    completeNow: () => connection.ordinary(process, 'stop', () => process.completeNow()),
    switchToPostCopy: () => connection.ordinary(process, 'migrate-start-postcopy', () => process.switchToPostCopy()),
    cancel: () => connection.ordinary(process, 'migrate_cancel', () => process.cancel()),
    cutConnection: () => connection.atOnce(process, 'yank', () => process.cutConnection()),
    pause: () => connection.atOnce(process, 'migrate-pause', () => process.pause()),
    listenAgain: (address) =>
      connection.atOnce(process, 'migrate-recover', () => {
        const port = machine.freePort();
        process.listenAgain(port);
        return { address, port };
      }),
    async resume(to) {
      // QEMU's connect cannot be ended once it has begun: it is not begun on a network that carries nothing.
      const { wire, address } = machine;
      const answers = pathRate(wire, address, to.address) > 0;
      await connection.sleep(answers ? 2 * wire.latencyMs(address, to.address) : probeMs);
      if (!answers) throw new Error(`no answer from ${to.address}`);
      return connection.ordinary(process, 'migrate', () => process.resume(to));
    },
  };
}
