/** Drains by the real control plane on a clock that stands still; the moves are told fact by fact. */
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { DrainRecord } from '../model/drain.ts';
import { isEnd } from '../migration/phases.ts';
import { brokenInvariants } from '../migration/invariants.ts';
import type { Migration } from '../model/migration.ts';
import { drainBody, undrainBody, type DrainBody } from '../wire/drains.ts';
import { migrateBody } from '../wire/endpoints.ts';
import { checkFleet } from './doctor.ts';
import { latestDrain } from './drain-progress.ts';
import { drainView } from './drain-views.ts';
import type { MoveFact } from './fake-fleet.ts';
import { FakeFleet, frozen } from './fake-fleet.ts';

const endpoint = { address: '10.0.1.2', port: 4444 };
let fleet: FakeFleet;
beforeEach(async () => {
  fleet = await FakeFleet.start();
});
afterEach(async () => {
  for (const migration of fleet.plane.fleet.migrations.values()) expect(brokenInvariants(migration)).toEqual([]);
  const bugs = checkFleet(fleet.plane).filter(({ mend }) => mend?.startsWith('This is a bug'));
  expect(bugs).toEqual([]);
  await fleet.stopServer();
});

const begin = (body: DrainBody = {}, host = 'h1') => fleet.plane.drains.begin(host, drainBody.parse(body), 'test');
const undrain = (host = 'h1') => fleet.plane.drains.undrain(host, undrainBody.parse({}), 'test');
const host = (name = 'h1') => fleet.plane.fleet.findHost(name);
const drain = (name = 'h1'): DrainRecord => latestDrain(fleet.plane.fleet, host(name).id)!;
const view = (name = 'h1') => drainView(fleet.plane, drain(name));
const states = (): string[] => view().vms.map(({ name, state }) => `${name} ${state}`);
const open = (): Migration[] => [...fleet.plane.fleet.migrations.values()].filter(({ phase }) => !isEnd(phase));
const names = (): string[] => open().map(({ vmName }) => vmName);
const at = (name: string): string => fleet.plane.fleet.hostName(fleet.vm(name).host);
const priority = (name: string, to: number) =>
  fleet.plane.fleet.change((draft) => draft.putVm({ ...fleet.vm(name), priority: to }));

const tell = (migration: Migration, side: 'source' | 'target', fact: MoveFact): Promise<void> =>
  fleet.agent(fleet.plane.fleet.hostName(migration[side])).move(migration.id, fact);
async function arrive(migration: Migration): Promise<void> {
  await tell(migration, 'target', { kind: 'listening', endpoint });
  await tell(migration, 'source', { kind: 'sending' });
  await tell(migration, 'source', { kind: 'stopped', for: 'stop-and-copy' });
  await tell(migration, 'source', { kind: 'handed-over' });
  await tell(migration, 'target', { kind: 'resumed', withFaults: false });
  await tell(migration, 'source', { kind: 'released' });
}
async function fail(migration: Migration): Promise<void> {
  const failure = { code: 'no-convergence', message: 'It writes too fast.', hint: 'Calm it.' } as const;
  await tell(migration, 'target', { kind: 'listening', endpoint });
  await tell(migration, 'source', { kind: 'sending' });
  await tell(migration, 'source', { kind: 'source-running', failure });
  await tell(migration, 'target', { kind: 'closed' });
}
/** All moves arrive, until none begins any more. */
async function allArrive(): Promise<void> {
  for (let turn = 0; turn < 20; turn++) {
    await fleet.pass(1_500);
    const [next] = open();
    if (next === undefined) return;
    await arrive(next);
  }
  throw new Error('moves without end');
}

