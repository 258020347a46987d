/**
 * Changes as they happen. Stored changes come from the store's own history, so a reader that was away goes on where it was;
 * when that history is gone it gets the present state of everything instead. Samples, alarms and silence are only told live.
 */
import { UserError } from '../../model/failure.ts';
import { AsyncQueue } from '../../runtime/queue.ts';
import { kindOfKey, recordIn } from '../../store/records.ts';
import { HistoryGone } from '../../store/store.ts';
import type { Change, Commit } from '../../store/store.ts';
import type { EventView } from '../../wire/endpoints.ts';
import type { EventStream, Handler } from '../handler.ts';
import type { LiveEvent } from '../live-events.ts';
import type { ControlPlane } from '../plane.ts';
import { hostSays, hostView, migrationSays, migrationView, vmSays, vmView } from '../views.ts';

/** A slow reader loses the oldest of what is only told live. */
const liveLimit = 256;
const heartbeatMs = 15_000;

export const listEvents: Handler<'listEvents'> = async ({ query }, { plane }, stream) => {
  const only = query.migration === undefined ? undefined : plane.fleet.findMigration(query.migration).id;
  const wanted = (event: EventView): boolean => {
    if (event.type === 'sample' && query.samples === 'false') return false;
    if (only === undefined) return true;
    if (event.type === 'sample') return event.sample.migration === only;
    return event.type === 'migration' && event.migration.id === only;
  };
  const since = stream.lastEventId === null ? plane.fleet.revision : revisionOf(stream.lastEventId);
  const filtered: EventStream = {
    ...stream,
    write: async (event, id) => {
      if (wanted(event)) await stream.write(event, id);
    },
  };
  const live = tellLive(plane, filtered);
  await stream.heartbeat(); // tells the reader that from here on it misses nothing
  await Promise.all([tellStored(plane, filtered, since), live, beat(plane, stream)]);
};

async function tellStored(plane: ControlPlane, stream: EventStream, from: number): Promise<void> {
  let since = from;
  while (!stream.signal.aborted) {
    try {
      for await (const commit of plane.store.watch('', since, stream.signal)) {
        await plane.fleet.caughtUp();
        for (const event of eventsOf(plane, commit)) await stream.write(event, commit.revision);
        since = commit.revision;
      }
    } catch (error) {
      if (!(error instanceof HistoryGone)) throw error;
      since = await tellAll(plane, stream);
    }
  }
}

/** The present state of everything, for a reader that was away for too long. */
async function tellAll(plane: ControlPlane, stream: EventStream): Promise<number> {
  const { fleet } = plane;
  const { revision } = fleet;
  const at = plane.clock.now();
  const events: EventView[] = [
    ...[...fleet.hosts.values()].map((host): EventView => {
      const view = hostView(plane, host);
      return { type: 'host', at, says: hostSays(view), host: view };
    }),
    ...[...fleet.vms.values()].map((vm): EventView => ({
      type: 'vm',
      at,
      says: vmSays(fleet, vm),
      vm: vmView(plane, vm),
    })),
    ...[...fleet.migrations.values()].map((migration): EventView => ({
      type: 'migration',
      at,
      says: migrationSays(fleet, migration),
      migration: migrationView(plane, migration),
    })),
  ];
  for (const event of events) await stream.write(event, revision);
  return revision;
}

async function tellLive(plane: ControlPlane, stream: EventStream): Promise<void> {
  const queue = new AsyncQueue<LiveEvent>({ limit: liveLimit, overflow: 'drop-oldest' });
  const unsubscribe = plane.live.subscribe((event) => void queue.push(event));
  stream.signal.addEventListener('abort', () => queue.close(), { once: true });
  if (stream.signal.aborted) queue.close();
  try {
    for await (const event of queue) {
      const view = liveView(plane, event);
      if (view) await stream.write(view, null);
    }
  } finally {
    unsubscribe();
  }
}

async function beat(plane: ControlPlane, stream: EventStream): Promise<void> {
  while (!stream.signal.aborted) {
    await plane.clock.sleep(heartbeatMs, stream.signal).catch(() => {});
    if (!stream.signal.aborted) await stream.heartbeat();
  }
}

function eventsOf(plane: ControlPlane, commit: Commit): EventView[] {
  const at = plane.clock.now();
  return commit.changes.flatMap((change) => {
    const event = change.kind === 'put' ? putEvent(plane, change, at) : removalEvent(commit, change.key, at);
    return event ? [event] : [];
  });
}

function putEvent(plane: ControlPlane, change: Extract<Change, { kind: 'put' }>, at: number): EventView | undefined {
  const { fleet } = plane;
  const found = recordIn(change.entry);
  switch (found?.kind) {
    case 'vm':
      return { type: 'vm', at, says: vmSays(fleet, found.record), vm: vmView(plane, found.record) };
    case 'migration': {
      const migration = migrationView(plane, found.record);
      return { type: 'migration', at, says: migrationSays(fleet, found.record), migration };
    }
    case 'host': {
      const host = hostView(plane, found.record);
      return { type: 'host', at, says: hostSays(host), host };
    }
    case 'room': {
      // Room is shown with its host, as it is now.
      const record = fleet.hosts.get(found.record.host);
      if (record === undefined) return undefined;
      const host = hostView(plane, record);
      return { type: 'host', at, says: hostSays(host), host };
    }
    case 'host-name':
    case 'vm-name':
    case 'request':
    case undefined:
      return undefined;
  }
}

/** The name of what was removed is in the index entry that went with it. */
function removalEvent(commit: Commit, key: string, at: number): EventView | undefined {
  const removed = kindOfKey(key);
  if (removed?.kind !== 'vm' && removed?.kind !== 'host') return undefined;
  const index = removed.kind === 'vm' ? 'vm-name' : 'host-name';
  const names = commit.changes.map((change) => (change.kind === 'delete' ? kindOfKey(change.key) : undefined));
  const name = names.find((other) => other?.kind === index)?.rest ?? removed.rest;
  const type = removed.kind === 'vm' ? 'vm-removed' : 'host-removed';
  return { type, at, says: `${removed.kind} ${name} was removed`, id: removed.rest, name };
}

function liveView(plane: ControlPlane, event: LiveEvent): EventView | undefined {
  switch (event.kind) {
    case 'sample': {
      const { sample, at } = event;
      const name = plane.fleet.migrations.get(sample.migration)?.vmName ?? sample.migration;
      return { type: 'sample', at, says: `${name}: ${sample.phase}, round ${sample.round}`, sample };
    }
    case 'alarm':
      return { type: 'alarm', at: event.at, says: event.says, about: event.about };
    case 'host': {
      const host = plane.fleet.hosts.get(event.host);
      return host && { type: 'host', at: event.at, says: event.says, host: hostView(plane, host) };
    }
  }
}

function revisionOf(text: string): number {
  const revision = Number(text);
  if (/^\d+$/.test(text) && Number.isSafeInteger(revision)) return revision;
  throw new UserError(
    'invalid-input',
    `'${text.slice(0, 40)}' is not the id of an event.`,
    'Send the id of the last event that was read as Last-Event-ID, or leave it out.',
  );
}
