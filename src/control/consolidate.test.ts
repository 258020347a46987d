/** Fewer hosts by the distributor on a fake fleet: empties, sends to sleep, wakes again, says why; and what forbids it. */
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { BalanceSettings, PlanRecord } from '../model/distribution.ts';
import type { GuestLoad } from '../model/host.ts';
import type { Migration } from '../model/migration.ts';
import { isEnd } from '../migration/phases.ts';
import { newVm } from '../wire/endpoints.ts';
import { planSays } from './balance-views.ts';
import { checkFleet } from './doctor.ts';
import { FakeFleet } from './fake-fleet.ts';

const endpoint = { address: '10.0.1.2', port: 4444 };
const minute = 60_000;
const reportMs = 2_500;
const sleepers = ['h2', 'h3'];
let fleet: FakeFleet;
/** Cores in use, by name of VM. */
let busy: Record<string, number>;

beforeEach(async () => {
  fleet = await FakeFleet.start();
  busy = {};
  fleet.guestLoad = (name): GuestLoad => ({
    cpuCores: busy[name] ?? 0,
    memoryResidentMiB: 200,
    diskReadBytesPerSecond: 0,
    diskWriteBytesPerSecond: 0,
    netReceiveBytesPerSecond: 0,
    netSendBytesPerSecond: 0,
  });
  for (const name of sleepers) await mayBeSwitchedOff(name);
});
afterEach(() => fleet.stopServer());

/** With a power controller, and woken once ten minutes ago. */
async function mayBeSwitchedOff(name: string): Promise<void> {
  fleet.bmcs.power.set(name, 'on');
  const host = fleet.plane.fleet.findHost(name);
  const power = { kind: 'ipmi', address: name, port: 623, user: 'a', passwordFile: '/none' } as const;
  await fleet.plane.fleet.change((draft) => draft.putHost({ ...host, power }));
  await fleet.plane.sleep.setWay(name, { kind: 'off' });
  const at = fleet.clock.now() - 60 * minute;
  await fleet.plane.fleet.change((draft) =>
    draft.putSleep({
      ...fleet.slept(name),
      state: { kind: 'awake', since: at },
      proof: { at, by: 'drill' },
      readyMs: [20_000],
    }),
  );
}

/** Hosts are on or off as their controllers read. */
async function followPower(): Promise<void> {
  for (const name of sleepers) {
    const agent = fleet.agent(name);
    const on = fleet.bmcs.power.get(name) === 'on';
    if (!on && agent.connected) {
      agent.channel?.close('power off');
      agent.session = 0;
    }
    if (on && !agent.connected) {
      agent.inventory = { ...agent.inventory, kernelBootId: `boot-${fleet.clock.now()}` };
      agent.guests = [];
      await agent.connect();
    }
  }
}

const set = (changes: Partial<BalanceSettings>) => fleet.plane.distributor.set(changes, 'ann');
const open = (): Migration[] => [...fleet.plane.fleet.migrations.values()].filter(({ phase }) => !isEnd(phase));
const plans = (): PlanRecord[] => [...fleet.plane.fleet.plans.values()];
const hostOf = (vm: string): string => fleet.plane.fleet.hostName(fleet.vm(vm).host);
const kind = (host: string): string => fleet.slept(host).state.kind;
const ask = (maxMoves = 100) => fleet.plane.distributor.propose({ goal: 'consolidate', maxMoves }, 'asked for');
const said = (): string[] => fleet.live.flatMap((event) => ('says' in event ? [event.says] : []));

async function complete(migration: Migration): Promise<void> {
  const source = fleet.agent(fleet.plane.fleet.hostName(migration.source));
  const target = fleet.agent(fleet.plane.fleet.hostName(migration.target));
  await target.move(migration.id, { kind: 'listening', endpoint });
  await source.move(migration.id, { kind: 'sending' });
  await source.move(migration.id, { kind: 'stopped', for: 'stop-and-copy' });
  await source.move(migration.id, { kind: 'handed-over' });
  await target.move(migration.id, { kind: 'resumed', withFaults: false });
  await source.move(migration.id, { kind: 'released' });
}

/** Time passes; moves that are begun succeed, hosts follow their power. */
async function live(ms: number): Promise<void> {
  for (let left = ms; left > 0; left -= reportMs) {
    await fleet.pass(Math.min(left, reportMs), reportMs);
    for (const migration of open()) await complete(migration);
    await followPower();
  }
}

/** One guest on each host, and their load is known. */
async function spread(memoryMiB = 512): Promise<void> {
  for (const [at, name] of ['a', 'b', 'c'].entries()) await fleet.run(name, `h${at + 1}`, { memoryMiB });
  await live(minute);
}

