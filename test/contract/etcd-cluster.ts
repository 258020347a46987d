/**
 * A real etcd of three members for tests: started, killed, frozen and started again, with mutual TLS and its data in memory.
 * Fails, and never skips, where there is no etcd.
 */
import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, existsSync, mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { etcdMembers, locateEtcd, makeCertificates } from '../../src/lab/etcd.ts';
import type { Certificates, Member } from '../../src/lab/etcd.ts';
import { systemClock } from '../../src/runtime/clock.ts';
import type { Clock } from '../../src/runtime/clock.ts';
import { openEtcd } from '../../src/store/etcd.ts';
import { Gateway } from '../../src/store/etcd-gateway.ts';
import type { EtcdTls } from '../../src/store/etcd-gateway.ts';
import type { Store } from '../../src/store/store.ts';

const upMs = 20_000;

export class EtcdCluster {
  readonly directory: string;
  readonly files: Certificates;
  readonly tls: EtcdTls;
  readonly members: readonly Member[];
  readonly #program: string;
  readonly #running = new Map<string, ChildProcess>();
  #prefixes = 0;

  private constructor(directory: string, files: Certificates, members: readonly Member[], program: string) {
    this.directory = directory;
    this.files = files;
    this.members = members;
    this.#program = program;
    const [ca, cert, key] = [files.ca, files.cert, files.key].map((file) => readFileSync(file, 'utf8'));
    this.tls = { ca: ca ?? '', cert: cert ?? '', key: key ?? '' };
  }

  /** Resolves when it takes writes. */
  static async start(): Promise<EtcdCluster> {
    const program = locateEtcd(join(import.meta.dirname, '../..'));
    const directory = mkdtempSync(join(existsSync('/dev/shm') ? '/dev/shm' : tmpdir(), 'drover-etcd-'));
    // A part of the loopback network of its own, so that several runs do not meet.
    const third = process.pid % 250;
    const addresses = [1, 2, 3].map((n) => `127.${100 + (Math.floor(process.pid / 250) % 100)}.${third}.${n}`);
    const files = await makeCertificates(join(directory, 'tls'), addresses);
    const members = etcdMembers(addresses, files, (name) => join(directory, name));
    const cluster = new EtcdCluster(directory, files, members, program);
    try {
      for (const member of members) cluster.startMember(member);
      await cluster.up();
    } catch (error) {
      await cluster.stop();
      throw error;
    }
    return cluster;
  }

  /** A client of its own; without a prefix in a store of its own. */
  open(options: { prefix?: string; clock?: Clock; only?: readonly Member[] } = {}): Store {
    const { prefix = this.newPrefix(), clock = systemClock, only = this.members } = options;
    return openEtcd({ members: only.map(({ endpoint }) => endpoint), tls: this.tls, prefix, clock });
  }

  newPrefix(): string {
    return `/test${++this.#prefixes}/`;
  }

  startMember(member: Member): void {
    const log = openSync(join(this.directory, `${member.name}.log`), 'a');
    const child = spawn(this.#program, member.args, { stdio: ['ignore', log, log] });
    closeSync(log);
    this.#running.set(member.name, child);
  }

  async kill(member: Member): Promise<void> {
    const child = this.#running.get(member.name);
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
    child.kill('SIGKILL');
    await once(child, 'exit');
  }

  freeze(member: Member): void {
    this.#running.get(member.name)?.kill('SIGSTOP');
  }

  thaw(member: Member): void {
    this.#running.get(member.name)?.kill('SIGCONT');
  }

  /** Starts what is dead, wakes what is frozen, and waits until writes are taken at every member. */
  async mend(): Promise<void> {
    for (const member of this.members) {
      this.thaw(member);
      const child = this.#running.get(member.name);
      if (child === undefined || child.exitCode !== null || child.signalCode !== null) this.startMember(member);
    }
    await this.up();
  }

  async up(): Promise<void> {
    const deadline = performance.now() + upMs;
    for (const member of this.members) {
      for (;;) {
        const store = this.open({ only: [member], prefix: '/up/' });
        try {
          await store.commit([], [{ key: member.name, put: performance.now() }]);
          break;
        } catch (error) {
          if (performance.now() > deadline)
            throw new Error(`etcd did not come up: ${this.#lastWords(member)}`, { cause: error });
          await sleep(50);
        } finally {
          await store.close();
        }
      }
    }
  }

  /** Which member leads among them. */
  async leader(): Promise<Member> {
    const gateway = new Gateway(
      this.members.map(({ endpoint }) => endpoint),
      this.tls,
      systemClock,
    );
    try {
      for (const member of this.members) {
        const answer = await gateway.call('/v3/maintenance/status', {}, { repeatable: true, member: member.endpoint });
        const { member_id: id } = answer['header'] as { member_id?: string };
        if (answer['leader'] === id) return member;
      }
    } finally {
      gateway.close();
    }
    throw new Error('no member of etcd leads');
  }

  /** Drops the history of all stores up to now. */
  async compact(): Promise<void> {
    const gateway = new Gateway(
      this.members.map(({ endpoint }) => endpoint),
      this.tls,
      systemClock,
    );
    const store = this.open({ prefix: '/compact/' });
    try {
      const done = await store.commit([], [{ key: 'now', put: 1 }]);
      if (!done.ok) throw new Error('an unguarded put was refused');
      const body = { revision: String(done.revision), physical: true };
      await gateway.call('/v3/kv/compaction', body, { repeatable: true });
    } finally {
      await store.close();
      gateway.close();
    }
  }

  async stop(): Promise<void> {
    for (const member of this.members) {
      this.thaw(member);
      await this.kill(member);
    }
    rmSync(this.directory, { recursive: true, force: true });
  }

  #lastWords(member: Member): string {
    return readFileSync(join(this.directory, `${member.name}.log`), 'utf8').slice(-800);
  }
}

/** The system's clock for a process that can be frozen: its timers fire when it wakes. */
export class FreezableClock implements Clock {
  #frozen = false;
  #late: (() => void)[] = [];

  now(): number {
    return systemClock.now();
  }
  monotonic(): number {
    return systemClock.monotonic();
  }
  setTimeout(fn: () => void, ms: number): ReturnType<Clock['setTimeout']> {
    let cancelled = false;
    const fire = (): void => {
      if (cancelled) return;
      if (this.#frozen) this.#late.push(fire);
      else fn();
    };
    const timer = systemClock.setTimeout(fire, ms);
    return {
      cancel() {
        cancelled = true;
        timer.cancel();
      },
    };
  }
  async sleep(ms: number, signal?: AbortSignal): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const stop = (): void => reject(signal?.reason);
    if (signal?.aborted === true) stop();
    signal?.addEventListener('abort', stop, { once: true });
    const timer = this.setTimeout(resolve, ms);
    try {
      await promise;
    } finally {
      timer.cancel();
      signal?.removeEventListener('abort', stop);
    }
  }
  freeze(): void {
    this.#frozen = true;
  }
  thaw(): void {
    this.#frozen = false;
    for (const fire of this.#late.splice(0)) fire();
  }
}
