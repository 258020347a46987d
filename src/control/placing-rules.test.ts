/** Rules of VMs about hosts and other VMs: kept, changed one by one, refused when they contradict. */
import { afterEach, beforeEach, expect, test } from 'vitest';
import { FakeFleet } from './fake-fleet.ts';

let fleet: FakeFleet;
beforeEach(async () => {
  fleet = await FakeFleet.start();
});
afterEach(() => fleet.stopServer());

test('are kept from creation on, and what is not said stays', async () => {
  await fleet.run('web1', 'h1', { placing: { apart: ['web', 'web'], pinnedTo: ['h2', 'h1'] } });
  expect(fleet.vm('web1').placing).toEqual({ apart: ['web'], together: [], pinnedTo: ['h1', 'h2'] });
  await fleet.plane.vms.update('web1', { placing: { pinnedTo: null, together: ['db'] } });
  expect(fleet.vm('web1').placing).toEqual({ apart: ['web'], together: ['db'], pinnedTo: null });
});

test('that name a host that is not there, or contradict each other, change nothing', async () => {
  await fleet.run('web1', 'h1', { placing: { apart: ['web'] } });
  const before = await fleet.dump();
  const update = (placing: object) => fleet.plane.vms.update('web1', { placing });
  await expect(update({ pinnedTo: ['h9'] })).rejects.toMatchObject({ code: 'not-found' });
  await expect(update({ together: ['web'] })).rejects.toMatchObject({ code: 'invalid-input' });
  expect(await fleet.dump()).toBe(before);
});
