/**
 * Which hosts may sleep now and which must be woken: (hosts, what will be needed) -> what, for each host, and why. Pure.
 *
 * A host must be woken when the room that is awake falls below what is needed until another could be ready. One may sleep only when
 * what is left afterwards is more than that by a larger margin and for longer than it takes to come back. The gap between the two
 * thresholds and the shortest times awake keep hosts from going up and down. The room of the `hostFailuresTolerated` largest hosts
 * never counts as room.
 *
 * Only hosts without guests may sleep; whether one could be done without that has some is said beside it, and how much room must be
 * kept then. Not here: placing and moving (consolidation-plan.ts).
 */
import type { Demand } from './demand.ts';

export interface PowerHost {
  readonly name: string;
  /** `gone`: silent, fenced, or it did not wake. */
  readonly state: 'awake' | 'going-to-sleep' | 'asleep' | 'waking' | 'gone';
  /** How long it has been so. */
  readonly forMs: number;
  /** What guests may use. */
  readonly capacity: Demand;
  /** No guest, no reservation, no move. */
  readonly empty: boolean;
  /** Nothing is placed there for another reason (cordoned, sick): it is no room, but may sleep. */
  readonly closed: boolean;
  /** Why it may not be sent to sleep (no proof, no way), guests left aside; null: it may. */
  readonly mayNotSleep: string | null;
  /** What is saved while it sleeps. */
  readonly idleWatts: number;
  /** From the order to wake until it reports; null: never woken. */
  readonly readyMs: number | null;
}

export interface PowerPlanInput {
  readonly hosts: readonly PowerHost[];
  /** The most that is needed until then, and was since so long before: capacityNeeded() in demand.ts. */
  readonly needed: (horizonMs: number, sinceMs: number) => Demand;
  /** Of it, what is used at this moment. */
  readonly used: Demand;
  /** VMs that should run and found no room. */
  readonly waiting: Demand;
  readonly hostFailuresTolerated: number;
  readonly options?: Partial<PowerPlanOptions>;
}

export interface PowerPlanOptions {
  /** On top of what is needed, before a host may sleep. */
  readonly sleepMargin: number;
  /** On top of what is needed, before a host must be woken. */
  readonly wakeMargin: number;
  /** A host that was woken stays so for this long, and so long after it was needed last: load that swings does not put it to sleep and wake it. */
  readonly shortestAwakeMs: number;
  /** How far ahead nothing must need it: sleeping for less is not worth the wake. */
  readonly quietMs: number;
  /** For hosts that were never woken. */
  readonly unknownReadyMs: number;
  /** Share of cores that may be busy: beyond it guests wait for each other. */
  readonly coresBusy: number;
}

const minute = 60_000;
const defaults: PowerPlanOptions = {
  sleepMargin: 0.25,
  wakeMargin: 0.05,
  shortestAwakeMs: 30 * minute,
  quietMs: 60 * minute,
  unknownReadyMs: 10 * minute,
  coresBusy: 0.8,
};

export interface PowerChoice {
  readonly host: string;
  readonly because: string;
}

export interface PowerPlan {
  /** In this order. */
  readonly sleep: readonly PowerChoice[];
  readonly wake: readonly PowerChoice[];
  /** Awake and empty, and not to sleep: why not. */
  readonly keep: readonly PowerChoice[];
  /** A host that could be done without, once it is empty; null: there is none. */
  readonly spare: PowerChoice | null;
  /** What hosts that are awake must have free together after one fell asleep. */
  readonly room: Demand;
}

export function powerPlan(input: PowerPlanInput): PowerPlan {
  const { hosts, needed, waiting, hostFailuresTolerated, options } = input;
  const set = { ...defaults, ...options };
  const pass: Pass = { hosts, needed, waiting, failures: Math.max(0, hostFailuresTolerated), set };
  const serving = hosts.filter(({ state, closed }) => !closed && (state === 'awake' || state === 'waking'));
  const wake = wakeChoices(pass, serving);
  const room = roomToKeep(pass, serving, input.used);
  if (wake.length === 0) return { wake, ...sleepChoices(pass, serving), spare: spareChoice(pass, serving), room };
  const keep = emptyOf(hosts).map(({ name }) => ({ host: name, because: 'another host must be woken' }));
  return { sleep: [], wake, keep, spare: null, room };
}

/** Margin on top of what is needed, and the largest hosts, which may die. */
function roomToKeep({ needed, failures, set }: Pass, serving: readonly PowerHost[], used: Demand): Demand {
  const longest = serving.reduce((most, host) => Math.max(most, wakeHorizonMs(host, set)), 0);
  const expected = needed(set.quietMs + longest, set.shortestAwakeMs);
  const largest = (what: keyof Demand): number =>
    serving
      .map(({ capacity }) => capacity[what])
      .toSorted((a, b) => b - a)
      .slice(0, failures)
      .reduce((sum, each) => sum + each, 0);
  const room = (what: keyof Demand, usable: number): number =>
    Math.max(0, expected[what] * (1 + set.sleepMargin) + largest(what) * usable - used[what]);
  return { cores: room('cores', set.coresBusy), memoryMiB: room('memoryMiB', 1) };
}

