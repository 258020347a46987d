/** A host dies: what is done with it and with its VMs, by the real control plane on a clock that stands still. */
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { LeaseSeen } from '../model/host.ts';
import type { RecoveryRecord } from '../model/recovery.ts';
import type { VmRecord } from '../model/vm.ts';
import { brokenInvariants } from '../migration/invariants.ts';
import { migrateBody, newVm } from '../wire/endpoints.ts';
import { checkFleet } from './doctor.ts';
import { removeHost } from './handlers/hosts.ts';
import { FakeFleet, frozen, inventory, settled, until } from './fake-fleet.ts';

const poolIds = { default: 'pool1' };
let fleet: FakeFleet;

beforeEach(async () => {
  fleet = await FakeFleet.start([]);
  for (const name of ['h1', 'h2', 'h3']) await fleet.join(name, { poolIds });
  await fleet.pass(11_000); // the server has looked for long enough
});
afterEach(async () => {
  for (const migration of fleet.plane.fleet.migrations.values()) expect(brokenInvariants(migration)).toEqual([]);
  await fleet.stopServer();
});

/** h1 has a power controller. */
async function withPower(state: 'on' | 'off' | 'unknown' = 'on', name = 'h1'): Promise<void> {
  fleet.bmcs.power.set(name, state);
  await fleet.plane.fleet.change((draft) => {
    const host = fleet.plane.fleet.findHost(name);
    draft.putHost({
      ...host,
      power: { kind: 'ipmi', address: name, port: 623, user: 'u', passwordFile: 'f' },
    });
  });
}

/** What h2 sees of the lease of `name`; it is not renewed any more from now on. */
function leaseOf(name: string, renewed = false): void {
  const since = fleet.clock.monotonic();
  fleet.agent('h2').leases = (): LeaseSeen[] => [
    {
      host: name,
      poolId: 'pool1',
      state: 'held',
      bootId: `boot-of-${name}`,
      leaseTimeMs: 10_000,
      unchangedMs: renewed ? 500 : fleet.clock.monotonic() - since,
    },
  ];
}

const dies = (name: string) => fleet.agent(name).channel?.close('the host died');
const record = (): RecoveryRecord => {
  const [latest] = [...fleet.plane.fleet.recoveries.values()].toReversed();
  if (latest) return latest;
  throw new Error('no host was fenced');
};
const host = (name: string) => fleet.plane.fleet.findHost(name);
const isAt = (vm: VmRecord): string => `${vm.name} ${vm.state.kind} on ${fleet.plane.fleet.hostName(vm.host)}`;
const errors = (): string[] =>
  checkFleet(fleet.plane)
    .filter(({ says }) => says.includes('room') || says.includes('promised'))
    .map(({ about, says }) => `${about}: ${says}`);

async function starts(name: string): Promise<void> {
  const vm = fleet.vm(name);
  const agent = fleet.agent(fleet.plane.fleet.hostName(vm.host));
  await agent.life(vm.id, { kind: 'started', running: frozen(vm) });
}

