// npm run check: everything that can be known without running the code, at once: formatting, lint (with the import
// rule), types, unused code, tidiness. `npm run check -- lint types` runs some of it. A part that fails shows its output.
// Plain JS for any Node >= 18; the parts themselves run on the Node of node_modules.

import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const repo = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..');
const node24 = path.join(repo, 'node_modules/.bin/node');
const partDeadlineMs = 120_000;

/** name -> how to run it, and what the reader does about a failure */
const parts = {
  format: { script: 'node_modules/oxfmt/bin/oxfmt', args: ['--check', '.'], mend: 'npm run format' },
  lint: { script: 'node_modules/oxlint/bin/oxlint', args: ['--type-aware', '--deny-warnings'] },
  types: { script: 'node_modules/typescript/bin/tsc', args: ['-p', 'tsconfig.json'] },
  'web-types': { script: 'node_modules/typescript/bin/tsc', args: ['-p', 'src/web/tsconfig.json'] },
  unused: { script: 'node_modules/knip/bin/knip.js', args: ['--no-progress'] },
  tidy: { script: 'tools/tidy.mjs', args: [] },
};

async function main() {
  if (!existsSync(node24)) {
    console.error('check: the packages are not installed. Run `npm run setup` first.');
    process.exit(1);
  }
  const asked = process.argv.slice(2);
  const unknown = asked.filter((name) => !Object.hasOwn(parts, name));
  if (unknown.length > 0) {
    console.error(`check: no part is called ${unknown.join(', ')}. The parts are: ${Object.keys(parts).join(', ')}.`);
    process.exit(2);
  }
  const names = asked.length > 0 ? asked : Object.keys(parts);
  const startedAt = performance.now();
  const results = await Promise.all(names.map(run));
  for (const result of results) {
    if (!result.ok) console.log(`\n--- ${result.name} ---\n${result.output.trim()}`);
  }
  const failed = results.filter((result) => !result.ok);
  console.log('');
  for (const { name, ok, seconds } of results) {
    const mend = !ok && parts[name].mend ? `   mend: ${parts[name].mend}` : '';
    console.log(`${ok ? 'ok    ' : 'FAILED'}  ${name.padEnd(9)} ${seconds.toFixed(1)} s${mend}`);
  }
  const seconds = (performance.now() - startedAt) / 1000;
  console.log(
    `check: ${failed.length === 0 ? 'all clean' : `${failed.length} of ${results.length} failed`}, ${seconds.toFixed(1)} s`,
  );
  process.exitCode = failed.length === 0 ? 0 : 1;
}

/** Runs one part to its end; output is kept, not streamed, because all parts run at once. */
function run(name) {
  const { script, args } = parts[name];
  const startedAt = performance.now();
  return new Promise((resolve) => {
    const child = spawn(node24, [path.join(repo, script), ...args], {
      cwd: repo,
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { ...process.env, NO_COLOR: process.stdout.isTTY ? (process.env.NO_COLOR ?? '') : '1' },
      timeout: partDeadlineMs,
    });
    let output = '';
    child.stdout.on('data', (chunk) => (output += chunk));
    child.stderr.on('data', (chunk) => (output += chunk));
    const end = (ok) => resolve({ name, ok, output, seconds: (performance.now() - startedAt) / 1000 });
    child.on('error', (error) => {
      output += `\ncould not be started: ${error.message}`;
      end(false);
    });
    child.on('close', (code, signal) => {
      if (signal !== null)
        output += `\nended by ${signal} after ${Math.round((performance.now() - startedAt) / 1000)} s`;
      end(code === 0);
    });
  });
}

await main();
