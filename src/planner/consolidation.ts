/**
 * Fewer hosts for the same VMs, asked anew in each interval: which VMs move, which hosts may sleep then, which must wake.
 * Pure: the caller measures, moves, switches and remembers; the same question has the same answer. How load is foreseen
 * is in consolidation-forecast.ts, how plans are put together in consolidation-draft.ts. Rules other than CPU and memory
 * are the caller's (`mayRun`).
 *
 * Loops run over indices that are made here, which the compiler cannot see: hence `!`.
 */
import { ConsolidationDraft, priceOf } from './consolidation-draft.ts';
import type { ForecastVm } from './consolidation-forecast.ts';

export interface ConsolidationHost {
  /** CPU that it can give, in any unit that hosts and VMs share. */
  readonly capacity: number;
  /** Memory for VMs. */
  readonly memoryMiB: number;
  /** Watts at 0, …, 100 % of its CPU, in even steps, linear between. */
  readonly watts: readonly number[];
  /**
   * `asleep`: empty and off, and can be woken. `closed`: takes no VM and is not emptied, because it is cordoned, drained
   * by somebody else, unwell, or asleep without a proven way to wake it.
   */
  readonly state: 'on' | 'asleep' | 'closed';
  /** Without VMs it `sleeps`, or `stays-on`; those that sleep are emptied first. `kept`: it is never emptied. Absent: it sleeps. */
  readonly empty?: 'sleeps' | 'stays-on' | 'kept';
}

export interface ConsolidationVm extends ForecastVm {
  /** Index of its host. */
  readonly host: number;
  readonly memoryMiB: number;
  /** Intervals since it last moved; Infinity: never. */
  readonly movedAgo: number;
  /** Pinned, or on the move already: its host is not emptied. */
  readonly stays?: boolean;
}

export interface ConsolidationFleet {
  readonly hosts: readonly ConsolidationHost[];
  readonly vms: readonly ConsolidationVm[];
  /** May this VM be on that host, when each other VM is where `hostOf` says? Absent: always. CPU and memory are counted here. */
  readonly mayRun?: (vm: number, host: number, hostOf: (vm: number) => number) => boolean;
  /** Told of each VM that is planned to be elsewhere, also when it is put back: for rules that keep sums of their own. */
  readonly carried?: (vm: number, host: number) => void;
  /** May this host, now empty, be done without? Asked once all its VMs are carried away; a yes is final. Absent: always. */
  readonly mayRest?: (host: number) => boolean;
  /** Told of each host that is on and is not given up. */
  readonly kept?: (host: number, why: WhyKept) => void;
}

/**
 * `needed`: without it too little room would be left. `held`: a VM there stays, or moved lately. `not-worth`: the moves cost more
 * than is saved. `no-place`: its VMs do not all fit on the others. `taken`: it takes VMs of others.
 */
export type WhyKept = 'needed' | 'held' | 'not-worth' | 'no-place' | 'taken';

export interface ConsolidationSettings {
  /** Samples that are looked at. Over shorter times noise is taken for load, over longer ones what has changed is missed. */
  readonly window: number;
  /**
   * How sure it must be that load stays below capacity, in standard deviations. A host is filled, and relieved, to where it
   * is overloaded 4 % of the time (1.75); it is relieved only when that would be more than 10 % (1.28), and a host is
   * woken for it at 15 % (1.04): it takes longer and costs more. What lies between is what load may change without any move.
   */
  readonly fillDeviations: number;
  readonly relieveDeviations: number;
  readonly wakeDeviations: number;
  /** Intervals before a VM that moved moves again to empty a host, and before it moves again because of overload. */
  readonly dwell: number;
  readonly reliefDwell: number;
  /** An emptied host must save what its moves cost within this time. */
  readonly payBackSeconds: number;
  /**
   * Cost of a move. By its memory: some 10 % of two hosts' 120 W for the 10 ms that a MiB takes on 1 Gbit/s, and as much
   * again for pages that are sent twice. The fixed part is no energy but the price of disturbing a guest: it forgoes two
   * minutes of an idle host's power.
   */
  readonly joulesPerMiB: number;
  readonly joulesPerMove: number;
  /** Room that hosts which are on keep together, so that lost hosts can be made up for without waiting for a wake. */
  readonly spareCapacity: number;
  readonly spareMemoryMiB: number;
  /** In one plan. */
  readonly maxMoves: number;
}