describe('a host with a power controller', () => {
  test('is switched off when both its agent and its lease stand still, and its VMs start elsewhere within 5 s', async () => {
    await withPower();
    await fleet.run('web1', 'h1');
    await fleet.run('db1', 'h1');
    const before = fleet.vm('web1');
    leaseOf('h1');
    dies('h1');
    const died = fleet.clock.now();
    await fleet.pass(5_000);
    expect(fleet.bmcs.orders).toEqual(['h1 off']);
    expect(host('h1')).toMatchObject({ session: 2, fenced: { proof: 'power-off', by: 'drover' } });
    for (const name of ['web1', 'db1']) expect(isAt(fleet.vm(name))).toMatch(/starting on h[23]/);
    expect(fleet.vm('web1').generation).toBe(before.generation + 2);
    expect(fleet.room('h1')).toBe('0+0');
    const order = await fleet.agent(fleet.plane.fleet.hostName(fleet.vm('web1').host)).order('start');
    expect(order.generation).toBeGreaterThan(before.generation);
    expect(record().fencedAt - died).toBeLessThanOrEqual(4_500);
    expect(errors()).toEqual([]);
  });

  test('puts on record when it fell silent, was noticed, fenced, and when each VM was placed and ran', async () => {
    await withPower();
    await fleet.run('web1', 'h1');
    leaseOf('h1');
    dies('h1');
    const died = fleet.clock.now();
    await fleet.pass(5_000);
    await fleet.pass(2_000);
    await starts('web1');
    await fleet.pass(1_500);
    const { silentSince, detectedAt, fencedAt, vms, endedAt, proof } = record();
    expect(proof).toBe('power-off');
    expect(silentSince).toBeLessThanOrEqual(died);
    expect(detectedAt - died).toBeLessThanOrEqual(3_500);
    expect(fencedAt).toBeGreaterThanOrEqual(detectedAt);
    const [vm] = vms;
    expect(vm).toMatchObject({ vmName: 'web1', kind: 'restart' });
    expect(vm?.placedAt).toBeGreaterThanOrEqual(fencedAt);
    expect((vm?.startedAt ?? 0) - (vm?.placedAt ?? 0)).toBeGreaterThanOrEqual(2_000);
    expect(endedAt).not.toBeNull();
  });

  test('that does not obey is not fenced, and nothing is started elsewhere', async () => {
    await withPower();
    fleet.bmcs.obeys = () => false;
    await fleet.run('web1', 'h1');
    leaseOf('h1');
    fleet.plane.fleet.findHost('h1');
    dies('h1');
    await fleet.pass(10_000);
    expect(fleet.bmcs.orders.length).toBeGreaterThan(0);
    expect(host('h1').fenced).toBeNull();
    expect(isAt(fleet.vm('web1'))).toBe('web1 running on h1');
  });

  test('that reads off already is fenced without an order, also where no lease is seen', async () => {
    await withPower('off');
    await fleet.run('web1', 'h1');
    dies('h1');
    await fleet.pass(5_000);
    expect(fleet.bmcs.orders).toEqual([]);
    expect(host('h1').fenced?.proof).toBe('power-off');
  });

  test('whose lease is renewed is not touched: only its agent is down', async () => {
    await withPower();
    await fleet.run('web1', 'h1');
    leaseOf('h1', true);
    dies('h1');
    await fleet.pass(60_000);
    expect(fleet.bmcs.orders).toEqual([]);
    expect(host('h1').fenced).toBeNull();
    expect(fleet.alarms.filter((alarm) => alarm.includes('silent but alive'))).toHaveLength(1);
    await fleet.agent('h1').connect();
    await fleet.pass(2_000);
    expect(isAt(fleet.vm('web1'))).toBe('web1 running on h1');
  });

  test('that comes back without having booted is an alarm, and its old guest is ended', async () => {
    await withPower();
    await fleet.run('web1', 'h1');
    leaseOf('h1');
    dies('h1');
    await fleet.pass(5_000);
    await starts('web1');
    const { generation } = fleet.vm('web1');
    fleet.agent('h1').orders = [];
    await fleet.agent('h1').connect();
    await settled();
    expect(await fleet.agent('h1').order('discard')).toMatchObject({ generation });
    expect(host('h1')).toMatchObject({ fenced: null, session: 3 });
    expect(fleet.alarms.some((alarm) => alarm.includes('has not booted since'))).toBe(true);
    expect(isAt(fleet.vm('web1'))).toMatch(/running on h[23]/);
  });
});

