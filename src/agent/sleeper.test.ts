import { mkdtempSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { FakeHost, jobOf, vm } from './fake-host.ts';
import { sleepMeans } from './sleep-means.ts';
import { Sleeper, type SleepMeans, type SleepMessage } from './sleeper.ts';

let host: FakeHost;
let rests: boolean;
let left: string | null;
let suspended: number;
const means: SleepMeans = {
  ability: { off: { ok: true }, suspend: { ok: true }, macs: [] },
  suspend: async () => void suspended++,
  sendMagic: async () => {},
};
const leases = {
  rest: async () => {
    rests = true;
    return left;
  },
  endRest: () => void (rests = false),
};
const sleeper = (other: Partial<SleepMeans> = {}) =>
  new Sleeper(host.context, host.guests, leases, { ...means, ...other });
const message = (what: SleepMessage['do'], changes: Partial<SleepMessage> = {}): SleepMessage => ({
  type: 'sleep',
  request: 'r1',
  term: 9,
  session: 9,
  expiresAt: Date.now() + 10_000,
  do: what,
  ...changes,
});

beforeEach(async () => {
  host = await new FakeHost('h1').begin();
  rests = false;
  left = null;
  suspended = 0;
});
afterEach(() => host.end());

describe('a host that is asked to prepare for its sleep', () => {
  test('has its lease given back, begins nothing more, and does when it stays awake after all', async () => {
    const one = sleeper();
    expect(await one.onMessage(message('prepare'))).toMatchObject({ result: 'ready' });
    expect(rests).toBe(true);
    expect(one.bar()).toBe('h1 is going to sleep');
    await one.onMessage(message('stay-awake'));
    expect(rests).toBe(false);
    expect(one.bar()).toBeNull();
  });

  test('refuses with a guest, whatever the server believes, and keeps its lease', async () => {
    await host.withGuest(1);
    const one = sleeper();
    expect(await one.onMessage(message('prepare'))).toEqual({ result: 'refused', says: 'guests run here: web1' });
    expect(rests).toBe(false);
    expect(one.bar()).toBeNull();
  });

  test('refuses while it still holds a part of a move', async () => {
    await host.withGuest(1);
    host.guests.setPart(vm, { kind: 'handed-over', job: jobOf(), targetPeer: host.peer, at: 0 });
    host.guest.end('died');
    await host.guests.running.get(vm)?.gone;
    expect(await sleeper().onMessage(message('prepare'))).toMatchObject({ result: 'refused' });
  });

  test('refuses an order of an older term or session, and one that comes too late', async () => {
    host.context.journal.setAgent({ newestTerm: 10, session: 9 });
    expect(await sleeper().onMessage(message('prepare'))).toMatchObject({ says: 'term 9 is over: 10 was seen' });
    const old = message('prepare', { term: 10, session: 8 });
    expect(await sleeper().onMessage(old)).toMatchObject({ says: 'session 8 is over: this is 9' });
    const late = message('prepare', { term: 10, expiresAt: Date.now() - 1 });
    expect(await sleeper().onMessage(late)).toMatchObject({ says: 'it came too late' });
  });

  test('refuses when its guard keeps the lease', async () => {
    left = "that of the pool 'default'";
    const one = sleeper();
    expect(await one.onMessage(message('prepare'))).toMatchObject({ result: 'refused' });
    expect(one.bar()).toBeNull();
  });
});

describe('a host that is told to suspend', () => {
  test('does so once, says nothing afterwards, and takes guests again', async () => {
    const one = sleeper();
    expect(await one.onMessage(message('suspend'))).toBeNull();
    expect(suspended).toBe(1);
    expect(one.bar()).toBeNull();
    expect(rests).toBe(false);
  });

  test('never with a guest', async () => {
    await host.withGuest(1);
    expect(await sleeper().onMessage(message('suspend'))).toMatchObject({ result: 'refused' });
    expect(suspended).toBe(0);
  });

  test('says why it could not', async () => {
    const broken = sleeper({ suspend: () => Promise.reject(new Error('EBUSY')) });
    expect(await broken.onMessage(message('suspend'))).toEqual({
      result: 'failed',
      says: 'it could not be suspended: EBUSY',
    });
    expect(broken.bar()).toBeNull();
  });
});

describe("the machine's own means", () => {
  const dir = mkdtempSync(join(tmpdir(), 'drover-power-'));
  afterEach(() => rmSync(dir, { recursive: true, force: true }));

  test('suspend to memory where the kernel offers it, deeply where it can, and name the cards that could wake it', async () => {
    mkdirSync(join(dir, 'net', 'eth0', 'device'), { recursive: true });
    mkdirSync(join(dir, 'net', 'br0'), { recursive: true });
    writeFileSync(join(dir, 'net', 'eth0', 'address'), '52:54:00:00:00:07\n');
    writeFileSync(join(dir, 'net', 'br0', 'address'), '52:54:00:00:00:08\n');
    const powerState = join(dir, 'state');
    const modes = join(dir, 'mem_sleep');
    writeFileSync(powerState, 'freeze mem disk\n');
    writeFileSync(modes, '[s2idle] deep\n');
    const real = sleepMeans({ powerState, cards: join(dir, 'net') });
    expect(real.ability).toEqual({ off: { ok: true }, suspend: { ok: true }, macs: ['52:54:00:00:00:07'] });
    await real.suspend();
    expect(readFileSync(powerState, 'utf8')).toBe('mem');
    expect(readFileSync(modes, 'utf8')).toBe('deep');
  });

  test('say why they cannot suspend', () => {
    mkdirSync(dir, { recursive: true });
    const powerState = join(dir, 'state');
    expect(sleepMeans({ powerState, cards: dir }).ability.suspend).toMatchObject({ ok: false });
    writeFileSync(powerState, 'freeze\n');
    expect(sleepMeans({ powerState, cards: dir }).ability.suspend).toMatchObject({
      reason: `${powerState} offers freeze, not mem`,
    });
  });
});
