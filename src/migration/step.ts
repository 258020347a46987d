/**
 * (migration, fact) -> migration: the only place where a phase changes. Pure and replay-safe.
 *
 * Facts of two hosts arrive in any order and more than once, so a fact is first written down as evidence (the first
 * word counts), and the phase follows from all evidence together. What is still to be done is not remembered but
 * worked out by `outstanding`: a control plane that was killed re-reads the record and knows what to order.
 *
 * A host that is proven to run nothing any more (fenced) is asked nothing more about this move, and what it still says does not
 * count: the other side decides. Source fenced: the target says whether its copy runs, or closes it. Target fenced: the source
 * says whether the guest is still there. Both fenced: lost.
 *
 * Not here: when to switch, throttle or give up while memory is sent (steer.ts); who may say what (control/, agent/).
 */
import type { Failure } from '../model/failure.ts';
import type { Endpoint } from '../model/host.ts';
import type { MigrationId } from '../model/ids.ts';
import type {
  Evidence,
  GuestAfterFailure,
  Measures,
  Migration,
  PhaseEntry,
  PhaseName,
  Round,
} from '../model/migration.ts';
import { isEnd, mayFollow, phases, wayBetween } from './phases.ts';
import { endedInPostCopy, pathOf } from './techniques.ts';

export type MigrationFact = { readonly migration: MigrationId; readonly at: number } & (
  | { readonly kind: 'listening'; readonly endpoint: Endpoint }
  | { readonly kind: 'sending' }
  /** A held move has warmed up and waits. */
  | { readonly kind: 'armed' }
  | { readonly kind: 'round'; readonly round: Round }
  | { readonly kind: 'switching'; readonly round: number; readonly because: string }
  | { readonly kind: 'stopped'; readonly for: 'stop-and-copy' | 'post-copy' }
  | { readonly kind: 'state-transferred' }
  | { readonly kind: 'pre-paging' }
  | { readonly kind: 'handed-over' }
  | { readonly kind: 'resumed'; readonly withFaults: boolean }
  | { readonly kind: 'all-pages-arrived' }
  | { readonly kind: 'powered-off' }
  | { readonly kind: 'released' }
  | { readonly kind: 'closed' }
  | { readonly kind: 'link-lost' }
  | { readonly kind: 'link-restored' }
  /** Numbers only; never moves a phase. */
  | { readonly kind: 'measured'; readonly measures: Partial<Measures> }
  /** The source's guest runs there and this move is over on that side. */
  | { readonly kind: 'source-running'; readonly failure: Failure | null }
  /** The source's guest is gone and was not handed over. */
  | { readonly kind: 'source-lost'; readonly failure: Failure }
  /** The target's copy is gone and never ran. */
  | { readonly kind: 'target-failed'; readonly failure: Failure }
  /** The target's guest is gone after it ran. */
  | { readonly kind: 'target-lost'; readonly failure: Failure }
  /** The control plane waited long enough for a host that says nothing. */
  | { readonly kind: 'gave-up'; readonly failure: Failure }
  /** The whole host is proven to run no guests; said by the control plane, in the commit that fences it. */
  | { readonly kind: 'source-fenced'; readonly failure: Failure }
  | { readonly kind: 'target-fenced'; readonly failure: Failure }
);

export type MigrationOrder =
  | { readonly side: 'target'; readonly kind: 'receive' }
  | { readonly side: 'source'; readonly kind: 'send'; readonly endpoint: Endpoint }
  | { readonly side: 'source'; readonly kind: 'cancel' }
  /** A held move completes now; another goes over to post-copy. */
  | { readonly side: 'source'; readonly kind: 'switch' }
  | { readonly side: 'target'; readonly kind: 'go' }
  | { readonly side: 'source'; readonly kind: 'roll-back' }
  | { readonly side: 'source'; readonly kind: 'release' }
  | { readonly side: 'target'; readonly kind: 'close'; readonly ends: MayEnd }
  | { readonly side: 'source'; readonly kind: 'power-off' }
  | { readonly side: 'target'; readonly kind: 'power-on' };

/**
 * Which copy may be ended by `close`: one that never ran; also one that runs but lacks pages that nobody has any more; or
 * whatever is left, because the guest is lost.
 */
export type MayEnd = 'unrun' | 'incomplete' | 'any';

/** What is known after the fact. The same fact twice changes nothing. */
export function step(migration: Migration, fact: MigrationFact): Migration {
  if (isOutdated(migration, fact)) return migration;
  const noted = note(migration, fact);
  return isEnd(migration.phase) ? noted : conclude(noted, fact);
}

