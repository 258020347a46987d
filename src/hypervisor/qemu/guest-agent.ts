/**
 * QEMU's guest agent, as its protocol says (docs/interop/qemu-ga.rst, qga/qapi-schema.json): one JSON command a line over a
 * virtio-serial port, one at a time. Connected when something is asked, and again after a call that got no answer: what the
 * guest may still say to it is then skipped by `guest-sync-delimited`.
 *
 * Whoever answers is inside the guest and is not trusted: lengths are bounded, and nothing is taken without a look.
 * Not here: what is run in the guest (guest-tasks.ts).
 */
import { connect, type Socket } from 'node:net';
import { messageOf } from '../../model/failure.ts';
import { systemClock } from '../../runtime/clock.ts';
import { KeyedQueue } from '../../runtime/queue.ts';

const answerTimeoutMs = 5000;
/** A guest without an agent never answers; it is not waited for as long. */
const syncTimeoutMs = 2000;
const longestAnswerBytes = 1024 * 1024;
const waitingAtMost = 256;
/** Begins an answer that was asked for by guest-sync-delimited. No text has such a byte. */
const sentinel = 0xff;

/** The agent heard the command and said no. */
export class GuestAgentRefusal extends Error {
  override readonly name = 'GuestAgentRefusal';
}

export interface ExecStatus {
  readonly exited: boolean;
  readonly exitCode: number | null;
}

export class GuestAgent {
  readonly #path: string;
  readonly #queue = new KeyedQueue({ limit: waitingAtMost });
  #connection: Connection | undefined;
  #isClosed = false;
  #syncs = 0;

  /** @param path of the socket that QEMU listens on; nothing is opened yet */
  constructor(path: string) {
    this.#path = path;
  }

  /** For good: the guest is gone. */
  close(): void {
    this.#isClosed = true;
    this.#drop(new Error('the guest is gone'));
  }

  /** Starts a program and does not wait for it. @returns its pid. An error does not prove that it was not started */
  async exec(path: string, argv: readonly string[], signal: AbortSignal): Promise<number> {
    const answer = await this.#ask('guest-exec', { path, arg: argv, 'capture-output': false }, signal);
    return numberIn(answer, 'pid');
  }

  /** @throws GuestAgentRefusal when the agent does not know that pid (any more) */
  async execStatus(pid: number, signal: AbortSignal): Promise<ExecStatus> {
    const answer = await this.#ask('guest-exec-status', { pid }, signal);
    const code = fieldOf(answer, 'exitcode');
    return { exited: fieldOf(answer, 'exited') === true, exitCode: typeof code === 'number' ? code : null };
  }

  /** The first bytes of a file in the guest; null when there is none. */
  async readFile(path: string, limitBytes: number, signal: AbortSignal): Promise<Buffer | null> {
    let handle: number;
    try {
      handle = await this.#ask('guest-file-open', { path, mode: 'r' }, signal).then(asNumber);
    } catch (error) {
      if (error instanceof GuestAgentRefusal && /No such (file|process)/.test(error.message)) return null;
      throw error;
    }
    const parts: Buffer[] = [];
    let left = limitBytes;
    try {
      // Bounded: each turn takes something, or is the last.
      while (left > 0) {
        const answer = await this.#ask('guest-file-read', { handle, count: Math.min(left, 48 * 1024) }, signal);
        const text = fieldOf(answer, 'buf-b64');
        const part = Buffer.from(typeof text === 'string' ? text : '', 'base64').subarray(0, left);
        if (part.length === 0) break;
        parts.push(part);
        left -= part.length;
        if (fieldOf(answer, 'eof') === true) break;
      }
    } finally {
      // The agent keeps a handle for each file that is not closed.
      await this.#ask('guest-file-close', { handle }, signal).catch(() => {});
    }
    return Buffer.concat(parts);
  }

