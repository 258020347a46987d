/** `drover server`: its options, its files, and the objects it is made of. Nothing is decided here. */
import { randomBytes } from 'node:crypto';
import { chmodSync, existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { Command, CommanderError } from 'commander';
import { UserError, messageOf, userErrorCodes } from '../model/failure.ts';
import type { Endpoint } from '../model/host.ts';
import { parseBytesPerSecond, parseDurationMs } from '../model/units.ts';
import { listenChannels, readFleetKey } from '../runtime/channel.ts';
import { systemClock } from '../runtime/clock.ts';
import { createLog } from '../runtime/log.ts';
import type { Log, LogLevel } from '../runtime/log.ts';
import { systemRandom } from '../runtime/random.ts';
import { isPassing, lead } from '../store/leadership.ts';
import type { Leadership } from '../store/leadership.ts';
import { openStore } from '../store/open.ts';
import type { StoreOptions } from '../store/open.ts';
import { refuseNewerRecords } from '../store/records.ts';
import type { Store } from '../store/store.ts';
import type { AgentDoor } from './agents.ts';
import { LeaderView, startFollower } from './follower.ts';
import type { Follower } from './follower.ts';
import { sendMagicPackets } from '../runtime/magic-packet.ts';
import { planInThread } from './threaded-planner.ts';
import { ServerMetrics } from './metrics/metrics.ts';
import { timedStore } from './metrics/timed-store.ts';
import { openPage, type Page } from './page.ts';
import { startPlane } from './plane.ts';
import { powerOver } from './power/open.ts';
import type { RecoveryOptions } from './recovery.ts';
import { restoreCommand } from './restore.ts';
import type { RestoreOptions } from './restore.ts';
import { ServerTls } from './server-tls.ts';
import { createApi } from './server.ts';

/** Nobody competes for the lead of a store of one process: only a process that stood still this long loses it. */
const leadTtlMs = 15_000;
/** Where others compete: a dead leader is replaced after this long. */
const sharedLeadTtlMs = 3_000;
/** What a Prometheus bears for one fleet without a thought. */
const perVmLimit = 10_000;
const builtPage = join(import.meta.dirname, '..', '..', '.drover', 'web');
/** After a term that could not be begun. */
const failedTermPauseMs = 250;

interface Options {
  readonly state: string;
  readonly listen: string;
  readonly agents: string;
  readonly fleetKey?: string;
  readonly tokenFile?: string;
  readonly store?: string;
  readonly etcdCa?: string;
  readonly etcdCert?: string;
  readonly etcdKey?: string;
  readonly api?: string;
  readonly page?: string;
  readonly tlsCert?: string;
  readonly tlsKey?: string;
  readonly tlsCa?: string;
  readonly trustGuard?: boolean;
  readonly linkSpeed?: string;
  readonly lockWait: string;
  readonly wakeProofDays: string;
  readonly metricsPerVm: string;
  readonly logLevel: string;
}

/** Its options and help. */
export function serverCommand(): Command {
  return new Command('drover server')
    .description('The control plane: the API for people and programs, and the port that agents dial.')
    .option('--state <dir>', 'where it keeps its store, fleet.key and token', '/var/lib/drover/server')
    .option('--listen <addr:port>', 'address of the API', '127.0.0.1:7070')
    .option('--agents <addr:port>', 'address that agents dial', '127.0.0.1:7071')
    .option('--fleet-key <file>', 'the key that agents must hold (default: fleet.key in the state directory)')
    .option('--token-file <file>', 'the token of the API (default: token in the state directory)')
    .option(
      '--store <address>',
      'etcd://HOST:PORT,HOST:PORT: where several servers share one store (default: a file of its own)',
    )
    .option('--etcd-ca <file>', "who signs etcd's certificates (PEM)")
    .option('--etcd-cert <file>', 'certificate that this server shows to etcd (PEM)')
    .option('--etcd-key <file>', 'its key (PEM)')
    .option(
      '--tls-cert <file>',
      'the API and the dashboard by https, with this certificate (PEM); read again on SIGHUP',
    )
    .option('--tls-key <file>', 'its key (PEM)')
    .option(
      '--tls-ca <file>',
      "who signs other servers' certificates, with --store (default: whom this machine trusts)",
    )
    .option('--api <url>', 'where other servers reach this one, with --store (default: http(s):// and --listen)')
    .option('--page <dir>', 'the built dashboard, served with the API (default: as npm run build makes it)')
    .option('--trust-guard', "take a lost host's lease for proof also where no watchdog covers its guard")
    .option('--lock-wait <time>', 'how long a VM of a lost host waits for a disk lock before an alarm', '120s')
    .option('--link-speed <rate>', 'of the migration network, for forecasts until moves have shown it, e.g. 10Gbit')
    .option('--wake-proof-days <days>', 'a host that was not woken for so long may not sleep before a drill', '30')
    .option('--metrics-per-vm <count>', 'up to so many VMs have series of their own at /metrics, by name', '0')
    .option('--log-level <level>', 'debug, info, warn or error', 'info')
    .addHelpText(
      'after',
      `
Both files are made when they are absent. Copy fleet.key to each host, then start an agent there.

Example:
  drover server --listen 127.0.0.1:7070 --agents 10.0.0.1:7071

One of three servers, the same on each but for its addresses; fleet.key and token are the same files:
  drover server --listen 10.0.0.1:7070 --agents 10.0.0.1:7071 \\
    --store etcd://10.0.0.1:2379,10.0.0.2:2379,10.0.0.3:2379 \\
    --etcd-ca ca.pem --etcd-cert server.pem --etcd-key server-key.pem`,
    )
    .allowExcessArguments(false)
    .exitOverride();
}

/** Runs the server until a signal. @returns the exit code */
export async function runServer(argv: readonly string[]): Promise<number> {
  const command = serverCommand();
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

/** A store that cannot be asked yet is asked again by whoever begins a term on it. */
function ignorePassing(error: unknown): void {
  if (!isPassing(error)) throw error;
}

/** Puts a backup back. @returns the exit code */
export function runRestore(argv: readonly string[]): Promise<number> {
  const log = createLog({ level: 'warn', fields: { program: 'restore' } });
  return restoreCommand(argv, (options) => openStore(storeOptions(options, log)).store);
}

function storeOptions(options: RestoreOptions, log: Log): StoreOptions {
  return {
    ...(options.store !== undefined && { address: options.store }),
    ...(options.etcdCa !== undefined && { etcdCa: options.etcdCa }),
    ...(options.etcdCert !== undefined && { etcdCert: options.etcdCert }),
    ...(options.etcdKey !== undefined && { etcdKey: options.etcdKey }),
    file: join(options.state, 'store.db'),
    log,
  };
}

async function serve(options: Options): Promise<number> {
  const listen = parseEndpoint(options.listen, '--listen');
  const agentsAt = parseEndpoint(options.agents, '--agents');
  const lockWaitMs = parseDurationMs(options.lockWait);
  const linkBytesPerSecond = options.linkSpeed === undefined ? undefined : parseBytesPerSecond(options.linkSpeed);
  const proofAgeMs = parseDays(options.wakeProofDays);
  const metrics = new ServerMetrics(versionOfPackage(), parsePerVm(options.metricsPerVm));
  const tls = tlsOf(options);
  const log = createLog({ level: parseLevel(options.logLevel), fields: { program: 'server' } });
  makeState(options.state);
  const key = readFleetKey(secretFile(options.fleetKey ?? join(options.state, 'fleet.key')));
  const token = readToken(secretFile(options.tokenFile ?? join(options.state, 'token')));
  const { store: untimed, shared } = openStore(storeOptions(options, log));
  const store = timedStore(untimed, metrics.registry);
  const stop = new AbortController();
  const onSignal = (): void => stop.abort();
  process.on('SIGTERM', onSignal);
  process.on('SIGINT', onSignal);
  const onHangUp = (): void => reload(tls, log);
  if (tls) process.on('SIGHUP', onHangUp);
  const door: AgentDoor = { open: (onChannel) => listenChannels({ ...agentsAt, key, onChannel }) };
  let ready = false;
  const onReady = (apiPort: number, agentsPort: number): void => {
    if (ready) return;
    ready = true;
    const own = { ...listen, port: apiPort };
    process.stdout.write(`drover server ready: ${urlOf(own, tls)} (agents on ${agentsAt.address}:${agentsPort})\n`);
  };
  const recovery = { trustGuard: options.trustGuard === true, lockWaitMs };
  const page = openPage(options.page ?? builtPage);
  const version = versionOfPackage();
  const own = { listen, tls, token, page, version, recovery, linkBytesPerSecond, proofAgeMs, metrics, log };
  const common: Common = { store, door, ...own, newestTerm: 0, onReady };
  try {
    await refuseNewerRecords(store).catch(ignorePassing);
    if (shared) await serveShared(common, options.api ?? apiOf(listen, tls), stop.signal);
    else {
      const termAbove = (): number => common.newestTerm;
      const work = (leadership: Leadership): Promise<void> => leadOneTerm(common, leadership);
      await lead(store, nameOfServer(), stop.signal, work, { ttlMs: leadTtlMs, termAbove, log });
    }
    return 0;
  } finally {
    process.off('SIGTERM', onSignal);
    process.off('SIGINT', onSignal);
    process.off('SIGHUP', onHangUp);
    await store.close();
  }
}

interface Common {
  readonly store: Store;
  readonly door: AgentDoor;
  readonly listen: Endpoint;
  readonly tls: ServerTls | undefined;
  readonly token: string;
  readonly page: Page;
  readonly version: string;
  readonly recovery: RecoveryOptions;
  readonly linkBytesPerSecond: number | undefined;
  readonly proofAgeMs: number;
  readonly metrics: ServerMetrics;
  readonly log: Log;
  /** The largest term that an agent is known to have obeyed. */
  newestTerm: number;
  /** Both ports can be used. */
  readonly onReady: (apiPort: number, agentsPort: number) => void;
}

/** Leads when it can and follows when another does, on the same two ports. */
async function serveShared(common: Common, api: string, signal: AbortSignal): Promise<void> {
  const { store, door, listen, tls, token, log, metrics, onReady } = common;
  const view = new LeaderView();
  const watching = view.run(store, signal);
  const follow = async (): Promise<Follower> => {
    const follower = await startFollower({
      listen,
      tls,
      door,
      view,
      token,
      clock: systemClock,
      log,
      metrics: () => metrics.text(),
    });
    onReady(follower.port, follower.agentsPort);
    return follower;
  };
  let follower: Follower | undefined = await follow();
  try {
    const work = async (leadership: Leadership): Promise<void> => {
      await follower?.close();
      follower = undefined;
      try {
        await leadOneTerm(common, leadership);
      } catch (error) {
        // The store went away just when this term was to begin: there is another one when it is back.
        if (!isPassing(error)) throw error;
        log.warn({ error, term: leadership.term }, 'a term could not be begun');
        await systemClock.sleep(failedTermPauseMs, signal).catch(() => {});
      }
      if (!signal.aborted) follower = await follow();
    };
    const options = { ttlMs: sharedLeadTtlMs, termAbove: () => common.newestTerm, api, log };
    await Promise.all([lead(store, nameOfServer(), signal, work, options), watching]);
  } finally {
    await follower?.close();
  }
}

async function leadOneTerm(common: Common, leadership: Leadership): Promise<void> {
  const {
    store,
    door,
    listen,
    tls,
    token,
    page,
    version,
    recovery,
    linkBytesPerSecond,
    proofAgeMs,
    metrics,
    log,
    onReady,
  } = common;
  const over = new AbortController();
  const onNewerTerm = (term: number): void => {
    common.newestTerm = Math.max(common.newestTerm, term);
    over.abort();
  };
  const own = { clock: systemClock, random: systemRandom, power: powerOver(systemClock), makePlan: planInThread };
  const sleep = { options: { proofAgeMs }, sendMagic: sendMagicPackets };
  const parts = { store, leadership, door, ...own, recovery, linkBytesPerSecond, sleep, log, version };
  const plane = await startPlane({ ...parts, onNewerTerm });
  const shown = metrics.leads(plane);
  const api = createApi({ plane, token, page, log, metrics: shown, tls });
  try {
    const address = await api.listen({ host: listen.address, port: listen.port });
    onReady(Number(new URL(address).port), plane.agentsPort);
    await aborted(AbortSignal.any([leadership.lost, over.signal]));
  } finally {
    shown.ends();
    await api.close();
    await plane.stop();
  }
}

/** @throws UserError invalid-input */
function tlsOf({ tlsCert: cert, tlsKey: key, tlsCa: ca }: Options): ServerTls | undefined {
  if (cert !== undefined && key !== undefined) return new ServerTls({ cert, key, ca });
  if (cert === undefined && key === undefined && ca === undefined) return undefined;
  throw new UserError('invalid-input', 'TLS needs a certificate and its key.', 'Give both --tls-cert and --tls-key.');
}

function reload(tls: ServerTls | undefined, log: Log): void {
  try {
    tls?.reload();
    log.info({}, 'the certificate was read again');
  } catch (error) {
    log.error({ error: messageOf(error) }, 'the certificate could not be read again: the one before stays');
  }
}

function nameOfServer(): string {
  return `${hostname()}:${process.pid}`;
}

/** @throws UserError for an address that other machines cannot dial */
function apiOf(listen: Endpoint, tls: ServerTls | undefined): string {
  if (listen.address !== '0.0.0.0' && listen.address !== '::' && listen.port !== 0) return urlOf(listen, tls);
  throw new UserError(
    'invalid-input',
    `Other servers cannot reach this one at --listen ${listen.address}:${listen.port}.`,
    `Say where they can: --api ${tls ? 'https' : 'http'}://ADDR:PORT.`,
  );
}

function urlOf({ address, port }: Endpoint, tls: ServerTls | undefined): string {
  return `${tls ? 'https' : 'http'}://${address.includes(':') ? `[${address}]` : address}:${port}`;
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

/** @returns milliseconds. @throws UserError invalid-input */
function parseDays(text: string): number {
  const days = Number(text);
  if (days > 0 && days <= 3650) return days * 86_400_000;
  throw new UserError('invalid-input', `'${text}' is not a number of days.`, 'Write --wake-proof-days 30.');
}

/** @throws UserError invalid-input */
function parsePerVm(text: string): number {
  const count = Number(text);
  if (Number.isInteger(count) && count >= 0 && count <= perVmLimit) return count;
  throw new UserError(
    'invalid-input',
    `--metrics-per-vm ${text} is not a number of VMs.`,
    `Write 0 to ${perVmLimit}; each has two series.`,
  );
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
