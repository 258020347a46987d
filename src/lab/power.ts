/**
 * The power of the lab's hosts. Off: everything of the host is dead at once (SIGKILL to every process in its namespace), its links
 * are down, and what lives in a machine's memory is gone: taps, /run. On: its links are up and it has a new boot id, as after a boot; its
 * programs are started by the supervisor.
 *
 * A host's BMC (bmc.ts) is an `ipmi_sim` at the switch with an address of its own, so it answers while its host is off:
 *
 *     ipmitool -> ipmi_sim -> chassis program --reads--> hN.state   (written here)
 *                                            --writes-> hN.wish    (seen by `followWishes`, within the supervisor)
 *
 * Not here: what is started again and when (supervise.ts).
 */
import { randomBytes, randomUUID } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, watch, writeFileSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import type { Log } from '../runtime/log.ts';
import { bmcCommand, bmcUser, quoted, writeChassisProgram } from './bmc.ts';
import { batch, run } from './exec.ts';
import { tapsOn } from './network.ts';
import { endAll, processId } from './processes.ts';
import { addressesOf, directoriesOf, hostNames, namesOf, runDirectoryOf, writeJson, type LabState } from './state.ts';
import type { ChildPlan } from './supervise.ts';

export type PowerState = 'on' | 'off';
export const bmcPort = 623;

/** Rounds of killing; new processes appear only while their parents live. */
const killRounds = 20;

export function powerFilesOf(lab: string) {
  const directory = directoriesOf(lab).power;
  const of = (host: string, what: string) => join(directory, `${host}.${what}`);
  return {
    directory,
    password: join(directory, 'password'),
    /** 1 or 0, for the chassis program. */
    state: (host: string) => of(host, 'state'),
    wish: (host: string) => of(host, 'wish'),
    bootId: (host: string) => of(host, 'boot-id'),
    chassis: (host: string) => of(host, 'chassis'),
    bmc: (host: string) => of(host, 'bmc'),
  };
}

/** What the supervisor calls the BMC of a host. */
export function bmcOf(host: string): string {
  return `${host}-bmc`;
}

/** Makes what is not there yet: hosts begin switched on, and keep their boot id while they are. */
export function preparePower(state: Pick<LabState, 'name' | 'hosts'>): void {
  const files = powerFilesOf(state.name);
  mkdirSync(files.directory, { recursive: true, mode: 0o700 });
  if (!existsSync(files.password)) {
    writeFileSync(files.password, `${randomBytes(8).toString('hex')}\n`, { mode: 0o600 });
  }
  for (const host of hostNames(state.hosts)) {
    if (!existsSync(files.bootId(host))) writeFileSync(files.bootId(host), `${randomUUID()}\n`);
    if (!existsSync(files.state(host))) writeFileSync(files.state(host), '1\n');
  }
}

export function powerOf(lab: string, host: string): PowerState {
  const file = powerFilesOf(lab).state(host);
  return existsSync(file) && readFileSync(file, 'utf8').trim() === '0' ? 'off' : 'on';
}

/** One BMC per host, as the supervisor's children. @returns why there are none, where ipmi_sim is not there */
export function bmcPlans(state: LabState): { ok: true; plans: ChildPlan[] } | { ok: false; reason: string } {
  const files = powerFilesOf(state.name);
  const { logs } = directoriesOf(state.name);
  const addresses = addressesOf(state.octet);
  const password = readFileSync(files.password, 'utf8').trim();
  const plans: ChildPlan[] = [];
  for (const host of hostNames(state.hosts)) {
    const wish = quoted(files.wish(host));
    // Words behind the program: get power, set power 0, or set shutdown 1. Written aside and moved, so that no half wish is read.
    writeChassisProgram(files.chassis(host), [
      'case "$1 $2" in',
      `"get power") read -r power < ${quoted(files.state(host))}; echo "power:$power" ;;`,
      // Its power button: nothing shuts down here that would take its time.
      `"set shutdown") echo 0 > ${wish}.new && mv ${wish}.new ${wish} ;;`,
      `"set power") echo "$3" > ${wish}.new && mv ${wish}.new ${wish} ;;`,
      '*) exit 1 ;;',
      'esac',
    ]);
    const directory = files.bmc(host);
    const bmc = bmcCommand({
      directory,
      name: host,
      address: addresses.bmc(host),
      port: bmcPort,
      password,
      chassis: files.chassis(host),
    });
    if (!bmc.ok) return bmc;
    const inSwitch = ['netns', 'exec', namesOf(state.name).switch];
    // It says nothing by itself when it is there; whoever asks it tries again.
    const shell = ['sh', '-c', 'echo "bmc starts"; exec "$@"', 'sh', bmc.command, ...bmc.args];
    plans.push({
      name: bmcOf(host),
      command: 'ip',
      args: [...inSwitch, ...shell],
      readyLine: 'bmc starts',
      log: join(logs, `${bmcOf(host)}.log`),
    });
  }
  return { ok: true, plans };
}

