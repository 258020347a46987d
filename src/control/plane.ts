/**
 * The control plane of one term: builds its parts around the store, lets agents in, and beats once a second. It knows nothing
 * of HTTP and of sockets: what it runs on (clock, chance, store, door) are arguments.
 */
import type { HostId } from '../model/ids.ts';
import type { Clock, Timer } from '../runtime/clock.ts';
import type { Listener } from '../runtime/channel.ts';
import type { Log } from '../runtime/log.ts';
import type { Random } from '../runtime/random.ts';
import type { Leadership } from '../store/leadership.ts';
import type { Store } from '../store/store.ts';
import { Agents } from './agents.ts';
import type { AgentDoor } from './agents.ts';
import { Audit } from './audit.ts';
import { CommitTimes } from './commit-times.ts';
import { Drains } from './drains.ts';
import { Energy } from './energy.ts';
import { Distributor } from './distributor.ts';
import { eventsOf } from './events.ts';
import { Evacuation } from './evacuation.ts';
import { Fleet } from './fleet.ts';
import { Forecasts } from './forecasts.ts';
import { Guests } from './guests.ts';
import { Health } from './health.ts';
import { Held } from './held.ts';
import { LiveEvents } from './live-events.ts';
import { Liveness } from './liveness.ts';
import { LoadHistory } from './load-history.ts';
import { Migrations } from './migrations.ts';
import type { MakePlan } from './planning.ts';
import type { OpenPower } from './power/power.ts';
import { PowerSeen } from './power/seen.ts';
import { isEnd } from '../migration/phases.ts';
import { keepOrder } from './orders.ts';
import { People } from './people.ts';
import { forgetOldRequests } from './requests.ts';
import { Recovery } from './recovery.ts';
import type { RecoveryOptions } from './recovery.ts';
import { Removals } from './removals.ts';
import { Reservations } from './reservations.ts';
import { Restarts } from './restarts.ts';
import { Sleep, type SendMagic } from './sleep.ts';
import type { SleepOptions } from './sleep-step.ts';
import { Tasks } from './tasks.ts';
import { Vms } from './vms.ts';
import { Webhooks, type Post } from './webhooks.ts';

const beatMs = 1_000;
/** How often it is looked whether this process stood still; so much later than due means that it did, and not the hosts. */
const pulseMs = 500;
const latePulseMs = 1_000;
/** Where a host is lost, each second counts. */
const recoveryBeatMs = 250;

export interface PlaneParts {
  readonly store: Store;
  readonly leadership: Leadership;
  readonly door: AgentDoor;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  readonly version: string;
  /** How hosts are switched off and on from outside. */
  readonly power: OpenPower;
  readonly recovery: RecoveryOptions;
  /** Bytes per second of the migration network, as somebody said. */
  readonly linkBytesPerSecond?: number | undefined;
  /** How hosts are sent to sleep and woken; what is left out is as usual. */
  readonly sleep?: { readonly options?: Partial<SleepOptions>; readonly sendMagic?: SendMagic };
  readonly makePlan: MakePlan;
  /** Of scrypt; as it should be where it is left out. */
  readonly passwordCost?: number;
  /** How webhooks are sent; by HTTP where it is left out. */
  readonly post?: Post;
  /** An agent has obeyed a newer term: this one must end and the next be larger than that. */
  readonly onNewerTerm: (term: number) => void;
}

export interface ControlPlane {
  readonly fleet: Fleet;
  readonly commitTimes: CommitTimes;
  readonly live: LiveEvents;
  readonly liveness: Liveness;
  readonly loads: LoadHistory;
  readonly health: Health;
  readonly agents: Agents;
  /** Whether the records can be trusted. */
  readonly held: Held;
  readonly guests: Guests;
  readonly vms: Vms;
  readonly migrations: Migrations;
  readonly reservations: Reservations;
  readonly forecasts: Forecasts;
  readonly power: OpenPower;
  readonly powerSeen: PowerSeen;
  readonly recovery: Recovery;
  readonly sleep: Sleep;
  readonly energy: Energy;
  readonly evacuation: Evacuation;
  readonly drains: Drains;
  readonly tasks: Tasks;
  readonly distributor: Distributor;
  readonly people: People;
  readonly audit: Audit;
  readonly webhooks: Webhooks;
  readonly store: Store;
  readonly clock: Clock;
  readonly log: Log;
  readonly version: string;
  readonly startedAt: number;
  readonly agentsPort: number;
  /** Aborted when it stops: for whoever waits for something outside. */
  readonly stopped: AbortSignal;
  stop(): Promise<void>;
}

