/** Those who look after the hosts of a simulated fleet: they drain, change their minds, and bring back. */
import type { ControlPlane } from '../control/plane.ts';
import { UserError, messageOf } from '../model/failure.ts';
import type { Random } from '../runtime/random.ts';
import type { World } from './world.ts';

const firstAfterMs = 15_000;
const pauseMs = 20_000;

export class Maintenance {
  readonly #world: World;
  readonly #random: Random;
  #over = false;
  /** How requests ended: what was asked, or the code of the refusal. */
  readonly answers = new Map<string, number>();

  constructor(world: World) {
    this.#world = world;
    this.#random = world.randomOf('maintenance');
  }

  start(): void {
    this.#later(firstAfterMs);
  }

  stop(): void {
    this.#over = true;
  }

  #later(ms: number): void {
    this.#world.timeline.after(ms, () => {
      if (this.#over) return;
      const [server] = this.#world.leaders();
      const { plane, life } = server ?? {};
      if (plane !== undefined && life !== undefined) {
        const [what, act] = this.#choose(plane);
        const ended = (says: string): void => {
          this.#world.note('maintenance', `${what}: ${says}`);
          this.answers.set(says, (this.answers.get(says) ?? 0) + 1);
        };
        void life.answer(act).then(
          () => ended('done'),
          (error: unknown) => {
            if (error instanceof UserError) ended(error.code);
            else this.#world.checks.violated('no-crash', `${what} threw ${messageOf(error)}`);
          },
        );
      }
      this.#later(-Math.log(1 - this.#random.next()) * pauseMs);
    });
  }

  /** At most a third of the hosts is out of use at a time, as far as they can help it. */
  #choose({ fleet, drains }: ControlPlane): readonly [string, () => Promise<unknown>] {
    const hosts = [...fleet.hosts.values()];
    const open = [...fleet.drains.values()].filter(
      ({ state }) => state.kind === 'draining' || state.kind === 'drained',
    );
    const draw = this.#random.next();
    const other = open[Math.floor(this.#random.next() * open.length)];
    if (other !== undefined && (open.length * 3 >= hosts.length || draw < 0.4)) {
      return draw < 0.1 && other.state.kind === 'draining'
        ? [`cancel the drain of ${other.hostName}`, () => drains.cancel(other.host, 'somebody')]
        : [
            `undrain ${other.hostName}`,
            () => drains.undrain(other.host, { movesAtOnce: null, dryRun: false }, 'somebody'),
          ];
    }
    const host = hosts[Math.floor(this.#random.next() * hosts.length)];
    if (host === undefined) return ['nothing', () => Promise.resolve()];
    const movesAtOnce = 1 + Math.floor(3 * this.#random.next());
    const asked = { because: null, movesAtOnce, allowCold: this.#random.next() < 0.3, dryRun: draw > 0.95 };
    return [`drain ${host.name}`, () => drains.begin(host.id, asked, 'somebody')];
  }
}