describe('drover consolidate', () => {
  test('empties hosts, sends those to sleep that may, and says why in plan and events', async () => {
    await spread();
    const plan = await ask();
    expect(plan.moves).toHaveLength(2);
    expect(plan.power).toMatchObject([
      { hostName: expect.stringMatching(/^h[23]$/), to: 'sleep', state: 'due' },
      { hostName: expect.stringMatching(/^h[23]$/), to: 'sleep', state: 'due' },
    ]);
    expect(plan.keeps).toContainEqual({ host: 'h1', because: 'Nobody has said how h1 sleeps and is woken.' });
    await fleet.plane.distributor.accept(plan.id, 'ann');
    await live(minute);
    expect(fleet.plane.fleet.findPlan(plan.id).state.kind).toBe('done');
    expect([kind('h2'), kind('h3')]).toEqual(['asleep', 'asleep']);
    expect(['a', 'b', 'c'].map(hostOf)).toEqual(['h1', 'h1', 'h1']);
    expect(fleet.bmcs.orders).toEqual(expect.arrayContaining(['h2 shut-down', 'h3 shut-down']));
    expect(planSays(fleet.plane.fleet.findPlan(plan.id))).toMatch(
      /^plan_\w+ consolidate, 2 moves, h\d to sleep, h\d to sleep: done/,
    );
    expect(said().some((says) => /^h3 is sent to sleep: .* \(plan_\w+\) \(distributor\)$/.test(says))).toBe(true);
    expect(fleet.alarms).toEqual([]);
    expect(fleet.plane.fleet.recoveries.size).toBe(0);
  });

  test('is refused while the loop would fill again what it empties, unless that is after the same', async () => {
    await spread();
    const plan = await ask();
    await set({ mode: 'automatic' });
    await expect(fleet.plane.distributor.accept(plan.id, 'ann')).rejects.toMatchObject({ code: 'policy-conflict' });
    await set({ goal: 'consolidate' });
    const other = await fleet.plane.distributor.propose({ goal: 'balance', maxMoves: 9 }, 'asked for');
    if (other.moves.length > 0) {
      await expect(fleet.plane.distributor.accept(other.id, 'ann')).rejects.toMatchObject({ code: 'policy-conflict' });
    }
    expect(await fleet.plane.distributor.accept(plan.id, 'ann')).toMatchObject({ state: { kind: 'running' } });
  });

  test('keeps as many hosts awake as may be lost and one, and does not send one to sleep whose wake was not proven', async () => {
    await set({ hostFailuresTolerated: 1 });
    await spread();
    expect((await ask()).power).toHaveLength(1);
    await fleet.plane.fleet.change((draft) => draft.putSleep({ ...fleet.slept('h2'), proof: null }));
    await fleet.plane.fleet.change((draft) => draft.putSleep({ ...fleet.slept('h3'), proof: null }));
    const plan = await ask();
    expect(plan.power).toEqual([]);
    expect(plan.keeps).toContainEqual({ host: 'h3', because: 'It was never proven that h3 can be woken.' });
  });

  test('leaves a host awake that has got a guest meanwhile, and says so', async () => {
    await spread();
    const plan = await ask();
    await fleet.plane.distributor.accept(plan.id, 'ann');
    const [late] = plan.power;
    await live(reportMs);
    await fleet.run('late', late!.hostName, { memoryMiB: 128 });
    await live(minute);
    const { state, power } = fleet.plane.fleet.findPlan(plan.id);
    expect(state).toMatchObject({ kind: 'stopped', because: `${late!.hostName} stays awake: it is in use` });
    expect(power.find(({ hostName }) => hostName === late!.hostName)?.state).toBe('left');
    expect(kind(late!.hostName)).toBe('awake');
  });

  test('--dry-run says it all and does nothing', async () => {
    await spread();
    const before = (await fleet.dump()).replaceAll(/"(demand|energy)\/.*?}}/g, '');
    const plan = await fleet.plane.distributor.preview({ goal: 'consolidate', maxMoves: 100 }, 'asked for');
    expect(plan.power.length + plan.moves.length).toBe(4);
    await live(20_000);
    expect([plans(), open(), fleet.bmcs.orders]).toEqual([[], [], []]);
    expect((await fleet.dump()).replaceAll(/"(demand|energy)\/.*?}}/g, '')).toBe(before);
  });
});

describe('the loop with the goal consolidate', () => {
  const byItself = { mode: 'automatic', goal: 'consolidate', unevenForMs: minute, dwellMs: 10 * minute } as const;

  test('puts hosts to sleep, wakes one for a burst of load and moves VMs there, and then rests', async () => {
    await spread();
    await set(byItself);
    await live(4 * minute);
    expect([kind('h2'), kind('h3')]).toEqual(['asleep', 'asleep']);
    busy = { a: 1.5, b: 1.5, c: 1.5 };
    await live(4 * minute);
    const awake = sleepers.filter((name) => kind(name) === 'awake');
    expect(awake).toHaveLength(1);
    expect(new Set(['a', 'b', 'c'].map(hostOf))).toEqual(new Set(['h1', awake[0]]));
    const made = plans().length;
    await live(40 * minute);
    expect(plans().length - made).toBeLessThanOrEqual(1);
    expect(sleepers.filter((name) => kind(name) === 'awake')).toEqual(awake);
    const relief = plans().find(({ moves }) => moves[0]?.reason.startsWith('Relieves h1'));
    expect(relief).toMatchObject({ origin: 'loop', state: { kind: 'done' } });
  });

  test('answers a burst at once, however long it has tried in vain to empty one more host', async () => {
    const held = { memoryMiB: 512, labels: {}, placing: { pinnedTo: ['h1', 'h2'] } };
    await fleet.run('a', 'h1', held);
    await fleet.run('b', 'h1', held);
    await fleet.run('c', 'h2', { ...held, placing: { pinnedTo: ['h2'] } });
    await live(minute);
    await set(byItself);
    await live(40 * minute);
    expect([kind('h2'), kind('h3')]).toEqual(['awake', 'asleep']);
    expect(fleet.plane.distributor.says).toMatch(/h2 could sleep: .*; no step is worth what it costs$/);
    busy = { a: 1.9, b: 1.9 };
    await live(4 * minute);
    expect(new Set([hostOf('a'), hostOf('b')])).toEqual(new Set(['h1', 'h2']));
  });

  test('ends a plan whose host is not there any more when it is to be woken', async () => {
    await spread();
    await set(byItself);
    await live(4 * minute);
    expect([kind('h2'), kind('h3')]).toEqual(['asleep', 'asleep']);
    await set({ mode: 'manual' });
    busy = { a: 1.5, b: 1.5, c: 1.5 };
    await live(3 * minute);
    const plan = plans().find(({ state }) => state.kind === 'proposed')!;
    const { host } = plan.power.find(({ to }) => to === 'wake')!;
    await fleet.plane.distributor.accept(plan.id, 'ann');
    await fleet.plane.fleet.change((draft) => draft.removeHost(fleet.plane.fleet.hosts.get(host)!));
    await live(10_000);
    expect(fleet.plane.fleet.findPlan(plan.id).state).toMatchObject({
      kind: 'stopped',
      because: expect.stringMatching(/^h\d is not woken: /),
    });
  });

  test('recommends in manual mode, also that an empty host sleeps, and does nothing before it is accepted', async () => {
    await fleet.run('a', 'h1', { memoryMiB: 2_000 });
    await fleet.run('b', 'h2', { memoryMiB: 7_000 });
    await set({ ...byItself, mode: 'manual' });
    await live(3 * minute);
    const [plan] = plans();
    expect(plan).toMatchObject({ state: { kind: 'proposed' }, moves: [], power: [{ hostName: 'h3', to: 'sleep' }] });
    expect(planSays(plan!)).toMatch(/^plan_\w+ consolidate, h3 to sleep: proposed: h\d could sleep/);
    expect(kind('h3')).toBe('awake');
    await fleet.plane.distributor.accept(plan!.id, 'ann');
    await live(minute);
    expect(kind('h3')).toBe('asleep');
  });

  test('is quiet in quiet hours, and in shadow mode only notes what it would have done', async () => {
    await spread();
    const now = new Date(fleet.clock.now());
    const from = now.getUTCHours() * 60 + now.getUTCMinutes();
    await set({ ...byItself, quietHours: [{ from, to: (from + 30) % 1_440 }] });
    await live(5 * minute);
    expect([plans(), open()]).toEqual([[], []]);
    await set({ quietHours: [], mode: 'shadow' });
    await live(5 * minute);
    expect(plans().map(({ state }) => state.kind)).toEqual(['shadow']);
    expect([open(), fleet.bmcs.orders]).toEqual([[], []]);
  });

  test('becomes more cautious when a host had to be woken before its sleep had paid', async () => {
    await spread();
    await set(byItself);
    await live(4 * minute);
    expect(fleet.plane.fleet.balance.caution.factor).toBe(1);
    for (const host of sleepers) await fleet.plane.sleep.wake(host, { by: 'ann', because: 'work' }, { dryRun: false });
    await live(8 * minute);
    const decisions = [...fleet.plane.fleet.decisions.values()];
    expect(decisions.map(({ measured }) => measured)).toMatchObject(
      decisions.map(() => ({ paid: false, says: expect.stringMatching(/^h\d slept for .* only$/) })),
    );
    expect(fleet.plane.fleet.balance.caution.factor).toBeGreaterThan(1);
  });

  test('goes on where it was when another server takes over', async () => {
    await spread();
    await set(byItself);
    for (let tries = 0; tries < 240 && open().length === 0; tries++) await fleet.pass(reportMs, reportMs);
    expect(open().length).toBeGreaterThan(0);
    await fleet.restartServer();
    await live(3 * minute);
    expect(plans()).toMatchObject([{ state: { kind: 'done' } }]);
    expect([kind('h2'), kind('h3')]).toEqual(['asleep', 'asleep']);
  });

  test('mends rules between VMs without spreading load', async () => {
    await fleet.run('a', 'h1', { memoryMiB: 512, placing: { apart: ['web'] } });
    await fleet.run('b', 'h2', { memoryMiB: 512 });
    await live(minute);
    await fleet.plane.fleet.change((draft) => {
      const vm = fleet.vm('b');
      draft.putVm({ ...vm, placing: { ...vm.placing, pinnedTo: ['h1'] } });
    });
    await set(byItself);
    await live(4 * minute);
    expect([hostOf('a'), hostOf('b')]).toEqual(['h1', 'h1']);
  });
});

test('drover doctor says when the fleet does not hold the loss of as many hosts as it is set to', async () => {
  const about = 'fleet: room for lost hosts';
  const found = () => checkFleet(fleet.plane).find((finding) => finding.about === about);
  for (const name of ['h1', 'h2', 'h3']) await fleet.run(`on-${name}`, name, { memoryMiB: 5_000 });
  expect(found()).toBeUndefined();
  await set({ hostFailuresTolerated: 1 });
  expect(found()).toMatchObject({
    severity: 'warning',
    says: 'if a host dies VMs of 5000 MiB may find no room on hosts that are awake',
  });
  await fleet.join('h4');
  expect(found()).toBeUndefined();
});

describe('a VM that should run', () => {
  async function bothAsleep(): Promise<void> {
    await fleet.run('a', 'h1', { memoryMiB: 6_000 });
    await live(minute);
    const plan = await ask();
    await fleet.plane.distributor.accept(plan.id, 'ann');
    await live(minute);
    expect([kind('h2'), kind('h3')]).toEqual(['asleep', 'asleep']);
  }

  test('and is created where no host that is awake has room waits only until one is woken for it', async () => {
    await bothAsleep();
    const body = newVm.parse({ name: 'big', memoryMiB: 4_000, diskMiB: 1, placing: { pinnedTo: ['h3'] } });
    const vm = await fleet.plane.vms.create(body, null);
    expect(vm.state).toMatchObject({ kind: 'waiting', because: expect.stringContaining('is asleep') });
    await live(minute);
    expect([kind('h2'), kind('h3')]).toEqual(['asleep', 'awake']);
    expect(fleet.vm('big')).toMatchObject({
      state: { kind: 'creating', thenStart: true },
      host: fleet.plane.fleet.findHost('h3').id,
    });
  });

  test('has as many hosts woken as are needed for all that wait, at once', async () => {
    await bothAsleep();
    for (const name of ['big-1', 'big-2']) {
      await fleet.plane.vms.create(newVm.parse({ name, memoryMiB: 6_000, diskMiB: 1 }), null);
    }
    await fleet.pass(8_000, reportMs);
    expect([kind('h2'), kind('h3')]).toEqual(['waking', 'waking']);
    await live(minute);
    expect(new Set(['big-1', 'big-2'].map(hostOf))).toEqual(new Set(['h2', 'h3']));
  });

  test('and is started while its host sleeps has it woken, where no other has room', async () => {
    const vm = await fleet.run('b', 'h3', { memoryMiB: 4_000 });
    await fleet.plane.vms.stop('b', { force: true, timeoutMs: 1 });
    await fleet.agent('h3').life(vm.id, { kind: 'ended', how: 'stopped', message: '' });
    fleet.agent('h3').guests = [];
    await bothAsleep();
    expect((await fleet.plane.vms.start('b', null)).state.kind).toBe('waiting');
    await live(minute);
    expect(sleepers.filter((name) => kind(name) === 'awake')).toHaveLength(1);
    expect(fleet.vm('b').state.kind).toBe('starting');
  });
});
