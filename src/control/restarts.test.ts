/** VMs of a lost host that do not start at once. */
import { afterEach, beforeEach, expect, test } from 'vitest';
import { FakeFleet, frozen, until } from './fake-fleet.ts';

let fleet: FakeFleet;
beforeEach(async () => {
  fleet = await FakeFleet.start(['h1', 'h2', 'h3']);
});
afterEach(() => fleet.stopServer());

const failure = { code: 'guest-start-failed', message: 'No such file.', hint: '' } as const;
const agent = () => fleet.agent(fleet.plane.fleet.hostName(fleet.vm('web1').host));
const told = () => fleet.alarms.filter((alarm) => alarm.includes('web1 could not be started'));

test('They are tried on other hosts, then ever more rarely, and run when whatever stood in the way is gone.', async () => {
  await fleet.run('web1', 'h1');
  fleet.agent('h1').channel?.close('the host died');
  await fleet.pass(4_000);
  await fleet.plane.recovery.fencedByWord('h1', 'it burnt', true);
  const tries: { readonly host: string; readonly at: number }[] = [];
  // Storage that comes back ten minutes after the hosts.
  for (const end = fleet.clock.monotonic() + 600_000; fleet.clock.monotonic() < end; await fleet.pass(1_000, 500)) {
    if (fleet.vm('web1').state.kind !== 'starting') continue;
    tries.push({ host: agent().name, at: fleet.clock.monotonic() });
    await agent().life(fleet.vm('web1').id, { kind: 'start-failed', failure });
    expect(fleet.vm('web1').state).toMatchObject({
      kind: 'waiting',
      because: expect.stringContaining('No such file.'),
    });
  }
  expect(new Set(tries.slice(0, 3).map(({ host }) => host))).toEqual(new Set(['h2', 'h3']));
  const [first, , third] = tries;
  expect((third?.at ?? 0) - (first?.at ?? 0)).toBeLessThanOrEqual(8_000);
  const pauses = tries.slice(3).map(({ at }, index) => at - (tries[index + 2]?.at ?? 0));
  expect(pauses.length).toBeLessThanOrEqual(8);
  expect(pauses).toEqual(pauses.toSorted((a, b) => a - b));
  expect(told()).toHaveLength(1);
  for (let ms = 0; fleet.vm('web1').state.kind !== 'starting'; ms += 1_000) {
    expect(ms).toBeLessThan(310_000);
    await fleet.pass(1_000);
  }
  await until('it is ordered', () => agent().kinds().includes('start'));
  await agent().life(fleet.vm('web1').id, { kind: 'started', running: frozen(fleet.vm('web1')) });
  expect(fleet.vm('web1').state.kind).toBe('running');
});