describe('a drain', () => {
  test('says beforehand what it will do, and with dryRun does nothing', async () => {
    await fleet.run('web1', 'h1');
    await fleet.run('db1', 'h1');
    await fleet.plane.fleet.change((draft) =>
      draft.putVm({ ...fleet.vm('db1'), cannotMoveLive: 'it has a GPU of h1' }),
    );
    const before = await fleet.dump();
    const { drain: planned, plan } = await begin({ dryRun: true, because: 'new memory' });
    const shown = drainView(fleet.plane, planned, plan);
    expect(shown.estimate.moves).toBe(1);
    expect(shown.estimate.bytes).toBeGreaterThanOrEqual(512 * 1024 * 1024);
    expect(shown.estimate.ms).toBeGreaterThan(4_000);
    const gpu = shown.vms.find(({ name }) => name === 'db1');
    expect(gpu).toMatchObject({ state: 'stuck', says: 'db1 cannot move live: it has a GPU of h1.' });
    expect(gpu?.next).toContain('drover migrate db1 --technique cold');
    expect(await fleet.dump()).toBe(before);
  });

  test('cordons the host, moves two at once by priority, and ends when no guest is left', async () => {
    for (const name of ['a', 'b', 'c']) await fleet.run(name, 'h1', { memoryMiB: 256 });
    await priority('c', 900);
    await begin({ because: 'new memory' });
    expect(host().cordoned).toBe(true);
    await fleet.pass(1_500);
    expect(names()).toEqual(['c', 'a']);
    expect(open()[0]).toMatchObject({ why: [{ by: 'drain', text: 'h1 is drained: new memory' }], technique: 'auto' });
    await expect(fleet.run('new', 'h1', { memoryMiB: 128 })).rejects.toThrow('h1 is cordoned');
    expect(view()).toMatchObject({ state: 'draining', total: 3, done: 0, remaining: 3 });
    expect(view().etaMs).toBeGreaterThan(2_000);
    await allArrive();
    expect(view()).toMatchObject({ state: 'drained', total: 3, done: 3, remaining: 0, etaMs: null });
    expect(view().says).toMatch(/^h1 is drained: no guest is left, 3 moved in /);
    expect(states()).toEqual(['c left', 'a left', 'b left']);
    expect(host().cordoned).toBe(true);
  });

  test('spreads what it moves over the hosts, no more than two at once to one of them', async () => {
    await fleet.run('full', 'h3', { memoryMiB: 7000 });
    for (const name of ['a', 'b', 'c', 'd']) await fleet.run(name, 'h1', { memoryMiB: 512 });
    await begin({ movesAtOnce: 4 });
    await fleet.pass(1_500);
    const targets = open().map(({ target }) => fleet.plane.fleet.hostName(target));
    expect(targets).toEqual(['h2', 'h2']);
  });

  test('packs tightly where spreading would leave a VM without a place', async () => {
    // Of 7680 MiB h2 has 3072 free and h3 2560: the largest must go where it just fits.
    await fleet.run('on-h2', 'h2', { memoryMiB: 4608 });
    await fleet.run('on-h3', 'h3', { memoryMiB: 5120 });
    await fleet.run('large', 'h1', { memoryMiB: 2560 });
    for (const name of ['a', 'b']) await fleet.run(name, 'h1', { memoryMiB: 1536 });
    await priority('a', 900);
    const { plan } = await begin();
    expect(plan.cannot).toEqual([]);
    await allArrive();
    expect(view().state).toBe('drained');
    expect([at('large'), at('a'), at('b')]).toEqual(['h3', 'h2', 'h2']);
  });

  test('goes on after the server was killed, whenever that was', async () => {
    for (const name of ['a', 'b', 'c']) await fleet.run(name, 'h1', { memoryMiB: 256 });
    await begin({ movesAtOnce: 1 });
    for (let turn = 0; turn < 12 && drain().state.kind === 'draining'; turn++) {
      await fleet.restartServer();
      await fleet.pass(1_500);
      const [next] = open();
      if (next === undefined) continue;
      await tell(next, 'target', { kind: 'listening', endpoint });
      await fleet.restartServer();
      await fleet.pass(1_500);
      expect(names()).toEqual([next.vmName]);
      await arrive(next);
      await fleet.restartServer();
    }
    expect(view()).toMatchObject({ state: 'drained', done: 3 });
    expect([...fleet.plane.fleet.migrations.values()].length).toBe(3);
  });

  test('leaves VMs that are off where they are, and names them', async () => {
    await fleet.run('web1', 'h1');
    const vm = await fleet.run('off1', 'h1');
    await fleet.plane.vms.stop('off1', { force: true, timeoutMs: 1_000 });
    await fleet.agent('h1').life(vm.id, { kind: 'ended', how: 'stopped', message: '' });
    await begin();
    await allArrive();
    expect(states()).toEqual(['off1 off', 'web1 left']);
    expect(view()).toMatchObject({ state: 'drained', total: 1 });
  });

  test('waits for a VM that is just starting, and for a move that was under way, and begins none beside it', async () => {
    const vm = await fleet.run('web1', 'h1');
    await fleet.run('web2', 'h1');
    await fleet.plane.fleet.change((draft) => draft.putVm({ ...fleet.vm('web1'), state: { kind: 'starting' } }));
    const body = migrateBody.parse({ to: 'h2' });
    const theirs = await fleet.plane.reservations.startMigration('web2', body, null, 'ann');
    await begin();
    await fleet.pass(3_000);
    expect(names()).toEqual(['web2']);
    expect(states()).toEqual(['web1 stuck', 'web2 moving']);
    expect(view().vms[0]).toMatchObject({ says: 'web1 is starting' });
    await fleet.agent('h1').life(vm.id, { kind: 'started', running: frozen(vm) });
    await arrive(theirs);
    await allArrive();
    expect(view()).toMatchObject({ state: 'drained', done: 2 });
  });

  test('moves on what was still on its way to the host', async () => {
    await fleet.run('guest', 'h2');
    const inbound = await fleet.plane.reservations.startMigration(
      'guest',
      migrateBody.parse({ to: 'h1' }),
      null,
      'ann',
    );
    await begin();
    await fleet.pass(3_000);
    expect(view().state).toBe('draining');
    await arrive(inbound);
    await allArrive();
    expect(view().state).toBe('drained');
    expect(at('guest')).not.toBe('h1');
  });
});

