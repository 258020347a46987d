/**
 * The agent's connection to the server: dialled from here, dialled again when it breaks, through a peer (relay.ts) where
 * no server is reached. Says hello with what really runs, then sends facts and reports and receives orders. Guests do not
 * depend on it.
 */
import { connect } from 'node:net';
import { isDeepStrictEqual } from 'node:util';
import type { Endpoint, HealthSign, HostInventory } from '../model/host.ts';
import { messageOf } from '../model/failure.ts';
import type { MigrationSample } from '../model/migration.ts';
import type { Channel } from '../runtime/channel.ts';
import { protocolVersion, toAgent, type FromAgent, type PeerMessage, type ToAgent } from '../wire/agent.ts';
import type { AgentContext } from './context.ts';
import type { Guests } from './guests.ts';
import type { Leases } from './leases.ts';
import type { LoadMeter } from './load.ts';
import { Measuring } from './measuring.ts';
import type { Orders } from './orders.ts';
import type { Sleeper, SleepMessage } from './sleeper.ts';
import type { Tasks } from './tasks.ts';

const reportEveryMs = 1000;
const firstPauseMs = 200;
const longestPauseMs = 2000;
const dialTimeoutMs = 1500;
/** A server says something every second. After this long it is gone, whatever the connection looks like. */
const quietServerMs = 4000;
const lookEveryMs = 500;
/** While a peer hands on: how often the straight way is tried. */
const tryStraightEveryMs = 5000;
/** A server that takes the connection and says nothing is not one. */
const welcomeTimeoutMs = 10_000;

type Visit = 'welcome' | 'sent-on' | 'turned-away';

export interface UplinkOptions {
  readonly servers: readonly Endpoint[];
  readonly version: string;
  readonly inventory: () => Promise<HostInventory>;
  readonly meter: LoadMeter;
  readonly leases: Leases;
  readonly tasks: Pick<Tasks, 'ready'>;
  /** Signs that this host may die soon. Absent: nobody looks. */
  readonly health?: () => Promise<HealthSign[]>;
  /** Absent: this host never sleeps. */
  readonly sleeper?: Sleeper;
}

export class Uplink {
  readonly #context: AgentContext;
  readonly #guests: Guests;
  readonly #orders: Orders;
  readonly #options: UplinkOptions;
  readonly #measuring: Measuring;
  readonly #consoles = new Map<string, { write(data: Buffer): void; end(): void }>();
  #channel: Channel | undefined;
  #welcome = false;
  /** Sent on by a server that does not lead. */
  #sentOn = false;
  /** Where we were welcome last. */
  #leader: Endpoint | undefined;
  /** The term of the server that was lost and could not be dialled again. */
  #lostTerm: number | undefined;
  /** When the server said something last, by the monotonic clock. */
  #heardAt = 0;

  constructor(context: AgentContext, guests: Guests, orders: Orders, options: UplinkOptions) {
    this.#context = context;
    this.#guests = guests;
    this.#orders = orders;
    this.#options = options;
    this.#measuring = new Measuring(guests);
    context.facts.onFact((numbered) => {
      if (!this.#welcome || this.#send({ type: 'fact', ...numbered })) return;
      this.#channel?.close('the server does not read'); // it is said again on the next connection
    });
  }

  get isWelcome(): boolean {
    return this.#welcome;
  }

  /** Guests whose memory is being looked at. */
  get measuring(): number {
    return this.#measuring.busy;
  }

  sample(sample: MigrationSample): void {
    if (this.#welcome) this.#send({ type: 'sample', sample });
  }

  /** Stays connected until the signal; never throws for a server that is away. */
  async run(signal: AbortSignal): Promise<void> {
    void this.#report(signal);
    const { servers } = this.#options;
    let pauseMs = firstPauseMs;
    let unreached = 0;
    for (let turn = 0; !signal.aborted; turn++) {
      const server = servers[turn % servers.length];
      if (!server) return;
      const was = await this.#connectOnce(server, signal);
      // Reaching those that only send us on is of no use. With several, the first may have come to lead meanwhile.
      unreached = was === 'unreached' || was === 'sent-on' ? unreached + 1 : 0;
      if (unreached >= (servers.length === 1 ? 1 : servers.length + 1)) {
        unreached = 0;
        if (await this.#throughPeers(signal)) continue;
      }
      if (was === 'welcome') turn--; // back to where we were welcome, first of all
      // The leader is perhaps the next of them: a pause is only due when all were asked.
      else if ((turn + 1) % servers.length !== 0) continue;
      pauseMs = was === 'welcome' ? firstPauseMs : Math.min(longestPauseMs, pauseMs * 1.5);
      await this.#context.clock.sleep(pauseMs, signal).catch(() => {});
    }
  }

  async #connectOnce(server: Endpoint, signal: AbortSignal): Promise<Visit | 'unreached'> {
    const channel = await this.#dial(server, signal);
    if (channel !== undefined) {
      const was = await this.#serve(channel, signal);
      if (was === 'welcome') this.#leader = server;
      return was;
    }
    if (isDeepStrictEqual(server, this.#leader)) this.#lostTerm = this.#context.journal.agent.newestTerm;
    return 'unreached';
  }

  async #dial(to: Endpoint, signal: AbortSignal): Promise<Channel | undefined> {
    try {
      return await this.#context.dial(to, { timeoutMs: dialTimeoutMs, signal });
    } catch (error) {
      this.#context.log.debug({ to: `${to.address}:${to.port}`, error: messageOf(error) }, 'not reached');
      return undefined;
    }
  }

  /** No server answers here: perhaps one does there. @returns whether a peer's way was of use */
  async #throughPeers(signal: AbortSignal): Promise<boolean> {
    for (const peer of this.#context.journal.agent.peers ?? []) {
      if (signal.aborted) return false;
      const channel = await this.#dial(peer, signal);
      if (channel === undefined) continue;
      channel.send({ type: 'relay' } satisfies PeerMessage);
      const over = new AbortController();
      void this.#untilStraight(over.signal).then((found) => {
        if (found) channel.close('the straight way is back');
      });
      const was = await this.#serve(channel, signal);
      over.abort();
      if (was === 'welcome') return true;
    }
    return false;
  }

