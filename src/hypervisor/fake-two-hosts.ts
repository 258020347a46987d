/** For the tests of the simulated hypervisor: two machines, the link between them, one guest on its way. */
import type { Endpoint } from '../model/host.ts';
import type { VmId } from '../model/ids.ts';
import type { RunningSpec } from '../model/vm.ts';
import { TestClock } from '../runtime/clock.ts';
import type { Random } from '../runtime/random.ts';
import type { Guest, GuestEvent, LaunchOptions, TransferOptions } from './hypervisor.ts';
import { calmGuest, DiskLocks, type GuestBehaviour, type MigrationWire } from './simulated-surroundings.ts';
import { SimulatedMachine } from './simulated.ts';

export const vm = 'vm-1' as VmId; // as an id of the simulator
const running: RunningSpec = {
  argvVersion: 2,
  argv: [],
  spec: {
    cpus: 1,
    memoryMiB: 512,
    machine: 'pc-q35-7.2',
    cpuModel: 'qemu64-v1',
    boot: { kind: 'disk' },
    disks: [{ pool: 'default', file: 'vm-1.qcow2', format: 'qcow2' }],
    nics: [],
  },
};
export const preCopy: TransferOptions = {
  postCopy: false,
  parallelStreams: 0,
  compression: 'none',
  autoConverge: false,
  maxBandwidthBytesPerSecond: null,
  downtimeLimitMs: 300,
  hold: false,
};
export const postCopy: TransferOptions = { ...preCopy, postCopy: true };
export const gigabit = 125_000_000;
/** Writes faster than a link of a gigabit carries. */
export const heavyGuest: GuestBehaviour = { ...calmGuest, workingSetMiB: 128, dirtyPagesPerSecond: 50_000 };

/** What was seen of one guest by its agent. */
export interface Watched {
  readonly guest: Guest;
  readonly seen: string[];
  gone: string | undefined;
}

export function watch(guest: Guest): Watched {
  const watched: Watched = { guest, seen: [], gone: undefined };
  void (async () => {
    for await (const event of guest.events(new AbortController().signal)) watched.seen.push(await word(guest, event));
  })();
  void guest.gone.then(({ how, words }) => (watched.gone = words === '' ? how : `${how}: ${words}`));
  return watched;
}

async function word(guest: Guest, event: GuestEvent): Promise<string> {
  if (event.kind === 'round') return `round ${event.round}`;
  if (event.kind !== 'transfer' || event.state.kind !== 'failed') {
    return event.kind === 'transfer' ? event.state.kind : event.kind;
  }
  const { state } = await guest.transfer.numbers(); // an event does not say why
  return state.kind === 'failed' ? `failed: ${state.words}` : 'failed';
}

export class TwoHosts implements MigrationWire {
  readonly clock = new TestClock();
  readonly locks = new DiskLocks(this.clock, 2000);
  readonly source: SimulatedMachine;
  readonly target: SimulatedMachine;
  latency = 0.2;
  guest = calmGuest;
  refusal: { readonly what: 'start' | 'load'; readonly words: string } | undefined;
  #rates: Readonly<Record<string, number>> = {};
  readonly #listeners = new Set<() => void>();

  constructor(options: { locks?: boolean; random?: Random } = {}) {
    const machine = (name: string) =>
      new SimulatedMachine({
        name,
        address: name,
        clock: this.clock,
        random: options.random ?? { next: () => 0.9, bytes: (count) => new Uint8Array(count) },
        wire: this,
        behaviour: () => this.guest,
        refuses: (what) => (this.refusal?.what === what ? this.refusal.words : undefined),
        ...(options.locks === true ? { locks: this.locks } : {}),
      });
    this.source = machine('h1');
    this.target = machine('h2');
  }

  rate(from: string, to: string): number {
    return this.#rates[`${from}>${to}`] ?? gigabit;
  }

  latencyMs(): number {
    return this.latency;
  }

  machineAt(address: string): SimulatedMachine | undefined {
    return [this.source, this.target].find((machine) => machine.address === address);
  }

  onChange(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Both ways, or one. 0: cut in silence. */
  setRate(there: number, back = there): void {
    this.#rates = { 'h1>h2': there, 'h2>h1': back };
    for (const listener of this.#listeners) listener();
  }

  options(generation: number): LaunchOptions {
    return { key: { vm, generation }, name: 'one', running, local: { taps: [], pools: { default: 'shared' } } };
  }

  /** Lets time pass for a promise that needs it. */
  async within<T>(ms: number, promise: Promise<T>): Promise<T> {
    promise.catch(() => {}); // its rejection is the caller's, later
    await this.clock.advance(ms);
    return promise;
  }

  /** Millisecond by millisecond, until that was seen. */
  async until(watched: Watched, what: string, withinMs = 60_000): Promise<void> {
    for (let ms = 0; !watched.seen.some((each) => each.startsWith(what)); ms++) {
      if (ms > withinMs) throw new Error(`no ${what} within ${withinMs} ms, only ${watched.seen.join(', ')}`);
      await this.clock.advance(1);
    }
  }

  /** A guest that runs on the source's host and a copy of it that waits on the target's. */
  async pair(options = preCopy): Promise<{ source: Watched; target: Watched; to: Endpoint }> {
    const launched = this.source.hypervisor().launch(this.options(1));
    const received = this.target.hypervisor().receive(this.options(2), options, 'h2');
    await this.clock.advance(100);
    const { guest: copy, endpoint } = await received;
    return { source: watch(await launched), target: watch(copy), to: endpoint };
  }

  /** The same, sending, in its first round. */
  async sending(options = preCopy): Promise<{ source: Watched; target: Watched; to: Endpoint }> {
    const pair = await this.pair(options);
    await pair.source.guest.transfer.start(pair.to, options);
    await this.clock.advance(1000);
    return pair;
  }

  /** The same, after the switch to post-copy, with the guest running on the target. */
  async inPostCopy(): Promise<{ source: Watched; target: Watched; to: Endpoint }> {
    const pair = await this.sending(postCopy);
    await pair.source.guest.transfer.switchToPostCopy();
    await this.until(pair.target, 'post-copy');
    await pair.target.guest.continue();
    await this.clock.advance(100);
    return pair;
  }

  async states({ source, target }: { source: Watched; target: Watched }): Promise<string[]> {
    const state = async (each: Watched) => (each.gone === undefined ? each.guest.state() : 'gone');
    return [await state(source), await state(target)];
  }

  /** Names of the hosts that let the guest run now. */
  get runsOn(): string[] {
    return [...this.source.processes, ...this.target.processes]
      .filter((each) => each.vcpusRun)
      .map((each) => each.machine);
  }
}
