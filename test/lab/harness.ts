/**
 * What scenarios stand on: one warm lab, guests that are used again, the checker that finds leftovers, and the waiting.
 * Also for the benchmark, which needs the same guests and moves. Not here: the scenarios, and running them (run.ts).
 */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import type { UserErrorCode } from '../../src/model/failure.ts';
import type { PhaseName, Technique } from '../../src/model/migration.ts';
import { apiPrefix } from '../../src/wire/client.ts';
import type { MigrateBody, MigrationView, VmView } from '../../src/wire/endpoints.ts';
import { problem } from '../../src/wire/errors.ts';
import { disturb, mend, type Disturbance } from '../../src/lab/break.ts';
import { untilClean } from '../../src/lab/clean.ts';
import type { GuestClient } from '../../src/lab/guest/guest-client.ts';
import { createLabVm, guestOf, vmState, type LabVm } from '../../src/lab/guests.ts';
import {
  migrationEnded,
  migrationIs,
  moveAndProve,
  proveArrival,
  type Proof,
  type ProvenMove,
} from '../../src/lab/moves.ts';
import { resetMigrations, setLink, shape, type HostLink } from '../../src/lab/network.ts';
import { apiOf, directoriesOf, hostNames } from '../../src/lab/state.ts';
import { askSupervisor } from '../../src/lab/supervise.ts';
import { hostsUp, up, type Lab } from '../../src/lab/up.ts';

/** Another name lets the scenarios of two clones run beside each other. */
export const testLabName = process.env.DROVER_TEST_LAB ?? 'test';

/** Guests that many scenarios share. */
const guestKinds = {
  idle: { memoryMiB: 256, fillMiB: 64 },
  /** The moderate writer. */
  writer: { memoryMiB: 256, fillMiB: 64, load: { pagesPerSecond: 2500, setMiB: 32 }, diskWritesPerSecond: 20 },
  /** Writes faster than a gigabit link carries. */
  heavy: { memoryMiB: 320, fillMiB: 32, load: { pagesPerSecond: 50_000, setMiB: 128 } },
} as const satisfies Record<string, Omit<LabVm, 'name'>>;
export type GuestKind = keyof typeof guestKinds;

export interface Scenario {
  readonly name: string;
  /** Three minutes unless said. */
  readonly limitMs?: number;
  run(lab: TestLab): Promise<void>;
}

export interface TestGuest {
  readonly vm: VmView;
  readonly guest: GuestClient;
}

export class TestLab {
  readonly lab: Lab;
  readonly signal: AbortSignal;

  constructor(lab: Lab, signal: AbortSignal) {
    this.lab = lab;
    this.signal = signal;
  }

  get client() {
    return this.lab.client;
  }

  get hosts(): string[] {
    return hostNames(this.lab.state.hosts);
  }

  /**
   * The shared guest of this kind, running and well, on `host` where one is given. One that an earlier scenario left dead is
   * made anew.
   */
  async guest(kind: GuestKind, host?: string): Promise<TestGuest> {
    const known = (await this.client.listVms()).find((vm) => vm.name === kind);
    if (known && known.state !== 'running') await this.remove(known);
    const settings: Omit<LabVm, 'name'> = guestKinds[kind];
    if (!known || known.state !== 'running') {
      return createLabVm(this.lab, { ...settings, name: kind, host }, this.signal);
    }
    const guest = guestOf(this.lab.state, known.address ?? '');
    if (host === undefined || known.host === host) return { vm: known, guest };
    const move = await this.client.migrateVm({ params: { vm: known.id }, body: { to: host, technique: 'hybrid' } });
    const ended = await this.ended(move);
    assert.equal(
      ended.phase,
      'completed',
      `${kind} could not be brought to ${host}: ${ended.failure?.message ?? ended.phase}`,
    );
    return { vm: await this.vm(known.id), guest };
  }

  create(wanted: LabVm): Promise<TestGuest> {
    return createLabVm(this.lab, wanted, this.signal);
  }

  async remove(vm: VmView): Promise<void> {
    const now = await this.vm(vm.id);
    // With its host lost it may be on its way to another, or wait for one.
    if (now.state === 'running' || now.state === 'starting' || now.state === 'waiting') {
      await this.client.stopVm({ params: { vm: vm.id }, body: { force: true } });
      await vmState(this.client, vm.id, ['stopped', 'crashed']);
    }
    await this.client.deleteVm({ params: { vm: vm.id }, query: { disks: 'delete' } });
    await this.until(
      `${vm.name} to be gone`,
      async () => !(await this.client.listVms()).some(({ id }) => id === vm.id),
    );
  }

  vm(id: string): Promise<VmView> {
    return this.client.getVm({ params: { vm: id } });
  }

  /** A host other than this one. */
  otherThan(host: string): string {
    const other = this.hosts.find((name) => name !== host);
    assert(other !== undefined);
    return other;
  }

  migrate(vm: VmView, to: string, technique: Technique, policy?: MigrateBody['policy']): Promise<MigrationView> {
    return this.client.migrateVm({ params: { vm: vm.id }, body: { to, technique, ...(policy && { policy }) } });
  }

  move(test: TestGuest, to: string, technique: Technique, policy?: MigrateBody['policy']): Promise<ProvenMove> {
    return moveAndProve(this.client, test.guest, { vm: test.vm.id, to, technique, policy }, { signal: this.signal });
  }

  /** Waits until the migration is in one of these phases; fails at once when it ends in another. */
  async inPhase(migration: MigrationView, ...wanted: PhaseName[]): Promise<MigrationView> {
    const view = await migrationIs(this.client, migration.id, (now) => wanted.includes(now.phase) || now.ended, {
      signal: this.signal,
      timeoutMs: 60_000,
    });
    assert(
      wanted.includes(view.phase),
      `the migration ended as ${view.phase} (${view.failure?.message ?? ''}) instead of ${wanted.join(', ')}`,
    );
    return view;
  }

