import { afterEach, describe, expect, it, vi } from 'vitest';
import { stretchesOf } from './charts/phase-timeline.tsx';
import { lanesWithin, layOut, middleOf } from './pages/fleet-layout.ts';
import { Live } from './live.ts';
import { routeOf } from './router.ts';
import { byName, bytes, duration, percentile, rate } from './words.ts';
import type { Client } from '../wire/client.ts';
import type { HostView, VmView } from '../wire/endpoints.ts';

/** Of a view only what is looked at here. */
const host = (name: string) => ({ id: name, name, vms: [] as string[] }) as unknown as HostView;
const vm = (id: string, at: string) => ({ id, name: id, host: at }) as unknown as VmView;

describe('words', () => {
  it('say amounts in units that people read', () => {
    expect([0, 1023, 1536, 5 * 1024 ** 3].map(bytes)).toEqual(['0 B', '1023 B', '1.5 KiB', '5.0 GiB']);
    expect([8, 1234, 65_000, 3_720_000].map(duration)).toEqual(['8 ms', '1.23 s', '1 min 5 s', '1 h 2 min']);
    expect([125_000_000, 1_250_000].map(rate)).toEqual(['1.00 Gbit/s', '10 Mbit/s']);
    expect(duration(null)).toBe('–');
  });

  it('take the percentile as the value that so many do not exceed', () => {
    const values = Array.from({ length: 100 }, (_, index) => 100 - index);
    expect([0.5, 0.95, 0.99].map((share) => percentile(values, share))).toEqual([50, 95, 99]);
    expect(percentile([], 0.5)).toBeNull();
  });

  it('put h2 before h10', () => {
    expect(['h10', 'h2', 'h1'].toSorted(byName)).toEqual(['h1', 'h2', 'h10']);
  });
});

describe('addresses', () => {
  it('lead to pages, with names decoded', () => {
    expect(routeOf('/')).toEqual({ page: 'fleet' });
    expect(routeOf('/vms/')).toEqual({ page: 'vms' });
    expect(routeOf('/hosts/rack%2F1')).toEqual({ page: 'host', ref: 'rack/1' });
    expect(routeOf('/constructor/x')).toEqual({ page: 'nowhere' });
    expect(routeOf('/vms/a/b')).toEqual({ page: 'nowhere' });
  });
});

describe('the lanes', () => {
  const hosts = ['h1', 'h2', 'h3'].map(host);
  const vms = new Map([['h1', Array.from({ length: 9 }, (_, index) => vm(`a${index}`, 'h1'))]]);
  const layout = layOut(hosts, vms, [], 1000);

  it('are as high as their guests need, one below the other', () => {
    const [first, second] = layout.lanes;
    expect(first?.height).toBeGreaterThan(second?.height ?? Infinity);
    expect(second?.top).toBeGreaterThan((first?.top ?? 0) + (first?.height ?? 0));
  });

  it('are found by what is in view, without looking at the others', () => {
    const [, second] = layout.lanes;
    const at = (second?.top ?? 0) + 1;
    expect(lanesWithin(layout.lanes, at, at + 1).map((lane) => lane.host.name)).toEqual(['h2']);
    expect(lanesWithin(layout.lanes, 0, layout.height)).toHaveLength(3);
  });

  it('know where a guest is that is not drawn, and nothing of one that is not there', () => {
    expect(middleOf('a8', 'h1', layout)?.y).toBeGreaterThan(middleOf('a0', 'h1', layout)?.y ?? Infinity);
    expect(middleOf('a8', 'h2', layout)).toBeUndefined();
  });
});

describe('the phases of a move', () => {
  it('are one stretch each, rounds of warming-up together, and none for the end', () => {
    const history = [
      { phase: 'reserved', at: 0 },
      { phase: 'warming-up', at: 10, round: 1 },
      { phase: 'warming-up', at: 50, round: 2 },
      { phase: 'stop-and-copy', at: 90 },
      { phase: 'resumed', at: 95 },
      { phase: 'completed', at: 100 },
    ] as const;
    expect(stretchesOf({ history: [...history], endedAt: 100 }, 500)).toEqual([
      { phase: 'reserved', from: 0, to: 10 },
      { phase: 'warming-up', from: 10, to: 90 },
      { phase: 'stop-and-copy', from: 90, to: 95 },
      { phase: 'resumed', from: 95, to: 100 },
    ]);
    expect(stretchesOf({ history: history.slice(0, 2), endedAt: null }, 500).at(-1)?.to).toBe(500);
  });
});

describe('the load of a host or VM', () => {
  afterEach(() => vi.unstubAllGlobals());

  it('is what the server has seen, and from the opening of the page on what was told', async () => {
    vi.stubGlobal('requestAnimationFrame', () => 0);
    const cpu = [10, 20, 30].map((at) => ({ at, value: at / 10 }));
    const getLoads = () => Promise.resolve({ id: 'vm_1', stepMs: 30_000, cpu });
    const told = {
      type: 'loads' as const,
      at: 25,
      says: '',
      hosts: [],
      vms: [{ vm: 'vm_1', cpuCores: 9, memoryResidentMiB: 1 }],
    };
    const over = new AbortController();
    // Of the client only what is asked here.
    const client = {
      getLoads,
      events: async function* () {
        yield { id: null, event: told };
      },
    } as unknown as Client;
    const live = new Live(client);
    await live.run(over.signal);
    await live.readLoads({ vm: 'web1' }, over.signal);
    await live.readLoads({ vm: 'web1' }, over.signal);
    expect(live.loadOf('vm_1')).toEqual({ at: [10, 20, 25], value: [1, 2, 9] });
  });
});
