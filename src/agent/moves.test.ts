import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { systemClock, TestClock } from '../runtime/clock.ts';
import { FakeHost, jobOf, migration, vm } from './fake-host.ts';
import { refuses } from './orders.ts';
import type { Technique, Policy } from '../model/migration.ts';
import type { Order } from '../wire/agent.ts';

let source: FakeHost;
let target: FakeHost;
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

const settle = () => systemClock.sleep(20);

/** Until the source sends to a target that listens. */
async function sending(technique: Technique = 'pre-copy', policy: Partial<Policy> = {}) {
  const job = jobOf(technique, policy);
  target.order('receive', { job, sourcePeer: source.peer });
  const { endpoint } = await target.fact('listening');
  source.order('send', { job, endpoint, targetPeer: target.peer });
  await source.guest.whenAsked('start');
  source.guest.now = 'sending';
  source.guest.transferIs({ kind: 'sending' });
  await source.fact('sending');
  return job;
}

/** All memory is over there, and acknowledged. */
function completed() {
  source.guest.emit({ kind: 'stopped' });
  source.guest.now = 'sent';
  target.guest.now = 'loaded';
  source.guest.transferIs({ kind: 'completed' });
}

describe('an order', () => {
  const order = { id: 'o', term: 2, session: 2, vm, generation: 5, expiresAt: 100, kind: 'keep' } as const;
  const agent = { schema: 1, newestTerm: 2, session: 2, nextFact: 1 } as const;
  const entry = { schema: 1, vm, name: 'web1', generation: 5, part: { kind: 'runs' }, taps: [] } as const;
  test('is carried out when nothing newer was seen and it is in time', () => {
    expect(refuses(order, agent, entry, 100)).toBeNull();
    expect(refuses(order, agent, undefined, 100)).toBeNull();
  });
  test.each([
    ['of an older term', { ...order, term: 1 }, 'term 1'],
    ['of an older session', { ...order, session: 1 }, 'session 1'],
    ['of an older generation', { ...order, generation: 4 }, 'generation 4'],
    ['that comes late', { ...order, expiresAt: 99 }, 'late'],
  ])('%s is refused', (_, older: Order, word) => {
    expect(refuses(older, agent, entry, 100)).toContain(word);
  });
  test('that ends what is left of a move is carried out whatever was decided since', () => {
    for (const kind of ['close', 'release', 'cancel'] as const) {
      const old = { ...order, generation: 1, kind, migration, evenIfItRan: false } as Order;
      expect(refuses(old, agent, entry, 100)).toBeNull();
    }
  });
});

describe('a pre-copy', () => {
  test('hands over with one cont, and each side tells what it learnt in order', async () => {
    await sending();
    completed();
    await target.fact('resumed');
    await source.fact('handed-over');
    expect(target.guest.count('continue')).toBe(1);
    expect(source.guest.count('continue')).toBe(0);
    expect(target.kinds()).toEqual(['listening', 'resumed']);
    expect(source.kinds().filter((kind) => kind !== 'measured')).toEqual(['sending', 'stopped', 'handed-over']);
    expect(target.part().kind).toBe('runs');
    expect(source.part().kind).toBe('handed-over');
  });

  test('answers go again and again without another cont', async () => {
    await sending();
    completed();
    await target.fact('resumed');
    expect(await target.orders.go(migration)).toBe('continued');
    expect(await target.orders.go(migration)).toBe('continued');
    expect(target.guest.count('continue')).toBe(1);
  });

  test('runs on at the source, without go, when the target agent is away at the end', async () => {
    await sending();
    await target.crash();
    await settle(); // the source's agent has seen its channel break
    completed();
    const { failure } = await source.fact('source-running');
    expect(failure?.code).toBe('target-unreachable');
    expect(source.guest.count('continue')).toBe(1);
    expect(source.part().kind).toBe('runs');
    expect(source.kinds()).not.toContain('handed-over');
    await target.begin();
  });

  test('rolls back when the target proves that its copy is gone and never ran', async () => {
    await sending();
    target.guest.end('died', 'killed');
    await target.fact('target-failed');
    completed();
    await source.fact('source-running');
    expect(source.guest.count('continue')).toBe(1);
    expect(source.part().kind).toBe('runs');
  });

  test('that QEMU would not start leaves the guest running with what QEMU said', async () => {
    const job = jobOf();
    source.guest.refuses.set('start', new Error('postcopy is not compatible'));
    source.order('send', { job, endpoint: { address: '127.0.0.1', port: 1 }, targetPeer: target.peer });
    expect((await source.fact('source-running')).failure).toMatchObject({ code: 'source-refused' });
    expect(source.part().kind).toBe('runs');
  });

  test('survives questions that QEMU does not answer, and is handed over', async () => {
    await sending();
    source.guest.refuses.set('numbers', new Error('no answer'));
    source.guest.emit({ kind: 'round', round: 2 });
    source.guest.emit({ kind: 'round', round: 3 });
    completed();
    await target.fact('resumed');
    expect(source.part().kind).toBe('handed-over');
  });

  test('is released although go was never answered', async () => {
    await sending();
    target.guest.does.set('continue', () => new Promise(() => {}));
    completed();
    await source.fact('handed-over');
    source.order('release', { migration });
    await source.fact('released');
    expect(source.hypervisor.guests[0]?.count('destroy')).toBe(1);
    expect(source.part().kind).toBe('none');
    expect(source.taps.size).toBe(0);
  });

  test('is not released while the guest is only being sent', async () => {
    await sending();
    source.order('release', { migration });
    await settle();
    expect(source.kinds()).not.toContain('released');
    expect(source.guest.count('destroy')).toBe(0);
  });

  test('continues on the target after a cont that was not answered', async () => {
    await sending();
    target.guest.refuses.set('continue', new Error('no answer in time'));
    completed();
    await target.guest.whenAsked('continue');
    target.guest.refuses.clear();
    await target.fact('resumed');
    expect(target.part().kind).toBe('runs');
  });
});

