/** The distributor on a fake fleet: what it begins, what it leaves alone, and what it learns. */
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { BalanceSettings, PlanRecord } from '../model/distribution.ts';
import type { GuestLoad } from '../model/host.ts';
import type { Migration } from '../model/migration.ts';
import { newSleepRecord } from '../model/sleep.ts';
import { isEnd } from '../migration/phases.ts';
import { decisionSays, planSays } from './balance-views.ts';
import { distributor as by } from './plan-runner.ts';
import { cautionNow } from './conscience.ts';
import { presentState } from './events.ts';
import { FakeFleet } from './fake-fleet.ts';
import { migrationSays } from './views.ts';

const endpoint = { address: '10.0.1.2', port: 4444 };
const minute = 60_000;
/** Rarely enough that hours pass quickly, and often enough that no host seems silent. */
const reportMs = 2_500;
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
});
afterEach(() => fleet.stopServer());

const set = (changes: Partial<BalanceSettings>) => fleet.plane.distributor.set(changes, 'ann');
const moves = (): Migration[] => [...fleet.plane.fleet.migrations.values()];
const open = (): Migration[] => moves().filter(({ phase }) => !isEnd(phase));
const plans = (): PlanRecord[] => [...fleet.plane.fleet.plans.values()];
const orders = (): string[] => [...fleet.agents.values()].flatMap((agent) => agent.kinds());
const hostOf = (vm: string): string => fleet.plane.fleet.hostName(fleet.vm(vm).host);

/** Four busy guests on h1, nothing elsewhere. */
async function crowd(memoryMiB = 512): Promise<void> {
  for (const name of ['a', 'b', 'c', 'd']) {
    await fleet.run(name, 'h1', { memoryMiB });
    busy[name] = 0.8;
  }
  for (const agent of fleet.agents.values()) agent.orders = [];
}

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

/** Time passes; moves that are begun succeed. */
async function live(ms: number): Promise<void> {
  for (let left = ms; left > 0; left -= 10_000) {
    await fleet.pass(Math.min(left, 10_000), reportMs);
    for (const migration of open()) await complete(migration);
  }
}

/** Until the loop has begun moves that nobody answers yet. */
async function begun(): Promise<Migration[]> {
  for (let tries = 0; tries < 240 && open().length === 0; tries++) await fleet.pass(reportMs, reportMs);
  return open();
}