function spareChoice(pass: Pass, serving: readonly PowerHost[]): PowerChoice | null {
  const may = serving.filter(({ state, mayNotSleep }) => state === 'awake' && mayNotSleep === null);
  const young = ({ forMs }: PowerHost): boolean => forMs < pass.set.shortestAwakeMs;
  const needed = new Set<string>();
  const found = may.find((host) => {
    if (young(host)) return false;
    // Of hosts that are alike one answer is enough: each looks at the whole fleet.
    const kind = `${host.capacity.cores} ${host.capacity.memoryMiB} ${readyOf(host, pass.set)}`;
    if (needed.has(kind)) return false;
    needed.add(kind);
    return whyNeeded(pass, serving, host) === null;
  });
  return found ? { host: found.name, because: 'the others would have room enough without it' } : null;
}

interface Pass {
  readonly hosts: readonly PowerHost[];
  readonly needed: PowerPlanInput['needed'];
  readonly waiting: Demand;
  readonly failures: number;
  readonly set: PowerPlanOptions;
}

/** Those that are soonest ready first, until nothing is lacking. */
function wakeChoices(pass: Pass, serving: readonly PowerHost[]): PowerChoice[] {
  const { hosts, waiting, set } = pass;
  const asleep = hosts
    .filter(({ state, closed }) => state === 'asleep' && !closed)
    .toSorted((a, b) => readyOf(a, set) - readyOf(b, set) || (a.name < b.name ? -1 : 1));
  const awake = [...serving];
  const chosen: PowerChoice[] = [];
  for (const host of asleep) {
    const horizonMs = wakeHorizonMs(host, set);
    const lack = lackOf(pass, awake, { horizonMs, sinceMs: 0, margin: set.wakeMargin });
    // Another takes longer to be ready, and may have to be woken today for what this one could be woken for later.
    if (lack === null) continue;
    const waits = waiting.memoryMiB > 0 ? 'VMs wait for room: ' : '';
    chosen.push({ host: host.name, because: `${waits}${lack} within ${words(horizonMs)}` });
    awake.push(host);
  }
  return chosen;
}

/** The thirstiest first, for as long as what is left suffices. */
function sleepChoices(pass: Pass, serving: readonly PowerHost[]): Pick<PowerPlan, 'sleep' | 'keep'> {
  const { hosts, set } = pass;
  const sleep: PowerChoice[] = [];
  const keep: PowerChoice[] = [];
  let awake = serving;
  const thirstiest = emptyOf(hosts).toSorted((a, b) => b.idleWatts - a.idleWatts || (a.name < b.name ? -1 : 1));
  for (const host of thirstiest) {
    const stays = host.mayNotSleep ?? whyNeeded(pass, awake, host);
    if (stays !== null) {
      keep.push({ host: host.name, because: stays });
      continue;
    }
    const horizonMs = set.quietMs + wakeHorizonMs(host, set);
    sleep.push({ host: host.name, because: `it is empty, and nothing needs it for ${words(horizonMs)}` });
    awake = awake.filter(({ name }) => name !== host.name);
  }
  return { sleep, keep };
}

/** Why a host that is awake cannot be done without; null: it can. */
function whyNeeded(pass: Pass, awake: readonly PowerHost[], host: PowerHost): string | null {
  const { failures, set } = pass;
  if (host.forMs < set.shortestAwakeMs) return `it has been awake for ${words(host.forMs)} only`;
  const rest = awake.filter(({ name }) => name !== host.name);
  if (rest.length < failures + 1) {
    return `${failures + 1} ${failures === 0 ? 'host is' : 'hosts are'} kept awake, whatever is needed`;
  }
  const horizonMs = set.quietMs + wakeHorizonMs(host, set);
  const lack = lackOf(pass, rest, { horizonMs, sinceMs: set.shortestAwakeMs, margin: set.sleepMargin });
  return lack === null ? null : `without it ${lack} within ${words(horizonMs)}`;
}

interface Question {
  readonly horizonMs: number;
  readonly sinceMs: number;
  readonly margin: number;
}

/** What these hosts lack within the horizon, with the largest of them dead; null: nothing. */
function lackOf(pass: Pass, awake: readonly PowerHost[], { horizonMs, sinceMs, margin }: Question): string | null {
  const { failures, waiting, set } = pass;
  const expected = pass.needed(horizonMs, sinceMs);
  const left = (what: keyof Demand): number =>
    awake
      .map(({ capacity }) => capacity[what])
      .toSorted((a, b) => b - a)
      .slice(failures)
      .reduce((sum, each) => sum + each, 0);
  const spare = failures === 0 ? '' : `, with ${failures === 1 ? 'one host' : `${failures} hosts`} dead,`;
  const memoryMiB = (expected.memoryMiB + waiting.memoryMiB) * (1 + margin);
  if (left('memoryMiB') < memoryMiB) {
    return `${Math.ceil(memoryMiB)} MiB are needed and${spare} ${Math.floor(left('memoryMiB'))} MiB are awake`;
  }
  const cores = (expected.cores + waiting.cores) * (1 + margin);
  const usable = left('cores') * set.coresBusy;
  if (usable < cores) return `${cores.toFixed(1)} cores are needed and${spare} ${usable.toFixed(1)} are awake`;
  return null;
}

function emptyOf(hosts: readonly PowerHost[]): PowerHost[] {
  return hosts.filter(({ state, empty }) => state === 'awake' && empty);
}

/** By the time it takes, and once more for a first try that fails. */
function wakeHorizonMs(host: PowerHost, set: PowerPlanOptions): number {
  return 2 * readyOf(host, set);
}

function readyOf({ readyMs }: PowerHost, { unknownReadyMs }: PowerPlanOptions): number {
  return readyMs ?? unknownReadyMs;
}

function words(ms: number): string {
  return ms < 2 * minute ? `${Math.round(ms / 1000)} s` : `${Math.round(ms / minute)} min`;
}