describe('a copy on the target', () => {
  test('that was closed says gone-unrun to every go', async () => {
    target.order('receive', { job: jobOf(), sourcePeer: source.peer });
    await target.fact('listening');
    target.order('close', { migration, evenIfItRan: false });
    await target.fact('closed');
    expect(await target.orders.go(migration)).toBe('gone-unrun');
    expect(target.part().kind).toBe('gone-unrun');
    expect(target.taps.size).toBe(0);
  });

  test('is not closed once it may have run, neither before nor after it has arrived', async () => {
    target.order('receive', { job: jobOf(), sourcePeer: source.peer });
    await target.fact('listening');
    const never = Promise.withResolvers<void>();
    target.guest.does.set('continue', () => never.promise);
    const going = target.orders.go(migration);
    await target.guest.whenAsked('continue');
    target.order('close', { migration, evenIfItRan: false });
    await settle();
    never.resolve();
    expect(await going).toBe('continued');
    target.order('close', { migration, evenIfItRan: false });
    await settle();
    expect(target.kinds()).not.toContain('closed');
    expect(target.guest.count('destroy')).toBe(0);
  });

  test('that has all its pages is not closed for lack of pages', async () => {
    await sending();
    completed();
    await target.fact('resumed');
    target.order('close', { migration, evenIfItRan: true, unlessWhole: true });
    await settle();
    expect(target.kinds()).not.toContain('closed');
    expect(target.guest.count('destroy')).toBe(0);
  });

  test('that ran is never proof for a roll-back, even when it is closed by force', async () => {
    await sending('post-copy');
    target.guest.now = 'switched';
    target.guest.transferIs({ kind: 'post-copy' });
    await target.fact('resumed');
    target.order('close', { migration, evenIfItRan: true });
    expect(await target.orders.go(migration)).not.toBe('gone-unrun');
    await target.fact('closed');
    expect(await target.orders.go(migration)).toBe('unknown');
  });

  test('that died once it may have run tells the source so, which then does not wait for it for ever', async () => {
    await sending('post-copy');
    target.guest.now = 'switched';
    target.guest.transferIs({ kind: 'post-copy' });
    await target.fact('resumed');
    target.guest.end('died', 'killed');
    await target.fact('target-lost');
    await settle();
    expect(await target.orders.rejoin(migration, vm, false)).toMatchObject({ result: 'incomplete' });
    expect(await target.orders.go(migration)).toBe('unknown');
  });

  test('says again where it listens when it is ordered again', async () => {
    const order = { job: jobOf(), sourcePeer: source.peer };
    target.order('receive', order);
    await target.fact('listening');
    target.order('receive', order);
    await settle();
    expect(target.kinds()).toEqual(['listening', 'listening']);
    expect(target.hypervisor.guests).toHaveLength(1);
  });

  test('is not made when the order comes after the close', async () => {
    target.order('close', { migration, evenIfItRan: false });
    target.order('receive', { job: jobOf(), sourcePeer: source.peer });
    await target.fact('target-failed');
    expect(target.hypervisor.guests).toHaveLength(0);
  });

  test('never replaces a guest that runs there', async () => {
    source.order('receive', { job: jobOf(), sourcePeer: target.peer });
    await source.fact('target-failed');
    expect(source.guest.count('destroy')).toBe(0);
    expect(source.part().kind).toBe('runs');
  });
});

