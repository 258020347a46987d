import { spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import type { VmId } from '../../model/ids.ts';
import { filesOf, findRunning, isAlive, killProcess, questionKey, sweep, waitGone } from './process.ts';

let runDir: string;
let children: ChildProcess[];
beforeEach(() => {
  runDir = mkdtempSync(join(tmpdir(), 'drover-run-'));
  children = [];
});
afterEach(() => {
  for (const child of children) child.kill('SIGKILL');
  rmSync(runDir, { recursive: true });
});

/** A process that looks like a guest's QEMU to whoever reads its command line. */
async function pretend(directory: string): Promise<ChildProcess> {
  mkdirSync(join(runDir, directory));
  const argv = ['-e', 'console.log("up"); setInterval(() => {}, 1000)', 'guest=web1', 'size=96M', 'tap,ifname=dvt1,x'];
  const child = spawn(process.execPath, [...argv, `unix:${runDir}/${directory}/qmp.sock,server=on`]);
  children.push(child);
  await once(child.stdout ?? child, 'data');
  return child;
}

test('a guest that runs is found by its process, its file whole, cut short or absent', async () => {
  const child = await pretend('vm_a.3');
  for (const text of [undefined, '{"key":{"v']) {
    if (text !== undefined) writeFileSync(join(runDir, 'vm_a.3', 'guest.json'), text);
    const [found] = findRunning(runDir);
    expect(found).toMatchObject({ pid: child.pid, key: { vm: 'vm_a', generation: 3 }, name: 'web1', taps: ['dvt1'] });
    expect(found?.running.spec.memoryMiB).toBe(96);
  }
});

test('directories are swept only when no process belongs to them', async () => {
  await pretend('vm_a.3');
  mkdirSync(join(runDir, 'vm_b.1'));
  sweep(runDir, findRunning(runDir));
  expect(existsSync(join(runDir, 'vm_a.3'))).toBe(true);
  expect(existsSync(join(runDir, 'vm_b.1'))).toBe(false);
});

test('a QEMU that was only asked for its machines is no guest: it is ended', async () => {
  const child = await pretend(`${questionKey.vm}.${questionKey.generation}`);
  const exit = once(child, 'exit');
  expect(findRunning(runDir)).toEqual([]);
  expect((await exit)[1]).toBe('SIGKILL');
});

test('a process is killed only while it is the one that was meant', async () => {
  const child = await pretend('vm_a.1');
  const pid = child.pid ?? 0;
  const [found] = findRunning(runDir);
  killProcess(pid, '1'); // another one, started at another time, had this pid
  expect(isAlive(pid)).toBe(true);
  killProcess(pid, found?.startTicks ?? '');
  await waitGone(pid, found?.startTicks ?? '');
  expect(isAlive(pid)).toBe(false);
});

test('two generations of one VM have nothing in common but the log directory', () => {
  const one = filesOf(runDir, '/log', { vm: 'vm_a' as VmId, generation: 1 });
  const two = filesOf(runDir, '/log', { vm: 'vm_a' as VmId, generation: 2 });
  for (const name of ['dir', 'qmp', 'rescue', 'console', 'json', 'log'] as const) expect(one[name]).not.toBe(two[name]);
});

test('a process that cannot be looked at, for want of descriptors, is not taken for gone', async () => {
  await pretend('vm_a.3');
  const script = `
    import { openSync } from 'node:fs';
    const processes = await import(${JSON.stringify(join(import.meta.dirname, 'process.ts'))});
    const startTicks = processes.startTicksOf(process.ppid);
    try { for (;;) openSync('/dev/null'); } catch {}
    if (!processes.isAlive(process.ppid, startTicks)) process.exit(1);
    let found;
    try { found = processes.findRunning(${JSON.stringify(runDir)}) } catch {}
    if (found?.length === 0) process.exit(2);`;
  const limited = ['-c', 'ulimit -n 60; exec "$0" "$@"', process.execPath, '--input-type=module', '-e'];
  expect(spawnSync('bash', [...limited, script], { encoding: 'utf8' })).toMatchObject({ status: 0 });
});
