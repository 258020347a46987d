/**
 * What an agent has to do with leases: tells the server of its own guard's and of those it watches, takes one when told to,
 * and stands by as the guard's second. The thinking is in guard/; here it is put together.
 */
import type { GuardReport, HostInventory, LeaseSeen } from '../model/host.ts';
import type { VmSpec } from '../model/vm.ts';
import type { Clock } from '../runtime/clock.ts';
import type { Log } from '../runtime/log.ts';
import type { LeasePool } from './guard/lease.ts';
import { LeaseWatcher, type TakeAnswer, type TakeRequest } from './guard/lease-watcher.ts';
import { SecondGuardian, type SecondGuardianOptions } from './guard/second-guardian.ts';
import { reportsOf, type GuardState } from './guard/state-file.ts';

export interface Leases {
  /** Of this host's own guard. */
  guards(): GuardReport[];
  /** Of the hosts that are watched. */
  seen(): LeaseSeen[];
  /** Why a guest of this spec would be killed here; null: it would not. */
  trouble(spec: VmSpec): string | null;
  watch(hosts: readonly string[]): void;
  /** Never throws. */
  take(request: TakeRequest): Promise<TakeAnswer>;
  /** Has the guard give its leases back and take none up. @returns what it still holds after a while; null: nothing */
  rest(): Promise<string | null>;
  endRest(): void;
  /** For the inventory: pools that do not answer soon, and guards that have not begun in this boot, are missing. */
  known(): Promise<Pick<HostInventory, 'poolIds' | 'watchdog'>>;
  run(signal: AbortSignal): Promise<void>;
}

/** How the guard, another program, is told to rest. It must be gone with the host's boot. */
export interface RestMark {
  set(): void;
  clear(): void;
}

const restWithinMs = 5_000;
const restLookMs = 100;

export interface LeasesOptions {
  readonly host: string;
  readonly pools: readonly LeasePool[];
  /** Counts from the host's boot, as the guard's. */
  readonly clock: Clock;
  readonly log: Log;
  readonly guardian: Omit<SecondGuardianOptions, 'clock' | 'log'>;
  readonly restMark: RestMark;
}

export function openLeases({ host, pools, clock, log, guardian, restMark }: LeasesOptions): Leases {
  const held = () => reportsOf(guardian.read(), clock.monotonic());
  const watcher = new LeaseWatcher({ host, pools, clock, log });
  const second = new SecondGuardian({ ...guardian, clock, log });
  return {
    guards: held,
    seen: () => watcher.seen(),
    trouble: (spec) => troubleOf(guardian.read(), spec, host, clock.monotonic()),
    watch: (hosts) => watcher.watch(hosts),
    take: (request) => watcher.take(request),
    async rest() {
      restMark.set();
      const untilMs = clock.monotonic() + restWithinMs;
      while (held().length > 0 && clock.monotonic() < untilMs) await clock.sleep(restLookMs);
      const [left] = held();
      return left === undefined ? null : `that of the pool '${left.pool}'`;
    },
    endRest: () => restMark.clear(),
    known: async () => {
      const poolIds = await watcher.poolIds();
      const watchdog = guardian.read()?.watchdog;
      return { poolIds, ...(watchdog === undefined ? {} : { watchdog }) };
    },
    run: async (signal) => void (await Promise.all([watcher.run(signal), second.run(signal)])),
  };
}

/** A host without a guard, or whose guard has given its lease back, kills nobody. */
function troubleOf(state: GuardState | null, spec: VmSpec, host: string, nowMs: number): string | null {
  const used = new Set([
    ...spec.disks.map(({ pool }) => pool),
    ...(spec.boot.kind === 'kernel' ? [spec.boot.pool] : []),
  ]);
  const lost = state?.pools.find(({ name, memory }) => {
    const ranOut = memory.state === 'lost' || nowMs >= memory.renewedAtMs + memory.leaseTimeMs;
    return used.has(name) && memory.state !== 'released' && ranOut;
  });
  return lost ? `${host} has lost its lease on the pool '${lost.name}': guests that use it are killed there.` : null;
}

/** Of a host without shared pools. */
export const noLeases: Leases = {
  guards: () => [],
  seen: () => [],
  trouble: () => null,
  watch: () => {},
  take: async () => ({ result: 'failed', says: 'this host has no shared pool' }),
  rest: async () => null,
  endRest: () => {},
  known: async () => ({ poolIds: {} }),
  run: async () => {},
};
