/** `drover agent`: one per host. Builds its parts, finds what runs, then listens for peers and dials the server. */
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { cpus } from 'node:os';
import { join, resolve } from 'node:path';
import { Command, CommanderError, Option } from 'commander';
import { UserError, messageOf } from '../model/failure.ts';
import { namePattern } from '../model/ids.ts';
import type { Endpoint, HostInventory } from '../model/host.ts';
import { detectAccel, locateQemu } from '../hypervisor/qemu/locate.ts';
import { guestsUsing } from '../hypervisor/qemu/guests-using.ts';
import { killProcess } from '../hypervisor/qemu/process.ts';
import { openQemu } from '../hypervisor/qemu/qemu.ts';
import {
  listenChannels,
  openChannel,
  readFleetKey,
  type Channel,
  type FleetKey,
  type Listener,
} from '../runtime/channel.ts';
import { bootClock, systemClock } from '../runtime/clock.ts';
import { createLog } from '../runtime/log.ts';
import { startAgent } from './agent.ts';
import { holdAlone, runDirectory } from './alone.ts';
import { openDisks } from './disks.ts';
import { openFacts } from './facts.ts';
import { PoolFiles } from './guard/pool-files.ts';
import { guardRestPath, guardStatePath, readGuardState } from './guard/state-file.ts';
import { healthMeter, smartctl } from './health.ts';
import { openJournal } from './journal.ts';
import { openLeases } from './leases.ts';
import { cpuModelName, loadMeter, memoryTotalMiB, remembering } from './load.ts';
import type { agentMetrics } from './metrics.ts';
import { interfaceBytesPerSecond, openNetwork } from './network.ts';
import { collect, parsePairs, usage } from './options.ts';
import { raplMeter } from './rapl.ts';
import { sleepMeans } from './sleep-means.ts';

interface AgentOptions {
  state: string;
  name: string;
  server: string[];
  fleetKey: string;
  peer: string[];
  migrationAddress: string[];
  network: string[];
  pool: string[];
  accel: 'auto' | 'kvm' | 'tcg';
  qemu?: string;
  memory?: string;
  sendQueue: 'bounded' | 'system';
  bootIdFile: string;
  powerState: string;
  metricsListen?: string;
}

/** Its options and help. */
export function agentCommand(): Command {
  return new Command('drover agent')
    .description('Runs on each host: starts guests, moves them, reports. Guests survive its end.')
    .requiredOption('--name <host>', 'name of this host in the fleet')
    .requiredOption('--server <address:port>', "the server's port for agents; may be given again", collect)
    .requiredOption('--fleet-key <file>', 'the key that all programs of the fleet share')
    .requiredOption(
      '--peer <address:port>',
      'where agents of other hosts reach this one; given again: another way',
      collect,
    )
    .requiredOption(
      '--migration-address <address>',
      "where guests' memory is received; given again: another way, for a link that breaks in post-copy",
      collect,
    )
    .option('--state <dir>', 'what must survive a restart', '/var/lib/drover/agent')
    .option('--network <name=bridge>', 'a network and its bridge here; may be given again', collect)
    .option('--pool <name=dir>', 'a pool and its directory here; may be given again', collect)
    .addOption(
      new Option('--accel <how>', 'KVM where it really runs guests, unless told')
        .choices(['auto', 'kvm', 'tcg'])
        .default('auto'),
    )
    .option('--qemu <dir>', 'directory of the QEMU to use')
    .option('--memory <MiB>', "memory to offer to guests, instead of the machine's")
    .addOption(
      new Option(
        '--send-queue <how>',
        "while sending, bound this network namespace's TCP send queue (shorter blackouts), or leave the system's",
      )
        .choices(['bounded', 'system'])
        .default('bounded'),
    )
    .option('--boot-id-file <file>', 'what changes with every boot', '/proc/sys/kernel/random/boot_id')
    .option('--power-state <file>', 'where this host is suspended to memory', '/sys/power/state')
    .option(
      '--metrics-listen <address:port>',
      'answers Prometheus at /metrics there, without a token (default: nowhere)',
    )
    .addHelpText(
      'after',
      '\nExample:\n' +
        '  drover agent --name h1 --server 10.0.0.1:7071 --fleet-key /etc/drover/fleet.key \\\n' +
        '    --peer 10.0.0.11:7072 --migration-address 10.1.0.11 --pool default=/srv/vms',
    )
    .exitOverride();
}

