// IPMI through the real ipmitool, against real BMC programs: Debian's ipmi_sim, healthy and otherwise. On loopback.
// Left out, with the reason, where the two programs are not there (`npm run setup` fetches them).
import { spawn, type ChildProcess } from 'node:child_process';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { locateIpmi } from '../../src/control/power/locate.ts';
import { powerOver } from '../../src/control/power/open.ts';
import type { PowerController, PowerReading } from '../../src/control/power/power.ts';
import { bmcCommand, writeChassisProgram } from '../../src/lab/bmc.ts';
import type { PowerSpec } from '../../src/model/host.ts';
import { systemClock } from '../../src/runtime/clock.ts';

const where = { env: process.env, repoRoot: join(import.meta.dirname, '..', '..') };
const missing = [locateIpmi('ipmitool', where), locateIpmi('ipmi_sim', where)].find(({ ok }) => !ok);
if (missing && !missing.ok) console.log(`real BMCs are left out: ${missing.reason}`);
const leftOut = missing !== undefined;

const signal = AbortSignal.timeout(120_000);
const open = powerOver(systemClock);
const password = 'Tr0ub4dor&3';

let dir: string;
let programs: ChildProcess[];
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'drover ipmi-')); // with a blank: nobody's paths are without
  programs = [];
});
afterEach(async () => {
  for (const program of programs) {
    const gone = once(program, 'exit');
    program.kill('SIGCONT');
    program.kill('SIGKILL');
    if (program.exitCode === null && program.signalCode === null) await gone;
  }
  rmSync(dir, { recursive: true, force: true });
});

async function freeUdpPort(): Promise<number> {
  const socket = createSocket('udp4');
  socket.bind(0, '127.0.0.1');
  await once(socket, 'listening');
  const { port } = socket.address();
  socket.close();
  await once(socket, 'close');
  return port;
}

interface Bmc {
  readonly spec: PowerSpec;
  readonly controller: PowerController;
  readonly process: ChildProcess;
  readonly power: () => string;
}

/** @param set what the chassis does with "set $2 $3": set power 0, set shutdown 1 */
async function bmc(set = 'echo "$3" > "$state"'): Promise<Bmc> {
  const state = join(dir, 'state');
  const chassis = join(dir, 'chassis');
  const passwordFile = join(dir, 'password');
  writeFileSync(state, '1\n');
  writeFileSync(passwordFile, `${password}\n`, { mode: 0o600 });
  const words = [`state='${state}'`, `case "$1" in get) echo "power:$(cat "$state")" ;; set) ${set} ;; esac`];
  writeChassisProgram(chassis, words);
  const port = await freeUdpPort();
  const address = '127.0.0.1';
  const sim = bmcCommand({ directory: join(dir, 'bmc'), name: 'h1', address, port, password, chassis });
  if (!sim.ok) throw new Error(sim.reason);
  const process = spawn(sim.command, sim.args, { stdio: 'ignore' });
  programs.push(process);
  const spec = { kind: 'ipmi', address, port, user: 'admin', passwordFile } as const;
  await until(async () => (await open(spec).read(signal)).state === 'on');
  return { spec, controller: open(spec), process, power: () => readFileSync(state, 'utf8').trim() };
}

async function until(look: () => Promise<boolean>): Promise<void> {
  for (let attempt = 0; attempt < 20; attempt++) if (await look()) return;
  throw new Error('ipmi_sim does not answer');
}

describe.skipIf(leftOut)('a host with an IPMI controller', () => {
  test('reads on, is switched off, reads off, and is switched on again', async () => {
    const { controller, power } = await bmc();
    expect(await controller.read(signal)).toEqual({ state: 'on' });
    expect(await controller.off(signal)).toEqual({ state: 'off' });
    expect(power()).toBe('0');
    expect(await controller.read(signal)).toEqual({ state: 'off' });
    expect(await controller.off(signal)).toEqual({ state: 'off' });
    expect(await controller.on(signal)).toEqual({ state: 'on' });
    expect(power()).toBe('1');
  });

  test('shuts down by its power button, in its own time, and is switched on again: both are read back', async () => {
    // ipmi_sim says `set shutdown 1` for the button.
    const { controller, power } = await bmc(
      'if [ "$2" = shutdown ]; then (sleep 1; echo 0 > "$state") > /dev/null 2>&1 & else echo "$3" > "$state"; fi',
    );
    expect(await controller.shutDown(signal)).toEqual({ state: 'on' });
    await until(async () => {
      await systemClock.sleep(100);
      return (await controller.read(signal)).state === 'off';
    });
    expect(power()).toBe('0');
    expect(await controller.on(signal)).toEqual({ state: 'on' });
  });

  test('says nothing of watts where its BMC has no meter', async () => {
    const { controller } = await bmc();
    expect(await controller.watts?.(signal)).toBeNull();
  });

  test('is not off while its BMC only said so', async () => {
    const { controller } = await bmc(':');
    expect(await controller.off(signal)).toEqual({ state: 'on' });
  });

  test('is off when it took its time', async () => {
    const { controller } = await bmc('(sleep 2; echo "$3" > "$state") > /dev/null 2>&1 &');
    expect(await controller.off(signal)).toEqual({ state: 'off' });
  });

  test('says that the password is wrong, at once', async () => {
    const { spec } = await bmc();
    const passwordFile = join(dir, 'wrong');
    writeFileSync(passwordFile, 'nonsense\n');
    const startedAt = performance.now();
    const reading = await open({ ...spec, passwordFile }).off(signal);
    expect(reading).toMatchObject({ state: 'unknown', says: expect.stringContaining('HMAC is invalid') });
    expect(performance.now() - startedAt).toBeLessThan(4_000);
  });

  test('says that there is no such user', async () => {
    const { spec } = await bmc();
    const reading = await open({ ...spec, user: 'nobody' }).read(signal);
    expect(reading).toMatchObject({ state: 'unknown', says: expect.stringContaining('unauthorized name') });
  });

  test('is on, with the words of its BMC, when that refuses', async () => {
    const { controller } = await bmc('exit 1');
    const reading = await controller.off(signal);
    expect(reading).toMatchObject({ state: 'on', says: expect.stringContaining('Down/Off failed') });
  });

  test('is unknown while its BMC hangs, and read again when it wakes', async () => {
    const { controller, process } = await bmc();
    process.kill('SIGSTOP');
    expect((await controller.read(signal)).state).toBe('unknown');
    process.kill('SIGCONT');
    const reading: PowerReading = await controller.read(signal);
    expect(reading).toEqual({ state: 'on' });
  });

  test('is unknown where nothing answers, within the time for one reading', async () => {
    const { spec } = await bmc();
    const port = await freeUdpPort();
    const startedAt = performance.now();
    expect((await open({ ...spec, port } as PowerSpec).read(signal)).state).toBe('unknown'); // the cast: it is the same kind
    expect(performance.now() - startedAt).toBeLessThan(6_000);
  });

  test('says that the password file is missing, and asks nobody for a password', async () => {
    const { spec } = await bmc();
    const reading = await open({ ...spec, passwordFile: join(dir, 'none') }).read(signal);
    expect(reading).toMatchObject({ state: 'unknown', says: expect.stringContaining('password file cannot be read') });
  });

  test('stops when it is told to', async () => {
    const { controller, process } = await bmc();
    process.kill('SIGSTOP');
    const stop = new AbortController();
    const asked = controller.read(stop.signal);
    stop.abort(new Error('enough'));
    await expect(asked).rejects.toThrow('enough');
  });
});
