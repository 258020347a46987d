/** A store that went back in time: what was decided since is not undone. */
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { MigrationId, VmId } from '../model/ids.ts';
import type { Migration, Technique } from '../model/migration.ts';
import type { VmRecord } from '../model/vm.ts';
import { brokenInvariants } from '../migration/invariants.ts';
import { silentLog } from '../runtime/log.ts';
import type { Kept } from '../store/memory.ts';
import type { KnownVm } from '../wire/agent.ts';
import { migrateBody } from '../wire/endpoints.ts';
import { backupOf, restoreInto } from './backup.ts';
import { readBackup } from '../wire/backup.ts';
import { Engine } from '../store/memory.ts';
import { checkFleet } from './doctor.ts';
import { FakeFleet, frozen, settled, until } from './fake-fleet.ts';
import type { FakeAgent, MoveFact } from './fake-fleet.ts';
import { createApi } from './server.ts';

let fleet: FakeFleet;
beforeEach(async () => {
  fleet = await FakeFleet.start(['h1', 'h2', 'h3']);
});
afterEach(async () => {
  // Whatever happened, the books must balance.
  for (const migration of fleet.plane.fleet.migrations.values()) expect(brokenInvariants(migration)).toEqual([]);
  expect(checkFleet(fleet.plane).filter(({ mend }) => mend?.startsWith('This is a bug'))).toEqual([]);
  await fleet.stopServer();
});

/** The store as it was, restored by the command: the servers know, the agents do not. */
async function restored(before: Kept): Promise<Kept> {
  const old = new Engine({}, undefined, before).connect();
  async function* bytes() {
    for await (const line of backupOf(old, '0.1.0', fleet.clock)) yield Buffer.from(line);
  }
  const engine = new Engine();
  const store = engine.connect();
  await restoreInto(store, await readBackup(bytes(), 'f'), { replace: false, at: fleet.clock.now() });
  const { entries, revision } = await store.list('');
  return { entries, revision, history: [] };
}

function knows(vm: VmRecord, part: string, more: Partial<KnownVm> = {}): KnownVm {
  return {
    vm: vm.id,
    name: vm.name,
    generation: vm.generation,
    part,
    runs: part !== 'none' && part !== 'gone-unrun',
    running: part === 'none' ? null : frozen(vm),
    migration: more.job?.migration ?? null,
    job: null,
    targetPeer: null,
    ...more,
  };
}

function holds(name: string, ...known: KnownVm[]): void {
  const agent = fleet.agent(name);
  agent.known = known;
  agent.guests = known
    .filter(({ runs }) => runs)
    .map(({ vm, generation, part, migration }) => ({ vm, generation, state: part, migration }));
}

/** Says hello until it is welcome and stays so: a host that is asked again dials again. */
async function dial(agent: FakeAgent): Promise<void> {
  for (let attempt = 0; attempt < 5; attempt++) {
    if (agent.connected) return;
    await agent.connect();
    await settled();
    if (fleet.newerTerm > fleet.plane.fleet.term) await newTerm();
  }
}

/** What main.ts does when an agent has obeyed a newer term. */
async function newTerm(): Promise<void> {
  await fleet.stopServer();
  await fleet.startServer();
  await settled();
}

/** Puts the store back and lets these hosts say hello, in this order, each with nothing ordered of it before. */
async function back(kept: Kept, order: readonly string[] = ['h1', 'h2', 'h3']): Promise<void> {
  await fleet.startServerOn(kept);
  await settled();
  for (const agent of fleet.agents.values()) agent.orders = [];
  // Twice: those who came before it was noticed are asked again.
  for (const name of [...order, ...order]) await dial(fleet.agent(name));
  await settled();
}

const ordered = (): string[] =>
  [...fleet.agents.values()].flatMap(({ name, orders }) => orders.map(({ kind }) => `${name} ${kind}`));

const endpoint = { address: '10.0.1.2', port: 4000 };
const preCopy: readonly (readonly ['h1' | 'h2', MoveFact])[] = [
  ['h2', { kind: 'listening', endpoint }],
  ['h1', { kind: 'sending' }],
  ['h1', { kind: 'stopped', for: 'stop-and-copy' }],
  ['h1', { kind: 'handed-over' }],
  ['h2', { kind: 'resumed', withFaults: false }],
  ['h1', { kind: 'released' }],
];

