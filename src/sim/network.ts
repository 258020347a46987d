/**
 * The control network of a simulated fleet: the channels of runtime/channel.ts over TCP as it behaves when things go wrong.
 *
 *   in order on one channel, in any order between channels
 *   way cut         what is said waits in the kernel and is sent again after the cut, later the longer it lasted
 *   program killed  its kernel closes the connection; the other end hears of it, unless the way is cut
 *   power lost      nobody hears of it: an idle end finds out by keep-alive, one with unsent data after a quarter of an hour,
 *                   or from the machine's new kernel when it is back
 *   broken          both ends hear of it; what was on its way is lost
 *
 * Messages are handed over as they are: all of them are values that nobody changes.
 */
import type { Endpoint } from '../model/host.ts';
import type { Channel, Listener } from '../runtime/channel.ts';
import type { Random } from '../runtime/random.ts';
import type { Timer } from '../runtime/clock.ts';
import type { Life } from './life.ts';
import type { Links } from './links.ts';
import type { Timeline } from './timeline.ts';

/** runtime/channel.ts: keep-alive after 1 s, then ten probes a second apart. */
const keepAliveMs = 11_000;
/** Linux: tcp_retries2. */
const retransmitMs = 924_000;
const longestRetryMs = 120_000;
/** runtime/channel.ts: how long a closed channel may take to send what it still holds. */
const closingMs = 1000;
const unsentLimit = 5000;
/** Within the time in which an order may be carried out. */
const latestEchoMs = 25_000;

interface Door {
  readonly life: Life;
  readonly onChannel: (channel: Channel) => void;
}

/** What a channel of the simulation does with a message, on its way out: for seeded faults. */
export type Tamper = (message: unknown, from: string, to: string) => unknown;

export class Network {
  readonly links: Links;
  readonly #timeline: Timeline;
  readonly #random: Random;
  readonly #doors = new Map<string, Door>();
  readonly #machineAt = new Map<string, string>();
  readonly #open = new Set<Connection>();
  /** Set by a seeded fault. */
  tamper: Tamper | undefined;
  /** Shall this message be said once more, later? */
  echo: () => boolean = () => false;