describe('a host with a lease and no power controller', () => {
  const answers = async (result: 'taken' | 'renewed' | 'failed') => {
    const asked = await until('a witness is asked', () =>
      fleet.agent('h2').consoles.find((message) => message.type === 'take-lease'),
    );
    if (asked.type !== 'take-lease') throw new Error('not asked');
    fleet.agent('h2').say({ type: 'lease-answer', request: asked.request, result, says: '' });
    await settled();
    return asked;
  };

  test('is fenced when a witness has taken its lease, and not before the lease has run out', async () => {
    await fleet.run('web1', 'h1');
    leaseOf('h1');
    dies('h1');
    await fleet.pass(11_500);
    expect(fleet.agent('h2').consoles.filter(({ type }) => type === 'take-lease')).toEqual([]);
    await fleet.pass(1_500);
    expect(await answers('taken')).toMatchObject({ host: 'h1', poolId: 'pool1', bootId: 'boot-of-h1', term: 1 });
    await fleet.pass(500);
    expect(host('h1').fenced?.proof).toBe('lease-taken');
    expect(isAt(fleet.vm('web1'))).toMatch(/starting on h[23]/);
  });

  test.each(['renewed', 'failed'] as const)('is not fenced when the witness says %s', async (result) => {
    await fleet.run('web1', 'h1');
    leaseOf('h1');
    dies('h1');
    await fleet.pass(13_000);
    await answers(result);
    await fleet.pass(500);
    expect(host('h1').fenced).toBeNull();
  });

  test('waits for a person where guards are not trusted and have no watchdog', async () => {
    fleet.trustGuard = false;
    await fleet.restartServer();
    const h1 = fleet.agent('h1');
    h1.guards = h1.guards.map((guard) => ({ ...guard, watchdog: false }));
    await fleet.run('web1', 'h1');
    await fleet.pass(11_000);
    leaseOf('h1');
    dies('h1');
    await fleet.pass(14_000);
    expect(fleet.agent('h2').consoles.filter(({ type }) => type === 'take-lease')).toEqual([]);
    expect(fleet.alarms.some((alarm) => alarm.includes('no watchdog'))).toBe(true);
    await fleet.plane.recovery.fencedByWord('h1', 'I pulled the plug', false);
    expect(host('h1').fenced).toMatchObject({ proof: 'word', because: 'I pulled the plug' });
    expect(isAt(fleet.vm('web1'))).toMatch(/starting on h[23]/);
  });

  test('is judged by what its guard said to the server before, and by a pool that its hello did not know', async () => {
    fleet.trustGuard = false;
    const h1 = fleet.agent('h1');
    h1.inventory = inventory('h1'); // its pool did not answer when it connected
    await fleet.restartServer();
    await fleet.run('web1', 'h1');
    await fleet.pass(2_000);
    expect(host('h1').inventory).toMatchObject({ watchdog: true, poolIds });
    dies('h1');
    await fleet.stopServer();
    await fleet.startServer();
    for (const name of ['h2', 'h3']) await fleet.agent(name).connect();
    leaseOf('h1');
    await fleet.pass(15_000);
    expect(await answers('taken')).toMatchObject({ host: 'h1', poolId: 'pool1' });
    await fleet.pass(500);
    expect(host('h1').fenced?.proof).toBe('lease-taken');
  });

  test('is not judged by what a guard said before the host booted', async () => {
    fleet.trustGuard = false;
    await fleet.restartServer();
    await fleet.pass(2_000);
    const h1 = fleet.agent('h1');
    h1.channel?.close('the host booted');
    h1.inventory = inventory('h1', { poolIds, kernelBootId: 'the next boot' });
    h1.guards = [];
    await h1.connect();
    await fleet.run('web1', 'h1');
    await fleet.pass(11_000);
    expect(host('h1').inventory.watchdog).toBeUndefined();
    leaseOf('h1');
    dies('h1');
    await fleet.pass(14_000);
    expect(fleet.agent('h2').consoles.filter(({ type }) => type === 'take-lease')).toEqual([]);
  });
});

describe('the word of a person', () => {
  test('is refused for a host that reports, and for one that keeps its lease unless forced', async () => {
    await fleet.run('web1', 'h1');
    const say = (force: boolean) => fleet.plane.recovery.fencedByWord('h1', 'it is off', force);
    await expect(say(true)).rejects.toMatchObject({ code: 'wrong-state', message: expect.stringContaining('reports') });
    leaseOf('h1', true);
    dies('h1');
    await fleet.pass(4_000);
    await expect(say(false)).rejects.toMatchObject({ message: expect.stringContaining('keeps its lease') });
    await say(true);
    expect(isAt(fleet.vm('web1'))).toMatch(/starting on h[23]/);
    await expect(say(true)).rejects.toMatchObject({ message: expect.stringContaining('fenced already') });
  });
});

describe('a host that has booted since', () => {
  test('has lost its guests, and those that should run start again, the most important first', async () => {
    await fleet.run('low', 'h1', { priority: 10 });
    await fleet.run('high', 'h1', { priority: 900 });
    await fleet.run('kept', 'h1', { recovery: 'manual' });
    dies('h1');
    const h1 = fleet.agent('h1');
    h1.guests = [];
    h1.orders = [];
    h1.inventory = inventory('h1', { poolIds, kernelBootId: 'the next boot' });
    await h1.connect();
    await fleet.pass(1_500);
    expect(record()).toMatchObject({ proof: 'boot-id' });
    expect(record().vms.map(({ vmName, kind }) => `${vmName} ${kind}`)).toEqual([
      'high restart',
      'kept left',
      'low restart',
    ]);
    expect(h1.orders.filter(({ kind }) => kind === 'start').map(({ vm }) => fleet.vm(vm).name)).toEqual([
      'high',
      'low',
    ]);
    expect(fleet.vm('kept').state.kind).toBe('crashed');
    expect(host('h1').fenced).toBeNull();
  });
});

