/** The fleet: each host a lane with its guests, moves drawn between them, and a guest dragged onto another host moves there. */
import { memo, useCallback, useMemo, useRef, useState, type KeyboardEvent } from 'react';
import type { HostView, VmView } from '../../wire/endpoints.ts';
import { useLive } from '../live.ts';
import { goTo, pathTo, setQuery, useQuery } from '../router.ts';
import { byName, count, mebibytes, percent, plural } from '../words.ts';
import { useMay } from '../parts/act.tsx';
import { HostBadge } from '../parts/badge.tsx';
import { Empty } from '../parts/empty.tsx';
import { Icon } from '../parts/icon.tsx';
import { HostLink, Link } from '../parts/link.tsx';
import { MoveDialog } from '../parts/move-dialog.tsx';
import { Figure, Meter, PageFrame } from '../parts/page.tsx';
import { useVisible } from '../parts/visible.ts';
import { Moves } from './fleet-moves.tsx';
import { layOut, lanesWithin, placeOf, chip, type FleetLayout, type Lane, type Occupant } from './fleet-layout.ts';
import { useDrag, type Drag } from './use-drag.ts';

export function FleetPage() {
  const hosts = useLive((live) => live.hosts.list());
  return (
    <PageFrame title="Fleet">
      <Summary />
      {hosts.length === 0 ? (
        <Empty title="No host has joined yet" says="Start an agent on each host, and it appears here by itself.">
          <code>drover agent --help</code>
        </Empty>
      ) : (
        <Lanes hosts={hosts} />
      )}
    </PageFrame>
  );
}

function Summary() {
  const hosts = useLive((live) => live.hosts.list());
  const vms = useLive((live) => live.vms.list());
  const open = useLive((live) => live.openMigrations());
  const isRead = useLive(({ loaded }) => loaded === 'all');
  const up = hosts.filter(({ state, sleep }) => state === 'up' && (sleep === null || sleep.state === 'awake'));
  const running = vms.filter(({ state }) => state === 'running').length;
  const loads = up.flatMap(({ cpuLoad }) => cpuLoad ?? []);
  const mean = loads.reduce((sum, load) => sum + load, 0) / Math.max(1, loads.length);
  const used = hosts.reduce((sum, host) => sum + host.usedMiB, 0);
  const room = hosts.reduce((sum, host) => sum + host.capacityMiB, 0);
  const trouble = hosts.filter((host) => host.state === 'silent' || host.sickness !== null).length;
  return (
    <div className="figures">
      <Figure
        word="Hosts up"
        value={`${count(up.length)} of ${count(hosts.length)}`}
        about={trouble > 0 ? `${trouble} silent or sick` : 'none silent or sick'}
      />
      <Figure
        word="VMs running"
        value={isRead ? `${count(running)} of ${count(vms.length)}` : '…'}
        about={
          !isRead ? 'being read' : running === vms.length ? 'all of them' : `${count(vms.length - running)} not running`
        }
      />
      <Figure
        word="CPU"
        value={percent(mean)}
        about={loads.length === 0 ? 'not known' : `${percent(Math.min(...loads))} to ${percent(Math.max(...loads))}`}
      />
      <Figure
        word="Memory given"
        value={percent(used / Math.max(1, room))}
        about={`${mebibytes(used)} of ${mebibytes(room)}`}
      />
      <Figure
        word="Moves under way"
        value={count(open.length)}
        about={open.length === 0 ? 'nothing moves' : <Link to="/migrations">Show them</Link>}
      />
    </div>
  );
}

const orders = ['name', 'load', 'trouble'] as const;

