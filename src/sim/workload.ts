/** The people of a simulated fleet: they create, start, stop, move, cancel and delete, through the objects that the API calls. */
import type { ControlPlane } from '../control/plane.ts';
import { isEnd } from '../migration/phases.ts';
import { UserError, messageOf } from '../model/failure.ts';
import { techniques, type Technique } from '../model/migration.ts';
import { vmCan, type VmRecord } from '../model/vm.ts';
import type { Random } from '../runtime/random.ts';
import { migrateBody, newVm, type MigrateBody } from '../wire/endpoints.ts';
import { taskBody } from '../wire/tasks.ts';
import { isBalanced } from './options.ts';
import type { SimServer } from './server.ts';
import type { World } from './world.ts';

/** On average. */
const taskEveryMs = 8000;
/** A distributor that acts as often as it may: what is automatic is to be seen among all that goes wrong. */
const eager = {
  mode: 'automatic',
  level: 5,
  unevenForMs: 10_000,
  dwellMs: 30_000,
  measureAfterMs: 20_000,
  movesPerHour: 1_000,
} as const;

type Act = (plane: ControlPlane) => Promise<unknown>;

export class Workload {
  readonly #world: World;
  readonly #random: Random;
  /** Tasks are drawn apart: how many there are changes nothing of what else people ask for. */
  readonly #taskRandom: Random;
  readonly #wanted: number;
  readonly #pauseMs: number;
  #created = 0;
  #over = false;
  /** How requests ended: 'done', or the code of the refusal. */
  readonly answers = new Map<string, number>();

  constructor(world: World) {
    this.#world = world;
    this.#random = world.randomOf('people');
    this.#taskRandom = world.randomOf('tasks');
    this.#wanted = world.options.vms;
    // Twenty VMs: about one request in four seconds.
    this.#pauseMs = 80_000 / world.options.vms;
  }

  start(): void {
    this.#later(3000);
    this.#taskLater();
  }

  /** Nothing is asked for any more; an automatic distributor is switched off, so that everything can come to rest. */
  stop(): void {
    this.#over = true;
    if (isBalanced(this.#world.options)) this.#switchOff();
  }

  #switchOff(): void {
    const [server] = this.#some(this.#world.leaders());
    const { plane, life } = server ?? {};
    const again = (): void => void this.#world.timeline.after(1_000, () => this.#switchOff());
    if (plane === undefined || life === undefined) return again();
    life
      .answer(() => plane.distributor.set({ mode: 'off' }, 'somebody'))
      .then(
        () => this.#world.note('people', 'balance off: done'),
        (error: unknown) => (error instanceof UserError ? again() : this.#crashed('balance off', error)),
      );
    // A server that is killed meanwhile never answers.
    this.#world.timeline.after(5_000, () => {
      if (plane.fleet.balance.mode !== 'off' || life.isOver) this.#switchOff();
    });
  }

