/**
 * The kill matrix as data: what is disturbed, in which phase of which technique, and what may then become of the guest. Pure.
 *
 *     strikes x phases of a technique = cells; and a few of their own that need more than one strike
 *
 * Not here: doing it (cell.ts), finding the moment (moment.ts).
 */
import type { PhaseName } from '../../model/migration.ts';
import { phases } from '../../migration/phases.ts';

/** What is done, and for how long where it passes. `agent`: killed and started again at once. */
export const strikes = {
  'source-qemu': 'QEMU of the source killed',
  'target-qemu': 'QEMU of the target killed',
  'source-agent': 'agent of the source killed',
  'target-agent': 'agent of the target killed',
  'source-agent-away': 'agent of the source dead for a minute',
  'target-agent-away': 'agent of the target dead for a minute',
  server: 'server killed',
  'migration-link': 'migration link of the target cut for 5 s',
  'source-control': 'control link of the source cut for 6 s',
  'target-control': 'control link of the target cut for 6 s',
  'source-power': 'power of the source off',
  'target-power': 'power of the target off',
  'source-guard': 'guard of the source killed',
  /** The server learns nothing of the handover, and then the source is gone. */
  'source-power-unheard': 'server dead at the handover; power of the source off once the target runs',
  /** The target has loaded everything, and nobody can tell it to go on. */
  'source-power-before-go': 'agent of the source frozen at the pause; power off once QEMU has sent all',
} as const;
export type Strike = keyof typeof strikes;

export const chaosTechniques = ['pre-copy', 'post-copy', 'hybrid', 'cold'] as const;
export type ChaosTechnique = (typeof chaosTechniques)[number];

const phasesOf = {
  'pre-copy': ['reserved', 'warming-up', 'stop-and-copy', 'resumed'],
  'post-copy': ['reserved', 'suspended', 'state-transferred', 'resumed-with-faults', 'pre-paging'],
  hybrid: ['reserved', 'warming-up', 'suspended', 'state-transferred', 'resumed-with-faults', 'pre-paging'],
  cold: ['reserved', 'powering-off', 'copying', 'powering-on'],
} as const satisfies Record<ChaosTechnique, readonly PhaseName[]>;

export interface Cell {
  /** As printed, and what `--only` looks at: "source-qemu in warming-up of pre-copy". */
  readonly name: string;
  readonly strike: Strike;
  readonly technique: ChaosTechnique;
  readonly phase: PhaseName;
}

const cell = (strike: Strike, technique: ChaosTechnique, phase: PhaseName): Cell => ({
  name: `${strike} in ${phase} of ${technique}`,
  strike,
  technique,
  phase,
});

const atEveryPhase = Object.keys(strikes).filter(
  (name): name is Exclude<Strike, 'source-power-unheard' | 'source-power-before-go'> =>
    name !== 'source-power-unheard' && name !== 'source-power-before-go',
);

/** A QEMU that is not there in this phase cannot be killed in it. */
function exists(strike: Strike, phase: PhaseName): boolean {
  if (strike === 'source-qemu') return phase !== 'copying' && phase !== 'powering-on';
  if (strike === 'target-qemu') return phase !== 'powering-off' && phase !== 'copying';
  return true;
}

const own: readonly Cell[] = [
  cell('source-power-unheard', 'pre-copy', 'resumed'),
  cell('source-power-unheard', 'hybrid', 'resumed-with-faults'),
  cell('source-power-before-go', 'pre-copy', 'stop-and-copy'),
];

export const matrix: readonly Cell[] = [
  ...chaosTechniques.flatMap((technique) =>
    atEveryPhase.flatMap((strike) =>
      phasesOf[technique]
        .filter(
          (phase) =>
            exists(strike, phase) && !(technique === 'cold' && phase === 'reserved' && strike === 'target-qemu'),
        )
        .map((phase) => cell(strike, technique, phase)),
    ),
  ),
  ...own,
];

/** Those that matter most, for every test run. */
export const shortMatrix: readonly Cell[] = [
  cell('source-qemu', 'pre-copy', 'warming-up'),
  cell('target-qemu', 'pre-copy', 'stop-and-copy'),
  cell('source-agent', 'pre-copy', 'stop-and-copy'),
  cell('target-agent', 'pre-copy', 'resumed'),
  cell('server', 'hybrid', 'suspended'),
  cell('target-agent', 'post-copy', 'suspended'),
  cell('target-qemu', 'post-copy', 'pre-paging'),
  cell('migration-link', 'hybrid', 'pre-paging'),
  cell('source-control', 'pre-copy', 'warming-up'),
  cell('source-power', 'post-copy', 'pre-paging'),
  cell('source-guard', 'pre-copy', 'warming-up'),
  cell('server', 'cold', 'powering-off'),
];

/** @throws SyntaxError for a pattern that is none */
export function chosenCells(options: { readonly only?: string | undefined; readonly short: boolean }): Cell[] {
  const from = options.short ? shortMatrix : matrix;
  const only = options.only === undefined ? undefined : new RegExp(options.only, 'i');
  return from.filter(({ name }) => only?.test(name) ?? true);
}

/** What is known of a strike afterwards. */
export interface Blow {
  /** The phases that it may have fallen into. */
  readonly hit: readonly PhaseName[];
  /** The target has had all of the guest, by the source's QEMU: it may have run there. */
  readonly sent: boolean;
}

/**
 * May the guest have been started again from its disk? Only where the one complete memory died: with the host or QEMU it was in,
 * by the phases' own table; and always in a cold move.
 */
export function mayHaveRestarted(
  { strike, technique }: Pick<Cell, 'strike' | 'technique'>,
  { hit, sent }: Blow,
): boolean {
  if (technique === 'cold') return true;
  const side = killed(strike);
  if (side === undefined) return false;
  if (side === 'target' && sent) return true;
  return hit.some((phase) => {
    const row = phases[phase];
    const lost = side === 'source' ? row.ifSourceLost : row.ifTargetLost;
    // Of an ended move the table says nothing: the guest is where it ended.
    if (lost === 'does-not-apply') return (row.guestOn === 'source') === (side === 'source');
    return lost !== 'unharmed';
  });
}

/** Whose memory the strike ends. */
function killed(strike: Strike): 'source' | 'target' | undefined {
  if (strike === 'target-qemu' || strike === 'target-power') return 'target';
  if (strike === 'source-qemu' || strike === 'source-power' || strike === 'source-power-before-go') return 'source';
  return undefined;
}

/** When something of the move was seen, ms since the epoch. */
export interface Seen {
  readonly phase: PhaseName;
  readonly at: number;
}

/** The phases the move was in between two moments, by all that was seen of it, in the order of time. Never empty. */
export function phasesBetween(seen: readonly Seen[], fromMs: number, untilMs: number): PhaseName[] {
  // QEMU tells microseconds, we know of milliseconds.
  const ordered = seen.map((each) => ({ ...each, at: Math.floor(each.at) })).toSorted((a, b) => a.at - b.at);
  const before = ordered.filter(({ at }) => at <= fromMs).at(-1);
  const during = ordered.filter(({ at }) => at > fromMs && at <= untilMs);
  const names = [before?.phase ?? 'reserved', ...during.map(({ phase }) => phase)];
  return [...new Set(names)];
}
