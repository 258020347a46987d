import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { systemClock } from '../runtime/clock.ts';
import { FakeHost, jobOf, migration } from './fake-host.ts';

let source: FakeHost;
let target: FakeHost;
const settle = () => systemClock.sleep(20);
const strays: unknown[] = [];
const stray = (error: unknown) => strays.push(error);

beforeEach(async () => {
  process.on('unhandledRejection', stray);
  source = await new FakeHost('h1').begin();
  target = await new FakeHost('h2').begin();
  await source.withGuest();
});

afterEach(async () => {
  await source.end();
  await target.end();
  await systemClock.sleep(5);
  process.off('unhandledRejection', stray);
  expect(strays.splice(0)).toEqual([]);
});

/** All memory is over there, and acknowledged. */
function completed() {
  source.guest.emit({ kind: 'stopped' });
  source.guest.now = 'sent';
  target.guest.now = 'loaded';
  source.guest.transferIs({ kind: 'completed' });
}

describe('a held move', () => {
  const hold = async () => {
    const job = { ...jobOf('pre-copy'), hold: true as const };
    target.order('receive', { job, sourcePeer: source.peer });
    const { endpoint } = await target.fact('listening');
    source.order('send', { job, endpoint, targetPeer: target.peer });
    await source.guest.whenAsked('start');
    source.guest.now = 'sending';
    source.guest.numbers = { ...source.guest.numbers, state: { kind: 'sending' }, round: 2 };
    source.guest.emit({ kind: 'transfer', state: { kind: 'sending' } });
    await source.fact('armed');
  };

  test('is armed by itself, completes when told to, and hands over like every move', async () => {
    await hold();
    expect(source.guest.count('complete-now')).toBe(0);
    source.order('switch', { migration });
    await source.guest.whenAsked('complete-now');
    completed();
    await target.fact('resumed');
    await source.fact('handed-over');
    expect([source.guest.count('continue'), target.guest.count('continue')]).toEqual([0, 1]);
  });

  test('that fails after its guest was paused lets it run on at the source', async () => {
    await hold();
    source.order('switch', { migration });
    await source.guest.whenAsked('complete-now');
    source.guest.emit({ kind: 'stopped' });
    source.guest.now = 'paused';
    source.guest.transferIs({ kind: 'failed', words: 'Sibling indicated error 1' });
    await source.fact('source-running');
    expect(source.guest.count('continue')).toBe(1);
    expect(source.part().kind).toBe('runs');
  });
});

describe('a move that is told to switch', () => {
  const sending = async () => {
    const job = jobOf('auto');
    target.order('receive', { job, sourcePeer: source.peer });
    const { endpoint } = await target.fact('listening');
    source.order('send', { job, endpoint, targetPeer: target.peer });
    await source.guest.whenAsked('start');
    source.guest.now = 'sending';
    source.guest.transferIs({ kind: 'sending' });
    await source.fact('sending');
  };

  test('goes over to post-copy at once, and once only', async () => {
    await sending();
    source.order('switch', { migration });
    source.order('switch', { migration });
    expect((await source.fact('switching')).because).toBe('it was asked for');
    await source.guest.whenAsked('switch');
    await settle();
    expect(source.guest.count('switch')).toBe(1);
    expect(source.part()).toMatchObject({ kind: 'sending', switched: true });
  });

  test('does not while its guest is paused to complete', async () => {
    await sending();
    source.guest.emit({ kind: 'stopped' });
    await source.fact('stopped');
    source.order('switch', { migration });
    await settle();
    expect(source.guest.count('switch')).toBe(0);
  });
});