  /** @returns true when a server can be reached from here again; false when the signal came first */
  async #untilStraight(signal: AbortSignal): Promise<boolean> {
    for (let turn = 0; ; turn++) {
      await this.#context.clock.sleep(tryStraightEveryMs, signal).catch(() => {});
      const server = this.#options.servers[turn % this.#options.servers.length];
      if (signal.aborted || !server) return false;
      const channel = await this.#dial(server, signal);
      channel?.close('only looked');
      if (channel) return !signal.aborted;
    }
  }

  /** Says hello and stays until the channel is closed. */
  async #serve(channel: Channel, signal: AbortSignal): Promise<Visit> {
    const { log, hostName, journal, clock } = this.#context;
    const leave = () => channel.close('agent ends');
    signal.addEventListener('abort', leave, { once: true });
    this.#channel = channel;
    this.#welcome = false;
    this.#sentOn = false;
    channel.onMessage((raw) => this.#onMessage(raw));
    const over = new AbortController();
    try {
      const inventory = await this.#options.inventory();
      this.#send({
        type: 'hello',
        protocol: protocolVersion,
        version: this.#options.version,
        host: hostName,
        inventory,
        guests: this.#guests.found(),
        known: this.#guests.known(),
        newestTerm: journal.agent.newestTerm,
        session: journal.agent.session,
        ...(journal.agent.mark === undefined ? {} : { mark: journal.agent.mark }),
        ...(this.#lostTerm !== undefined && { lostTerm: this.#lostTerm }),
        at: clock.now(),
      });
      const timer = clock.setTimeout(() => {
        if (!this.#welcome) channel.close('no welcome in time');
      }, welcomeTimeoutMs);
      void this.#leaveWhenQuiet(channel, over.signal);
      const reason = await channel.closed;
      timer.cancel();
      log.info({ server: channel.remote, reason }, 'server connection closed');
    } catch (error) {
      channel.close('no hello could be said');
      log.warn({ server: channel.remote, error: messageOf(error) }, 'no hello could be said');
    }
    over.abort();
    signal.removeEventListener('abort', leave);
    this.#channel = undefined;
    const was = this.#welcome ? 'welcome' : this.#sentOn ? 'sent-on' : 'turned-away';
    this.#welcome = false;
    for (const console of this.#consoles.values()) console.end();
    this.#consoles.clear();
    return was;
  }

  /** A connection to a host that vanished looks open for minutes. */
  async #leaveWhenQuiet(channel: Channel, signal: AbortSignal): Promise<void> {
    const { clock } = this.#context;
    let lookedAt = clock.monotonic();
    this.#heardAt = lookedAt;
    while (!signal.aborted) {
      await clock.sleep(lookEveryMs, signal).catch(() => {});
      const now = clock.monotonic();
      // What we did not hear while we stood still ourselves was perhaps said.
      this.#heardAt += Math.max(0, now - lookedAt - 2 * lookEveryMs);
      lookedAt = now;
      if (!signal.aborted && this.#welcome && now - this.#heardAt > quietServerMs)
        channel.close('the server says nothing');
    }
  }

  #onMessage(raw: unknown): void {
    this.#heardAt = this.#context.clock.monotonic();
    const parsed = toAgent.safeParse(raw);
    if (!parsed.success) return this.#channel?.close('a message this version does not know');
    this.#handle(parsed.data);
  }

  #handle(message: ToAgent): void {
    const { journal, facts, log } = this.#context;
    switch (message.type) {
      case 'welcome':
        if (message.term < journal.agent.newestTerm) return this.#channel?.close('a server of an older term');
        journal.setAgent({
          newestTerm: message.term,
          session: message.session,
          ...(message.revision === undefined
            ? {}
            : {
                mark: {
                  term: message.term,
                  revision: message.revision,
                  ...(message.termId === undefined ? {} : { termId: message.termId }),
                },
              }),
        });
        this.#welcome = true;
        // What an earlier connection has prepared is asked for again, or was given up.
        this.#options.sleeper?.stayAwake();
        this.#lostTerm = undefined;
        log.info({ term: message.term, session: message.session }, 'welcome');
        for (const numbered of facts.unacknowledged()) this.#send({ type: 'fact', ...numbered });
        return;
      case 'rejected':
        this.#sentOn = message.elsewhere === true;
        if (this.#sentOn) log.info({ reason: message.reason }, 'sent on to another server');
        else log.error({ reason: message.reason }, 'the server turned this host away');
        return this.#channel?.close('rejected');
      case 'order':
        this.#send({ type: 'answer', order: message.order.id, refused: this.#orders.admit(message.order) });
        return;
      case 'ack':
        return facts.acknowledge(message.number);
      case 'console-open':
        return this.#openConsole(message.stream, message.vm);
      case 'console-data':
        this.#consoles.get(message.stream)?.write(Buffer.from(message.data, 'base64'));
        return;
      case 'console-end':
        this.#consoles.get(message.stream)?.end();
        this.#consoles.delete(message.stream);
        return;
      case 'beat':
        return;
      case 'neighbours':
        if (!isDeepStrictEqual(journal.agent.peers, message.peers)) journal.setAgent({ peers: message.peers });
        return this.#options.leases.watch(message.watchLeasesOf);
      case 'take-lease':
        return void this.#takeLease(message);
      case 'measure':
        return void this.#measure(message);
      case 'sleep':
        return void this.#sleep(message);
      case 'wake-other':
        return void this.#options.sleeper?.wakeOther(message.macs);
    }
  }

  async #takeLease({ request, ...asked }: Extract<ToAgent, { type: 'take-lease' }>): Promise<void> {
    const { journal, log } = this.#context;
    const { newestTerm } = journal.agent;
    // A server that was replaced must not have leases taken: what it believes of hosts is old.
    const answer =
      asked.term < newestTerm
        ? ({ result: 'failed', says: `term ${newestTerm} has begun` } as const)
        : await this.#options.leases.take(asked);
    if (!this.#send({ type: 'lease-answer', request, ...answer }))
      log.warn({ ...answer }, 'nobody to tell of the lease');
  }

  async #measure({ request, vm }: Extract<ToAgent, { type: 'measure' }>): Promise<void> {
    // Nobody waits for long: an answer that finds no server is not said again.
    this.#send({ type: 'measured', request, ...(await this.#measuring.measure(vm)) });
  }

  async #sleep(message: SleepMessage): Promise<void> {
    const channel = this.#channel;
    const answer = await this.#options.sleeper?.onMessage(message);
    if (answer) this.#send({ type: 'sleep-answer', request: message.request, ...answer });
    // It has slept: whoever was connected has gone long ago.
    else if (message.do === 'suspend') channel?.close('this host was suspended');
  }

  #openConsole(stream: string, vm: Parameters<Guests['part']>[0]): void {
    const guest = this.#guests.running.get(vm);
    if (!guest) {
      this.#send({ type: 'console-end', stream, reason: 'the VM does not run on this host' });
      return;
    }
    const socket = connect({ path: guest.consolePath });
    const end = (reason: string) => {
      if (!this.#consoles.delete(stream)) return;
      this.#send({ type: 'console-end', stream, reason });
    };
    this.#consoles.set(stream, { write: (data) => socket.write(data), end: () => socket.destroy() });
    socket.on('data', (data: Buffer) => this.#send({ type: 'console-data', stream, data: data.toString('base64') }));
    socket.once('error', (error) => end(`console: ${error.message}`));
    socket.once('close', () => end('the console was closed'));
  }

  async #report(signal: AbortSignal): Promise<void> {
    const { clock, log } = this.#context;
    const { meter, leases, tasks, health: look } = this.#options;
    while (!signal.aborted) {
      try {
        const load = await meter.measure(this.#guests.running, clock.now());
        const health = (await look?.()) ?? [];
        if (this.#welcome) {
          const [guards, seen] = [leases.guards(), leases.seen()];
          this.#send({ type: 'report', load, guards, leases: seen, health, ready: tasks.ready() });
        }
      } catch (error) {
        log.warn({ error: messageOf(error) }, 'the load could not be measured');
      }
      await clock.sleep(reportEveryMs, signal).catch(() => {});
    }
  }

  #send(message: FromAgent): boolean {
    return this.#channel?.send(message) === true;
  }
}
