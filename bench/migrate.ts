/**
 * `bench migrate`: the same guest over the same link by the same technique, moved by Drover, by a tuned QMP script and by
 * one that leaves QEMU its defaults. They take turns within each round, so that what the machine does meanwhile strikes all
 * three; the first turn goes round, too. Only the mover's load runs.
 *
 * total: from the moment the move is asked for (the script's begins with starting the target QEMU, as Drover's does) until
 * the guest runs on the target with all its memory there. blackout: longest silence for a prober at 1 ms.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { guestFiles } from '../src/lab/guest/files.ts';
import { startProbe } from '../src/lab/probe/probe.ts';
import { namesOf } from '../src/lab/state.ts';
import { messageOf } from '../src/model/failure.ts';
import { createBare } from './bare.ts';
import { otherHost, warmUp, writerNames, writers } from './contestant.ts';
import type { Contestant, ContestantName, LiveTechnique, WriterName } from './contestant.ts';
import { createDrover } from './drover.ts';
import { aimText, ratio, shown, spreadText, table, type Aim } from './figures.ts';
import { observe } from './observe.ts';
import { load, machineOf, machineText, onStage, type Machine, type Stage, type StageOptions } from './stage.ts';

export const benchTechniques = ['pre-copy', 'post-copy', 'hybrid', 'auto'] as const satisfies readonly LiveTechnique[];

const memoryMiB = 512;
const fillMiB = 256;
/** Silence comes shortly after the end, too: announcements that get lost, retries of ARP. */
const stragglersMs = 700;
const replyMs = 30_000;
/** The prober reports no gap under this; a ratio of nothing would say nothing. */
const shortestGapMs = 10;

export interface MigrateOptions extends StageOptions {
  readonly rounds: number;
  readonly writers: readonly WriterName[];
  readonly techniques: readonly LiveTechnique[];
}

export interface MoveFigures {
  readonly totalMs: number;
  readonly qemuTotalMs: number | null;
  /** From asking to QEMU's `active`. */
  readonly firstPageMs: number;
  /** What Drover itself says of that, from its reservation on. */
  readonly ownFirstPageMs: number | null;
  /** STOP on the source until RESUME on the target. */
  readonly pauseMs: number;
  /** Pre-copy: from the source's completion until RESUME, the part of the pause that is the contestant's own. */
  readonly handoverMs: number | null;
  readonly blackoutMs: number;
  /** From RESUME until the first reply; null when clients noticed no silence there. */
  readonly firstReplyMs: number | null;
  readonly rounds: number;
  readonly endedInPostCopy: boolean;
  readonly pagesPerSecondBefore: number;
}

export interface Entry {
  readonly contestant: ContestantName;
  readonly moves: MoveFigures[];
  readonly troubles: string[];
  verified: string;
}

export interface Cell {
  readonly writer: WriterName;
  readonly technique: LiveTechnique;
  readonly entries: readonly Entry[];
}

export interface MigrateResult {
  readonly machine: Machine;
  readonly cells: readonly Cell[];
}

export function benchMigrate(options: MigrateOptions): Promise<MigrateResult> {
  const loadBefore = load();
  return onStage(options, async (stage) => {
    const contestants = await enter(stage);
    const cells: Cell[] = [];
    for (const writer of writerNames.filter((name) => options.writers.includes(name))) {
      for (const technique of options.techniques) {
        // It never converges on this link; asked for alone, it is tried.
        if (writer === 'heavy' && technique === 'pre-copy' && options.techniques.length > 1) continue;
        cells.push(await play(stage, contestants, { writer, technique, rounds: options.rounds }));
      }
    }
    return { machine: machineOf(stage, loadBefore), cells };
  });
}

async function enter(stage: Stage): Promise<Contestant[]> {
  const { lab, qemu, say, signal } = stage;
  say('booting three guests alike…');
  const wanted = { memoryMiB, fillMiB, host: 'h1' } as const;
  const { vm, contestant } = await createDrover(lab, { ...wanted, name: 'drover', number: 1 }, signal);
  const bare = async (name: 'script' | 'defaults', number: number) =>
    createBare({ lab, qemu, name, wanted: { ...wanted, name, number }, like: vm }, signal);
  return [contestant, await bare('script', 2), await bare('defaults', 3)];
}

