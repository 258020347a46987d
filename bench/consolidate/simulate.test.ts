import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { brotliCompressSync } from 'node:zlib';
import { createHash } from 'node:crypto';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { UserError } from '../../src/model/failure.ts';
import { benchConsolidate, consolidateText } from './consolidate.ts';
import { simulateDay, type Move, type Policy } from './simulate.ts';
import { daysIn, readTrace } from './traces.ts';
import { placeAtMidnight, publishedScene, wattsAt, type HostType, type Scene } from './world.ts';

/** 100 W idle, 200 W full, two cores of 1000 MIPS; room for one VM, so that each VM begins on a host of its own. */
const box: HostType = {
  name: 'box',
  coreMips: 1000,
  cores: 2,
  memoryMB: 1000,
  places: 1,
  watts: [100, 110, 120, 130, 140, 150, 160, 170, 180, 190, 200],
};

/** Percent of 1000 MIPS, one row a VM; 625 MB take 10 s to move. */
function sceneOf(...rows: number[][]): Scene {
  const samples = rows[0]?.length ?? 0;
  return {
    hosts: rows.map(() => box),
    vms: rows.map(() => ({ mips: 1000, memoryMB: 625 })),
    trace: { day: 'test', vms: rows.length, samples, percent: Uint8Array.from(rows.flat()) },
  };
}

const moving = (plan: Readonly<Record<number, Move[]>>): Policy => ({
  name: 'by hand',
  firstPlacement: 'least-power',
  decide: ({ step }) => plan[step] ?? [],
});

const run = (scene: Scene, plan: Readonly<Record<number, Move[]>> = {}, stay = false) =>
  simulateDay(scene, moving(plan), { stay, clock: () => 0 });

describe('the simulated day', () => {
  it('charges steady hosts what their curve says, from the first control instant on', () => {
    // Three samples: instants at 300.1 s and 600.1 s, so 300 s at 50 % of a core, a quarter of the host: 125 W.
    expect(run(sceneOf([50, 50, 50])).kWh).toBeCloseTo((125 * 300) / 3.6e6, 9);
  });

  it('takes the power between two instants as a straight line', () => {
    // The instants are 0.1 s late: by then the first demand has gone a little on its way from 40 to 100 %.
    const [first, second] = [120 + (0.1 / 300) * 30, 150];
    expect(run(sceneOf([0, 40, 100])).kWh).toBeCloseTo((((first + second) / 2) * 300) / 3.6e6, 9);
  });

  it('counts energy, broken promises and work kept back of a migration by hand', () => {
    // VM 1 moves to host 0 at 300.1 s and arrives 10 s later; both VMs ask for 500 MIPS all the time.
    const figures = run(sceneOf([50, 50, 50], [50, 50, 50]), { 1: [{ vm: 1, target: 0 }] });
    // For 10 s: host 0 gives 500 + 50 of 2000, host 1 500 (its copy counts in full). Then host 0 gives 1000, host 1 is off.
    const watts = 10 * (100 + 27.5) + 10 * 125 + 290 * 150;
    expect(figures.kWh).toBeCloseTo(watts / 3.6e6, 9);
    expect(figures.migrations).toBe(1);
    // Host 0 was asked for 1000 and gave 550 while the VM arrived.
    expect(figures.slatah).toBeCloseTo(10 / (300 + 10), 9);
    // A tenth of one of two VMs for 10 s of 300.
    expect(figures.pdm).toBeCloseTo((0.1 * 500 * 10) / (2 * 500 * 300), 9);
    expect(figures.wakes).toBe(0);
  });

  it('cuts all VMs of an overloaded host alike, which is a broken promise but no work kept back by migrations', () => {
    const rows = [80, 80, 80].map((level) => [level, level, level, level]);
    // All three on host 0 by the second instant: 2400 of 2000 MIPS.
    const figures = run(sceneOf(...rows), { 1: [1, 2].map((vm) => ({ vm, target: 0 })) });
    // 10 s of arriving, then overloaded to the end: all of the time of host 0; hosts 1 and 2 were fine for their 10 s.
    expect(figures.slatah).toBeCloseTo(600 / (600 + 20), 6);
    expect(figures.pdm).toBeCloseTo((2 * 0.1 * 800 * 10) / (3 * 800 * 600), 9);
  });

  it('lets a VM that asks for nothing leave for good, unless it stays', () => {
    const scene = sceneOf([50, 50, 0, 0, 50, 50]);
    expect(run(scene).kWh).toBeLessThan(run(scene, {}, true).kWh);
    expect(run(scene, {}, true).wakes).toBe(0);
  });

  it('counts a host that is switched on again', () => {
    const rows = [
      [50, 50, 50, 50],
      [50, 50, 50, 50],
    ];
    const there = { 1: [{ vm: 1, target: 0 }], 2: [{ vm: 1, target: 1 }] };
    expect(run(sceneOf(...rows), there)).toMatchObject({ migrations: 2, wakes: 1 });
  });

  it('refuses a policy that moves what is not there', () => {
    const scene = sceneOf([50, 50, 50]);
    expect(() => run(scene, { 1: [{ vm: 0, target: 0 }] })).toThrow('VM 0 is on host 0 already');
  });
});

