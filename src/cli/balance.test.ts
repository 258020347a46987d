import { afterEach, describe, expect, it } from 'vitest';
import { UserError } from '../model/failure.ts';
import type { BalanceView, PlanView } from '../wire/balance.ts';
import { fakeServer, run, type FakeServer, type Handlers } from './fake-server.ts';

let server: FakeServer | undefined;
afterEach(async () => {
  await server?.close();
  server = undefined;
});

async function serve(handlers: Handlers): Promise<FakeServer> {
  server = await fakeServer(handlers);
  return server;
}
const called = (of: FakeServer): string[] => of.calls.map(({ name }) => name);
const bodies = (of: FakeServer) => of.calls.map(({ request }) => (request as { body?: unknown }).body);

function aPlan(more: Partial<PlanView> = {}): PlanView {
  return {
    id: 'plan_1',
    goal: 'balance',
    origin: 'person',
    because: 'asked for',
    state: 'proposed',
    stateSays: null,
    createdAt: 0,
    endedAt: null,
    moves: [
      {
        vm: 'web1',
        from: 'h1',
        to: 'h2',
        reason: 'Evens out CPU: h1 90 % to 50 %, h2 10 % to 50 %.',
        hop: false,
        wave: 1,
        gain: 0.4,
        forecast: { technique: 'pre-copy', totalMs: 4200, downtimeMs: 60, bytes: 1_000_000 },
        state: 'due',
        migration: null,
      },
    ],
    power: [],
    keeps: [],
    refused: [{ vm: 'db1', wanted: 'h2', rule: 'pinned', says: 'db1 is pinned to h1.' }],
    emptied: [],
    score: {
      before: { total: 0.5, parts: [{ name: 'cpu-spread', weight: 1, value: 0.5 }] },
      after: { total: 0.1, parts: [{ name: 'cpu-spread', weight: 1, value: 0.1 }] },
    },
    ...more,
  };
}

function aBalance(more: Partial<BalanceView['settings']> = {}): BalanceView {
  return {
    settings: {
      mode: 'automatic',
      goal: 'balance',
      level: 3,
      quietHours: [{ from: 1320, to: 360 }],
      timeZone: 'UTC',
      movesAtOnce: 4,
      movesPerHost: 2,
      movesPerHour: 30,
      dwellMs: 1_800_000,
      unevenForMs: 180_000,
      measureAfterMs: 300_000,
      hostFailuresTolerated: 0,
      vcpuRatio: 4,
      cpuLimit: 0.8,
      ...more,
    },
    caution: { factor: 1.5, whole: 1.5 },
    cannotBegin: 'h3 is silent, and nobody knows what it does',
    loopWaits: null,
    says: null,
    standsOut: [{ says: 'h1 uses 90 % of its CPU, the mean is 40 %', forMs: 70_000 }],
    hosts: [{ name: 'h1', state: 'up', vms: 3, cpuCores: 1.8, cpus: 2, memoryMiB: 1024, capacityMiB: 4096 }],
    plan: null,
    proposed: ['plan_1'],
  };
}

