import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { migrateBody } from '../wire/endpoints.ts';
import { isEnd } from '../migration/phases.ts';
import type { Migration } from '../model/migration.ts';
import type { MigrationFact } from '../migration/step.ts';
import { checkFleet } from './doctor.ts';
import { holdForMs } from './evacuation.ts';
import { FakeFleet, settled } from './fake-fleet.ts';

type Body = MigrationFact extends infer F ? (F extends unknown ? Omit<F, 'migration' | 'at'> : never) : never;
const endpoint = { address: '10.0.1.2', port: 4444 };
let fleet: FakeFleet;
beforeEach(async () => {
  fleet = await FakeFleet.start();
});
afterEach(() => fleet.stopServer());

const say = (severity: 'suspect' | 'failing' | null): Promise<void> =>
  fleet.plane.fleet.change((draft) => {
    const at = fleet.clock.now();
    const failing = severity === null ? null : { severity, at, by: 'ann', because: 'a fan stands still' };
    draft.putHost({ ...fleet.plane.fleet.findHost('h1'), failing });
  });
const moves = (): Migration[] => [...fleet.plane.fleet.migrations.values()];
const open = (): Migration[] => moves().filter(({ phase }) => !isEnd(phase));
const names = (list: readonly Migration[]): string[] => list.map(({ vmName }) => vmName);
const target = ({ target: to }: Migration): string => fleet.plane.fleet.hostName(to);
async function tell(migration: Migration, side: 'source' | 'target', fact: Body): Promise<void> {
  await fleet.agent(side === 'source' ? 'h1' : target(migration)).move(migration.id, fact);
}
async function arm(migration: Migration): Promise<void> {
  await tell(migration, 'target', { kind: 'listening', endpoint });
  await tell(migration, 'source', { kind: 'sending' });
  await tell(migration, 'source', { kind: 'armed' });
}
async function complete(migration: Migration): Promise<void> {
  await tell(migration, 'target', { kind: 'listening', endpoint });
  await tell(migration, 'source', { kind: 'sending' });
  await tell(migration, 'source', { kind: 'stopped', for: 'stop-and-copy' });
  await tell(migration, 'source', { kind: 'handed-over' });
  await tell(migration, 'target', { kind: 'resumed', withFaults: false });
  await tell(migration, 'source', { kind: 'released' });
}

describe('a failing host', () => {
  test('loses its guests live, the most important first, and two at once', async () => {
    await fleet.run('low', 'h1', { memoryMiB: 256 });
    await fleet.run('high', 'h1', { memoryMiB: 256 });
    await fleet.run('other', 'h1', { memoryMiB: 256 });
    const high = fleet.vm('high');
    await fleet.plane.fleet.change((draft) => draft.putVm({ ...high, priority: 900 }));
    await say('failing');
    await fleet.pass(3_000);
    expect(names(open())).toEqual(['high', 'low']);
    expect(open()[0]).toMatchObject({ technique: 'auto', why: [{ text: 'h1 is failing: a fan stands still' }] });
    await complete(open()[0]!);
    await fleet.pass(2_000);
    expect(names(open())).toEqual(['low', 'other']);
  });

  test('gets no VM, and doctor says why one cannot leave', async () => {
    await fleet.run('big', 'h1', { memoryMiB: 4096 });
    for (const name of ['h2', 'h3']) await fleet.run(`on-${name}`, name, { memoryMiB: 6144 });
    await say('failing');
    await fleet.pass(2_000);
    expect(moves()).toEqual([]);
    const says = checkFleet(fleet.plane).flatMap((finding) => (finding.severity === 'ok' ? [] : [finding.says]));
    expect(says).toContain('failing: a fan stands still (ann)');
    expect(says.some((text) => text.startsWith('cannot leave h1: No host can take big'))).toBe(true);
    await expect(fleet.run('new', 'h1', { memoryMiB: 128 })).rejects.toThrow('h1 is failing: a fan stands still.');
  });

  test('is one whose own disk says so for a while, and is none when that was only for a moment', async () => {
    await fleet.run('web1', 'h1');
    const sign = { kind: 'disk', severity: 'failing', says: 'the disk sda says that it is failing (SMART)' } as const;
    fleet.agent('h1').health = [sign];
    await fleet.pass(1_500);
    fleet.agent('h1').health = [];
    await fleet.pass(2_000);
    expect(moves()).toEqual([]);
    fleet.agent('h1').health = [sign];
    await fleet.pass(5_000);
    expect(names(open())).toEqual(['web1']);
  });
});

