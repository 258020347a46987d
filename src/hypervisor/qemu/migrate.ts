/**
 * QEMU's side of a move: capabilities and parameters on both ends, QEMU's states turned into ours, its numbers into ours.
 *
 * What QEMU does that shaped this (measured, 10.0 and 7.2):
 * - capabilities and parameters outlive a migration: all of ours are set every time, off as well as on;
 * - without `return-path` a source calls itself completed when the bytes have left, loaded or not: always on;
 * - a guest that migrated in keeps `completed` from its incoming life: what counts is the events since `start`;
 * - with `-S` and `late-block-activate` the target takes neither CPU nor disks before `cont`.
 *
 * Not here: when to switch or stop (migration/steer.ts), journals and handover (agent/).
 */
import { connect, createServer } from 'node:net';
import type { Endpoint } from '../../model/host.ts';
import { systemClock } from '../../runtime/clock.ts';
import type {
  GuestEvent,
  GuestState,
  Transfer,
  TransferNumbers,
  TransferOptions,
  TransferState,
} from '../hypervisor.ts';
import { QmpCommandError } from './qmp-errors.ts';
import type { QmpEvent } from './qmp-events.ts';
import type { Qmp } from './monitor.ts';
import type { Commands } from './types.gen.ts';

type Capability = Commands['migrate-set-capabilities']['args']['capabilities'][number]['capability'];
type RunState = Commands['query-status']['reply']['status'];
type MigrationStatus = NonNullable<Commands['query-migrate']['reply']['status']>;

/** More than any link: QEMU's own default of 128 MiB/s would be a limit nobody asked for. */
const unlimitedBytesPerSecond = 16 * 1024 ** 3;

/**
 * For a held transfer (measured, 10.0): what QEMU still has to send never fits into the smallest limit it takes, so it does
 * not look for new dirty pages thousands of times a second while it waits.
 */
const heldDowntimeMs = 1;
/** Less than any page: QEMU then sends one buffer in each of its 100 ms windows, 1.3 MB/s in all, and sleeps between. */
const trickleBytesPerSecond = 40;
/** QEMU's own upper bound for downtime-limit. */
const longestDowntimeMs = 2_000_000;

function wantedCapabilities(options: TransferOptions, side: 'source' | 'target'): [Capability, boolean][] {
  return [
    ['events', true],
    ['return-path', true],
    ['pause-before-switchover', false],
    ['postcopy-ram', options.postCopy],
    ['postcopy-preempt', false],
    ['postcopy-blocktime', options.postCopy && side === 'target'],
    ['multifd', options.parallelStreams > 0],
    ['xbzrle', options.compression === 'xbzrle'],
    ['auto-converge', options.autoConverge],
    // Asked for by the source alone: QEMU then waits for a word that no target says, unless the guest is stopped.
    ['switchover-ack', options.hold && side === 'source'],
    ['late-block-activate', true],
  ];
}

/** Sets both ends alike. Capabilities this QEMU does not know are left out when off, and refused by it when on. */
export async function prepareTransfer(
  qmp: Qmp,
  options: TransferOptions,
  side: 'source' | 'target',
  memoryMiB: number,
): Promise<void> {
  const known = new Set((await qmp.execute('query-migrate-capabilities')).map((entry) => entry.capability));
  const wanted = wantedCapabilities(options, side).filter(([capability, state]) => state || known.has(capability));
  // Off first: QEMU checks each list for conflicts with what is still on.
  for (const state of [false, true]) {
    const capabilities = wanted.filter(([, on]) => on === state).map(([capability]) => ({ capability, state }));
    if (capabilities.length > 0) await qmp.execute('migrate-set-capabilities', { capabilities });
  }
  await qmp.execute('migrate-set-parameters', {
    'downtime-limit': options.hold && side === 'source' ? heldDowntimeMs : options.downtimeLimitMs,
    'max-bandwidth': options.maxBandwidthBytesPerSecond ?? unlimitedBytesPerSecond,
    'max-postcopy-bandwidth': options.maxBandwidthBytesPerSecond ?? 0,
    ...(options.parallelStreams > 0
      ? {
          'multifd-channels': options.parallelStreams,
          'multifd-compression': options.compression === 'zstd' ? ('zstd' as const) : ('none' as const),
        }
      : {}),
    ...(options.compression === 'xbzrle'
      ? { 'xbzrle-cache-size': 2 ** Math.floor(Math.log2((memoryMiB * 1024 * 1024) / 2)) }
      : {}),
  });
}

/** Listens on a free port of that address. */
export async function listenForTransfer(qmp: Qmp, address: string): Promise<Endpoint> {
  await qmp.execute('migrate-incoming', { uri: uriOf({ address, port: 0 }) });
  const { 'socket-address': sockets } = await qmp.execute('query-migrate');
  const socket = sockets?.[0];
  if (socket?.type !== 'inet') throw new Error('QEMU listens, but does not say on which port');
  return { address, port: Number(socket.port) };
}

