/**
 * What goes wrong, as data, and who chooses it: at random moments, and at the moments that matter (around the writes of the
 * hosts that take part in a move). All of it ceases at some moment.
 */
import { isEnd } from '../migration/phases.ts';
import type { VmId } from '../model/ids.ts';
import type { Random } from '../runtime/random.ts';
import { guestsOn } from './checks.ts';
import type { SimHost } from './host.ts';
import type { Life } from './life.ts';
import type { Cut } from './links.ts';
import type { World } from './world.ts';

export type Disturbance =
  | { readonly kind: 'kill-agent'; readonly host: string; readonly forMs: number }
  | { readonly kind: 'freeze-agent'; readonly host: string; readonly forMs: number }
  | { readonly kind: 'kill-qemu'; readonly host: string; readonly vm: VmId }
  | { readonly kind: 'kill-server'; readonly server: string; readonly forMs: number }
  | { readonly kind: 'freeze-server'; readonly server: string; readonly forMs: number }
  | { readonly kind: 'cut'; readonly network: 'control' | 'migration'; readonly cut: Cut; readonly forMs: number }
  | { readonly kind: 'slow'; readonly host: string; readonly share: number; readonly forMs: number }
  | { readonly kind: 'break-channel'; readonly machine: string }
  | { readonly kind: 'store-away'; readonly server: string; readonly forMs: number }
  | { readonly kind: 'store-unsure'; readonly server: string; readonly chance: number; readonly forMs: number }
  | { readonly kind: 'clock-step'; readonly machine: string; readonly byMs: number }
  | { readonly kind: 'power'; readonly host: string; readonly forMs: number }
  /** It never comes back; its power controller may have its own supply. */
  | { readonly kind: 'lose-host'; readonly host: string; readonly bmc: 'answers' | 'gone' }
  | { readonly kind: 'kill-guard' | 'freeze-guard'; readonly host: string; readonly forMs: number }
  /** The host does not reach its shared pool. */
  | { readonly kind: 'pool'; readonly host: string; readonly reach: 'broken' | 'hung'; readonly forMs: number }
  /** What its agent keeps finds no room. */
  | { readonly kind: 'full-disk'; readonly host: string; readonly forMs: number }
  | { readonly kind: 'bmc-away'; readonly host: string; readonly forMs: number };

type Kind = Disturbance['kind'];
/** How often each, against the others. */
const weights: Readonly<Record<Kind, number>> = {
  'kill-agent': 10,
  'freeze-agent': 6,
  'kill-qemu': 6,
  'kill-server': 5,
  'freeze-server': 3,
  cut: 14,
  slow: 4,
  'break-channel': 6,
  'store-away': 3,
  'store-unsure': 4,
  'clock-step': 2,
  power: 3,
  'lose-host': 0.5,
  'kill-guard': 2,
  'freeze-guard': 2,
  pool: 3,
  'bmc-away': 2,
  'full-disk': 3,
};

const pauseMs = { light: 40_000, heavy: 9000 } as const;
/** Chance at each moment that matters. */
const momentChance = { light: 0.004, heavy: 0.02 } as const;
/** What a host writes down or its guests do when something is decided: here the order of two things counts. */
const moments = new Set<string>([
  'receiving',
  'sending',
  'handed-over',
  'continuing',
  'gone-unrun',
  'powering-off',
  'stopped',
  'completed',
  'post-copy',
  'failed',
]);
/** Chance that a message is said once more, later: a peer that hands on may do that when its channels break. */
const echoChance = { light: 0.001, heavy: 0.005 } as const;

export class Disturber {
  readonly #world: World;
  readonly #random: Random;
  readonly #level: 'light' | 'heavy';
  readonly counts = new Map<Kind, number>();
  readonly #mend = new Set<() => void>();
  #over = false;

  constructor(world: World, level: 'light' | 'heavy') {
    this.#world = world;
    this.#random = world.randomOf('disturbances');
    this.#level = level;
  }

