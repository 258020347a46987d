/** Whole moves, fact by fact, as agents tell them. */
import { afterEach, describe, expect, test } from 'vitest';
import type { Failure } from '../model/failure.ts';
import type { Migration, Technique } from '../model/migration.ts';
import { brokenInvariants } from '../migration/invariants.ts';
import { migrateBody } from '../wire/endpoints.ts';
import { checkFleet } from './doctor.ts';
import { FakeFleet, settled } from './fake-fleet.ts';
import type { MoveFact } from './fake-fleet.ts';
import { migrationOrders } from './orders.ts';
import { migrationView } from './views.ts';

let fleet: FakeFleet;
afterEach(async () => {
  // Whatever happened, the books must balance.
  for (const migration of fleet.plane.fleet.migrations.values()) expect(brokenInvariants(migration)).toEqual([]);
  await fleet.stopServer();
});

const endpoint = { address: '10.0.1.2', port: 4000 };
const round = (n: number) => ({ round: n, durationMs: 100, bytes: 1e6, dirtyPages: 100, bandwidthBytesPerSecond: 1e8 });
const failure = (message: string): Failure => ({ code: 'target-died', message, hint: 'Look.' });

/** [host, fact]: h1 is the source, h2 the target. */
type Step = readonly ['h1' | 'h2', MoveFact];
const preCopy: readonly Step[] = [
  ['h2', { kind: 'listening', endpoint }],
  ['h1', { kind: 'sending' }],
  ['h1', { kind: 'round', round: round(1) }],
  ['h1', { kind: 'round', round: round(2) }],
  ['h1', { kind: 'stopped', for: 'stop-and-copy' }],
  ['h1', { kind: 'handed-over' }],
  ['h2', { kind: 'resumed', withFaults: false }],
  ['h1', { kind: 'measured', measures: { bytes: 2e6 } }],
  ['h1', { kind: 'released' }],
];
const postCopy: readonly Step[] = [
  ['h2', { kind: 'listening', endpoint }],
  ['h1', { kind: 'sending' }],
  ['h1', { kind: 'switching', round: 1, because: 'post-copy' }],
  ['h1', { kind: 'stopped', for: 'post-copy' }],
  ['h2', { kind: 'state-transferred' }],
  ['h2', { kind: 'resumed', withFaults: true }],
  ['h2', { kind: 'pre-paging' }],
  ['h2', { kind: 'all-pages-arrived' }],
  ['h1', { kind: 'released' }],
];
const cold: readonly Step[] = [
  ['h1', { kind: 'sending' }],
  ['h1', { kind: 'powered-off' }],
  ['h2', { kind: 'resumed', withFaults: false }],
];

async function begin(technique: Technique, to: string | null = 'h2'): Promise<Migration> {
  return fleet.plane.reservations.startMigration('web1', migrateBody.parse({ to, technique }), null, 'test');
}

async function walk(id: Migration['id'], steps: readonly Step[]): Promise<void> {
  for (const [host, fact] of steps) {
    await fleet.clock.advance(10);
    await fleet.agent(host).move(id, fact);
  }
  await settled();
}

const phasesOf = (id: string): string[] => fleet.migration(id).history.map(({ phase }) => phase);
const errors = (): string[] =>
  checkFleet(fleet.plane)
    .filter(({ severity }) => severity !== 'ok')
    .map(({ about, says }) => `${about}: ${says}`);

