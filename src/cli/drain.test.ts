import { afterEach, describe, expect, it } from 'vitest';
import type { DrainView } from '../wire/drains.ts';
import type { SleepView } from '../wire/energy.ts';
import { sleepOn, systemClock, type Clock } from '../runtime/clock.ts';
import { aHost, fakeServer, run as runWith, type FakeServer, type Handlers, type RunOptions } from './fake-server.ts';

let server: FakeServer | undefined;
afterEach(async () => {
  await server?.close();
  server = undefined;
});
async function serve(handlers: Handlers): Promise<FakeServer> {
  server = await fakeServer(handlers);
  return server;
}

/** A second is over at once: what is looked at once a second is looked at often. */
const setTimeout: Clock['setTimeout'] = (fn, ms) => systemClock.setTimeout(fn, ms / 50);
const hasty: Clock = { ...systemClock, setTimeout, sleep: (ms, signal) => sleepOn({ setTimeout }, ms, signal) };
const run = (line: string | string[], options: RunOptions) => runWith(line, { clock: hasty, ...options });

type Row = DrainView['vms'][number];
const row = (name: string, more: Partial<Row> = {}): Row => ({
  vm: `vm_${name}`,
  name,
  priority: 500,
  memoryMiB: 1024,
  state: 'queued',
  host: 'h1',
  to: 'h2',
  technique: 'auto',
  migration: null,
  failures: 0,
  since: null,
  says: null,
  next: null,
  ...more,
});
const aDrain = (more: Partial<DrainView> = {}): DrainView => ({
  id: 'drn_1',
  host: 'h1',
  state: 'draining',
  says: 'h1 is being drained',
  by: 'api',
  because: 'new memory',
  startedAt: 0,
  emptyAt: null,
  endedAt: null,
  movesAtOnce: 2,
  allowCold: false,
  cordoned: true,
  estimate: { moves: 1, bytes: 1024 * 1024 * 1024, ms: 12_000 },
  returnEstimate: null,
  tookMs: null,
  etaMs: 12_000,
  total: 1,
  done: 0,
  remaining: 1,
  blocked: null,
  vms: [row('web1')],
  ...more,
});
const moving = aDrain({ vms: [row('web1', { state: 'moving', migration: 'mig_1' })] });
const drained = aDrain({
  state: 'drained',
  says: 'h1 is drained',
  tookMs: 9_000,
  etaMs: null,
  done: 1,
  remaining: 0,
  vms: [row('web1', { state: 'left', host: 'h2', to: null })],
});
const gpu = row('gpu1', { state: 'stuck', to: null, says: 'gpu1 cannot move live.', next: 'drover vm stop gpu1.' });
const back = aDrain({
  state: 'undrained',
  says: 'h1 is undrained: 1 of 1 VMs are back',
  vms: [row('web1', { state: 'back' })],
});

/** What each look finds, the last one from then on. */
function looks(...views: readonly DrainView[]): () => DrainView {
  let at = 0;
  return () => views[Math.min(at++, views.length - 1)] ?? moving;
}

