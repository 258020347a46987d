/** Running the system's small programs (ip, tc): argument arrays, a deadline, and errors that carry their words. */
import { execFile } from 'node:child_process';

const usualDeadlineMs = 15_000;

export interface RunOptions {
  readonly input?: string;
  readonly signal?: AbortSignal;
  readonly deadlineMs?: number;
}

/** @returns stdout. @throws Error with the command and what it wrote to stderr */
export function run(program: string, args: readonly string[], options: RunOptions = {}): Promise<string> {
  return new Promise((resolve, reject) => {
    const child = execFile(
      program,
      args,
      {
        timeout: options.deadlineMs ?? usualDeadlineMs,
        maxBuffer: 16 * 1024 * 1024,
        ...(options.signal && { signal: options.signal }),
      },
      (error, stdout, stderr) => {
        if (!error) return resolve(stdout);
        const words = stderr.trim() || error.message;
        reject(new Error(`${program} ${args.join(' ')}: ${words}`, { cause: error }));
      },
    );
    child.stdin?.on('error', () => {}); // a program that ends early does not read; its exit code says why
    child.stdin?.end(options.input ?? '');
  });
}

/** Many commands of `ip` or `tc` by one process. Stops at the first that fails. */
export async function batch(
  program: 'ip' | 'tc',
  lines: readonly string[],
  namespace?: string,
  signal?: AbortSignal,
): Promise<void> {
  if (lines.length === 0) return;
  const where = namespace === undefined ? [] : ['-n', namespace];
  await run(program, [...where, '-batch', '-'], { input: `${lines.join('\n')}\n`, ...(signal && { signal }) });
}
