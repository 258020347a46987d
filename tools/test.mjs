// npm test: the set-up, then every test there is: `check` (all that is known without running the code), `unit`,
// `sim`, `contract`, `web` (the dashboard in a browser), `lab` (scenarios on real guests; needs root). `npm test -- unit lab` runs some of them. What cannot
// run here is said, never silently missing. The last line is "N passed, N failed": tests and scenarios, and one failure for
// each part that broke down.

import { spawn } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, rmSync } from 'node:fs';
import path from 'node:path';
import { droverDir, repo } from './setup/run.mjs';
import { setUp, showError } from './setup.mjs';

const minuteMs = 60_000;
const node24 = path.join(repo, 'node_modules/.bin/node');
const scenarios = path.join(repo, 'test/lab/run.ts');
const afterTermMs = 20_000;

/** @typedef {{ passed: number, failed: number, skipped?: number, leftOut?: string }} Outcome */

/** @type {Record<string, (setup: Awaited<ReturnType<typeof setUp>>) => Promise<Outcome>>} */
const parts = {
  check: runCheck,
  unit: () => runVitest('unit', 12 * minuteMs),
  sim: () => runVitest('sim', 12 * minuteMs),
  contract: () => runVitest('contract', 12 * minuteMs),
  web: () => runVitest('web', 8 * minuteMs),
  lab: runScenarios,
};

let stopping = false;

async function main() {
  const asked = process.argv.slice(2);
  const unknown = asked.filter((name) => !Object.hasOwn(parts, name));
  if (unknown.length > 0) {
    console.error(
      `npm test: no part is called ${unknown.join(', ')}. The parts are: ${Object.keys(parts).join(', ')}.`,
    );
    process.exit(2);
  }
  const setup = await setUp({ need: 'what-can-be' });
  const rows = [];
  for (const name of Object.keys(parts)) {
    if (stopping || (asked.length > 0 && !asked.includes(name))) continue;
    console.log(`\n=== ${name} ===`);
    const startedAt = performance.now();
    const outcome = await parts[name](setup);
    if (outcome.leftOut !== undefined) console.log(`${name} is left out: ${outcome.leftOut}`);
    rows.push({ name, ...outcome, seconds: (performance.now() - startedAt) / 1000 });
  }
  const passed = rows.reduce((sum, row) => sum + row.passed, 0);
  const failed = rows.reduce((sum, row) => sum + row.failed, 0);
  console.log('\n=== summary ===');
  for (const row of rows) {
    const skipped = row.skipped > 0 ? `, ${row.skipped} skipped (their output says why)` : '';
    const said =
      row.leftOut === undefined ? `${row.passed} passed, ${row.failed} failed${skipped}` : `left out: ${row.leftOut}`;
    const done = row.name === 'check' && row.failed === 0 ? 'clean' : said;
    console.log(`${row.name.padEnd(9)} ${`${row.seconds.toFixed(1)} s`.padStart(9)}   ${done}`);
  }
  if (stopping) console.log('stopped before the end');
  console.log(`${passed} passed, ${failed} failed`);
  process.exitCode = failed > 0 || stopping ? 1 : 0;
}

/** The static checks are no tests: they count only when they fail. */
async function runCheck() {
  const { code } = await run([process.execPath, path.join(repo, 'tools/check.mjs')], 5 * minuteMs);
  return { passed: 0, failed: code === 0 ? 0 : 1 };
}

/** @returns {Promise<Outcome>} */
async function runVitest(project, deadlineMs) {
  const report = path.join(droverDir, `test/${project}.json`);
  mkdirSync(path.dirname(report), { recursive: true });
  rmSync(report, { force: true });
  const vitest = path.join(repo, 'node_modules/vitest/vitest.mjs');
  const args = [
    'run',
    '--project',
    project,
    '--passWithNoTests',
    '--reporter=default',
    '--reporter=json',
    `--outputFile.json=${report}`,
  ];
  const { code } = await run([node24, '--disable-warning=ExperimentalWarning', vitest, ...args], deadlineMs);
  let passed = 0;
  let failed = 0;
  let skipped = 0;
  if (existsSync(report)) {
    const result = JSON.parse(readFileSync(report, 'utf8'));
    passed = result.numPassedTests;
    failed = result.numFailedTests;
    skipped = result.numPendingTests;
    // A file that could not even be loaded has no tests to fail.
    failed += result.testResults.filter(
      (file) => file.status === 'failed' && file.assertionResults.length === 0,
    ).length;
  }
  if (code !== 0 && failed === 0) failed = 1;
  return { passed, failed, skipped };
}

/** @returns {Promise<Outcome>} */
async function runScenarios({ host, leftOut }) {
  if (!existsSync(scenarios)) return { passed: 0, failed: 0, leftOut: 'test/lab/run.ts is not in this clone' };
  if (leftOut.length > 0) return { passed: 0, failed: 0, leftOut: leftOut.join('; ') };
  const { code, lastLine } = await run(
    [...host.becomeRoot, node24, '--disable-warning=ExperimentalWarning', scenarios],
    45 * minuteMs,
  );
  const counts = /^(\d+) passed, (\d+) failed$/.exec(lastLine);
  const passed = Number(counts?.[1] ?? 0);
  const failed = Number(counts?.[2] ?? 0);
  return { passed, failed: code !== 0 && failed === 0 ? 1 : counts === null ? 1 : failed };
}

/**
 * Runs one part, its output shown as it comes. After its deadline it gets TERM, and KILL when that does not help.
 * @param {string[]} argv @param {number} deadlineMs @returns {Promise<{ code: number | null, lastLine: string }>}
 */
function run(argv, deadlineMs) {
  return new Promise((resolve) => {
    // Its output is a pipe to us, so it cannot see whether a person is at the other end.
    const colour =
      process.stdout.isTTY && process.env.NO_COLOR === undefined
        ? { FORCE_COLOR: '1' }
        : { NO_COLOR: '1', FORCE_COLOR: undefined };
    const env = { ...process.env, ...colour };
    const child = spawn(argv[0], argv.slice(1), { cwd: repo, env, stdio: ['ignore', 'pipe', 'inherit'] });
    let tail = '';
    let kill;
    child.stdout.on('data', (chunk) => {
      process.stdout.write(chunk);
      tail = (tail + chunk).slice(-4096);
    });
    const timer = setTimeout(() => {
      console.error(`\nnot done after ${deadlineMs / minuteMs} minutes: ended`);
      child.kill('SIGTERM');
      kill = setTimeout(() => child.kill('SIGKILL'), afterTermMs);
    }, deadlineMs);
    const onSignal = (signal) => {
      stopping = true;
      if (signal !== 'SIGINT' || !process.stdin.isTTY) child.kill(signal);
    };
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, onSignal);
    const end = (code) => {
      clearTimeout(timer);
      clearTimeout(kill);
      for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.off(signal, onSignal);
      resolve({ code, lastLine: tail.trimEnd().split('\n').at(-1) ?? '' });
    };
    child.on('error', (error) => {
      console.error(`${argv[0]} could not be started: ${error.message}`);
      end(1);
    });
    child.on('close', end);
  });
}

try {
  await main();
} catch (error) {
  showError(error);
  console.log('0 passed, 1 failed');
  process.exitCode = 1;
}