async function begin(technique: Technique = 'pre-copy'): Promise<Migration> {
  const body = migrateBody.parse({ to: 'h2', technique });
  return fleet.plane.reservations.startMigration('web1', body, null, 'test');
}

async function walk(id: MigrationId, upTo = preCopy.length): Promise<void> {
  for (const [host, fact] of preCopy.slice(0, upTo)) await fleet.agent(host).move(id, fact);
}

const jobOf = (move: Migration) => ({
  migration: move.id,
  vmName: move.vmName,
  technique: move.technique,
  policy: move.policy,
  running: move.running,
  postCopy: false,
  startedAt: move.startedAt,
});
const hostOf = (vm: string): string => fleet.plane.fleet.hostName(fleet.vm(vm).host);

describe.each(['restored by the command', 'copied back as a file'])('a store %s', (way) => {
  const putBack = async (kept: Kept, order?: readonly string[]) =>
    back(way === 'restored by the command' ? await restored(kept) : kept, order);

  test.each([[['h1', 'h2', 'h3']], [['h3', 'h2', 'h1']], [['h2', 'h3', 'h1']]])(
    'does not start a VM where it ran before it moved (%s say hello)',
    async (order) => {
      const vm = await fleet.run('web1', 'h1');
      const copy = await fleet.copyStore();
      const { id } = await begin();
      await walk(id);
      const moved = fleet.vm('web1');
      holds('h1', knows(moved, 'none'));
      holds('h2', knows(moved, 'runs'));
      await putBack(copy, order);
      expect(hostOf('web1')).toBe('h2');
      expect(fleet.vm('web1')).toMatchObject({ generation: vm.generation + 1, state: { kind: 'running' } });
      expect(ordered()).toEqual(['h2 keep']);
      expect([fleet.room('h1'), fleet.room('h2')]).toEqual(['0+0', '512+0']);
      // The next decision is newer than all that any host has seen.
      const { generation } = await fleet.plane.vms.stop('web1', { force: true, timeoutMs: 1 });
      expect(generation).toBe(moved.generation + 1);
    },
  );

  test('does not start a VM that was stopped or deleted since', async () => {
    const web1 = await fleet.run('web1', 'h1');
    const web2 = await fleet.run('web2', 'h2');
    const copy = await fleet.copyStore();
    await fleet.plane.vms.stop('web1', { force: true, timeoutMs: 1 });
    await fleet.agent('h1').life(web1.id, { kind: 'ended', how: 'stopped', message: '' });
    await fleet.plane.vms.stop('web2', { force: true, timeoutMs: 1 });
    await fleet.agent('h2').life(web2.id, { kind: 'ended', how: 'stopped', message: '' });
    await fleet.plane.vms.remove('web2', 'delete');
    await fleet.agent('h2').life(web2.id, { kind: 'removed' });
    holds('h1', knows(web1, 'none'));
    holds('h2');
    await putBack(copy);
    await fleet.pass(30_000);
    for (const name of ['web1', 'web2']) {
      expect(fleet.vm(name).state).toEqual({
        kind: 'crashed',
        message: expect.stringContaining('no host runs it now'),
      });
    }
    expect(ordered()).toEqual([]);
  });

  test('does not repeat a start, a stop or a delete that was due at its time', async () => {
    const [starting, stopping] = [await fleet.run('web1', 'h1'), await fleet.run('web2', 'h1')];
    await fleet.plane.vms.stop('web1', { force: true, timeoutMs: 1 });
    await fleet.agent('h1').life(starting.id, { kind: 'ended', how: 'stopped', message: '' });
    await fleet.plane.vms.start('web1', 'h1');
    await fleet.plane.vms.stop('web2', { force: true, timeoutMs: 1 });
    const copy = await fleet.copyStore();
    // Since then: web1 was started, and started elsewhere; web2 was stopped and started again.
    await fleet.agent('h1').life(starting.id, { kind: 'started', running: frozen(starting) });
    await fleet.agent('h1').life(starting.id, { kind: 'ended', how: 'powered-off', message: '' });
    const elsewhere = await fleet.plane.vms.start('web1', 'h3');
    await fleet.agent('h1').life(stopping.id, { kind: 'ended', how: 'stopped', message: '' });
    const again = await fleet.plane.vms.start('web2', 'h1');
    await settled();
    holds('h1', knows(starting, 'none'), knows(again, 'runs'));
    holds('h3', knows(elsewhere, 'runs'));
    await putBack(copy);
    await fleet.pass(30_000);
    expect(ordered().toSorted()).toEqual(['h1 keep', 'h3 keep']);
    expect([hostOf('web1'), hostOf('web2')]).toEqual(['h3', 'h1']);
    expect([fleet.vm('web1').state.kind, fleet.vm('web2').state.kind]).toEqual(['running', 'running']);
  });

  test('has a VM that was made since on record again', async () => {
    await fleet.run('web1', 'h1');
    const copy = await fleet.copyStore();
    const made = await fleet.run('web9', 'h2');
    holds('h1', knows(fleet.vm('web1'), 'runs'));
    holds('h2', knows(made, 'runs'));
    await putBack(copy);
    expect(fleet.vm('web9')).toMatchObject({ id: made.id, spec: made.spec, state: { kind: 'running' } });
    expect([hostOf('web9'), fleet.room('h2')]).toEqual(['h2', '512+0']);
    expect(new Set(ordered())).toEqual(new Set(['h1 keep', 'h2 keep']));
    expect(fleet.alarms).toContainEqual(expect.stringMatching(/web9 was made after/));
  });

  // Later copies of the file lack nothing but facts: what is then due is ordered, and done already.
  test.each([0, 1, 2, 3, 4])('ends a move that was open after %i facts and is over', async (upTo) => {
    await fleet.run('web1', 'h1');
    const { id } = await begin();
    await walk(id, upTo);
    const copy = await fleet.copyStore();
    for (const [host, fact] of preCopy.slice(upTo)) await fleet.agent(host).move(id, fact);
    expect(fleet.migration(id).phase).toBe('completed');
    holds('h1', knows(fleet.vm('web1'), 'none'));
    holds('h2', knows(fleet.vm('web1'), 'runs'));
    await putBack(copy);
    await fleet.pass(30_000);
    expect(fleet.migration(id).phase).toBe('completed');
    expect(fleet.vm('web1')).toMatchObject({ migration: null, state: { kind: 'running' } });
    expect([hostOf('web1'), fleet.room('h1'), fleet.room('h2')]).toEqual(['h2', '0+0', '512+0']);
    expect(ordered()).toEqual(['h2 keep']);
  });

  test.each([0, 1, 2])('ends a move that was open after %i facts and was cancelled since', async (upTo) => {
    await fleet.run('web1', 'h1');
    const { id } = await begin();
    await walk(id, upTo);
    const copy = await fleet.copyStore();
    await fleet.plane.migrations.cancel(id);
    holds('h1', knows(fleet.vm('web1'), 'runs'));
    holds('h2', knows(fleet.vm('web1'), 'gone-unrun'));
    await putBack(copy);
    await fleet.pass(30_000);
    expect(fleet.migration(id).phase).toBe('cancelled');
    expect([hostOf('web1'), fleet.room('h1'), fleet.room('h2')]).toEqual(['h1', '512+0', '0+0']);
    expect(ordered()).toEqual(['h1 keep']);
  });

  test('clears nothing away that was cleared away since: the guest may have come there again', async () => {
    await fleet.run('web1', 'h1');
    const first = await begin();
    await walk(first.id, 1);
    await fleet.plane.migrations.cancel(first.id);
    await fleet.agent('h1').move(first.id, { kind: 'source-running', failure: null });
    const copy = await fleet.copyStore();
    await fleet.agent('h2').move(first.id, { kind: 'closed' });
    const second = await begin();
    await walk(second.id);
    holds('h1', knows(fleet.vm('web1'), 'none'));
    holds('h2', knows(fleet.vm('web1'), 'runs'));
    await putBack(copy);
    await fleet.pass(30_000);
    expect(ordered()).toEqual(['h2 keep']);
    expect([hostOf('web1'), fleet.room('h1'), fleet.room('h2')]).toEqual(['h2', '0+0', '512+0']);
  });

  test('lets a move go on that was open then and is open now', async () => {
    await fleet.run('web1', 'h1');
    const move = await begin();
    const copy = await fleet.copyStore();
    await walk(move.id, 2);
    const job = jobOf(move);
    holds('h1', knows(fleet.vm('web1'), 'sending', { job, targetPeer: { address: 'h2.peer', port: 7072 } }));
    holds('h2', knows(fleet.vm('web1'), 'receiving', { job }));
    await putBack(copy);
    expect(fleet.migration(move.id).phase).toBe('warming-up');
    for (const [host, fact] of preCopy.slice(2)) await fleet.agent(host).move(move.id, fact);
    expect(fleet.migration(move.id).phase).toBe('completed');
    expect(hostOf('web1')).toBe('h2');
    expect(new Set(ordered())).toEqual(new Set(['h2 go', 'h1 release']));
  });

  test.each([
    ['sending', 'receiving', 2],
    ['handed-over', 'receiving', 4],
    ['handed-over', 'runs', 5],
  ])('finds a move that began since: %s on the source, %s on the target', async (onSource, onTarget, told) => {
    await fleet.run('web1', 'h1');
    const copy = await fleet.copyStore();
    const move = await begin();
    await walk(move.id, told);
    const job = jobOf(move);
    const vm = { ...fleet.vm('web1'), generation: move.generation };
    holds('h1', knows(vm, onSource, { job, targetPeer: { address: 'h2.peer', port: 7072 } }));
    holds('h2', knows(vm, onTarget, onTarget === 'runs' ? {} : { job }));
    await putBack(copy);
    expect(fleet.vm('web1').migration).toBe(move.id);
    for (const [host, fact] of preCopy.slice(told)) await fleet.agent(host).move(move.id, fact);
    expect(fleet.migration(move.id).phase).toBe('completed');
    expect(hostOf('web1')).toBe('h2');
    expect([fleet.room('h1'), fleet.room('h2')]).toEqual(['0+0', '512+0']);
  });

  test('orders nothing and takes no word from people while a host is missing, and says which', async () => {
    const vm = await fleet.run('web1', 'h1');
    await fleet.plane.vms.stop('web1', { force: true, timeoutMs: 1 });
    const copy = await fleet.copyStore();
    await fleet.agent('h1').life(vm.id, { kind: 'ended', how: 'stopped', message: '' });
    await fleet.plane.vms.start('web1', 'h2');
    await settled();
    holds('h2', knows(fleet.vm('web1'), 'runs'));
    holds('h1', knows(vm, 'none'));
    await putBack(copy, ['h2', 'h1']);
    await fleet.pass(60_000);
    expect(ordered()).toEqual([]);
    const token = 'a-token-for-tests';
    const api = createApi({ plane: fleet.plane, token, log: silentLog, checkReplies: true });
    const call = async (method: 'GET' | 'POST', url: string, body?: object) => {
      const answer = await api.inject({
        method,
        url: `/api/v1${url}`,
        headers: { authorization: `Bearer ${token}` },
        ...(body ? { body } : {}),
      });
      return { status: answer.statusCode, body: answer.json<unknown>() };
    };
    expect(await call('POST', '/vms/web1/start', {})).toMatchObject({
      status: 503,
      body: {
        code: 'unavailable',
        detail: expect.stringMatching(/older than the fleet .* h3 has not said/),
        hint: expect.stringContaining('drover host fenced h3'),
      },
    });
    expect(await call('GET', '/vms/web1')).toMatchObject({ status: 200 });
    expect(await call('GET', '/status')).toMatchObject({ body: { held: { missing: ['h3'] } } });
    expect(checkFleet(fleet.plane)).toContainEqual(
      expect.objectContaining({ severity: 'error', about: 'records', says: expect.stringContaining('until h3') }),
    );
    await dial(fleet.agent('h3'));
    await until('the records are free', () => !fleet.plane.held.isHeld);
    expect(await call('GET', '/status')).toMatchObject({ body: { held: null } });
    expect(fleet.alarms.at(-1)).toMatch(/orders are given again/);
    expect(await call('POST', '/vms/web1/stop', {})).toMatchObject({ status: 202 });
    await api.close();
  });

  test('counts a host as heard of when it was proven off since, and not when that was before', async () => {
    await fleet.run('web1', 'h1');
    const fence = (at: number) =>
      fleet.plane.fleet.change((draft) => {
        const h3 = fleet.plane.fleet.findHost('h3');
        draft.putHost({ ...h3, fenced: { at, proof: 'word', by: 'me', because: 'it is off' } });
      });
    await fence(fleet.clock.now());
    await fleet.clock.advance(1_000);
    const copy = await fleet.copyStore();
    await fleet.plane.vms.stop('web1', { force: true, timeoutMs: 1 });
    holds('h1', knows(fleet.vm('web1'), 'none'));
    await putBack(copy, ['h1', 'h2']);
    expect(fleet.plane.held.missing().map(({ name }) => name)).toEqual(['h3']);
    await fence(fleet.clock.now());
    await fleet.pass(2_000);
    expect(fleet.plane.held.isHeld).toBe(false);
  });

  test('gives no session out twice', async () => {
    const copy = await fleet.copyStore();
    fleet.agent('h1').reports = false;
    await fleet.pass(5_000);
    fleet.agent('h1').reports = true;
    await fleet.agent('h1').connect();
    expect(fleet.agent('h1').session).toBe(2);
    await putBack(copy);
    expect([...fleet.agents.values()].map(({ name, session }) => `${name} ${session}`)).toEqual([
      'h1 3',
      'h2 1',
      'h3 1',
    ]);
  });

  test('asks every host again after a restart of the server', async () => {
    await fleet.run('web1', 'h1');
    const copy = await fleet.copyStore();
    await fleet.plane.vms.stop('web1', { force: true, timeoutMs: 1 });
    holds('h1', knows(fleet.vm('web1'), 'none'));
    await putBack(copy, ['h1', 'h2']);
    await fleet.stopServer();
    await fleet.startServer();
    expect(fleet.plane.held.missing()).toHaveLength(3);
    await dial(fleet.agent('h3'));
    expect(fleet.plane.held.missing()).toHaveLength(2);
  });

  test('puts what hosts say meanwhile on record when it is known where everything is', async () => {
    const vm = await fleet.run('web1', 'h1');
    const copy = await fleet.copyStore();
    const { id } = await begin();
    await walk(id);
    holds('h1', knows(fleet.vm('web1'), 'none'));
    holds('h2', knows(fleet.vm('web1'), 'runs'));
    await putBack(copy, ['h1', 'h2']);
    const saying = fleet.agent('h2').life(vm.id, { kind: 'ended', how: 'powered-off', message: '' }, 2);
    await settled();
    expect(fleet.vm('web1').state.kind).toBe('running');
    await dial(fleet.agent('h3'));
    await saying;
    expect(fleet.vm('web1')).toMatchObject({ state: { kind: 'stopped' } });
    expect(hostOf('web1')).toBe('h2');
  });
});

