/** Post-copy: the switch, broken links and what takes them up again; rows of QEMU's table by their names. */
import * as fc from 'fast-check';
import { beforeEach, describe, expect, it } from 'vitest';
import { gigabit, heavyGuest, postCopy, preCopy, TwoHosts, vm, type Watched } from './fake-two-hosts.ts';

let hosts: TwoHosts;
beforeEach(() => {
  hosts = new TwoHosts();
});

async function breakAndPause(pair: { source: Watched; target: Watched }): Promise<void> {
  hosts.setRate(0);
  await pair.source.guest.transfer.pause();
  await pair.target.guest.transfer.pause();
}

describe('post-copy', () => {
  it('runs on the target while pages still come, and ends on both sides', async () => {
    hosts.guest = heavyGuest;
    const { source, target } = await hosts.inPostCopy();
    expect(source.seen).toEqual(['preparing', 'round 1', 'sending', 'stopped', 'switching', 'round 2', 'post-copy']);
    expect(await hosts.states({ source, target })).toEqual(['sending-post-copy', 'running']);
    await hosts.clock.advance(10_000);
    expect(target.seen).toEqual(['sending', 'post-copy', 'resumed', 'completed']);
    expect(await hosts.states({ source, target })).toEqual(['sent', 'running']);
    const numbers = await source.guest.transfer.numbers();
    expect(numbers).toMatchObject({ remainingBytes: 0, downtimeMs: 2 });
    expect(numbers.faults).toBeGreaterThan(100);
    expect((await target.guest.transfer.numbers()).faultBlockedMs).toBeGreaterThan(0);
    expect(hosts.target.processes).toMatchObject([{ life: 1, vcpusRun: true }]);
  });

  it('waits for `cont` on the target, and sends the pages all the same', async () => {
    const pair = await hosts.sending(postCopy);
    await pair.source.guest.transfer.switchToPostCopy();
    await hosts.until(pair.target, 'post-copy');
    expect(await hosts.states(pair)).toEqual(['sending-post-copy', 'switched']);
    await hosts.clock.advance(10_000);
    expect(await hosts.states(pair)).toEqual(['sent', 'loaded']);
    expect(hosts.runsOn).toEqual([]);
  });

  it('is refused where it was not prepared, and when nothing is sent', async () => {
    const { source } = await hosts.sending(preCopy);
    await expect(source.guest.transfer.switchToPostCopy()).rejects.toThrow('Enable postcopy');
    const idle = await hosts.within(100, hosts.source.hypervisor().launch({ ...hosts.options(9) }));
    await expect(idle.transfer.switchToPostCopy()).rejects.toThrow('Start the migration before');
  });

  it('ends as a stop-and-copy where little enough is left', async () => {
    const pair = await hosts.sending(postCopy);
    await pair.source.guest.transfer.limitDowntime(60_000);
    await pair.source.guest.transfer.switchToPostCopy();
    await hosts.clock.advance(10_000);
    expect(pair.source.seen).not.toContain('post-copy');
    expect(await hosts.states(pair)).toEqual(['sent', 'loaded']);
  });

  it('is not switched while the link is cut: the order is carried out when it carries again', async () => {
    const { source } = await hosts.sending(postCopy);
    hosts.setRate(0);
    await source.guest.transfer.switchToPostCopy();
    await hosts.clock.advance(5000);
    expect(source.seen.at(-1)).toBe('sending');
    hosts.setRate(gigabit);
    await hosts.until(source, 'post-copy');
  });
});

