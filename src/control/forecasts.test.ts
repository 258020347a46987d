import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { MemoryUse } from '../model/forecast.ts';
import type { Migration, Technique } from '../model/migration.ts';
import { MiB } from '../model/units.ts';
import { dirtyBytesPerSecond, noWriting } from '../migration/writing.ts';
import { migrateBody } from '../wire/endpoints.ts';
import { FakeFleet, settled, until, type FakeAgent } from './fake-fleet.ts';
import { forecastVm } from './handlers/forecast.ts';

let fleet: FakeFleet;
let [h1, h2] = [] as unknown as [FakeAgent, FakeAgent];
beforeEach(async () => {
  fleet = await FakeFleet.start([]);
  [h1, h2] = [await fleet.join('h1', { measuresMemory: true }), await fleet.join('h2', { measuresMemory: true })];
});
afterEach(() => fleet.stopServer());

const quarter = { inUseBytes: 128 * MiB, dirtied: [{ overMs: 1000, bytes: 10 * MiB }] };

function begin(vm: string, technique: Technique = 'pre-copy', more: object = {}): Promise<Migration> {
  const body = migrateBody.parse({ technique, ...more });
  return fleet.plane.reservations.startMigration(vm, body, null, 'test', 'measure-first');
}

/** Requests for measurements that the agent got, in order. */
const requests = ({ consoles }: FakeAgent) => consoles.filter((message) => message.type === 'measure');

async function answer(agent: FakeAgent, memory: MemoryUse | null, number = 1): Promise<void> {
  const request = await until('asked to measure', () => requests(agent)[number - 1]);
  agent.say({ type: 'measured', request: request.request, memory, says: 'not now' });
}

/** The whole of a live move, which sends so many bytes in its first round and leaves so many pages. */
async function move(id: Migration['id'], round = { durationMs: 2000, bytes: 200 * MiB, dirtyPages: 2560 }) {
  await h2.move(id, { kind: 'listening', endpoint: { address: '10.0.0.2', port: 1 } });
  await h1.move(id, { kind: 'sending' });
  const bandwidthBytesPerSecond = (round.bytes * 1000) / round.durationMs;
  await h1.move(id, { kind: 'round', round: { round: 1, ...round, bandwidthBytesPerSecond } });
  await h1.move(id, { kind: 'stopped', for: 'stop-and-copy' });
  await h2.move(id, { kind: 'resumed', withFaults: false });
  await h1.move(id, { kind: 'handed-over' });
  await h1.move(id, { kind: 'released' });
  expect(fleet.migration(id).phase).toBe('completed');
}

