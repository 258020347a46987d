// One set-up at a time in one clone. The lock is the kernel's (flock, of util-linux, which every Debian has), held by a child that
// ends when its standard input closes: however this process dies, the lock is free again and there is nothing to clean up.

import { spawn } from 'node:child_process';
import { mkdirSync } from 'node:fs';
import path from 'node:path';
import { droverDir, SetupError } from './run.mjs';

const waitSeconds = 1800;

/** Waits for its turn, runs `work`, lets the next one in. */
export async function alone(work) {
  const release = await take();
  try {
    return await work();
  } finally {
    release();
  }
}

function take() {
  mkdirSync(droverDir, { recursive: true });
  const file = path.join(droverDir, 'setup.lock');
  const script = 'flock -n 9 || { echo waiting; flock -w "$1" 9 || exit 9; }; echo held; exec cat';
  return new Promise((resolve, reject) => {
    // A session of its own: Ctrl-C reaches this process, and the lock falls only when this process is gone.
    const holder = spawn('sh', ['-c', `exec 9>"$0" || exit 8; ${script}`, file, String(waitSeconds)], {
      stdio: ['pipe', 'pipe', 'ignore'],
      detached: true,
    });
    let said = '';
    holder.stdout.on('data', (chunk) => {
      said += chunk;
      if (said === 'waiting\n') console.log('Another set-up is at work in this clone: waiting for it.');
      if (said.endsWith('held\n')) resolve(() => holder.stdin.end());
    });
    holder.stdin.on('error', () => {});
    holder.on('error', (error) => reject(refused(`${error.message}`)));
    holder.on('close', (code) =>
      reject(refused(code === 9 ? `another one has held it for ${waitSeconds / 60} minutes` : 'it cannot be written')),
    );
    const refused = (why) =>
      new SetupError(
        `the set-up's lock ${path.relative(process.cwd(), file)} could not be taken: ${why}`,
        'See who owns .drover (`ls -ld .drover`); if an earlier run as root left it, `sudo chown -R "$(id -u)" .drover node_modules`.',
      );
  });
}
