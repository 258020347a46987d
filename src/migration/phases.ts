/**
 * The one table of a migration's phases. Progress views, CLI, `step`, simulator and tests read it; nothing else says
 * where the guest is or what may follow.
 *
 *   pre-copy   reserved -> warming-up -> stop-and-copy -> resumed -> completed
 *   post-copy  reserved -> warming-up -> suspended -> state-transferred -> resumed-with-faults -> pre-paging -> completed
 *              (warming-up lasts milliseconds there: QEMU must be sending before it can be told to switch)
 *   hybrid     as post-copy, with one or more whole rounds of warming-up
 *   cold       reserved -> powering-off -> copying -> powering-on -> completed
 *   trouble    pre-paging -> recovering -> pre-paging;  -> cancelled;  -> failed { on-source | on-target | lost }
 */
import type { Migration, PhaseName } from '../model/migration.ts';

export type GuestOn = 'source' | 'target' | 'paused-on-source' | 'paused-on-target' | 'off' | 'see-failure';

/**
 * What becomes of the guest when the whole host of one side is lost in this phase. `fence-then-decide`: the other side knows
 * whether it was handed over. (Where only QEMU is gone the host's agent says so, and what is still in flight counts.)
 */
export type AfterLoss = 'unharmed' | 'restart-from-disk' | 'fence-then-decide' | 'does-not-apply';

export interface PhaseRow {
  readonly guestOn: GuestOn;
  readonly next: readonly PhaseName[];
  readonly cancellable: boolean;
  /** May it be told to go over to post-copy, where policy and hosts allow that (switching.ts)? */
  readonly switchable: boolean;
  readonly ifSourceLost: AfterLoss;
  readonly ifTargetLost: AfterLoss;
  /** For people: what is going on. */
  readonly says: string;
}

const ends = ['cancelled', 'failed'] as const;

export const phases = {
  reserved: {
    guestOn: 'source',
    next: ['warming-up', 'powering-off', ...ends],
    cancellable: true,
    switchable: false,
    ifSourceLost: 'restart-from-disk',
    ifTargetLost: 'unharmed',
    says: 'room is reserved, the target prepares',
  },
  'warming-up': {
    guestOn: 'source',
    next: ['armed', 'stop-and-copy', 'suspended', ...ends],
    cancellable: true,
    switchable: true,
    ifSourceLost: 'restart-from-disk',
    ifTargetLost: 'unharmed',
    says: 'memory is copied while the guest runs',
  },
  armed: {
    guestOn: 'source',
    next: ['stop-and-copy', ...ends],
    cancellable: true,
    switchable: false,
    ifSourceLost: 'restart-from-disk',
    ifTargetLost: 'unharmed',
    says: 'held ready to switch',
  },
  'stop-and-copy': {
    guestOn: 'paused-on-source',
    next: ['resumed', ...ends],
    cancellable: false,
    switchable: false,
    ifSourceLost: 'fence-then-decide',
    ifTargetLost: 'unharmed',
    says: 'guest paused, the rest is sent',
  },
  resumed: {
    guestOn: 'target',
    next: ['completed', 'failed'],
    cancellable: false,
    switchable: false,
    ifSourceLost: 'unharmed',
    ifTargetLost: 'restart-from-disk',
    says: 'guest runs on the target, the source is released',
  },
  suspended: {
    guestOn: 'paused-on-source',
    next: ['state-transferred', 'failed'],
    cancellable: false,
    switchable: false,
    ifSourceLost: 'restart-from-disk',
    ifTargetLost: 'restart-from-disk',
    says: 'guest paused, its execution state is sent',
  },
  'state-transferred': {
    guestOn: 'paused-on-target',
    next: ['resumed-with-faults', 'failed'],
    cancellable: false,
    switchable: false,
    ifSourceLost: 'restart-from-disk',
    ifTargetLost: 'restart-from-disk',
    says: 'the target has the execution state',
  },
  'resumed-with-faults': {
    guestOn: 'target',
    next: ['pre-paging', 'recovering', 'completed', 'failed'],
    cancellable: false,
    switchable: false,
    ifSourceLost: 'restart-from-disk',
    ifTargetLost: 'restart-from-disk',
    says: 'guest runs on the target and pulls missing pages',
  },
  'pre-paging': {
    guestOn: 'target',
    next: ['recovering', 'completed', 'failed'],
    cancellable: false,
    switchable: false,
    ifSourceLost: 'restart-from-disk',
    ifTargetLost: 'restart-from-disk',
    says: 'the remaining pages are pushed',
  },
  recovering: {
    guestOn: 'target',
    next: ['pre-paging', 'completed', 'failed'],
    cancellable: false,
    switchable: false,
    ifSourceLost: 'restart-from-disk',
    ifTargetLost: 'restart-from-disk',
    says: 'the link broke in post-copy; both sides are kept',
  },
  'powering-off': {
    guestOn: 'source',
    next: ['copying', ...ends],
    cancellable: false,
    switchable: false,
    ifSourceLost: 'restart-from-disk',
    ifTargetLost: 'restart-from-disk',
    says: 'guest shuts down',
  },
  copying: {
    guestOn: 'off',
    next: ['powering-on', 'failed'],
    cancellable: false,
    switchable: false,
    ifSourceLost: 'restart-from-disk',
    ifTargetLost: 'restart-from-disk',
    says: 'disks are copied, unless shared',
  },
  'powering-on': {
    guestOn: 'off',
    next: ['completed', 'failed'],
    cancellable: false,
    switchable: false,
    ifSourceLost: 'unharmed',
    ifTargetLost: 'restart-from-disk',
    says: 'guest boots on the target',
  },
  completed: end('target', 'guest runs on the target'),
  cancelled: end('source', 'guest runs on the source'),
  failed: end('see-failure', 'the failure says where the guest is'),
} as const satisfies Record<PhaseName, PhaseRow>;

