import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { FakeFleet, settled, type FakeAgent } from './fake-fleet.ts';

let fleet: FakeFleet;
const bmc = '10.9.0.3';
const why = { by: 'test', because: 'nothing to do' };
const send = (drill = false) => fleet.plane.sleep.send('h3', why, { drill, dryRun: false });
const wake = () => fleet.plane.sleep.wake('h3', why, { dryRun: false });
const kind = () => fleet.slept('h3').state.kind;

/** What a host does whose power is as its controller says. */
async function followPower(agent: FakeAgent): Promise<void> {
  const on = fleet.bmcs.power.get(bmc) === 'on';
  if (!on && agent.connected) {
    agent.channel?.close('power off');
    agent.session = 0;
  }
  if (on && !agent.connected) {
    agent.inventory = { ...agent.inventory, kernelBootId: `boot-${fleet.clock.now()}` };
    await agent.connect();
  }
}

async function pass(ms: number): Promise<void> {
  for (let left = ms; left > 0; left -= 500) {
    await fleet.pass(500);
    await followPower(fleet.agent('h3'));
  }
}

beforeEach(async () => {
  fleet = await FakeFleet.start();
  fleet.bmcs.power.set(bmc, 'on');
  await fleet.plane.fleet.change((draft) =>
    draft.putHost({
      ...fleet.plane.fleet.findHost('h3'),
      power: { kind: 'ipmi', address: bmc, port: 623, user: 'a', passwordFile: '/none' },
    }),
  );
  await fleet.plane.sleep.setWay('h3', { kind: 'off' });
});
afterEach(() => fleet.stopServer());

