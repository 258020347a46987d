/** How agents connect, what is agreed about the guests they have, and the lives of guests outside of moves. */
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { VmId } from '../model/ids.ts';
import { cameTooLate } from '../wire/agent.ts';
import { migrateBody, newVm } from '../wire/endpoints.ts';
import { checkFleet } from './doctor.ts';
import { FakeAgent, FakeFleet, frozen, inventory, settled } from './fake-fleet.ts';

let fleet: FakeFleet;
beforeEach(async () => {
  fleet = await FakeFleet.start(['h1', 'h2']);
});
afterEach(() => fleet.stopServer());

const gone = { code: 'target-died', message: 'gone', hint: '' } as const;
const create = (body: object) => fleet.plane.vms.create(newVm.parse(body), null);

describe('a session', () => {
  test('is kept by a host that comes back before it is silent, and a newer one is given after silence', async () => {
    const h1 = fleet.agent('h1');
    expect(h1.session).toBe(1);
    h1.channel?.close();
    await fleet.pass(2_000);
    await h1.connect();
    expect(h1.session).toBe(1);
    h1.channel?.close();
    await fleet.pass(4_000);
    await h1.connect();
    expect(h1.session).toBe(2);
  });

  test('ends with a new boot', async () => {
    const h1 = fleet.agent('h1');
    h1.channel?.close();
    h1.inventory = inventory('h1', { kernelBootId: 'another' });
    await h1.connect();
    expect(h1.session).toBe(2);
    expect(fleet.plane.fleet.findHost('h1')).toMatchObject({ session: 2, inventory: { kernelBootId: 'another' } });
  });

  test('ends when reports stop though the channel stays open', async () => {
    const h1 = fleet.agent('h1');
    h1.reports = false;
    await fleet.pass(4_500);
    expect(h1.channel?.isOpen).toBe(false);
    expect(fleet.live).toContainEqual(expect.objectContaining({ kind: 'host', says: expect.stringMatching(/silent/) }));
    await h1.connect();
    expect(h1.session).toBe(2);
  });

  test('survives a server that stood still itself', async () => {
    // Nothing fires in between, as in a process that was stopped: one timer comes ten seconds late.
    await fleet.clock.advance(500);
    const { liveness } = fleet.plane;
    const id = fleet.plane.fleet.findHost('h1').id;
    await fleet.clock.advance(2_000);
    liveness.excuse(10_000);
    await fleet.clock.advance(10_000);
    expect(liveness.isSilent(id)).toBe(false);
  });
});

describe('an agent is turned away', () => {
  test('when it speaks another protocol', async () => {
    const h3 = new FakeAgent(fleet, 'h3');
    await h3.connect({ protocol: 99 });
    expect(h3.rejected).toMatch(/protocol 99/);
    expect(fleet.plane.fleet.hosts.size).toBe(2);
  });

  test('when its name cannot be one', async () => {
    const bad = new FakeAgent(fleet, 'H 3!');
    await bad.connect();
    expect(bad.rejected).toMatch(/not a name/);
  });

  test('when another of its name is connected and alive', async () => {
    const second = new FakeAgent(fleet, 'h1');
    const connecting = second.connect();
    await fleet.pass(2_000);
    await connecting;
    expect(second.rejected).toMatch(/alive/);
    expect(fleet.agent('h1').connected).toBe(true);
  });

  test('but takes the place of one that is dead', async () => {
    fleet.agent('h1').reports = false;
    const second = new FakeAgent(fleet, 'h1');
    const connecting = second.connect();
    await fleet.pass(4_500);
    await connecting;
    expect(second.session).toBeGreaterThan(0);
    expect(fleet.agent('h1').channel?.isOpen).toBe(false);
  });

  test('when it obeyed a newer term than ours, and the server is told', async () => {
    const h3 = new FakeAgent(fleet, 'h3');
    h3.newestTerm = 7;
    await h3.connect();
    expect(h3.rejected).toMatch(/term 7/);
    expect(fleet.newerTerm).toBe(7);
  });

  test('when its first message is no hello', async () => {
    const h3 = new FakeAgent(fleet, 'h3');
    const connecting = h3.connect();
    await connecting;
    h3.channel?.send({ type: 'nonsense' });
    await settled();
    expect(h3.channel?.isOpen).toBe(false);
  });
});