  #ask(command: string, args: object, signal: AbortSignal): Promise<unknown> {
    return this.#queue.run('commands', async () => {
      signal.throwIfAborted();
      const connection = await this.#connected(signal);
      try {
        return await connection.ask({ execute: command, arguments: args }, answerTimeoutMs, signal);
      } catch (error) {
        if (!(error instanceof GuestAgentRefusal)) this.#drop(error);
        throw error;
      }
    });
  }

  async #connected(signal: AbortSignal): Promise<Connection> {
    if (this.#isClosed) throw new Error('the guest is gone');
    if (this.#connection?.isOpen === true) return this.#connection;
    const connection = await Connection.open(this.#path);
    this.#connection = connection;
    try {
      const id = systemClock.now() * 100 + (++this.#syncs % 100); // unlike any that an earlier client asked for
      const said = await connection.sync(id, syncTimeoutMs, signal);
      if (said !== id) throw new Error(`the guest's agent answered ${JSON.stringify(said)} to sync ${id}`);
      return connection;
    } catch (error) {
      this.#drop(error);
      throw error;
    }
  }

  #drop(error: unknown): void {
    this.#connection?.end(error);
    this.#connection = undefined;
  }
}

class Connection {
  readonly #socket: Socket;
  #isOpen = true;
  /** Nothing is an answer before the sentinel. */
  #isSynced = false;
  #parts: Buffer[] = [];
  #bytes = 0;
  #waiting: { readonly resolve: (line: string) => void; readonly reject: (error: unknown) => void } | undefined;

  private constructor(socket: Socket) {
    this.#socket = socket;
    socket.on('data', (data: Buffer) => this.#take(data));
    socket.on('error', (error) => this.end(error));
    socket.on('close', () => this.end(new Error("the connection to the guest's agent was closed")));
  }

  static async open(path: string): Promise<Connection> {
    const socket = connect({ path });
    await new Promise<void>((resolve, reject) => {
      socket.once('connect', resolve);
      socket.once('error', reject);
    });
    return new Connection(socket);
  }

  get isOpen(): boolean {
    return this.#isOpen;
  }

  end(error: unknown): void {
    if (!this.#isOpen) return;
    this.#isOpen = false;
    this.#socket.destroy();
    this.#waiting?.reject(error);
    this.#waiting = undefined;
  }

  /** The sentinel in front ends whatever half a command an earlier client may have left. */
  async sync(id: number, timeoutMs: number, signal: AbortSignal): Promise<unknown> {
    this.#socket.write(Buffer.from([sentinel]));
    return this.ask({ execute: 'guest-sync-delimited', arguments: { id } }, timeoutMs, signal);
  }

  /** @throws GuestAgentRefusal, or Error when there was no answer; then this connection is of no more use */
  async ask(command: object, timeoutMs: number, signal: AbortSignal): Promise<unknown> {
    if (!this.#isOpen) throw new Error("there is no connection to the guest's agent");
    const { promise, resolve, reject } = Promise.withResolvers<string>();
    this.#waiting = { resolve, reject };
    const late = systemClock.setTimeout(
      () => reject(new Error(`the guest's agent did not answer within ${timeoutMs} ms`)),
      timeoutMs,
    );
    const onAbort = (): void => reject(signal.reason);
    signal.addEventListener('abort', onAbort, { once: true });
    this.#socket.write(`${JSON.stringify(command)}\n`);
    try {
      return resultIn(await promise);
    } finally {
      late.cancel();
      signal.removeEventListener('abort', onAbort);
      this.#waiting = undefined;
    }
  }

  #take(data: Buffer): void {
    let rest = data;
    if (!this.#isSynced) {
      const at = rest.lastIndexOf(sentinel);
      if (at < 0) return;
      this.#isSynced = true;
      rest = rest.subarray(at + 1);
    }
    this.#bytes += rest.length;
    if (this.#bytes > longestAnswerBytes) return this.end(new Error("the guest's agent says too much"));
    this.#parts.push(rest);
    if (!rest.includes(10)) return;
    const lines = Buffer.concat(this.#parts).toString('utf8').split('\n');
    const partial = Buffer.from(lines.pop() ?? '', 'utf8');
    this.#parts = [partial];
    this.#bytes = partial.length;
    for (const line of lines) if (line.trim() !== '') this.#waiting?.resolve(line);
  }
}

function resultIn(line: string): unknown {
  let answer: unknown;
  try {
    answer = JSON.parse(line);
  } catch (error) {
    throw new Error(`the guest's agent answered no JSON: ${messageOf(error)}`, { cause: error });
  }
  const error = fieldOf(answer, 'error');
  if (error !== undefined) {
    const says = fieldOf(error, 'desc');
    throw new GuestAgentRefusal(typeof says === 'string' ? printable(says) : 'no reason was given');
  }
  return fieldOf(answer, 'return');
}

/** What a guest says is shown on people's screens. */
function printable(text: string): string {
  return text.slice(0, 500).replaceAll(/\p{Cc}+/gu, ' ');
}

function fieldOf(value: unknown, name: string): unknown {
  return value !== null && typeof value === 'object' && name in value
    ? (value as Record<string, unknown>)[name]
    : undefined;
}

function asNumber(value: unknown): number {
  if (typeof value === 'number' && Number.isSafeInteger(value)) return value;
  throw new Error("the guest's agent answered no number");
}

function numberIn(value: unknown, name: string): number {
  return asNumber(fieldOf(value, name));
}
