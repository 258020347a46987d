/**
 * Hosts that go for good, and networks that only make it look so: what is lost runs again elsewhere, once and on its own disk;
 * what still runs is left alone.
 */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { switchPower } from '../../../src/lab/break.ts';
import { down, leftovers } from '../../../src/lab/down.ts';
import { guestProcesses, vmState } from '../../../src/lab/guests.ts';
import { answersAgain, loseHost, neverTwice, proveRestart, type Outage } from '../../../src/lab/outage.ts';
import { bmcOf } from '../../../src/lab/power.ts';
import { endAll, processId } from '../../../src/lab/processes.ts';
import { addressesOf, directoriesOf } from '../../../src/lab/state.ts';
import { askSupervisor, logOf } from '../../../src/lab/supervise.ts';
import { up } from '../../../src/lab/up.ts';
import { TestLab, type Scenario, type TestGuest } from '../harness.ts';

/** The agent gives the server up after 4 s of nothing, dials it again, then asks its peers. */
const backThroughPeerMs = 10_000;
const controlDownMs = 20_000;
const twoHosts = 'test-two';
/** Longer than a lease lasts. `DROVER_TEST_AWAY_S=120` for longer. */
const serverAwayMs = 1000 * Number(process.env.DROVER_TEST_AWAY_S ?? 30);

const small = { memoryMiB: 128, fillMiB: 8, diskWritesPerSecond: 10 } as const;
/** From power-off to the order to start, by docs/guide/recovery.md; for machines that do other things as well. */
const placedWithinMs = { reachable: 10_000, dead: 25_000 } as const;

const powerCuts = (['reachable', 'dead'] as const).map((bmc): Scenario => ({
  name:
    bmc === 'reachable'
      ? 'outage: a host loses its power; its BMC reads off, and its guests run elsewhere'
      : 'outage: a host loses its power and its BMC too; its lease is taken, and its guests run elsewhere',
  async run(lab) {
    const [host] = lab.hosts;
    assert(host !== undefined);
    await withGuests(lab, host, 2, async (guests) => {
      const ids = guests.map(({ vm }) => vm.id);
      // Not the first by name, too.
      await lab.client.updateVm({ params: { vm: ids[1] ?? '' }, body: { priority: 900 } });
      const lost = await neverTwice(lab.lab, ids, () => loseHost(lab.lab, { host, bmc }, guests, lab.signal));
      assert.equal(lost.recovery.proof, bmc === 'reachable' ? 'power-off' : 'lease-taken');
      told(lost);
      const [low, high] = lost.vms;
      assert(low && high && high.placeMs <= low.placeMs, 'the more important one comes first');
      for (const { vm, target, detectMs, fenceMs, placeMs, proof } of lost.vms) {
        assert(proof.ok, `${vm}: ${proof.says}`);
        assert.notEqual(target, host);
        const tookMs = detectMs + fenceMs + placeMs;
        assert(tookMs < placedWithinMs[bmc], `${vm} was placed ${tookMs} ms after the power went`);
      }
    });
  },
}));

function told({ recovery, vms }: Outage): void {
  for (const { vm, detectMs, fenceMs, placeMs, bootMs, totalMs } of vms) {
    const steps = `detect ${detectMs}, fence ${fenceMs}, place ${placeMs}, boot ${bootMs}, total ${totalMs} ms`;
    process.stdout.write(`       ${vm} after ${recovery.proof}: ${steps}\n`);
  }
}

/** Cuts a path of the first host for a while: it must be seen to report again, and nothing may have happened to anybody. */
function cutAndStill(
  name: string,
  cut: (lab: TestLab, host: string) => Promise<void>,
  through: 'peer' | 'straight',
): Scenario {
  return {
    name,
    async run(lab) {
      const [host] = lab.hosts;
      assert(host !== undefined);
      await withGuests(lab, host, 1, async (guests) => {
        await nothingHappens(lab, guests, async () => {
          const params = { host };
          // One that has just started may have asked a peer, and goes on with that for a while.
          await lab.until(`${host} to be connected by itself`, async () => isConnectedByItself(lab, host), 60_000);
          const before = handedOn(lab);
          await cut(lab, host);
          const cutAt = performance.now();
          if (through === 'straight') return stays(lab, host, 10_000);
          // It may be silent for so short a time that nobody sees it: what its peers say is there to stay.
          await lab.until('a peer to hand on', async () => handedOn(lab) > before, 15_000);
          const up = async () => (await lab.client.getHost({ params })).state === 'up';
          await lab.until(`${host} to report through a peer`, up, 15_000);
          const tookMs = performance.now() - cutAt;
          process.stdout.write(`       reports through a peer ${Math.round(tookMs)} ms after the cut\n`);
          assert(tookMs < backThroughPeerMs, `it reported again only after ${Math.round(tookMs)} ms`);
          await stays(lab, host, 8_000);
        });
      });
    },
  };
}

