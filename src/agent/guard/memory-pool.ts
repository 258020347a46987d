/** A pool that exists in memory only, shared by the hosts of one process: for tests and the simulator. */
import type { Lease, LeaseBlocks, LeasePool, TakenMark } from './lease.ts';

/** What all hosts of one pool see. */
export class MemoryStorage {
  readonly id: string;
  readonly leases = new Map<string, Lease>();
  readonly marks = new Map<string, TakenMark>();

  constructor(id = 'pool-1') {
    this.id = id;
  }
}

/** How one host reaches the storage. `broken`: each call fails; `hung`: none returns before it is something else again. */
export class MemoryPool implements LeasePool {
  readonly name: string;
  readonly #storage: MemoryStorage;
  readonly #waiting: (() => void)[] = [];
  #reach: 'well' | 'broken' | 'hung' = 'well';

  constructor(storage: MemoryStorage, name = 'default') {
    this.#storage = storage;
    this.name = name;
  }

  set reach(reach: 'well' | 'broken' | 'hung') {
    this.#reach = reach;
    if (reach !== 'hung') for (const wake of this.#waiting.splice(0)) wake();
  }

  async identify(): Promise<string> {
    await this.#answer();
    return this.#storage.id;
  }

  async read(host: string): Promise<LeaseBlocks> {
    await this.#answer();
    return { lease: this.#storage.leases.get(host) ?? null, taken: this.#storage.marks.get(host) ?? null };
  }

  async writeLease(lease: Lease, how: 'create' | 'overwrite'): Promise<void> {
    await this.#answer();
    if (how === 'overwrite' && !this.#storage.leases.has(lease.host)) throw new Error('there is no such lease');
    this.#storage.leases.set(lease.host, lease);
  }

  async writeTaken(mark: TakenMark): Promise<void> {
    await this.#answer();
    this.#storage.marks.set(mark.host, mark);
  }

  async #answer(): Promise<void> {
    while (this.#reach === 'hung') await new Promise<void>((resolve) => this.#waiting.push(resolve));
    if (this.#reach === 'broken') throw new Error('the pool cannot be written');
  }
}
