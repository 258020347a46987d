/** Pre-copy, processes and the agent's view of them; rows of QEMU's failure matrix by their names. */
import { beforeEach, describe, expect, it } from 'vitest';
import { gigabit, heavyGuest, postCopy, preCopy, TwoHosts, vm, watch } from './fake-two-hosts.ts';
import { calmGuest } from './simulated-surroundings.ts';

let hosts: TwoHosts;
beforeEach(() => {
  hosts = new TwoHosts();
});

describe('pre-copy', () => {
  it('ends with a source that sent and a target that waits, in the order of QEMU 10', async () => {
    const { source, target, to } = await hosts.pair();
    await source.guest.transfer.start(to, preCopy);
    await hosts.clock.advance(10_000);
    expect(source.seen).toEqual([
      'preparing',
      'round 1',
      'sending',
      'round 2',
      'stopped',
      'switching',
      'round 3',
      'completed',
    ]);
    expect(target.seen).toEqual(['sending', 'completed']);
    expect(await hosts.states({ source, target })).toEqual(['sent', 'loaded']);
    const numbers = await source.guest.transfer.numbers();
    expect(numbers).toMatchObject({ state: { kind: 'completed' }, remainingBytes: 0, round: 3 });
    expect(numbers.downtimeMs).toBe(27); // a little dirty memory, the devices' state, loading
    expect(numbers.totalMs).toBeGreaterThan(3000); // 360 MiB at a gigabit
    await hosts.within(0, target.guest.continue());
    expect(target.seen.at(-1)).toBe('resumed');
    expect(hosts.target.processes).toMatchObject([{ vcpusRun: true, life: 1, state: 'running' }]);
    expect(hosts.source.processes).toMatchObject([{ vcpusRun: false, life: 1, state: 'sent' }]);
  });

  it('never ends for a guest that writes faster than the link carries, until the downtime limit allows it', async () => {
    hosts.guest = heavyGuest;
    const { source } = await hosts.sending();
    await hosts.clock.advance(60_000);
    expect(source.seen).not.toContain('stopped');
    await source.guest.transfer.limitDowntime(2_000_000);
    await hosts.clock.advance(5000);
    expect(source.seen.slice(-2)).toEqual([expect.stringMatching(/^round/), 'completed']);
  });

  it('that is held completes only when told to, with the guest paused by whoever told it', async () => {
    const { source, target } = await hosts.sending({ ...preCopy, hold: true });
    await hosts.clock.advance(60_000);
    expect(await source.guest.state()).toBe('sending');
    await source.guest.transfer.limitBandwidth('trickle');
    await hosts.clock.advance(600_000);
    expect(await source.guest.state()).toBe('sending');
    await source.guest.transfer.limitBandwidth(null);
    await source.guest.transfer.completeNow();
    await hosts.clock.advance(5_000);
    expect(await hosts.states({ source, target })).toEqual(['sent', 'loaded']);
    expect(source.seen.filter((each) => each === 'stopped')).toHaveLength(1);
  });

  it('that was told to complete and fails leaves the guest paused where it was', async () => {
    const { source, target } = await hosts.sending({ ...preCopy, hold: true });
    await hosts.clock.advance(60_000);
    await source.guest.transfer.completeNow();
    await target.guest.destroy();
    await hosts.clock.advance(5_000);
    expect(await source.guest.state()).toBe('paused');
  });

  it('is slower on a slower link and takes a change of its rate at once', async () => {
    const { source } = await hosts.sending();
    const before = await source.guest.transfer.numbers();
    hosts.setRate(gigabit / 10);
    await hosts.clock.advance(1000);
    const after = await source.guest.transfer.numbers();
    expect(after.sentBytes - before.sentBytes).toBe(gigabit / 10);
  });

  it('throttles a guest that writes too fast, if it may', async () => {
    hosts.guest = { ...heavyGuest, workingSetMiB: 64, dirtyPagesPerSecond: 40_000 };
    const { source } = await hosts.sending({ ...preCopy, downtimeLimitMs: 30, autoConverge: true });
    await hosts.clock.advance(120_000);
    expect((await source.guest.transfer.numbers()).throttlePercent).toBeGreaterThan(20);
    expect(await source.guest.state()).toBe('sent');
  });

  it('cannot begin again from a source that has handed over', async () => {
    const { source, to } = await hosts.sending();
    await hosts.until(source, 'completed');
    await expect(source.guest.transfer.start(to, preCopy)).rejects.toThrow('already migrated');
  });

  it('carries a guest that does not run on without letting it run, also when it fails', async () => {
    const { source, target } = await hosts.sending();
    await hosts.until(source, 'completed');
    const back = await hosts.within(100, hosts.source.hypervisor().receive(hosts.options(3), preCopy, 'h1'));
    await target.guest.transfer.start(back.endpoint, preCopy);
    await hosts.until(target, 'switching');
    hosts.source.killProcess(vm, 3);
    await hosts.clock.advance(100);
    expect(target.seen.at(-1)).toMatch(/^failed/);
    expect(target.seen).not.toContain('stopped');
    expect(await target.guest.state()).toBe('paused');
    expect(hosts.runsOn).toEqual([]);
  });
});