async function play(
  { lab, say, signal }: Stage,
  contestants: readonly Contestant[],
  { writer, technique, rounds }: { writer: WriterName; technique: LiveTechnique; rounds: number },
): Promise<Cell> {
  const runs = await Promise.all(
    contestants.map(async (contestant) => {
      const { bootId } = await contestant.guest.status({ signal });
      const entry: Entry = { contestant: contestant.name, moves: [], troubles: [], verified: 'not checked' };
      return { contestant, bootId, entry };
    }),
  );
  for (let round = 0; round < rounds; round++) {
    for (let turn = 0; turn < runs.length; turn++) {
      const { contestant, entry } = runs[(round + turn) % runs.length] ?? {};
      if (!contestant || !entry) continue;
      const what = `${writer} ${technique} ${round + 1}/${rounds} ${contestant.name.padEnd(8)}`;
      const figures = await measure(lab.state.name, contestant, technique, writer, signal);
      entry.moves.push(figures);
      const { totalMs, blackoutMs, pauseMs, handoverMs, firstReplyMs } = figures;
      const own = handoverMs === null ? '' : ` (handover ${shown(handoverMs)})`;
      const late = firstReplyMs === null ? '' : ` (first reply ${shown(firstReplyMs)} after resuming)`;
      say(
        `  ${what} total ${shown(totalMs)} ms, pause ${shown(pauseMs)} ms${own}, blackout ${shown(blackoutMs)} ms${late}`,
      );
    }
  }
  // After the series, with nothing else to do: a fast way that loses pages must not win.
  for (const { contestant, bootId, entry } of runs) {
    entry.verified = await verify(contestant, bootId, signal);
    if (entry.verified !== 'verified') say(`  ${contestant.name}: ${entry.verified}`);
  }
  return { writer, technique, entries: runs.map(({ entry }) => entry) };
}

async function verify({ guest }: Contestant, bootId: string, signal: AbortSignal): Promise<string> {
  try {
    const checked = await guest.verify({ signal });
    if (checked.bootId !== bootId) return 'the guest was restarted';
    if (checked.ok) return 'verified';
    return `WRONG: ${checked.badPages} pages, ${checked.badBlocks} blocks, ${checked.diskErrors} disk errors`;
  } catch (error) {
    signal.throwIfAborted();
    return `not verified: ${messageOf(error)}`;
  }
}

async function measure(
  labName: string,
  contestant: Contestant,
  technique: LiveTechnique,
  writer: WriterName,
  signal: AbortSignal,
): Promise<MoveFigures> {
  const { guest, address, host } = contestant;
  const monitor = contestant.monitor(host);
  if (monitor === undefined) throw new Error(`${contestant.name}: its QEMU on ${host} is not found`);
  await contestant.prepare();
  const pagesPerSecondBefore = await warmUp(guest, writer, signal);
  await using probe = startProbe({ binary: guestFiles().probe, netns: namesOf(labName).client, address, signal });
  const reply = () => probe.waitForReply(AbortSignal.any([signal, AbortSignal.timeout(replyMs)]));
  await reply();
  await sleep(300, undefined, { signal });

  using observation = await observe(monitor);
  const askedAt = Date.now();
  const move = contestant.start(technique, writer, signal);
  const failing = move.done.then(() => new Promise<never>(() => {}));
  const arrival = observation.arrival(() => contestant.monitor(otherHost(host)), signal);
  const seen = await Promise.race([arrival, failing]);
  await reply();
  await sleep(stragglersMs, undefined, { signal });
  const blackoutMs = probe.longestGap(askedAt, seen.completeAt + stragglersMs);
  const gap = probe
    .gaps()
    .find(({ fromMs, lengthMs }) => fromMs <= seen.resumedAt && fromMs + lengthMs >= seen.resumedAt);
  const own = await move.finish();
  await guest.setLoad({ ...writers[writer], pagesPerSecond: 0 }, { signal });
  return {
    totalMs: seen.completeAt - askedAt,
    qemuTotalMs: seen.qemuTotalMs,
    firstPageMs: seen.firstPageAt - askedAt,
    ownFirstPageMs: own.firstPageMs ?? null,
    pauseMs: seen.resumedAt - seen.stoppedAt,
    handoverMs: seen.postCopy ? null : seen.resumedAt - seen.sentAt,
    blackoutMs: Math.max(shortestGapMs, blackoutMs),
    firstReplyMs: gap === undefined ? null : gap.fromMs + gap.lengthMs - seen.resumedAt,
    rounds: seen.rounds,
    endedInPostCopy: seen.postCopy,
    pagesPerSecondBefore,
  };
}