describe('drover balance', () => {
  it('--dry-run shows moves, reasons, cost and the score part by part, and asks for nothing that acts', async () => {
    const fake = await serve({ makePlan: () => aPlan({ id: null }) });
    const it = run('balance --dry-run', { server: fake.url });
    expect(await it.code).toBe(0);
    expect(bodies(fake)).toMatchObject([{ dryRun: true }]);
    for (const words of ['Evens out CPU', '4.2 s', '60 ms', 'cpu-spread', '0.500', '0.100', 'db1 stays: db1 is pinned'])
      expect(it.stdout).toContain(words);
  });

  it('of consolidation asks for that goal and names the hosts that become empty', async () => {
    const fake = await serve({ makePlan: () => aPlan({ id: null, goal: 'consolidate', emptied: ['h1'] }) });
    const it = run('consolidate --dry-run', { server: fake.url });
    expect(await it.code).toBe(0);
    expect(bodies(fake)).toMatchObject([{ goal: 'consolidate', dryRun: true }]);
    expect(it.stdout).toContain('empty afterwards: h1');
  });

  it('of consolidation says which hosts sleep then, and why the others stay on, also where nothing moves', async () => {
    const power = [{ host: 'h3', to: 'sleep', reason: 'it is empty', state: 'due' }] as const;
    const keeps = ['h2', 'h4', 'h5'].map((host) => ({
      host,
      because: `It was never proven that ${host} can be woken.`,
    }));
    const fake = await serve({
      makePlan: () => aPlan({ id: null, goal: 'consolidate', moves: [], power: [...power], keeps, refused: [] }),
    });
    const it = run('consolidate --dry-run', { server: fake.url });
    expect(await it.code).toBe(0);
    expect(it.stdout).toBe(
      'h3 is sent to sleep then: it is empty\nh2 stays on: It was never proven that h2 can be woken. Likewise h4, h5.\n',
    );
  });

  it('carries nothing out where nobody can be asked', async () => {
    const fake = await serve({ makePlan: () => aPlan() });
    const it = run('balance', { server: fake.url });
    expect(await it.code).toBe(0);
    expect(called(fake)).toEqual(['makePlan']);
    expect(it.stderr).toContain('drover recommendations accept plan_1');
  });

  it('drops the plan when the answer is no', async () => {
    const fake = await serve({ makePlan: () => aPlan(), dismissPlan: () => aPlan({ state: 'dismissed' }) });
    const it = run('balance', { server: fake.url, tty: true, stdin: ['n'] });
    expect(await it.code).toBe(1);
    expect(called(fake)).toEqual(['makePlan', 'dismissPlan']);
  });

  it('--yes waits for a server that is away for a moment: the plan goes on with it', async () => {
    let looks = 0;
    const fake = await serve({
      makePlan: () => aPlan(),
      acceptPlan: () => aPlan({ state: 'running' }),
      getPlan: () => {
        if (++looks === 1) throw new UserError('unavailable', 'This server does not lead any more.', 'Try again.');
        return aPlan({ state: 'done', stateSays: 'all its steps are done', moves: [] });
      },
    });
    const it = run('balance --yes', { server: fake.url });
    expect(await it.code).toBe(0);
    expect(it.stderr).toContain('the server does not answer');
    expect(it.stdout).toContain('plan_1 is done');
  });

  it('--yes carries it out and tells of each move', async () => {
    const [move] = aPlan().moves;
    const done = aPlan({ state: 'done', stateSays: 'all its moves are done', moves: [{ ...move!, state: 'done' }] });
    const fake = await serve({
      makePlan: () => aPlan(),
      acceptPlan: () => aPlan({ state: 'running' }),
      getPlan: () => done,
    });
    const it = run('balance --yes', { server: fake.url });
    expect(await it.code).toBe(0);
    expect(called(fake)).toEqual(['makePlan', 'acceptPlan', 'getPlan']);
    expect(it.stderr).toContain('web1 h1 -> h2: done');
    expect(it.stdout).toContain('plan_1 is done');
  });

  it('fails when the plan was stopped, and says why', async () => {
    const stopped = aPlan({ state: 'stopped', stateSays: 'web1 is on h3 now, not on h1' });
    const fake = await serve({ acceptPlan: () => stopped });
    const it = run('recommendations accept plan_1', { server: fake.url });
    expect(await it.code).toBe(1);
    expect(it.stdout).toContain('plan_1 is stopped: web1 is on h3 now');
  });

  it('set takes hours, shares and durations', async () => {
    const fake = await serve({ setBalance: () => aBalance() });
    const flags = '--mode automatic --level 3 --quiet-hours 22:00-06:00,12:00-24:00 --cpu-limit 70% --dwell 1h';
    const it = run(`balance set ${flags} --max-moves-at-once 2`, { server: fake.url });
    expect(await it.code).toBe(0);
    const quietHours = [
      { from: 1320, to: 360 },
      { from: 720, to: 1440 },
    ];
    expect(bodies(fake)).toEqual([
      { mode: 'automatic', level: 3, quietHours, cpuLimit: 0.7, dwellMs: 3_600_000, movesAtOnce: 2 },
    ]);
    expect(it.stdout).toContain('22:00-06:00 (UTC)');
  });

  it.each([
    'set --mode fast',
    'set --quiet-hours 22-6',
    'set --quiet-hours 06:00-06:00',
    'set --cpu-limit much',
    'set --cpu-limit 0.8',
    'set --level 6',
    'set --measure-after 1ms',
    'set',
    '--max-moves 0',
    'now',
  ])('%s is not understood, and the server is not asked', async (line) => {
    const fake = await serve({});
    expect(await run(`balance ${line}`, { server: fake.url }).code).toBe(2);
    expect(fake.calls).toEqual([]);
  });

  it('does not blame the address for what the server itself says', async () => {
    const { url } = await serve({
      makePlan: () => {
        throw new UserError('unavailable', 'No plan can be made now.', 'Try again in a moment.');
      },
    });
    const it = run('balance', { server: url });
    expect(await it.code).toBe(1);
    expect(it.stderr).toBe('error: No plan can be made now.\n  next: Try again in a moment.\n');
  });

  it('status says what stands out, and why nothing is begun', async () => {
    const fake = await serve({ getBalance: () => aBalance() });
    const it = run('balance status', { server: fake.url });
    expect(await it.code).toBe(0);
    for (const words of ['90 %', 'h3 is silent', 'plan_1', '1.50 by moves that did not pay'])
      expect(it.stdout).toContain(words);
  });
});
