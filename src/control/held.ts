/**
 * A store that went back in time: restored by `drover restore`, by a file copied back, by a snapshot of etcd. What was decided
 * since is not in it, so nothing that follows from it may be ordered: a VM that was moved, stopped or deleted since would be
 * started where it was, or ended where it is.
 *
 *   a record of the restore | a host obeyed a newer term | a host has a newer session, mark or generation -> held
 *   held: no orders, no writes by people, facts wait   -> every host has reported, or is fenced -> settled, record by record -> free
 *
 * How it is noticed: agents keep the newest term and session, the newest revision of the store that an order came from, and
 * each VM's newest generation. All of them come from commits; so a number that our store never gave out proves that it was put back.
 *
 * The reports are kept in memory: after a restart every host is asked again.
 */
import { UserError } from '../model/failure.ts';
import type { RestoredRecord } from '../model/fleet.ts';
import type { HostRecord } from '../model/host.ts';
import type { HostId, VmId } from '../model/ids.ts';
import type { Clock } from '../runtime/clock.ts';
import type { Log } from '../runtime/log.ts';
import type { Random } from '../runtime/random.ts';
import type { KnownVm } from '../wire/agent.ts';
import type { Hello } from './agents.ts';
import type { Fleet } from './fleet.ts';
import type { LiveEvents } from './live-events.ts';
import type { DueOrder } from './orders.ts';
import { settleVm } from './settlement.ts';
import type { Reports } from './settlement.ts';

/** Few enough that their records fit into one commit. */
const vmsPerCommit = 8;
const namesShown = 5;

interface Parts {
  readonly fleet: Fleet;
  readonly live: LiveEvents;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
}

/** Is nothing left to ask this host? @param restored since when the records are doubted */
export function hostAccountedFor(host: HostRecord, restored: RestoredRecord, reported: ReadonlySet<HostId>): boolean {
  return reported.has(host.id) || (host.fenced !== null && host.fenced.at >= restored.at);
}

export class Held {
  /** Of this term: there is one control plane in each. */
  readonly termId: string;
  readonly #fleet: Fleet;
  readonly #live: LiveEvents;
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #reports = new Map<HostId, readonly KnownVm[]>();
  /** Counts reports: one that comes while records are settled has to be settled too. */
  #heard = 0;
  #settling: Promise<void> | undefined;
  #free = Promise.withResolvers<void>();
  #send: (order: DueOrder) => void = () => {};

  constructor({ fleet, live, clock, random, log }: Parts) {
    this.termId = Buffer.from(random.bytes(8)).toString('hex');
    this.#fleet = fleet;
    this.#live = live;
    this.#clock = clock;
    this.#log = log;
    if (!this.isHeld) this.#free.resolve();
  }

  /** Where the orders go that follow when all is known. */
  sendBy(send: (order: DueOrder) => void): void {
    this.#send = send;
  }

  get isHeld(): boolean {
    return this.#fleet.restored?.endedAt === null;
  }

  /** Resolves when the records can be trusted. */
  whenFree(): Promise<void> {
    return this.#free.promise;
  }