const values = (cell: Cell, contestant: ContestantName, of: (move: MoveFigures) => number | null): number[] =>
  cell.entries
    .filter((entry) => entry.contestant === contestant)
    .flatMap((entry) => entry.moves.flatMap((move) => of(move) ?? []));

const total = ({ totalMs }: MoveFigures) => totalMs;
const blackout = ({ blackoutMs }: MoveFigures) => blackoutMs;

export function ratiosOf(cell: Cell) {
  const against = (other: ContestantName, of: (move: MoveFigures) => number | null) =>
    ratio(values(cell, 'drover', of), values(cell, other, of));
  return {
    totalToScript: against('script', total),
    blackoutToScript: against('script', blackout),
    totalToDefaults: against('defaults', total),
    blackoutToDefaults: against('defaults', blackout),
  };
}

/** Against the script everywhere; against QEMU's defaults where those are known to hurt. */
export function aimsOf(cell: Cell): Aim[] {
  const { totalToScript, blackoutToScript, blackoutToDefaults } = ratiosOf(cell);
  const hurts =
    (cell.writer === 'moderate' && cell.technique === 'pre-copy') ||
    (cell.writer === 'heavy' && cell.technique === 'hybrid');
  return [
    { of: 'total to script', reached: totalToScript, atMost: 1.05, unit: 'x' },
    { of: 'blackout to script', reached: blackoutToScript, atMost: 1.1, unit: 'x' },
    ...(hurts ? [{ of: 'blackout to defaults', reached: blackoutToDefaults, atMost: 0.5, unit: 'x' }] : []),
  ];
}

const head = [
  'writer',
  'technique',
  'by',
  'total ms',
  "QEMU's total",
  'first page ms',
  'pause ms',
  'handover ms',
  'blackout ms',
  'reply after ms',
  'rounds',
  'guest',
];

export function migrateText({ machine, cells }: MigrateResult): string {
  const rows = cells.flatMap((cell) =>
    cell.entries.map(({ contestant, verified }, index) => {
      const of = (figure: (move: MoveFigures) => number | null) => spreadText(values(cell, contestant, figure));
      return [
        ...(index === 0 ? [cell.writer, cell.technique] : ['', '']),
        contestant,
        of(total),
        of(({ qemuTotalMs }) => qemuTotalMs),
        of(({ firstPageMs }) => firstPageMs),
        of(({ pauseMs }) => pauseMs),
        of(({ handoverMs }) => handoverMs),
        of(blackout),
        of(({ firstReplyMs }) => firstReplyMs),
        of(({ rounds }) => rounds),
        verified,
      ];
    }),
  );
  const ratioRows = cells.map((cell) => {
    const of = ratiosOf(cell);
    const all = [of.totalToScript, of.blackoutToScript, of.totalToDefaults, of.blackoutToDefaults];
    return [cell.writer, cell.technique, ...all.map((each) => (each === undefined ? '-' : `${each.toFixed(2)}x`))];
  });
  const moves = cells[0]?.entries[0]?.moves.length ?? 0;
  const firstPages = cells.flatMap((cell) => values(cell, 'drover', ({ firstPageMs }) => firstPageMs));
  const ownFirstPages = cells.flatMap((cell) => values(cell, 'drover', ({ ownFirstPageMs }) => ownFirstPageMs));
  return [
    machineText(machine),
    `guest: ${memoryMiB} MiB, ${fillMiB} MiB filled; link 1 Gbit/s (tbf); ${moves} moves each, median (min-max)`,
    "script: Drover's tuning, bare QMP. defaults: downtime limit 300 ms, 128 MiB/s, no return path, target starts by itself.",
    '',
    table(head, rows, 3),
    '',
    table(
      ['Drover to', '', 'total: script', 'blackout: script', 'total: defaults', 'blackout: defaults'],
      ratioRows,
      2,
    ),
    '',
    ...cells.flatMap((cell) => aimsOf(cell).map((aim) => `${cell.writer} ${cell.technique}: ${aimText(aim)}`)),
    `first page after the API call: ${spreadText(firstPages)} ms, by Drover's own measure ${spreadText(ownFirstPages)} ms; aim 500 ms`,
  ].join('\n');
}

export function allVerified({ cells }: MigrateResult): boolean {
  return cells.every((cell) => cell.entries.every(({ verified }) => verified === 'verified'));
}
