import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { TestClock, systemClock } from '../runtime/clock.ts';
import type { MigrationSample } from '../model/migration.ts';
import { FakeHost, jobOf } from './fake-host.ts';

let source: FakeHost;
let target: FakeHost;

beforeEach(async () => {
  source = await new FakeHost('h1').begin();
  target = await new FakeHost('h2').begin();
  await source.withGuest();
});
afterEach(async () => {
  await source.end();
  await target.end();
});

const settle = () => systemClock.sleep(20);

/** Until the guest runs on the target and lacks pages. */
async function prePaging() {
  const job = jobOf('post-copy');
  target.order('receive', { job, sourcePeer: source.peer });
  const { endpoint } = await target.fact('listening');
  source.order('send', { job, endpoint, targetPeer: target.peer });
  await source.guest.whenAsked('start');
  source.guest.now = 'sending';
  source.guest.transferIs({ kind: 'sending' });
  await source.guest.whenAsked('switch');
  source.guest.emit({ kind: 'stopped' });
  source.guest.now = 'sending-post-copy';
  source.guest.transferIs({ kind: 'post-copy' });
  await source.fact('state-transferred');
}
async function resumedThere() {
  target.guest.now = 'switched';
  target.guest.transferIs({ kind: 'post-copy' });
  await target.fact('resumed');
}
function broken() {
  source.guest.now = 'broken-post-copy';
  source.guest.transferIs({ kind: 'post-copy-broken' });
}
function joins() {
  source.guest.now = 'sending-post-copy';
  source.guest.transferIs({ kind: 'post-copy' });
}
const neverRanHere = () => {
  expect(source.kinds()).not.toContain('source-running');
  expect(source.guest.count('continue')).toBe(0);
  expect(source.guest.count('cancel')).toBe(0);
};

describe('a post-copy whose link broke', () => {
  test('is joined again where the target listens, and says for how long it was broken', async () => {
    await prePaging();
    await resumedThere();
    source.guest.does.set('resume', joins);
    broken();
    const { at } = await source.fact('link-restored');
    expect(at).toBeGreaterThanOrEqual((await source.fact('link-lost')).at);
    expect(target.guest.count('pause')).toBe(1);
    expect(source.guest.count('pause')).toBe(0); // it knew
    expect(source.guest.resumedTo).toEqual([{ address: '127.0.0.1', port: 5001 }]);
    expect(source.part()).toMatchObject({ kind: 'sending', switched: true, endpoint: { port: 5001 } });
    expect(target.guest.count('continue')).toBe(1);
    neverRanHere();
  });

  test('is tried again at another place until it holds', async () => {
    await prePaging();
    await resumedThere();
    source.guest.does.set('resume', () => {
      if (source.guest.count('resume') < 3) broken();
      else joins();
    });
    broken();
    await source.fact('link-restored');
    expect(source.guest.resumedTo.map(({ port }) => port)).toEqual([5001, 5002, 5003]);
    expect(source.kinds().filter((kind) => kind.startsWith('link-'))).toEqual(['link-lost', 'link-restored']);
  });

  test('is listened for on each of the addresses of the target in turn', async () => {
    const addresses = ['127.0.0.1', '127.0.0.2'];
    await target.end();
    target = await new FakeHost('h2').begin();
    Object.assign(target.context, { migrationAddresses: addresses });
    await prePaging();
    await resumedThere();
    source.guest.does.set('resume', () => (source.guest.count('resume') < 2 ? broken() : joins()));
    broken();
    await source.fact('link-restored');
    expect(source.guest.resumedTo.map(({ address }) => address)).toEqual(addresses);
  });

  test('is joined where the target listened last while its agent is away', async () => {
    await prePaging();
    await resumedThere();
    source.guest.does.set('resume', broken);
    broken();
    await source.guest.whenAsked('resume');
    await target.crash();
    source.guest.does.set('resume', joins);
    await source.fact('link-restored');
    expect(source.guest.resumedTo.map(({ port }) => port)).toEqual([5001, 5001]);
    await target.begin();
  });

  test('is joined by an agent that has begun again, on either side', async () => {
    await prePaging();
    await resumedThere();
    await source.crash();
    await target.crash();
    source.guest.now = 'broken-post-copy';
    source.guest.numbers = { ...source.guest.numbers, state: { kind: 'post-copy-broken' } };
    target.guest.now = 'broken-post-copy';
    source.guest.does.set('resume', joins);
    await target.begin();
    // The port of an agent that begins again is another one here: what the source knows of it has to be set right.
    const part = source.part();
    if (part.kind === 'sending') source.guests.setPart(source.guest.key.vm, { ...part, targetPeer: target.peer });
    await source.begin();
    await source.fact('link-restored');
    expect(target.guest.count('continue')).toBe(0); // it runs, and is not told so again
    neverRanHere();
  });

  test('finds the agent of the target by another way when the first does not answer', async () => {
    const job = jobOf('post-copy');
    target.order('receive', { job, sourcePeer: source.peer });
    const { endpoint } = await target.fact('listening');
    const nobody = { address: '127.0.0.1', port: 9 };
    source.order('send', { job, endpoint, targetPeer: nobody, otherPeers: [target.peer] });
    await source.guest.whenAsked('start');
    expect(source.part()).toMatchObject({ targetPeer: nobody, otherPeers: [target.peer] });
    expect(source.kinds()).not.toContain('source-running');
  });

  test('before the copy had its state is not broken off: the copy would end with it', async () => {
    await prePaging();
    broken();
    await source.fact('link-lost');
    await systemClock.sleep(700);
    expect(target.guest.count('pause') + target.guest.count('listen-again')).toBe(0);
    expect(source.guest.count('resume')).toBe(0);
  });

  test('is not joined any more when the target has every page', async () => {
    await prePaging();
    await resumedThere();
    target.guest.transferIs({ kind: 'completed' });
    await target.fact('all-pages-arrived');
    broken();
    await source.fact('link-lost');
    await settle();
    expect(source.guest.count('resume')).toBe(0);
    neverRanHere();
  });
});

