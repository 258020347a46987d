/**
 * The metrics of an agent, and the small door by which they are read: one port that answers GET /metrics and nothing else. What
 * is said there is no secret and changes nothing, but it is for the network of those who watch the fleet: no port is opened
 * unless somebody names one.
 */
import { createServer } from 'node:http';
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Registry } from 'prom-client';
import { UserError, messageOf } from '../model/failure.ts';
import type { Endpoint, HostInventory, HostLoad } from '../model/host.ts';
import { processRegistry, readGauge, readNumber } from '../runtime/metrics.ts';
import type { Agent } from './agent.ts';
import type { Facts } from './facts.ts';
import type { Journal, Part } from './journal.ts';
import type { Leases } from './leases.ts';

const mib = 1024 * 1024;
const headersMs = 5_000;
/** A move's part, by the way its memory goes. */
const directions: Partial<Record<Part['kind'], 'in' | 'out'>> = { sending: 'out', receiving: 'in', continuing: 'in' };

export interface AgentSeen {
  readonly agent: Pick<Agent, 'guests' | 'isWelcome' | 'measuring'>;
  readonly hostName: string;
  readonly version: string;
  readonly inventory: Pick<HostInventory, 'accel' | 'qemuVersion'>;
  readonly journal: Pick<Journal, 'vms'>;
  readonly facts: Pick<Facts, 'unacknowledged'>;
  readonly leases: Pick<Leases, 'guards'>;
  /** What it measured last; null: nothing yet. */
  readonly load: () => HostLoad | null;
}

/** Every series carries the host's name: who reads them need not know which address is which host. */
export function agentMetrics(seen: AgentSeen): Registry {
  const { agent, hostName, version, inventory, journal, facts, leases, load } = seen;
  const registry = processRegistry(version);
  registry.setDefaultLabels({ host: hostName });
  const number = (name: string, help: string, read: () => number | null): void =>
    readNumber(registry, name, help, read);
  const gauge = <L extends string>(name: string, help: string, labels: readonly L[]) => ({
    registry,
    name,
    help,
    labels,
  });

  readGauge(gauge('drover_agent_info', 'Always 1; what drives the guests here.', ['accel', 'qemu_version']), () => [
    { labels: { accel: inventory.accel, qemu_version: inventory.qemuVersion }, value: 1 },
  ]);
  number('drover_agent_server_connected', '1 while a server that leads takes its reports.', () =>
    agent.isWelcome() ? 1 : 0,
  );
  number('drover_agent_facts_waiting', 'What the server has not acknowledged yet.', () => {
    return facts.unacknowledged().length;
  });
  number('drover_agent_guests', 'Guests that run here.', () => agent.guests.running.size);
  readGauge(
    gauge('drover_agent_migration_streams', 'Live migrations that this host sends (out) or receives (in).', [
      'direction',
    ]),
    () => {
      const parts = journal.vms().map(({ part }) => directions[part.kind]);
      return (['in', 'out'] as const).map((direction) => ({
        labels: { direction },
        value: parts.filter((each) => each === direction).length,
      }));
    },
  );
  number('drover_agent_measuring', 'Guests whose memory is being looked at for a forecast.', () => agent.measuring());
  readGauge(gauge('drover_agent_lease_age_seconds', "Since this host's lease on a pool was renewed.", ['pool']), () =>
    leases
      .guards()
      .map(({ pool, leaseTimeMs, leftMs }) => ({ labels: { pool }, value: (leaseTimeMs - leftMs) / 1000 })),
  );
  readGauge(
    gauge('drover_agent_lease_left_seconds', 'Until its guests on the pool are killed, unless the lease is renewed.', [
      'pool',
    ]),
    () => leases.guards().map(({ pool, leftMs }) => ({ labels: { pool }, value: leftMs / 1000 })),
  );

  number('drover_agent_cpu_used_ratio', "Share of the host's cores in use.", () => load()?.cpu ?? null);
  number('drover_agent_memory_used_bytes', 'Memory of the host in use.', () => times(load()?.memoryUsedMiB, mib));
  number('drover_agent_memory_total_bytes', 'Memory of the host.', () => times(load()?.memoryTotalMiB, mib));
  readGauge(
    gauge(
      'drover_agent_pressure_ratio',
      'Share of the last ten seconds in which some task waited (PSI); absent where the kernel has none.',
      ['resource'],
    ),
    () => Object.entries(load()?.pressure ?? {}).map(([resource, value]) => ({ labels: { resource }, value })),
  );
  number('drover_agent_power_watts', 'Of processors and memory, where they have meters.', () => {
    return load()?.raplWatts ?? null;
  });
  return registry;
}

/**
 * Answers until it is closed.
 * @param metrics null: it is not known yet what there is to say
 * @returns how to close it, and the port
 * @throws UserError invalid-input when the port cannot be had
 */
export async function listenForMetrics(
  { address, port }: Endpoint,
  metrics: () => Pick<Registry, 'metrics' | 'contentType'> | null,
): Promise<{ readonly port: number; close(): void }> {
  const answer = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    const say = (status: number, text: string, type = 'text/plain') =>
      void response.writeHead(status, { 'content-type': type }).end(text);
    if (request.method !== 'GET' || request.url?.split('?')[0] !== '/metrics')
      return say(404, 'There is only GET /metrics here.\n');
    const found = metrics();
    if (found === null) return say(503, 'The agent begins just now.\n');
    try {
      say(200, await found.metrics(), found.contentType);
    } catch (error) {
      say(500, `${messageOf(error)}\n`);
    }
  };
  const server = createServer({ headersTimeout: headersMs, requestTimeout: headersMs }, (request, response) => {
    response.on('error', () => {}); // who asked is gone
    void answer(request, response);
  });
  try {
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.listen(port, address, resolve);
    });
  } catch (cause) {
    throw new UserError(
      'invalid-input',
      `Metrics cannot be served at ${address}:${port}: ${messageOf(cause)}.`,
      'Give another address with --metrics-listen.',
      { cause },
    );
  }
  const bound = server.address();
  return {
    port: typeof bound === 'object' && bound ? bound.port : port,
    close() {
      server.close();
      server.closeAllConnections();
    },
  };
}

function times(value: number | undefined, factor: number): number | null {
  return value === undefined ? null : value * factor;
}
