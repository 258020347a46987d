/** `drover server` as a program of its own, on loopback and a directory: started, killed, and started again on the same ports. */
import { spawn, type ChildProcess } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { UserError } from '../model/failure.ts';

const repository = join(import.meta.dirname, '..', '..');
/** One that was killed holds the lead of its store for a quarter of a minute. */
const readyWithinMs = 45_000;
const endWithinMs = 5_000;

export interface ServerProgramOptions {
  readonly state: string;
  /** 0: one that is free; kept afterwards. */
  readonly port: number;
  readonly onLog?: (line: string) => void;
}

export class ServerProgram {
  readonly #options: ServerProgramOptions;
  #child: ChildProcess | undefined;
  #port: number;
  #agentsPort = 0;

  constructor(options: ServerProgramOptions) {
    this.#options = options;
    this.#port = options.port;
  }

  get url(): string {
    return `http://127.0.0.1:${this.#port}`;
  }

  get agents(): { address: string; port: number } {
    return { address: '127.0.0.1', port: this.#agentsPort };
  }

  get token(): string {
    return readFileSync(join(this.#options.state, 'token'), 'utf8').trim();
  }

  get fleetKeyFile(): string {
    return join(this.#options.state, 'fleet.key');
  }

  /** Resolves when both ports can be used. @throws UserError with what the server said */
  async start(): Promise<void> {
    const { state, onLog } = this.#options;
    const child = spawn(
      process.execPath,
      [
        '--disable-warning=ExperimentalWarning',
        join(repository, 'src', 'main.ts'),
        'server',
        `--state=${state}`,
        `--listen=127.0.0.1:${this.#port}`,
        `--agents=127.0.0.1:${this.#agentsPort}`,
        '--log-level=warn',
      ],
      // In a group of its own: a Ctrl-C reaches us, and we end it in order.
      { stdio: ['ignore', 'pipe', 'pipe'], detached: true },
    );
    this.#child = child;
    // However this process ends, the server does not outlive it.
    process.on('exit', this.#killNow);
    let said = '';
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const look = (chunk: Buffer): void => {
      said = (said + chunk.toString()).slice(-20_000);
      const ready = /ready: http:\S+:(\d+) \(agents on \S+:(\d+)\)/.exec(said);
      if (!ready) return;
      this.#port = Number(ready[1]);
      this.#agentsPort = Number(ready[2]);
      resolve();
    };
    child.stdout.on('data', look);
    child.stderr.on('data', (chunk: Buffer) => {
      said = (said + chunk.toString()).slice(-20_000);
      for (const line of chunk.toString().split('\n')) if (line !== '') onLog?.(line);
    });
    const failed = (why: string): void =>
      reject(new UserError('unavailable', `The server did not start: ${why}.\n${said.trim()}`, 'Is the port in use?'));
    child.once('error', (error) => failed(error.message));
    child.once('exit', (code, signal) => failed(`it ended with ${signal ?? code}`));
    const timer = setTimeout(() => failed(`it was not ready within ${readyWithinMs / 1000} s`), readyWithinMs);
    try {
      await promise;
    } finally {
      clearTimeout(timer);
    }
  }

  /** As kill -9; resolves when it is gone. */
  async kill(): Promise<void> {
    await this.#end('SIGKILL');
  }

  async stop(): Promise<void> {
    await this.#end('SIGTERM');
  }

  readonly #killNow = (): void => void this.#child?.kill('SIGKILL');

  async #end(signal: NodeJS.Signals): Promise<void> {
    const child = this.#child;
    this.#child = undefined;
    if (child) process.off('exit', this.#killNow);
    if (!child || child.exitCode !== null || child.signalCode !== null) return;
    const gone = new Promise<void>((resolve) => child.once('exit', () => resolve()));
    child.kill(signal);
    const timer = setTimeout(() => child.kill('SIGKILL'), endWithinMs);
    await gone;
    clearTimeout(timer);
  }
}
