// The hypervisor interface over a real QEMU 10, on loopback, without network and without a guest system: the machine's
// firmware runs, which is enough to be stopped, sent, received and continued. Left out, with the reason, where there is no such QEMU.
import { execFile } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { Guest, GuestEvent, Hypervisor, TransferOptions } from '../../src/hypervisor/hypervisor.ts';
import { locateQemu } from '../../src/hypervisor/qemu/locate.ts';
import { openQemu } from '../../src/hypervisor/qemu/qemu.ts';
import { isAlive } from '../../src/hypervisor/qemu/process.ts';
import type { VmId } from '../../src/model/ids.ts';
import type { VmSpec } from '../../src/model/vm.ts';

const qemu = await locateQemu({ env: process.env, repoRoot: join(import.meta.dirname, '..', '..') });
const leftOut = !qemu.ok ? qemu.reason : qemu.version.major < 10 ? 'it is older than 10: unsafe without KVM' : null;
if (leftOut !== null) console.log(`real QEMU is left out: ${leftOut}`);

const vm = 'vm_contract' as VmId;
const spec: VmSpec = {
  cpus: 1,
  memoryMiB: 64,
  machine: 'pc-q35-7.2',
  cpuModel: 'qemu64-v1',
  boot: { kind: 'disk' },
  disks: [],
  nics: [],
};
const preCopy: TransferOptions = {
  postCopy: false,
  parallelStreams: 0,
  compression: 'none',
  autoConverge: false,
  maxBandwidthBytesPerSecond: null,
  downtimeLimitMs: 300,
  hold: false,
};
const postCopy: TransferOptions = { ...preCopy, postCopy: true };

let dir: string;
let source: Hypervisor;
let target: Hypervisor;
let guests: Guest[];
const open = (host: string) => {
  if (!qemu.ok) throw new Error('no QEMU');
  return openQemu({ qemu, accel: 'tcg', runDir: join(dir, host, 'run'), logDir: join(dir, host, 'log') });
};
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'drover-qemu-'));
  guests = [];
  if (leftOut !== null) return;
  source = open('a');
  target = open('b');
});
afterEach(async () => {
  for (const guest of guests) await guest.destroy();
  rmSync(dir, { recursive: true, force: true });
});

const kept = <G extends Guest>(guest: G): G => {
  guests.push(guest);
  return guest;
};
const options = (generation: number, wanted = spec) => ({
  key: { vm, generation },
  name: 'web1',
  running: source.freeze(wanted),
  local: { taps: [], pools: {} },
});
const launch = async () => kept(await source.launch(options(1)));
const receive = async (transfer: TransferOptions, wanted = spec) => {
  const { guest, endpoint } = await target.receive(options(2, wanted), transfer, '127.0.0.1');
  return { copy: kept(guest), endpoint };
};

/** Subscribes now; resolves at the first event that matches. */
function event(guest: Guest, matches: (event: GuestEvent) => boolean): Promise<GuestEvent> {
  const events = guest.events(AbortSignal.timeout(30_000));
  return (async () => {
    for await (const each of events) if (matches(each)) return each;
    throw new Error('the events ended before the one that was waited for');
  })();
}
const transferIs = (guest: Guest, kind: string) =>
  event(guest, (each) => each.kind === 'transfer' && each.state.kind === kind);

