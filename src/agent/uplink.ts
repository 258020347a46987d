/**
 * The agent's connection to the server: dialled from here, dialled again when it breaks. Says hello with what really
 * runs, then sends facts and reports and receives orders. Guests do not depend on it.
 */
import { connect } from 'node:net';
import type { Endpoint, HostInventory } from '../model/host.ts';
import { messageOf } from '../model/failure.ts';
import type { MigrationSample } from '../model/migration.ts';
import { openChannel, type Channel } from '../runtime/channel.ts';
import { protocolVersion, toAgent, type FromAgent, type ToAgent } from '../wire/agent.ts';
import type { AgentContext } from './context.ts';
import type { Guests } from './guests.ts';
import { loadMeter } from './load.ts';
import type { Orders } from './orders.ts';

const reportEveryMs = 1000;
const firstPauseMs = 200;
const longestPauseMs = 2000;
const dialTimeoutMs = 3000;
/** A server that takes the connection and says nothing is not one. */
const welcomeTimeoutMs = 10_000;

export interface UplinkOptions {
  readonly servers: readonly Endpoint[];
  readonly version: string;
  readonly inventory: () => Promise<HostInventory>;
}

export class Uplink {
  readonly #context: AgentContext;
  readonly #guests: Guests;
  readonly #orders: Orders;
  readonly #options: UplinkOptions;
  readonly #consoles = new Map<string, { write(data: Buffer): void; end(): void }>();
  #channel: Channel | undefined;
  #welcome = false;

  constructor(context: AgentContext, guests: Guests, orders: Orders, options: UplinkOptions) {
    this.#context = context;
    this.#guests = guests;
    this.#orders = orders;
    this.#options = options;
    context.facts.onFact((numbered) => {
      if (!this.#welcome || this.#send({ type: 'fact', ...numbered })) return;
      this.#channel?.close('the server does not read'); // it is said again on the next connection
    });
  }

  sample(sample: MigrationSample): void {
    if (this.#welcome) this.#send({ type: 'sample', sample });
  }

  /** Stays connected until the signal; never throws for a server that is away. */
  async run(signal: AbortSignal): Promise<void> {
    void this.#report(signal);
    let pauseMs = firstPauseMs;
    for (let turn = 0; !signal.aborted; turn++) {
      const server = this.#options.servers[turn % this.#options.servers.length];
      if (!server) return;
      const was = await this.#connectOnce(server, signal);
      pauseMs = was === 'welcome' ? firstPauseMs : Math.min(longestPauseMs, pauseMs * 1.5);
      await this.#context.clock.sleep(pauseMs, signal).catch(() => {});
    }
  }

  async #connectOnce(server: Endpoint, signal: AbortSignal): Promise<'welcome' | 'turned-away'> {
    const { log, fleetKey, hostName, journal, clock } = this.#context;
    try {
      const channel = await openChannel({ ...server, key: fleetKey, timeoutMs: dialTimeoutMs, signal });
      const leave = () => channel.close('agent ends');
      signal.addEventListener('abort', leave, { once: true });
      this.#channel = channel;
      this.#welcome = false;
      channel.onMessage((raw) => this.#onMessage(raw));
      const inventory = await this.#options.inventory();
      this.#send({
        type: 'hello',
        protocol: protocolVersion,
        version: this.#options.version,
        host: hostName,
        inventory,
        guests: this.#guests.found(),
        newestTerm: journal.agent.newestTerm,
        at: clock.now(),
      });
      const timer = clock.setTimeout(() => {
        if (!this.#welcome) channel.close('no welcome in time');
      }, welcomeTimeoutMs);
      const reason = await channel.closed;
      timer.cancel();
      signal.removeEventListener('abort', leave);
      log.info({ server: `${server.address}:${server.port}`, reason }, 'server connection closed');
    } catch (error) {
      log.debug({ server: `${server.address}:${server.port}`, error: messageOf(error) }, 'server not reached');
    }
    this.#channel = undefined;
    const was = this.#welcome ? 'welcome' : 'turned-away';
    this.#welcome = false;
    for (const console of this.#consoles.values()) console.end();
    this.#consoles.clear();
    return was;
  }

  #onMessage(raw: unknown): void {
    const parsed = toAgent.safeParse(raw);
    if (!parsed.success) return this.#channel?.close('a message this version does not know');
    this.#handle(parsed.data);
  }

  #handle(message: ToAgent): void {
    const { journal, facts, log } = this.#context;
    switch (message.type) {
      case 'welcome':
        if (message.term < journal.agent.newestTerm) return this.#channel?.close('a server of an older term');
        journal.setAgent({ newestTerm: message.term, session: message.session });
        this.#welcome = true;
        log.info({ term: message.term, session: message.session }, 'welcome');
        for (const numbered of facts.unacknowledged()) this.#send({ type: 'fact', ...numbered });
        return;
      case 'rejected':
        log.error({ reason: message.reason }, 'the server turned this host away');
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
    }
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
    const meter = loadMeter();
    while (!signal.aborted) {
      try {
        const load = await meter.measure(this.#guests.running, clock.now());
        if (this.#welcome) this.#send({ type: 'report', load });
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
