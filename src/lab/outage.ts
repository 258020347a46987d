/**
 * A host of the lab loses its power, and everything is timed until each of its guests answers again from outside: by the server's
 * record of the loss, and the guests' own first word. For the scenarios and the benchmark.
 *
 *     power off -> detected -> fenced -> placed -> the guest answers
 */
import { messageOf } from '../model/failure.ts';
import { systemClock } from '../runtime/clock.ts';
import type { RecoveryView } from '../wire/recovery.ts';
import { disturb } from './break.ts';
import { GuestUnreachableError, type GuestClient, type GuestStatus } from './guest/guest-client.ts';
import { guestProcesses, type LabGuest } from './guests.ts';
import type { Proof } from './moves.ts';
import type { Lab } from './up.ts';

const answersMs = 120_000;
const attemptMs = 700;
const pauseMs = 50;
const recordMs = 20_000;

/** Each from the one before it; `totalMs` from the power-off until the guest answered. */
export interface Restarted {
  readonly vm: string;
  readonly priority: number;
  readonly target: string;
  readonly detectMs: number;
  readonly fenceMs: number;
  readonly placeMs: number;
  readonly bootMs: number;
  readonly totalMs: number;
  readonly proof: Proof;
}

export interface Outage {
  readonly recovery: RecoveryView;
  readonly vms: readonly Restarted[];
}

/**
 * Pulls the plug of `host`, on which these guests run, and waits until each answers again.
 * @throws Error when one does not within two minutes
 */
export async function loseHost(
  lab: Lab,
  { host, bmc }: { readonly host: string; readonly bmc: 'reachable' | 'dead' },
  guests: readonly LabGuest[],
  signal: AbortSignal,
): Promise<Outage> {
  const before = await Promise.all(guests.map(({ guest }) => guest.status({ signal })));
  const offAt = Date.now();
  await disturb(lab, { kind: 'power-off', host, bmc });
  const answered = await Promise.all(
    guests.map(async ({ guest }, n) => ({ at: await answersAgain(guest, before[n]?.bootId, signal) })),
  );
  const recovery = await recoveryOf(lab, host, offAt, signal);
  const vms: Restarted[] = [];
  // One after the other: checking takes the cores that the next one boots on.
  for (const [n, { vm, guest }] of guests.entries()) {
    const [was, answer] = [before[n], answered[n]];
    const found = recovery.vms.find((each) => each.vm === vm.id);
    if (!was || !answer || !found || found.placedAt === null) throw new Error(`${vm.name} is not in the record`);
    vms.push({
      vm: vm.name,
      priority: found.priority,
      target: found.target ?? '',
      detectMs: recovery.detectedAt - offAt,
      fenceMs: recovery.fencedAt - recovery.detectedAt,
      placeMs: found.placedAt - recovery.fencedAt,
      bootMs: answer.at - found.placedAt,
      totalMs: answer.at - offAt,
      proof: await proveRestart(guest, was, signal),
    });
  }
  return { recovery, vms };
}

/** Asks until the guest answers with another boot than this. @returns when, ms since 1970 */
export async function answersAgain(
  guest: GuestClient,
  bootId: string | undefined,
  signal: AbortSignal,
): Promise<number> {
  const deadline = performance.now() + answersMs;
  for (;;) {
    const status = await guest.status({ signal, timeoutMs: attemptMs }).catch((error: unknown) => {
      if (error instanceof GuestUnreachableError && !signal.aborted) return undefined;
      throw error;
    });
    if (status && status.bootId !== bootId) return Date.now();
    if (performance.now() > deadline) throw new Error(`no guest answered within ${answersMs} ms as another boot`);
    await systemClock.sleep(pauseMs, signal);
  }
}

/** The newest record of this host's loss that began after `since`, ms since 1970. @throws Error when there is none in time */
async function recoveryOf(lab: Lab, host: string, since: number, signal: AbortSignal): Promise<RecoveryView> {
  const deadline = performance.now() + recordMs;
  for (;;) {
    const all = await lab.client.listRecoveries({}, { signal });
    const found = all.find((each) => each.host === host && each.fencedAt >= since);
    // The server hears of a start when QEMU runs: before the guest answers, but nothing says by how much.
    if (found?.vms.every(({ kind, startedAt }) => kind !== 'restart' || startedAt !== null)) return found;
    if (performance.now() > deadline) throw new Error(`the server has no whole record of how ${host} was lost`);
    await systemClock.sleep(pauseMs, signal);
  }
}

/** Asks the guest: booted exactly once more, on the disk that it had, and everything it has written since is there. */
export async function proveRestart(guest: GuestClient, before: GuestStatus, signal: AbortSignal): Promise<Proof> {
  try {
    const { boots, diskAtBoot, problem } = await guest.waitReady({ signal, timeoutMs: answersMs });
    const checked = await guest.verify({ signal });
    const wrong: string[] = [];
    if (boots !== before.boots + 1) wrong.push(`booted ${boots - before.boots} times`);
    // It did not shut down: what it had not yet sealed tells that it is its own disk, as the count of boots does.
    if (diskAtBoot.found !== 'unsealed' && diskAtBoot.found !== 'sealed') wrong.push(`disk ${diskAtBoot.found}`);
    if (diskAtBoot.bad > 0) wrong.push(`${diskAtBoot.bad} disk blocks wrong at boot`);
    if (problem !== '') wrong.push(problem);
    if (!checked.ok) wrong.push(`${checked.badPages} pages and ${checked.badBlocks} disk blocks wrong`);
    return { ok: wrong.length === 0, says: wrong.join(', ') || 'disk verified' };
  } catch (error) {
    if (signal.aborted) throw error;
    return { ok: false, says: messageOf(error) };
  }
}

/** @throws Error as soon as a VM is seen to have two QEMUs at once, while `fn` runs */
export async function neverTwice<T>(lab: Lab, vms: readonly string[], fn: () => Promise<T>): Promise<T> {
  const over = new AbortController();
  const watch = async (): Promise<void> => {
    while (!over.signal.aborted) {
      for (const vm of vms) {
        const found = await guestProcesses(lab.state, vm);
        if (found.length > 1) throw new Error(`${vm} runs on ${found.map(({ host }) => host).join(' and ')}`);
      }
      await systemClock.sleep(pauseMs, over.signal).catch(() => {});
    }
  };
  const watching = watch();
  try {
    return await Promise.race([fn(), watching.then(() => new Promise<never>(() => {}))]);
  } finally {
    over.abort();
    await watching;
  }
}
