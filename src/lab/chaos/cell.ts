/**
 * One cell of the kill matrix on a lab that is up: a guest moves, something is struck in the phase that is wanted, everything is
 * mended after its time, and then the guest must be on exactly one host, whole, with nothing left over.
 *
 *     guest ready -> link slowed -> move -> moment -> strike -> held -> mended -> ended -> guest runs -> checked -> clean
 */
import { messageOf, UserError } from '../../model/failure.ts';
import type { PhaseName } from '../../model/migration.ts';
import type { MigrateBody, MigrationView, VmView } from '../../wire/endpoints.ts';
import { disturb, mend, startServer, type Disturbance } from '../break.ts';
import { untilClean } from '../clean.ts';
import { guestFiles } from '../guest/files.ts';
import type { GuestClient, GuestStatus } from '../guest/guest-client.ts';
import { createLabVm, guestOf, guestProcesses, vmState, type LabGuest } from '../guests.ts';
import { migrationEnded } from '../moves.ts';
import { shape } from '../network.ts';
import { startProbe, type Probe } from '../probe/probe.ts';
import { endAll, processId } from '../processes.ts';
import { hostNames, namesOf } from '../state.ts';
import type { Lab } from '../up.ts';
import { mayHaveRestarted, phasesBetween, type Cell, type Strike } from './cells.ts';
import { Moment } from './moment.ts';

const guestName = 'chaos';
/** Small, so that boots are short; it writes more than a slow link carries at once, so that a hybrid has a rest to fetch. */
const guestSettings = {
  memoryMiB: 160,
  fillMiB: 24,
  load: { pagesPerSecond: 2000, setMiB: 16 },
  diskWritesPerSecond: 20,
} as const;
const tries = 3;
const momentMs = 40_000;
const appearMs = 5000;
const endedMs = 90_000;
const runsMs = 90_000;
const doctorMs = 20_000;
const pollMs = 50;

export interface CellResult {
  readonly cell: Cell;
  readonly ok: boolean;
  /** What is wrong, in words; null where nothing is. */
  readonly wrong: string | null;
  /** The phases between the beginning and the end of the strike; the first is the one that was hit. Empty: nothing was struck. */
  readonly hit: readonly PhaseName[];
  /** How the move ended, e.g. "completed" or "failed (target-died), on-source". */
  readonly ended: string;
  /** The host where the guest is, and whether that is the move's source, its target or neither. */
  readonly guest: string;
  /** Longest silence seen from outside, from the order to move until the guest was checked. */
  readonly interruptionMs: number | null;
  /** What the guest said of itself. */
  readonly verified: string;
  readonly tookMs: number;
}

type Told = Omit<CellResult, 'cell' | 'tookMs' | 'ok' | 'wrong'>;

/** A cell that fails is a result. @throws only the signal's reason; the lab may then be in any state */
export async function runCell(lab: Lab, cell: Cell, signal?: AbortSignal): Promise<CellResult> {
  const startedAt = performance.now();
  const told: { -readonly [K in keyof Told]: Told[K] } = {
    hit: [],
    ended: '-',
    guest: '-',
    interruptionMs: null,
    verified: '-',
  };
  let wrong: string | null = null;
  try {
    for (let i = 1; i <= tries; i++) {
      await attempt(lab, cell, told, signal);
      if (told.hit[0] === cell.phase) break;
    }
  } catch (error) {
    signal?.throwIfAborted();
    wrong = messageOf(error);
  } finally {
    // An interrupted lab is taken down.
    if (!signal?.aborted)
      await mend(lab).catch((error: unknown) => {
        wrong ??= `the lab cannot be mended: ${messageOf(error)}`;
      });
  }
  return { cell, ...told, ok: wrong === null, wrong, tookMs: performance.now() - startedAt };
}

