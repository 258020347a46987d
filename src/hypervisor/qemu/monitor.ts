/**
 * A guest's monitor for as long as its process lives: connected, and connected again when the connection breaks or QEMU's main
 * loop hangs at first. What happened meanwhile is asked for and told as the events that were missed, as far as states tell.
 *
 * Not here: the protocol (qmp.ts), what to say to QEMU (migrate.ts).
 */
import { systemClock } from '../../runtime/clock.ts';
import { AsyncQueue } from '../../runtime/queue.ts';
import type { GuestEvent, TransferState } from '../hypervisor.ts';
import { guestEventOf, readRunAndTransfer } from './migrate.ts';
import type { OobPipe } from './oob-pipe.ts';
import { QmpDisconnected } from './qmp-errors.ts';
import { connectQmp, type QmpConnection } from './qmp.ts';

/** What is said to QEMU goes through this, whichever connection serves at the moment. */
export type Qmp = Pick<QmpConnection, 'path' | 'execute' | 'executeOob'>;

const connectTimeoutMs = 5000;
const firstPauseMs = 5;
const longestPauseMs = 1000;
/** Events kept for a reader that is slower than QEMU; the oldest go first, since the newest tell the state. */
const eventLimit = 1024;

export interface MonitorOptions {
  /** Sockets that serve one client each: somebody else may hold one. */
  readonly paths: readonly string[];
  readonly isAlive: () => boolean;
  /** Undefined: none could be made yet. */
  readonly connection: QmpConnection | undefined;
  /** For what must be heard while no connection can be made. */
  readonly oob?: OobPipe | undefined;
}

export class Monitor implements Qmp {
  readonly #options: MonitorOptions;
  readonly #readers = new Set<AsyncQueue<GuestEvent>>();
  #connection: QmpConnection | undefined;
  #isOver = false;
  #lastTransfer: TransferState['kind'] | undefined;
  #isRunning: boolean | undefined;
  /** Resolves when the process is gone and every event was handed out. */
  readonly over: Promise<void>;

  constructor(options: MonitorOptions) {
    this.#options = options;
    this.#connection = options.connection;
    this.over = this.#serve();
  }

  get path(): string {
    return this.#connection?.path ?? this.#options.paths[0] ?? '';
  }

  execute: QmpConnection['execute'] = (command, ...rest) => this.#connected(command).execute(command, ...rest);
  executeOob: QmpConnection['executeOob'] = (command, ...rest) => {
    const { oob } = this.#options;
    if (!this.#connection && oob) return oob.executeOob(command, ...rest);
    return this.#connected(command).executeOob(command, ...rest);
  };

  #connected(command: string): QmpConnection {
    if (this.#connection) return this.#connection;
    throw new QmpDisconnected(this.path, command, { kind: 'qemu-gone' }, 'it is being connected to again');
  }

  /** From this call on, until the process is gone or the signal aborts. */
  events(signal: AbortSignal): AsyncIterable<GuestEvent> {
    const queue = new AsyncQueue<GuestEvent>({ limit: eventLimit, overflow: 'drop-oldest' });
    const end = () => {
      this.#readers.delete(queue);
      queue.close();
    };
    if (this.#isOver || signal.aborted) {
      end();
      return queue;
    }
    this.#readers.add(queue);
    signal.addEventListener('abort', end, { once: true });
    return queue;
  }

  async #serve(): Promise<void> {
    const { isAlive } = this.#options;
    let isFirst = true;
    for (let pauseMs = firstPauseMs; ; pauseMs = Math.min(longestPauseMs, pauseMs * 2)) {
      const connection = this.#connection ?? (await this.#connect());
      if (connection) {
        pauseMs = firstPauseMs;
        const events = connection.events();
        this.#connection = connection;
        if (!isFirst) void this.#tellMissed().catch(() => {}); // it broke again: told by the next one
        for await (const event of events) {
          const ours = guestEventOf(event);
          if (ours) this.#tell(ours);
        }
        this.#connection = undefined;
      }
      isFirst = false;
      if (!isAlive()) break;
      await systemClock.sleep(pauseMs);
      if (!isAlive()) break;
    }
    this.#isOver = true;
    for (const reader of this.#readers) reader.close();
    this.#readers.clear();
  }

  async #connect(): Promise<QmpConnection | undefined> {
    for (const path of this.#options.paths) {
      const connection = await connectQmp({ path, timeoutMs: connectTimeoutMs }).catch(() => undefined);
      if (connection) return connection;
      if (!this.#options.isAlive()) return undefined;
    }
    return undefined;
  }

  async #tellMissed(): Promise<void> {
    const knownTransfer = this.#lastTransfer;
    const { isRunning, transfer, wasInPostCopy } = await readRunAndTransfer(this);
    const at = systemClock.now();
    if (this.#isRunning !== undefined && isRunning !== this.#isRunning)
      this.#tell({ at, kind: isRunning ? 'resumed' : 'stopped' });
    // Events have come since, and tell more.
    if (knownTransfer === undefined || this.#lastTransfer !== knownTransfer || transfer.kind === knownTransfer) return;
    // How a transfer ended is not all: one that went through post-copy ends otherwise.
    const wentThrough = transfer.kind === 'completed' && wasInPostCopy && !knownTransfer.startsWith('post-copy');
    if (wentThrough) this.#tell({ at, kind: 'transfer', state: { kind: 'post-copy' } });
    this.#tell({ at, kind: 'transfer', state: transfer });
  }

  #tell(event: GuestEvent): void {
    if (event.kind === 'stopped' || event.kind === 'resumed') this.#isRunning = event.kind === 'resumed';
    if (event.kind === 'transfer') this.#lastTransfer = event.state.kind;
    for (const reader of this.#readers) if (!reader.push(event)) this.#readers.delete(reader); // it was left
  }
}