describe('a cancel', () => {
  test('before the send makes the late send do nothing', async () => {
    source.order('cancel', { migration });
    source.order('send', { job: jobOf(), endpoint: { address: '127.0.0.1', port: 1 }, targetPeer: target.peer });
    await settle();
    expect(source.kinds()).toEqual(['source-running']);
    expect(source.guest.asked).toEqual([]);
  });

  test('right behind the send, before QEMU sends, is not lost', async () => {
    source.order('send', { job: jobOf(), endpoint: { address: '127.0.0.1', port: 1 }, targetPeer: target.peer });
    source.order('cancel', { migration });
    expect((await source.fact('source-running')).failure).toBeNull();
    expect(source.guest.count('start')).toBe(0);
    expect(source.part().kind).toBe('runs');
  });

  test('in warm-up leaves the guest running without a failure', async () => {
    await sending();
    source.guest.does.set('cancel', () => {
      source.guest.now = 'running';
      source.guest.transferIs({ kind: 'cancelled' });
    });
    source.order('cancel', { migration });
    expect((await source.fact('source-running')).failure).toBeNull();
    expect(source.part().kind).toBe('runs');
  });

  test('that QEMU did not take is asked for again', async () => {
    await sending();
    source.guest.refuses.set('cancel', new Error('no answer in time'));
    source.order('cancel', { migration });
    await source.guest.whenAsked('cancel');
    source.guest.refuses.clear();
    source.guest.does.set('cancel', () => source.guest.transferIs({ kind: 'cancelled' }));
    expect((await source.fact('source-running')).failure).toBeNull();
  });

  test('after the guest was stopped does nothing', async () => {
    await sending();
    source.guest.emit({ kind: 'stopped' });
    await source.fact('stopped');
    source.order('cancel', { migration });
    completed();
    await target.fact('resumed');
    expect(source.guest.count('cancel')).toBe(0);
  });
});

describe('a post-copy', () => {
  test('is journaled before the command, and continued once by the target alone', async () => {
    const partAtSwitch = Promise.withResolvers<unknown>();
    source.guest.does.set('switch', () => partAtSwitch.resolve(source.part()));
    await sending('post-copy');
    expect(await partAtSwitch.promise).toMatchObject({ kind: 'sending', switched: true });
    source.guest.emit({ kind: 'stopped' });
    source.guest.emit({ kind: 'round', round: 2 }); // QEMU's last look at what is dirty: no round of warm-up
    source.guest.transferIs({ kind: 'post-copy' });
    target.guest.now = 'switched';
    target.guest.transferIs({ kind: 'post-copy' });
    target.guest.transferIs({ kind: 'completed' });
    await target.fact('all-pages-arrived');
    source.guest.transferIs({ kind: 'completed' });
    await source.fact('handed-over');
    expect(source.kinds()).not.toContain('round');
    expect(source.guest.count('switch')).toBe(1);
    expect(target.guest.count('continue')).toBe(1);
    expect(target.kinds().filter((kind) => kind !== 'measured')).toEqual(['listening', 'resumed', 'all-pages-arrived']);
    expect(source.guest.count('continue')).toBe(0);
  });

  test('that ends before RESUME was seen tells all pages only after it resumed', async () => {
    await sending('post-copy');
    const resume = Promise.withResolvers<void>();
    target.guest.does.set('continue', () => resume.promise);
    target.guest.transferIs({ kind: 'post-copy' });
    target.guest.transferIs({ kind: 'completed' });
    await target.guest.whenAsked('continue');
    resume.resolve();
    await target.fact('all-pages-arrived');
    expect(target.kinds().indexOf('resumed')).toBeLessThan(target.kinds().indexOf('all-pages-arrived'));
    expect(target.part().kind).toBe('runs');
  });

  test('is never ordered after a cancel', async () => {
    await sending('hybrid');
    source.order('cancel', { migration });
    await source.guest.whenAsked('cancel');
    source.guest.emit({ kind: 'round', round: 2 });
    await settle();
    expect(source.guest.count('switch')).toBe(0);
  });

  test('of a hybrid begins when the first round has ended', async () => {
    await sending('hybrid');
    expect(source.guest.count('switch')).toBe(0);
    source.guest.numbers = { ...source.guest.numbers, sentBytes: 1 << 27 };
    source.guest.emit({ kind: 'round', round: 2 });
    expect((await source.fact('switching')).because).toContain('hybrid');
    await source.guest.whenAsked('switch');
  });
});

