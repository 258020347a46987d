/**
 * A monitor that stays negotiated whoever comes and goes: a pair of FIFOs (QEMU's `pipe` chardev), for commands out of band.
 *
 * On a socket each new client negotiates first, and that waits for QEMU's main loop. While the loop hangs on a page that
 * post-copy has not brought, an agent that was just started would not be heard there, and the page would never come.
 * Here nobody connects: what the first agent agreed upon holds for each that follows.
 *
 * A line shorter than PIPE_BUF is written whole or not at all, so an agent that dies leaves no half command behind. QEMU's
 * events come here too: they are read and dropped, because QEMU keeps what nobody reads.
 */
import { execFile } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { closeSync, constants, openSync, writeSync } from 'node:fs';
import { Socket } from 'node:net';
import { promisify } from 'node:util';
import { systemClock } from '../../runtime/clock.ts';
import { QmpCommandError, QmpDisconnected, QmpTimeout } from './qmp-errors.ts';
import type { Rest } from './qmp.ts';
import type { Commands, OobCommand } from './types.gen.ts';

const defaultTimeoutMs = 5000;
/** Without the end of a line in so much it is no answer to any of our commands. */
const longestLine = 1024 * 1024;
/** Both ways, so that neither opening nor reading depends on whether QEMU is there. */
const openFlags = constants.O_RDWR | constants.O_NONBLOCK;

interface Answer {
  readonly id?: unknown;
  readonly return?: unknown;
  readonly error?: { readonly class: string; readonly desc: string };
}

export class OobPipe {
  readonly path: string;
  /** To a QEMU that another agent talked to, an answer is told from those that nobody fetched. */
  readonly #prefix = randomUUID();
  readonly #input: number;
  readonly #output: Socket;
  readonly #waiting = new Map<string, (answer: Answer) => void>();
  #lastNumber = 0;
  #unfinished = '';
  #isClosed = false;

  /** For a QEMU about to be started with `-chardev pipe,path=PATH`. @throws Error when the FIFOs cannot be made */
  static async make(path: string): Promise<OobPipe> {
    await promisify(execFile)('mkfifo', ['-m', '600', `${path}.in`, `${path}.out`]);
    const pipe = new OobPipe(path);
    pipe.#write({ execute: 'qmp_capabilities', arguments: { enable: ['oob'] } });
    return pipe;
  }

  /** That of a QEMU which runs. @returns undefined where it was started without one */
  static open(path: string): OobPipe | undefined {
    try {
      return new OobPipe(path);
    } catch {
      return undefined;
    }
  }

  private constructor(path: string) {
    this.path = path;
    this.#input = openSync(`${path}.in`, openFlags);
    try {
      this.#output = new Socket({ fd: openSync(`${path}.out`, openFlags), readable: true, writable: false });
    } catch (error) {
      closeSync(this.#input);
      throw error;
    }
    this.#output.setEncoding('utf8');
    this.#output.on('data', (text: string) => this.#read(text));
    this.#output.on('error', () => this.close());
  }

  /** @throws QmpCommandError (refused), QmpTimeout (no answer in time), QmpDisconnected (closed) */
  async executeOob<C extends OobCommand>(
    command: C,
    ...[args, { timeoutMs = defaultTimeoutMs } = {}]: Rest<C>
  ): Promise<Commands[C]['reply']> {
    if (this.#isClosed) throw new QmpDisconnected(this.path, command, { kind: 'closed-here' });
    const id = `${this.#prefix}.${++this.#lastNumber}`;
    const answered = Promise.withResolvers<Answer>();
    const timer = systemClock.setTimeout(
      () => answered.reject(new QmpTimeout(this.path, command, timeoutMs, true, 'its process may be stopped')),
      timeoutMs,
    );
    this.#waiting.set(id, answered.resolve);
    try {
      this.#write({ 'exec-oob': command, arguments: args, id });
      const { error, return: result } = await answered.promise;
      if (error) throw new QmpCommandError(this.path, command, error);
      return result as Commands[C]['reply']; // by QEMU's schema
    } finally {
      timer.cancel();
      this.#waiting.delete(id);
    }
  }

  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#output.destroy();
    closeSync(this.#input);
  }

  #write(message: object): void {
    writeSync(this.#input, `${JSON.stringify(message)}\n`);
  }

  #read(text: string): void {
    if (this.#waiting.size === 0) {
      this.#unfinished = '';
      return;
    }
    const lines = (this.#unfinished + text).split('\n');
    const unfinished = lines.pop() ?? '';
    this.#unfinished = unfinished.length > longestLine ? '' : unfinished;
    for (const line of lines) {
      const answer = answerIn(line);
      if (typeof answer?.id === 'string') this.#waiting.get(answer.id)?.(answer);
    }
  }
}

/** Undefined: the rest of a line whose beginning went to another reader. */
function answerIn(line: string): Answer | undefined {
  try {
    return JSON.parse(line) as Answer; // QEMU's
  } catch {
    return undefined;
  }
}
