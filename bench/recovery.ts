/**
 * `bench recovery`: a host with five guests loses its power, with a BMC that answers and with the lease alone; how long until each
 * answers again from outside, and what the time went to. The hosts take turns at being lost, so that guests need not be moved back.
 */
import { loseHost, type Outage, type Restarted } from '../src/lab/outage.ts';
import { mend } from '../src/lab/break.ts';
import { addressesOf } from '../src/lab/state.ts';
import { guestOf, type LabGuest } from '../src/lab/guests.ts';
import { systemClock } from '../src/runtime/clock.ts';
import { otherHost, type BenchHost } from './contestant.ts';
import { createDroverVm } from './drover.ts';
import { aimText, spread, spreadText, table, type Aim } from './figures.ts';
import { load, machineOf, machineText, onStage, type Machine, type Stage, type StageOptions } from './stage.ts';

const guests = 5;
const guestMemoryMiB = 128;
const bootAtOnce = 2;
const backWithinMs = 30_000;

const ways = { 'power controller': 'reachable', 'lease alone': 'dead' } as const;
export type Way = keyof typeof ways;
/** Until the order to start, in seconds. */
const aimSeconds: Readonly<Record<Way, number>> = { 'power controller': 5, 'lease alone': 20 };

export interface RecoveryBenchOptions extends StageOptions {
  /** Losses of each way. */
  readonly rounds: number;
}

export interface Loss extends Outage {
  readonly way: Way;
  readonly host: BenchHost;
}

export interface RecoveryResult {
  readonly machine: Machine;
  readonly losses: readonly Loss[];
}

export function benchRecovery(options: RecoveryBenchOptions): Promise<RecoveryResult> {
  const loadBefore = load();
  return onStage(options, async (stage) => {
    let host: BenchHost = 'h1';
    const running = await boot(stage, host);
    const losses: Loss[] = [];
    for (let round = 1; round <= options.rounds; round++) {
      for (const [way, bmc] of Object.entries(ways) as [Way, (typeof ways)[Way]][]) {
        stage.say(`round ${round}, ${way}: ${host} loses its power…`);
        losses.push({ way, host, ...(await loseHost(stage.lab, { host, bmc }, running, stage.signal)) });
        await back(stage);
        host = otherHost(host);
      }
    }
    return { machine: machineOf(stage, loadBefore), losses };
  });
}

async function boot({ lab, say, signal }: Stage, host: BenchHost): Promise<LabGuest[]> {
  say(`booting ${guests} guests on ${host}…`);
  const running: LabGuest[] = [];
  for (let first = 1; first <= guests; first += bootAtOnce) {
    const numbers = Array.from({ length: Math.min(bootAtOnce, guests - first + 1) }, (_, i) => first + i);
    const some = numbers.map(async (number) => {
      const wanted = { name: `vm${number}`, number, memoryMiB: guestMemoryMiB, fillMiB: 8, host };
      const vm = await createDroverVm(lab, wanted, signal);
      await lab.client.updateVm({ params: { vm: vm.id }, body: { priority: 1000 - 100 * number } }, { signal });
      return { vm, guest: guestOf(lab.state, addressesOf(lab.state.octet).guest(number)) };
    });
    running.push(...(await Promise.all(some)));
  }
  return running;
}

/** Until the host takes guests again. */
async function back({ lab, signal }: Stage): Promise<void> {
  await mend(lab);
  const deadline = performance.now() + backWithinMs;
  while ((await lab.client.listHosts({}, { signal })).some(({ fenced }) => fenced !== null)) {
    if (performance.now() > deadline) throw new Error('the host that was lost does not come back');
    await systemClock.sleep(100, signal);
  }
}

/** True when every guest was started once, on its own disk. */
export function allRestartedWell({ losses }: Pick<RecoveryResult, 'losses'>): boolean {
  return losses.every(({ vms }) => vms.every(({ proof }) => proof.ok));
}

export function recoveryAims({ losses }: Pick<RecoveryResult, 'losses'>): Aim[] {
  return (Object.keys(ways) as Way[]).map((way) => {
    const worst = losses
      .filter((loss) => loss.way === way)
      .flatMap(({ vms }) => vms.map(({ detectMs, fenceMs, placeMs }) => (detectMs + fenceMs + placeMs) / 1000));
    return { of: `${way}: detect, fence and place`, reached: spread(worst)?.max, atMost: aimSeconds[way], unit: ' s' };
  });
}

const seconds = (ms: number): string => (ms / 1000).toFixed(2);

export function recoveryText({ machine, losses }: RecoveryResult): string {
  const rows = losses.flatMap(({ way, host, vms }) =>
    vms.map(({ vm, priority, target, detectMs, fenceMs, placeMs, bootMs, totalMs, proof }: Restarted) => [
      way,
      vm,
      `${host} to ${target}`,
      String(priority),
      ...[detectMs, fenceMs, placeMs, bootMs, totalMs].map(seconds),
      proof.says,
    ]),
  );
  const head = ['proof by', 'VM', 'from', 'priority', 'detect s', 'fence s', 'place s', 'boot s', 'total s', 'guest'];
  const totals = (Object.keys(ways) as Way[]).map((way) => {
    const all = losses.filter((loss) => loss.way === way).flatMap(({ vms }) => vms.map(({ totalMs }) => totalMs));
    return `${way}: from power-off to the answer ${spreadText(all)} ms`;
  });
  return [
    machineText(machine),
    `a host with ${guests} guests loses its power; each time from the one before it, from outside`,
    '',
    table(head, rows, 3),
    '',
    ...totals,
    ...recoveryAims({ losses }).map(aimText),
  ].join('\n');
}