/** Reads the store, opens the door for agents and starts to beat. */
export async function startPlane(parts: PlaneParts): Promise<ControlPlane> {
  const { store, leadership, door, clock, random, log, version, power, onNewerTerm } = parts;
  const fleet = await Fleet.load(store, leadership, log, clock);
  const commitTimes = new CommitTimes(fleet, clock);
  const live = new LiveEvents();
  const liveness = new Liveness(clock);
  const health = new Health(clock);
  const loads = new LoadHistory();
  const shared = { fleet, live, liveness, health, loads, clock, random, log };
  const held = new Held(shared);
  const whyHeld = (): string | null =>
    held.isHeld ? `the records are older than the fleet (${fleet.restored?.because})` : null;
  const restarts = new Restarts({ ...shared, lockWaitMs: parts.recovery.lockWaitMs, held: whyHeld });
  const guests = new Guests({ ...shared, restarts });
  const migrations = new Migrations(shared);
  const recovery: Recovery = new Recovery({
    ...shared,
    restarts,
    power: parts.power,
    trustGuard: parts.recovery.trustGuard,
    held: whyHeld,
    tell: (host, message) => agents.tell(host, message),
  });
  const sleep: Sleep = new Sleep({
    ...shared,
    ...parts.sleep,
    power: parts.power,
    held: whyHeld,
    cannotLeave: () => evacuation.stuck(),
    isConnected: (host) => agents.isConnected(host),
    tell: (host, message) => agents.tell(host, message),
  });
  const energy = new Energy({ ...shared, sleep, power: parts.power });
  const forecasts = new Forecasts({
    ...shared,
    tell: (host, message) => agents.tell(host, message),
    linkBytesPerSecond: parts.linkBytesPerSecond,
  });
  const reservations = new Reservations({ ...shared, forecasts });
  const drains = new Drains({ ...shared, migrations, reservations, forecasts });
  const isDraining = (host: HostId): boolean => drains.progress.owns(host);
  const evacuation: Evacuation = new Evacuation({ ...shared, migrations, reservations, isDraining });
  const removals = new Removals(shared);
  const people = new People({ ...shared, passwordCost: parts.passwordCost });
  const audit = new Audit(shared);
  const webhooks = new Webhooks({
    ...shared,
    store,
    post: parts.post,
    eventsOf: (commit) => eventsOf(plane, commit).map(({ event }) => event),
  });
  const tasks = new Tasks({ ...shared, held: whyHeld });
  const distributor = new Distributor({
    ...shared,
    migrations,
    reservations,
    forecasts,
    energy,
    sleep,
    held: whyHeld,
    makePlan: parts.makePlan,
  });
  const agents: Agents = new Agents({
    ...shared,
    held,
    onNewerTerm: (term) => {
      // Another server may have won that term: then this commit is refused, and the records are right.
      const because = `a host obeyed term ${term}, the records know ${fleet.term}`;
      const begun = held.begin(because).catch((error: unknown) => log.info({ error }, 'the records were not held'));
      void begun.then(() => onNewerTerm(term));
    },
    news: {
      onFact(host, { about, fact }) {
        switch (about) {
          case 'migration':
            return migrations.onFact(host, fact);
          case 'guest':
            return guests.onFact(host, fact);
          case 'task':
            return tasks.onFact(host, fact);
        }
      },
      onRefused: async (due, reason) => {
        await migrations.onRefused(due, reason);
        await guests.onRefused(due, reason);
      },
      onFound: async (host, hello) => {
        if (!held.isHeld) return guests.reconcile(host, hello);
        await held.heard(host, hello);
        await guests.isBack(host);
        return [];
      },
      onReport: (host, report) => {
        recovery.onReport(host, report);
        health.onSigns(host, report.health);
        tasks.onReport(host, report);
        loads.observe(host, report.load, clock.monotonic(), (vm) => fleet.vms.get(vm)?.host === host);
      },
      onMeasured: (host, answer) => forecasts.onMeasured(host, answer),
      onLeaseAnswer: (host, answer) => recovery.onLeaseAnswer(host, answer),
      onSleepAnswer: (host, answer) => sleep.onAnswer(host, answer),
      onRebooted: (draft, host) => recovery.rebooted(draft, host),
    },
  });
  fleet.onCommit((changes) => {
    for (const change of changes) {
      if (change.kind !== 'migration' || !change.after || !isEnd(change.after.phase)) continue;
      live.forgetSamples(change.after.id);
      // The guest stayed where it was, but a decision was taken: its host learns the generation that counts now.
      const vm = fleet.vms.get(change.after.vm);
      const justEnded = change.before && !isEnd(change.before.phase);
      const decidedSince = vm?.host === change.after.source || vm?.generation !== change.after.generation;
      if (justEnded && vm?.state.kind === 'running' && decidedSince) agents.send(keepOrder(vm));
    }
  });

  held.sendBy((order) => agents.send(order));

  const listener: Listener = await door.open((channel) => agents.accept(channel));
  const stopped = new AbortController();
  let pulseTimer: Timer;
  let movedAt = clock.monotonic();
  // By the process, not by its beats: one may take long because the store answers late, and hosts are lost meanwhile.
  const look = (): void => {
    const late = clock.monotonic() - movedAt - pulseMs;
    movedAt = clock.monotonic();
    if (late <= latePulseMs) return;
    liveness.excuse(late);
    recovery.excuse();
  };
  const pulse = (): void => {
    look();
    pulseTimer = clock.setTimeout(pulse, pulseMs);
  };
  pulse();
  let timer: Timer;
  const beat = async (): Promise<void> => {
    look();
    try {
      await held.tick();
      agents.tick();
      await migrations.tick();
      await restarts.place();
      await recovery.tidy();
      await sleep.tick();
      if (!held.isHeld) {
        await energy.tick();
        await evacuation.tick();
        await drains.progress.tick();
        await removals.tick();
      }
      await tasks.tick();
      await distributor.tick();
      await forgetOldRequests(fleet, clock);
      await people.tidy();
      await audit.tidy();
      await webhooks.tick();
    } catch (error) {
      log.warn({ error }, 'a beat went wrong; the next one tries again');
    }
    if (!stopped.signal.aborted) timer = clock.setTimeout(() => void beat(), beatMs);
  };
  timer = clock.setTimeout(() => void beat(), beatMs);
  let recoveryTimer: Timer;
  const watch = async (): Promise<void> => {
    look();
    await recovery.tick().catch((error: unknown) => log.warn({ error }, 'recovery went wrong; it is tried again'));
    if (!stopped.signal.aborted) recoveryTimer = clock.setTimeout(() => void watch(), recoveryBeatMs);
  };
  recoveryTimer = clock.setTimeout(() => void watch(), recoveryBeatMs);

  const plane: ControlPlane = {
    ...shared,
    commitTimes,
    agents,
    held,
    guests,
    migrations,
    recovery,
    sleep,
    energy,
    vms: new Vms({ ...shared, restarts }),
    reservations,
    forecasts,
    evacuation,
    drains,
    tasks,
    distributor,
    people,
    audit,
    webhooks,
    power,
    powerSeen: new PowerSeen(power, clock),
    store,
    version,
    startedAt: clock.now(),
    agentsPort: listener.port,
    stopped: stopped.signal,
    async stop() {
      stopped.abort();
      timer.cancel();
      pulseTimer.cancel();
      recoveryTimer.cancel();
      recovery.stop();
      sleep.stop();
      energy.stop();
      webhooks.stop();
      agents.close();
      await listener.close();
    },
  };
  return plane;
}
