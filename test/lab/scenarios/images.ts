/** Guests that users bring: a disk image boots through SeaBIOS, its original stays as it was, its console can be reached. */
import assert from 'node:assert/strict';
import { execFile, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { locateQemu } from '../../../src/hypervisor/qemu/locate.ts';
import { guestCommandLine } from '../../../src/lab/guest/command-line.ts';
import { guestFiles, repository } from '../../../src/lab/guest/files.ts';
import { guestOf, vmState } from '../../../src/lab/guests.ts';
import { addressesOf, apiOf, directoriesOf } from '../../../src/lab/state.ts';
import type { Scenario, TestLab } from '../harness.ts';

const run = promisify(execFile);
const words = 'booted from disk';

/**
 * A disk of 1 MiB whose boot sector writes its words to the first serial port about once a second, for ever.
 *
 *   start: sti; ds = 0; dx = 0x3f8; si = words; print until 0; halt for 18 timer ticks; again
 */
function bootableDisk(): Buffer {
  const code = Buffer.from([
    0xfb, 0x31, 0xc0, 0x8e, 0xd8, 0xba, 0xf8, 0x03, 0xbe, 0x1d, 0x7c, 0xac, 0x08, 0xc0, 0x74, 0x03, 0xee, 0xeb, 0xf8,
    0xb9, 0x12, 0x00, 0xf4, 0xe2, 0xfd, 0xeb, 0xe5, 0x90, 0x90,
  ]);
  const disk = Buffer.alloc(1024 * 1024);
  code.copy(disk, 0);
  disk.write(`${words}\r\n\0`, code.length, 'latin1');
  disk.set([0x55, 0xaa], 510);
  return disk;
}

async function boots(lab: TestLab, format: 'raw' | 'qcow2'): Promise<void> {
  const dir = mkdtempSync(join(tmpdir(), 'drover-image-'));
  try {
    const raw = join(dir, 'disk.raw');
    const image = join(dir, `disk.${format}`);
    writeFileSync(raw, bootableDisk());
    if (format === 'qcow2') {
      const qemu = await locateQemu({ env: process.env, repoRoot: repository });
      assert(qemu.ok);
      await run(qemu.imgBinary, ['convert', '-O', 'qcow2', raw, image], { env: { ...process.env, ...qemu.env } });
    }
    const digest = () => createHash('sha256').update(readFileSync(image)).digest('hex');
    const before = digest();
    const name = `own-${format}`;
    const created = await lab.client.createVm({ body: { name, image, diskMiB: 2, memoryMiB: 64 } });
    await vmState(lab.client, created.id, ['running']);
    await consoleSays(lab, name, words);
    assert.equal(digest(), before, 'the original image was written to');
    const moved = await lab.ended(await lab.migrate(created, lab.otherThan(created.host), 'auto'));
    assert.equal(moved.phase, 'completed', moved.failure?.message);
    await consoleSays(lab, name, words);
    await lab.remove(await lab.vm(created.id));
    await lab.clean();
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
}

/** Attaches as a user would, and reads until the words come. */
async function consoleSays(lab: TestLab, vm: string, wanted: string): Promise<void> {
  const child = spawn(join(repository, 'bin', 'drover'), ['vm', 'console', vm, '--raw'], {
    env: {
      ...process.env,
      DROVER_SERVER: apiOf(lab.lab.state),
      DROVER_TOKEN_FILE: directoriesOf(lab.lab.state.name).token,
    },
    stdio: ['pipe', 'pipe', 'pipe'],
  });
  const heard = Promise.withResolvers<void>();
  let text = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream.on('data', (data: Buffer) => {
      text += data.toString('latin1');
      if (text.includes(wanted)) heard.resolve();
    });
  }
  child.once('exit', (code) => heard.reject(new Error(`the console of ${vm} ended with code ${code}: ${text}`)));
  const timer = setTimeout(
    () => heard.reject(new Error(`the console of ${vm} did not say '${wanted}': ${text}`)),
    20_000,
  );
  try {
    await heard.promise;
  } finally {
    clearTimeout(timer);
    child.removeAllListeners('exit');
    // Its input is still open: leaving must not depend on that.
    const ended = new Promise((resolve) => child.once('exit', resolve));
    child.kill('SIGTERM');
    const stuck = setTimeout(() => child.kill('SIGKILL'), 5000);
    await ended;
    clearTimeout(stuck);
    assert.notEqual(child.signalCode, 'SIGKILL', 'the console did not end when it was told to');
  }
}

/** The lab's own kernel, given as somebody gives theirs: by where it lies on the host. */
async function kernelBoots(lab: TestLab): Promise<void> {
  const { kernel, initrd } = guestFiles();
  const address = addressesOf(lab.lab.state.octet).guest(99);
  const append = guestCommandLine({ address: `${address}/24` });
  const created = await lab.client.createVm({
    body: { name: 'own-kernel', memoryMiB: 128, boot: { kind: 'kernel', kernel, initrd, append } },
  });
  await guestOf(lab.lab.state, address).waitReady({ timeoutMs: 60_000, signal: lab.signal });
  await lab.remove(await lab.vm(created.id));
  await lab.clean();
}

async function missingImageIsTold(lab: TestLab): Promise<void> {
  const created = await lab.client.createVm({ body: { name: 'no-image', image: '/does/not/exist.qcow2' } });
  await vmState(lab.client, created.id, ['crashed']);
  const { message } = await lab.vm(created.id);
  assert.match(message ?? '', /no file \/does\/not\/exist.qcow2 on this host/);
  await lab.remove(await lab.vm(created.id));
  await lab.clean();
}

export const scenarios: readonly Scenario[] = [
  ...(['raw', 'qcow2'] as const).map((format) => ({
    name: `image: a ${format} image boots from a copy, answers on its console, and moves`,
    run: (lab: TestLab) => boots(lab, format),
  })),
  { name: 'image: a kernel and an initrd of the host boot from copies in the pool', run: kernelBoots },
  { name: 'image: one that is not there is named', run: missingImageIsTold },
];
