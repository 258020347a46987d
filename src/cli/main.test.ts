import { mkdtempSync, mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { UserError } from '../model/failure.ts';
import type { EventView, MigrationView } from '../wire/endpoints.ts';
import { systemClock, type Clock } from '../runtime/clock.ts';
import { findConnection } from './connection.ts';
import {
  aHost,
  aMigration,
  aSample,
  aVm,
  fakeServer,
  migrationEvent,
  noAnswer,
  run,
  sampleEvent,
  type FakeServer,
  type Handlers,
} from './fake-server.ts';

let server: FakeServer | undefined;
afterEach(async () => {
  await server?.close();
  server = undefined;
});

async function serve(handlers: Handlers = {}): Promise<FakeServer> {
  server = await fakeServer(handlers);
  return server;
}

const start = Date.UTC(2030, 0, 1);
const warmingUp = aMigration({
  phase: 'warming-up',
  history: [
    { phase: 'reserved', at: start },
    { phase: 'warming-up', at: start + 400, round: 1 },
  ],
});

function ended(phase: 'completed' | 'cancelled' | 'failed', more: Partial<MigrationView> = {}): MigrationView {
  return aMigration({
    ...warmingUp,
    phase,
    ended: true,
    endedAt: start + 9_200,
    history: [...warmingUp.history, { phase, at: start + 9_200 }],
    measures: { ...warmingUp.measures, totalMs: 9_200, downtimeMs: 38, bytes: 1_200_000_000, faults: 0 },
    ...more,
  });
}

describe('help', () => {
  const commands =
    ',host,host list,host show,host cordon,host uncordon,host remove,host power,node list,' +
    'host drain,host undrain,drains,drain show,drain watch,fleet,fleet roll,vm,vm create,vm list,vm show,vm start,vm stop,vm delete,vm console,instance,' +
    'migrate,migrations,migration,migration show,migration cancel,migration watch,' +
    'plan,fleet,fleet export,events,doctor,completion,server,agent,lab';
  it.each(commands.split(','))('of "%s" has an example', async (command) => {
    const it = run([...command.split(' ').filter((word) => word !== ''), '--help']);
    expect(await it.code).toBe(0);
    expect(it.stdout).toMatch(/^Examples?:\n {2}\$ .*drover /m);
    expect(it.stderr).toBe('');
  });

  it('is what the bare program prints, with the other programs in it', async () => {
    const it = run([]);
    expect(await it.code).toBe(0);
    for (const name of ['server', 'agent', 'lab']) expect(it.stdout).toMatch(new RegExp(`^ {2}${name} `, 'm'));
  });
});

describe('a mistake on the command line', () => {
  it.each([
    ['migrat web1', "Unknown command 'migrat'.", 'Did you mean migrate?'],
    ['vm lst', "Unknown command 'lst'.", 'Did you mean'],
    ['migrate web1 --tecnique cold', "Unknown option '--tecnique'.", 'Did you mean --technique?'],
    ['migrate web1 --technique magic', "'magic' is invalid", '--help'],
    ['migrate', "Missing required argument 'vm'.", '--help'],
    ['migrate web1 --max-downtime 300', "'300' is not a duration.", '300ms'],
    ['migrate web1 --max-downtime -5ms', "'-5ms' is not a duration.", '300ms'],
    ['migrate web1 --max-bandwidth 1Gb', "'1Gb' is not a data rate.", '1Gbit'],
    ['migrate web1 --parallel-streams many', "'many' is not a whole number", 'whole number'],
    ['vm create web1 --image a --memory 1GB', "'1GB' is not a size.", '1GiB'],
    ['vm create web1 --image a --label x', "'x' is not a label.", 'key=value'],
    ['vm create web1', 'web1 has nothing to boot from.', '--image'],
    ['vm create web1 --image a --initrd b', '--initrd was given without a kernel.', '--kernel'],
    ['--output yaml vm list', 'Allowed choices are table, json.', '--help'],
    ['-o json lab up', 'lab is a program of its own.', 'drover lab --help'],
    ['vm console web1', 'The console needs a terminal.', '--raw'],
  ])('%s: exit code 2, what and what next', async (line, what, next) => {
    const { url, calls } = await serve();
    const it = run(line, { server: url });
    expect(await it.code).toBe(2);
    expect(it.stdout).toBe('');
    const [first, second, ...more] = it.stderr.trimEnd().split('\n');
    expect(first).toMatch(/^error: /);
    expect(first).toContain(what);
    expect(second).toMatch(/^ {2}next: /);
    expect(second).toContain(next);
    expect(more).toEqual([]);
    expect(calls).toEqual([]);
  });
});

describe('errors', () => {
  it('name the address and where it came from when no server answers, exit code 1', async () => {
    const it = run('vm list', { server: 'http://127.0.0.1:1' });
    expect(await it.code).toBe(1);
    expect(it.stderr).toContain('error: The server at http://127.0.0.1:1 cannot be reached');
    expect(it.stderr).toContain('is from DROVER_SERVER');
  });

  it.each([
    ['not-found', 5],
    ['busy', 4],
    ['no-room', 4],
    ['invalid-input', 2],
    ['unavailable', 1],
    ['unauthorized', 1],
  ] as const)('of code %s end with exit code %i', async (code, expected) => {
    const { url } = await serve({
      getVm: () => {
        throw new UserError(code, 'What happened.', 'What next.');
      },
    });
    const it = run('vm show web1', { server: url });
    expect(await it.code).toBe(expected);
    expect(it.stderr).toContain('error: What happened.\n  next: What next.');
  });

  it('for a name that is not found suggest the one that was meant', async () => {
    const { url } = await serve({
      listVms: () => [aVm(), aVm({ id: 'vm_2', name: 'db' })],
      listHosts: () => [aHost()],
    });
    const vm = run('vm show wb1', { server: url });
    expect(await vm.code).toBe(5);
    expect(vm.stderr).toContain("next: Did you mean 'web1'?");
    const host = run('migrate web1 --to h', { server: url });
    expect(await host.code).toBe(5);
    expect(host.stderr).toContain("next: Did you mean 'h1'?");
  });

  it('that are bugs show no stack unless asked to, but ask for a report', async () => {
    const { url } = await serve({ listVms: () => [aVm()] });
    for (const debug of ['0', '1']) {
      const it = run('vm list', { server: url, env: { DROVER_DEBUG: debug }, stdoutFails: true });
      expect(await it.code).toBe(1);
      expect(it.stderr).toMatch(/^error: This is a bug in drover: the disk is full\n {2}next: Please report it/);
      expect(/\n\s+at /.test(it.stderr)).toBe(debug === '1');
    }
  });
});

describe('lists and details', () => {
  it('are tables for people and whole records for programs', async () => {
    const { url } = await serve({ listHosts: () => [aHost(), aHost({ id: 'host_2', name: 'h2', cordoned: true })] });
    const words = run('host list', { server: url });
    expect(await words.code).toBe(0);
    expect(words.stdout).toBe(
      [
        'HOST  STATE         VMS  CPUS  LOAD  MEMORY     USED  QEMU    ACCEL  LIVE  POST-COPY',
        'h1    up              1     8  25 %  15 GiB  1.0 GiB  10.0.2  kvm    yes   no',
        'h2    up, cordoned    1     8  25 %  15 GiB  1.0 GiB  10.0.2  kvm    yes   no',
        '',
      ].join('\n'),
    );
    const json = run('node list --output json', { server: url });
    expect(await json.code).toBe(0);
    expect(JSON.parse(json.stdout)).toEqual([aHost(), aHost({ id: 'host_2', name: 'h2', cordoned: true })]);
  });

  it.each([
    'host list',
    'host show h1',
    'host cordon h1',
    'host uncordon h1',
    'host remove h1',
    'vm list --host h1',
    'vm show web1',
    'vm start web1',
    'migrations --vm web1 --open --limit 5',
    'migration show mig_1',
    'migration show web1',
    'doctor',
  ])('drover %s --output json prints JSON, and without it words', async (line) => {
    const host = () => aHost();
    const { url } = await serve({
      listHosts: () => [aHost()],
      getHost: host,
      cordonHost: host,
      uncordonHost: host,
      removeHost: () => ({ removed: 'h1', disksLeft: [] }),
      listVms: () => [aVm()],
      getVm: () => aVm(),
      startVm: () => aVm(),
      listMigrations: () => [ended('completed')],
      getMigration: () => ended('completed'),
      checkFleet: () => [{ severity: 'ok', about: 'host h1', says: 'well', mend: null }],
    });
    const json = run(`${line} --output json`, { server: url });
    expect(await json.code).toBe(0);
    expect(() => JSON.parse(json.stdout) as unknown).not.toThrow();
    const words = run(line, { server: url });
    expect(await words.code).toBe(0);
    expect(words.stdout).not.toBe('');
    expect(words.stdout).not.toMatch(/undefined|NaN|\[object/);
  });

  it('doctor ends with 1 when there is an error, with its mending', async () => {
    const finding = { severity: 'error', about: 'host h1: QEMU', says: 'too old', mend: 'Take 10.' } as const;
    const { url } = await serve({ checkFleet: () => [finding] });
    const it = run('doctor', { server: url });
    expect(await it.code).toBe(1);
    expect(it.stdout).toBe('ERROR    host h1: QEMU: too old\n         mend: Take 10.\n');
  });
});

describe('vm', () => {
  it('start says what a VM waits for that has no room yet, and waits with it until a host was woken', async () => {
    const states = ['waiting', 'waiting', 'starting', 'running'] as const;
    let asked = 0;
    const { url } = await serve({
      startVm: () => aVm({ state: 'waiting', message: 'No host can take web1. h3 is asleep.' }),
      getVm: () => aVm({ state: states[asked++] ?? 'running' }),
    });
    const it = run('vm start web1', { server: url });
    expect(await it.code).toBe(0);
    expect(it.stderr).toContain('web1 waits: No host can take web1. h3 is asleep.');
    expect(it.stdout).toBe('web1 is running on h1\n');
  });

  it('create sends what was asked, files made absolute, and waits until it runs', async () => {
    const states = ['creating', 'starting', 'running'] as const;
    let asked = 0;
    const { url, calls } = await serve({
      createVm: () => ({ ...aVm({ state: 'creating' }), placedBecause: 'The load is most even there.' }),
      getVm: () => aVm({ state: states[asked++] ?? 'running' }),
    });
    const line =
      'vm create web1 --image debian.qcow2 --cpus 2 --memory 1GiB --disk 10GiB --network none --host h1 --label a=b --label c=d=e';
    const it = run(line, { server: url });
    expect(await it.code).toBe(0);
    expect(it.stdout).toBe('web1 is running on h1\n');
    expect(it.stderr).toContain('web1 goes to h1: The load is most even there.');
    expect(calls[0]?.request).toMatchObject({
      body: {
        name: 'web1',
        cpus: 2,
        memoryMiB: 1024,
        image: '/somewhere/debian.qcow2',
        diskMiB: 10_240,
        network: null,
        host: 'h1',
        labels: { a: 'b', c: 'd=e' },
        boot: { kind: 'disk' },
        start: true,
      },
    });
  });

  it('create takes a kernel with its words, and fails when the VM does not start', async () => {
    const { url, calls } = await serve({
      createVm: () => ({ ...aVm({ state: 'crashed', message: 'no such kernel' }), placedBecause: null }),
    });
    const it = run(['vm', 'create', 't', '--kernel', 'k', '--initrd', '/i', '--append', 'console=ttyS0 quiet'], {
      server: url,
    });
    expect(await it.code).toBe(1);
    expect(it.stdout).toContain('crashed on h1: no such kernel');
    expect(calls[0]?.request).toMatchObject({
      body: { boot: { kind: 'kernel', kernel: '/somewhere/k', initrd: '/i', append: 'console=ttyS0 quiet' } },
    });
  });

  it('stop says what to do when the guest does not shut down', async () => {
    const { url, calls } = await serve({ stopVm: () => aVm({ state: 'stopping' }), getVm: () => aVm() });
    const it = run('vm stop web1 --timeout 2s', { server: url });
    expect(await it.code).toBe(1);
    expect(it.stderr).toContain('drover vm stop web1 --force');
    expect(calls[0]?.request).toEqual({
      params: { vm: 'web1' },
      body: { force: false, timeoutMs: 2000, dryRun: false },
    });
  });

  it('delete asks on a terminal, and does nothing without a yes', async () => {
    const { url, calls } = await serve({ getVm: () => aVm({ state: 'stopped' }) });
    const it = run('vm delete web1 --delete-disks', { server: url, tty: true, stdin: ['n'] });
    expect(await it.code).toBe(1);
    expect(it.stderr).toContain('Delete web1 and its disks (web1.qcow2)? [y/N]');
    expect(calls.map(({ name }) => name)).toEqual(['getVm']);
  });

  it('delete keeps the disks unless told otherwise, and waits until the VM is gone', async () => {
    let gone = false;
    const { url, calls } = await serve({
      getVm: () => {
        if (gone) throw new UserError('not-found', 'Gone.', '-');
        return aVm({ state: 'stopped' });
      },
      deleteVm: ({ query }) => {
        gone = true;
        return { deleting: 'web1', disksKept: query.disks === 'keep' ? ['web1.qcow2'] : [] };
      },
    });
    const it = run('vm delete web1', { server: url, tty: true, stdin: ['yes'] });
    expect(await it.code).toBe(0);
    expect(it.stdout).toBe('web1 is deleted; kept: web1.qcow2\n');
    expect(calls[1]?.request).toEqual({ params: { vm: 'vm_1' }, query: { disks: 'keep', dryRun: 'false' } });
  });

  it('console pipes both ways with --raw', async () => {
    const { url } = await serve({ getVm: () => aVm() });
    const it = run('vm console web1 --raw', { server: url, stdin: ['root\n', 'bye\n'] });
    expect(await it.code).toBe(0);
    expect(it.stdout).toBe('login: ROOT\nBYE\n');
    expect(it.raw).toEqual([]);
  });

  it('console on a terminal is raw, leaves at Ctrl-], and gives the terminal back', async () => {
    const { url } = await serve({ getVm: () => aVm() });
    const it = run('vm console web1', { server: url, tty: true, stdin: ['ls\r', '\u001Dnever sent'] });
    expect(await it.code).toBe(0);
    expect(it.raw).toEqual([true, false]);
    expect(it.stdout).not.toContain('NEVER');
  });
});

describe('migrate', () => {
  it('sends the policy with its units resolved', async () => {
    const { url, calls } = await serve({ migrateVm: () => warmingUp });
    const options =
      '--to h2 --technique hybrid --max-downtime 300ms --max-bandwidth 1Gbit --deadline 60s --auto-converge ' +
      '--parallel-streams 4 --compression zstd --when-not-converging pause --shutdown-timeout 2m --force-off --no-wait';
    const it = run([...`migrate web1 ${options}`.split(' '), '--because', 'host is noisy'], { server: url });
    expect(await it.code).toBe(0);
    expect(it.stdout).toBe('mig_1\n');
    expect(calls[0]?.request).toEqual({
      params: { vm: 'web1' },
      body: {
        to: 'h2',
        technique: 'hybrid',
        policy: {
          maxDowntimeMs: 300,
          maxBandwidthBytesPerSecond: 125_000_000,
          deadlineMs: 60_000,
          autoConverge: true,
          parallelStreams: 4,
          compression: 'zstd',
          whenNotConverging: 'pause',
          shutdownTimeoutMs: 120_000,
          forceOff: true,
        },
        why: 'host is noisy',
        dryRun: false,
        holdMs: null,
      },
    });
  });

  it('with --dry-run only asks', async () => {
    const { url, calls } = await serve({ migrateVm: () => warmingUp });
    const it = run('migrate web1 --dry-run', { server: url });
    expect(await it.code).toBe(0);
    expect(it.stdout).toBe('web1 can move from h1 to h2 by auto; nothing was changed\n');
    expect(calls).toHaveLength(1);
    expect(calls[0]?.request).toMatchObject({ body: { dryRun: true } });
  });

  const noConvergence = { code: 'no-convergence', message: 'Does not converge.', hint: 'Use hybrid.' } as const;
  const died = { code: 'target-died', message: 'QEMU on h2 died.', hint: 'Look at its log.' } as const;
  it.each([
    ['completed', ended('completed'), 0, 'downtime 38 ms  sent 1.1 GiB'],
    ['cancelled', ended('cancelled'), 3, 'the guest runs on h1'],
    ['not converged', ended('failed', { guest: 'on-source', failure: noConvergence }), 3, 'next: Use hybrid.'],
    ['failed', ended('failed', { guest: 'on-source', failure: died }), 1, 'guest: runs on h1'],
  ])('waits for the end and tells it by words and exit code: %s', async (_, end, code, words) => {
    const { url, push, listening } = await serve({ migrateVm: () => warmingUp, getMigration: () => warmingUp });
    const it = run('migrate web1', { server: url });
    await listening();
    push(migrationEvent(end));
    expect(await it.code).toBe(code);
    expect(it.stdout).toContain(words);
  });

  it('learns of an end that came while the event stream was broken', async () => {
    let now: MigrationView = warmingUp;
    const { url, cut, listening } = await serve({ migrateVm: () => warmingUp, getMigration: () => now });
    const never: Clock = { ...systemClock, setTimeout: () => ({ cancel: () => {} }) };
    const it = run('migrate web1', { server: url, clock: never });
    await listening();
    now = ended('completed');
    cut();
    expect(await it.code).toBe(0);
  });

  it('learns of an end that the event stream never tells', async () => {
    let reads = 0;
    const { url } = await serve({
      migrateVm: () => warmingUp,
      getMigration: () => (++reads > 2 ? ended('completed') : warmingUp),
    });
    const impatient: Clock = { ...systemClock, setTimeout: (fn) => systemClock.setTimeout(fn, 10) };
    expect(await run('migrate web1', { server: url, clock: impatient }).code).toBe(0);
  });

  it('with --watch and --output json is a stream of lines that ends with the final record', async () => {
    const { url, push, listening } = await serve({ migrateVm: () => warmingUp, getMigration: () => warmingUp });
    const it = run('migrate web1 --watch --output json', { server: url });
    await listening();
    push(sampleEvent(aSample()));
    push(migrationEvent(ended('completed')));
    expect(await it.code).toBe(0);
    const events = it.stdout
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line) as EventView);
    expect(events.some(({ type }) => type === 'sample')).toBe(true);
    const finals = events.filter((event) => event.type === 'migration' && event.migration.ended);
    expect(finals).toHaveLength(1);
    expect(events.at(-1)).toEqual(finals[0]);
  });

  it('with --watch gives plain lines where stdout is no terminal', async () => {
    const { url, push, listening } = await serve({ migrateVm: () => warmingUp, getMigration: () => warmingUp });
    const it = run('migrate web1 --watch', { server: url });
    await listening();
    push(sampleEvent(aSample()));
    push(migrationEvent(ended('completed')));
    expect(await it.code).toBe(0);
    expect(it.stdout).not.toContain('\u001B');
    expect(it.stdout).toContain('warming-up: memory is copied while the guest runs');
    expect(it.stdout).toContain('round 1: 50 %, 512 MiB left');
    expect(it.stdout.match(/web1 moved from h1 to h2/g)).toHaveLength(1);
  });

  it('with --watch draws nothing in place on a terminal that cannot', async () => {
    const { url, push, listening } = await serve({ migrateVm: () => warmingUp, getMigration: () => warmingUp });
    const it = run('migrate web1 --watch', { server: url, tty: true, env: { TERM: 'dumb' } });
    await listening();
    push(migrationEvent(ended('completed')));
    expect(await it.code).toBe(0);
    expect(it.stdout).not.toContain('\u001B');
    expect(it.stdout.match(/web1 moved from h1 to h2/g)).toHaveLength(1);
  });

  it('with --watch redraws in place on a terminal, shows the end once, and gives the cursor back', async () => {
    const { url, push, listening } = await serve({ migrateVm: () => warmingUp, getMigration: () => warmingUp });
    const it = run('migrate web1 --watch', { server: url, tty: true, env: { NO_COLOR: '1', LANG: 'C.UTF-8' } });
    await listening();
    push(sampleEvent(aSample()));
    await it.shows('round 1: 50 %');
    it.resize(60);
    push(migrationEvent(ended('completed')));
    expect(await it.code).toBe(0);
    expect(it.stdout.startsWith('\u001B[?25l')).toBe(true);
    expect(it.stdout.endsWith('\u001B[?25h')).toBe(true);
    const codes = it.stdout.split('\u001B').slice(1);
    expect(codes.some((code) => /^\[\d+A\r/.test(code))).toBe(true);
    expect(codes.some((code) => /^\[\d+m/.test(code))).toBe(false);
    expect(it.stdout).toContain('▶ warming-up');
  });

  it('goes on without us after Ctrl-C, and says how to follow and how to stop it', async () => {
    const { url, listening, calls } = await serve({ migrateVm: () => warmingUp, getMigration: () => warmingUp });
    const it = run('migrate web1 --watch', { server: url, tty: true });
    await listening();
    it.signal('SIGINT');
    it.signal('SIGINT');
    expect(await it.code).toBe(130);
    expect(it.exitedWith).toEqual([130]);
    expect(it.stdout.endsWith('\u001B[?25h')).toBe(true);
    expect(it.stderr).toContain('The migration goes on.');
    expect(it.stderr).toContain('drover migration cancel mig_1');
    expect(calls.map(({ name }) => name)).not.toContain('cancelMigration');
  });

  it('says that it may have begun when Ctrl-C comes before the answer', async () => {
    const asked = Promise.withResolvers<void>();
    const { url } = await serve({
      migrateVm: () => {
        asked.resolve();
        return noAnswer;
      },
    });
    const it = run('migrate web1', { server: url });
    await asked.promise;
    it.signal('SIGINT');
    expect(await it.code).toBe(130);
    expect(it.stderr).toContain('See whether it has begun: drover migration show web1');
  });

  it('can be cancelled, by the name of its VM, which is done when it worked', async () => {
    let now: MigrationView = warmingUp;
    const { url, calls } = await serve({
      listMigrations: () => [now],
      getMigration: () => now,
      cancelMigration: () => {
        now = ended('cancelled');
        return warmingUp;
      },
    });
    const it = run('migration cancel web1', { server: url });
    expect(await it.code).toBe(0);
    expect(it.stdout).toContain('the guest runs on h1');
    expect(calls.find(({ name }) => name === 'cancelMigration')?.request).toEqual({ params: { migration: 'mig_1' } });
  });
});

describe('events', () => {
  const event = migrationEvent(warmingUp);

  it('lists what was and ends', async () => {
    const { url, push, calls } = await serve();
    push(event);
    const it = run('events', { server: url });
    expect(await it.code).toBe(0);
    expect(it.stdout).toBe('2030-01-01 00:00:00.400  migration     web1: warming-up\n');
    expect(calls[0]?.request).toEqual({ query: { samples: 'false' }, lastEventId: '0' });
  });

  it('with --follow goes on until Ctrl-C, as JSON lines with their ids', async () => {
    const { url, push, listening } = await serve();
    const it = run('events -f -o json', { server: url });
    await listening();
    push(event);
    await it.shows('\n');
    it.signal('SIGINT');
    expect(await it.code).toBe(130);
    expect(JSON.parse(it.stdout)).toEqual({ id: '1', ...event });
  });
});

describe('the server is found', () => {
  function place(env: Record<string, string> = {}) {
    const root = mkdtempSync(join(tmpdir(), 'drover-cli-'));
    mkdirSync(join(root, '.config/drover'), { recursive: true });
    mkdirSync(join(root, '.drover/lab'), { recursive: true });
    writeFileSync(join(root, 'token'), 'lab-token\n');
    const write = (file: string, server: string): void =>
      writeFileSync(join(root, file), JSON.stringify({ server, tokenFile: join(root, 'token') }));
    return { root, write, at: { env, cwd: root, home: root, repoRoot: root } };
  }

  it('by flags before the environment before the file before a lab', () => {
    const { root, write, at } = place({ DROVER_SERVER: 'http://env:1', DROVER_TOKEN: 'env-token' });
    const bare = { ...at, env: {} };
    write('.drover/lab/current.json', 'http://lab:1');
    expect(findConnection({}, bare)).toMatchObject({ server: 'http://lab:1', token: 'lab-token' });
    write('.config/drover/cli.json', 'http://file:1');
    expect(findConnection({}, bare)).toMatchObject({ server: 'http://file:1', token: 'lab-token' });
    expect(findConnection({}, at)).toEqual({ server: 'http://env:1', token: 'env-token', saidBy: 'DROVER_SERVER' });
    expect(findConnection({ server: 'http://flag:1', tokenFile: 'token' }, at)).toEqual({
      server: 'http://flag:1',
      token: 'lab-token',
      saidBy: '--server',
    });
    rmSync(root, { recursive: true });
  });

  it('and never sent the token of another', () => {
    const { root, write, at } = place();
    write('.drover/lab/current.json', 'http://lab:1');
    expect(() => findConnection({ server: 'http://other:1' }, at)).toThrow('no token for the server http://other:1');
    expect(findConnection({ server: 'http://lab:1/' }, at).token).toBe('lab-token');
    rmSync(root, { recursive: true });
  });
});

describe('completion', () => {
  it('offers commands and options', async () => {
    const it = run('completion bash');
    expect(await it.code).toBe(0);
    expect(it.stdout).toContain("'vm') commands='create list show");
    expect(it.stdout).toMatch(/'migrate'\) commands='' options='[^']*--max-downtime/);
  });

  it('is told the names that the server knows', async () => {
    const { url } = await serve({ listHosts: () => [aHost({ name: 'h1' }), aHost({ name: 'h2' })] });
    const it = run('completion names host', { server: url });
    expect(await it.code).toBe(0);
    expect(it.stdout).toBe('h1\nh2\n');
  });
});
