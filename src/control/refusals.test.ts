/** What is refused, and that refusing changes nothing. */
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { HostInventory } from '../model/host.ts';
import { migrateBody, newVm } from '../wire/endpoints.ts';
import type { MigrateBody } from '../wire/endpoints.ts';
import { FakeFleet, settled } from './fake-fleet.ts';
import { requestKey } from './requests.ts';

let fleet: FakeFleet;
beforeEach(async () => {
  fleet = await FakeFleet.start(['h1']);
  await fleet.run('web1', 'h1');
});
afterEach(() => fleet.stopServer());

const migrate = (vm: string, body: MigrateBody) =>
  fleet.plane.reservations.startMigration(vm, migrateBody.parse(body), null, 'test');

async function refused(doing: () => Promise<unknown>, code: string, words: RegExp): Promise<void> {
  const before = await fleet.dump();
  await expect(doing()).rejects.toMatchObject({ code, message: expect.stringMatching(words) });
  expect(await fleet.dump()).toBe(before);
}

describe('a move is refused', () => {
  const changes: readonly (readonly [string, Partial<HostInventory>, MigrateBody, string, RegExp])[] = [
    ['to a host whose QEMU lacks the machine type', { machines: ['pc-q35-6.2'] }, {}, 'incompatible', /pc-q35-7\.2/],
    ['between accelerators', { accel: 'kvm' }, {}, 'incompatible', /tcg.*kvm/],
    ['to a host without the network', { networks: [] }, {}, 'incompatible', /network 'default'/],
    ['to a host without the pool', { pools: [] }, {}, 'incompatible', /pool 'default'/],
    ['to a host without room', { memoryMiB: 400 }, {}, 'no-room', /needs 512 MiB, 360 MiB/],
    ['to a host that corrupts', { liveMigration: { ok: false, reason: 'QEMU 7.2' } }, {}, 'live-unsafe', /QEMU 7.2/],
    [
      'by post-copy without userfaultfd',
      { postCopy: { ok: false, reason: 'no userfaultfd' } },
      { technique: 'post-copy' },
      'post-copy-unavailable',
      /no userfaultfd/,
    ],
    [
      'with what cannot go together',
      {},
      { technique: 'hybrid', policy: { parallelStreams: 2 } },
      'policy-conflict',
      /Parallel streams/,
    ],
  ];
  test.each(changes)('%s', async (_, inventory, body, code, words) => {
    await fleet.join('h2', inventory);
    await refused(() => migrate('web1', { to: 'h2', ...body }), code, words);
  });

  test('for a VM and to a host that are not there, with what was probably meant', async () => {
    await refused(() => migrate('wep1', { to: 'h1' }), 'not-found', /wep1/);
    await expect(migrate('wep1', {})).rejects.toMatchObject({ hint: "Did you mean 'web1'?" });
    await refused(() => migrate('web1', { to: 'g1' }), 'not-found', /g1/);
  });

  test('to where the VM runs already', () => refused(() => migrate('web1', { to: 'h1' }), 'same-host', /h1/));

  test('for a VM that is off, with the way to start it there', async () => {
    await fleet.join('h2');
    await fleet.agent('h1').life(fleet.vm('web1').id, { kind: 'ended', how: 'powered-off', message: '' });
    await refused(() => migrate('web1', { to: 'h2' }), 'wrong-state', /is off/);
    await expect(migrate('web1', { to: 'h2' })).rejects.toMatchObject({
      hint: expect.stringContaining('drover vm start web1 --host h2'),
    });
  });

  test('a second time while the first is open, naming that one', async () => {
    await fleet.join('h2');
    const { id } = await migrate('web1', { to: 'h2' });
    await settled();
    await refused(() => migrate('web1', { to: 'h2' }), 'busy', new RegExp(id));
  });

  test('to a cordoned host', async () => {
    const h2 = await fleet.join('h2');
    await fleet.plane.fleet.change((draft) =>
      draft.putHost({ ...fleet.plane.fleet.findHost(h2.name), cordoned: true }),
    );
    await refused(() => migrate('web1', { to: 'h2' }), 'cordoned', /h2 is cordoned/);
  });

  test('to and from a silent host', async () => {
    const h2 = await fleet.join('h2');
    h2.reports = false;
    await fleet.pass(4_000);
    await refused(() => migrate('web1', { to: 'h2' }), 'unreachable', /h2 is silent/);
    h2.reports = true;
    await h2.connect();
    fleet.agent('h1').reports = false;
    await fleet.pass(4_000);
    await refused(() => migrate('web1', { to: 'h2' }), 'unreachable', /h1, where web1 runs, is silent/);
  });

  test('when no host is fit, with the reason of each', async () => {
    await fleet.join('h2', { networks: [] });
    await fleet.join('h3', { memoryMiB: 100 });
    await refused(() => migrate('web1', {}), 'no-room', /h2 has no network.*h3 has no room/);
  });
});

