/** Where VMs are put: by one choice, whoever asks for it. */
import { afterEach, beforeEach, expect, test } from 'vitest';
import { migrateBody, newVm } from '../wire/endpoints.ts';
import type { MigrateBody } from '../wire/endpoints.ts';
import { isEnd } from '../migration/phases.ts';
import { FakeFleet } from './fake-fleet.ts';

let fleet: FakeFleet;
let busy: Record<string, number>;
beforeEach(async () => {
  fleet = await FakeFleet.start();
  busy = {};
  fleet.guestLoad = (name) => ({
    cpuCores: busy[name] ?? 0,
    memoryResidentMiB: 100,
    diskReadBytesPerSecond: 0,
    diskWriteBytesPerSecond: 0,
    netReceiveBytesPerSecond: 0,
    netSendBytesPerSecond: 0,
  });
});
afterEach(() => fleet.stopServer());

const create = (name: string, body: object = {}) => {
  const boot = { kind: 'kernel', kernel: 'k', initrd: null, append: '' };
  return fleet.plane.vms.createSaying(newVm.parse({ name, boot, ...body }), null);
};
const hostOf = (name: string): string => fleet.plane.fleet.hostName(fleet.vm(name).host);
const migrate = (vm: string, body: MigrateBody = {}) =>
  fleet.plane.reservations.startMigration(vm, migrateBody.parse({ dryRun: true, ...body }), null, 'test');
const targetOf = async (vm: string): Promise<string> => fleet.plane.fleet.hostName((await migrate(vm)).target);

test('a new VM goes where the load is least, and the answer says why', async () => {
  // h3 has most free memory, and a guest that keeps it busy.
  await fleet.run('hot', 'h3', { memoryMiB: 256 });
  await fleet.run('wide', 'h2', { memoryMiB: 1024 });
  await fleet.run('wider', 'h1', { memoryMiB: 2048 });
  busy = { hot: 3 };
  await fleet.pass(60_000);
  const { because } = await create('web1');
  expect(hostOf('web1')).toBe('h2');
  expect(because).toMatch(/^The load is most even with it on h2 \(score 0\.\d+; on h1 0\.\d+\)\./);
  expect(await targetOf('wider')).toBe('h2');
});

test('VMs of a group that is kept apart go to different hosts, and one too many is refused with each host', async () => {
  for (const name of ['web1', 'web2', 'web3']) await create(name, { placing: { apart: ['web'] } });
  expect(new Set(['web1', 'web2', 'web3'].map(hostOf)).size).toBe(3);
  const before = await fleet.dump();
  await expect(create('web4', { placing: { apart: ['web'] } })).rejects.toMatchObject({
    code: 'against-rules',
    message: expect.stringMatching(/^No host can take web4\..*web1.*web2.*web3/),
    hint: expect.stringContaining('drover vm set web4 --apart none'),
  });
  expect(await fleet.dump()).toBe(before);
});

test('VMs of a group that stays together go where the others are, though it is not the emptiest host', async () => {
  await fleet.run('db1', 'h2', { memoryMiB: 2048, placing: { together: ['db'] } });
  const { because } = await create('app', { placing: { together: ['db'] } });
  expect(hostOf('app')).toBe('h2');
  expect(because).toContain('h2');
});

test('a pinned VM goes only to its hosts, whoever asks', async () => {
  await create('web1', { placing: { pinnedTo: ['h3'] } });
  expect(hostOf('web1')).toBe('h3');
  await fleet.run('web2', 'h1', { placing: { pinnedTo: ['h1', 'h2'] } });
  expect(await targetOf('web2')).toBe('h2');
  await expect(migrate('web2', { to: 'h3' })).rejects.toMatchObject({
    code: 'against-rules',
    message: 'web2 is pinned to h1, h2, so web2 may not be on h3.',
  });
  await expect(create('web3', { host: 'h1', placing: { pinnedTo: ['h2'] } })).rejects.toMatchObject({
    code: 'against-rules',
  });
});

test('a host past its limit of CPUs is taken when there is no other, and the answer says so', async () => {
  await fleet.stopServer();
  fleet = await FakeFleet.start(['h1']);
  for (const name of ['a', 'b', 'c', 'd']) await fleet.run(name, 'h1', { memoryMiB: 64, cpus: 4 });
  const { because } = await create('web1');
  expect(because).toMatch(/^h1 is the only host that can take it\. With web1 h1 would have 17 virtual CPUs on 4/);
});

test('room for the VMs of hosts that die is not given to new ones, but is there for those that must run', async () => {
  await fleet.plane.distributor.set({ hostFailuresTolerated: 1 }, 'ann');
  for (const name of ['h1', 'h2', 'h3']) await fleet.run(`on-${name}`, name, { memoryMiB: 3800 });
  await create('web1', { memoryMiB: 3800 });
  const before = await fleet.dump();
  await expect(create('web2', { memoryMiB: 3800 })).rejects.toMatchObject({
    code: 'no-room',
    message: expect.stringContaining('there would be no room for the VMs of a host that dies'),
  });
  expect(await fleet.dump()).toBe(before);
  const [other] = ['h1', 'h2', 'h3'].filter((name) => name !== hostOf('web1'));
  expect(await targetOf(`on-${other}`)).not.toBe(hostOf('web1'));
});

test('a sick host loses its guests by the same rules', async () => {
  await fleet.run('web1', 'h1', { placing: { apart: ['web'] } });
  await fleet.run('web2', 'h2', { placing: { apart: ['web'] } });
  await fleet.plane.fleet.change((draft) => {
    const failing = { severity: 'failing', at: 0, by: 'ann', because: 'a fan stands still' } as const;
    draft.putHost({ ...fleet.plane.fleet.findHost('h1'), failing });
  });
  await fleet.pass(2_000);
  const [move] = [...fleet.plane.fleet.migrations.values()].filter(({ phase }) => !isEnd(phase));
  expect([move?.vmName, fleet.plane.fleet.hostName(move!.target)]).toEqual(['web1', 'h3']);
});

test('a VM that waits for a host is started by the same rules, and says what is in its way', async () => {
  await fleet.run('web1', 'h1', { placing: { pinnedTo: ['h1'] } });
  const wait = { kind: 'waiting', since: 0, notBefore: 0, because: 'h1 is lost' } as const;
  fleet.agent('h1').reports = false;
  await fleet.pass(6_000);
  await fleet.plane.fleet.change((draft) => draft.putVm({ ...fleet.vm('web1'), state: wait }));
  await fleet.pass(2_000);
  expect(fleet.vm('web1').state).toMatchObject({
    kind: 'waiting',
    because: expect.stringMatching(/h1 is silent.*web1 is pinned to h1, so web1 may not be on h2/),
  });
});

test('what speaks against many hosts alike is said once, with their names', async () => {
  await fleet.plane.fleet.change((draft) => {
    for (const name of ['h2', 'h3']) draft.putHost({ ...fleet.plane.fleet.findHost(name), cordoned: true });
  });
  const refused = create('huge', { memoryMiB: 1_000_000 });
  await expect(refused).rejects.toMatchObject({
    message: expect.stringMatching(
      /^No host can take huge\. h1 has no room for huge: .*\. h2 is cordoned.* \(likewise h3\)\.$/,
    ),
  });
});
