import { afterEach, beforeEach, expect, test } from 'vitest';
import { FakeFleet } from './fake-fleet.ts';
import { updateHost } from './handlers/hosts.ts';
import { updateVm } from './handlers/vms.ts';
import { labelsAfter } from './labels.ts';

let fleet: FakeFleet;
beforeEach(async () => {
  fleet = await FakeFleet.start(['h1']);
});
afterEach(() => fleet.stopServer());

test('Labels are set, changed and removed one by one; the others stay, and order does not matter.', () => {
  expect(labelsAfter({ tier: 'web', old: 'yes' }, { tier: 'db', old: null, gone: null, a: '' })).toEqual({
    a: '',
    tier: 'db',
  });
  expect(JSON.stringify(labelsAfter({ b: '1' }, { a: '2' }))).toBe('{"a":"2","b":"1"}');
});

test('A host keeps its labels when its agent comes again, and a VM gets them without a new generation.', async () => {
  const call = fleet.call();
  await updateHost({ params: { host: 'h1' }, body: { labels: { rack: 'a', old: 'x' } } }, call);
  await updateHost({ params: { host: 'h1' }, body: { labels: { old: null } } }, call);
  fleet.agent('h1').channel?.close('again');
  await fleet.agent('h1').connect();
  expect(fleet.plane.fleet.findHost('h1').labels).toEqual({ rack: 'a' });
  const { generation } = await fleet.run('web1', 'h1');
  await updateVm({ params: { vm: 'web1' }, body: { labels: { tier: 'web' } } }, call);
  expect(fleet.vm('web1')).toMatchObject({ labels: { tier: 'web' }, generation });
  await expect(
    updateHost({ params: { host: 'nowhere' }, body: { labels: { rack: 'a' } } }, call),
  ).rejects.toMatchObject({ code: 'not-found' });
});
