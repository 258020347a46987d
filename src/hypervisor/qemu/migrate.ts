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
import type { Endpoint } from '../../model/host.ts';
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
import type { QmpConnection } from './qmp.ts';
import type { Commands } from './types.gen.ts';

type Capability = Commands['migrate-set-capabilities']['args']['capabilities'][number]['capability'];
type RunState = Commands['query-status']['reply']['status'];
type MigrationStatus = NonNullable<Commands['query-migrate']['reply']['status']>;

/** More than any link: QEMU's own default of 128 MiB/s would be a limit nobody asked for. */
const unlimitedBytesPerSecond = 16 * 1024 ** 3;

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
    ['late-block-activate', true],
  ];
}

/** Sets both ends alike. Capabilities this QEMU does not know are left out when off, and refused by it when on. */
export async function prepareTransfer(
  qmp: QmpConnection,
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
    'downtime-limit': options.downtimeLimitMs,
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
export async function listenForTransfer(qmp: QmpConnection, address: string): Promise<Endpoint> {
  await qmp.execute('migrate-incoming', { uri: `tcp:${address}:0` });
  const { 'socket-address': sockets } = await qmp.execute('query-migrate');
  const socket = sockets?.[0];
  if (socket?.type !== 'inet') throw new Error('QEMU listens, but does not say on which port');
  return { address, port: Number(socket.port) };
}

export function transferOf(qmp: QmpConnection, memoryMiB: number): Transfer {
  return {
    async start(to, options) {
      await prepareTransfer(qmp, options, 'source', memoryMiB);
      await qmp.execute('migrate', { uri: `tcp:${to.address}:${to.port}` });
    },
    numbers: () => readNumbers(qmp),
    async limitDowntime(ms) {
      await qmp.execute('migrate-set-parameters', { 'downtime-limit': ms });
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
      await qmp.executeOob('yank', { instances: [{ type: 'migration' }] });
    },
  };
}

async function readNumbers(qmp: QmpConnection): Promise<TransferNumbers> {
  const reply = await qmp.execute('query-migrate', {}, { timeoutMs: 2000 });
  const { ram } = reply;
  const state = reply.status === undefined ? ({ kind: 'none' } as const) : stateOf(reply.status);
  return {
    state: state.kind === 'failed' ? { kind: 'failed', words: reply['error-desc'] ?? '' } : state,
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
    case 'postcopy-recover':
    case 'postcopy-recover-setup':
      return { kind: 'post-copy-broken' };
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

/** How often the two answers may contradict each other before the last one is taken. */
const readsAtMost = 20;

/** Where the guest stands, by QEMU's run state and migration state together. */
export async function readGuestState(qmp: QmpConnection): Promise<GuestState> {
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
  const postCopy = transfer === 'post-copy' || transfer === 'post-copy-broken';
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
      return transfer === 'post-copy-broken' ? 'broken-post-copy' : 'sending';
    case 'paused':
    case 'prelaunch':
      if (transfer === 'completed') return 'loaded';
      return postCopy ? 'switched' : 'paused';
    default:
      if (transfer === 'post-copy-broken') return 'broken-post-copy';
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
      return event.data.guest ? { at: event.qemuTimeMs, kind: 'powered-off' } : undefined;
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
