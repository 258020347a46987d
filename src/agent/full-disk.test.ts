/** A host whose disk takes nothing for a while: what happens meanwhile is told as soon as it does again. */
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { FakeHost, jobOf, migration, running, vm } from './fake-host.ts';
import type { VmEntry } from './journal.ts';
import { MoveFacts } from './move-facts.ts';

let host: FakeHost;
beforeEach(async () => {
  host = await new FakeHost('h2').begin();
});
afterEach(async () => {
  vi.restoreAllMocks();
  await host.end();
});

const noRoom = (): never => {
  throw new Error('ENOSPC: no space left on device');
};
/** The next fact of that kind finds no room. */
function hasNoRoomFor(about: 'guest' | 'migration', kind: string): void {
  const real = host.context.facts[about].bind(host.context.facts) as (fact: { kind: string }) => void;
  let isFull = true;
  vi.spyOn(host.context.facts, about).mockImplementation((fact: { kind: string }) => {
    if (!isFull || fact.kind !== kind) return real(fact);
    isFull = false;
    return noRoom();
  });
}

/** The next entry of that kind finds no room. @param then called when it has not */
function hasNoRoomToNote(isOne: (entry: VmEntry) => boolean, then = () => {}): void {
  const write = host.context.journal.setVm.bind(host.context.journal);
  let isFull = true;
  vi.spyOn(host.context.journal, 'setVm').mockImplementation((entry) => {
    if (!isFull || !isOne(entry)) return write(entry);
    isFull = false;
    then();
    return noRoom();
  });
}

/** A copy that listens. */
async function receiving(): Promise<void> {
  host.order('receive', { job: jobOf('post-copy'), sourcePeer: host.peer });
  await host.fact('listening');
}

function switches(): void {
  host.guest.now = 'switched';
  host.guest.transferIs({ kind: 'post-copy' });
}

test('a guest that died is told of', async () => {
  await host.withGuest();
  hasNoRoomFor('guest', 'ended');
  host.guest.end('died');
  await host.fact('ended');
  await vi.waitFor(() => expect(host.part().kind).toBe('none'));
});

test('a guest that died is told of before the next one of its VM is started', async () => {
  await host.withGuest();
  let isFull = true;
  const real = host.context.facts.guest.bind(host.context.facts);
  const say = vi.spyOn(host.context.facts, 'guest').mockImplementation((fact) => {
    if (isFull && fact.kind === 'ended') noRoom();
    real(fact);
  });
  host.guest.end('died');
  await vi.waitFor(() => expect(say).toHaveBeenCalled());
  host.order('start', { name: 'web1', spec: running.spec, running }, 9);
  await vi.waitFor(() => expect(say.mock.calls.length).toBeGreaterThan(1), { timeout: 4_000 });
  expect(host.guests.running.size).toBe(0);
  isFull = false;
  await host.fact('started');
  expect(host.kinds()).toEqual(['ended', 'started']);
  expect(host.part().kind).toBe('runs');
});

test('a copy that died is told of, and proves that it never ran', async () => {
  await receiving();
  hasNoRoomFor('migration', 'target-failed');
  host.guest.end('died');
  await host.fact('target-failed');
  await vi.waitFor(async () => expect(await host.orders.go(migration)).toBe('gone-unrun'));
});

test('a guest whose post-copy has switched is let run when that can be written down, and not before', async () => {
  await receiving();
  const write = vi.spyOn(host.context.journal, 'setVm').mockImplementationOnce(noRoom);
  switches();
  await vi.waitFor(() => expect(write).toHaveBeenCalled());
  expect(host.guest.count('continue')).toBe(0);
  await host.fact('resumed');
  expect(host.guest.count('continue')).toBe(1);
});

test.each(['resumed', 'all-pages-arrived'])('that a guest has %s is told', async (kind) => {
  await receiving();
  hasNoRoomFor('migration', kind);
  switches();
  host.guest.transferIs({ kind: 'completed' });
  await vi.waitFor(() => expect(host.part().kind).toBe('runs'), { timeout: 4_000 });
  expect(host.kinds()).toEqual(expect.arrayContaining(['resumed', 'all-pages-arrived']));
  expect(host.guest.count('continue')).toBe(1);
});

test('what a source says of its move is said once, and again only where it found no room', async () => {
  const facts = new MoveFacts(host.context, migration);
  hasNoRoomFor('migration', 'source-running');
  expect(() => facts.say({ kind: 'source-running', failure: null })).toThrow('ENOSPC');
  facts.say({ kind: 'source-running', failure: null });
  facts.say({ kind: 'source-running', failure: null });
  expect(host.kinds()).toEqual(['source-running']);
});

test('what was held back while a guest was paused is told as soon as there is room', async () => {
  const facts = new MoveFacts(host.context, migration);
  hasNoRoomFor('migration', 'state-transferred');
  facts.hold();
  for (const body of [{ kind: 'stopped', for: 'post-copy' }, { kind: 'state-transferred' }] as const) facts.say(body);
  await host.fact('state-transferred');
  expect(host.kinds()).toEqual(['stopped', 'state-transferred']);
});

