import { afterEach, describe, expect, it } from 'vitest';
import { UserError } from '../model/failure.ts';
import type { SleepView } from '../wire/energy.ts';
import { fakeServer, run, type FakeServer, type Handlers } from './fake-server.ts';

let server: FakeServer | undefined;
afterEach(async () => {
  await server?.close();
  server = undefined;
});

async function cli(line: string, handlers: Handlers) {
  server = await fakeServer(handlers);
  const it = run(line, { server: server.url });
  const code = await it.code;
  return { code, out: it.stdout, err: it.stderr, bodies: server.calls.map(({ request }) => request) };
}

const view = (changes: Partial<SleepView> = {}): SleepView => ({
  host: 'h3',
  way: { kind: 'off' },
  state: 'awake',
  since: 0,
  by: null,
  because: null,
  drill: false,
  proof: null,
  readyWithinMs: null,
  readyMs: [],
  lastFailure: null,
  refusal: null,
  watts: null,
  ...changes,
});

describe('drover host', () => {
  it('drill --wait follows it down and up again', async () => {
    const way = [
      view({ state: 'asleep' }),
      view({ readyWithinMs: 48_000, proof: { at: 0, by: 'drill', validUntil: 1 } }),
    ];
    const { code, out, err } = await cli('host drill h3 --wait', {
      sendHostToSleep: () => view({ state: 'going-to-sleep' }),
      getHostSleep: () => way.shift() ?? view(),
    });
    expect(code).toBe(0);
    expect(err).toContain('h3 is asleep');
    expect(out).toContain('h3 is awake (sleeps by off, ready within 48.0 s of being woken');
  });

  it('sleep --wait fails with the reason when the host stays awake', async () => {
    const says = 'h3 stays awake: guests run here: web1';
    const { code, out } = await cli('host sleep h3 --wait', {
      sendHostToSleep: () => view({ state: 'going-to-sleep' }),
      getHostSleep: () => view({ lastFailure: { at: 5, says } }),
    });
    expect(code).toBe(1);
    expect(out).toContain(says);
  });

  it('sleep-way says what still stands in the way of sleep', async () => {
    const refusal = 'h3 has no power controller that could switch it on again.';
    const { code, out } = await cli('host sleep-way h3 off', { setHostSleep: () => view({ refusal }) });
    expect(code).toBe(0);
    expect(out).toContain(`it may not be sent to sleep now: ${refusal}\nIt may sleep once it was proven`);
  });

  it('sleep --dry-run asks for nothing but the check, and a refusal says what to do', async () => {
    const { code, bodies, out } = await cli('host sleep h3 --dry-run', { sendHostToSleep: () => view() });
    expect(code).toBe(0);
    expect(bodies).toMatchObject([{ body: { dryRun: true, drill: false } }]);
    expect(out).toContain('h3 may be sent to sleep; nothing was done');
    const refused = await cli('host sleep h3', {
      sendHostToSleep: () => {
        throw new UserError('policy-conflict', 'It was never proven that h3 can be woken.', 'drover host drill h3');
      },
    });
    expect(refused.code).toBe(4);
    expect(refused.err).toContain('drover host drill h3');
  });

  it.each([
    ['host sleep-way h3 off', { way: { kind: 'off' } }],
    ['host sleep-way h3 suspend --mac 52:54:00:aa:bb:cc', { way: { kind: 'suspend', macs: ['52:54:00:aa:bb:cc'] } }],
    ['host sleep-way h3 none', { way: null }],
  ])('%s says so', async (line, body) => {
    const { code, bodies } = await cli(line, { setHostSleep: () => view() });
    expect(code).toBe(0);
    expect(bodies).toMatchObject([{ body }]);
  });

  it.each(['host sleep-way h3 hibernate', 'host watts h3 --idle 5', 'host watts h3 --idle x --max 3'])(
    '%s is not understood, and the server is not asked',
    async (line) => {
      const { code, bodies } = await cli(line, {});
      expect(code).toBe(2);
      expect(bodies).toEqual([]);
    },
  );
});

describe('drover energy', () => {
  it('prints kWh, what was saved against all hosts always on, and what is modelled', async () => {
    const row = { id: 'host_1', name: 'h1', wh: 2500, savedWh: 1500, asleepMs: 7_200_000, idleWatts: 80, known: 'BMC' };
    const { out } = await cli('energy --since 2026-03-01', {
      getEnergy: () => ({
        since: Date.UTC(2026, 2, 1),
        until: 0,
        by: 'host',
        total: { usedWh: 2500, measuredWh: 2500, savedWh: 1500, alwaysOnWh: 4000 },
        rows: [row],
        says: ['saved: so and so'],
      }),
    });
    expect(out).toMatch(/h1 +2\.500 +1\.500 +2\.0 h +BMC/);
    expect(out).toContain(
      'since 2026-03-01 (UTC): 2.500 kWh used; with all hosts always on it would have been 4.000 kWh: 1.500 kWh saved (38 %)',
    );
  });

  it('--plan says what may sleep and why the others stay awake', async () => {
    const { out, bodies } = await cli('energy --plan --tolerate 2', {
      getPowerPlan: () => ({ sleep: [{ host: 'h3', because: 'it is empty' }], wake: [], keep: [] }),
    });
    expect(bodies).toMatchObject([{ query: { tolerate: 2 } }]);
    expect(out).toMatch(/h3 +may sleep +it is empty/);
  });

  it.each([
    ['energy --since 2026-02-31', "'2026-02-31' is no time back and no day."],
    ['energy --since 2999-01-01', '2999-01-01 is still to come.'],
    ['energy --tolerate 1', '--tolerate is about --plan.'],
    ['energy --plan --by vm', "Option '--plan' cannot be used with option '--by"],
    ['energy --plan --tolerate 101', '--tolerate 101 is too large.'],
    ['host watts h3 --idle -5 --max 3', "--idle '-5' is not a number."],
    ['host watts h3 --idle 1 --max 2 --unset', "Option '--unset' cannot be used with option '--idle"],
    ['host sleep-way h3 off --mac 52:54:00:aa:bb:cc', '--mac means nothing with off.'],
    ['host sleep-way h3 suspend --mac zz', "'zz' is no address of a card."],
  ])('%s: says what is wrong, exit code 2, and the server is not asked', async (line, says) => {
    const { code, err, bodies } = await cli(line, {});
    expect([code, bodies]).toEqual([2, []]);
    expect(err).toContain(says);
  });

  it('--since nonsense is not understood, and the server is not asked', async () => {
    const { code, err, bodies } = await cli('energy --since yesterday', {});
    expect([code, bodies]).toEqual([2, []]);
    expect(err).toContain('Write 24h, 7d or 2026-03-01.');
  });
});