describe('a switch to post-copy that somebody asks for', () => {
  const warmingUp = async (technique: Technique, policy: object = {}) => {
    await fleet.run('web1', 'h1');
    const body = migrateBody.parse({ to: 'h2', technique, policy });
    const { id } = await fleet.plane.reservations.startMigration('web1', body, null, 'test');
    await walk(id, postCopy.slice(0, 2));
    return id;
  };
  const switchable = (id: Migration['id']) => migrationView(fleet.plane, fleet.migration(id)).switchable;

  test('is ordered of the source until it says that it switches, and then refused', async () => {
    fleet = await FakeFleet.start();
    const id = await warmingUp('auto');
    expect(switchable(id)).toBe('post-copy');
    await fleet.plane.migrations.switchNow(id);
    await fleet.plane.migrations.switchNow(id);
    expect(await fleet.agent('h1').order('switch')).toMatchObject({ migration: id });
    expect(switchable(id)).toBeNull();
    await walk(id, postCopy.slice(2, 4));
    expect(migrationOrders(fleet.migration(id), fleet.plane.fleet)).toEqual([]);
    await expect(fleet.plane.migrations.switchNow(id)).rejects.toThrow('guest paused, its execution state is sent');
    await walk(id, postCopy.slice(4));
    await expect(fleet.plane.migrations.switchNow(id)).rejects.toThrow('it has ended already (completed)');
  });

  test.each([
    ['pre-copy', {}, true, 'policy-conflict', 'its policy forbids post-copy (pre-copy, not converging: fail)'],
    ['auto', { parallelStreams: 2 }, true, 'policy-conflict', 'parallel streams'],
    ['auto', {}, false, 'post-copy-unavailable', 'h2 cannot receive by post-copy: no userfaultfd'],
  ] as const)('is refused: %s %j, target able: %j', async (technique, policy, able, code, says) => {
    fleet = await FakeFleet.start(['h1']);
    await fleet.join('h2', able ? {} : { postCopy: { ok: false, reason: 'no userfaultfd' } });
    const id = await warmingUp(technique, policy);
    expect(switchable(id)).toBeNull();
    await expect(fleet.plane.migrations.switchNow(id)).rejects.toMatchObject({
      code,
      message: expect.stringContaining(says),
    });
  });

  test('is refused where the agent is older than the order', async () => {
    fleet = await FakeFleet.start();
    const id = await warmingUp('auto');
    await fleet.plane.fleet.change((draft) => {
      const source = draft.host(fleet.migration(id).source)!;
      const { switchesOnOrder: _, ...inventory } = source.inventory;
      draft.putHost({ ...source, inventory });
    });
    await expect(fleet.plane.migrations.switchNow(id)).rejects.toThrow('the agent of h1 is too old to be told');
  });

  test('gives way to a cancel', async () => {
    fleet = await FakeFleet.start();
    const id = await warmingUp('auto');
    await fleet.plane.migrations.switchNow(id);
    await fleet.plane.migrations.cancel(id);
    expect(migrationOrders(fleet.migration(id), fleet.plane.fleet).map(({ body }) => body.kind)).toEqual(['cancel']);
    await expect(fleet.plane.migrations.switchNow(id)).rejects.toThrow('it is being cancelled');
    await walk(id, [['h1', { kind: 'source-running', failure: null }]]);
  });
});

