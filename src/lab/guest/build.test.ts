import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { buildGuest, GuestBuildError, moduleDependencies, modulesInLoadOrder } from './build.ts';

let directory: string;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'drover-guest-'));
});
afterEach(async () => await rm(directory, { recursive: true, force: true }));

async function module(path: string, depends: string): Promise<void> {
  const full = join(directory, 'kernel', path);
  await mkdir(join(full, '..'), { recursive: true });
  await writeFile(full, `\u007fELF\0license=GPL\0depends=${depends}\0name=x\0`);
}

describe('the modules of the guest', () => {
  it('come each after those that they need, once, without the built-in ones', async () => {
    await module('drivers/net/virtio_net.ko', 'virtio_ring,net_failover,crc32c');
    await module('drivers/net/net_failover.ko', 'failover');
    await module('net/core/failover.ko', '');
    await module('drivers/virtio/virtio-ring.ko', '');
    await module('drivers/block/virtio_blk.ko', 'virtio_ring');
    await writeFile(join(directory, 'modules.builtin'), 'kernel/lib/crc32c.ko\n');
    const ordered = await modulesInLoadOrder(directory, ['virtio_net', 'virtio_blk']);
    expect(ordered.map(({ name }) => name)).toEqual([
      'virtio_ring',
      'failover',
      'net_failover',
      'virtio_net',
      'virtio_blk',
    ]);
  });

  it('are refused by name when one is missing, with the one that needs it', async () => {
    await module('drivers/net/virtio_net.ko', 'virtio_ring');
    await writeFile(join(directory, 'modules.builtin'), '');
    await expect(modulesInLoadOrder(directory, ['virtio_net'])).rejects.toThrow('virtio_net > virtio_ring');
  });

  it('may need none or say nothing about it', () => {
    expect(moduleDependencies(Buffer.from('\0depends=\0'))).toEqual([]);
    expect(moduleDependencies(Buffer.from('nothing'))).toEqual([]);
    expect(moduleDependencies(Buffer.from('\0depends=a,b-c\0'))).toEqual(['a', 'b_c']);
  });
});

describe('building the guest', () => {
  it('says which package is missing and what to do', async () => {
    const built = buildGuest(directory);
    await expect(built).rejects.toThrow(GuestBuildError);
    await expect(built).rejects.toThrow('linux-image-cloud-amd64');
  });
});
