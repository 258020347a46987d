/**
 * The live view of one migration, as data: what is known, and the lines that show it. Pure: time is an argument and nothing
 * is written. Not here: the terminal (screen.ts), where events come from (follow.ts), the words for an end (outcome.ts).
 */
import { dirtyBytesPerSecond } from '../migration/steer.ts';
import { phases } from '../migration/phases.ts';
import type { PhaseName } from '../model/migration.ts';
import { formatBytes, formatBytesPerSecond, formatMs, pageBytes } from '../model/units.ts';
import type { EventView, MigrationSampleView, MigrationView } from '../wire/endpoints.ts';
import { outcome } from './outcome.ts';

export interface LiveState {
  readonly migration: MigrationView;
  /** The latest of the phase that is on now. */
  readonly sample: MigrationSampleView | null;
  /** What the round, or the pulling of pages, had to do when it was first seen; null before the first sample. */
  readonly work: { readonly of: string; readonly bytes: number } | null;
  /** Ms since the epoch, of the server's clock as far as it is known. */
  readonly now: number;
}

export interface Style {
  readonly colour: boolean;
  readonly unicode: boolean;
}

/** The guest has no chance when it writes this share of what the link carries (the same as migration/steer.ts). */
const asFastAsTheLink = 0.8;

export function liveState(migration: MigrationView, now: number): LiveState {
  const state = { migration, sample: null, work: null, now };
  return migration.sample ? withSample(state, migration.sample) : state;
}

/** Events of other migrations and kinds leave it as it is. */
export function updated(state: LiveState, event: EventView): LiveState {
  const now = Math.max(state.now, event.at);
  if (event.type === 'sample' && event.sample.migration === state.migration.id) {
    return withSample({ ...state, now }, event.sample);
  }
  if (event.type === 'migration' && event.migration.id === state.migration.id) {
    const migration = event.migration;
    const samePart = partOf(migration.phase) === partOf(state.migration.phase);
    return { ...state, migration, now, sample: samePart ? state.sample : null };
  }
  return state;
}

/** Pages are sent before the switch (in rounds) and pulled or pushed after it; samples of one say nothing of the other. */
function partOf(phase: PhaseName): 'rounds' | 'pages' | 'other' {
  switch (phase) {
    case 'warming-up':
    case 'armed':
    case 'stop-and-copy':
      return 'rounds';
    case 'suspended':
    case 'state-transferred':
    case 'resumed-with-faults':
    case 'pre-paging':
    case 'recovering':
      return 'pages';
    default:
      return 'other';
  }
}

function withSample(state: LiveState, sample: MigrationSampleView): LiveState {
  const part = partOf(sample.phase);
  const of = part === 'rounds' ? `round ${sample.round}` : part;
  const known = state.work?.of === of ? state.work.bytes : 0;
  // A round begins with what the one before left dirty; seen late, that is still known from the record.
  const left = state.migration.rounds.find(({ round }) => round === sample.round - 1);
  const first = part === 'rounds' && sample.round <= 1 ? sample.totalBytes : left ? left.dirtyPages * pageBytes : 0;
  return { ...state, sample, work: { of, bytes: Math.max(known, first, sample.remainingBytes) } };
}

/** Percent of the work known now: of this round, or of the pages still missing after the switch. Null: nothing to say. */
export function percentDone({ work, sample }: LiveState): number | null {
  if (!work || !sample || work.bytes <= 0) return null;
  const percent = (100 * (work.bytes - sample.remainingBytes)) / work.bytes;
  return Math.min(100, Math.max(0, percent));
}

/**
 * Ms until the guest can be switched (rounds) or the last page is there (pages), from rate and dirty rate; null where no end
 * is in sight or nothing is measured. In the first round the guest's writing is not known: then it is the least it can be.
 */
export function etaMs({ sample }: LiveState): number | null {
  if (!sample || sample.bandwidthBytesPerSecond <= 0) return null;
  const { bandwidthBytesPerSecond: rate, remainingBytes } = sample;
  if (partOf(sample.phase) === 'pages') return (1000 * remainingBytes) / rate;
  const dirty = sample.round <= 1 ? 0 : sample.dirtyBytesPerSecond;
  if (dirty >= rate) return null;
  const fitsInPause = (rate * sample.downtimeLimitMs) / 1000;
  return (1000 * Math.max(0, remainingBytes - fitsInPause)) / (rate - dirty);
}

export interface TooFast {
  readonly round: number;
  readonly dirtyBytesPerSecond: number;
  readonly bandwidthBytesPerSecond: number;
  /** The pause in which what is left could be sent. */
  readonly neededPauseMs: number;
}