describe('a pre-copy', () => {
  test('goes through its phases, moves owner and room with the facts, and orders what is next', async () => {
    fleet = await FakeFleet.start();
    const vm = await fleet.run('web1', 'h1');
    const { id, generation } = await begin('pre-copy');
    expect(generation).toBe(vm.generation + 1);
    expect([fleet.room('h1'), fleet.room('h2')]).toEqual(['512+0', '0+512']);
    const receive = await fleet.agent('h2').order('receive');
    expect(receive).toMatchObject({ generation, session: 1, term: 1, sourcePeer: { address: 'h1.peer' } });
    expect(receive.expiresAt).toBe(fleet.clock.now() + 30_000);

    await walk(id, preCopy.slice(0, 1));
    expect(await fleet.agent('h1').order('send')).toMatchObject({ endpoint, targetPeer: { address: 'h2.peer' } });
    await walk(id, preCopy.slice(1, 5));
    expect(fleet.vm('web1')).toMatchObject({ migration: id, host: vm.host });
    await walk(id, preCopy.slice(5, 6));
    await fleet.agent('h2').order('go');
    await walk(id, preCopy.slice(6, 7));
    const h2 = fleet.plane.fleet.findHost('h2').id;
    expect(fleet.vm('web1')).toMatchObject({ migration: id, host: h2, state: { kind: 'running' } });
    expect([fleet.room('h1'), fleet.room('h2')]).toEqual(['512+0', '512+0']);
    await fleet.agent('h1').order('release');
    await walk(id, preCopy.slice(7));

    expect(phasesOf(id)).toEqual([
      'reserved',
      'warming-up',
      'warming-up',
      'warming-up',
      'stop-and-copy',
      'resumed',
      'completed',
    ]);
    expect(fleet.vm('web1')).toMatchObject({ migration: null, host: h2, generation });
    expect([fleet.room('h1'), fleet.room('h2')]).toEqual(['0+0', '512+0']);
    expect(fleet.migration(id).measures).toMatchObject({ bytes: 2e6, downtimeMs: 20, firstPageMs: 20, totalMs: 90 });
    expect(errors()).toEqual([]);
  });

  test('ends the same when every fact comes twice', async () => {
    fleet = await FakeFleet.start();
    await fleet.run('web1', 'h1');
    const { id } = await begin('pre-copy');
    await walk(
      id,
      preCopy.flatMap((step) => [step, step]),
    );
    expect(fleet.migration(id).phase).toBe('completed');
    expect([fleet.room('h1'), fleet.room('h2')]).toEqual(['0+0', '512+0']);
  });

  test('ends the same when the target is heard before the source', async () => {
    fleet = await FakeFleet.start();
    await fleet.run('web1', 'h1');
    const { id } = await begin('pre-copy');
    const [listening, sending, r1, r2, stopped, handedOver, resumed, measured, released] = preCopy as Step[];
    const order = [listening, resumed, sending, r2, r1, stopped, handedOver, released, measured] as Step[];
    await walk(id, order);
    expect(fleet.migration(id).phase).toBe('completed');
    expect(fleet.vm('web1')).toMatchObject({ migration: null, host: fleet.plane.fleet.findHost('h2').id });
    expect(errors()).toEqual([]);
  });

  test('that fails on the target leaves the guest on the source and the room free once the target is clean', async () => {
    fleet = await FakeFleet.start();
    const { host } = await fleet.run('web1', 'h1');
    const { id } = await begin('pre-copy');
    await walk(id, preCopy.slice(0, 3));
    await walk(id, [['h2', { kind: 'target-failed', failure: failure('QEMU on h2 died.') }]]);
    expect(fleet.migration(id).phase).toBe('warming-up');
    await walk(id, [['h1', { kind: 'source-running', failure: null }]]);
    expect(fleet.migration(id)).toMatchObject({
      phase: 'failed',
      guest: 'on-source',
      failure: { message: 'QEMU on h2 died.' },
    });
    expect(fleet.vm('web1')).toMatchObject({ host, migration: null, state: { kind: 'running' } });
    expect([fleet.room('h1'), fleet.room('h2')]).toEqual(['512+0', '0+0']);
    expect(await fleet.agent('h1').order('keep')).toMatchObject({ generation: fleet.vm('web1').generation });
  });

  test('whose source is lost makes the VM crashed with the reason, and holds both rooms until both sides are clean', async () => {
    fleet = await FakeFleet.start();
    await fleet.run('web1', 'h1');
    const { id } = await begin('pre-copy');
    await walk(id, preCopy.slice(0, 3));
    await walk(id, [['h1', { kind: 'source-lost', failure: failure('QEMU on h1 died.') }]]);
    expect(fleet.migration(id)).toMatchObject({ phase: 'failed', guest: 'lost' });
    expect(fleet.vm('web1').state).toEqual({ kind: 'crashed', message: 'QEMU on h1 died.' });
    expect([fleet.room('h1'), fleet.room('h2')]).toEqual(['512+0', '0+512']);
    await expect(fleet.plane.vms.start('web1', 'h3')).rejects.toMatchObject({ code: 'busy' });
    expect(await fleet.agent('h2').order('close')).toMatchObject({ evenIfItRan: true });
    await walk(id, [['h2', { kind: 'closed' }]]);
    await walk(id, [['h1', { kind: 'released' }]]);
    expect([fleet.room('h1'), fleet.room('h2')]).toEqual(['0+0', '0+0']);
    expect(await fleet.plane.vms.start('web1', 'h3')).toMatchObject({ state: { kind: 'starting' } });
  });
});

