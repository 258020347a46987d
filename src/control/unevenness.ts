/**
 * Which hosts stand out, and since when: by smoothed load, beyond a band around the fleet's mean, until they are well within it
 * again. One sample, or a host at the band's edge, begins nothing.
 *
 * Not here: what is done about it (distributor.ts).
 */
import type { BalanceLevel } from '../model/distribution.ts';
import type { FleetSnapshot } from '../model/fleet-snapshot.ts';

/** Distance from the mean, as a share of the host, at which it stands out. */
const bandOf: Readonly<Record<BalanceLevel, number>> = { 1: 0.3, 2: 0.25, 3: 0.2, 4: 0.15, 5: 0.1 };
/** It stands out no more within this part of the band. */
const innerPart = 0.75;
/** Shares of time in which tasks waited, above the mean of the others. */
const pressureBand = { CPU: 0.25, memory: 0.1 } as const;

export interface Pressure {
  readonly cpu: number;
  readonly memory: number;
}

export interface StandsOut {
  /** What it is about: a host and a resource, a group, or hosts that should be awake or asleep. */
  readonly key: string;
  readonly about: 'load' | 'rule' | 'power';
  readonly says: string;
  /** Monotonic. */
  readonly since: number;
}

export interface Reading {
  readonly key: string;
  readonly about: StandsOut['about'];
  /** 1: at the edge of its band. */
  readonly distance: number;
  readonly says: string;
}

export class Unevenness {
  readonly #since = new Map<string, StandsOut>();

  /** @param now monotonic */
  look(readings: readonly Reading[], now: number): readonly StandsOut[] {
    const seen = new Set<string>();
    for (const { key, about, distance, says } of readings) {
      const known = this.#since.get(key);
      if (distance < (known === undefined ? 1 : innerPart)) continue;
      seen.add(key);
      this.#since.set(key, { key, about, says, since: known?.since ?? now });
    }
    for (const key of this.#since.keys()) if (!seen.has(key)) this.#since.delete(key);
    return this.current();
  }

  /** The one that has stood out longest first. */
  current(): readonly StandsOut[] {
    return [...this.#since.values()].toSorted((a, b) => a.since - b.since || (a.key < b.key ? -1 : 1));
  }
}

interface Shares {
  readonly host: string;
  readonly CPU: number;
  readonly memory: number;
}

function sharesOf(snapshot: FleetSnapshot): Shares[] {
  const hosts = snapshot.hosts.filter(({ state }) => state === 'up' || state === 'cordoned');
  const carried = new Map(hosts.map(({ name }) => [name, { cores: 0, memoryMiB: 0 }]));
  for (const vm of snapshot.vms) {
    const sum = vm.running ? carried.get(vm.host) : undefined;
    if (sum === undefined) continue;
    sum.cores += vm.load.cpuCores;
    sum.memoryMiB += vm.memoryMiB;
  }
  return hosts.map((host) => {
    const { cores, memoryMiB } = carried.get(host.name)!;
    return {
      host: host.name,
      CPU: cores / Math.max(1e-9, host.cpus * host.cpuSpeed),
      memory: memoryMiB / Math.max(1, host.memoryMiB - host.reservedMiB),
    };
  });
}

/** What matters where hosts shall be as few as possible: those above their limit, and rules. They are uneven on purpose. */
export function crowdedReadings(snapshot: FleetSnapshot): Reading[] {
  const { cpuLimit } = snapshot.settings;
  const crowded = sharesOf(snapshot).map(({ host, CPU }): Reading => {
    const says = `${host} uses ${percent(CPU)} of its CPU, ${percent(cpuLimit)} is the limit`;
    return { key: `${host} CPU`, about: 'load', distance: CPU / cpuLimit, says };
  });
  return [...brokenGroups(snapshot), ...crowded];
}

/** @param pressures of hosts that have said so, by name */
export function unevenReadings(
  snapshot: FleetSnapshot,
  level: BalanceLevel,
  pressures: ReadonlyMap<string, Pressure>,
): Reading[] {
  const shares = sharesOf(snapshot);
  const readings: Reading[] = brokenGroups(snapshot);
  for (const what of ['CPU', 'memory'] as const) {
    const mean = meanOf(shares.map((share) => share[what]));
    for (const share of shares) {
      const distance = Math.abs(share[what] - mean) / bandOf[level];
      const over = what === 'CPU' ? share.CPU / snapshot.settings.cpuLimit : 0;
      readings.push({
        key: `${share.host} ${what}`,
        about: 'load',
        distance: Math.max(distance, over),
        says: `${share.host} uses ${percent(share[what])} of its ${what}, the mean is ${percent(mean)}`,
      });
    }
    const waits = [...pressures].map(([host, pressure]) => ({
      host,
      share: what === 'CPU' ? pressure.cpu : pressure.memory,
    }));
    const all = waits.reduce((sum, { share }) => sum + share, 0);
    for (const { host, share } of waits) {
      const others = (all - share) / Math.max(1, waits.length - 1);
      readings.push({
        key: `${host} ${what} pressure`,
        about: 'load',
        distance: (share - others) / pressureBand[what],
        says: `tasks on ${host} wait for ${what} ${percent(share)} of the time, elsewhere ${percent(others)}`,
      });
    }
  }
  return readings;
}

/** Rules that do not hold as the VMs are now. */
function brokenGroups({ vms }: FleetSnapshot): Reading[] {
  const readings: Reading[] = [];
  const firstApart = new Map<string, string>();
  const firstTogether = new Map<string, { vm: string; host: string }>();
  for (const vm of vms) {
    if (!vm.running) continue;
    for (const group of vm.apart) {
      const place = `${group} on ${vm.host}`;
      const other = firstApart.get(place);
      if (other === undefined) firstApart.set(place, vm.name);
      else {
        const says = `${other} and ${vm.name} are to be kept apart and share ${vm.host}`;
        readings.push({ key: `apart ${place}`, about: 'rule', distance: 1, says });
      }
    }
    for (const group of vm.together) {
      const other = firstTogether.get(group);
      if (other === undefined) firstTogether.set(group, { vm: vm.name, host: vm.host });
      else if (other.host !== vm.host) {
        const says = `${other.vm} and ${vm.name} are to stay together and are on ${other.host} and ${vm.host}`;
        readings.push({ key: `together ${group}`, about: 'rule', distance: 1, says });
      }
    }
    if (vm.pinnedTo !== null && !vm.pinnedTo.includes(vm.host)) {
      const says = `${vm.name} is pinned to ${vm.pinnedTo.join(', ') || 'no host'} and is on ${vm.host}`;
      readings.push({ key: `pin ${vm.name}`, about: 'rule', distance: 1, says });
    }
  }
  return readings;
}

function meanOf(values: readonly number[]): number {
  return values.length === 0 ? 0 : values.reduce((sum, value) => sum + value, 0) / values.length;
}

function percent(share: number): string {
  return `${Math.round(100 * share)} %`;
}