/** @returns the exit code: 0 after SIGTERM or SIGINT, 1 when it could not start, 2 for a wrong command line */
export async function runAgent(argv: string[]): Promise<number> {
  const parser = agentCommand();
  try {
    parser.parse(argv, { from: 'user' });
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2;
    throw error;
  }
  try {
    await serve(parser.opts<AgentOptions>());
    return 0;
  } catch (error) {
    if (error instanceof UserError) {
      process.stderr.write(`error: ${error.message}\n  next: ${error.hint}\n`);
      return error.code === 'invalid-input' ? 2 : 1;
    }
    process.stderr.write(`error: the agent could not start: ${messageOf(error)}\n`);
    if (process.env['DROVER_DEBUG']) throw error;
    return 1;
  }
}

async function serve(options: AgentOptions): Promise<void> {
  if (!namePattern.test(options.name))
    throw usage(`'${options.name}' is not a host name.`, 'Use a-z, 0-9, "-" and ".".');
  const [peer, ...otherPeers] = options.peer.map(parseEndpoint);
  const [migrationAddress] = options.migrationAddress;
  if (!peer || migrationAddress === undefined)
    throw usage('--peer or --migration-address has no value.', 'See --help.');
  const servers = options.server.map(parseEndpoint);
  const metricsAt = options.metricsListen === undefined ? undefined : parseEndpoint(options.metricsListen);
  const pools = parsePairs(options.pool ?? ['default=/var/lib/drover/pool'], 'pool');
  const bridges = parsePairs(options.network ?? ['default=br0'], 'network');
  const stateDir = resolve(options.state);
  mkdirSync(stateDir, { recursive: true, mode: 0o700 });
  for (const dir of Object.values(pools)) mkdirSync(dir, { recursive: true });
  const fleetKey = readKey(options.fleetKey);

  const runDir = runDirectory(stateDir);
  mkdirSync('/run/drover', { recursive: true, mode: 0o700 });
  await holdAlone(`${runDir}.sock`, stateDir);

  const qemu = await locateQemu({
    ...(options.qemu === undefined ? {} : { qemuDir: options.qemu }),
    env: process.env,
    repoRoot: join(import.meta.dirname, '..', '..'),
  });
  if (!qemu.ok) throw new UserError('unavailable', qemu.reason, qemu.hint);
  const { accel } = detectAccel(options.accel === 'auto' ? {} : { override: options.accel });
  const hypervisor = openQemu({ qemu, accel, runDir, logDir: join(stateDir, 'logs') });
  const description = await hypervisor.describe();

  const log = createLog({ fields: { host: options.name } });
  // The paths that are known to fail are handled where they are; an error nobody thought of costs one order, not the agent.
  process.on('unhandledRejection', (error) => log.error({ error }, 'an error that nobody handled'));

  const journal = openJournal(stateDir);
  const network = openNetwork({
    bridges,
    boundSendQueue: options.sendQueue === 'bounded',
    memoPath: join(stateDir, 'send-queue-before'),
    onTrouble: (what, error) => log.warn({ what, error: messageOf(error) }, 'the network could not be changed'),
  });
  const linkSpeed = interfaceBytesPerSecond(migrationAddress);
  const inventory: HostInventory = {
    cpus: cpus().length,
    memoryMiB: options.memory === undefined ? memoryTotalMiB() : parseMemory(options.memory),
    cpuModel: cpuModelName(),
    accel,
    qemuVersion: description.version,
    machines: description.machines,
    liveMigration: description.liveMigration,
    postCopy: description.postCopy,
    hold: description.hold,
    networks: Object.keys(bridges).filter((name) => existsSync(`/sys/class/net/${bridges[name]}`)),
    pools: Object.keys(pools),
    migrationAddress,
    migrationAddresses: options.migrationAddress,
    peer,
    otherPeers,
    kernelBootId: readFileSync(options.bootIdFile, 'utf8').trim(),
    measuresMemory: true,
    switchesOnOrder: true,
    ...(linkSpeed === undefined ? {} : { interfaceBytesPerSecond: linkSpeed }),
  };

  const { kernelBootId } = inventory;
  const leases = openLeases({
    host: options.name,
    pools: Object.entries(pools).map(([name, directory]) => new PoolFiles({ name, directory: resolve(directory) })),
    clock: bootClock,
    log,
    guardian: {
      read: () => readGuardState(guardStatePath(runDir), kernelBootId),
      guestsOn: ({ paths }) => guestsUsing(runDir, () => paths),
      killGuard: ({ pid, startTicks }) => killProcess(pid, startTicks),
    },
    restMark: {
      set: () => writeFileSync(guardRestPath(runDir), '', { mode: 0o600 }),
      clear: () => rmSync(guardRestPath(runDir), { force: true }),
    },
  });
  // Taken in only where somebody asks for it: an agent shall be small, and there again at once.
  const watched = metricsAt && { at: metricsAt, ...(await import('./metrics.ts')) };
  let metrics: ReturnType<typeof agentMetrics> | null = null;
  if (watched) await watched.listenForMetrics(watched.at, () => metrics);
  const facts = openFacts(stateDir, journal);
  const { meter, last: load } = remembering(loadMeter(raplMeter('/sys/class/powercap', systemClock)));
  const agent = await startAgent({
    hostName: options.name,
    hypervisor,
    journal,
    facts,
    network,
    disks: openDisks({ host: options.name, pools, qemuImg: qemu.imgBinary, env: qemu.env }),
    clock: systemClock,
    log,
    dial: (to, dialling) => openChannel({ ...to, ...dialling, key: fleetKey }),
    migrationAddress,
    migrationAddresses: options.migrationAddress,
    servers,
    version: version(),
    meter,
    inventory: async () => ({ ...inventory, ...(await leases.known()) }),
    leases,
    sleep: sleepMeans({ powerState: options.powerState, cards: '/sys/class/net' }),
    health: healthMeter({ root: '/', smart: smartctl, clock: systemClock }),
    listen: (onChannel) => listenAt([peer, ...otherPeers], fleetKey, onChannel),
  });
  const seen = { agent, hostName: options.name, version: version(), inventory, journal, facts, leases, load };
  if (watched) metrics = watched.agentMetrics(seen);
  process.stdout.write(`drover agent ready: ${options.name}\n`);

  const end = new AbortController();
  for (const signal of ['SIGTERM', 'SIGINT'] as const) process.once(signal, () => end.abort());
  await agent.run(end.signal);
  network.restoreSendQueue();
  // Guests, and transfers between their QEMUs, go on: what an agent leaves open is taken up by the next one.
  process.exit(0);
}