describe('a post-copy', () => {
  test('goes through its phases and moves the owner when the target resumes', async () => {
    fleet = await FakeFleet.start();
    await fleet.run('web1', 'h1');
    const { id } = await begin('post-copy');
    expect((await fleet.agent('h2').order('receive')).job.postCopy).toBe(true);
    await walk(id, postCopy.slice(0, 5));
    expect(fleet.vm('web1').host).toBe(fleet.plane.fleet.findHost('h1').id);
    await walk(id, postCopy.slice(5, 6));
    expect(fleet.vm('web1').host).toBe(fleet.plane.fleet.findHost('h2').id);
    await walk(id, postCopy.slice(6));
    expect(phasesOf(id)).toEqual([
      'reserved',
      'warming-up',
      'suspended',
      'state-transferred',
      'resumed-with-faults',
      'pre-paging',
      'completed',
    ]);
    expect(errors()).toEqual([]);
  });

  test('whose target dies after the switch is lost, and says so in the VM', async () => {
    fleet = await FakeFleet.start();
    await fleet.run('web1', 'h1');
    const { id } = await begin('post-copy');
    await walk(id, postCopy.slice(0, 7));
    await walk(id, [['h2', { kind: 'target-lost', failure: failure('QEMU on h2 died.') }]]);
    expect(fleet.migration(id)).toMatchObject({ phase: 'failed', guest: 'lost' });
    expect(fleet.vm('web1').state).toEqual({ kind: 'crashed', message: 'QEMU on h2 died.' });
    await walk(id, [
      ['h1', { kind: 'released' }],
      ['h2', { kind: 'closed' }],
    ]);
    expect([fleet.room('h1'), fleet.room('h2')]).toEqual(['0+0', '0+0']);
  });

  test('that is shut down from inside on the target is stopped there when its move ends', async () => {
    fleet = await FakeFleet.start();
    const vm = await fleet.run('web1', 'h1');
    const { id } = await begin('post-copy');
    await walk(id, postCopy.slice(0, 8));
    await fleet.agent('h2').life(vm.id, { kind: 'ended', how: 'powered-off', message: '' });
    await walk(id, postCopy.slice(8));
    expect(fleet.migration(id).phase).toBe('completed');
    expect(fleet.vm('web1').state).toEqual({ kind: 'stopped' });
    expect([fleet.room('h1'), fleet.room('h2')]).toEqual(['0+0', '0+0']);
  });
});

describe('a cold move', () => {
  test('gives the target a newer generation in the commit that says the source is off', async () => {
    fleet = await FakeFleet.start();
    const before = await fleet.run('web1', 'h1');
    const { id } = await begin('cold');
    await fleet.agent('h1').order('power-off');
    await walk(id, cold.slice(0, 2));
    const h2 = fleet.plane.fleet.findHost('h2').id;
    expect(fleet.migration(id).phase).toBe('powering-on');
    expect(fleet.vm('web1')).toMatchObject({ host: h2, generation: before.generation + 2 });
    expect([fleet.room('h1'), fleet.room('h2')]).toEqual(['0+0', '512+0']);
    expect(await fleet.agent('h2').order('power-on')).toMatchObject({ generation: before.generation + 2 });
    await walk(id, cold.slice(1));
    expect(fleet.vm('web1')).toMatchObject({ host: h2, generation: before.generation + 2, state: { kind: 'running' } });
    expect(phasesOf(id)).toEqual(['reserved', 'powering-off', 'copying', 'powering-on', 'completed']);
    expect(errors()).toEqual([]);
  });

  test('whose guest ignores the shutdown stays on the source', async () => {
    fleet = await FakeFleet.start();
    const { host } = await fleet.run('web1', 'h1');
    const { id } = await begin('cold');
    await walk(id, [
      ['h1', { kind: 'sending' }],
      ['h1', { kind: 'source-running', failure: { code: 'shutdown-ignored', message: 'ignored', hint: '' } }],
    ]);
    expect(fleet.migration(id)).toMatchObject({ phase: 'failed', guest: 'on-source' });
    expect(fleet.vm('web1')).toMatchObject({ host, migration: null, state: { kind: 'running' } });
    expect([fleet.room('h1'), fleet.room('h2')]).toEqual(['512+0', '0+0']);
  });

  test('whose guest does not start on the target is crashed there and can be started anywhere', async () => {
    fleet = await FakeFleet.start();
    await fleet.run('web1', 'h1');
    const { id } = await begin('cold');
    await walk(id, [...cold.slice(0, 2), ['h2', { kind: 'target-failed', failure: failure('no boot') }]]);
    expect(fleet.migration(id)).toMatchObject({ phase: 'failed', guest: 'lost' });
    expect(fleet.vm('web1').state).toEqual({ kind: 'crashed', message: 'no boot' });
    expect([fleet.room('h1'), fleet.room('h2')]).toEqual(['0+0', '0+0']);
    await fleet.plane.vms.start('web1', 'h3');
    expect(fleet.room('h3')).toBe('512+0');
  });
});

