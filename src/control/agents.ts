/**
 * The hosts' agents: who is connected, orders to them and facts from them.
 *
 *   hello -> session decided and committed -> welcome -> answers about found guests -> everything that is due
 *   fact n -> on record -> ack n          (a fact that could not be put on record is not acknowledged: it comes again)
 *
 * An order is sent when a commit makes it due, when its host connects, and again every few seconds for as long as it stays
 * due. Nothing here needs to be remembered: what is due is worked out from the records.
 *
 * Not here: what facts mean (migrations.ts, guests.ts), what is due (orders.ts).
 */
import { isDeepStrictEqual } from 'node:util';
import { UserError, messageOf } from '../model/failure.ts';
import type { HostRecord } from '../model/host.ts';
import { namePattern, newId } from '../model/ids.ts';
import type { HostId, VmId } from '../model/ids.ts';
import type { Channel, Listener } from '../runtime/channel.ts';
import type { Clock, Timer } from '../runtime/clock.ts';
import type { Log } from '../runtime/log.ts';
import type { Random } from '../runtime/random.ts';
import { cameTooLate, fromAgent, protocolVersion } from '../wire/agent.ts';
import type { Fact, FromAgent, Order, ToAgent } from '../wire/agent.ts';
import type { Draft, Fleet } from './fleet.ts';
import type { Held } from './held.ts';
import type { LiveEvents } from './live-events.ts';
import type { Liveness } from './liveness.ts';
import { suspectAfterMs } from './liveness.ts';
import { neighboursOf } from './neighbours.ts';
import { migrationOrders, orderKey, taskOrders, vmOrders } from './orders.ts';
import type { DueOrder } from './orders.ts';
import { capacityMiB } from './rooms.ts';
import { sleepsOnPurpose } from './sleep-rules.ts';

/** Where agents come from: a listening port, or a simulated network. */
export interface AgentDoor {
  open(onChannel: (channel: Channel) => void): Promise<Listener>;
}

/** Those who know what facts mean. */
export interface AgentNews {
  onFact(host: HostId, fact: Fact): Promise<void>;
  onRefused(due: DueOrder, reason: string): Promise<void>;
  /** @returns the orders that follow for the guests it has */
  onFound(host: HostId, hello: Hello): Promise<DueOrder[]>;
  /** What hosts say of leases, their own and others'. */
  onReport(host: HostId, report: Extract<FromAgent, { type: 'report' }>): void;
  onMeasured(host: HostId, answer: Extract<FromAgent, { type: 'measured' }>): void;
  onLeaseAnswer(host: HostId, answer: Extract<FromAgent, { type: 'lease-answer' }>): void;
  onSleepAnswer(host: HostId, answer: Extract<FromAgent, { type: 'sleep-answer' }>): Promise<void>;
  /** The host has booted since it was here last; written into the commit that takes its hello. */
  onRebooted(draft: Draft, host: HostRecord): void;
}

export interface ConsoleStream {
  write(bytes: Uint8Array): void;
  close(): void;
}
export interface ConsoleListener {
  onData(bytes: Uint8Array): void;
  onEnd(reason: string): void;
}

const helloWithinMs = 20_000;
const orderExpiresAfterMs = 30_000;
const sendAgainAfterMs = 10_000;
/** `go` ends a pause: it is repeated soon. */
const goAgainAfterMs = 1_000;
const pendingFactsLimit = 10_000;
const rememberedOrders = 1_000;
const consolesPerHost = 64;
/** A message this long after a second agent said hello proves that the first one lives. */
const aliveAfterMs = 500;

export type Hello = Extract<FromAgent, { type: 'hello' }>;

interface Connection {
  readonly host: HostId;
  readonly name: string;
  readonly session: number;
  readonly channel: Channel;
  heardAt: number;
  /** By orderKey: when it was sent last, monotonic. */
  readonly sent: Map<string, number>;
  /** By order id. */
  readonly unanswered: Map<string, DueOrder>;
  readonly consoles: Map<string, ConsoleListener>;
  /** What it was told last. */
  neighbours: ReturnType<typeof neighboursOf> | undefined;
  /** Facts are put on record one after another; after one that could not be, none. */
  facts: Promise<void>;
  pendingFacts: number;
}

