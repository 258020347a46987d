/**
 * Work for several threads: jobs go to a function of a module, which each thread loads for itself. Jobs and answers are plain
 * data. Not here: what is worked on, and how it is split.
 */
import { availableParallelism } from 'node:os';
import { Worker } from 'node:worker_threads';

/** What a thread is started with. */
export interface PoolWork {
  readonly module: string;
  readonly name: string;
}

type Answer = { readonly ok: true; readonly value: unknown } | { readonly ok: false; readonly error: unknown };

/** Threads of one function; started when first needed, ended by `close`. */
export class Pool<Job, Result> implements Disposable {
  readonly #work: PoolWork;
  readonly #threads: number;
  readonly #idle: Worker[] = [];
  readonly #all: Worker[] = [];

  /**
   * @param module URL of the module that exports the function
   * @param name of the function
   * @param threads as many as the machine has processors, if nothing is said
   */
  constructor(module: URL, name: string, threads: number = availableParallelism()) {
    this.#work = { module: module.href, name };
    this.#threads = Math.max(1, threads);
  }

  /**
   * The function's answer to each job, in the order of the jobs.
   * @throws what the function threw, or the signal's reason; the other jobs are given up
   */
  async map(jobs: readonly Job[], signal?: AbortSignal): Promise<Result[]> {
    const results: Result[] = [];
    const waiting = jobs.map((job, i) => ({ job, i })).values();
    const run = async (): Promise<void> => {
      const worker = this.#idle.pop() ?? this.#start();
      for (const { job, i } of waiting) {
        signal?.throwIfAborted();
        results[i] = await this.#ask(worker, job, signal);
      }
      this.#idle.push(worker);
    };
    await Promise.all(Array.from({ length: Math.min(this.#threads, jobs.length) }, run));
    return results;
  }

  /** Works through all steps of something that asks for many answers at a time. */
  async drive<End>(steps: Generator<readonly Job[], End, readonly Result[]>, signal?: AbortSignal): Promise<End> {
    let step = steps.next();
    while (!step.done) step = steps.next(await this.map(step.value, signal));
    return step.value;
  }

  close(): void {
    this.#idle.length = 0;
    for (const worker of this.#all.splice(0)) void worker.terminate();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  #start(): Worker {
    const worker = new Worker(new URL('./pool-thread.ts', import.meta.url), { workerData: this.#work });
    this.#all.push(worker);
    return worker;
  }

  #ask(worker: Worker, job: Job, signal: AbortSignal | undefined): Promise<Result> {
    return new Promise((done, fail) => {
      const onMessage = (answer: Answer): void => {
        stop();
        // The cast: the function's type is the caller's word.
        if (answer.ok) done(answer.value as Result);
        else fail(answer.error instanceof Error ? answer.error : new Error(String(answer.error)));
      };
      const onError = (error: unknown): void => {
        stop();
        fail(error instanceof Error ? error : new Error(String(error)));
      };
      const onExit = (code: number): void =>
        onError(new Error(`a thread ended with ${code} in the middle of its work`));
      const onAbort = (): void => {
        void worker.terminate();
        onError(signal?.reason);
      };
      const stop = (): void => {
        worker.off('message', onMessage).off('error', onError).off('exit', onExit);
        signal?.removeEventListener('abort', onAbort);
      };
      worker.on('message', onMessage).on('error', onError).on('exit', onExit);
      signal?.addEventListener('abort', onAbort, { once: true });
      worker.postMessage(job);
    });
  }
}
