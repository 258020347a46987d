/** `drover agent`: one per host. Builds its parts, finds what runs, then listens for peers and dials the server. */
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, rmSync } from 'node:fs';
import { connect, createServer, type Server } from 'node:net';
import { cpus } from 'node:os';
import { join, resolve } from 'node:path';
import { Command, CommanderError, Option } from 'commander';
import { UserError, messageOf } from '../model/failure.ts';
import { namePattern } from '../model/ids.ts';
import type { Endpoint, HostInventory } from '../model/host.ts';
import { detectAccel, locateQemu } from '../hypervisor/qemu/locate.ts';
import { openQemu } from '../hypervisor/qemu/qemu.ts';
import { readFleetKey } from '../runtime/channel.ts';
import { systemClock } from '../runtime/clock.ts';
import { createLog } from '../runtime/log.ts';
import type { AgentContext } from './context.ts';
import { openDisks } from './disks.ts';
import { openFacts } from './facts.ts';
import { Guests } from './guests.ts';
import { listenForPeers } from './handover.ts';
import { openJournal } from './journal.ts';
import { cpuModelName, memoryTotalMiB } from './load.ts';
import { openNetwork } from './network.ts';
import { Orders } from './orders.ts';
import { Uplink } from './uplink.ts';

interface AgentOptions {
  state: string;
  name: string;
  server: string[];
  fleetKey: string;
  peer: string;
  migrationAddress: string;
  network: string[];
  pool: string[];
  accel: 'auto' | 'kvm' | 'tcg';
  qemu?: string;
  memory?: string;
  sendQueue: 'bounded' | 'system';
}

const collect = (value: string, before: string[] = []) => [...before, value];

function command(): Command {
  return new Command('drover agent')
    .description('Runs on each host: starts guests, moves them, reports. Guests survive its end.')
    .requiredOption('--name <host>', 'name of this host in the fleet')
    .requiredOption('--server <address:port>', "the server's port for agents; may be given again", collect)
    .requiredOption('--fleet-key <file>', 'the key that all programs of the fleet share')
    .requiredOption('--peer <address:port>', 'where agents of other hosts reach this one')
    .requiredOption('--migration-address <address>', "where guests' memory is received")
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
  const parser = command();
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
  const peer = parseEndpoint(options.peer);
  const servers = options.server.map(parseEndpoint);
  const pools = parsePairs(options.pool ?? ['default=/var/lib/drover/pool'], 'pool');
  const bridges = parsePairs(options.network ?? ['default=br0'], 'network');
  const stateDir = resolve(options.state);
  mkdirSync(stateDir, { recursive: true, mode: 0o700 });
  for (const dir of Object.values(pools)) mkdirSync(dir, { recursive: true });
  const fleetKey = readKey(options.fleetKey);

  const id = createHash('sha256').update(stateDir).digest('hex').slice(0, 12);
  mkdirSync('/run/drover', { recursive: true, mode: 0o700 });
  await holdAlone(`/run/drover/${id}.sock`, stateDir);

  const qemu = await locateQemu({
    ...(options.qemu === undefined ? {} : { qemuDir: options.qemu }),
    env: process.env,
    repoRoot: join(import.meta.dirname, '..', '..'),
  });
  if (!qemu.ok) throw new UserError('unavailable', qemu.reason, qemu.hint);
  const { accel } = detectAccel(options.accel === 'auto' ? {} : { override: options.accel });
  const runDir = `/run/drover/${id}`;
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
  const holder: { uplink?: Uplink } = {};
  const context: AgentContext = {
    hostName: options.name,
    hypervisor,
    journal,
    facts: openFacts(stateDir, journal),
    network,
    disks: openDisks({ pools, qemuImg: qemu.imgBinary, env: qemu.env }),
    clock: systemClock,
    log,
    fleetKey,
    migrationAddress: options.migrationAddress,
    sample: (sample) => holder.uplink?.sample(sample),
  };
  const inventory: HostInventory = {
    cpus: cpus().length,
    memoryMiB: options.memory === undefined ? memoryTotalMiB() : parseMemory(options.memory),
    cpuModel: cpuModelName(),
    accel,
    qemuVersion: description.version,
    machines: description.machines,
    liveMigration: description.liveMigration,
    postCopy: description.postCopy,
    networks: Object.keys(bridges).filter((name) => existsSync(`/sys/class/net/${bridges[name]}`)),
    pools: Object.keys(pools),
    migrationAddress: options.migrationAddress,
    peer,
    kernelBootId: readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim(),
  };

  const guests = new Guests(context);
  const orders = new Orders(context, guests);
  await guests.adopt();
  const listener = await listenForPeers(context, peer, orders);
  orders.resume();
  const uplink = new Uplink(context, guests, orders, { servers, version: version(), inventory: async () => inventory });
  holder.uplink = uplink;
  process.stdout.write(`drover agent ready: ${options.name}\n`);

  const end = new AbortController();
  for (const signal of ['SIGTERM', 'SIGINT'] as const) process.once(signal, () => end.abort());
  await uplink.run(end.signal);
  network.restoreSendQueue();
  await listener.close();
  // Guests, and transfers between their QEMUs, go on: what an agent leaves open is taken up by the next one.
  process.exit(0);
}

/**
 * One agent for one state directory: two would both give numbers to facts and orders to guests. The kernel knows whether
 * the other one lives, so nothing stale is left to clean up.
 * @throws UserError busy
 */
export async function holdAlone(socketPath: string, stateDir: string): Promise<Server> {
  const listen = () =>
    new Promise<Server>((resolve, reject) => {
      const server = createServer((socket) => socket.destroy()).once('error', reject);
      server.listen(socketPath, () => resolve(server.unref()));
    });
  const isHeld = () =>
    new Promise<boolean>((resolve) => {
      const socket = connect({ path: socketPath });
      socket.once('connect', () => resolve(true)).once('error', () => resolve(false));
      socket.once('connect', () => socket.destroy());
    });
  try {
    return await listen();
  } catch {
    if (!(await isHeld())) {
      rmSync(socketPath, { force: true });
      return listen();
    }
    throw new UserError(
      'busy',
      `Another agent already uses ${stateDir}.`,
      'End that one first, or give this one a --state of its own.',
    );
  }
}

export function version(): string {
  const text = readFileSync(join(import.meta.dirname, '..', '..', 'package.json'), 'utf8');
  return (JSON.parse(text) as { version: string }).version; // our own file
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

function parsePairs(texts: readonly string[], what: string): Record<string, string> {
  const pairs = texts.map((text) => {
    const at = text.indexOf('=');
    if (at < 1 || at === text.length - 1) throw usage(`'${text}' is not a ${what}.`, `Write --${what} NAME=VALUE.`);
    return [text.slice(0, at), text.slice(at + 1)] as const;
  });
  return Object.fromEntries(pairs);
}

function parseMemory(text: string): number {
  const memoryMiB = Number(text);
  if (!Number.isInteger(memoryMiB) || memoryMiB < 64)
    throw usage(`'${text}' is not a number of MiB.`, 'Write --memory 4096.');
  return memoryMiB;
}

function usage(message: string, hint: string): UserError {
  return new UserError('invalid-input', message, hint);
}
