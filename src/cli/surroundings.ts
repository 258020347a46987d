/**
 * What a command line program finds around itself: terminal, environment, signals, time. An argument, so that every command
 * can be run in a test. Not here: what is done with it.
 */
import { spawn } from 'node:child_process';
import { constants, homedir } from 'node:os';
import { dirname, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { systemClock, type Clock } from '../runtime/clock.ts';

export interface Output {
  write(text: string | Uint8Array): void;
  readonly isTTY: boolean;
  readonly columns: number;
  readonly rows: number;
  /** Called when the terminal's size has changed. Returns how to stop that. */
  onResize(fn: () => void): () => void;
}

export interface Input extends AsyncIterable<Uint8Array> {
  readonly isTTY: boolean;
  /** Each key at once and unechoed, or lines. */
  setRaw(raw: boolean): void;
  /** One line, without its end; undefined when there is no more. */
  readLine(): Promise<string | undefined>;
  /** Nothing more is read: an input that stays open shall not keep the program alive. */
  leave(): void;
}

export interface ShellOptions {
  /** Beside our own environment. */
  readonly env: Readonly<Record<string, string>>;
  /** Where its stdout goes: not into ours where that holds data. */
  readonly stdoutTo: 'stdout' | 'stderr';
  readonly signal: AbortSignal;
}

export interface Surroundings {
  readonly stdout: Output;
  readonly stderr: Output;
  readonly stdin: Input;
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly cwd: string;
  readonly home: string;
  /** Of the program itself, for what its set-up and its lab leave there. */
  readonly repoRoot: string;
  readonly clock: Clock;
  /** Takes over a signal until the returned function is called. */
  onSignal(signal: 'SIGINT' | 'SIGTERM', fn: () => void): () => void;
  /** Runs a command in a shell, with our terminal; told to end when the signal is aborted. @returns its exit code */
  runShell(command: string, options: ShellOptions): Promise<number>;
  /** For the second Ctrl-C only. */
  exitNow(code: number): void;
}

export function realSurroundings(): Surroundings {
  return {
    stdout: outputOf(process.stdout),
    stderr: outputOf(process.stderr),
    stdin: inputOf(process.stdin),
    env: process.env,
    cwd: process.cwd(),
    home: homedir(),
    repoRoot: resolve(dirname(fileURLToPath(import.meta.url)), '../..'),
    clock: systemClock,
    onSignal(signal, fn) {
      process.on(signal, fn);
      return () => process.off(signal, fn);
    },
    runShell,
    exitNow: (code) => process.exit(code),
  };
}

/** 128 and the number of the signal where one ended it, as shells say it. */
function runShell(command: string, { env, stdoutTo, signal }: ShellOptions): Promise<number> {
  const child = spawn('/bin/sh', ['-c', command], {
    env: { ...process.env, ...env },
    stdio: ['inherit', stdoutTo === 'stdout' ? 'inherit' : 2, 'inherit'],
  });
  const stop = (): void => void child.kill('SIGTERM');
  signal.addEventListener('abort', stop, { once: true });
  return new Promise<number>((resolve, reject) => {
    child.once('error', reject);
    child.once('close', (code, by) => resolve(code ?? 128 + (by === null ? 0 : constants.signals[by])));
  }).finally(() => signal.removeEventListener('abort', stop));
}

function outputOf(stream: NodeJS.WriteStream): Output {
  return {
    write: (text) => void stream.write(text),
    get isTTY() {
      return stream.isTTY ?? false;
    },
    get columns() {
      // A terminal that does not know its size says 0.
      return stream.columns || 80;
    },
    get rows() {
      return stream.rows || 24;
    },
    onResize(fn) {
      stream.on('resize', fn);
      return () => stream.off('resize', fn);
    },
  };
}

function inputOf(stream: NodeJS.ReadStream): Input {
  // Whoever has read enough leaves the rest to the next who reads.
  const chunks = () => stream.iterator({ destroyOnReturn: false }) as AsyncIterableIterator<Uint8Array>;
  let left = '';
  return {
    get isTTY() {
      return stream.isTTY ?? false;
    },
    setRaw(raw) {
      if (stream.isTTY) stream.setRawMode(raw);
    },
    async readLine() {
      if (!left.includes('\n')) {
        for await (const chunk of chunks()) {
          left += Buffer.from(chunk).toString();
          if (left.includes('\n')) break;
        }
      }
      if (left === '') return undefined;
      const [line = '', ...rest] = left.split('\n');
      left = rest.join('\n');
      return line.replace(/\r$/, '');
    },
    leave: () => void stream.destroy(),
    [Symbol.asyncIterator]: chunks,
  };
}
