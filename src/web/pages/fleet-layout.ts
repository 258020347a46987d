/**
 * Where each host's lane and each guest's chip is, worked out from numbers alone: so a lane that is not drawn still has its place, and
 * a move is drawn between the right points.
 */
import type { HostView, MigrationView, VmView } from '../../wire/endpoints.ts';
import { byName } from '../words.ts';

export const chip = { width: 138, height: 30, gap: 6 } as const;
const narrowBelow = 680;
const head = { width: 236, height: 54 } as const;
const padding = 10;
const least = 58;
const between = 8;

/** What stands in a lane: a guest of this host, or the place of one that comes or has just left. */
export type Occupant =
  | { readonly kind: 'guest'; readonly vm: VmView }
  /** Nothing but its name has been read yet. */
  | { readonly kind: 'name'; readonly name: string }
  | { readonly kind: 'ghost'; readonly migration: MigrationView };

export interface Lane {
  readonly host: HostView;
  readonly occupants: readonly Occupant[];
  readonly top: number;
  readonly height: number;
}

type VmsByHost = ReadonlyMap<string, readonly VmView[]>;

export interface FleetLayout {
  readonly lanes: readonly Lane[];
  readonly laneOf: ReadonlyMap<string, Lane>;
  readonly height: number;
  readonly columns: number;
  readonly isNarrow: boolean;
}

export function layOut(
  hosts: readonly HostView[],
  vmsByHost: VmsByHost | 'unread',
  open: readonly MigrationView[],
  width: number,
): FleetLayout {
  const isNarrow = width < narrowBelow;
  const room = width - 2 * padding - (isNarrow ? 0 : head.width);
  const columns = Math.max(1, Math.floor((room + chip.gap) / (chip.width + chip.gap)));
  const ghosts = vmsByHost === 'unread' ? noGhosts : ghostsOf(open, vmsByHost);
  const laneOf = new Map<string, Lane>();
  let top = 0;
  const lanes = hosts.map((host): Lane => {
    const guests = vmsByHost === 'unread' ? host.vms : (vmsByHost.get(host.name) ?? none);
    const coming = ghosts.get(host.name) ?? none;
    const rows = Math.ceil((guests.length + coming.length) / columns);
    const chips = rows * (chip.height + chip.gap) - (rows > 0 ? chip.gap : 0);
    const height = isNarrow
      ? head.height + padding + (rows > 0 ? chips + padding : 0)
      : Math.max(least, chips + 2 * padding);
    const lane = new LazyLane(host, top, height, guests, coming);
    top += height + between;
    laneOf.set(host.name, lane);
    return lane;
  });
  return { lanes, laneOf, height: Math.max(0, top - between), columns, isNarrow };
}

const none: readonly never[] = [];
const noGhosts: ReadonlyMap<string, readonly Occupant[]> = new Map();

/** Of a large fleet few lanes are ever seen, so who stands in one is put in order only when somebody looks. */
class LazyLane implements Lane {
  readonly host: HostView;
  readonly top: number;
  readonly height: number;
  readonly #guests: readonly (VmView | string)[];
  readonly #coming: readonly Occupant[];
  #occupants: readonly Occupant[] | undefined;

  constructor(
    host: HostView,
    top: number,
    height: number,
    guests: readonly (VmView | string)[],
    coming: readonly Occupant[],
  ) {
    this.host = host;
    this.top = top;
    this.height = height;
    this.#guests = guests;
    this.#coming = coming;
  }

  get occupants(): readonly Occupant[] {
    if (this.#occupants === undefined) {
      const guests = this.#guests.map((guest): Occupant =>
        typeof guest === 'string' ? { kind: 'name', name: guest } : { kind: 'guest', vm: guest },
      );
      this.#occupants = [...guests.sort((a, b) => byName(nameOf(a), nameOf(b))), ...this.#coming];
    }
    return this.#occupants;
  }
}

function nameOf(occupant: Occupant): string {
  return occupant.kind === 'guest' ? occupant.vm.name : occupant.kind === 'name' ? occupant.name : '';
}

function ghostsOf(open: readonly MigrationView[], vmsByHost: VmsByHost): ReadonlyMap<string, readonly Occupant[]> {
  const ghosts = new Map<string, Occupant[]>();
  for (const migration of open) {
    for (const host of [migration.source, migration.target]) {
      if (vmsByHost.get(host)?.some(({ id }) => id === migration.vm)) continue;
      const there = ghosts.get(host);
      const ghost: Occupant = { kind: 'ghost', migration };
      if (there) there.push(ghost);
      else ghosts.set(host, [ghost]);
    }
  }
  return ghosts;
}

/** Top left of the nth chip, within the lane. */
export function placeOf(index: number, { columns, isNarrow }: FleetLayout): { x: number; y: number } {
  const column = index % columns;
  const row = Math.floor(index / columns);
  return {
    x: padding + (isNarrow ? 0 : head.width) + column * (chip.width + chip.gap),
    y: (isNarrow ? head.height : padding) + row * (chip.height + chip.gap),
  };
}

function idOf(occupant: Occupant): string | undefined {
  return occupant.kind === 'guest' ? occupant.vm.id : occupant.kind === 'ghost' ? occupant.migration.vm : undefined;
}

/** The middle of a VM's chip or ghost, within the whole fleet. */
export function middleOf(vm: string, host: string, layout: FleetLayout): { x: number; y: number } | undefined {
  const lane = layout.laneOf.get(host);
  const index = lane?.occupants.findIndex((each) => idOf(each) === vm);
  if (lane === undefined || index === undefined || index === -1) return undefined;
  const { x, y } = placeOf(index, layout);
  return { x: x + chip.width / 2, y: lane.top + y + chip.height / 2 };
}

/** Of lanes in order, those that reach into the part in view. */
export function lanesWithin(lanes: readonly Lane[], from: number, to: number): readonly Lane[] {
  let low = 0;
  let high = lanes.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    const lane = lanes[middle];
    if (lane !== undefined && lane.top + lane.height < from) low = middle + 1;
    else high = middle;
  }
  let end = low;
  while (end < lanes.length && (lanes[end]?.top ?? 0) < to) end++;
  return lanes.slice(low, end);
}