describe('a store that went back is noticed', () => {
  test('by a newer term, which the next term is above; and stays held over that', async () => {
    const copy = await fleet.copyStore();
    await fleet.restartServer();
    await fleet.restartServer();
    await fleet.startServerOn(copy);
    expect(fleet.plane.fleet.term).toBe(2);
    await fleet.agent('h1').connect();
    await settled();
    expect(fleet.newerTerm).toBe(3);
    await newTerm();
    expect(fleet.plane.fleet.term).toBe(4);
    expect(fleet.plane.held.missing()).toHaveLength(3);
  });

  test('by an order of a newer revision, in the same term', async () => {
    const copy = await fleet.copyStore();
    await fleet.run('web1', 'h1');
    await fleet.startServerOn(copy);
    expect(fleet.plane.held.isHeld).toBe(false);
    await fleet.agent('h1').connect();
    expect(fleet.plane.fleet.restored?.because).toMatch(/^h1 has an order of revision \d+/);
  });

  test('by another leader of the same term', async () => {
    const copy = await fleet.copyStore();
    await fleet.restartServer();
    await fleet.startServerOn(copy);
    expect(fleet.plane.fleet.term).toBe(fleet.agent('h1').newestTerm);
    await settled();
    await fleet.agent('h1').connect();
    expect(fleet.plane.fleet.restored?.because).toBe('h1 has obeyed another leader of this same term 2');
  });

  test('and one that did not is not: restarts, hosts that come and go, another fleet’s guests', async () => {
    await fleet.run('web1', 'h1');
    holds('h1', knows(fleet.vm('web1'), 'runs'));
    // The cast: an id that was given out by another fleet.
    holds('h2', { ...knows(fleet.vm('web1'), 'runs'), vm: 'vm_stranger' as VmId, generation: 99 });
    for (let round = 0; round < 3; round++) {
      await fleet.restartServer();
      await fleet.pass(2_000);
      expect(fleet.plane.fleet.restored).toBeUndefined();
    }
  });

  test('and a server that was replaced does not take the newer term for it', async () => {
    const { held } = fleet.plane;
    const store = fleet.engine.connect();
    await store.commit([], [{ key: 'control/leader', delete: true }]);
    await expect(held.begin('a host obeyed term 9')).rejects.toMatchObject({ code: 'unavailable' });
    expect(held.isHeld).toBe(false);
    await store.close();
  });
});
