import { expect, test } from 'vitest';
import { FakeGuest } from '../hypervisor/fake-guest.ts';
import type { Guest } from '../hypervisor/hypervisor.ts';
import type { VmId } from '../model/ids.ts';
import type { Part } from './journal.ts';
import { Measuring } from './measuring.ts';

const vm = 'vm_1' as VmId;
const memory = { inUseBytes: 5, dirtied: [{ overMs: 1000, bytes: 3 }] };

function of(part: Part['kind'], looks: () => Promise<typeof memory>) {
  const spec = {
    cpus: 1,
    memoryMiB: 512,
    machine: '',
    cpuModel: '',
    boot: { kind: 'disk' },
    disks: [],
    nics: [],
  } as const;
  const guest = new FakeGuest(
    { key: { vm, generation: 1 }, running: { argvVersion: 2, argv: [], spec } },
    'running',
    () => 0,
  );
  guest.memoryUse = looks;
  // The cast: only the kind is asked for.
  return new Measuring({ running: new Map<VmId, Guest>([[vm, guest]]), part: () => ({ kind: part }) as Part });
}

test('a guest that runs is looked at once for all who ask meanwhile', async () => {
  let looks = 0;
  const measuring = of('runs', async () => {
    looks++;
    return memory;
  });
  const both = await Promise.all([measuring.measure(vm), measuring.measure(vm)]);
  expect(both).toEqual([
    { memory, says: '' },
    { memory, says: '' },
  ]);
  expect(looks).toBe(1);
  await measuring.measure(vm);
  expect(looks).toBe(2);
});

test.each(['sending', 'receiving', 'handed-over', 'continuing'] as const)(
  'a guest that is %s is left alone',
  async (part) => {
    const measuring = of(part, () => Promise.reject(new Error('was disturbed')));
    expect(await measuring.measure(vm)).toEqual({ memory: null, says: `its guest is ${part}` });
  },
);

test('what cannot be measured is said, not thrown', async () => {
  const measuring = of('runs', () => Promise.reject(new Error('QEMU measures for somebody else')));
  expect(await measuring.measure(vm)).toEqual({ memory: null, says: 'QEMU measures for somebody else' });
  expect(await measuring.measure('vm_2' as VmId)).toEqual({ memory: null, says: 'its guest is not here' });
});
