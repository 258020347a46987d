/**
 * What every program's metrics have in common: the registry with what is known of the process itself, and gauges that are read
 * when somebody asks. Not here: what server and agent have to say of themselves (control/metrics/, agent/metrics.ts).
 */
import { collectDefaultMetrics, Gauge, Registry } from 'prom-client';

export interface Reading<L extends string = string> {
  readonly labels: Readonly<Record<L, string>>;
  readonly value: number;
}

/** Process, event loop and garbage collection, as all programs on Node say them. */
export function processRegistry(version: string): Registry {
  const registry = new Registry();
  collectDefaultMetrics({ register: registry });
  const build = {
    name: 'drover_build_info',
    help: 'Always 1; the version that runs.',
    labelNames: ['version'] as const,
  };
  new Gauge({ ...build, registers: [registry] }).set({ version }, 1);
  return registry;
}

export interface GaugeOptions<L extends string> {
  readonly registry: Registry;
  readonly name: string;
  readonly help: string;
  readonly labels: readonly L[];
}

/** @param read asked at each scrape; what it does not name any more is gone */
export function readGauge<L extends string>(
  { registry, name, help, labels }: GaugeOptions<L>,
  read: () => Iterable<Reading<L>>,
): void {
  new Gauge<L>({
    name,
    help,
    labelNames: [...labels],
    registers: [registry],
    collect() {
      this.reset();
      for (const { labels: of, value } of read()) this.set(of, value);
    },
  });
}

/** A gauge without labels; null: nothing is said. */
export function readNumber(registry: Registry, name: string, help: string, read: () => number | null): void {
  new Gauge({
    name,
    help,
    registers: [registry],
    collect() {
      const value = read();
      if (value === null) this.remove();
      else this.set(value);
    },
  });
}

/** How many of each kind, with those that nobody is of. */
export function countsOf<K extends string>(kinds: readonly K[], of: Iterable<K>): ReadonlyMap<K, number> {
  const counts = new Map<K, number>(kinds.map((kind) => [kind, 0]));
  for (const kind of of) counts.set(kind, (counts.get(kind) ?? 0) + 1);
  return counts;
}
