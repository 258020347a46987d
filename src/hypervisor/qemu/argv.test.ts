import { expect, test } from 'vitest';
import type { VmSpec } from '../../model/vm.ts';
import { freeze, hasAgentPort, localize } from './argv.ts';

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

test('a new guest has a port for an agent; one frozen before has none, wherever it goes, as the other side would lack it', () => {
  const running = freeze(spec);
  expect(hasAgentPort(running)).toBe(true);
  const here = localize(running, { taps: ['tap0'], pools: { p: '/a' } });
  expect(here.some((argument) => argument.includes('org.qemu.guest_agent.0'))).toBe(true);
  expect(here.join(' ')).not.toContain('.sock'); // the host's end is the host's own
  for (const argvVersion of [1, 2] as const) expect(hasAgentPort({ ...running, argvVersion })).toBe(false);
});

test('a file outside its pool and a pool this host has not are refused', () => {
  for (const file of ['../d', '/etc/shadow', 'a/../../d', '{pool:q}'])
    expect(() => freeze({ ...spec, disks: [{ pool: 'p', file, format: 'raw' }] })).toThrow(RangeError);
  expect(() => localize(freeze(spec), { taps: ['t'], pools: {} })).toThrow("no pool 'p'");
});
