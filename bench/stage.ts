/** The lab a benchmark runs in: of its own name, so that it never meets another, and gone afterwards whatever happens. */
import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { cpus, loadavg } from 'node:os';
import { join } from 'node:path';
import { detectAccel, locateQemu, type QemuInstallation } from '../src/hypervisor/qemu/locate.ts';
import { down, keepLogs } from '../src/lab/down.ts';
import { directoriesOf, labsDirectory, readState, repository } from '../src/lab/state.ts';
import { statusOf } from '../src/lab/status.ts';
import { up, type Lab } from '../src/lab/up.ts';
import { UserError } from '../src/model/failure.ts';

export interface Stage {
  readonly lab: Lab;
  readonly qemu: QemuInstallation;
  readonly say: (line: string) => void;
  readonly signal: AbortSignal;
}

export interface StageOptions {
  readonly name: string;
  readonly say: (line: string) => void;
  readonly signal: AbortSignal;
}

/** @throws UserError already-exists when a lab of that name works: it is somebody's */
export async function onStage<T>(options: StageOptions, play: (stage: Stage) => Promise<T>): Promise<T> {
  const { name, say, signal } = options;
  const status = await statusOf(name);
  if (status.up) {
    throw new UserError(
      'already-exists',
      `A lab named '${name}' is up already; another benchmark may run in it.`,
      `Take it down with drover lab down --name ${name}, or use another name: --lab bench2`,
    );
  }
  if (readState(name) || status.trouble.length > 0) await down(name, say);
  const qemu = await locateQemu({ env: process.env, repoRoot: repository });
  if (!qemu.ok) throw new UserError('unavailable', `There is no QEMU to use: ${qemu.reason}.`, 'Run: npm run setup');
  let good = false;
  try {
    const lab = await keepingCliWhereItWas(name, () => up({ name, hosts: 2, linkSpeed: '1gbit', say, signal }));
    const result = await play({ lab, qemu, say, signal });
    good = true;
    return result;
  } finally {
    if (!good && !signal.aborted) say(`logs are kept in ${keepLogs(name)}`);
    await down(name, say);
  }
}

/** The benchmark's lab is nobody's to type at: the command line goes on talking to the one it talked to. */
async function keepingCliWhereItWas<T>(name: string, fn: () => Promise<T>): Promise<T> {
  const current = join(labsDirectory, 'current.json');
  const before = existsSync(current) ? readFileSync(current) : undefined;
  try {
    return await fn();
  } finally {
    // Another lab may have come up meanwhile: only what points at ours is taken back.
    const pointsAtUs = existsSync(current) && readFileSync(current, 'utf8').includes(directoriesOf(name).token);
    if (pointsAtUs && before) writeFileSync(current, before);
    else if (pointsAtUs) rmSync(current, { force: true });
  }
}

export interface Machine {
  readonly cpu: string;
  readonly cores: number;
  readonly qemuVersion: string;
  readonly accel: string;
  /** Over one minute, when the benchmark began and when it ended. */
  readonly loadBefore: number;
  readonly loadAfter: number;
}

export function machineOf({ qemu }: Stage, loadBefore: number): Machine {
  const { major, minor, micro } = qemu.version;
  const all = cpus();
  return {
    cpu: all[0]?.model.trim() ?? 'unknown',
    cores: all.length,
    qemuVersion: `${major}.${minor}.${micro}`,
    accel: detectAccel().accel,
    loadBefore,
    loadAfter: load(),
  };
}

export function machineText({ cpu, cores, qemuVersion, accel, loadBefore, loadAfter }: Machine): string {
  const loads = `load ${loadBefore.toFixed(1)} before, ${loadAfter.toFixed(1)} after`;
  return `${cpu}, ${cores} cores, QEMU ${qemuVersion}, ${accel}; ${loads}`;
}

export function load(): number {
  return loadavg()[0] ?? 0;
}