test('without a target the host is taken where the load is least', async () => {
  await fleet.join('h2', { memoryMiB: 4096 });
  await fleet.join('h3', { memoryMiB: 16_384, machines: [] });
  await fleet.join('h4', { memoryMiB: 8192 });
  expect((await migrate('web1', {})).target).toBe(fleet.plane.fleet.findHost('h4').id);
});

test('a dry run checks everything and changes nothing', async () => {
  await fleet.join('h2');
  const before = await fleet.dump();
  expect(await migrate('web1', { to: 'h2', dryRun: true })).toMatchObject({ phase: 'reserved', technique: 'auto' });
  expect(await fleet.dump()).toBe(before);
  await refused(() => migrate('web1', { to: 'h1', dryRun: true }), 'same-host', /h1/);
});

describe('a VM on the move', () => {
  test.each(['stop', 'delete', 'start'] as const)('cannot be asked to %s', async (action) => {
    await fleet.join('h2');
    await migrate('web1', { to: 'h2' });
    await settled();
    const { vms } = fleet.plane;
    const doing = {
      stop: () => vms.stop('web1', { force: true, timeoutMs: 1 }),
      delete: () => vms.remove('web1', 'keep'),
      start: () => vms.start('web1', null),
    };
    await refused(doing[action], 'busy', /on the move/);
  });
});

describe('a VM is not created', () => {
  test.each([
    ['with a name that is taken', { name: 'web1', image: '/i.qcow2' }, 'already-exists', /web1/],
    ['with nothing to boot from', { name: 'web2' }, 'invalid-input', /nothing to boot/],
    ['from an image of unknown format', { name: 'web2', image: '/i.iso' }, 'invalid-input', /format/],
    ['on a host that is not there', { name: 'web2', image: '/i.raw', host: 'h9' }, 'not-found', /h9/],
    ['where there is no room', { name: 'web2', image: '/i.raw', memoryMiB: 100_000 }, 'no-room', /100000 MiB/],
  ])('%s', (_, body, code, words) => refused(() => fleet.plane.vms.create(newVm.parse(body), null), code, words));
});

describe('a running VM', () => {
  test('is not deleted', () => refused(() => fleet.plane.vms.remove('web1', 'keep'), 'wrong-state', /running/));
  test('is not started', () => refused(() => fleet.plane.vms.start('web1', null), 'wrong-state', /running/));
});

describe('the same Idempotency-Key again', () => {
  test('makes no second VM and no second migration, also after a restart of the server', async () => {
    await fleet.join('h2');
    const body = newVm.parse({ name: 'web2', image: '/i.raw' });
    const made = await fleet.plane.vms.create(body, requestKey('createVm', 'k1', body));
    expect((await fleet.plane.vms.create(body, requestKey('createVm', 'k1', body))).id).toBe(made.id);
    const to = migrateBody.parse({ to: 'h2' });
    const start = () => fleet.plane.reservations.startMigration('web1', to, requestKey('migrateVm', 'k1', to), 'test');
    const { id } = await start();
    await fleet.restartServer();
    expect((await start()).id).toBe(id);
    expect(fleet.plane.fleet.migrations.size).toBe(1);
  });

  test('for another request is refused', async () => {
    const body = newVm.parse({ name: 'web2', image: '/i.raw' });
    await fleet.plane.vms.create(body, requestKey('createVm', 'k1', body));
    const other = newVm.parse({ name: 'web3', image: '/i.raw' });
    await refused(
      () => fleet.plane.vms.create(other, requestKey('createVm', 'k1', other)),
      'key-reused',
      /another request/,
    );
  });

  test('is forgotten after more than a day', async () => {
    const body = newVm.parse({ name: 'web2', image: '/i.raw' });
    await fleet.plane.vms.create(body, requestKey('createVm', 'k1', body));
    await fleet.clock.advance(24 * 3_600_000);
    expect(fleet.plane.fleet.requests.size).toBe(1);
    await fleet.clock.advance(2 * 3_600_000);
    expect(fleet.plane.fleet.requests.size).toBe(0);
  }, 60_000); // a day of beats
});