describe('the world of the published comparisons', () => {
  const scene = publishedScene({ day: 'test', vms: 8, samples: 2, percent: new Uint8Array(16) });

  it('places VMs by nominal size where the power rises least', () => {
    // Per MIPS the newer type rises least at the start of its curve, and only it has a core for the largest VMs.
    const [first] = placeAtMidnight(scene, 'least-power');
    expect(scene.hosts[first ?? -1]?.name).toBe('G5');
    expect([...placeAtMidnight(scene, 'first-fit')].slice(0, 6)).toEqual([1, 1, 3, 3, 0, 0]);
  });

  it('reads watts between the points of the curve', () => {
    expect(wattsAt(box, 0.25)).toBeCloseTo(125);
    expect(wattsAt(box, 1.2)).toBe(200);
  });
});

describe('a directory of traces', () => {
  let directory: string;
  beforeEach(() => (directory = mkdtempSync(join(tmpdir(), 'drover-traces-'))));
  afterEach(() => rmSync(directory, { recursive: true }));

  function write(matrix: Uint8Array, sha256 = createHash('sha256').update(matrix).digest('hex')): void {
    const index = { someday: { vms: 4, samples: 3, sha256 }, absent: { vms: 1, samples: 3, sha256: '' } };
    writeFileSync(join(directory, 'index.json.br'), brotliCompressSync(JSON.stringify(index)));
    writeFileSync(join(directory, 'someday.bin.br'), brotliCompressSync(matrix));
  }

  const matrix = new Uint8Array(12).fill(20);

  it('offers the days whose file is there, and every contestant runs on them', () => {
    write(matrix);
    expect(daysIn(directory)).toEqual(['someday']);
    const rows = benchConsolidate({ data: directory, days: undefined, modes: ['stay'], say: () => {} });
    expect(rows.map(({ policy }) => policy)).toEqual([
      'Drover',
      'LR-MMT 1.2',
      'IQR-MMT 1.5',
      'THR-MMT 0.8',
      'MAD-MMT 2.5',
    ]);
    expect(consolidateText(rows)).toContain('stay, energy: 0.01 kWh, aim 135 kWh: met');
  });

  it('is described when it is missing or empty', () => {
    const asked = (data?: string) => () => benchConsolidate({ data, days: undefined, modes: ['stay'], say: () => {} });
    expect(asked()).toThrow(UserError);
    expect(asked(directory)).toThrow(`${directory} has no index.json.br.`);
    expect(asked(join(directory, 'nowhere'))).toThrow('has no index.json.br.');
  });

  it('is refused where a day is not what the index says', () => {
    write(matrix, 'something else');
    expect(() => readTrace(directory, 'someday')).toThrow('is not the matrix whose SHA-256');
    write(matrix.slice(1));
    expect(() => readTrace(directory, 'someday')).toThrow('holds 11 bytes, not 4 x 3');
    writeFileSync(join(directory, 'someday.bin.br'), 'no brotli');
    expect(() => readTrace(directory, 'someday')).toThrow('cannot be unpacked');
    expect(() => readTrace(directory, 'absent')).toThrow("There is no day 'absent'");
    writeFileSync(join(directory, 'index.json.br'), brotliCompressSync('[{}]'));
    expect(() => daysIn(directory)).toThrow('says nothing usable');
  });
});
