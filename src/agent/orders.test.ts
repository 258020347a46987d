import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { FakeHost, jobOf, migration, running, vm } from './fake-host.ts';

let host: FakeHost;
beforeEach(async () => {
  host = await new FakeHost('h1').begin();
});
afterEach(() => host.end());

describe('an order to stop', () => {
  test('is answered under its own generation when the guest ignores its power button', async () => {
    await host.withGuest(1);
    host.order('stop', { force: false, timeoutMs: 1 }, 5);
    expect(await host.fact('stop-ignored')).toMatchObject({ generation: 5 });
  });

  test('outdates an older order to start, also after the agent was killed', async () => {
    await host.withGuest(1);
    host.order('stop', { force: true, timeoutMs: 1 }, 5);
    await host.fact('ended');
    await host.crash();
    await host.begin();
    const start = { name: 'web1', spec: running.spec, running };
    expect(host.order('start', start, 4)).toContain('generation 4');
  });

  test('that overtakes an order to start finds the guest that it starts', async () => {
    host.order('start', { name: 'web1', spec: running.spec, running }, 1);
    host.order('stop', { force: true, timeoutMs: 1 }, 2);
    expect(await host.fact('ended')).toMatchObject({ how: 'stopped', message: '' });
    expect(host.kinds()).toEqual(['started', 'ended']);
    expect(host.guests.running.size).toBe(0);
  });
});

describe('an order to roll back', () => {
  test('is answered when there is nothing left to go on with', async () => {
    await host.withGuest(1);
    const job = jobOf();
    host.guests.setPart(vm, { kind: 'handed-over', job, targetPeer: host.peer, at: 0 });
    host.guest.end('died');
    await host.guests.running.get(vm)?.gone;
    host.order('roll-back', { migration });
    expect(await host.fact('source-lost')).toMatchObject({ migration });
    expect(host.part().kind).toBe('none');
    host.told.length = 0;
    host.order('roll-back', { migration }); // the first answer may have been lost with its record
    expect(await host.fact('source-lost')).toMatchObject({ migration });
  });
});

describe('an order to send', () => {
  test('to a target that cannot be reached is not answered by a guest that runs on when that has died meanwhile', async () => {
    await host.withGuest(1);
    const nowhere = { address: '127.0.0.1', port: 1 };
    host.order('send', { job: jobOf(), endpoint: nowhere, targetPeer: nowhere }, 1);
    host.guest.end('died');
    expect(await host.fact('source-lost')).toMatchObject({ migration });
    expect(host.kinds()).not.toContain('source-running');
    expect(host.part().kind).toBe('none');
  });
});

describe('an order to cancel', () => {
  test('is not answered by a guest that runs on when it has died after the handover', async () => {
    await host.withGuest(1);
    const job = jobOf();
    host.guests.setPart(vm, { kind: 'handed-over', job, targetPeer: host.peer, at: 0 });
    host.guest.end('died');
    await host.guests.running.get(vm)?.gone;
    await host.crash();
    await host.begin();
    await host.fact('source-lost');
    host.told.length = 0;
    host.order('cancel', { migration }, 1);
    expect(await host.fact('source-lost')).toMatchObject({ migration, failure: { code: 'source-died' } });
    expect(host.kinds()).not.toContain('source-running');
  });
});

describe('an order to close', () => {
  /** A guest that came here by a move and lacks nothing, and an agent that has begun again since. */
  async function arrived(): Promise<void> {
    host.order('receive', { job: jobOf(), sourcePeer: host.peer });
    await host.fact('listening');
    expect(await host.orders.go(migration)).toBe('continued');
    await host.crash();
    await host.begin();
    expect(host.part().kind).toBe('runs');
  }

  test('of a move whose guest is lost anyway ends the guest that it brought, also after the agent was killed', async () => {
    await arrived();
    host.order('close', { migration, evenIfItRan: true });
    await host.fact('closed');
    expect(host.guests.running.size).toBe(0);
  });

  test('leaves the guest that its move brought alone, and is not answered, also after the agent was killed', async () => {
    await arrived();
    host.order('close', { migration, evenIfItRan: false });
    host.order('close', { migration, evenIfItRan: true, unlessWhole: true });
    host.order('keep', {}, 9);
    await vi.waitFor(() => expect(host.context.journal.vm(vm)?.generation).toBe(9));
    expect(host.kinds()).not.toContain('closed');
    expect(host.guests.running.size).toBe(1);
  });

  test('leaves alone a guest that was started here since', async () => {
    await arrived();
    host.order('stop', { force: true, timeoutMs: 1 }, 3);
    await host.fact('ended');
    host.order('start', { name: 'web1', spec: running.spec, running }, 4);
    await host.fact('started');
    host.order('close', { migration, evenIfItRan: true });
    await host.fact('closed');
    expect(host.guests.running.size).toBe(1);
  });
});