/** Asks for cancellation. @returns undefined when the phase forbids it: the table in phases.ts says which do. */
export function requestCancel(migration: Migration, at: number): Migration | undefined {
  if (!phases[migration.phase].cancellable) return undefined;
  if (migration.cancelRequestedAt !== null) return migration;
  const asked = { ...migration, cancelRequestedAt: at };
  // Nothing was ordered from the source yet, so nobody needs to be asked where the guest is.
  return migration.evidence.listening ? asked : end(asked, 'cancelled', at);
}

/** A held move completes, another goes over to post-copy. Whether it may, switching.ts says. */
export function requestSwitch(migration: Migration, at: number): Migration {
  const { hold } = migration;
  if (hold === undefined) return { ...migration, switchRequestedAt: migration.switchRequestedAt ?? at };
  return { ...migration, hold: { ...hold, switchRequestedAt: hold.switchRequestedAt ?? at } };
}

/** Everything that should be done now and is not proven done. Sending an order twice is harmless. */
export function outstanding(migration: Migration): MigrationOrder[] {
  const { evidence } = migration;
  const orders: MigrationOrder[] = [];
  if (isEnd(migration.phase)) {
    const onTarget =
      migration.phase === 'completed' || (migration.phase === 'failed' && migration.guest === 'on-target');
    const targetIsGone = evidence.targetClosed ?? evidence.targetFenced;
    const lost = migration.phase === 'failed' && migration.guest === 'lost';
    if (!onTarget && !targetIsGone && migration.technique !== 'cold')
      orders.push({ side: 'target', kind: 'close', ends: lost ? 'any' : 'unrun' });
    const sourceIsDead = migration.phase === 'failed' && migration.guest !== 'on-source';
    if (sourceIsDead && !sourceIsReleased(evidence) && migration.technique !== 'cold')
      orders.push({ side: 'source', kind: 'release' });
    return orders;
  }
  if (evidence.sourceFenced || evidence.targetFenced) return afterFencing(migration);
  if (migration.technique === 'cold') {
    if (!evidence.poweredOff) orders.push({ side: 'source', kind: 'power-off' });
    else if (!evidence.resumed) orders.push({ side: 'target', kind: 'power-on' });
    return orders;
  }
  if (!evidence.listening) return [{ side: 'target', kind: 'receive' }];
  if (evidence.targetClosed && evidence.handedOver && !evidence.resumed) return [{ side: 'source', kind: 'roll-back' }];
  const stop = migration.cancelRequestedAt !== null || migration.giveUp !== null;
  if (stop && !evidence.stopped) orders.push({ side: 'source', kind: 'cancel' });
  else if (!evidence.sending) orders.push({ side: 'source', kind: 'send', endpoint: evidence.listening.endpoint });
  else if (awaitsSwitch(migration)) orders.push({ side: 'source', kind: 'switch' });
  if (evidence.handedOver && !evidence.resumed) orders.push({ side: 'target', kind: 'go' });
  if (mayRelease(migration)) orders.push({ side: 'source', kind: 'release' });
  return orders;
}

/** It was told to switch, and its source has not said that it does. */
function awaitsSwitch({ hold, switchRequestedAt, switchedToPostCopy, evidence }: Migration): boolean {
  if (evidence.stopped) return false;
  return hold ? hold.switchRequestedAt !== null : switchRequestedAt !== undefined && switchedToPostCopy === null;
}

/** One side is fenced and the move is open: the other is asked for the one thing that decides, and nothing else. */
function afterFencing(migration: Migration): MigrationOrder[] {
  const { evidence, technique } = migration;
  if (technique === 'cold') {
    return [evidence.poweredOff ? { side: 'target', kind: 'power-on' } : { side: 'source', kind: 'power-off' }];
  }
  if (evidence.targetFenced) return [{ side: 'source', kind: 'cancel' }];
  if (evidence.handedOver && !evidence.resumed) return [{ side: 'target', kind: 'go' }];
  return [{ side: 'target', kind: 'close', ends: hasSwitched(migration) ? 'incomplete' : 'unrun' }];
}

/** Which side owns the VM by what is proven: the commit that records this changes the owner. */
export function ownerSide(migration: Migration): 'source' | 'target' {
  return migration.evidence.resumed ||
    (migration.technique === 'cold' && migration.evidence.poweredOff && migration.phase !== 'failed')
    ? 'target'
    : 'source';
}

