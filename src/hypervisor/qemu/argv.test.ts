import { expect, test } from 'vitest';
import type { VmSpec } from '../../model/vm.ts';
import { freeze, localize } from './argv.ts';

const spec: VmSpec = {
  cpus: 2,
  memoryMiB: 512,
  machine: 'pc-q35-7.2',
  cpuModel: 'qemu64-v1',
  boot: { kind: 'kernel', pool: 'p', kernel: 'k', initrd: null, append: 'x={pool:p} y={tap:9}' },
  disks: [{ pool: 'p', file: 'vm/d.qcow2', format: 'qcow2' }],
  nics: [{ network: 'default', mac: '52:54:00:00:00:01' }],
};

test('source and target differ in pools and taps only, and nothing of a user is taken for a placeholder', () => {
  const running = freeze(spec);
  const here = localize(running, { taps: ['tap0'], pools: { p: '/a,"b' } });
  const there = localize(running, { taps: ['tap1'], pools: { p: '/c' } });
  const differing = here.filter((argument, index) => argument !== there[index]);
  expect(differing).toHaveLength(3);
  expect(here).toContain('x={pool:p} y={tap:9}');
  expect(here).toContain('/a,"b/k');
  const disk = JSON.parse(here[here.indexOf('-blockdev') + 1] ?? '') as { file: { filename: string } };
  expect(disk.file.filename).toBe('/a,"b/vm/d.qcow2');
});

test('a file outside its pool and a pool this host has not are refused', () => {
  for (const file of ['../d', '/etc/shadow', 'a/../../d', '{pool:q}'])
    expect(() => freeze({ ...spec, disks: [{ pool: 'p', file, format: 'raw' }] })).toThrow(RangeError);
  expect(() => localize(freeze(spec), { taps: ['t'], pools: {} })).toThrow("no pool 'p'");
});