/** Its newest connection comes from its own address, by the log of the server. */
function isConnectedByItself({ lab: { state } }: TestLab, host: string): boolean {
  const said = readFileSync(logOf(directoriesOf(state.name).logs, 'server'), 'utf8').split('\n');
  const last = said.findLast((line) => line.includes('an agent is connected') && line.includes(`"host":"${host}"`));
  return last?.includes(`"remote":"${addressesOf(state.octet).control(host)}:`) ?? false;
}

/** How often agents have opened a way to the server for a peer. */
function handedOn({ lab, hosts }: TestLab): number {
  const { logs } = directoriesOf(lab.state.name);
  const said = hosts.map((host) => readFileSync(logOf(logs, host), 'utf8'));
  return said.join('').split('handing on to the server for a peer').length - 1;
}

/** Reports, all the time. */
async function stays(lab: TestLab, host: string, forMs: number): Promise<void> {
  const until = performance.now() + forMs;
  await lab.until(`${forMs} ms to pass`, async () => {
    const { state } = await lab.client.getHost({ params: { host } });
    assert.equal(state, 'up', `${host} fell silent`);
    return performance.now() > until;
  });
}

/** While `fn` runs and the lab is mended, no guest stops or is started, and no host is fenced. */
async function nothingHappens<T>(lab: TestLab, guests: readonly TestGuest[], fn: () => Promise<T>): Promise<T> {
  const before = await Promise.all(guests.map(({ guest }) => guest.status()));
  const lost = (await lab.client.listRecoveries()).length;
  const ids = guests.map(({ vm }) => vm.id);
  const result = await neverTwice(lab.lab, ids, async () => {
    const done = await fn();
    await lab.mend();
    return done;
  });
  assert.equal((await lab.client.listRecoveries()).length, lost, 'a host was fenced');
  for (const [n, test] of guests.entries()) {
    const was = before[n];
    assert(was !== undefined);
    await lab.unharmed(test, was);
    assert.equal((await lab.vm(test.vm.id)).generation, test.vm.generation);
  }
  return result;
}

/** A lab of two hosts, which is gone afterwards. */
async function withTwoHosts(signal: AbortSignal, fn: (lab: TestLab) => Promise<void>): Promise<void> {
  await down(twoHosts, () => {});
  try {
    await fn(new TestLab(await up({ name: twoHosts, hosts: 2, say: () => {}, signal }), signal));
  } finally {
    await down(twoHosts, () => {});
  }
  assert.deepEqual(await leftovers(twoHosts), []);
}

/** Guests of its own on `host`. Afterwards every host is on, takes VMs, and nothing speaks against the fleet. */
async function withGuests(
  lab: TestLab,
  host: string,
  count: number,
  fn: (guests: readonly TestGuest[]) => Promise<void>,
): Promise<void> {
  const names = Array.from({ length: count }, (_, n) => `lost${n + 1}`);
  const guests = await Promise.all(names.map((name) => lab.create({ ...small, name, host })));
  try {
    await fn(guests);
  } finally {
    await lab.mend();
    for (const { vm } of guests) await lab.remove(vm);
  }
  await content(lab);
}

async function content(lab: TestLab): Promise<void> {
  await lab.until('no host to be fenced', async () => (await lab.client.listHosts()).every((each) => !each.fenced));
  await lab.clean();
  const findings = await lab.client.checkFleet();
  assert.deepEqual(
    findings.filter(({ severity }) => severity !== 'ok'),
    [],
    'drover doctor is not content',
  );
}