  #later(ms: number): void {
    this.#world.timeline.after(ms, () => {
      if (this.#over) return;
      const [server] = this.#some(this.#world.leaders());
      if (server?.plane !== undefined && server.life !== undefined) this.#request(server, this.#choose(server.plane));
      const isFilling = this.#created < this.#wanted;
      this.#later(isFilling ? 100 : -Math.log(1 - this.#random.next()) * this.#pauseMs);
    });
  }

  #taskLater(): void {
    this.#world.timeline.after(taskEveryMs * (0.5 + this.#taskRandom.next()), () => {
      if (this.#over) return;
      const [server] = this.#world.leaders();
      if (server?.plane !== undefined && server.life !== undefined) this.#request(server, this.#task(server.plane));
      this.#taskLater();
    });
  }

  #request(server: SimServer, [what, act]: readonly [string, Act | undefined]): void {
    const { life } = server;
    const { plane } = server;
    if (!act || plane === undefined) return;
    const note = (says: string) => this.#world.note('people', `${what}: ${says}`);
    void life
      ?.answer(() => act(plane))
      .then(
        () => {
          this.#count('done');
          note('done');
        },
        (error: unknown) => {
          if (error instanceof UserError) {
            this.#count(error.code);
            note(error.code);
          } else {
            this.#crashed(what, error);
          }
        },
      );
  }

  #crashed(what: string, error: unknown): void {
    const says = error instanceof Error ? error.stack : messageOf(error);
    this.#world.checks.violated('no-crash', `${what} threw ${says}`);
  }

  #choose(plane: ControlPlane): readonly [string, Act | undefined] {
    const unpowered = this.#withoutPower(plane);
    if (unpowered) return unpowered;
    if (isBalanced(this.#world.options) && plane.fleet.balance.mode === 'off') {
      return ['balance on', ({ distributor }) => distributor.set(eager, 'somebody')];
    }
    if (this.#created < this.#wanted) return this.#create();
    const draw = this.#random.next();
    const vms = [...plane.fleet.vms.values()];
    const [vm] = this.#some(vms);
    if (draw < 0.03 || vm === undefined)
      return vms.length < this.#wanted * 1.2 ? this.#create() : ['nothing', undefined];
    if (draw < 0.06) {
      const off = this.#some(vms.filter(({ state }) => vmCan('delete', state)))[0];
      return off ? [`delete ${off.name}`, ({ vms: of }) => of.remove(off.name, 'delete')] : ['nothing', undefined];
    }
    if (draw < 0.1) return this.#cordon(plane);
    if (draw < 0.11) return this.#sayOfLostHost(plane);
    if (draw < 0.16) {
      const force = this.#random.next() < 0.5;
      return [
        `stop ${vm.name}${force ? ' by force' : ''}`,
        ({ vms: of }) => of.stop(vm.name, { force, timeoutMs: 10_000 }),
      ];
    }
    if (draw < 0.32) {
      const off = this.#some(vms.filter(({ state }) => vmCan('start', state)))[0];
      const to = this.#random.next() < 0.5 ? null : (this.#some([...plane.fleet.hosts.values()])[0]?.name ?? null);
      if (off) return [`start ${off.name} on ${to ?? 'its host'}`, ({ vms: of }) => of.start(off.name, to)];
    }
    if (draw < 0.42) {
      const open = this.#some(plane.fleet.unsettledMigrations().filter(({ phase }) => !isEnd(phase)))[0];
      if (open && draw < 0.35) return [`switch ${open.vmName}`, ({ migrations }) => migrations.switchNow(open.id)];
      if (open) return [`cancel ${open.vmName}`, ({ migrations }) => migrations.cancel(open.id)];
    }
    const running = this.#some(vms.filter(({ state, migration }) => state.kind === 'running' && migration === null))[0];
    return running ? this.#migrate(plane, running) : ['nothing', undefined];
  }

  /** Half of the hosts have a power controller, and it is told of. */
  #withoutPower({ fleet }: ControlPlane): readonly [string, Act] | undefined {
    for (const { name, bmcAddress } of this.#world.hosts.filter((_, at) => at % 2 === 0)) {
      const host = fleet.hostNamed(name);
      if (!host || host.power !== null) continue;
      const power = { kind: 'ipmi', address: bmcAddress, port: 623, user: 'admin', passwordFile: 'none' } as const;
      const set: Act = ({ fleet: now }) =>
        now.change((draft) => {
          const found = draft.host(host.id);
          if (found) draft.putHost({ ...found, power });
        });
      return [`power of ${name}`, set];
    }
    return undefined;
  }

  /** Somebody has gone there and looked. Not in every fleet. */
  #sayOfLostHost({ fleet, liveness }: ControlPlane): readonly [string, Act | undefined] {
    const lost = this.#world.hosts.find(({ isLost }) => isLost);
    const host = lost && fleet.hostNamed(lost.name);
    const isKnown = host !== undefined && (host.fenced !== null || !liveness.isSilent(host.id));
    if (!host || isKnown || this.#world.options.seed % 2 === 0) return ['nothing', undefined];
    return [`${host.name} is off, they say`, ({ recovery }) => recovery.fencedByWord(host.name, 'it is gone', false)];
  }

  #task({ fleet }: ControlPlane): readonly [string, Act | undefined] {
    const draw = () => this.#taskRandom.next();
    if (draw() < 0.15) {
      const open = [...fleet.queuedTasks(), ...fleet.givenTasks()];
      const task = open[Math.floor(draw() * open.length)];
      return task ? [`cancel ${task.id}`, ({ tasks }) => tasks.cancel(task.id)] : ['nothing', undefined];
    }
    const kind = draw();
    const { count, firstIndex, ...wish } = taskBody.parse({
      command:
        kind < 0.5 ? ['sleep', String(1 + Math.floor(40 * draw()))] : kind < 0.7 ? ['fail', '3'] : ['say', 'something'],
      cpus: 0.25,
      memoryMiB: 32,
      timeLimitMs: 20_000,
      retries: draw() < 0.3 ? 2 : 0,
      count: 1 + Math.floor(3 * draw()),
    });
    return [
      `run ${count} tasks: ${wish.command.join(' ')}`,
      ({ tasks }) => tasks.create(wish, { count, firstIndex }, null),
    ];
  }

  #create(): readonly [string, Act] {
    const name = `vm${++this.#created}`;
    const draw = () => this.#random.next();
    const body = newVm.parse({
      name,
      memoryMiB: 256 * (1 + Math.floor(11 * draw())),
      // Some have no disk at all, so that no lock keeps them from running twice.
      ...(draw() < 0.4 ? { boot: { kind: 'kernel', kernel: 'vmlinuz', initrd: null, append: '' } } : { diskMiB: 1024 }),
    });
    return [`create ${name}`, ({ vms }) => vms.create(body, null)];
  }

  #cordon(plane: ControlPlane): readonly [string, Act | undefined] {
    const hosts = [...plane.fleet.hosts.values()];
    const cordoned = hosts.filter((host) => host.cordoned);
    const [host] = cordoned.length * 4 > hosts.length ? this.#some(cordoned) : this.#some(hosts);
    if (host === undefined) return ['nothing', undefined];
    const change = { ...host, cordoned: !host.cordoned };
    return [
      `${change.cordoned ? 'cordon' : 'uncordon'} ${host.name}`,
      ({ fleet }) =>
        fleet.change((draft) => {
          const now = draft.host(host.id);
          if (now) draft.putHost({ ...now, cordoned: change.cordoned });
        }),
    ];
  }

  #migrate(plane: ControlPlane, vm: VmRecord): readonly [string, Act] {
    const draw = () => this.#random.next();
    const technique: Technique = techniques[Math.floor(draw() * techniques.length)] ?? 'auto';
    const policy: MigrateBody['policy'] = {
      ...(draw() < 0.3 ? { maxDowntimeMs: 100 + Math.floor(2000 * draw()) } : {}),
      ...(draw() < 0.2 ? { deadlineMs: 5000 + Math.floor(60_000 * draw()) } : {}),
      ...(draw() < 0.2 ? { autoConverge: true } : {}),
      ...(draw() < 0.2 ? { maxBandwidthBytesPerSecond: 50_000_000 + Math.floor(100_000_000 * draw()) } : {}),
      ...(draw() < 0.3 ? { whenNotConverging: draw() < 0.5 ? ('pause' as const) : ('post-copy' as const) } : {}),
      shutdownTimeoutMs: 10_000 + Math.floor(20_000 * draw()),
      forceOff: draw() < 0.5,
    };
    const to = draw() < 0.5 ? null : (this.#some([...plane.fleet.hosts.values()])[0]?.name ?? null);
    const body = migrateBody.parse({ to, technique, policy });
    return [
      `migrate ${vm.name} to ${to ?? 'anywhere'} by ${technique}`,
      ({ reservations }) => reservations.startMigration(vm.name, body, null, 'somebody'),
    ];
  }

  /** One of them, or none. */
  #some<T>(all: readonly T[]): readonly T[] {
    const at = Math.floor(this.#random.next() * all.length);
    return all.slice(at, at + 1);
  }

  #count(answer: string): void {
    this.answers.set(answer, (this.answers.get(answer) ?? 0) + 1);
  }
}
