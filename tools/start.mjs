// npm start: the set-up, then the tour of the lab. Arguments go to the tour (`npm start -- --exit`).

import { spawn } from 'node:child_process';
import path from 'node:path';
import { asRoot, lookAtHost, systemNode } from './setup/host.mjs';
import { repo, SetupError } from './setup/run.mjs';
import { setUp, showError } from './setup.mjs';

async function main() {
  const args = process.argv.slice(2);
  const host = lookAtHost();
  if (host.noLab === undefined && host.becomeRoot === undefined) {
    throw new SetupError(
      'the lab needs root (it makes network namespaces), and this is not root and has no sudo without a password',
      `Run this instead:\n    ${asRoot([systemNode(), path.join(repo, 'tools/start.mjs'), ...args].map(quoted).join(' '))}`,
    );
  }
  const { leftOut } = await setUp({ need: 'everything' });
  if (leftOut.length > 0)
    throw new SetupError(`the lab cannot run: ${leftOut.join('; ')}`, 'Mend that and run `npm start` again.');
  process.exitCode = await run([...host.becomeRoot, path.join(repo, 'bin/drover'), 'lab', 'tour', ...args]);
}

/**
 * Runs the tour in our place. A Ctrl-C at a terminal reaches it by itself, since it is in the same process group; so INT is
 * passed on only where there is no terminal, or the tour would get it twice.
 * @param {string[]} argv @returns {Promise<number>} its exit code, 128 + n after a signal, as shells have it
 */
function run(argv) {
  const child = spawn(argv[0], argv.slice(1), { stdio: 'inherit' });
  const passOn = (signal) => child.kill(signal);
  process.on('SIGINT', () => process.stdin.isTTY || passOn('SIGINT'));
  process.on('SIGTERM', passOn);
  process.on('SIGHUP', passOn);
  return new Promise((resolve, reject) => {
    child.on('error', (cause) =>
      reject(
        new SetupError(
          `bin/drover could not be started: ${cause.message}`,
          'Is the clone complete? `git status` tells.',
        ),
      ),
    );
    child.on('close', (code, signal) => resolve(code ?? 128 + (signal === 'SIGINT' ? 2 : 15)));
  });
}

function quoted(word) {
  return /^[\w./:=@-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`;
}

try {
  await main();
} catch (error) {
  showError(error);
  process.exitCode = 1;
}
