/** A silent host that reports again while something is being done about its silence, and a server that is slow itself. */
import { afterEach, beforeEach, expect, test } from 'vitest';
import { FakeFleet, settled } from './fake-fleet.ts';

let fleet: FakeFleet;
beforeEach(async () => {
  fleet = await FakeFleet.start([]);
  for (const name of ['h1', 'h2', 'h3']) await fleet.join(name);
  await fleet.plane.fleet.change((draft) =>
    draft.putHost({
      ...fleet.plane.fleet.findHost('h1'),
      power: { kind: 'ipmi', address: 'h1', port: 623, user: 'u', passwordFile: 'f' },
    }),
  );
  fleet.bmcs.power.set('h1', 'on');
  await fleet.pass(11_000); // the server has looked for long enough
});
afterEach(() => fleet.stopServer());

test('A host that is back is not switched off by an order that its power controller did not take at first.', async () => {
  await fleet.run('web1', 'h1');
  let answers = false;
  fleet.bmcs.obeys = () => {
    if (answers) return true;
    throw new Error('no answer');
  };
  fleet.agent('h1').channel?.close('cut off');
  for (let ms = 0; !fleet.bmcs.orders.includes('h1 off'); ms += 250) {
    expect(ms).toBeLessThan(60_000);
    await fleet.pass(250, 250);
  }
  answers = true;
  await fleet.agent('h1').connect();
  await settled();
  await fleet.pass(20_000);
  expect(fleet.bmcs.orders).toEqual(['h1 off']);
  expect(fleet.bmcs.power.get('h1')).toBe('on');
  expect(fleet.vm('web1')).toMatchObject({ host: fleet.plane.fleet.findHost('h1').id, state: { kind: 'running' } });
});

test('A store that answers late, in beats of many changes, keeps nobody from finding a lost host.', async () => {
  await fleet.run('web1', 'h1');
  for (let n = 1; n <= 10; n++) {
    const vm = await fleet.run(`big${n}`, 'h2', { memoryMiB: 64 });
    const state = { kind: 'waiting', since: fleet.clock.now(), notBefore: 0, because: '' } as const;
    await fleet.plane.fleet.change((draft) =>
      draft.putVm({ ...vm, spec: { ...vm.spec, memoryMiB: 1_000_000 }, state }),
    );
  }
  const records = fleet.plane.fleet;
  const change = records.change.bind(records);
  records.change = async (...asked) => {
    await fleet.clock.sleep(300);
    return change(...asked);
  };
  await fleet.pass(10_000);
  fleet.bmcs.power.set('h1', 'off');
  fleet.agent('h1').channel?.close('lost power');
  await fleet.pass(20_000);
  expect(records.findHost('h1').fenced).toMatchObject({ proof: 'power-off' });
});

test('That a host read off counts no more once it has said hello, though it fell silent before its first report.', async () => {
  const h1 = fleet.agent('h1');
  h1.channel?.close('its host is switched off');
  await fleet.pass(4_000);
  fleet.plane.recovery.wasOff(fleet.plane.fleet.findHost('h1').id);
  h1.inventory = { ...h1.inventory, kernelBootId: 'the next boot' };
  await h1.connect();
  await fleet.run('web1', 'h1');
  h1.channel?.close('cut off');
  await fleet.pass(8_000);
  expect(fleet.plane.fleet.findHost('h1').fenced).toBeNull();
  expect(fleet.vm('web1')).toMatchObject({ host: fleet.plane.fleet.findHost('h1').id, state: { kind: 'running' } });
});
