/** Lost hosts on the command line. */
import { afterEach, describe, expect, it } from 'vitest';
import type { RecoveryView } from '../wire/recovery.ts';
import { aVm, fakeServer, run, type FakeServer, type Handlers } from './fake-server.ts';

let server: FakeServer | undefined;
afterEach(async () => {
  await server?.close();
  server = undefined;
});

async function serve(handlers: Handlers): Promise<FakeServer> {
  server = await fakeServer(handlers);
  return server;
}
const bodies = (of: FakeServer) => of.calls.map(({ request }) => (request as { body?: unknown }).body);

const view: RecoveryView = {
  id: 'rec_1',
  host: 'h1',
  proof: 'word',
  by: 'a person',
  because: 'it burnt',
  silentSince: 1_000,
  detectedAt: 4_200,
  fencedAt: 9_200,
  endedAt: null,
  detectMs: 3_200,
  fenceMs: 5_000,
  vms: [
    {
      vm: 'vm_1',
      name: 'web1',
      priority: 900,
      kind: 'restart',
      state: 'running',
      says: null,
      target: 'h2',
      placedAt: 9_300,
      startedAt: 10_500,
      placeMs: 100,
      bootMs: 1_200,
      totalMs: 9_500,
    },
  ],
};

describe('drover host fenced', () => {
  it('asks on a terminal what it may cost, and does nothing without a yes', async () => {
    const fake = await serve({ fenceHost: () => view });
    const no = run('host fenced h1 --because burnt', { server: fake.url, tty: true, stdin: ['n\n'] });
    expect(await no.code).toBe(1);
    expect(no.stderr).toContain('write to the same disks');
    expect(fake.calls).toEqual([]);
    const yes = run('host fenced h1 --because burnt', { server: fake.url, tty: true, stdin: ['yes\n'] });
    expect(await yes.code).toBe(0);
    expect(await run('host fenced h1 --because burnt --force --yes', { server: fake.url, tty: true }).code).toBe(0);
    expect(bodies(fake)).toEqual([
      { because: 'burnt', force: false, dryRun: false },
      { because: 'burnt', force: true, dryRun: false },
    ]);
  });

  it('wants to know how one knows', async () => {
    const fake = await serve({});
    expect(await run('host fenced h1', { server: fake.url }).code).toBe(2);
    expect(fake.calls).toEqual([]);
  });
});

describe('drover recovery', () => {
  it('lists lost hosts with their times', async () => {
    const fake = await serve({ listRecoveries: () => [view] });
    const it = run('recoveries', { server: fake.url });
    expect(await it.code).toBe(0);
    for (const words of ['rec_1', 'word', '3.2 s', '5.0 s', '1 of 1', '9.5 s']) expect(it.stdout).toContain(words);
  });

  it('shows one by the name of its host, with each VM', async () => {
    const fake = await serve({ listRecoveries: () => [view] });
    const it = run('recovery show h1', { server: fake.url });
    expect(await it.code).toBe(0);
    expect(it.stdout).toMatch(/web1 +900 +restart +running +h2 +100 ms +1\.2 s +9\.5 s/);
  });
});

describe('drover vm set', () => {
  it('changes what was given, and no more', async () => {
    const fake = await serve({ updateVm: () => aVm({ priority: 900 }) });
    const it = run('vm set web1 --priority 900', { server: fake.url });
    expect(await it.code).toBe(0);
    expect(it.stdout).toContain('priority 900');
    expect(bodies(fake)).toEqual([{ priority: 900 }]);
  });

  it('takes groups and hosts, and says where the VM is kept', async () => {
    const placing = { apart: ['web'], together: [], pinnedTo: ['h1', 'h2'] };
    const fake = await serve({ updateVm: () => aVm({ placing }) });
    const it = run('vm set web1 --apart web --together none --pin h1,h2', { server: fake.url });
    expect(await it.code).toBe(0);
    expect(it.stdout).toContain('apart from others of web; only on h1, h2');
    expect(bodies(fake)).toEqual([{ placing }]);
  });

  it.each(['--priority 1001', '--priority -1', '--recovery never', '--pin h1,,h2'])(
    '%s is not understood',
    async (flags) => {
      const fake = await serve({});
      expect(await run(`vm set web1 ${flags}`, { server: fake.url }).code).toBe(2);
      expect(fake.calls).toEqual([]);
    },
  );
});
