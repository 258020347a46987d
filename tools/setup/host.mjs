// What this machine is: distribution, processor, KVM, and whether we may become root. Only looks, changes nothing.

import { closeSync, constants, existsSync, openSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { ask } from './run.mjs';

/** Debian releases that are supported; other Debians are refused for the lab, not guessed at */
const codenames = { 12: 'bookworm', 13: 'trixie' };

/**
 * @typedef {{
 *   codename: string | undefined, major: number,
 *   becomeRoot: string[] | undefined, kvm: boolean, noLab: string | undefined
 * }} Host
 *   `becomeRoot`: what to write before a command that needs root ([] as root); undefined where we cannot
 *   `noLab`: why real guests cannot run on this machine at all, whatever is installed
 */

/** @returns {Host} */
export function lookAtHost() {
  const release = readRelease();
  const major = release.ID === 'debian' ? Number.parseInt(release.VERSION_ID ?? '', 10) : Number.NaN;
  const codename = codenames[major];
  return { codename, major, becomeRoot: becomeRoot(), kvm: hasKvm(), noLab: noLab(release, codename) };
}

function readRelease() {
  const release = {};
  if (!existsSync('/etc/os-release')) return release;
  for (const line of readFileSync('/etc/os-release', 'utf8').split('\n')) {
    const match = /^([A-Z_]+)="?([^"]*)"?$/.exec(line);
    if (match) release[match[1]] = match[2];
  }
  return release;
}

function noLab(release, codename) {
  if (process.platform !== 'linux') return `real guests need Linux; this is ${process.platform}`;
  if (process.arch !== 'x64') {
    return `only x86_64 guests are supported for now, and this machine is ${process.arch}`;
  }
  if (codename === undefined) {
    return `the set-up knows Debian 12 and 13; this is ${release.PRETTY_NAME ?? 'an unknown system'}`;
  }
  return undefined;
}

function becomeRoot() {
  if (process.getuid?.() === 0) return [];
  return ask('sudo', ['-n', 'true'], { stdio: ['ignore', 'ignore', 'ignore'] }) === undefined
    ? undefined
    : ['sudo', '-n'];
}

/**
 * Whether KVM really runs guests: /dev/kvm alone proves nothing (containers and some clouds have the device and no
 * processor support). A refused permission counts as present, because guests are run by root.
 */
function hasKvm() {
  if (!/^flags\s*:.*\b(vmx|svm)\b/m.test(readFileSync('/proc/cpuinfo', 'utf8'))) return false;
  try {
    closeSync(openSync('/dev/kvm', constants.O_RDWR));
    return true;
  } catch (error) {
    return error.code === 'EACCES';
  }
}

/** A command line for a person to run as root: by sudo, or by su on a Debian that has no sudo. */
export function asRoot(line) {
  if (existsSync('/usr/bin/sudo')) return `sudo ${line}`;
  return `su -c "${line.replaceAll(/["$`\\]/g, '\\$&')}"`;
}

/**
 * The Node that started all this, to be named in commands for people: not the one in node_modules, which may be
 * replaced under our feet by `npm ci`.
 */
export function systemNode() {
  return process.env.npm_node_execpath ?? process.execPath;
}

/** PATH without the node_modules/.bin folders that npm puts in front. */
export function systemPath() {
  const folders = (process.env.PATH ?? '').split(path.delimiter);
  return folders.filter((folder) => !folder.endsWith('node_modules/.bin')).join(path.delimiter);
}
