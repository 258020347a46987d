/**
 * The control plane of one term: builds its parts around the store, lets agents in, and beats once a second. It knows nothing
 * of HTTP and of sockets: what it runs on (clock, chance, store, door) are arguments.
 */
import type { Clock, Timer } from '../runtime/clock.ts';
import type { Listener } from '../runtime/channel.ts';
import type { Log } from '../runtime/log.ts';
import type { Random } from '../runtime/random.ts';
import type { Leadership } from '../store/leadership.ts';
import type { Store } from '../store/store.ts';
import { Agents } from './agents.ts';
import type { AgentDoor } from './agents.ts';
import { Fleet } from './fleet.ts';
import { Guests } from './guests.ts';
import { LiveEvents } from './live-events.ts';
import { Liveness } from './liveness.ts';
import { Migrations } from './migrations.ts';
import { isEnd } from '../migration/phases.ts';
import { keepOrder } from './orders.ts';
import { forgetOldRequests } from './requests.ts';
import { Reservations } from './reservations.ts';
import { Vms } from './vms.ts';

const beatMs = 1_000;
/** Beats later than this mean that this process stood still, and not the hosts. */
const lateBeatMs = 1_000;

export interface PlaneParts {
  readonly store: Store;
  readonly leadership: Leadership;
  readonly door: AgentDoor;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  readonly version: string;
  /** An agent has obeyed a newer term: this one must end and the next be larger than that. */
  readonly onNewerTerm: (term: number) => void;
}

export interface ControlPlane {
  readonly fleet: Fleet;
  readonly live: LiveEvents;
  readonly liveness: Liveness;
  readonly agents: Agents;
  readonly guests: Guests;
  readonly vms: Vms;
  readonly migrations: Migrations;
  readonly reservations: Reservations;
  readonly store: Store;
  readonly clock: Clock;
  readonly log: Log;
  readonly version: string;
  readonly startedAt: number;
  readonly agentsPort: number;
  stop(): Promise<void>;
}

/** Reads the store, opens the door for agents and starts to beat. */
export async function startPlane(parts: PlaneParts): Promise<ControlPlane> {
  const { store, leadership, door, clock, random, log, version, onNewerTerm } = parts;
  const fleet = await Fleet.load(store, leadership, log);
  const live = new LiveEvents();
  const liveness = new Liveness(clock);
  const shared = { fleet, live, liveness, clock, random, log };
  const guests = new Guests(shared);
  const migrations = new Migrations(shared);
  const agents = new Agents({
    ...shared,
    onNewerTerm,
    news: {
      onFact: (host, fact) =>
        fact.about === 'migration' ? migrations.onFact(host, fact.fact) : guests.onFact(host, fact.fact),
      onRefused: async (due, reason) => {
        await migrations.onRefused(due, reason);
        await guests.onRefused(due, reason);
      },
      onFound: (host, found) => guests.reconcile(host, found),
    },
  });
  fleet.onCommit((changes) => {
    for (const change of changes) {
      if (change.kind !== 'migration' || !change.after || !isEnd(change.after.phase)) continue;
      live.forgetSamples(change.after.id);
      // The guest stayed where it was, but a decision was taken: its host learns the generation that counts now.
      const vm = fleet.vms.get(change.after.vm);
      const justEnded = change.before && !isEnd(change.before.phase);
      if (justEnded && vm?.state.kind === 'running' && vm.host === change.after.source) agents.send(keepOrder(vm));
    }
  });

  const listener: Listener = await door.open((channel) => agents.accept(channel));
  const stopped = new AbortController();
  let timer: Timer;
  let beatAt = clock.monotonic();
  const beat = async (): Promise<void> => {
    const late = clock.monotonic() - beatAt - beatMs;
    if (late > lateBeatMs) liveness.excuse(late);
    beatAt = clock.monotonic();
    try {
      agents.tick();
      await migrations.tick();
      await forgetOldRequests(fleet, clock);
    } catch (error) {
      log.warn({ error }, 'a beat went wrong; the next one tries again');
    }
    if (!stopped.signal.aborted) timer = clock.setTimeout(() => void beat(), beatMs);
  };
  timer = clock.setTimeout(() => void beat(), beatMs);

  return {
    ...shared,
    agents,
    guests,
    migrations,
    vms: new Vms(shared),
    reservations: new Reservations(shared),
    store,
    version,
    startedAt: clock.now(),
    agentsPort: listener.port,
    async stop() {
      stopped.abort();
      timer.cancel();
      agents.close();
      await listener.close();
    },
  };
}
