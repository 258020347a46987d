/**
 * Is a silent host dead, and what proves it? (what is known of hosts, leases and power) -> a verdict per host. Pure.
 *
 *   silent -> lease renewed a moment ago      alive: an alarm, and nothing else
 *          -> power controller                switch off, read back off            proof power-off
 *          -> lease ran out on every pool     a witness takes it                   proof lease-taken
 *          -> neither                         wait for a person
 *   too many silent at once, or the server itself only just began to look: nothing is done
 *
 * Not here: carrying it out (recovery.ts), what follows for VMs (fence.ts), and the proofs that come by themselves: a changed
 * boot id, a person's word.
 */
import type { LeaseSeen } from '../model/host.ts';
import type { HostId } from '../model/ids.ts';
import { formatMs } from '../model/units.ts';

/** Guards renew each second: a lease seen renewed within this says that its host lives, whatever else is silent. */
export const aliveWithinMs = 2_500;
/** Beyond the lease time, for clocks that run unequally and a guard that needs a moment to kill. */
export const leaseMarginMs = 2_000;
/** Where no lease tells a dead agent from a dead host, the agent's supervisor gets this long before the host is switched off. */
export const blindAfterMs = 30_000;
/** A server that has just begun to look gives agents this long to find it. */
export const settleAfterStartMs = 10_000;
/** A host with nothing at stake that has been silent for so long was taken away: it says nothing about those of today. */
export const awayAfterMs = 600_000;
/** Between two tries of a power controller that did not read off. */
export const powerAgainAfterMs = 5_000;
/** One that has been told so often in vain does not do it: a person is told, and it is tried again all the same. */
const offTriesAlone = 2;

/** A lease of the host as another host, which reports, has seen it a moment ago. */
export interface Sighting {
  readonly witness: HostId;
  readonly witnessName: string;
  readonly lease: LeaseSeen;
}

export type PowerKnown =
  | { readonly kind: 'none' }
  /** Not asked yet since the host fell silent, or it is being asked. */
  | { readonly kind: 'unasked' }
  | { readonly kind: 'asking'; readonly before: PowerTried | null }
  /** Read after the host fell silent. */
  | { readonly kind: 'off' }
  | ({ readonly kind: 'not-off'; readonly agoMs: number } & PowerTried);

/** What came of it so far: how often it was told to switch off in vain, and what it said last. */
export interface PowerTried {
  readonly says: string;
  readonly offTries: number;
}

/** A VM that runs there, or may: what must be proven gone before it is started elsewhere. */
export interface Stake {
  readonly vmName: string;
  readonly poolIds: readonly string[];
}

export interface HostKnown {
  readonly id: HostId;
  readonly name: string;
  /** Since its last report; null while it reports. */
  readonly silentMs: number | null;
  readonly fenced: boolean;
  /** It was sent to sleep, and runs nothing: its silence means nothing. */
  readonly asleep: boolean;
  readonly bootId: string;
  readonly power: PowerKnown;
  readonly stakes: readonly Stake[];
  readonly sightings: readonly Sighting[];
  /** Pools whose lease of this boot was taken for us. */
  readonly taken: readonly string[];
  /** Witnesses that tried to take a lease of it and could not: others are asked first. */
  readonly failedWitnesses: readonly HostId[];
  /** Does a hardware watchdog cover its guard? Null: it has not said. */
  readonly watchdog: boolean | null;
}

export interface FleetKnown {
  readonly hosts: readonly HostKnown[];
  /** Since this server began to look, or last stood still. */
  readonly lookingForMs: number;
  /** Why nothing may be fenced at all; null: it may. */
  readonly held: string | null;
  /** Guards without a watchdog are trusted as well. */
  readonly trustGuard: boolean;
}

export type Verdict =
  /** It reports, or is fenced already, or sleeps, or nothing is at stake there. */
  | { readonly do: 'nothing' }
  /** `person`: this will not change by itself; what is tried again `meanwhile` has failed before. */
  | {
      readonly do: 'wait';
      readonly code: WaitCode;
      readonly because: string;
      readonly person: boolean;
      readonly meanwhile?: 'read-power' | 'switch-off';
    }
  | { readonly do: 'read-power' | 'switch-off' }
  | { readonly do: 'take-lease'; readonly witness: HostId; readonly poolId: string; readonly bootId: string }
  | { readonly do: 'fence'; readonly proof: 'power-off' | 'lease-taken'; readonly because: string };

export type WaitCode =
  | 'held'
  | 'looking'
  | 'many-silent'
  | 'alive'
  | 'power'
  | 'lease-runs'
  | 'guard-not-trusted'
  | 'no-proof';

export function verdicts(fleet: FleetKnown): ReadonlyMap<HostId, Verdict> {
  const calm = whyNothingIsFenced(fleet);
  return new Map(fleet.hosts.map((host) => [host.id, verdictOn(host, fleet.trustGuard, calm)]));
}

type Wait = Extract<Verdict, { do: 'wait' }>;

function whyNothingIsFenced({ hosts, lookingForMs, held }: FleetKnown): Wait | undefined {
  if (held !== null) return { do: 'wait', code: 'held', because: held, person: true };
  if (lookingForMs < settleAfterStartMs) {
    const because = 'the server has only just begun to look';
    return { do: 'wait', code: 'looking', because, person: false };
  }
  const isAway = ({ silentMs, stakes }: HostKnown): boolean =>
    silentMs !== null && silentMs > awayAfterMs && stakes.length === 0;
  const counted = hosts.filter((host) => !host.fenced && !host.asleep && !isAway(host));
  const silent = counted.filter(({ silentMs }) => silentMs !== null).length;
  const many = silent * 2 > counted.length || (counted.length >= 4 && silent * 2 === counted.length);
  if (!many) return undefined;
  const because =
    `${silent} of ${counted.length} hosts are silent at once: that is rather the network or this server, ` +
    'and nothing is fenced';
  return { do: 'wait', code: 'many-silent', because, person: true };
}

