/** Where the built guest and the prober lie. What makes them is build.ts. */
import { join } from 'node:path';

export type GuestFiles = { readonly kernel: string; readonly initrd: string; readonly probe: string };

export const repository = join(import.meta.dirname, '..', '..', '..');

/** The paths, whether the files exist or not. */
export function guestFiles(root: string = repository): GuestFiles {
  return {
    kernel: join(root, '.drover/guest/vmlinuz'),
    initrd: join(root, '.drover/guest/initrd'),
    probe: join(root, '.drover/bin/probe'),
  };
}
