import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { powerBody, type PowerBody } from '../wire/power.ts';
import { FakeFleet } from './fake-fleet.ts';
import { checkFleet } from './handlers/status.ts';
import { getHostPower, setHostPower, switchHostPower, unsetHostPower } from './handlers/host-power.ts';

let fleet: FakeFleet;
beforeEach(async () => {
  fleet = await FakeFleet.start(['h1', 'h2']);
});
afterEach(() => fleet.stopServer());

const params = { host: 'h1' };
const address = '192.0.2.11';
const call = () => fleet.call();
const ipmi = { kind: 'ipmi', address, user: 'admin', passwordFile: '/etc/drover/bmc-h1' } as const;
const set = (body: PowerBody = { controller: ipmi }) => setHostPower({ params, body: powerBody.parse(body) }, call());
const turn = (to: 'on' | 'off', force = false) => switchHostPower({ params, body: { to, force } }, call());

/** Lets virtual time pass until it is over. */
async function over<T>(promise: T | Promise<T>): Promise<T> {
  let done = false;
  const mark = () => void (done = true);
  Promise.resolve(promise).then(mark, mark);
  for (let seconds = 0; !done && seconds < 60; seconds++) await fleet.pass(1_000);
  return promise;
}

describe('a power controller', () => {
  test('is read before it is stored, and shown without its password', async () => {
    fleet.bmcs.power.set(address, 'on');
    expect((await set()).power).toBe(`ipmi ${address}:623 as admin`);
    expect(await getHostPower({ params }, call())).toEqual({
      host: 'h1',
      controller: `ipmi ${address}:623 as admin`,
      state: 'on',
      says: null,
    });
  });

  test('that cannot be read is not stored, unless that is asked for', async () => {
    await expect(set()).rejects.toMatchObject({ code: 'unavailable', message: expect.stringContaining('no answer') });
    expect(fleet.plane.fleet.findHost('h1').power).toBeNull();
    await set({ controller: ipmi, untested: true });
    expect(fleet.plane.fleet.findHost('h1').power).toMatchObject(ipmi);
  });

  test.each(['http://bmc1/redfish/v1/Systems/1', 'https://admin:secret@bmc1/redfish/v1/Systems/1', 'bmc1'])(
    'is not taken with the address %s, which would give its password away',
    async (url) => {
      const controller = { kind: 'redfish', url, user: 'admin', passwordFile: '/p' } as const;
      await expect(set({ controller, untested: true })).rejects.toMatchObject({ code: 'invalid-input' });
    },
  );

  test('outlives the return of its host', async () => {
    fleet.bmcs.power.set(address, 'on');
    await set();
    await fleet.restartServer();
    expect(fleet.plane.fleet.findHost('h1').power).toMatchObject({ address });
  });

  test('is forgotten when told so, and asked no more', async () => {
    fleet.bmcs.power.set(address, 'on');
    await set();
    expect((await unsetHostPower({ params }, call())).power).toBeNull();
    await expect(getHostPower({ params }, call())).rejects.toMatchObject({ code: 'wrong-state' });
    await expect(turn('off', true)).rejects.toMatchObject({ code: 'wrong-state' });
  });
});

describe('switching a host off', () => {
  beforeEach(async () => {
    fleet.bmcs.power.set(address, 'on');
    await set();
  });

  test('answers what was read back', async () => {
    expect(await over(turn('off'))).toMatchObject({ state: 'off', says: null });
    expect(await over(turn('on'))).toMatchObject({ state: 'on' });
    fleet.bmcs.obeys = () => false;
    expect(await over(turn('off'))).toMatchObject({ state: 'on' });
  });

  test('is refused while guests are there or on the way there, unless forced', async () => {
    const vm = await fleet.run('web1', 'h1');
    await expect(turn('off')).rejects.toMatchObject({ code: 'busy', message: expect.stringContaining('web1') });
    expect(fleet.bmcs.orders).toEqual([]);
    expect(await over(turn('on'))).toMatchObject({ state: 'on' });
    expect(await over(turn('off', true))).toMatchObject({ state: 'off' });
    expect(vm.host).toBe(fleet.plane.fleet.findHost('h1').id);
  });

  test('and on again proves that its guests are gone: it is not switched off once more while it boots', async () => {
    await fleet.run('web1', 'h1');
    await fleet.pass(11_000); // the server has looked for long enough
    fleet.agent('h1').channel?.close('its host is switched off');
    await over(turn('off', true));
    await over(turn('on'));
    await fleet.pass(40_000);
    expect(fleet.bmcs.orders).toEqual([`${address} off`, `${address} on`]);
    expect(fleet.plane.fleet.findHost('h1').fenced).toMatchObject({ proof: 'power-off' });
    expect(fleet.plane.fleet.hostName(fleet.vm('web1').host)).toBe('h2');
  });
});

describe('drover doctor', () => {
  const findings = async () => {
    const all = await over(checkFleet({}, call()));
    return all.filter(({ about }) => about.includes('power controller'));
  };

  test('says which power controllers cannot be read, and says nothing of hosts that have none', async () => {
    expect(await findings()).toEqual([]);
    fleet.bmcs.power.set(address, 'on');
    await set();
    expect(await findings()).toMatchObject([{ severity: 'ok', about: 'host h1: power controller' }]);
    fleet.bmcs.power.delete(address);
    await fleet.pass(31_000);
    expect(await findings()).toMatchObject([{ severity: 'warning', says: expect.stringContaining('no answer') }]);
  });

  test('does not ask a controller more often than it likes', async () => {
    fleet.bmcs.power.set(address, 'on');
    await set();
    await findings();
    fleet.bmcs.power.delete(address);
    expect(await findings()).toMatchObject([{ severity: 'ok' }]);
  });
});