function Lanes({ hosts }: { hosts: readonly HostView[] }) {
  const vmsByHost = useLive((live) => live.vmsByHost());
  const open = useLive((live) => live.openMigrations());
  const query = useQuery();
  const text = (query.get('q') ?? '').toLowerCase();
  const order = orders.find((each) => each === query.get('order')) ?? 'name';
  const ref = useRef<HTMLDivElement>(null);
  const { from, to, width } = useVisible(ref);
  const [moving, setMoving] = useState<{ vm: VmView; to: string | null }>();
  const shown = useMemo(() => shownHosts(hosts, vmsByHost, text, order), [hosts, vmsByHost, text, order]);
  const isRead = useLive(({ loaded }) => loaded === 'all');
  const layout = useMemo(
    () => layOut(shown, isRead ? vmsByHost : 'unread', open, width),
    [shown, isRead, vmsByHost, open, width],
  );
  const mayMove = useMay('migrateVm');
  const drag = useDrag(
    ref,
    mayMove,
    useCallback((vm: VmView, host: string) => setMoving({ vm, to: host }), []),
  );
  // Before its width is known nothing has a place.
  const seen = width === 0 ? [] : lanesWithin(layout.lanes, from, to);
  return (
    <>
      <div className="toolbar">
        <input
          type="search"
          aria-label="Find a host or VM"
          placeholder="Find a host or VM"
          value={query.get('q') ?? ''}
          onChange={(event) => setQuery({ q: event.target.value })}
        />
        <label>
          Order
          <select value={order} onChange={(event) => setQuery({ order: event.target.value })}>
            <option value="name">by name</option>
            <option value="load">busiest first</option>
            <option value="trouble">trouble first</option>
          </select>
        </label>
        {mayMove && (
          <>
            <p className="muted hint for-mouse">Drag a guest onto another host to move it, or select it and press M.</p>
            <p className="muted hint for-touch">Open a guest to move it.</p>
          </>
        )}
      </div>
      {shown.length === 0 && (
        <Empty title="Nothing is called so" says={`No host and no VM has “${text}” in its name.`}>
          <button type="button" onClick={() => setQuery({ q: null })}>
            Show all
          </button>
        </Empty>
      )}
      <div
        ref={ref}
        className={`lanes${drag === undefined ? '' : ' dragging'}${layout.isNarrow ? ' narrow' : ''}`}
        style={{ height: layout.height }}
        onKeyDown={(event) => onKey(event, (vm) => mayMove && setMoving({ vm, to: null }), vmsByHost)}
      >
        {seen.map((lane) => (
          <LaneView
            key={lane.host.id}
            lane={lane}
            layout={layout}
            text={text}
            over={drag !== undefined && drag.over === lane.host.name && drag.vm.host !== lane.host.name}
          />
        ))}
        {open.length > 0 && <Moves open={open} layout={layout} from={from} to={to} />}
      </div>
      {drag !== undefined && <Dragged drag={drag} />}
      {moving !== undefined && <MoveDialog vm={moving.vm} to={moving.to} onClose={() => setMoving(undefined)} />}
    </>
  );
}

function shownHosts(
  hosts: readonly HostView[],
  vmsByHost: ReadonlyMap<string, readonly VmView[]>,
  text: string,
  order: (typeof orders)[number],
): readonly HostView[] {
  const found =
    text === ''
      ? hosts
      : hosts.filter(({ name }) => name.includes(text) || vmsByHost.get(name)?.some((vm) => vm.name.includes(text)));
  if (order === 'name') return found;
  const weight = (host: HostView): number =>
    order === 'load'
      ? (host.cpuLoad ?? -1)
      : (host.state === 'silent' ? 4 : 0) + (host.sickness ? 2 : 0) + (host.cordoned ? 1 : 0);
  return found.toSorted((a, b) => weight(b) - weight(a) || byName(a.name, b.name));
}

interface LaneProps {
  readonly lane: Lane;
  readonly layout: FleetLayout;
  readonly text: string;
  readonly over: boolean;
}

const LaneView = memo(function LaneView({ lane, layout, text, over }: LaneProps) {
  const { host, occupants, top, height } = lane;
  // What it said last is of no use any more.
  const cpuLoad = host.state === 'silent' ? null : host.cpuLoad;
  return (
    <section
      className={`lane${over ? ' over' : ''}${host.state === 'silent' ? ' silent' : ''}`}
      aria-label={`Host ${host.name}`}
      data-host={host.name}
      style={{ top, height }}
    >
      <div className="lane-head">
        <div className="lane-name">
          <HostLink name={host.name} />
          <HostBadge host={host} />
          <span className="muted lane-count">
            {plural(occupants.filter(({ kind }) => kind !== 'ghost').length, 'VM')}
          </span>
        </div>
        <div className="lane-meters">
          <Meter word="CPU" share={cpuLoad} says={percent(cpuLoad)} />
          <Meter
            word="Mem"
            share={host.usedMiB / Math.max(1, host.capacityMiB)}
            says={percent(host.usedMiB / Math.max(1, host.capacityMiB))}
          />
        </div>
      </div>
      {occupants.map((occupant, index) => {
        const { x, y } = placeOf(index, layout);
        return (
          <div
            key={keyOf(occupant)}
            className="chip-place"
            style={{ left: x, top: y, width: chip.width, height: chip.height }}
          >
            <Chip occupant={occupant} isFirst={index === 0} text={text} />
          </div>
        );
      })}
    </section>
  );
}, sameLane);