describe('a VM that cannot leave', () => {
  test('is named with reason and ways out, by alarm, doctor and view; the others leave, and it follows when it can', async () => {
    await fleet.run('big', 'h1', { memoryMiB: 4096 });
    await fleet.run('small', 'h1', { memoryMiB: 256 });
    for (const name of ['h2', 'h3']) await fleet.run(`on-${name}`, name, { memoryMiB: 6144 });
    await begin();
    await allArrive();
    await fleet.pass(12_000);
    const { state, blocked, vms, says } = view();
    expect(state).toBe('draining');
    expect(blocked?.says).toMatch(/^big: No host can take big\. h2 has no room for big/);
    expect(blocked?.next).toContain('drover vm stop big');
    expect(vms.map(({ name, state: now }) => `${name} ${now}`)).toEqual(['big stuck', 'small left']);
    expect(says).toContain('it does not go on');
    expect(fleet.alarms.filter((alarm) => alarm.startsWith('the drain of h1 does not go on')).length).toBe(1);
    const finding = checkFleet(fleet.plane).find(({ about }) => about === 'host h1: drain');
    expect(finding).toMatchObject({ severity: 'error' });
    expect(finding?.mend).toContain('drover host drain h1 --cancel');
    await fleet.join('h4');
    await allArrive();
    expect(view()).toMatchObject({ state: 'drained', blocked: null });
    expect(at('big')).toBe('h4');
  });

  test('because it cannot move live is shut down and started elsewhere where that was allowed', async () => {
    await fleet.run('gpu', 'h1');
    await fleet.plane.fleet.change((draft) =>
      draft.putVm({ ...fleet.vm('gpu'), cannotMoveLive: 'it has a GPU of h1' }),
    );
    await begin();
    await fleet.pass(2_000);
    expect(names()).toEqual([]);
    await begin({ allowCold: true });
    await fleet.pass(2_000);
    const [cold] = open();
    expect(cold).toMatchObject({ technique: 'cold' });
    await tell(cold!, 'source', { kind: 'sending' });
    await tell(cold!, 'source', { kind: 'powered-off' });
    await tell(cold!, 'target', { kind: 'resumed', withFaults: false });
    await fleet.pass(1_500);
    expect(view().state).toBe('drained');
  });

  test('because its moves fail is tried again ever later, and after five times somebody is told', async () => {
    await fleet.run('wild', 'h1');
    await begin();
    const begun: number[] = [];
    for (let turn = 0; turn < 5; turn++) {
      for (let second = 0; second < 400 && open().length === 0; second++) await fleet.pass(1_000);
      begun.push(open()[0]!.startedAt);
      await fail(open()[0]!);
      await fleet.pass(1_500);
      expect(fleet.alarms.length).toBe(turn === 4 ? 1 : 0);
    }
    const pauses = begun.slice(1).map((time, n) => Math.round((time - begun[n]!) / 1000));
    for (const [n, least] of [5, 15, 45, 120].entries()) {
      expect(pauses[n]).toBeGreaterThanOrEqual(least);
      expect(pauses[n]).toBeLessThan(least + 10);
    }
    expect(view().blocked?.says).toMatch(/^wild: its move mig_\w+ failed: It writes too fast\. \(5 times in a row\)$/);
    expect(view().vms[0]).toMatchObject({ state: 'stuck', failures: 5 });
    await fleet.restartServer();
    await fleet.pass(1_500);
    expect(view().vms[0]).toMatchObject({ state: 'stuck', failures: 5 });
  });

  test('because a person holds its move ready is left alone and named', async () => {
    await fleet.run('web1', 'h1');
    const body = migrateBody.parse({ to: 'h2', holdMs: 3_600_000 });
    const held = await fleet.plane.reservations.startMigration('web1', body, null, 'ann');
    await tell(held, 'target', { kind: 'listening', endpoint });
    await tell(held, 'source', { kind: 'sending' });
    await tell(held, 'source', { kind: 'armed' });
    await begin();
    await fleet.pass(95_000);
    expect(fleet.migration(held.id).hold?.switchRequestedAt).toBeNull();
    expect(view().blocked).toMatchObject({ next: expect.stringContaining(`drover migration switch ${held.id}`) });
  });
});

