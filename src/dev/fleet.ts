/**
 * The fleet of `npm run dev` and of the dashboard's tests: the real `drover server` over simulated hosts, whose guests are
 * under load. What is simulated is QEMU, the disks and the network between hosts; everything else is what runs in production.
 *
 * Not here: who moves what, and why (main.ts, and each test).
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { MemoryStorage } from '../agent/guard/memory-pool.ts';
import { calmGuest, type GuestBehaviour, type MigrationWire } from '../hypervisor/simulated-surroundings.ts';
import { UserError } from '../model/failure.ts';
import type { VmId } from '../model/ids.ts';
import { readFleetKey } from '../runtime/channel.ts';
import { systemClock } from '../runtime/clock.ts';
import { createClient, type Client } from '../wire/client.ts';
import type { HostView, NewVm, VmView } from '../wire/endpoints.ts';
import type { PlanView } from '../wire/balance.ts';
import { ServerProgram } from './server-program.ts';
import { SimulatedHost } from './simulated-host.ts';

/** How a guest behaves: what it is, for the name of the VM says the rest. */
export const guestKinds = {
  /** Serves pages: light, reads mostly. */
  web: { memoryMiB: 1024, cpus: 2, cores: 0.5, swing: 0.6, workingSetMiB: 48, dirtyPagesPerSecond: 900 },
  /** Answers queries: writes all the time, less than the link carries. */
  db: { memoryMiB: 4096, cpus: 4, cores: 1.6, swing: 0.4, workingSetMiB: 700, dirtyPagesPerSecond: 9000 },
  cache: { memoryMiB: 2048, cpus: 2, cores: 0.7, swing: 0.5, workingSetMiB: 400, dirtyPagesPerSecond: 16_000 },
  /** Writes faster than the link carries: pre-copy alone does not end. */
  build: { memoryMiB: 2048, cpus: 4, cores: 2.4, swing: 0.7, workingSetMiB: 1200, dirtyPagesPerSecond: 60_000 },
  idle: { memoryMiB: 512, cpus: 1, cores: 0.05, swing: 0.5, workingSetMiB: 16, dirtyPagesPerSecond: 100 },
} as const;
export type GuestKind = keyof typeof guestKinds;

export interface DevFleetOptions {
  readonly hosts: number;
  /** Of the API; 0: one that is free. */
  readonly port?: number;
  readonly hostMemoryMiB?: number;
  readonly hostCpus?: number;
  /** What one migration stream gets. */
  readonly linkBytesPerSecond?: number;
  readonly onServerLog?: (line: string) => void;
}

const gigabit = 118_000_000;
const longestWaitMs = 60_000;
const swingMs = 90_000;
const planAgainMs = 3_000;

export class DevFleet {
  readonly server: ServerProgram;
  readonly hosts: readonly SimulatedHost[];
  readonly client: Client;
  readonly #kinds: Map<string, GuestKind>;
  readonly #state: string;

  private constructor(parts: {
    server: ServerProgram;
    hosts: readonly SimulatedHost[];
    client: Client;
    kinds: Map<string, GuestKind>;
    state: string;
  }) {
    this.server = parts.server;
    this.hosts = parts.hosts;
    this.client = parts.client;
    this.#kinds = parts.kinds;
    this.#state = parts.state;
  }

  /** A server with all hosts joined. */
  static async start(options: DevFleetOptions): Promise<DevFleet> {
    const { hosts: count, hostMemoryMiB = 32_768, hostCpus = 16, linkBytesPerSecond = gigabit, onServerLog } = options;
    const state = mkdtempSync(join(tmpdir(), 'drover-dev-'));
    const server = new ServerProgram({
      state,
      port: options.port ?? 0,
      ...(onServerLog === undefined ? {} : { onLog: onServerLog }),
    });
    try {
      await server.start();
      const key = readFleetKey(server.fleetKeyFile);
      const hosts: SimulatedHost[] = [];
      const wire: MigrationWire = {
        rate: () => linkBytesPerSecond,
        machineAt: (address) => hosts.find(({ migrationAddress }) => migrationAddress === address)?.machine,
        onChange: () => () => {},
        latencyMs: () => 0.3,
      };
      const kinds = new Map<string, GuestKind>();
      const storage = new MemoryStorage();
      for (let number = 1; number <= count; number++) {
        hosts.push(
          new SimulatedHost({
            name: `h${number}`,
            number,
            cpus: hostCpus,
            memoryMiB: hostMemoryMiB,
            key,
            server: server.agents,
            wire,
            storage,
            behaviour: (vm) => behaviourOf(vm, kinds.get(vm)),
            linkBytesPerSecond,
          }),
        );
      }
      await Promise.all(hosts.map((host) => host.powerOn()));
      const client = createClient({ server: server.url, token: server.token });
      const fleet = new DevFleet({ server, hosts, client, kinds, state });
      await fleet.hostsWhen('all joined', (seen) => seen.length === count && seen.every(({ state }) => state === 'up'));
      return fleet;
    } catch (error) {
      await server.stop();
      rmSync(state, { recursive: true, force: true });
      throw error;
    }
  }