describe('VMs of a lost host', () => {
  const lose = async (name: string): Promise<void> => {
    leaseOf(name, false);
    dies(name);
    await fleet.pass(4_000);
    await fleet.plane.recovery.fencedByWord(name, 'it burnt', true);
    await settled();
  };

  test('that find no room wait with the reason, the most important one placed, and start when room appears', async () => {
    await fleet.run('big2', 'h2', { memoryMiB: 6_000 });
    await fleet.run('big3', 'h3', { memoryMiB: 6_000 });
    await fleet.run('low', 'h1', { memoryMiB: 1_500, priority: 1 });
    await fleet.run('mid', 'h1', { memoryMiB: 1_500, priority: 2 });
    await fleet.run('high', 'h1', { memoryMiB: 1_500, priority: 3 });
    await lose('h1');
    expect(fleet.vm('high').state.kind).toBe('starting');
    expect(fleet.vm('mid').state.kind).toBe('starting');
    expect(fleet.vm('low').state).toMatchObject({ kind: 'waiting', because: expect.stringContaining('no room') });
    await fleet.plane.vms.stop('big2', { force: true, timeoutMs: 1 });
    await fleet.agent('h2').life(fleet.vm('big2').id, { kind: 'ended', how: 'stopped', message: '' });
    await fleet.pass(1_500);
    expect(isAt(fleet.vm('low'))).toBe('low starting on h2');
  });

  test('are not put on a host whose pool of that name is another one', async () => {
    await fleet.join('h4', { poolIds: { default: 'pool2' }, memoryMiB: 100_000 });
    await fleet.run('web1', 'h1');
    await lose('h1');
    expect(isAt(fleet.vm('web1'))).toMatch(/starting on h[23]/);
  });

  test('are stopped or started at once when a person asks while they wait', async () => {
    await fleet.run('web1', 'h1', { memoryMiB: 6_000 });
    await fleet.run('web2', 'h1', { memoryMiB: 900 });
    await fleet.run('big2', 'h2', { memoryMiB: 7_000 });
    await fleet.run('big3', 'h3', { memoryMiB: 7_000 });
    await lose('h1');
    expect(fleet.vm('web1').state.kind).toBe('waiting');
    expect((await fleet.plane.vms.stop('web1', { force: false, timeoutMs: 1 })).state).toEqual({ kind: 'stopped' });
    await expect(fleet.plane.vms.start('web2', 'h2')).rejects.toMatchObject({ code: 'no-room' });
  });

  test('whose disk is still locked are tried again until the lock is gone, with an alarm after the lock wait', async () => {
    await fleet.run('web1', 'h1');
    await lose('h1');
    const failure = {
      code: 'guest-start-failed',
      message: 'QEMU did not start.',
      hint: '',
      detail: 'Failed to get "write" lock\nIs another process using the image?',
    } as const;
    const failing = async () => {
      const vm = fleet.vm('web1');
      await fleet.agent(fleet.plane.fleet.hostName(vm.host)).life(vm.id, { kind: 'start-failed', failure });
    };
    await failing();
    expect(fleet.vm('web1').state).toMatchObject({ kind: 'waiting', because: expect.stringContaining('lock') });
    for (let tries = 0; tries < 45; tries++) {
      await fleet.pass(3_000);
      if (fleet.vm('web1').state.kind === 'starting') await failing();
    }
    expect(fleet.alarms.some((alarm) => alarm.includes('held the lock'))).toBe(true);
    expect(fleet.vm('web1').state.kind).toBe('waiting');
    await fleet.pass(40_000);
    await starts('web1');
    expect(fleet.vm('web1').state.kind).toBe('running');
    const [vm] = record().vms;
    expect((vm?.startedAt ?? 0) - (vm?.placedAt ?? 0)).toBeGreaterThan(120_000);
  });
});

