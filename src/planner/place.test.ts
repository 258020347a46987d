import { describe, expect, it } from 'vitest';
import { fakeHost, fakeSnapshot, fakeVm } from './fake-fleet.ts';
import { place } from './place.ts';

describe('place', () => {
  it('chooses the host where the fleet is most even, and moves nobody', () => {
    const vms = [fakeVm('a', 'h1'), fakeVm('b', 'h1'), fakeVm('c', 'h2')];
    const hosts = [fakeHost('h1'), fakeHost('h2'), fakeHost('h3')];
    const { placements, moves } = place(fakeSnapshot(hosts, vms), [fakeVm('new', '')]);
    expect(placements.map(({ to }) => to)).toEqual(['h3']);
    expect(moves).toEqual([]);
  });

  it('says of each host why it cannot take the VM', () => {
    const hosts = [
      fakeHost('h1', { state: 'cordoned' }),
      fakeHost('h2', { machines: ['pc-q35-6.2'] }),
      fakeHost('h3', { memoryMiB: 2048 }),
      fakeHost('h4'),
    ];
    const { placements, refused } = place(fakeSnapshot(hosts, []), [
      fakeVm('new', '', { pinnedTo: ['h1', 'h2', 'h3'], memoryMiB: 4096 }),
    ]);
    expect(placements).toEqual([]);
    expect(refused.map(({ wanted, rule }) => `${wanted} ${rule}`)).toEqual([
      'h1 host-state',
      'h2 machine',
      'h3 memory',
      'h4 pinned',
    ]);
  });

  it('leaves room for the VMs of a host that dies', () => {
    const hosts = ['h1', 'h2'].map((name) => fakeHost(name, { memoryMiB: 8192, reservedMiB: 0 }));
    const vms = [fakeVm('a', 'h1', { memoryMiB: 4000 })];
    const snapshot = fakeSnapshot(hosts, vms, { hostFailuresTolerated: 1 });
    expect(place(snapshot, [fakeVm('fits', '', { memoryMiB: 4000 })]).placements).toHaveLength(1);
    const { refused } = place(snapshot, [fakeVm('too-much', '', { memoryMiB: 4500 })]);
    expect(refused.map(({ wanted, rule }) => `${wanted} ${rule}`)).toEqual(['h1 memory', 'h2 spare']);
  });
});
