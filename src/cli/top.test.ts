import { afterEach, describe, expect, it } from 'vitest';
import { UserError } from '../model/failure.ts';
import { aHost, aMigration, aSample, aVm, fakeServer, run, type FakeServer, type Handlers } from './fake-server.ts';
import { topLines, type Look } from './top.ts';

const at = Date.UTC(2030, 0, 1, 12);
const plain = { colour: false, unicode: false };
const look: Look = {
  at,
  hosts: [
    aHost({
      name: 'h1',
      cpuLoad: 0.25,
      memoryMiB: 4096,
      memoryUsedMiB: 3891,
      usedMiB: 1945,
      capacityMiB: 2048,
      vms: ['a', 'b'],
    }),
    aHost({ name: 'h2', cpuLoad: null, memoryUsedMiB: null, state: 'silent', vms: [], usedMiB: 0, capacityMiB: 2048 }),
  ],
  vms: [
    aVm({ name: 'a', host: 'h1', cpuCores: 0.1, memoryResidentMiB: 400, migration: 'mig_1' }),
    aVm({ name: 'b', host: 'h1', cpuCores: 1.5, memoryResidentMiB: 100 }),
    aVm({ name: 'c', host: 'h1', state: 'stopped', cpuCores: null, memoryResidentMiB: null }),
  ],
  migrations: [
    aMigration({
      id: 'mig_1',
      vmName: 'a',
      source: 'h1',
      target: 'h2',
      phase: 'warming-up',
      startedAt: at - 4000,
      sample: aSample({ round: 2, remainingBytes: 8 * 1024 * 1024 }),
    }),
  ],
};

let server: FakeServer | undefined;
afterEach(async () => {
  await server?.close();
  server = undefined;
});

async function serve(handlers: Handlers = {}): Promise<string> {
  server = await fakeServer({
    listHosts: () => [...look.hosts],
    listVms: () => [...look.vms],
    listMigrations: () => [...look.migrations],
    ...handlers,
  });
  return server.url;
}

describe('the lines', () => {
  it('show hosts with their load, moves with what is left, and guests, the busiest first', () => {
    const lines = topLines(look, 'cpu', null, plain);
    expect(lines[0]).toBe('12:00:00  1 of 2 hosts up, 2 of 3 VMs run, 1 moving, 1.9 GiB of 4.0 GiB held by guests');
    const host = (name: string) => lines.find((line) => line.startsWith(name));
    expect(host('h1')).toMatch(/^h1 +up +2 +25 % +###\.{7} +3\.8 GiB +95 % +#{9}\. +2\.0 GiB$/);
    expect(host('h2')).toMatch(/^h2 +silent +0 +- +- +0 % +\.{10} +2\.0 GiB$/);
    expect(lines.find((line) => line.startsWith('mig_1'))).toMatch(/ a +h1 +h2 .* warming-up +2 +8\.0 MiB .* 4\.0 s$/);
    const guests = lines.slice(lines.findIndex((line) => line.startsWith('VM')) + 1);
    expect(guests.map((line) => line.split(' ')[0])).toEqual(['b', 'a']);
    expect(guests[1]).toMatch(/ to h2$/);
    const byMemory = topLines(look, 'memory', null, plain);
    expect(byMemory.at(-1)).toMatch(/^b /);
  });

  it('leave out guests where there is no room, never hosts, and say how many', () => {
    const lines = topLines(look, 'cpu', { rows: 10, columns: 40 }, plain);
    expect(lines).toHaveLength(10);
    expect(lines.at(-1)).toMatch(/^… \d more$/);
    expect(lines.some((line) => line.startsWith('h2'))).toBe(true);
    expect(Math.max(...lines.map((line) => line.length))).toBe(40);
  });

  it('are coloured where colours are wanted, without moving a column', () => {
    const coloured = topLines(look, 'cpu', null, { colour: true, unicode: false });
    expect(coloured.join('\n')).toContain('\u001B[31msilent\u001B[0m');
    // oxlint-disable-next-line no-control-regex -- the escape character is what is looked for
    const bare = coloured.map((line) => line.replaceAll(/\u001B\[\d+m/g, ''));
    expect(bare).toEqual(topLines(look, 'cpu', null, plain));
  });
});

describe('drover top', () => {
  it('prints once where there is no terminal, without colours', async () => {
    const it = run('top', { server: await serve() });
    expect(await it.code).toBe(0);
    expect(it.stdout.match(/^HOST /gm)).toHaveLength(1);
    expect(it.stdout).not.toContain('\u001B');
  });

  it('prints once with --once on a terminal, in colours unless NO_COLOR forbids them', async () => {
    const url = await serve();
    const coloured = run('top --once', { server: url, tty: true });
    expect(await coloured.code).toBe(0);
    expect(coloured.stdout).toContain('\u001B[31msilent');
    const bare = run('top --once', { server: url, tty: true, env: { NO_COLOR: '1' } });
    expect(await bare.code).toBe(0);
    expect(bare.stdout).not.toContain('\u001B');
  });

  it('draws again on a terminal until Ctrl-C, and keeps what it knows while the server is away', async () => {
    let asked = 0;
    const url = await serve({
      listHosts: () => {
        if (asked++ === 1) throw new UserError('busy', 'No server leads.', 'Wait.');
        return asked > 2 ? [] : [...look.hosts];
      },
    });
    const it = run('top --every 250ms', { server: url, tty: true, env: { NO_COLOR: '1' } });
    await it.shows('No server leads. It is asked again.');
    await it.shows('0 of 0 hosts up');
    it.signal('SIGINT');
    expect(await it.code).toBe(0);
    const drawn = it.stdout.split('\u001B[J');
    const away = drawn.find((each) => each.includes('It is asked again'));
    expect(away).toContain('1 of 2 hosts up');
    expect(drawn.at(-2)).not.toContain('It is asked again');
    expect(it.stdout.endsWith('\u001B[?25h')).toBe(true);
  });

  it('gives data as JSON, one look a line, or one document with --once', async () => {
    const url = await serve();
    const once = run('top --once --output json', { server: url });
    expect(await once.code).toBe(0);
    expect(JSON.parse(once.stdout)).toMatchObject({
      hosts: [{ name: 'h1' }, { name: 'h2' }],
      migrations: [{ id: 'mig_1' }],
    });
    const many = run('top --output json --every 250ms', { server: url });
    await many.shows('\n{');
    many.signal('SIGINT');
    expect(await many.code).toBe(0);
    for (const line of many.stdout.trimEnd().split('\n')) expect(JSON.parse(line)).toHaveProperty('vms');
  });

  it('refuses to ask too often', async () => {
    const it = run('top --every 1ms', { server: await serve() });
    expect(await it.code).toBe(2);
    expect(it.stderr).toContain('too often');
  });
});
