/** Maintenance: a host is emptied, the server dies meanwhile, its VMs come back; and a roll over two hosts. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { apiOf, directoriesOf } from '../../../src/lab/state.ts';
import type { DrainView } from '../../../src/wire/drains.ts';
import type { Scenario, TestGuest, TestLab } from '../harness.ts';

const repository = join(import.meta.dirname, '..', '..', '..');
const kinds = ['heavy', 'idle', 'writer'] as const;

const drainOf = (lab: TestLab, host: string): Promise<DrainView> => lab.client.getHostDrain({ params: { host } });

async function inState(lab: TestLab, host: string, state: DrainView['state']): Promise<DrainView> {
  let view: DrainView | undefined;
  await lab.until(
    `the drain of ${host} is ${state}`,
    async () => {
      view = await drainOf(lab, host).catch(() => view); // the server may be away for a moment
      assert.equal(view?.blocked ?? null, null, view?.says);
      return view?.state === state;
    },
    120_000,
  );
  assert(view);
  return view;
}

async function allOn(lab: TestLab, host: string): Promise<TestGuest[]> {
  const guests: TestGuest[] = [];
  for (const kind of kinds) guests.push(await lab.guest(kind, host));
  return guests;
}

/** @returns its exit code, and what it wrote */
function drover(lab: TestLab, args: readonly string[]): Promise<{ code: number | null; text: string }> {
  const child = spawn(join(repository, 'bin', 'drover'), args, {
    env: {
      ...process.env,
      DROVER_SERVER: apiOf(lab.lab.state),
      DROVER_TOKEN_FILE: directoriesOf(lab.lab.state.name).token,
    },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let text = '';
  child.stdout.on('data', (chunk: Buffer) => (text += chunk.toString()));
  child.stderr.on('data', (chunk: Buffer) => (text += chunk.toString()));
  return new Promise((resolve, reject) => {
    child.once('error', reject);
    child.once('close', (code) => resolve({ code, text }));
  });
}

export const scenarios: readonly Scenario[] = [
  {
    name: 'drain: three guests leave a host, one of them busy, while the server is killed; undrain brings them back',
    async run(lab) {
      const host = lab.hosts[0] ?? '';
      const guests = await allOn(lab, host);
      const before = await Promise.all(guests.map(({ guest }) => guest.status()));
      try {
        const begun = await lab.client.drainHost({ params: { host }, body: { because: 'a scenario' } });
        assert.equal(begun.estimate.moves, kinds.length);
        await lab.until('a move has begun', async () =>
          (await drainOf(lab, host)).vms.some(({ state }) => state === 'moving'),
        );
        await lab.disturb({ kind: 'kill-server', afterwards: 'restart' });
        const drained = await inState(lab, host, 'drained');
        assert.deepEqual([drained.done, drained.remaining], [kinds.length, 0]);
        assert.deepEqual((await lab.client.getHost({ params: { host } })).vms, []);
        process.stdout.write(
          `        estimated ${begun.estimate.ms} ms, took ${drained.tookMs} ms, the server was away in it\n`,
        );
        for (const [n, test] of guests.entries()) await lab.unharmed(test, before[n]!);
        await lab.programsRun();
        const again = await Promise.all(guests.map(({ guest }) => guest.status()));
        await lab.client.undrainHost({ params: { host }, body: {} });
        const back = await inState(lab, host, 'undrained');
        assert.equal(back.vms.filter(({ state }) => state === 'back').length, kinds.length, back.says);
        for (const [n, test] of guests.entries()) {
          assert.equal((await lab.vm(test.vm.id)).host, host);
          await lab.unharmed(test, again[n]!);
        }
      } finally {
        await lab.client.uncordonHost({ params: { host } });
      }
      await lab.clean();
    },
  },
  {
    name: 'drain: a roll over two hosts runs a command on each while it is empty, and its guest is back afterwards',
    async run(lab) {
      const [first = '', second = ''] = lab.hosts;
      const test = await lab.guest('idle', first);
      const before = await test.guest.status();
      const scratch = mkdtempSync(join(tmpdir(), 'drover-roll-'));
      try {
        const ran = join(scratch, 'ran');
        const command = `echo "$DROVER_HOST {host} $DROVER_ROLL_STEP/$DROVER_ROLL_STEPS" >> ${ran}`;
        const hosts = `${first},${second}`;
        const { code, text } = await drover(lab, [
          'fleet',
          'roll',
          '--hosts',
          hosts,
          '--command',
          command,
          '--settle',
          '1s',
        ]);
        assert.equal(code, 0, text);
        assert.equal(readFileSync(ran, 'utf8'), `${first} ${first} 1/2\n${second} ${second} 2/2\n`);
        assert.equal((await lab.vm(test.vm.id)).host, first);
        await lab.unharmed(test, before);
        const stopped = await drover(lab, ['fleet', 'roll', '--hosts', hosts, '--command', 'exit 7', '--settle', '1s']);
        assert.equal(stopped.code, 1, stopped.text);
        assert.match(stopped.text, new RegExp(`stopped at ${first}; none is done; not begun: ${second}`));
        const undrained = await drover(lab, ['host', 'undrain', first]);
        assert.equal(undrained.code, 0, undrained.text);
        assert.equal((await lab.vm(test.vm.id)).host, first);
      } finally {
        rmSync(scratch, { recursive: true, force: true });
        for (const host of [first, second]) await lab.client.uncordonHost({ params: { host } });
      }
      await lab.clean();
    },
  },
];
