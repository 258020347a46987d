import { describe, expect, it } from 'vitest';
import { failover } from './failover.ts';
import { fakeHost, fakeSnapshot, fakeVm } from './fake-fleet.ts';

describe('failover', () => {
  it('starts the VMs of a lost host on the others, the most important first where room is short', () => {
    const vms = [
      fakeVm('minor', 'h1', { memoryMiB: 5000, priority: 10 }),
      fakeVm('major', 'h1', { memoryMiB: 5000, priority: 900 }),
      fakeVm('own', 'h1', { recovery: 'manual' }),
      fakeVm('bound', 'h1', { memoryMiB: 100, cannotMoveLive: 'it holds a device' }),
    ];
    const hosts = [fakeHost('h1'), fakeHost('h2', { memoryMiB: 8192, reservedMiB: 0 })];
    const { placements, refused, moves } = failover(fakeSnapshot(hosts, vms), ['h1']);
    expect(moves).toEqual([]);
    expect(placements.map(({ vm, to }) => `${vm} ${to}`)).toEqual(['major h2', 'bound h2']);
    expect(refused.map(({ vm, rule }) => `${vm} ${rule}`)).toEqual(['minor memory', 'own recovery']);
  });
});