/** One move. What is learnt is told as it is learnt, so that a failure still says how far it came. @throws Error with what is wrong */
async function attempt(
  lab: Lab,
  cell: Cell,
  told: { -readonly [K in keyof Told]: Told[K] },
  signal: AbortSignal | undefined,
): Promise<void> {
  const { client } = lab;
  const test = await readyGuest(lab, signal);
  const before = await test.guest.status();
  const source = test.vm.host;
  const target = hostNames(lab.state.hosts).find((host) => host !== source) ?? source;
  const moment = new Moment(lab, cell);
  const probe = startProbe({
    binary: guestFiles().probe,
    netns: namesOf(lab.state.name).client,
    address: test.vm.address ?? '',
    ...(signal && { signal }),
  });
  try {
    await moment.begin(test.vm.id, source);
    await shape({ ...lab.state, linkSpeed: speedFor(cell) });
    const orderedAt = Date.now();
    const migration = await client.migrateVm({
      params: { vm: test.vm.id },
      body: { to: target, technique: cell.technique, policy: policyFor(cell) },
    });
    moment.ordered(migration);
    const struck = await strikeAt(lab, cell, migration, moment);
    await shape(lab.state);
    if (struck) await untilItPasses(lab, cell.strike, migration, signal);
    await mend(lab);
    const ended = await migrationEnded(client, migration.id, { timeoutMs: endedMs, signal });
    told.hit = struck ? phasesBetween(moment.seen(ended), struck.fromMs, struck.untilMs) : [];
    told.ended = endOf(ended);
    const vm = await runsAgain(lab, test.vm.id, signal);
    told.guest = `${vm.host} (${vm.host === target ? 'target' : vm.host === source ? 'source' : 'elsewhere'})`;
    told.verified = await check(
      test.guest,
      before,
      mayHaveRestarted(cell, { hit: told.hit, sent: moment.hasSeen('sent') }),
      signal,
    );
    told.interruptionMs = await interruption(probe, orderedAt);
    await onlyOnce(lab, vm);
    await untilClean(lab);
    await doctorIsContent(lab);
  } finally {
    moment.end();
    await probe.stop();
  }
}

/** The guest of all cells, running and well; one that an earlier cell left dead is made anew. */
async function readyGuest(lab: Lab, signal: AbortSignal | undefined): Promise<LabGuest> {
  const { client } = lab;
  const known = (await client.listVms()).find(({ name }) => name === guestName);
  if (known?.state === 'running') {
    const guest = guestOf(lab.state, known.address ?? '');
    await guest.waitReady({ timeoutMs: runsMs, ...(signal && { signal }) });
    return { vm: known, guest };
  }
  if (known) {
    await client.deleteVm({ params: { vm: known.id }, query: { disks: 'delete' } });
    await until(`${guestName} to be gone`, async () => !(await client.listVms()).some(({ id }) => id === known.id));
  }
  return createLabVm(lab, { ...guestSettings, name: guestName }, signal);
}

/** Slow enough for the phase to last until it is struck. */
function speedFor({ technique, phase }: Cell): string {
  if (technique === 'cold' || phase === 'reserved') return '1gbit';
  if (technique === 'post-copy') return phase === 'pre-paging' ? '50mbit' : '20mbit';
  return phase === 'warming-up' ? '100mbit' : '300mbit';
}

function policyFor({ technique }: Cell): NonNullable<MigrateBody['policy']> {
  // A guest that does not converge shall pause; what is struck is the question, not whether it is fast enough.
  return technique === 'pre-copy' ? { whenNotConverging: 'pause' } : {};
}

interface Struck {
  readonly fromMs: number;
  readonly untilMs: number;
}