/**
 * The guest writes as fast as the link carries: the last two rounds left no less than the one before. The first round says
 * nothing: its dirty pages were collected over all of it.
 */
export function writesTooFast(migration: MigrationView): TooFast | null {
  if (migration.ended || partOf(migration.phase) !== 'rounds') return null;
  const { rounds } = migration;
  const last = rounds.at(-1);
  if (!last || rounds.length < 3) return null;
  const hopeless = [-2, -1].every((index) => {
    const round = rounds.at(index);
    const before = rounds.at(index - 1);
    return (
      round !== undefined &&
      before !== undefined &&
      dirtyBytesPerSecond(round) >= asFastAsTheLink * round.bandwidthBytesPerSecond &&
      round.dirtyPages >= 0.95 * before.dirtyPages
    );
  });
  if (!hopeless) return null;
  return {
    round: last.round,
    dirtyBytesPerSecond: dirtyBytesPerSecond(last),
    bandwidthBytesPerSecond: last.bandwidthBytesPerSecond,
    neededPauseMs: (1000 * last.dirtyPages * pageBytes) / Math.max(1, last.bandwidthBytesPerSecond),
  };
}

const roadOf = {
  'pre-copy': ['reserved', 'warming-up', 'stop-and-copy', 'resumed', 'completed'],
  'post-copy': [
    'reserved',
    'warming-up',
    'suspended',
    'state-transferred',
    'resumed-with-faults',
    'pre-paging',
    'completed',
  ],
  cold: ['reserved', 'powering-off', 'copying', 'powering-on', 'completed'],
} as const satisfies Record<string, readonly PhaseName[]>;

export interface TimelineEntry {
  readonly phase: PhaseName;
  readonly when: 'past' | 'now' | 'ahead';
  readonly tookMs: number | null;
}

/** The phases gone through, the one that is on, and those that will follow if nothing happens. */
export function timeline(migration: MigrationView, now: number): TimelineEntry[] {
  const entered = migration.history.filter(({ phase }, index, all) => phase !== all[index - 1]?.phase);
  const last = entered.at(-1);
  const past: TimelineEntry[] = entered.map(({ phase, at }, index) => {
    const left = entered[index + 1]?.at ?? (migration.ended ? at : now);
    const current = index === entered.length - 1;
    return { phase, when: current && !migration.ended ? 'now' : 'past', tookMs: Math.max(0, left - at) };
  });
  if (migration.ended || !last) return past;
  const road: readonly PhaseName[] = roadOf[kindOf(migration)];
  const reached = Math.max(...entered.map(({ phase }) => road.indexOf(phase)));
  return [...past, ...road.slice(reached + 1).map((phase): TimelineEntry => ({ phase, when: 'ahead', tookMs: null }))];
}

function kindOf({ technique, switchedToPostCopy, endedInPostCopy }: MigrationView): keyof typeof roadOf {
  if (technique === 'cold') return 'cold';
  if (technique === 'post-copy' || technique === 'hybrid' || switchedToPostCopy !== null || endedInPostCopy)
    return 'post-copy';
  return 'pre-copy';
}

type Tone = 'plain' | 'strong' | 'faint' | 'good' | 'bad' | 'warn';
const sgr = { plain: '', strong: '1', faint: '2', good: '32', bad: '31', warn: '33' } as const satisfies Record<
  Tone,
  string
>;

interface Part {
  readonly text: string;
  readonly tone: Tone;
}
type Line = readonly Part[];

const part = (text: string, tone: Tone = 'plain'): Part => ({ text, tone });

/** The view: lines of at most `width` columns, to be drawn over the ones before. */
export function render(state: LiveState, width: number, style: Style): string[] {
  const { migration } = state;
  const lines: Line[] = [headline(state, style), ...timelineLines(state, width, style)];
  if (migration.ended) {
    const tone = migration.phase === 'completed' ? 'good' : 'bad';
    const [first = '', ...rest] = outcome(migration);
    lines.push([part(first, tone)], ...rest.map((text) => [part(text)]));
  } else {
    lines.push(...progressLines(state, width, style));
  }
  return lines.map((line) => paint(line, width, style));
}

function headline({ migration, now }: LiveState, { unicode }: Style): Line {
  const { vmName, source, target, technique, id, startedAt, endedAt } = migration;
  return [
    part(vmName, 'strong'),
    part(
      `  ${source} ${unicode ? '→' : '->'} ${target}  ${technique}  ${formatMs(Math.max(0, (endedAt ?? now) - startedAt))}`,
    ),
    part(`  ${id}`, 'faint'),
  ];
}

