/**
 * The distributor on real guests: one host carries all the busy ones, `drover balance` spreads them live, and then there is
 * nothing left to do. With DROVER_TEST_LONG=1 also automatic mode, left alone for ten minutes on steady load.
 */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { promisify } from 'node:util';
import type { Scenario, TestGuest, TestLab } from '../harness.ts';
import { apiOf, directoriesOf } from '../../../src/lab/state.ts';

const crowded = 'h1';
const guests = 3;
/** Keeps a CPU busy and little memory dirty. */
const load = { pagesPerSecond: 200_000, setMiB: 4 };
const steadyMs = 600_000;

const execute = promisify(execFile);
const drover = join(import.meta.dirname, '..', '..', '..', 'bin', 'drover');

/** As a person would ask, with patience for a busy machine. @returns what it said, on both ways */
async function cli(lab: TestLab, ...words: string[]): Promise<string> {
  const { state } = lab.lab;
  const where = ['--server', apiOf(state), '--token-file', directoriesOf(state.name).token];
  const { stdout, stderr } = await execute(drover, [...words, ...where], { signal: lab.signal, timeout: 90_000 });
  return `${stderr}${stdout}`.trimEnd();
}

async function crowd(lab: TestLab): Promise<TestGuest[]> {
  const made: TestGuest[] = [];
  for (let n = 1; n <= guests; n++) {
    made.push(await lab.create({ name: `busy-${n}`, memoryMiB: 256, fillMiB: 16, load, host: crowded }));
  }
  return made;
}

/** Until the load of these guests has been seen for long enough to decide by it. */
async function seen(lab: TestLab, vms = guests): Promise<void> {
  await lab.until(
    'the load to be known',
    async () => {
      const { cannotBegin, hosts } = await lab.client.getBalance();
      const there = hosts.find(({ name }) => name === crowded);
      return cannotBegin === null && (there?.vms ?? 0) >= vms && (there?.cpuCores ?? 0) > 0.05;
    },
    60_000,
  );
}

async function show(lab: TestLab, when: string): Promise<void> {
  const { hosts } = await lab.client.getBalance();
  const words = hosts.map(
    ({ name, vms, cpuCores, cpus }) => `${name} ${vms} VMs, ${cpuCores.toFixed(2)} of ${cpus} cores`,
  );
  process.stdout.write(`       ${when}: ${words.join('; ')}\n`);
}

async function spread(lab: TestLab, crowdOf: readonly TestGuest[]): Promise<void> {
  const before = await Promise.all(crowdOf.map(({ guest }) => guest.status()));
  await seen(lab);
  await show(lab, 'before');
  const dry = await lab.client.makePlan({ body: { dryRun: true } });
  assert.ok(dry.id === null && dry.moves.length > 0, 'a dry run sees nothing to do, or is kept');
  const there = (await lab.client.getBalance()).hosts.find(({ name }) => name === crowded)?.vms ?? 0;
  assert.ok(there >= guests, 'a dry run has moved something');
  process.stdout.write(`${(await cli(lab, 'balance', '--yes')).replaceAll(/^/gm, '       ')}\n`);
  await show(lab, 'after');
  const now = await Promise.all(crowdOf.map(({ vm }) => lab.vm(vm.id)));
  assert.ok(new Set(now.map(({ host }) => host)).size >= 2, 'all of them are still on one host');
  for (const [at, test] of crowdOf.entries()) await lab.unharmed(test, before[at]!);
  await seen(lab, 1);
  assert.match(await cli(lab, 'balance', '--dry-run'), /Nothing is to be moved/);
  const moved = new Set(crowdOf.map(({ vm }) => vm.name));
  const reasons = (await lab.client.listDecisions()).filter(({ vm }) => moved.has(vm)).map(({ reason }) => reason);
  assert.ok(reasons.length > 0 && reasons.every((reason) => reason.startsWith('Evens out')), reasons.join('\n'));
}

async function withCrowd(lab: TestLab, act: (crowdOf: readonly TestGuest[]) => Promise<void>): Promise<void> {
  const crowdOf = await crowd(lab);
  try {
    await act(crowdOf);
  } finally {
    await lab.client.setBalance({ body: { mode: 'off' } });
    for (const { vm } of crowdOf) await lab.remove(vm);
  }
  await lab.clean();
}

const short: Scenario = {
  name: 'balance: a host loaded by busy guests is spread live by `drover balance`, and a second one proposes nothing',
  run: (lab) => withCrowd(lab, (crowdOf) => spread(lab, crowdOf)),
};

const long: Scenario = {
  name: 'balance: automatic mode left alone for ten minutes on steady load makes no further move',
  limitMs: steadyMs + 300_000,
  run: (lab) =>
    withCrowd(lab, async (crowdOf) => {
      // Guests on a machine that others use get little of it: the narrowest band sees that all the same.
      await lab.client.setBalance({ body: { mode: 'automatic', level: 5, unevenForMs: 20_000, dwellMs: 60_000 } });
      await seen(lab);
      await lab.until(
        'the first plan to be done',
        async () => (await lab.client.listPlans()).some(({ origin, state }) => origin === 'loop' && state === 'done'),
        180_000,
      );
      await show(lab, 'after the first plan');
      const made = (await lab.client.listDecisions()).length;
      const deadline = performance.now() + steadyMs;
      await lab.until('ten minutes', async () => performance.now() > deadline, steadyMs + 60_000);
      await show(lab, 'ten minutes later');
      assert.equal((await lab.client.listDecisions()).length, made, 'it moved again under steady load');
      for (const { vm } of crowdOf) assert.equal((await lab.vm(vm.id)).state, 'running');
    }),
};

export const scenarios: readonly Scenario[] = process.env['DROVER_TEST_LONG'] === '1' ? [short, long] : [short];
