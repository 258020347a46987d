/**
 * The QMP client: one connection to one QEMU's monitor socket. Commands with a deadline each, commands out of band for
 * emergencies, events as an async iterable. Types come from types.gen.ts.
 *
 * Not here: what to say to QEMU (migrate.ts, disks.ts), starting QEMU (process.ts), connecting again after a loss.
 *
 *   connect -> greeting -> qmp_capabilities (oob, where offered) -> query-commands -> usable -> closed(reason)
 *
 * What QEMU does that shaped this (seen with 7.2 and 10.0):
 * - One client per socket. A second one connects, but gets no greeting until the first leaves.
 * - An ordinary command waits for QEMU's main loop, which can hang as long as the network or a disk does. Commands out of
 *   band are answered by another thread. But QEMU queues only eight ordinary commands; with nine unanswered it stops
 *   reading, and then the emergency commands go unheard too. So at most `unansweredLimit` are ever on their way,
 *   those counted that we have given up waiting for; the rest wait here.
 * - A command given up is not taken back: QEMU may still carry it out. `QmpTimeout.sent` says whether that can be.
 * - Events are sent to whoever is connected, and never again. Subscribe first, then query the state.
 *
 * Protocol: QEMU docs/interop/qmp-spec.
 */

import { createConnection } from 'node:net';
import type { Socket } from 'node:net';

import { systemClock } from '../../runtime/clock.ts';
import type { Clock } from '../../runtime/clock.ts';
import { QmpCommandError, QmpDisconnected, QmpNotSent, QmpTimeout, type QmpCloseReason } from './qmp-errors.ts';
import { EventQueue, type EventTimes, type KnownEvent, type QmpEvent } from './qmp-events.ts';
import { eventNames } from './types.gen.ts';
import type { Commands, OobCommand } from './types.gen.ts';

const defaultTimeoutMs = 5_000;

/** Ordinary commands sent and not yet answered. QEMU reads on with up to eight; two are margin. */
const unansweredLimit = 6;

/** Commands that wait here for their turn; more than this is a caller in a loop. */
const waitingLimit = 256;

/** Out-of-band commands sent and not yet answered. QEMU answers them at once, so this many mean that the process is stopped. */
const unansweredOobLimit = 64;

/** The longest message taken from QEMU. Its whole schema is 0.25 MB; block nodes of a long backing chain are a few. */
const messageLimitBytes = 64 * 1024 * 1024;

/** Events kept for a consumer that is slower than QEMU; see `QmpConnection.events`. */
const defaultEventQueueLimit = 1024;

export interface QemuVersion {
  major: number;
  minor: number;
  micro: number;
  /** The packager's name for it; may be empty. */
  package: string;
}

export interface ExecuteOptions {
  /** From the call to the answer, waiting for a turn included. Default 5 s. */
  timeoutMs?: number;
  /** Ends the wait with the signal's reason. QEMU may still carry the command out. */
  signal?: AbortSignal;
}

/** Arguments may be left out where none is required. */
export type Rest<C extends keyof Commands> =
  Record<never, never> extends Commands[C]['args']
    ? [args?: Commands[C]['args'], options?: ExecuteOptions]
    : [args: Commands[C]['args'], options?: ExecuteOptions];

export interface QmpConnection extends Disposable {
  readonly path: string;
  readonly version: QemuVersion;
  /** Whether QEMU takes commands out of band on this connection. */
  readonly oob: boolean;

  /** Whether this QEMU knows the command (its members may still differ by version). */
  supports(command: string): boolean;

  /**
   * Sends a command and waits for its answer.
   *
   * Throws QmpCommandError (QEMU refused it), QmpTimeout (no answer in time; the connection stays usable and a late answer
   * is dropped), QmpDisconnected, QmpNotSent, or the signal's reason.
   */
  execute<C extends keyof Commands>(command: C, ...rest: Rest<C>): Promise<Commands[C]['reply']>;

  /** As `execute`, past QEMU's main loop: answered even while that hangs. */
  executeOob<C extends OobCommand>(command: C, ...rest: Rest<C>): Promise<Commands[C]['reply']>;

  /**
   * Events from this call on (not from the first `next`). Any number of consumers, each gets all. Ends when the connection
   * closes (after what was received before), when the signal aborts (at once), or on `return`.
   *
   * A consumer that lags more than `limit` events (default 1024) loses the *oldest* ones, since the newest tell the state,
   * and receives one `{ name: 'lost', count }` in their place.
   */
  events(options?: { signal?: AbortSignal; limit?: number }): AsyncIterableIterator<QmpEvent>;

  /** Resolves, never rejects, when the connection is over. */
  readonly closed: Promise<QmpCloseReason>;

