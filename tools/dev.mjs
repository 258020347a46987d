// npm run dev: a fleet to look at, on simulated hosts, with the dashboard. Installs the npm packages and builds the dashboard where
// that is needed, and nothing else: no root, no Debian packages.

import { spawn } from 'node:child_process';
import path from 'node:path';
import { alone } from './setup/lock.mjs';
import { buildPage, missingPage } from './setup/page.mjs';
import { installPackages, missingPackages } from './setup/packages.mjs';
import { interruptible, repo, startLog, step } from './setup/run.mjs';
import { showError } from './setup.mjs';

async function prepare() {
  if (!missingPackages() && !missingPage()) return;
  await interruptible(() =>
    alone(async () => {
      startLog();
      if (missingPackages()) await step('Installing npm packages', installPackages);
      if (missingPage()) await step('Building the dashboard', buildPage);
    }),
  );
}

try {
  await prepare();
  const node = path.join(repo, 'node_modules/.bin/node');
  const args = ['--disable-warning=ExperimentalWarning', path.join(repo, 'src/dev/main.ts'), ...process.argv.slice(2)];
  const child = spawn(node, args, { stdio: 'inherit' });
  // A Ctrl-C at a terminal reaches it by itself.
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) {
    process.on(signal, () => (signal === 'SIGINT' && process.stdin.isTTY) || child.kill(signal));
  }
  child.on('close', (code) => (process.exitCode = code ?? 1));
} catch (error) {
  showError(error);
  process.exitCode = 1;
}