describe('a broken post-copy', () => {
  it('silent cut: both stay in post-copy and the guest hangs, until TCP gives up after about 15 minutes', async () => {
    const pair = await hosts.inPostCopy();
    hosts.setRate(0);
    await hosts.clock.advance(900_000);
    expect(await hosts.states(pair)).toEqual(['sending-post-copy', 'running']);
    await hosts.clock.advance(60_000);
    expect(await hosts.states(pair)).toEqual(['broken-post-copy', 'broken-post-copy']);
  });

  it('a short silent cut heals by itself', async () => {
    const pair = await hosts.inPostCopy();
    hosts.setRate(0);
    await hosts.clock.advance(2000);
    hosts.setRate(gigabit);
    await hosts.clock.advance(10_000);
    expect(await hosts.states(pair)).toEqual(['sent', 'running']);
    expect(pair.target.seen).not.toContain('post-copy-broken');
  });

  it('RST: both know at once', async () => {
    const { source, target } = await hosts.inPostCopy();
    await source.guest.transfer.cutConnection();
    await hosts.clock.advance(1);
    expect([source.seen.at(-1), target.seen.at(-1)]).toEqual(['post-copy-broken', 'post-copy-broken']);
  });

  it('source SIGKILLed: the target is left with what it has', async () => {
    const { target } = await hosts.inPostCopy();
    hosts.source.killProcess(vm);
    await hosts.clock.advance(10);
    expect(await target.guest.state()).toBe('broken-post-copy');
  });

  it('destination SIGKILLed: the source is kept, and never continues', async () => {
    const { source } = await hosts.inPostCopy();
    hosts.target.killProcess(vm);
    await hosts.clock.advance(10);
    expect(await source.guest.state()).toBe('broken-post-copy');
    await expect(source.guest.continue()).rejects.toThrow('Migration is not finalized yet');
  });

  it('`cont` on the destination returns OK and changes nothing; `migrate_cancel` is refused', async () => {
    const pair = await hosts.inPostCopy();
    await expect(pair.source.guest.transfer.cancel()).rejects.toThrow('cannot cancel');
    await breakAndPause(pair);
    await pair.target.guest.continue();
    expect(await hosts.states(pair)).toEqual(['broken-post-copy', 'broken-post-copy']);
    await expect(pair.source.guest.transfer.cancel()).rejects.toThrow('cannot cancel');
  });

  it('goes on where the target listens again and the source resumes: only what is missing crosses', async () => {
    const pair = await hosts.inPostCopy();
    const before = await pair.source.guest.transfer.numbers();
    await breakAndPause(pair);
    await hosts.clock.advance(10_000);
    hosts.setRate(gigabit);
    const to = await pair.target.guest.transfer.listenAgain('h2');
    await hosts.within(10_000, pair.source.guest.transfer.resume(to));
    expect(pair.source.seen.slice(-5)).toEqual([
      'post-copy-broken',
      'post-copy-rejoining',
      'post-copy-rejoining',
      'post-copy',
      'completed',
    ]);
    expect(pair.target.seen.slice(-4)).toEqual(['post-copy-broken', 'post-copy-rejoining', 'post-copy', 'completed']);
    expect(await hosts.states(pair)).toEqual(['sent', 'running']);
    const after = await pair.source.guest.transfer.numbers();
    expect(after.sentBytes - before.sentBytes).toBe(before.remainingBytes);
  });

  it('`migrate resume` while the link is still down is not begun: nobody answers there', async () => {
    const pair = await hosts.inPostCopy();
    await breakAndPause(pair);
    const to = await pair.target.guest.transfer.listenAgain('h2');
    await expect(hosts.within(1000, pair.source.guest.transfer.resume(to))).rejects.toThrow('no answer from h2');
    expect(await hosts.states(pair)).toEqual(['broken-post-copy', 'broken-post-copy']);
    hosts.setRate(gigabit);
    await hosts.within(10_000, pair.source.guest.transfer.resume(to));
    expect(await hosts.states(pair)).toEqual(['sent', 'running']);
  });

  it('`migrate resume` whose link goes while it connects returns to broken in the end, and may be tried again', async () => {
    hosts.latency = 5;
    const pair = await hosts.inPostCopy();
    await breakAndPause(pair);
    hosts.setRate(gigabit);
    const to = await pair.target.guest.transfer.listenAgain('h2');
    void pair.source.guest.transfer.resume(to);
    await hosts.until(pair.source, 'post-copy-rejoining');
    hosts.setRate(0);
    await hosts.clock.advance(60_000);
    expect(pair.source.seen.at(-1)).toBe('post-copy-rejoining');
    await hosts.clock.advance(70_000);
    expect(pair.source.seen.at(-1)).toBe('post-copy-broken');
    hosts.setRate(gigabit);
    await hosts.within(10_000, pair.source.guest.transfer.resume(to));
    expect(await hosts.states(pair)).toEqual(['sent', 'running']);
  });

  it('a rejoining that breaks off before both agree is broken on both sides again, with nothing lost', async () => {
    hosts.latency = 5;
    const pair = await hosts.inPostCopy();
    await breakAndPause(pair);
    hosts.setRate(gigabit);
    void pair.source.guest.transfer.resume(await pair.target.guest.transfer.listenAgain('h2'));
    await hosts.until(pair.target, 'post-copy-rejoining');
    await pair.source.guest.transfer.cutConnection();
    await hosts.clock.advance(100);
    expect(await hosts.states(pair)).toEqual(['broken-post-copy', 'broken-post-copy']);
    void pair.source.guest.transfer.resume(await pair.target.guest.transfer.listenAgain('h2'));
    await hosts.clock.advance(10_000);
    expect(await hosts.states(pair)).toEqual(['sent', 'running']);
  });

  it('destination never got `migrate-recover`: nobody listens there', async () => {
    const pair = await hosts.inPostCopy();
    await breakAndPause(pair);
    hosts.setRate(gigabit);
    await hosts.within(10, pair.source.guest.transfer.resume(pair.to));
    await hosts.clock.advance(100);
    expect(await hosts.states(pair)).toEqual(['broken-post-copy', 'broken-post-copy']);
  });

  it('may break again and again', async () => {
    const pair = await hosts.inPostCopy();
    for (let cut = 0; cut < 5; cut++) {
      await breakAndPause(pair);
      hosts.setRate(gigabit);
      const to = await pair.target.guest.transfer.listenAgain('h2');
      await hosts.within(100, pair.source.guest.transfer.resume(to));
      expect(await hosts.states(pair)).toEqual(['sending-post-copy', 'running']);
    }
    await hosts.clock.advance(10_000);
    expect(await hosts.states(pair)).toEqual(['sent', 'running']);
  });

  it('what is asked before it is known to be broken is refused', async () => {
    const { source, target, to } = await hosts.inPostCopy();
    await expect(target.guest.transfer.listenAgain('h2')).rejects.toThrow('only be run when postcopy is paused');
    const early = hosts.within(10, source.guest.transfer.resume(to));
    await expect(early).rejects.toThrow('no paused migration');
    const pair = await new TwoHosts().pair();
    await expect(pair.source.guest.transfer.pause()).rejects.toThrow('only supported during postcopy');
  });

  it('dst QMP: ordinary commands may time out, those out of band are answered', async () => {
    hosts = new TwoHosts({ random: { next: () => 0, bytes: () => new Uint8Array() } }); // its main loop touches a missing page
    const pair = await hosts.inPostCopy();
    hosts.setRate(0);
    await expect(hosts.within(5000, pair.target.guest.state())).rejects.toThrow('no answer');
    await pair.target.guest.transfer.pause();
    await pair.source.guest.transfer.pause();
    // An agent that begins anew finds it all the same.
    expect(await hosts.within(20_000, hosts.target.hypervisor().adopt())).toHaveLength(1);
  });

  it('a broken connection right at the switch is a failed move to the source: it runs on, whatever the target has', async () => {
    const pair = await hosts.sending(postCopy);
    await pair.source.guest.transfer.switchToPostCopy();
    await hosts.until(pair.source, 'switching');
    await pair.source.guest.transfer.cutConnection();
    await hosts.clock.advance(10);
    expect(pair.source.seen.slice(-2)).toEqual(['failed: Unable to write to socket: Broken pipe', 'resumed']);
    expect(pair.target.gone).toMatch(/^died/);
  });

  it('a cut before the target has the state: the source is in post-copy, the target is not and ends when it hears of it', async () => {
    const pair = await hosts.sending(postCopy);
    await pair.source.guest.transfer.switchToPostCopy();
    await hosts.until(pair.source, 'stopped');
    hosts.setRate(0);
    await hosts.clock.advance(10);
    expect(await hosts.states(pair)).toEqual(['sending-post-copy', 'incoming']);
    await pair.source.guest.transfer.pause();
    hosts.setRate(gigabit);
    await hosts.clock.advance(1000);
    expect(await hosts.states(pair)).toEqual(['broken-post-copy', 'gone']);
  });

  it('a guest that waits for a page does not shut down', async () => {
    const { source, target } = await hosts.inPostCopy();
    await target.guest.powerDown();
    hosts.setRate(0);
    await source.guest.transfer.pause();
    await target.guest.transfer.pause();
    await hosts.clock.advance(20_000);
    expect(target.gone).toBeUndefined();
    hosts.setRate(gigabit);
    const to = await target.guest.transfer.listenAgain('h2');
    await hosts.within(4000, source.guest.transfer.resume(to));
    expect(target.gone).toBe('powered-off');
  });

  it('a pause after the last page is a failed move to the source: it runs here again', async () => {
    hosts.latency = 20;
    const pair = await hosts.inPostCopy();
    await hosts.until(pair.target, 'completed');
    await pair.source.guest.transfer.pause();
    await hosts.clock.advance(10);
    expect(hosts.runsOn).toEqual(['h1', 'h2']);
  });
});

