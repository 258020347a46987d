/**
 * What is told as it happens: a commit of the store in events, and what is only told live. Not here: who is told (event-hub.ts,
 * webhooks.ts).
 */
import { kindOfKey, recordIn, recordKey } from '../store/records.ts';
import type { Change, Commit } from '../store/store.ts';
import type { EventView } from '../wire/endpoints.ts';
import { drainView } from './drain-views.ts';
import { decisionSays, decisionView, planSays, planView } from './balance-views.ts';
import { taskSays, taskView } from './handlers/tasks.ts';
import type { LiveEvent } from './live-events.ts';
import type { ControlPlane } from './plane.ts';
import {
  hostSays,
  hostView,
  migrationSays,
  migrationView,
  recoverySays,
  recoveryView,
  vmSays,
  vmView,
} from './views.ts';

/** The present state of everything, for who was away for so long that the changes since are not kept any more. */
export function presentState(plane: ControlPlane): EventView[] {
  const { fleet, commitTimes } = plane;
  const changed = (key: string): number => commitTimes.of(fleet.changedAt(key) ?? 0);
  return [
    ...[...fleet.hosts.values()].map((host): EventView => {
      const view = hostView(plane, host);
      return { type: 'host', at: changed(recordKey.host(host.id)), says: hostSays(view), host: view };
    }),
    ...[...fleet.vms.values()].map((vm): EventView => ({
      type: 'vm',
      at: changed(recordKey.vm(vm.id)),
      says: vmSays(fleet, vm),
      vm: vmView(plane, vm),
    })),
    ...[...fleet.migrations.values()].map((migration): EventView => ({
      type: 'migration',
      at: changed(recordKey.migration(migration.id)),
      says: migrationSays(fleet, migration),
      migration: migrationView(plane, migration),
    })),
    ...[...fleet.recoveries.values()].map((record): EventView => ({
      type: 'recovery',
      at: changed(recordKey.recovery(record.id)),
      says: recoverySays(record),
      recovery: recoveryView(plane, record),
    })),
    ...[...fleet.drains.values()].map((record): EventView => {
      const drain = drainView(plane, record);
      return { type: 'drain', at: changed(recordKey.drain(record.id)), says: drain.says, drain };
    }),
    ...[...fleet.tasks.values()].map((task): EventView => ({
      type: 'task',
      at: changed(recordKey.task(task.id)),
      says: taskSays(task),
      task: taskView(plane, task),
    })),
    ...[...fleet.plans.values()].map((plan): EventView => ({
      type: 'plan',
      at: changed(recordKey.plan(plan.id)),
      says: planSays(plan),
      plan: planView(fleet, plan),
    })),
    ...[...fleet.decisions.values()].map((decision): EventView => ({
      type: 'decision',
      at: changed(recordKey.decision(decision.id)),
      says: decisionSays(fleet, decision),
      decision: decisionView(fleet, decision),
    })),
  ];
}

/** What a commit changed, in its order; `index` is the place of the change in the commit, the same whoever asks and when. */
export function eventsOf(plane: ControlPlane, commit: Commit): { readonly index: number; readonly event: EventView }[] {
  const at = plane.commitTimes.of(commit.revision);
  return commit.changes.flatMap((change, index) => {
    const event = change.kind === 'put' ? putEvent(plane, change, at) : removalEvent(commit, change.key, at);
    return event ? [{ index, event }] : [];
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
    case 'recovery': {
      const { record } = found;
      return { type: 'recovery', at, says: recoverySays(record), recovery: recoveryView(plane, record) };
    }
    case 'drain': {
      const drain = drainView(plane, found.record);
      return { type: 'drain', at, says: drain.says, drain };
    }
    case 'task': {
      const { record } = found;
      return { type: 'task', at, says: taskSays(record), task: taskView(plane, record) };
    }
    case 'room':
    case 'sleep': {
      // Shown with its host, as it is now.
      const record = fleet.hosts.get(found.record.host);
      if (record === undefined) return undefined;
      const host = hostView(plane, record);
      return { type: 'host', at, says: hostSays(host), host };
    }
    case 'plan':
      return { type: 'plan', at, says: planSays(found.record), plan: planView(fleet, found.record) };
    case 'decision': {
      const { record } = found;
      return { type: 'decision', at, says: decisionSays(fleet, record), decision: decisionView(fleet, record) };
    }
    case 'balance':
    case 'energy':
    case 'demand':
    case 'host-name':
    case 'vm-name':
    case 'task-output':
    case 'request':
    case 'restored':
    case 'user':
    case 'token':
    case 'session':
    case 'audit':
    case 'webhook':
    case 'delivery':
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

export function liveEvent(plane: ControlPlane, event: LiveEvent): EventView | undefined {
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
