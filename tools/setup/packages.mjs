// node_modules: installed by `npm ci` whenever package-lock.json is not the one it was installed from. The stamp lies inside
// node_modules, is removed before npm starts and written after it ends, so an interrupted installation is noticed.

import { createHash } from 'node:crypto';
import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { systemNode, systemPath } from './host.mjs';
import { command, repo } from './run.mjs';

const stamp = path.join(repo, 'node_modules/.drover-stamp');

export function missingPackages() {
  const there = existsSync(stamp) && existsSync(path.join(repo, 'node_modules/.bin/node'));
  return !there || readFileSync(stamp, 'utf8') !== wanted();
}

export async function installPackages() {
  rmSync(stamp, { force: true });
  const args = ['ci', '--ignore-scripts', '--no-audit', '--no-fund', '--loglevel=error'];
  // The npm that started us, on its own Node; else the one on the path, which must not run on the Node it is about to replace.
  const npm = process.env.npm_execpath;
  const argv = npm?.endsWith('.js') && existsSync(npm) ? [systemNode(), npm, ...args] : ['npm', ...args];
  await command(argv, {
    what: 'Installing the npm packages (npm ci)',
    deadlineMs: 15 * 60_000,
    env: { ...process.env, PATH: systemPath() },
  });
  writeFileSync(stamp, wanted());
}

function wanted() {
  return `${createHash('sha256')
    .update(readFileSync(path.join(repo, 'package-lock.json')))
    .digest('hex')}\n`;
}
