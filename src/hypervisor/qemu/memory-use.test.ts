import { describe, expect, test } from 'vitest';
import { MiB } from '../../model/units.ts';
import type { Qmp } from './monitor.ts';
import { inUseIn, readMemoryUse } from './memory-use.ts';
import { QmpCommandError } from './qmp-errors.ts';

const mapping = (sizeKiB: number, residentKiB: number, more = '') =>
  `7f02efe00000-7f030fe00000 rw-p 00000000 00:00 0 \nSize:           ${sizeKiB} kB\nRss:            ${residentKiB} kB\n${more}VmFlags: rd wr`;

describe('memory in use', () => {
  test('is the resident part of the mapping that has the size of the memory, not of the largest', () => {
    const smaps = [mapping(132, 100), mapping(524_288, 370_688), mapping(1_048_572, 55_296)].join('\n');
    expect(inUseIn(smaps, 512)).toBe(370_688 * 1024);
  });

  test('is never more than the memory, and counts huge pages', () => {
    expect(inUseIn(mapping(600_000, 590_000), 512)).toBe(512 * MiB);
    const huge = 'Shared_Hugetlb:        0 kB\nPrivate_Hugetlb:   204800 kB\n';
    expect(inUseIn(mapping(524_288, 0, huge), 512)).toBe(200 * MiB);
  });

  test('is all of it where the mapping is not found', () => {
    expect(inUseIn('', 512)).toBe(512 * MiB);
  });
});

/** Answers as QEMU does, and keeps what it was asked. */
function monitor(knowsMilliseconds: boolean) {
  const asked: Record<string, unknown>[] = [];
  const execute = async (command: string, args: Record<string, unknown> = {}) => {
    if (command === 'query-dirty-rate') return { status: 'measured', 'dirty-rate': 8 };
    if ('calc-time-unit' in args && !knowsMilliseconds) {
      throw new QmpCommandError('', command, {
        class: 'GenericError',
        desc: "Parameter 'calc-time-unit' is unexpected",
      });
    }
    asked.push(args);
    return {};
  };
  // The cast: two commands of all that a monitor knows.
  return { asked, qmp: { path: '', execute, executeOob: execute } as unknown as Qmp };
}

describe('writing', () => {
  test('is sampled for a quarter of a second and for a whole one, never by dirty-bitmap', async () => {
    const { qmp, asked } = monitor(true);
    const { dirtied } = await readMemoryUse(qmp, process.pid, 512);
    expect(dirtied).toEqual([
      { overMs: 250, bytes: 2 * MiB },
      { overMs: 1000, bytes: 8 * MiB },
    ]);
    expect(asked.map(({ mode }) => mode)).toEqual(['page-sampling', 'page-sampling']);
    for (const { 'sample-pages': samples } of asked) expect(samples).toBeGreaterThanOrEqual(4096);
  });

  test('is sampled for a whole second only by a QEMU that knows no shorter time', async () => {
    const { qmp, asked } = monitor(false);
    const { dirtied } = await readMemoryUse(qmp, process.pid, 512);
    expect(dirtied).toEqual([{ overMs: 1000, bytes: 8 * MiB }]);
    expect(asked).toEqual([{ 'calc-time': 1, mode: 'page-sampling', 'sample-pages': 8192 }]);
  });

  test('of a guest that is too small to be sampled is not known, which is not the same as none', async () => {
    const { qmp, asked } = monitor(true);
    expect((await readMemoryUse(qmp, process.pid, 96)).dirtied).toEqual([]);
    expect(asked).toEqual([]);
  });
});
