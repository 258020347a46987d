import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { HostLoad } from '../model/host.ts';
import type { VmId } from '../model/ids.ts';
import { FakeFleet } from './fake-fleet.ts';
import { getEnergy } from './handlers/energy.ts';
import { dcmiWatts, sensorWatts } from './power/ipmi.ts';

let fleet: FakeFleet;
beforeEach(async () => {
  fleet = await FakeFleet.start(['h1', 'h2']);
});
afterEach(() => fleet.stopServer());

const minute = 60_000;
const energy = (by: 'host' | 'vm' = 'host') =>
  getEnergy({ query: { by } }, fleet.call()) as Exclude<ReturnType<typeof getEnergy>, Promise<unknown>>;
const row = (name: string, by: 'host' | 'vm' = 'host') => energy(by).rows.find((each) => each.name === name);
const withBmc = (name: string, address: string) =>
  fleet.plane.fleet.change((draft) =>
    draft.putHost({
      ...fleet.plane.fleet.findHost(name),
      power: { kind: 'ipmi', address, port: 623, user: 'a', passwordFile: '/none' },
    }),
  );

describe('the energy of a host', () => {
  test('is measured by its BMC, else by RAPL, else modelled, and it is said which', async () => {
    await withBmc('h1', 'b1');
    fleet.bmcs.power.set('b1', 'on');
    fleet.bmcs.watts.set('b1', 120);
    fleet.agent('h2').load = { raplWatts: 30 };
    await fleet.join('h3');
    await fleet.plane.sleep.setWatts('h3', { idle: 60, max: 60 });
    await fleet.pass(20 * minute);
    expect(row('h1')).toMatchObject({ known: expect.stringMatching(/^BMC/) });
    expect(row('h1')!.wh).toBeGreaterThan(30);
    expect(row('h1')!.wh).toBeLessThan(41);
    expect(row('h2')).toMatchObject({ known: 'RAPL' });
    expect(row('h2')!.wh).toBeGreaterThan(8);
    expect(row('h2')!.wh).toBeLessThan(11);
    expect(row('h3')).toMatchObject({ known: 'model' });
    expect(row('h3')!.wh).toBeGreaterThan(16);
    expect(row('h3')!.wh).toBeLessThan(21);
    expect(energy().says.join('\n')).toMatch(/modelled: \d+ %[\s\S]*RAPL: \d+ %; it measures processors and memory/);
  });

  test('is shared out to its VMs by processor time, and what it draws idle by memory', async () => {
    const load = (ids: VmId[]): Partial<HostLoad> => {
      const rates = { diskReadBytesPerSecond: 0, diskWriteBytesPerSecond: 0, netReceiveBytesPerSecond: 0 };
      const guest = { ...rates, netSendBytesPerSecond: 0, memoryResidentMiB: 1 };
      const guests = ids.map((id, n) => [id, { ...guest, cpuCores: n === 0 ? 2 : 0 }] as const);
      return { cpu: 0.5, guests: Object.fromEntries(guests) };
    };
    const [busy, idle] = [await fleet.run('busy', 'h1'), await fleet.run('idle', 'h1')];
    fleet.agent('h1').load = load([busy.id, idle.id]);
    await fleet.plane.sleep.setWatts('h1', { idle: 100, max: 300 });
    await fleet.pass(20 * minute);
    const [a, b] = [row('busy', 'vm')!.wh, row('idle', 'vm')!.wh];
    expect(a).toBeGreaterThan(10 * b);
    expect(b).toBeGreaterThan(0);
    expect(a + b).toBeLessThan(row('h1')!.wh);
  });

  test('is saved while it sleeps, by what it was measured to draw idle, and kept over a new server', async () => {
    await withBmc('h2', 'b2');
    fleet.bmcs.power.set('b2', 'on');
    fleet.bmcs.watts.set('b2', 80);
    fleet.agent('h2').load = { cpu: 0.01 };
    await fleet.pass(10 * minute);
    await fleet.plane.fleet.change((draft) => {
      const host = fleet.plane.fleet.findHost('h2').id;
      const asleep = { kind: 'asleep', since: fleet.clock.now(), by: 't', because: 't', drill: false } as const;
      draft.putSleep({
        schema: 1,
        host,
        way: { kind: 'off' },
        state: asleep,
        proof: null,
        readyMs: [],
        lastFailure: null,
        watts: null,
      });
    });
    fleet.agent('h2').channel?.close('asleep');
    fleet.agent('h2').session = 0;
    await fleet.pass(20 * minute);
    const view = energy();
    expect(row('h2')).toMatchObject({ idleWatts: 80 });
    expect(row('h2')!.savedWh).toBeGreaterThan(20);
    expect(view.total.alwaysOnWh).toBeCloseTo(view.total.usedWh + view.total.savedWh);
    await fleet.stopServer();
    await fleet.startServer();
    expect(energy()).toMatchObject({ total: view.total });
    expect(fleet.plane.energy.idleWattsOf(fleet.plane.fleet.findHost('h2'))).toBe(80);
  });
});

describe('what will be needed', () => {
  test('is learned day by day and asked for ahead; hosts that may sleep are named with the reason of the others', async () => {
    await fleet.run('web1', 'h1', { memoryMiB: 4000 });
    await fleet.pass(15 * minute);
    expect(fleet.plane.energy.capacityNeeded(0)).toMatchObject({ memoryMiB: 4000 });
    // Once more tomorrow, and a fifth on top: it was seen on one day only.
    expect(fleet.plane.energy.capacityNeeded(24 * 60 * minute)).toMatchObject({ memoryMiB: 4800 });
    expect(fleet.plane.energy.plan()).toMatchObject({
      sleep: [],
      wake: [],
      keep: [{ host: 'h2', because: 'Nobody has said how h2 sleeps and is woken.' }],
    });
  });
});

test('Watts are read from what ipmitool prints, by DCMI or from a sensor.', () => {
  expect(dcmiWatts('\n    Instantaneous power reading:                   154 Watts\n    Minimum: 0 Watts')).toBe(154);
  expect(dcmiWatts('DCMI request failed because: Invalid command')).toBeNull();
  const sensors =
    'Current 1        | 6Ah | ok  | 10.1 | 0.40 Amps\nPwr Consumption  | 77h | ok  |  7.1 | 182 Watts\nGPU | 78h | ns | 7.1 | 900 Watts';
  expect(sensorWatts(sensors)).toBe(182);
  expect(sensorWatts('Current 1 | 6Ah | ok | 10.1 | 0.40 Amps')).toBeNull();
});
