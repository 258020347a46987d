/** Moves that are under way, drawn over the lanes: from where the guest is to where it goes, with how much has crossed. */
import type { MigrationView } from '../../wire/endpoints.ts';
import { goTo, pathTo } from '../router.ts';
import { percent } from '../words.ts';
import { middleOf, type FleetLayout } from './fleet-layout.ts';

export function Moves(props: { open: readonly MigrationView[]; layout: FleetLayout; from: number; to: number }) {
  const { open, layout, from, to } = props;
  return (
    <svg className="moves" width="100%" height={layout.height} aria-label="Moves under way">
      <defs>
        <marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">
          <path d="M0 0 8 4 0 8z" />
        </marker>
      </defs>
      {open.map((migration) => (
        <Move key={migration.id} migration={migration} layout={layout} from={from} to={to} />
      ))}
    </svg>
  );
}

function Move(props: { migration: MigrationView; layout: FleetLayout; from: number; to: number }) {
  const { migration, layout, from, to } = props;
  const { vm, vmName, source, target } = migration;
  const a = middleOf(vm, source, layout);
  const b = middleOf(vm, target, layout);
  if (!a || !b || Math.max(a.y, b.y) < from || Math.min(a.y, b.y) > to) return null;
  const down = b.y > a.y ? 1 : -1;
  const start = { x: a.x, y: a.y + down * 15 };
  const end = { x: b.x, y: b.y - down * 17 };
  const bend = Math.max(28, Math.abs(end.y - start.y) * 0.45) * down;
  const path = `M${start.x} ${start.y} C${start.x} ${start.y + bend} ${end.x} ${end.y - bend} ${end.x} ${end.y}`;
  const share = crossed(migration);
  const says = share === null ? migration.phase : percent(share);
  const middle = { x: (start.x + end.x) / 2, y: (start.y + end.y) / 2 };
  const label = `${vmName} moves from ${source} to ${target}: ${migration.phaseSays}, ${says}`;
  const half = says.length * 3.6 + 8;
  return (
    <g
      className={`move ${migration.phase}`}
      role="link"
      tabIndex={0}
      aria-label={label}
      onClick={() => goTo(pathTo.migration(migration.id))}
      onKeyDown={(event) => event.key === 'Enter' && goTo(pathTo.migration(migration.id))}
    >
      <title>{label}</title>
      <path className="move-way" d={path} />
      <path className="move-flow" d={path} markerEnd="url(#arrow)" />
      <rect className="move-label" x={middle.x - half} y={middle.y - 10} width={2 * half} height="20" rx="10" />
      <text x={middle.x} y={middle.y + 4} textAnchor="middle">
        {says}
      </text>
    </g>
  );
}

/** Share of the guest's memory that is there; null: nothing is known of it. */
export function crossed({ sample }: Pick<MigrationView, 'sample'>): number | null {
  if (!sample || sample.totalBytes === 0) return null;
  return Math.min(1, Math.max(0, 1 - sample.remainingBytes / sample.totalBytes));
}
