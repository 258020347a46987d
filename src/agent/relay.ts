/**
 * A way to the server for an agent whose own is cut: a peer opens a channel to the server and hands every message on,
 * both ways, unread. To the server it is an ordinary agent that dials from another address.
 */
import type { Endpoint } from '../model/host.ts';
import { messageOf } from '../model/failure.ts';
import type { Channel } from '../runtime/channel.ts';
import type { AgentContext } from './context.ts';

const dialTimeoutMs = 1500;
const relaysAtOnce = 32;
/** Messages kept while the way to the server is being opened: a hello, and little else. */
const waitingLimit = 1000;

export class Relay {
  readonly #context: AgentContext;
  readonly #servers: readonly Endpoint[];
  #open = 0;
  /** Which server is dialled first: another each time, because the one that answers is perhaps not the one that leads. */
  #first = 0;

  constructor(context: AgentContext, servers: readonly Endpoint[]) {
    this.#context = context;
    this.#servers = servers;
  }

  /** From now on this channel of a peer is one to the server; closed when there is no way or when either end closes. */
  async carry(channel: Channel): Promise<void> {
    if (this.#open >= relaysAtOnce) return channel.close(`${relaysAtOnce} channels are handed on already`);
    const waiting: unknown[] = [];
    channel.onMessage((message) => {
      waiting.push(message);
      if (waiting.length > waitingLimit) channel.close('too much was said before there was a way');
    });
    this.#open++;
    try {
      const server = await this.#dial();
      if (server === undefined) return channel.close('no way to the server from here either');
      if (!channel.isOpen) return server.close('nobody to hand on for');
      this.#context.log.info({ peer: channel.remote }, 'handing on to the server for a peer');
      for (const message of waiting.splice(0)) server.send(message);
      channel.onMessage((message) => {
        if (!server.send(message)) server.close('the server does not read');
      });
      server.onMessage((message) => {
        if (!channel.send(message)) channel.close('the peer does not read');
      });
      const reason = await Promise.race([channel.closed, server.closed]);
      server.close(reason);
      channel.close(reason);
    } finally {
      this.#open--;
    }
  }

  async #dial(): Promise<Channel | undefined> {
    const first = this.#first++ % Math.max(1, this.#servers.length);
    for (const server of [...this.#servers.slice(first), ...this.#servers.slice(0, first)]) {
      try {
        return await this.#context.dial(server, { timeoutMs: dialTimeoutMs });
      } catch (error) {
        this.#context.log.debug({ server: server.address, error: messageOf(error) }, 'no way for a peer');
      }
    }
    return undefined;
  }
}
