/**
 * `drover lab up`: the network, the directories, a supervisor with the server and one agent per host, and the wait until
 * all of it answers. Called again it repairs what is missing. Also `openLab`, by which everything else finds a lab that is up.
 */
import { randomBytes } from 'node:crypto';
import { spawn } from 'node:child_process';
import { closeSync, copyFileSync, existsSync, mkdirSync, openSync, readFileSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { locateQemu } from '../hypervisor/qemu/locate.ts';
import { UserError, messageOf } from '../model/failure.ts';
import { systemClock } from '../runtime/clock.ts';
import { createClient, type Client } from '../wire/client.ts';
import type { HostView } from '../wire/endpoints.ts';
import { guestFiles } from './guest/files.ts';
import { raise } from './network.ts';
import { bmcPlans, bmcSpec, powerFilesOf, preparePower } from './power.ts';
import { doorsOf, serverPlans } from './servers.ts';
import {
  addressesOf,
  apiOf,
  checkSettings,
  directoriesOf,
  hostNames,
  metricsPort,
  namesOf,
  peerPort,
  pointCliAt,
  readState,
  repository,
  writeJson,
  writeState,
  type LabState,
} from './state.ts';
import { askSupervisor, logOf, type ChildPlan } from './supervise.ts';

const hostMemoryMiB = 4096;
const supervisorStartMs = 15_000;
const programsReadyMs = 90_000;
const hostsUpMs = 60_000;
const lockWaitMs = 60_000;
const maxServers = 5;
export const defaults = { hosts: 3, linkSpeed: '1gbit' } as const;
/** Names of the guest's kernel and initrd in the lab's pool. */
export const guestKernel = 'lab-vmlinuz';
export const guestInitrd = 'lab-initrd';

export interface UpOptions {
  readonly name: string;
  /** Not given: as the lab is, or the default. */
  readonly hosts?: number | undefined;
  readonly linkSpeed?: string | undefined;
  readonly port?: number | undefined;
  /** False: hosts have no BMC. */
  readonly bmc?: boolean | undefined;
  /** More than one: on an etcd of three members. */
  readonly servers?: number | undefined;
  readonly say: (line: string) => void;
  readonly signal?: AbortSignal | undefined;
}

/** A lab that is up, and how to talk to it. */
export interface Lab {
  readonly state: LabState;
  readonly client: Client;
}

/** @throws UserError not-found when no lab of that name is up */
export function openLab(name: string): Lab {
  const state = readState(name);
  const token = state && readToken(name);
  if (!state || token === undefined) {
    throw new UserError('not-found', `No lab named '${name}' is up.`, 'Start it with: drover lab up --name ' + name);
  }
  return { state, client: createClient({ server: apiOf(state), token }) };
}

/** @throws UserError, or Error with what did not start and where its log is */
export async function up(options: UpOptions): Promise<Lab> {
  const before = readState(options.name);
  const settings = {
    name: options.name,
    hosts: options.hosts ?? before?.hosts ?? defaults.hosts,
    linkSpeed: options.linkSpeed ?? before?.linkSpeed ?? defaults.linkSpeed,
  };
  checkSettings(settings);
  checkPort(options.port);
  checkServers(options.servers);
  if (before) checkSame(before, options);
  requireRoot();
  await requireArtifacts();
  return withLock('lab', async () => {
    const { say, signal } = options;
    const lapse = stopwatch();
    const octet = await raise(settings, signal);
    say(`network: ${settings.hosts} hosts in 10.${octet}.0.0/16, migration links ${settings.linkSpeed} (${lapse()})`);

    const state: LabState = {
      schema: 1,
      ...settings,
      octet,
      apiPort: before?.apiPort ?? options.port ?? (await freePort()),
      servers: before?.servers ?? options.servers ?? 1,
      startedAt: before?.startedAt ?? Date.now(),
      bmc: options.bmc ?? before?.bmc ?? true,
    };
    makeDirectories(state);
    preparePower(state);
    writeState(state);
    const bmcs = state.bmc ? bmcPlans(state) : undefined;
    if (bmcs && !bmcs.ok) say(`hosts have no BMC: ${bmcs.reason}; npm run setup fetches it`);
    const children = [...(await childPlans(state)), ...(bmcs?.ok ? bmcs.plans : [])];
    writeJson(directoriesOf(state.name).supervisorPlan, { children });
    await ensureSupervisor(state.name);
    await askSupervisor(
      directoriesOf(state.name).supervisorSocket,
      { do: 'ready', timeoutMs: programsReadyMs },
      programsReadyMs + 5000,
    );
    say(
      `${state.servers === 1 ? 'server' : `${state.servers} servers`}, ${state.hosts} agents and their guards run (${lapse()})`,
    );
    const lab = openLab(state.name);
    await hostsUp(lab, signal);
    if (bmcs?.ok) await tellOfBmcs(lab);
    pointCliAt(state);
    say(`lab '${state.name}' is up: ${apiOf(state)}`);
    return lab;
  });
}

/** Hosts without a power controller get that of the lab. */
async function tellOfBmcs({ state, client }: Lab): Promise<void> {
  const without = (await client.listHosts()).filter(({ power }) => power === null);
  await Promise.all(
    without.map(({ name }) =>
      client.setHostPower({ params: { host: name }, body: { controller: bmcSpec(state, name) } }),
    ),
  );
}

/** Waits until every host of the lab has reported to the server. */
export async function hostsUp(lab: Lab, signal?: AbortSignal): Promise<void> {
  const wanted = hostNames(lab.state.hosts);
  const deadline = performance.now() + hostsUpMs;
  for (;;) {
    const hosts = await lab.client.listHosts({}, { ...(signal && { signal }) }).catch((error: unknown) => {
      if (error instanceof UserError && error.code === 'unavailable') return [] as HostView[];
      throw error;
    });
    const missing = wanted.filter((name) => !hosts.some((host) => host.name === name && host.state === 'up'));
    if (missing.length === 0) return;
    if (performance.now() > deadline) {
      const { logs } = directoriesOf(lab.state.name);
      throw new UserError(
        'timed-out',
        `${missing.join(', ')} did not report to the server within ${hostsUpMs / 1000} s.`,
        `Look at ${missing.map((host) => logOf(logs, host)).join(', ')} and ${logOf(logs, 'server')}.`,
      );
    }
    await systemClock.sleep(50, signal);
  }
}

const locks = {
  lab: { says: 'Another lab is coming up or going down.', socket: '\0drover-lab' },
  'guest-address': { says: 'Another VM is being given an address.', socket: '\0drover-lab-address' },
} as const;

/** One at a time on this machine, by an abstract socket: the kernel gives the lock back when its holder dies. */
export async function withLock<T>(what: keyof typeof locks, fn: () => Promise<T>): Promise<T> {
  const deadline = performance.now() + lockWaitMs;
  for (;;) {
    const lock = createServer();
    const taken = await new Promise<boolean>((resolve, reject) => {
      lock.once('error', (error: NodeJS.ErrnoException) =>
        error.code === 'EADDRINUSE' ? resolve(false) : reject(error),
      );
      lock.listen(locks[what].socket, () => resolve(true));
    });
    if (taken) {
      try {
        return await fn();
      } finally {
        await new Promise((resolve) => lock.close(resolve));
      }
    }
    if (performance.now() > deadline) {
      throw new UserError('busy', locks[what].says, 'Try again when it has finished.');
    }
    await systemClock.sleep(50);
  }
}

export function requireRoot(): void {
  if (process.getuid?.() === 0) return;
  throw new UserError(
    'unavailable',
    'The lab needs root: it makes network namespaces and tap devices.',
    'Run the same with sudo.',
  );
}

async function requireArtifacts(): Promise<void> {
  const missing = Object.values(guestFiles()).filter((file) => !existsSync(file));
  const qemu = await locateQemu({ env: process.env, repoRoot: repository });
  if (missing.length === 0 && qemu.ok) return;
  throw new UserError(
    'unavailable',
    qemu.ok ? `The lab's guest is not built: ${missing.join(', ')}.` : `The lab has no QEMU: ${qemu.reason}.`,
    'Run the set-up, which fetches and builds it: npm run setup',
  );
}

function checkPort(port: number | undefined): void {
  if (port === undefined || (Number.isInteger(port) && port >= 1 && port <= 65_535)) return;
  throw new UserError('invalid-input', `${port} is not a TCP port.`, 'Use 1 to 65535, for example 7070.');
}

/** What cannot change while a lab is up. The link speed can. */
function checkSame(state: LabState, asked: UpOptions): void {
  const differs =
    asked.hosts !== undefined && asked.hosts !== state.hosts
      ? `${state.hosts} hosts`
      : asked.port !== undefined && asked.port !== state.apiPort
        ? `port ${state.apiPort}`
        : asked.servers !== undefined && asked.servers !== state.servers
          ? `${state.servers} servers`
          : undefined;
  if (differs === undefined) return;
  throw new UserError(
    'already-exists',
    `The lab '${state.name}' is up already, with ${differs}.`,
    `Take it down first (drover lab down --name ${state.name}), or start another with --name.`,
  );
}

function checkServers(servers: number | undefined): void {
  if (servers === undefined || (Number.isInteger(servers) && servers >= 1 && servers <= maxServers)) return;
  throw new UserError(
    'invalid-input',
    `A lab cannot have ${servers} servers.`,
    `Use 1 to ${maxServers}, for example 3.`,
  );
}

function makeDirectories(state: LabState): void {
  const directories = directoriesOf(state.name);
  for (const path of [
    directories.server,
    directories.pool,
    directories.logs,
    ...hostNames(state.hosts).map(directories.host),
  ]) {
    mkdirSync(path, { recursive: true });
  }
  // Before the server makes one: agents need not wait for it then.
  if (!existsSync(directories.fleetKey)) {
    writeFileSync(directories.fleetKey, `${randomBytes(32).toString('hex')}\n`, { mode: 0o600 });
  }
  const { kernel, initrd } = guestFiles();
  copyFileSync(kernel, join(directories.pool, guestKernel));
  copyFileSync(initrd, join(directories.pool, guestInitrd));
}

async function childPlans(state: LabState): Promise<ChildPlan[]> {
  const directories = directoriesOf(state.name);
  const addresses = addressesOf(state.octet);
  const node = [process.execPath, '--disable-warning=ExperimentalWarning', join(repository, 'src/main.ts')];
  const agents = hostNames(state.hosts).map((host): ChildPlan => ({
    name: host,
    command: 'ip',
    args: [
      'netns',
      'exec',
      namesOf(state.name).host(host),
      ...node,
      'agent',
      ...doorsOf(state).flatMap((door) => ['--server', door]),
      ...flags({
        name: host,
        'fleet-key': directories.fleetKey,
        peer: `${addresses.control(host)}:${peerPort}`,
        'migration-address': addresses.migration(host),
        network: 'default=br0',
        pool: `default=${directories.pool}`,
        memory: String(hostMemoryMiB),
        'metrics-listen': `${addresses.control(host)}:${metricsPort}`,
        'boot-id-file': powerFilesOf(state.name).bootId(host),
        // Not the machine's own: that is not the lab's to suspend.
        'power-state': join(powerFilesOf(state.name).directory, 'no-suspend'),
        // Last: by it the supervisor knows its children again.
        state: directories.host(host),
      }),
    ],
    readyLine: 'drover agent ready',
    log: logOf(directories.logs, host),
    host,
  }));
  const guards = hostNames(state.hosts).map((host): ChildPlan => ({
    name: guardOf(host),
    command: 'ip',
    args: [
      'netns',
      'exec',
      namesOf(state.name).host(host),
      ...node,
      'guard',
      ...flags({
        name: host,
        pool: `default=${directories.pool}`,
        'boot-id-file': powerFilesOf(state.name).bootId(host),
        state: directories.host(host),
      }),
    ],
    readyLine: 'drover guard ready',
    log: logOf(directories.logs, guardOf(host)),
    host,
  }));
  return [...(await serverPlans(state, node)), ...agents, ...guards];
}

/** What the supervisor calls the guard of a host. */
export function guardOf(host: string): string {
  return `${host}-guard`;
}

function flags(values: Readonly<Record<string, string>>): string[] {
  return Object.entries(values).flatMap(([name, value]) => [`--${name}`, value]);
}

async function ensureSupervisor(name: string): Promise<void> {
  const directories = directoriesOf(name);
  if (Buffer.byteLength(directories.supervisorSocket) > 100) {
    throw new UserError(
      'unavailable',
      `The path of the lab's directory is too long for Unix sockets: ${directories.root}.`,
      'Put the repository into a directory with a shorter path.',
    );
  }
  if (await askSupervisor(directories.supervisorSocket, { do: 'ensure' })) return;
  const logFile = logOf(directories.logs, 'supervisor');
  const log = openSync(logFile, 'a');
  const child = spawn(
    process.execPath,
    ['--disable-warning=ExperimentalWarning', join(repository, 'src/main.ts'), 'lab', 'supervise', directories.root],
    { detached: true, stdio: ['ignore', log, log] },
  );
  closeSync(log);
  const failed = new Promise<never>((_, reject) => {
    child.once('error', (cause) => reject(new Error("the lab's supervisor cannot be started", { cause })));
    child.once('exit', (code) => reject(new Error(`the lab's supervisor ended with ${code}; its log: ${logFile}`)));
  });
  failed.catch(() => {}); // it may also end long after it was waited for
  const deadline = performance.now() + supervisorStartMs;
  for (;;) {
    // Not only asked how it is: hosts that were off when the one before it ended are switched on.
    if (await Promise.race([askSupervisor(directories.supervisorSocket, { do: 'ensure' }), failed])) break;
    if (performance.now() > deadline) throw new Error(`the lab's supervisor does not answer; its log: ${logFile}`);
    await systemClock.sleep(20);
  }
  child.removeAllListeners('exit');
  child.unref();
}

function readToken(name: string): string | undefined {
  try {
    return readFileSync(directoriesOf(name).token, 'utf8').trim();
  } catch {
    return undefined;
  }
}

function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.once('error', (error) => reject(new Error(`no free port: ${messageOf(error)}`, { cause: error })));
    server.listen(0, '127.0.0.1', () => {
      const bound = server.address();
      server.close(() => resolve(typeof bound === 'object' && bound ? bound.port : 0));
    });
  });
}

function stopwatch(): () => string {
  let last = performance.now();
  return () => {
    const now = performance.now();
    const text = `${((now - last) / 1000).toFixed(1)} s`;
    last = now;
    return text;
  };
}
