/** The lives of one simulated host's guard, which is the real one (agent/guard/guard.ts), and what it leaves in /run. */
import { Guard, type GuardMemory, type PoolGuests } from '../agent/guard/guard.ts';
import { defaultLeaseTimeMs } from '../agent/guard/lease.ts';
import { MemoryPool } from '../agent/guard/memory-pool.ts';
import type { GuardState } from '../agent/guard/state-file.ts';
import { mayStroke, watchdogCovers } from '../agent/guard/watchdog.ts';
import type { Timer } from '../runtime/clock.ts';
import { gatedPool } from './gate.ts';
import type { SimHost } from './host.ts';
import { Life } from './life.ts';
import type { World } from './world.ts';

const tickMs = 500;
/** What the drivers of most boards are set to. */
const watchdogMs = 10_000;
const bootMs = 20_000;

export class SimGuard {
  readonly pool: MemoryPool;
  readonly guests: PoolGuests;
  /** Gone with the host's boot. */
  state: GuardState | null = null;
  /** The host is going to sleep. */
  rests = false;
  readonly #world: World;
  readonly #host: SimHost;
  /** Resets the host when it is not stroked. */
  #watchdog: Timer | undefined;
  #life: Life | undefined;
  #lives = 0;

  constructor(world: World, host: SimHost) {
    this.#world = world;
    this.#host = host;
    this.pool = new MemoryPool(world.storage);
    const { machine } = host;
    this.guests = {
      usingPool: () => machine.processes.map(({ vm }) => vm),
      kill: () => {
        world.machinesStirred = true;
        for (const { vm } of machine.processes) {
          world.checks.harmed(vm);
          machine.killProcess(vm);
        }
      },
    };
  }

  get life(): Life | undefined {
    return this.#life;
  }

  start(): void {
    if (this.#life || !this.#host.hasPower) return;
    const life = new Life(this.#world.timeline, this.#host);
    this.#life = life;
    this.#lives++;
    void this.#run(life);
  }

  /** As kill -9; its supervisor starts it again. */
  kill(againAfterMs = 1000): void {
    if (!this.#life) return;
    this.#world.note('guard', `of ${this.#host.name} ends`);
    this.#life.end();
    this.#life = undefined;
    this.#world.timeline.after(againAfterMs, () => this.start());
  }

  powerLost(): void {
    this.#life?.end();
    this.#life = undefined;
    this.state = null;
    this.rests = false;
    this.#watchdog?.cancel();
    this.#watchdog = undefined;
    this.pool.reach = 'well';
  }

  async #run(life: Life): Promise<void> {
    const { name, bootId } = this.#host;
    const { clock } = life;
    const writer = `${name}-guard-${this.#lives}`;
    let memory = this.state?.pools[0]?.memory;
    const save = (): void => {
      if (life.isOver) return;
      this.state = {
        schema: 1,
        bootId,
        guard: { pid: this.#lives, startTicks: '0' },
        tickedAtMs: clock.monotonic(),
        watchdog: this.#world.hasWatchdogs && watchdogCovers(watchdogMs, defaultLeaseTimeMs),
        pools: memory === undefined ? [] : [{ name: this.pool.name, paths: [], memory }],
      };
    };
    const guard = new Guard({
      host: name,
      bootId,
      writer,
      leaseTimeMs: defaultLeaseTimeMs,
      clock,
      pool: gatedPool(this.pool, life),
      guests: {
        usingPool: () => this.guests.usingPool(),
        kill: () => {
          if (!life.isOver) this.guests.kill();
        },
      },
      log: this.#world.log.of(`${name} guard`, life),
      remembered: memory ?? null,
      remember: (now: GuardMemory) => {
        memory = now;
        save();
      },
    });
    const never = new AbortController().signal;
    void guard.run(never);
    for (;;) {
      guard.rest(this.rests);
      save();
      if (
        this.#world.hasWatchdogs &&
        mayStroke(clock.monotonic() + watchdogMs, guard.safeUntilMs(), defaultLeaseTimeMs)
      )
        this.#stroke();
      await clock.sleep(tickMs);
    }
  }

  #stroke(): void {
    this.#watchdog?.cancel();
    this.#watchdog = this.#world.timeline.after(watchdogMs, () => {
      this.#world.note('guard', `the watchdog resets ${this.#host.name}`);
      this.#host.powerOff();
      this.#world.timeline.after(bootMs, () => this.#host.powerOn());
    });
  }
}
