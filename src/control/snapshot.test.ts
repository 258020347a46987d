/** The fleet of records as the planner sees it. */
import { afterEach, beforeEach, expect, test } from 'vitest';
import type { SnapshotHost, SnapshotVm } from '../model/fleet-snapshot.ts';
import { newId } from '../model/ids.ts';
import { readFleetFile, toFleetFile } from '../wire/fleet.ts';
import { migrateBody } from '../wire/endpoints.ts';
import { FakeFleet } from './fake-fleet.ts';

const endpoint = { address: '10.0.1.2', port: 4444 };
let fleet: FakeFleet;
beforeEach(async () => {
  fleet = await FakeFleet.start();
  fleet.guestLoad = () => ({
    cpuCores: 0.5,
    memoryResidentMiB: 300,
    diskReadBytesPerSecond: 10,
    diskWriteBytesPerSecond: 20,
    netReceiveBytesPerSecond: 1,
    netSendBytesPerSecond: 2,
  });
});
afterEach(() => fleet.stopServer());

const host = (name: string): SnapshotHost =>
  fleet.plane.distributor.snapshot().hosts.find((each) => each.name === name)!;
const vm = (name: string): SnapshotVm => fleet.plane.distributor.snapshot().vms.find((each) => each.name === name)!;
/** What guests may still take there, as the planner works it out. */
const free = (name: string): number => {
  const { vms } = fleet.plane.distributor.snapshot();
  const used = vms.reduce((sum, each) => sum + (each.running && each.host === name ? each.memoryMiB : 0), 0);
  return host(name).memoryMiB - host(name).reservedMiB - used;
};
const start = (body: object) => fleet.plane.reservations.startMigration('web1', migrateBody.parse(body), null, 'test');

test('says of a VM what its record, its rules and its smoothed load say', async () => {
  await fleet.run('web1', 'h1', { memoryMiB: 512, cpus: 2, placing: { apart: ['web'], pinnedTo: ['h1', 'h2'] } });
  await fleet.pass(5_000);
  expect(vm('web1')).toMatchObject({
    host: 'h1',
    running: true,
    cpus: 2,
    memoryMiB: 512,
    memoryInUseMiB: 300,
    load: { cpuCores: 0.5, memoryMiB: 300, diskBytesPerSecond: 30, netBytesPerSecond: 3 },
    accel: 'tcg',
    apart: ['web'],
    pinnedTo: ['h1', 'h2'],
    moving: false,
    lastMovedAt: null,
  });
});

test('counts a VM on the move where it is going, and its memory on both hosts, exactly', async () => {
  await fleet.run('web1', 'h1', { memoryMiB: 512 });
  const before = free('h2');
  const empty = free('h3');
  const { id } = await start({ to: 'h2' });
  expect(vm('web1')).toMatchObject({ host: 'h2', moving: true });
  expect([free('h1'), free('h2'), free('h3')]).toEqual([before - 512, before - 512, empty]);
  await fleet.plane.migrations.cancel(id);
  expect(vm('web1').host).toBe('h1');
  expect(free('h1')).toBe(before - 512);
});

test('keeps a VM that is held where it is, and learns from moves when they ended and how fast the link is', async () => {
  await fleet.run('web1', 'h1');
  const held = await start({ to: 'h2', holdMs: 60_000 });
  expect(vm('web1')).toMatchObject({ host: 'h1', moving: true });
  await fleet.plane.migrations.switchNow(held.id);
  expect(vm('web1').host).toBe('h2');
  const [source, target] = [fleet.agent('h1'), fleet.agent('h2')];
  await target.move(held.id, { kind: 'listening', endpoint });
  await source.move(held.id, { kind: 'sending' });
  const round = { round: 1, durationMs: 1000, bytes: 64e6, dirtyPages: 1000, bandwidthBytesPerSecond: 64e6 };
  await source.move(held.id, { kind: 'round', round });
  await source.move(held.id, { kind: 'stopped', for: 'stop-and-copy' });
  await source.move(held.id, { kind: 'handed-over' });
  await target.move(held.id, { kind: 'resumed', withFaults: false });
  await source.move(held.id, { kind: 'released' });
  expect(vm('web1')).toMatchObject({
    host: 'h2',
    moving: false,
    lastMovedAt: fleet.clock.now(),
    dirtyBytesPerSecond: 4_096_000,
  });
  expect([host('h1'), host('h3')].map((each) => each.linkBytesPerSecond)).toEqual([64e6, 112e6]);
});

test('knows when a VM was moved, however many others have been moved since', async () => {
  await fleet.run('web1', 'h1');
  const { id } = await start({ to: 'h2' });
  await fleet.plane.migrations.cancel(id);
  await fleet.agent('h1').move(id, { kind: 'source-running', failure: null });
  const endedAt = fleet.clock.now();
  expect(vm('web1').lastMovedAt).toBe(endedAt);
  const record = fleet.plane.fleet.findMigration(id);
  const bytes = new Uint8Array(8);
  for (let from = 0; from < 600; from += 50) {
    await fleet.plane.fleet.change((draft) => {
      for (let at = endedAt + 1 + from; at <= endedAt + from + 50; at++) {
        draft.putMigration({ ...record, id: newId('migration', at, bytes), vm: newId('vm', at, bytes) });
      }
    });
  }
  expect(vm('web1').lastMovedAt).toBe(endedAt);
});

test('says what hosts are, and leaves the guests of a sick one to the evacuation', async () => {
  await fleet.run('web1', 'h1');
  await fleet.plane.fleet.change((draft) => {
    const failing = { severity: 'suspect', at: 0, by: 'ann', because: 'a fan stands still' } as const;
    draft.putHost({ ...fleet.plane.fleet.findHost('h1'), failing });
    draft.putHost({ ...fleet.plane.fleet.findHost('h2'), cordoned: true });
  });
  fleet.agent('h3').reports = false;
  await fleet.pass(5_000);
  expect(['h1', 'h2', 'h3'].map((name) => host(name).state)).toEqual(['cordoned', 'cordoned', 'silent']);
  expect(vm('web1').moving).toBe(true);
});

test('is written as the file that the planner reads', async () => {
  await fleet.run('web1', 'h1', { placing: { together: ['shop'] } });
  const snapshot = fleet.plane.distributor.snapshot();
  expect(readFleetFile(JSON.stringify(toFleetFile(snapshot)), 'fleet.json')).toEqual(snapshot);
});