describe('an order to release', () => {
  test('ends a guest that went on here after all: whoever orders it starts the guest elsewhere', async () => {
    await host.withGuest(2);
    host.guests.settle(vm, { stayed: migration });
    host.order('release', { migration }, 2);
    await host.fact('released');
    expect(host.guest.hasEnded).toBe(true);
  });

  test('leaves alone a guest of a newer decision', async () => {
    await host.withGuest(2);
    host.guests.settle(vm, { stayed: migration });
    host.order('keep', {}, 3);
    host.order('release', { migration }, 2);
    await host.fact('released');
    expect(host.guest.hasEnded).toBe(false);
  });
});

describe('an order to power off', () => {
  const job = jobOf('cold', { shutdownTimeoutMs: 5 });
  const named = (name: string) => `${migration}${name}` as typeof migration;
  /** Of which moves a shutdown began, when the queue has got past all orders. */
  const begun = async () => {
    const last = jobOf('cold', { shutdownTimeoutMs: 5, forceOff: true });
    host.order('keep', {}, 9);
    host.order('power-off', { job: { ...last, migration: named('-last') } }, 9);
    await host.fact('powered-off');
    return host.told.flatMap((fact) => (fact.kind === 'sending' ? fact.migration : []));
  };

  test('for a move that was over with its guest left running does nothing', async () => {
    await host.withGuest(1);
    host.order('power-off', { job });
    await host.fact('source-running');
    host.order('power-off', { job });
    expect(await begun()).toEqual([migration, named('-last')]);
  });

  test('does nothing either when the agent that said so was killed and the server does not know it yet', async () => {
    await host.withGuest(1);
    host.order('power-off', { job });
    await host.fact('source-running');
    await host.crash();
    await host.begin();
    host.order('power-off', { job });
    expect(await begun()).toEqual([migration, named('-last')]);
  });

  test('that was outdated while it waited for its turn is not carried out', async () => {
    await host.withGuest(1);
    host.order('power-off', { job: { ...job, migration: named('-first') } });
    host.order('power-off', { job });
    host.order('keep', {}, 5);
    expect(await begun()).toEqual([named('-first'), named('-last')]);
  });
});

describe('a host that has lost its lease on a pool', () => {
  const trouble = "h1 has lost its lease on the pool 'default': guests that use it are killed there.";

  test('starts no guest that would be killed, and says why', async () => {
    host.leaseTrouble = trouble;
    host.order('start', { name: 'web1', spec: running.spec, running }, 1);
    expect(await host.fact('start-failed')).toMatchObject({ failure: { message: trouble } });
    expect(host.hypervisor.guests).toEqual([]);
  });

  test('says of a guest that was killed what it was killed for', async () => {
    await host.withGuest(1);
    host.leaseTrouble = trouble;
    host.guest.end('died');
    expect(await host.fact('ended')).toMatchObject({ how: 'died', message: trouble });
  });
});

