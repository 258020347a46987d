/** Debian's hbal as the peer: run on a cluster file, its moves and scores read from what it prints. */
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { UserError } from '../../src/model/failure.ts';

export interface HbalMove {
  readonly vm: string;
  readonly to: string;
  /** The cluster's score after it, as printed. */
  readonly score: number;
}

export interface HbalRun {
  readonly moves: readonly HbalMove[];
  readonly before: number;
  readonly after: number;
  /** User CPU time of the whole process; it starts in some milliseconds. */
  readonly cpuMs: number;
}

/** @throws UserError when it is not installed, naming the command that does */
export async function findHbal(): Promise<string> {
  const found = await output('hbal', ['--version']).catch(() => undefined);
  const version = /version (\S+)/.exec(found?.text ?? '')?.[1];
  if (version !== undefined) return version;
  throw new UserError(
    'unavailable',
    'hbal is not installed: it is what is compared with.',
    'As root: apt-get install -y --no-install-recommends ganeti-htools',
  );
}

/** @param keep a folder of its answers: what is there is not asked again, for clusters where it takes minutes */
export async function runHbal(data: string, util: string | null, keep?: string): Promise<HbalRun> {
  const argv = ['-t', data, ...(util === null ? [] : ['-U', util]), '-v', '-v'];
  const { text, cpuMs } = await kept(keep, [data, ...(util === null ? [] : [util])], () => output('hbal', argv));
  const moves = text.split('\n').flatMap((line): HbalMove[] => {
    const [, vm, to, score] = /^\s*\d+\. (\S+)\s+\S+\s+=> ([^\s:]+)\S*\s+(-?[\d.]+) a=/.exec(line) ?? [];
    return vm === undefined || to === undefined ? [] : [{ vm, to, score: Number(score) }];
  });
  const before = Number(/Initial (?:cluster )?score: ([\d.]+)/.exec(text)?.[1] ?? Number.NaN);
  return { moves, before, after: moves.at(-1)?.score ?? before, cpuMs };
}

interface Output {
  readonly text: string;
  readonly cpuMs: number;
}

async function kept(folder: string | undefined, files: readonly string[], ask: () => Promise<Output>): Promise<Output> {
  if (folder === undefined) return ask();
  const hash = createHash('sha256');
  for (const file of files) hash.update(await readFile(file));
  const path = join(folder, `hbal-${hash.digest('hex').slice(0, 32)}.json`);
  const before = await readFile(path, 'utf8').catch(() => null);
  // The cast: nobody but this writes there.
  if (before !== null) return JSON.parse(before) as Output;
  const answer = await ask();
  await mkdir(folder, { recursive: true });
  await writeFile(path, JSON.stringify(answer));
  return answer;
}

/** Through a shell's `times`, which says what the child used; Node tells that of no child. */
async function output(program: string, argv: readonly string[]): Promise<Output> {
  const child = spawn('sh', ['-c', '"$0" "$@"; code=$?; times >&3; exit $code', program, ...argv], {
    stdio: ['ignore', 'pipe', 'ignore', 'pipe'],
  });
  const read = async (stream: NodeJS.ReadableStream | null): Promise<string> => {
    let text = '';
    if (stream === null) return text;
    for await (const piece of stream) text += String(piece);
    return text;
  };
  const ended = new Promise<number | null>((done, fail) => {
    child.once('error', fail);
    child.once('close', done);
  });
  const [text, times, code] = await Promise.all([
    read(child.stdout),
    read(child.stdio[3] as NodeJS.ReadableStream),
    ended,
  ]);
  if (code !== 0) throw new Error(`${program} ${argv.join(' ')} ended with ${code}`);
  const [, minutes = '0', seconds = '0'] = /\n(\d+)m([\d.]+)s/.exec(times) ?? [];
  return { text, cpuMs: 60_000 * Number(minutes) + 1000 * Number(seconds) };
}