function timelineLines({ migration, now }: LiveState, width: number, { unicode }: Style): Line[] {
  const join = unicode ? ' ─ ' : ' - ';
  const marks = unicode ? { past: '✓', now: '▶', ahead: '·' } : { past: '+', now: '>', ahead: '.' };
  const lines: Part[][] = [[]];
  let used = 0;
  for (const { phase, when, tookMs } of timeline(migration, now)) {
    const end = phases[phase].next.length === 0;
    const mark = when === 'past' && (phase === 'failed' || phase === 'cancelled') ? (unicode ? '✗' : 'x') : marks[when];
    const text = `${mark} ${phase}${tookMs === null || end ? '' : ` ${formatMs(tookMs)}`}`;
    const line = lines.at(-1);
    const fits = used + join.length + text.length <= width;
    const toneOfEnd: Tone = mark === '✗' || mark === 'x' ? 'bad' : 'good';
    const tone: Tone = when === 'now' ? 'strong' : when === 'ahead' ? 'faint' : toneOfEnd;
    if (line && (line.length === 0 || fits)) {
      if (line.length > 0) line.push(part(join, 'faint'));
      used += (used > 0 ? join.length : 0) + text.length;
      line.push(part(text, tone));
    } else {
      lines.push([part('  '), part(text, tone)]);
      used = 2 + text.length;
    }
  }
  return lines;
}

function progressLines(state: LiveState, width: number, style: Style): Line[] {
  const { migration, sample } = state;
  const lines: Line[] = [[part(phases[migration.phase].says)]];
  const tooFast = writesTooFast(migration);
  if (sample) {
    const { numbers, work } = measuresOf(state);
    // A bar would run backwards: the words below say what is going on.
    if (tooFast === null) lines.push(barLine(state, width, style));
    else lines.push([part(work)]);
    lines.push([part(numbers)]);
  }
  if (migration.switchedToPostCopy) {
    const { round, because } = migration.switchedToPostCopy;
    lines.push([part(`switched to post-copy after round ${round}: ${because}`, 'warn')]);
  }
  if (tooFast) {
    const [first = '', ...rest] = tooFastWords(migration, tooFast);
    lines.push([part(first, 'warn')], ...rest.map((text) => [part(text)]));
  }
  const { switchable, vmName } = migration;
  if (switchable !== null) {
    const what = switchable === 'completion' ? 'complete it now' : 'over to post-copy now';
    lines.push([part(`${what}: drover migration switch ${vmName}`, 'faint')]);
  }
  const broken = recoveringWords(migration.phase, sample);
  if (broken !== null) lines.push([part(broken, 'bad')]);
  return lines;
}

function barLine(state: LiveState, width: number, { unicode }: Style): Line {
  const percent = percentDone(state);
  const { work } = measuresOf(state);
  if (percent === null) return [part(work)];
  const room = Math.max(10, Math.min(40, width - work.length - 3));
  const full = Math.round((room * percent) / 100);
  const bar = (unicode ? '█' : '#').repeat(full) + (unicode ? '░' : '.').repeat(room - full);
  return [part(bar, 'good'), part(`  ${work}`)];
}

/** What is being done and how far it is; then the numbers that go with it. */
function measuresOf(state: LiveState): { work: string; numbers: string } {
  const { migration, sample } = state;
  if (!sample) return { work: '', numbers: '' };
  const percent = percentDone(state);
  const eta = etaMs(state);
  const pages = partOf(migration.phase) === 'pages';
  const tooFast = writesTooFast(migration) !== null;
  const name = pages ? 'missing pages' : `round ${sample.round}`;
  const work = [
    percent === null || tooFast ? name : `${name}: ${Math.floor(percent)} %`,
    `${formatBytes(sample.remainingBytes)} left`,
  ].join(', ');
  const firstRound = !pages && sample.round <= 1;
  const numbers = [
    `sent ${formatBytes(sample.sentBytes)} at ${formatBytesPerSecond(sample.bandwidthBytesPerSecond)}`,
    pages || firstRound ? '' : `guest writes ${formatBytesPerSecond(sample.dirtyBytesPerSecond)}`,
    pages ? `faults ${sample.faults}` : `pause up to ${formatMs(sample.downtimeLimitMs)}`,
    sample.throttlePercent > 0 ? `throttled ${sample.throttlePercent} %` : '',
    tooFast ? '' : eta === null ? 'no end in sight' : `${firstRound ? 'at least' : 'about'} ${formatMs(eta)} to go`,
  ];
  return { work, numbers: numbers.filter((text) => text !== '').join('  ') };
}

