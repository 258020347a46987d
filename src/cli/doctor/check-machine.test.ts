import { describe, expect, it } from 'vitest';
import type { Finding } from '../../wire/endpoints.ts';
import { checkMachine } from './check-machine.ts';
import { realMachine, type Machine } from './machine.ts';

interface Facts {
  readonly files: Readonly<Record<string, string>>;
  readonly usable: readonly string[];
  readonly programs: Readonly<Record<string, string>>;
  readonly isRoot: boolean;
  readonly freeMiB: number;
  readonly serverOffsetMs: number | null;
}

const healthy: Facts = {
  files: {
    '/proc/cpuinfo': 'processor : 0\nflags\t\t: fpu vme vmx sse\n',
    '/dev/kvm': '',
    '/proc/sys/vm/unprivileged_userfaultfd': '0\n',
    '/proc/sys/net/ipv4/tcp_notsent_lowat': '65536\n',
  },
  usable: ['/dev/kvm', '/opt/qemu/usr/bin/qemu-system-x86_64'],
  programs: {
    '/opt/qemu/usr/bin/qemu-system-x86_64': 'QEMU emulator version 10.0.2 (Debian)\n',
    ip: '[{"ifname":"br0"}]',
    timedatectl: 'yes\n',
  },
  isRoot: true,
  freeMiB: 50_000,
  serverOffsetMs: 300,
};

async function findings(change: Partial<Facts> = {}): Promise<Finding[]> {
  const facts = { ...healthy, ...change };
  const machine: Machine = {
    isRoot: facts.isRoot,
    read: async (path) => facts.files[path],
    can: async (path) => facts.usable.includes(path),
    exists: async (path) => path in facts.files,
    freeMiB: async () => facts.freeMiB,
    run: async (program) => facts.programs[program],
  };
  return checkMachine(machine, {
    stateDirectory: '/state',
    poolDirectories: ['/pool'],
    qemuPlaces: ['/elsewhere', '/opt/qemu'],
    serverOffsetMs: facts.serverOffsetMs,
  });
}

const without = (record: Readonly<Record<string, string>>, key: string): Record<string, string> =>
  Object.fromEntries(Object.entries(record).filter(([name]) => name !== key));

describe('checkMachine', () => {
  it('finds nothing wrong with a healthy host', async () => {
    expect((await findings()).map(({ severity }) => severity)).toEqual(Array(8).fill('ok'));
  });

  const oldQemu = { ...healthy.programs, '/opt/qemu/usr/bin/qemu-system-x86_64': 'QEMU emulator version 7.2.11' };
  const noFlags = { ...healthy.files, '/proc/cpuinfo': 'flags : fpu vme sse\n' };
  it.each<[string, Partial<Facts>, Finding['severity'], string, RegExp]>([
    ['a CPU that cannot, though /dev/kvm is there', { files: noFlags }, 'warning', 'neither vmx nor svm', /firmware/],
    ['a missing module', { files: without(healthy.files, '/dev/kvm') }, 'warning', 'no /dev/kvm', /modprobe kvm_intel/],
    ['a forbidden /dev/kvm', { usable: healthy.usable.slice(1) }, 'warning', 'may not be opened', /group kvm/],
    ['an old QEMU without KVM', { programs: oldQemu, files: noFlags }, 'error', 'corrupts the memory', /QEMU 10/],
    [
      'no QEMU',
      { programs: without(healthy.programs, '/opt/qemu/usr/bin/qemu-system-x86_64') },
      'error',
      'not run',
      /setup/,
    ],
    [
      'a user without userfaultfd',
      { isRoot: false },
      'warning',
      'may not use userfaultfd',
      /unprivileged_userfaultfd=1/,
    ],
    ['no bridge', { programs: { ...healthy.programs, ip: '[]' } }, 'warning', 'no network', /ip link add br0/],
    ['no iproute2', { programs: without(healthy.programs, 'ip') }, 'error', '`ip` does not run', /iproute2/],
    ['little space', { freeMiB: 500 }, 'warning', '500 MiB free', /larger disk/],
    ['no space', { freeMiB: 5 }, 'error', '5.0 MiB free', /Free some/],
    ['a clock ahead', { serverOffsetMs: 65_000 }, 'warning', "1 min 5 s ahead of the server's", /timesyncd/],
    ['a free-running clock', { programs: { ...healthy.programs, timedatectl: 'no' } }, 'warning', 'not sync', /chrony/],
    [
      'an unbounded send queue',
      { files: { ...healthy.files, '/proc/sys/net/ipv4/tcp_notsent_lowat': '4294967295' } },
      'warning',
      'not bounded',
      /sysctl -w net.ipv4.tcp_notsent_lowat=65536/,
    ],
  ])('says how to mend %s', async (_, change, severity, says, mend) => {
    const found = (await findings(change)).find((finding) => finding.says.includes(says));
    expect(found?.severity).toBe(severity);
    expect(found?.mend).toMatch(mend);
  });

  it('accepts an old QEMU where KVM runs the guests', async () => {
    expect((await findings({ programs: oldQemu })).some(({ severity }) => severity !== 'ok')).toBe(false);
  });

  it('looks at this very machine without failing', async () => {
    const found = await checkMachine(realMachine(process.env), {
      stateDirectory: '/var/lib/drover/not-there',
      poolDirectories: ['/'],
      qemuPlaces: [],
      serverOffsetMs: null,
    });
    expect(found).toHaveLength(8);
    for (const finding of found) expect(finding.mend === null).toBe(finding.severity === 'ok');
  });
});