describe('a move', () => {
  test('waits for the measurement and keeps its forecast beside what is measured later', async () => {
    await fleet.run('web1', 'h1');
    const begun = begin('web1');
    await answer(h1, quarter);
    const { forecast } = await begun;
    expect(forecast).toMatchObject({ converges: true, endsBy: 'stop-and-copy', correction: { moves: 0 } });
    expect(forecast?.basis).toMatchObject({ inUseBytes: 128 * MiB, inUseFrom: 'measured', writingFrom: 'measured' });
    expect(forecast?.bytes).toBeGreaterThan(128 * MiB);
    expect(fleet.migration((await begun).id).forecast).toEqual(forecast);
  });

  test('begins without the measurement when that takes too long, with what the host reports', async () => {
    await fleet.run('web1', 'h1');
    const begun = begin('web1');
    await until('asked to measure', () => requests(h1).length > 0);
    await fleet.clock.advance(1_400);
    expect(fleet.plane.fleet.migrations.size).toBe(0);
    await fleet.clock.advance(100);
    const { forecast } = await begun;
    expect(forecast?.basis).toMatchObject({ inUseFrom: 'size', writingFrom: 'assumed' });
  });

  test('does not wait when the host cannot measure, says why it cannot, or is of an older version', async () => {
    await fleet.run('web1', 'h1');
    const begun = begin('web1');
    await answer(h1, null);
    expect((await begun).forecast?.basis.writingFrom).toBe('assumed');
    const h3 = await fleet.join('h3');
    await fleet.run('web2', 'h3');
    await begin('web2', 'pre-copy', { to: 'h1' });
    expect(requests(h3)).toEqual([]);
  });

  test('does not wait again while the last measurement is fresh, nor after a move that showed the same', async () => {
    await fleet.run('web1', 'h1');
    const dry = begin('web1', 'pre-copy', { dryRun: true });
    await answer(h1, quarter);
    expect((await dry).forecast?.basis.inUseFrom).toBe('measured');
    expect(fleet.plane.fleet.migrations.size).toBe(0);
    const { id } = await begin('web1');
    expect(requests(h1)).toHaveLength(1);
    await fleet.pass(500);
    await move(id);
    await fleet.pass(11_000);
    const back = await begin('web1');
    expect(requests(h2)).toEqual([]);
    expect(back.forecast?.basis).toMatchObject({
      inUseBytes: 200 * MiB,
      inUseFrom: 'earlier-moves',
      writingFrom: 'earlier-moves',
      bytesPerSecond: 100 * MiB,
      linkFrom: 'earlier-moves',
    });
    expect(back.forecast?.correction.moves).toBe(1);
  });

  test('measures anew after a move of one long round, which does not tell how fast the guest writes', async () => {
    await fleet.run('web1', 'h1');
    const first = begin('web1', 'hybrid');
    await answer(h1, null);
    await move((await first).id);
    const back = begin('web1');
    await answer(h2, { inUseBytes: 64 * MiB, dirtied: [{ overMs: 1000, bytes: 60 * MiB }] });
    // Measurement and round do not agree (the round says 5 MiB/s): what is newer counts.
    const { forecast } = await back;
    expect(forecast?.basis).toMatchObject({ inUseBytes: 64 * MiB, inUseFrom: 'measured', writingFrom: 'measured' });
    expect(dirtyBytesPerSecond(forecast?.basis.writing ?? noWriting) / MiB).toBeCloseTo(60, 6);
  });

  test('measures anew when the last measurement is not fresh', async () => {
    await fleet.run('web1', 'h1');
    const dry = begin('web1', 'pre-copy', { dryRun: true });
    await answer(h1, quarter);
    await dry;
    await fleet.pass(11_000);
    const begun = begin('web1');
    await answer(h1, { ...quarter, inUseBytes: 64 * MiB }, 2);
    expect((await begun).forecast?.basis).toMatchObject({ inUseBytes: 64 * MiB, writingFrom: 'measured' });
  });

  test('that is refused measures nothing', async () => {
    await fleet.run('web1', 'h1');
    await expect(begin('web1', 'pre-copy', { to: 'h1' })).rejects.toMatchObject({ code: 'same-host' });
    expect(requests(h1)).toEqual([]);
  });

  test('of the evacuation, and all that nobody waits for, begins at once', async () => {
    await fleet.run('web1', 'h1');
    const body = migrateBody.parse({ technique: 'pre-copy' });
    const { forecast } = await fleet.plane.reservations.startMigration('web1', body, null, 'evacuation');
    expect(requests(h1)).toEqual([]);
    expect(forecast?.basis.inUseFrom).toBe('size');
  });

  test('that is held has no forecast, as nobody knows how long it is held, and waits for none', async () => {
    await fleet.run('web1', 'h1');
    expect((await begin('web1', 'pre-copy', { holdMs: 60_000 })).forecast).toBeUndefined();
    expect(requests(h1)).toEqual([]);
  });

  test('that is cold needs no measurement', async () => {
    await fleet.run('web1', 'h1');
    expect((await begin('web1', 'cold')).forecast).toMatchObject({ endsBy: 'restart', bytes: 0 });
    expect(requests(h1)).toEqual([]);
  });
});

