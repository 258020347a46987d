/**
 * One simulated server: the lives of a process that competes for the lead and runs the real control plane (control/plane.ts)
 * while it has it. Its supervisor starts it again.
 */
import { startPlane, type ControlPlane } from '../control/plane.ts';
import { planned } from '../control/planning.ts';
import { messageOf } from '../model/failure.ts';
import type { Endpoint } from '../model/host.ts';
import { lead, type Leadership } from '../store/leadership.ts';
import { Life } from './life.ts';
import { simStore, type StoreTrouble } from './store.ts';
import type { World } from './world.ts';

const agentsPort = 7071;
/** As three servers on a shared store have it: a dead leader is replaced after this. */
const leadTtlMs = 3000;

export class SimServer {
  readonly name: string;
  readonly endpoint: Endpoint;
  readonly trouble: StoreTrouble = { isAway: false, unknown: 0 };
  clockOffsetMs = 0;
  readonly #world: World;
  #life: Life | undefined;
  #lives = 0;
  #plane: ControlPlane | undefined;
  #newestTerm = 0;

  constructor(world: World, number: number) {
    this.#world = world;
    this.name = `s${number}`;
    this.endpoint = { address: `10.0.9.${number}`, port: agentsPort };
    world.network.name(this.name, this.endpoint.address);
  }

  now(): number {
    const { timeline, startedAt } = this.#world;
    return startedAt + timeline.nowMs + this.clockOffsetMs;
  }

  get life(): Life | undefined {
    return this.#life;
  }

  /** While it leads, as far as it knows. */
  get plane(): ControlPlane | undefined {
    return this.#plane;
  }

  start(): void {
    if (this.#life) return;
    const life = new Life(this.#world.timeline, this);
    this.#life = life;
    this.#lives++;
    this.#world.note('server', `${this.name} starts`);
    const ended = (why: string) => {
      if (life.isOver) return;
      this.#world.note('server', `${this.name} gives up: ${why}`);
      this.kill();
    };
    this.#run(life, `${this.name}#${this.#lives}`).then(
      () => ended('no reason'),
      (error: unknown) => ended(messageOf(error)),
    );
  }

  kill(againAfterMs = 1000): void {
    if (!this.#life) return;
    this.#world.note('server', `${this.name} ends`);
    this.#life.end();
    this.#life = undefined;
    this.#plane = undefined;
    this.#world.timeline.after(againAfterMs, () => this.start());
  }

  async #run(life: Life, me: string): Promise<void> {
    const world = this.#world;
    const random = world.randomOf(me);
    const log = world.log.of(this.name, life);
    const store = simStore({
      engine: world.engine,
      life,
      timeline: world.timeline,
      random,
      trouble: this.trouble,
      fault: world.fault.commit?.(() => random.next()),
      onCommit: (writes) => world.checks.onCommit(me, writes),
    });
    await lead(
      store,
      me,
      new AbortController().signal,
      async (leadership) => {
        const over = Promise.withResolvers<void>();
        const onNewerTerm = (term: number): void => {
          this.#newestTerm = Math.max(this.#newestTerm, term);
          over.resolve();
        };
        const plane = await startPlane({
          store,
          leadership,
          door: { open: async (onChannel) => world.network.listen(life, this.endpoint, onChannel) },
          clock: life.clock,
          random,
          log,
          version: 'simulated',
          recovery: { trustGuard: world.trustsGuards, lockWaitMs: 120_000 },
          makePlan: async (snapshot, ask) => planned(snapshot, ask),
          power: (spec) => {
            const controller = world.power(spec);
            return {
              read: (signal) => life.answer(() => controller.read(signal)),
              off: (signal) => life.answer(() => controller.off(signal)),
              on: (signal) => life.answer(() => controller.on(signal)),
              shutDown: (signal) => life.answer(() => controller.shutDown(signal)),
            };
          },
          onNewerTerm,
        });
        world.note('server', `${this.name} leads in term ${leadership.term}`);
        this.#plane = plane;
        await Promise.race([over.promise, lost(leadership)]);
        if (!life.isOver) this.#plane = undefined;
        await plane.stop();
      },
      { ttlMs: leadTtlMs, termAbove: () => this.#newestTerm, clock: life.clock, log },
    );
  }
}

function lost({ lost: signal }: Leadership): Promise<void> {
  if (signal.aborted) return Promise.resolve();
  return new Promise((resolve) => signal.addEventListener('abort', () => resolve(), { once: true }));
}