export function transferOf(qmp: Qmp, memoryMiB: number): Transfer {
  /** Addresses that have answered: when they do not any more, the network is gone. Others may have a firewall before them. */
  const answering = new Set<string>();
  return {
    async start(to, options) {
      void answers(to.address).then(
        (answer) => answer && answering.add(to.address),
        () => {},
      );
      await prepareTransfer(qmp, options, 'source', memoryMiB);
      await qmp.execute('migrate', { uri: uriOf(to) });
    },
    numbers: () => readNumbers(qmp),
    async limitDowntime(ms) {
      await qmp.execute('migrate-set-parameters', { 'downtime-limit': ms });
    },
    async limitBandwidth(limit) {
      const bytesPerSecond = limit === 'trickle' ? trickleBytesPerSecond : (limit ?? unlimitedBytesPerSecond);
      await qmp.execute('migrate-set-parameters', { 'max-bandwidth': bytesPerSecond });
    },
    async completeNow() {
      await qmp.execute('migrate-set-parameters', { 'downtime-limit': longestDowntimeMs });
      await qmp.execute('stop');
    },
    async switchToPostCopy() {
      await qmp.execute('migrate-start-postcopy');
    },
    async cancel() {
      // QEMU 7.2 accepts this after the switch and loses the guest: the caller never calls it then, and neither do we.
      const { status } = await qmp.execute('query-migrate');
      if (status !== undefined && stateOf(status).kind.startsWith('post-copy')) {
        throw new QmpCommandError(qmp.path, 'migrate_cancel', { class: 'GenericError', desc: 'post-copy has started' });
      }
      await qmp.execute('migrate_cancel');
    },
    async cutConnection() {
      try {
        await qmp.executeOob('yank', { instances: [{ type: 'migration' }] });
      } catch (error) {
        if (!(error instanceof QmpCommandError) || !(await isStuck(qmp))) throw error;
        await qmp.execute('quit');
      }
    },
    async pause() {
      await qmp.executeOob('migrate-pause');
    },
    async listenAgain(listenOn) {
      // QEMU would choose a port, but could not be asked which: that question waits for its main loop.
      const endpoint = { address: listenOn, port: await freePort(listenOn) };
      await qmp.executeOob('migrate-recover', { uri: uriOf(endpoint) });
      return endpoint;
    },
    async resume(to) {
      // QEMU's connect cannot be ended: on a dead network it tries again after 1, 2, 4, 8 s, and sleeps while the link comes back.
      if (await answers(to.address)) answering.add(to.address);
      else if (answering.has(to.address)) throw new Error(`no answer from ${to.address}`);
      await qmp.execute('migrate', { uri: uriOf(to), resume: true });
    },
  };
}

/**
 * QEMU 10.0, whose target dies while a post-copy's execution state is sent: it has no connection any more but says `device` for ever
 * ("Unknown ending state 13"), with the guest in finish-migrate, where `cont` is refused. Asked after the connection was found gone:
 * a transfer that ends properly says so before it lets the connection go.
 */
async function isStuck(qmp: Pick<Qmp, 'execute'>): Promise<boolean> {
  return (await qmp.execute('query-migrate')).status === 'device';
}

const uriOf = ({ address, port }: Endpoint) => `tcp:${address.includes(':') ? `[${address}]` : address}:${port}`;

const noServicePort = 9;
const answerMs = 1000;

/**
 * Does that address answer at all? Asked at a port of no service, because QEMU takes whoever connects to its own for the source.
 * @throws when the system knows of no way to it
 */
function answers(address: string): Promise<boolean> {
  return new Promise((resolve, reject) => {
    const socket = connect({ host: address, port: noServicePort });
    const timer = systemClock.setTimeout(() => end(() => resolve(false)), answerMs);
    const end = (settle: () => void) => {
      timer.cancel();
      socket.destroy();
      settle();
    };
    socket.once('connect', () => end(() => resolve(true)));
    socket.once('error', (error: NodeJS.ErrnoException) =>
      end(() => (error.code === 'ECONNREFUSED' ? resolve(true) : reject(error))),
    );
  });
}

/** A port that nobody listens on now. Somebody may take it first: then QEMU refuses, and the caller tries again. */
function freePort(address: string): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.once('error', reject);
    server.listen(0, address, () => {
      const bound = server.address();
      server.close(() =>
        typeof bound === 'object' && bound ? resolve(bound.port) : reject(new Error(`no free port on ${address}`)),
      );
    });
  });
}

async function readNumbers(qmp: Qmp): Promise<TransferNumbers> {
  const reply = await qmp.execute('query-migrate', {}, { timeoutMs: 2000 });
  const { ram } = reply;
  const state = reply.status === undefined ? ({ kind: 'none' } as const) : stateOf(reply.status);
  return {
    state:
      state.kind === 'failed' || state.kind === 'post-copy-broken'
        ? { kind: state.kind, words: reply['error-desc'] ?? '' }
        : state,
    totalBytes: ram?.total ?? 0,
    remainingBytes: ram?.remaining ?? 0,
    sentBytes: ram?.transferred ?? 0,
    round: ram?.['dirty-sync-count'] ?? 0,
    dirtyPagesPerSecond: ram?.['dirty-pages-rate'] ?? 0,
    throttlePercent: reply['cpu-throttle-percentage'] ?? 0,
    faults: ram?.['postcopy-requests'] ?? 0,
    downtimeMs: reply.downtime ?? null,
    totalMs: reply['total-time'] ?? null,
    faultBlockedMs: reply['postcopy-blocktime'] ?? null,
  };
}