describe('the life of a VM', () => {
  test('goes from its disks to running, stopped, started elsewhere and gone, with its room', async () => {
    const vm = await create({ name: 'web1', image: '/i.qcow2', diskMiB: 2048, host: 'h1' });
    const h1 = fleet.agent('h1');
    expect(fleet.room('h1')).toBe('512+0');
    const { provision } = await h1.order('provision');
    expect(provision).toEqual([
      {
        pool: 'default',
        file: `${vm.id}.qcow2`,
        source: { kind: 'copy', from: '/i.qcow2', format: 'qcow2', growToMiB: 2048 },
      },
    ]);
    await h1.life(vm.id, { kind: 'provisioned' });
    expect(await h1.order('start')).toMatchObject({ name: 'web1', generation: 1, running: null });
    await h1.life(vm.id, { kind: 'started', running: frozen(vm) });
    expect(fleet.vm('web1')).toMatchObject({ state: { kind: 'running' }, running: frozen(vm) });

    await fleet.plane.vms.stop('web1', { force: false, timeoutMs: 5_000 });
    expect(await h1.order('stop')).toMatchObject({ force: false, timeoutMs: 5_000, generation: 2 });
    await fleet.plane.vms.stop('web1', { force: true, timeoutMs: 5_000 });
    await settled();
    expect(h1.orders.at(-1)).toMatchObject({ kind: 'stop', force: true, generation: 3 });
    await h1.life(vm.id, { kind: 'ended', how: 'stopped', message: '' }, 1);
    expect(fleet.vm('web1').state).toEqual({ kind: 'stopped' });
    expect(fleet.room('h1')).toBe('0+0');

    await fleet.plane.vms.start('web1', 'h2');
    expect(await fleet.agent('h2').order('start')).toMatchObject({ generation: 4 });
    expect([fleet.room('h1'), fleet.room('h2')]).toEqual(['0+0', '512+0']);
    await fleet.agent('h2').life(vm.id, { kind: 'started', running: frozen(vm) });
    await fleet.agent('h2').life(vm.id, { kind: 'ended', how: 'powered-off', message: '' });
    expect(fleet.vm('web1').state).toEqual({ kind: 'stopped' });

    await fleet.plane.vms.remove('web1', 'delete');
    expect(await fleet.agent('h2').order('remove')).toMatchObject({ disks: 'delete', provision });
    await fleet.agent('h2').life(vm.id, { kind: 'removed' });
    expect(() => fleet.vm('web1')).toThrow(/no VM 'web1'/);
    await create({ name: 'web1', image: '/i.qcow2' });
  });

  test('ends as crashed when the guest dies or cannot start, and start tries again', async () => {
    const vm = await create({
      name: 'web1',
      boot: { kind: 'kernel', kernel: 'k', initrd: null, append: '' },
      host: 'h1',
      restart: 'never',
    });
    await fleet.agent('h1').life(vm.id, { kind: 'start-failed', failure: { ...gone, message: 'no kernel' } });
    expect(fleet.vm('web1').state).toEqual({ kind: 'crashed', message: 'no kernel' });
    expect(fleet.room('h1')).toBe('0+0');
    await fleet.plane.vms.start('web1', null);
    await fleet.agent('h1').life(vm.id, { kind: 'started', running: frozen(vm) });
    await fleet.agent('h1').life(vm.id, { kind: 'ended', how: 'died', message: 'QEMU was killed' });
    expect(fleet.vm('web1').state).toEqual({ kind: 'crashed', message: 'QEMU was killed' });
    expect(fleet.alarms).toContainEqual(expect.stringMatching(/QEMU was killed/));
  });

  test('makes its disks again when they could not be made the first time', async () => {
    const vm = await create({ name: 'web1', image: '/missing.raw', host: 'h1' });
    await fleet.agent('h1').life(vm.id, { kind: 'provision-failed', failure: { ...gone, message: 'no such file' } });
    expect(fleet.vm('web1').state).toEqual({ kind: 'crashed', message: 'no such file' });
    expect((await fleet.plane.vms.start('web1', null)).state).toEqual({ kind: 'creating', thenStart: true });
  });

  test('goes on when the guest ignores its shutdown', async () => {
    const { id } = await fleet.run('web1', 'h1');
    await fleet.plane.vms.stop('web1', { force: false, timeoutMs: 5_000 });
    await fleet.agent('h1').life(id, { kind: 'stop-ignored', message: 'after 5 s' });
    expect(fleet.vm('web1').state).toEqual({ kind: 'running' });
    expect(fleet.room('h1')).toBe('512+0');
  });

  test('is not changed by facts of an earlier life or of another host', async () => {
    const { id } = await fleet.run('web1', 'h1');
    await fleet.agent('h2').life(id, { kind: 'ended', how: 'died', message: 'x' });
    expect(fleet.vm('web1').state).toEqual({ kind: 'running' });
    await fleet.agent('h1').life(id, { kind: 'ended', how: 'powered-off', message: '' });
    await fleet.plane.vms.start('web1', null);
    await fleet.agent('h1').life(id, { kind: 'ended', how: 'died', message: 'late' }, 1);
    expect(fleet.vm('web1').state).toEqual({ kind: 'starting' });
  });

  test('is ordered again from the record after a restart of the server', async () => {
    await create({ name: 'web1', image: '/i.raw', host: 'h1' });
    await fleet.run('web2', 'h1');
    await fleet.plane.vms.stop('web2', { force: true, timeoutMs: 1 });
    await fleet.restartServer();
    expect(new Set(fleet.agent('h1').kinds())).toEqual(new Set(['provision', 'keep', 'stop']));
  });
});