describe('cancelling', () => {
  test('before the target listens ends at once, and the target is told to close', async () => {
    fleet = await FakeFleet.start();
    await fleet.run('web1', 'h1');
    const { id } = await begin('pre-copy');
    expect((await fleet.plane.migrations.cancel(id)).phase).toBe('cancelled');
    expect([fleet.room('h1'), fleet.room('h2')]).toEqual(['512+0', '0+512']);
    await fleet.agent('h2').order('close');
    await walk(id, [['h2', { kind: 'closed' }]]);
    expect([fleet.room('h1'), fleet.room('h2')]).toEqual(['512+0', '0+0']);
    expect(fleet.vm('web1').migration).toBeNull();
  });

  test('in warm-up asks the source, and ends when it says that the guest runs there', async () => {
    fleet = await FakeFleet.start();
    await fleet.run('web1', 'h1');
    const { id } = await begin('pre-copy');
    await walk(id, preCopy.slice(0, 3));
    await fleet.plane.migrations.cancel(id);
    await fleet.agent('h1').order('cancel');
    expect(fleet.migration(id).phase).toBe('warming-up');
    await walk(id, [
      ['h1', { kind: 'source-running', failure: null }],
      ['h2', { kind: 'closed' }],
    ]);
    expect(fleet.migration(id).phase).toBe('cancelled');
    expect([fleet.room('h1'), fleet.room('h2')]).toEqual(['512+0', '0+0']);
    expect(errors()).toEqual([]);
  });

  test.each([
    ['a post-copy after its switch', 'post-copy', postCopy.slice(0, 4)],
    ['a cold move', 'cold', [] as Step[]],
    ['a completed move', 'pre-copy', preCopy],
  ] as const)('%s is refused and changes nothing', async (_, technique, steps) => {
    fleet = await FakeFleet.start();
    await fleet.run('web1', 'h1');
    const { id } = await begin(technique);
    await walk(id, steps);
    const before = await fleet.dump();
    await expect(fleet.plane.migrations.cancel(id)).rejects.toMatchObject({ code: 'not-cancellable' });
    expect(await fleet.dump()).toBe(before);
  });
});

describe('a host that says nothing', () => {
  test('as target ends the move after 20 s with the guest on the source', async () => {
    fleet = await FakeFleet.start();
    await fleet.run('web1', 'h1');
    const { id } = await begin('pre-copy');
    await fleet.pass(18_000);
    expect(fleet.migration(id).phase).toBe('reserved');
    await fleet.pass(4_000);
    expect(fleet.migration(id)).toMatchObject({
      phase: 'failed',
      guest: 'on-source',
      failure: { code: 'target-unreachable' },
    });
    expect(fleet.vm('web1')).toMatchObject({ migration: null, state: { kind: 'running' } });
  });

  test('as source is told to cancel, and the move stays open until it says where the guest is', async () => {
    fleet = await FakeFleet.start();
    await fleet.run('web1', 'h1');
    const { id } = await begin('pre-copy');
    await walk(id, preCopy.slice(0, 1));
    await fleet.pass(22_000);
    expect(fleet.migration(id)).toMatchObject({ phase: 'reserved', giveUp: { code: 'source-refused' } });
    await fleet.agent('h1').order('cancel');
    await walk(id, [['h1', { kind: 'source-running', failure: null }]]);
    expect(fleet.migration(id)).toMatchObject({ phase: 'failed', guest: 'on-source' });
  });

  test('gets the whole time again after a restart of the server', async () => {
    fleet = await FakeFleet.start();
    await fleet.run('web1', 'h1');
    const { id } = await begin('pre-copy');
    await fleet.pass(15_000);
    await fleet.restartServer();
    await fleet.pass(15_000);
    expect(fleet.migration(id).phase).toBe('reserved');
  });

  test('of a cold move gets no order to shut down that it could obey after the move was given up', async () => {
    fleet = await FakeFleet.start();
    await fleet.run('web1', 'h1');
    const { startedAt } = await begin('cold');
    await fleet.pass(22_000);
    for (const order of fleet.agent('h1').orders) {
      if (order.kind === 'power-off') expect(order.expiresAt).toBeLessThanOrEqual(startedAt + 20_000);
    }
    expect(
      fleet
        .agent('h1')
        .kinds()
        .filter((kind) => kind === 'power-off').length,
    ).toBeGreaterThan(1);
  });
});