describe('a host with a power controller', () => {
  test('may not sleep before it was proven that it wakes; a drill proves it and learns how long it takes', async () => {
    await expect(send()).rejects.toThrow('It was never proven that h3 can be woken');
    await send(true);
    await pass(10_000);
    expect(fleet.bmcs.orders).toEqual([`${bmc} shut-down`, `${bmc} on`]);
    expect(fleet.slept('h3')).toMatchObject({ state: { kind: 'awake' }, proof: { by: 'drill' } });
    expect(fleet.slept('h3').readyMs).toHaveLength(1);
    await send();
    await pass(5_000);
    expect(kind()).toBe('asleep');
  });

  test('sleeps without being taken for lost, however long, and its boot proves nothing when it is woken', async () => {
    await fleet.run('web1', 'h1');
    await fleet.run('web2', 'h2');
    await send(true);
    await pass(10_000);
    await send();
    await pass(300_000);
    expect(kind()).toBe('asleep');
    await wake();
    await pass(5_000);
    expect(kind()).toBe('awake');
    expect(fleet.plane.fleet.recoveries.size).toBe(0);
    expect(fleet.plane.fleet.findHost('h3').fenced).toBeNull();
    expect(fleet.alarms).toEqual([]);
    expect(fleet.slept('h3')).toMatchObject({
      proof: { by: 'wake' },
      readyMs: [expect.any(Number), expect.any(Number)],
    });
  });

  test('takes nothing while it sleeps, and again when it is awake', async () => {
    await send(true);
    await pass(10_000);
    await send();
    await expect(fleet.run('web1', 'h3')).rejects.toThrow('h3 is going to sleep');
    await pass(5_000);
    await expect(fleet.run('web1', 'h3')).rejects.toThrow('h3 is asleep');
    await wake();
    await pass(5_000);
    expect(await fleet.run('web1', 'h3')).toMatchObject({ state: { kind: 'running' } });
  });

  test('is refused sleep with a guest, and with a guest that comes before its agent has consented', async () => {
    const vm = await fleet.run('web1', 'h3');
    await expect(send(true)).rejects.toThrow('h3 has guests: web1');
    await fleet.plane.vms.stop('web1', { force: true, timeoutMs: 1 });
    await expect(send(true)).rejects.toThrow('h3 has guests: web1');
    await fleet.agent('h3').life(vm.id, { kind: 'ended', how: 'stopped', message: '' });
    fleet.agent('h3').guests = [];
    fleet.agent('h3').sleepAnswer = { result: 'refused', says: 'guests run here: web1' };
    await send(true);
    await pass(2_000);
    expect(fleet.slept('h3')).toMatchObject({
      state: { kind: 'awake' },
      lastFailure: { says: 'h3 stays awake: guests run here: web1' },
    });
    expect(fleet.agent('h3').asked).toEqual(['prepare', 'stay-awake']);
    expect(fleet.bmcs.orders).toEqual([]);
  });

  test('stays awake with an alarm when its agent does not answer, and is not switched off', async () => {
    fleet.agent('h3').sleepAnswer = null;
    await send(true);
    await pass(32_000);
    expect(kind()).toBe('awake');
    expect(fleet.alarms).toEqual(['h3 stays awake: its agent did not answer']);
    expect(fleet.bmcs.orders).toEqual([]);
  });

  test('that hangs while it shuts down is switched hard off', async () => {
    fleet.bmcs.obeys = () => !fleet.bmcs.orders.at(-1)?.endsWith('shut-down');
    await send(true);
    await pass(60_000);
    expect(fleet.bmcs.orders).toEqual([`${bmc} shut-down`]);
    await pass(60_000);
    expect(fleet.bmcs.orders).toEqual([`${bmc} shut-down`, `${bmc} off`, `${bmc} on`]);
    expect(kind()).toBe('awake');
  });

  test('goes on by a server that takes over in the middle', async () => {
    await send(true);
    await settled();
    await fleet.restartServer();
    await pass(10_000);
    expect(fleet.slept('h3')).toMatchObject({ state: { kind: 'awake' }, proof: { by: 'drill' } });
    await send();
    await pass(5_000);
    await fleet.stopServer();
    await fleet.startServer();
    for (const name of ['h1', 'h2']) await fleet.agent(name).connect();
    await pass(60_000);
    expect(kind()).toBe('asleep');
  });

  test('that switches itself on is awake again, and so is one that somebody switched on', async () => {
    await send(true);
    await pass(10_000);
    await send();
    await pass(5_000);
    fleet.bmcs.power.set(bmc, 'on');
    await pass(3_000);
    expect(kind()).toBe('awake');
    expect(fleet.agent('h3').asked.at(-1)).toBe('stay-awake');
    expect(fleet.live.some((event) => 'says' in event && event.says === 'h3 has woken by itself')).toBe(true);
  });

  test('that does not wake is tried again, switched off in between, and then given up with an alarm', async () => {
    await send(true);
    await pass(10_000);
    await send();
    await pass(5_000);
    const agent = fleet.agent('h3');
    const orders = fleet.bmcs.orders.length;
    const dead = agent.connect.bind(agent);
    agent.connect = async () => {};
    await wake();
    await pass(200_000);
    const given = fleet.bmcs.orders.slice(orders);
    expect(given[0]).toBe(`${bmc} on`);
    expect(given.filter((order) => order.endsWith('off'))).toHaveLength(2);
    expect(fleet.slept('h3')).toMatchObject({ state: { kind: 'wake-failed' }, proof: null });
    expect(fleet.alarms.at(-1)).toMatch(/h3 does not wake: it was tried 3 times .* Its capacity counts as gone/);
    expect(fleet.plane.fleet.recoveries.size).toBe(0);
    agent.connect = dead;
    await pass(3_000);
    expect(kind()).toBe('awake');
  });

  /** Asleep, and woken in vain until the first try is over. */
  async function secondTry(): Promise<{ comesUp: () => void }> {
    await send(true);
    await pass(10_000);
    await send();
    await pass(5_000);
    const agent = fleet.agent('h3');
    const connect = agent.connect.bind(agent);
    agent.connect = async () => {};
    await wake();
    const { orders } = fleet.bmcs;
    for (let ms = 0; !orders.includes(`${bmc} off`); ms += 500) {
      expect(ms).toBeLessThan(100_000);
      await pass(500);
    }
    orders.splice(0, orders.indexOf(`${bmc} off`));
    return { comesUp: () => (agent.connect = connect) };
  }

  test('that comes up while it is switched off for another try gets no guest before that is over', async () => {
    let failed = false;
    // The controller does not take the order at first; meanwhile the host is up.
    fleet.bmcs.obeys = () => {
      if (failed || !fleet.bmcs.orders.at(-1)?.endsWith('off')) return true;
      failed = true;
      throw new Error('no answer');
    };
    const { comesUp } = await secondTry();
    expect(fleet.bmcs.orders).toEqual([`${bmc} off`]);
    comesUp();
    await pass(1_500);
    expect(fleet.agent('h3').connected).toBe(true);
    await expect(fleet.run('web1', 'h3')).rejects.toThrow('h3 is being woken');
    await pass(10_000);
    expect(fleet.bmcs.orders).toEqual([`${bmc} off`, `${bmc} off`, `${bmc} on`]);
    expect(kind()).toBe('awake');
    expect(await fleet.run('web1', 'h3')).toMatchObject({ state: { kind: 'running' } });
  });

  test('that is being tried again is not switched off once more by a server that takes over: it may be up by now', async () => {
    const { comesUp } = await secondTry();
    await pass(3_000);
    expect(fleet.bmcs.orders.slice(0, 2)).toEqual([`${bmc} off`, `${bmc} on`]);
    await fleet.stopServer();
    await fleet.startServer();
    for (const name of ['h1', 'h2']) await fleet.agent(name).connect();
    await pass(3_000);
    expect(fleet.bmcs.orders.filter((order) => order.endsWith('off'))).toHaveLength(1);
    comesUp();
    await pass(3_000);
    expect(kind()).toBe('awake');
  });

  test('may not sleep any more after thirty days without a wake', async () => {
    await send(true);
    await pass(10_000);
    const at = fleet.clock.now() - 31 * 86_400_000;
    await fleet.plane.fleet.change((draft) => draft.putSleep({ ...fleet.slept('h3'), proof: { at, by: 'drill' } }));
    await expect(send()).rejects.toThrow('proven last 31 days ago; 30 days are allowed');
  });

  test('is woken for a VM that waits for a host', async () => {
    await send(true);
    await pass(10_000);
    await send();
    await pass(5_000);
    const vm = await fleet.run('web1', 'h1', { memoryMiB: 7_000 });
    await fleet.run('web2', 'h2', { memoryMiB: 7_000 });
    await fleet.plane.fleet.change((draft) =>
      draft.putVm({ ...vm, state: { kind: 'waiting', since: fleet.clock.now(), notBefore: 0, because: 'no room' } }),
    );
    await fleet.plane.fleet.change((draft) => draft.putHost({ ...fleet.plane.fleet.findHost('h1'), cordoned: true }));
    await pass(12_000);
    expect(kind()).toBe('awake');
    expect(fleet.vm('web1')).toMatchObject({ state: { kind: 'starting' }, host: fleet.plane.fleet.findHost('h3').id });
  });

  test('is woken when the records turn out to be older than the fleet, and for what is to be done there', async () => {
    const vm = await fleet.run('web1', 'h3');
    await fleet.plane.vms.stop('web1', { force: true, timeoutMs: 1 });
    await fleet.agent('h3').life(vm.id, { kind: 'ended', how: 'stopped', message: '' });
    fleet.agent('h3').guests = [];
    await send(true);
    await pass(10_000);
    await send();
    await pass(5_000);
    await fleet.plane.vms.remove('web1', 'delete');
    await pass(5_000);
    expect(kind()).toBe('awake');
    expect(fleet.agent('h3').kinds()).toContain('remove');
    // It was not lost: a VM that is off and to be deleted there is no guest.
    expect(fleet.plane.fleet.recoveries.size).toBe(0);
    await fleet.agent('h3').life(vm.id, { kind: 'removed' });
    await send();
    await pass(5_000);
    expect(kind()).toBe('asleep');
    await fleet.plane.held.begin('a backup was restored');
    await pass(5_000);
    expect(kind()).toBe('awake');
  });

  test('is woken for VMs that cannot leave a host that is drained, or sick, for want of room', async () => {
    await send(true);
    await pass(10_000);
    await send();
    await pass(5_000);
    await fleet.run('web1', 'h1', { memoryMiB: 5_000 });
    await fleet.run('web2', 'h2', { memoryMiB: 5_000 });
    await fleet.plane.drains.begin('h1', { movesAtOnce: null, allowCold: null, because: null, dryRun: false }, 'ann');
    await pass(3_000);
    expect(kind()).toBe('asleep');
    await pass(10_000);
    expect(kind()).toBe('awake');
    expect([...fleet.plane.fleet.migrations.values()]).toMatchObject([
      { vmName: 'web1', target: fleet.plane.fleet.findHost('h3').id },
    ]);
    expect(fleet.live.some((event) => 'says' in event && event.says.includes('web1 is to leave h1'))).toBe(true);
  });

  test('is woken to be given back what a drain took away', async () => {
    const vm = await fleet.run('web1', 'h3');
    await fleet.plane.drains.begin('h3', { movesAtOnce: null, allowCold: null, because: null, dryRun: false }, 'ann');
    await pass(2_000);
    const { id, target: to } = [...fleet.plane.fleet.migrations.values()].at(-1)!;
    const [source, target] = [fleet.agent('h3'), fleet.agent(fleet.plane.fleet.hostName(to))];
    await target.move(id, { kind: 'listening', endpoint: { address: '10.0.1.2', port: 4444 } });
    await source.move(id, { kind: 'sending' });
    await source.move(id, { kind: 'stopped', for: 'stop-and-copy' });
    await source.move(id, { kind: 'handed-over' });
    await target.move(id, { kind: 'resumed', withFaults: false });
    await source.move(id, { kind: 'released' });
    source.guests = [];
    await pass(2_000);
    expect(fleet.vm('web1').host).not.toBe(vm.host);
    await send(true);
    await pass(10_000);
    await send();
    await pass(5_000);
    expect(kind()).toBe('asleep');
    const tried = await fleet.plane.drains.undrain('h3', { movesAtOnce: null, dryRun: true }, 'ann');
    expect([tried.drain.state.kind, kind()]).toEqual(['returning', 'asleep']);
    await fleet.plane.drains.undrain('h3', { movesAtOnce: null, dryRun: false }, 'ann');
    await fleet.pass(2_000);
    const [drain] = fleet.plane.fleet.drains.values();
    expect(drain?.vms[0]?.stuck).toMatchObject({ says: 'h3 is being woken' });
    await pass(8_000);
    expect(kind()).toBe('awake');
    const back = [...fleet.plane.fleet.migrations.values()].at(-1);
    expect(back).toMatchObject({ vmName: 'web1', target: vm.host });
    expect(fleet.live.some((event) => 'says' in event && event.says.includes('its VMs come back to it'))).toBe(true);
  });

  test('is named to whoever finds no room elsewhere for a move', async () => {
    await send(true);
    await pass(10_000);
    await send();
    await pass(5_000);
    for (const name of ['h1', 'h2']) await fleet.run(`big-${name}`, name, { memoryMiB: 7_000 });
    const body = { to: null, technique: 'auto', policy: {}, why: null, dryRun: true, holdMs: null } as const;
    await expect(fleet.plane.reservations.startMigration('big-h1', body, null, 'ann', 'at-once')).rejects.toMatchObject(
      {
        code: 'no-room',
        hint: 'Wake a host that is asleep (drover host wake h3 --wait), then try again.',
      },
    );
  });

  test('is refused sleep while it is the only one awake', async () => {
    for (const name of ['h1', 'h2']) fleet.agent(name).reports = false;
    await pass(5_000);
    await expect(send(true)).rejects.toThrow('h3 is the only host that is awake');
  });

  test('changes nothing when it is only tried out', async () => {
    const before = await fleet.dump();
    await fleet.plane.sleep.send('h3', why, { drill: true, dryRun: true });
    await fleet.plane.sleep.wake('h3', why, { dryRun: true });
    expect(await fleet.dump()).toBe(before);
  });
});

describe('a host that suspends', () => {
  test('is told to only after its consent is on record, and is woken by packets of the server and of its peers', async () => {
    await fleet.plane.sleep.setWay('h3', { kind: 'suspend', macs: [] });
    const agent = fleet.agent('h3');
    await send(true);
    await fleet.pass(1_500);
    expect(agent.asked).toEqual(['prepare', 'suspend']);
    agent.channel?.close('suspended');
    agent.session = 0;
    await fleet.pass(5_000);
    expect(kind()).toBe('waking');
    expect(fleet.magic).toContain('52:54:00:00:00:01');
    expect(fleet.agent('h1').asked).toContain('wake 52:54:00:00:00:01');
    await agent.connect();
    await fleet.pass(2_000);
    expect(fleet.slept('h3')).toMatchObject({ state: { kind: 'awake' }, proof: { by: 'drill' } });
  });
});
