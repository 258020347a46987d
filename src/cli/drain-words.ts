/**
 * A drain in words: the plan before it begins, the lines while it runs, how it ended, and the exit code. Pure: time is an
 * argument and nothing is written. Not here: asking (commands/drain.ts), waiting (follow-drain.ts).
 */
import { formatBytes, formatMs, MiB } from '../model/units.ts';
import type { DrainView } from '../wire/drains.ts';
import { exitCodes } from './context.ts';
import type { Style } from './live.ts';
import { table } from './table.ts';

type Row = DrainView['vms'][number];
type RowState = Row['state'];

/** What is shown of the others while it runs. */
const barWidth = 24;
const shownFirst: readonly RowState[] = ['moving', 'returning', 'stuck', 'queued'];

const inState = ({ vms }: DrainView, ...states: RowState[]): Row[] => vms.filter(({ state }) => states.includes(state));
const count = (n: number, one: string): string => `${n} ${one}${n === 1 ? '' : 's'}`;

/** Before it begins: how many, how long, which cannot. */
export function planWords(view: DrainView): string {
  const back = view.state === 'returning';
  const estimate = (back ? view.returnEstimate : null) ?? view.estimate;
  const { moves, bytes, ms } = estimate;
  const what = back ? `come back to ${view.host}` : `leave ${view.host}`;
  const cost = `about ${formatMs(ms)} with ${view.movesAtOnce} at once, ${formatBytes(bytes)} to send`;
  const none = inState(view, 'stuck').length > 0 ? `no VM can ${what} now` : `no VM is to ${what}`;
  const head = moves === 0 ? none : `${count(moves, 'VM')} to ${what}: ${cost}`;
  // What is on its way out still is no move of the way back yet.
  const isLeaving = ({ host }: Row): boolean => back && host === view.host;
  const open = inState(view, 'queued', 'moving', 'returning').filter(({ to }) => to !== null || back);
  const going = open.filter((row) => !isLeaving(row));
  const leaving = open.filter(isLeaving).map(({ name }) => name);
  const rows = going.map(({ name, priority, memoryMiB, host, to, technique }) => [
    name,
    String(priority),
    formatBytes(memoryMiB * MiB),
    back ? host : (to ?? '-'),
    technique ?? '-',
  ]);
  return [
    head,
    ...(rows.length === 0 ? [] : [table(['VM', 'PRIORITY', 'MEMORY', back ? 'FROM' : 'TO', 'BY'], rows)]),
    ...(leaving.length === 0 ? [] : [`still on the way out, and back after that: ${leaving.join(', ')}`]),
    ...stuckLines(view),
    ...offLine(view),
  ].join('\n');
}

function stuckLines(view: DrainView): string[] {
  const stuck = inState(view, 'stuck');
  if (stuck.length === 0) return [];
  const head = `${count(stuck.length, 'VM')} cannot ${view.state === 'returning' ? 'come back' : 'leave'}:`;
  return [head, ...stuck.flatMap(reasonLines)];
}

function reasonLines({ name, says, next }: Row): string[] {
  return [`  ${name}: ${says ?? 'no reason is known'}`, ...(next === null ? [] : [`    next: ${next}`])];
}

function offLine(view: DrainView): string[] {
  const off = inState(view, 'off').map(({ name }) => name);
  return off.length === 0 ? [] : [`off, and so nothing to do: ${off.join(', ')}`];
}