export function version(): string {
  const text = readFileSync(join(import.meta.dirname, '..', '..', 'package.json'), 'utf8');
  return (JSON.parse(text) as { version: string }).version; // our own file
}

/** On all of them; the first one's port counts. */
async function listenAt(
  endpoints: readonly Endpoint[],
  key: FleetKey,
  onChannel: (channel: Channel) => void,
): Promise<Listener> {
  const listeners = await Promise.all(endpoints.map((at) => listenChannels({ ...at, key, onChannel })));
  return {
    port: listeners[0]?.port ?? 0,
    close: async () => void (await Promise.all(listeners.map((listener) => listener.close()))),
  };
}

function readKey(path: string) {
  try {
    return readFleetKey(path);
  } catch (error) {
    throw new UserError('invalid-input', messageOf(error), "Copy fleet.key from the server's state directory.", {
      cause: error,
    });
  }
}

function parseEndpoint(text: string): Endpoint {
  const match = /^(.+):(\d{1,5})$/.exec(text);
  const port = Number(match?.[2]);
  if (!match?.[1] || !(port > 0 && port < 65_536))
    throw usage(`'${text}' is not an address and port.`, 'Write 10.0.0.1:7071.');
  return { address: match[1].replace(/^\[(.*)\]$/, '$1'), port };
}

function parseMemory(text: string): number {
  const memoryMiB = Number(text);
  if (!Number.isInteger(memoryMiB) || memoryMiB < 64)
    throw usage(`'${text}' is not a number of MiB.`, 'Write --memory 4096.');
  return memoryMiB;
}