  /** Leaves QEMU running; pending commands end with QmpDisconnected. */
  close(): void;
}

export interface ConnectOptions {
  /** The socket of `-qmp unix:PATH,server=on,wait=off`. */
  path: string;
  signal?: AbortSignal;
  /** For the whole way to a usable connection. Default 5 s. */
  timeoutMs?: number;
  /** Deadlines and receive times. */
  clock?: Clock;
}

/**
 * Connects and negotiates. Throws QmpDisconnected (nobody listens, or QEMU died meanwhile), QmpTimeout (another client
 * holds the socket, or QEMU hangs), or the signal's reason.
 */
export async function connectQmp(options: ConnectOptions): Promise<QmpConnection> {
  const { path, signal, timeoutMs = defaultTimeoutMs, clock = systemClock } = options;
  signal?.throwIfAborted();
  const session = new Session(path, clock);
  try {
    await session.open(timeoutMs, signal);
  } catch (error) {
    session.close();
    throw error;
  }
  return session;
}

interface Pending {
  readonly id: number;
  readonly command: string;
  readonly oob: boolean;
  readonly args: unknown;
  sent: boolean;
  readonly resolve: (reply: unknown) => void;
  readonly reject: (error: unknown) => void;
}

interface Greeting {
  version: QemuVersion;
  capabilities: string[];
}

const hangHint = "QEMU's main loop hangs (network, disk) or the process is stopped";

class Session implements QmpConnection {
  readonly path: string;
  version: QemuVersion = { major: 0, minor: 0, micro: 0, package: '' };
  oob = false;
  readonly closed: Promise<QmpCloseReason>;

  readonly #clock: Clock;
  readonly #socket: Socket;
  readonly #connected = Promise.withResolvers<void>();
  readonly #greeted = Promise.withResolvers<Greeting>();
  readonly #end = Promise.withResolvers<QmpCloseReason>();
  #endReason: QmpCloseReason | undefined;
  #greetingSeen = false;

  /** The pieces of a message whose end has not come yet. */
  #partial: Buffer[] = [];
  #partialBytes = 0;

  #nextId = 1;
  /** By id, those somebody waits for. */
  readonly #pending = new Map<number, Pending>();
  /** In order, those not sent yet. */
  #waiting: Pending[] = [];
  /** Ids sent and not answered, also when nobody waits any more. */
  readonly #unanswered = new Set<number>();
  readonly #unansweredOob = new Set<number>();

  #supported: ReadonlySet<string> = new Set();
  readonly #consumers = new Set<EventQueue>();

  constructor(path: string, clock: Clock) {
    this.path = path;
    this.#clock = clock;
    this.closed = this.#end.promise;
    this.#connected.promise.catch(() => undefined); // `open` may have given up before it
    this.#greeted.promise.catch(() => undefined);
    this.#socket = createConnection({ path });
    this.#socket.once('connect', () => this.#connected.resolve());
    this.#socket.on('data', (chunk: Buffer) => this.#receive(chunk));
    this.#socket.once('error', (cause: Error) => this.#finish({ kind: 'qemu-gone', cause }));
    this.#socket.once('close', () => this.#finish({ kind: 'qemu-gone' }));
  }