describe('automatic mode', () => {
  test('spreads a crowd once a host has stood out for a while, and then leaves steady load alone for an hour', async () => {
    await crowd();
    await set({ mode: 'automatic', level: 3 });
    await live(2 * minute);
    expect(moves()).toEqual([]);
    await live(6 * minute);
    const made = moves().length;
    expect(made).toBeGreaterThanOrEqual(2);
    expect(new Set(['a', 'b', 'c', 'd'].map(hostOf))).toEqual(new Set(['h1', 'h2', 'h3']));
    expect(moves()[0]?.why[0]).toMatchObject({
      by,
      text: expect.stringMatching(/^Evens out CPU: .* Gain 0\.\d+, about/),
    });
    await live(60 * minute);
    expect(moves()).toHaveLength(made);
    expect(plans().map(({ state }) => state.kind)).toEqual(['done']);
    // Also when the store has forgotten what happened.
    const told = presentState(fleet.plane).filter(({ type }) => type === 'decision');
    expect(told.map(({ says }) => says)[0]).toMatch(
      /^. h1 -> h\d, moved by itself: Evens out CPU: .* expected gain 0\./,
    );
    expect(told).toHaveLength(made);
    expect(told.every(({ at }) => at < fleet.clock.now() - 30 * minute)).toBe(true);
  });

  test('tells of each move why it is made when it begins', async () => {
    await crowd();
    await set({ mode: 'automatic' });
    const [move] = await begun();
    expect(move!.phase).toBe('reserved');
    expect(migrationSays(fleet.plane.fleet, move!)).toMatch(/ h1 -> h\d: reserved: Evens out CPU: .* \(distributor\)$/);
  });

  test('begins nothing in quiet hours, and goes on when they are over', async () => {
    await crowd();
    const now = new Date(fleet.clock.now());
    const from = now.getUTCHours() * 60 + now.getUTCMinutes();
    await set({ mode: 'automatic', quietHours: [{ from, to: (from + 15) % 1_440 }] });
    await live(12 * minute);
    expect(moves()).toEqual([]);
    expect(fleet.plane.distributor.loopWaits()).toMatch(/^it is quiet until \d\d:\d\d$/);
    await live(6 * minute);
    expect(moves().length).toBeGreaterThan(0);
  });

  test('begins no more moves within an hour than it may, and no more at once', async () => {
    await crowd();
    await set({ mode: 'automatic', movesPerHour: 1, movesAtOnce: 1 });
    expect(await begun()).toHaveLength(1);
    await fleet.pass(5_000);
    expect(open()).toHaveLength(1);
    await live(30 * minute);
    expect(moves()).toHaveLength(1);
    expect(fleet.plane.distributor.loopWaits()).toBe(
      '1 move was begun by itself within the last hour, and more it may not',
    );
  });

  test('does not follow load that swings to and fro, and leaves a VM alone that was moved', async () => {
    await crowd();
    await set({ mode: 'automatic', level: 5, unevenForMs: minute, dwellMs: 60 * minute });
    for (let swing = 0; swing < 10; swing++) {
      busy = swing % 2 === 0 ? { a: 1.5, b: 0.1, c: 0.1, d: 1 } : { a: 0.1, b: 1.5, c: 1, d: 0.1 };
      await live(5 * minute);
    }
    const times = new Map<string, number>();
    for (const { vmName } of moves()) times.set(vmName, (times.get(vmName) ?? 0) + 1);
    expect(Math.max(...times.values())).toBe(1);
  });

  test('looks at load that lasts, and not at a peak of half a minute', async () => {
    await crowd(64);
    busy = {};
    await set({ mode: 'automatic', level: 5 });
    await live(3 * minute);
    busy = { a: 2, b: 2 };
    await live(30_000);
    busy = {};
    await live(10 * minute);
    expect(moves()).toEqual([]);
  });

  test('begins nothing while a host is silent, and a new server not before it has seen the load', async () => {
    await crowd();
    await set({ mode: 'automatic' });
    await fleet.pass(2 * minute, reportMs);
    await fleet.restartServer();
    await fleet.pass(5_000);
    expect(fleet.plane.distributor.cannotBegin()).toMatch(
      /^the load of the hosts has been seen for .*30.0 s are needed$/,
    );
    fleet.agent('h3').reports = false;
    await fleet.pass(6 * minute, reportMs);
    expect(fleet.plane.distributor.cannotBegin()).toMatch(/^h3 is silent/);
    expect(moves()).toEqual([]);
  });

  test('is not held up by a host that sleeps on purpose, and sends nothing there', async () => {
    await crowd();
    const { id } = fleet.plane.fleet.findHost('h3');
    const state = { kind: 'asleep', since: 0, by: 'ann', because: 'night', drill: false } as const;
    fleet.agent('h3').reports = false;
    await fleet.pass(5_000);
    await fleet.plane.fleet.change((draft) => draft.putSleep({ ...newSleepRecord(id, 0), state }));
    await set({ mode: 'automatic' });
    await fleet.pass(10 * minute, reportMs);
    expect(fleet.plane.distributor.cannotBegin()).toBeNull();
    expect(moves().length).toBeGreaterThan(0);
    expect(moves().filter(({ target }) => target === id)).toEqual([]);
  });

  test('leaves the VMs of a drain to the drain', async () => {
    await crowd();
    await fleet.plane.drains.begin(
      'h1',
      { because: 'new memory', movesAtOnce: null, allowCold: null, dryRun: false },
      'ann',
    );
    await set({ mode: 'automatic' });
    await fleet.pass(20 * minute, reportMs);
    expect(moves().filter(({ why }) => why[0]?.by === 'distributor')).toEqual([]);
  });

  test('goes on with its plan after a restart of the server, and begins no move twice', async () => {
    await crowd();
    await set({ mode: 'automatic', movesAtOnce: 1 });
    const [first] = await begun();
    await fleet.restartServer();
    await complete(fleet.migration(first!.id));
    await live(3 * minute);
    const [plan] = plans();
    expect(plan?.state.kind).toBe('done');
    expect(plan?.moves.map(({ state }) => state)).toEqual(plan?.moves.map(() => 'done'));
    expect(moves()).toHaveLength(plan!.moves.length);
    expect(fleet.plane.fleet.decisions.size).toBe(plan!.moves.length);
  });

  test('measures what its moves have brought, and moves that did not pay make it more cautious for some hours', async () => {
    await crowd();
    await set({ mode: 'automatic' });
    await live(5 * minute);
    const decisions = () => [...fleet.plane.fleet.decisions.values()];
    expect(decisions().length).toBeGreaterThan(0);
    busy = {};
    await live(10 * minute);
    expect(decisions().map(({ measured }) => measured?.paid)).toEqual(decisions().map(() => false));
    const after = fleet.plane.fleet.balance.caution;
    expect(after.factor).toBeGreaterThan(1.2);
    expect(cautionNow(after, after.at + 6 * 60 * minute)).toBeCloseTo(1 + (after.factor - 1) / 2);
  });

  test('gives each move a reason that can be read, before and after it was measured', async () => {
    await crowd();
    await set({ mode: 'automatic' });
    await live(5 * minute);
    const says = () => decisionSays(fleet.plane.fleet, [...fleet.plane.fleet.decisions.values()][0]!);
    expect(says()).toMatch(/^[a-d] h1 -> h[23], moved by itself: Evens out CPU: .*\. expected gain 0\.\d{3}$/);
    expect(planSays(plans()[0]!)).toMatch(/^plan_\w+ balance, \d moves: done: all its steps are done$/);
    await live(10 * minute);
    expect(says()).toMatch(/expected gain 0\.\d{3}, measured 0\.\d{3}: \d+ % of what was expected came$/);
  });

  test('is content with moves that brought what was expected', async () => {
    await crowd();
    await set({ mode: 'automatic' });
    await live(15 * minute);
    const decisions = [...fleet.plane.fleet.decisions.values()];
    for (const { measured, expectedGain } of decisions) {
      expect(measured).toMatchObject({ paid: true, gain: expect.closeTo(expectedGain!, 2) });
    }
    expect(fleet.plane.fleet.balance.caution.factor).toBe(1);
  });
});

