// The lab's guest: Debian's cloud kernel, busybox and the QEMU guest agent, unpacked into .drover/debian, and the image that
// src/lab/guest/build.ts makes of them and of our workload program in .drover/guest. What is in the image is decided there.

import { createHash } from 'node:crypto';
import { existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { resolveDependency, unpacked, unpackPrivately, withDependencies } from './apt.mjs';
import { command, droverDir, repo } from './run.mjs';

const debianDir = path.join(droverDir, 'debian');
const sources = path.join(repo, 'src/lab/guest');
const probe = path.join(repo, 'src/lab/probe');
const builder = path.join(sources, 'build.ts');
const stamp = path.join(droverDir, 'guest/.built-from');
const products = ['guest/vmlinuz', 'guest/initrd', 'bin/probe'].map((file) => path.join(droverDir, file));

/** Also in a clone that was set up before the guest had an agent. */
export function missingGuestParts() {
  return unpacked(debianDir)?.files.some((file) => file.startsWith('qemu-guest-agent_')) !== true;
}

/** Needs an open private apt. */
export async function downloadGuestParts() {
  const kernel = resolveDependency('linux-image-cloud-amd64', /^linux-image-.*-cloud-amd64$/);
  const agent = withDependencies('qemu-guest-agent', /^lib/);
  await unpackPrivately({ target: debianDir, packages: [kernel, 'busybox-static', ...agent] });
}

/** @returns {'built' | 'to build' | 'no builder'} */
export function guestState() {
  if (!existsSync(builder)) return 'no builder';
  const built =
    products.every((file) => existsSync(file)) && existsSync(stamp) && readFileSync(stamp, 'utf8') === inputs();
  return built ? 'built' : 'to build';
}

export async function buildGuest() {
  const from = inputs();
  rmSync(stamp, { force: true });
  await command([path.join(repo, 'node_modules/.bin/node'), '--disable-warning=ExperimentalWarning', builder], {
    what: 'Building the guest image (src/lab/guest/build.ts)',
    deadlineMs: 10 * 60_000,
  });
  writeFileSync(stamp, from);
}

/** A digest of all the image is made of. */
function inputs() {
  const hash = createHash('sha256').update(JSON.stringify(unpacked(debianDir)?.files ?? []));
  const add = (folder) => {
    for (const entry of readdirSync(folder, { withFileTypes: true }).sort((a, b) => (a.name < b.name ? -1 : 1))) {
      const full = path.join(folder, entry.name);
      if (entry.isDirectory()) add(full);
      else if (!entry.name.endsWith('.test.ts'))
        hash.update(path.relative(sources, full)).update('\0').update(readFileSync(full));
    }
  };
  add(sources);
  if (existsSync(probe)) add(probe);
  return `${hash.digest('hex')}\n`;
}
