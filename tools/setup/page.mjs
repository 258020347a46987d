// The dashboard's page: built by Vite into .drover/web, from where `drover server` serves it. Built anew only when something it is made
// of has changed: the stamp beside the files holds the hash of that, and is written last.

import { createHash } from 'node:crypto';
import { existsSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { command, droverDir, repo } from './run.mjs';

const target = path.join(droverDir, 'web');
const stamp = path.join(target, '.stamp');
const sources = ['src/web', 'src/wire', 'src/model', 'src/migration'];

export function missingPage() {
  return !existsSync(stamp) || readFileSync(stamp, 'utf8') !== wanted();
}

/** Needs the npm packages. Its files appear all at once. */
export async function buildPage() {
  const hash = wanted();
  const staging = `${target}.new`;
  rmSync(staging, { recursive: true, force: true });
  const vite = path.join(repo, 'node_modules/vite/bin/vite.js');
  const from = path.join(repo, 'src/web');
  await command([path.join(repo, 'node_modules/.bin/node'), vite, 'build', from, '--outDir', staging], {
    what: 'Building the dashboard (vite build)',
    deadlineMs: 5 * 60_000,
  });
  writeFileSync(path.join(staging, '.stamp'), hash);
  rmSync(target, { recursive: true, force: true });
  renameSync(staging, target);
}

function wanted() {
  const hash = createHash('sha256').update(readFileSync(path.join(repo, 'package-lock.json')));
  for (const folder of sources) {
    const files = readdirSync(path.join(repo, folder), { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isFile() && !/\.test\.tsx?$/.test(entry.name))
      .map((entry) => path.join(entry.parentPath ?? entry.path, entry.name));
    for (const file of files.sort()) hash.update(`${path.relative(repo, file)}\0`).update(readFileSync(file));
  }
  return `${hash.digest('hex')}\n`;
}