describe('a drain that is cancelled', () => {
  test('cancels its moves where that can be done, lifts its cordon, and what has left stays', async () => {
    await fleet.run('a', 'h1');
    await fleet.run('b', 'h1');
    await begin({ movesAtOnce: 1 });
    await fleet.pass(1_500);
    await arrive(open()[0]!);
    await fleet.pass(1_500);
    const [second] = open();
    await tell(second!, 'target', { kind: 'listening', endpoint });
    await tell(second!, 'source', { kind: 'sending' });
    await fleet.plane.drains.cancel('h1', 'ann');
    expect(host().cordoned).toBe(false);
    await fleet.agent('h1').order('cancel');
    await tell(second!, 'source', { kind: 'source-running', failure: null });
    await fleet.pass(5_000);
    expect(open()).toEqual([]);
    expect([at('a'), at('b')].toSorted()).toEqual(['h1', at('a')]);
    expect(states()).toEqual(['a left', 'b remained']);
    expect(view().says).toBe('the drain of h1 was cancelled (asked for): 1 of 2 VMs had left, 1 run there');
    await expect(fleet.plane.drains.cancel('h1', 'ann')).rejects.toThrow('h1 is not being drained.');
    await undrain();
    await allArrive();
    expect([at('a'), at('b')]).toEqual(['h1', 'h1']);
  });

  test('at the moment in which a move is to begin begins none', async () => {
    await fleet.run('a', 'h1');
    await begin();
    const beat = fleet.plane.drains.progress.tick();
    await Promise.all([beat, fleet.plane.drains.cancel('h1', 'ann')]);
    await fleet.pass(2_000);
    expect(open()).toEqual([]);
    expect(fleet.plane.fleet.migrations.size).toBe(0);
  });

  test('leaves a cordon that was there before it', async () => {
    await fleet.run('a', 'h1');
    await fleet.plane.fleet.change((draft) => draft.putHost({ ...host(), cordoned: true }));
    await begin();
    await fleet.plane.drains.cancel('h1', 'ann');
    expect(host().cordoned).toBe(true);
  });
});

