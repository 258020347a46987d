/**
 * `drover lab tour`, what `npm start` runs: a lab, three VMs on two hosts, one busy guest moved by every technique and
 * checked from inside after each, one table, and what the figures say of the theory. Then it stays up until Ctrl-C.
 */
import { UserError, messageOf } from '../model/failure.ts';
import { techniques, type Technique } from '../model/migration.ts';
import { formatBytes, formatMs } from '../model/units.ts';
import type { MigrationView } from '../wire/endpoints.ts';
import { down, keepLogs } from './down.ts';
import { createLabVm, type LabGuest, type LabVm } from './guests.ts';
import { moveAndProve, type ProvenMove } from './moves.ts';
import { apiOf, readState } from './state.ts';
import { statusOf } from './status.ts';
import { up, type Lab } from './up.ts';

const busyName = 'busy';
/** The moderate writer, and two that keep it company. */
const vms: readonly LabVm[] = [
  {
    name: busyName,
    host: 'h1',
    memoryMiB: 384,
    fillMiB: 128,
    load: { pagesPerSecond: 2500, setMiB: 32 },
    diskWritesPerSecond: 20,
  },
  { name: 'quiet1', host: 'h1', memoryMiB: 192 },
  { name: 'quiet2', host: 'h2', memoryMiB: 192 },
];
const hosts = 2;

export interface TourOptions {
  readonly name: string;
  readonly output: 'table' | 'json';
  /** Stay up after the table, until the signal. */
  readonly stay: boolean;
  /** Words for people. */
  readonly say: (line: string) => void;
  /** Data. */
  readonly print: (text: string) => void;
  readonly signal: AbortSignal;
}

export interface TourRow extends ProvenMove {
  readonly technique: Technique;
}

/** @returns exit code: 0 every arrival verified, 1 not, 130 interrupted before the table */
export async function runTour(options: TourOptions): Promise<number> {
  const { name, say, print, signal, stay } = options;
  await clearTheStage(name, say);
  const startedAt = performance.now();
  let good = false;
  try {
    const lab = await up({ name, hosts, say, signal });
    const rows = await show(lab, say, signal);
    good = rows.every((row) => row.proof.ok);
    print(options.output === 'json' ? JSON.stringify(rows.map(rowData), null, 2) : `\n${tourTable(rows)}`);
    if (options.output !== 'json') for (const line of [coldNote, '', ...reading(rows)]) print(line);
    say(
      `\n${good ? 'Every arrival was verified' : 'NOT every arrival was verified'}, ${formatMs(performance.now() - startedAt)} in all.`,
    );
    if (stay) {
      invite(lab, say);
      await new Promise<void>((resolve) => {
        if (signal.aborted) return resolve();
        // A signal alone does not keep a program alive.
        const keepAlive = setInterval(() => {}, 60_000);
        signal.addEventListener('abort', () => (clearInterval(keepAlive), resolve()), { once: true });
      });
      say('');
    }
    return good ? 0 : 1;
  } catch (error) {
    if (!signal.aborted) throw error;
    say('\ninterrupted');
    good = true; // nothing failed that logs would explain
    return 130;
  } finally {
    if (!good) say(`logs are kept in ${keepLogs(name)}`);
    await down(name, say).catch((error: unknown) => say(`the lab could not be taken down: ${messageOf(error)}`));
  }
}

/** A lab that works is somebody's; remains of one are not. */
async function clearTheStage(name: string, say: (line: string) => void): Promise<void> {
  const status = await statusOf(name);
  if (status.up) {
    throw new UserError(
      'already-exists',
      `A lab named '${name}' is up already, with ${status.vms.length} VMs.`,
      `Take it down with drover lab down --name ${name}, or give the tour another: drover lab tour --name tour`,
    );
  }
  if (readState(name) || status.trouble.length > 0) {
    say('removing what is left of an earlier lab');
    await down(name, say);
  }
}

async function show(lab: Lab, say: (line: string) => void, signal: AbortSignal): Promise<TourRow[]> {
  say(`booting ${vms.length} guests on ${hosts} hosts…`);
  const guests = await Promise.all(vms.map((vm) => createLabVm(lab, vm, signal)));
  for (const { vm } of guests) say(`  ${vm.name} runs on ${vm.host} and answers at ${vm.address ?? '?'}`);
  const busy = guests.find(({ vm }) => vm.name === busyName);
  if (!busy) throw new Error(`there is no guest named ${busyName}`);
  say(`${busyName} writes 2500 pages a second over 32 MiB, and to its disk; it moves now by every technique`);
  const rows: TourRow[] = [];
  for (const technique of techniques) rows.push(await oneMove(lab, busy, technique, say, signal));
  return rows;
}

async function oneMove(
  lab: Lab,
  { vm, guest }: LabGuest,
  technique: Technique,
  say: (line: string) => void,
  signal: AbortSignal,
): Promise<TourRow> {
  const { host } = await lab.client.getVm({ params: { vm: vm.id } });
  const to = host === 'h1' ? 'h2' : 'h1';
  const line = liveLine(`  ${technique.padEnd(9)} ${host} -> ${to}`);
  try {
    const moved = await moveAndProve(
      lab.client,
      guest,
      { vm: vm.id, to, technique },
      { signal, onView: (view) => line.show(viewText(view)) },
    );
    const where = await lab.client.getVm({ params: { vm: vm.id } });
    const proof =
      moved.proof.ok && where.host !== to ? { ok: false, says: `is on ${where.host}, not on ${to}` } : moved.proof;
    line.end();
    const { totalMs, blackoutMs } = moved.migration.measures;
    say(
      `  ${technique.padEnd(9)} ${host} -> ${to}: ${shownMs(totalMs)}, blackout ${shownMs(blackoutMs)}, ${proof.says}`,
    );
    return { technique, migration: moved.migration, proof };
  } finally {
    line.end();
  }
}

