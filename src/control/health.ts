/**
 * What speaks against hosts that are alive: the word of a person, which is on record, and the signs in their own reports,
 * which are not. The worse of the two counts.
 *
 * Not here: what follows (evacuation.ts, placement.ts).
 */
import type { Failing, HealthSign, HostRecord } from '../model/host.ts';
import type { HostId } from '../model/ids.ts';
import type { Clock } from '../runtime/clock.ts';

/** Signs come and go: one counts when it has lasted so long, and is over when it was away so long. */
const signLastsMs = 3_000;
const signIsOverAfterMs = 60_000;

interface Sign {
  readonly sign: HealthSign;
  readonly since: number;
  lastAt: number;
}

export class Health {
  readonly #clock: Clock;
  readonly #signs = new Map<HostId, Map<string, Sign>>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** What a host said of its own health just now. */
  onSigns(host: HostId, signs: readonly HealthSign[]): void {
    const now = this.#clock.monotonic();
    const known = this.#signs.get(host) ?? new Map<string, Sign>();
    for (const sign of signs) {
      const key = `${sign.kind} ${sign.severity}`;
      const before = known.get(key);
      known.set(key, { sign, since: before?.since ?? now, lastAt: now });
    }
    for (const [key, { lastAt }] of known) if (now - lastAt > signIsOverAfterMs) known.delete(key);
    if (known.size > 0) this.#signs.set(host, known);
    else this.#signs.delete(host);
  }

  /** Null: nothing speaks against the host. */
  sicknessOf(host: HostRecord): Failing | null {
    const now = this.#clock.monotonic();
    const lasting = [...(this.#signs.get(host.id)?.values() ?? [])].filter(
      ({ since, lastAt }) => lastAt - since >= signLastsMs && now - lastAt <= signIsOverAfterMs,
    );
    const worst = lasting.find(({ sign }) => sign.severity === 'failing') ?? lasting[0];
    if (worst === undefined || host.failing?.severity === 'failing') return host.failing;
    if (host.failing !== null && worst.sign.severity !== 'failing') return host.failing;
    const at = this.#clock.now() - (now - worst.since);
    const severity = worst.sign.severity === 'failing' ? 'failing' : 'suspect';
    return { severity, at, by: host.name, because: worst.sign.says };
  }

  forget(host: HostId): void {
    this.#signs.delete(host);
  }
}
