import { beforeEach, expect, test } from 'vitest';
import { FakeGuest } from '../hypervisor/fake-guest.ts';
import type { TransferNumbers } from '../hypervisor/hypervisor.ts';
import { completePolicy } from '../migration/techniques.ts';
import { Holding } from './holding.ts';
import { running, vm } from './fake-host.ts';

const MB = 1_000_000;
const bandwidth = 100 * MB;
let guest: FakeGuest;
let armed: number;
let holding: Holding;
beforeEach(() => {
  guest = new FakeGuest({ key: { vm, generation: 1 }, running }, 'running', () => 0);
  armed = 0;
  holding = new Holding(guest, completePolicy('pre-copy', {}), () => armed++);
});
const look = (round: number, remainingMB: number): Promise<void> =>
  holding.keep({ ...guest.numbers, round, remainingBytes: remainingMB * MB } satisfies TransferNumbers, bandwidth);

test('a guest with little left after its first round is armed once, and slowed down before that is said', async () => {
  await look(1, 10);
  expect(armed).toBe(0);
  guest.does.set('limit-bandwidth trickle', () => expect(armed).toBe(0));
  await look(2, 50);
  await look(3, 20);
  expect([armed, guest.asked]).toEqual([1, ['limit-bandwidth trickle']]);
});

test('what was written since is sent at full speed when it has become much, and then it is quiet again', async () => {
  await look(2, 10);
  await look(3, 100);
  expect(guest.asked).toEqual(['limit-bandwidth trickle']);
  await look(4, 101);
  await look(5, 60);
  expect(guest.asked).toEqual(['limit-bandwidth trickle', 'limit-bandwidth null']);
  await look(6, 50);
  expect(guest.asked).toEqual(['limit-bandwidth trickle', 'limit-bandwidth null', 'limit-bandwidth trickle']);
  expect(armed).toBe(1);
});

test('a guest that writes more than that is armed when waiting makes it no less, and does not fill the link for ever', async () => {
  for (let round = 2; round < 5; round++) await look(round, 200);
  expect([armed, guest.asked]).toEqual([0, []]);
  await look(5, 210);
  expect([armed, guest.asked]).toEqual([1, ['limit-bandwidth trickle']]);
});

test('a switch is done once, at full speed, and what comes afterwards does not slow it down', async () => {
  await look(2, 10);
  await holding.switchNow();
  await holding.switchNow();
  await look(3, 0);
  expect(guest.asked).toEqual(['limit-bandwidth trickle', 'limit-bandwidth null', 'complete-now']);
  expect(holding.isSwitching).toBe(true);
});

test('a switch that the hypervisor did not take can be asked for again', async () => {
  guest.refuses.set('complete-now', new Error('busy'));
  await expect(holding.switchNow()).rejects.toThrow('busy');
  expect(holding.isSwitching).toBe(false);
  guest.refuses.clear();
  await holding.switchNow();
  expect(guest.count('complete-now')).toBe(2);
});