test('what a move tells on its way waits for room and stops nothing, each in its order', async () => {
  const facts = new MoveFacts(host.context, migration);
  hasNoRoomFor('migration', 'sending');
  facts.say({ kind: 'sending' });
  facts.say({ kind: 'link-lost' });
  facts.hold();
  facts.say({ kind: 'stopped', for: 'stop-and-copy' });
  await host.fact('stopped');
  facts.hold();
  facts.say({ kind: 'state-transferred' });
  await host.fact('state-transferred');
  expect(host.kinds()).toEqual(['sending', 'link-lost', 'stopped', 'state-transferred']);
});

test('a copy that could not be made is told of', async () => {
  host.hypervisor.refusesToStart = new Error('no memory');
  hasNoRoomFor('migration', 'target-failed');
  host.order('receive', { job: jobOf(), sourcePeer: host.peer });
  await host.fact('target-failed');
  expect(host.part().kind).toBe('gone-unrun');
});

test('a copy that could not be made is noted before it is told of: an order on its way makes no other', async () => {
  host.leaseTrouble = 'no lease';
  const partThen: string[] = [];
  const real = host.context.facts.migration.bind(host.context.facts);
  vi.spyOn(host.context.facts, 'migration').mockImplementation((fact) => {
    partThen.push(host.part().kind);
    real(fact);
  });
  host.order('receive', { job: jobOf(), sourcePeer: host.peer });
  await host.fact('target-failed');
  expect(partThen).toEqual(['gone-unrun']);
});

describe('a move that never began', () => {
  const nowhere = { address: '127.0.0.1', port: 1 };
  const send = () => host.order('send', { job: jobOf(), endpoint: nowhere, targetPeer: nowhere });

  test('is told to have ended with its guest here, as why it did', async () => {
    await host.withGuest();
    hasNoRoomFor('migration', 'source-running');
    send();
    expect(await host.fact('source-running')).toMatchObject({ failure: { code: 'target-unreachable' } });
    await vi.waitFor(() => expect(host.part().kind).toBe('runs'));
  });

  test('is written down to have ended with its guest here, and told of once', async () => {
    await host.withGuest();
    hasNoRoomToNote(({ part }) => part.kind === 'runs');
    send();
    await vi.waitFor(() => expect(host.guests.hasStayed(vm, migration)).toBe(true));
    expect(host.part().kind).toBe('runs');
    send();
    host.order('cancel', { migration });
    await vi.waitFor(() => expect(host.kinds()).toEqual(['source-running', 'source-running']));
  });

  test('does not hide the end of its guest, where that comes before it could be written down', async () => {
    await host.withGuest();
    hasNoRoomToNote(
      ({ part }) => part.kind === 'runs',
      () => host.guest.end('died'),
    );
    send();
    expect(await host.fact('ended')).toMatchObject({ how: 'died' });
    expect(host.kinds()).toEqual(['source-running', 'ended']);
    expect(host.part().kind).toBe('none');
  });
});

test('a guest is switched to post-copy when that can be written down, and not before', async () => {
  await host.withGuest();
  let asked = -1;
  hasNoRoomToNote(
    ({ part }) => part.kind === 'sending' && part.switched,
    () => (asked = host.guest.count('switch')),
  );
  host.order('send', { job: jobOf('post-copy'), endpoint: { address: '127.0.0.1', port: 1 }, targetPeer: host.peer });
  await host.guest.whenAsked('start');
  host.guest.now = 'sending';
  host.guest.transferIs({ kind: 'sending' });
  host.guest.does.set('switch', () => expect(host.part()).toMatchObject({ kind: 'sending', switched: true }));
  host.guest.emit({ kind: 'round', round: 2 });
  await host.guest.whenAsked('switch');
  await host.fact('switching');
  expect(asked).toBe(0);
});

describe('a guest that is started', () => {
  const start = { name: 'web1', spec: running.spec, running };

  test('is not said to have failed because that it runs could not be told', async () => {
    hasNoRoomFor('guest', 'started');
    host.order('start', start);
    await vi.waitFor(() => expect(host.part().kind).toBe('runs'));
    host.order('start', start); // it is still due
    await host.fact('started');
    expect(host.kinds()).toEqual(['started']);
    expect(host.hypervisor.guests).toHaveLength(1);
  });

  test('is not said to be lost with its cold move because that it runs could not be told', async () => {
    hasNoRoomFor('migration', 'resumed');
    host.order('power-on', { job: jobOf('cold') });
    await vi.waitFor(() => expect(host.part().kind).toBe('runs'));
    host.order('power-on', { job: jobOf('cold') });
    await host.fact('resumed');
    expect(host.kinds()).toEqual(['resumed']);
  });

  test('that has failed is not started by the same order again, though that could not be written down at first', async () => {
    hasNoRoomToNote(({ over }) => over !== undefined);
    host.leaseTrouble = 'no lease';
    host.order('start', start);
    await host.fact('start-failed');
    host.leaseTrouble = null;
    host.order('start', start);
    host.order('keep', {}, 3);
    await vi.waitFor(() => expect(host.context.journal.vm(vm)?.generation).toBe(3));
    expect(host.hypervisor.guests).toHaveLength(0);
    expect(host.kinds()).toEqual(['start-failed']);
  });

  test('is ended before its start is said to have failed, where it could not be written down that it runs', async () => {
    hasNoRoomToNote(({ part }) => part.kind === 'runs');
    host.order('start', start);
    await host.fact('start-failed');
    expect(host.guest.hasEnded).toBe(true);
    expect(host.guests.running.size).toBe(0);
    expect(host.part().kind).toBe('none');
    expect(host.kinds()).toEqual(['start-failed']);
  });
});