test('a move that does not converge and may not switch is cancelled, and the failure says so', async () => {
  await sending('pre-copy', { deadlineMs: 0 });
  source.guest.does.set('cancel', () => source.guest.transferIs({ kind: 'cancelled' }));
  source.guest.numbers = { ...source.guest.numbers, sentBytes: 1 << 27 };
  source.guest.emit({ kind: 'round', round: 2 });
  expect((await source.fact('source-running')).failure?.code).toBe('deadline-passed');
});

describe('an agent that begins again', () => {
  test('hands over a guest that was sent while it was away', async () => {
    await sending();
    await source.crash();
    source.guest.now = 'sent';
    target.guest.now = 'loaded';
    await source.begin();
    await target.fact('resumed');
    expect(source.part().kind).toBe('handed-over');
    expect(source.guest.count('continue')).toBe(0);
  });

  test('never runs a guest on whose switch was ordered, whoever else is away', async () => {
    await sending('post-copy');
    await source.guest.whenAsked('switch');
    await source.crash();
    await target.crash();
    source.guest.now = 'sent';
    await source.begin();
    await source.fact('handed-over');
    expect(source.guest.count('continue')).toBe(0);
    await target.begin();
  });

  test('says of a guest it had switched that it was paused then, not when it looked again', async () => {
    await sending('post-copy');
    await source.guest.whenAsked('switch');
    const switchedBy = source.context.clock.now();
    await source.crash();
    source.guest.now = 'sending-post-copy';
    await source.context.clock.sleep(30);
    source.told.length = 0;
    await source.begin();
    expect((await source.fact('stopped')).at).toBeLessThanOrEqual(switchedBy);
  });

  test('says handed-over and go again', async () => {
    await sending();
    target.guest.does.set('continue', () => new Promise(() => {}));
    completed();
    await source.fact('handed-over');
    await source.crash();
    source.told.length = 0;
    target.guest.does.clear();
    await source.begin();
    await source.fact('handed-over');
    expect(source.guest.count('continue')).toBe(0);
  });

  test('tells that a guest it had handed over is handed over, and gone', async () => {
    await sending();
    completed();
    await source.fact('handed-over');
    await source.crash();
    source.guest.end('died');
    source.told.length = 0;
    await source.begin();
    await source.fact('source-lost');
    expect(source.kinds()).toEqual(['handed-over', 'source-lost']);
  });

  test('tells that a guest it was sending is gone', async () => {
    await sending();
    await source.crash();
    source.guest.end('died');
    await source.begin();
    await source.fact('source-lost');
    expect(source.part().kind).toBe('none');
  });

  test('tells that the guest runs when its transfer was cancelled meanwhile', async () => {
    await sending();
    await source.crash();
    source.guest.now = 'running';
    source.guest.numbers = { ...source.guest.numbers, state: { kind: 'cancelled' } };
    await source.begin();
    expect((await source.fact('source-running')).failure).toBeNull();
  });

  test('continues a copy that was switched to while it was away', async () => {
    await sending('post-copy');
    await target.crash();
    target.guest.now = 'switched';
    await target.begin();
    expect((await target.fact('resumed')).withFaults).toBe(true);
    expect(target.guest.count('continue')).toBe(1);
  });

  test.each(['loaded', 'running'] as const)(
    'finds a copy it was continuing %s and tells that it runs',
    async (state) => {
      await sending();
      target.guest.does.set('continue', () => new Promise(() => {}));
      completed();
      await target.guest.whenAsked('continue');
      await target.crash();
      target.guest.now = state;
      await target.begin();
      await target.fact('resumed');
      expect(target.guest.count('continue')).toBe(state === 'loaded' ? 1 : 0);
      expect(target.part().kind).toBe('runs');
    },
  );

  test('proves that a copy which waited is gone unrun, and that one it may have continued is lost', async () => {
    target.order('receive', { job: jobOf(), sourcePeer: source.peer });
    await target.fact('listening');
    await target.crash();
    target.guest.end('died');
    await target.begin();
    await target.fact('target-failed');
    expect(await target.orders.go(migration)).toBe('gone-unrun');
    target.guests.setPart(vm, { kind: 'continuing', job: jobOf(), withFaults: false });
    await target.crash();
    await target.begin();
    await target.fact('target-lost');
    expect(await target.orders.go(migration)).toBe('unknown');
  });

  test('takes down a copy nobody was told of', async () => {
    target.guests.setPart(vm, { kind: 'receiving', job: jobOf() }, { generation: 2 });
    target.hypervisor.add({ key: { vm, generation: 2 }, running: jobOf().running }, 'incoming');
    await target.crash();
    await target.begin();
    await target.fact('target-failed');
    expect(target.guest.count('destroy')).toBe(1);
  });

  test('ends the older of two copies of one guest, in whatever order they are found', async () => {
    source.hypervisor.add({ key: { vm, generation: 3 }, running: jobOf().running }, 'running');
    await source.crash();
    await source.begin();
    expect(source.hypervisor.guests.map((guest) => guest.count('destroy'))).toEqual([1, 0]);
  });
});

