import { chmod, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { GuestClient, GuestRefusedError, GuestUnreachableError, parseReply } from './guest-client.ts';

let directory: string;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'drover-client-'));
});
afterEach(async () => await rm(directory, { recursive: true, force: true }));

/** A client whose relay is a script instead of the prober. */
async function clientOf(script: string): Promise<GuestClient> {
  const probe = join(directory, 'relay');
  await writeFile(probe, `#!/bin/sh\n${script}\n`);
  await chmod(probe, 0o755);
  return new GuestClient({ address: '10.1.2.3', probe });
}

describe('GuestClient', () => {
  it('sends a command as one line to the control port', async () => {
    const guest = await clientOf(`read line; echo "$* $line" > ${directory}/seen; echo '{"ok":true}'`);
    await guest.setLoad({ pagesPerSecond: 2500, setMiB: 32 });
    const { readFile } = await import('node:fs/promises');
    expect(await readFile(join(directory, 'seen'), 'utf8')).toBe('ctl 10.1.2.3 7000 load 2500 32 64\n');
  });

  it('gives damage that a check found as a result', async () => {
    const counts = '"pages":10,"badPages":1,"blocks":5,"badBlocks":0,"diskErrors":0,"diskSequence":7,"durationMs":3';
    const guest = await clientOf(`echo '{"ok":false,"bootId":"a1",${counts}}'`);
    expect(await guest.verify()).toMatchObject({ ok: false, badPages: 1, bootId: 'a1' });
  });

  it("throws the guest's own words when it refuses", async () => {
    const guest = await clientOf(`echo '{"ok":false,"error":"there is no disk"}'`);
    const call = guest.setDisk(5);
    await expect(call).rejects.toThrow(GuestRefusedError);
    await expect(call).rejects.toThrow('there is no disk');
  });

  it('says that the guest is unreachable, and why, when the relay cannot connect', async () => {
    const guest = await clientOf(`echo 'probe: 10.1.2.3:7000: No route to host' >&2; exit 2`);
    const call = guest.status();
    await expect(call).rejects.toThrow(GuestUnreachableError);
    await expect(call).rejects.toThrow('No route to host');
  });

  it('ends a call that takes too long', async () => {
    const guest = await clientOf('exec sleep 30');
    await expect(guest.status({ timeoutMs: 50 })).rejects.toThrow(GuestUnreachableError);
  });

  it('does not take a reply that was cut short for an answer', async () => {
    const guest = await clientOf(`printf '{"ok":tr'`);
    await expect(guest.sync()).rejects.toThrow('broke off');
  });
});

it('reads only a whole line as a reply', () => {
  expect(parseReply('{"ok":true}\n')).toEqual({ ok: true });
  expect(parseReply('{"ok":true}')).toBeUndefined();
});
