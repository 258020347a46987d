import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createServer } from 'node:net';
import { execFileSync } from 'node:child_process';
import { expect, test } from 'vitest';
import { holdAlone } from './alone.ts';

test('a second agent on one state directory is refused; one that was killed leaves nothing in the way', async () => {
  const dir = mkdtempSync(join(tmpdir(), 'drover-alone-'));
  const path = join(dir, 'a.sock');
  const first = await holdAlone(path, '/state');
  await expect(holdAlone(path, '/state')).rejects.toThrow('Another agent already uses /state.');
  await new Promise((resolve) => first.close(resolve));
  // Killed while it held the socket: the file stays, nobody listens.
  const holder = `require('net').createServer().listen(process.argv[1], () => process.kill(process.pid, 'SIGKILL'))`;
  expect(() => execFileSync(process.execPath, ['-e', holder, path], { stdio: 'ignore' })).toThrow();
  await expect(new Promise((_, reject) => createServer().once('error', reject).listen(path))).rejects.toThrow(
    'EADDRINUSE',
  );
  const next = await holdAlone(path, '/state');
  await new Promise((resolve) => next.close(resolve));
  rmSync(dir, { recursive: true });
});