describe('a move whose host is lost', () => {
  const endpoint = { address: '10.0.1.2', port: 4000 };
  const begin = async (to = 'h2') => {
    const body = migrateBody.parse({ to, technique: 'pre-copy' });
    const { id } = await fleet.plane.reservations.startMigration('web1', body, null, 'test');
    await fleet.agent(to).move(id, { kind: 'listening', endpoint });
    await fleet.agent('h1').move(id, { kind: 'sending' });
    return id;
  };
  const lose = async (name: string): Promise<void> => {
    dies(name);
    await fleet.pass(4_000);
    await fleet.plane.recovery.fencedByWord(name, 'it burnt', true);
    await settled();
  };

  test('on the source is restarted elsewhere only when the target has closed its copy', async () => {
    await fleet.run('web1', 'h1');
    const id = await begin();
    await lose('h1');
    await fleet.pass(5_000);
    expect(fleet.migration(id).phase).toBe('warming-up');
    expect(fleet.vm('web1').state.kind).toBe('running');
    expect(await fleet.agent('h2').order('close')).toMatchObject({ evenIfItRan: false });
    await fleet.agent('h2').move(id, { kind: 'closed' });
    expect(fleet.migration(id)).toMatchObject({
      phase: 'failed',
      guest: 'lost',
      failure: { code: 'source-host-lost' },
    });
    await fleet.pass(1_500);
    expect(isAt(fleet.vm('web1'))).toMatch(/starting on h[23]/);
    expect(errors()).toEqual([]);
    await starts('web1');
    await fleet.pass(1_500);
    expect(record()).toMatchObject({ vms: [{ vmName: 'web1', kind: 'restart' }] });
    expect(record().endedAt).not.toBeNull();
  });

  test('on the source completes when the target says that it ran before', async () => {
    const before = await fleet.run('web1', 'h1');
    const id = await begin();
    await lose('h1');
    await fleet.agent('h2').move(id, { kind: 'resumed', withFaults: false });
    expect(fleet.migration(id).phase).toBe('completed');
    expect(isAt(fleet.vm('web1'))).toBe('web1 running on h2');
    expect(await fleet.agent('h2').order('keep')).toMatchObject({ generation: before.generation + 2 });
    expect([fleet.room('h1'), fleet.room('h2')]).toEqual(['0+0', '512+0']);
  });

  test('on the source after the handover was known has the target told to go on, by the server', async () => {
    await fleet.run('web1', 'h1');
    const id = await begin();
    await fleet.agent('h1').move(id, { kind: 'stopped', for: 'stop-and-copy' });
    await fleet.agent('h1').move(id, { kind: 'handed-over' });
    await lose('h1');
    await fleet.agent('h2').order('go');
    expect(fleet.agent('h2').kinds()).not.toContain('close');
    await fleet.agent('h2').move(id, { kind: 'resumed', withFaults: false });
    expect(fleet.migration(id).phase).toBe('completed');
  });

  test('on the target leaves the guest on the source, which says so', async () => {
    const before = await fleet.run('web1', 'h1');
    const id = await begin();
    await lose('h2');
    await fleet.agent('h1').order('cancel');
    await fleet.agent('h1').move(id, { kind: 'source-running', failure: null });
    expect(fleet.migration(id)).toMatchObject({
      phase: 'failed',
      guest: 'on-source',
      failure: { code: 'target-host-lost' },
    });
    expect(isAt(fleet.vm('web1'))).toBe('web1 running on h1');
    expect(await fleet.agent('h1').order('keep')).toMatchObject({ generation: before.generation + 2 });
    expect([fleet.room('h1'), fleet.room('h2')]).toEqual(['512+0', '0+0']);
  });

  test('on both sides is started on the third', async () => {
    await fleet.join('h4', { poolIds });
    await fleet.join('h5', { poolIds });
    await fleet.run('web1', 'h1');
    const id = await begin();
    await lose('h1');
    await lose('h2');
    expect(fleet.migration(id)).toMatchObject({ phase: 'failed', guest: 'lost' });
    await fleet.pass(1_500);
    expect(isAt(fleet.vm('web1'))).toMatch(/starting on h[345]/);
  });

  test('has the copy that a wrong word has left on the fenced host ended when it comes back', async () => {
    const vm = await fleet.run('web1', 'h1');
    const id = await begin();
    await lose('h1');
    const h1 = fleet.agent('h1');
    h1.guests = [{ vm: vm.id, generation: fleet.migration(id).generation, state: 'running', migration: id }];
    h1.orders = [];
    await h1.connect();
    await settled();
    expect(h1.kinds()).toEqual(['discard']);
  });
});

test('a server that is restarted while a host is dead fences it too, once it has looked for a while', async () => {
  await withPower();
  await fleet.run('web1', 'h1');
  dies('h1');
  await fleet.stopServer();
  await fleet.startServer();
  for (const name of ['h2', 'h3']) await fleet.agent(name).connect();
  leaseOf('h1');
  await fleet.pass(9_000);
  expect(host('h1').fenced).toBeNull();
  await fleet.pass(3_000);
  expect(host('h1').fenced?.proof).toBe('power-off');
  expect(isAt(fleet.vm('web1'))).toMatch(/starting on h[23]/);
});