describe('what it costs', () => {
  it('is a handful of timers for a move, and none for a guest that just runs', async () => {
    let timers = 0;
    const { clock } = hosts;
    const setTimeout = clock.setTimeout.bind(clock);
    clock.setTimeout = (run, ms) => {
      timers++;
      return setTimeout(run, ms);
    };
    const pair = await hosts.pair(postCopy);
    timers = 0;
    await clock.advance(600_000);
    expect(timers).toBe(0);
    await pair.source.guest.transfer.start(pair.to, postCopy);
    await clock.advance(1000);
    await pair.source.guest.transfer.switchToPostCopy();
    await clock.advance(60_000);
    expect(pair.source.seen.at(-1)).toBe('completed');
    expect(timers).toBeLessThan(12);
  });
});

describe('the failures of pre-copy', () => {
  it('dst killed in `active`: the source has failed and its guest never stopped', async () => {
    const { source, target } = await hosts.sending();
    hosts.target.killProcess(vm);
    await hosts.clock.advance(10);
    expect(source.seen.at(-1)).toMatch(/^failed: Unable/);
    expect(source.seen).not.toContain('stopped');
    expect(target.gone).toBe('died');
    expect(hosts.runsOn).toEqual(['h1']);
  });

  it('`migrate_cancel` in `active`: cancelled within 100 ms, and the target process exits', async () => {
    const { source, target } = await hosts.sending();
    await source.guest.transfer.cancel();
    await hosts.clock.advance(100);
    expect(source.seen.slice(-2)).toEqual(['sending', 'cancelled']);
    expect(target.gone).toBe('died: load of migration failed: Input/output error');
    expect(await source.guest.state()).toBe('running');
    expect(await source.guest.transfer.numbers()).toMatchObject({ sentBytes: 0, totalBytes: 0 }); // QEMU has forgotten
  });

  it('silent network loss in `active`: nobody notices; a cancel works, the target has to be killed', async () => {
    const { source, target } = await hosts.sending();
    hosts.setRate(0);
    const { remainingBytes } = await source.guest.transfer.numbers();
    await hosts.clock.advance(60_000);
    expect((await source.guest.transfer.numbers()).remainingBytes).toBe(remainingBytes);
    expect(await hosts.states({ source, target })).toEqual(['sending', 'incoming']);
    await source.guest.transfer.cancel();
    await hosts.clock.advance(100);
    expect(source.seen.at(-1)).toBe('cancelled');
    await hosts.clock.advance(60_000);
    expect(target.gone).toBeUndefined();
    await target.guest.destroy();
    expect(target.gone).toBe('destroyed');
  });

  it('silent network loss in `active`: TCP gives up after about 15 minutes', async () => {
    const { source } = await hosts.sending();
    hosts.setRate(0);
    await hosts.clock.advance(900_000);
    expect(await source.guest.state()).toBe('sending');
    await hosts.clock.advance(60_000);
    expect(source.seen.at(-1)).toBe('failed: Unable to write to socket: Connection timed out');
    expect(hosts.runsOn).toEqual(['h1']);
  });

  it('goes on after a short cut, once TCP has tried again', async () => {
    const { source } = await hosts.sending();
    hosts.setRate(0, gigabit); // one way is enough
    await hosts.clock.advance(2000);
    const before = await source.guest.transfer.numbers();
    hosts.setRate(gigabit);
    await hosts.clock.advance(900); // it had tried after 0.2, 0.6 and 1.4 s: the next is after 3 s
    expect(await source.guest.transfer.numbers()).toEqual(before);
    await hosts.clock.advance(10_000);
    expect(await source.guest.state()).toBe('sent');
  });

  it('`migrate` while unreachable: failed to connect, the target is unchanged', async () => {
    const { source, target, to } = await hosts.pair();
    hosts.setRate(0);
    await source.guest.transfer.start(to, preCopy);
    await hosts.clock.advance(130_000);
    expect(source.seen).toEqual(['preparing', `failed: Failed to connect to 'h2:${to.port}': Connection timed out`]);
    expect(await hosts.states({ source, target })).toEqual(['running', 'incoming']);
    hosts.setRate(gigabit);
    await source.guest.transfer.start(to, preCopy);
    await hosts.clock.advance(10_000);
    expect(await hosts.states({ source, target })).toEqual(['sent', 'loaded']);
  });

  it('`migrate` to a host without power, or to a port where nobody listens, fails sooner', async () => {
    const { source, to } = await hosts.pair();
    await source.guest.transfer.start({ ...to, port: 1 }, preCopy);
    await hosts.clock.advance(10);
    expect(source.seen.at(-1)).toMatch(/Connection refused$/);
    hosts.target.powerOff();
    await source.guest.transfer.start(to, preCopy);
    await hosts.clock.advance(3000);
    expect(source.seen.at(-1)).toMatch(/No route to host$/);
  });

  it('link lost at the switchover: ordinary commands time out; yank answers, the guest resumes, the target ends later', async () => {
    const { source, target } = await hosts.sending();
    await hosts.until(source, 'stopped');
    hosts.setRate(0);
    await hosts.clock.advance(1000);
    expect(hosts.runsOn).toEqual([]);
    await expect(hosts.within(5000, source.guest.state())).rejects.toThrow('no answer to query-status');
    await expect(hosts.within(2000, source.guest.transfer.numbers())).rejects.toThrow('within 2000 ms');
    const late = source.guest.transfer.cancel(); // carried out when the main loop is free: it is too late then
    await source.guest.transfer.cutConnection();
    await hosts.within(10, late);
    expect(source.seen.slice(-2)).toEqual(['failed: Unable to write to socket: Broken pipe', 'resumed']);
    expect(hosts.runsOn).toEqual(['h1']);
    expect(await target.guest.state()).toBe('incoming');
    hosts.setRate(gigabit);
    await hosts.clock.advance(20_000);
    expect(target.gone).toMatch(/^died: load of migration failed/);
  });

  it('a command whose caller was told of the timeout is carried out all the same', async () => {
    const { source } = await hosts.sending();
    await hosts.until(source, 'stopped');
    hosts.setRate(0);
    await expect(hosts.within(5000, source.guest.powerDown())).rejects.toThrow('no answer to system_powerdown');
    await source.guest.transfer.cutConnection();
    await hosts.clock.advance(3000);
    expect(source.gone).toBe('powered-off');
  });

  it('a command that waits is forgotten when its agent is killed', async () => {
    const { source } = await hosts.sending();
    await hosts.until(source, 'stopped');
    hosts.setRate(0);
    void source.guest.powerDown();
    hosts.source.agentGone();
    hosts.target.killProcess(vm);
    hosts.setRate(gigabit);
    await hosts.clock.advance(10_000);
    expect(hosts.runsOn).toEqual(['h1']);
  });

  it('a guest that arrived once is like any other when it moves on', async () => {
    hosts = new TwoHosts({ random: { next: () => 0, bytes: () => new Uint8Array() } }); // its main loop touched missing pages
    const { source, target } = await hosts.sending();
    await hosts.until(source, 'completed');
    await target.guest.continue();
    const back = await hosts.within(100, hosts.source.hypervisor().receive(hosts.options(3), preCopy, 'h1'));
    await target.guest.transfer.start(back.endpoint, preCopy);
    await hosts.clock.advance(100);
    hosts.setRate(0);
    expect(await target.guest.state()).toBe('sending');
  });

  it('dst refuses state: "Sibling indicated error 1", the guest resumes by itself, the target exits with its words', async () => {
    hosts.refusal = { what: 'load', words: "Unknown section 'x'" };
    const { source, target } = await hosts.sending();
    await hosts.clock.advance(10_000);
    expect(source.seen.slice(-2)).toEqual(['failed: Sibling indicated error 1', 'resumed']);
    expect(target.gone).toBe("died: Unknown section 'x'");
    expect(hosts.runsOn).toEqual(['h1']);
  });

  it('src killed in `active`: the target exits and the guest runs nowhere', async () => {
    const { source, target } = await hosts.sending();
    hosts.source.killProcess(vm);
    await hosts.clock.advance(10);
    expect([source.gone, target.gone]).toEqual(['died', 'died: load of migration failed: Input/output error']);
  });

  it('src killed after `completed`: the target can go on', async () => {
    const { source, target } = await hosts.sending();
    await hosts.until(source, 'completed');
    hosts.source.killProcess(vm, 1);
    await target.guest.continue();
    expect(hosts.runsOn).toEqual(['h2']);
  });

  it('dst killed after `completed` before `cont`: `cont` on the source works', async () => {
    const { source } = await hosts.sending();
    await hosts.until(source, 'completed');
    hosts.target.killProcess(vm);
    await hosts.clock.advance(10);
    expect(await source.guest.state()).toBe('sent');
    await source.guest.continue();
    expect(hosts.source.processes).toMatchObject([{ vcpusRun: true, life: 1 }]);
  });

  it('the power of the target goes in `active`: nobody is told; the source learns it when that host is on again', async () => {
    const { source, target } = await hosts.sending();
    hosts.target.powerOff();
    await hosts.clock.advance(60_000);
    expect(await source.guest.state()).toBe('sending');
    expect([target.seen, target.gone]).toEqual([['sending'], undefined]);
    hosts.target.powerOn();
    await hosts.clock.advance(120_000);
    expect(source.seen.at(-1)).toMatch(/^failed/);
  });

  it('the power of the source goes in `active`: the copy waits for ever', async () => {
    const { target } = await hosts.sending();
    hosts.source.powerOff();
    await hosts.clock.advance(1_000_000);
    hosts.source.powerOn();
    await hosts.clock.advance(1_000_000);
    expect(await target.guest.state()).toBe('incoming');
  });

  it('acknowledgement lost: the target has all and the source falls back, so a `cont` there would run it twice', async () => {
    hosts.latency = 5;
    const { source, target } = await hosts.sending();
    await hosts.until(target, 'completed');
    hosts.setRate(0);
    await hosts.clock.advance(20_000);
    expect(await hosts.states({ source, target })).toEqual(['sending', 'loaded']); // here its main loop is free
    await source.guest.transfer.cutConnection();
    await hosts.clock.advance(10);
    expect(hosts.runsOn).toEqual(['h1']);
    await target.guest.continue();
    expect(hosts.runsOn).toEqual(['h1', 'h2']);
  });
});

