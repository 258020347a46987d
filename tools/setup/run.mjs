// Running other programs for the set-up: their output goes to .drover/setup.log, the person sees one line per step and a
// sign of life every ten seconds; a failure shows the end of the output. Nothing here knows what is being set up.

import { spawn, spawnSync } from 'node:child_process';
import { appendFileSync, mkdirSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

export const repo = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '../..');
/** everything the set-up makes, apart from node_modules and installed packages; may be deleted at any time */
export const droverDir = path.join(repo, '.drover');

const logFile = path.join(droverDir, 'setup.log');
const signOfLifeMs = 10_000;
const shownLines = 15;
/** what an interrupted program gets to clean up before it is killed */
const graceMs = 5_000;

/** A trouble the person can do something about: what happened, and what to do next. Shown without a stack trace. */
export class SetupError extends Error {
  /** @param {string} message what happened, to what, why @param {string} hint what to do next */
  constructor(message, hint) {
    super(message);
    this.hint = hint;
  }
}

/** children that a Ctrl-C ends, and those it only waits for */
const running = new Set();
const shielded = new Set();
let interrupted = false;
let lastLine = '';

function onSignal(signal) {
  if (interrupted) process.exit(130);
  interrupted = true;
  for (const child of running) child.kill(signal);
  if (shielded.size > 0) {
    console.error(
      '\nInterrupted: the package installation that has begun is finished first (Ctrl-C again: leave it running).',
    );
  } else if (running.size === 0) {
    leave();
  } else {
    // npm rolls back on INT, which takes a moment: the lock must not fall while it is still at node_modules.
    setTimeout(() => [...running].forEach((child) => child.kill('SIGKILL')), graceMs);
  }
}

function leave() {
  console.error('\nInterrupted. The next run goes on from here.');
  process.exit(130);
}

/** Ctrl-C and TERM end the set-up cleanly while `work` runs; afterwards they are the caller's again. */
export async function interruptible(work) {
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, onSignal);
  try {
    return await work();
  } finally {
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.off(signal, onSignal);
  }
}

export function startLog() {
  mkdirSync(droverDir, { recursive: true });
  rmSync(logFile, { force: true });
  writeFileSync(logFile, `${new Date().toISOString()} Node ${process.version}\n`);
}

/** A short question to a program: its output, or undefined where it failed or is not there. For surveys only. */
export function ask(command, args, options = {}) {
  const result = spawnSync(command, args, { encoding: 'utf8', timeout: 20_000, ...options });
  return result.status === 0 ? result.stdout : undefined;
}

/**
 * Runs a program to its end and returns its standard output.
 * @param {string[]} argv
 * @param {{ what: string, deadlineMs: number, cwd?: string, env?: Record<string, string | undefined>, shield?: boolean, hint?: string }} options
 *   `shield`: the program is in a session of its own and Ctrl-C waits for it (dpkg must not be killed half-way)
 * @throws {SetupError} with the end of its output
 */
export function command(argv, options) {
  const { what, deadlineMs, cwd = repo, env = process.env, shield = false } = options;
  const hint =
    options.hint ??
    `The whole output is in ${path.relative(process.cwd(), logFile) || logFile}. Mend the cause and run the same command again.`;
  appendFileSync(logFile, `\n$ ${argv.join(' ')}\n`);
  return new Promise((resolve, reject) => {
    const child = spawn(argv[0], argv.slice(1), { cwd, env, stdio: ['ignore', 'pipe', 'pipe'], detached: shield });
    const kept = shield ? shielded : running;
    kept.add(child);
    let stdout = '';
    let tail = '';
    const take = (chunk) => {
      appendFileSync(logFile, chunk);
      tail = (tail + chunk).slice(-8192);
      lastLine =
        tail
          .trimEnd()
          .split(/[\r\n]/)
          .at(-1) ?? '';
    };
    child.stdout.on('data', (chunk) => {
      stdout += chunk;
      take(chunk);
    });
    child.stderr.on('data', take);
    const timer = setTimeout(() => child.kill('SIGTERM'), deadlineMs);
    const end = () => {
      clearTimeout(timer);
      kept.delete(child);
      if (interrupted && running.size + shielded.size === 0) leave();
    };
    child.on('error', (error) => {
      end();
      const why = error.code === 'ENOENT' ? `the program ${argv[0]} is not there` : error.message;
      reject(new SetupError(`${what} failed: ${why}`, hint));
    });
    child.on('close', (code, signal) => {
      end();
      if (code === 0) return resolve(stdout);
      const shown = tail
        .trim()
        .split('\n')
        .slice(-shownLines)
        .map((line) => `    ${line}`);
      const how = signal === null ? `exit code ${code}` : `ended by ${signal}`;
      reject(new SetupError(`${what} failed (${how}):\n${shown.join('\n')}`, hint));
    });
  });
}

/** Runs one step under a title, with signs of life while it lasts. */
export async function step(title, work) {
  const startedAt = Date.now();
  lastLine = '';
  console.log(`  > ${title}`);
  const timer = setInterval(() => {
    const seconds = Math.round((Date.now() - startedAt) / 1000);
    console.log(`      ${seconds} s  ${lastLine.slice(0, 100)}`);
  }, signOfLifeMs);
  try {
    const result = await work();
    console.log(`    done in ${((Date.now() - startedAt) / 1000).toFixed(1)} s`);
    return result;
  } finally {
    clearInterval(timer);
  }
}