describe('an undrain', () => {
  test('uncordons first and brings back those that were there, and no others', async () => {
    for (const name of ['a', 'b', 'c', 'd']) await fleet.run(name, 'h1', { memoryMiB: 256 });
    await fleet.run('other', 'h2', { memoryMiB: 256 });
    await begin({ because: 'new memory' });
    await allArrive();
    // Since then b was moved by somebody, c was switched off, d was deleted.
    const to = at('b') === 'h2' ? 'h3' : 'h2';
    await arrive(await fleet.plane.reservations.startMigration('b', migrateBody.parse({ to }), null, 'ann'));
    for (const name of ['c', 'd']) {
      const vm = await fleet.plane.vms.stop(name, { force: true, timeoutMs: 1_000 });
      await fleet.agent(at(name)).life(vm.id, { kind: 'ended', how: 'stopped', message: '' });
    }
    const gone = await fleet.plane.vms.remove('d', 'delete');
    await fleet.agent(fleet.plane.fleet.hostName(gone.host)).life(gone.id, { kind: 'removed' });
    const { plan } = await undrain();
    expect(host().cordoned).toBe(false);
    expect(plan.moves.map(({ vm }) => vm.name)).toEqual(['a']);
    await fleet.pass(1_500);
    expect(open()).toMatchObject([{ vmName: 'a', why: [{ by: 'drain', text: 'h1 is back: new memory' }] }]);
    await fleet.restartServer();
    await allArrive();
    expect(view().state).toBe('undrained');
    expect(states()).toEqual(['a back', 'b stays', 'c stays']);
    expect([at('a'), at('b'), at('other')]).toEqual(['h1', to, 'h2']);
    expect(view().says).toBe('h1 is undrained: 1 of 3 VMs are back; b, c stay where they are');
    await expect(undrain()).rejects.toThrow('h1 was undrained already.');
  });

  test('brings a VM home that a drain of another host has taken further since', async () => {
    await fleet.run('fill', 'h3', { memoryMiB: 4096 });
    await fleet.run('a', 'h1');
    await begin();
    await allArrive();
    expect(at('a')).toBe('h2');
    await begin({}, 'h2');
    await allArrive();
    expect(at('a')).toBe('h3');
    await undrain('h1');
    await allArrive();
    expect(at('a')).toBe('h1');
    await undrain('h2');
    await allArrive();
    expect(at('a')).toBe('h1');
  });

  test('gives up on a VM for which there is no room any more, and says so', async () => {
    await fleet.run('a', 'h1', { memoryMiB: 4096 });
    await begin();
    await allArrive();
    await fleet.plane.fleet.change((draft) => {
      const room = draft.room(host().id)!;
      draft.putRoom({ ...room, capacityMiB: 1024 });
    });
    await undrain();
    await fleet.pass(125_000);
    expect(view()).toMatchObject({ state: 'undrained', vms: [{ state: 'gave-up' }] });
    expect(view().vms[0]?.says).toContain('h1 has no room for a');
  });

  test('of a drain that is under way turns it round', async () => {
    await fleet.run('a', 'h1');
    await fleet.run('b', 'h1');
    await begin({ movesAtOnce: 1 });
    await fleet.pass(1_500);
    await arrive(open()[0]!);
    await fleet.pass(1_500);
    expect(names()).toEqual(['b']);
    await undrain();
    await allArrive();
    expect(view().state).toBe('undrained');
    expect([at('a'), at('b')]).toEqual(['h1', 'h1']);
  });

  test('can be cancelled: what is not back yet stays, and can be drained again with what is', async () => {
    for (const name of ['a', 'b', 'c']) await fleet.run(name, 'h1', { memoryMiB: 256 });
    await begin({ movesAtOnce: 1 });
    await allArrive();
    await undrain();
    await fleet.pass(1_500);
    await arrive(open()[0]!);
    await fleet.pass(1_500);
    expect(names()).toEqual(['b']);
    await fleet.plane.drains.cancel('h1', 'ann');
    await fleet.pass(2_000);
    expect(states()).toEqual(['a back', 'b stays', 'c stays']);
    expect(view().state).toBe('undrained');
    expect(open()).toEqual([]);
  });

  test('turns round when the host is drained again meanwhile: all leave, and all come back in the end', async () => {
    for (const name of ['a', 'b']) await fleet.run(name, 'h1', { memoryMiB: 256 });
    await begin({ movesAtOnce: 1 });
    await allArrive();
    await undrain();
    await fleet.pass(1_500);
    await arrive(open()[0]!);
    await fleet.pass(1_500);
    const [turned] = open();
    await begin();
    await tell(turned!, 'target', { kind: 'closed' });
    await allArrive();
    expect(view()).toMatchObject({ state: 'drained', done: 2 });
    expect(host().cordoned).toBe(true);
    await undrain();
    await allArrive();
    expect([at('a'), at('b')]).toEqual(['h1', 'h1']);
  });

  test('is refused while the host is silent, and where nothing was drained', async () => {
    await fleet.run('a', 'h1');
    await expect(undrain('h2')).rejects.toThrow('h2 was never drained.');
    await begin();
    await allArrive();
    fleet.agent('h1').channel?.close('gone');
    await fleet.pass(5_000);
    await expect(undrain()).rejects.toThrow('h1 is silent');
    await expect(begin()).rejects.toThrow('h1 is silent');
  });
});

