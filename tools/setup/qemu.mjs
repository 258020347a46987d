// Which QEMU runs the guests. With working KVM any QEMU from 7.2 on; without it 10 or newer, because older ones lose
// guest memory when they migrate an emulated guest. Debian 12 has 7.2, so there 10 is taken from backports and unpacked into
// .drover/qemu, beside whatever the system has. It is started with
//   QEMU_MODULE_DIR=.drover/qemu/usr/lib/x86_64-linux-gnu/qemu
//   .drover/qemu/usr/bin/qemu-system-x86_64 -L .drover/qemu/usr/share/qemu -L .drover/qemu/usr/share/seabios

import { existsSync } from 'node:fs';
import path from 'node:path';
import { notInstalled, unmetDependencies, unpacked, unpackPrivately } from './apt.mjs';
import { ask, droverDir } from './run.mjs';

const privateDir = path.join(droverDir, 'qemu');
const systemPackages = ['qemu-system-x86', 'qemu-utils'];
const privatePackages = ['qemu-system-x86', 'qemu-system-common', 'qemu-system-data', 'qemu-utils', 'seabios'];
/** what a QEMU package depends on and we do not need beside the unpacked ones: ROMs of network cards we do not boot from */
const notNeeded = /^(ipxe-qemu|qemu-|seabios|adduser)/;

/**
 * @param {import('./host.mjs').Host} host
 * @returns {{ download: boolean, packages: string[] }} what is missing: the private copy, and system packages
 */
export function missingQemu(host) {
  const needed = host.kvm ? 7 : 10;
  const system = majorVersion('/usr/bin/qemu-system-x86_64');
  if (system !== undefined && system >= needed) {
    return { download: false, packages: runs('/usr/bin/qemu-img') ? [] : ['qemu-utils'] };
  }
  if (host.kvm || host.major >= 13) return { download: false, packages: notInstalled(systemPackages) };
  const there = unpacked(privateDir);
  if (there === undefined) return { download: true, packages: [] };
  const bin = path.join(privateDir, 'usr/bin');
  if (runs(path.join(bin, 'qemu-system-x86_64')) && runs(path.join(bin, 'qemu-img')))
    return { download: false, packages: [] };
  return { download: false, packages: unmetDependencies(there.depends.filter((clause) => !notNeeded.test(clause))) };
}

/** Needs an open private apt with backports. */
export async function downloadQemu(host) {
  await unpackPrivately({ target: privateDir, packages: privatePackages, suite: `${host.codename}-backports` });
}

/** Why no QEMU runs here although everything was installed; undefined where one does. */
export function qemuTrouble(host) {
  const program = existsSync(path.join(privateDir, '.complete'))
    ? path.join(privateDir, 'usr/bin/qemu-system-x86_64')
    : '/usr/bin/qemu-system-x86_64';
  const version = majorVersion(program);
  if (version === undefined) {
    const lost = (ask('ldd', [program]) ?? '').split('\n').filter((line) => line.includes('not found'));
    return `${program} does not start${lost.length > 0 ? `: ${lost.map((line) => line.trim()).join('; ')}` : ''}`;
  }
  if (!host.kvm && version < 10) return `${program} is version ${version}, and without KVM 10 or newer is needed`;
  return undefined;
}

function majorVersion(program) {
  if (!existsSync(program)) return undefined;
  const match = /version (\d+)\./.exec(ask(program, ['--version']) ?? '');
  return match === null ? undefined : Number(match[1]);
}

function runs(program) {
  return existsSync(program) && ask(program, ['--version']) !== undefined;
}