describe('a server that is restarted in the middle of a move', () => {
  const due: readonly (readonly [string, Technique, readonly Step[], 'h1' | 'h2', string])[] = [
    ['reserved', 'pre-copy', preCopy.slice(0, 0), 'h2', 'receive'],
    ['reserved, target listening', 'pre-copy', preCopy.slice(0, 1), 'h1', 'send'],
    ['stop-and-copy, handed over', 'pre-copy', preCopy.slice(0, 6), 'h2', 'go'],
    ['resumed', 'pre-copy', preCopy.slice(0, 7), 'h1', 'release'],
    ['pre-paging, all pages there', 'post-copy', postCopy.slice(0, 8), 'h1', 'release'],
    ['powering-off', 'cold', cold.slice(0, 1), 'h1', 'power-off'],
    ['powering-on', 'cold', cold.slice(0, 2), 'h2', 'power-on'],
  ];
  test.each(due)('knows in phase %s (%s) what is due', async (_, technique, steps, host, kind) => {
    fleet = await FakeFleet.start();
    await fleet.run('web1', 'h1');
    const { id } = await begin(technique);
    await walk(id, steps);
    const before = fleet.migration(id);
    await fleet.restartServer();
    expect(fleet.migration(id)).toEqual(before);
    const moves = (agent: string) =>
      fleet
        .agent(agent)
        .orders.filter((order) => order.kind !== 'keep')
        .map((order) => order.kind);
    expect(moves(host)).toEqual([kind]);
    expect(moves(host === 'h1' ? 'h2' : 'h1')).toEqual([]);
    const [order] = fleet.agent(host).orders.filter((each) => each.kind === kind);
    expect(order).toMatchObject({ term: 2, session: 1, generation: before.generation });
  });

  test.each([
    ['warming-up', preCopy.slice(0, 3)],
    ['stop-and-copy', preCopy.slice(0, 5)],
  ] as const)('orders nothing in %s, and the move goes on by itself', async (_, steps) => {
    fleet = await FakeFleet.start();
    await fleet.run('web1', 'h1');
    const { id } = await begin('pre-copy');
    await walk(id, steps);
    await fleet.restartServer();
    expect(fleet.agent('h1').kinds()).toEqual([]);
    expect(fleet.agent('h2').kinds()).toEqual([]);
    await walk(id, preCopy.slice(steps.length));
    expect(fleet.migration(id).phase).toBe('completed');
    expect(errors()).toEqual([]);
  });
});

test('two moves at once do not disturb each other', async () => {
  fleet = await FakeFleet.start();
  await fleet.run('web1', 'h1');
  await fleet.run('web2', 'h2');
  const one = await begin('pre-copy');
  const two = await fleet.plane.reservations.startMigration(
    'web2',
    migrateBody.parse({ to: 'h1', technique: 'pre-copy' }),
    null,
    'test',
  );
  for (const [host, fact] of preCopy) {
    await fleet.agent(host).move(one.id, fact);
    await fleet.agent(host === 'h1' ? 'h2' : 'h1').move(two.id, fact);
  }
  expect([fleet.migration(one.id).phase, fleet.migration(two.id).phase]).toEqual(['completed', 'completed']);
  expect([fleet.room('h1'), fleet.room('h2')]).toEqual(['512+0', '512+0']);
  expect(fleet.vm('web1').host).toBe(fleet.plane.fleet.findHost('h2').id);
  expect(fleet.vm('web2').host).toBe(fleet.plane.fleet.findHost('h1').id);
});

test('the pause is measured on one clock when the hosts have two', async () => {
  fleet = await FakeFleet.start();
  await fleet.run('web1', 'h1');
  fleet.agent('h2').clockAheadMs = 60_000;
  await fleet.pass(60_000);
  const { id } = await begin('pre-copy');
  await walk(id, preCopy);
  expect(fleet.migration(id).measures.downtimeMs).toBe(20);
  expect((await fleet.agent('h2').order('receive')).expiresAt).toBe(fleet.migration(id).startedAt + 90_000);
});

test('a blackout is recorded once the move has ended, and not before', async () => {
  fleet = await FakeFleet.start();
  await fleet.run('web1', 'h1');
  const { id } = await begin('pre-copy');
  await expect(fleet.plane.migrations.recordBlackout(id, 42)).rejects.toMatchObject({ code: 'wrong-state' });
  await walk(id, preCopy);
  await fleet.plane.migrations.recordBlackout(id, 42);
  expect(fleet.migration(id).measures.blackoutMs).toBe(42);
});