test('a second drain of a host in which something has come since takes along what the first has moved', async () => {
  await fleet.run('a', 'h1');
  await begin();
  await allArrive();
  const first = drain().id;
  await begin();
  expect(drain().id).toBe(first);
  await fleet.plane.fleet.change((draft) => draft.putHost({ ...host(), cordoned: false }));
  await fleet.run('b', 'h1');
  await begin();
  expect(drain().id).not.toBe(first);
  await allArrive();
  await undrain();
  await allArrive();
  expect([at('a'), at('b')]).toEqual(['h1', 'h1']);
});

test('an uncordon by hand ends a drain: nothing is moved any more', async () => {
  await fleet.run('a', 'h1');
  await begin();
  await fleet.plane.fleet.change((draft) => {
    const next = { ...host(), cordoned: false };
    draft.putHost(next);
    fleet.plane.drains.uncordoned(draft, next, 'ann');
  });
  await fleet.pass(3_000);
  expect(open()).toEqual([]);
  expect(view()).toMatchObject({ state: 'cancelled', says: expect.stringContaining('the host was uncordoned') });
});

test('the moves from a host that is drained belong to the drain, also when it is failing', async () => {
  for (const name of ['a', 'b', 'c']) await fleet.run(name, 'h1', { memoryMiB: 256 });
  await fleet.plane.fleet.change((draft) => {
    const failing = { severity: 'suspect', at: fleet.clock.now(), by: 'ann', because: 'a fan stands still' } as const;
    draft.putHost({ ...host(), failing });
  });
  await fleet.pass(1_500);
  expect(open().map(({ hold }) => hold?.switchRequestedAt)).toEqual([null, null]);
  await begin();
  await fleet.pass(2_500);
  expect(open().filter(({ hold }) => typeof hold?.switchRequestedAt === 'number').length).toBe(2);
  await allArrive();
  expect(view()).toMatchObject({ state: 'drained', done: 3 });
  expect(new Set([...fleet.plane.fleet.migrations.values()].map(({ vm }) => vm)).size).toBe(3);
});

test('a failing host that is drained loses its guests no faster than the drain says', async () => {
  for (const name of ['a', 'b', 'c']) await fleet.run(name, 'h1', { memoryMiB: 256 });
  await begin({ movesAtOnce: 1 });
  await fleet.plane.fleet.change((draft) => {
    const failing = { severity: 'failing', at: fleet.clock.now(), by: 'ann', because: 'a fan stands still' } as const;
    draft.putHost({ ...host(), failing });
  });
  await fleet.pass(4_000);
  expect(names()).toEqual(['a']);
  await fleet.plane.drains.cancel('h1', 'ann');
  await fleet.pass(2_000);
  expect(open().map(({ why }) => why[0]?.by)).toEqual(['evacuation', 'evacuation']);
});
