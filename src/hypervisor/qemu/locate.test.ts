import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';

import { afterEach, beforeEach, expect, test } from 'vitest';

import { detectAccel, locateQemu } from './locate.ts';

let root: string;
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'drover-locate-'));
});
afterEach(() => rmSync(root, { recursive: true }));

function program(path: string, script: string): string {
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, `#!/bin/sh\n${script}\n`);
  chmodSync(path, 0o755);
  return path;
}

function fakeQemu(directory: string, version = '10.0.2'): string {
  program(join(directory, 'qemu-img'), 'exit 0');
  return program(join(directory, 'qemu-system-x86_64'), `echo "QEMU emulator version ${version} (Debian)"`);
}

const path = process.env['PATH'];

test('a private copy brings its firmware, modules and libraries along', async () => {
  const usr = join(root, '.drover/qemu/usr');
  const binary = fakeQemu(join(usr, 'bin'));
  const triple = process.arch === 'arm64' ? 'aarch64-linux-gnu' : 'x86_64-linux-gnu';
  for (const name of ['share/qemu', 'share/seabios', `lib/${triple}/qemu`])
    mkdirSync(join(usr, name), { recursive: true });
  writeFileSync(join(usr, 'lib', triple, 'libfdt.so.1'), '');

  expect(await locateQemu({ env: { PATH: path }, repoRoot: root })).toEqual({
    ok: true,
    binary,
    imgBinary: join(usr, 'bin/qemu-img'),
    version: { major: 10, minor: 0, micro: 2 },
    libArgs: ['-L', join(usr, 'share/qemu'), '-L', join(usr, 'share/seabios')],
    env: { QEMU_MODULE_DIR: join(usr, 'lib', triple, 'qemu'), LD_LIBRARY_PATH: join(usr, 'lib', triple) },
    foundBy: 'private',
  });
});

test('the directory asked for goes before DROVER_QEMU, that before the private copy, that before PATH', async () => {
  fakeQemu(join(root, 'asked/bin'), '9.0.1');
  fakeQemu(join(root, 'environment'), '9.0.2');
  fakeQemu(join(root, 'repo/.drover/qemu/usr/bin'), '9.0.3');
  fakeQemu(join(root, 'path'), '9.0.4');
  const all = {
    qemuDir: join(root, 'asked'),
    env: { DROVER_QEMU: join(root, 'environment/qemu-system-x86_64'), PATH: `${join(root, 'path')}:${path}` },
    repoRoot: join(root, 'repo'),
  };
  const env = { PATH: all.env.PATH };
  expect(await locateQemu(all)).toMatchObject({ foundBy: 'directory', version: { micro: 1 } });
  expect(await locateQemu({ env: all.env, repoRoot: all.repoRoot })).toMatchObject({
    foundBy: 'DROVER_QEMU',
    version: { micro: 2 },
  });
  expect(await locateQemu({ env, repoRoot: all.repoRoot })).toMatchObject({
    foundBy: 'private',
    version: { micro: 3 },
  });
  expect(await locateQemu({ env })).toMatchObject({ foundBy: 'PATH', version: { micro: 4 } });
});

test('a directory asked for that holds no QEMU is refused, though another place has one', async () => {
  fakeQemu(join(root, 'path'));
  const found = await locateQemu({ qemuDir: join(root, 'nothing'), env: { PATH: join(root, 'path') } });
  expect(found).toMatchObject({
    ok: false,
    code: 'qemu-missing',
    reason: expect.stringContaining(join(root, 'nothing')),
  });
});

test('a QEMU that does not run is named broken, with what it said, instead of taking the next', async () => {
  const usr = join(root, '.drover/qemu/usr/bin');
  program(join(usr, 'qemu-system-x86_64'), 'echo "libfdt.so.1: cannot open shared object file" >&2; exit 127');
  fakeQemu(join(root, 'path'));
  const found = await locateQemu({ env: { PATH: `${join(root, 'path')}:${path}` }, repoRoot: root });
  expect(found).toMatchObject({ ok: false, code: 'qemu-broken', reason: expect.stringContaining('libfdt.so.1') });
});

test('no QEMU anywhere says where it looked and what to do', async () => {
  expect(await locateQemu({ env: { PATH: root }, repoRoot: root })).toMatchObject({
    ok: false,
    code: 'qemu-missing',
    hint: expect.stringContaining('npm start'),
  });
});

function machine(flags: string, kvm: boolean): { cpuinfoPath: string; kvmPath: string } {
  const cpuinfoPath = join(root, 'cpuinfo');
  writeFileSync(cpuinfoPath, `processor\t: 0\nflags\t\t: fpu ${flags} sse2\nbugs\t\t:\n`);
  const kvmPath = join(root, 'kvm');
  if (kvm) writeFileSync(kvmPath, '');
  return { cpuinfoPath, kvmPath };
}

test('KVM is used with vmx or svm and a /dev/kvm that opens', () => {
  expect(detectAccel(machine('vmx', true)).accel).toBe('kvm');
  expect(detectAccel(machine('svm', true)).accel).toBe('kvm');
});

test('a /dev/kvm without virtualization in the CPU is not believed', () => {
  expect(detectAccel(machine('vmxish', true))).toEqual({
    accel: 'tcg',
    reason: 'the CPU shows no virtualization (vmx or svm)',
  });
});

test('a CPU that could, without /dev/kvm, falls back to TCG and says why', () => {
  expect(detectAccel(machine('vmx', false))).toEqual({
    accel: 'tcg',
    reason: `${join(root, 'kvm')} does not open (ENOENT)`,
  });
});

test('what the user asks for is taken, with a warning where it will not work', () => {
  expect(detectAccel({ override: 'tcg', ...machine('vmx', true) })).toEqual({ accel: 'tcg', reason: 'asked for' });
  expect(detectAccel({ override: 'kvm', ...machine('sse', true) })).toMatchObject({
    accel: 'kvm',
    reason: expect.stringContaining('will hardly work'),
  });
});