describe('a suspect host', () => {
  test('has its guests held ready; they stay when it is well again, and nothing has happened', async () => {
    await fleet.run('web1', 'h1');
    await say('suspect');
    await fleet.pass(2_000);
    const [held] = open();
    expect(held).toMatchObject({ hold: { switchRequestedAt: null }, technique: 'pre-copy' });
    await arm(held!);
    expect(fleet.migration(held!.id).phase).toBe('armed');
    await fleet.pass(60_000);
    expect(fleet.migration(held!.id).phase).toBe('armed');
    expect(fleet.room('h2') + fleet.room('h3')).toContain('512');
    expect(fleet.agent('h1').kinds()).not.toContain('switch');
    await say(null);
    await fleet.pass(1_000);
    await fleet.agent('h1').order('cancel');
    await tell(held!, 'source', { kind: 'source-running', failure: null });
    expect(fleet.migration(held!.id).phase).toBe('cancelled');
    await fleet.pass(2_000);
    expect(open()).toEqual([]);
    expect(fleet.vm('web1')).toMatchObject({ host: fleet.plane.fleet.findHost('h1').id, migration: null });
  });

  test('that gets worse lets go of what it held at once', async () => {
    await fleet.run('web1', 'h1');
    await say('suspect');
    await fleet.pass(1_000);
    const [held] = open();
    await arm(held!);
    await say('failing');
    await fleet.pass(1_000);
    await fleet.agent('h1').order('switch');
    await tell(held!, 'source', { kind: 'stopped', for: 'stop-and-copy' });
    await tell(held!, 'source', { kind: 'handed-over' });
    await tell(held!, 'target', { kind: 'resumed', withFaults: false });
    await tell(held!, 'source', { kind: 'released' });
    const phases = fleet.migration(held!.id).history.map(({ phase }) => phase);
    expect(phases).toEqual(['reserved', 'warming-up', 'armed', 'stop-and-copy', 'resumed', 'completed']);
  });

  test('holds them no longer than an hour, and not again for the same reason', async () => {
    await fleet.run('web1', 'h1');
    await say('suspect');
    await fleet.pass(1_000);
    const [held] = open();
    await arm(held!);
    await fleet.clock.advance(0);
    const { until } = fleet.migration(held!.id).hold!;
    expect(until - held!.startedAt).toBe(holdForMs);
    await fleet.plane.fleet.change((draft) => {
      const migration = draft.migration(held!.id)!;
      draft.putMigration({ ...migration, hold: { ...migration.hold!, until: fleet.clock.now() + 1_000 } });
    });
    await fleet.pass(2_500);
    await fleet.agent('h1').order('cancel');
    await tell(held!, 'source', { kind: 'source-running', failure: null });
    await fleet.pass(5_000);
    expect(open()).toEqual([]);
    await say('suspect');
    await fleet.pass(1_500);
    expect(names(open())).toEqual(['web1']);
  });
});

test('a move is held for a person too, and refused where it cannot be', async () => {
  await fleet.run('web1', 'h1');
  const start = (body: object) =>
    fleet.plane.reservations.startMigration('web1', migrateBody.parse({ to: 'h2', ...body }), null, 'test');
  await expect(start({ holdMs: 60_000, technique: 'hybrid' })).rejects.toThrow('cannot be held ready');
  await expect(start({ holdMs: 60_000, policy: { deadlineMs: 1_000 } })).rejects.toThrow('no deadline');
  const held = await start({ holdMs: 60_000 });
  expect(await fleet.agent('h2').order('receive')).toMatchObject({ job: { hold: true, postCopy: false } });
  const other = await fleet.run('web2', 'h1');
  expect(other.migration).toBeNull();
  const plain = await fleet.plane.reservations.startMigration('web2', migrateBody.parse({ to: 'h2' }), null, 'test');
  await expect(fleet.plane.migrations.switchNow(plain.id)).rejects.toThrow('the target prepares');
  await fleet.plane.migrations.switchNow(held.id);
  await fleet.plane.migrations.switchNow(held.id);
  await tell(held, 'target', { kind: 'listening', endpoint });
  await tell(held, 'source', { kind: 'sending' });
  await settled();
  await fleet.agent('h1').order('switch');
});