  async open(timeoutMs: number, signal: AbortSignal | undefined): Promise<void> {
    const deadline = this.#clock.monotonic() + timeoutMs;
    const leftMs = (): number => Math.max(0, deadline - this.#clock.monotonic());
    const timeout = (stage: string, hint: string) => new QmpTimeout(this.path, stage, timeoutMs, false, hint);

    await this.#within(this.#connected.promise, leftMs(), signal, () =>
      timeout('connect', 'the socket does not answer'),
    );
    const greeting = await this.#within(this.#greeted.promise, leftMs(), signal, () =>
      timeout(
        'greeting',
        'the connection was made but QEMU does not speak; most likely another client holds this socket ' +
          "(QEMU serves one at a time), else QEMU's main loop hangs or the process is stopped",
      ),
    );
    this.version = greeting.version;
    const oob = greeting.capabilities.includes('oob');
    const options = (): ExecuteOptions => ({ timeoutMs: leftMs(), ...(signal === undefined ? {} : { signal }) });
    await this.execute('qmp_capabilities', oob ? { enable: ['oob'] } : {}, options());
    this.oob = oob;
    const commands = await this.execute('query-commands', {}, options());
    this.#supported = new Set(commands.map((command) => command.name));
  }

  supports(command: string): boolean {
    return this.#supported.has(command);
  }

  execute<C extends keyof Commands>(command: C, ...[args, options]: Rest<C>): Promise<Commands[C]['reply']> {
    // The reply is what QEMU's schema promises for this command; checking it again would repeat QEMU's own code.
    return this.#submit(command, args, options, false) as Promise<Commands[C]['reply']>;
  }

  executeOob<C extends OobCommand>(command: C, ...[args, options]: Rest<C>): Promise<Commands[C]['reply']> {
    return this.#submit(command, args, options, true) as Promise<Commands[C]['reply']>; // as above
  }

  events(options: { signal?: AbortSignal; limit?: number } = {}): AsyncIterableIterator<QmpEvent> {
    const { signal, limit = defaultEventQueueLimit } = options;
    const onAbort = (): void => queue.stop();
    const queue = new EventQueue(limit, () => {
      this.#consumers.delete(queue);
      signal?.removeEventListener('abort', onAbort);
    });
    if (this.#endReason !== undefined || signal?.aborted === true) {
      queue.stop();
      return queue;
    }
    this.#consumers.add(queue);
    signal?.addEventListener('abort', onAbort, { once: true });
    return queue;
  }

  close(): void {
    this.#finish({ kind: 'closed-here' });
  }

  [Symbol.dispose](): void {
    this.close();
  }

  // --- commands

  async #submit(command: string, args: unknown, options: ExecuteOptions = {}, oob: boolean): Promise<unknown> {
    const { timeoutMs = defaultTimeoutMs, signal } = options;
    signal?.throwIfAborted();
    if (this.#endReason !== undefined) throw new QmpDisconnected(this.path, command, this.#endReason);
    if (oob && !this.oob) throw new QmpNotSent(this.path, command, 'no-out-of-band');
    const full = oob ? this.#unansweredOob.size >= unansweredOobLimit : this.#waiting.length >= waitingLimit;
    if (full) throw new QmpNotSent(this.path, command, 'too-many-waiting');

    const { promise, resolve, reject } = Promise.withResolvers<unknown>();
    const pending: Pending = { id: this.#nextId++, command, oob, args, sent: false, resolve, reject };
    this.#pending.set(pending.id, pending);
    if (oob) {
      this.#send(pending);
    } else {
      this.#waiting.push(pending);
      this.#sendNext();
    }
    try {
      return await this.#within(promise, timeoutMs, signal, () => {
        const hint = pending.sent ? hangHint : `${hangHint}; it was not sent, earlier commands are still unanswered`;
        return new QmpTimeout(this.path, command, timeoutMs, pending.sent, hint);
      });
    } finally {
      this.#pending.delete(pending.id);
      if (!pending.sent) this.#waiting = this.#waiting.filter((other) => other !== pending);
    }
  }

  #sendNext(): void {
    while (this.#unanswered.size < unansweredLimit) {
      const pending = this.#waiting.shift();
      if (pending === undefined) return;
      this.#send(pending);
    }
  }

  #send(pending: Pending): void {
    pending.sent = true;
    (pending.oob ? this.#unansweredOob : this.#unanswered).add(pending.id);
    const message = {
      [pending.oob ? 'exec-oob' : 'execute']: pending.command,
      ...(pending.args === undefined ? {} : { arguments: pending.args }),
      id: pending.id,
    };
    this.#socket.write(`${JSON.stringify(message)}\n`);
  }

  /** Waits for `promise` until the deadline or the signal; leaves neither timer nor listener behind. */
  async #within<T>(
    promise: Promise<T>,
    ms: number,
    signal: AbortSignal | undefined,
    onTimeout: () => Error,
  ): Promise<T> {
    const cut = Promise.withResolvers<never>();
    const onAbort = (): void => cut.reject(signal?.reason);
    const timer = this.#clock.setTimeout(() => cut.reject(onTimeout()), ms);
    signal?.addEventListener('abort', onAbort, { once: true });
    if (signal?.aborted === true) onAbort();
    try {
      return await Promise.race([promise, cut.promise]);
    } finally {
      timer.cancel();
      signal?.removeEventListener('abort', onAbort);
      promise.catch(() => undefined); // nobody is left to hear it when the deadline came first
    }
  }

  // --- what QEMU sends

  #receive(chunk: Buffer): void {
    let rest = chunk;
    for (let end = rest.indexOf(0x0a); end !== -1; end = rest.indexOf(0x0a)) {
      // Joined as bytes: a chunk may end inside a character.
      const line = Buffer.concat([...this.#partial, rest.subarray(0, end)])
        .toString('utf8')
        .trim();
      this.#partial = [];
      this.#partialBytes = 0;
      rest = rest.subarray(end + 1);
      if (line !== '') this.#understand(line);
      if (this.#endReason !== undefined) return;
    }
    if (rest.length === 0) return;
    this.#partial.push(rest);
    this.#partialBytes += rest.length;
    if (this.#partialBytes > messageLimitBytes) {
      this.#finish({ kind: 'protocol-error', detail: `a message longer than ${messageLimitBytes} bytes` });
    }
  }

  #understand(line: string): void {
    const unknown = (what: string): void =>
      this.#finish({
        kind: 'protocol-error',
        detail: `${what}: ${line.length > 200 ? `${line.slice(0, 200)}…` : line}`,
      });

    const message = parseObject(line);
    if (message === undefined) {
      unknown('no JSON object');
    } else if (!this.#greetingSeen) {
      const greeting = parseGreeting(message);
      if (greeting === undefined) {
        unknown('no QMP greeting');
      } else {
        this.#greetingSeen = true;
        this.#greeted.resolve(greeting);
      }
    } else if (typeof message['event'] === 'string') {
      this.#deliver(message['event'], message);
    } else if ('return' in message || 'error' in message) {
      if (!this.#answer(message)) unknown('an answer to a command that was not sent');
    } else {
      unknown('neither event nor answer');
    }
  }

  /** False when we never sent a command of that id. */
  #answer(message: Record<string, unknown>): boolean {
    const id = message['id'];
    if (typeof id !== 'number') return false;
    if (!this.#unanswered.delete(id) && !this.#unansweredOob.delete(id)) return false;
    const pending = this.#pending.get(id);
    // Undefined: the answer is late, its caller has been told of the timeout.
    if (pending !== undefined) {
      if ('error' in message) {
        const error = message['error'] as { class?: string; desc?: string } | null;
        pending.reject(
          new QmpCommandError(this.path, pending.command, {
            class: error?.class ?? 'GenericError',
            desc: error?.desc ?? 'no reason given',
          }),
        );
      } else {
        pending.resolve(message['return']);
      }
    }
    this.#sendNext();
    return true;
  }

  #deliver(event: string, message: Record<string, unknown>): void {
    const stamp = message['timestamp'] as { seconds?: number; microseconds?: number } | undefined;
    const times: EventTimes = {
      qemuTimeMs: (stamp?.seconds ?? 0) * 1000 + (stamp?.microseconds ?? 0) / 1000,
      receivedTimeMs: this.#clock.now(),
      receivedMonotonicMs: this.#clock.monotonic(),
    };
    const data = message['data'] ?? {};
    const known = (eventNames as readonly string[]).includes(event);
    // QEMU's schema says which data goes with which name.
    const delivered = known
      ? ({ name: event, data, ...times } as KnownEvent)
      : { name: 'other' as const, event, data, ...times };
    for (const consumer of this.#consumers) consumer.push(delivered);
  }

  #finish(reason: QmpCloseReason): void {
    if (this.#endReason !== undefined) return;
    this.#endReason = reason;
    this.#socket.destroy();
    const whileConnecting = connectHint(reason);
    this.#connected.reject(new QmpDisconnected(this.path, 'connect', reason, whileConnecting));
    this.#greeted.reject(new QmpDisconnected(this.path, 'greeting', reason));
    this.#waiting = [];
    for (const pending of this.#pending.values()) {
      pending.reject(new QmpDisconnected(this.path, pending.command, reason));
    }
    for (const consumer of this.#consumers) consumer.finish();
    this.#end.resolve(reason);
  }
}