describe('a process', () => {
  it('holds its disks while it may write them: a second one does not start', async () => {
    hosts = new TwoHosts({ locks: true });
    const { source } = await hosts.sending();
    const second = hosts.target.hypervisor().launch(hosts.options(3));
    await expect(hosts.within(100, second)).rejects.toMatchObject({
      failure: { detail: expect.stringContaining('Failed to get "write" lock') },
    });
    await hosts.until(source, 'completed'); // now nobody holds them
    await hosts.within(100, hosts.target.hypervisor().launch(hosts.options(3)));
    expect(hosts.target.processes).toMatchObject([
      { generation: 2, life: 1 },
      { generation: 3, life: 2 },
    ]);
  });

  it('that was continued on the target keeps the source from being continued, where disks are locked', async () => {
    hosts = new TwoHosts({ locks: true });
    const { source, target } = await hosts.sending();
    await hosts.until(source, 'completed');
    await target.guest.continue();
    await hosts.clock.advance(10);
    await expect(source.guest.continue()).rejects.toThrow('Failed to get "write" lock');
    expect(hosts.runsOn).toEqual(['h2']);
  });

  it('that lost its power leaves its lock behind for as long as the world says', async () => {
    hosts = new TwoHosts({ locks: true });
    await hosts.pair();
    hosts.source.powerOff();
    const client = hosts.target.hypervisor();
    await expect(hosts.within(100, client.launch(hosts.options(3)))).rejects.toThrow('did not start');
    await hosts.clock.advance(2000);
    await hosts.within(100, client.launch(hosts.options(4)));
    expect(hosts.target.processes).toMatchObject([
      { generation: 2, life: 0 },
      { generation: 4, life: 2 },
    ]);
  });

  it('that does not start says why', async () => {
    hosts.refusal = { what: 'start', words: 'could not configure /dev/net/tun: busy' };
    const launch = hosts.within(100, hosts.source.hypervisor().launch(hosts.options(1)));
    await expect(launch).rejects.toMatchObject({ failure: { code: 'guest-start-failed', detail: /tun/ } });
  });

  it('ends some time after its power button was pressed, unless its guest does not listen', async () => {
    const { source } = await hosts.pair();
    hosts.guest = { ...calmGuest, shutdownMs: null };
    await source.guest.powerDown();
    await hosts.clock.advance(60_000);
    expect(source.gone).toBeUndefined();
    hosts.guest = calmGuest;
    await source.guest.powerDown();
    await hosts.clock.advance(1000);
    await source.guest.powerDown(); // again, as agents do
    await hosts.clock.advance(1010);
    expect([source.seen.at(-1), source.gone]).toEqual(['powered-off', 'powered-off']);
  });

  it('whose guest panics says so and ends', async () => {
    const { source } = await hosts.pair();
    hosts.source.panic(vm);
    await hosts.clock.advance(10);
    expect([source.seen, source.gone]).toEqual([['panicked'], 'died: the kernel of the guest panicked.']);
  });
});

