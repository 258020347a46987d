/**
 * The metrics of a server. Some are the process's and are there whether it leads or not; the rest is the fleet's, begins with a
 * term and ends with it, so that of several servers only the one that leads speaks of the fleet.
 *
 *     process (version, Node, store, leading?, term)  +  fleet of this term (gauges read at the scrape, counters, API)
 */
import { Counter, Gauge, Histogram, Registry } from 'prom-client';
import { processRegistry, readNumber } from '../../runtime/metrics.ts';
import type { ControlPlane } from '../plane.ts';
import { fleetCounters } from './fleet-counters.ts';
import { fleetGauges } from './fleet-gauges.ts';

/** Where Prometheus looks when nobody tells it otherwise. */
export const metricsPath = '/metrics';
export const metricsType = Registry.PROMETHEUS_CONTENT_TYPE;

/** What the API tells of itself, and what it answers at /metrics. */
export interface ApiMetrics {
  /** @param operation name of a row of the endpoint table */
  request(operation: string, status: number, seconds: number): void;
  /** A reader of events came (1) or went (-1). */
  readers(change: 1 | -1): void;
  text(): Promise<string>;
}

export class ServerMetrics {
  /** Of the process: for what is not of one term. */
  readonly registry: Registry;
  readonly #perVm: number;
  readonly #terms: Counter;
  #term: number | null = null;

  /** @param perVm how many VMs get series of their own; 0: none */
  constructor(version: string, perVm: number) {
    this.registry = processRegistry(version);
    this.#perVm = perVm;
    readNumber(this.registry, 'drover_server_leader', '1 on the server that leads.', () =>
      this.#term === null ? 0 : 1,
    );
    readNumber(
      this.registry,
      'drover_server_term',
      'Its term, while it leads; rises with each change of the lead.',
      () => {
        return this.#term;
      },
    );
    this.#terms = new Counter({
      name: 'drover_server_terms_total',
      help: 'Terms that this server began.',
      registers: [this.registry],
    });
  }

  /** A term begins. @returns what its API needs; `ends` when the term is over */
  leads(plane: ControlPlane): ApiMetrics & { readonly registry: Registry; ends(): void } {
    const registry = new Registry();
    fleetGauges(registry, plane, this.#perVm);
    plane.fleet.onCommit(fleetCounters(registry));
    const seconds = new Histogram({
      name: 'drover_api_request_duration_seconds',
      help: 'How long the API took, by operation and HTTP status. Streams and consoles, which last, are left out.',
      labelNames: ['operation', 'status'],
      buckets: [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10],
      registers: [registry],
    });
    const readers = new Gauge({
      name: 'drover_api_event_subscribers',
      help: 'Readers of the event stream.',
      registers: [registry],
    });
    this.#term = plane.fleet.term;
    this.#terms.inc();
    return {
      registry,
      request: (operation, status, took) => seconds.observe({ operation, status: String(status) }, took),
      readers: (change) => readers.inc(change),
      text: async () => `${await this.text()}\n${await registry.metrics()}`,
      ends: () => (this.#term = null),
    };
  }

  /** Without a fleet: of a server that follows. */
  async text(): Promise<string> {
    return this.registry.metrics();
  }
}
