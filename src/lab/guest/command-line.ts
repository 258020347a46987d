/**
 * The kernel command line of the lab's guest: what its workload reads its settings from, and what makes it boot fast
 * where the CPU is emulated. Pure; what the settings do is written in workload/main.c.
 */

export type GuestSettings = {
  /** IPv4 address with its prefix length: `10.1.2.3/24`. */
  readonly address: string;
  readonly gateway?: string;
  /** Memory filled with incompressible content that `verify` checks. */
  readonly fillMiB?: number;
  /** Dirtying from the start on; it can be changed later through the control port. */
  readonly load?: { readonly pagesPerSecond: number; readonly setMiB: number };
  /** 4 KiB writes to the first disk from the start on. */
  readonly diskWritesPerSecond?: number;
  /** `ignored`: behaves like a guest that hangs when it shall shut down. */
  readonly powerButton?: 'obeyed' | 'ignored';
};

/** Measured under emulation: these save about a second of the boot. The guest has nothing that they would protect. */
const fastBoot = 'quiet mitigations=off ipv6.disable=1 audit=0 apparmor=0 transparent_hugepage=madvise tsc=reliable';

/** Give it to the kernel as it is (`-append`). The serial console is ttyS0. */
export function guestCommandLine(settings: GuestSettings): string {
  const { address, gateway, fillMiB, load, diskWritesPerSecond, powerButton } = settings;
  return [
    'console=ttyS0',
    fastBoot,
    `drover.ip=${address}`,
    ...(gateway === undefined ? [] : [`drover.gateway=${gateway}`]),
    ...(fillMiB === undefined ? [] : [`drover.fill=${fillMiB}`]),
    ...(load === undefined ? [] : [`drover.load=${load.pagesPerSecond},${load.setMiB}`]),
    ...(diskWritesPerSecond === undefined ? [] : [`drover.disk=${diskWritesPerSecond}`]),
    ...(powerButton === 'ignored' ? ['drover.noacpi=1'] : []),
  ].join(' ');
}