  start(afterMs: number): void {
    const isOn = (): boolean => !this.#over && this.#world.timeline.nowMs >= afterMs;
    this.#world.onMoment = (host, what) => {
      if (!isOn() || this.#draw() >= this.#chanceAt(what)) return 'nothing';
      const draw = this.#draw();
      if (draw < 0.15) return 'kill-before';
      if (draw < 0.3) return 'kill-after';
      // Troubles that nobody survives by luck come in company.
      const many = 1 + Math.floor(this.#draw() * 3);
      for (let n = 0; n < many; n++) {
        // From a twentieth of a millisecond to three seconds: as likely early as late.
        const ms = 0.05 * 60_000 ** this.#draw();
        this.#world.timeline.after(ms, () => this.#one(host));
      }
      return 'nothing';
    };
    this.#world.network.echo = () => isOn() && this.#draw() < echoChance[this.#level];
    this.#later(afterMs);
  }

  #chanceAt(what: string): number {
    return momentChance[this.#level] * (moments.has(what) ? 1 : 0.05);
  }

  /** Nothing more goes wrong, and what lasts is mended. */
  stop(): void {
    this.#over = true;
    for (const mend of this.#mend) mend();
    this.#mend.clear();
    for (const server of this.#world.servers) server.clockOffsetMs = 0;
  }

  #later(ms: number): void {
    this.#world.timeline.after(ms, () => {
      if (this.#over) return;
      this.#one();
      this.#later(-Math.log(1 - this.#draw()) * pauseMs[this.#level]);
    });
  }

  #one(where: SimHost = this.#host()): void {
    if (this.#over) return;
    const disturbance = this.#choose(this.#draw() < 0.7 ? where : this.#host());
    if (disturbance) this.apply(disturbance);
  }

  apply(disturbance: Disturbance): void {
    const world = this.#world;
    this.counts.set(disturbance.kind, (this.counts.get(disturbance.kind) ?? 0) + 1);
    world.note('disturbance', wordsOf(disturbance));
    const until = (ms: number, mend: () => void): void => {
      this.#mend.add(mend);
      world.timeline.after(ms, () => {
        if (this.#mend.delete(mend)) mend();
      });
    };
    const server = (name: string) => world.servers.find((each) => each.name === name);
    switch (disturbance.kind) {
      case 'kill-agent':
        return world.host(disturbance.host).killAgent(disturbance.forMs);
      case 'freeze-agent': {
        const life = world.host(disturbance.host).agent;
        life?.freeze();
        return until(disturbance.forMs, () => life?.thaw());
      }
      case 'kill-qemu':
        world.checks.harmed(disturbance.vm);
        world.machinesStirred = true;
        return world.host(disturbance.host).machine.killProcess(disturbance.vm);
      case 'kill-server':
        return server(disturbance.server)?.kill(disturbance.forMs);
      case 'freeze-server': {
        const life = server(disturbance.server)?.life;
        life?.freeze();
        return until(disturbance.forMs, () => life?.thaw());
      }
      case 'cut': {
        const links = disturbance.network === 'control' ? world.network.links : world.migrationLinks;
        links.cut(disturbance.cut);
        return until(disturbance.forMs, () => links.mend(disturbance.cut));
      }
      case 'slow':
        world.migrationLinks.slow(disturbance.host, disturbance.share);
        return until(disturbance.forMs, () => world.migrationLinks.slow(disturbance.host, 1));
      case 'break-channel':
        world.network.breakOne(disturbance.machine);
        return;
      case 'store-away':
      case 'store-unsure': {
        const trouble = server(disturbance.server)?.trouble;
        if (!trouble) return;
        if (disturbance.kind === 'store-away') trouble.isAway = true;
        else trouble.unknown = disturbance.chance;
        return until(disturbance.forMs, () => {
          if (disturbance.kind === 'store-away') trouble.isAway = false;
          else trouble.unknown = 0;
        });
      }
      case 'clock-step': {
        const host = world.hosts.find(({ name }) => name === disturbance.machine);
        if (host) host.clockOffsetMs += disturbance.byMs;
        const clock = server(disturbance.machine);
        if (clock) clock.clockOffsetMs += disturbance.byMs;
        return;
      }
      case 'power': {
        const host = world.host(disturbance.host);
        host.powerOff();
        return until(disturbance.forMs, () => host.powerOn());
      }
      case 'lose-host': {
        const host = world.host(disturbance.host);
        host.isLost = true;
        host.powerOff();
        host.bmc = disturbance.bmc;
        return;
      }
      case 'kill-guard':
        return world.host(disturbance.host).guard.kill(disturbance.forMs);
      case 'freeze-guard': {
        const life = world.host(disturbance.host).guard.life;
        life?.freeze();
        return until(disturbance.forMs, () => life?.thaw());
      }
      case 'pool': {
        const { pool } = world.host(disturbance.host).guard;
        pool.reach = disturbance.reach;
        return until(disturbance.forMs, () => (pool.reach = 'well'));
      }
      case 'full-disk': {
        const { disk } = world.host(disturbance.host);
        disk.isFull = true;
        return until(disturbance.forMs, () => (disk.isFull = false));
      }
      case 'bmc-away': {
        const host = world.host(disturbance.host);
        if (host.bmc !== 'answers') return;
        host.bmc = 'away';
        return until(disturbance.forMs, () => {
          if (host.bmc === 'away') host.bmc = 'answers';
        });
      }
    }
  }

  #choose(host: SimHost): Disturbance | undefined {
    const server = this.#of(this.#world.servers)?.name ?? '';
    const forMs = this.#duration();
    const kind = this.#kind();
    switch (kind) {
      case 'kill-agent':
      case 'freeze-agent':
        return this.#isLeftAlone(host.guard.life) ? undefined : { kind, host: host.name, forMs };
      case 'kill-qemu': {
        const vm = this.#of(guestsOn(host));
        return vm === undefined ? undefined : { kind, host: host.name, vm };
      }
      case 'kill-server':
      case 'freeze-server':
      case 'store-away':
        return { kind, server, forMs };
      case 'store-unsure':
        return { kind, server, chance: 0.1 + 0.5 * this.#draw(), forMs };
      case 'cut':
        return this.#cut(host, server, forMs);
      case 'slow':
        return { kind, host: host.name, share: 0.02 + 0.5 * this.#draw(), forMs };
      case 'break-channel':
        return { kind, machine: host.name };
      case 'clock-step': {
        const machine = this.#draw() < 0.7 ? host.name : server;
        return { kind, machine, byMs: Math.round((this.#draw() - 0.5) * (this.#draw() < 0.5 ? 4000 : 400_000)) };
      }
      case 'power':
        return { kind, host: host.name, forMs: 5000 + forMs };
      case 'lose-host':
        // One of them is what a small fleet has room for.
        return this.#world.hosts.some(({ isLost }) => isLost)
          ? undefined
          : { kind, host: host.name, bmc: this.#draw() < 0.5 ? 'answers' : 'gone' };
      case 'kill-guard':
      case 'freeze-guard':
        return this.#isLeftAlone(host.agent) ? undefined : { kind, host: host.name, forMs };
      case 'bmc-away':
      case 'full-disk':
        return { kind, host: host.name, forMs };
      case 'pool':
        return { kind, host: host.name, reach: this.#draw() < 0.5 ? 'broken' : 'hung', forMs };
    }
  }

  /**
   * Guard and agent stand in for each other, and a watchdog for both. Who trusts guards without one has to bear what follows
   * when both hang: there the other program of a host is left alone while one is down.
   */
  #isLeftAlone(other: Life | undefined): boolean {
    return this.#world.trustsGuards && (other === undefined || other.isFrozen);
  }

  #cut(host: SimHost, server: string, forMs: number): Disturbance {
    const network = this.#draw() < 0.5 ? 'control' : 'migration';
    const other = network === 'control' && this.#draw() < 0.6 ? server : this.#host().name;
    const draw = this.#draw();
    const cut: Cut =
      draw < 0.4 || other === host.name
        ? { of: host.name }
        : draw < 0.7
          ? { between: [host.name, other] }
          : draw < 0.85
            ? { from: host.name, to: other }
            : { from: other, to: host.name };
    return { kind: 'cut', network, cut, forMs };
  }

  /** Mostly one that takes part in a move. */
  #host(): SimHost {
    const { hosts } = this.#world;
    const fallback = this.#of(hosts);
    if (!fallback) throw new Error('a world without hosts');
    if (this.#draw() < 0.3) return fallback;
    const fleet = this.#world.leaders()[0]?.plane?.fleet;
    const open = this.#of(fleet?.unsettledMigrations().filter(({ phase }) => !isEnd(phase)) ?? []);
    if (!fleet || !open) return fallback;
    const name = fleet.hostName(this.#draw() < 0.5 ? open.source : open.target);
    return hosts.find((host) => host.name === name) ?? fallback;
  }

  #kind(): Kind {
    const entries = Object.entries(weights) as [Kind, number][]; // an object's keys are strings to the compiler
    let left = this.#draw() * entries.reduce((sum, [, weight]) => sum + weight, 0);
    for (const [kind, weight] of entries) {
      left -= weight;
      if (left < 0) return kind;
    }
    return 'kill-agent';
  }

  /** Moments, seconds, or a minute. */
  #duration(): number {
    const draw = this.#draw();
    const longest = draw < 0.3 ? 500 : draw < 0.8 ? 8000 : 60_000;
    return 20 + this.#draw() * longest;
  }

  #of<T>(all: readonly T[]): T | undefined {
    return all[Math.floor(this.#draw() * all.length)];
  }

  #draw(): number {
    return this.#random.next();
  }
}

function wordsOf(disturbance: Disturbance): string {
  const { kind, ...rest } = disturbance;
  return `${kind} ${JSON.stringify(rest, (_, value: unknown) => (typeof value === 'number' ? Math.round(value * 100) / 100 : value))}`;
}
