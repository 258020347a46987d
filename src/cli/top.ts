/**
 * `drover top` as data: the fleet as it is, and the lines that show it. Pure: time is an argument and nothing is written. Not here:
 * the terminal (canvas.ts), asking the server (commands/top.ts).
 */
import { formatBytes, formatBytesPerSecond, formatMs, MiB } from '../model/units.ts';
import type { HostView, MigrationView, VmView } from '../wire/endpoints.ts';
import type { Style } from './live.ts';
import { table } from './table.ts';

export interface Look {
  /** Ms since the epoch. */
  readonly at: number;
  readonly hosts: readonly HostView[];
  readonly vms: readonly VmView[];
  /** Those that are open. */
  readonly migrations: readonly MigrationView[];
}

export const orders = ['cpu', 'memory', 'name'] as const;
export type Order = (typeof orders)[number];

/** A host or a share of it at which somebody should look. */
const busy = 0.7;
const full = 0.9;
const barCells = 10;

const colours = { red: 31, green: 32, yellow: 33, dim: 2, bold: 1 } as const;

/** The room there is on a terminal. */
export interface Room {
  readonly rows: number;
  readonly columns: number;
}

/** @param room null: as much as is wanted */
export function topLines(look: Look, order: Order, room: Room | null, style: Style): string[] {
  const columns = room?.columns ?? Infinity;
  const { hosts, vms, migrations } = look;
  const heads = [summary(look).slice(0, columns), ''];
  const hostLines = section(hostTable(hosts, style), columns, style);
  const moveLines = migrations.length === 0 ? [] : ['', ...section(moveTable(migrations, look.at), columns, style)];
  const guests = vms.filter(({ state }) => state !== 'stopped').toSorted(inOrder(order));
  const guestLines = guests.length === 0 ? [] : ['', ...section(guestTable(guests, migrations), columns, style)];
  const all = [...heads, ...hostLines, ...moveLines, ...guestLines];
  if (room === null || all.length <= room.rows) return all;
  // Hosts and moves are few; of guests those that matter most are left, and how many lines are not shown.
  const shown = all.slice(0, Math.max(0, room.rows - 1));
  return [...shown, `… ${all.length - shown.length} more`];
}

function summary({ at, hosts, vms, migrations }: Look): string {
  const up = hosts.filter(({ state }) => state === 'up').length;
  const running = vms.filter(({ state }) => state === 'running').length;
  const troubled = vms.filter(({ state }) => state === 'waiting' || state === 'crashed').length;
  const used = hosts.reduce((sum, { usedMiB }) => sum + usedMiB, 0) * MiB;
  const capacity = hosts.reduce((sum, { capacityMiB }) => sum + capacityMiB, 0) * MiB;
  const time = new Date(at).toISOString().slice(11, 19);
  return [
    `${time}  ${up} of ${hosts.length} hosts up`,
    `${running} of ${vms.length} VMs run${troubled === 0 ? '' : ` (${troubled} should and do not)`}`,
    `${migrations.length} moving`,
    `${formatBytes(used)} of ${formatBytes(capacity)} held by guests`,
  ].join(', ');
}

function hostTable(hosts: readonly HostView[], style: Style): string {
  return table(
    ['HOST', 'STATE', 'VMS', 'CPU', '', 'IN USE', 'HELD', '', 'OF'],
    hosts.map((host) => {
      // What is in use is of the whole machine, of which guests may have been given a part only: a share of it would mislead.
      const held = host.usedMiB / Math.max(1, host.capacityMiB);
      return [
        host.name,
        stateOf(host),
        String(host.vms.length),
        percent(host.cpuLoad),
        bar(host.cpuLoad, style),
        host.memoryUsedMiB === null ? '-' : formatBytes(host.memoryUsedMiB * MiB),
        percent(held),
        bar(held, style),
        formatBytes(host.capacityMiB * MiB),
      ];
    }),
  );
}