  constructor(timeline: Timeline, random: Random, links: Links) {
    this.#timeline = timeline;
    this.#random = random;
    this.links = links;
    links.onChange(() => {
      for (const connection of this.#open) connection.linkChanged();
    });
  }

  name(machine: string, address: string): void {
    this.#machineAt.set(address, machine);
  }

  machineAt(address: string): string | undefined {
    return this.#machineAt.get(address);
  }

  latencyMs(): number {
    return 0.1 + this.#random.next() * 0.4;
  }

  listen(life: Life, at: Endpoint, onChannel: (channel: Channel) => void): Listener {
    const key = `${at.address}:${at.port}`;
    const door: Door = { life, onChannel };
    const close = (): void => {
      if (this.#doors.get(key) === door) this.#doors.delete(key);
    };
    this.#doors.set(key, door);
    life.onEnd(close);
    return {
      port: at.port,
      close: async () => {
        life.forget(close);
        close();
      },
    };
  }

  /** As openChannel: rejects when it is refused, when nobody answers in time, or on the signal. */
  dial(
    life: Life,
    from: string,
    to: Endpoint,
    { timeoutMs, signal }: { timeoutMs: number; signal?: AbortSignal },
  ): Promise<Channel> {
    const machine = this.#machineAt.get(to.address);
    const { promise, resolve, reject } = Promise.withResolvers<Channel>();
    let isSettled = false;
    const settle = (how: () => void): void => {
      if (isSettled) return;
      isSettled = true;
      timer.cancel();
      signal?.removeEventListener('abort', givenUp);
      how();
    };
    const fail = (reason: string) =>
      settle(() => reject(new Error(`No channel to ${to.address}:${to.port}: ${reason}`)));
    const givenUp = (): void => fail('given up');
    const timer = life.clock.setTimeout(() => fail(`no answer within ${timeoutMs} ms`), timeoutMs);
    if (signal?.aborted) givenUp();
    else signal?.addEventListener('abort', givenUp, { once: true });
    if (machine === undefined) {
      fail('no route');
      return promise;
    }
    const attempt = (): void => {
      if (isSettled || life.isOver) return;
      // A lost SYN is sent again, mostly too late for whoever waits.
      if (!this.links.bothWays(from, machine)) return void this.#timeline.after(1000, attempt);
      const door = this.#doors.get(`${to.address}:${to.port}`);
      if (door === undefined) return life.enter(() => fail('connection refused'));
      if (door.life.isFrozen) return; // its kernel takes the connection, and then nobody shakes hands
      life.enter(() =>
        settle(() => {
          const connection = new Connection(this, this.#timeline, this.#random, [life, from], [door.life, machine]);
          this.#open.add(connection);
          door.life.enter(() => door.onChannel(connection.theirs));
          resolve(connection.ours);
        }),
      );
    };
    this.#timeline.after(3 * this.latencyMs(), attempt);
    return promise;
  }

  /** Breaks one of the connections of a machine, noticed by both ends. @returns whether there was one */
  breakOne(machine: string): boolean {
    const candidates = [...this.#open].filter((connection) => connection.touches(machine));
    const one = candidates[Math.floor(this.#random.next() * candidates.length)];
    one?.reset('connection reset');
    return one !== undefined;
  }

  /** The machine's kernel is a new one and knows none of these connections. */
  forgetConnectionsOf(machine: string): void {
    for (const connection of this.#open) if (connection.touches(machine)) connection.kernelGone(machine);
  }

  drop(connection: Connection): void {
    this.#open.delete(connection);
  }
}

/** One end of a connection. */
class End implements Channel {
  readonly life: Life;
  readonly machine: string;
  readonly remote: string;
  readonly #connection: Connection;
  readonly closed: Promise<string>;
  readonly #closed = Promise.withResolvers<string>();
  #handler: ((message: unknown) => void) | undefined;
  #early: unknown[] = [];
  isOpen = true;
  /** The kernel has nothing of it any more. */
  isGone = false;
  /** Said and held up by a cut; `undefined` stands for the end of what is said. */
  stuck: { readonly message: unknown }[] = [];
  stuckSince = 0;
  /** So that what is said later never arrives earlier. */
  arrivesAt = 0;
  probe: Timer | undefined;
  retry: Timer | undefined;

  constructor(connection: Connection, life: Life, machine: string, remote: string) {
    this.#connection = connection;
    this.life = life;
    this.machine = machine;
    this.remote = remote;
    this.closed = this.#closed.promise;
    life.onEnd(this.#died);
  }

  readonly #died = (): void => this.#connection.programEnded(this);

  send(message: unknown): boolean {
    if (!this.isOpen || this.life.isOver || this.stuck.length >= unsentLimit) return false;
    this.#connection.carry(this, { message });
    return true;
  }

  onMessage(handler: (message: unknown) => void): void {
    this.#handler = handler;
    const early = this.#early;
    this.#early = [];
    for (const message of early) handler(message);
  }

  close(reason = 'connection closed'): void {
    if (!this.isOpen || this.life.isOver) return;
    this.isOpen = false;
    this.#connection.finish(this, reason);
  }

  deliver(message: unknown): void {
    this.life.enter(() => {
      if (!this.isOpen) return;
      if (this.#handler === undefined) return void this.#early.push(message);
      try {
        this.#handler(message);
      } catch (error) {
        this.close(`a message could not be handled: ${error instanceof Error ? error.message : String(error)}`);
      }
    });
  }

  /** The connection is over for this end. */
  gone(reason: string): void {
    if (this.isGone) return;
    this.isGone = true;
    this.probe?.cancel();
    this.retry?.cancel();
    this.stuck = [];
    this.life.forget(this.#died);
    this.life.enter(() => {
      this.isOpen = false;
      this.#closed.resolve(reason);
    });
  }
}

const endOfStream = Symbol('end of stream');

class Connection {
  readonly ours: End;
  readonly theirs: End;
  readonly #network: Network;
  readonly #timeline: Timeline;
  readonly #random: Random;

  constructor(
    network: Network,
    timeline: Timeline,
    random: Random,
    [ourLife, ourMachine]: [Life, string],
    [theirLife, theirMachine]: [Life, string],
  ) {
    this.#network = network;
    this.#timeline = timeline;
    this.#random = random;
    this.ours = new End(this, ourLife, ourMachine, theirMachine);
    this.theirs = new End(this, theirLife, theirMachine, ourMachine);
  }

  touches(machine: string): boolean {
    return this.ours.machine === machine || this.theirs.machine === machine;
  }

  carry(from: End, packet: { readonly message: unknown }): void {
    const to = this.#other(from);
    const { tamper } = this.#network;
    const sent = tamper === undefined ? packet : { message: tamper(packet.message, from.machine, to.machine) };
    this.#echo(from, packet);
    if (from.stuck.length > 0 || !this.#network.links.carries(from.machine, to.machine)) {
      if (from.stuck.length === 0) from.stuckSince = this.#timeline.nowMs;
      from.stuck.push(sent);
      return;
    }
    this.#transport(from, to, sent);
  }

  /** Only orders: facts have numbers, and the rest is said again all the time. */
  #echo(from: End, packet: { readonly message: unknown }): void {
    const { message } = packet;
    if (message === null || typeof message !== 'object' || !('order' in message) || 'refused' in message) return;
    if (!this.#network.echo()) return;
    this.#timeline.after(this.#random.next() * latestEchoMs, () => {
      if (from.isOpen) this.carry(from, packet);
    });
  }

  #transport(from: End, to: End, { message }: { readonly message: unknown }): void {
    const at = Math.max(from.arrivesAt, this.#timeline.nowMs + this.#network.latencyMs());
    from.arrivesAt = at;
    this.#timeline.after(at - this.#timeline.nowMs, () => {
      if (to.isGone) return;
      if (message === endOfStream) {
        // Closes its own side, too.
        to.gone('connection closed');
        this.#settle();
      } else to.deliver(message);
    });
  }

  /** An end closes: what it has said is sent first, for a while. */
  finish(end: End, reason: string): void {
    this.carry(end, { message: endOfStream });
    const isStuck = end.stuck.length > 0;
    this.#timeline.after(isStuck ? closingMs : 1, () => {
      const { stuck } = end;
      end.gone(reason);
      // The kernel goes on trying to send what the program has left to it.
      end.stuck = stuck;
      this.linkChanged();
      this.#settle();
    });
  }

  /** A program was killed: its kernel closes the connection, or loses all of it with the power. */
  programEnded(end: End): void {
    if (end.isGone) return;
    end.isGone = true;
    end.probe?.cancel();
    if (!this.#network.links.hasPower(end.machine)) return this.linkChanged();
    this.carry(end, { message: endOfStream });
    this.#settle();
  }

  /** Broken, and both ends are told as far as they can be reached. */
  reset(reason: string): void {
    for (const end of [this.ours, this.theirs]) end.gone(reason);
    this.#settle();
  }

  linkChanged(): void {
    const { links } = this.#network;
    for (const end of [this.ours, this.theirs]) {
      const other = this.#other(end);
      const isThrough = links.bothWays(end.machine, other.machine);
      if (!isThrough) {
        end.retry?.cancel();
        end.retry = undefined;
        if (end.probe === undefined && !end.isGone) this.#probeLater(end, keepAliveMs);
        continue;
      }
      end.probe?.cancel();
      end.probe = undefined;
      if (end.stuck.length === 0 || end.retry !== undefined) continue;
      const waited = this.#timeline.nowMs - end.stuckSince;
      const pauseMs = 200 + this.#random.next() * Math.min(longestRetryMs, waited);
      end.retry = this.#timeline.after(pauseMs, () => {
        end.retry = undefined;
        const { stuck } = end;
        end.stuck = [];
        for (const packet of stuck) this.#transport(end, other, packet);
        this.#settle();
      });
    }
  }

  /** While the way is cut: an idle end gives up soon, one that waits for an answer late. */
  #probeLater(end: End, ms: number): void {
    end.probe = this.#timeline.after(ms, () => {
      end.probe = undefined;
      const cutForMs = this.#timeline.nowMs - end.stuckSince;
      if (end.stuck.length === 0 || cutForMs >= retransmitMs) {
        end.gone('connection timed out');
        return this.#settle();
      }
      this.#probeLater(end, retransmitMs - cutForMs);
    });
  }

  /** One machine has booted anew: it answers what still comes with a reset. */
  kernelGone(machine: string): void {
    for (const end of [this.ours, this.theirs]) {
      if (end.machine === machine) {
        end.isGone = true;
        continue;
      }
      const waited = end.stuck.length > 0 ? this.#timeline.nowMs - end.stuckSince : keepAliveMs;
      this.#timeline.after(200 + this.#random.next() * Math.min(longestRetryMs, waited), () => {
        end.gone('connection reset');
        this.#settle();
      });
    }
  }

  #other(end: End): End {
    return end === this.ours ? this.theirs : this.ours;
  }

  #settle(): void {
    const { ours, theirs } = this;
    if (ours.isGone && theirs.isGone) this.#network.drop(this);
  }
}