function end(guestOn: GuestOn, says: string) {
  return {
    guestOn,
    next: [] as readonly PhaseName[],
    cancellable: false,
    switchable: false,
    ifSourceLost: 'does-not-apply',
    ifTargetLost: 'does-not-apply',
    says,
  } as const;
}

/** For people: what is going on in this very move. A fenced host changes what is waited for. */
export function saysOf({ phase, evidence }: Pick<Migration, 'phase' | 'evidence'>): string {
  const { says } = phases[phase];
  if (isEnd(phase)) return says;
  if (evidence.targetFenced)
    return `${says}; the target's host is lost: the source is asked whether the guest is there`;
  if (!evidence.sourceFenced) return says;
  return evidence.handedOver
    ? `${says}; the source's host is lost: the target is told to go on`
    : `${says}; the source's host is lost: the target is asked what it has`;
}

export function mayFollow(from: PhaseName, to: PhaseName): boolean {
  const next: readonly PhaseName[] = phases[from].next;
  return next.includes(to);
}

export function isEnd(phase: PhaseName): phase is 'completed' | 'cancelled' | 'failed' {
  return phases[phase].next.length === 0;
}

/**
 * The phases entered on the way from one phase to another, the last one included, by the shortest way through `next`
 * that keeps to `allowed`. Facts of two hosts arrive in any order, so a phase may be proven before the one before it.
 * @returns undefined when there is no way: the fact contradicts what is known.
 */
export function wayBetween(from: PhaseName, to: PhaseName, allowed: readonly PhaseName[]): PhaseName[] | undefined {
  if (from === to) return [];
  const cameFrom = new Map<PhaseName, PhaseName>();
  const frontier: PhaseName[] = [from];
  for (let at = frontier.shift(); at !== undefined; at = frontier.shift()) {
    for (const next of phases[at].next) {
      if (cameFrom.has(next) || next === from || (next !== to && !allowed.includes(next))) continue;
      cameFrom.set(next, at);
      if (next === to) {
        const way: PhaseName[] = [];
        for (let step: PhaseName | undefined = to; step !== undefined && step !== from; step = cameFrom.get(step))
          way.unshift(step);
        return way;
      }
      frontier.push(next);
    }
  }
  return undefined;
}
