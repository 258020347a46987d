import { describe, expect, it } from 'vitest';
import { drain } from './drain.ts';
import { fakeHost, fakeSnapshot, fakeVm } from './fake-fleet.ts';

describe('drain', () => {
  it('empties a host and leaves all others where they are', () => {
    const vms = [fakeVm('a', 'h1'), fakeVm('b', 'h1'), fakeVm('c', 'h2')];
    const plan = drain(fakeSnapshot([fakeHost('h1'), fakeHost('h2'), fakeHost('h3')], vms), ['h1']);
    expect(plan.moves.map(({ vm }) => vm).toSorted()).toEqual(['a', 'b']);
    expect(plan.refused).toEqual([]);
    expect(plan.emptied).toEqual(['h1']);
    expect(plan.moves[0]?.reason).toBe('h1 is draining.');
  });

  it('says of each VM that stays which rule keeps it', () => {
    const vms = [
      fakeVm('gpu', 'h1', { cannotMoveLive: 'it holds a device of the host' }),
      fakeVm('pinned', 'h1', { pinnedTo: ['h1'] }),
      fakeVm('huge', 'h1', { memoryMiB: 60_000 }),
      fakeVm('rival', 'h1', { apart: ['db'] }),
      fakeVm('other', 'h2', { apart: ['db'] }),
    ];
    const hosts = [fakeHost('h1'), fakeHost('h2', { memoryMiB: 32_768 })];
    const { moves, refused } = drain(fakeSnapshot(hosts, vms), ['h1']);
    expect(moves).toEqual([]);
    expect(refused.map(({ vm, rule }) => [vm, rule])).toEqual([
      ['gpu', 'cannot-move-live'],
      ['pinned', 'pinned'],
      ['huge', 'memory'],
      ['rival', 'apart'],
    ]);
    expect(refused[3]?.says).toBe("rival and other of the group 'db' are to be kept apart.");
  });

  it('moves another VM out of the way where that is the only room', () => {
    const host = (name: string): ReturnType<typeof fakeHost> => fakeHost(name, { memoryMiB: 8192, reservedMiB: 0 });
    const vms = [
      fakeVm('big', 'h1', { memoryMiB: 8000 }),
      fakeVm('small', 'h2', { memoryMiB: 1000 }),
      fakeVm('other', 'h3', { memoryMiB: 4000 }),
    ];
    const { moves, refused } = drain(fakeSnapshot([host('h1'), host('h2'), host('h3')], vms), ['h1']);
    expect(refused).toEqual([]);
    expect(moves.map(({ vm, to }) => `${vm} ${to}`)).toEqual(['small h3', 'big h2']);
    expect(moves.map(({ wave }) => wave)).toEqual([1, 2]);
  });
});