describe('drover host drain', () => {
  it('says first what it will cost, then what happens, and ends with 0 when the host is empty', async () => {
    const { url, calls } = await serve({ drainHost: () => aDrain(), getDrain: looks(moving, drained) });
    const it = run(['host', 'drain', 'h1', '--because', 'new memory', '--max-moves-at-once', '3'], { server: url });
    expect(await it.code).toBe(0);
    const said = it.stderr.split('\n');
    expect(said[0]).toBe('1 VM to leave h1: about 12.0 s with 2 at once, 1.0 GiB to send');
    expect(it.stderr).toContain('web1 moves from h1 to h2 (auto), mig_1');
    expect(it.stderr).toContain('web1 runs on h2; 1 of 1');
    expect(it.stdout).toContain('h1 is drained: no guest is left; 1 VM left in 9.0 s (estimated: 12.0 s)');
    expect(it.stdout).toContain('drover host undrain h1');
    const bodies = calls.filter(({ name }) => name === 'drainHost').map(({ request }) => request);
    const body = { because: 'new memory', movesAtOnce: 3, allowCold: null };
    expect(bodies).toMatchObject([{ body: { ...body, dryRun: true } }, { body: { ...body, dryRun: false } }]);
  });

  it('with --dry-run asks for nothing else, and ends with 3 when a VM cannot leave', async () => {
    const { url, calls } = await serve({ drainHost: () => aDrain({ vms: [row('web1'), gpu] }) });
    const it = run('host drain h1 --dry-run', { server: url });
    expect(await it.code).toBe(3);
    expect(it.stdout).toContain('1 VM cannot leave:\n  gpu1: gpu1 cannot move live.\n    next: drover vm stop gpu1.');
    expect(it.stdout).toContain('nothing was changed');
    expect(calls.map(({ name }) => name)).toEqual(['drainHost']);
  });

  it('ends with 3 when guests remain, names each with the reason and what next, and says that the drain stays', async () => {
    const blocked = aDrain({
      remaining: 1,
      etaMs: null,
      blocked: { since: 0, says: 'gpu1: gpu1 cannot move live.', next: 'x' },
      vms: [row('web1', { state: 'left', host: 'h2' }), gpu],
    });
    const { url } = await serve({ drainHost: () => aDrain(), getDrain: () => blocked });
    const it = run('host drain h1', { server: url });
    expect(await it.code).toBe(3);
    expect(it.stdout).toContain(
      'h1 is not empty: 1 guest on it\n  gpu1: gpu1 cannot move live.\n    next: drover vm stop gpu1.',
    );
    expect(it.stdout).toContain('drover host drain h1 --cancel');
  });

  it('asks on a terminal before it begins what cannot end', async () => {
    const { url, calls } = await serve({ drainHost: () => aDrain({ vms: [gpu] }) });
    const it = run('host drain h1', { server: url, tty: true, stdin: ['n'] });
    expect(await it.code).toBe(1);
    expect(it.stderr).toContain('Begin although 1 cannot leave? [y/N] Nothing was changed.');
    expect(calls.length).toBe(1);
  });

  it('goes on without us after Ctrl-C, and says so', async () => {
    const { url } = await serve({ drainHost: () => aDrain(), getDrain: () => moving });
    const it = run('host drain h1', { server: url });
    await it.shows('web1 moves');
    it.signal('SIGINT');
    expect(await it.code).toBe(130);
    expect(it.stderr).toContain('It goes on without this command. Follow it: drover drain watch h1');
  });

  it('is drawn in place on a terminal, the time left beside it', async () => {
    const { url } = await serve({ drainHost: () => aDrain(), getDrain: looks(moving, drained) });
    const it = run('host drain h1', { server: url, tty: true, env: { NO_COLOR: '1' } });
    expect(await it.code).toBe(0);
    expect(it.stdout).toContain('h1: draining (new memory)');
    expect(it.stdout).toContain('about 12.0 s left');
    expect(it.stdout).toContain('web1 moving -> h2');
    expect(it.stdout.trimEnd().endsWith('drover host undrain h1')).toBe(true);
  });

  it('prints each change and the end as a line of JSON with --watch', async () => {
    const { url } = await serve({ drainHost: () => aDrain(), getDrain: looks(moving, drained) });
    const it = run('host drain h1 --watch -o json', { server: url });
    expect(await it.code).toBe(0);
    const lines = it.stdout
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line) as DrainView);
    expect(lines.at(0)?.state).toBe('draining');
    expect(lines.at(-1)?.state).toBe('drained');
  });

  it('undrain --dry-run does not list as coming back what is still on its way out', async () => {
    const rows = [
      row('web1', { state: 'queued', host: 'h2', to: 'h1' }),
      row('db1', { state: 'returning', host: 'h1', to: 'h3', migration: 'mig_1' }),
    ];
    const { url } = await serve({ undrainHost: () => aDrain({ state: 'returning', vms: rows }) });
    const it = run('host undrain h1 --dry-run', { server: url });
    expect(await it.code).toBe(0);
    expect(it.stdout).toContain('1 VM to come back to h1');
    expect(it.stdout).not.toMatch(/db1 +500/);
    expect(it.stdout).toContain('still on the way out, and back after that: db1');
  });

  it.each(['--dry-run', '--watch', '--allow-cold', '--because rain', '--max-moves-at-once 3'])(
    'with --cancel and %s does nothing at all, exit code 2',
    async (more) => {
      const { url, calls } = await serve({ cancelDrain: () => aDrain({ state: 'cancelled' }) });
      const it = run(`host drain h1 --cancel ${more}`, { server: url });
      expect(await it.code).toBe(2);
      expect(it.stderr).toContain("Option '--cancel' cannot be used with option");
      expect(calls).toEqual([]);
    },
  );

  it('of a host whose name is empty asks no server, exit code 2', async () => {
    const { url, calls } = await serve({});
    const it = run(['host', 'drain', ''], { server: url });
    expect(await it.code).toBe(2);
    expect(it.stderr).toContain('error: <host> is empty.');
    expect(calls).toEqual([]);
  });

  it('with --cancel cancels, and says what had left', async () => {
    const cancelled = aDrain({
      state: 'cancelled',
      says: 'the drain of h1 was cancelled',
      vms: [row('web1', { state: 'left' })],
    });
    const { url, calls } = await serve({ cancelDrain: () => cancelled });
    const it = run('host drain h1 --cancel', { server: url });
    expect(await it.code).toBe(0);
    expect(it.stdout).toContain('the drain of h1 was cancelled\nTo bring back what had left: drover host undrain h1');
    expect(calls.map(({ name }) => name)).toEqual(['cancelDrain']);
  });

  it.each(['0', '65', 'x'])('takes no %s moves at once', async (n) => {
    const { url, calls } = await serve({});
    const it = run(`host drain h1 --max-moves-at-once ${n}`, { server: url });
    expect(await it.code).toBe(2);
    expect(calls).toEqual([]);
  });
});

