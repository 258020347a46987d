import { expect, it } from 'vitest';
import { guestCommandLine } from './command-line.ts';

const settingsIn = (line: string) => line.split(' ').filter((word) => word.startsWith('drover.'));

it('says nothing about what was not asked for', () => {
  expect(settingsIn(guestCommandLine({ address: '10.1.2.3/24' }))).toEqual(['drover.ip=10.1.2.3/24']);
});

it('carries every setting in the form that the workload reads', () => {
  const line = guestCommandLine({
    address: '10.1.2.3/24',
    gateway: '10.1.2.1',
    fillMiB: 256,
    load: { pagesPerSecond: 2500, setMiB: 32 },
    diskWritesPerSecond: 50,
    powerButton: 'ignored',
  });
  expect(settingsIn(line)).toEqual([
    'drover.ip=10.1.2.3/24',
    'drover.gateway=10.1.2.1',
    'drover.fill=256',
    'drover.load=2500,32',
    'drover.disk=50',
    'drover.noacpi=1',
  ]);
});

it('always has the serial line as console, for people who attach to it', () => {
  expect(guestCommandLine({ address: '10.1.2.3/24' }).split(' ')).toContain('console=ttyS0');
});
