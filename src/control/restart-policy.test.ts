import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { FakeFleet } from './fake-fleet.ts';
import { afterItsEnd } from './restart-policy.ts';

let fleet: FakeFleet;
beforeEach(async () => {
  fleet = await FakeFleet.start();
});
afterEach(() => fleet.stopServer());

const message = 'its QEMU process ended unexpectedly';
const generationOf = (name: string): number => fleet.vm(name).generation;
async function dies(name: string, how: 'died' | 'powered-off' = 'died'): Promise<void> {
  const { id } = fleet.vm(name);
  fleet.agent('h1').orders = [];
  await fleet.agent('h1').life(id, { kind: 'ended', how, message: how === 'died' ? message : '' });
}
async function startsAgain(name: string): Promise<void> {
  const { id, spec } = fleet.vm(name);
  await fleet.agent('h1').order('start');
  await fleet.agent('h1').life(id, { kind: 'started', running: { argvVersion: 2, argv: [], spec } });
}

describe('by its policy', () => {
  test('a guest that died is started again where it was, ever later while it keeps dying', async () => {
    await fleet.run('web1', 'h1', { restart: 'on-failure' });
    for (const pauseMs of [1_000, 2_000, 4_000]) {
      const before = generationOf('web1');
      await dies('web1');
      expect(fleet.vm('web1').state).toMatchObject({ kind: 'waiting', because: message });
      expect(fleet.room('h1')).toBe('0+0');
      await fleet.pass(pauseMs - 500);
      expect(fleet.vm('web1').state.kind).toBe('waiting');
      await fleet.pass(1_500);
      expect(fleet.vm('web1')).toMatchObject({
        state: { kind: 'starting' },
        host: fleet.plane.fleet.findHost('h1').id,
      });
      expect(generationOf('web1')).toBeGreaterThan(before);
      await startsAgain('web1');
      expect(fleet.vm('web1').state.kind).toBe('running');
    }
    await fleet.clock.advance(0);
    expect(fleet.vm('web1').restarts.count).toBe(3);
  });

  test('one that powered itself off stays off, unless it shall always run', async () => {
    await fleet.run('web1', 'h1', { restart: 'on-failure' });
    await dies('web1', 'powered-off');
    expect(fleet.vm('web1').state.kind).toBe('stopped');
    await fleet.run('web2', 'h1', { restart: 'always' });
    await dies('web2', 'powered-off');
    expect(fleet.vm('web2').state).toMatchObject({ kind: 'waiting', because: 'its guest powered itself off' });
  });

  test('one that died is left for a person, when that was asked for; and one that was told to stop always stays off', async () => {
    await fleet.run('web1', 'h1', { restart: 'never' });
    await dies('web1');
    expect(fleet.vm('web1').state).toEqual({ kind: 'crashed', message });
    await fleet.run('web2', 'h1', { restart: 'always' });
    await fleet.plane.vms.stop('web2', { force: true, timeoutMs: 1_000 });
    await dies('web2');
    expect(fleet.vm('web2').state.kind).toBe('stopped');
  });

  test('a start that fails on the way is tried again like a guest that died', async () => {
    await fleet.run('web1', 'h1', { restart: 'on-failure' });
    await dies('web1');
    await fleet.pass(1_500);
    await fleet.agent('h1').order('start');
    const failure = { code: 'guest-start-failed', message: 'no memory', hint: 'x' } as const;
    await fleet.agent('h1').life(fleet.vm('web1').id, { kind: 'start-failed', failure });
    expect(fleet.vm('web1').state).toMatchObject({ kind: 'waiting', because: 'no memory' });
  });

  test('a guest that was gone when its agent came back is started again too', async () => {
    await fleet.run('web1', 'h1', { restart: 'on-failure' });
    const agent = fleet.agent('h1');
    agent.guests = [];
    agent.channel?.close();
    await agent.connect();
    expect(fleet.vm('web1').state.kind).toBe('waiting');
  });
});

test('pauses stop growing at five minutes, and begin anew after ten minutes of quiet', async () => {
  const vm = await fleet.run('web1', 'h1', { restart: 'on-failure' });
  const ending = (count: number, lastAt: number, at: number) =>
    afterItsEnd({ ...vm, restarts: { count, lastAt } }, { how: 'died', message, at });
  expect(ending(30, 1_000_000, 1_400_000).state).toMatchObject({ notBefore: 1_700_000 });
  expect(ending(30, 1_000_000, 1_600_001)).toMatchObject({
    state: { notBefore: 1_601_001 },
    restarts: { count: 1, lastAt: 1_600_001 },
  });
});
