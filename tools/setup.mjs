// The set-up: looks at what this machine lacks for Drover's lab and tests, says what it will do, does it; quick when there is
// nothing to do. Plain JS for any Node >= 18 and without packages, because it runs before there are any.
//
//   .drover/qemu      QEMU of our own, where the system's will not do
//   .drover/ipmi      ipmitool and ipmi_sim, for power controllers
//   .drover/debian    Debian's cloud kernel, busybox and guest agent, unpacked
//   .drover/etcd      etcd, where the system has none
//   .drover/prometheus    Prometheus, where the system has none
//   .drover/shells    zsh and fish, which complete our command lines in tests
//   .drover/chromium  Chromium, where the system has none, for the tests of the dashboard
//   .drover/web       the dashboard, built
//   .drover/guest     the lab's guest image        .drover/bin   the lab's small programs
//
// Everything in .drover appears by one rename or carries a stamp written last: an interrupted set-up is repaired by the next.

import { statSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { closePrivateApt, install, installCommand, notInstalled, openPrivateApt } from './setup/apt.mjs';
import { downloadChromium, missingChromium } from './setup/chromium.mjs';
import { downloadEtcd, missingEtcd } from './setup/etcd.mjs';
import { buildGuest, downloadGuestParts, guestState, missingGuestParts } from './setup/guest.mjs';
import { lookAtHost } from './setup/host.mjs';
import { downloadIpmi, missingIpmi } from './setup/ipmi.mjs';
import { alone } from './setup/lock.mjs';
import { installPackages, missingPackages } from './setup/packages.mjs';
import { buildPage, missingPage } from './setup/page.mjs';
import { downloadPrometheus, missingPrometheus } from './setup/prometheus.mjs';
import { downloadQemu, missingQemu, qemuTrouble } from './setup/qemu.mjs';
import { downloadShells, missingShells } from './setup/shells.mjs';
import { command, droverDir, interruptible, repo, SetupError, startLog, step } from './setup/run.mjs';

/** a C compiler for the guest's program; xz for Debian 13's kernel modules */
const buildPackages = ['gcc', 'libc6-dev', 'xz-utils'];
/** and ip, tc and ss for the lab's networks; groff, which checks the man pages */
const systemPackages = ['iproute2', 'groff-base', ...buildPackages];

/**
 * @param {{ need: 'everything' | 'what-can-be' }} options
 *   'what-can-be': where the machine or missing rights forbid a part, go on without it and say so in `leftOut`
 * @returns {Promise<{ host: import('./setup/host.mjs').Host, leftOut: string[] }>} `leftOut`: why the lab cannot run; empty where it can
 * @throws {SetupError}
 */
export async function setUp({ need }) {
  const host = lookAtHost();
  if (need === 'everything' && host.noLab !== undefined) {
    throw new SetupError(
      host.noLab,
      'Use an x86_64 machine or virtual machine with Debian 12 or 13. `npm run check` and `npm test -- unit` run anywhere.',
    );
  }
  if (survey(host, need).todo.length > 0) await interruptible(() => alone(() => mend(host, need)));
  return { host, leftOut: leftOut(host) };
}

/**
 * Looks only. `todo` is what the person is told, in the order in which it is done; what needs root and can be left out is not in it.
 */
function survey(host, need) {
  const todo = [];
  const lab = host.noLab === undefined;
  const qemu = lab ? missingQemu(host) : { download: false, packages: [] };
  const guestParts = lab && missingGuestParts();
  const etcd = lab && missingEtcd();
  const prometheus = lab && missingPrometheus();
  const shells = lab && missingShells();
  const chromium = lab && missingChromium();
  const ipmi = lab ? missingIpmi() : { download: false, packages: [] };
  const packages = lab ? [...notInstalled(systemPackages), ...qemu.packages, ...ipmi.packages] : [];
  const mayInstall = host.becomeRoot !== undefined || need === 'everything';
  const npm = missingPackages();
  // The image is made by a compiler that may not be there; QEMU is not needed to make it.
  const mayBuild = lab && (mayInstall || notInstalled(buildPackages).length === 0);
  const guest = lab ? guestState() : 'no builder';
  if (qemu.download)
    todo.push(
      `QEMU from ${host.codename}-backports into .drover/qemu, beside the system's (no KVM here: QEMU 10 is needed)`,
    );
  if (ipmi.download) todo.push('ipmitool and ipmi_sim into .drover/ipmi, for power controllers and those of the lab');
  if (guestParts) todo.push("Debian's cloud kernel, busybox and guest agent into .drover/debian, for the lab's guests");
  if (etcd) todo.push("Debian's etcd into .drover/etcd, for stores and labs with several servers");
  if (prometheus) todo.push("Debian's Prometheus into .drover/prometheus, for the tests of metrics and alerts");
  if (shells) todo.push('zsh and fish into .drover/shells, for the tests of completion');
  if (chromium) todo.push("Debian's Chromium into .drover/chromium, for the tests of the dashboard");
  if (packages.length > 0 && mayInstall) todo.push(`Debian packages, installed by apt: ${packages.join(' ')}`);
  if ((qemu.download || ipmi.download) && mayInstall)
    todo.push('the shared libraries which those need, installed by apt where missing');
  if (npm) todo.push('npm packages into node_modules (npm ci)');
  const web = missingPage();
  if (web) todo.push('the dashboard, built into .drover/web');
  if (guest === 'to build' && mayBuild) todo.push("the lab's guest image into .drover/guest");
  return { todo, qemu, guestParts, etcd, prometheus, shells, chromium, ipmi, web, packages, npm, guest };
}

async function mend(host, need) {
  // Again, under the lock: whoever held it before us may have done it all.
  let missing = survey(host, need);
  if (missing.todo.length === 0) return;
  startLog();
  console.log('Drover sets up what is missing here:');
  for (const line of missing.todo) console.log(`  - ${line}`);

  const { qemu, guestParts, etcd, prometheus, shells, chromium, ipmi } = missing;
  if (qemu.download || guestParts || etcd || prometheus || shells || chromium || ipmi.download) {
    await step('Reading package lists', () => openPrivateApt(host.codename, qemu.download));
    if (qemu.download) await step('Downloading and unpacking QEMU', () => downloadQemu(host));
    if (guestParts) await step('Downloading and unpacking what the guest is made of', downloadGuestParts);
    if (etcd) await step('Downloading and unpacking etcd', downloadEtcd);
    if (prometheus) await step('Downloading and unpacking Prometheus', downloadPrometheus);
    if (shells) await step('Downloading and unpacking zsh and fish', downloadShells);
    if (chromium) await step('Downloading and unpacking Chromium', downloadChromium);
    if (ipmi.download) await step('Downloading and unpacking the IPMI programs', downloadIpmi);
    closePrivateApt();
    missing = survey(host, need);
  }
  if (missing.npm) await step('Installing npm packages', installPackages);
  if (missing.web) await step('Building the dashboard', buildPage);
  if (missing.packages.length > 0) {
    if (host.becomeRoot !== undefined) {
      await step(`Installing ${missing.packages.length} Debian packages`, () =>
        install(host.becomeRoot, missing.packages),
      );
    } else if (need === 'everything') {
      throw new SetupError(
        `${missing.packages.length} Debian packages are missing, and installing them needs root`,
        `Run this one command, then the same as before:\n    ${installCommand(missing.packages)}`,
      );
    }
  }
  if (missing.guest === 'to build' && notInstalled(buildPackages).length === 0)
    await step('Building the guest image', buildGuest);
  if (missing.guest === 'no builder' && host.noLab === undefined) {
    console.log('  The guest image is left out: src/lab/guest/build.ts is not in this clone.');
  }
  await giveToOwner();
  console.log('Set-up done.\n');
}

/** Run by root in somebody's clone: what we made belongs to that somebody, who could not run `npm test` any more otherwise. */
async function giveToOwner() {
  if (process.getuid?.() !== 0) return;
  const { uid, gid } = statSync(repo);
  if (uid === 0) return;
  const folders = [droverDir, path.join(repo, 'node_modules')];
  await command(['chown', '-R', '-h', `${uid}:${gid}`, ...folders], {
    what: "Giving the files to the clone's owner",
    deadlineMs: 60_000,
  });
}

/** Why the lab cannot run, after all that could be done was done. */
function leftOut(host) {
  if (host.noLab !== undefined) return [host.noLab];
  const missing = survey(host, 'everything');
  const reasons = [];
  if (missing.packages.length > 0)
    reasons.push(`Debian packages are missing; run: ${installCommand(missing.packages)}`);
  else if (qemuTrouble(host) !== undefined) reasons.push(qemuTrouble(host));
  if (missing.guest === 'no builder') reasons.push('src/lab/guest/build.ts is not in this clone');
  else if (missing.guest === 'to build' && reasons.length === 0) reasons.push('the guest image is not built');
  if (host.becomeRoot === undefined)
    reasons.push('the lab needs root, and this is not root and has no sudo without a password');
  return reasons;
}

/** Shows an error as what, why, what next; anything but a SetupError is a bug and keeps its stack. */
export function showError(error) {
  if (!(error instanceof SetupError)) throw error;
  console.error(`\ndrover set-up: ${error.message}\n${error.hint}`);
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  try {
    const { leftOut: reasons } = await setUp({ need: 'everything' });
    for (const reason of reasons) console.log(`The lab cannot run yet: ${reason}`);
    if (reasons.length === 0) console.log('Everything is here. `npm start` shows Drover at work.');
  } catch (error) {
    showError(error);
    process.exitCode = 1;
  }
}
