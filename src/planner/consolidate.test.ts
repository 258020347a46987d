import { describe, expect, it } from 'vitest';
import { consolidate } from './consolidate.ts';
import { fakeHost, fakeSnapshot, fakeVm } from './fake-fleet.ts';

const hosts = ['h1', 'h2', 'h3', 'h4'].map((name) => fakeHost(name));
const vms = hosts.flatMap(({ name }) => [1, 2].map((i) => fakeVm(`${name}-${i}`, name, { memoryMiB: 8192 })));

describe('consolidate', () => {
  it('packs the VMs onto as few hosts as hold them and names those that are empty then', () => {
    const plan = consolidate(fakeSnapshot(hosts, vms));
    expect(plan.emptied).toHaveLength(2);
    expect(plan.moves).toHaveLength(4);
    expect(plan.moves[0]?.reason).toMatch(/^Empties h\d\.$/);
  });

  it('keeps room for the VMs of a host that dies among the hosts that stay in use', () => {
    expect(consolidate(fakeSnapshot(hosts, vms, { hostFailuresTolerated: 1 })).emptied).toHaveLength(1);
  });

  it('with a budget empties whole hosts or leaves them alone', () => {
    const plan = consolidate(fakeSnapshot(hosts, vms), { budget: { moves: 3 } });
    expect(plan.emptied).toHaveLength(1);
    expect(plan.moves).toHaveLength(2);
  });

  it('leaves a host alone whose VM cannot leave', () => {
    const bound = vms.map((vm) => (vm.name.endsWith('-1') ? { ...vm, cannotMoveLive: 'it holds a device' } : vm));
    expect(consolidate(fakeSnapshot(hosts, bound)).moves).toEqual([]);
  });
});