  /** A VM of a kind, running. */
  async run(name: string, kind: GuestKind, host: string, changes: Partial<NewVm> = {}): Promise<VmView> {
    await this.create(name, kind, host, changes);
    return this.vmWhen(name, ({ state }) => state === 'running');
  }

  /** Resolves when it is on record, not when it runs. */
  async create(name: string, kind: GuestKind, host: string, changes: Partial<NewVm> = {}): Promise<void> {
    const { cpus, memoryMiB } = guestKinds[kind];
    const body = { name, cpus, memoryMiB, host, diskMiB: 1024, labels: { kind }, ...changes };
    const vm = await this.client.createVm({ body });
    this.#kinds.set(vm.id, kind);
  }

  host(name: string): SimulatedHost {
    const found = this.hosts.find((host) => host.name === name);
    if (!found) throw new Error(`there is no host ${name}`);
    return found;
  }

  /** Asks again at each event, until it holds. */
  vmWhen(name: string, holds: (vm: VmView) => boolean): Promise<VmView> {
    return this.#when(`VM ${name}`, async () => {
      const vm = await this.client.getVm({ params: { vm: name } });
      return holds(vm) ? vm : undefined;
    });
  }

  /** All VMs there are. */
  vmsRun(): Promise<VmView[]> {
    return this.#when('all VMs run', async () => {
      const vms = await this.client.listVms();
      return vms.every(({ state }) => state === 'running') ? vms : undefined;
    });
  }

  hostsWhen(what: string, holds: (hosts: HostView[]) => boolean): Promise<HostView[]> {
    return this.#when(what, async () => {
      const hosts = await this.client.listHosts();
      return holds(hosts) ? hosts : undefined;
    });
  }

  /** All VMs of a host that was lost run elsewhere. */
  recovered(host: string): Promise<void> {
    return this.#when(`the VMs of ${host} run again`, async () => {
      const found = (await this.client.listRecoveries()).find((recovery) => recovery.host === host);
      return found && found.endedAt !== null ? true : undefined;
    }).then(() => {});
  }

  /** A plan to spread the load, as soon as the server has seen it for long enough. */
  planned(): Promise<PlanView> {
    return this.#when('a plan', () =>
      this.client.makePlan({ body: { goal: 'balance' } }).catch(async (error: unknown) => {
        if (!(error instanceof UserError)) throw error;
        await systemClock.sleep(planAgainMs); // not yet; each refusal is a line of the audit log
        return undefined;
      }),
    );
  }

  async #when<T>(what: string, look: () => Promise<T | undefined>): Promise<T> {
    const signal = AbortSignal.timeout(longestWaitMs);
    const over = new AbortController();
    try {
      // Opened first, so that nothing that changes after the look is missed.
      const events = this.client.events({ samples: false, signal: AbortSignal.any([signal, over.signal]) });
      const opened = events.next();
      for (let found = await look(); ; found = await look()) {
        if (found !== undefined) return found;
        await Promise.race([opened.then(() => events.next()), new Promise((resolve) => setTimeout(resolve, 250))]);
        if (signal.aborted) throw new Error(`did not happen within ${longestWaitMs / 1000} s: ${what}`);
      }
    } finally {
      over.abort();
    }
  }

  async close(): Promise<void> {
    await Promise.all(this.hosts.map((host) => host.powerOff()));
    await this.server.stop();
    rmSync(this.#state, { recursive: true, force: true });
  }
}

/** A kind's, with a slow swing of its own around its mean. */
function behaviourOf(vm: VmId, kind: GuestKind | undefined): GuestBehaviour {
  if (kind === undefined) return calmGuest;
  const { cores, swing, workingSetMiB, dirtyPagesPerSecond } = guestKinds[kind];
  let hash = 0;
  for (let at = 0; at < vm.length; at++) hash = (Math.imul(hash, 31) + vm.charCodeAt(at)) | 0;
  const turn = 2 * Math.PI * (Date.now() / swingMs + (hash & 0xffff) / 0x10000);
  const now = 1 + swing * Math.sin(turn);
  return {
    ...calmGuest,
    workingSetMiB,
    dirtyPagesPerSecond: dirtyPagesPerSecond * now,
    cpuCores: cores * now,
  };
}
