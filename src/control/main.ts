/** `drover server`: its options, its files, and the objects it is made of. Nothing is decided here. */
import { randomBytes } from 'node:crypto';
import { chmodSync, existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Command, CommanderError } from 'commander';
import { UserError, messageOf, userErrorCodes } from '../model/failure.ts';
import type { Endpoint } from '../model/host.ts';
import { listenChannels, readFleetKey } from '../runtime/channel.ts';
import { systemClock } from '../runtime/clock.ts';
import { createLog } from '../runtime/log.ts';
import type { LogLevel } from '../runtime/log.ts';
import { systemRandom } from '../runtime/random.ts';
import { lead } from '../store/leadership.ts';
import { openSqlite } from '../store/sqlite.ts';
import { startPlane } from './plane.ts';
import { createApi } from './server.ts';

/** Nobody competes for the lead of a store of one process: only a process that stood still this long loses it. */
const leadTtlMs = 15_000;

interface Options {
  readonly state: string;
  readonly listen: string;
  readonly agents: string;
  readonly fleetKey?: string;
  readonly tokenFile?: string;
  readonly logLevel: string;
}

/** Runs the server until a signal. @returns the exit code */
export async function runServer(argv: readonly string[]): Promise<number> {
  const command = new Command('drover server')
    .description('The control plane: the API for people and programs, and the port that agents dial.')
    .option('--state <dir>', 'where it keeps its store, fleet.key and token', '/var/lib/drover/server')
    .option('--listen <addr:port>', 'address of the API', '127.0.0.1:7070')
    .option('--agents <addr:port>', 'address that agents dial', '127.0.0.1:7071')
    .option('--fleet-key <file>', 'the key that agents must hold (default: fleet.key in the state directory)')
    .option('--token-file <file>', 'the token of the API (default: token in the state directory)')
    .option('--log-level <level>', 'debug, info, warn or error', 'info')
    .addHelpText(
      'after',
      `
Both files are made when they are absent. Copy fleet.key to each host, then start an agent there.

Example:
  drover server --listen 127.0.0.1:7070 --agents 10.0.0.1:7071`,
    )
    .allowExcessArguments(false)
    .exitOverride();
  try {
    command.parse([...argv], { from: 'user' });
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2;
    throw error;
  }
  try {
    return await serve(command.opts<Options>());
  } catch (error) {
    const hint = error instanceof UserError ? `\n${error.hint}` : '';
    process.stderr.write(`drover server: ${messageOf(error)}${hint}\n`);
    if (!(error instanceof UserError)) return 1;
    const kind = userErrorCodes[error.code];
    return kind === 'usage' ? 2 : kind === 'conflict' || kind === 'refused' ? 4 : 1;
  }
}

async function serve(options: Options): Promise<number> {
  const listen = parseEndpoint(options.listen, '--listen');
  const agentsAt = parseEndpoint(options.agents, '--agents');
  const log = createLog({ level: parseLevel(options.logLevel), fields: { program: 'server' } });
  makeState(options.state);
  const key = readFleetKey(secretFile(options.fleetKey ?? join(options.state, 'fleet.key')));
  const token = readToken(secretFile(options.tokenFile ?? join(options.state, 'token')));
  const version = versionOfPackage();

  const store = openSqlite(join(options.state, 'store.db'));
  const stop = new AbortController();
  const onSignal = (): void => stop.abort();
  process.on('SIGTERM', onSignal);
  process.on('SIGINT', onSignal);
  let newestTerm = 0;
  let ready = false;
  try {
    await lead(
      store,
      `server-${process.pid}`,
      stop.signal,
      async (leadership) => {
        const over = new AbortController();
        const door = {
          open: (onChannel: Parameters<typeof listenChannels>[0]['onChannel']) =>
            listenChannels({ ...agentsAt, key, onChannel }),
        };
        const onNewerTerm = (term: number): void => {
          newestTerm = Math.max(newestTerm, term);
          over.abort();
        };
        const common = { store, leadership, door, clock: systemClock, random: systemRandom, log, version };
        const plane = await startPlane({ ...common, onNewerTerm });
        const api = createApi({ plane, token, log });
        try {
          const address = await api.listen({ host: listen.address, port: listen.port });
          if (!ready) process.stdout.write(`${readyLine(address, agentsAt, plane.agentsPort)}\n`);
          ready = true;
          await aborted(AbortSignal.any([leadership.lost, over.signal]));
        } finally {
          await api.close();
          await plane.stop();
        }
      },
      { ttlMs: leadTtlMs, termAbove: () => newestTerm, log },
    );
    return 0;
  } finally {
    process.off('SIGTERM', onSignal);
    process.off('SIGINT', onSignal);
    await store.close();
  }
}

function readyLine(api: string, agentsAt: Endpoint, agentsPort: number): string {
  return `drover server ready: ${api} (agents on ${agentsAt.address}:${agentsPort})`;
}

function aborted(signal: AbortSignal): Promise<void> {
  if (signal.aborted) return Promise.resolve();
  return new Promise((resolve) => signal.addEventListener('abort', () => resolve(), { once: true }));
}

function parseEndpoint(text: string, option: string): Endpoint {
  const match = /^(?:\[([0-9a-f:]+)\]|([^:]+)):(\d{1,5})$/i.exec(text);
  const address = match?.[1] ?? match?.[2];
  const port = Number(match?.[3]);
  if (address !== undefined && port <= 65_535) return { address, port };
  throw new UserError('invalid-input', `${option} ${text} is not an address.`, 'Write ADDR:PORT, e.g. 127.0.0.1:7070.');
}

function parseLevel(text: string): LogLevel {
  if (text === 'debug' || text === 'info' || text === 'warn' || text === 'error') return text;
  throw new UserError('invalid-input', `There is no log level '${text}'.`, 'Use debug, info, warn or error.');
}

function makeState(dir: string): void {
  try {
    mkdirSync(dir, { recursive: true, mode: 0o700 });
    chmodSync(dir, 0o700);
  } catch (error) {
    throw new UserError(
      'invalid-input',
      `The state directory ${dir} cannot be made: ${messageOf(error)}.`,
      'Run as root, or give another with --state.',
      { cause: error },
    );
  }
}

/** Makes the file with a new secret when it is not there; only its owner may read it. */
function secretFile(path: string): string {
  if (!existsSync(path)) writeFileSync(path, `${randomBytes(32).toString('hex')}\n`, { mode: 0o600, flag: 'wx' });
  return path;
}

function readToken(path: string): string {
  const token = readFileSync(path, 'utf8').trim();
  if (token.length >= 16) return token;
  throw new UserError(
    'invalid-input',
    `The token in ${path} has fewer than 16 characters.`,
    'Write a longer one, or remove the file: a new one is made then.',
  );
}

function versionOfPackage(): string {
  const text = readFileSync(new URL('../../package.json', import.meta.url), 'utf8');
  const parsed: unknown = JSON.parse(text);
  if (parsed !== null && typeof parsed === 'object' && 'version' in parsed && typeof parsed.version === 'string') {
    return parsed.version;
  }
  throw new Error('package.json has no version');
}