interface Parts {
  readonly fleet: Fleet;
  readonly live: LiveEvents;
  readonly liveness: Liveness;
  readonly news: AgentNews;
  readonly held: Held;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  /** An agent obeyed a newer term than ours: our store is older than the fleet. */
  readonly onNewerTerm: (term: number) => void;
}

export class Agents {
  readonly #fleet: Fleet;
  readonly #live: LiveEvents;
  readonly #liveness: Liveness;
  readonly #news: AgentNews;
  readonly #held: Held;
  readonly #clock: Clock;
  readonly #random: Random;
  readonly #log: Log;
  readonly #onNewerTerm: (term: number) => void;
  readonly #byName = new Map<string, Connection>();
  readonly #channels = new Set<Channel>();
  #orders = 0;
  #streams = 0;
  #closed = false;

  constructor(parts: Parts) {
    this.#fleet = parts.fleet;
    this.#live = parts.live;
    this.#liveness = parts.liveness;
    this.#news = parts.news;
    this.#held = parts.held;
    this.#clock = parts.clock;
    this.#random = parts.random;
    this.#log = parts.log;
    this.#onNewerTerm = parts.onNewerTerm;
    this.#fleet.onCommit((changes) => {
      for (const change of changes) {
        if (change.kind === 'vm' && change.after) {
          this.#sendAll(vmOrders(change.after));
          if (change.after.host !== change.before?.host) this.#sendTasks(change.after.id);
        }
        if (change.kind === 'task' && change.after) this.#sendAll(taskOrders(change.after, this.#fleet));
        if (change.kind === 'migration' && change.after) this.#sendAll(migrationOrders(change.after, this.#fleet));
      }
      if (changes.some(({ kind }) => kind === 'host')) for (const each of this.#byName.values()) this.#introduce(each);
    });
  }

  /** Takes over a channel that an agent has opened. */
  accept(channel: Channel): void {
    if (this.#closed) return channel.close('the server stops');
    this.#channels.add(channel);
    const timer = this.#clock.setTimeout(() => channel.close('no hello'), helloWithinMs);
    void channel.closed.then(() => {
      timer.cancel();
      this.#channels.delete(channel);
    });
    // What an agent says before its welcome waits until there is a connection to say it on.
    const early: FromAgent[] = [];
    let hello: Hello | undefined;
    let receive = (message: FromAgent): void => {
      early.push(message);
      if (early.length > pendingFactsLimit) channel.close('too much was said before the welcome');
    };
    channel.onMessage((message) => {
      const parsed = fromAgent.safeParse(message);
      if (!parsed.success) return channel.close('a message that is not in the protocol');
      if (hello !== undefined) return receive(parsed.data);
      if (parsed.data.type !== 'hello') return channel.close('the first message is not a hello');
      hello = parsed.data;
      timer.cancel();
      this.#welcome(channel, hello).then(
        (connection) => {
          if (connection === undefined) return;
          receive = (next) => this.#receive(connection, next);
          for (const next of early.splice(0)) receive(next);
        },
        (error: unknown) => {
          this.#log.warn({ remote: channel.remote, error }, 'no welcome was possible');
          channel.close('not welcomed: try again');
        },
      );
    });
  }

  /** Says something to a host that is no order. @returns whether it is connected */
  tell(host: HostId, message: ToAgent): boolean {
    const connection = this.#byName.get(this.#fleet.hostName(host));
    return connection !== undefined && say(connection, message);
  }

  isConnected(host: HostId): boolean {
    const name = this.#fleet.hosts.get(host)?.name;
    return name !== undefined && this.#byName.has(name);
  }

  /** Sends again what has stayed due, and tells of hosts that fell silent or came back. Once a second. */
  tick(): void {
    for (const { host, silent } of this.#liveness.changes(this.#fleet.hosts.keys())) {
      const name = this.#fleet.hostName(host);
      const record = this.#fleet.hosts.get(host);
      const asleep = record !== undefined && sleepsOnPurpose({ fleet: this.#fleet, liveness: this.#liveness }, record);
      const quiet = asleep
        ? `host ${name} is quiet: it sleeps`
        : `host ${name} is silent: no report for ${suspectAfterMs / 1000} s`;
      const says = silent ? quiet : `host ${name} reports`;
      this.#log.info({ host: name }, says);
      this.#live.emit({ kind: 'host', at: this.#clock.now(), host, says });
      // Its stay has ended with its silence: it must say hello again to get a new session.
      const connection = this.#byName.get(name);
      if (silent && connection) this.#drop(connection, 'no report: say hello again');
    }
    for (const connection of this.#byName.values()) say(connection, { type: 'beat' });
    for (const vm of this.#fleet.vms.values()) this.#sendAll(vmOrders(vm));
    for (const migration of this.#fleet.unsettledMigrations()) this.#sendAll(migrationOrders(migration, this.#fleet));
    this.#sendTasks();
  }

  /** @throws UserError unreachable, busy */
  openConsole(host: HostId, vm: VmId, listener: ConsoleListener): ConsoleStream {
    const name = this.#fleet.hostName(host);
    const connection = this.#byName.get(name);
    const stream = `console-${this.#fleet.term}-${++this.#streams}`;
    if (connection !== undefined && connection.consoles.size >= consolesPerHost) {
      throw new UserError('busy', `${name} has ${consolesPerHost} consoles open already.`, 'Close one of them.');
    }
    if (connection === undefined || !say(connection, { type: 'console-open', stream, vm })) {
      throw new UserError('unreachable', `${name} is not connected.`, `Start the agent on ${name} again.`);
    }
    connection.consoles.set(stream, listener);
    return {
      write: (bytes) => {
        const data = Buffer.from(bytes).toString('base64');
        if (!say(connection, { type: 'console-data', stream, data })) listener.onEnd(`${name} does not take more`);
      },
      close: () => {
        if (connection.consoles.delete(stream)) say(connection, { type: 'console-end', stream, reason: 'closed' });
      },
    };
  }

  send(due: DueOrder): void {
    if (this.#held.isHeld) return; // the records it comes from are not to be trusted yet
    const connection = this.#byName.get(this.#fleet.hostName(due.host));
    if (connection === undefined) return; // it is still due when the host connects
    const now = this.#clock.monotonic();
    const key = orderKey(due);
    const sentAt = connection.sent.get(key);
    const again = due.body.kind === 'go' ? goAgainAfterMs : sendAgainAfterMs;
    if (sentAt !== undefined && now - sentAt < again) return;
    const wallNow = this.#clock.now();
    const until = Math.min(wallNow + orderExpiresAfterMs, due.notAfter ?? Infinity);
    if (until <= wallNow) return;
    const id = `${this.#fleet.term}-${++this.#orders}`;
    const stamp = {
      id,
      term: this.#fleet.term,
      session: connection.session,
      vm: due.vm,
      generation: due.generation,
      expiresAt: until + this.#liveness.offsetMs(due.host),
      revision: this.#fleet.revision,
    };
    const order: Order = { ...stamp, ...due.body };
    if (!say(connection, { type: 'order', order })) return;
    this.#log.debug({ host: connection.name, order: due.body.kind, vm: due.vm, generation: due.generation }, 'ordered');
    remember(connection.sent, key, now);
    remember(connection.unanswered, id, due);
  }

  close(): void {
    this.#closed = true;
    for (const channel of this.#channels) channel.close('the server stops');
  }

  #sendAll(orders: readonly DueOrder[]): void {
    for (const order of orders) this.send(order);
  }

  async #welcome(channel: Channel, hello: Hello): Promise<Connection | undefined> {
    const reject = (reason: string): undefined => {
      this.#log.warn({ host: hello.host, remote: channel.remote }, `an agent was rejected: ${reason}`);
      channel.send({ type: 'rejected', reason } satisfies ToAgent);
      channel.close(reason);
      return undefined;
    };
    if (hello.protocol !== protocolVersion) {
      return reject(
        `it speaks protocol ${hello.protocol}, this server speaks ${protocolVersion}: update the older of the two`,
      );
    }
    if (!namePattern.test(hello.host)) return reject(`'${hello.host}' is not a name for a host`);
    if (hello.newestTerm > this.#fleet.term) {
      this.#onNewerTerm(hello.newestTerm);
      return reject(`it obeyed term ${hello.newestTerm}, this server is in term ${this.#fleet.term}: try again`);
    }
    if (await this.#held.noticed(hello)) {
      const reason = 'the records went back in time: say hello again';
      this.#askAgain(reason);
      channel.close(reason);
      return undefined;
    }
    const older = await this.#olderConnection(hello.host);
    if (older) return reject(`an agent called ${hello.host} is connected from ${older.channel.remote} and alive`);
    if (!channel.isOpen) return undefined;
    const host = await this.#join(hello);
    const connection: Connection = {
      host: host.id,
      name: host.name,
      session: host.session,
      channel,
      heardAt: this.#clock.monotonic(),
      sent: new Map(),
      unanswered: new Map(),
      consoles: new Map(),
      neighbours: undefined,
      facts: Promise.resolve(),
      pendingFacts: 0,
    };
    // Two that waited for the same old connection: the first of them is in, this one asks again.
    if (this.#byName.has(host.name)) return reject(`an agent called ${host.name} was faster`);
    this.#byName.set(host.name, connection);
    void channel.closed.then((reason) => this.#gone(connection, reason));
    this.#liveness.heard(host.id, hello.at, null);
    const { term } = this.#fleet;
    say(connection, {
      type: 'welcome',
      hostId: host.id,
      term,
      session: host.session,
      revision: this.#fleet.revision,
      termId: this.#held.termId,
    });
    this.#introduce(connection);
    this.#log.info({ host: host.name, session: host.session, remote: channel.remote }, 'an agent is connected');
    this.#sendAll(await this.#news.onFound(host.id, hello));
    for (const migration of this.#fleet.unsettledMigrations()) this.#sendAll(migrationOrders(migration, this.#fleet));
    for (const vm of this.#fleet.vms.values()) if (vm.host === host.id) this.#sendAll(vmOrders(vm));
    this.#sendTasks();
    return connection;
  }

  /** Of one VM, or of all. */
  #sendTasks(vm?: VmId): void {
    for (const task of this.#fleet.givenTasks()) {
      if (vm === undefined || task.attempts.at(-1)?.vm === vm) this.#sendAll(taskOrders(task, this.#fleet));
    }
  }

  /** The connection under this name that proves to be alive; a dead one is closed. The newest wins over the dead. */
  async #olderConnection(name: string): Promise<Connection | undefined> {
    const older = this.#byName.get(name);
    if (older === undefined) return undefined;
    const since = this.#clock.monotonic();
    const { promise, resolve } = Promise.withResolvers<boolean>();
    let timer: Timer;
    const look = (): void => {
      if (older.heardAt > since + aliveAfterMs) return resolve(true);
      if (this.#clock.monotonic() - since > suspectAfterMs) return resolve(false);
      timer = this.#clock.setTimeout(look, aliveAfterMs / 5);
    };
    look();
    void older.channel.closed.then(() => resolve(false));
    const alive = await promise;
    timer!.cancel();
    if (alive) return older;
    this.#drop(older, 'another agent of this host is connected');
    return undefined;
  }

  /** Finds or makes the host's record and decides its session; resolves when that is on record. */
  async #join(hello: Hello): Promise<HostRecord> {
    const { inventory } = hello;
    const joinedAt = this.#clock.now();
    return this.#fleet.change((draft) => {
      const known = this.#fleet.hostNamed(hello.host);
      const id = known?.id ?? newId('host', joinedAt, this.#random.bytes(8));
      // Records that went back in time know an older session than the host: a number is never given out twice.
      const newest = Math.max(known?.session ?? 0, hello.session ?? 0);
      const rebooted = known !== undefined && known.inventory.kernelBootId !== inventory.kernelBootId;
      const stays = known?.session === newest && !this.#liveness.isSilent(id) && !known.fenced && !rebooted;
      const session = stays ? newest : newest + 1;
      // By older records it may have rebooted long ago: what runs there now, it says itself.
      if (rebooted) {
        if (!this.#held.isHeld) this.#news.onRebooted(draft, known);
      } else if (known?.fenced?.proof === 'power-off') this.#wasNeverOff(known);
      const host: HostRecord = known
        ? { ...(draft.host(id) ?? known), inventory, session }
        : {
            schema: 2,
            id,
            name: hello.host,
            session,
            cordoned: false,
            labels: {},
            inventory,
            joinedAt,
            power: null,
            fenced: null,
            failing: null,
          };
      if (!isDeepStrictEqual(host, known)) draft.putHost(host);
      const room = draft.room(id) ?? { schema: 1, host: id, capacityMiB: 0, guestsMiB: {}, reservationsMiB: {} };
      const capacity = capacityMiB(inventory.memoryMiB);
      if (room.capacityMiB !== capacity) draft.putRoom({ ...room, capacityMiB: capacity });
      return host;
    });
  }

  /** Tells a host who else there is, unless it knows. */
  #introduce(connection: Connection): void {
    const neighbours = neighboursOf(this.#fleet.hosts.values(), connection.host);
    if (isDeepStrictEqual(neighbours, connection.neighbours)) return;
    connection.neighbours = neighbours;
    say(connection, { type: 'neighbours', ...neighbours });
  }

  #wasNeverOff({ name }: HostRecord): void {
    const says = `${name} was read as off and has not booted since: its power controller speaks of another machine, or lies`;
    this.#log.error({ host: name }, says);
    this.#live.emit({ kind: 'alarm', at: this.#clock.now(), about: `host ${name}`, says });
  }

  #receive(connection: Connection, message: FromAgent): void {
    connection.heardAt = this.#clock.monotonic();
    switch (message.type) {
      case 'hello':
        return connection.channel.close('a second hello');
      case 'report':
        this.#liveness.heard(connection.host, message.load.at, message.load);
        this.#news.onReport(connection.host, message);
        return;
      case 'sample':
        this.#live.emit({ kind: 'sample', at: this.#clock.now(), sample: message.sample });
        return;
      case 'fact':
        return this.#onFact(connection, message.number, message.fact);
      case 'answer': {
        const due = connection.unanswered.get(message.order);
        connection.unanswered.delete(message.order);
        if (message.refused === null || due === undefined) return;
        const { refused } = message;
        this.#log.warn({ host: connection.name, order: due.body.kind, vm: due.vm, refused }, 'an order was refused');
        // A clock was set, or the way is slow: what is still due is sent again.
        if (refused === cameTooLate) return;
        this.#news
          .onRefused(due, refused)
          .catch((error: unknown) => this.#log.warn({ error }, 'a refusal could not be put on record'));
        return;
      }
      case 'console-data':
        connection.consoles.get(message.stream)?.onData(Buffer.from(message.data, 'base64'));
        return;
      case 'console-end': {
        const listener = connection.consoles.get(message.stream);
        connection.consoles.delete(message.stream);
        listener?.onEnd(message.reason);
        return;
      }
      case 'measured':
        return this.#news.onMeasured(connection.host, message);
      case 'lease-answer':
        return this.#news.onLeaseAnswer(connection.host, message);
      case 'sleep-answer':
        this.#news
          .onSleepAnswer(connection.host, message)
          .catch((error: unknown) => this.#log.warn({ error }, 'an answer about sleep could not be put on record'));
        return;
    }
  }

  #onFact(connection: Connection, number: number, fact: Fact): void {
    if (++connection.pendingFacts > pendingFactsLimit) return connection.channel.close('too many facts at once');
    connection.facts = connection.facts.then(async () => {
      connection.pendingFacts--;
      await this.#held.whenFree();
      if (!connection.channel.isOpen) return;
      try {
        await this.#news.onFact(connection.host, fact);
        say(connection, { type: 'ack', number });
      } catch (error) {
        // It comes again with the next connection; those behind it must not overtake it.
        this.#log.error({ host: connection.name, number, error }, 'a fact could not be put on record');
        connection.channel.close(`fact ${number} could not be put on record: ${messageOf(error)}`);
      }
    });
  }

  /** Ends all connections: each host says anew what it holds. */
  #askAgain(reason: string): void {
    for (const connection of this.#byName.values()) this.#drop(connection, reason);
  }

  /** A channel to a dead peer may take long to close: what was said on it ends now. */
  #drop(connection: Connection, reason: string): void {
    connection.channel.close(reason);
    this.#gone(connection, reason);
  }

  #gone(connection: Connection, reason: string): void {
    if (this.#byName.get(connection.name) !== connection) return;
    this.#byName.delete(connection.name);
    for (const listener of connection.consoles.values()) listener.onEnd(`${connection.name} is not connected any more`);
    connection.consoles.clear();
    if (!this.#closed) this.#log.info({ host: connection.name, reason }, 'an agent is not connected any more');
  }
}

function say(connection: Connection, message: ToAgent): boolean {
  return connection.channel.send(message);
}

function remember<K, V>(map: Map<K, V>, key: K, value: V): void {
  map.delete(key);
  map.set(key, value);
  if (map.size <= rememberedOrders) return;
  const [oldest] = map.keys();
  if (oldest !== undefined) map.delete(oldest);
}
