/**
 * Which hosts report, what they reported last, and how far their clocks are from ours. In memory only: after a restart of the
 * server every host counts as heard of at that moment.
 *
 * Silent is not dead: nothing is placed on a silent host, and that is all that follows from it. What proves it dead: fencing.ts.
 */
import type { HostLoad } from '../model/host.ts';
import type { HostId } from '../model/ids.ts';
import type { Clock } from '../runtime/clock.ts';

export const suspectAfterMs = 3_000;

/** Reports looked at for the clock's offset: the one that travelled fastest says most. */
const offsetWindow = 60;
/** Below this a difference says more about the way of the report than about the clocks. */
const offsetNoiseMs = 20;

interface Heard {
  /** Monotonic. */
  at: number;
  /** Wall clock, for showing. */
  wallAt: number | null;
  load: HostLoad | null;
  offsets: number[];
  announcedSilent: boolean;
}

export class Liveness {
  readonly #clock: Clock;
  readonly #startedAt: number;
  readonly #hosts = new Map<HostId, Heard>();

  constructor(clock: Clock) {
    this.#clock = clock;
    this.#startedAt = clock.monotonic();
  }

  /** A sign of life with the host's own time. */
  heard(host: HostId, hostTime: number, load: HostLoad | null): void {
    const now = this.#clock.now();
    const known = this.#of(host);
    known.at = this.#clock.monotonic();
    known.wallAt = now;
    known.load = load ?? known.load;
    known.offsets.push(hostTime - now);
    if (known.offsets.length > offsetWindow) known.offsets.shift();
  }

  isSilent(host: HostId): boolean {
    return this.silentMs(host) > suspectAfterMs;
  }

  /** Since the last sign of life. */
  silentMs(host: HostId): number {
    return this.#clock.monotonic() - this.#of(host).at;
  }

  /** When that was, by the monotonic clock. */
  heardAt(host: HostId): number {
    return this.#of(host).at;
  }

  lastReportAt(host: HostId): number | null {
    return this.#hosts.get(host)?.wallAt ?? null;
  }

  loadOf(host: HostId): HostLoad | null {
    return this.#hosts.get(host)?.load ?? null;
  }

  /** What to add to our time to get the host's. A report is never received before it was sent, so the largest is nearest. */
  offsetMs(host: HostId): number {
    const offset = Math.max(...(this.#hosts.get(host)?.offsets ?? []));
    return Number.isFinite(offset) && Math.abs(offset) >= offsetNoiseMs ? offset : 0;
  }

  /** Hosts whose state changed since the last call. */
  changes(hosts: Iterable<HostId>): { readonly host: HostId; readonly silent: boolean }[] {
    const changed: { host: HostId; silent: boolean }[] = [];
    for (const host of hosts) {
      const known = this.#of(host);
      const silent = this.isSilent(host);
      if (silent === known.announcedSilent) continue;
      known.announcedSilent = silent;
      changed.push({ host, silent });
    }
    return changed;
  }

  /** We stood still for a while ourselves: that is nobody's silence. */
  excuse(ms: number): void {
    for (const known of this.#hosts.values()) known.at += ms;
  }

  forget(host: HostId): void {
    this.#hosts.delete(host);
  }

  #of(host: HostId): Heard {
    let known = this.#hosts.get(host);
    if (known === undefined) {
      known = { at: this.#startedAt, wallAt: null, load: null, offsets: [], announcedSilent: false };
      this.#hosts.set(host, known);
    }
    return known;
  }
}