function stateOf(status: MigrationStatus): TransferState {
  switch (status) {
    case 'none':
      return { kind: 'none' };
    case 'setup':
    case 'wait-unplug':
      return { kind: 'preparing' };
    case 'active':
    case 'colo':
    case 'cancelling':
      return { kind: 'sending' };
    case 'pre-switchover':
    case 'device':
      return { kind: 'switching' };
    case 'postcopy-active':
      return { kind: 'post-copy' };
    case 'postcopy-paused':
      return { kind: 'post-copy-broken' };
    case 'postcopy-recover':
    case 'postcopy-recover-setup':
      return { kind: 'post-copy-rejoining' };
    case 'completed':
      return { kind: 'completed' };
    case 'cancelled':
      return { kind: 'cancelled' };
    case 'failed':
      return { kind: 'failed', words: '' };
    default:
      return { kind: 'none' }; // a state of a newer QEMU; the next event tells more
  }
}

/** What the events would have told to one who was not connected. */
export async function readRunAndTransfer(
  qmp: Qmp,
): Promise<{ isRunning: boolean; transfer: TransferState; wasInPostCopy: boolean }> {
  const { running } = await qmp.execute('query-status');
  const { status, ram } = await qmp.execute('query-migrate');
  const transfer: TransferState = status === undefined ? { kind: 'none' } : stateOf(status);
  return { isRunning: running, transfer, wasInPostCopy: (ram?.['postcopy-bytes'] ?? 0) > 0 };
}

/** How often the two answers may contradict each other before the last one is taken. */
const readsAtMost = 20;

/** Where the guest stands, by QEMU's run state and migration state together. */
export async function readGuestState(qmp: Qmp): Promise<GuestState> {
  const readTransfer = async () => (await qmp.execute('query-migrate')).status;
  let before = await readTransfer();
  for (let reads = 1; ; reads++) {
    const { status: runState } = await qmp.execute('query-status');
    const after = await readTransfer();
    // Two questions are not one answer: a transfer that ended in between must not be taken for one that never was.
    if (before === after || reads === readsAtMost) return guestStateOf(runState, after);
    before = after;
  }
}

/** QEMU's two states in one word of ours. */
export function guestStateOf(runState: RunState, status: MigrationStatus | undefined): GuestState {
  const transfer = status === undefined ? 'none' : stateOf(status).kind;
  const broken = transfer === 'post-copy-broken' || transfer === 'post-copy-rejoining';
  const postCopy = transfer === 'post-copy' || broken;
  switch (runState) {
    case 'inmigrate':
      // The state is here already, or about to be: `cont` is taken now and carried out when it is.
      return postCopy ? 'switched' : 'incoming';
    case 'shutdown':
      return 'shut-down';
    case 'postmigrate':
      return postCopy ? 'sending-post-copy' : 'sent';
    case 'finish-migrate':
      // `completed` comes a moment before `postmigrate`, and its event does not come again.
      if (transfer === 'completed') return 'sent';
      if (transfer === 'post-copy') return 'sending-post-copy';
      return broken ? 'broken-post-copy' : 'sending';
    case 'paused':
    case 'prelaunch':
      if (transfer === 'completed') return 'loaded';
      // Paused by us to complete a held move.
      if (transfer === 'sending' || transfer === 'switching') return 'sending';
      return postCopy ? 'switched' : 'paused';
    default:
      if (broken) return 'broken-post-copy';
      return transfer === 'sending' || transfer === 'switching' || transfer === 'preparing' ? 'sending' : 'running';
  }
}

/** QEMU's event in our words; undefined for those that mean nothing to us. */
export function guestEventOf(event: QmpEvent): GuestEvent | undefined {
  switch (event.name) {
    case 'STOP':
      return { at: event.qemuTimeMs, kind: 'stopped' };
    case 'RESUME':
      return { at: event.qemuTimeMs, kind: 'resumed' };
    case 'SHUTDOWN':
      // QEMU calls the end of a guest that has panicked a shutdown by the guest as well.
      if (!event.data.guest || event.data.reason === 'guest-panic') return undefined;
      return { at: event.qemuTimeMs, kind: 'powered-off' };
    case 'GUEST_PANICKED':
      return { at: event.qemuTimeMs, kind: 'panicked' };
    case 'MIGRATION_PASS':
      return { at: event.qemuTimeMs, kind: 'round', round: event.data.pass };
    case 'MIGRATION':
      return { at: event.qemuTimeMs, kind: 'transfer', state: stateOf(event.data.status) };
    default:
      return undefined;
  }
}