function stateOf(host: HostView): string {
  if (host.fenced) return 'fenced';
  if (host.sleep && host.sleep.state !== 'awake') return host.sleep.state;
  if (host.state === 'silent') return 'silent';
  return host.sickness?.severity ?? host.drain ?? (host.cordoned ? 'cordoned' : 'up');
}

function guestTable(vms: readonly VmView[], migrations: readonly MigrationView[]): string {
  const moves = new Map(migrations.map((migration) => [migration.id, migration]));
  return table(
    ['VM', 'HOST', 'STATE', 'CORES', 'OF', 'RESIDENT', 'OF', 'MOVE'],
    vms.map((vm) => {
      const move = vm.migration === null ? undefined : moves.get(vm.migration);
      return [
        vm.name,
        vm.host,
        vm.state,
        vm.cpuCores === null ? '-' : vm.cpuCores.toFixed(2),
        String(vm.cpus),
        vm.memoryResidentMiB === null ? '-' : formatBytes(vm.memoryResidentMiB * MiB),
        formatBytes(vm.memoryMiB * MiB),
        move === undefined ? '' : `to ${move.target}`,
      ];
    }),
  );
}

function moveTable(migrations: readonly MigrationView[], at: number): string {
  return table(
    ['MOVE', 'VM', 'FROM', 'TO', 'TECHNIQUE', 'PHASE', 'ROUND', 'LEFT', 'RATE', 'FOR'],
    migrations.map(({ id, vmName, source, target, technique, phase, sample, startedAt }) => [
      id,
      vmName,
      source,
      target,
      technique,
      phase,
      sample ? String(sample.round) : '-',
      sample ? formatBytes(sample.remainingBytes) : '-',
      sample ? formatBytesPerSecond(sample.bandwidthBytesPerSecond) : '-',
      formatMs(Math.max(0, at - startedAt)),
    ]),
  );
}

function inOrder(order: Order): (a: VmView, b: VmView) => number {
  const byName = (a: VmView, b: VmView): number => (a.name < b.name ? -1 : a.name > b.name ? 1 : 0);
  switch (order) {
    case 'cpu':
      return (a, b) => (b.cpuCores ?? -1) - (a.cpuCores ?? -1) || byName(a, b);
    case 'memory':
      return (a, b) => (b.memoryResidentMiB ?? -1) - (a.memoryResidentMiB ?? -1) || byName(a, b);
    case 'name':
      return byName;
  }
}

/** The head of a table bold, and words that a person should see at once in their colour. Done last: colours have no width. */
function section(text: string, columns: number, { colour }: Style): string[] {
  const lines = text.split('\n').map((line) => line.slice(0, columns));
  if (!colour) return lines;
  const paint = (words: string, which: keyof typeof colours): string => `\u001B[${colours[which]}m${words}\u001B[0m`;
  return lines.map((line, at) => {
    if (at === 0) return paint(line, 'bold');
    return line
      .replaceAll(/\b(silent|fenced|failing|wake-failed|crashed|waiting|recovering)\b/g, (word) => paint(word, 'red'))
      .replaceAll(/\b(suspect|cordoned|draining|drained|asleep|waking|going-to-sleep)\b/g, (word) =>
        paint(word, 'yellow'),
      )
      .replaceAll(/[█#]+(?=[░.]*)/g, (cells) =>
        paint(cells, cells.length >= full * barCells ? 'red' : cells.length >= busy * barCells ? 'yellow' : 'green'),
      );
  });
}

function bar(share: number | null, { unicode }: Style): string {
  if (share === null) return '';
  const cells = Math.round(Math.min(1, Math.max(0, share)) * barCells);
  const [done, open] = unicode ? ['█', '░'] : ['#', '.'];
  return `${done.repeat(cells)}${open.repeat(barCells - cells)}`;
}

function percent(share: number | null): string {
  return share === null ? '-' : `${Math.round(100 * share)} %`;
}