describe('an order to start', () => {
  test('that was carried out starts nothing again when the guest has died and the server does not know it yet', async () => {
    const start = { name: 'web1', spec: running.spec, running };
    host.order('start', start, 3);
    await host.fact('started');
    host.guest.end('died');
    await host.fact('ended');
    host.order('start', start, 3);
    host.order('keep', {}, 4);
    await host.context.clock.sleep(5);
    expect(host.hypervisor.guests).toHaveLength(1);
    host.order('start', start, 5); // a new decision
    while (host.hypervisor.guests.length < 2) await host.context.clock.sleep(1);
  });

  test('that comes twice starts nothing when the guest has died since, also when the server knows that', async () => {
    const start = { name: 'web1', spec: running.spec, running };
    host.order('start', start, 3);
    await host.fact('started');
    host.guest.end('died');
    await host.fact('ended');
    for (const { number } of host.facts.unacknowledged()) host.facts.acknowledge(number);
    await host.crash();
    await host.begin();
    host.order('start', start, 3);
    host.order('keep', {}, 4);
    await host.context.clock.sleep(5);
    expect(host.hypervisor.guests).toHaveLength(1);
  });

  test('does nothing when the VM was deleted since', async () => {
    host.order('remove', { provision: [], disks: 'keep' }, 4);
    await host.fact('removed');
    await host.crash();
    await host.begin();
    const late = host.order('start', { name: 'web1', spec: running.spec, running }, 3);
    expect(late).toContain('generation 3 is over');
    expect(host.guests.known()).toEqual([]);
  });

  test('that has failed does not succeed when it comes again: somebody has decided anew', async () => {
    const start = { name: 'web1', spec: running.spec, running };
    host.leaseTrouble = 'h1 has lost its lease';
    host.order('start', start, 3);
    await host.fact('start-failed');
    host.leaseTrouble = null;
    host.order('start', start, 3);
    await host.context.clock.sleep(5);
    expect(host.hypervisor.guests).toHaveLength(0);
  });

  test('ends a guest of an older decision, which may have run elsewhere since, and starts it anew', async () => {
    await host.withGuest(1);
    const older = host.guest;
    host.order('start', { name: 'web1', spec: running.spec, running }, 3);
    await host.fact('started');
    expect(older.hasEnded).toBe(true);
    expect(host.guest.key.generation).toBe(3);
    const newer = host.guest;
    host.order('start', { name: 'web1', spec: running.spec, running }, 3);
    await host.context.clock.sleep(5);
    expect(newer.hasEnded).toBe(false);
  });

  test('ends what an earlier move has left of the guest and starts it', async () => {
    host.order('receive', { job: jobOf(), sourcePeer: host.peer });
    await host.fact('listening');
    const leftover = host.guest;
    host.order('start', { name: 'web1', spec: running.spec, running }, 3);
    await host.fact('started');
    expect(leftover.hasEnded).toBe(true);
    expect(host.guest).not.toBe(leftover);
    expect(host.part().kind).toBe('runs');
  });
});

describe('an order to receive', () => {
  test('does nothing when its guest has arrived, also when that has died since', async () => {
    const order = { job: jobOf(), sourcePeer: host.peer };
    host.order('receive', order);
    await host.fact('listening');
    const arrived = host.guest;
    arrived.now = 'loaded';
    await host.orders.go(migration);
    await host.fact('resumed');
    arrived.end('died');
    await host.fact('ended');
    host.order('receive', order);
    host.order('stop', { force: true, timeoutMs: 1 }, 9); // answered behind it
    await host.context.clock.sleep(0);
    expect(host.guest).toBe(arrived);
  });
});

describe('an order to power on', () => {
  const order = { job: jobOf('cold') };

  test('that was carried out starts nothing again when the guest has died, and says so', async () => {
    host.order('power-on', order, 3);
    await host.fact('resumed');
    host.guest.end('died');
    await host.fact('ended');
    host.order('power-on', order, 3); // of a new server, which has heard nothing yet
    expect(await host.fact('target-lost')).toMatchObject({ migration, failure: { code: 'target-died' } });
    expect(host.hypervisor.guests).toHaveLength(1);
  });

  test('ends a guest of an older decision and starts it anew', async () => {
    await host.withGuest(1);
    const older = host.guest;
    host.order('power-on', order, 3);
    await host.fact('resumed');
    expect(older.hasEnded).toBe(true);
    expect(host.guest.key.generation).toBe(3);
  });
});

test('an order to start that comes again after a cold move has taken the guest away does nothing', async () => {
  const start = { name: 'web1', spec: running.spec, running };
  host.order('start', start, 3);
  await host.fact('started');
  host.guest.does.set('power-down', () => host.guest.end('powered-off'));
  host.order('power-off', { job: jobOf('cold') }, 4);
  await host.fact('powered-off');
  host.order('start', start, 3);
  await host.context.clock.sleep(5);
  expect(host.hypervisor.guests).toHaveLength(1);
});

test('an order to send that comes again after its guest has stayed does nothing', async () => {
  await host.withGuest(1);
  const nobody = { address: '127.0.0.1', port: 1 };
  const send = { job: jobOf(), endpoint: nobody, targetPeer: nobody };
  host.order('send', send, 2);
  await host.fact('source-running');
  await host.crash();
  await host.begin();
  host.told.length = 0;
  host.order('send', send, 2);
  await host.context.clock.sleep(20);
  expect(host.told).toEqual([]);
  expect(host.part().kind).toBe('runs');
});

test('an order to send that comes after its cancel does nothing', async () => {
  await host.withGuest(1);
  const nobody = { address: '127.0.0.1', port: 1 };
  host.order('cancel', { migration }, 2);
  await host.fact('source-running');
  await host.crash();
  await host.begin();
  host.order('send', { job: jobOf(), endpoint: nobody, targetPeer: nobody }, 2);
  await host.context.clock.sleep(20);
  expect(host.kinds()).toEqual(['source-running']);
  expect(host.part().kind).toBe('runs');
});