/** May room on the target be freed? Only when nothing of the guest is left there. */
export function targetIsClean(migration: Migration): boolean {
  return isEnd(migration.phase) && outstanding(migration).every((order) => order.side !== 'target');
}

function note(migration: Migration, fact: MigrationFact): Migration {
  const { evidence } = migration;
  const at = fact.at;
  const first = (proof: Evidence): Migration => ({ ...migration, evidence: { ...proof, ...evidence } });
  switch (fact.kind) {
    case 'listening':
      return first({ listening: { at, endpoint: fact.endpoint } });
    case 'sending':
      return first({ sending: { at } });
    case 'armed':
      return first({ sending: { at }, armed: { at } });
    case 'stopped':
      return first({ stopped: { at, for: fact.for } });
    case 'state-transferred':
      return first({ stateTransferred: { at } });
    case 'pre-paging':
      return first({ prePaging: { at } });
    case 'handed-over':
      return first({ handedOver: { at } });
    case 'resumed':
      return first({ resumed: { at, withFaults: fact.withFaults } });
    case 'all-pages-arrived':
      return first({ allPagesArrived: { at } });
    case 'powered-off':
      return first({ poweredOff: { at } });
    case 'released':
      return first({ released: { at } });
    case 'closed':
    case 'target-failed':
      return first({ targetClosed: { at } });
    case 'link-lost':
      return first({ linkLost: { at } });
    case 'link-restored': {
      const { linkLost, ...rest } = evidence;
      if (!linkLost) return migration;
      const { recoveries, recoveringMs } = migration.measures;
      const measured = {
        recoveries: (recoveries ?? 0) + 1,
        recoveringMs: (recoveringMs ?? 0) + Math.max(0, at - linkLost.at),
      };
      return { ...migration, evidence: rest, measures: { ...migration.measures, ...measured } };
    }
    case 'round':
      if (migration.rounds.some((round) => round.round === fact.round.round)) return migration;
      return { ...migration, rounds: [...migration.rounds, fact.round].toSorted((a, b) => a.round - b.round) };
    case 'switching':
      return {
        ...migration,
        switchedToPostCopy: migration.switchedToPostCopy ?? { round: fact.round, because: fact.because },
      };
    case 'measured':
      return { ...migration, measures: { ...migration.measures, ...fact.measures } };
    case 'gave-up':
      return { ...migration, giveUp: migration.giveUp ?? fact.failure };
    case 'source-fenced':
    case 'target-fenced': {
      const proof = fact.kind === 'source-fenced' ? { sourceFenced: { at } } : { targetFenced: { at } };
      const noted = first(proof);
      // Whatever was wrong before: this decides now, and it is the reason to be told.
      return isEnd(migration.phase) ? noted : { ...noted, giveUp: fact.failure };
    }
    case 'source-running':
    case 'source-lost':
    case 'target-lost':
      return migration;
  }
}

/** Who alone can say it. What a side said before it was fenced and is heard only now decides nothing any more. */
const saidBy: { readonly [K in MigrationFact['kind']]?: 'source' | 'target' } = {
  sending: 'source',
  armed: 'source',
  round: 'source',
  switching: 'source',
  stopped: 'source',
  'handed-over': 'source',
  'powered-off': 'source',
  released: 'source',
  'source-running': 'source',
  'source-lost': 'source',
  listening: 'target',
  resumed: 'target',
  'all-pages-arrived': 'target',
  closed: 'target',
  'target-failed': 'target',
  'target-lost': 'target',
};

function isOutdated({ evidence }: Migration, fact: MigrationFact): boolean {
  const side = saidBy[fact.kind];
  return (side === 'source' && !!evidence.sourceFenced) || (side === 'target' && !!evidence.targetFenced);
}

/** Did the source pass, as far as is known, the point from which it never runs the guest again in a post-copy? */
function hasSwitched(migration: Migration): boolean {
  return migration.switchedToPostCopy !== null || endedInPostCopy(migration);
}

/** The guest runs on the target and needs nothing of the source any more. */
function isWholeOnTarget({ resumed, allPagesArrived }: Evidence): boolean {
  return resumed !== undefined && (!resumed.withFaults || allPagesArrived !== undefined);
}

/** Nothing of the guest runs on the source, or ever will. */
function sourceIsReleased({ released, sourceFenced }: Evidence): boolean {
  return released !== undefined || sourceFenced !== undefined;
}