describe.skipIf(leftOut !== null)('a guest on a real QEMU', () => {
  test('runs from its launch to its end, and leaves no process, socket or directory', async () => {
    const guest = await launch();
    expect(await guest.state()).toBe('running');
    await guest.destroy();
    expect((await guest.gone).how).toBe('destroyed');
    expect(isAlive(guest.pid)).toBe(false);
    expect(readdirSync(join(dir, 'a', 'run'))).toEqual([]);
  });

  test('says how much of its memory is in use and how much it writes, and runs on', async () => {
    const guest = kept(await source.launch(options(1, { ...spec, memoryMiB: 256 })));
    // Firmware waits for a disk that is not there: in the end it has touched a little, and writes hardly anything.
    const touched = { interval: 0, timeout: 60_000 };
    await expect.poll(async () => (await guest.memoryUse()).inUseBytes, touched).toBeGreaterThan(0);
    const { inUseBytes, dirtied } = await guest.memoryUse();
    expect(inUseBytes).toBeLessThan(256 * 1024 * 1024);
    expect(dirtied.map(({ overMs }) => overMs)).toEqual([250, 1000]);
    for (const { bytes } of dirtied) expect(bytes).toBeLessThan(64 * 1024 * 1024);
    expect(await guest.state()).toBe('running');
  });

  test('is found again by an agent that began anew, also without its file', async () => {
    const guest = await launch();
    const key = join(dir, 'a', 'run', `${vm}.1`);
    rmSync(join(key, 'guest.json'));
    // The first monitor is still held by the agent that was: the second one serves.
    const [found] = await open('a').adopt();
    expect(found?.key).toEqual({ vm, generation: 1 });
    expect(found?.pid).toBe(guest.pid);
    expect(found?.running.spec.memoryMiB).toBe(64);
    expect(await found?.state()).toBe('running');
    expect(existsSync(join(key, 'qmp.sock'))).toBe(true);
  });

  test('whose monitor does not answer is found all the same, and answers when it does', async () => {
    const guest = await launch();
    process.kill(guest.pid, 'SIGSTOP');
    const [found] = await open('a').adopt();
    expect(found?.pid).toBe(guest.pid);
    await expect(found?.state()).rejects.toThrow('connected to again');
    process.kill(guest.pid, 'SIGCONT');
    await expect.poll(() => found?.state().catch(() => 'unknown'), { timeout: 20_000 }).toBe('running');
    // Ended by the one that watches it now: the other one sees it, too.
    await found?.destroy();
    expect((await guest.gone).how).toBe('died');
  }, 40_000);

  test('hears an agent that is new to it and gets no connection', async () => {
    // The agent before it is another process, and gone.
    const modules = join(import.meta.dirname, '../../src/hypervisor/qemu');
    const before = `
      import { locateQemu } from '${modules}/locate.ts';
      import { openQemu } from '${modules}/qemu.ts';
      const qemu = await locateQemu({ env: process.env, repoRoot: '${join(import.meta.dirname, '../..')}' });
      const hypervisor = openQemu({ qemu, accel: 'tcg', runDir: '${dir}/a/run', logDir: '${dir}/a/log' });
      await hypervisor.launch(${JSON.stringify(options(1))});
      process.exit(0);`;
    await promisify(execFile)(process.execPath, ['--input-type=module', '-e', before]);
    // Each socket serves one client, as good as a QEMU that negotiates with nobody.
    const taken = ['qmp.sock', 'rescue.sock'].map((name) => connect(join(dir, 'a', 'run', `${vm}.1`, name)));
    await Promise.all(taken.map((socket) => once(socket, 'data')));
    const [found] = await open('a').adopt();
    if (!found) throw new Error('it was not found');
    kept(found);
    await expect(found.state()).rejects.toThrow('connected to again');
    await expect(found.transfer.pause()).rejects.toThrow('refused migrate-pause');
    for (const socket of taken) socket.destroy();
    await expect.poll(() => found.state().catch(() => 'unknown'), { timeout: 20_000 }).toBe('running');
  }, 40_000);

  test('subscribed to and not read yet, misses no event', async () => {
    const guest = await launch();
    const { endpoint } = await receive(preCopy);
    const events = guest.events(AbortSignal.timeout(30_000));
    await guest.transfer.start(endpoint, preCopy);
    while ((await guest.state()) !== 'sent') continue;
    const states: string[] = [];
    for await (const each of events) {
      if (each.kind === 'transfer') states.push(each.state.kind);
      if (states.at(-1) === 'completed') break;
    }
    expect(states[0]).toBe('preparing');
    expect(states).toContain('sending');
  });

  test('sent by pre-copy waits on the target until it is continued, once', async () => {
    const guest = await launch();
    const { copy, endpoint } = await receive(preCopy);
    expect(await copy.state()).toBe('incoming');
    const sent = transferIs(guest, 'completed');
    const loaded = transferIs(copy, 'completed');
    await guest.transfer.start(endpoint, preCopy);
    await Promise.all([sent, loaded]);
    expect(await guest.state()).toBe('sent');
    expect(await copy.state()).toBe('loaded');
    const resumed = event(copy, (each) => each.kind === 'resumed');
    await copy.continue();
    await resumed;
    expect(await copy.state()).toBe('running');
    expect(await guest.state()).toBe('sent');
  });

  test('sent by post-copy runs on the target after one cont, and never again at the source', async () => {
    const guest = await launch();
    const { copy, endpoint } = await receive(postCopy);
    const sending = transferIs(guest, 'sending');
    const slow = { ...postCopy, maxBandwidthBytesPerSecond: 200_000 };
    const switched = transferIs(copy, 'post-copy');
    await guest.transfer.start(endpoint, slow);
    await sending;
    await guest.transfer.switchToPostCopy();
    await switched;
    expect(await copy.state()).toBe('switched');
    expect(await guest.state()).toBe('sending-post-copy');
    await expect(guest.transfer.cancel()).rejects.toThrow('post-copy has started');
    const resumed = event(copy, (each) => each.kind === 'resumed');
    await copy.continue();
    await resumed;
    expect(await copy.state()).toBe('running');
  });

  test('broken in post-copy is kept on both sides, and goes on when the target listens again', async () => {
    const slow = { ...postCopy, maxBandwidthBytesPerSecond: 300_000 };
    const guest = await launch();
    const { copy, endpoint } = await receive(slow);
    const sending = transferIs(guest, 'sending');
    const switched = [transferIs(guest, 'post-copy'), transferIs(copy, 'post-copy')];
    await guest.transfer.start(endpoint, slow);
    await sending;
    await guest.transfer.switchToPostCopy();
    await Promise.all(switched);
    await copy.continue();
    await expect(copy.transfer.listenAgain('127.0.0.1')).rejects.toThrow('paused'); // nothing is broken
    for (let times = 0; times < 2; times++) {
      const broken = [transferIs(guest, 'post-copy-broken'), transferIs(copy, 'post-copy-broken')];
      await copy.transfer.pause();
      await Promise.all(broken);
      expect(await guest.state()).toBe('broken-post-copy');
      expect((await guest.transfer.numbers()).remainingBytes).toBeGreaterThan(0);
      // Nobody listens there: back to where it was, and nothing is lost.
      const failedAgain = transferIs(guest, 'post-copy-broken');
      await guest.transfer.resume({ address: '127.0.0.1', port: 9 });
      await failedAgain;
      const restored = [transferIs(guest, 'post-copy'), transferIs(copy, 'post-copy')];
      await copy.transfer.listenAgain('127.0.0.1'); // heard of by nobody
      await guest.transfer.resume(await copy.transfer.listenAgain('127.0.0.1'));
      await Promise.all(restored);
    }
    const ended = [transferIs(guest, 'completed'), transferIs(copy, 'completed')];
    await Promise.all(ended);
    expect(await copy.state()).toBe('running');
    await expect(copy.transfer.pause()).rejects.toThrow();
  });

  test('whose transfer is cancelled runs on at the source', async () => {
    const guest = await launch();
    const { endpoint } = await receive(preCopy);
    const sending = transferIs(guest, 'sending');
    const cancelled = transferIs(guest, 'cancelled');
    await guest.transfer.start(endpoint, { ...preCopy, maxBandwidthBytesPerSecond: 100_000, downtimeLimitMs: 1 });
    await sending;
    await guest.transfer.cancel();
    await cancelled;
    expect(await guest.state()).toBe('running');
  });

  test('runs on at the source when the copy on the target is killed', async () => {
    const guest = await launch();
    const { copy, endpoint } = await receive(preCopy);
    const sending = transferIs(guest, 'sending');
    const failed = transferIs(guest, 'failed');
    await guest.transfer.start(endpoint, { ...preCopy, maxBandwidthBytesPerSecond: 100_000, downtimeLimitMs: 1 });
    await sending;
    process.kill(copy.pid, 'SIGKILL');
    await failed;
    expect((await copy.gone).how).toBe('died');
    expect(await guest.state()).toBe('running');
  });

  test('is refused by a copy of another shape, says why, and runs on at the source', async () => {
    const guest = await launch();
    const { copy, endpoint } = await receive(preCopy, { ...spec, memoryMiB: 96 });
    const failed = transferIs(guest, 'failed');
    await guest.transfer.start(endpoint, preCopy);
    await failed;
    expect((await copy.gone).words).toMatch(/mismatch|Size|load/i);
    expect(await guest.state()).toBe('running');
  });

  test('that cannot start says what QEMU said, and leaves nothing', async () => {
    await expect(source.launch(options(1, { ...spec, machine: 'pc-of-nobody' }))).rejects.toMatchObject({
      failure: { code: 'guest-start-failed', detail: expect.stringContaining('unsupported machine type') },
    });
    expect(readdirSync(join(dir, 'a', 'run'))).toEqual([]);
    expect(readFileSync(join(dir, 'a', 'log', `${vm}.1.log`), 'utf8')).not.toBe('');
  });

  test('is held: running to the end of the hold, it completes only when told to, and a cancel leaves it running', async () => {
    const held: TransferOptions = { ...preCopy, hold: true };
    const guest = await launch();
    const { copy, endpoint } = await receive(held);
    await guest.transfer.start(endpoint, held);
    // All is sent, several times over: an ordinary transfer would have ended at the second round.
    await event(guest, (each) => each.kind === 'round' && each.round >= 20);
    await guest.transfer.limitBandwidth('trickle');
    expect((await guest.transfer.numbers()).state.kind).toBe('sending');
    expect(await guest.state()).toBe('sending');
    const completed = transferIs(guest, 'completed');
    const stopped = event(guest, (each) => each.kind === 'stopped');
    await guest.transfer.limitBandwidth(null);
    await guest.transfer.completeNow();
    await stopped;
    await completed;
    expect(await guest.state()).toBe('sent');
    expect(await copy.state()).toBe('loaded');
    await copy.continue();
    expect(await copy.state()).toBe('running');

    const { copy: second, endpoint: there } = await (async () => {
      const { guest: next, endpoint: at } = await source.receive(
        { ...options(3), running: copy.running },
        held,
        '127.0.0.1',
      );
      return { copy: kept(next), endpoint: at };
    })();
    await copy.transfer.start(there, held);
    await event(copy, (each) => each.kind === 'round' && each.round >= 3);
    await copy.transfer.cancel();
    await second.gone;
    expect(await copy.state()).toBe('running');
  });
});
