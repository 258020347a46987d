import { spawn, type ChildProcess } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { guestsUsing } from './guests-using.ts';

let scratch: string;
let children: ChildProcess[];
beforeEach(() => {
  scratch = mkdtempSync(join(tmpdir(), 'drover-using-'));
  mkdirSync(join(scratch, 'pool'));
  children = [];
});
afterEach(async () => {
  for (const child of children) child.kill('SIGKILL');
  rmSync(scratch, { recursive: true, force: true });
});

/** A process that looks like a guest of `runDir`: these words on its command line, this file open. */
async function guest(runDir: string, words: string[], opens?: string): Promise<ChildProcess> {
  const script =
    "const fs = require('fs'); if (process.env.OPENS) fs.openSync(process.env.OPENS); console.log('up'); setInterval(() => {}, 1e6);";
  const child = spawn(process.execPath, ['-e', script, '--', `unix:${runDir}/vm_1.1/qmp.sock`, ...words], {
    env: { ...process.env, OPENS: opens ?? '' },
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  children.push(child);
  await new Promise((resolve) => child.stdout?.once('data', resolve));
  return child;
}

const ended = (child: ChildProcess) =>
  new Promise<string | null>((resolve) => child.once('exit', (_, signal) => resolve(signal)));

test('guests of the run directory that use the pool are found by their command line or open files; they are killed, others not', async () => {
  const [runDir, pool] = [join(scratch, 'run'), join(scratch, 'pool')];
  writeFileSync(join(pool, 'hot-plugged'), '');
  const byWords = await guest(runDir, [`driver=raw,filename=${pool}//disk`]);
  const byFile = await guest(runDir, [], join(pool, 'hot-plugged'));
  const elsewhere = await guest(runDir, [`filename=${pool}-2/disk`]);
  const ofAnother = await guest(join(scratch, 'other'), [`filename=${pool}/disk`]);
  const guests = guestsUsing(runDir, () => [`${pool}/`]);
  expect(guests.usingPool().toSorted()).toEqual([byWords, byFile].map(({ pid }) => `vm_1.1 (pid ${pid})`).toSorted());
  const ends = Promise.all([ended(byWords), ended(byFile)]);
  guests.kill();
  expect(await ends).toEqual(['SIGKILL', 'SIGKILL']);
  expect(guests.usingPool()).toEqual([]);
  expect([elsewhere.exitCode, elsewhere.signalCode, ofAnother.signalCode]).toEqual([null, null, null]);
});