describe('the guests a host has when it connects', () => {
  const found = (vm: VmId, generation: number) => ({ vm, generation, state: 'runs', migration: null });
  const again = async (name: string): Promise<FakeAgent> => {
    const agent = fleet.agent(name);
    agent.channel?.close();
    await settled();
    agent.orders = [];
    await agent.connect();
    return agent;
  };

  test('are kept at the newest generation when they belong there', async () => {
    const vm = await fleet.run('web1', 'h1');
    const h1 = await again('h1');
    expect(h1.orders).toEqual([expect.objectContaining({ kind: 'keep', vm: vm.id, generation: vm.generation })]);
  });

  test('are discarded when they were decided to run elsewhere since', async () => {
    const vm = await fleet.run('web1', 'h1');
    await fleet.agent('h1').life(vm.id, { kind: 'ended', how: 'powered-off', message: '' });
    await fleet.plane.vms.start('web1', 'h2');
    fleet.agent('h1').guests = [found(vm.id, vm.generation)];
    const h1 = await again('h1');
    expect(h1.orders).toEqual([expect.objectContaining({ kind: 'discard', generation: vm.generation + 1 })]);
  });

  test('are kept with an alarm when no record knows them', async () => {
    // The cast: an id that was given out by another fleet.
    fleet.agent('h1').guests = [found('vm_stranger' as VmId, 3)];
    const h1 = await again('h1');
    expect(h1.orders).toEqual([expect.objectContaining({ kind: 'keep', generation: 3 })]);
    expect(fleet.alarms).toContainEqual(expect.stringMatching(/vm_stranger/));
    expect(checkFleet(fleet.plane)).toContainEqual(
      expect.objectContaining({ severity: 'error', about: 'host h1: guest vm_stranger' }),
    );
  });

  test('are left to their migration when they are on the move', async () => {
    const vm = await fleet.run('web1', 'h1');
    const move = migrateBody.parse({ to: 'h2', technique: 'pre-copy' });
    const { id } = await fleet.plane.reservations.startMigration('web1', move, null, 'test');
    fleet.agent('h2').guests = [{ ...found(vm.id, vm.generation + 1), state: 'incoming', migration: id }];
    expect((await again('h1')).kinds()).toEqual([]);
    expect((await again('h2')).kinds()).toEqual(['receive']);
    fleet.agent('h1').guests = [];
    await again('h1');
    expect(fleet.vm('web1').state).toEqual({ kind: 'running' });
  });

  test('that should be there and are not have ended, and what the host says later explains it', async () => {
    const vm = await fleet.run('web1', 'h1');
    fleet.agent('h1').guests = [];
    await again('h1');
    expect(fleet.vm('web1').state).toEqual({ kind: 'crashed', message: 'gone when the agent came back' });
    expect(fleet.room('h1')).toBe('0+0');
    await fleet.agent('h1').life(vm.id, { kind: 'ended', how: 'powered-off', message: '' });
    expect(fleet.vm('web1').state).toEqual({ kind: 'stopped' });
  });

  test('and are to stop may be starting at this moment: the host is told to stop them before they count as stopped', async () => {
    const vm = await create({
      name: 'web1',
      host: 'h1',
      boot: { kind: 'kernel', kernel: 'k', initrd: null, append: '' },
    });
    await fleet.agent('h1').order('start');
    await fleet.plane.vms.stop('web1', { force: true, timeoutMs: 1 });
    const h1 = await again('h1');
    expect(fleet.vm('web1').state.kind).toBe('stopping');
    expect(h1.kinds()).toEqual(['stop']);
    await h1.life(vm.id, { kind: 'started', running: frozen(vm) }, vm.generation);
    expect(fleet.vm('web1').state.kind).toBe('stopping');
    await h1.life(vm.id, { kind: 'ended', how: 'stopped', message: '' });
    expect(fleet.vm('web1').state.kind).toBe('stopped');
  });

  test('bring the record back when it is older than what was decided', async () => {
    const vm = await fleet.run('web1', 'h1');
    fleet.agent('h1').guests = [];
    fleet.agent('h2').guests = [found(vm.id, 9)];
    await again('h2');
    // All are asked before anything is believed.
    expect([fleet.agent('h1').connected, fleet.agent('h2').connected]).toEqual([false, false]);
    await again('h1');
    const h2 = await again('h2');
    expect(h2.orders).toEqual([expect.objectContaining({ kind: 'keep', generation: 9 })]);
    expect(fleet.vm('web1')).toMatchObject({ host: fleet.plane.fleet.findHost('h2').id, generation: 9 });
    expect([fleet.room('h1'), fleet.room('h2')]).toEqual(['0+0', '512+0']);
  });
});