export const scenarios: readonly Scenario[] = [
  ...powerCuts,
  cutAndStill(
    'outage: a host is cut from the server but not from its peers: it reports through one of them, nothing is fenced',
    (lab, host) => lab.disturb({ kind: 'cut-path', from: host, to: 'server', ways: 'both' }),
    'peer',
  ),
  cutAndStill(
    'outage: what a host sends to the server is lost, one way only: it reports through a peer, nothing is fenced',
    (lab, host) => lab.disturb({ kind: 'cut-path', from: host, to: 'server', ways: 'one' }),
    'peer',
  ),
  cutAndStill(
    'outage: a host is cut from its peers but not from the server: it reports on, nothing is fenced',
    async (lab, host) => {
      for (const to of lab.hosts.filter((each) => each !== host)) {
        await lab.disturb({ kind: 'cut-path', from: host, to, ways: 'both' });
      }
    },
    'straight',
  ),
  {
    name: `outage: the whole control network is down for ${controlDownMs / 1000} s: no guest stops, none is started twice`,
    async run(lab) {
      const [host] = lab.hosts;
      assert(host !== undefined);
      await withGuests(lab, host, 2, (guests) =>
        nothingHappens(lab, guests, async () => {
          for (const each of lab.hosts) await lab.setLink(each, 'control', 'down');
          await new Promise((resolve) => setTimeout(resolve, controlDownMs));
        }),
      );
    },
  },
  {
    name: `outage: the server is away for ${serverAwayMs / 1000} s, longer than a lease: a move under way ends, no guest stops`,
    limitMs: serverAwayMs + 180_000,
    async run(lab) {
      const [host] = lab.hosts;
      assert(host !== undefined);
      await withGuests(lab, host, 3, async ([mover, ...rest]) => {
        assert(mover !== undefined);
        const before = await mover.guest.status();
        const move = await nothingHappens(lab, rest, async () => {
          const started = await lab.migrate(mover.vm, lab.otherThan(host), 'pre-copy');
          await lab.disturb({ kind: 'kill-server', afterwards: 'hold' });
          await new Promise((resolve) => setTimeout(resolve, serverAwayMs));
          return started;
        });
        const { phase, failure } = await lab.ended(move);
        assert.equal(phase, 'completed', failure?.message);
        await lab.unharmed(mover, before);
      });
    },
  },
  {
    name: 'outage: guard and agent of a host are dead, its guest lives: the lock of its disk is waited for, then it is started',
    async run(lab) {
      const [host] = lab.hosts;
      assert(host !== undefined);
      await withGuests(lab, host, 1, async ([test]) => {
        assert(test !== undefined);
        const before = await test.guest.status();
        const socket = directoriesOf(lab.lab.state.name).supervisorSocket;
        // With a BMC that answers the host would be switched off, and be dead indeed.
        await askSupervisor(socket, { do: 'kill', name: bmcOf(host), afterwards: 'hold' }, 35_000);
        await lab.disturb({ kind: 'kill-agent', host, afterwards: 'hold' });
        await lab.disturb({ kind: 'kill-guard', host, afterwards: 'hold' });
        const locked = async () => /lock/.test((await lab.vm(test.vm.id)).message ?? '');
        await lab.until('the second start to meet the lock', locked, 40_000);
        // Longer than the pause between two tries.
        const until = performance.now() + 5_000;
        while (performance.now() < until) {
          assert.equal((await test.guest.status()).bootId, before.bootId);
          assert.notEqual((await lab.vm(test.vm.id)).state, 'running');
        }
        await lab.unharmed(test, before);
        const [first] = (await guestProcesses(lab.lab.state, test.vm.id)).filter((each) => each.host === host);
        assert(first, 'the first QEMU is gone');
        const freeAt = Date.now();
        await endAll(
          [first.pid].flatMap((pid) => processId(pid) ?? []),
          0,
        );
        await answersAgain(test.guest, before.bootId, lab.signal);
        process.stdout.write(`       answers ${Date.now() - freeAt} ms after the lock was free\n`);
        const proof = await proveRestart(test.guest, before, lab.signal);
        assert(proof.ok, proof.says);
        assert.notEqual((await lab.vm(test.vm.id)).host, host);
      });
    },
  },
  {
    name: 'outage: one of two hosts dies and the other takes over; then both lose their power, and all comes back by priority',
    limitMs: 300_000,
    async run({ signal }) {
      await withTwoHosts(signal, async (lab) => {
        const names = ['first', 'second', 'third'];
        const guests: TestGuest[] = [];
        for (const [n, name] of names.entries()) {
          const test = await lab.create({ ...small, name, host: 'h1' });
          await lab.client.updateVm({ params: { vm: test.vm.id }, body: { priority: 900 - 100 * n } });
          guests.push(test);
        }
        const ids = guests.map(({ vm }) => vm.id);
        await neverTwice(lab.lab, ids, async () => {
          const lost = await loseHost(lab.lab, { host: 'h1', bmc: 'dead' }, guests, signal);
          told(lost);
          for (const { vm, target, proof } of lost.vms) {
            assert(proof.ok, `${vm}: ${proof.says}`);
            assert.equal(target, 'h2');
          }
          await lab.mend();
          const before = await Promise.all(guests.map(({ guest }) => guest.status()));
          await Promise.all(['h1', 'h2'].map((host) => switchPower(lab.lab, host, 'off')));
          await new Promise((resolve) => setTimeout(resolve, 5_000));
          await lab.mend();
          await Promise.all(guests.map(({ guest }, n) => answersAgain(guest, before[n]?.bootId, signal)));
          for (const [n, { vm, guest }] of guests.entries()) {
            const was = before[n];
            assert(was !== undefined);
            const proof = await proveRestart(guest, was, signal);
            assert(proof.ok, `${vm.name}: ${proof.says}`);
          }
          const [latest] = (await lab.client.listRecoveries()).filter(({ host }) => host === 'h2');
          // Which of them depends on who is back first: either it says so itself, or its BMC is asked by a server that sees the other.
          assert(latest?.proof === 'boot-id' || latest?.proof === 'power-off', `proof ${latest?.proof}`);
          const placed = latest.vms.toSorted((a, b) => (a.placedAt ?? 0) - (b.placedAt ?? 0)).map(({ name }) => name);
          assert.deepEqual(placed, names, 'not by priority');
        });
        for (const { vm } of guests) await vmState(lab.client, vm.id, ['running']);
        await content(lab);
      });
    },
  },
];