/** @returns undefined when the phase never came, or what was to be struck was gone */
async function strikeAt(
  lab: Lab,
  { strike, phase }: Cell,
  migration: MigrationView,
  moment: Moment,
): Promise<Struck | undefined> {
  const blow = (disturbance: Disturbance) => () => disturb(lab, disturbance);
  const { source } = migration;
  if (strike === 'source-power-unheard') {
    if (!(await moment.reached('warming-up', momentMs))) return undefined;
    await disturb(lab, { kind: 'kill-server', afterwards: 'hold' });
    // Post-copy: with the last page on the target, or the source takes the only complete memory with it.
    if (!(await moment.saw('ran', momentMs)) || !(await moment.saw('sent', momentMs))) return undefined;
    return timed(blow({ kind: 'power-off', host: source, bmc: 'reachable' }));
  }
  if (strike === 'source-power-before-go') {
    if (!(await moment.saw('paused', momentMs))) return undefined;
    await disturb(lab, { kind: 'freeze-agent', host: source });
    if (!(await moment.saw('sent', momentMs))) return undefined;
    return timed(blow({ kind: 'power-off', host: source, bmc: 'reachable' }));
  }
  const act = blows(strike, migration, blow);
  if (!(await moment.reached(phase, momentMs))) return undefined;
  if (strike !== 'source-qemu' && strike !== 'target-qemu') return act && timed(act);
  const pid = await moment.pidOf(strike === 'source-qemu' ? 'source' : 'target', appearMs);
  const id = pid === undefined ? undefined : processId(pid);
  // A guest that shuts down at once takes its QEMU with it, faster than it can be struck.
  if (id === undefined) return undefined;
  return timed(() => endAll([id], 0));
}

function blows(
  strike: Strike,
  { source, target }: MigrationView,
  blow: (disturbance: Disturbance) => () => Promise<void>,
): (() => Promise<void>) | undefined {
  switch (strike) {
    case 'source-agent':
    case 'target-agent':
      return blow({ kind: 'kill-agent', host: strike === 'source-agent' ? source : target, afterwards: 'restart' });
    case 'source-agent-away':
    case 'target-agent-away':
      return blow({ kind: 'kill-agent', host: strike === 'source-agent-away' ? source : target, afterwards: 'hold' });
    case 'server':
      return blow({ kind: 'kill-server', afterwards: 'restart' });
    case 'migration-link':
      return blow({ kind: 'cut-link', host: target, link: 'migration' });
    case 'source-control':
    case 'target-control':
      return blow({ kind: 'cut-link', host: strike === 'source-control' ? source : target, link: 'control' });
    case 'source-power':
    case 'target-power':
      return blow({ kind: 'power-off', host: strike === 'source-power' ? source : target, bmc: 'reachable' });
    case 'source-guard':
      return blow({ kind: 'kill-guard', host: source, afterwards: 'restart' });
    case 'source-qemu':
    case 'target-qemu':
    case 'source-power-unheard':
    case 'source-power-before-go':
      return undefined; // done by their own means
  }
}

async function timed(act: () => Promise<void>): Promise<Struck> {
  const fromMs = Date.now();
  await act();
  return { fromMs, untilMs: Date.now() };
}

/** The time a strike lasts. Power stays off until the fleet has done without the host: nothing may need it back. */
async function untilItPasses(
  lab: Lab,
  strike: Strike,
  { id, vm }: MigrationView,
  signal: AbortSignal | undefined,
): Promise<void> {
  const lastsMs = {
    'migration-link': 5000,
    'source-control': 6000,
    'target-control': 6000,
    'source-agent-away': 60_000,
    'target-agent-away': 60_000,
  } as const satisfies Partial<Record<Strike, number>>;
  if (strike in lastsMs) return pause(lastsMs[strike as keyof typeof lastsMs], signal);
  if (!strike.includes('power')) return;
  if (strike === 'source-power-unheard') await startServer(lab);
  await migrationEnded(lab.client, id, { timeoutMs: endedMs, signal });
  await vmState(lab.client, vm, ['running'], runsMs, signal);
}

function endOf({ phase, failure, guest }: MigrationView): string {
  if (phase !== 'failed') return phase;
  return `failed (${failure === null ? '?' : failure.code}), ${guest ?? '?'}`;
}