function errorCode(error: NodeJS.ErrnoException | undefined): string | undefined {
  return error?.code;
}

function connectHint(reason: QmpCloseReason): string | undefined {
  const code = reason.kind === 'qemu-gone' ? errorCode(reason.cause) : undefined;
  switch (code) {
    case 'ENOENT':
      return 'there is no such socket; QEMU has ended or was started without it';
    case 'ECONNREFUSED':
      return 'nobody listens on the socket; QEMU was killed and left it behind';
    case 'EAGAIN':
      return 'too many clients already wait there (QEMU serves one at a time)';
    default:
      return undefined;
  }
}

function parseObject(line: string): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(line);
    if (typeof value !== 'object' || value === null || Array.isArray(value)) return undefined;
    return value as Record<string, unknown>; // just checked
  } catch {
    return undefined;
  }
}

function parseGreeting(message: Record<string, unknown>): Greeting | undefined {
  const greeting = message['QMP'] as
    | { version?: { qemu?: Partial<QemuVersion>; package?: string }; capabilities?: unknown }
    | undefined
    | null;
  const qemu = greeting?.version?.qemu;
  if (qemu?.major === undefined || qemu.minor === undefined || qemu.micro === undefined) return undefined;
  const { major, minor, micro } = qemu;
  return {
    version: { major, minor, micro, package: greeting?.version?.package ?? '' },
    capabilities: Array.isArray(greeting?.capabilities) ? greeting.capabilities.map(String) : [],
  };
}
