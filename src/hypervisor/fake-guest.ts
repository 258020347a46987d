/**
 * A hypervisor for tests: guests whose events, states and refusals are scripted by the test. It counts what was asked of
 * them, because "exactly one `continue`" is a number. What memory does on its way is not here (simulated.ts).
 */
import type { MemoryUse } from '../model/forecast.ts';
import type { Endpoint } from '../model/host.ts';
import type { RunningSpec } from '../model/vm.ts';
import { AsyncQueue } from '../runtime/queue.ts';
import type {
  Guest,
  GuestEvent,
  GuestGone,
  GuestKey,
  GuestState,
  GuestTasks,
  Hypervisor,
  LaunchOptions,
  Transfer,
  TransferNumbers,
  TransferState,
} from './hypervisor.ts';

type WithoutTime<T> = T extends unknown ? Omit<T, 'at'> : never;

const idleNumbers: TransferNumbers = {
  state: { kind: 'none' },
  totalBytes: 1 << 28,
  remainingBytes: 1 << 20,
  sentBytes: 0,
  round: 1,
  dirtyPagesPerSecond: 0,
  throttlePercent: 0,
  faults: 0,
  downtimeMs: null,
  totalMs: null,
  faultBlockedMs: null,
};

/** What was asked of a guest, in order. */
export type Asked =
  | 'continue'
  | 'power-down'
  | 'destroy'
  | 'start'
  | 'cancel'
  | 'switch'
  | 'cut'
  | 'pause'
  | 'listen-again'
  | 'resume'
  | 'complete-now'
  | `limit-downtime ${number}`
  | `limit-bandwidth ${number | null | 'trickle'}`;

export class FakeGuest implements Guest {
  readonly key: GuestKey;
  readonly pid = 1;
  readonly running: RunningSpec;
  readonly consolePath = '';
  readonly gone: Promise<GuestGone>;
  readonly transfer: Transfer;
  /** Set by a test that runs tasks in it. */
  tasks: GuestTasks | null = null;
  readonly asked: Asked[] = [];
  /** Where it was told to send the rest of a broken post-copy. */
  readonly resumedTo: Endpoint[] = [];
  now: GuestState;
  hasEnded = false;
  numbers: TransferNumbers = idleNumbers;
  /** Set by a test: thrown instead of an answer, as long as it stands there. */
  readonly refuses = new Map<Asked | 'state' | 'numbers', Error>();
  /** Set by a test: what the guest does when it is asked. */
  readonly does = new Map<Asked, () => void | Promise<void>>();
  readonly #clock: () => number;
  readonly #readers = new Set<AsyncQueue<GuestEvent>>();
  readonly #end = Promise.withResolvers<GuestGone>();
  readonly #watchers = new Set<() => void>();

  constructor(options: Pick<LaunchOptions, 'key' | 'running'>, state: GuestState, clock: () => number) {
    this.key = options.key;
    this.running = options.running;
    this.now = state;
    this.#clock = clock;
    this.gone = this.#end.promise;
    this.transfer = {
      start: () => this.#ask('start'),
      numbers: async () => {
        this.#refuse('numbers');
        return this.numbers;
      },
      limitBandwidth: (limit) => this.#ask(`limit-bandwidth ${limit}`),
      completeNow: () => this.#ask('complete-now'),
      limitDowntime: (ms) => this.#ask(`limit-downtime ${ms}`),
      switchToPostCopy: () => this.#ask('switch'),
      cancel: () => this.#ask('cancel'),
      cutConnection: () => this.#ask('cut'),
      pause: () => this.#ask('pause'),
      listenAgain: async (address) => {
        await this.#ask('listen-again');
        return { address, port: 5000 + this.count('listen-again') };
      },
      resume: async (to) => {
        this.resumedTo.push(to);
        await this.#ask('resume');
      },
    };
  }

  async state(): Promise<GuestState> {
    this.#refuse('state');
    return this.now;
  }

  events(signal: AbortSignal): AsyncIterable<GuestEvent> {
    const queue = new AsyncQueue<GuestEvent>({ limit: 1000, overflow: 'fail' });
    this.#readers.add(queue);
    signal.addEventListener('abort', () => queue.close(), { once: true });
    return queue;
  }

  async continue(): Promise<void> {
    await this.#ask('continue');
    this.now = 'running';
    this.emit({ kind: 'resumed' });
  }

  powerDown(): Promise<void> {
    return this.#ask('power-down');
  }

  async destroy(): Promise<void> {
    await this.#ask('destroy');
    this.end('destroyed');
    await this.gone;
  }

  memory: MemoryUse = { inUseBytes: 0, dirtied: [] };
  async memoryUse(): Promise<MemoryUse> {
    return this.memory;
  }

  async load() {
    return {
      cpuCores: 0,
      memoryResidentMiB: 0,
      diskReadBytesPerSecond: 0,
      diskWriteBytesPerSecond: 0,
      netReceiveBytesPerSecond: 0,
      netSendBytesPerSecond: 0,
    };
  }

  emit(event: WithoutTime<GuestEvent>): void {
    for (const reader of this.#readers) reader.push({ at: this.#clock(), ...event });
  }

  transferIs(state: TransferState): void {
    this.numbers = { ...this.numbers, state };
    this.emit({ kind: 'transfer', state });
  }

  end(how: GuestGone['how'], words = ''): void {
    this.hasEnded = true;
    this.#end.resolve({ at: this.#clock(), how, words });
    for (const reader of this.#readers) reader.close();
    const error = new Error('the guest is gone');
    for (const what of ['state', 'numbers', 'continue', 'power-down'] as const) this.refuses.set(what, error);
  }

  count(what: Asked): number {
    return this.asked.filter((each) => each === what).length;
  }

  /** Resolves when this was asked `times` times. */
  async whenAsked(what: Asked, times = 1): Promise<void> {
    while (this.count(what) < times) await new Promise<void>((resolve) => this.#watchers.add(resolve));
  }

  async #ask(what: Asked): Promise<void> {
    this.asked.push(what);
    for (const wake of this.#watchers) wake();
    this.#watchers.clear();
    this.#refuse(what);
    await this.does.get(what)?.();
  }

  #refuse(what: Asked | 'state' | 'numbers'): void {
    const error = this.refuses.get(what);
    if (error) throw error;
  }
}

export class FakeHypervisor implements Hypervisor {
  readonly guests: FakeGuest[] = [];
  readonly #clock: () => number;
  /** Set by a test: the next start fails. */
  refusesToStart: Error | undefined;

  constructor(clock: () => number) {
    this.#clock = clock;
  }

  freeze = (spec: RunningSpec['spec']): RunningSpec => ({ argvVersion: 1, argv: [], spec });

  async describe() {
    const able = { ok: true } as const;
    return { version: '10.0.0', accel: 'tcg', machines: [], liveMigration: able, postCopy: able, hold: able } as const;
  }

  async launch(options: LaunchOptions): Promise<FakeGuest> {
    return this.add(options, 'running');
  }

  async receive(options: LaunchOptions) {
    return { guest: this.add(options, 'incoming'), endpoint: { address: '127.0.0.1', port: 4444 } };
  }

  /** Those that have not ended. */
  async adopt(): Promise<FakeGuest[]> {
    return this.guests.filter((guest) => !guest.hasEnded);
  }

  add(options: Pick<LaunchOptions, 'key' | 'running'>, state: GuestState): FakeGuest {
    if (this.refusesToStart) throw this.refusesToStart;
    const guest = new FakeGuest(options, state, this.#clock);
    this.guests.push(guest);
    return guest;
  }
}