/** Whoever asked for the end gets it: the target's QEMU fails as an echo of the cancel, and that is no news. */
function isCancelled(migration: Migration, failure: Failure | null): boolean {
  if (failure !== null) return false;
  return migration.cancelRequestedAt !== null || migration.giveUp === null;
}

/**
 * The source's own reason counts, unless all it knows is that the other end broke off: then the target, or the control
 * plane, knows more.
 */
function whyItStays(migration: Migration, failure: Failure | null): Failure {
  const onlySawTheOtherEnd = failure?.code === 'target-died' || failure?.code === 'target-unreachable';
  const known = failure === null || onlySawTheOtherEnd ? (migration.giveUp ?? failure) : failure;
  return known ?? unexplained(migration);
}

function conclude(migration: Migration, fact: MigrationFact): Migration {
  const { evidence } = migration;
  const fail = (guest: GuestAfterFailure, failure: Failure) => endFailed(migration, fact.at, guest, failure);
  const known = migration.giveUp;
  if (known && (evidence.sourceFenced || evidence.targetFenced)) {
    const guest = guestAfterFencing(migration);
    if (guest !== undefined) return fail(guest, known);
  }
  switch (fact.kind) {
    case 'source-running':
      // Said by the side that would know: after the target ran, no source may claim this.
      if (evidence.resumed) return migration;
      if (isCancelled(migration, fact.failure) && mayFollow(migration.phase, 'cancelled'))
        return end(migration, 'cancelled', fact.at);
      return fail('on-source', whyItStays(migration, fact.failure));
    case 'target-failed':
      if (evidence.resumed) return migration; // it ran: what contradicts this moves nothing
      if (evidence.stopped?.for === 'post-copy') return fail('lost', fact.failure);
      if (migration.technique === 'cold') return fail('lost', fact.failure);
      if (!evidence.listening) return fail('on-source', fact.failure);
      return { ...migration, giveUp: migration.giveUp ?? fact.failure };
    case 'gave-up':
      return evidence.listening || evidence.poweredOff || evidence.resumed
        ? migration
        : fail('on-source', fact.failure);
    case 'source-lost':
      // The copy over there has it all, unless it is gone as well and never ran.
      if (evidence.handedOver && !evidence.targetClosed) return advance(migration, fact.at);
      if (isWholeOnTarget(evidence)) return advance(migration, fact.at);
      return fail('lost', fact.failure);
    case 'target-lost':
      if (isWholeOnTarget(evidence)) return advance(migration, fact.at);
      return fail('lost', fact.failure);
    default:
      // Heard only now: QEMU cannot go back behind its switch, and the copy it switched to never ran.
      if (known && evidence.targetClosed && evidence.stopped?.for === 'post-copy' && !evidence.resumed)
        return fail('lost', known);
      return advance(migration, fact.at);
  }
}

/** Where the guest is, once a fencing and what else is known decide it; undefined: it goes on, or the other side must say. */
function guestAfterFencing(migration: Migration): GuestAfterFailure | undefined {
  const { evidence, technique } = migration;
  const { sourceFenced, targetFenced, handedOver, listening, resumed, poweredOff, targetClosed } = evidence;
  if (technique === 'cold') {
    if (resumed) return undefined;
    return (poweredOff ? targetFenced : sourceFenced) ? 'lost' : undefined;
  }
  if (!targetFenced) {
    if (isWholeOnTarget(evidence)) return undefined;
    // Without an endpoint nobody was told to send: there is nothing on the target to ask for.
    return targetClosed || !listening ? 'lost' : undefined;
  }
  // What may have run there has written to the disks: the source's memory is of the past.
  if (sourceFenced || handedOver || resumed || hasSwitched(migration)) return 'lost';
  return listening ? undefined : 'on-source';
}

