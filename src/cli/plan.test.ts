import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import type { Plan } from '../model/plan.ts';
import { unevenFleet } from '../planner/fake-fleet.ts';
import { toFleetFile } from '../wire/fleet.ts';
import { fakeServer, run } from './fake-server.ts';

const folder = mkdtempSync(join(tmpdir(), 'drover-plan-'));
afterAll(() => rmSync(folder, { recursive: true }));
const file = (name: string, text: string): string => {
  writeFileSync(join(folder, name), text);
  return join(folder, name);
};
const fleet = file('fleet.json', JSON.stringify(toFleetFile(unevenFleet(4, 8, 2))));

describe('drover plan', () => {
  it('prints the moves in order, without a server', async () => {
    const first = run(['plan', '--snapshot', fleet, '--goal', 'balance', '--max-moves', '3', '-o', 'json']);
    expect(await first.code).toBe(0);
    const { moves, score } = JSON.parse(first.stdout) as Plan;
    expect(moves).toHaveLength(3);
    expect(Object.keys(moves[0] ?? {})).toEqual(expect.arrayContaining(['vm', 'from', 'to', 'reason']));
    expect(score.after.total).toBeLessThan(score.before.total);
    const again = run(['plan', '--snapshot', fleet, '--goal', 'balance', '--max-moves', '3', '-o', 'json']);
    await again.code;
    expect(again.stdout).toBe(first.stdout);
  });

  it('shows people waves, reasons and the score part by part', async () => {
    const ended = run(['plan', fleet, '--goal', 'drain', '--host', 'h1']);
    expect(await ended.code).toBe(0);
    expect(ended.stdout).toMatch(/^WAVE +VM +FROM +TO/);
    expect(ended.stdout).toContain('h1 is draining.');
    expect(ended.stdout).toMatch(/hosts emptied +h1/);
  });

  it.each([
    [['plan'], 'No snapshot was named.'],
    [['plan', '--snapshot', '/nowhere.json'], '/nowhere.json cannot be read'],
    [['plan', fleet, '--goal', 'drain'], 'Which host is it about?'],
    [['plan', fleet, '--goal', 'drain', '--host', 'h9'], "'h9' is no host of this fleet."],
    [['plan', fleet, '--host', 'h1'], '--host means nothing with --goal balance.'],
    [
      ['plan', fleet, '--goal', 'consolidate', '--objective', 'peak'],
      '--objective means nothing with --goal consolidate.',
    ],
    [['plan', fleet, '--max-moves', '-1'], 'Use a whole number from 0 to 1000000000000.'],
    [['plan', fleet, '--util', 'x'], '--util goes with --from hbal.'],
    [['plan', file('cut.json', '{"drover-fleet": 1,')], 'it was cut off'],
    [['plan', '--from', 'hbal', file('c.data', 'g|g|preferred||\n')], 'there are no nodes'],
  ])('%j is a mistake that is explained, with exit code 2', async (argv, message) => {
    const ended = run(argv);
    expect(await ended.code).toBe(2);
    expect(ended.stderr).toContain(message);
    expect(ended.stdout).toBe('');
  });
});

describe('drover fleet export', () => {
  it('writes what drover plan reads, and replaces no file unasked', async () => {
    const server = await fakeServer({ getFleetSnapshot: () => toFleetFile(unevenFleet(3, 4, 1)) });
    try {
      const name = join(folder, 'exported.json');
      const first = run(['fleet', 'export', name], { server: server.url });
      expect(await first.code).toBe(0);
      expect(first.stdout).toContain('3 hosts, 12 VMs');
      const again = run(['fleet', 'export', name], { server: server.url });
      expect(await again.code).toBe(4);
      expect(again.stderr).toContain('is there already');
      expect(await run(['plan', '--snapshot', name]).code).toBe(0);
    } finally {
      await server.close();
    }
  });
});