/** What is wrong with the link, what it means for the guest, and what is being done; null while it carries. */
export function recoveringWords(phase: PhaseName, sample: MigrationSampleView | null): string | null {
  if (phase !== 'recovering') return null;
  const missing = sample ? `; ${formatBytes(sample.remainingBytes)} still missing` : '';
  if (!sample?.recovering) return `the link broke${missing}; the guest runs on until it needs a missing page`;
  const { attempts, lastError } = sample.recovering;
  return `the link broke${missing}; trying again (attempt ${attempts}${lastError === null ? '' : `: ${lastError}`})`;
}

function tooFastWords({ policy }: MigrationView, tooFast: TooFast): string[] {
  const writes = formatBytesPerSecond(tooFast.dirtyBytesPerSecond);
  const carries = formatBytesPerSecond(tooFast.bandwidthBytesPerSecond);
  const byPolicy = {
    'post-copy': 'its policy is to switch to post-copy',
    pause: 'its policy is to pause the guest for it',
    fail: 'its policy is to give up',
  }[policy.whenNotConverging];
  return [
    `The guest writes faster than the link: it dirtied ${writes} in round ${tooFast.round}, ${carries} were sent.`,
    `More rounds do not help; if this goes on, ${byPolicy}. Three ways out, from a new start:`,
    '  post-copy     --technique hybrid: switch first, send the rest afterwards',
    `  longer pause  --max-downtime ${pauseFlag(tooFast.neededPauseMs)} or --when-not-converging pause (now up to ${formatMs(policy.maxDowntimeMs)})`,
    `  throttle      --auto-converge: slow the guest down${policy.autoConverge ? ' (is on)' : ''}`,
  ];
}

/** Rounded up with a fifth to spare, as one would write it on the command line. */
function pauseFlag(ms: number): string {
  return `${Math.ceil((ms * 1.2) / 50) * 50}ms`;
}

function paint(line: Line, width: number, { colour }: Style): string {
  let left = width;
  let out = '';
  for (const { text, tone } of line) {
    if (left <= 0) break;
    const shown = text.length > left ? text.slice(0, left) : text;
    left -= shown.length;
    out += colour && sgr[tone] !== '' ? `\u001B[${sgr[tone]}m${shown}\u001B[0m` : shown;
  }
  return out.trimEnd();
}

/**
 * The same as plain lines, for where nothing can be redrawn: what is new in `after`. Progress is given for each sample; how
 * often that is wanted is the caller's business.
 */
export function plainLines(before: LiveState | null, after: LiveState): string[] {
  const { migration } = after;
  const at = (ms: number): string => `${formatMs(Math.max(0, ms - migration.startedAt)).padStart(8)}  `;
  const seen = before?.migration;
  const happened: { at: number; text: string }[] = [];

  for (const round of migration.rounds.slice(seen?.rounds.length ?? 0)) {
    const dirty = round.round <= 1 ? '' : ` (${formatBytesPerSecond(dirtyBytesPerSecond(round))})`;
    // A round ends where the next one begins, as far as that is recorded.
    const next = migration.history.find((entry) => entry.round === round.round + 1);
    happened.push({
      at: next?.at ?? after.now,
      text:
        `round ${round.round} took ${formatMs(round.durationMs)}: ${formatBytes(round.bytes)} sent at ` +
        `${formatBytesPerSecond(round.bandwidthBytesPerSecond)}, ` +
        `${formatBytes(round.dirtyPages * pageBytes)} written meanwhile${dirty}`,
    });
  }
  if (migration.switchedToPostCopy && !seen?.switchedToPostCopy) {
    const switched = migration.history.find(({ phase }) => phase === 'suspended');
    happened.push({
      at: switched?.at ?? after.now,
      text: `switched to post-copy: ${migration.switchedToPostCopy.because}`,
    });
  }
  for (const entry of migration.history.slice(seen?.history.length ?? 0)) {
    const repeated = entry.phase === 'warming-up' && (entry.round ?? 1) > 1;
    if (!repeated && phases[entry.phase].next.length > 0) {
      happened.push({ at: entry.at, text: `${entry.phase}: ${phases[entry.phase].says}` });
    }
  }
  const lines = happened.toSorted((a, b) => a.at - b.at).map((one) => `${at(one.at)}${one.text}`);
  const tooFast = writesTooFast(migration);
  if (tooFast && !(seen && writesTooFast(seen))) {
    lines.push(...tooFastWords(migration, tooFast).map((text) => `          ${text}`));
  }
  if (after.sample && after.sample !== before?.sample && !migration.ended) {
    const { work, numbers } = measuresOf(after);
    const broken = recoveringWords(migration.phase, after.sample);
    lines.push(`${at(after.now)}${broken ?? `${work}; ${numbers.replaceAll('  ', ', ')}`}`);
  }
  return lines;
}