/** Moves to the phase that all evidence proves, entering each one on the way. */
function advance(migration: Migration, at: number): Migration {
  const to = provenPhase(migration);
  if (to === migration.phase) {
    const begun = (migration.rounds.at(-1)?.round ?? 0) + 1;
    const known = migration.history.findLast((entry) => entry.phase === 'warming-up')?.round ?? 1;
    if (to !== 'warming-up' || begun <= known) return migration;
    const entry: PhaseEntry = { phase: 'warming-up', at: notBefore(migration, at), round: begun };
    return { ...migration, history: [...migration.history, entry] };
  }
  const way = wayBetween(migration.phase, to, pathOf[migration.technique]);
  if (way === undefined) return migration; // older news: what it proves was passed already
  let latest = notBefore(migration, 0);
  const entries = way.map((phase): PhaseEntry => {
    const when = Math.max(enteredAt(phase, migration.evidence) ?? at, latest);
    latest = when;
    return phase === 'warming-up' ? { phase, at: when, round: 1 } : { phase, at: when };
  });
  const moved = { ...migration, history: [...migration.history, ...entries] };
  if (to === 'completed') {
    const endedAt = entries.at(-1)?.at ?? at;
    return { ...withTotals(moved, endedAt), phase: 'completed', endedAt };
  }
  if (to === 'cancelled' || to === 'failed') return migration; // never proven by evidence alone
  return { ...moved, phase: to };
}

function provenPhase(migration: Migration): PhaseName {
  const { evidence } = migration;
  if (migration.technique === 'cold') {
    if (evidence.resumed) return 'completed';
    if (evidence.poweredOff) return 'powering-on';
    return evidence.sending ? 'powering-off' : 'reserved';
  }
  if (isWholeOnTarget(evidence) && sourceIsReleased(evidence)) return 'completed';
  if (endedInPostCopy(migration)) {
    if (evidence.linkLost && evidence.resumed && !evidence.allPagesArrived) return 'recovering';
    if (evidence.resumed) return evidence.prePaging ? 'pre-paging' : 'resumed-with-faults';
    return evidence.stateTransferred ? 'state-transferred' : 'suspended';
  }
  if (evidence.resumed) return 'resumed';
  if (evidence.stopped || evidence.handedOver) return 'stop-and-copy';
  if (evidence.armed) return 'armed';
  return evidence.sending ? 'warming-up' : 'reserved';
}

function enteredAt(phase: PhaseName, evidence: Evidence): number | undefined {
  switch (phase) {
    case 'warming-up':
    case 'powering-off':
      return evidence.sending?.at;
    case 'armed':
      return evidence.armed?.at;
    case 'stop-and-copy':
    case 'suspended':
      return (evidence.stopped ?? evidence.handedOver)?.at;
    case 'state-transferred':
      return evidence.stateTransferred?.at;
    case 'resumed':
    case 'resumed-with-faults':
      return evidence.resumed?.at;
    case 'pre-paging':
      return evidence.prePaging?.at;
    case 'copying':
    case 'powering-on':
      return evidence.poweredOff?.at;
    default:
      return undefined;
  }
}

function mayRelease(migration: Migration): boolean {
  const { handedOver, resumed, allPagesArrived, released } = migration.evidence;
  if (!resumed || released) return false;
  return resumed.withFaults ? allPagesArrived !== undefined : handedOver !== undefined;
}

function withTotals(migration: Migration, endedAt: number): Migration {
  const { stopped, resumed, allPagesArrived, poweredOff } = migration.evidence;
  const pausedAt = stopped?.at ?? poweredOff?.at;
  const measured: Partial<Measures> = {
    totalMs: endedAt - migration.startedAt,
    downtimeMs: resumed && pausedAt !== undefined ? Math.max(0, resumed.at - pausedAt) : null,
    degradedMs: resumed?.withFaults && allPagesArrived ? Math.max(0, allPagesArrived.at - resumed.at) : null,
  };
  return { ...migration, measures: { ...migration.measures, ...measured } };
}

/** Two hosts, two clocks, and both may be set: the history never runs backwards. */
function notBefore({ history }: Migration, at: number): number {
  return Math.max(at, history.at(-1)?.at ?? 0);
}

function end(migration: Migration, phase: 'cancelled', saidAt: number): Migration {
  const at = notBefore(migration, saidAt);
  return { ...ended(migration, phase, at), phase, endedAt: at };
}

function endFailed(migration: Migration, saidAt: number, guest: GuestAfterFailure, failure: Failure): Migration {
  const at = notBefore(migration, saidAt);
  return { ...ended(migration, 'failed', at), phase: 'failed', endedAt: at, guest, failure };
}

function ended(migration: Migration, phase: PhaseName, at: number): Migration {
  return {
    ...migration,
    history: [...migration.history, { phase, at }],
    measures: { ...migration.measures, totalMs: at - migration.startedAt },
  };
}

function unexplained(migration: Migration): Failure {
  return {
    code: 'source-refused',
    message: `The move of ${migration.vmName} ended on its source without a reason given.`,
    hint: "The guest runs on the source. Look at the source agent's log, then try again.",
  };
}
