/**
 * Which moves empty a host or bring its VMs back: targets, order, what it will cost, and what cannot move. Looks, never acts;
 * what it asks for is an interface, so that a better planner or forecast takes its place behind `planMoves()`.
 *
 * Targets: the largest VMs first, each to the host with most free room; where that leaves some without a place, packed
 * tightly instead. Order: by priority. Time: a list schedule on the moves that may run at once, which share one link.
 *
 * Not here: beginning the moves (drain-progress.ts), and the rules (placement.ts, reservations.ts).
 */
import { UserError } from '../model/failure.ts';
import type { HostRecord, RoomRecord } from '../model/host.ts';
import type { HostId } from '../model/ids.ts';
import type { Technique } from '../model/migration.ts';
import type { VmRecord } from '../model/vm.ts';

export interface Wanted {
  readonly vm: VmRecord;
  /** Null: wherever there is room. */
  readonly to: HostRecord | null;
}

/** What one move costs when it has the link for itself. */
export interface MoveCost {
  readonly bytes: number;
  readonly transferMs: number;
  /** Before and after the transfer. */
  readonly fixedMs: number;
}

export interface PlannedMove {
  readonly vm: VmRecord;
  readonly to: HostId;
  readonly technique: Technique;
  readonly bytes: number;
  readonly startsAtMs: number;
  readonly ms: number;
}

export interface CannotMove {
  readonly vm: VmRecord;
  readonly says: string;
  readonly next: string;
}

export interface MovesPlan {
  /** In the order in which they begin. */
  readonly moves: readonly PlannedMove[];
  readonly cannot: readonly CannotMove[];
  readonly bytes: number;
  readonly ms: number;
}

type Rooms = ReadonlyMap<HostId, RoomRecord>;

export interface Ground {
  /** The host that is emptied or filled again: the link that all moves share is its own. */
  readonly drained: HostId;
  readonly rooms: Rooms;
  /** @throws UserError why no host can take it */
  readonly targetsOf: (
    vm: VmRecord,
    technique: Technique,
    to: HostRecord | null,
    rooms: Rooms,
  ) => readonly HostRecord[];
  readonly costOf: (vm: VmRecord, to: HostId, technique: Technique) => MoveCost;
  readonly allowCold: boolean;
  readonly movesAtOnce: number;
  /** Of these, so many at once with the same host at the other end. */
  readonly movesPerPeer: number;
}

interface Assigned {
  readonly vm: VmRecord;
  readonly to: HostId;
  readonly technique: Technique;
}

/** The most important first. */
export function byPriority(a: VmRecord, b: VmRecord): number {
  return b.priority - a.priority || (a.name < b.name ? -1 : 1);
}

export function planMoves(wanted: readonly Wanted[], ground: Ground): MovesPlan {
  const spread = assign(wanted, ground, (places) => places[0]);
  const packed = spread.cannot.length === 0 ? spread : assign(wanted, ground, (places) => places.at(-1));
  const { assigned, cannot } = packed.cannot.length < spread.cannot.length ? packed : spread;
  const ordered = assigned.toSorted((a, b) => byPriority(a.vm, b.vm));
  const moves = schedule(ordered, ground);
  return {
    moves,
    cannot,
    bytes: moves.reduce((sum, { bytes }) => sum + bytes, 0),
    ms: Math.max(0, ...moves.map(({ startsAtMs, ms }) => startsAtMs + ms)),
  };
}

function assign(
  wanted: readonly Wanted[],
  ground: Ground,
  choose: (places: readonly HostRecord[]) => HostRecord | undefined,
): { assigned: Assigned[]; cannot: CannotMove[] } {
  const rooms = new Map(ground.rooms);
  const assigned: Assigned[] = [];
  const cannot: CannotMove[] = [];
  const largestFirst = wanted.toSorted((a, b) => b.vm.spec.memoryMiB - a.vm.spec.memoryMiB || byPriority(a.vm, b.vm));
  for (const { vm, to } of largestFirst) {
    const found = place(vm, to, ground, rooms);
    if ('refusal' in found) {
      cannot.push({ vm, says: found.refusal.message, next: waysOut(vm, found.refusal, ground.allowCold) });
      continue;
    }
    const host = choose(found.places);
    const room = host && rooms.get(host.id);
    if (host === undefined || room === undefined) continue;
    // Taken in the plan, as the move's reservation will take it.
    const guestsMiB = { ...room.guestsMiB, [vm.id]: vm.spec.memoryMiB };
    rooms.set(host.id, { ...room, guestsMiB });
    assigned.push({ vm, to: host.id, technique: found.technique });
  }
  return { assigned, cannot };
}