function viewText(view: MigrationView): string {
  const { sample } = view;
  const sent = sample && sample.totalBytes > 0 ? `, ${formatBytes(sample.remainingBytes)} left` : '';
  return `${view.phase}${view.phase === 'warming-up' && sample ? ` (round ${sample.round})` : ''}${sent}`;
}

/** On a terminal: one line that is written again and again. Elsewhere nothing. */
function liveLine(head: string): { show(text: string): void; end(): void } {
  const { stderr } = process;
  let shown = false;
  return {
    show(text) {
      if (!stderr.isTTY) return;
      stderr.write(`\r\u001B[K${`${head}: ${text}`.slice(0, (stderr.columns || 80) - 1)}`);
      shown = true;
    },
    end() {
      if (shown) stderr.write('\r\u001B[K');
      shown = false;
    },
  };
}

function rowData({ technique, migration, proof }: TourRow) {
  const { measures, rounds, phase, endedInPostCopy, source, target } = migration;
  return {
    technique,
    migration: migration.id,
    phase,
    source,
    target,
    endedInPostCopy,
    rounds: rounds.length,
    measures,
    verified: proof.ok,
    says: proof.says,
  };
}

const coldNote =
  'cold: its memory does not travel; total and downtime end when the machine is switched on there, the blackout also holds its boot.';
const shownMs = (ms: number | null): string => (ms === null ? '-' : ms === 0 ? '< 10 ms' : formatMs(ms));

/** The table of the tour; also what `rounds` and `faults` mean is decided here. */
export function tourTable(rows: readonly TourRow[]): string {
  const head = ['technique', 'total', 'downtime', 'blackout', 'bytes', 'rounds', 'faults', 'verified'];
  const cells = rows.map(({ technique, migration: { measures, rounds, endedInPostCopy }, proof }) => [
    technique === 'auto' ? `auto (${endedInPostCopy ? 'post-copy' : 'pre-copy'})` : technique,
    shownMs(measures.totalMs),
    shownMs(measures.downtimeMs),
    shownMs(measures.blackoutMs),
    measures.bytes === null ? '-' : formatBytes(measures.bytes),
    rounds.length === 0 ? '-' : String(rounds.length),
    measures.faults === null ? '-' : String(measures.faults),
    proof.says,
  ]);
  const widths = head.map((title, column) => Math.max(title.length, ...cells.map((row) => (row[column] ?? '').length)));
  const line = (row: readonly string[]) =>
    row
      .map((cell, column) =>
        column === 0 || column === row.length - 1
          ? cell.padEnd(widths[column] ?? 0)
          : cell.padStart(widths[column] ?? 0),
      )
      .join('  ')
      .trimEnd();
  return [head, ...cells].map(line).join('\n');
}

/** Two lines: what theory says of pre-copy and post-copy, and whether these figures agree. */
export function reading(rows: readonly TourRow[]): string[] {
  const of = (technique: Technique) =>
    rows.find((row) => row.technique === technique && row.migration.phase === 'completed')?.migration;
  const pre = of('pre-copy');
  const post = of('post-copy');
  const preTotal = pre?.measures.totalMs ?? null;
  const postTotal = post?.measures.totalMs ?? null;
  if (!pre || !post || preTotal === null || postTotal === null) {
    return ['Pre-copy and post-copy cannot be compared: one of them did not complete.'];
  }
  const longer = preTotal > postTotal;
  const sentAgain =
    pre.measures.bytes !== null && post.measures.bytes !== null ? pre.measures.bytes - post.measures.bytes : null;
  const first =
    `pre-copy: ${shownMs(preTotal)} in total against ${shownMs(postTotal)} of post-copy` +
    (sentAgain !== null && sentAgain > 0
      ? `, ${formatBytes(sentAgain)} more sent because pages were written again`
      : '') +
    (longer ? '. Theory says longer: so it was.' : '. Theory says longer: not so here.') +
    ' Had it failed, the guest would still have been whole on the source.';
  const faults = post.measures.faults ?? 0;
  const pause = pauseWords(pre, post);
  const second =
    `post-copy: ${longer ? 'shorter in total' : 'not shorter in total here'}, paused at the start, then ${faults} faults` +
    ` while it ran on the target${faults === 0 ? ' (theory expects some; every page came before it was touched)' : ''}. ${pause}`;
  return [first, second];
}

function pauseWords(pre: MigrationView, post: MigrationView): string {
  const [before, after] = [pre.measures.blackoutMs, post.measures.blackoutMs];
  if (before === null || after === null) return 'What clients lost was not measured for both.';
  const seen = `Clients lost ${shownMs(after)}, with pre-copy ${shownMs(before)}`;
  return after > before
    ? `${seen}: waiting for pages costs more than the pause itself (${shownMs(post.measures.downtimeMs)}).`
    : `${seen}: here the waiting for pages did not show.`;
}

function invite(lab: Lab, say: (line: string) => void): void {
  say(
    [
      `The lab stays up. Its server: ${apiOf(lab.state)}`,
      'Try in another terminal (bin/drover, here):',
      '  drover vm list',
      `  drover migrate ${busyName} --technique post-copy --watch`,
      '  drover lab break link-speed 200mbit --for 60s',
      '  drover migrations',
      'Ctrl-C ends it and leaves nothing behind.',
    ].join('\n'),
  );
}
