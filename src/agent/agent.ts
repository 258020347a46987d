/**
 * One agent, put together from its parts: adopts what runs, listens for peers, takes up what was going on, then stays
 * connected to the server. It knows nothing of sockets, files and QEMU: what it runs on are arguments, so that host, lab and
 * simulator run the same agent.
 *
 * Not here: options and files (main.ts).
 */
import type { Endpoint, HealthSign, HostInventory } from '../model/host.ts';
import type { Channel, Listener } from '../runtime/channel.ts';
import type { AgentContext } from './context.ts';
import { Guests } from './guests.ts';
import { answerPeer } from './handover.ts';
import type { Leases } from './leases.ts';
import type { LoadMeter } from './load.ts';
import { Orders } from './orders.ts';
import { Relay } from './relay.ts';
import { Sleeper, type SleepMeans } from './sleeper.ts';
import { Tasks } from './tasks.ts';
import { Uplink } from './uplink.ts';

export interface AgentParts extends Omit<AgentContext, 'sample' | 'leaseTrouble'> {
  readonly servers: readonly Endpoint[];
  readonly version: string;
  readonly inventory: () => Promise<HostInventory>;
  readonly meter: LoadMeter;
  readonly leases: Leases;
  readonly health?: () => Promise<HealthSign[]>;
  /** How this machine sleeps. Absent: it does not. */
  readonly sleep?: SleepMeans;
  /** Lets agents of other hosts in. */
  readonly listen: (onChannel: (channel: Channel) => void) => Promise<Listener>;
}

export interface Agent {
  readonly guests: Guests;
  /** A server that leads takes its reports. */
  isWelcome(): boolean;
  /** Guests whose memory is being looked at. */
  measuring(): number;
  /** Stays connected until the signal. Guests, and transfers between them, go on without it. */
  run(signal: AbortSignal): Promise<void>;
}

/** Resolves when peers can reach it, whether or not a server can be reached. */
export async function startAgent(parts: AgentParts): Promise<Agent> {
  const { servers, version, inventory, meter, leases, health, sleep, listen, ...shared } = parts;
  const holder: { uplink?: Uplink } = {};
  const context: AgentContext = {
    ...shared,
    leaseTrouble: (spec) => leases.trouble(spec),
    sample: (sample) => holder.uplink?.sample(sample),
  };
  const guests = new Guests(context);
  const sleeper = sleep && new Sleeper(context, guests, leases, sleep);
  const tasks = new Tasks(context, guests);
  const orders = new Orders(context, guests, tasks, () => sleeper?.bar() ?? null);
  // This host is awake: what an agent before this one had prepared is over.
  leases.endRest();
  await guests.adopt();
  const relay = new Relay(context, servers);
  const listener = await listen((channel) => answerPeer(context, channel, orders, (one) => void relay.carry(one)));
  orders.resume();
  const uplink = new Uplink(context, guests, orders, {
    servers,
    version,
    inventory: async () => ({ ...(await inventory()), ...(sleep && { sleep: sleep.ability }) }),
    meter,
    leases,
    tasks,
    ...(health ? { health } : {}),
    ...(sleeper ? { sleeper } : {}),
  });
  holder.uplink = uplink;
  return {
    guests,
    isWelcome: () => uplink.isWelcome,
    measuring: () => uplink.measuring,
    async run(signal) {
      // Its guardian's work does not wait for a server.
      void leases.run(signal);
      void tasks.run(signal);
      await uplink.run(signal);
      await listener.close();
    },
  };
}
