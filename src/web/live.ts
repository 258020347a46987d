/**
 * What the fleet is now: one store, fed by the server's events, read by `useLive` selectors. Entries are replaced, never changed, so
 * that whoever reads one is told only of its own changes. After each connection, the first and those after a break, everything is
 * read anew; what is pushed meanwhile is put on top.
 *
 * Not here: how to sign in (session.ts), what is done to the fleet (pages call the client).
 */
import { useSyncExternalStore } from 'react';
import { UserError, messageOf } from '../model/failure.ts';
import type { Client } from '../wire/client.ts';
import type { DrainView } from '../wire/drains.ts';
import type { PlanView } from '../wire/balance.ts';
import type { RecoveryView } from '../wire/recovery.ts';
import type { EventView, HostView, MigrationSampleView, MigrationView, ReplyOf, VmView } from '../wire/endpoints.ts';
import { byName } from './words.ts';

export type Connection =
  | { readonly kind: 'connecting' }
  | { readonly kind: 'live' }
  | { readonly kind: 'reconnecting'; readonly since: number }
  | { readonly kind: 'failed'; readonly says: string };

export interface Alarm {
  readonly at: number;
  readonly about: string;
  readonly says: string;
}

/** A load as it was at some moments, oldest first. */
export interface LoadHistory {
  readonly at: readonly number[];
  readonly value: readonly number[];
}

const recentMigrations = 300;
const samplesKept = 1200;
const loadsKept = 450;
/** Of so many VMs each one's load is remembered; of more, none. */
const rememberLoadsUpTo = 2500;
const alarmsKept = 100;

/** Entries by key, and a list of them that is made anew only when one has changed. */
class Table<T> {
  readonly #entries = new Map<string, T>();
  readonly #keyOf: (entry: T) => string;
  readonly #order: (a: T, b: T) => number;
  #list: readonly T[] | undefined;
  /** What the order is made of does not change while an entry is there, so only new keys are sorted in. */
  #keys: string[] | undefined;
  version = 0;

  constructor(keyOf: (entry: T) => string, order: (a: T, b: T) => number) {
    this.#keyOf = keyOf;
    this.#order = order;
  }

  get(key: string): T | undefined {
    return this.#entries.get(key);
  }