describe('a plan', () => {
  const proposed = async (): Promise<PlanRecord> => {
    await fleet.pass(minute, reportMs);
    return fleet.plane.distributor.propose({ goal: 'balance', maxMoves: 100 }, 'asked for');
  };

  test('in manual mode waits for a person, and runs when one accepts it', async () => {
    await crowd();
    await set({ mode: 'manual' });
    await live(5 * minute);
    const [plan] = plans();
    expect(plan).toMatchObject({
      origin: 'loop',
      state: { kind: 'proposed' },
      because: expect.stringContaining('h1 uses'),
    });
    expect(moves()).toEqual([]);
    await fleet.plane.distributor.accept(plan!.id, 'ann');
    await live(2 * minute);
    expect(fleet.plane.fleet.findPlan(plan!.id).state.kind).toBe('done');
  });

  test('that was dismissed is not proposed again for some hours, and one that is too old cannot be accepted', async () => {
    await crowd();
    await set({ mode: 'manual' });
    await live(5 * minute);
    await fleet.plane.distributor.dismiss(plans()[0]!.id, 'ann');
    await live(20 * minute);
    expect(plans()).toHaveLength(1);
    const other = await proposed();
    await live(16 * minute);
    await expect(fleet.plane.distributor.accept(other.id, 'ann')).rejects.toMatchObject({
      code: 'wrong-state',
      message: `The plan ${other.id} is expired: nobody accepted it in time.`,
      hint: 'Ask for a new one: drover balance.',
    });
    expect(moves()).toEqual([]);
  });

  test('that has gone stale is stopped and says why', async () => {
    await crowd();
    const plan = await proposed();
    const { vm, vmName } = plan.moves[0]!;
    await fleet.plane.fleet.change((draft) => {
      const now = draft.vm(vm)!;
      draft.putVm({ ...now, placing: { ...now.placing, pinnedTo: ['h1'] } });
    });
    await fleet.plane.distributor.accept(plan.id, 'ann');
    await fleet.pass(2_000);
    expect(fleet.plane.fleet.findPlan(plan.id).state).toMatchObject({
      kind: 'stopped',
      because: expect.stringMatching(`${vmName} may not go to h.* any more: ${vmName} is pinned to h1`),
    });
    expect(moves()).toEqual([]);
  });

  test('whose gain is gone by the loads of the moment is stopped', async () => {
    for (const name of ['a', 'b', 'c', 'd']) await fleet.run(name, 'h1', { memoryMiB: 64 });
    busy = { a: 0.9, b: 0.9, c: 0.9, d: 0.9 };
    const plan = await proposed();
    expect(plan.moves.length).toBeGreaterThan(1);
    for (const name of ['e', 'f', 'g', 'h']) await fleet.run(name, 'h2', { memoryMiB: 64 });
    for (const name of ['i', 'j', 'k', 'l']) await fleet.run(name, 'h3', { memoryMiB: 64 });
    busy = { a: 0.1, b: 0.1, c: 0.1, d: 0.1, e: 0.5, f: 0.5, g: 0.5, h: 0.5, i: 0.5, j: 0.5, k: 0.5, l: 0.5 };
    await fleet.pass(5 * minute, reportMs);
    await fleet.plane.distributor.accept(plan.id, 'ann');
    await fleet.pass(2_000);
    expect(fleet.plane.fleet.findPlan(plan.id).state).toMatchObject({
      because: expect.stringContaining('bring nothing'),
    });
    expect(moves()).toEqual([]);
  });

  test('is stopped when a move of it fails, and the VM is left alone afterwards', async () => {
    await crowd();
    await set({ mode: 'automatic', movesAtOnce: 1 });
    const [first] = await begun();
    const target = fleet.agent(fleet.plane.fleet.hostName(first!.target));
    const failure = { code: 'target-did-not-start', message: 'QEMU did not start.', hint: 'Look.' } as const;
    await target.move(first!.id, { kind: 'target-failed', failure });
    await target.move(first!.id, { kind: 'closed' });
    await fleet.pass(2_000);
    expect(plans()[0]?.state).toMatchObject({
      kind: 'stopped',
      because: expect.stringContaining('QEMU did not start'),
    });
    await live(15 * minute);
    expect(moves().filter(({ vm }) => vm === first!.vm)).toHaveLength(1);
  });

  test('that is cancelled begins nothing more; what is under way ends', async () => {
    await crowd();
    const plan = await proposed();
    await set({ movesAtOnce: 1 });
    await fleet.plane.distributor.accept(plan.id, 'ann');
    await expect(fleet.plane.distributor.accept(plan.id, 'ann')).rejects.toMatchObject({
      code: 'wrong-state',
      hint: expect.stringContaining('drover balance cancel'),
    });
    await fleet.pass(2_000);
    await fleet.plane.distributor.cancel('ann', false);
    await live(2 * minute);
    expect(moves().map(({ phase }) => phase)).toEqual(['completed']);
    const { state, moves: of } = fleet.plane.fleet.findPlan(plan.id);
    expect(state).toMatchObject({ kind: 'cancelled', because: 'cancelled by ann' });
    expect(of.map((move) => move.state)).toEqual(['done', ...of.slice(1).map(() => 'left')]);
  });

  test('of a loop that is switched off is cancelled', async () => {
    await crowd();
    await set({ mode: 'automatic', movesAtOnce: 1 });
    await begun();
    await set({ mode: 'off' });
    await live(5 * minute);
    expect(plans()[0]?.state).toMatchObject({ kind: 'cancelled', because: 'ann set the mode to off' });
    expect(moves()).toHaveLength(1);
  });

  test('leaves alone what is on the move, and the guests of sick hosts', async () => {
    await crowd();
    await fleet.plane.fleet.change((draft) => {
      const failing = { severity: 'suspect', at: 0, by: 'ann', because: 'a fan stands still' } as const;
      draft.putHost({ ...fleet.plane.fleet.findHost('h1'), failing });
    });
    await set({ mode: 'automatic', level: 5 });
    await fleet.pass(8 * minute, reportMs);
    expect(plans()).toEqual([]);
    expect(moves().every(({ why }) => why[0]?.by === 'evacuation')).toBe(true);
  });
});

