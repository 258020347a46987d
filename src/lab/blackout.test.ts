import { expect, it, vi } from 'vitest';
import { silentLog } from '../runtime/log.ts';
import { AsyncQueue } from '../runtime/queue.ts';
import type { EventsRequest, StreamedEvent } from '../wire/client.ts';
import type { EventView, MigrationView } from '../wire/endpoints.ts';
import { followBlackouts, type BlackoutOptions } from './blackout.ts';

/** Only what the prober reads of a migration. */
function migration(id: string, phase: 'warming-up' | 'completed' | 'failed', guest?: 'lost'): MigrationView {
  const ended = phase !== 'warming-up';
  const part: Partial<MigrationView> = {
    id,
    vm: `vm-of-${id}`,
    phase,
    ended,
    guest: guest ?? null,
    startedAt: 1000,
    endedAt: ended ? 5000 : null,
    history: [{ phase: 'reserved', at: 1100 }],
  };
  return part as MigrationView;
}

function world(address: string | null = '10.77.1.101', open: MigrationView[] = []) {
  const events = new AsyncQueue<StreamedEvent>({ limit: 100, overflow: 'fail' });
  const ending = new AbortController();
  const probe = {
    longestGap: vi.fn<(fromMs: number, toMs: number) => number>(() => 83),
    waitForReply: vi.fn<() => Promise<number>>(() => Promise.resolve(1)),
    stop: vi.fn<() => Promise<undefined>>(() => Promise.resolve(undefined)),
  };
  const start = vi.fn<(options: { address: string }) => typeof probe>(() => probe);
  const recordBlackout = vi.fn<(request: { body: { blackoutMs: number } }) => Promise<MigrationView>>(() =>
    Promise.resolve(migration('any', 'completed')),
  );
  const client = {
    events: (request: EventsRequest = {}) => {
      request.onOpen?.();
      request.signal?.addEventListener('abort', () => events.close());
      return events[Symbol.asyncIterator]();
    },
    getVm: () => Promise.resolve({ address }),
    listMigrations: () => Promise.resolve(open),
    recordBlackout,
    // The rest of the client is not used by the prober.
  } as unknown as BlackoutOptions['client'];
  const options = {
    client,
    binary: 'probe',
    netns: 'client',
    log: silentLog,
    signal: ending.signal,
    start,
    stragglersMs: 1,
  };
  const following = followBlackouts(options);
  return {
    probe,
    start,
    recordBlackout,
    tell: (view: MigrationView) => {
      const event: EventView = { type: 'migration', at: 0, says: '', migration: view };
      events.push({ id: '1', event });
    },
    end: async () => {
      ending.abort();
      await following;
    },
  };
}

it('records the longest gap between the first phase and the end of a migration', async () => {
  const { probe, start, recordBlackout, tell, end } = world();
  tell(migration('m1', 'warming-up'));
  tell(migration('m1', 'warming-up'));
  tell(migration('m1', 'completed'));
  await vi.waitFor(() => expect(recordBlackout).toHaveBeenCalledOnce());
  expect(recordBlackout).toHaveBeenCalledWith({ params: { migration: 'm1' }, body: { blackoutMs: 83 } });
  expect(probe.longestGap).toHaveBeenCalledWith(1100, 5000);
  expect(start).toHaveBeenCalledOnce();
  await vi.waitFor(() => expect(probe.stop).toHaveBeenCalledOnce());
  await end();
});

it('probes a migration that was open already when it came up', async () => {
  const { start, end } = world('10.77.1.101', [migration('m0', 'warming-up')]);
  await vi.waitFor(() => expect(start).toHaveBeenCalledOnce());
  await end();
});

it('does not probe a VM without an address, nor what has ended already', async () => {
  const { start, recordBlackout, tell, end } = world(null);
  tell(migration('m1', 'warming-up'));
  tell(migration('m1', 'completed'));
  tell(migration('m2', 'completed'));
  await end();
  expect(start).not.toHaveBeenCalled();
  expect(recordBlackout).not.toHaveBeenCalled();
});

it('records nothing for a guest that is lost, and stops its probe', async () => {
  const { probe, recordBlackout, tell, end } = world();
  tell(migration('m1', 'warming-up'));
  tell(migration('m1', 'failed', 'lost'));
  await vi.waitFor(() => expect(probe.stop).toHaveBeenCalledOnce());
  expect(recordBlackout).not.toHaveBeenCalled();
  await end();
});

it('stops the probes of what still moves when it ends', async () => {
  const { probe, start, tell, end } = world();
  tell(migration('m1', 'warming-up'));
  await vi.waitFor(() => expect(start).toHaveBeenCalledOnce());
  await end();
  expect(probe.stop).toHaveBeenCalledOnce();
});