  put(entry: T): void {
    const key = this.#keyOf(entry);
    if (!this.#entries.has(key)) this.#keys = undefined;
    this.#entries.set(key, entry);
    this.#changed();
  }

  remove(key: string): void {
    if (!this.#entries.delete(key)) return;
    this.#keys = undefined;
    this.#changed();
  }

  replaceAll(entries: readonly T[]): void {
    this.#entries.clear();
    this.#keys = undefined;
    for (const entry of entries) this.#entries.set(this.#keyOf(entry), entry);
    this.#changed();
  }

  get size(): number {
    return this.#entries.size;
  }

  list(): readonly T[] {
    if (this.#list) return this.#list;
    if (!this.#keys) {
      this.#list = [...this.#entries.values()].sort(this.#order);
      this.#keys = this.#list.map(this.#keyOf);
      return this.#list;
    }
    return (this.#list = this.#keys.flatMap((key) => this.#entries.get(key) ?? []));
  }

  #changed(): void {
    this.#list = undefined;
    this.version++;
  }
}

const newestFirst = <T extends { startedAt: number }>(a: T, b: T): number => b.startedAt - a.startedAt;

export class Live {
  readonly hosts = new Table<HostView>(
    ({ id }) => id,
    (a, b) => byName(a.name, b.name),
  );
  readonly vms = new Table<VmView>(
    ({ id }) => id,
    (a, b) => byName(a.name, b.name),
  );
  readonly migrations = new Table<MigrationView>(({ id }) => id, newestFirst);
  readonly drains = new Table<DrainView>(({ id }) => id, newestFirst);
  readonly plans = new Table<PlanView>(
    ({ id }) => id ?? '',
    (a, b) => b.createdAt - a.createdAt,
  );
  readonly recoveries = new Table<RecoveryView>(
    ({ id }) => id,
    (a, b) => b.detectedAt - a.detectedAt,
  );
  readonly client: Client;
  connection: Connection = { kind: 'connecting' };
  /** What has been read at least once. Of a large fleet the hosts are there long before their VMs. */
  loaded: 'nothing' | 'hosts' | 'all' = 'nothing';
  status: ReplyOf<'getStatus'> | undefined;
  /** Who is signed in, and what they may do. */
  me: ReplyOf<'getMe'> | undefined;
  alarms: readonly Alarm[] = [];
  readonly #samples = new Map<string, readonly MigrationSampleView[]>();
  readonly #loads = new Map<string, LoadHistory>();
  readonly #listeners = new Set<() => void>();
  #held: EventView[] | undefined;
  #isTelling = false;
  #byHost: { version: number; vms: ReadonlyMap<string, readonly VmView[]> } | undefined;
  #open: { version: number; migrations: readonly MigrationView[] } | undefined;

  constructor(client: Client) {
    this.client = client;
  }

  subscribe = (listener: () => void): (() => void) => {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  };

  /** Until the signal. @throws UserError unauthorized */
  async run(signal: AbortSignal): Promise<void> {
    let reading: AbortController | undefined;
    const events = this.client.events({
      loads: true,
      signal,
      giveUpAfterMs: Infinity,
      onOpen: () => {
        reading?.abort();
        reading = new AbortController();
        this.#held = [];
        void this.#readAll(AbortSignal.any([signal, reading.signal]));
      },
      onBreak: () => {
        if (this.connection.kind !== 'reconnecting') this.#connect({ kind: 'reconnecting', since: Date.now() });
      },
    });
    for await (const { event } of events) {
      if (this.#held) this.#held.push(event);
      else this.#apply(event);
      this.#tell();
    }
  }

  host(name: string): HostView | undefined {
    return this.hosts.list().find((host) => host.name === name || host.id === name);
  }

  vm(ref: string): VmView | undefined {
    return this.vms.get(ref) ?? this.vms.list().find(({ name }) => name === ref);
  }

  samplesOf(migration: string): readonly MigrationSampleView[] {
    return this.#samples.get(migration) ?? none;
  }

  loadOf(id: string): LoadHistory {
    return this.#loads.get(id) ?? noLoad;
  }

  /** What was before this page was opened, or is not remembered here: from the server. */
  async readLoads(of: { readonly host: string } | { readonly vm: string }, signal: AbortSignal): Promise<void> {
    const { id, cpu } = await this.client.getLoads({ query: of }, { signal });
    const own = this.#loads.get(id) ?? noLoad;
    const ownSince = own.at[0] ?? Infinity;
    const before = cpu.filter(({ at }) => at < ownSince);
    this.#loads.set(id, {
      at: [...before.map(({ at }) => at), ...own.at],
      value: [...before.map(({ value }) => value), ...own.value],
    });
    this.#tell();
  }

  /** By name of the host. */
  vmsByHost(): ReadonlyMap<string, readonly VmView[]> {
    if (this.#byHost?.version !== this.vms.version) {
      const vms = new Map<string, VmView[]>();
      for (const vm of this.vms.list()) {
        const there = vms.get(vm.host);
        if (there) there.push(vm);
        else vms.set(vm.host, [vm]);
      }
      this.#byHost = { version: this.vms.version, vms };
    }
    return this.#byHost.vms;
  }

  openMigrations(): readonly MigrationView[] {
    if (this.#open?.version !== this.migrations.version) {
      const migrations = this.migrations.list().filter(({ ended }) => !ended);
      this.#open = { version: this.migrations.version, migrations };
    }
    return this.#open.migrations;
  }

  /** What a page has read by itself, or got back from what it did. */
  keep(migrations: readonly MigrationView[]): void {
    for (const migration of migrations) this.migrations.put(migration);
    this.#tell();
  }

  keepPlan(plan: PlanView): void {
    if (plan.id !== null) this.plans.put(plan);
    this.#tell();
  }

  keepDrain(drain: DrainView): void {
    this.drains.put(drain);
    this.#tell();
  }

  async #readAll(signal: AbortSignal): Promise<void> {
    const { client } = this;
    const within = { signal };
    try {
      // The first time hosts are shown as soon as they are there; what changes after that is held, and put on top below.
      const firstHosts = this.loaded === 'all' ? undefined : await client.listHosts(undefined, within);
      if (firstHosts) {
        this.hosts.replaceAll(firstHosts);
        this.loaded = 'hosts';
        this.#tell();
      }
      const [me, status, hosts, vms, migrations, drains, plans, recoveries] = await Promise.all([
        client.getMe(undefined, within),
        client.getStatus(undefined, within),
        firstHosts ?? client.listHosts(undefined, within),
        client.listVms(undefined, within),
        client.listMigrations({ query: { limit: recentMigrations } }, within),
        client.listDrains(undefined, within),
        client.listPlans({ query: { limit: 50 } }, within),
        client.listRecoveries(undefined, within),
      ]);
      if (signal.aborted) return;
      this.me = me;
      this.status = status;
      this.hosts.replaceAll(hosts);
      this.vms.replaceAll(vms);
      this.migrations.replaceAll(migrations);
      this.drains.replaceAll(drains);
      this.plans.replaceAll(plans);
      this.recoveries.replaceAll(recoveries);
      this.loaded = 'all';
      for (const event of this.#held ?? []) this.#apply(event);
      this.#held = undefined;
      this.#connect({ kind: 'live' });
    } catch (error) {
      if (signal.aborted) return;
      // The stream breaks too when the server is away, and a new one reads again.
      if (error instanceof UserError && error.code !== 'unavailable' && error.code !== 'timed-out')
        this.#connect({ kind: 'failed', says: messageOf(error) });
      else setTimeout(() => !signal.aborted && void this.#readAll(signal), 1000);
    }
  }

  #connect(connection: Connection): void {
    this.connection = connection;
    this.#tell();
  }

  #apply(event: EventView): void {
    switch (event.type) {
      case 'host':
        return this.hosts.put(event.host);
      case 'host-removed':
        return this.hosts.remove(event.id);
      case 'vm':
        return this.vms.put(event.vm);
      case 'vm-removed':
        return this.vms.remove(event.id);
      case 'migration':
        return this.migrations.put(event.migration);
      case 'drain':
        return this.drains.put(event.drain);
      case 'plan':
        return this.plans.put(event.plan);
      case 'recovery':
        return this.recoveries.put(event.recovery);
      case 'sample':
        return this.#sampled(event.sample);
      case 'loads':
        return this.#loaded(event);
      case 'alarm':
        this.alarms = [event, ...this.alarms].slice(0, alarmsKept);
        return;
      case 'task':
      case 'decision':
        return;
      default:
        // A newer server's events were left out by the client.
        return;
    }
  }

  #sampled(sample: MigrationSampleView): void {
    const before = this.#samples.get(sample.migration) ?? none;
    this.#samples.set(sample.migration, [...before.slice(1 - samplesKept), sample]);
    const migration = this.migrations.get(sample.migration);
    if (migration && !migration.ended) this.migrations.put({ ...migration, sample });
  }