describe('a cold move', () => {
  test('of a guest that ignores its power button fails and leaves it running', async () => {
    source.order('power-off', { job: jobOf('cold', { shutdownTimeoutMs: 10 }) });
    expect((await source.fact('source-running')).failure?.code).toBe('shutdown-ignored');
    expect(source.part().kind).toBe('runs');
    expect(source.guest.count('power-down')).toBeGreaterThan(0);
  });

  test('switches it off when that was allowed', async () => {
    source.order('power-off', { job: jobOf('cold', { shutdownTimeoutMs: 10, forceOff: true }) });
    await source.fact('powered-off');
    expect(source.guest.count('destroy')).toBe(1);
  });

  test('that waits for a guest holds up neither another order nor its switching off', async () => {
    source.order('stop', { force: false, timeoutMs: 60_000 });
    await source.guest.whenAsked('power-down');
    source.order('keep', {}, 7);
    await settle();
    expect(source.context.journal.vm(vm)?.generation).toBe(7);
    source.order('stop', { force: true, timeoutMs: 0 }, 7);
    expect(await source.fact('ended')).toMatchObject({ how: 'stopped' });
  });
});

describe('a link that dies in silence', () => {
  let clock: TestClock;
  beforeEach(async () => {
    await source.end();
    clock = new TestClock();
    source = await new FakeHost('h1', clock).begin();
    await source.withGuest();
  });
  const seconds = async (n: number) => {
    for (let half = 0; half < n * 2; half++) await clock.advance(500);
  };

  test('in warm-up is noticed after ten seconds and the move is cancelled', async () => {
    await sending();
    source.guest.numbers = { ...source.guest.numbers, state: { kind: 'sending' }, sentBytes: 1000 };
    await seconds(9);
    expect(source.guest.count('cancel')).toBe(0);
    source.guest.does.set('cancel', () => source.guest.transferIs({ kind: 'cancelled' }));
    await seconds(3);
    expect((await source.fact('source-running')).failure?.code).toBe('link-lost');
  });

  test.each([
    ['answers', undefined],
    ['hangs', new Error('no answer in time')],
  ])('while the guest is paused is cut when the main loop %s', async (_, refusal) => {
    await sending();
    source.guest.numbers = {
      ...source.guest.numbers,
      state: { kind: 'switching' },
      sentBytes: 1000,
      remainingBytes: 0,
    };
    await seconds(1);
    source.guest.emit({ kind: 'stopped' });
    await settle();
    expect(source.kinds()).not.toContain('stopped'); // what can wait is not told at once while the guest is paused
    await seconds(1);
    await source.fact('stopped');
    if (refusal) source.guest.refuses.set('numbers', refusal);
    await seconds(2);
    expect(source.guest.count('cut')).toBe(0);
    source.guest.does.set('cut', () => source.guest.transferIs({ kind: 'failed', words: '' }));
    await seconds(3);
    expect((await source.fact('source-running')).failure?.code).toBe('link-lost');
    expect(source.guest.count('cancel')).toBe(0);
  });

  test('in post-copy is told once, and told again when it carries', async () => {
    await sending('post-copy');
    source.guest.emit({ kind: 'stopped' });
    source.guest.transferIs({ kind: 'post-copy' });
    await settle();
    await seconds(1);
    await source.fact('state-transferred');
    await seconds(14);
    source.guest.numbers = { ...source.guest.numbers, sentBytes: 5000 };
    await seconds(1);
    expect(source.kinds().filter((kind) => kind.startsWith('link-'))).toEqual(['link-lost', 'link-restored']);
    expect(source.guest.count('cancel') + source.guest.count('cut')).toBe(0);
  });
});