describe('consolidation', () => {
  test('empties hosts within the rules, and is refused while the loop would fill them again', async () => {
    for (const [at, name] of ['a', 'b', 'c'].entries()) await fleet.run(name, `h${at + 1}`, { memoryMiB: 256 });
    await fleet.pass(minute, reportMs);
    const plan = await fleet.plane.distributor.propose({ goal: 'consolidate', maxMoves: 100 }, 'asked for');
    expect(plan.moves).toHaveLength(2);
    expect(plan.emptied).toHaveLength(2);
    await set({ mode: 'automatic' });
    await expect(fleet.plane.distributor.accept(plan.id, 'ann')).rejects.toMatchObject({ code: 'policy-conflict' });
    await set({ mode: 'manual' });
    await fleet.plane.distributor.accept(plan.id, 'ann');
    await live(15 * minute);
    expect(fleet.plane.fleet.findPlan(plan.id).state.kind).toBe('done');
    expect(new Set(['a', 'b', 'c'].map(hostOf)).size).toBe(1);
    const [decision] = fleet.plane.fleet.decisions.values();
    expect(decision?.measured).toMatchObject({ paid: null });
    expect(fleet.plane.fleet.balance.caution.factor).toBe(1);
  });
});

describe('shadow mode', () => {
  test('notes what it would have done, and orders nothing', async () => {
    await crowd();
    await set({ mode: 'shadow' });
    await fleet.pass(20 * minute, reportMs);
    expect(plans().map(({ state }) => state.kind)).toEqual(['shadow']);
    expect(moves()).toEqual([]);
    expect(orders()).toEqual([]);
    await expect(fleet.plane.distributor.accept(plans()[0]!.id, 'ann')).rejects.toMatchObject({ code: 'wrong-state' });
  });
});

describe('--dry-run', () => {
  /** All records but what is measured all the time. */
  async function decided(): Promise<string> {
    const entries = JSON.parse(await fleet.dump()) as { key: string }[]; // as it writes them
    return JSON.stringify(entries.filter(({ key }) => !/^(demand|energy)\//.test(key)));
  }

  test('says what would be done, and neither writes nor orders anything', async () => {
    await crowd();
    await fleet.pass(minute, reportMs);
    const before = await decided();
    const plan = await fleet.plane.distributor.preview({ goal: 'balance', maxMoves: 100 }, 'asked for');
    expect(plan.moves.length).toBeGreaterThanOrEqual(2);
    await fleet.pass(5 * minute, reportMs);
    expect(await decided()).toEqual(before);
    expect(orders()).toEqual([]);
    expect(cautionNow(fleet.plane.fleet.balance.caution, fleet.clock.now())).toBe(1);
  });
});
