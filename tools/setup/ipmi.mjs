// The IPMI programs: ipmitool, with which the server talks to BMCs, and ipmi_sim, the lab's BMCs. Unpacked into .drover/ipmi, beside
// whatever the system has; only libraries that Debian has almost everywhere are installed where they are missing.

import path from 'node:path';
import { resolveDependency, unmetDependencies, unpacked, unpackPrivately } from './apt.mjs';
import { ask, droverDir } from './run.mjs';

const privateDir = path.join(droverDir, 'ipmi');
/** what these packages depend on and we do not need: their services, and ipmi_ui's SNMP */
const notNeeded = /^(lib(freeipmi|openipmi|popt|snmp)|freeipmi|init-system-helpers|lsb-base|sysvinit-utils|adduser)/;

/** @returns {{ download: boolean, packages: string[] }} what is missing: the private copy, and system packages */
export function missingIpmi() {
  const there = unpacked(privateDir);
  if (there === undefined) return { download: true, packages: [] };
  if (runs('ipmitool', '-V') && runs('ipmi_sim', '--help')) return { download: false, packages: [] };
  return { download: false, packages: unmetDependencies(there.depends.filter((clause) => !notNeeded.test(clause))) };
}

/** Needs an open private apt. */
export async function downloadIpmi() {
  const libraries = [
    resolveDependency('ipmitool', /^libfreeipmi\d/),
    resolveDependency('openipmi', /^libopenipmi\d/),
    resolveDependency('openipmi', /^libpopt\d/),
  ];
  await unpackPrivately({ target: privateDir, packages: ['ipmitool', 'openipmi', ...libraries] });
}

/** A program whose libraries are missing says so before it reads its command line. */
function runs(program, option) {
  const libraries = path.join(privateDir, 'usr/lib/x86_64-linux-gnu');
  return ask('env', [`LD_LIBRARY_PATH=${libraries}`, path.join(privateDir, 'usr/bin', program), option]) !== undefined;
}