/** How the server reaches the BMC of a host. */
export function bmcSpec(state: LabState, host: string) {
  return {
    kind: 'ipmi',
    address: addressesOf(state.octet).bmc(host),
    port: bmcPort,
    user: bmcUser,
    passwordFile: powerFilesOf(state.name).password,
  } as const;
}

/** The plug is pulled: at the end nothing of the host lives, and its BMC reads off. */
export async function cutPower(lab: string, host: string): Promise<void> {
  const namespace = namesOf(lab).host(host);
  const switchPorts = ['ctl', 'gst', 'mig'].map((kind) => `link set ${kind}-${host} down`);
  // Together: what is still alive for a moment cannot tell anybody.
  await Promise.all([batch('ip', switchPorts, namesOf(lab).switch), killInside(namespace)]);
  const taps = await tapsOn(lab, host);
  await batch(
    'ip',
    taps.map((tap) => `link del ${tap}`),
    namespace,
  );
  const runDirectory = runDirectoryOf(directoriesOf(lab).host(host));
  const parent = dirname(runDirectory);
  for (const entry of existsSync(parent) ? readdirSync(parent) : []) {
    const mine = entry === basename(runDirectory) || entry.startsWith(`${basename(runDirectory)}.`);
    if (mine) rmSync(join(parent, entry), { recursive: true, force: true });
  }
  writeState(lab, host, 'off');
}

/** A boot, as far as it is not programs. */
export async function restorePower(lab: string, host: string): Promise<void> {
  writeFileSync(powerFilesOf(lab).bootId(host), `${randomUUID()}\n`);
  const switchPorts = ['ctl', 'gst', 'mig'].map((kind) => `link set ${kind}-${host} up`);
  await batch('ip', switchPorts, namesOf(lab).switch);
  writeState(lab, host, 'on');
}

/**
 * Calls `fn` with what BMCs were told to do, until `signal`. The file system's notice may be late or come twice; the wish itself is
 * read and taken away.
 */
export function followWishes(
  lab: string,
  fn: (host: string, state: PowerState) => Promise<void>,
  { log, signal }: { log: Log; signal: AbortSignal },
): void {
  const files = powerFilesOf(lab);
  const look = (host: string): void => {
    const file = files.wish(host);
    if (!existsSync(file)) return;
    const state = readFileSync(file, 'utf8').trim() === '0' ? 'off' : 'on';
    rmSync(file, { force: true });
    log.warn({ host, state }, 'its BMC was told to switch it');
    fn(host, state).catch((error: unknown) => log.error({ host, state, error }, 'it could not be switched'));
  };
  watch(files.directory, { signal }, (_, name) => {
    if (name?.endsWith('.wish')) look(name.slice(0, -'.wish'.length));
  });
}

async function killInside(namespace: string): Promise<void> {
  for (let round = 0; round < killRounds; round++) {
    const text = await run('ip', ['netns', 'pids', namespace]);
    const inside = text.split(/\s+/).flatMap((pid) => (pid === '' ? [] : (processId(Number(pid)) ?? [])));
    if (inside.length === 0) return;
    await endAll(inside, 0);
  }
  throw new Error(`processes appear in ${namespace} faster than they can be ended`);
}

function writeState(lab: string, host: string, state: PowerState): void {
  writeJson(powerFilesOf(lab).state(host), state === 'on' ? 1 : 0);
}