describe('orders and facts', () => {
  test('an order that stays due is sent again after a while, and no sooner', async () => {
    await create({ name: 'web1', image: '/i.raw', host: 'h1' });
    const h1 = fleet.agent('h1');
    await fleet.pass(9_000);
    expect(h1.kinds()).toEqual(['provision']);
    await fleet.pass(3_000);
    expect(h1.kinds()).toEqual(['provision', 'provision']);
  });

  test('a fact that could not be put on record is not acknowledged, and comes again', async () => {
    const { id } = await fleet.run('web1', 'h1');
    const h1 = fleet.agent('h1');
    const acked = h1.acked;
    await fleet.stopServer();
    const saying = h1.life(id, { kind: 'ended', how: 'powered-off', message: '' }, 1);
    await settled();
    expect(h1.acked).toBe(acked);
    await fleet.startServer();
    await h1.connect();
    await saying;
    expect(fleet.vm('web1').state).toEqual({ kind: 'stopped' });
  });

  test('a start that came too late by the clock of its host is sent again', async () => {
    const vm = await fleet.run('web1', 'h1');
    await fleet.plane.vms.stop('web1', { force: true, timeoutMs: 1000 });
    await fleet.agent('h1').life(vm.id, { kind: 'ended', how: 'stopped', message: '' });
    fleet.agent('h1').orders = [];
    fleet.agent('h1').refuses = cameTooLate;
    await fleet.plane.vms.start('web1', null);
    await fleet.agent('h1').order('start');
    await fleet.pass(1_000);
    expect(fleet.vm('web1').state.kind).toBe('starting');
    await fleet.pass(10_000);
    expect(
      fleet
        .agent('h1')
        .kinds()
        .filter((kind) => kind === 'start'),
    ).toHaveLength(2);
  });

  test('a refused start makes the VM crashed with the reason', async () => {
    await create({ name: 'web1', boot: { kind: 'kernel', kernel: 'k', initrd: null, append: '' }, host: 'h1' });
    const { id } = await fleet.agent('h1').order('start');
    // The fake has answered already; a second start is asked for to be refused.
    await fleet.pass(11_000);
    const again = fleet.agent('h1').orders.at(-1);
    expect(again?.id).not.toBe(id);
    await fleet.plane.guests.onRefused(
      {
        host: fleet.plane.fleet.findHost('h1').id,
        vm: fleet.vm('web1').id,
        generation: 1,
        body: { kind: 'start', name: 'web1', spec: fleet.vm('web1').spec, running: null },
        notAfter: null,
      },
      'session 1 is over',
    );
    expect(fleet.vm('web1').state).toEqual({ kind: 'crashed', message: expect.stringMatching(/session 1 is over/) });
  });
});

describe('the doctor', () => {
  test('has nothing to say about a healthy fleet', async () => {
    await fleet.run('web1', 'h1');
    expect(checkFleet(fleet.plane).filter(({ severity }) => severity !== 'ok')).toEqual([]);
  });

  test('tells of silent hosts, crashed VMs, missing abilities and rooms that do not add up', async () => {
    const vm = await fleet.run('web1', 'h1');
    await fleet.join('h3', { postCopy: { ok: false, reason: 'userfaultfd is forbidden' } });
    fleet.agent('h2').reports = false;
    await fleet.pass(5_000);
    await fleet.plane.fleet.change((draft) => {
      const room = draft.room(vm.host);
      if (room) draft.putRoom({ ...room, guestsMiB: {}, reservationsMiB: { ['mig_x' as never]: 64 } });
      draft.putVm({ ...vm, name: 'web1', state: { kind: 'crashed', message: 'boom' } });
    });
    const says = checkFleet(fleet.plane)
      .filter(({ severity }) => severity !== 'ok')
      .map((finding) => `${finding.about}: ${finding.says}`);
    expect(says).toEqual([
      'host h2: reports: h2 is silent',
      'host h3: post-copy: userfaultfd is forbidden',
      'vm web1: crashed: boom',
      'host h1: room: room is reserved for mig_x, which needs none',
    ]);
  });
});