export const consolidationDefaults: ConsolidationSettings = {
  window: 24,
  fillDeviations: 1.75,
  relieveDeviations: 1.28,
  wakeDeviations: 1.04,
  dwell: 6,
  reliefDwell: 2,
  payBackSeconds: 3600,
  joulesPerMiB: 0.5,
  joulesPerMove: 10_000,
  spareCapacity: 0,
  spareMemoryMiB: 0,
  maxMoves: Infinity,
};

export interface ConsolidationMove {
  readonly vm: number;
  readonly source: number;
  readonly target: number;
  readonly reason:
    | {
        readonly kind: 'overload';
        /** Expected load of the source before, and what it stays below 95 % of the time, as shares of its capacity. */
        readonly load: number;
        readonly peak: number;
      }
    | {
        readonly kind: 'empties-host';
        /** By all the moves that empty this host, once it sleeps. */
        readonly wattsSaved: number;
        readonly joulesSpent: number;
      };
}

export interface ConsolidationPlan {
  /** In the order of execution; after each of them the target has room for what it then has. */
  readonly moves: readonly ConsolidationMove[];
  /** Hosts without VMs after the moves. */
  readonly sleep: readonly number[];
  /** Hosts that moves need, to be awake before. */
  readonly wake: readonly number[];
}

/** Hosts that are looked at together; the work grows with their square. A group wastes half a host at most. */
const largestGroup = 1024;

export function planConsolidation(
  fleet: ConsolidationFleet,
  settings: ConsolidationSettings = consolidationDefaults,
): ConsolidationPlan {
  const groups = Math.ceil(fleet.hosts.length / largestGroup);
  if (groups <= 1) return planGroup(fleet, settings);
  const moves: ConsolidationMove[] = [];
  const sleep: number[] = [];
  const wake: number[] = [];
  for (const { group, hosts, vms } of split(fleet, groups)) {
    const plan = planGroup(group, {
      ...settings,
      spareCapacity: settings.spareCapacity / groups,
      spareMemoryMiB: settings.spareMemoryMiB / groups,
      maxMoves: settings.maxMoves - moves.length,
    });
    for (const { vm, source, target, reason } of plan.moves) {
      moves.push({ vm: vms[vm]!, source: hosts[source]!, target: hosts[target]!, reason });
    }
    sleep.push(...plan.sleep.map((host) => hosts[host]!));
    wake.push(...plan.wake.map((host) => hosts[host]!));
  }
  return { moves, sleep, wake };
}

function planGroup(fleet: ConsolidationFleet, settings: ConsolidationSettings): ConsolidationPlan {
  const draft = new ConsolidationDraft(fleet, settings);
  draft.relieve();
  draft.empty();
  return draft.plan();
}

interface Group {
  readonly group: ConsolidationFleet;
  /** Index in the whole fleet of each host and VM of the group. */
  readonly hosts: readonly number[];
  readonly vms: readonly number[];
}

/**
 * Hosts dealt out like cards, the efficient ones first, so that each group has some of each kind; always the same ones
 * together: a group that has come to rest is not stirred up by another split.
 */
function* split({ hosts, vms, mayRun, carried, mayRest, kept }: ConsolidationFleet, groups: number): Generator<Group> {
  const ranked = [...hosts.keys()].toSorted((a, b) => priceOf(hosts[a]!) - priceOf(hosts[b]!) || a - b);
  const rankOf = new Int32Array(hosts.length);
  ranked.forEach((host, rank) => (rankOf[host] = rank));
  const vmsOf: number[][] = Array.from({ length: groups }, () => []);
  vms.forEach(({ host }, vm) => vmsOf[rankOf[host]! % groups]!.push(vm));
  for (const [offset, own] of vmsOf.entries()) {
    const outer = ranked.filter((_, rank) => rank % groups === offset);
    const inner = new Map(own.map((vm, index): [number, number] => [vm, index]));
    const group: ConsolidationFleet = {
      hosts: outer.map((host) => hosts[host]!),
      vms: own.map((vm) => ({ ...vms[vm]!, host: Math.floor(rankOf[vms[vm]!.host]! / groups) })),
      ...(mayRun && {
        mayRun: (vm, host, hostOf) =>
          mayRun(own[vm]!, outer[host]!, (other) => {
            const index = inner.get(other);
            return index === undefined ? vms[other]!.host : outer[hostOf(index)]!;
          }),
      }),
      ...(carried && { carried: (vm, host) => carried(own[vm]!, outer[host]!) }),
      ...(mayRest && { mayRest: (host) => mayRest(outer[host]!) }),
      ...(kept && { kept: (host, why) => kept(outer[host]!, why) }),
    };
    yield { group, hosts: outer, vms: own };
  }
}