  /** Warm-up that really sends: the first bytes are out. */
  async warmingUp(migration: MigrationView): Promise<MigrationView> {
    await this.inPhase(migration, 'warming-up');
    return migrationIs(this.client, migration.id, (now) => now.ended || (now.sample?.sentBytes ?? 0) > 0, {
      signal: this.signal,
      timeoutMs: 20_000,
    });
  }

  ended(migration: MigrationView, timeoutMs?: number): Promise<MigrationView> {
    return migrationEnded(this.client, migration.id, {
      signal: this.signal,
      ...(timeoutMs !== undefined && { timeoutMs }),
    });
  }

  disturb(disturbance: Disturbance): Promise<void> {
    return disturb(this.lab, disturbance);
  }

  mend(): Promise<void> {
    return mend(this.lab);
  }

  /** Waits until what was killed has been started again and every host reports. */
  async programsRun(): Promise<void> {
    await askSupervisor(
      directoriesOf(this.lab.state.name).supervisorSocket,
      { do: 'ready', timeoutMs: 30_000 },
      35_000,
    );
    await hostsUp(this.lab, this.signal);
  }

  /** Runs `fn` while the migration network is slow, so that warm-up lasts long enough to act in it. */
  async withLinkSpeed<T>(linkSpeed: string, fn: () => Promise<T>): Promise<T> {
    await shape({ ...this.lab.state, linkSpeed });
    try {
      return await fn();
    } finally {
      await shape(this.lab.state);
    }
  }

  setLink(host: string, link: HostLink, state: 'up' | 'down'): Promise<void> {
    return setLink(this.lab.state.name, host, link, state);
  }

  resetMigrations(host: string): Promise<void> {
    return resetMigrations(this.lab.state.name, this.lab.state.octet, host);
  }

  /** Asserts that the guest was not restarted and holds all it wrote. */
  async unharmed(test: TestGuest, before: Awaited<ReturnType<GuestClient['status']>>): Promise<Proof> {
    const proof = await proveArrival(test.guest, before, 'live', this.signal);
    assert(proof.ok, `the guest of ${test.vm.name} is harmed: ${proof.says}`);
    return proof;
  }

  /** Waits for something that no event tells. */
  async until(what: string, is: () => Promise<boolean>, timeoutMs = 30_000): Promise<void> {
    const deadline = performance.now() + timeoutMs;
    while (!(await is())) {
      if (performance.now() > deadline) throw new Error(`waited ${timeoutMs} ms in vain for ${what}`);
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }

  /** A request as somebody might write it by hand. */
  async request(method: string, path: string, body?: string, headers: Record<string, string> = {}): Promise<Answer> {
    const token = readFileSync(directoriesOf(this.lab.state.name).token, 'utf8').trim();
    const response = await fetch(`${apiOf(this.lab.state)}${apiPrefix}${path}`, {
      method,
      headers: {
        authorization: `Bearer ${token}`,
        ...(body !== undefined && { 'content-type': 'application/json' }),
        ...headers,
      },
      ...(body !== undefined && { body }),
      signal: AbortSignal.any([this.signal, AbortSignal.timeout(15_000)]),
    });
    return { status: response.status, body: await response.json().catch(() => undefined) };
  }

  /**
   * Asserts that the request is refused with this status and code, that the error names what it is about and what to do
   * next, and that nothing has changed.
   */
  async refused(
    request: { method: string; path: string; body?: unknown; text?: string },
    wanted: { status: number; code: UserErrorCode; names?: string },
  ): Promise<void> {
    const before = await this.records();
    const text = request.text ?? (request.body === undefined ? undefined : JSON.stringify(request.body));
    const answer = await this.request(request.method, request.path, text);
    const parsed = problem.safeParse(answer.body);
    assert(parsed.success, `not a problem document: ${answer.status} ${JSON.stringify(answer.body)}`);
    assert.deepEqual(
      { status: answer.status, code: parsed.data.code },
      { status: wanted.status, code: wanted.code },
      parsed.data.detail,
    );
    if (wanted.names !== undefined)
      assert(
        `${parsed.data.detail} ${parsed.data.hint}`.includes(wanted.names),
        `does not name ${wanted.names}: ${parsed.data.detail}`,
      );
    assert(parsed.data.hint.length > 0, 'says not what to do next');
    assert.deepEqual(await this.records(), before, 'a refused request changed something');
  }

  /** Everything that is recorded, without what changes by itself. */
  async records() {
    const [hosts, vms, migrations] = await Promise.all([
      this.client.listHosts(),
      this.client.listVms(),
      this.client.listMigrations({ query: { limit: 1000 } }),
    ]);
    return {
      hosts: hosts.map((host) => ({ ...host, cpuLoad: null, memoryUsedMiB: null, lastReportAt: null })),
      vms: vms.map((vm) => ({ ...vm, cpuCores: null, memoryResidentMiB: null })),
      migrations: migrations.map(({ id, phase, cancellable, ended, endedAt }) => ({
        id,
        phase,
        cancellable,
        ended,
        endedAt,
      })),
    };
  }

  /** Waits until nothing is left over; @throws Error with what is */
  clean(): Promise<void> {
    return untilClean(this.lab);
  }
}

export interface Answer {
  readonly status: number;
  readonly body: unknown;
}

export async function openTestLab(say: (line: string) => void, signal: AbortSignal): Promise<TestLab> {
  const lab = await up({ name: testLabName, hosts: 3, linkSpeed: '1gbit', say, signal });
  return new TestLab(lab, signal);
}