  #loaded({ at, hosts, vms }: Extract<EventView, { type: 'loads' }>): void {
    for (const { host: id, cpuLoad, memoryUsedMiB } of hosts) {
      const host = this.hosts.get(id);
      if (host) this.hosts.put({ ...host, cpuLoad, memoryUsedMiB });
      this.#remember(id, at, cpuLoad);
    }
    const remember = this.vms.size <= rememberLoadsUpTo;
    for (const { vm: id, cpuCores, memoryResidentMiB } of vms) {
      const vm = this.vms.get(id);
      if (vm) this.vms.put({ ...vm, cpuCores, memoryResidentMiB });
      if (remember) this.#remember(id, at, cpuCores);
    }
  }

  #remember(id: string, at: number, value: number): void {
    const before = this.#loads.get(id) ?? noLoad;
    this.#loads.set(id, {
      at: [...before.at.slice(1 - loadsKept), at],
      value: [...before.value.slice(1 - loadsKept), value],
    });
  }

  /** Once a frame, however much came in; by the clock where there are no frames, as in a tab that nobody sees. */
  #tell(): void {
    if (this.#isTelling) return;
    this.#isTelling = true;
    let told = false;
    const now = (): void => {
      if (told) return;
      told = true;
      this.#isTelling = false;
      for (const listener of this.#listeners) listener();
    };
    requestAnimationFrame(now);
    setTimeout(now, 250);
  }
}

/** The server tells of changes only: until now it is as it was told last. */
export function upTo(now: number, { at, value }: LoadHistory): LoadHistory {
  const last = value.at(-1);
  return last === undefined || now <= (at.at(-1) ?? now)
    ? { at, value }
    : { at: [...at, now], value: [...value, last] };
}

const none: readonly MigrationSampleView[] = [];
const noLoad: LoadHistory = { at: [], value: [] };

let current: Live | undefined;

/** The store of the session that is signed in. */
export function live(): Live {
  if (!current) throw new Error('nobody is signed in');
  return current;
}

export function setLive(next: Live | undefined): void {
  current = next;
}

/** @param select must give the same value while nothing it reads has changed */
export function useLive<T>(select: (live: Live) => T): T {
  const store = live();
  return useSyncExternalStore(store.subscribe, () => select(store));
}
