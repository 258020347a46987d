import { chmod, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { Observation, parseProbeLine, startProbe } from './probe.ts';

const alive = (at: number, open: number) =>
  ({ t: 'alive', at, sent: 10, received: 5, open, lateMs: 0, rttMaxMs: 1 }) as const;

describe('Observation', () => {
  it('finds the longest gap that touches a time, also one that began before it', () => {
    const seen = new Observation();
    seen.take({ t: 'gap', from: 1000, ms: 50 });
    seen.take({ t: 'gap', from: 2000, ms: 300 });
    seen.take({ t: 'gap', from: 3000, ms: 20 });
    expect(seen.longestGap(0, 10_000)).toBe(300);
    expect(seen.longestGap(1040, 1900)).toBe(50);
    expect(seen.longestGap(2250, 3500)).toBe(300);
    expect(seen.longestGap(2500, 2900)).toBe(0);
  });

  it('counts a gap that has not ended yet', () => {
    const seen = new Observation();
    seen.take(alive(5000, 400));
    expect(seen.gaps()).toEqual([{ fromMs: 4600, lengthMs: 400, state: 'open' }]);
    expect(seen.longestGap(4900, 5000)).toBe(400);
  });

  it('does not count it twice when it has ended', () => {
    const seen = new Observation();
    seen.take(alive(5000, 400));
    seen.take({ t: 'gap', from: 4600, ms: 450 });
    expect(seen.gaps()).toEqual([{ fromMs: 4600, lengthMs: 450, state: 'ended' }]);
  });

  it('sees no gap in the usual time between replies', () => {
    const seen = new Observation();
    seen.take(alive(5000, 1.2));
    expect(seen.gaps()).toEqual([]);
  });
});

it('reads the lines of the prober and refuses others', () => {
  expect(parseProbeLine('{"t":"gap","from":1.5,"ms":12.25}')).toEqual({ t: 'gap', from: 1.5, ms: 12.25 });
  expect(() => parseProbeLine('{"t":"else"}')).toThrow();
  expect(() => parseProbeLine('half a li')).toThrow();
});

describe('startProbe', () => {
  async function fakeProber(script: string): Promise<{ binary: string } & AsyncDisposable> {
    const directory = await mkdtemp(join(tmpdir(), 'drover-probe-'));
    const binary = join(directory, 'probe');
    await writeFile(binary, `#!/bin/sh\n${script}\n`);
    await chmod(binary, 0o755);
    return { binary, [Symbol.asyncDispose]: async () => await rm(directory, { recursive: true, force: true }) };
  }

  it('knows the gaps before a reply when waiting for it ends', async () => {
    await using fake = await fakeProber(
      `read ask; echo '{"t":"gap","from":100,"ms":30}'; echo '{"t":"reply","at":130}'; read end`,
    );
    await using probe = startProbe({ binary: fake.binary, address: '10.1.2.3' });
    expect(await probe.waitForReply(AbortSignal.timeout(5000))).toBe(130);
    expect(probe.longestGap(0, 200)).toBe(30);
  });

  it('ends the wait with why the prober ended', async () => {
    await using fake = await fakeProber('echo no network >&2; exit 2');
    await using probe = startProbe({ binary: fake.binary, address: '10.1.2.3' });
    await expect(probe.waitForReply(AbortSignal.timeout(5000))).rejects.toThrow('no network');
  });

  it('ends the wait when its signal says so', async () => {
    await using fake = await fakeProber('read end; read end');
    await using probe = startProbe({ binary: fake.binary, address: '10.1.2.3' });
    await expect(probe.waitForReply(AbortSignal.timeout(50))).rejects.toThrow('no reply from 10.1.2.3');
  });

  it('gives the summary when it is stopped', async () => {
    const summary = { sent: 9, received: 8, longestGapMs: 1, rttMedianMs: 0.5, rttP99Ms: 1, rttMaxMs: 2 };
    await using fake = await fakeProber(`cat >/dev/null; echo '${JSON.stringify({ t: 'end', ...summary })}'`);
    const probe = startProbe({ binary: fake.binary, address: '10.1.2.3' });
    expect(await probe.stop()).toEqual(summary);
  });
});