describe('a move that fails after the switch', () => {
  test('ends the guest that QEMU runs here again, and is handed over when the target has it all', async () => {
    await prePaging();
    await resumedThere();
    target.guest.transferIs({ kind: 'completed' });
    await target.fact('all-pages-arrived');
    source.guest.now = 'running';
    source.guest.transferIs({ kind: 'failed', words: 'Connection reset by peer' });
    await source.fact('handed-over');
    expect(source.hypervisor.guests[0]?.count('destroy')).toBe(1);
    expect(source.part().kind).toBe('none');
    neverRanHere();
  });

  test('is lost when the target lacks pages', async () => {
    await prePaging();
    await resumedThere();
    source.guest.now = 'running';
    source.guest.transferIs({ kind: 'failed', words: '' });
    await source.fact('source-lost');
    expect(source.hypervisor.guests[0]?.count('destroy')).toBe(1);
    neverRanHere();
  });

  test('goes on at the source when the target says that it never got the state', async () => {
    const job = jobOf('post-copy');
    target.order('receive', { job, sourcePeer: source.peer });
    const { endpoint } = await target.fact('listening');
    source.order('send', { job, endpoint, targetPeer: target.peer });
    await source.guest.whenAsked('start');
    source.guest.transferIs({ kind: 'sending' });
    await source.guest.whenAsked('switch');
    source.guest.emit({ kind: 'stopped' });
    source.guest.now = 'running';
    source.guest.transferIs({ kind: 'failed', words: 'No route to host' });
    await source.fact('source-running');
    expect(source.guest.count('destroy')).toBe(0);
  });

  test('while the agent was away ends the guest that runs here again', async () => {
    await prePaging();
    await resumedThere();
    await source.crash();
    source.guest.now = 'running';
    source.guest.numbers = { ...source.guest.numbers, state: { kind: 'failed', words: '' } };
    await source.begin();
    await source.fact('source-lost');
    neverRanHere();
  });
});

describe('a post-copy that falls silent', () => {
  let clock: TestClock;
  const samples: MigrationSample[] = [];
  beforeEach(async () => {
    await source.end();
    clock = new TestClock();
    source = await new FakeHost('h1', clock).begin();
    samples.length = 0;
    Object.assign(source.context, { sample: (sample: MigrationSample) => samples.push(sample) });
    await source.withGuest();
    const switched = prePaging();
    while (!source.kinds().includes('state-transferred')) await seconds(0.5); // what can wait is held back for a moment
    await switched;
    await resumedThere();
    source.guest.numbers = { ...source.guest.numbers, sentBytes: 1, remainingBytes: 1 << 26 };
    await seconds(0.5);
  });
  /** Time passes for the source; what goes between the two agents takes real time. */
  const seconds = async (n: number) => {
    for (let half = 0; half < n * 2; half++) {
      await clock.advance(500);
      await systemClock.sleep(5);
    }
  };

  test('for three seconds is broken off, the target first, and joined again', async () => {
    await seconds(2);
    expect(source.kinds()).not.toContain('link-lost');
    source.guest.does.set('pause', () => {
      expect(target.guest.count('listen-again')).toBe(1);
      broken();
    });
    source.guest.does.set('resume', joins);
    await seconds(2);
    expect(source.kinds()).toContain('link-lost');
    await seconds(1);
    await source.fact('link-restored');
    neverRanHere();
  });

  test('with only its last pages on their way is left alone', async () => {
    source.guest.numbers = { ...source.guest.numbers, remainingBytes: 1000 };
    await seconds(30);
    expect(source.kinds()).not.toContain('link-lost');
    expect(source.guest.count('pause')).toBe(0);
  });

  test('is shown with what is missing, the attempts and what stands in the way', async () => {
    source.guest.does.set('pause', broken);
    source.guest.does.set('resume', () => {
      throw new Error('No route to host');
    });
    await seconds(8);
    expect(samples.at(-1)).toMatchObject({ phase: 'recovering', remainingBytes: 1 << 26 });
    expect(samples.at(-1)?.recovering?.attempts).toBeGreaterThan(1);
    expect(samples.at(-1)?.recovering?.lastError).toContain('No route to host');
  });

  test('and goes on by itself is trusted for longer the next time', async () => {
    await target.crash(); // nobody to rejoin with
    await seconds(3.5);
    await source.fact('link-lost');
    expect(source.guest.count('pause')).toBe(0);
    source.guest.numbers = { ...source.guest.numbers, sentBytes: 2 };
    await seconds(1);
    await source.fact('link-restored');
    await seconds(4);
    expect(source.kinds().filter((kind) => kind === 'link-lost')).toHaveLength(1);
    await seconds(3);
    expect(source.kinds().filter((kind) => kind === 'link-lost')).toHaveLength(2);
    await target.begin();
  });
});