/** One whose QEMU was killed is for a person to start: `drover vm start`. */
async function runsAgain(lab: Lab, id: string, signal: AbortSignal | undefined): Promise<VmView> {
  const { client } = lab;
  const vm = await vmState(client, id, ['running', 'crashed', 'stopped'], runsMs, signal);
  if (vm.state === 'running') return vm;
  // Right after the end of its move the other host may not have said yet that it holds nothing: until then it is refused.
  await until(`${guestName} to be started`, async () => {
    try {
      await client.startVm({ params: { vm: id }, body: {} });
      return true;
    } catch (error) {
      if (error instanceof UserError && error.code === 'busy') return false;
      throw error;
    }
  });
  return vmState(client, id, ['running'], runsMs, signal);
}

/** Asks the guest. @throws Error with what it lost */
async function check(
  guest: GuestClient,
  before: GuestStatus,
  mayRestart: boolean,
  signal: AbortSignal | undefined,
): Promise<string> {
  const status = await guest.waitReady({ timeoutMs: runsMs, ...(signal && { signal }) });
  const checked = await guest.verify({ ...(signal && { signal }) });
  const wrong: string[] = [];
  if (checked.badPages > 0) wrong.push(`${checked.badPages} of ${checked.pages} pages wrong`);
  if (checked.badBlocks > 0) wrong.push(`${checked.badBlocks} of ${checked.blocks} disk blocks wrong`);
  if (checked.diskErrors > 0) wrong.push(`${checked.diskErrors} disk errors`);
  if (!checked.ok && wrong.length === 0) wrong.push('check not finished');
  const restarted = checked.bootId !== before.bootId;
  if (restarted && !mayRestart) wrong.push('guest was started again although its memory was whole');
  if (restarted) {
    const { found, bad, blocks } = status.diskAtBoot;
    // Killed without a chance to seal its ledger, a guest can say of its disk that it is the same one, booted once more.
    if (found !== 'sealed' && found !== 'unsealed') wrong.push(`disk ${found} at boot`);
    if (bad > 0) wrong.push(`${bad} of ${blocks} disk blocks wrong at boot`);
    if (found === 'sealed' && status.diskAtBoot.sequence < before.disk.sequence) wrong.push('disk writes lost');
    if (status.boots !== before.boots + 1) wrong.push(`booted ${status.boots - before.boots} times`);
  } else if (checked.diskSequence < before.disk.sequence) wrong.push('disk writes lost');
  if (wrong.length > 0) throw new Error(`the guest: ${wrong.join(', ')}`);
  return restarted ? `disk (${status.diskAtBoot.found}), booted once` : 'memory and disk';
}

async function interruption(probe: Probe, fromMs: number): Promise<number | null> {
  await probe.waitForReply(AbortSignal.timeout(runsMs));
  return probe.longestGap(fromMs, Date.now());
}

async function onlyOnce(lab: Lab, vm: VmView): Promise<void> {
  await until(`exactly one QEMU of ${vm.name}, on ${vm.host}`, async () => {
    const found = await guestProcesses(lab.state, vm.id);
    return found.length === 1 && found[0]?.host === vm.host;
  });
}

async function doctorIsContent(lab: Lab): Promise<void> {
  let says = '';
  await until(
    'drover doctor to find no error',
    async () => {
      const errors = (await lab.client.checkFleet()).filter(({ severity }) => severity === 'error');
      says = errors.map((each) => `${each.about}: ${each.says}`).join('; ');
      return errors.length === 0;
    },
    doctorMs,
  ).catch((cause: unknown) => {
    throw new Error(`drover doctor: ${says}`, { cause });
  });
}

async function until(what: string, is: () => Promise<boolean>, timeoutMs = 15_000): Promise<void> {
  const deadline = performance.now() + timeoutMs;
  while (!(await is())) {
    if (performance.now() > deadline) throw new Error(`waited ${timeoutMs} ms in vain for ${what}`);
    await pause(pollMs);
  }
}

function pause(ms: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, ms);
    signal?.addEventListener('abort', () => (clearTimeout(timer), resolve()), { once: true });
  });
}