test('two of three hosts that fall silent at once are not fenced, and an alarm says why', async () => {
  await withPower('on', 'h1');
  await withPower('on', 'h2');
  await fleet.run('web1', 'h1');
  dies('h1');
  dies('h2');
  await fleet.pass(40_000);
  expect(fleet.bmcs.orders).toEqual([]);
  expect(fleet.alarms.some((alarm) => alarm.includes('2 of 3 hosts are silent at once'))).toBe(true);
});

test('a VM whose host is lost while its disks are made says so, and is made anew where a person starts it', async () => {
  await withPower();
  const body = newVm.parse({ name: 'web1', host: 'h1', diskMiB: 64 });
  await fleet.plane.vms.create(body, null);
  dies('h1');
  await fleet.pass(40_000);
  expect(host('h1').fenced?.proof).toBe('power-off');
  expect(fleet.vm('web1').state).toMatchObject({
    kind: 'crashed',
    message: expect.stringContaining('before its disks were made'),
  });
  await fleet.plane.vms.start('web1', 'h2');
  expect(isAt(fleet.vm('web1'))).toBe('web1 creating on h2');
});

describe('a VM that is deleted while its host is gone', () => {
  const disks = { boot: { kind: 'disk' as const }, diskMiB: 64 };
  const isThere = (name: string) => [...fleet.plane.fleet.vms.values()].some((vm) => vm.name === name);

  async function off(name: string, wanted: object = {}): Promise<void> {
    await fleet.run(name, 'h1', wanted);
    await fleet.plane.vms.stop(name, { force: true, timeoutMs: 1000 });
    await fleet.agent('h1').life(fleet.vm(name).id, { kind: 'ended', how: 'stopped', message: '' });
  }

  test('is gone at once where its disks are kept, and the host forgets it when it is back', async () => {
    await off('web1', disks);
    const { id, generation } = fleet.vm('web1');
    dies('h1');
    await fleet.pass(10_000);
    await fleet.plane.vms.remove('web1', 'keep');
    await fleet.pass(5_000);
    expect(isThere('web1')).toBe(true); // its agent may only be upgraded
    await fleet.pass(20_000);
    expect(isThere('web1')).toBe(false);
    const h1 = fleet.agent('h1');
    const entry = { running: null, migration: null, job: null, targetPeer: null, runs: false };
    h1.known = [{ ...entry, vm: id, name: 'web1', generation, part: 'none' }];
    await h1.connect();
    expect(await h1.order('remove')).toMatchObject({ vm: id, disks: 'keep', provision: [] });
  });

  test('has its disks removed by a host that shares their pool', async () => {
    await off('web1', disks);
    const { provision } = fleet.vm('web1');
    dies('h1');
    await fleet.plane.vms.remove('web1', 'delete');
    await fleet.pass(32_000);
    const other = fleet.agent(fleet.plane.fleet.hostName(fleet.vm('web1').host));
    expect(other.name).not.toBe('h1');
    expect(await other.order('remove')).toMatchObject({ disks: 'delete', provision });
    await other.life(fleet.vm('web1').id, { kind: 'removed' });
    expect(isThere('web1')).toBe(false);
  });

  test('stays on record where its host alone has the disks, and goes with that host, which says what is left', async () => {
    for (const name of ['h2', 'h3']) {
      const agent = fleet.agent(name);
      agent.inventory = inventory(name, { poolIds: { default: 'another' } });
      agent.guards = [];
      agent.channel?.close('again');
      await agent.connect();
    }
    await off('web1', disks);
    dies('h1');
    await fleet.plane.vms.remove('web1', 'delete');
    await fleet.pass(60_000);
    expect(isAt(fleet.vm('web1'))).toBe('web1 deleting on h1');
    expect(fleet.alarms.filter((alarm) => alarm.includes('web1 is deleted when h1'))).toHaveLength(1);
    const said = checkFleet(fleet.plane).find(({ about }) => about === 'vm web1');
    expect(said?.mend).toContain('drover host remove h1');
    const { id } = fleet.vm('web1');
    const call = { params: { host: 'h1' }, query: {}, body: {} };
    expect(await removeHost(call as never, { plane: fleet.plane } as never)).toEqual({
      removed: 'h1',
      disksLeft: [`default:${id}.qcow2`],
    });
    expect(isThere('web1')).toBe(false);
  });
});
