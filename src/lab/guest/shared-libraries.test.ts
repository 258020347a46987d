import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { librariesOf, linkedWith } from './shared-libraries.ts';

const program = await readFile(process.execPath);
let root: string;
beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), 'drover-libraries-'));
});
afterEach(async () => await rm(root, { recursive: true, force: true }));

it('a program says which libraries it needs, and which program loads them', () => {
  const { needs, interpreter } = linkedWith(program);
  expect(needs).toContain('libc.so.6');
  expect(interpreter).toMatch(/^\/lib64\/ld-linux-/);
});

it('what is no such file is refused', () => {
  expect(() => linkedWith(Buffer.from('#!/bin/sh\n'))).toThrow(RangeError);
});

it('all that a program needs is found where packages were unpacked, or the one that is missing is named', async () => {
  const { needs, interpreter } = linkedWith(program);
  await mkdir(join(root, 'usr/lib/x86_64-linux-gnu'), { recursive: true });
  // Libraries that need nothing more stand for the real ones.
  const alone = Buffer.concat([Buffer.from('\u007fELF\u0002\u0001', 'latin1'), Buffer.alloc(58)]);
  const all = [...new Set([...needs, interpreter?.split('/').at(-1) ?? ''])];
  for (const name of all.slice(1)) await writeFile(join(root, 'usr/lib/x86_64-linux-gnu', name), alone);
  await expect(librariesOf(program, root)).rejects.toThrow(`the shared library ${all[0]} is in no folder`);
  await writeFile(join(root, 'usr/lib/x86_64-linux-gnu', all[0] ?? ''), alone);
  expect((await librariesOf(program, root)).map(({ name }) => name)).toEqual(all.toSorted());
});