describe('the one memory of a guest', () => {
  type Act = (pair: { source: Watched; target: Watched }) => void;
  /** Answers may take long, or never come: nobody waits for them. */
  const said = (answer: Promise<unknown>) => void answer.catch(() => {});
  const acts: Readonly<Record<string, Act>> = {
    cut: () => hosts.setRate(0),
    'cut there': () => hosts.setRate(0, gigabit),
    'cut back': () => hosts.setRate(gigabit, 0),
    slow: () => hosts.setRate(gigabit / 100),
    mend: () => hosts.setRate(gigabit),
    yank: ({ source }) => said(source.guest.transfer.cutConnection()),
    cancel: ({ source }) => said(source.guest.transfer.cancel()),
    'kill the source': () => hosts.source.killProcess(vm),
    'kill the target': () => hosts.target.killProcess(vm),
    'power off the target': () => hosts.target.powerOff(),
    'power on the target': () => hosts.target.powerOn(),
    'continue the target': ({ target }) => {
      const isSent = hosts.source.processes.every((process) => process.state === 'sent');
      if (isSent) said(target.guest.continue());
    },
  };

  async function isSplitBy(steps: readonly { readonly act: Act; readonly afterMs: number }[]): Promise<boolean> {
    const pair = await hosts.sending();
    await hosts.clock.advance(1800); // soon at the switchover
    for (const { act, afterMs } of steps) {
      act(pair);
      await hosts.clock.advance(afterMs);
      const running = [...hosts.source.processes, ...hosts.target.processes].filter((process) => process.vcpusRun);
      if (new Set(running.map((process) => process.life)).size < running.length) return true;
    }
    return false;
  }
  const step = (names: readonly string[]) =>
    fc.record({
      act: fc.constantFrom(...names).map((name) => acts[name] ?? (() => {})),
      afterMs: fc.constantFrom(0, 3, 10, 40, 100, 6000),
    });

  it('is never in two running processes, whatever happens, as long as only a target whose source has sent is continued', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.constantFrom(0.2, 10, 50),
        fc.array(step(Object.keys(acts)), { maxLength: 12 }),
        async (latencyMs, steps) => {
          hosts = new TwoHosts();
          hosts.latency = latencyMs;
          expect(await isSplitBy(steps)).toBe(false);
        },
      ),
      { numRuns: 600 },
    );
  });

  it('is in two as soon as somebody continues such a source while the target runs', async () => {
    const pair = await hosts.sending(preCopy);
    await hosts.until(pair.source, 'completed');
    await pair.target.guest.continue();
    expect(await hosts.states(pair)).toEqual(['sent', 'running']);
    await hosts.clock.advance(1);
    await pair.source.guest.continue();
    const all = [...hosts.source.processes, ...hosts.target.processes];
    expect(all.map(({ vcpusRun, life }) => [vcpusRun, life])).toEqual([
      [true, 1],
      [true, 1],
    ]);
  });
});
