/**
 * The thread that touches one pool: a storage that hangs holds up this thread and nothing else. Each call opens the file
 * anew and goes past the page cache (O_DIRECT), so that it sees what the storage holds, also over NFS, whose attributes are
 * cached otherwise; each write is durable before it is answered (O_SYNC) and changes one block in place.
 */
import { randomUUID } from 'node:crypto';
import {
  closeSync,
  constants,
  fstatSync,
  fsyncSync,
  linkSync,
  mkdirSync,
  openSync,
  readFileSync,
  readSync,
  realpathSync,
  rmSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { parentPort, workerData } from 'node:worker_threads';
import { blockBytes, fileBytes } from './lease-block.ts';

export type PoolCall =
  | { readonly do: 'identify' }
  | { readonly do: 'read'; readonly host: string }
  | {
      readonly do: 'write';
      readonly host: string;
      readonly place: number;
      readonly block: Uint8Array;
      readonly create: boolean;
    };
export type PoolReply =
  | { readonly ok: true; readonly text: string; readonly bytes: Uint8Array }
  | { readonly ok: false; readonly error: string };

const { directory } = workerData as { directory: string }; // as pool-files.ts gives it
const own = join(directory, '.drover');
const leases = join(own, 'leases');
const { O_RDONLY, O_WRONLY, O_CREAT, O_SYNC, O_DIRECT } = constants;
/** Of the runtime; its types come with those of browsers only. */
declare const WebAssembly: { Memory: new (pages: { initial: number }) => { readonly buffer: ArrayBuffer } };
/** Memory of WebAssembly begins at a page, as O_DIRECT asks of its buffers. */
const buffer = Buffer.from(new WebAssembly.Memory({ initial: 1 }).buffer, 0, fileBytes);

parentPort?.on('message', (call: PoolCall) => {
  const answer = (reply: PoolReply) => parentPort?.postMessage(reply);
  try {
    answer({ ok: true, ...run(call) });
  } catch (error) {
    answer({ ok: false, error: error instanceof Error ? error.message : String(error) });
  }
});

function run(call: PoolCall): { text: string; bytes: Uint8Array } {
  const nothing = new Uint8Array();
  if (call.do === 'identify') return { text: JSON.stringify(identify()), bytes: nothing };
  if (call.do === 'read') return { text: '', bytes: read(join(leases, call.host)) };
  write(join(leases, call.host), call);
  return { text: '', bytes: nothing };
}

/** The first that finds none gives the pool its identity: `link` makes the whole file appear under its name, once. */
function identify(): { id: string; realPath: string } {
  const path = join(own, 'pool.json');
  const realPath = realpathSync(directory);
  const known = idIn(path);
  if (known !== undefined) return { id: known, realPath };
  mkdirSync(leases, { recursive: true, mode: 0o700 });
  const aside = `${path}.${randomUUID()}`;
  writeFileSync(aside, `${JSON.stringify({ schema: 1, id: randomUUID() })}\n`, { flag: 'wx', flush: true });
  try {
    linkSync(aside, path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
  } finally {
    rmSync(aside, { force: true });
  }
  syncDirectory(own);
  const id = idIn(path);
  if (id === undefined) throw new Error(`${path} was written and is not there`);
  return { id, realPath };
}

function idIn(path: string): string | undefined {
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
  const { id } = JSON.parse(text) as { id?: unknown };
  if (typeof id !== 'string') throw new Error(`${path} holds no identity of a pool`);
  return id;
}

/** Empty where there is no lease. */
function read(path: string): Uint8Array {
  let got = 0;
  try {
    got = withFile(path, O_RDONLY, (file) => readSync(file, buffer, 0, fileBytes, 0));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
  }
  return Uint8Array.from(buffer.subarray(0, got));
}

function write(path: string, { place, block, create }: Extract<PoolCall, { do: 'write' }>): void {
  if (create) makeWhole(path);
  const written = withFile(path, O_WRONLY | O_SYNC, (file) => {
    buffer.set(block);
    return writeSync(file, buffer, 0, blockBytes, place);
  });
  if (written !== blockBytes) throw new Error(`only ${written} bytes of the lease could be written`);
}

/** Of its full size from the start: renewals need no room on the pool. */
function makeWhole(path: string): void {
  mkdirSync(leases, { recursive: true, mode: 0o700 });
  const file = openSync(path, O_WRONLY | O_CREAT | O_SYNC, 0o600);
  try {
    const { size } = fstatSync(file);
    if (size < fileBytes) writeSync(file, new Uint8Array(fileBytes - size), 0, fileBytes - size, size);
  } finally {
    closeSync(file);
  }
  syncDirectory(leases);
}

/** Where the file system knows no O_DIRECT (tmpfs of older kernels) it is local, and a plain file does. */
function withFile(path: string, flags: number, use: (file: number) => number): number {
  for (const direct of [O_DIRECT, 0]) {
    try {
      const file = openSync(path, flags | direct);
      try {
        return use(file);
      } finally {
        closeSync(file);
      }
    } catch (error) {
      if (direct === 0 || (error as NodeJS.ErrnoException).code !== 'EINVAL') throw error;
    }
  }
  return 0;
}

function syncDirectory(path: string): void {
  const file = openSync(path, O_RDONLY);
  try {
    fsyncSync(file);
  } finally {
    closeSync(file);
  }
}