describe('drover host undrain', () => {
  it('waits until its VMs are back, and ends with 3 when one could not come', async () => {
    const gaveUp = aDrain({
      state: 'undrained',
      says: 'h1 is undrained: 0 of 1 VMs are back; web1 stay where they are',
      vms: [row('web1', { state: 'gave-up', host: 'h2', says: 'h1 has no room for web1' })],
    });
    const { url } = await serve({ undrainHost: () => aDrain({ state: 'returning' }), getDrain: () => gaveUp });
    const it = run('host undrain h1', { server: url });
    expect(await it.code).toBe(3);
    expect(it.stdout).toContain('web1 stays on h2: h1 has no room for web1');
  });
});

describe('drover fleet roll', () => {
  const two = () => [aHost({ name: 'h1', id: 'host_1' }), aHost({ name: 'h2', id: 'host_2' })];
  const handlers = (more: Handlers = {}): Handlers => ({
    listHosts: two,
    getHost: ({ params }) => aHost({ name: params.host }),
    checkFleet: () => [],
    drainHost: ({ params }) => ({ ...drained, host: params.host, id: `drn_${params.host}` }),
    undrainHost: ({ params }) => ({ ...back, host: params.host }),
    ...more,
  });
  const line = (...more: string[]): string[] => [
    'fleet',
    'roll',
    '--command',
    'update {host}',
    '--settle',
    '1ms',
    ...more,
  ];

  it('drains, runs the command, waits for health and brings back, host by host', async () => {
    const { url, calls } = await serve(handlers());
    const ran: string[] = [];
    const shell = (command: string, env: Readonly<Record<string, string>>): number => {
      ran.push(`${command} ${env['DROVER_HOST']} ${env['DROVER_ROLL_STEP']}/${env['DROVER_ROLL_STEPS']}`);
      return 0;
    };
    const it = run(line(), { server: url, shell });
    expect(await it.code).toBe(0);
    expect(ran).toEqual(['update h1 h1 1/2', 'update h2 h2 2/2']);
    const acts = calls.flatMap(({ name, request }) =>
      name === 'undrainHost' || (name === 'drainHost' && !(request as { body: { dryRun: boolean } }).body.dryRun)
        ? [`${name} ${(request as { params: { host: string } }).params.host}`]
        : [],
    );
    expect(acts).toEqual(['drainHost h1', 'undrainHost h1', 'drainHost h2', 'undrainHost h2']);
    expect(it.stdout).toBe('all 2 hosts are done: h1, h2\n');
  });

  it('takes the hosts with a label, and wakes one that sleeps before anything is drained', async () => {
    const labels = { rack: 'a' };
    const sleep: SleepView = {
      host: 'h2',
      way: { kind: 'off' },
      state: 'asleep',
      since: 0,
      by: 'distributor',
      because: 'it is empty',
      drill: false,
      proof: null,
      readyWithinMs: null,
      readyMs: [],
      lastFailure: null,
      refusal: null,
      watts: null,
    };
    const hosts = [aHost({ name: 'h1', id: 'host_1' }), aHost({ name: 'h2', id: 'host_2', labels, sleep })];
    const awake: SleepView = { ...sleep, state: 'awake' };
    const { url, calls } = await serve(handlers({ listHosts: () => hosts, wakeHost: () => awake }));
    const it = run(line('--selector', 'rack=a'), { server: url, shell: () => 0 });
    expect(await it.code).toBe(0);
    expect(it.stdout).toBe('all 1 hosts are done: h2\n');
    const acts = calls.map(({ name }) => name).filter((name) => /wake|undrain/.test(name));
    expect(acts).toEqual(['wakeHost', 'undrainHost']);
  });

  it('stops at a command that fails: the host stays drained, the next is not touched, and it says how to go on', async () => {
    const { url, calls } = await serve(handlers());
    const it = run(line(), { server: url, shell: (command) => (command.endsWith('h1') ? 7 : 0) });
    expect(await it.code).toBe(1);
    expect(it.stderr).toContain('error: the command ended with 7; h1 is drained and stays so.');
    expect(it.stderr).toContain("to go on: drover fleet roll --hosts h1,h2 --command 'update {host}'");
    expect(it.stderr).toContain('to leave h1 as it is: drover host undrain h1');
    expect(it.stderr).toContain('stopped at h1; none is done; not begun: h2');
    expect(calls.some(({ name }) => name === 'undrainHost')).toBe(false);
  });

  it('runs nothing on a host that cannot be emptied, and ends with 3', async () => {
    const stuck = aDrain({ blocked: { since: 0, says: 'gpu1', next: 'x' }, vms: [gpu] });
    const { url } = await serve(handlers({ drainHost: () => stuck }));
    const ran: string[] = [];
    const it = run(line(), { server: url, shell: (command) => ran.push(command) });
    expect(await it.code).toBe(3);
    expect(ran).toEqual([]);
    expect(it.stderr).toContain('error: h1 could not be emptied, so nothing was run.');
  });

  it('gives no VMs back to a host that is not well in time', async () => {
    const silent = () => aHost({ name: 'h1', state: 'silent' });
    const { url, calls } = await serve(handlers({ getHost: silent }));
    const it = run(line('--health-timeout', '1ms'), { server: url, shell: () => 0 });
    expect(await it.code).toBe(1);
    expect(it.stderr).toContain('the command is done, but h1 is not well: h1 is silent; it stays drained');
    expect(calls.some(({ name }) => name === 'undrainHost')).toBe(false);
  });

  it('with --dry-run runs and changes nothing', async () => {
    const { url, calls } = await serve(handlers());
    const it = run(line('--dry-run', '--hosts', 'h2'), { server: url, shell: () => 1 });
    expect(await it.code).toBe(0);
    expect(calls.map(({ name }) => name)).toEqual(['listHosts', 'drainHost']);
    expect(calls[1]?.request).toMatchObject({ params: { host: 'h2' }, body: { dryRun: true } });
  });

  it.each([
    [['--hosts', 'h1,h1'], 'A host is named twice.'],
    [['--selector', 'rack=2'], 'No host is chosen.'],
    [['--selector', 'rack'], "'rack' is not a label."],
    [['--settle', '5'], "'5' is not a duration."],
    [['--command', ' '], 'The command is empty.'],
    [['--max-moves-at-once', '65'], '--max-moves-at-once 65 is too large.'],
  ])('%j: exit code 2', async (more, says) => {
    const { url } = await serve(handlers());
    const it = run(line(...more), { server: url });
    expect(await it.code).toBe(2);
    expect(it.stderr).toContain(says);
  });
});
