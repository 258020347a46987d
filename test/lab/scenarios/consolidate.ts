/**
 * Fewer hosts on real guests: `drover consolidate` empties a host and switches it off through its BMC; a burst of load wakes it, and
 * VMs move there. h2 is cordoned all the while, so that it is h3 that is given up and needed again.
 */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { run } from '../../../src/lab/exec.ts';
import { apiOf, directoriesOf, repository } from '../../../src/lab/state.ts';
import type { Scenario, TestGuest, TestLab } from '../harness.ts';

const [home, closed, spare] = ['h1', 'h2', 'h3'] as const;
const params = { host: spare } as const;
const guests = 4;
/** Keeps a CPU busy and little memory dirty. */
const load = { pagesPerSecond: 200_000, setMiB: 4 };
const calm = { ...load, pagesPerSecond: 1 };
/** Of what the burst is seen to take, on a machine with however much to do: too little for four guests, enough for two. */
const limitOfBurst = 0.6;
/** Of less the limit would be smaller than the smallest. */
const leastCores = 0.2;
const burst = { unevenForMs: 2_000, dwellMs: 0 } as const;
const usual = { mode: 'off', goal: 'balance', cpuLimit: 0.8, unevenForMs: 180_000, dwellMs: 1_800_000 } as const;

/** As a person would: by the command line. @returns what it printed */
function drover(lab: TestLab, ...words: string[]): Promise<string> {
  const { token } = directoriesOf(lab.lab.state.name);
  const where = ['--server', apiOf(lab.lab.state), '--token-file', token];
  return run(join(repository, 'bin', 'drover'), [...where, ...words], { deadlineMs: 90_000 });
}

const indented = (text: string): string => `${text.trimEnd().replaceAll(/^/gm, '       ')}\n`;

async function onHost(lab: TestLab, host: string): Promise<string[]> {
  return (await lab.client.listVms({ query: { host } })).map(({ name }) => name);
}

async function emptied(lab: TestLab, host: string, to: string): Promise<void> {
  for (const vm of await lab.client.listVms({ query: { host } })) {
    if (vm.state === 'running') await lab.ended(await lab.migrate(vm, to, 'hybrid'));
  }
}

function create(lab: TestLab, n: number, host: string): Promise<TestGuest> {
  return lab.create({ name: `calm-${n}`, memoryMiB: 192, fillMiB: 16, load: calm, host });
}

async function switchedOff(lab: TestLab, all: readonly TestGuest[]): Promise<void> {
  const before = await Promise.all(all.map(({ guest }) => guest.status()));
  await lab.until('the load to be known', async () => (await lab.client.getBalance()).cannotBegin === null, 60_000);
  let dry = '';
  const calmEnough = async (): Promise<boolean> => {
    dry = await drover(lab, 'consolidate', '--dry-run');
    return /h3 is sent to sleep then/.test(dry);
  };
  // A machine with much to do boots guests for long, and that counts as load for a while.
  await lab.until('h3 to be done without', calmEnough, 150_000).finally(() => process.stdout.write(indented(dry)));
  assert.match(dry, /Empties h3, so that it can sleep: saves about \d+ W/);
  assert.deepEqual(await onHost(lab, spare), ['calm-4'], 'a dry run has moved something');

  const done = await drover(lab, 'consolidate', '--yes');
  assert.match(done, /is done: all its steps are done; empty: h3/);
  assert.equal((await lab.client.getHostSleep({ params })).state, 'asleep');
  assert.equal((await lab.client.getHostPower({ params })).state, 'off');
  assert.deepEqual(await onHost(lab, spare), []);
  await Promise.all(all.map((test, at) => lab.unharmed(test, before[at]!)));
}

/** Makes the guests busy. @returns what that takes of their host, when it is seen to rise no more */
async function seenOf(lab: TestLab, all: readonly TestGuest[]): Promise<{ used: number; all: number }> {
  const look = async () => (await lab.client.getBalance()).hosts.find(({ name }) => name === home);
  let before = (await look())?.cpuCores ?? 0;
  for (const { guest } of all) await guest.setLoad(load);
  let beforeAt = performance.now();
  let now = await look();
  const isSteady = async (): Promise<boolean> => {
    now = await look();
    if (performance.now() - beforeAt < 4_000) return false;
    const used = now?.cpuCores ?? 0;
    const steady = used > leastCores && used < before * 1.1;
    [before, beforeAt] = [used, performance.now()];
    return steady;
  };
  await lab.until('the burst to be seen', isSteady, 90_000);
  assert.ok(now);
  return { used: now.cpuCores, all: now.cpus };
}

async function wokenByLoad(lab: TestLab, all: readonly TestGuest[]): Promise<void> {
  const before = await Promise.all(all.map(({ guest }) => guest.status()));
  const cores = await seenOf(lab, all);
  const cpuLimit = Math.round((limitOfBurst * cores.used * 1000) / cores.all) / 1000;
  await lab.client.setBalance({ body: { ...burst, cpuLimit, goal: 'consolidate', mode: 'automatic' } });
  await lab.until(
    `${spare} to be woken and to have got a guest`,
    async () => (await onHost(lab, spare)).length > 0,
    75_000,
  );
  const plans = (await lab.client.listPlans()).filter(({ origin }) => origin === 'loop');
  await lab.client.setBalance({ body: { mode: 'off' } });
  for (const { guest } of all) await guest.setLoad(calm);
  const woke = plans.find(({ power }) => power.some(({ host, to }) => host === spare && to === 'wake'));
  assert.ok(woke, 'no plan has woken it');
  process.stdout.write(indented(`${woke.because}; ${woke.power.map(({ reason }) => reason).join('; ')}`));
  const reasons = plans.flatMap(({ moves }) => moves.filter(({ to }) => to === spare).map(({ reason }) => reason));
  assert.ok(reasons.length > 0 && reasons.every((reason) => reason.startsWith('Relieves h1')), reasons.join());
  await lab.until('its moves to be over', async () => {
    const open = (await lab.client.listPlans()).flatMap(({ moves }) => moves.filter(({ state }) => state === 'moving'));
    return open.length === 0;
  });
  await Promise.all(all.map((test, at) => lab.unharmed(test, before[at]!)));
}

export const scenarios: readonly Scenario[] = [
  {
    name: 'consolidate: a host is emptied and switched off by its BMC, and woken by a burst of load, which moves there',
    limitMs: 420_000,
    async run(lab) {
      const { client } = lab;
      await emptied(lab, spare, home);
      await emptied(lab, closed, home);
      const all: TestGuest[] = [];
      try {
        await client.cordonHost({ params: { host: closed } });
        await drover(lab, 'host', 'sleep-way', spare, 'off');
        const [, ...early] = await Promise.all([
          drover(lab, 'host', 'drill', spare, '--wait'),
          ...Array.from({ length: guests - 1 }, (_, i) => create(lab, i + 1, home)),
        ]);
        all.push(...early, await create(lab, guests, spare));
        await switchedOff(lab, all);
        await wokenByLoad(lab, all);
      } finally {
        await client.setBalance({ body: usual });
        await client.wakeHost({ params, body: {} });
        await lab.until(`${spare} to report`, async () => (await client.getHostSleep({ params })).state === 'awake');
        await client.setHostSleep({ params, body: { way: null } });
        await client.uncordonHost({ params: { host: closed } });
        for (const { vm } of all) await lab.remove(vm);
      }
      await lab.clean();
    },
  },
];