/** Drawn anew only when something on it has changed, not whenever any VM of the fleet has. */
function sameLane(a: LaneProps, b: LaneProps): boolean {
  const one = a.lane;
  const other = b.lane;
  return (
    a.over === b.over &&
    a.text === b.text &&
    a.layout.columns === b.layout.columns &&
    a.layout.isNarrow === b.layout.isNarrow &&
    one.host === other.host &&
    one.top === other.top &&
    one.height === other.height &&
    one.occupants.length === other.occupants.length &&
    one.occupants.every((each, index) => sameOccupant(each, other.occupants[index]))
  );
}

function sameOccupant(a: Occupant, b: Occupant | undefined): boolean {
  if (a.kind === 'guest') return b?.kind === 'guest' && a.vm === b.vm;
  if (a.kind === 'name') return b?.kind === 'name' && a.name === b.name;
  return b?.kind === 'ghost' && a.migration.id === b.migration.id && a.migration.phase === b.migration.phase;
}

function keyOf(occupant: Occupant): string {
  return occupant.kind === 'guest'
    ? occupant.vm.id
    : occupant.kind === 'ghost'
      ? occupant.migration.id
      : `name ${occupant.name}`;
}

function Chip({ occupant, isFirst, text }: { occupant: Occupant; isFirst: boolean; text: string }) {
  if (occupant.kind === 'ghost') {
    const { migration } = occupant;
    return (
      <span className="chip ghost" aria-hidden="true">
        {migration.vmName}
      </span>
    );
  }
  if (occupant.kind === 'name') return <span className="chip unread">{occupant.name}</span>;
  const { vm } = occupant;
  const share = vm.cpuCores === null ? 0 : Math.min(1, vm.cpuCores / vm.cpus);
  const isOff = vm.state !== 'running';
  const found = text !== '' && vm.name.includes(text);
  const state = vm.migration === null ? vm.state : 'moving';
  return (
    <button
      type="button"
      className={`chip${isOff ? ' off' : ''}${vm.migration === null ? '' : ' moving'}${found ? ' found' : ''}`}
      data-vm={vm.id}
      tabIndex={isFirst ? 0 : -1}
      title={`${vm.name}: ${state}, ${mebibytes(vm.memoryMiB)}, ${percent(share)} of ${vm.cpus} CPUs`}
      aria-label={`${vm.name}, ${state}, ${percent(share)} of ${plural(vm.cpus, 'CPU')}`}
      onClick={() => goTo(pathTo.vm(vm.name))}
    >
      {vm.state === 'crashed' && <Icon name="bad" />}
      {vm.state === 'waiting' && <Icon name="wait" />}
      {vm.state === 'stopped' && <Icon name="off" />}
      <span className="chip-name">{vm.name}</span>
      <span className="chip-load" style={{ width: `${share * 100}%` }} />
    </button>
  );
}

function Dragged({ drag }: { drag: Drag }) {
  const { vm, x, y, over } = drag;
  const target = over === undefined || over === vm.host ? null : over;
  return (
    <div className="dragged" style={{ transform: `translate(${x + 8}px, ${y + 8}px)` }} aria-hidden="true">
      {vm.name} {target === null ? 'onto another host' : `to ${target}`}
    </div>
  );
}

/** Arrows go from guest to guest and from lane to lane; M moves the guest that is selected. */
function onKey(
  event: KeyboardEvent<HTMLDivElement>,
  move: (vm: VmView) => void,
  vmsByHost: ReadonlyMap<string, readonly VmView[]>,
): void {
  const at = event.target;
  if (!(at instanceof HTMLElement) || at.dataset['vm'] === undefined || event.ctrlKey || event.metaKey) return;
  const lane = at.closest<HTMLElement>('[data-host]');
  const chips = [...(lane?.querySelectorAll<HTMLElement>('[data-vm]') ?? [])];
  const index = chips.indexOf(at);
  const beside = (down: boolean): HTMLElement | null | undefined => {
    const lanes = [...event.currentTarget.querySelectorAll<HTMLElement>('[data-host]')];
    const following = down
      ? lanes.slice(lanes.findIndex((each) => each === lane) + 1)
      : lanes
          .slice(
            0,
            lanes.findIndex((each) => each === lane),
          )
          .toReversed();
    return following.map((each) => each.querySelector<HTMLElement>('[data-vm]')).find((each) => each !== null);
  };
  switch (event.key) {
    case 'ArrowRight':
      chips[index + 1]?.focus();
      break;
    case 'ArrowLeft':
      chips[index - 1]?.focus();
      break;
    case 'ArrowDown':
      beside(true)?.focus();
      break;
    case 'ArrowUp':
      beside(false)?.focus();
      break;
    case 'm':
    case 'M': {
      const vm = vmsByHost.get(lane?.dataset['host'] ?? '')?.find(({ id }) => id === at.dataset['vm']);
      if (vm) move(vm);
      break;
    }
    default:
      return;
  }
  event.preventDefault();
}