test('a link is shared by the moves over it', async () => {
  await fleet.run('web1', 'h1');
  await fleet.run('web2', 'h1');
  const first = begin('web1');
  await answer(h1, quarter);
  expect((await first).forecast?.basis).toMatchObject({ bytesPerSecond: 118_750_000, linkFrom: 'assumed' });
  const second = begin('web2');
  await answer(h1, quarter, 2);
  expect((await second).forecast?.basis.bytesPerSecond).toBe(59_375_000);
});

test('what interfaces say of a link counts where no move has shown it', async () => {
  const [a, b] = [{ interfaceBytesPerSecond: 4e8 }, { interfaceBytesPerSecond: 2e8 }];
  await fleet.join('h4', a);
  await fleet.join('h5', b);
  await fleet.run('web1', 'h4');
  const { forecast } = await begin('web1', 'pre-copy', { to: 'h5' });
  expect(forecast?.basis).toMatchObject({ bytesPerSecond: 1.9e8, linkFrom: 'interface' });
});

test('an answer that comes late, or from a host that was not asked, begins nothing and is of use only from the right one', async () => {
  const vm = await fleet.run('web1', 'h1');
  const dry = begin('web1', 'pre-copy', { dryRun: true });
  const request = await until('asked to measure', () => requests(h1)[0]);
  await fleet.clock.advance(1_500);
  await dry;
  h2.say({ type: 'measured', request: request.request, memory: { inUseBytes: 1, dirtied: [] }, says: '' });
  await settled();
  h1.say({ type: 'measured', request: request.request, memory: quarter, says: '' });
  await settled();
  expect((await begin('web1')).forecast?.basis.inUseBytes).toBe(128 * MiB);
  expect(requests(h1)).toHaveLength(1);
  expect(vm.id).toBe(request.vm);
});

test('what was measured is forgotten when the guest ends', async () => {
  const { id } = await fleet.run('web1', 'h1');
  const dry = begin('web1', 'pre-copy', { dryRun: true });
  await answer(h1, quarter);
  await dry;
  await h1.life(id, { kind: 'ended', how: 'powered-off', message: '' });
  await fleet.plane.vms.start('web1', null);
  const vm = fleet.vm('web1');
  await h1.life(vm.id, { kind: 'started', running: { argvVersion: 1, argv: [], spec: vm.spec } });
  void begin('web1', 'pre-copy', { dryRun: true });
  await until('asked again', () => requests(h1).length === 2);
});

describe('the table of all techniques', () => {
  const ask = (vm: string, more: object = {}) =>
    forecastVm({ params: { vm }, body: { to: null, policy: {}, ...more } }, fleet.call());

  test('measures, says each cost and why one is refused, and changes nothing', async () => {
    await fleet.join('h3', { postCopy: { ok: false, reason: 'userfaultfd is off' } });
    await fleet.run('web1', 'h1');
    const before = await fleet.dump();
    const asked = ask('web1', { to: 'h3' });
    await answer(h1, quarter);
    const { source, target, techniques } = await asked;
    expect([source, target]).toEqual(['h1', 'h3']);
    expect(techniques.map(({ technique }) => technique)).toEqual(['auto', 'pre-copy', 'post-copy', 'hybrid', 'cold']);
    const of = (name: Technique) => techniques.find(({ technique }) => technique === name);
    expect(of('post-copy')).toMatchObject({ forecast: null, refused: expect.stringContaining('userfaultfd is off') });
    expect(of('pre-copy')).toMatchObject({ refused: null, forecast: { basis: { inUseFrom: 'measured' } } });
    expect(of('cold')?.forecast?.endsBy).toBe('restart');
    expect(await fleet.dump()).toBe(before);
  });

  test('is refused as a move would be where no technique helps', async () => {
    await fleet.run('web1', 'h1');
    await expect(ask('web1', { to: 'h1' })).rejects.toMatchObject({ code: 'same-host' });
    await expect(ask('web9')).rejects.toMatchObject({ code: 'not-found' });
    await begin('web1', 'cold');
    await expect(ask('web1')).rejects.toMatchObject({ code: 'busy' });
  });
});