type Places =
  | { readonly technique: Technique; readonly places: readonly HostRecord[] }
  | { readonly refusal: UserError };

function place(vm: VmRecord, to: HostRecord | null, ground: Ground, rooms: Rooms): Places {
  const by = (technique: Technique): Places => {
    try {
      return { technique, places: ground.targetsOf(vm, technique, to, rooms) };
    } catch (error) {
      if (error instanceof UserError) return { refusal: error };
      throw error;
    }
  };
  const live = by('auto');
  if ('places' in live || !ground.allowCold) return live;
  const cold = by('cold');
  return 'places' in cold ? cold : live;
}

/** What can be done about a VM that no host may take. */
function waysOut(vm: VmRecord, refusal: UserError, allowCold: boolean): string {
  const stop = `Or shut it down: drover vm stop ${vm.name}.`;
  const live = vm.cannotMoveLive !== null || refusal.code === 'live-unsafe' || refusal.code === 'incompatible';
  if (live && !allowCold) {
    const cold = `Let it be shut down and started elsewhere: --allow-cold, or drover migrate ${vm.name} --technique cold.`;
    return vm.cannotMoveLive === null ? `${refusal.hint} ${cold} ${stop}` : `${cold} ${stop}`;
  }
  if (refusal.code === 'no-room') return `Stop or move a VM elsewhere, or add a host. ${stop}`;
  // A person chooses no host here.
  return `${refusal.hint.replace(/^Choose another host/, 'Add a host')} ${stop}`;
}

/** When each move begins and how long it takes, with so many at once; those that run share the link. */
function schedule(ordered: readonly Assigned[], ground: Ground): PlannedMove[] {
  const slots = Math.max(1, Math.min(ground.movesAtOnce, ordered.length));
  const running: { readonly peer: HostId; readonly endsAt: number }[] = [];
  const waiting = [...ordered];
  const moves: PlannedMove[] = [];
  let now = 0;
  while (waiting.length > 0) {
    const peerOf = ({ vm, to }: Assigned): HostId => (to === ground.drained ? vm.host : to);
    const busyWith = (peer: HostId) => running.filter((one) => one.peer === peer).length;
    const at = running.length < slots ? waiting.findIndex((next) => busyWith(peerOf(next)) < ground.movesPerPeer) : -1;
    const [next] = at === -1 ? [] : waiting.splice(at, 1);
    if (next === undefined) {
      // Something runs, or one of them could begin: the first end frees a place.
      now = Math.min(...running.map(({ endsAt }) => endsAt));
      running.splice(0, running.length, ...running.filter(({ endsAt }) => endsAt > now));
      continue;
    }
    const { bytes, transferMs, fixedMs } = ground.costOf(next.vm, next.to, next.technique);
    const ms = Math.round(fixedMs + transferMs * slots);
    moves.push({ ...next, bytes, startsAtMs: Math.round(now), ms });
    running.push({ peer: peerOf(next), endsAt: now + ms });
  }
  return moves;
}

interface Ends {
  readonly source: HostId;
  readonly target: HostId;
}

/** May one more move run between these two, beside those that are open? */
export function mayBegin(
  move: Ends,
  open: readonly Ends[],
  { drained, movesAtOnce, movesPerPeer }: Pick<Ground, 'drained' | 'movesAtOnce' | 'movesPerPeer'>,
): boolean {
  const touching = (host: HostId) => open.filter(({ source, target }) => source === host || target === host).length;
  const peer = move.source === drained ? move.target : move.source;
  return touching(drained) < movesAtOnce && touching(peer) < movesPerPeer;
}
