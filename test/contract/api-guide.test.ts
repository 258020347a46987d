/** The example of the guide is a program that works: it is run against a real server on simulated hosts. */
import { execFile } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { expect, test } from 'vitest';
import { FakeFleet } from '../../src/control/fake-fleet.ts';
import { createApi } from '../../src/control/server.ts';
import { silentLog } from '../../src/runtime/log.ts';

const repository = join(import.meta.dirname, '..', '..');

test('the example of docs/guide/api.md lists, moves and follows', async () => {
  const guide = readFileSync(join(repository, 'docs', 'guide', 'api.md'), 'utf8');
  const [, program = ''] = /```ts\n([\s\S]*?)```/.exec(guide) ?? [];
  const fleet = await FakeFleet.start(['h1', 'h2']);
  await fleet.run('web1', 'h1');
  const token = 'a-token-for-the-guide';
  const api = createApi({ plane: fleet.plane, token, log: silentLog });
  // In the package, so that it finds `drover/client`, and not below node_modules, where Node reads no TypeScript.
  mkdirSync(join(repository, '.drover'), { recursive: true });
  const directory = mkdtempSync(join(repository, '.drover', 'guide-'));
  try {
    const server = await api.listen({ host: '127.0.0.1', port: 0 });
    const file = join(directory, 'example.ts');
    writeFileSync(file, program);
    const env = { ...process.env, DROVER_SERVER: server, DROVER_TOKEN: token };
    const { stdout } = await promisify(execFile)(process.execPath, ['--disable-warning=ExperimentalWarning', file], {
      env,
    });
    expect(stdout.trimEnd().split('\n')).toEqual([
      'web1 running on h1',
      'web1: h1 -> h2, reserved',
      expect.stringMatching(/^host h1: .*cordoned/),
    ]);
    expect([...fleet.plane.fleet.plain('audit').values()].map(({ did, because }) => [did, because])).toEqual([
      ['migrateVm', 'an example'],
      ['cordonHost', 'an example'],
    ]);
  } finally {
    rmSync(directory, { recursive: true });
    await api.close();
    await fleet.stopServer();
  }
});
