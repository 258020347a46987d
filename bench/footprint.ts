/**
 * `bench footprint`: what an idle server and an agent with ten guests take of memory and CPU while nothing moves. Asks
 * nothing of the server meanwhile.
 */
import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { statFields } from '../src/hypervisor/qemu/process.ts';
import { directoriesOf } from '../src/lab/state.ts';
import { askSupervisor } from '../src/lab/supervise.ts';
import { createDroverVm } from './drover.ts';
import { aimText, table, type Aim } from './figures.ts';
import { load, machineOf, machineText, onStage, type Machine, type Stage, type StageOptions } from './stage.ts';

const guests = 10;
const guestMemoryMiB = 128;
const bootAtOnce = 2;
const settleMs = 10_000;
const kernelTicksPerSecond = 100;
const aims = { server: 150, agent: 120, cpuPercent: 1 } as const;

export interface FootprintOptions extends StageOptions {
  readonly seconds: number;
}

export interface Footprint {
  readonly program: string;
  readonly guests: number;
  readonly residentMiB: number;
  /** Its share of what it shares; null where the kernel does not say. */
  readonly proportionalMiB: number | null;
  /** Of one core. */
  readonly cpuPercent: number;
}

export interface FootprintResult {
  readonly machine: Machine;
  readonly seconds: number;
  readonly programs: readonly Footprint[];
}

export function benchFootprint(options: FootprintOptions): Promise<FootprintResult> {
  const loadBefore = load();
  return onStage(options, async (stage) => {
    await boot(stage);
    const programs = await programsOf(stage);
    stage.say(`measuring for ${options.seconds} s…`);
    await sleep(settleMs, undefined, { signal: stage.signal });
    const before = programs.map(({ pid }) => cpuSeconds(pid));
    const began = performance.now();
    await sleep(options.seconds * 1000, undefined, { signal: stage.signal });
    const elapsed = (performance.now() - began) / 1000;
    const measured = programs.map(({ program, pid, hasGuests }, index) => ({
      program,
      guests: hasGuests,
      ...memoryOf(pid),
      cpuPercent: (100 * (cpuSeconds(pid) - (before[index] ?? 0))) / elapsed,
    }));
    return { machine: machineOf(stage, loadBefore), seconds: options.seconds, programs: measured };
  });
}

async function boot({ lab, say, signal }: Stage): Promise<void> {
  say(`booting ${guests} guests on h1…`);
  for (let first = 1; first <= guests; first += bootAtOnce) {
    const numbers = Array.from({ length: Math.min(bootAtOnce, guests - first + 1) }, (_, i) => first + i);
    await Promise.all(
      numbers.map((number) =>
        createDroverVm(lab, { name: `g${number}`, number, memoryMiB: guestMemoryMiB, fillMiB: 8, host: 'h1' }, signal),
      ),
    );
  }
}

async function programsOf({ lab }: Stage) {
  const children = await askSupervisor(directoriesOf(lab.state.name).supervisorSocket, { do: 'status' });
  return (children ?? []).flatMap(({ name, pid }) => {
    if (pid === null) return [];
    const program = name === 'server' ? 'server' : `agent ${name}`;
    return [{ program, pid, hasGuests: name === 'h2' ? 0 : guests }];
  });
}

function cpuSeconds(pid: number): number {
  const fields = statFields(pid);
  if (!fields) throw new Error(`process ${pid} ended while it was measured`);
  return (Number(fields[11]) + Number(fields[12])) / kernelTicksPerSecond;
}

function memoryOf(pid: number): Pick<Footprint, 'residentMiB' | 'proportionalMiB'> {
  const kib = (path: string, name: string) => {
    const line = readFileSync(path, 'utf8')
      .split('\n')
      .find((each) => each.startsWith(`${name}:`));
    return Number(/(\d+)/.exec(line ?? '')?.[1]);
  };
  let proportionalMiB: number | null = null;
  try {
    proportionalMiB = kib(`/proc/${pid}/smaps_rollup`, 'Pss') / 1024;
  } catch {
    // Not every kernel lets it be read.
  }
  return { residentMiB: kib(`/proc/${pid}/status`, 'VmRSS') / 1024, proportionalMiB };
}

/** The agent without guests is shown beside the other, without an aim. */
function aimsFor({ program, guests: has, residentMiB, cpuPercent }: Footprint): Aim[] {
  if (program !== 'server' && has === 0) return [];
  const atMost = program === 'server' ? aims.server : aims.agent;
  return [
    { of: `${program}, memory`, reached: residentMiB, atMost, unit: ' MiB' },
    { of: `${program}, CPU`, reached: cpuPercent, atMost: aims.cpuPercent, unit: ' % of a core' },
  ];
}

export function footprintText({ machine, seconds, programs }: FootprintResult): string {
  const rows = programs.map(({ program, guests: has, residentMiB, proportionalMiB, cpuPercent }) => [
    program,
    program === 'server' ? `${has} in the fleet` : String(has),
    residentMiB.toFixed(0),
    proportionalMiB?.toFixed(0) ?? '-',
    cpuPercent.toFixed(2),
  ]);
  return [
    machineText(machine),
    `nothing moves; over ${seconds} s`,
    '',
    table(['program', 'guests', 'RSS MiB', 'PSS MiB', 'CPU % of a core'], rows),
    '',
    ...programs.flatMap((each) => aimsFor(each).map(aimText)),
  ].join('\n');
}