  /** Hosts that have to report, or to be off, before anything is ordered. */
  missing(): HostRecord[] {
    const { restored } = this.#fleet;
    if (restored === undefined || restored.endedAt !== null) return [];
    const reported = new Set(this.#reports.keys());
    return [...this.#fleet.hosts.values()].filter((host) => !hostAccountedFor(host, restored, reported));
  }

  /** @throws UserError unavailable while held */
  refuseWhileHeld(): void {
    const { restored } = this.#fleet;
    if (restored === undefined || restored.endedAt !== null) return;
    const names = this.missing().map(({ name }) => name);
    const [first] = names;
    const shown = `${names.slice(0, namesShown).join(', ')}${names.length > namesShown ? ` and ${names.length - namesShown} more` : ''}`;
    throw new UserError(
      'unavailable',
      first === undefined
        ? `The records are being brought up to date: ${restored.because}.`
        : `The records are older than the fleet (${restored.because}); ${shown} has not said yet what runs there.`,
      first === undefined
        ? 'Try again in a moment.'
        : `Start the agent there. If the host is off for good: drover host fenced ${first} --because "...".`,
    );
  }

  /**
   * Does this host know of something newer than our store? Then the store went back in time, and from now on is held.
   * @returns true when that has just begun
   */
  async noticed(hello: Hello): Promise<boolean> {
    if (this.isHeld) return false;
    const because = this.#newerIn(hello);
    return because !== undefined && this.begin(because);
  }

  /**
   * Holds the records. Whoever does not lead any more cannot: a newer term is then no wonder.
   * @throws UserError unavailable
   */
  async begin(because: string): Promise<boolean> {
    if (this.isHeld) return false;
    const restored: RestoredRecord = { schema: 1, at: this.#clock.now(), because, endedAt: null };
    this.#reports.clear();
    this.#free = Promise.withResolvers<void>();
    try {
      await this.#fleet.change((draft) => draft.putRestored(restored));
    } catch (error) {
      if (!this.isHeld) this.#free.resolve();
      throw error;
    }
    this.#tell(`the records are older than the fleet: ${because}. Nothing is ordered until every host has reported`);
    return true;
  }

  /** What a host holds, when it says hello. */
  async heard(host: HostId, hello: Hello): Promise<void> {
    this.#reports.set(host, hello.known ?? hello.guests.map(asKnown));
    this.#heard++;
    await this.tick();
  }

  /** Once a second, and when something was heard: ends it when all is known. */
  async tick(): Promise<void> {
    if (!this.isHeld || this.missing().length > 0) return;
    this.#settling ??= this.#settle().finally(() => (this.#settling = undefined));
    await this.#settling;
  }

  async #settle(): Promise<void> {
    const orders = new Map<VmId, readonly DueOrder[]>();
    const alarms = new Set<string>();
    let upTo: number;
    do {
      upTo = this.#heard;
      const reports: Reports = new Map(this.#reports);
      const vms = new Set([...this.#fleet.vms.keys(), ...[...reports.values()].flat().map(({ vm }) => vm)]);
      const all = [...vms];
      for (let from = 0; from < all.length; from += vmsPerCommit) {
        await this.#fleet.change((draft) => {
          for (const vm of all.slice(from, from + vmsPerCommit)) {
            const settled = settleVm(draft, this.#fleet, vm, reports, this.#clock.now());
            orders.set(vm, settled.orders);
            settled.alarms.forEach((alarm) => alarms.add(alarm));
          }
        });
      }
    } while (upTo !== this.#heard);
    await this.#fleet.change((draft) => {
      const { restored } = this.#fleet;
      if (restored) draft.putRestored({ ...restored, endedAt: this.#clock.now() });
    });
    for (const alarm of alarms) this.#tell(alarm);
    this.#tell('the records are up to date with what the hosts hold: orders are given again');
    this.#reports.clear();
    this.#free.resolve();
    for (const order of [...orders.values()].flat()) this.#send(order);
  }

  #newerIn(hello: Hello): string | undefined {
    const { mark, session = 0 } = hello;
    const known = this.#fleet.hostNamed(hello.host)?.session ?? session;
    if (session > known) return `${hello.host} has had session ${session}, the records know ${known}`;
    const { term, termStart } = this.#fleet;
    if (mark?.term === term && mark.termId !== undefined && mark.termId !== this.termId) {
      return `${hello.host} has obeyed another leader of this same term ${term}`;
    }
    if (mark !== undefined && mark.term < term && mark.revision >= termStart) {
      return `${hello.host} has an order of revision ${mark.revision}, and this term began at ${termStart}`;
    }
    for (const { vm: id, generation } of hello.known ?? hello.guests) {
      const vm = this.#fleet.vms.get(id);
      if (vm === undefined || generation <= vm.generation) continue;
      return `${hello.host} knows decision ${generation} about ${vm.name}, the records know ${vm.generation}`;
    }
    return undefined;
  }

  #tell(says: string): void {
    this.#log.warn({ about: 'fleet' }, says);
    this.#live.emit({ kind: 'alarm', at: this.#clock.now(), about: 'fleet', says });
  }
}

/** Of an agent that does not say it itself. */
function asKnown({ vm, generation, state, migration }: Hello['guests'][number]): KnownVm {
  return { vm, name: vm, generation, part: state, runs: true, running: null, migration, job: null, targetPeer: null };
}