describe("an agent's connection", () => {
  it('tells nothing of what happened before it: a restarted agent asks', async () => {
    const { source, to } = await hosts.pair();
    await source.guest.transfer.start(to, preCopy);
    await hosts.clock.advance(1000);
    hosts.source.agentGone();
    const before = [...source.seen];
    await hosts.clock.advance(10_000);
    expect(source.seen).toEqual(before);
    const [found] = await hosts.within(100, hosts.source.hypervisor().adopt());
    if (found === undefined) throw new Error('not found');
    const again = watch(found);
    expect(await found.state()).toBe('sent');
    expect(await found.transfer.numbers()).toMatchObject({ state: { kind: 'completed' } });
    expect(again.seen).toEqual([]);
  });

  it('of a killed agent has no effect any more and answers nothing', async () => {
    const { source } = await hosts.pair();
    hosts.source.agentGone();
    let isAnswered = false;
    void source.guest.destroy().then(() => (isAnswered = true));
    await hosts.clock.advance(10_000);
    expect([isAnswered, hosts.runsOn]).toEqual([false, ['h1']]);
  });

  it('of a halted agent keeps answers and events until it goes on', async () => {
    const { source } = await hosts.sending();
    hosts.source.haltAgent();
    await hosts.clock.advance(10_000);
    expect(source.seen.at(-1)).toBe('sending');
    hosts.source.wakeAgent();
    await hosts.clock.advance(0);
    expect(source.seen.at(-1)).toBe('completed');
  });

  it('finds a process whose start its agent did not live to see', async () => {
    void hosts.source.hypervisor().launch(hosts.options(1));
    const found = await hosts.within(100, hosts.source.hypervisor().adopt());
    expect(found.map((guest) => guest.key)).toEqual([{ vm, generation: 1 }]);
  });
});
