/** The guest as it is, in a real QEMU with a network in user mode: nothing outside the process is touched. */
import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdtemp, rm, truncate, writeFile } from 'node:fs/promises';
import { connect, createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { locateQemu } from '../../hypervisor/qemu/locate.ts';
import { startProbe } from '../probe/probe.ts';
import { guestCommandLine, type GuestSettings } from './command-line.ts';
import { guestFiles, repository } from './files.ts';
import { GuestClient } from './guest-client.ts';

const files = guestFiles();
const qemu = await locateQemu({ env: process.env, repoRoot: repository });
const missing = whatIsMissing();
const bootTimeoutMs = 40_000;

function whatIsMissing(): string | undefined {
  if (!qemu.ok) return qemu.reason;
  if (qemu.version.major < 10) return `QEMU ${qemu.version.major} is too old, 10 is needed`;
  const absent = Object.values(files).find((file) => !existsSync(file));
  return absent === undefined ? undefined : `${absent} is not built`;
}

let scratch: string;
let disk: string;
let running: RunningGuest | undefined;

type RunningGuest = {
  readonly client: GuestClient;
  readonly echoPort: number;
  readonly ended: Promise<void>;
  readonly process: ChildProcess;
  command(name: string): Promise<void>;
};

/** Asked of the system; another process could take it before QEMU does, then QEMU ends and the test fails loudly. */
async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const address = server.address();
  await new Promise((resolve) => server.close(resolve));
  if (address === null || typeof address === 'string') throw new Error('no port');
  return address.port;
}

async function boot(settings: Omit<GuestSettings, 'address'>): Promise<RunningGuest> {
  if (!qemu.ok) throw new Error(qemu.reason);
  const [controlPort, echoPort] = [await freePort(), await freePort()];
  const monitor = join(scratch, `monitor-${controlPort}`);
  const forward = `hostfwd=tcp:127.0.0.1:${controlPort}-:7000,hostfwd=udp:127.0.0.1:${echoPort}-:7001`;
  const devices = [
    `-netdev user,id=net0,${forward} -device virtio-net-pci,netdev=net0,romfile=`,
    `-drive if=none,id=disk0,format=raw,cache=writeback,file=${disk} -device virtio-blk-pci,drive=disk0`,
    `-qmp unix:${monitor},server=on,wait=off -display none -serial none`,
  ];
  const machine = '-nodefaults -no-user-config -machine pc-q35-7.2 -accel tcg -cpu qemu64-v1 -smp 1 -m 384';
  const kernel = ['-kernel', files.kernel, '-initrd', files.initrd];
  const line = guestCommandLine({ address: '10.0.2.15/24', ...settings });
  const child = spawn(
    qemu.binary,
    [...qemu.libArgs, ...`${machine} ${devices.join(' ')}`.split(' '), ...kernel, '-append', line],
    { stdio: 'ignore', env: { ...process.env, ...qemu.env } },
  );
  const ended = new Promise<void>((resolve) => child.once('close', () => resolve()));
  let socket: Socket | undefined;
  void ended.then(() => socket?.destroy());
  running = {
    client: new GuestClient({ address: '127.0.0.1', port: controlPort }),
    echoPort,
    ended,
    process: child,
    command: async (name) => {
      socket ??= await monitorOf(monitor);
      const answered = new Promise((resolve) => socket?.once('data', resolve));
      socket.write(`${JSON.stringify({ execute: name })}\n`);
      await answered;
    },
  };
  await running.client.waitReady({ timeoutMs: bootTimeoutMs });
  return running;
}

async function monitorOf(path: string): Promise<Socket> {
  const socket = connect(path);
  await new Promise((resolve) => socket.once('data', resolve)); // the greeting
  const answered = new Promise((resolve) => socket.once('data', resolve));
  socket.write('{"execute":"qmp_capabilities"}\n');
  await answered;
  return socket;
}

