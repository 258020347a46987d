/**
 * Measures what the outside loses: while a VM with an address moves, a prober in the client's namespace asks its echo every
 * millisecond, and the longest silence is recorded with the migration. Nothing is probed while nothing moves.
 *
 *     migration opens -> probe -> it ends -> wait for a reply and for stragglers -> longest gap -> recordBlackout
 */
import { messageOf } from '../model/failure.ts';
import { systemClock } from '../runtime/clock.ts';
import type { Log } from '../runtime/log.ts';
import type { Client } from '../wire/client.ts';
import type { MigrationView } from '../wire/endpoints.ts';
import { startProbe, type Probe, type ProbeOptions } from './probe/probe.ts';

/** A guest that boots after a cold move answers late. */
const replyWaitMs = 60_000;
/** Gaps can come shortly after the end, too: announcements that get lost, retries of ARP. */
const stragglersMs = 700;
const maxProbes = 16;

type Prober = Pick<Probe, 'longestGap' | 'waitForReply' | 'stop'>;

export interface BlackoutOptions {
  readonly client: Pick<Client, 'events' | 'getVm' | 'listMigrations' | 'recordBlackout'>;
  readonly binary: string;
  /** Namespace to look from. */
  readonly netns: string;
  readonly log: Log;
  readonly signal: AbortSignal;
  readonly start?: (options: ProbeOptions) => Prober;
  readonly stragglersMs?: number;
}

/** Runs until the signal; a server that is away is waited for. */
export async function followBlackouts(options: BlackoutOptions): Promise<void> {
  const { client, log, signal } = options;
  const watches = new Map<string, Promise<Watch | undefined>>();

  const see = (migration: MigrationView) => {
    const watch = watches.get(migration.id);
    if (migration.ended) {
      if (!watch) return;
      watches.delete(migration.id);
      void watch
        .then((begun) => begun?.finish(migration))
        .catch((error: unknown) => log.warn({ migration: migration.id, error }, 'blackout not measured'));
    } else if (!watch && watches.size < maxProbes) {
      watches.set(migration.id, begin(options, migration));
    }
  };
  // What began while the stream was away; what ended then is seen as ended here.
  const catchUp = async () => {
    for (const migration of await client.listMigrations({ query: { limit: 50 } })) see(migration);
  };

  while (!signal.aborted) {
    try {
      const onOpen = () =>
        void catchUp().catch((error: unknown) => log.warn({ error }, 'the list of migrations cannot be read'));
      const forever = { signal, samples: false, giveUpAfterMs: Number.MAX_SAFE_INTEGER, onOpen };
      for await (const { event } of client.events(forever)) if (event.type === 'migration') see(event.migration);
    } catch (error) {
      log.warn({ reason: messageOf(error) }, 'no events; trying again');
      await systemClock.sleep(1000, signal).catch(() => {});
    }
  }
  for (const watch of watches.values()) await watch.then((begun) => begun?.abandon()).catch(() => {});
}

interface Watch {
  finish(migration: MigrationView): Promise<void>;
  abandon(): Promise<void>;
}

/** @returns undefined when the VM says no address */
async function begin(options: BlackoutOptions, migration: MigrationView): Promise<Watch | undefined> {
  const { client, binary, netns, log, signal } = options;
  const vm = await client.getVm({ params: { vm: migration.vm } }).catch((error: unknown) => {
    log.warn({ migration: migration.id, error }, 'the VM cannot be read');
    return undefined;
  });
  if (!vm || vm.address === null) return undefined;
  const probe = (options.start ?? startProbe)({ binary, netns, address: vm.address, signal });
  return {
    async finish(ended) {
      try {
        // A guest that is lost answers nobody; there is no blackout to speak of then, only an end.
        if (ended.guest === 'lost') return;
        await probe.waitForReply(AbortSignal.any([signal, AbortSignal.timeout(replyWaitMs)]));
        await systemClock.sleep(options.stragglersMs ?? stragglersMs, signal);
        const from = ended.history[0]?.at ?? ended.startedAt;
        const blackoutMs = probe.longestGap(from, ended.endedAt ?? Date.now());
        await client.recordBlackout({ params: { migration: ended.id }, body: { blackoutMs } });
        log.info({ migration: ended.id, blackoutMs }, 'blackout recorded');
      } finally {
        await probe.stop();
      }
    },
    abandon: async () => void (await probe.stop()),
  };
}
