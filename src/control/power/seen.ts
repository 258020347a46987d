/** Which power controllers can be read, looked at for `drover doctor`: soon enough for a person, and not more often than a BMC likes. */
import { isDeepStrictEqual } from 'node:util';
import type { HostRecord, PowerSpec } from '../../model/host.ts';
import type { HostId } from '../../model/ids.ts';
import type { Clock } from '../../runtime/clock.ts';
import { DeadlineExceeded, withDeadline } from '../../runtime/retry.ts';
import type { Finding } from '../../wire/endpoints.ts';
import { powerSays } from './open.ts';
import type { OpenPower, PowerReading } from './power.ts';

/** A reading is shown again for this long. */
const freshMs = 30_000;
/** Longer than one reading may take, all together. */
const lookMs = 6_000;
/** Controllers that are asked at the same time. */
const atOnce = 32;

interface Seen {
  readonly spec: PowerSpec;
  readonly at: number;
  readonly reading: PowerReading;
}

export class PowerSeen {
  readonly #open: OpenPower;
  readonly #clock: Clock;
  readonly #seen = new Map<HostId, Seen>();

  constructor(open: OpenPower, clock: Clock) {
    this.#open = open;
    this.#clock = clock;
  }

  /** One finding per host that has a controller. */
  async findings(hosts: readonly HostRecord[], signal: AbortSignal): Promise<Finding[]> {
    for (const id of this.#seen.keys()) if (!hosts.some((host) => host.id === id)) this.#seen.delete(id);
    const configured = hosts.flatMap(({ id, name, power }) => (power === null ? [] : [{ id, name, spec: power }]));
    const due = configured.filter(({ id, spec }) => !this.#isFresh(id, spec));
    const waiting = due.values();
    const look = async (inner: AbortSignal): Promise<void> => {
      for (const { id, spec } of waiting) {
        const reading = await this.#open(spec).read(inner);
        this.#seen.set(id, { spec, at: this.#clock.monotonic(), reading });
      }
    };
    const all = (inner: AbortSignal) => Promise.all(Array.from({ length: atOnce }, () => look(inner)));
    await withDeadline(all, { ms: lookMs, what: 'reading the power', clock: this.#clock, signal }).catch(
      (error: unknown) => {
        if (!(error instanceof DeadlineExceeded)) throw error; // those that were read are shown
      },
    );
    return configured.map(({ id, name, spec }) => {
      const seen = this.#seen.get(id);
      const reading: PowerReading =
        seen && isDeepStrictEqual(seen.spec, spec) ? seen.reading : { state: 'unknown', says: 'not read in time' };
      return findingOf(name, spec, reading);
    });
  }

  #isFresh(id: HostId, spec: PowerSpec): boolean {
    const seen = this.#seen.get(id);
    return seen !== undefined && isDeepStrictEqual(seen.spec, spec) && this.#clock.monotonic() - seen.at < freshMs;
  }
}

function findingOf(host: string, spec: PowerSpec, reading: PowerReading): Finding {
  const about = `host ${host}: power controller`;
  if (reading.state !== 'unknown') {
    return { severity: 'ok', about, says: `${powerSays(spec)} reads ${reading.state}`, mend: null };
  }
  return {
    severity: 'warning',
    about,
    says: `${powerSays(spec)} cannot be read: ${reading.says}`,
    mend: `Mend it (drover host power ${host} reads it again): ${host} cannot be switched off from here if it goes silent.`,
  };
}