function verdictOn(host: HostKnown, trustGuard: boolean, calm: Wait | undefined): Verdict {
  const { silentMs, name, sightings } = host;
  if (silentMs === null || host.fenced || host.asleep || host.stakes.length === 0) return { do: 'nothing' };
  if (calm) return calm;
  const renewed = sightings.find(({ lease }) => lease.state === 'held' && lease.unchangedMs < aliveWithinMs);
  if (renewed) {
    const because = `${name} is silent but alive: ${renewed.witnessName} sees its lease renewed; its guests run on`;
    return { do: 'wait', code: 'alive', because, person: false };
  }
  const power = byPower(host, silentMs);
  if (power && power.do !== 'wait') return power;
  const lease = byLease(host, trustGuard);
  if (lease?.do === 'take-lease' && power?.meanwhile) return { do: power.meanwhile };
  if (lease && lease.do !== 'wait') return lease;
  if (!power) return lease ?? { do: 'wait', code: 'no-proof', because: noProof(host), person: true };
  if (!power.person) return power;
  if (lease?.person === false) return { ...power, ...lease };
  const because = `${power.because}; ${lease?.because ?? 'and it has no lease that another host sees'}`;
  return { ...power, ...lease, because };
}

function byPower({ power, sightings, name }: HostKnown, silentMs: number): Verdict | undefined {
  const wait = ({ says, offTries }: PowerTried): Wait => {
    const because = `the power controller of ${name} does not read off: ${says}`;
    return { do: 'wait', code: 'power', because, person: offTries >= offTriesAlone };
  };
  switch (power.kind) {
    case 'none':
      return undefined;
    case 'off':
      return { do: 'fence', proof: 'power-off', because: `the power controller of ${name} reads off` };
    case 'asking': {
      if (power.before) return wait(power.before);
      const because = `the power controller of ${name} is being asked`;
      return { do: 'wait', code: 'power', because, person: false };
    }
    case 'unasked':
    case 'not-off': {
      if (power.kind === 'not-off' && power.agoMs < powerAgainAfterMs) return wait(power);
      // With a lease that has stopped both programs of the host are gone; without one it may be no more than the agent.
      const sure = sightings.some(({ lease }) => lease.state === 'held') || silentMs >= blindAfterMs;
      const next = sure ? 'switch-off' : 'read-power';
      const waits = power.kind === 'not-off' ? wait(power) : undefined;
      return waits?.person ? { ...waits, meanwhile: next } : { do: next };
    }
  }
}

function byLease(host: HostKnown, trustGuard: boolean): Verdict | undefined {
  const { name, sightings, stakes, bootId } = host;
  const wait = (code: WaitCode, because: string, person: boolean): Verdict => ({ do: 'wait', code, because, person });
  const isTaken = (poolId: string): boolean =>
    host.taken.includes(poolId) ||
    sightings.some(({ lease }) => lease.poolId === poolId && lease.state === 'taken' && lease.bootId === bootId);
  const isHeld = (poolId: string): boolean =>
    sightings.some(({ lease }) => lease.poolId === poolId && lease.state === 'held');
  if (!sightings.some(({ lease }) => lease.state === 'held' || lease.state === 'taken') && host.taken.length === 0)
    return undefined;
  // The guard kills what uses a pool: a guest is gone when the lease of one of its pools is.
  const open = stakes.filter(({ poolIds }) => !poolIds.some(isTaken));
  if (open.length === 0) {
    const because = `the lease of ${name} ran out and was taken: its guard has ended its guests`;
    return { do: 'fence', proof: 'lease-taken', because };
  }
  const without = open.find(({ poolIds }) => !poolIds.some(isHeld));
  if (without) {
    const because = `${without.vmName} uses no pool on which ${name} keeps a lease that another host can see`;
    return wait('no-proof', because, true);
  }
  const pools = new Set(open.map(({ poolIds }) => poolIds.find(isHeld) ?? ''));
  const [poolId = ''] = pools;
  const seen = sightings
    .filter(({ lease }) => lease.poolId === poolId && lease.state === 'held')
    .toSorted((a, b) => b.lease.unchangedMs - a.lease.unchangedMs);
  // Whoever has looked longest; all the others must not have seen it renewed since either.
  const [longest] = seen;
  const ranOut = seen.every(({ lease }) => lease.unchangedMs > lease.leaseTimeMs + leaseMarginMs);
  if (longest === undefined || !ranOut) {
    const leftMs = Math.max(...seen.map(({ lease }) => lease.leaseTimeMs + leaseMarginMs - lease.unchangedMs), 0);
    return wait('lease-runs', `the lease of ${name} runs out in ${formatMs(leftMs)} unless it is renewed`, false);
  }
  if (host.watchdog !== true && !trustGuard) {
    const because =
      `the lease of ${name} ran out, but no watchdog covers its guard: if both its agent and its guard hang, ` +
      `guests may still run; a person must say that it is off (drover host fenced ${name}), or the server must trust guards`;
    return wait('guard-not-trusted', because, true);
  }
  const { witness, lease } = seen.find((each) => !host.failedWitnesses.includes(each.witness)) ?? longest;
  return { do: 'take-lease', witness, poolId, bootId: lease.bootId };
}

function noProof({ name, power }: HostKnown): string {
  const controller = power.kind === 'none' ? 'no power controller' : 'a power controller that does not answer';
  return `nothing can prove that ${name} is off: it has ${controller} and no lease that another host sees`;
}
