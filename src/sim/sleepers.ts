/** Whoever sends simulated hosts to sleep and wakes them again, at any moment; with chances of its own, so that people and disturbances stay as they were. */
import type { ControlPlane } from '../control/plane.ts';
import { UserError, messageOf } from '../model/failure.ts';
import type { HostId } from '../model/ids.ts';
import type { Random } from '../runtime/random.ts';
import { migrateBody } from '../wire/endpoints.ts';
import type { SimHost } from './host.ts';
import type { World } from './world.ts';

const meanPauseMs = 4000;
const why = { by: 'somebody', because: 'to see whether it works' } as const;

export class Sleepers {
  readonly #world: World;
  readonly #random: Random;
  #over = false;
  /** Which of it was done, how often. */
  readonly counts = new Map<string, number>();

  constructor(world: World) {
    this.#world = world;
    this.#random = world.randomOf('sleepers');
  }

  start(): void {
    this.#later();
  }

  /** Nobody is sent to sleep any more. Whoever is off and is not asleep by the records is switched on, as a person would. */
  stop(): void {
    this.#over = true;
    for (const host of this.#world.hosts) if (!host.hasPower && !this.#sleeps(host)) host.powerOn();
  }

  #later(): void {
    this.#world.timeline.after(-Math.log(1 - this.#random.next()) * meanPauseMs, () => {
      if (this.#over) return;
      const { hosts } = this.#world;
      const host = hosts[Math.floor(this.#random.next() * hosts.length)];
      const draw = this.#random.next();
      const server = this.#world.leaders()[0];
      const plane = server?.plane;
      if (host && plane && server.life) void server.life.answer(() => this.#one(plane, host, draw));
      this.#later();
    });
  }

  async #one(plane: ControlPlane, { name }: SimHost, draw: number): Promise<void> {
    const host = plane.fleet.hostNamed(name);
    if (!host || host.power === null) return;
    const record = plane.fleet.sleeps.get(host.id);
    const what =
      record === undefined ? 'sleep-way' : record.state.kind === 'asleep' ? 'wake' : draw < 0.5 ? 'drill' : 'sleep';
    try {
      if (what === 'sleep-way') await plane.sleep.setWay(name, { kind: 'off' });
      else if (what === 'wake') await plane.sleep.wake(name, why, { dryRun: false });
      else await plane.sleep.send(name, why, { drill: what === 'drill', dryRun: false });
      this.counts.set(what, (this.counts.get(what) ?? 0) + 1);
      this.#world.note('sleep', `${what} ${name}`);
    } catch (error) {
      if (!(error instanceof UserError)) this.#world.checks.violated('no-crash', `${what} threw ${messageOf(error)}`);
      else if (error.code === 'busy') await this.#empty(plane, host.id);
    }
  }

  /** A host with guests may not sleep: they are moved away, for the next time. */
  async #empty({ fleet, reservations }: ControlPlane, host: HostId): Promise<void> {
    const there = [...fleet.vms.values()].filter((vm) => vm.host === host && vm.state.kind === 'running');
    const body = migrateBody.parse({ to: null });
    for (const { name, migration } of there) {
      // Most are refused for a reason of their own; the rest is no news.
      if (migration === null) await reservations.startMigration(name, body, null, 'somebody').catch(() => {});
    }
  }

  #sleeps({ name }: SimHost): boolean {
    const fleet = this.#world.leaders()[0]?.plane?.fleet;
    const host = fleet?.hostNamed(name);
    return host !== undefined && fleet?.sleeps.get(host.id)?.state.kind === 'asleep';
  }
}