/** How it stands when nothing more is waited for. */
export function drainOutcome(view: DrainView): string[] {
  switch (view.state) {
    case 'drained':
      return [
        `${view.host} is drained: no guest is left; ${count(view.done, 'VM')} left in ${formatMs(view.tookMs ?? 0)} (estimated: ${formatMs(view.estimate.ms)})`,
        ...offLine(view),
        `Bring its VMs back: drover host undrain ${view.host}`,
      ];
    case 'draining':
      return [
        `${view.host} is not empty: ${view.remaining === 0 ? (view.blocked?.says ?? '') : `${count(view.remaining, 'guest')} on it`}`,
        ...inState(view, 'stuck').flatMap(reasonLines),
        `The drain stays: it goes on when one of these reasons is gone. To give up: drover host drain ${view.host} --cancel`,
      ];
    case 'returning':
    case 'undrained': {
      const stay = inState(view, 'stays', 'gave-up');
      return [
        view.says,
        ...stay.map(({ name, host, says }) => `  ${name} stays on ${host}: ${says ?? 'no reason is known'}`),
      ];
    }
    case 'cancelled': {
      const left = inState(view, 'left');
      const back = left.length === 0 ? [] : [`To bring back what had left: drover host undrain ${view.host}`];
      const open = view.vms.filter(({ migration }) => migration !== null);
      const ending = open.map(
        ({ name, migration }) => `  ${name} is still on the move: drover migration show ${migration ?? ''}`,
      );
      return [view.says, ...ending, ...back];
    }
  }
}

/** 0 empty, or all back; 3 guests remain, some could not come back, or it was cancelled. */
export function drainExitCode(view: DrainView): number {
  switch (view.state) {
    case 'drained':
      return exitCodes.done;
    case 'undrained':
      return inState(view, 'gave-up').length === 0 ? exitCodes.done : exitCodes.notConverged;
    case 'draining':
    case 'returning':
    case 'cancelled':
      return exitCodes.notConverged;
  }
}

/** The live view: how far, how long still, and each VM that is not done, those that move first. */
export function drainLines(view: DrainView, now: number, columns: number, { unicode }: Style): string[] {
  const fraction = view.total === 0 ? 1 : view.done / view.total;
  const full = Math.round(barWidth * fraction);
  const bar = (unicode ? '█' : '#').repeat(full) + (unicode ? '░' : '.').repeat(barWidth - full);
  const elapsed = formatMs(Math.max(0, now - view.startedAt));
  const eta = view.etaMs === null ? '' : `, about ${formatMs(view.etaMs)} left`;
  const rows = shownFirst.flatMap((state) => inState(view, state));
  return [
    `${view.host}: ${view.state} (${view.because}), ${elapsed}${eta}`,
    `${bar} ${view.done} of ${view.total}`,
    ...rows.flatMap((row) => {
      const to = row.to === null ? '' : ` -> ${row.to}`;
      const next = row.state === 'stuck' && row.next !== null ? [`    next: ${row.next}`] : [];
      return [`  ${row.name} ${row.state}${to}${row.says === null ? '' : `: ${row.says}`}`, ...next];
    }),
  ].map((line) => line.slice(0, columns));
}

/** The same as plain lines: what has changed since. */
export function drainChanges(before: DrainView, view: DrainView): string[] {
  const was = new Map(before.vms.map((row) => [row.vm, row]));
  const eta = view.etaMs === null ? '' : `, about ${formatMs(view.etaMs)} left`;
  return view.vms.flatMap((row) => {
    const known = was.get(row.vm);
    if (known?.state === row.state && (row.state !== 'stuck' || known.says === row.says)) return [];
    switch (row.state) {
      case 'moving':
      case 'returning':
        return [
          `${row.name} moves from ${row.host} to ${row.to ?? '?'} (${row.technique ?? '?'}), ${row.migration ?? ''}`,
        ];
      case 'left':
        return known === undefined ? [] : [`${row.name} runs on ${row.host}; ${view.done} of ${view.total}${eta}`];
      case 'back':
        return known === undefined ? [] : [`${row.name} is back; ${view.done} of ${view.total}${eta}`];
      case 'stuck':
        return [`${row.name} waits: ${row.says ?? ''}`, ...(row.next === null ? [] : [`  next: ${row.next}`])];
      case 'stays':
      case 'gave-up':
        return [`${row.name} stays on ${row.host}: ${row.says ?? ''}`];
      case 'queued':
      case 'off':
      case 'remained':
        return [];
    }
  });
}