async function until(holds: () => Promise<boolean>): Promise<void> {
  const deadline = AbortSignal.timeout(20_000);
  while (!(await holds())) await sleep(50, undefined, { signal: deadline });
}

async function kill(guest: RunningGuest): Promise<void> {
  guest.process.kill('SIGKILL');
  await guest.ended;
}

describe.skipIf(missing !== undefined)(
  `the lab's guest in QEMU${missing === undefined ? '' : ` (left out: ${missing})`}`,
  { timeout: 2 * bootTimeoutMs },
  () => {
    beforeAll(async () => {
      scratch = await mkdtemp(join(tmpdir(), 'drover-guest-test-'));
      disk = join(scratch, 'disk.raw');
    });
    afterEach(async () => {
      if (running !== undefined) await kill(running);
      running = undefined;
    });
    afterAll(async () => await rm(scratch, { recursive: true, force: true }));

    it('keeps and proves its memory and disk, through heavy writing, a clean end and the next boot', async () => {
      await writeFile(disk, '');
      await truncate(disk, 64 << 20);
      const first = await boot({ fillMiB: 64, diskWritesPerSecond: 100 });
      const fresh = await first.client.status();
      expect(fresh).toMatchObject({ boots: 1, problem: '', memory: { fillPages: 64 * 256, setPages: 0 } });
      expect(fresh.diskAtBoot.found).toBe('blank');

      await first.client.setLoad({ pagesPerSecond: 50_000, setMiB: 128 });
      await until(async () => (await first.client.status()).load.written > 40_000); // over one lap of the set
      await until(async () => (await first.client.status()).disk.sequence > 50);
      const verified = await first.client.verify();
      expect(verified).toMatchObject({ ok: true, pages: (64 + 128) * 256, bootId: fresh.bootId });
      expect(verified.blocks).toBeGreaterThan(40);

      const before = (await first.client.status()).disk.sequence;
      await first.command('system_powerdown');
      await first.ended;

      const second = await boot({ fillMiB: 64, powerButton: 'ignored' });
      const after = await second.client.status();
      expect(after.bootId).not.toBe(fresh.bootId);
      expect(after).toMatchObject({ boots: 2, diskAtBoot: { found: 'sealed', sealed: true, bad: 0 } });
      expect(after.diskAtBoot.sequence).toBeGreaterThanOrEqual(before);
      expect(after.diskAtBoot.blocks).toBeGreaterThanOrEqual(verified.blocks);

      await second.client.corrupt('memory');
      await second.client.corrupt('disk');
      expect(await second.client.verify()).toMatchObject({ ok: false, badPages: 1, badBlocks: 1 });

      await second.command('system_powerdown');
      await second.client.setDisk(100); // it answers on, although the button was pressed
      await until(async () => (await second.client.status()).disk.sequence > after.disk.sequence + 5);
      await kill(second);

      const third = await boot({});
      expect((await third.client.status()).diskAtBoot).toMatchObject({ found: 'unsealed', sealed: false });
    });

    it('leaves a disk alone that holds something else', async () => {
      await writeFile(disk, 'somebody else needs this');
      await truncate(disk, 8 << 20);
      const guest = await boot({ diskWritesPerSecond: 10 });
      const status = await guest.client.status();
      expect(status.diskAtBoot.found).toBe('foreign');
      expect(status.problem).toContain('drover.disk');
      await expect(guest.client.setDisk(10)).rejects.toThrow('holds something else');

      // The same guest serves to see the prober at work: a paused guest is a gap of at least that length.
      await using probe = startProbe({ binary: files.probe, address: '127.0.0.1', port: guest.echoPort });
      await probe.waitForReply(AbortSignal.timeout(10_000));
      const from = Date.now();
      await guest.command('stop');
      await sleep(200); // the length of the pause is what is measured
      await guest.command('cont');
      await probe.waitForReply(AbortSignal.timeout(10_000));
      expect(probe.longestGap(from, Date.now())).toBeGreaterThan(190);
    });
  },
);
