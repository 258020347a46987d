import { expect, test } from 'vitest';
import type { GuestLoad, HostLoad } from '../model/host.ts';
import type { HostId, VmId } from '../model/ids.ts';
import { LoadHistory } from './load-history.ts';

const [h1, h2, web1] = ['host_1' as HostId, 'host_2' as HostId, 'vm_1' as VmId];
const guest = (cpuCores: number): GuestLoad => ({
  cpuCores,
  memoryResidentMiB: 100,
  diskReadBytesPerSecond: 1,
  diskWriteBytesPerSecond: 2,
  netReceiveBytesPerSecond: 3,
  netSendBytesPerSecond: 4,
});
const load = (cpu: number, cores = 0): HostLoad => ({
  at: 0,
  cpu,
  memoryUsedMiB: 1000,
  memoryTotalMiB: 8000,
  pressure: null,
  guests: { [web1]: guest(cores) },
});
const always = (): boolean => true;

test('is right from the first sample on, and steady load stays what it is', () => {
  const loads = new LoadHistory();
  for (let at = 0; at <= 60_000; at += 1_000) {
    loads.observe(h1, load(0.5, 1.5), at, always);
    expect(loads.guestOf(web1)?.cpuCores.value).toBeCloseTo(1.5);
  }
  expect(loads.hostOf(h1)?.cpu).toMatchObject({ value: expect.closeTo(0.5), spread: expect.closeTo(0) });
  expect(loads.guestOf(web1)?.netBytesPerSecond.value).toBeCloseTo(7);
  expect(loads.seenMs(h1)).toBe(60_000);
});

test('one wild sample hardly moves it, and a lasting change is followed within some minutes', () => {
  const loads = new LoadHistory();
  let at = 0;
  const say = (cpu: number, times: number) => {
    for (let i = 0; i < times; i++) loads.observe(h1, load(cpu), (at += 1_000), always);
  };
  say(0.2, 120);
  say(1, 1);
  expect(loads.hostOf(h1)?.cpu.value).toBeLessThan(0.22);
  expect(loads.hostOf(h1)?.cpu.spread).toBeLessThan(0.02);
  say(0.9, 180);
  expect(loads.hostOf(h1)?.cpu.value).toBeGreaterThan(0.85);
});

test('a sample after a silence does not stand for all of it', () => {
  const loads = new LoadHistory();
  for (let at = 0; at <= 120_000; at += 1_000) loads.observe(h1, load(0), at, always);
  loads.observe(h1, load(1), 720_000, always);
  expect(loads.hostOf(h1)?.cpu.value).toBeLessThan(0.1);
  expect(loads.seenMs(h1)).toBe(125_000);
});

test('of a guest on the move only the host that runs it is heard, and what is gone is forgotten', () => {
  const loads = new LoadHistory();
  loads.observe(h1, load(0.5, 1), 1_000, always);
  loads.observe(h2, load(0.5, 0), 1_000, () => false);
  expect(loads.guestOf(web1)?.cpuCores.value).toBe(1);
  loads.keepOnly(new Map([[h2, 1]]), new Map());
  expect(loads.guestOf(web1)).toBeUndefined();
  expect([loads.seenMs(h1), loads.hostOf(h2)?.cpu.value]).toEqual([0, 0.5]);
});
