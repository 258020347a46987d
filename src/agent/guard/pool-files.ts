/** A pool's leases as files in its directory, reached through a thread of their own (pool-thread.ts). */
import { Worker } from 'node:worker_threads';
import type { Lease, LeaseBlocks, LeasePool, TakenMark } from './lease.ts';
import { DamagedBlock, blockBytes, decodeBlock, encodeBlock, placeOf } from './lease-block.ts';
import type { PoolCall, PoolReply } from './pool-thread.ts';

/** A writing may be looked at halfway; one that stays damaged is. */
const readTries = 3;
/** Guard and watcher make few calls at a time; more would only pile up behind a storage that hangs. */
const waitingLimit = 16;

interface Waiting {
  resolve(reply: { text: string; bytes: Uint8Array }): void;
  reject(error: Error): void;
}

export class PoolFiles implements LeasePool {
  readonly name: string;
  /** The directory as given, and as it really is once that is known. */
  paths: readonly string[];
  readonly #directory: string;
  readonly #waiting: Waiting[] = [];
  #worker: Worker | undefined;

  constructor(options: { name: string; directory: string }) {
    this.name = options.name;
    this.#directory = options.directory;
    this.paths = [options.directory];
  }

  async identify(): Promise<string> {
    const { text } = await this.#call({ do: 'identify' });
    const { id, realPath } = JSON.parse(text) as { id: string; realPath: string }; // pool-thread.ts wrote it
    this.paths = [...new Set([this.#directory, realPath])];
    return id;
  }

  async read(host: string): Promise<LeaseBlocks> {
    for (let tries = 1; ; tries++) {
      const { bytes } = await this.#call({ do: 'read', host });
      try {
        return {
          lease: decodeBlock<Lease>(bytes.subarray(0, blockBytes)),
          taken: decodeBlock<TakenMark>(bytes.subarray(blockBytes)),
        };
      } catch (error) {
        if (!(error instanceof DamagedBlock) || tries >= readTries) throw error;
      }
    }
  }

  async writeLease(lease: Lease, how: 'create' | 'overwrite'): Promise<void> {
    const block = encodeBlock(lease);
    await this.#call({ do: 'write', host: lease.host, place: placeOf.lease, block, create: how === 'create' });
  }

  async writeTaken(mark: TakenMark): Promise<void> {
    await this.#call({ do: 'write', host: mark.host, place: placeOf.taken, block: encodeBlock(mark), create: false });
  }

  /** Does not wait for a storage that hangs. */
  close(): void {
    void this.#worker?.terminate();
  }

  #call(call: PoolCall): Promise<{ text: string; bytes: Uint8Array }> {
    if (this.#waiting.length >= waitingLimit) return Promise.reject(new Error('the pool does not answer'));
    const worker = (this.#worker ??= this.#start());
    return new Promise((resolve, reject) => {
      this.#waiting.push({ resolve, reject }); // answered in the order of asking
      worker.postMessage(call);
    });
  }

  #start(): Worker {
    const worker = new Worker(new URL('pool-thread.ts', import.meta.url), {
      workerData: { directory: this.#directory },
    });
    worker.unref();
    worker.on('message', (reply: PoolReply) => {
      const waiting = this.#waiting.shift();
      if (reply.ok) waiting?.resolve(reply);
      else waiting?.reject(new Error(reply.error));
    });
    const ended = (cause?: Error): void => {
      if (this.#worker === worker) this.#worker = undefined; // the next call starts another
      for (const waiting of this.#waiting.splice(0)) {
        waiting.reject(new Error(`the thread of the pool ${this.name} has ended`, { cause }));
      }
    };
    worker.once('error', ended);
    worker.once('exit', () => ended());
    return worker;
  }
}
